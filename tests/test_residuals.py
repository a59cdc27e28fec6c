"""Residuals, leverage and Cook's distance of rows, in the user's terms."""

import json

import numpy as np
import pytest
from models import ORACLES, ORACLES_DIR, fitted, model
from numpy.testing import assert_allclose, assert_array_equal
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm.diagnostics import cooks_distance, leverage, residuals

ROWS = json.loads((ORACLES_DIR / "diagnostics.json").read_text())["rows"]
BOTH = ["(1 + x | school)", "town"]


def of_oracle(function, name, **options):
    m = model(name)
    return function(fitted(name)[0], m.X, m.y, **m.fit_params, **options)


@pytest.mark.parametrize("name", ROWS)
def test_every_oracle(name):
    expected = ROWS[name]
    h = of_oracle(leverage, name)
    assert_allclose(h[: len(expected["hat"])], expected["hat"], atol=1e-8)
    assert_allclose(h.sum(), expected["hat_sum"], rtol=1e-7)
    cook = of_oracle(cooks_distance, name)
    # Where e is near 0 so is Cook's distance.
    size = 1e-6 * np.nanmax(expected["cook"])
    assert_allclose(cook[: len(expected["cook"])], expected["cook"], atol=size)
    scaled = of_oracle(residuals, name, kind="scaled")
    quantiles = np.quantile(scaled, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert_allclose(quantiles, expected["scaled_quantiles"], atol=1e-7)
    fixed = of_oracle(leverage, name, random_effects=False)
    assert_allclose(fixed.sum(), len(ORACLES[name]["beta"]), rtol=1e-9)


@pytest.mark.parametrize("kind", ["normalized", "whitened"])
@pytest.mark.parametrize("random_effects", [True, False, ["Worker"]])
def test_uncorrelated_residuals_are_those_of_the_covariance(kind, random_effects):
    name = "machines_nested_reml"
    m, (est, _) = model(name), fitted(name)
    e = of_oracle(residuals, name, random_effects=random_effects)
    V = est.sigma_**2 * np.eye(len(e))
    for factor in ("Worker", "Worker:Machine"):
        if random_effects is True or factor in (random_effects or ()):
            continue
        labels = est.design_matrix(m.X, m.fit_params.get("groups"))
        Z = labels[0].toarray()
        own = [column.startswith(f"(Intercept) | {factor}[") for column in labels[1]]
        V += est.covariances_[factor].iloc[0, 0] * Z[:, own] @ Z[:, own].T
    w, Q = np.linalg.eigh(V)
    root = Q * np.sqrt(w) @ Q.T if kind == "whitened" else np.linalg.cholesky(V)
    found = of_oracle(residuals, name, kind=kind, random_effects=random_effects)
    assert_allclose(found, np.linalg.solve(root, e), atol=1e-9)


@pytest.mark.parametrize("random_effects", [True, False, ["school"]])
def test_response_is_y_less_the_prediction(random_effects):
    weights = np.linspace(0.2, 2.0, len(Y))
    for meaning in ("frequency", "precision"):
        est = fit(BOTH, offset="z", sample_weight=weights, weights=meaning)
        options = {"random_effects": random_effects, "sample_weight": weights}
        e = residuals(est, X, Y, **options)
        prediction = est.predict(X, random_effects=random_effects)
        assert_allclose(e, Y - prediction, atol=1e-12)
        root = 1.0 if meaning == "frequency" else np.sqrt(weights)
        pearson = residuals(est, X, Y, kind="pearson", **options)
        assert_allclose(pearson, root * e, atol=1e-12)
        scaled = residuals(est, X, Y, kind="scaled", **options)
        assert_allclose(scaled * est.sigma_, pearson, atol=1e-12)


def test_deleted_is_the_fit_without_the_row():
    """At the same theta, by least squares on the other rows."""
    est = fit("school", method="ml")
    theta2 = est.theta_[0] ** 2
    same = SCHOOL.to_numpy()[:, None] == SCHOOL.to_numpy()
    V = np.eye(len(Y)) + theta2 * same
    design = np.column_stack([np.ones(len(Y)), X[["x", "z", "town"]]])
    found = residuals(est, X, Y, kind="deleted")
    for i in (0, 17, 90):
        stay = np.arange(len(Y)) != i
        VX = np.linalg.solve(V[np.ix_(stay, stay)], design[stay])
        H = design[stay].T @ VX
        beta = np.linalg.solve(H, VX.T @ Y[stay])
        e = Y - design @ beta
        Ve = np.linalg.solve(V[np.ix_(stay, stay)], e[stay])
        sigma2 = e[stay] @ Ve / stay.sum()
        c = V[i, stay]
        d = design[i] - c @ VX
        variance = V[i, i] - c @ np.linalg.solve(V[np.ix_(stay, stay)], c)
        variance += d @ np.linalg.solve(H, d)
        expected = (e[i] - c @ Ve) / np.sqrt(sigma2 * variance)
        assert_allclose(found[i], expected, rtol=1e-8)


@pytest.mark.parametrize("random_effects", [True, False])
@pytest.mark.parametrize("kind", ["response", "scaled", "studentized"])
def test_duplicated_rows_are_frequencies(kind, random_effects):
    one, each = by_weight_and_by_copies(
        residuals, kind=kind, random_effects=random_effects
    )
    assert_allclose(one, each, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (residuals, {"kind": "deleted"}),
        (leverage, {}),
        (leverage, {"random_effects": False}),
        (cooks_distance, {}),
    ],
)
def test_what_is_told_of_one_copy_of_a_row(function, options):
    one, each = by_weight_and_by_copies(function, **options)
    assert_allclose(one, each, atol=1e-7)


def by_weight_and_by_copies(function, **options):
    """Return what a row of frequency weight w has, and each of its w copies."""
    counts = np.random.default_rng(0).integers(1, 4, len(Y))
    copies = np.repeat(np.arange(len(Y)), counts)
    est = fit(["school", "town"], sample_weight=counts)
    several = fit(["school", "town"], X.iloc[copies], Y[copies])
    one = function(est, X, Y, sample_weight=counts, **options)
    return one[copies], function(several, X.iloc[copies], Y[copies], **options)


def test_rows_of_weight_zero_have_none():
    weights = np.where(X["school"] == 305, 0.0, 1.5)
    est = fit(BOTH, sample_weight=weights)
    for value in (
        residuals(est, X, Y, sample_weight=weights),
        leverage(est, X, Y, sample_weight=weights),
        cooks_distance(est, X, Y, sample_weight=weights),
    ):
        assert_array_equal(np.isnan(value), weights == 0.0)


def test_without_random_effects_they_are_those_of_least_squares():
    est = fit([], NUMERIC)
    design = np.column_stack([np.ones(len(Y)), NUMERIC])
    H = design @ np.linalg.solve(design.T @ design, design.T)
    e, h = Y - H @ Y, np.diag(H)
    sigma2 = e @ e / (len(Y) - 3)
    assert_allclose(leverage(est, NUMERIC, Y), h)
    studentized = residuals(est, NUMERIC, Y, kind="studentized")
    assert_allclose(studentized, e / np.sqrt(sigma2 * (1 - h)))
    without = (e @ e - e**2 / (1 - h)) / (len(Y) - 4)
    deleted = residuals(est, NUMERIC, Y, kind="deleted")
    assert_allclose(deleted, e / np.sqrt(without * (1 - h)))
    cook = cooks_distance(est, NUMERIC, Y)
    assert_allclose(cook, studentized**2 * h / (1 - h) / 3)
    for kind in ("normalized", "whitened"):
        assert_allclose(residuals(est, NUMERIC, Y, kind=kind), e / np.sqrt(sigma2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "deviance"}, "kind"),
        ({"random_effects": ["village"]}, "village"),
        ({"kind": "normalized", "random_effects": False}, "not nested.*whitened"),
        ({"kind": "studentized", "random_effects": ["town"]}, "True or False"),
        ({"kind": "deleted", "random_effects": False}, "random_effects=True only"),
    ],
)
def test_what_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        residuals(fit(BOTH), X, Y, **options)


def test_a_perfect_fit_has_no_scaled_residuals():
    y = SCHOOL.to_numpy() * 1.5
    with pytest.warns(UserWarning, match="exactly"):
        est = fit("school", y=y)
    assert_allclose(residuals(est, X, y), 0.0, atol=1e-9)
    with pytest.raises(ValueError, match="no sigma"):
        residuals(est, X, y, kind="scaled")
    with pytest.raises(ValueError, match="explained exactly"):
        cooks_distance(est, X, y)
