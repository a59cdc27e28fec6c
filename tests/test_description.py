"""R2, ICC, effective parameters and marginal covariances."""

import json

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, ORACLES_DIR, fitted, model
from numpy.testing import assert_allclose
from problems import PROBLEMS, problem, wide_columns
from scipy.linalg import block_diag

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm._engine.description import effective_parameters
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.result import factor_maps
from sklearn_lmm.datasets import load_sleepstudy
from sklearn_lmm.diagnostics import (
    effective_df,
    icc,
    marginal_correlation,
    marginal_covariance,
    r_squared,
    variance_explained,
    variance_function,
)
from sklearn_lmm.residuals import AR1

EXPECTED = json.loads((ORACLES_DIR / "intervals.json").read_text())
REGULAR = [name for name in EXPECTED if not ORACLES[name]["singular"]]


@pytest.mark.parametrize("name", REGULAR)
def test_r2_and_icc(name):
    est, expected = fitted(name)[0], EXPECTED[name]["r2"]
    # The sums of a fit with precision weights are weighted, lme4's are not.
    X = model(name).X if ORACLES[name]["weights"] else None
    variances = variance_explained(est, X)["variance"]
    close = {"rtol": 1e-5, "atol": 1e-12 * est.sigma_**2}
    assert_allclose(variances["fixed"], expected["var_fixed"], **close)
    assert_allclose(variances["residual"], expected["var_resid"], **close)
    # lme4 has an order of its own, and makes two terms of (1 + x || g).
    by_term, random = expected["var_random_by_term"], variances.iloc[1:-1]
    assert_allclose(random.sum(), np.sum(by_term), **close)
    if len(random) == len(np.atleast_1d(by_term)):
        assert_allclose(np.sort(random), np.sort(by_term), **close)
    r2, groups = r_squared(est, X), icc(est, X)
    assert_allclose(r2["marginal"], expected["r2_marginal"], rtol=1e-5, atol=1e-12)
    assert_allclose(r2["conditional"], expected["r2_conditional"], rtol=1e-5)
    assert_allclose(groups["adjusted"], expected["icc_adjusted"], rtol=1e-5)
    assert_allclose(groups["unadjusted"], expected["icc_unadjusted"], rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in EXPECTED if "hat_sum" in EXPECTED[n]])
def test_effective_df(name):
    df = effective_df(fitted(name)[0])
    assert_allclose(df, EXPECTED[name]["hat_sum"], rtol=2e-5)


@pytest.mark.parametrize("name", PROBLEMS)
def test_effective_parameters_are_the_trace_of_the_hat_matrix(name):
    design = problem(name)
    result = fit(design, reml=True, weights="precision")
    point = result.point()
    maps = factor_maps(point.criterion.statistics)
    Z = wide_columns(design)
    blocks = []
    for R, L, s in zip(maps, point.L, point.criterion.statistics.s, strict=True):
        Psi = R @ L @ L.T @ R.T
        blocks.append(np.kron(np.eye(len(s)), Psi))
    n = len(design.y)
    W = np.eye(n) if design.weights is None else np.diag(design.weights)
    V = np.linalg.inv(W) + Z @ block_diag(*blocks) @ Z.T
    ones = np.ones((n, int(design.intercept)))
    X = np.hstack([ones, design.X])[:, result.kept]
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    hat = np.eye(n) - np.linalg.inv(W) @ P
    assert_allclose(effective_parameters(point), np.trace(hat), rtol=1e-8)


def test_frequency_weights_are_rows():
    X, y = load_sleepstudy(return_X_y=True)
    weights = np.tile([1.0, 2.0, 3.0], 60)
    copies = np.repeat(np.arange(180), weights.astype(int))
    spec = MixedEffectsRegressor("(1 + Days | Subject)")
    short = spec.fit(X, y, sample_weight=weights)
    expected = variance_explained(short), effective_df(short)
    long = spec.fit(X.iloc[copies], y.iloc[copies])
    pd.testing.assert_frame_equal(variance_explained(long), expected[0], rtol=1e-6)
    assert_allclose(effective_df(long), expected[1], rtol=1e-6)


def test_rows_give_what_the_sums_give():
    est, m = fitted("machines_nested_reml")[0], model("machines_nested_reml")
    pd.testing.assert_frame_equal(
        variance_explained(est), variance_explained(est, m.X), rtol=1e-9
    )


def test_no_intercept_at_all_needs_the_rows():
    X, y = load_sleepstudy(return_X_y=True)
    spec = MixedEffectsRegressor("(0 + Days | Subject)", fit_intercept=False)
    est = spec.fit(X, y - 251.4)
    assert not est.singular_
    with pytest.raises(ValueError, match="give them as X"):
        r_squared(est)
    days = est.coef_[0] * X["Days"]
    table = variance_explained(est, X)
    assert_allclose(table.loc["fixed", "variance"], np.var(days, ddof=1))
    slope = est.covariances_["Subject"].iloc[0, 0]
    between = slope * (X["Days"] ** 2).mean()
    assert_allclose(table.loc["Subject", "variance"], between)


def test_marginal_covariance_is_that_of_the_model():
    m, est = model("sleep_weights_reml"), fitted("sleep_weights_reml")[0]
    weights = m.fit_params["sample_weight"]
    V = marginal_covariance(est, m.X, sample_weight=weights)
    Z, _ = est.design_matrix(m.X)
    G = np.kron(np.eye(18), est.covariances_["Subject"])
    dense = Z @ G @ Z.T + np.diag(est.sigma_**2 / weights)
    assert_allclose(V.toarray(), dense, atol=1e-9)
    assert V.nnz == 18 * 100
    # The criterion of the fit is that of these rows.
    X = np.column_stack([np.ones(180), m.X["Days"]])
    H = X.T @ np.linalg.solve(dense, X)
    r = m.y - est.predict(m.X, random_effects=False)
    value = (
        np.linalg.slogdet(2 * np.pi * dense)[1]
        + r @ np.linalg.solve(dense, r)
        + np.linalg.slogdet(H)[1]
        - 2 * np.log(2 * np.pi)
    )
    assert_allclose(value, est.fit_.criterion, rtol=1e-9)


def test_one_group_and_correlations():
    m, est = model("penicillin_ml"), fitted("penicillin_ml")[0]
    V = marginal_covariance(est, m.X).toarray()
    names = list(est.covariances_)
    block = marginal_covariance(est, m.X, group=(names[1], "c"))
    rows = np.flatnonzero(m.X[names[1]] == "c")
    assert list(block.index) == list(m.X.index[rows])
    assert_allclose(block, V[np.ix_(rows, rows)])
    first = marginal_covariance(est, m.X, group="A")
    assert_allclose(first, V[np.ix_(*[np.flatnonzero(m.X[names[0]] == "A")] * 2)])
    R = marginal_correlation(est, m.X)
    assert_allclose(R.diagonal(), 1.0)
    scale = np.sqrt(np.diag(V))
    assert_allclose(R.toarray(), V / np.outer(scale, scale))
    block = marginal_correlation(est, m.X, group="A")
    assert_allclose(np.diag(block), 1.0)
    with pytest.raises(ValueError, match=r"no rows of 'Z'.*\(factor, label\)"):
        marginal_covariance(est, m.X, group="Z")


def test_unknown_groups_are_groups_too():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("Subject").fit(X, y)
    new = X[:4].assign(Subject=["x", "y", "x", "y"])
    V = marginal_covariance(est, new).toarray()
    between = est.covariances_["Subject"].iloc[0, 0]
    assert_allclose(V[0], [between + est.sigma_**2, 0.0, between, 0.0])


def test_variance_function():
    m = model("machines_cellslopes_reml")
    slopes = ["MachineA", "MachineB", "MachineC"]
    effect = RandomEffect("Worker", slopes=slopes, intercept=False)
    est = MixedEffectsRegressor(effect, fixed=slopes[1:]).fit(m.X, m.y)
    table = variance_function(est, "MachineB", [0.0, 0.5, 1.0], at={"MachineA": 0.5})
    S = est.covariances_["Worker"].to_numpy()
    z = np.array([0.5, 0.5, 0.0])
    assert_allclose(table.loc[0.5, "Worker"], z @ S @ z)
    assert_allclose(table["total"], table["Worker"] + est.sigma_**2)
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    found = variance_function(est, "Days", X["Days"][:10])["total"]
    assert_allclose(found, np.diag(marginal_covariance(est, X, group="308")))
    with pytest.raises(ValueError, match=r"'days' has no random slope.*'Days'"):
        variance_function(est, "days", [1.0])


def test_what_is_said_of_models_with_a_residual_structure():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor("Subject", residual=AR1("Days")).fit(X, y)
    with pytest.raises(ValueError, match="not available for a model with residual"):
        variance_function(est, "Days", [1.0])
    V = marginal_covariance(est, X, group="308").to_numpy()
    correlation = marginal_correlation(est, X, group="308")
    assert_allclose(correlation, V / V[0, 0], rtol=1e-12)
