"""What RandomEffectsEncoder learns, against the model itself and simple algebra."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import KFold, PredefinedSplit, StratifiedKFold

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, RandomEffectsEncoder
from sklearn_lmm.exceptions import (
    IdentifiabilityWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
)

N_SHOPS = 30
ignore_singular = pytest.mark.filterwarnings(
    "ignore::sklearn_lmm.exceptions.SingularFitWarning"
)


def sales(n=600, seed=0):
    """Return rows of two crossed factors with effects, a covariate and a slope."""
    rng = np.random.default_rng(seed)
    shop, item = rng.integers(0, N_SHOPS, n), rng.integers(0, 12, n)
    price = rng.normal(size=n) + 0.05 * shop
    shop_effect, item_effect = rng.normal(size=N_SHOPS), 0.7 * rng.normal(size=12)
    slope = 2.0 + 0.8 * rng.normal(size=N_SHOPS)
    y = 10 + shop_effect[shop] + item_effect[item] + slope[shop] * price
    X = pd.DataFrame({"price": price, "shop": shop, "item": item})
    X["shop"] = "s" + X["shop"].astype(str)
    X["item"] = pd.Categorical("i" + X["item"].astype(str))
    return X, pd.Series(y + rng.normal(size=n))


X, Y = sales()


def noise(seed, n=3000, n_levels=300):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"c": rng.integers(0, n_levels, n)}), rng.normal(size=n)


def correlation(encoded, y):
    return 0.0 if np.ptp(encoded) == 0 else np.corrcoef(encoded, y)[0, 1]


# The model behind the encoding


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_encoding_is_intercept_plus_effect(method):
    encoder = RandomEffectsEncoder("shop", method=method).fit(X, Y)
    model = MixedEffectsRegressor("shop", fixed=[], method=method).fit(X, Y)
    expected = model.intercept_ + model.effects_["shop"]["(Intercept)"]
    found = encoder.encodings_["shop"]
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-9)
    assert encoder.target_mean_ == {"shop": pytest.approx(model.intercept_)}
    np.testing.assert_allclose(encoder.covariances_["shop"], model.covariances_["shop"])
    np.testing.assert_allclose(encoder.transform(X)[:, 0], model.predict(X), rtol=1e-9)


def test_joint_model_is_the_crossed_one():
    encoder = RandomEffectsEncoder().fit(X, Y)
    model = MixedEffectsRegressor(["shop", "item"], fixed=[]).fit(X, Y)
    assert list(encoder.encodings_) == ["shop", "item"]
    for name, found in encoder.encodings_.items():
        effects = model.effects_[name]["(Intercept)"]
        expected = model.intercept_ + effects[found.index]
        np.testing.assert_allclose(found, expected, rtol=1e-8)
    total = encoder.transform(X).sum(axis=1) - model.intercept_
    np.testing.assert_allclose(total, model.predict(X), rtol=1e-8)


def test_without_joint_every_column_has_a_model_of_its_own():
    together = RandomEffectsEncoder(joint=False, extras="std").fit(X, Y)
    alone = [RandomEffectsEncoder(c, extras="std").fit(X, Y) for c in ("shop", "item")]
    expected = np.hstack([encoder.transform(X) for encoder in alone])
    np.testing.assert_array_equal(together.transform(X), expected)
    joint = RandomEffectsEncoder(extras="std").fit(X, Y).transform(X)
    assert np.abs(joint - expected).max() > 0.1


def test_adjustment_takes_out_the_covariate_at_its_mean():
    encoder = RandomEffectsEncoder("shop", adjust_for="price").fit(X, Y)
    model = MixedEffectsRegressor("shop", fixed=["price"]).fit(X, Y)
    at_mean = pd.DataFrame(
        {"price": X["price"].mean(), "shop": X["shop"], "item": "i1"}
    )
    found = encoder.transform(X)[:, 0]
    np.testing.assert_allclose(found, model.predict(at_mean), rtol=1e-9)
    # The covariate itself plays no part when rows are encoded.
    np.testing.assert_array_equal(encoder.transform(X.assign(price=9.9))[:, 0], found)
    raw = RandomEffectsEncoder("shop").fit(X, Y).transform(X)[:, 0]
    assert np.abs(found - raw).max() > 0.5


def test_slopes_are_those_of_the_model():
    encoder = RandomEffectsEncoder("shop", slopes="price", extras="std").fit(X, Y)
    term = RandomEffect("shop", slopes="price")
    model = MixedEffectsRegressor(term, fixed=["price"]).fit(X, Y)
    effects = model.effects_["shop"]
    coefficients = effects + model.fixed_effects_
    at_mean = coefficients["(Intercept)"] + coefficients["price"] * X["price"].mean()
    expected = np.column_stack([at_mean, coefficients["price"]])
    found = encoder.transform(X)
    rows = effects.index.get_indexer(X["shop"])
    np.testing.assert_allclose(found[:, :2], expected[rows], rtol=1e-6)
    tidy = model.random_effects(return_std=True).set_index(["coefficient", "level"])
    std = tidy.loc["price", "std"][X["shop"]]
    np.testing.assert_allclose(found[:, 3], std, rtol=1e-6)
    covariance = encoder.covariances_["shop"]
    np.testing.assert_allclose(
        covariance.loc["price", "price"],
        model.covariances_["shop"].loc["price", "price"],
        rtol=1e-6,
    )


def test_textbook_shrinkage_in_a_balanced_layout():
    rng = np.random.default_rng(3)
    m, G = 8, 40
    code = np.repeat(np.arange(G), m)
    y = 5 + 0.6 * rng.normal(size=G)[code] + rng.normal(size=m * G)
    means = y.reshape(G, m).mean(axis=1)
    within = ((y - means[code]) ** 2).sum() / (G * (m - 1))
    between = means.var(ddof=1) - within / m
    kept = between / (between + within / m)
    encoder = RandomEffectsEncoder(extras=("count", "std")).fit(code[:, None], y)
    value, std, count = encoder.transform(np.arange(G)[:, None]).T
    np.testing.assert_allclose(value, y.mean() + kept * (means - y.mean()), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(between * (1 - kept)), rtol=1e-6)
    assert (count == m).all()
    unknown = encoder.transform([[G]])[0]
    np.testing.assert_allclose(unknown, [y.mean(), np.sqrt(between), 0], rtol=1e-6)


# Noise


@ignore_singular
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [3000, 5000])
def test_pure_noise_does_not_leak(n, seed):
    frame, y = noise(seed, n)
    encoder = RandomEffectsEncoder("c", random_state=seed)
    assert abs(correlation(encoder.fit_transform(frame, y)[:, 0], y)) < 0.1
    # Encoded by all rows, any chance effect shows: this is what leaks.
    leaky = encoder.transform(frame)[:, 0]
    assert correlation(leaky, y) == 0 or correlation(leaky, y) > 0.2


@ignore_singular
def test_no_variance_between_categories_shrinks_to_the_mean():
    errors = []
    for seed in range(20):
        frame, y = noise(seed)
        encoder = RandomEffectsEncoder("c").fit(frame, y + 7)
        errors.append(np.mean((encoder.encodings_["c"] - 7) ** 2))
    # Means of 10 rows, unshrunken, have an error of 0.32.
    assert np.sqrt(np.mean(errors)) < 0.08


@ignore_singular
@pytest.mark.parametrize(
    "options", [{}, {"joint": False}, {"adjust_for": "price"}, {"slopes": "price"}]
)
def test_a_row_is_encoded_without_its_own_fold(options):
    fold = np.arange(len(X)) % 4
    encoder = RandomEffectsEncoder(
        ["shop", "item"], extras=("std", "count"), cv=PredefinedSplit(fold), **options
    )
    before = encoder.fit_transform(X, Y)
    rng = np.random.default_rng(0)
    after = encoder.fit_transform(X, np.where(fold == 2, rng.normal(size=len(X)), Y))
    np.testing.assert_array_equal(after[fold == 2], before[fold == 2])
    assert (np.abs(after - before)[fold != 2, 0] > 1e-3).mean() > 0.9


def test_folds_are_fits_to_the_other_rows():
    splits = list(KFold(3).split(X))
    encoder = RandomEffectsEncoder(extras=("std", "count"), cv=splits)
    encoded = encoder.fit_transform(X, Y)
    for outside, inside in splits:
        part = RandomEffectsEncoder(extras=("std", "count"))
        part.fit(X.iloc[outside], Y.iloc[outside])
        np.testing.assert_allclose(
            encoded[inside], part.transform(X.iloc[inside]), rtol=1e-6
        )


def test_category_that_a_fold_lacks_is_the_populations():
    frame = X[["shop"]].copy()
    frame.iloc[0, 0] = "once"
    encoder = RandomEffectsEncoder(extras=("std", "count"), cv=KFold(4))
    value, std, count = encoder.fit_transform(frame, Y)[0]
    rest = RandomEffectsEncoder(extras=("std", "count")).fit(frame[150:], Y[150:])
    assert value == pytest.approx(rest.target_mean_["shop"])
    assert std**2 == pytest.approx(rest.covariances_["shop"].iloc[0, 0])
    assert count == 0


# Labels


LABELS = {
    "int": lambda code: code,
    "float": lambda code: code + 0.5,
    "str": lambda code: np.array([f"level {c:03}" for c in code], dtype=object),
    "category": lambda code: pd.Categorical([f"level {c:03}" for c in code]),
    "bool": lambda code: code % 2 == 0,
    "date": lambda code: pd.Timestamp("2020-01-01") + pd.to_timedelta(code, "D"),
    "Int64": lambda code: pd.array(code, dtype="Int64"),
}


@pytest.mark.parametrize("container", ["pandas", "polars", "array"])
@pytest.mark.parametrize("kind", LABELS)
@ignore_singular
def test_labels_of_any_type(kind, container):
    code = np.random.default_rng(1).integers(0, 25, 400)
    y = np.sin(code) + np.random.default_rng(2).normal(size=400)
    labels = LABELS[kind](code)
    frame = pd.DataFrame({"c": labels})
    data = {
        "pandas": frame,
        "polars": pl.from_pandas(frame),
        "array": frame.to_numpy(),
    }[container]
    same = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1, 1)
    encoder = RandomEffectsEncoder(0, random_state=0, extras="std")
    expected = encoder.fit_transform(same, y)
    np.testing.assert_allclose(encoder.fit_transform(data, y), expected, rtol=1e-8)
    expected = encoder.fit(same, y).transform(same)
    np.testing.assert_allclose(encoder.fit(data, y).transform(data), expected)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_labels_are_a_category(missing):
    labels = X["shop"].astype(object)
    explicit = labels.mask(labels == "s3", "~").to_frame()
    frame = labels.where(labels != "s3", missing).to_frame()
    encoder = RandomEffectsEncoder(extras="count").fit(frame, Y)
    expected = RandomEffectsEncoder(extras="count").fit(explicit, Y)
    np.testing.assert_allclose(encoder.transform(frame), expected.transform(explicit))
    found = encoder.encodings_["shop"]
    assert len(found) == N_SHOPS
    assert pd.isna(found.index[-1])
    assert found.iloc[-1] == pytest.approx(expected.encodings_["shop"]["~"])


def test_missing_labels_in_numeric_columns_and_arrays():
    code = X["shop"].str[1:].astype(float).to_numpy()
    explicit, frame = code.copy(), code.copy()
    explicit[code == 3], frame[code == 3] = 99, np.nan
    expected = RandomEffectsEncoder().fit(explicit[:, None], Y)
    encoder = RandomEffectsEncoder().fit(frame[:, None], Y)
    np.testing.assert_allclose(
        encoder.transform(frame[:, None]), expected.transform(explicit[:, None])
    )


def test_missing_label_that_the_fit_never_saw_is_unknown():
    encoder = RandomEffectsEncoder("shop", extras="std").fit(X, Y)
    new = pd.DataFrame({"price": 0.0, "shop": [None, "elsewhere"], "item": "i1"})
    found = encoder.transform(new)
    std = np.sqrt(encoder.covariances_["shop"].iloc[0, 0])
    expected = [encoder.target_mean_["shop"], std]
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-12)


def test_column_of_missing_labels_only():
    frame = pd.DataFrame({"c": [None] * 10})
    with pytest.warns(IdentifiabilityWarning, match="'c' has one category only"):
        encoder = RandomEffectsEncoder().fit(frame, np.arange(10.0))
    found = encoder.transform(pd.DataFrame({"c": [None, "new"]}))
    np.testing.assert_allclose(found, 4.5)


def test_unknown_categories_are_refused_on_demand():
    encoder = RandomEffectsEncoder("shop", handle_unknown="error").fit(X, Y)
    new = pd.DataFrame({"price": 0.0, "shop": ["s1", "north", "south"], "item": "i1"})
    with pytest.raises(ValueError, match="'shop' in 2 rows: 'north', 'south'"):
        encoder.transform(new)
    np.testing.assert_allclose(
        encoder.transform(new[:1]), encoder.encodings_["shop"]["s1"]
    )


def test_labels_of_another_type_are_refused():
    encoder = RandomEffectsEncoder("shop").fit(X, Y)
    with pytest.raises(ValueError, match=r"'shop' are numbers .* text"):
        encoder.transform(X.assign(shop=1))


def test_order_of_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(len(X))
    one = RandomEffectsEncoder().fit(X, Y)
    other = RandomEffectsEncoder().fit(X.iloc[order], Y.iloc[order])
    np.testing.assert_allclose(one.transform(X), other.transform(X), rtol=1e-8)
    shuffled = one.transform(X.iloc[order])
    np.testing.assert_array_equal(shuffled, one.transform(X)[order])


# The target


@pytest.mark.parametrize(
    "classes", [(0, 1), (-1, 1), (False, True), ("no", "yes"), (2.5, 7.5)]
)
def test_binary_target_counts_as_0_and_1(classes):
    is_high = np.asarray(Y > np.median(Y))
    encoder = RandomEffectsEncoder("shop", random_state=0)
    encoded = encoder.fit_transform(X, np.where(is_high, classes[1], classes[0]))
    assert encoder.classes_.tolist() == list(classes)
    numbers = RandomEffectsEncoder("shop", random_state=0)
    expected = numbers.fit_transform(X, is_high.astype(float))
    np.testing.assert_array_equal(encoded, expected)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    stratified = RandomEffectsEncoder("shop", cv=folds).fit_transform(X, is_high)
    np.testing.assert_array_equal(encoded, stratified)


def test_whole_numbers_are_numbers():
    y = np.round(Y).astype(int)
    encoder = RandomEffectsEncoder("shop").fit(X, y)
    assert encoder.classes_ is None
    floats = RandomEffectsEncoder("shop").fit(X, y.astype(float))
    np.testing.assert_array_equal(encoder.transform(X), floats.transform(X))


def test_three_classes_are_refused():
    y = np.array(["red", "green", "blue"])[np.arange(len(X)) % 3]
    with pytest.raises(ValueError, match=r"y has 3 classes .*one class at a time"):
        RandomEffectsEncoder("shop").fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", None] * 300, "contains NaN"),
        ([1.5, np.nan] * 300, "contains NaN"),
        (["a", "b"] * 299, "X has 600 rows, y has 598"),
        ([1.5, 2.0, 3.0], "X has 600 rows, y has 3"),
        (np.ones((600, 2)), "1d array"),
    ],
)
def test_unusable_targets_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        RandomEffectsEncoder("shop").fit(X, y)


# Columns


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (X, {}, ["shop", "item"]),
        (X, {"slopes": "price"}, ["shop", "shop_price", "item", "item_price"]),
        (X, {"columns": -1}, ["item"]),
        (X, {"columns": ["item", 1]}, ["item", "shop"]),
        (X.assign(item=Y**2), {"adjust_for": [2, "price"]}, ["shop"]),
        (X[["price"]], {}, ["price"]),
        (X.to_numpy(), {"adjust_for": 0}, ["x1", "x2"]),
        (X.to_numpy(), {}, ["x0", "x1", "x2"]),
        (pl.from_pandas(X), {}, ["shop", "item"]),
        (X, {"columns": 1, "extras": "std"}, ["shop", "shop_std"]),
        (
            X,
            {"columns": 1, "slopes": "price", "extras": ["count", "std"]},
            ["shop", "shop_price", "shop_std", "shop_price_std", "shop_count"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.IdentifiabilityWarning")
@ignore_singular
def test_encoded_columns_and_their_names(data, options, expected):
    encoder = RandomEffectsEncoder(**options).fit(data, Y)
    assert encoder.get_feature_names_out().tolist() == expected
    assert encoder.transform(data).shape == (len(X), len(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "shpo"}, "columns names 'shpo', but .*Did you mean 'shop'"),
        ({"columns": []}, "There is no column to encode"),
        ({"columns": ["shop", 1]}, "columns=['shop', 1] names a column twice"),
        ({"adjust_for": "item"}, "'item' is named in adjust_for or slopes"),
        ({"slopes": "shop"}, "'shop' is named in adjust_for or slopes"),
        ({"extras": ["std", "mean"]}, "extras=['std', 'mean'] has 'mean'"),
        ({"method": "bayes"}, "'method' parameter"),
        ({"cv": [([0], [1])]}, "599 rows never, 0 more than once"),
        ({"cv": [([9], range(600)), ([9], [3])]}, "0 rows never, 1 more than once"),
    ],
)
def test_parameters_are_refused_with_the_cure(options, message):
    message = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=message):
        RandomEffectsEncoder(**options).fit_transform(X, Y)


def test_output_names_that_collide_are_refused():
    frame = X.rename(columns={"item": "shop_count"})
    with pytest.raises(ValueError, match="would be called 'shop_count'"):
        RandomEffectsEncoder(extras="count").fit(frame, Y)


def test_missing_covariates_count_as_the_mean():
    price = X["price"].mask(np.arange(len(X)) % 5 == 0)
    filled = X.assign(price=price.fillna(price.mean()))
    options = {"columns": "shop", "adjust_for": "price"}
    expected = RandomEffectsEncoder(**options).fit(filled, Y).transform(X)
    frame = X.assign(price=price)
    for data in (frame, pl.from_pandas(frame), frame.to_numpy()):
        names = options if hasattr(data, "columns") else {"columns": 1, "adjust_for": 0}
        found = RandomEffectsEncoder(**names).fit(data, Y).transform(data)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_infinite_covariates_are_refused():
    with pytest.raises(ValueError, match="infinity"):
        RandomEffectsEncoder("shop", adjust_for="price").fit(X.assign(price=np.inf), Y)


# Warnings: each once, whatever the folds find


def warned(encoder, frame, y):
    with pytest.warns(UserWarning) as record:
        encoded = encoder.fit_transform(frame, y)
    assert np.isfinite(encoded).all()
    assert np.isfinite(encoder.transform(frame)).all()
    assert {warning.filename for warning in record} == {__file__}
    return [(warning.category, str(warning.message)) for warning in record]


def test_columns_without_information_are_named_once():
    frame = pd.DataFrame(
        {"one": "x", "id": np.arange(60).astype(str), "void": list("abcdef") * 10}
    )
    y = np.tile(np.random.default_rng(0).normal(size=10).repeat(3), 2)
    found = dict(warned(RandomEffectsEncoder(extras="std"), frame, y))
    assert list(found) == [IdentifiabilityWarning, SingularFitWarning]
    assert "'one' has one category only" in found[IdentifiabilityWarning]
    assert "every category of 'id' has a single row" in found[IdentifiabilityWarning]
    assert "constant columns of 'void':" in found[SingularFitWarning]


@pytest.mark.parametrize("joint", [True, False])
def test_constant_target(joint):
    encoder = RandomEffectsEncoder(joint=joint, extras="std")
    [(category, message)] = warned(encoder, X[["shop", "item"]], np.full(len(X), 2.5))
    assert category is PerfectFitWarning
    assert "y is constant" in message
    expected = np.tile([2.5, 0.0, 2.5, 0.0], (len(X), 1))
    np.testing.assert_allclose(encoder.transform(X[["shop", "item"]]), expected)


def test_target_explained_exactly():
    y = X["shop"].str[1:].astype(float)
    encoder = RandomEffectsEncoder("shop")
    [(category, message)] = warned(encoder, X, y)
    assert category is PerfectFitWarning
    assert "'shop'" in message
    np.testing.assert_allclose(encoder.transform(X)[:, 0], y, rtol=1e-6, atol=1e-6)


def test_dropped_covariates_are_named():
    frame = X.assign(double=2 * X["price"], same=1.0)
    encoder = RandomEffectsEncoder(
        "shop", slopes="price", adjust_for=["double", "same"]
    )
    [(category, message)] = warned(encoder, frame, Y)
    assert category is RankDeficiencyWarning
    assert "'double', 'same'" in message
    alone = RandomEffectsEncoder("shop", slopes="price").fit(frame, Y)
    np.testing.assert_allclose(encoder.transform(frame), alone.transform(frame))


def test_identical_columns_share_the_effect():
    frame = pd.DataFrame({"a": X["shop"], "b": X["shop"]})
    encoder = RandomEffectsEncoder().fit(frame, Y)
    a, b = encoder.transform(frame).T
    total = a + b - encoder.target_mean_["a"]
    single = RandomEffectsEncoder().fit(frame[["a"]], Y).transform(frame[["a"]])[:, 0]
    np.testing.assert_allclose(total, single, rtol=1e-5)
