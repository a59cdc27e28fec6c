"""Bootstrap, simulation and refits through the estimator."""

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from models import fitted, model
from numpy.testing import assert_allclose

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, lmer
from sklearn_lmm.datasets import load_sleepstudy
from sklearn_lmm.exceptions import PerfectFitWarning
from sklearn_lmm.intervals import (
    bootstrap,
    confidence_intervals,
    refit,
    simulate,
    variance_parameters,
)

KINDS = ["parametric", "residual", "case"]


def replicates(name, **options):
    m = model(name)
    est = fitted(name)[0]
    return bootstrap(est, m.X, m.y, **m.fit_params, random_state=0, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_standard_errors_are_near_those_of_the_model(kind):
    """Within what 300 replicates, and the assumptions, let one expect."""
    result = replicates("sleep_rs_ml", kind=kind, n_resamples=300)
    table = confidence_intervals(fitted("sleep_rs_ml")[0], parameters="fixed")
    expected = (table["upper"] - table["lower"]) / (2 * 1.96)
    ratio = result.std_errors[expected.index] / expected
    assert ratio.between(0.85, 1.15).all()
    errors = variance_parameters(fitted("sleep_rs_ml")[0])["std_error"]
    ratio = result.std_errors[errors.index] / errors
    # Groups drawn again know nothing of normal distributions.
    assert ratio.between(0.5, 2.8 if kind != "parametric" else 1.4).all()
    assert result.n_unconverged == 0
    assert np.isfinite(result.fits["criterion"]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_replicates_however_many_jobs(kind):
    options = {"kind": kind, "n_resamples": 101}
    one = replicates("sleep_ri_reml", **options)
    with joblib.parallel_config(backend="threading"):
        two = replicates("sleep_ri_reml", n_jobs=2, **options)
    pd.testing.assert_frame_equal(one.replicates, two.replicates)
    pd.testing.assert_frame_equal(one.fits, two.fits)
    m, est = model("sleep_ri_reml"), fitted("sleep_ri_reml")[0]
    other = bootstrap(est, m.X, m.y, kind=kind, n_resamples=10, random_state=1)
    assert not np.isclose(other.replicates, one.replicates[:10])[:, 0].any()


@pytest.mark.parametrize(
    "name",
    ["sleep_weights_reml", "penicillin_ml", "pastes_nested_reml", "sleep_offset_reml"],
)
def test_other_models(name):
    """Precision weights, crossed and nested factors, an offset."""
    est = fitted(name)[0]
    result = replicates(name, n_resamples=60)
    assert list(result.replicates.columns) == list(confidence_intervals(est).index)
    spread = result.std_errors / np.sqrt(60)
    off = (result.bias / spread)[est.fixed_effects_.index]
    assert off.abs().max() < 4.0
    assert_allclose(result.estimates[est.fixed_effects_.index], est.fixed_effects_)


def test_case_bootstrap_of_nested_groups_draws_the_outer_ones():
    result = replicates("pastes_nested_reml", kind="case", n_resamples=30)
    assert result.n_unconverged == 0
    inner = replicates(
        "pastes_nested_reml", kind="case", unit="batch:cask", n_resamples=10
    )
    assert not np.allclose(inner.replicates[:10], result.replicates[:10])


def test_case_bootstrap_of_crossed_groups_asks_which():
    with pytest.raises(ValueError, match=r"'sample', 'plate' are crossed.*unit="):
        replicates("penicillin_ml", kind="case", n_resamples=2)
    result = replicates("penicillin_ml", kind="case", unit="plate", n_resamples=5)
    assert result.replicates.notna().all(axis=None)
    with pytest.raises(ValueError, match="no grouping factor"):
        replicates("penicillin_ml", kind="case", unit="dish", n_resamples=5)
    with pytest.raises(ValueError, match="draws no groups"):
        replicates("penicillin_ml", unit="plate", n_resamples=5)


def test_frequency_weights_are_rows():
    X, y = load_sleepstudy(return_X_y=True)
    weights = np.tile([1.0, 2.0, 3.0], 60)
    copies = np.repeat(np.arange(180), weights.astype(int))
    model = MixedEffectsRegressor("Subject")
    long = model.fit(X.iloc[copies], y.iloc[copies])
    expected = bootstrap(
        long, X.iloc[copies], y.iloc[copies], n_resamples=5, random_state=0
    )
    short = model.fit(X, y, sample_weight=weights)
    found = bootstrap(short, X, y, sample_weight=weights, n_resamples=5, random_state=0)
    assert_allclose(found.replicates, expected.replicates, rtol=1e-6)
    broken = weights + 0.5
    est = model.fit(X, y, sample_weight=broken)
    with pytest.raises(ValueError, match="whole numbers"):
        bootstrap(est, X, y, sample_weight=broken, n_resamples=2)


def test_singular_replicates_are_counted_and_have_notes():
    m = model("dyestuff2_singular_reml")
    est = fitted("dyestuff2_singular_reml")[0]
    result = bootstrap(est, m.X, m.y, n_resamples=100, random_state=0)
    # About half of the samples of a model without variance have none.
    assert 30 < result.n_singular < 90
    table = result.intervals()
    assert table.loc["sd((Intercept) | Batch)", "lower"] == 0.0
    assert (table["upper"] > table["lower"]).all()
    slopes = replicates("sleep_rs_reml", n_resamples=10)
    slopes.replicates.iloc[:3, 4] = np.nan
    noted = slopes.intervals()["note"]
    assert noted.iloc[4] == "3 of 10 replicates have no value and are left out"


def test_intervals_by_percentile_and_reflected():
    result = replicates("sleep_ri_reml", n_resamples=120)
    percentile, basic = (result.intervals(0.8, kind=k) for k in ("percentile", "basic"))
    assert_allclose(percentile["lower"], result.replicates.quantile(0.1), rtol=1e-12)
    assert_allclose(
        basic["upper"], 2 * result.estimates - percentile["lower"], rtol=1e-12
    )
    with pytest.raises(ValueError, match="neither"):
        result.intervals(kind="bca")
    with pytest.raises(ValueError, match="between 0 and 1"):
        result.intervals(2.0)


def test_confidence_intervals_by_bootstrap():
    m, est = model("sleep_ri_reml"), fitted("sleep_ri_reml")[0]
    table = confidence_intervals(
        est,
        m.X,
        m.y,
        method="bootstrap",
        parameters="sigma",
        n_resamples=60,
        random_state=0,
    )
    expected = replicates("sleep_ri_reml", n_resamples=60).intervals()
    pd.testing.assert_frame_equal(table, expected.loc[["sigma"]])


def total_effect(est):
    return est.effects_["Subject"].abs().sum()


@pytest.mark.parametrize("kind", KINDS)
def test_statistic_gets_every_refitted_model(kind):
    result = replicates(
        "sleep_rs_reml", kind=kind, n_resamples=7, statistic=lambda est: est.coef_[0]
    )
    assert_allclose(result.statistics[0], result.replicates["Days"])
    effects = replicates(
        "sleep_rs_reml", kind=kind, n_resamples=3, statistic=total_effect
    )
    assert list(effects.statistics.columns) == ["(Intercept)", "Days"]
    assert (effects.statistics > 0).all(axis=None)


def test_other_rows_are_refused():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("Subject").fit(X, y)
    with pytest.raises(ValueError, match="not the rows of the fit"):
        bootstrap(est, X[:170], y[:170])
    with pytest.warns(PerfectFitWarning):
        perfect = MixedEffectsRegressor("Subject").fit(X, 2.0 * X["Days"])
    with pytest.raises(ValueError, match="explained exactly"):
        bootstrap(perfect, X, 2.0 * X["Days"])
    with pytest.raises(ValueError, match="this model has none"):
        alone = MixedEffectsRegressor([]).fit(X[["Days"]], y)
        bootstrap(alone, X[["Days"]], y, kind="case")


def test_simulated_responses_have_the_moments_of_the_model():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    Z, _ = est.design_matrix(X)
    G = np.kron(np.eye(18), est.covariances_["Subject"])
    V = Z @ G @ Z.T + est.sigma_**2 * np.eye(180)
    Y = simulate(est, X, n=3000, random_state=0)
    population = est.predict(X, random_effects=False)
    assert (
        np.abs(Y.mean(axis=1) - population) < 4.5 * np.sqrt(np.diag(V) / 3000)
    ).all()
    spread = np.sqrt(np.outer(np.diag(V), np.diag(V)) + V**2) / np.sqrt(3000)
    assert (np.abs(np.cov(Y) - V) / spread).max() < 6.0


def test_simulated_responses_of_known_and_unknown_levels():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor(RandomEffect("Subject", slopes=["Days"])).fit(X, y)
    new = X[:20].assign(Subject=["308"] * 10 + ["stranger"] * 10)
    Y = simulate(est, new, n=2000, random_effects="fitted", random_state=0)
    sigma = est.sigma_
    known = np.abs(Y[:10].mean(axis=1) - est.predict(new[:10]))
    assert (known < 4.5 * sigma / np.sqrt(2000)).all()
    assert_allclose(Y[:10].std(axis=1), sigma, rtol=0.07)
    z = np.column_stack([np.ones(10), new["Days"][10:]])
    total = np.sqrt(
        np.einsum("ni,ij,nj->n", z, est.covariances_["Subject"], z) + sigma**2
    )
    assert_allclose(Y[10:].std(axis=1), total, rtol=0.07)
    none = simulate(est, new, n=2000, random_effects="none", random_state=0)
    assert_allclose(none.std(axis=1), sigma, rtol=0.07)


def test_simulate_takes_offset_and_precisions():
    m, est = model("sleep_offset_reml"), fitted("sleep_offset_reml")[0]
    groups = m.fit_params.get("groups")
    Y = simulate(est, m.X, groups, n=500, random_effects="none", random_state=0)
    expected = est.predict(m.X, groups, random_effects=False)
    off = (Y.mean(axis=1) - expected) / (est.sigma_ / np.sqrt(500))
    assert np.abs(off).max() < 4.5
    m, est = model("sleep_weights_reml"), fitted("sleep_weights_reml")[0]
    weights = m.fit_params["sample_weight"]
    Y = simulate(
        est, m.X, n=500, random_effects="none", sample_weight=weights, random_state=0
    )
    assert_allclose(Y.std(axis=1) * np.sqrt(weights), est.sigma_, rtol=0.2)


def test_simulate_leaves_out_what_the_fit_leaves_out():
    rows = load_sleepstudy(as_frame=True).frame
    rows.loc[[3, 50], "Days"] = np.nan
    formula = "Reaction ~ Days + (1 | Subject)"
    est = lmer(formula, rows, na_action="drop", weights=np.ones(180))
    weights = np.ones(180)
    weights[7] = 0.0
    Y = simulate(est, rows, n=2, sample_weight=weights, random_state=0)
    assert np.flatnonzero(np.isnan(Y).all(axis=1)).tolist() == [3, 7, 50]
    assert np.isfinite(np.delete(Y, [3, 7, 50], axis=0)).all()
    assert refit(est, rows, simulate(est, rows, random_state=0)[:, 0]).sigma_ > 0.0


def test_refit_is_a_fit_and_leaves_the_estimator():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    before = est.fixed_effects_.copy()
    other = simulate(est, X, random_state=3)[:, 0]
    again = refit(est, X, other)
    expected = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, other)
    assert_allclose(again.fixed_effects_, expected.fixed_effects_)
    assert_allclose(again.theta_, expected.theta_, atol=1e-7)
    assert_allclose(est.fixed_effects_, before, rtol=0, atol=0)


def test_refit_warns_as_fit_does():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("Subject").fit(X, y)
    flat = y - y.groupby(X["Subject"]).transform("mean")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert refit(est, X, flat).singular_
    assert [w.category.__name__ for w in caught] == ["SingularFitWarning"]
