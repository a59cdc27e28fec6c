r"""
=============================================
In a pipeline: columns, a search, an ensemble
=============================================

A model is rarely alone. Numbers are scaled before it, categories are turned into
columns of zeros and ones, a search chooses its settings, and its predictions are
averaged with those of others. Every one of these tools splits the rows or rearranges
the columns, and a mixed model has to find its group labels after all that.

They are found if the labels are a column of ``X`` that the model knows by name. Here
this column is the school, the students' scores are those of the examination that the
example on random slopes looks at, and no tool needs to be told about groups.
"""

import textwrap
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_exam
from sklearn_lmm.exceptions import SingularFitWarning

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
SCORE = "examination at 16 (standard deviations)"
plt.rcParams["figure.constrained_layout.use"] = True
plt.rcParams["savefig.dpi"] = 150
plt.rc("font", size=11)
plt.rc("axes", titlelocation="left")
plt.rc("axes.spines", top=False, right=False)
plt.rc("legend", frameon=False)
plt.rc("lines", linewidth=2, markersize=6)


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


X, y = load_exam(return_X_y=True)
numbers, categories = ["standLRT", "schavg"], ["sex", "intake", "schgend"]
X = X[[*numbers, *categories, "school"]]
school = X["school"]
say(f"{len(y)} students of {school.nunique()} schools")

# %%
# Columns that keep their names
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Of a student we know the reading test at 11, the sex and the band of the school's
# intake test, and of the school the mean reading test and whether it is for boys, girls
# or both. Three settings bring the school through the ``ColumnTransformer``: it is
# passed through as it is, the output is a frame, and columns keep their names. The
# one-hot columns must then be dense, because a frame is.
#
# (Where columns are many and sparse, leave all three out: the mixed model takes a
# sparse matrix, and a column of numbers as labels by its position, such as ``-1``.)


def pipeline(model, of_school):
    """Scale numbers, encode categories, treat the school as told, then the model."""
    columns = make_column_transformer(
        (StandardScaler(), numbers),
        (OneHotEncoder(drop="first", sparse_output=False), categories),
        (of_school, ["school"]),
        verbose_feature_names_out=False,
    )
    return Pipeline([("columns", columns.set_output(transform="pandas")), ("m", model)])


encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
models = {
    "schools ignored": pipeline(LinearRegression(), "drop"),
    "a column for each school": pipeline(LinearRegression(), encoder),
    "mixed model": pipeline(MixedEffectsRegressor("school"), "passthrough"),
}
mixed = models["mixed model"].fit(X, y)
print("\nWhat the mixed model is given")
say(
    ", ".join(
        f"{name} ({kind})" for name, kind in mixed[:-1].transform(X).dtypes.items()
    )
)
same = (mixed[-1].effects_["school"].index == school.cat.categories).all()
say(f"""It has an effect for each of the {len(mixed[-1].effects_["school"])} schools,
    under {"the labels" if same else "other labels than those"} of the data.""")

# %%
# The usual alternative is a column for each school. Under ``KFold`` the schools to be
# predicted are known, under ``GroupKFold`` they are new.

known = KFold(5, shuffle=True, random_state=0)
folds = {
    "known schools": list(known.split(X)),
    "new schools": list(
        GroupKFold(5, shuffle=True, random_state=0).split(X, groups=school)
    ),
}


def score(model, question):
    """Return the mean R2 of a model over the folds that ask a question."""
    return cross_val_score(model, X, y, cv=folds[question]).mean()


r2 = pd.DataFrame(
    {q: {name: score(model, q) for name, model in models.items()} for q in folds}
)
print("\nR2, the mean of five folds")
print(r2.round(3).to_string())
one_hot, of_mixed, ignored = r2.iloc[1], r2.iloc[2], r2.iloc[0]
say(f"""To know the school is worth {of_mixed.iloc[0] - ignored.iloc[0]:.3f}: the mixed
    model has {of_mixed.iloc[0]:.3f} in known schools, where a column for each school
    has {one_hot.iloc[0]:.3f}. With 62 students in a school there is little to shrink,
    and the two are nearly the same. In new schools all three are alike: what is
    special about them nobody can know.""")

figure, ax = plt.subplots(figsize=(8, 3), num="pipeline_1_schools")
places = np.arange(len(r2))
for question, colour, marker in zip(r2, [BLUE, ORANGE], "os", strict=True):
    ax.plot(r2[question], places, marker, color=colour, label=question, markersize=8)
ax.hlines(places, r2.min(axis=1), r2.max(axis=1), color=GREY, linewidth=1, zorder=0)
ax.set(yticks=places, yticklabels=r2.index, ylim=(2.5, -0.5), xlabel="R2")
figure.legend(loc="outside upper center", ncols=2)

# %%
# A search over what varies
# ~~~~~~~~~~~~~~~~~~~~~~~~~
# ``random`` is a parameter like any other, so that a search can choose it, and
# ``method`` as well. The names in it are those that come out of the transformer:
# ``sex_M`` is a column there. The same students are predicted in each fold by all
# candidates, so that we compare them fold by fold. A candidate may be richer than the
# data can tell; the warning of it is left out here, because the scores decide.

grid = {
    "m__random": [
        "school",
        "(sex_M || school)",
        "(standLRT || school)",
        "(standLRT | school)",
    ],
    "m__method": ["reml", "ml"],
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", SingularFitWarning)
    search = GridSearchCV(mixed, grid, cv=folds["known schools"]).fit(X, y)
results = pd.DataFrame(search.cv_results_)
keys = [results["param_m__random"], results["param_m__method"]]
table = results.set_index(keys).filter(regex=r"split\d_test_score")
means = table.mean(axis=1).unstack().loc[grid["m__random"], ["reml", "ml"]]
means.index.name, means.columns.name = None, None
print("\nA search over random and method (R2)")
print(means.round(4).to_string())
gain = table - table.xs("school").reindex(table.index, level=1)
best = gain.loc[(search.best_params_["m__random"], search.best_params_["m__method"])]
say(f"""The best is {search.best_params_["m__random"]} by {
    search.best_params_["m__method"]
}, with {search.best_score_:.4f}. It beats the random intercept in {(best > 0).sum()}
    of 5 folds, by {best.mean():.4f} on average. The two methods
    differ by {abs(means["reml"] - means["ml"]).max():.5f} at most: with 65 schools
    there is little for REML to correct.""")

figure, ax = plt.subplots(figsize=(8, 3.4), num="pipeline_2_search")
for random, place in zip(grid["m__random"][1:], range(3), strict=True):
    for method, shift, colour in [("reml", -0.12, BLUE), ("ml", 0.12, ORANGE)]:
        values = gain.loc[(random, method)]
        at = np.full(len(values), place + shift)
        name = method.upper() if place == 0 else None
        ax.plot(values, at, "o", color=colour, alpha=0.5, label=name, markersize=5)
        ax.plot(values.mean(), place + shift, "|", color=colour, markersize=18)
ax.axvline(0, color=GREY, linewidth=1)
ax.set(yticks=range(3), yticklabels=grid["m__random"][1:], ylim=(2.5, -0.5))
ax.set_xlabel("gain in R2 over a random intercept: folds (dots), mean (bar)")
figure.legend(loc="outside upper center", ncols=2)

# %%
# With boosted trees
# ~~~~~~~~~~~~~~~~~~
# Trees find steps and interactions, the mixed model knows how schools differ. An
# average of both, or a regression on the predictions of both, which is what stacking
# does, may have the better of each. Both ensembles hand all columns to their members,
# so that each takes the school in its own way: the trees, as a category.

winner = search.best_estimator_
trees = HistGradientBoostingRegressor(
    max_iter=30, max_leaf_nodes=12, min_samples_leaf=10, random_state=0
)
members = [("mixed", winner), ("trees", trees)]
weights = LinearRegression(positive=True)
ensembles = {
    "boosted trees": trees,
    "mixed model": winner,
    "average": VotingRegressor(members),
    "stack": StackingRegressor(members, weights, cv=KFold(3)),
}
together = pd.DataFrame(
    {
        name: cross_val_score(model, X, y, cv=folds["known schools"])
        for name, model in ensembles.items()
    }
)
share = ensembles["stack"].fit(X, y).final_estimator_.coef_
print("\nTogether with boosted trees (R2 in known schools)")
print(together.mean().round(3).to_string())
say(f"""The stack weighs the mixed model with {share[0]:.2f} and the trees with
    {share[1]:.2f}, and does not do better than the mixed model by itself
    ({together["stack"].mean():.3f} and {together["mixed model"].mean():.3f}): in these
    data there is next to nothing that only trees could find.""")

figure, ax = plt.subplots(figsize=(8, 3.2), num="pipeline_3_ensembles")
colours = [GREEN, BLUE, ORANGE, ORANGE]
for place, (name, colour) in enumerate(zip(together, colours, strict=True)):
    ax.plot(together[name], np.full(5, place), "o", color=colour, alpha=0.5)
    ax.plot(together[name].mean(), place, "|", color=colour, markersize=20)
ax.set(yticks=range(4), yticklabels=together.columns, ylim=(3.5, -0.5))
ax.set_xlabel("R2 in known schools: folds (dots), mean (bar)")

# %%
# Past the end of the pipeline
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# A pipeline has ``predict``, and of this it passes on ``return_std``. For the other
# methods of the model, take the two apart: ``winner[:-1]`` makes the columns and
# ``winner[-1]`` is the fitted model. Here is one and the same student in each school,
# and in a school that is not among the 65. (What is known of the schools is held at
# that of the student's, so that they differ by their random effects alone.)

student = X.iloc[[0]]
elsewhere = pd.concat([student] * (school.nunique() + 1), ignore_index=True)
labels = [*school.cat.categories, "unheard of"]
elsewhere["school"] = pd.Categorical(labels)
columns = winner[:-1].transform(elsewhere)
frame = pd.DataFrame(
    winner[-1].predict_interval(columns, kind="mean"), labels, ["low", "high"]
)
frame["expected"] = winner.predict(elsewhere)
new = frame.loc["unheard of"]
frame = frame.drop(index="unheard of").sort_values("expected")
lowest, highest = frame.iloc[0], frame.iloc[-1]
print("\nOne student, 66 schools")
say(f"""In school {lowest.name} such students are expected to score
    {lowest["expected"]:.2f}, in school {highest.name} {highest["expected"]:.2f}. Of a
    new school we expect {new["expected"]:.2f}, and are 95% sure of
    {new["low"]:.2f} to {new["high"]:.2f}, which is {new["high"] - new["low"]:.2f} wide;
    the intervals of known schools are {(frame["high"] - frame["low"]).median():.2f}
    wide (median).""")

figure, ax = plt.subplots(figsize=(10, 4.4), num="pipeline_4_student")
ax.axhspan(new["low"], new["high"], color=ORANGE, alpha=0.12, linewidth=0)
ax.axhline(new["expected"], color=ORANGE, label="a school not heard of")
places = np.arange(len(frame))
ax.vlines(places, frame["low"], frame["high"], color=BLUE, linewidth=1.2)
ax.plot(
    places, frame["expected"], "o", color=BLUE, markersize=4, label="a known school"
)
ax.set_xticks(places, frame.index, rotation=90, fontsize=8)
ax.set(xlabel="school", ylabel=SCORE, xlim=(-1, len(frame)))
ax.set_title("Mean score of such students, with intervals of 95%", fontsize=11)
ax.legend(loc="upper left")

# %%
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
