r"""
==================================================
Ratings of lectures: looking hard at a crossed fit
==================================================

Students of a department rated their lecturers from 1 to 5. A student rates several
lecturers and a lecturer is rated by many students: the two factors are crossed, and no
row is independent of all others. Do lectures given as a service for other departments
fare worse or better? A fit has an answer at once. Here we ask what it is worth.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_insteval
from sklearn_lmm.diagnostics import (
    check,
    cluster_independence,
    cooks_distance,
    influence,
    leverage,
    residuals,
)
from sklearn_lmm.inference import coefficient_table, robust_table

plt.rcParams["savefig.dpi"] = 150
plt.rc("axes", titlelocation="left")


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


def save(figure, file):
    """Save a figure."""
    figure.savefig(file)
    print(f"Figure saved: {file}")


ratings = load_insteval().frame
ratings = ratings[ratings["dept"].astype(str) == "15"].reset_index(drop=True)
X = pd.DataFrame(
    {
        "service": (ratings["service"].astype(str) == "1").astype(float),
        "semesters": ratings["studage"].astype(str).astype(float),
        "age of lecture": ratings["lectage"].astype(str).astype(float),
        "student": ratings["s"].astype(str),
        "lecturer": ratings["d"].astype(str),
    }
)
y = ratings["y"].to_numpy(float)
say(
    f"{len(X)} ratings of {X['lecturer'].nunique()} lecturers by "
    f"{X['student'].nunique()} students"
)

# %%
# A factor forgotten
# ~~~~~~~~~~~~~~~~~~
# Suppose we only think of the students. Then ratings by different students should be
# independent. `cluster_independence` compares residuals that the model's own
# covariance has made uncorrelated, here of all pairs of ratings that share the
# lecturer but not the student:

covariates = ["service", "semesters", "age of lecture"]
students = MixedEffectsRegressor("student", fixed=covariates).fit(X, y)
forgotten = cluster_independence(students, X, y, across="lecturer")
print(forgotten.loc["between, same lecturer"].round(3).to_string())

# %%
# So lecturers go into the model, and the same pairs have nothing left in common.

model = MixedEffectsRegressor(["student", "lecturer"]).fit(X, y)
table = cluster_independence(model, X, y, cluster="student", across="lecturer")
left = table.loc["between, same lecturer", "correlation"]
say(
    f"Ratings of one lecturer by two students correlate by "
    f"{forgotten.loc['between, same lecturer', 'correlation']:.2f} if lecturers are "
    f"left out, by {left:.3f} if they are not."
)
both = pd.DataFrame(
    {
        "students only": coefficient_table(students).loc["service"],
        "and lecturers": coefficient_table(model).loc["service"],
    }
)
print(both.loc[["estimate", "std_error", "statistic"]].round(3))

# %%
# What may be wrong
# ~~~~~~~~~~~~~~~~~

report = check(model, X, y)
print(report)

# %%
# Single lecturers
# ~~~~~~~~~~~~~~~~
# How far would the effects move without one of the lecturers? With the variances as
# they are the answer is exact and costs no refit. Two Newton steps for each lecturer
# move the variances too (`refit="exact"` goes all the way); the picture says that this
# hardly matters.

kept = influence(model, X, y, by="lecturer")
moved = influence(model, X, y, by="lecturer", refit="newton")
se = np.sqrt(np.diag(model.fit_.beta_covariance))[1]
worst = kept["dbeta_service"].abs().idxmax()
say(
    f"Without lecturer {worst} the effect of service would be "
    f"{model.fixed_effects_['service'] - kept.loc[worst, 'dbeta_service']:.3f} in "
    f"place of {model.fixed_effects_['service']:.3f}, which is "
    f"{abs(kept.loc[worst, 'dbeta_service']) / se:.2f} standard errors; with the "
    f"variances estimated again "
    f"{model.fixed_effects_['service'] - moved.loc[worst, 'dbeta_service']:.3f}."
)

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
axes[0].axhline(0, color="0.8", zorder=0)
axes[0].scatter(kept["n_obs"], kept["dbeta_service"] / se, s=12)
axes[0].annotate(
    worst,
    (kept.loc[worst, "n_obs"], kept.loc[worst, "dbeta_service"] / se),
    xytext=(6, 0),
    textcoords="offset points",
)
axes[0].set(
    title="Shift of the service effect",
    xlabel="ratings of the lecturer",
    ylabel="standard errors",
)
axes[1].axline((0, 0), slope=1, color="0.8", zorder=0)
axes[1].scatter(kept["dbeta_service"] / se, moved["dbeta_service"] / se, s=12)
axes[1].set(
    title="The same, variances moved",
    xlabel="variances kept (standard errors)",
    ylabel="variances estimated again",
)
save(figure, "crossed_lecturers.png")

# %%
# Single ratings
# ~~~~~~~~~~~~~~
# A row's leverage says how much of its own prediction it determines. It is high where
# the student has rated little else, or the lecturer has few ratings.

h = leverage(model, X, y)
cook = cooks_distance(model, X, y)
counts = X["student"].map(X["student"].value_counts()).to_numpy()
say(
    f"The leverages add up to {h.sum():.0f} effective parameters, in place of "
    f"{X['student'].nunique() + X['lecturer'].nunique() + 3} for a column each; the "
    f"largest, {h.max():.2f}, is that of a student's only rating."
)

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
axes[0].scatter(counts, h, s=6, alpha=0.4)
axes[0].set(title="Leverage", xlabel="ratings by the student", ylabel="of a rating")
axes[1].vlines(np.arange(len(cook)), 0, cook, linewidth=0.5)
axes[1].set(title="Cook's distance", xlabel="row", ylabel="of a rating")
save(figure, "crossed_rows.png")

# %%
# The distribution
# ~~~~~~~~~~~~~~~~
# Ratings are whole numbers from 1 to 5, and cannot be normal. Conditional residuals
# show it as stripes: high predictions cannot be exceeded by much. Whitened ones are of
# the response without any effect, made uncorrelated by the model's covariance; if the
# model were right they would be independent and normal. Their tails end too soon.

fitted = model.predict(X)
scaled = residuals(model, X, y, kind="scaled")
whitened = residuals(model, X, y, kind="whitened", random_effects=False)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
axes[0].axhline(0, color="0.8", zorder=0)
axes[0].scatter(fitted, scaled, s=6, alpha=0.4)
axes[0].set(title="Stripes", xlabel="prediction", ylabel="scaled residual")
normal = stats.norm.ppf((np.arange(len(y)) + 0.5) / len(y))
axes[1].axline((0, 0), slope=1, color="0.8", zorder=0)
axes[1].plot(normal, np.sort(scaled), ".", markersize=3, label="scaled")
axes[1].plot(normal, np.sort(whitened), ".", markersize=3, label="whitened")
axes[1].set(title="Quantiles", xlabel="of a normal distribution", ylabel="residual")
axes[1].legend(frameon=False, markerscale=3)
save(figure, "crossed_residuals.png")

# %%
# Standard errors that need no covariance
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Is the answer the model's doing? Robust standard errors rely on clusters alone. By
# students they trust that ratings of one lecturer are independent, which they are not;
# two-way, only ratings that share neither have to be. The interval is somewhat longer,
# and the answer stays: lectures for other departments are rated higher here.

rows = {"model": coefficient_table(model)}
for name, cluster in (
    ("by student", "student"),
    ("by lecturer", "lecturer"),
    ("by both", ["student", "lecturer"]),
):
    rows[name] = robust_table(model, X, y, cluster=cluster)
errors = pd.DataFrame({name: t.loc["service"] for name, t in rows.items()}).T
print(errors[["std_error", "df", "p_value"]].round(4))

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
place = np.arange(len(errors))[::-1]
half = stats.t.ppf(0.975, errors["df"]) * errors["std_error"]
ax.axvline(0, color="0.8", zorder=0)
ax.errorbar(errors["estimate"], place, xerr=half, fmt="o", capsize=3)
ax.set_yticks(place, errors.index)
ax.margins(y=0.15)
ax.set(title="Effect of service", xlabel="points of the rating, with 95 % intervals")
save(figure, "crossed_robust.png")

# %%
# The figures are saved here as PNG files, and shown where there is a display.

if plt.get_backend().lower() != "agg":
    plt.show()
