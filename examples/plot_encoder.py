r"""
======================================================
Many categories: how far should an encoder trust them?
======================================================

A column with a thousand shops has too many values for dummy variables, so that it is
common to put a number in the place of each: the mean of the target in that shop. A shop
with three customers has an unreliable mean, and encoders therefore shrink means towards
the overall one. The question is how far.

``RandomEffectsEncoder`` lets the data say: it estimates by REML how much shops differ
and how much customers of one shop do. Here it stands in front of a gradient-boosted
model, beside scikit-learn's ``TargetEncoder``.
"""

import textwrap
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from sklearn_lmm import RandomEffectsEncoder
from sklearn_lmm.datasets import load_insteval

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
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


# %%
# Shops whose truth we know
# ~~~~~~~~~~~~~~~~~~~~~~~~~
# We draw 1000 shops with 1 to some hundred customers each. Customer :math:`i` of shop
# :math:`g` spends
#
# .. math:: y_{gi} = 20 + b_g + e_{gi}, \qquad b_g \sim N(0, 0.5^2),
#    \quad e_{gi} \sim N(0, 2^2).
#
# Shops differ, but much less than customers do.

rng = np.random.default_rng(0)
n_shops, sd_shops, sd_customers = 1000, 0.5, 2.0
size = np.clip(rng.lognormal(2, 1.2, n_shops), 1, 300).astype(int)
shops = pd.Index([f"shop {g:03}" for g in range(n_shops)])
expected = pd.Series(20 + sd_shops * rng.normal(size=n_shops), index=shops)
X = pd.DataFrame({"shop": np.repeat(shops, size)})
y = expected[X["shop"]].to_numpy() + sd_customers * rng.normal(size=len(X))
say(f"{len(y)} customers of {n_shops} shops, {size.min()} to {size.max()} in each")

# %%
# Both encoders shrink a mean of :math:`n` customers towards the overall mean. The best
# share to keep is :math:`n / (n + \sigma^2 / \psi)`, with the variance :math:`\psi`
# between shops and :math:`\sigma^2` within. ``TargetEncoder`` puts the *total* variance
# of the target in the place of :math:`\psi`: it keeps nearly everything.

encoder = RandomEffectsEncoder().fit(X, y)
rival = TargetEncoder().fit(X, y)
encoded = pd.DataFrame(
    {
        "mean": pd.Series(y).groupby(X["shop"]).mean(),
        "TargetEncoder": pd.Series(rival.encodings_[0], index=rival.categories_[0]),
        "RandomEffectsEncoder": encoder.encodings_["shop"],
    }
).loc[shops]
between = encoder.covariances_["shop"].iloc[0, 0]
say(f"""The standard deviation between shops is estimated as {np.sqrt(between):.3f}
    (true: {sd_shops}).""")

colours = {"TargetEncoder": ORANGE, "RandomEffectsEncoder": BLUE}
figure, axes = plt.subplots(
    1, 2, figsize=(10, 4.8), num="encoder_1_shops", sharex=True, sharey=True
)
few = size <= 5
for ax, (name, colour) in zip(axes, colours.items(), strict=True):
    ax.axline((20, 20), slope=1, color=GREY, linewidth=1)
    for which, style, label in [
        (~few, {"color": colour, "alpha": 0.5}, "more than 5 customers"),
        (few, {"color": colour, "markerfacecolor": "white"}, "up to 5 customers"),
    ]:
        ax.plot(expected[which], encoded[name][which], "o", label=label, **style)
    rmse = np.sqrt(np.mean((encoded[name] - expected) ** 2))
    ax.set(title=f"{name}: RMSE {rmse:.2f}", xlabel="true expectation of the shop")

axes[0].set(ylabel="encoding")
axes[1].legend(loc="lower right")

# %%
# The error depends on the size of the shop. To know nothing of shops, and encode all as
# 20, makes an error of 0.5; the mean of a small shop is far worse than that, and so is
# what ``TargetEncoder`` makes of it. The mixed model is at no size worse than either.

edges = [0, 1, 2, 5, 10, 20, 50, 300]
names = ["1", "2", "3–5", "6–10", "11–20", "21–50", "51–300"]
bins = pd.cut(size, edges, labels=names)
squares = encoded.sub(expected, axis=0) ** 2
errors = squares.groupby(bins, observed=True).mean() ** 0.5
print("\nRMSE by the number of customers")
print(errors.round(2).to_string())

figure, ax = plt.subplots(figsize=(8, 4.6), num="encoder_2_size")
places = np.arange(len(errors))
ax.axhline(sd_shops, color="black", linewidth=1)
ax.text(places[-1], sd_shops + 0.03, "one number for all shops", ha="right")
for name, colour in {"mean": GREY, **colours}.items():
    ax.plot(places, errors[name], "o-", color=colour, label=name)
ax.set_xticks(places, names)
ax.set(
    title="Error of the encoding",
    xlabel="customers of the shop",
    ylabel="RMSE",
    ylim=(0, None),
)
ax.legend()

# %%
# A column without information
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~
# What if shops do not differ at all? We shuffle the customers' expenses. The means of
# shops still differ, by chance. REML finds no more than chance in them and shrinks all
# the way: the column is constant, and a warning tells.

shuffled = rng.permutation(y)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    constant = RandomEffectsEncoder().fit(X, shuffled).encodings_["shop"]
print("\nShuffled expenses")
spread = np.std(TargetEncoder().fit(X, shuffled).encodings_[0])
say(f"""The encodings have the standard deviation {spread:.2f} with TargetEncoder and
    {constant.std():.2f} with RandomEffectsEncoder.""")
for warning in told:
    say(f"{warning.category.__name__}: {warning.message}")

# %%
# In front of a boosted model
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# Customers now have two more properties that matter, and a boosted model predicts what
# they spend. Both encoders are cross-fitted: ``fit_transform``, which a pipeline calls
# to fit, encodes each row by the rows of other folds, so that its own target does not
# leak. To see what that is worth we also go without, by ``fit`` and then ``transform``.

properties = rng.normal(size=(len(y), 2))
spent = y + np.sin(2 * properties[:, 0]) + properties[:, 1]
data = X.assign(a=properties[:, 0], b=properties[:, 1])
splits = list(KFold(4, shuffle=True, random_state=0).split(data))
encoders = {
    "columns left out": "drop",
    "TargetEncoder": TargetEncoder(
        target_type="continuous", cv=KFold(5, shuffle=True, random_state=0)
    ),
    "RandomEffectsEncoder": RandomEffectsEncoder(random_state=0),
}


def boosted_scores(data, y, columns):
    """Return R2 in the rows left out, with every encoder."""
    scores = {}
    for name, encoder in encoders.items():
        encode = ColumnTransformer([("", encoder, columns)], remainder="passthrough")
        model = make_pipeline(encode, HistGradientBoostingRegressor(random_state=0))
        scores[name] = cross_val_score(model, data, y, cv=splits)
    return pd.DataFrame(scores)


def show(ax, scores, title):
    """Draw R2, a point for every fold and a line for the mean."""
    for place, (name, values) in enumerate(scores.items()):
        colour = colours.get(name, GREY)
        ax.plot(values, np.full(len(values), place), "o", color=colour, alpha=0.6)
        ax.plot(2 * [values.mean()], [place - 0.25, place + 0.25], color=colour)
        ax.text(values.mean(), place + 0.32, f"{values.mean():.3f}", ha="center")
    ax.set(
        title=title, xlabel="R2 in folds left out", ylim=(-0.5, scores.shape[1] - 0.3)
    )
    ax.set_yticks(range(scores.shape[1]), scores.columns)


def leaky_scores(data, y, encoder):
    """Return R2 in the rows left out, if rows are encoded by their own target."""
    for learn, predict in splits:
        encoder.fit(data.iloc[learn], y[learn])
        encoded = np.column_stack([encoder.transform(data), data[["a", "b"]]])
        model = HistGradientBoostingRegressor(random_state=0)
        yield model.fit(encoded[learn], y[learn]).score(encoded[predict], y[predict])


scores = boosted_scores(data, spent, ["shop"])
leaky = list(leaky_scores(data, spent, RandomEffectsEncoder("shop")))
scores.insert(1, "not cross-fitted", leaky)
print("\nBoosted model, mean R2 in four folds left out")
print(scores.mean().round(4).to_string())

figure, ax = plt.subplots(figsize=(8, 4), num="encoder_3_boosted")
show(ax, scores, "Expenses of customers")

# %%
# Students and lecturers
# ~~~~~~~~~~~~~~~~~~~~~~
# Students of ETH Zurich rated their lecturers from 1 to 5. Some students are kinder
# than others, and a lecturer's mean depends on who came. Given several columns, the
# encoder fits one crossed model, so that students, lecturers and departments are each
# adjusted for the others (``joint=False`` takes them one by one, as ``TargetEncoder``
# does). We take the ratings of the first 600 students.

ratings, score = load_insteval(return_X_y=True)
rows = ratings["s"].astype(int) <= 600
labels = ratings.loc[rows, ["s", "d", "dept"]].astype(str)
covariates = ratings.loc[rows, ["studage", "lectage", "service"]].astype(str)
ratings = labels.join(covariates.astype(float))
splits = list(KFold(4, shuffle=True, random_state=0).split(ratings))
scores = boosted_scores(ratings, score[rows].astype(float), ["s", "d", "dept"])
print()
say(f"""{len(ratings)} ratings of {labels["d"].nunique()} lecturers by
    {labels["s"].nunique()} students, mean R2 in four folds left out""")
print(scores.mean().round(4).to_string())
ahead = scores["RandomEffectsEncoder"] - scores["TargetEncoder"]
say(f"RandomEffectsEncoder is ahead in {(ahead > 0).sum()} of {len(ahead)} folds.")

figure, ax = plt.subplots(figsize=(8, 3.4), num="encoder_4_ratings")
show(ax, scores, "Ratings of lecturers")

# %%
# How certain is an encoding?
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~
# With ``extras`` the output has, for every encoded column, the conditional standard
# deviation of the effect and the number of rows behind it. A shop that was never seen
# is encoded as the mean, with the standard deviation between shops.

encoder = RandomEffectsEncoder(extras=("std", "count")).set_output(transform="pandas")
some = pd.DataFrame({"shop": [shops[size.argmax()], shops[size.argmin()], "a new one"]})
print("\nEncodings with their uncertainty")
table = encoder.fit(X, y).transform(some)
print(table.set_axis(list(some["shop"])).round(3).to_string())

# %%
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
