# Refit every model of lmer.json with lme4 and print how far the numbers are apart.
#
# Usage: Rscript make.R OUT.json
#
# lmer's default fit comes first; its theta is then polished by Newton steps with
# extrapolated differences, because the optimiser stops 1e-5 away.  The data are
# those beside this script, lme4's own, and the exam scores that the package ships.
# OUT.json receives the new numbers in full digits.

suppressMessages({library(lme4); library(jsonlite)})

here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
out <- commandArgs(trailingOnly = TRUE)[1]
oracles <- read_json(file.path(here, "lmer.json"), simplifyVector = TRUE)
level_table <- read.csv(file.path(here, "levels.csv"), colClasses = "character")

read_data <- function(name) {
  if (name %in% c("Penicillin", "Pastes", "InstEval"))
    return(get(data(list = name, package = "lme4", envir = environment())))
  if (name == "Exam") {
    shipped <- file.path(here, "..", "..", "sklearn_lmm", "datasets", "data")
    d <- read.csv(file.path(shipped, "exam.csv"), colClasses = c(school = "character"))
    d$sex <- factor(d$sex, c("F", "M"))
    d$schgend <- factor(d$schgend, c("mixed", "boys", "girls"))
    return(transform(d, school = factor(school, unique(school))))
  }
  levels <- with(level_table[level_table$dataset == name, ],
                 split(level, factor(column, unique(column))))
  d <- read.csv(file.path(here, "data", paste0(name, ".csv")),
                colClasses = sapply(levels, function(l) "character"))
  for (column in names(levels))
    d[[column]] <- factor(d[[column]], levels[[column]],
                          ordered = column == "temperature")
  d
}

# Fourth-order central differences: error h^4 in the step, noise / h in the digits.
difference <- function(f, x, i, h) {
  at <- function(k) { x[i] <- x[i] + k * h; f(x) }
  (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
}
gradient <- function(f, x, h = 2e-3)
  sapply(seq_along(x), function(i) difference(f, x, i, h * max(abs(x[i]), 0.05)))
hessian <- function(f, x)
  matrix(sapply(seq_along(x), function(i)
    difference(function(z) gradient(f, z), x, i, 5e-3 * max(abs(x[i]), 0.05))),
    length(x))

# A diagonal of theta that ends on its bound 0 stays there.
polish <- function(deviance, theta, lower, steps = 4) {
  free <- !(lower == 0 & theta < 1e-4)
  theta[!free] <- 0
  reduced <- function(z) deviance(replace(theta, free, z))
  z <- theta[free]
  if (length(z))
    for (step in seq_len(steps)) z <- z - solve(hessian(reduced, z), gradient(reduced, z))
  replace(theta, free, z)
}

refit <- function(oracle) {
  d <- read_data(oracle$dataset)
  if (is.character(oracle$weights)) d$prior <- d[[oracle$weights]] else d$prior <- 1
  parts <- suppressMessages(
    lFormula(as.formula(oracle$formula), d, REML = oracle$method == "REML", weights = prior)
  )
  deviance <- do.call(mkLmerDevfun, parts)
  first <- suppressMessages(optimizeLmer(deviance))
  theta <- polish(deviance, first$par, parts$reTrms$lower)
  optimum <- list(par = theta, fval = deviance(theta), conv = 0, message = "")
  fit <- mkMerMod(environment(deviance), optimum, parts$reTrms, fr = parts$fr)
  V <- as.matrix(vcov(fit))
  list(default_criterion = first$fval,
       criterion = optimum$fval,
       sigma = sigma(fit),
       pwrss = fit@devcomp$cmp[["pwrss"]],
       ldL2 = fit@devcomp$cmp[["ldL2"]],
       ldRX2 = fit@devcomp$cmp[["ldRX2"]],
       theta = as.list(getME(fit, "theta")),
       beta = as.list(fixef(fit)),
       se = as.list(sqrt(diag(V))),
       vcov = unname(V),
       covariances = lapply(VarCorr(fit), function(block)
         list(coefficients = I(colnames(block)), values = matrix(block, nrow(block)))))
}

apart <- function(new, old, scale)
  max(abs(unlist(new) - unlist(old)) / scale)

made <- list()
cat(sprintf("%-28s%10s%10s%10s%10s%10s\n", "", "criterion", "sigma", "theta", "beta", "se"))
for (name in names(oracles)) {
  old <- oracles[[name]]
  new <- made[[name]] <- refit(old)
  stopifnot(identical(names(new$beta), names(old$beta)),
            identical(names(new$theta), names(old$theta)))
  cat(sprintf("%-28s%10.1e%10.1e%10.1e%10.1e%10.1e\n", name,
              abs(new$criterion - old$criterion),
              apart(new$sigma, old$sigma, old$sigma),
              apart(new$theta, old$theta, pmax(1, abs(unlist(old$theta)))),
              apart(new$beta, old$beta, pmax(abs(unlist(old$beta)), unlist(old$se))),
              apart(new$se, old$se, unlist(old$se))))
}
write_json(made, out, auto_unbox = TRUE, digits = NA, pretty = TRUE)
