r"""
========================
From lme4 to sklearn_lmm
========================

A phrase book: what one says in R with lme4 and the packages around it (lmerTest,
pbkrtest, emmeans, broom.mixed, influence.ME, performance), and what one says here.
Every phrase is run, and its answer printed. The numbers are those of the R packages,
as far as they are not drawn at random; where the two languages mean different things
it is said at the end.
"""

import textwrap
import warnings

import numpy as np
import pandas as pd

from sklearn_lmm import (
    MixedEffectsRegressor,
    diagnostics,
    inference,
    intervals,
    lmer,
    summaries,
)
from sklearn_lmm.datasets import load_cake, load_pastes, load_sleepstudy

MODULES = (diagnostics, inference, intervals, summaries)
WORDS = {name: getattr(module, name) for module in MODULES for name in module.__all__}
pd.set_option("display.width", 80, "display.max_columns", 8, "display.precision", 4)
np.set_printoptions(precision=4, suppress=True, linewidth=80)


def say(text):
    """Print sentences as a paragraph."""
    print("\n" + textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


def chapter(title):
    """Print a heading."""
    print(f"\n\n{title}\n{'=' * len(title)}")


def phrase(r, python):
    """Print a phrase in both languages and its answer, which is that of the second."""
    print(f"\n R> {r}\n>>> {python}")
    print(eval(python, WORDS | globals()))


sleepstudy = load_sleepstudy(as_frame=True).frame
y = sleepstudy["Reaction"]
cake = load_cake(as_frame=True).frame
pastes = load_pastes(as_frame=True).frame

# %%
# Fitting
# ~~~~~~~
# The formula is lme4's. `lmer` returns a fitted `MixedEffectsRegressor`, which is also
# what `MixedEffectsRegressor(formula=...)` is: that form goes into `cross_validate`,
# `GridSearchCV` and `clone`, and its `fit` takes the frame. Other words come from four
# modules.
chapter("Fitting")
for module in MODULES:
    say(f"from {module.__name__} import {', '.join(module.__all__)}")
m = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
phrase("summary(m)", "m.summary(sleepstudy)")
m_ml = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy, REML=False)
phrase("deviance(lmer(..., REML = FALSE))", "round(-2 * m_ml.log_likelihood_, 3)")
uncorrelated = lmer("Reaction ~ Days + (Days || Subject)", sleepstudy)
phrase(
    "VarCorr(lmer(Reaction ~ Days + (Days || Subject)))",
    "uncorrelated.summary().random[['group', 'name', 'std_dev']]",
)
nested = lmer("strength ~ 1 + (1 | batch/cask)", pastes)
phrase("(1 | batch/cask)", "nested.summary().random[['group', 'std_dev']]")
split_plot = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
phrase("fixef(lmer(angle ~ recipe*temperature + ...))", "split_plot.fixed_effects_")
curve = lmer("Reaction ~ poly(Days, 2) + offset(0*Days) + (1 | Subject)", sleepstudy)
phrase("poly(), offset(), I(), log(), scale(), 0 +, ...", "curve.fixed_effects_")

# %%
# What was estimated
# ~~~~~~~~~~~~~~~~~~
# Attributes end in an underscore and cost nothing.
chapter("What was estimated")
phrase("fixef(m)", "m.fixed_effects_")
phrase("head(ranef(m)$Subject, 3)", "m.effects_['Subject'].head(3)")
phrase(
    "head(coef(m)$Subject, 3)",
    "(m.effects_['Subject'] + m.fixed_effects_).head(3)",
)
phrase("as.data.frame(ranef(m))  # condsd", "m.random_effects(return_std=True).head(2)")
phrase("VarCorr(m)$Subject", "m.covariances_['Subject']")
phrase("sigma(m); getME(m, 'theta')", "m.sigma_, m.theta_")
phrase("logLik(m); isSingular(m)", "m.log_likelihood_, m.singular_")
phrase("AIC(m); BIC(m)", "information_criteria(m)[['aic', 'bic']]")
phrase("vcov(m)", "m.fit_.beta_covariance")
phrase("dim(getME(m, 'Z'))", "m.design_matrix(sleepstudy)[0].shape")

# %%
# Predicting
# ~~~~~~~~~~
chapter("Predicting")
rows = sleepstudy.head(2)
stranger = rows.assign(Subject="new")
phrase("predict(m, rows)", "m.predict(rows)")
phrase("predict(m, rows, re.form = NA)", "m.predict(rows, random_effects=False)")
phrase("predict(m, stranger, allow.new.levels = TRUE)", "m.predict(stranger)")
phrase("# lme4 has no prediction intervals", "m.predict_interval(stranger)")
phrase(
    "dim(simulate(m, nsim = 5, seed = 1))",
    "simulate(m, sleepstudy, n=5, random_state=1).shape",
)
phrase("augment(m)", "augment(m, sleepstudy)[['.fitted', '.resid', '.hat']].head(2)")

# %%
# Testing
# ~~~~~~~
# Degrees of freedom are Satterthwaite's unless asked otherwise.
chapter("Testing")
phrase("lmerTest: coef(summary(m))", "m.summary().fixed")
phrase("pbkrtest: ddf = 'Kenward-Roger'", "m.summary(df='kenward-roger').fixed")
phrase(
    "lmerTest: anova(split_plot)", "anova(split_plot)[['num_df', 'den_df', 'p_value']]"
)
phrase(
    "lmerTest: contest(m, c(1, 9), joint = FALSE)",
    "contrast(m, {'(Intercept)': 1, 'Days': 9})",
)
straight = lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)
phrase(
    "anova(straight, m)  # refits by ML",
    "likelihood_ratio_test(straight, m)[['log_likelihood', 'statistic', 'df']]",
)
phrase("lmerTest: ranova(m)", "ranova(m)[['n_parameters', 'statistic', 'p_value']]")
phrase("drop1(m, test = 'F')", "drop1(m)[['statistic', 'den_df', 'p_value']]")
phrase("emmeans(split_plot, ~ recipe)", "marginal_means(split_plot, 'recipe')")
phrase(
    "pairs(emmeans(split_plot, ~ recipe))  # Tukey",
    "pairwise(marginal_means(split_plot, 'recipe'))",
)
phrase(
    "emtrends(split_plot, ~ recipe, 'temperature')",
    "marginal_trends(split_plot, 'temperature', 'recipe')",
)

# %%
# Intervals, and how much is explained
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
chapter("Intervals, and how much is explained")
phrase(
    "confint(m, method = 'Wald')", "confidence_intervals(m, method='wald').iloc[:, :3]"
)
phrase("confint(m)", "confidence_intervals(m, method='profile').iloc[:, :3]")
phrase(
    "bootMer(m, ..., nsim = 200)",
    "bootstrap(m, sleepstudy, y, n_resamples=200, random_state=0).std_errors",
)
phrase("# no standard errors in lme4", "variance_parameters(m).iloc[:, 3:5]")
phrase("performance: r2(m)", "r_squared(m)")
phrase("performance: icc(m)", "icc(m)")
phrase("broom.mixed: tidy(m)", "tidy(m).iloc[:, [1, 2, 3, 4]]")
phrase("broom.mixed: glance(m)", "glance(m).T")

# %%
# Diagnosing
# ~~~~~~~~~~
# The rows are not kept, so what needs them takes them again, and refuses others.
chapter("Diagnosing")
phrase("resid(m, scaled = TRUE)[1:3]", "residuals(m, sleepstudy, y, kind='scaled')[:3]")
phrase("sum(hatvalues(m))", "leverage(m, sleepstudy, y).sum()")
phrase("max(cooks.distance(m))", "cooks_distance(m, sleepstudy, y).max()")
phrase(
    "influence.ME: influence(m, 'Subject')",
    "influence(m, sleepstudy, y, by='Subject').iloc[:3, :3]",
)

# %%
# False friends
# ~~~~~~~~~~~~~
chapter("False friends")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    boxes = lmer("angle ~ recipe + (recipe || replicate)", cake)
independent = boxes.summary().random["corr_1"].isna().all()
say(f"""A double bar with a category: lme4 keeps the correlations between its levels;
here all columns before the bar are independent ({independent}). So do afex and lme4
from version 2 on, if asked.""")
say("""Rows with missing values: lme4 leaves them out without a word; here they are
refused, by column and number, unless na_action='drop' is given.""")
say("""Weights: of lmer() they are lme4's, precisions. MixedEffectsRegressor takes
sample_weight as scikit-learn does, for so many equal rows; weights='precision' is the
other meaning.""")
say("""Tests of variances: under the null hypothesis a variance lies on its boundary, so
that ranova and likelihood_ratio_test take a mixture of distributions, where lmerTest
and lme4 take one chi-squared, with p-values that are too large (here 5.0e-10).""")
say("""Order: terms stay in the order written, in theta_ too; lme4 sorts them by their
number of levels. The levels of batch/cask are called (batch, cask), not cask:batch.""")
say("""New levels: lme4 stops unless allow.new.levels is set; here they are predicted
without their effect, and stop if handle_unknown='error'.""")
say("""Categories: text is sorted character by character, capitals first, where R sorts
as a dictionary does; a pandas Categorical brings its own order, and ordered=True brings
polynomial contrasts.""")
model = MixedEffectsRegressor(formula="Reaction ~ Days + (Days | Subject)")
say(f"""lmer() is short for MixedEffectsRegressor: {model!r} has the same
log-likelihood, {model.fit(sleepstudy).log_likelihood_:.3f}.""")
