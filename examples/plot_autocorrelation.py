r"""
====================================
Mares and trials: errors with memory
====================================

Every day for some weeks the follicles of eleven mares were counted by ultrasound. A
mare's counts follow the wave of her cycle, and mares differ. What is left is not
independent: a day above the wave is followed by another. A random intercept says
nothing of that, for it makes any two days equally alike.

The first part goes from independent errors to autocorrelated ones, with the pictures
that show why, and says what it does to the standard errors. The second has
autocorrelated trials of subjects who all met the same items.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_ovary
from sklearn_lmm.diagnostics import autocorrelation, marginal_correlation
from sklearn_lmm.displays import (
    AutocorrelationDisplay,
    QuantileDisplay,
    SemivariogramDisplay,
)
from sklearn_lmm.inference import coefficient_table, likelihood_ratio_test
from sklearn_lmm.intervals import variance_parameters
from sklearn_lmm.residuals import AR1

plt.rcParams["savefig.dpi"] = 150
plt.rc("axes", titlelocation="left")


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


def save(figure, file):
    """Save a figure."""
    figure.savefig(file)
    print(f"Figure saved: {file}")


X, y = load_ovary(return_X_y=True)
turn = 2 * np.pi * X["cycle"]
X = X.assign(sin=np.sin(turn), cos=np.cos(turn))
say(f"{len(y)} days of {X['mare'].nunique()} mares")

# %%
# Independent errors
# ~~~~~~~~~~~~~~~~~~
# Mare :math:`i` on day :math:`t`, at time :math:`c_{it}` of her cycle:
#
# .. math:: y_{it} = \beta_0 + \beta_1 \sin 2 \pi c_{it} + \beta_2 \cos 2 \pi c_{it}
#    + b_i + e_{it}.

WAVE = ["sin", "cos"]
independent = MixedEffectsRegressor("mare", fixed=WAVE).fit(X, y)
by_mare = X.assign(follicles=y, wave=independent.predict(X)).groupby("mare", sort=False)
figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True)
for ax, (mare, rows) in zip(axes.ravel(), by_mare, strict=False):
    ax.plot(rows["cycle"], rows["follicles"], ".-", color="grey", linewidth=0.6)
    ax.plot(rows["cycle"], rows["wave"], color="#0072B2")
    ax.set_title(f"mare {mare}")
axes[1, 1].set_xlabel("time in the cycle")
axes[0, 0].set_ylabel("follicles")
figure.tight_layout()
save(figure, "autocorrelation_mares.png")

# %%
# The autocorrelation of the residuals, and their semivariogram, which is the part of
# the variance by which two days differ, given how far they are apart: half of it on
# neighbouring days, all of it a week and more apart. The line is what the model says.

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
AutocorrelationDisplay.from_estimator(independent, X, y, time="day", ax=axes[0])
SemivariogramDisplay.from_estimator(independent, X, y, time="day", ax=axes[1])
save(figure, "autocorrelation_independent.png")
first = autocorrelation(independent, X, y, time="day").iloc[0]
say(
    f"Residuals of neighbouring days have the correlation "
    f"{first['autocorrelation']:.2f}, where chance leaves ± {first['upper']:.2f}."
)

# %%
# Errors that remember
# ~~~~~~~~~~~~~~~~~~~~
# An error is :math:`\phi` times that of the day before, and something new. One more
# parameter, and the likelihood has no doubt of it. Both models have the same fixed
# part, so that their restricted likelihoods may be compared as they are.

correlated = MixedEffectsRegressor("mare", fixed=WAVE, residual=AR1("day", "mare"))
correlated.fit(X, y)
test = likelihood_ratio_test(independent, correlated, refit=False)
print(test[["n_parameters", "log_likelihood", "aic", "statistic"]].round(2).to_string())
phi = variance_parameters(correlated).loc["phi"]
say(
    f"phi is {phi['estimate']:.3f} (standard error {phi['std_error']:.3f}); the "
    f"likelihood-ratio test of independence has p = {test['p_value'].iloc[1]:.0e}."
)

# %%
# Normalised residuals have lost what the model knows of: they are the errors of
# predicting a day from those before it, over their standard deviation. Nothing that
# matters is left of the autocorrelation, and they look normal.

figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
normalized = {"kind": "normalized", "random_effects": False}
AutocorrelationDisplay.from_estimator(correlated, X, y, ax=axes[0], **normalized)
SemivariogramDisplay.from_estimator(correlated, X, y, ax=axes[1])
QuantileDisplay.from_estimator(correlated, X, y, kind="normalized", ax=axes[2])
save(figure, "autocorrelation_ar1.png")
left = autocorrelation(correlated, X, y, **normalized)
inside = left["autocorrelation"].between(left["lower"], left["upper"])
say(
    f"The first autocorrelation is {left['autocorrelation'].iloc[0]:.2f} now; of "
    f"{len(left)} there are {int(inside.sum())} within their 95% bands."
)

# %%
# What it changes
# ~~~~~~~~~~~~~~~
# The wave is known less well than from 308 independent days: a day tells in part what
# the day before has told already. The cosine, which seemed certain, may be chance.

tables = {
    "independent": coefficient_table(independent),
    "AR1": coefficient_table(correlated),
}
for name, table in tables.items():
    print(name)
    print(table[["estimate", "std_error", "df", "p_value"]].round(3).to_string())
ratio = tables["AR1"]["std_error"] / tables["independent"]["std_error"]
df = tables["AR1"]["df"]["sin"], tables["independent"]["df"]["sin"]
say(
    f"The standard error of the sine is {ratio['sin']:.2f} times as large, that of the "
    f"cosine {ratio['cos']:.2f} times; the sine has {df[0]:.0f} degrees of freedom "
    f"in place of {df[1]:.0f}."
)
one = X[X["mare"] == "1"]
for name, model in (("independent", independent), ("AR1", correlated)):
    r = marginal_correlation(model, one, group="1").iloc[0]
    say(
        f"{name}: counts of neighbouring days correlate {r.iloc[1]:.2f}, those two "
        f"weeks apart {r.iloc[14]:.2f}"
    )

# %%
# Trials of subjects, with items
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# 40 subjects each answer to the same 24 items, in an order of their own. Attention
# comes and goes, so that neighbouring trials of a subject are alike; and items are not
# equally hard, for anybody. The series run across the items: errors of a subject's
# trials are correlated, and each of these trials has another level of the crossed
# factor. Practice has no effect: the slope of the trial is 0.

SUBJECTS, ITEMS, PHI = 40, 24, 0.6
rng = np.random.default_rng(11)
trial = np.tile(np.arange(ITEMS), (SUBJECTS, 1))
attention = rng.normal(size=trial.shape)
for t in range(1, ITEMS):
    new = np.sqrt(1 - PHI**2) * attention[:, t]
    attention[:, t] = PHI * attention[:, t - 1] + new
trials = pd.DataFrame(
    {
        "subject": np.repeat(np.arange(SUBJECTS), ITEMS),
        "item": rng.permuted(trial, axis=1).ravel(),
        "trial": trial.ravel(),
    }
)
of_items = 0.8 * rng.normal(size=ITEMS)
of_subjects = 0.6 * rng.normal(size=SUBJECTS)
response = 5 + of_subjects[trials["subject"]] + of_items[trials["item"]]
response += attention.ravel()

crossed = {"random": ["subject", "item"], "fixed": ["trial"]}
plain = MixedEffectsRegressor(**crossed).fit(trials, response)
memory = MixedEffectsRegressor(**crossed, residual=AR1("trial", "subject"))
memory.fit(trials, response)
test = likelihood_ratio_test(plain, memory, refit=False)
say(f"Test of independence: {test['statistic'].iloc[1]:.1f}, 1 degree of freedom")

figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
series = {"time": "trial", "series": "subject"}
AutocorrelationDisplay.from_estimator(plain, trials, response, ax=axes[0], **series)
SemivariogramDisplay.from_estimator(memory, trials, response, ax=axes[1])
AutocorrelationDisplay.from_estimator(
    memory, trials, response, kind="whitened", random_effects=False, ax=axes[2]
)
save(figure, "autocorrelation_trials.png")

# %%
# With crossed factors there is no order in which rows could lose their correlation one
# by one; the third panel has whitened residuals, which lose it all at once.

print(variance_parameters(memory)[["estimate", "std_error"]].round(2).to_string())
slopes = {
    name: coefficient_table(model).loc["trial"]
    for name, model in (("independent", plain), ("AR1", memory))
}
for name, row in slopes.items():
    say(
        f"{name}: practice {row['estimate']:.4f} ± {row['std_error']:.4f} a trial, "
        f"p = {row['p_value']:.3f}"
    )
say(
    "A covariate that changes slowly along the series pays for correlation that is "
    "left out: its standard error was "
    f"{slopes['AR1']['std_error'] / slopes['independent']['std_error']:.1f} times "
    "too small."
)

# %%
# The figures are saved here as PNG files, and shown where there is a display.

if plt.get_backend().lower() != "agg":
    plt.show()
