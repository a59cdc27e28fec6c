# Cluster-robust covariances of four models of lmer.json, by clubSandwich.
#
# Usage: Rscript make_robust.R
#
# The models are put together at the theta of lmer.json, not fitted, so that the
# numbers are good to all digits.  Writes robust.json beside this script.

suppressMessages({library(lme4); library(clubSandwich); library(jsonlite)})

here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
oracles <- read_json(file.path(here, "lmer.json"), simplifyVector = TRUE)
level_table <- read.csv(file.path(here, "levels.csv"), colClasses = "character")
models <- list(sleep_rs_reml = "Subject", sleep_rs_ml = "Subject",
               sleep_na_reml = "Subject", chick_rs_reml = "Chick",
               machines_nested_reml = "Worker")

read_data <- function(name) {
  levels <- with(level_table[level_table$dataset == name, ],
                 split(level, factor(column, unique(column))))
  d <- read.csv(file.path(here, "data", paste0(name, ".csv")),
                colClasses = sapply(levels, function(l) "character"))
  for (column in names(levels)) d[[column]] <- factor(d[[column]], levels[[column]])
  na.omit(d)
}

at_theta <- function(oracle, data) {
  parts <- lFormula(as.formula(oracle$formula), data, REML = oracle$method == "REML")
  deviance <- do.call(mkLmerDevfun, parts)
  theta <- unlist(oracle$theta)
  value <- deviance(theta)
  stopifnot(abs(value - oracle$criterion) < 1e-8)
  optimum <- list(par = theta, fval = value, conv = 0, message = "")
  mkMerMod(environment(deviance), optimum, parts$reTrms, fr = parts$fr)
}

robust <- function(name, column) {
  oracle <- oracles[[name]]
  data <- read_data(oracle$dataset)
  model <- at_theta(oracle, data)
  kinds <- c("CR0", "CR1", "CR2", "CR3")
  of_kind <- function(kind) {
    v <- vcovCR(model, cluster = data[[column]], type = kind)
    test <- coef_test(model, vcov = v, test = "Satterthwaite")
    list(vcov = unname(as.matrix(v)), df = test$df_Satt)
  }
  c(list(cluster = column), setNames(lapply(kinds, of_kind), kinds))
}

results <- Map(robust, names(models), models)
versions <- sapply(c("lme4", "clubSandwich"), function(p) as.character(packageVersion(p)))
write_json(c(list(versions = as.list(versions)), results),
           file.path(here, "robust.json"), digits = I(17), auto_unbox = TRUE,
           pretty = FALSE)
