"""Data with random effects of schools and towns, and fits of it in one call."""

import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor


def data(seed=1, n=120):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "school": rng.integers(0, 12, n) + 300,
            "town": rng.integers(0, 7, n),
        }
    )
    b = rng.normal(size=(12, 2)) @ np.array([[1.0, 0.4], [0.0, 0.8]])
    effect = b[X["school"] - 300]
    y = 1 + X["x"] - 0.5 * X["z"] + effect[:, 0] + effect[:, 1] * X["x"]
    y += rng.normal(size=7)[X["town"]] + rng.normal(scale=0.7, size=n)
    return X, y.to_numpy()


X, Y = data()
NUMERIC = X[["x", "z"]]
SCHOOL = X["school"]


def fit(random, X=X, y=Y, *, groups=None, sample_weight=None, **parameters):
    model = MixedEffectsRegressor(random, **parameters)
    return model.fit(X, y, groups=groups, sample_weight=sample_weight)


def assert_same_fit(one, other, rtol=1e-9):
    np.testing.assert_allclose(one.fixed_effects_, other.fixed_effects_, rtol=rtol)
    np.testing.assert_allclose(one.theta_, other.theta_, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(one.sigma_, other.sigma_, rtol=rtol)
    np.testing.assert_allclose(one.log_likelihood_, other.log_likelihood_, rtol=rtol)
    for mine, theirs in zip(one.fit_.effects, other.fit_.effects, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-10)
