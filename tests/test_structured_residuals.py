"""Residuals of models with a residual structure: nlme's, and dense matrices."""

import json

import numpy as np
import pandas as pd
import pytest
from models import ORACLES_DIR
from numpy.testing import assert_allclose
from residual_models import SPECS, fitted, inputs
from schools import X, Y
from scipy.signal import lfilter

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.diagnostics import check, leverage, marginal_covariance, residuals
from sklearn_lmm.residuals import AR1, PowerVariance

ORACLES = json.loads((ORACLES_DIR / "diagnostics.json").read_text())["nlme"]
# Fits of nlme that stopped short of the optimum.
ROUGH = ("lme_sleep_ar1", "lme_chick_varexp")


@pytest.mark.parametrize("kind", ["response", "scaled", "normalized"])
@pytest.mark.parametrize("name", ORACLES)
def test_every_oracle(name, kind):
    """nlme calls scaled residuals Pearson's."""
    if kind == "normalized" and "_cs_" in name:
        pytest.skip("another root: nlme decorrelates equal correlations by Helmert's")
    est = fitted(name)
    expected = ORACLES[name]["pearson" if kind == "scaled" else kind]
    found = residuals(est, *inputs(name), kind=kind)[: len(expected)]
    size = est.sigma_ if kind == "response" else 1.0
    tolerance = 1e-4 if name.startswith(ROUGH) else 4e-5
    assert_allclose(found / size, np.array(expected) / size, atol=tolerance)


def test_every_fit_of_nlme_is_among_them():
    assert {name.rpartition("_")[0] for name in ORACLES} <= set(SPECS)


@pytest.mark.parametrize("weights", ["precision", None])
def test_dense_matrices_in_any_order_of_the_rows(weights):
    data = X.assign(
        t=X.groupby("school").cumcount().astype(float), size=1.0 + X["x"] ** 2
    )
    w = np.linspace(0.5, 2.0, len(Y)) if weights else None
    structure = AR1("t", "school") * PowerVariance("size")
    est = MixedEffectsRegressor(
        "school", fixed=["x", "z"], residual=structure, weights="precision"
    ).fit(data, Y, sample_weight=w)
    order = np.random.default_rng(0).permutation(len(Y))
    shuffled = data.iloc[order], Y[order]
    given = {"sample_weight": None if w is None else w[order]}
    e = residuals(est, *shuffled, **given)
    assert_allclose(e, Y[order] - est.predict(shuffled[0]), atol=1e-10)
    marginal = residuals(est, *shuffled, random_effects=False, **given)
    expected = Y[order] - est.predict(shuffled[0], random_effects=False)
    assert_allclose(marginal, expected, atol=1e-10)
    phi, power = est.residual_parameters_
    D = data["size"].to_numpy() ** power / (1.0 if w is None else np.sqrt(w))
    pearson = residuals(est, *shuffled, kind="pearson", **given)
    assert_allclose(pearson, e / D[order], rtol=1e-8)
    gaps = np.abs(data["t"].to_numpy()[:, None] - data["t"].to_numpy())
    same = data["school"].to_numpy()[:, None] == data["school"].to_numpy()
    B = np.linalg.cholesky(np.where(same, phi**gaps, 0.0))
    back = np.empty(len(Y))
    back[order] = pearson
    normalized = residuals(est, *shuffled, kind="normalized", **given)
    expected = np.linalg.solve(B, back) / est.sigma_
    assert_allclose(normalized, expected[order], rtol=1e-6, atol=1e-8)


def test_rows_of_weight_zero_have_none():
    w = np.where(X["school"] == 305, 0.0, 1.0)
    est = MixedEffectsRegressor(
        "school", fixed=["x"], residual=PowerVariance("size"), weights="precision"
    )
    data = X.assign(size=1.0 + X["x"] ** 2)
    est.fit(data, Y, sample_weight=w)
    for kind in ("response", "normalized"):
        found = residuals(est, data, Y, kind=kind, sample_weight=w)
        assert (np.isnan(found) == (w == 0.0)).all()


def dense(est, X, Y, series, within):
    """Return the rows in the order of their series, and V / sigma^2 by factor.

    series, within : the columns that AR(1) errors are grouped and ordered by
    """
    order = np.lexsort((X[within], X[series]))
    X, Y = X.iloc[order], np.asarray(Y)[order]
    s, t = X[series].to_numpy(), X[within].to_numpy()
    gaps = np.abs(t[:, None] - t)
    (phi,) = est.residual_parameters_
    R = np.where(s[:, None] == s, phi**gaps, 0.0)
    ZPsiZ = {}
    for name, psi in est.covariances_.items():
        z = np.column_stack([np.ones(len(X)), *(X[c] for c in psi.columns[1:])])
        same = X[name].to_numpy()[:, None] == X[name].to_numpy()
        ZPsiZ[name] = same * (z @ psi.to_numpy() @ z.T) / est.sigma_**2
    return order, X, Y, R, ZPsiZ


def test_normalized_marginal_residuals_are_those_of_the_root_of_V():
    data = X.assign(t=X.groupby("school").cumcount().astype(float))
    est = MixedEffectsRegressor(
        ["(1 + x | school)"], fixed=["x", "z"], residual=AR1("t", "school")
    ).fit(data, Y)
    order, rows, y, R, ZPsiZ = dense(est, data, Y, "school", "t")
    e = y - est.predict(rows, random_effects=False)
    root = np.linalg.cholesky(R + ZPsiZ["school"])
    found = residuals(est, data, Y, kind="normalized", random_effects=False)
    assert_allclose(found[order], np.linalg.solve(root, e) / est.sigma_, atol=1e-7)


@pytest.fixture(scope="module")
def crossed():
    """Subjects by items, in an order of its own for every subject."""
    rng = np.random.default_rng(4)
    trial, subject = np.tile(np.arange(12), 15), np.repeat(np.arange(15), 12)
    item = rng.permuted(trial.reshape(15, 12), axis=1).ravel()
    rows = pd.DataFrame({"x": rng.normal(size=180), "trial": trial})
    rows = rows.assign(subject=subject, item=item).sample(frac=1.0, random_state=1)
    y = rng.normal(size=15)[rows["subject"]] + rng.normal(size=12)[rows["item"]]
    noise = lfilter([0.8], [1.0, -0.6], rng.normal(size=(15, 12)), axis=1)
    y += rows["x"] + noise[rows["subject"], rows["trial"]]
    est = MixedEffectsRegressor(
        ["subject", "item"], fixed=["x"], residual=AR1("trial", "subject")
    )
    return est.fit(rows, y), rows, y.to_numpy()


@pytest.mark.parametrize("subtracted", [[], ["item"], ["subject"], True])
def test_whitened_residuals_of_crossed_factors(crossed, subtracted):
    est, rows, y = crossed
    order, X_, y_, R, ZPsiZ = dense(est, rows, y, "subject", "trial")
    names = ["subject", "item"] if subtracted is True else subtracted
    e = y_ - est.predict(X_, random_effects=names or False)
    B = np.linalg.cholesky(R)
    V = R + sum(part for name, part in ZPsiZ.items() if name not in names)
    W = np.linalg.solve(B, np.linalg.solve(B, V).T)
    w, Q = np.linalg.eigh(W)
    expected = Q @ ((Q.T @ np.linalg.solve(B, e)) / np.sqrt(w)) / est.sigma_
    options = {"kind": "whitened", "random_effects": subtracted or False}
    assert_allclose(residuals(est, rows, y, **options)[order], expected, atol=1e-7)
    if set(names) >= {"item"}:
        expected = np.linalg.solve(np.linalg.cholesky(V), e) / est.sigma_
        options["kind"] = "normalized"
        found = residuals(est, rows, y, **options)[order]
        assert_allclose(found, expected, atol=1e-7)


def test_what_there_is_not(crossed):
    with pytest.raises(ValueError, match="have to lie within their levels"):
        residuals(*crossed, kind="normalized", random_effects=False)
    with pytest.raises(ValueError, match="'studentized' is not available"):
        residuals(*crossed, kind="studentized")
    message = "^leverage is not available for a model with residual=.*without residual"
    with pytest.raises(ValueError, match=message):
        leverage(*crossed)


def test_check_looks_at_the_fit_alone():
    name = "lme_sleep_ri_ar1_reml"
    report = check(fitted(name), *inputs(name))
    assert "convergence" in report.checked
    assert "outliers" in report.unchecked
    assert "Not checked" in str(report)


def test_marginal_covariance_has_that_of_the_errors(crossed):
    est, rows, y = crossed
    order, _, _, R, ZPsiZ = dense(est, rows, y, "subject", "trial")
    V = marginal_covariance(est, rows).toarray()[np.ix_(order, order)]
    assert_allclose(V, est.sigma_**2 * (R + sum(ZPsiZ.values())), atol=1e-12)
    block = marginal_covariance(est, rows, group=("subject", 3))
    assert_allclose(
        block, V[36:48, 36:48][np.ix_(*[rows.loc[block.index, "trial"]] * 2)]
    )
    # Rows of new subjects, with gaps.
    new = rows[rows["subject"] == 0].sort_values("trial")[::3].assign(subject=99)
    of_new = marginal_covariance(est, new).toarray()
    assert_allclose(of_new, V[0:12:3, 0:12:3], atol=1e-12)


def test_marginal_covariance_with_sizes_of_errors_and_weights():
    data = X.assign(t=X.groupby("school").cumcount(), size=1.0 + X["x"] ** 2)
    w = np.linspace(0.5, 2.0, len(Y))
    structure = AR1("t") * PowerVariance("size")
    est = MixedEffectsRegressor(
        "school", fixed=["x"], residual=structure, weights="precision"
    ).fit(data, Y, sample_weight=w)
    V = marginal_covariance(est, data, sample_weight=w).toarray()
    phi, power = est.residual_parameters_
    gaps = np.abs(data["t"].to_numpy()[:, None] - data["t"].to_numpy())
    same = data["school"].to_numpy()[:, None] == data["school"].to_numpy()
    D = est.sigma_ * data["size"].to_numpy() ** power / np.sqrt(w)
    psi = est.covariances_["school"].iloc[0, 0]
    assert_allclose(V, same * (psi + phi**gaps * np.outer(D, D)), rtol=1e-9)
