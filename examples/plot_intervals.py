r"""
===========================
Intervals for a new store
===========================

How much will a shop sell next week that does not exist yet? The best guess is what an
average shop sells. How far the truth may be off depends on what is not known: how this
shop differs from others, how the week differs from others, the chance of the day, and
how well all that has been estimated. A mixed model has a variance for each, and puts
together those that the question calls for:

- ``predict_interval(X)`` is to cover a new observation,
- ``predict_interval(X, kind="mean")`` the mean about which observations of this group
  vary; of an unknown group, that of a group drawn at random,
- ``random_effects=False`` or a list of factors says whose effects to predict at all.

The data are made up, so that we know the truth and can look whether it is covered.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.model_selection import GroupKFold

from sklearn_lmm import MixedEffectsRegressor

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
SALES = "sales in a week (1000 euros)"
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


def open_stores(n_stores, n_weeks, week_effects, rng):
    """Draw sales of stores, and the mean that they vary about in an average week."""
    store, week = np.divmod(np.arange(n_stores * n_weeks), n_weeks)
    area = rng.uniform(4, 20, n_stores)
    own = rng.multivariate_normal([0, 0], [[64, 6], [6, 4]], n_stores)
    X = pd.DataFrame(
        {
            "area": area[store],
            "promotion": rng.choice([0.0, 1.0], len(store), p=[0.6, 0.4]),
            "store": store,
            "week": week,
        }
    )
    mean = 30 + 3 * X["area"] + 5 * X["promotion"]
    mean = mean + own[store, 0] + own[store, 1] * X["promotion"]
    return X, mean, mean + week_effects[week] + rng.normal(scale=3, size=len(store))


# %%
# The model
# ~~~~~~~~~
# 25 stores report sales of 26 weeks. Stores differ in level, and in what a promotion
# does for them; weeks differ, too, for all stores alike. The two factors are crossed:
#
# .. math:: y_{sw} = \beta_0 + \beta_1\,\mathrm{area}_s
#    + \beta_2\,\mathrm{promotion}_{sw} + b_{0s} + b_{1s}\,\mathrm{promotion}_{sw}
#    + c_w + e_{sw}.

rng = np.random.default_rng(11)
n_weeks = 26
week_effects = rng.normal(scale=4, size=n_weeks)
X, _, y = open_stores(25, n_weeks, week_effects, rng)
model = MixedEffectsRegressor("(1 + promotion | store) + (1 | week)").fit(X, y)
sd = {name: np.sqrt(np.diag(Psi)) for name, Psi in model.covariances_.items()}
say(f"{len(y)} rows of {X['store'].nunique()} stores in {n_weeks} weeks")
say(f"""Stores differ with a standard deviation of {sd["store"][0]:.1f} in level and of
    {sd["store"][1]:.1f} in the effect of a promotion, weeks with one of
    {sd["week"][0]:.1f}; the residual one is {model.sigma_:.1f}. Another 100 square
    metres are worth {model.coef_[0]:.2f} a week, a promotion {model.coef_[1]:.2f}.""")

# %%
# Known or new
# ~~~~~~~~~~~~
# The same row, without promotion in a store of average size, in four situations. A
# label that the fit has not seen, here -1, makes a store or a week unknown. An
# observation needs the variance of every effect that is not known, and the residual
# one; the mean of a known store in a known week has to be estimated, no more.

row = X[X["store"] == 3].head(1).assign(area=X["area"].mean(), promotion=0.0)
situations = pd.concat(
    {
        "known store, known week": row,
        "known store, new week": row.assign(week=-1),
        "new store, known week": row.assign(store=-1),
        "new store, new week": row.assign(store=-1, week=-1),
    }
).droplevel(1)
center = model.predict(situations)
half = {
    kind: np.diff(model.predict_interval(situations, kind=kind))[:, 0] / 2
    for kind in ["observation", "mean"]
}
table = pd.DataFrame({"prediction": center} | half, index=situations.index)
print("\nHalf the width of 95% intervals")
print(table.round(1).to_string())
known, nothing = table["observation"].iloc[[0, -1]]
say(f"""An observation is uncertain by {known:.1f} where store and week are known, and
    by {nothing:.1f} where neither is. Mean and observation differ much in the first
    case, and hardly in the last: that the store is unknown matters more than a week's
    chance.""")


figure, ax = plt.subplots(figsize=(8, 3.6), num="intervals_1_known_or_new")
places = np.arange(len(table))
for kind, shift, color in [("observation", -0.1, ORANGE), ("mean", 0.1, BLUE)]:
    ax.errorbar(
        center, places + shift, xerr=half[kind], fmt="o", color=color, label=kind
    )
ax.set(yticks=places, yticklabels=table.index, xlabel=SALES)
ax.invert_yaxis()
figure.legend(loc="outside upper center", ncols=2)

# %%
# Where to open
# ~~~~~~~~~~~~~
# How do sales depend on the size of the shop? Three bands answer three questions. The
# narrow one is about the average of all stores of a size (``random_effects=False``,
# ``kind="mean"``): with more stores it shrinks to a line. The middle one is about one
# new store in an average week (``random_effects=["store"]``: the mean is over weeks,
# and the store is unknown). The wide one is about a single week of it. What more stores
# cannot do is to make stores alike: the wide bands stay.

sizes = pd.DataFrame({"area": np.linspace(4, 20, 60), "promotion": 0.0})
sizes = sizes.assign(store=-1, week=-1)
bands = {
    "a week of a new store": {},
    "a new store, average week": {"random_effects": ["store"], "kind": "mean"},
    "average of all stores": {"random_effects": False, "kind": "mean"},
}
plain = X["promotion"] == 0
means = pd.DataFrame({"area": X["area"], "sales": y})[plain].groupby(X["store"]).mean()
print("\nThree questions")
figure, ax = plt.subplots(figsize=(8, 5), num="intervals_2_sizes")
for (name, options), shade in zip(bands.items(), [0.18, 0.3, 0.6], strict=True):
    lower, upper = model.predict_interval(sizes, **options).T
    ax.fill_between(
        sizes["area"], lower, upper, color=BLUE, alpha=shade, linewidth=0, label=name
    )
    say(f"{name}: ± {(upper - lower).mean() / 2:.1f} on average")
ax.plot(sizes["area"], model.predict(sizes), color="black", linewidth=1)
ax.plot(means["area"], means["sales"], "ko", markersize=4, label="mean of a store")
ax.set(xlabel="area of the store (100 square metres)", ylabel=SALES)
ax.legend(loc="upper left")

# %%
# The first weeks
# ~~~~~~~~~~~~~~~
# The store opens. Each week tells us more about it, and ``adapt`` takes that in: the
# effects of the new store are predicted from its weeks, everything else stays. The
# interval for its mean in an average week without promotion shrinks, at first fast.
# That for a single week cannot shrink below what weeks vary by. Intervals side by side
# are of nearly the same weeks, and so they miss the truth together where they miss it.

X_new, mean_new, y_new = open_stores(1, n_weeks, week_effects, rng)
X_new = X_new.assign(store="new")
X_named = X.assign(store=[f"store {label}" for label in X["store"]])
model = MixedEffectsRegressor(model.random).fit(X_named, y)
ahead = X_new.head(1).assign(promotion=0.0, week=-1)
truth = (mean_new - 5 * X_new["promotion"])[X_new["promotion"] == 0].iloc[0]
ks = [0, 1, 2, 3, 5, 8, 13, 26]
rows = []
for k in ks:
    adapted = model.adapt(X_new[:k], y_new[:k]) if k else model
    options = {"random_effects": ["store"], "kind": "mean"}
    mean = adapted.predict_interval(ahead, **options)[0]
    week = adapted.predict_interval(ahead)[0]
    rows.append([*mean, *week])
columns = ["lower", "upper", "lower, a week", "upper, a week"]
weeks = pd.DataFrame(rows, pd.Index(ks, name="weeks known"), columns)
print("\nA store that has opened")
print(weeks.round(1).to_string())
narrower = weeks["upper"] - weeks["lower"]
say(f"""Its mean is {truth:.1f}. One week brings the interval for the mean from ±
    {narrower[0] / 2:.1f} to ± {narrower[1] / 2:.1f}, {n_weeks} weeks to ±
    {narrower[n_weeks] / 2:.1f}.""")

figure, ax = plt.subplots(figsize=(8, 4.4), num="intervals_3_first_weeks")
places = np.arange(len(ks))
for (low, high), shift, color, name in [
    (columns[2:], 0.1, ORANGE, "a week"),
    (columns[:2], -0.1, BLUE, "mean"),
]:
    middle, reach = weeks[[low, high]].mean(axis=1), (weeks[high] - weeks[low]) / 2
    ax.errorbar(places + shift, middle, yerr=reach, fmt="o", color=color, label=name)
ax.axhline(truth, color=GREY, linestyle="--", label="true mean")
ax.set(xticks=places, xlabel="weeks known of the new store", ylabel=SALES)
ax.set_xticklabels(ks)
figure.legend(loc="outside upper center", ncols=3)

# %%
# Do they cover?
# ~~~~~~~~~~~~~~
# Leave out whole stores, ask for intervals and count. What is often done instead, the
# prediction plus and minus so many residual standard deviations, treats a new store as
# if it were known. Stores left out share their surprises between all their weeks, and
# so the share that is covered is itself uncertain: we repeat it with new stores.

promised = [0.5, 0.8, 0.9, 0.95]
covered = {"mixed model": [], "residual sd only": []}
for _ in range(4):
    X, _, y = open_stores(25, n_weeks, week_effects, rng)
    for train, test in GroupKFold(5).split(X, groups=X["store"]):
        model.fit(X.iloc[train], y.iloc[train])
        center, true = model.predict(X.iloc[test]), y.iloc[test].to_numpy()
        off = np.abs(true - center)
        naive = model.sigma_ * stats.norm.ppf(0.5 + np.array(promised) / 2)
        covered["residual sd only"].append([np.mean(off <= reach) for reach in naive])
        bounds = [model.predict_interval(X.iloc[test], coverage=c) for c in promised]
        covered["mixed model"].append(
            [np.mean(off <= upper - center) for _, upper in map(np.transpose, bounds)]
        )
shares = pd.DataFrame(
    {name: np.mean(found, axis=0) for name, found in covered.items()},
    index=pd.Index(promised, name="promised"),
)
print("\nShare of the weeks of new stores that are covered")
print(shares.round(3).to_string())
say(f"""Of intervals that promise 95% those of the mixed model cover
    {shares.iloc[-1, 0]:.0%} and those from the residual standard deviation
    {shares.iloc[-1, 1]:.0%}.""")

figure, ax = plt.subplots(figsize=(5.6, 5), num="intervals_4_coverage")
ax.axline((0.5, 0.5), slope=1, color=GREY, linestyle=":", linewidth=1.5)
for name, color in zip(shares, [BLUE, ORANGE], strict=True):
    ax.plot(promised, shares[name], "o-", color=color)
    ax.annotate(
        name,
        (promised[1], shares[name].iloc[1]),
        xytext=(8, -16),
        textcoords="offset points",
        color=color,
    )
ax.set(xlabel="promised", ylabel="covered", xlim=(0.45, 1), ylim=(0, 1))

# %%
# The figures are shown, or saved here as PNG files where there is no display.

if plt.get_backend().lower() == "agg":
    for name in plt.get_figlabels():
        plt.figure(name).savefig(f"{name}.png")
        print(f"Figure saved: {name}.png")
else:
    plt.show()
