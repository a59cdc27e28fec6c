r"""
===========================
Which question do you ask?
===========================

Rows come in groups, and a model is to be judged by rows that it has not seen. There are
several ways to leave rows out, and each asks another question:

1. **Known groups.** More rows of the same groups: students of schools that we know.
   Leave out rows at random, with ``KFold``.
2. **New groups.** Groups that the model has never seen: students of another school.
   Leave out whole groups, with ``GroupKFold``.
3. **New groups with a few labelled rows.** A new school, of which the results of some
   students are known. Leave out groups but for :math:`k` rows each, with
   ``GroupAdaptSplit``.
4. **Forecasts within a group.** The future of groups whose past is known. Leave out the
   last rows of every group, with ``TimeSeriesSplit``.

The answers differ, and so does the model that comes out best. None of the scores is
wrong; but only one of them is the score of what you are going to do with the model.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_exam, load_sleepstudy
from sklearn_lmm.model_selection import GroupAdaptSplit, cross_val_adapt

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
plt.rcParams["figure.constrained_layout.use"] = True
plt.rcParams["savefig.dpi"] = 150
plt.rc("font", size=11)
plt.rc("axes", titlelocation="left")
plt.rc("axes.spines", top=False, right=False)
plt.rc("legend", frameon=False)
plt.rc("lines", linewidth=2.5, markersize=7)


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


# %%
# Four ways to leave rows out
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# The sleep study has reaction times of 18 subjects on ten days. Here is one fold of
# each split. With ``GroupAdaptSplit`` the first three days of a subject stay, as they
# would if somebody new were measured for three days; ``shuffle=True`` would draw three
# days at random. ``TimeSeriesSplit`` knows nothing of groups, so we let it split the
# days and take the rows that belong to them. ``cumcount`` numbers the rows of each
# subject, which also serves where subjects are measured at different times.

sleep, reaction = load_sleepstudy(return_X_y=True)
subject = sleep["Subject"]
day = sleep.groupby("Subject", observed=True).cumcount().to_numpy()


def forecasts(time, n_splits, test_size):
    """Yield the rows up to some time, and those of the times that follow."""
    times = np.unique(time)
    for past, future in TimeSeriesSplit(n_splits, test_size=test_size).split(times):
        rows = (np.flatnonzero(np.isin(time, times[which])) for which in (past, future))
        yield tuple(rows)


first_days = GroupAdaptSplit(6, n_adapt=3, shuffle=False)
splits = {
    "Known subjects": KFold(10, shuffle=True, random_state=0).split(sleep),
    "New subjects": GroupKFold(6, shuffle=True, random_state=1).split(
        sleep, groups=subject
    ),
    "New subjects, 3 days known": first_days.split(sleep, groups=subject),
    "Forecasts": forecasts(day, n_splits=3, test_size=2),
}
splits = {question: list(folds) for question, folds in splits.items()}

figure, axes = plt.subplots(
    1, 4, figsize=(12, 4.8), sharey=True, num="question_1_folds"
)
styles = {
    "fit": ("s", GREY),
    "adapted to": ("D", ORANGE),
    "not used": ("_", GREY),
    "predicted": ("o", BLUE),
}
for ax, (question, folds) in zip(axes, splits.items(), strict=True):
    train, test = folds[0]
    use = pd.Series("not used", index=sleep.index)
    use.iloc[train], use.iloc[test] = "fit", "predicted"
    if question.startswith("New"):
        use[(use == "fit") & subject.isin(subject.iloc[test])] = "adapted to"
    for name, (marker, colour) in styles.items():
        rows = (use == name).to_numpy()
        ax.plot(day[rows], subject.cat.codes[rows], marker, color=colour, markersize=5)
    ax.set(title=question, xlabel="day", xticks=range(0, 10, 3), yticks=[])
axes[0].set_ylabel("18 subjects")
handles = [
    plt.Line2D([], [], marker=marker, color=colour, linestyle="", markersize=5)
    for marker, colour in styles.values()
]
figure.legend(handles, styles, loc="outside lower center", ncols=4)

# %%
# Known schools and new schools
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Examination scores of students in London schools, from their reading test five years
# earlier. (Two schools with fewer than 20 students are left out, so that there is
# something to predict in each later on.) Three models compete: one line for all
# schools, which ignores them; boosted trees, to which the school is a category; and a
# mixed model, in which the line varies between schools.

X, y = load_exam(return_X_y=True)
large = X.groupby("school", observed=True)["school"].transform("size") > 20
X = X.loc[large, ["school", "standLRT"]].reset_index(drop=True)
y = y[large].reset_index(drop=True)
school = X["school"]


def compete(covariate, group):
    """Return the three models: without groups, with categories, mixed."""
    only_covariate = make_column_transformer(("passthrough", [covariate]))
    trees = HistGradientBoostingRegressor(
        max_iter=30, max_leaf_nodes=12, min_samples_leaf=10, random_state=0
    )
    return {
        "one line": make_pipeline(only_covariate, LinearRegression()),
        "boosted trees": trees.set_params(categorical_features=[group]),
        "mixed model": MixedEffectsRegressor(f"({covariate} | {group})"),
    }


models = compete("standLRT", "school")
colours = dict(zip(models, [GREY, GREEN, BLUE], strict=True))
schools = {
    "known schools": list(KFold(5, shuffle=True, random_state=0).split(X)),
    "new schools": list(
        GroupKFold(5, shuffle=True, random_state=0).split(X, groups=school)
    ),
}
r2 = pd.DataFrame(
    {
        question: {
            name: cross_val_score(model, X, y, cv=folds).mean()
            for name, model in models.items()
        }
        for question, folds in schools.items()
    }
)
print(f"R2 for {len(y)} students of {school.nunique()} schools")
print(r2.round(3).to_string())
known, new = r2["known schools"], r2["new schools"]
say(f"""In known schools the mixed model is best, with {known["mixed model"]:.3f}: it
    knows how good a school is. In new schools nobody can know that; there it predicts
    what the line predicts, {new["mixed model"]:.3f}, and is right to do so. Boosted
    trees win against the line in known schools and lose in new ones: what they have
    learnt by heart about 50 schools is of no use in the others.""")

# %%
# Whoever reports the first column for a model that will be used in new schools promises
# too much, and may choose the wrong model. Whoever reports the second for a model that
# will be used in the same schools throws away what random effects are for.


def dot_plot(table, name, xlabel):
    """Draw a dot for each question (row) and model (column)."""
    figure, ax = plt.subplots(figsize=(8, 1.6 + 0.8 * len(table)), num=name)
    for model, shift in zip(table, [-0.2, 0, 0.2], strict=True):
        places = np.arange(len(table)) + shift
        for place in places:
            ax.axhline(place, color=GREY, linestyle=":", linewidth=0.6, zorder=0)
        ax.plot(table[model], places, "o", color=colours[model], label=model)
    ax.set(yticks=range(len(table)), yticklabels=table.index, xlabel=xlabel)
    ax.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3)


dot_plot(r2.T, "question_2_schools", "R2, mean of five folds")

# %%
# A new school with k students
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Between the two lies the school that is new, but not quite unknown.
# ``GroupAdaptSplit`` leaves :math:`k` of its students in the training set. The line and
# the trees have to be fitted again with these rows; the mixed model is fitted to the
# other schools, and its method ``adapt`` then predicts the effects of the new school
# from its :math:`k` students, which takes hardly any time. ``cross_val_adapt`` does
# both steps in every fold.
#
# To compare different :math:`k` we predict the same students each time, those who are
# left over for the largest :math:`k`. With the same seed, the students who stay for a
# smaller :math:`k` are among those who stay for a larger one.

ks = [0, 1, 2, 5, 10, 20]


def folds_with(k):
    """Yield folds with k students of each new school, all with the same test rows."""
    few, many = (
        GroupAdaptSplit(5, n_adapt=n, random_state=0).split(X, groups=school)
        for n in (k, ks[-1])
    )
    for (train, _), (_, test) in zip(few, many, strict=True):
        yield train, test


curves = pd.DataFrame(index=pd.Index(ks, name="k"), columns=list(models), dtype=float)
again = {}
for k in ks:
    folds = list(folds_with(k))
    for name, model in models.items():
        curves.loc[k, name] = cross_val_score(model, X, y, cv=folds).mean()
    again[k] = curves.loc[k, "mixed model"]
    adapted = cross_val_adapt(models["mixed model"], X, y, school, cv=folds)
    curves.loc[k, "mixed model"] = adapted.mean()
print("\nR2 in new schools of which k students are known")
print(curves.round(3).to_string())
say(f"""One student moves the mixed model from {curves.loc[0, "mixed model"]:.3f} to
    {curves.loc[1, "mixed model"]:.3f}, twenty to {curves.loc[20, "mixed model"]:.3f}. A
    new fit with these twenty gives {again[20]:.3f}: adapting loses nothing, as long as
    the other schools say what schools are like. Boosted trees, which put at least ten
    rows into a leaf, hardly gain from fewer.""")

figure, ax = plt.subplots(figsize=(8, 4.6), num="question_3_students")
places = range(len(ks))
for name in models:
    ax.plot(places, curves[name], "o-", color=colours[name], label=name)
ax.axhline(known["mixed model"], color=BLUE, linestyle=":", linewidth=1.5)
ax.annotate("mixed model, known schools", (0, known["mixed model"] + 0.002), color=BLUE)
ax.set(xticks=places, xlabel="students known of each new school", ylabel="R2")
ax.set_xticklabels(ks)
ax.legend(loc="upper left", bbox_to_anchor=(0, 0.92))

# %%
# Days between and days ahead
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Where rows have an order in time, "known groups" is two questions. ``KFold`` leaves
# out days at random, so that a day to be predicted mostly lies between days that are
# known. A forecast goes beyond all that is known: here the first four, six or eight
# days of all subjects are given, and the next two days predicted.

models = compete("Days", "Subject")
error = pd.DataFrame(index=list(splits), columns=list(models), dtype=float)
for question, folds in splits.items():
    for name, model in models.items():
        options = {"cv": folds, "scoring": "neg_root_mean_squared_error"}
        scores = cross_val_score(model, sleep, reaction, **options)
        if name == "mixed model" and question.startswith("New"):
            scores = cross_val_adapt(model, sleep, reaction, subject, **options)
        error.loc[question, name] = -scores.mean()
print("\nRoot mean squared error in the sleep study (ms)")
print(error.round(1).to_string())
between, ahead = error.loc[["Known subjects", "Forecasts"], "mixed model"]
say(f"""For the mixed model the error is {between:.0f} ms for days in between and
    {ahead:.0f} ms for the days ahead. If the model is there to forecast, the first
    number flatters it. The line, which knows nothing of subjects, shows that the rows
    differ, too: later days, in the last two questions, are harder for everyone. So
    compare models within a question, not one model between questions.""")

dot_plot(error, "question_4_days", "root mean squared error (ms)")

# %%
# Which to report
# ~~~~~~~~~~~~~~~
# Ask what a row will be like that the model meets in use, and leave out rows that are
# like it in the same way.
#
# ===================================  ==============================================
# In use the model meets               Report
# ===================================  ==============================================
# more rows of the groups of the fit   ``KFold(shuffle=True)``
# groups it has never seen             ``GroupKFold``
# new groups, k rows of each labelled  ``GroupAdaptSplit(n_adapt=k)``, with ``adapt``
#                                      by ``cross_val_adapt``
# the future of the groups of the fit  the last rows of every group left out
# several of these                     each by itself: their mean answers no question
# ===================================  ==============================================
#
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
