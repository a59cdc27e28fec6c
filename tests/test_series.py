"""Autocorrelation and semivariogram of residuals, and likelihood-ratio tests."""

import json

import numpy as np
import pandas as pd
import pytest
from models import ORACLES_DIR
from numpy.testing import assert_allclose
from residual_models import fitted, inputs
from scipy.signal import lfilter

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_ovary
from sklearn_lmm.diagnostics import (
    _semivariogram,
    autocorrelation,
    residuals,
    semivariogram,
)
from sklearn_lmm.inference import likelihood_ratio_test
from sklearn_lmm.residuals import AR1, Exponential

NUMBERS = json.loads((ORACLES_DIR / "autocorrelation.json").read_text())
AR1_FIT = "lme_ovary_ri_ar1_reml"


@pytest.fixture(scope="module")
def ovary():
    X, y = inputs(AR1_FIT)
    plain = MixedEffectsRegressor("mare", fixed=["sin", "cos"]).fit(X, y)
    return {"plain": plain, "ar1": fitted(AR1_FIT)}, X, y


@pytest.mark.parametrize("kind", ["pearson", "normalized"])
@pytest.mark.parametrize("name", ["plain", "ar1"])
def test_autocorrelations_of_nlme(ovary, name, kind):
    models, X, y = ovary
    own = {"pearson": "scaled"}.get(kind, kind)
    if name == "plain":
        own = "scaled"
    expected = NUMBERS[name]["acf"][kind][1:]
    for time in (None, "day"):
        found = autocorrelation(
            models[name], X, y, kind=own, max_lag=10, time=time, series="mare"
        )
        assert_allclose(found["autocorrelation"], expected, atol=2e-6)
        assert found["lag"].tolist() == list(range(1, 11))


@pytest.mark.parametrize("name", ["plain", "ar1"])
def test_semivariograms_of_nlme(ovary, name):
    models, X, y = ovary
    found = semivariogram(models[name], X, y, time="day", max_distance=10)
    assert_allclose(found["distance"], np.arange(1, 11))
    expected = list(NUMBERS[name]["variogram"].values())
    assert_allclose(found["semivariogram"], expected, rtol=1e-5)
    assert found["n_pairs"].tolist() == list(NUMBERS[name]["pairs"].values())
    phi = models["ar1"].residual_parameters_["phi"]
    model = 1.0 - phi ** np.arange(1, 11) if name == "ar1" else np.ones(10)
    assert_allclose(found["model"], model)


def pairs(X, r, d):
    """Return the products of all pairs of rows of a mare, d days apart."""
    found = []
    for mare in X["mare"].unique():
        here = np.flatnonzero(X["mare"] == mare)
        day = X["day"].to_numpy()[here]
        i, j = np.nonzero(day[:, None] + d == day)
        found += (r[here[i]] * r[here[j]]).tolist()
    return found


def test_gaps_and_the_order_of_rows(ovary):
    _, X, y = ovary
    kept = np.random.default_rng(0).permutation(len(X))[:200]
    X, y = X.iloc[kept], y.iloc[kept]
    est = MixedEffectsRegressor("mare", fixed=["sin", "cos"]).fit(X, y)
    found = autocorrelation(est, X, y, time="day", max_lag=60)
    r = residuals(est, X, y, kind="scaled")
    for lag, value, n_pairs, lower, upper in found.itertuples(index=False):
        products = pairs(X, r, lag)
        assert n_pairs == len(products)
        assert_allclose(value, np.mean(products) / np.mean(r**2), rtol=1e-10)
        assert_allclose([lower, upper], np.array([-1, 1]) * 1.959964 / n_pairs**0.5)
    assert len(found) < 60


def test_places_as_arrays_and_in_two_coordinates():
    rng = np.random.default_rng(2)
    X = pd.DataFrame(rng.uniform(size=(60, 2)) * 10, columns=["east", "north"])
    X = X.assign(field=np.repeat(["a", "b"], 30), block=np.tile(np.arange(6), 10))
    y = np.sin(X["east"]) + rng.normal(size=60) + rng.normal(size=6)[X["block"]]
    structure = Exponential(["east", "north"], "field", nugget=True)
    est = MixedEffectsRegressor("block", fixed=[], residual=structure).fit(X, y)
    found = semivariogram(est, X, y, n_bins=5)
    again = semivariogram(
        est,
        X,
        y,
        n_bins=5,
        time=X[["east", "north"]].to_numpy(),
        series=X["field"].to_numpy(),
    )
    pd.testing.assert_frame_equal(found, again)
    r = residuals(est, X, y, kind="scaled")
    where, field = X[["east", "north"]].to_numpy(), X["field"].to_numpy()
    i, j = np.nonzero(np.triu(field[:, None] == field, 1))
    d = np.linalg.norm(where[i] - where[j], axis=1)
    assert found["n_pairs"].sum() == len(d) == 2 * 30 * 29 / 2
    nearest = np.argsort(d)[: found["n_pairs"][0]]
    half = 0.5 * (r[i] - r[j])[nearest] ** 2
    assert_allclose(found["semivariogram"][0], half.mean())
    reach, nugget = est.residual_parameters_
    model = 1.0 - (1.0 - nugget) * np.exp(-d[nearest] / reach)
    assert_allclose(found["model"][0], model.mean(), rtol=1e-10)


def test_normalized_marginal_residuals_of_the_right_model_are_uncorrelated():
    rng = np.random.default_rng(1)
    noise = lfilter([0.6], [1.0, -0.8], rng.normal(size=(200, 60)), axis=1)[:, 40:]
    X = pd.DataFrame({"t": np.tile(np.arange(20), 200), "g": np.arange(4000) // 20})
    y = rng.normal(size=200)[X["g"]] + noise.ravel()
    est = MixedEffectsRegressor("g", fixed=[], residual=AR1("t", "g")).fit(X, y)
    options = {"max_lag": 8, "random_effects": False}
    white = autocorrelation(est, X, y, kind="normalized", coverage=0.9999, **options)
    assert white["autocorrelation"].between(white["lower"], white["upper"]).all()
    raw = autocorrelation(est, X, y, **options)
    assert (raw["autocorrelation"] > raw["upper"]).all()


def test_what_is_refused(ovary):
    models, X, y = ovary
    est = models["plain"]
    with pytest.raises(ValueError, match="Lags need whole times, but there is"):
        autocorrelation(est, X, y, time="cycle")
    with pytest.raises(ValueError, match="rows have the time of another row"):
        autocorrelation(est, X, y, time="day", series=np.zeros(len(X)))
    with pytest.raises(ValueError, match="time has 3 values, X has 308 rows"):
        autocorrelation(est, X, y, time=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="one column as time"):
        autocorrelation(est, X, y, time=["day", "cycle"])
    with pytest.raises(ValueError, match="single row"):
        autocorrelation(est, X, y, series=np.arange(len(X)))
    with pytest.raises(ValueError, match="No two rows of a series are 0"):
        semivariogram(est, X, y, time="day", max_distance=0.5)
    with pytest.raises(ValueError, match="kind='response'"):
        semivariogram(est, X, y, kind="response")
    with pytest.raises(ValueError, match="between 0 and 1"):
        autocorrelation(est, X, y, coverage=1.5)
    with pytest.raises(ValueError, match="'kind' parameter of autocorrelation"):
        autocorrelation(est, X, y, kind="raw")
    with pytest.raises(ValueError, match="'max_lag' parameter of autocorrelation"):
        autocorrelation(est, X, y, max_lag=0)
    with pytest.raises(ValueError, match="'n_bins' parameter of semivariogram"):
        semivariogram(est, X, y, n_bins=0)


def test_crossed_factors_do_not_say_what_the_series_are():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": np.arange(60) // 6, "b": np.arange(60) % 6})
    y = rng.normal(size=10)[X["a"]] + rng.normal(size=6)[X["b"]] + rng.normal(size=60)
    est = MixedEffectsRegressor(["a", "b"]).fit(X, y)
    with pytest.raises(ValueError, match="say it by series="):
        autocorrelation(est, X, y)
    assert len(autocorrelation(est, X, y, series="a")) == 5
    alone = MixedEffectsRegressor([]).fit(X, y)
    with pytest.raises(ValueError, match="groups has 'a', 'b': say it by series="):
        autocorrelation(alone, X, y, groups=X[["a", "b"]])


def test_a_sample_of_very_many_pairs(monkeypatch, ovary):
    models, X, y = ovary
    every = semivariogram(models["plain"], X, y, time="day")
    monkeypatch.setattr(_semivariogram, "MOST_PAIRS", 2000)
    some = semivariogram(models["plain"], X, y, time="day")
    assert some["n_pairs"].sum() == 2000 < every["n_pairs"].sum()
    assert_allclose(some["semivariogram"], every["semivariogram"], atol=0.25)


def test_columns_beside_a_formula():
    data = load_ovary().frame
    waves = "follicles ~ np.sin(2 * np.pi * cycle) + np.cos(2 * np.pi * cycle)"
    est = MixedEffectsRegressor(formula=f"{waves} + (1 | mare)").fit(data)
    found = autocorrelation(est, data, data["follicles"], time="day", max_lag=10)
    expected = NUMBERS["plain"]["acf"]["pearson"][1:]
    assert_allclose(found["autocorrelation"], expected, atol=2e-6)


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_likelihood_ratio_of_nlme(method):
    X, y = inputs(AR1_FIT)
    options = {"fixed": ["sin", "cos"], "method": method}
    small = MixedEffectsRegressor("mare", **options).fit(X, y)
    large = MixedEffectsRegressor("mare", residual=AR1("day"), **options).fit(X, y)
    table = likelihood_ratio_test(small, large, refit=method == "ml")
    expected = NUMBERS["tests"][method]
    assert table["n_parameters"].tolist() == expected["df"]
    assert_allclose(table["log_likelihood"], expected["log_likelihood"], rtol=1e-8)
    assert_allclose(table["statistic"].iloc[1], expected["statistic"], rtol=1e-7)
    assert_allclose(table["p_value"].iloc[1], expected["p_value"], rtol=1e-5)
    if method == "reml":
        again = likelihood_ratio_test(small, large)
        by_ml = NUMBERS["tests"]["ml"]["log_likelihood"]
        assert_allclose(again["log_likelihood"], by_ml, rtol=1e-8)
