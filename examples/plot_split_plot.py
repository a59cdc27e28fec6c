r"""
=================================
Cakes: two sizes of error at once
=================================

Fifteen times over, cake mix was prepared by each of three recipes; every one of the 45
batches was then split into six cakes, baked at six temperatures. The angle at which a
cake breaks tells how tender it is.

Recipes were given to batches, temperatures to cakes. So recipes have to be judged by
how much batches differ, and temperatures by how much cakes of one batch differ: a
split-plot experiment. Tests that take the 270 cakes for independent are wrong for both,
in opposite directions.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_cake
from sklearn_lmm.displays import (
    CaterpillarDisplay,
    LatticeDisplay,
    QuantileDisplay,
    ResidualsDisplay,
)
from sklearn_lmm.inference import anova, contrast

plt.rcParams["savefig.dpi"] = 150
plt.rc("axes", titlelocation="left")


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


def save(display, file):
    """Save the figure of a display."""
    display.figure_.savefig(file)
    print(f"Figure saved: {file}")


cake = load_cake().frame
batches = cake.groupby(["recipe", "replicate"], observed=True)
say(f"{len(cake)} cakes of {batches.ngroups} batches, {batches.size().iloc[0]} of each")

# %%
# The model
# ~~~~~~~~~
# Batch :math:`j` of recipe :math:`r` has its own level :math:`b_{rj}`, which all its
# cakes share:
#
# .. math:: y_{rjt} = \mu_{rt} + b_{rj} + e_{rjt},
#    \qquad b_{rj} \sim N(0, \psi), \quad e_{rjt} \sim N(0, \sigma^2).
#
# Temperature enters as six levels, so that the tests assume nothing of its form.

cake["oven"] = cake["temperature"].astype(str).astype("category")
formula = "angle ~ recipe * oven + (1 | recipe:replicate)"
model = MixedEffectsRegressor(formula=formula).fit(cake)
between = np.sqrt(model.covariances_["recipe:replicate"].iloc[0, 0])
say(
    f"Batches differ with a standard deviation of {between:.2f} degrees, cakes of one "
    f"batch with one of {model.sigma_:.2f}."
)

# %%
# Tests with the right denominators
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# The design is balanced, so the degrees of freedom are known exactly, and Kenward and
# Roger's method finds them: 45 batches less 3 recipes leave 42 for recipes, and
# 42 (6 - 1) = 210 are left within batches.

right = anova(model, df="kenward-roger")
print(right[["num_df", "den_df", "statistic", "p_value"]].round(4))

# %%
# Without the batches every term gets the same denominator, 252 degrees of freedom and a
# variance that is neither one nor the other.

independent = MixedEffectsRegressor(formula="angle ~ recipe * oven").fit(cake)
wrong = anova(independent, df="residual")
print(wrong[["num_df", "den_df", "statistic", "p_value"]].round(4))
F = pd.DataFrame({"right": right["statistic"], "wrong": wrong["statistic"]}).stack()
say(
    f"Batches left out, the F statistic of recipes is {F['recipe', 'wrong']:.2f} in "
    f"place of {F['recipe', 'right']:.2f}, that of the oven {F['oven', 'wrong']:.1f} "
    f"in place of {F['oven', 'right']:.1f}."
)

# %%
# A line instead of six levels
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Angles grow evenly with the temperature. A slope for all recipes says so in one
# number, and the test is sharper: one degree of freedom instead of five.

line = MixedEffectsRegressor(
    formula="angle ~ recipe + temperature + (1 | recipe:replicate)"
).fit(cake)
slope = contrast(line, {"temperature": 10}, df="kenward-roger").iloc[0]
say(
    f"Ten degrees Fahrenheit more add {slope['estimate']:.2f} degrees to the angle "
    f"(standard error {slope['std_error']:.2f}, t = {slope['statistic']:.1f} with "
    f"{slope['df']:.0f} degrees of freedom)."
)

lattice = LatticeDisplay.from_estimator(
    line, cake, cake["angle"], x="temperature", levels=10
)
save(lattice, "split_plot_lines.png")

# %%
# Are the batches normal?
# ~~~~~~~~~~~~~~~~~~~~~~~
# The highest batches are too high for a normal distribution. They are the first and
# second replicates of all three recipes: a replicate was perhaps a day, and belongs in
# the model.

save(CaterpillarDisplay.from_estimator(line), "split_plot_batches.png")
save(QuantileDisplay.from_random_effects(line), "split_plot_quantiles.png")
levels = line.effects_["recipe:replicate"]["(Intercept)"]
highest = levels.nlargest(6).index.get_level_values("replicate")
say(f"Replicates of the six highest batches: {', '.join(map(str, sorted(highest)))}")

days = MixedEffectsRegressor(
    formula="angle ~ recipe * oven + (1 | replicate) + (1 | recipe:replicate)"
).fit(cake)
shares = pd.Series(
    {
        "replicate": days.covariances_["replicate"].iloc[0, 0],
        "batch": days.covariances_["recipe:replicate"].iloc[0, 0],
        "cake": days.sigma_**2,
    }
)
print(shares.div(shares.sum()).round(2).to_string())
recipes = anova(days, df="kenward-roger").loc["recipe"]
say(
    f"Compared within replicates, recipes have F = {recipes['statistic']:.2f} "
    f"(p = {recipes['p_value']:.2f}): still nothing that cannot be chance."
)
residuals = ResidualsDisplay.from_estimator(days, cake, cake["angle"])
save(residuals, "split_plot_residuals.png")

# %%
# The figures are saved here as PNG files, and shown where there is a display.

if plt.get_backend().lower() != "agg":
    plt.show()
