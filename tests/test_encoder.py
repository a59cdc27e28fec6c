"""What RandomEffectsEncoder learns, against the model itself and simple algebra."""

import numpy as np
import pandas as pd
import pytest
from shops import X, Y, ignore_singular
from sklearn.model_selection import KFold, PredefinedSplit
from sklearn.preprocessing import TargetEncoder

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, RandomEffectsEncoder


def noise(seed, n=3000, n_levels=300):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"c": rng.integers(0, n_levels, n)}), rng.normal(size=n)


def correlation(encoded, y):
    return 0.0 if np.ptp(encoded) == 0 else np.corrcoef(encoded, y)[0, 1]


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
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1, 1.0])
def test_closer_to_known_effects_than_target_encoder(ratio):
    size = np.tile([1, 2, 3, 10, 20], 40)
    code = np.repeat(np.arange(200), size)
    frame, levels = pd.DataFrame({"c": code}), pd.DataFrame({"c": np.arange(200)})
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth = np.sqrt(ratio) * rng.normal(size=200)
        y = truth[code] + rng.normal(size=len(code))
        encoders = RandomEffectsEncoder("c"), TargetEncoder(target_type="continuous")
        encoded = [e.fit(frame, y).transform(levels)[:, 0] for e in encoders]
        errors.append([np.sqrt(np.mean((values - truth) ** 2)) for values in encoded])
    ahead = np.diff(errors)
    assert ahead.mean() > 2 * ahead.std(ddof=1) / np.sqrt(len(ahead))


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
