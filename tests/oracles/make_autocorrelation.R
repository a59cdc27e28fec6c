# Autocorrelations, semivariograms and tests of independence of nlme, of the Ovary data.
#
# Usage: Rscript make_autocorrelation.R
#
# Writes autocorrelation.json beside this script.

suppressMessages({library(nlme); library(jsonlite)})

here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
data <- file.path(here, "../../sklearn_lmm/datasets/data/ovary.csv")
Ovary <- read.csv(data, colClasses = c(mare = "character"))
# nlme decorrelates residuals rightly only if groups are in the order of their rows.
Ovary$mare <- factor(Ovary$mare, unique(Ovary$mare))
Ovary <- groupedData(follicles ~ cycle | mare, Ovary, order.groups = FALSE)
waves <- follicles ~ sin(2 * pi * cycle) + cos(2 * pi * cycle)
control <- lmeControl(tolerance = 1e-10, msTol = 1e-12, opt = "optim",
                      reltol = 1e-14, niterEM = 0)
fits <- function(method) {
  plain <- lme(waves, Ovary, ~ 1 | mare, method = method, control = control)
  list(plain = plain,
       ar1 = update(plain, correlation = corAR1(form = ~ day | mare)))
}
numbers <- function(fit) list(
  acf = lapply(c(pearson = "pearson", normalized = "normalized"), function(kind)
    ACF(fit, maxLag = 10, resType = kind)$ACF),
  variogram = with(Variogram(fit, form = ~ day, collapse = "none"),
                   as.list(tapply(variog, dist, mean)[1:10])),
  pairs = with(Variogram(fit, form = ~ day, collapse = "none"),
               as.list(table(dist)[1:10])))
test <- function(method) {
  table <- do.call(anova, unname(fits(method)))
  list(statistic = table$L.Ratio[2], p_value = table$"p-value"[2],
       log_likelihood = table$logLik, df = table$df)
}
reml <- fits("REML")
write_json(c(lapply(reml, numbers), list(tests = list(ml = test("ML"),
                                                      reml = test("REML")))),
           file.path(here, "autocorrelation.json"), auto_unbox = TRUE, digits = 12,
           pretty = TRUE)
