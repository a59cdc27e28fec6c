# Time lme4 or glmmTMB on one case: Rscript lmm.R PACKAGE FORMULA METHOD DIRECTORY
# prints what worker.py prints, with the same rules.
arguments <- commandArgs(trailingOnly = TRUE)
package <- arguments[1]
directory <- arguments[4]
suppressPackageStartupMessages(library(package, character.only = TRUE))

read_column <- function(directory, name, kind, rows) {
  file <- file.path(directory, paste0(name, ".bin"))
  if (kind == "double") return(readBin(file, "double", rows))
  values <- readBin(file, "integer", rows, size = 8)
  if (kind == "integer") return(values)
  labels <- readLines(file.path(directory, paste0(name, ".txt")))
  structure(values + 1L, levels = labels, class = "factor")
}

memory <- function(entry) {
  line <- grep(entry, readLines("/proc/self/status"), value = TRUE)
  1024 * as.numeric(gsub("[^0-9]", "", line))
}

columns <- read.csv(file.path(directory, "columns.csv"))
data <- as.data.frame(Map(read_column, directory, columns$name, columns$kind,
                          columns$rows), col.names = columns$name)
formula <- as.formula(arguments[2])
# Grouping columns become factors beforehand, so that this is not timed.
for (name in unique(unlist(lapply(lme4::findbars(formula),
                                  function(b) all.vars(b[[3]])))))
  data[[name]] <- factor(data[[name]])

reml <- arguments[3] == "reml"
threads <- as.integer(Sys.getenv("OMP_NUM_THREADS", "1"))
fit <- if (package == "glmmTMB") {
  function() glmmTMB(formula, data, REML = reml,
                     control = glmmTMBControl(parallel = threads))
} else {
  function() lmer(formula, data, REML = reml)
}
model <- NULL
time <- function() {
  began <- Sys.time()
  model <<- fit()
  as.numeric(Sys.time() - began, units = "secs")
}

gc()
linux <- file.exists("/proc/self/clear_refs")
if (linux) writeLines("5", "/proc/self/clear_refs")
before <- if (linux) memory("VmRSS")
first <- time()
peak <- if (linux) memory("VmHWM") - before else NULL
runs <- if (first > 20) first else numeric()
wanted <- if (first > 60) 1 else if (first > 20) 3 else 5
while (length(runs) < wanted || (sum(runs) < 2 && length(runs) < 50))
  runs <- c(runs, time())

cat(sprintf(
  '{"seconds": [%s], "log_likelihood": %.17g, "peak_bytes": %s, "versions": {%s}}\n',
  paste(sprintf("%.6f", runs), collapse = ", "), as.numeric(logLik(model)),
  if (linux) sprintf("%.0f", peak) else "null",
  sprintf('"%s": "%s", "R": "%s", "BLAS of R": "%s"', package,
          packageVersion(package), getRversion(), basename(La_library()))))
