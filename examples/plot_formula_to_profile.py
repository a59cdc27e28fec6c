r"""
====================================
From a formula to profile likelihood
====================================

18 people slept three hours a night, and their reaction time was measured on ten days.
A statistician's way through the same data: formula, summary, tests of both parts of the
model, intervals by three methods, and a look at what the fit rests on.
"""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd

from sklearn_lmm import lmer
from sklearn_lmm.datasets import load_sleepstudy
from sklearn_lmm.diagnostics import icc, r_squared
from sklearn_lmm.displays import (
    CaterpillarDisplay,
    CoefficientDisplay,
    ProfileDisplay,
    ResidualsDisplay,
    ShrinkageDisplay,
)
from sklearn_lmm.inference import coefficient_table, likelihood_ratio_test, ranova
from sklearn_lmm.intervals import bootstrap, confidence_intervals, profile

plt.rcParams["savefig.dpi"] = 150
plt.rc("axes", titlelocation="left")


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


def save(display, file):
    """Save the figure of a display."""
    display.figure_.savefig(file)
    print(f"Figure saved: {file}")


sleep = load_sleepstudy().frame

# %%
# The formula
# ~~~~~~~~~~~
# A line for the population, and for each subject its own intercept and slope, which may
# be correlated.

model = lmer("Reaction ~ Days + (Days | Subject)", sleep)
print(model.summary())

# %%
# Degrees of freedom
# ~~~~~~~~~~~~~~~~~~
# 180 rows, but a slope is measured as often as there are subjects: the standard error
# of the mean slope has 17 degrees of freedom, and not 178. Satterthwaite's and Kenward
# and Roger's methods agree here, where the design is balanced.

rows = {
    df: coefficient_table(model, df=df).loc["Days"]
    for df in ("satterthwaite", "kenward-roger", "residual")
}
print(pd.DataFrame(rows).T.round({"estimate": 3, "std_error": 3, "df": 1}).to_string())

# %%
# Is the random slope needed?
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# The test of a random term compares the likelihoods with and without it.

print(ranova(model).round(4).to_string())

# %%
# And the correlation? Two bars leave it out.

simpler = lmer("Reaction ~ Days + (Days || Subject)", sleep)
comparison = likelihood_ratio_test(simpler, model)
print(comparison.round(3).to_string())
say(
    f"Nothing speaks for a correlation (p = {comparison['p_value'].iloc[-1]:.2f}): "
    "people who react slowly when rested do not tire faster."
)

# %%
# How much is explained
# ~~~~~~~~~~~~~~~~~~~~~

r2, within = r_squared(model), icc(model)
say(
    f"Days alone explain {r2['marginal']:.0%} of the variance, days and subjects "
    f"{r2['conditional']:.0%}; of what days leave, {within['adjusted']:.0%} lies "
    "between subjects."
)

save(CaterpillarDisplay.from_estimator(model), "profile_subjects.png")
save(ShrinkageDisplay.from_estimator(model), "profile_shrinkage.png")

# %%
# Intervals by three methods
# ~~~~~~~~~~~~~~~~~~~~~~~~~~
# Wald's intervals take the likelihood for a parabola. Profiles follow it, the bootstrap
# simulates from the fitted model and fits again.

resampled = bootstrap(model, sleep, sleep["Reaction"], n_resamples=300, random_state=1)
intervals = pd.concat(
    {
        "wald": confidence_intervals(model, method="wald"),
        "profile": confidence_intervals(model, method="profile"),
        "bootstrap": resampled.intervals(),
    },
    axis=1,
)
ends = [
    (m, end) for m in ("wald", "profile", "bootstrap") for end in ("lower", "upper")
]
print(intervals[ends].round(2).to_string())

# %%
# A profile that is a straight line is as good as a standard error. Those of the
# standard deviations bend: their intervals reach further up than down.

traced = profile(model)
save(ProfileDisplay(traced).plot(), "profile_zeta.png")
save(ProfileDisplay(traced).plot(kind="density"), "profile_density.png")

# %%
# What the fit rests on
# ~~~~~~~~~~~~~~~~~~~~~
# Three reaction times are far off, and the tails are heavier than normal ones. Leaving
# out the training days 0 and 1, which were not yet days of little sleep, changes what
# the slope means, and its size.

residuals = ResidualsDisplay.from_estimator(model, sleep, sleep["Reaction"])
save(residuals, "profile_residuals.png")
tired = sleep[sleep["Days"] >= 2].assign(Days=lambda rows: rows["Days"] - 2)
later = lmer("Reaction ~ Days + (Days | Subject)", tired)
models = {"all days": model, "from day 2": later}
save(CoefficientDisplay.from_estimator(models), "profile_coefficients.png")
slopes = [m.fixed_effects_["Days"] for m in models.values()]
say(f"Slope: {slopes[0]:.1f} ms a day over all days, {slopes[1]:.1f} from day 2 on")

# %%
# The figures are saved here as PNG files, and shown where there is a display.

if plt.get_backend().lower() != "agg":
    plt.show()
