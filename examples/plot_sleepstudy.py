r"""
==============================
A line for each of 18 subjects
==============================

18 people were allowed three hours in bed a night, and their reaction time was measured
on ten days in succession. (Days 0 and 1 were for training, and day 2, after the last
normal night, is the baseline.) Most became slower, some much more than others.

There are two easy answers to the question how fast a person tires: one line for all, or
a line for each person from that person's ten measurements alone. A mixed model stands
between the two, and the data say where.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.datasets import load_sleepstudy

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
TIME, DAY = "reaction time (ms)", "day of the study"
plt.rcParams["figure.constrained_layout.use"] = True
plt.rcParams["savefig.dpi"] = 150
plt.rc("font", size=11)
plt.rc("axes", titlelocation="left")
plt.rc("axes.spines", top=False, right=False)
plt.rc("legend", frameon=False)
plt.rc("lines", linewidth=2, markersize=5)


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


X, y = load_sleepstudy(return_X_y=True)
days, subject = X["Days"], X["Subject"]
say(f"{len(y)} reaction times of {subject.nunique()} subjects on {days.nunique()} days")

# %%
# One line, eighteen lines, and the mixed model
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Subject :math:`i` has on day :math:`t` the reaction time
#
# .. math:: y_{it} = (\beta_0 + b_{0i}) + (\beta_1 + b_{1i}) t + e_{it},
#    \qquad \begin{pmatrix} b_{0i} \\ b_{1i} \end{pmatrix} \sim N(0, \Psi),
#    \quad e_{it} \sim N(0, \sigma^2).
#
# With :math:`\Psi = 0` this is one line for all, with an infinite :math:`\Psi` it is a
# separate line for each subject. The model estimates how much subjects differ, and so
# how far to go.


def correlation(covariance):
    """Return the correlation of two coefficients from their covariance matrix."""
    return covariance.iloc[0, 1] / np.sqrt(
        covariance.iloc[0, 0] * covariance.iloc[1, 1]
    )


pooled = LinearRegression().fit(X[["Days"]], y)
own_lines = {
    label: np.polyfit(rows["Days"], y[rows.index], 1)[::-1]
    for label, rows in X.groupby("Subject", observed=True)
}
own = pd.DataFrame(own_lines, index=["(Intercept)", "Days"]).T
model = MixedEffectsRegressor(RandomEffect("Subject", slopes=["Days"])).fit(X, y)
average = model.fixed_effects_
mixed = (model.effects_["Subject"] + average).loc[own.index]
Psi = model.covariances_["Subject"]
sd = np.sqrt(np.diag(Psi))
print("\nThe lines")
say(f"""One line for all is {pooled.intercept_:.2f} ms on day 0 and rises by
    {pooled.coef_[0]:.3f} ms a day. It is also the average line of the mixed model,
    {average["(Intercept)"]:.2f} + {average["Days"]:.3f} t, because everybody was
    measured on the same days. Lines fitted to single subjects have slopes from
    {own["Days"].min():.1f} to {own["Days"].max():.1f} ms a day.""")
say(f"""Between subjects the intercept has a standard deviation of {sd[0]:.2f} ms, the
    slope one of {sd[1]:.2f} ms a day; their correlation is {correlation(Psi):.3f}. The
    residual standard deviation is {model.sigma_:.2f} ms.""")

figure, axes = plt.subplots(
    3, 6, figsize=(12, 7.2), sharex=True, sharey=True, num="sleep_1_lines"
)
for ax, label in zip(axes.flat, own["Days"].sort_values().index, strict=True):
    ax.axline((0, pooled.intercept_), slope=pooled.coef_[0], color=GREY, ls=":")
    ax.axline(
        (0, own.iloc[:, 0][label]), slope=own["Days"][label], color=ORANGE, ls="--"
    )
    ax.axline((0, mixed.iloc[:, 0][label]), slope=mixed["Days"][label], color=BLUE)
    ax.plot(days[subject == label], y[subject == label], "ko", markersize=4)
    ax.set(title=f"subject {label}", xticks=[0, 3, 6, 9])
figure.supxlabel(DAY)
figure.supylabel(TIME)
names = ["all subjects", "this subject alone", "mixed model", "measurement"]
figure.legend(axes[0, 0].lines, names, loc="outside upper center", ncols=4)

# %%
# Shrinkage in two dimensions
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# In the plane of intercept and slope the mixed model moves every subject from its own
# line towards the average, and not always straight: the errors of an intercept and a
# slope estimated from the same measurements are correlated, and the model goes back
# along them. The ellipses are to hold half and 95% of all subjects.

print("\nShrinkage")
say(f"""The slopes of the subjects' own lines have a standard deviation of
    {own["Days"].std():.2f} ms a day. That is more than the {sd[1]:.2f} by which
    subjects differ, since each line has errors of its own. The slopes that the mixed
    model predicts have {mixed["Days"].std():.2f}: less, since what ten measurements
    cannot tell is predicted as average.""")
shift = (mixed - own).div(own.std()).pow(2).sum(axis=1)
for label in [shift.idxmax(), shift.idxmin()]:
    a, b = own.loc[label], mixed.loc[label]
    say(f"""Subject {label} moves {"most" if label == shift.idxmax() else "least"}: from
        {a.iloc[0]:.1f} + {a.iloc[1]:.2f} t to {b.iloc[0]:.1f} + {b.iloc[1]:.2f} t.""")

figure, ax = plt.subplots(figsize=(8, 5.8), num="sleep_2_shrinkage")
angle = np.linspace(0, 2 * np.pi, 200)
circle = np.linalg.cholesky(Psi) @ [np.cos(angle), np.sin(angle)]
for share in [0.5, 0.95]:
    # -2 log(1 - share) is the quantile of chi-square with 2 degrees of freedom.
    ellipse = average.to_numpy()[:, None] + np.sqrt(-2 * np.log(1 - share)) * circle
    ax.plot(*ellipse, color=GREY, linewidth=1)
    ax.annotate(f" {share:.0%}", ellipse[:, 0], va="center", color=GREY)
for label, start in own.iterrows():
    end = mixed.loc[label]
    arrow = {"arrowstyle": "->", "color": GREY, "shrinkA": 3, "shrinkB": 3}
    ax.annotate("", end, start, arrowprops=arrow)
    # Behind the start of the arrow, where neither it nor its end is in the way.
    behind = np.where(start > end, 5, -5)
    sides = {"ha": "left" if behind[0] > 0 else "right", "va": "center"}
    ax.annotate(label, start, behind, textcoords="offset points", fontsize=8, **sides)
ax.plot(*own.T.to_numpy(), "o", color=ORANGE, markerfacecolor="white", label="own line")
ax.plot(*mixed.T.to_numpy(), "o", color=BLUE, label="mixed model")
ax.plot(*average, "k+", markersize=12, label="average")
ax.set(xlabel="intercept: reaction time on day 0 (ms)", ylabel="slope (ms a day)")
ax.legend(loc="upper left")

# %%
# How sure are we of a subject?
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# ``random_effects(return_std=True)`` returns the predicted effects in a long table with
# their conditional standard deviations: how much the effect of a subject may still
# differ from its prediction, given the data. All subjects were measured on the same
# days, so they all have the same one.

effects = model.random_effects(return_std=True)
print("\nSingle subjects")
print(effects.head(4).round(2).to_string(index=False))
for spread, name in zip(sd, own, strict=True):
    found = effects[effects["coefficient"] == name]
    left = found["std"].iloc[0]
    apart = np.sum(found["value"].abs() > 2 * left)
    say(f"""{name}: the standard deviation is {spread:.2f} without data on a subject and
        {left:.2f} with ten measurements. {apart} of {len(found)} effects are more than
        twice that from 0.""")

figure, axes = plt.subplots(1, 2, figsize=(10, 5.6), sharey=True, num="sleep_3_effects")
order = effects[effects["coefficient"] == "Days"].sort_values("value")["level"]
titles = ["Intercept (ms)", "Slope (ms a day)"]
for ax, name, title in zip(axes, own, titles, strict=True):
    chosen = effects[effects["coefficient"] == name].set_index("level").loc[order]
    ax.axvline(0, color=GREY, linewidth=1)
    bars = (chosen["value"], order, None, 2 * chosen["std"])
    ax.errorbar(*bars, fmt="o", color=BLUE, linewidth=1.5)
    ax.set(title=title, xlabel="difference from the average ± 2 standard deviations")
axes[0].set_ylabel("subject")

# %%
# ML and REML
# ~~~~~~~~~~~
# Maximum likelihood measures how subjects differ from the estimated average line as if
# it were the true one, and so finds too little variance between them, as does dividing
# a sum of squares by :math:`n`. Restricted maximum likelihood, the default, allows for
# the estimate, like the division by :math:`n - 1`. Here the average line belongs to 18
# subjects, so that the variances differ by about 1 in 18; the residual variance is the
# same. The log-likelihoods of the two methods are not comparable.

ml = MixedEffectsRegressor(model.random, method="ml").fit(X, y)
print("\nML and REML")
for name, fitted in {"REML": model, "ML": ml}.items():
    between = fitted.covariances_["Subject"]
    deviations = np.sqrt(np.diag(between))
    say(f"""{name}: standard deviations {deviations[0]:.2f} and {deviations[1]:.2f},
        correlation {correlation(between):.3f}, residual {fitted.sigma_:.2f},
        log-likelihood {fitted.log_likelihood_:.2f}""")

# %%
# A new subject
# ~~~~~~~~~~~~~
# A subject who was not in the study gets the average line. Around it lies the band of
# the lines of other subjects, of variance :math:`z_t' \Psi z_t` with
# :math:`z_t = (1, t)`, and the wider band of single measurements, of variance
# :math:`z_t' \Psi z_t + \sigma^2`. To see whether the latter holds what it promises,
# leave out each subject in turn, and predict that subject from the others.


def predict_new(fitted, rows):
    """Return the prediction for unknown subjects and the variance of their lines."""
    Z = np.column_stack([np.ones(len(rows)), rows["Days"]])
    variance = np.sum((Z @ fitted.covariances_["Subject"].to_numpy()) * Z, axis=1)
    return fitted.predict(rows), variance


errors, inside = [], 0
for train, test in LeaveOneGroupOut().split(X, y, groups=subject):
    fitted = MixedEffectsRegressor(model.random).fit(X.iloc[train], y.iloc[train])
    expected, variance = predict_new(fitted, X.iloc[test])
    errors.append(y.iloc[test] - expected)
    half_width = 1.96 * np.sqrt(variance + fitted.sigma_**2)
    inside += np.sum(np.abs(errors[-1]) < half_width)
new = pd.DataFrame({"Days": np.arange(10), "Subject": "new"})
expected, variance = predict_new(model, new)
known = np.sqrt(np.mean((y - model.predict(X)) ** 2))
print("\nA new subject")
say(f"""On day 9 we expect {expected[9]:.0f} ms of a new subject, with a standard
    deviation of {np.sqrt(variance[9]):.0f} ms between subjects and of
    {np.sqrt(variance[9] + model.sigma_**2):.0f} ms for a single measurement.""")
say(f"""Predicted from the other 17, subjects have a root mean squared error of
    {np.sqrt(np.mean(np.concatenate(errors) ** 2)):.1f} ms (the subjects of the fit:
    {known:.1f} ms), and {inside / len(y):.0%} of the measurements lie in the band
    of 95%, which neglects the uncertainty of the estimates.""")

figure, ax = plt.subplots(figsize=(8, 5.2), num="sleep_4_new_subject")
for label in own.index:
    ax.plot(days[subject == label], y[subject == label], color=GREY, linewidth=0.8)
line, single = np.sqrt(variance), np.sqrt(variance + model.sigma_**2)
for width, alpha, name in [(single, 0.15, "measurements"), (line, 0.25, "lines")]:
    band = (expected - 1.96 * width, expected + 1.96 * width)
    label = f"95% of the {name}"
    ax.fill_between(new["Days"], *band, color=BLUE, alpha=alpha, lw=0, label=label)
ax.plot(new["Days"], expected, color=BLUE, label="expected of a new subject")
ax.plot([], [], color=GREY, linewidth=0.8, label="subjects of the study")
ax.set(xlabel=DAY, ylabel=TIME, xticks=range(10))
ax.legend(loc="upper left")

# %%
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
