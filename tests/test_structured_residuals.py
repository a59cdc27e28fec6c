"""Residuals of models with a residual structure: nlme's, and dense matrices."""

import json

import numpy as np
import pytest
from models import ORACLES_DIR
from numpy.testing import assert_allclose
from residual_models import SPECS, fitted, inputs
from schools import X, Y

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.diagnostics import check, leverage, residuals
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


@pytest.mark.parametrize(
    "options",
    [{"kind": "whitened"}, {"kind": "normalized", "random_effects": False}],
)
def test_what_there_is_not(options):
    name = "lme_sleep_ri_ar1_reml"
    with pytest.raises(ValueError, match="not available here"):
        residuals(fitted(name), *inputs(name), **options)
    with pytest.raises(ValueError, match="not available for a model with residual"):
        leverage(fitted(name), *inputs(name))


def test_check_looks_at_the_fit_alone():
    name = "lme_sleep_ri_ar1_reml"
    report = check(fitted(name), *inputs(name))
    assert "convergence" in report.checked
    assert "outliers" in report.unchecked
    assert "Not checked" in str(report)
