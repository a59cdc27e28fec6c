"""Labels, targets and columns of any form that RandomEffectsEncoder reads."""

import re

import numpy as np
import pandas as pd
import pytest
from frames import to_polars
from shops import N_SHOPS, X, Y, ignore_singular
from sklearn.model_selection import StratifiedKFold

from sklearn_lmm import RandomEffectsEncoder
from sklearn_lmm.exceptions import IdentifiabilityWarning

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
        "polars": to_polars(frame),
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
        (to_polars(X), {}, ["shop", "item"]),
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
    for data in (frame, to_polars(frame), frame.to_numpy()):
        names = options if hasattr(data, "columns") else {"columns": 1, "adjust_for": 0}
        found = RandomEffectsEncoder(**names).fit(data, Y).transform(data)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_infinite_covariates_are_refused():
    with pytest.raises(ValueError, match="infinity"):
        RandomEffectsEncoder("shop", adjust_for="price").fit(X.assign(price=np.inf), Y)
