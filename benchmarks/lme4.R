# Time lme4 on one case: Rscript lme4.R FORMULA METHOD DIRECTORY prints what
# worker.py prints, with the same rules.
suppressPackageStartupMessages(library(lme4))

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

arguments <- commandArgs(trailingOnly = TRUE)
columns <- read.csv(file.path(arguments[3], "columns.csv"))
data <- as.data.frame(Map(read_column, arguments[3], columns$name, columns$kind,
                          columns$rows), col.names = columns$name)
formula <- as.formula(arguments[1])
# Grouping columns become factors beforehand, so that this is not timed.
for (name in unique(unlist(lapply(findbars(formula), function(b) all.vars(b[[3]])))))
  data[[name]] <- factor(data[[name]])

fit <- function() lmer(formula, data, REML = arguments[2] == "reml")
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
slow <- first > 20
runs <- if (slow) first else numeric()
while (length(runs) < (if (slow) 3 else 5) || (sum(runs) < 2 && length(runs) < 50))
  runs <- c(runs, time())

cat(sprintf(
  '{"seconds": [%s], "log_likelihood": %.17g, "peak_bytes": %s, "versions": {%s}}\n',
  paste(sprintf("%.6f", runs), collapse = ", "), as.numeric(logLik(model)),
  if (linux) sprintf("%.0f", peak) else "null",
  sprintf('"lme4": "%s", "R": "%s", "BLAS of R": "%s"', packageVersion("lme4"),
          getRversion(), basename(La_library()))))
