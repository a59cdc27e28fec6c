r"""
===========================================================
From ordinary regression to random slopes: the exam scores
===========================================================

4059 students of 65 schools in inner London took a reading test when they entered the
school at 11 and an examination at 16. Both scores are in standard deviations. How
strongly does the test predict the examination, and does the school matter?

We begin with an ordinary regression, see what it overlooks, and let first the
intercept and then the slope of the line differ between schools. On the way we look at
what such a model claims about the mean, the variance and the covariance of the scores,
and whether the data agree.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.datasets import load_exam

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
AT_11 = "reading test at 11 (standard deviations)"
AT_16 = "examination at 16 (standard deviations)"
plt.rcParams["figure.constrained_layout.use"] = True
plt.rcParams["savefig.dpi"] = 150
plt.rc("font", size=11)
plt.rc("axes", titlelocation="left")
plt.rc("axes.spines", top=False, right=False)
plt.rc("legend", frameon=False)
plt.rc("lines", linewidth=2.5, markersize=4)


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


X, y = load_exam(return_X_y=True)
X = X[["school", "standLRT"]]
test, school = X["standLRT"], X["school"]
size = school.value_counts(sort=False)
say(f"{len(y)} students in {len(size)} schools, {size.min()} to {size.max()} in each")

# %%
# One line for everybody
# ~~~~~~~~~~~~~~~~~~~~~~
# Ordinary least squares knows nothing of schools. Student :math:`i` has the score
#
# .. math:: y_i = \beta_0 + \beta_1 x_i + e_i,
#    \qquad e_i \sim N(0, \sigma^2) \text{ independently.}

ordinary = LinearRegression().fit(X[["standLRT"]], y)
residual = y - ordinary.predict(X[["standLRT"]])
sigma_ordinary = np.sqrt(np.sum(residual**2) / (len(y) - 2))
r2_ordinary = ordinary.score(X[["standLRT"]], y)
print("\nOrdinary regression")
say(f"""The intercept is {ordinary.intercept_:.6f} and the slope
    {ordinary.coef_[0]:.6f}: one standard deviation more in the test goes with 0.6
    standard deviations more in the examination. The residual standard error is
    {sigma_ordinary:.4f} and R2 {r2_ordinary:.3f}.""")

# %%
# Students of one school are not independent
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# If the residuals were independent, the mean residual of a school with :math:`n`
# students would scatter around 0 with standard deviation :math:`\sigma / \sqrt n`,
# and about one school in twenty would lie more than twice that far from 0. The
# *intraclass correlation* sums it up: the correlation between the residuals of two
# students of one school, estimated here from the mean squares of an analysis of
# variance, between and within schools.

by_school = residual.groupby(school, observed=True)
means = by_school.mean().sort_values()
errors = sigma_ordinary / np.sqrt(size[means.index])
apart = means.abs() > 2 * errors
between = np.sum(size * means**2) / (len(size) - 1)
within = np.sum((size - 1) * by_school.var()) / (len(y) - len(size))
typical_size = (len(y) - np.sum(size**2) / len(y)) / (len(size) - 1)
icc = (between - within) / (between + (typical_size - 1) * within)
print("\nStudents of one school")
say(f"""{apart.sum()} of {len(size)} schools have a mean residual more than two standard
    errors from 0; about 3 would if students were independent. The residuals of two
    students of one school have the correlation {icc:.3f}.""")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), num="exam_1_ordinary")
left.plot(test, y, ".", color=GREY, alpha=0.4, markeredgewidth=0)
left.axline((0, ordinary.intercept_), slope=ordinary.coef_[0], color=ORANGE)
left.set(title="One line for 4059 students", xlabel=AT_11, ylabel=AT_16)
rank = np.arange(len(means))
for chosen, colour, label in [(apart, BLUE, "misses"), (~apart, GREY, "covers")]:
    bars = (rank[chosen], means[chosen], 2 * errors[chosen])
    label = f"{chosen.sum()} schools, bar {label} 0"
    right.errorbar(*bars, fmt="o", linewidth=1.2, color=colour, label=label)
right.axhline(0, color=ORANGE)
right.set(title="Its residuals, averaged within schools", xticks=[])
right.set_xlabel("schools, in the order of their mean residual")
right.set_ylabel("mean residual ± 2 standard errors")
right.legend(loc="lower right")

# %%
# Random intercepts: a line for each school, all parallel
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# School :math:`j` moves the line up or down by an amount :math:`b_j` of its own. We do
# not estimate 65 separate amounts, but suppose that schools are a sample from a
# population of schools, and estimate how much they vary:
#
# .. math:: y_{ij} = \beta_0 + \beta_1 x_{ij} + b_j + e_{ij},
#    \qquad b_j \sim N(0, \psi), \quad e_{ij} \sim N(0, \sigma^2).

intercepts = MixedEffectsRegressor("school").fit(X, y)
psi, sigma = intercepts.covariances_["school"].iloc[0, 0], intercepts.sigma_
print("\nRandom intercepts")
say(f"""Schools have a standard deviation of {np.sqrt(psi):.4f}, students of one school
    one of {sigma:.4f}: schools make up {psi / (psi + sigma**2):.1%} of the variance
    that the test leaves unexplained. The slope is now {intercepts.coef_[1]:.4f}, since
    it compares students with others of their own school above all.""")

# %%
# Random slopes: every school has a line of its own
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# The test may also matter more in some schools than in others:
#
# .. math:: y_{ij} = \beta_0 + \beta_1 x_{ij} + b_{0j} + b_{1j} x_{ij} + e_{ij},
#    \qquad \begin{pmatrix} b_{0j} \\ b_{1j} \end{pmatrix} \sim N(0, \Psi).
#
# :math:`\Psi` holds the variance of the intercepts, that of the slopes and their
# covariance. ``covariance="diagonal"`` fixes the covariance at 0: the two effects of a
# school are then independent, as with ``||`` in lme4.
#
# The fixed part is the same in all four models, so that their restricted likelihoods
# may be compared. Akaike's criterion, AIC = -2 log-likelihood + 2 (number of
# parameters), should be small.

correlated = RandomEffect("school", slopes=["standLRT"])
diagonal = RandomEffect("school", slopes=["standLRT"], covariance="diagonal")
slopes = MixedEffectsRegressor(correlated).fit(X, y)
models = {
    "no random effect": MixedEffectsRegressor([], fixed=["standLRT"]).fit(X, y),
    "random intercepts": intercepts,
    "independent slopes": MixedEffectsRegressor(diagonal).fit(X, y),
    "correlated slopes": slopes,
}
Psi = slopes.covariances_["school"]
sd = np.sqrt(np.diag(Psi))
low, high = slopes.coef_[1] + np.array([-2, 2]) * sd[1]
print("\nRandom slopes")
for name, model in models.items():
    # sigma is a parameter, too.
    n_parameters = len(model.fixed_effects_) + len(model.theta_) + 1
    aic = -2 * model.log_likelihood_ + 2 * n_parameters
    print(f"    {name:20}log-likelihood {model.log_likelihood_:.2f}, AIC {aic:.2f}")
say(f"""AIC asks for all of it. The intercepts have a standard deviation of {sd[0]:.4f},
    the slopes of {sd[1]:.4f} about their mean of {slopes.coef_[1]:.4f}: in 19 schools
    of 20 the slope lies between {low:.2f} and {high:.2f}. With a correlation of
    {Psi.iloc[0, 1] / sd.prod():.3f} the schools that do well are also those in which
    the test matters more.""")

# %%
# Independent effects are a stronger claim than it seems. The intercept belongs to test
# score 0, and where 0 lies is a convention: intercepts and slopes that are independent
# become correlated when the score is measured from another origin. Move the origin, and
# independent effects are another model; correlated effects stay what they were.

moved = X.assign(standLRT=test + 1)
change = [
    MixedEffectsRegressor(model.random).fit(moved, y).log_likelihood_
    - model.log_likelihood_
    for model in (models["independent slopes"], slopes)
]
say(f"""Adding 1 to all test scores changes the log-likelihood by {change[0]:.2f} with
    independent effects, and by {abs(change[1]):.2f} with correlated ones.""")

figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, num="exam_2_lines")
for ax, name in zip(axes, ["random intercepts", "correlated slopes"], strict=True):
    lines = models[name].decompose(X).assign(test=test).sort_values("test")
    for _, line in lines.groupby(school, observed=True):
        (one,) = ax.plot(line["test"], line["total"], color=BLUE, linewidth=0.8)
    (every,) = ax.plot(lines["test"], lines["fixed"], color=ORANGE)
    ax.set(title=name.capitalize(), xlabel=AT_11)
axes[0].set_ylabel(f"predicted {AT_16}")
axes[0].legend([every, one], ["fixed part", "a school, where it has students"])

# %%
# Mean, variance and covariance
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# A mixed model is a claim about the first two moments of the scores. Write
# :math:`z = (1, x)`. Then
#
# .. math::
#    E[Y_{ij}] &= \beta_0 + \beta_1 x_{ij}, \\
#    Var[Y_{ij}] &= z_{ij}' \Psi z_{ij} + \sigma^2
#       = \psi_{00} + 2 \psi_{01} x_{ij} + \psi_{11} x_{ij}^2 + \sigma^2, \\
#    Cov[Y_{ij}, Y_{ik}] &= z_{ij}' \Psi z_{ik}
#       = \psi_{00} + \psi_{01} (x_{ij} + x_{ik}) + \psi_{11} x_{ij} x_{ik},
#
# the last for two students of one school; students of different schools have
# covariance 0. So random slopes make both the variance and the resemblance of
# schoolmates depend on the test score. For the whole sample the covariance matrix is
# :math:`Z (I \otimes \Psi) Z' + \sigma^2 I`, and ``design_matrix`` returns :math:`Z`.

four = X[school.isin(["1", "2"])].groupby("school", observed=True).head(2)
Z, _ = slopes.design_matrix(four)
variance = Z @ np.kron(np.eye(len(size)), Psi) @ Z.T + slopes.sigma_**2 * np.eye(4)
spread = np.sqrt(np.diag(variance))
print("\nMean, variance and covariance")
print("Correlations between two students of school 1 and two of school 2:")
print(np.round(variance / np.outer(spread, spread), 3))

# %%
# Do the data agree? We cut the test score into eight bins with equally many students
# and take residuals from the fixed part. In each bin their mean square estimates the
# variance, and their mean product over pairs of schoolmates the covariance. Standard
# errors treat schools, not students, as independent.


def covariance_of_two(model, x_1, x_2):
    """Return z_1' Psi z_2, the covariance of two students of one school."""
    names = ["(Intercept)", "standLRT"]
    Psi = model.covariances_["school"].reindex(names, columns=names, fill_value=0.0)
    z_1, z_2 = (np.stack([np.ones_like(x), x], axis=-1) for x in (x_1, x_2))
    return np.einsum("...i,ij,...j", z_1, Psi.to_numpy(), z_2)


def school_sums(values, bins):
    """Return the sums of values by school and bin, shape (schools, bins)."""
    return values.groupby([school, bins], observed=False).sum().unstack().to_numpy()


def ratio(numerator, denominator):
    """Return the ratio of the sums over schools, and its standard error."""
    total = denominator.sum(axis=0)
    value = numerator.sum(axis=0) / total
    return value, np.sqrt(((numerator - value * denominator) ** 2).sum(axis=0)) / total


def mean_by_bin(values, bins):
    """Return the mean of values in each bin, and its standard error."""
    return ratio(school_sums(values, bins), school_sums(0 * values + 1, bins))


def products_of_pairs(values, bins):
    """Return the mean product over pairs of schoolmates, shape (bins, bins)."""
    n, sums = school_sums(0 * values + 1, bins), school_sums(values, bins)
    itself = np.eye(n.shape[1])
    squares = itself * school_sums(values**2, bins)[:, None, :]
    products = sums[:, :, None] * sums[:, None, :] - squares
    pairs = n[:, :, None] * n[:, None, :] - itself * n[:, None, :]
    # A school counts by its students; counted by pairs, a few large ones would rule.
    weight = 1 / n.sum(axis=1)[:, None, None]
    return ratio(products * weight, pairs * weight)


parts = slopes.decompose(X)
deviation = y - parts["fixed"]
eighths = pd.qcut(test, 8)
centres, _ = mean_by_bin(test, eighths)
covariances = [np.diag(matrix) for matrix in products_of_pairs(deviation, eighths)]
data = [mean_by_bin(y, eighths), mean_by_bin(deviation**2, eighths), covariances]

x = np.linspace(-1.9, 1.9, 101)
figure, axes = plt.subplots(1, 3, figsize=(12, 4.8), num="exam_3_moments")
styles = zip(list(models)[1:], [GREEN, ORANGE, BLUE], [":", "--", "-"], strict=True)
for name, colour, style in styles:
    model = models[name]
    covariance = covariance_of_two(model, x, x)
    mean = model.intercept_ + model.coef_[1] * x
    curves = [mean, covariance + model.sigma_**2, covariance]
    for ax, curve in zip(axes, curves, strict=True):
        ax.plot(x, curve, style, color=colour, label=name)
for ax, (value, error) in zip(axes, data, strict=True):
    label = "data ± 2 standard errors"
    ax.errorbar(centres, value, 2 * error, fmt="ko", linewidth=1, label=label)
    ax.set_xlabel("reading test at 11")
axes[0].set(title="Mean, $E[Y_{ij}]$", ylabel=AT_16)
axes[1].set(title="Variance, $Var[Y_{ij}]$", ylabel="squared standard deviations")
axes[2].set(title="Covariance, $Cov[Y_{ij}, Y_{ik}]$")
axes[2].axhline(0, color=GREY, linewidth=0.8)
axes[2].set_xlabel("reading test at 11, of both students")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %%
# The lines of the means lie on each other; it is the covariance that tells the models
# apart. Schoolmates with high test scores resemble each other much more than those with
# low ones, which only the model with correlated effects can express. The two students
# need not have the same score either: here are pairs from all thirds of the test.
#
# The variance is where the data disagree. The model puts the same variance
# :math:`\sigma^2` within schools everywhere, yet the residuals from the schools' own
# lines vary less where the test score is high, so that the total variance is nearly
# constant where the model lets it rise.

names = ["low", "middle", "high"]
thirds = pd.qcut(test, 3, labels=names)
centres, _ = mean_by_bin(test, thirds)
found, error = products_of_pairs(deviation, thirds)
implied = covariance_of_two(slopes, centres[:, None], centres)
print("Covariance of two schoolmates by the thirds of their test scores")
for i, j in zip(*np.triu_indices(3), strict=True):
    numbers = f"data {found[i, j]:.3f} ± {error[i, j]:.3f}, model {implied[i, j]:.3f}"
    print(f"    {names[i] + ' and ' + names[j]:19}{numbers}")
(lowest, *_, highest), _ = mean_by_bin((y - parts["total"]) ** 2, eighths)
say(f"""(± one standard error). Within schools the variance is
    {slopes.sigma_**2:.3f} in the model; in the data it falls from {lowest:.3f} in the
    lowest eighth of the test to {highest:.3f} in the highest.""")

# %%
# The parts of a prediction
# ~~~~~~~~~~~~~~~~~~~~~~~~~
# ``decompose`` splits a prediction into the fixed part, which is the same for all
# schools, and the share of each random term. What is left is the student's residual.

best = slopes.effects_["school"]["(Intercept)"].idxmax()
members = parts.assign(test=test, score=y)[school == best].sort_values("test")
student = members.loc[members["score"].idxmax()]
at, fixed, effect, total, score = student[["test", "fixed", "school", "total", "score"]]
print("\nThe parts of a prediction")
say(f"""The best student of school {best} has a test score of {at:.2f}, from which one
    expects {fixed:.2f} in an average school (fixed part). School {best} adds
    {effect:.2f} (random part), which makes {total:.2f} (total). The student reached
    {score:.2f}, {score - total:.2f} more.""")

figure, ax = plt.subplots(figsize=(8.5, 5.2), num="exam_4_parts")
ax.plot(members["test"], members["score"], "o", color=GREY, label="student")
ax.plot(members["test"], members["total"], color=BLUE, label=f"school {best}")
ax.plot(members["test"], members["fixed"], color=ORANGE, label="average school")
for start, end, colour, text in [
    (0, fixed, ORANGE, f"fixed part {fixed:.2f}"),
    (fixed, total, BLUE, f"school {effect:+.2f}"),
    (total, score, "black", f"residual {score - total:+.2f}"),
]:
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (at, end), (at, start), arrowprops=arrow)
    ax.annotate(text, (at + 0.15, (start + end) / 2), color=colour, va="center")
ax.axhline(0, color=GREY, linewidth=0.8)
ax.set(title=f"School {best} and its best student", xlabel=AT_11, ylabel=AT_16)
ax.set_xlim(right=at + 1.1)
ax.legend(loc="upper left")

# %%
# Shrinkage
# ~~~~~~~~~
# Why not fit a line to every school by itself? With two students it goes through both
# points, whatever their luck was on the day. The mixed model weighs a school's own
# evidence against what is known of schools in general: its predictions (BLUP, best
# linear unbiased predictions) draw the school's own line towards the fixed part, and
# the more so, the fewer students there are. With a random intercept alone, a school of
# :math:`n` students keeps the share :math:`n / (n + \sigma^2 / \psi)` of its mean
# residual from the fixed part. With two correlated effects it is the pair that is drawn
# in; now and then one of them moves out a little.

own_lines = {
    label: np.polyfit(rows["standLRT"], y[rows.index], 1)[::-1]
    for label, rows in X.groupby("school", observed=True)
}
own = pd.DataFrame(own_lines, index=["(Intercept)", "standLRT"]).T
blup = (slopes.effects_["school"] + slopes.fixed_effects_).loc[own.index]
n = size[own.index]
kept = n / (n + sigma**2 / psi)
print("\nShrinkage")
for label in [n.idxmin(), n.idxmax()]:
    say(f"""School {label} has {n[label]} students: its own slope is
        {own["standLRT"][label]:.3f}, the model's {blup["standLRT"][label]:.3f}. With
        random intercepts alone it keeps {kept[label]:.0%} of its mean residual.""")

figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), num="exam_5_shrinkage")
for ax, name, limits in zip(axes, own, [(-1, 1), (-0.2, 1.3)], strict=True):
    ax.axhline(slopes.fixed_effects_[name], color=ORANGE, zorder=0, label="fixed part")
    ax.vlines(n, own[name], blup[name], color=GREY, linewidth=1)
    ax.plot(n, own[name], "o", color=GREY, markerfacecolor="white", label="own line")
    ax.plot(n, blup[name], "o", color=BLUE, label="mixed model")
    beyond = own[name].idxmin()
    text = f"to −{-own[name][beyond]:.1f}"
    ax.annotate(text, (n[beyond] + 3, limits[0]), va="bottom")
    ax.set(xlabel="students in the school", xlim=(-5, 205), ylim=limits)
axes[0].set(title="Intercepts of the schools", ylabel=AT_16)
axes[1].set(title="Slopes of the schools", ylabel="change at 16 per unit at 11")
axes[1].legend(loc="lower right")

# %%
# How well does it predict?
# ~~~~~~~~~~~~~~~~~~~~~~~~~
# ``predict`` uses the effects of the schools it knows;
# ``predict(random_effects=False)`` is for the population of all schools. R2 on the
# rows of the fit flatters, so we also predict rows that were left out: some students of
# every school, or all students of some schools. For an unknown school the prediction
# is the fixed part, and a mixed model has no advantage there.

population = r2_score(y, slopes.predict(X, random_effects=False))
print("\nR2")
say(f"""On the rows of the fit R2 is {r2_ordinary:.3f} for ordinary regression, the
    most that a single line can reach. The mixed model has {population:.3f} without and
    {slopes.score(X, y):.3f} with the effects of the schools.""")
left_out = {
    "students": list(KFold(5, shuffle=True, random_state=0).split(X)),
    "schools": list(GroupKFold(5).split(X, groups=school)),
}
for what, splits in left_out.items():
    single = cross_val_score(ordinary, X[["standLRT"]], y, cv=splits).mean()
    mixed = cross_val_score(slopes, X, y, cv=splits).mean()
    say(f"""For {what} left out of the fit it is {single:.3f} for ordinary regression
        and {mixed:.3f} for the mixed model.""")

# %%
# A new school
# ~~~~~~~~~~~~
# School 66 is not among the 65. Its students get the prediction of the population, but
# we are less sure of it: the unknown effects of the school, with variance
# :math:`z' \Psi z`, come on top of the residual variance. (The uncertainty of the
# estimates is small beside these, and left out here.)

new = pd.DataFrame({"school": ["66"] * 3, "standLRT": [-1.0, 0.0, 1.0]})
school_variance = covariance_of_two(slopes, new["standLRT"], new["standLRT"])
print("\nA new school")
new["expected"] = slopes.predict(new)
new["sd of the school"] = np.sqrt(school_variance)
new["sd of a student"] = np.sqrt(school_variance + slopes.sigma_**2)
print(new.round(3).to_string(index=False))
say(f"In a school that is known well, a student has the sd {slopes.sigma_:.3f}.")

# %%
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
