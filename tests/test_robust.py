"""Cluster-robust covariances: clubSandwich, dense matrices, invariances."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dense_rows import dense_fit
from models import ORACLES_DIR, fitted, model
from numpy.testing import assert_allclose
from problems import PROBLEMS
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm import lmer
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows
from sklearn_lmm._engine.sandwich import sandwich
from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm.diagnostics import influence
from sklearn_lmm.inference import cluster_robust_covariance, robust_table

ROBUST = json.loads((ORACLES_DIR / "robust.json").read_text())
ROBUST.pop("versions")
KINDS = ["CR0", "CR1", "CR2", "CR3"]
CLUSTERED = [name for name in PROBLEMS if name != "one_level"]


def at_theta(rows, theta):
    """Return the rows beside the model at theta in the user's units."""
    statistics, criterion = rows.statistics, rows.point.criterion
    parts, theta = [], np.asarray(theta)
    for (term, _, part), units in zip(
        criterion.terms(), statistics.blocks, strict=True
    ):
        L = term.structure.factor(theta[part], term.q)
        parts.append(term.structure.parameters(np.linalg.inv(units.map()) @ L))
    return replace(rows, point=criterion.at(np.concatenate(parts)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROBUST)
def test_every_oracle_at_its_theta(name, kind):
    m, (est, _) = model(name), fitted(name)
    given = rows_of_fit(est, m.X, m.y, **m.fit_params)
    theta = list(m.oracle["theta"].values())
    if name == "machines_nested_reml":  # lme4 has the cells first
        theta = theta[::-1]
    rows = at_theta(FittedRows.of(given.fit, given.design), theta)
    factor = given.design.factors[given.factor(ROBUST[name]["cluster"])]
    units = rows.statistics.columns
    R = units.scale[-1] * units.map()[:-1, :-1] @ rows.point.inverse_R_X
    clusters = Clusters(factor.codes, factor.n_levels)
    result = sandwich(rows, clusters, kind, R.T)
    expected = np.array(ROBUST[name][kind]["vcov"])
    se = np.sqrt(np.diag(expected))
    found = R @ result.covariance @ R.T
    assert_allclose(found / np.outer(se, se), expected / np.outer(se, se), atol=1e-9)
    assert_allclose(result.df, ROBUST[name][kind]["df"], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROBUST)
def test_every_oracle_by_the_estimator(name, kind):
    m, (est, _) = model(name), fitted(name)
    expected = ROBUST[name][kind]
    table = robust_table(est, m.X, m.y, kind=kind, **m.fit_params)
    se = np.sqrt(np.diag(expected["vcov"]))
    assert_allclose(table["std_error"], se, rtol=1e-6)
    assert_allclose(table["df"], expected["df"], rtol=1e-5)
    assert_allclose(table["estimate"], est.fixed_effects_)
    assert_allclose(table["statistic"], table["estimate"] / table["std_error"])
    covariance = cluster_robust_covariance(est, m.X, m.y, kind=kind, **m.fit_params)
    assert list(covariance.index) == list(covariance.columns) == list(table.index)
    assert_allclose(covariance, expected["vcov"], atol=1e-6 * se.max() ** 2)


def power(A, exponent):
    w, Q = np.linalg.eigh((A + A.T) / 2)
    some = w > 1e-10 * w.max()
    return Q * np.where(some, np.where(some, w, 1.0) ** exponent, 0.0) @ Q.T


def dense_sandwich(rows, dense, clusters, kind):
    """Return the covariance and P of every coefficient, from n x n matrices."""
    X = dense.X @ rows.point.inverse_R_X
    D, e = dense.solve(X), dense.marginal
    scores, g = [], np.zeros((rows.p, clusters.m, len(e)))
    for c, run in enumerate(clusters.runs()):
        V, A = dense.V[np.ix_(run, run)], np.eye(len(run))
        if kind == "CR2":
            B = np.linalg.cholesky(V).T
            A = B.T @ power(B @ (V - X[run] @ X[run].T) @ B.T, -0.5) @ B
        if kind == "CR3":
            A = np.linalg.inv(A - X[run] @ X[run].T @ np.linalg.inv(V))
        scores.append(D[run].T @ A @ e[run])
        g[:, c, run] = (A.T @ D[run]).T
    m = clusters.m
    scale = m / (m - 1) if kind == "CR1" else 1.0
    residual = dense.V - X @ X.T
    return scale * np.transpose(scores) @ np.array(scores), g @ residual @ g.mT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLUSTERED)
def test_dense_matrices(name, kind):
    _, rows, dense = dense_fit(name)
    for factor in rows.design.factors:
        clusters = Clusters(factor.codes, factor.n_levels)
        if clusters.m == 1 or rows.p == 0:
            continue
        covariance, P = dense_sandwich(rows, dense, clusters, kind)
        result = sandwich(rows, clusters, kind, np.eye(rows.p))
        if kind != "CR3" or rows.independent(clusters):
            size = 1e-10 * np.abs(covariance).max()
            assert_allclose(result.covariance, covariance, atol=size)
        df = np.trace(P, axis1=1, axis2=2) ** 2 / np.sum(P**2, axis=(1, 2))
        assert_allclose(result.df, df, rtol=1e-9)


@pytest.mark.parametrize("by", ["school", "town"])
def test_CR3_is_the_jackknife(by):
    est = fit(["school", "town"])
    left = influence(est, X, Y, by=by).filter(like="dbeta_").to_numpy()
    covariance = cluster_robust_covariance(est, X, Y, cluster=by, kind="CR3")
    assert_allclose(covariance, left.T @ left)


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_are_repeated_rows(kind):
    counts = np.random.default_rng(0).integers(1, 4, len(Y))
    copies = np.repeat(np.arange(len(Y)), counts)
    est = fit(["(1 + x | school)"], sample_weight=counts)
    several = fit(["(1 + x | school)"], X.iloc[copies], Y[copies])
    one = robust_table(est, X, Y, kind=kind, sample_weight=counts)
    each = robust_table(several, X.iloc[copies], Y[copies], kind=kind)
    assert_allclose(one, each, rtol=1e-6)


def by_each(est, kind):
    """Return the covariances by school, by town, and by their combinations."""
    cells = X["school"] * 100 + X["town"]
    return [
        cluster_robust_covariance(est, X, Y, cluster=cluster, kind=kind)
        for cluster in ("school", "town", cells)
    ]


def test_crossed_factors_are_two_clusterings():
    est = fit(["school", "town"], fixed=["x"])
    school, town, cells = by_each(est, "CR0")
    expected = school + town - cells
    assert np.linalg.eigvalsh(expected).min() > 0.0
    for cluster in (None, ["school", "town"], ("town", "school")):
        found = cluster_robust_covariance(est, X, Y, cluster=cluster, kind="CR0")
        assert_allclose(found, expected, rtol=1e-9)
    df = [robust_table(est, X, Y, cluster=key)["df"] for key in ("school", "town")]
    assert_allclose(robust_table(est, X, Y)["df"], np.minimum(*df))


def test_a_difference_that_is_not_positive_is_not_taken():
    est = fit(["school", "town"])
    school, town, cells = by_each(est, "CR0")
    assert np.linalg.eigvalsh(school + town - cells).min() < 0.0
    found = cluster_robust_covariance(est, X, Y, kind="CR0")
    assert_allclose(found, school + town, rtol=1e-9)


def test_without_random_effects_it_is_whites():
    """Every row a cluster: HC0 and HC2 of least squares."""
    est = fit([], NUMERIC)
    design = np.column_stack([np.ones(len(Y)), NUMERIC])
    inverse = np.linalg.inv(design.T @ design)
    e = Y - design @ inverse @ design.T @ Y
    h = np.sum((design @ inverse) * design, axis=1)
    rows = np.arange(len(Y))
    for kind, weights in (("CR0", e**2), ("CR2", e**2 / (1 - h))):
        expected = inverse @ (design.T * weights) @ design @ inverse
        found = cluster_robust_covariance(est, NUMERIC, Y, cluster=rows, kind=kind)
        assert_allclose(found, expected, rtol=1e-9)


def test_what_a_wrong_model_has_to_learn():
    """Without a random slope the model's own standard error is far too small."""
    m, (est, _) = model("sleep_ri_reml"), fitted("sleep_ri_reml")
    rich, _ = fitted("sleep_rs_reml")
    robust = robust_table(est, m.X, m.y)["std_error"]["Days"]
    own, right = (np.sqrt(f.fit_.beta_covariance[1, 1]) for f in (est, rich))
    assert own < 0.6 * right
    assert_allclose(robust, right, rtol=1e-5)  # balanced


def test_rank_deficient_X_and_singular_fits():
    m, (est, _) = model("sleep_rankdef_reml"), fitted("sleep_rankdef_reml")
    table = robust_table(est, m.X, m.y, **m.fit_params)
    same = robust_table(
        fitted("sleep_rs_reml")[0],
        m.X[["Days"]].assign(Subject=m.fit_params["groups"]["Subject"]),
        m.y,
    )
    assert_allclose(table, same, rtol=1e-6)
    m, (est, _) = model("dyestuff2_singular_reml"), fitted("dyestuff2_singular_reml")
    assert np.isfinite(robust_table(est, m.X, m.y)).all(axis=None)


def test_what_cannot_be_is_refused():
    est = fit("school")
    with pytest.raises(ValueError, match="no grouping factor"):
        robust_table(fit([], NUMERIC), NUMERIC, Y)
    with pytest.raises(ValueError, match="one cluster only by 'cluster'"):
        robust_table(est, X, Y, cluster=np.zeros(len(Y)))
    with pytest.raises(ValueError, match="'kind'"):
        robust_table(est, X, Y, kind="CR4")
    own = X.assign(own=(X["school"] == 303) * 1.0)
    with pytest.raises(ValueError, match="X loses rank without some of them"):
        robust_table(fit("school", own), own, Y, kind="CR3")
    assert np.isfinite(robust_table(fit("school", own), own, Y)).all(axis=None)
    y = SCHOOL.to_numpy() * 1.5
    with pytest.warns(UserWarning, match="exactly"):
        perfect = fit("school", y=y)
    with pytest.raises(ValueError, match="explained exactly"):
        robust_table(perfect, X, y)


def test_combinations_of_effects():
    m, (est, _) = model("chick_rs_reml"), fitted("chick_rs_reml")
    table = robust_table(est, m.X, m.y)
    names = list(table.index)
    one = robust_table(est, m.X, m.y, L=names[1])
    assert_allclose(one, table.loc[names[1:2]])
    V = cluster_robust_covariance(est, m.X, m.y).to_numpy()
    w = np.array([1.0, 2.0, *[0.0] * (len(names) - 3), -1.0])
    given = {names[0]: 1.0, names[1]: 2.0, names[-1]: -1.0}
    for L in (w, given, pd.DataFrame([w], columns=names)):
        found = robust_table(est, m.X, m.y, L=L)
        assert_allclose(found["estimate"], w @ est.fixed_effects_)
        assert_allclose(found["std_error"], np.sqrt(w @ V @ w))
        assert 0.0 < found["df"].iloc[0] < 50.0
    with pytest.raises(ValueError, match="'age'"):
        robust_table(est, m.X, m.y, L="age")


def test_formulas_that_drop_rows():
    frame = X.assign(y=Y)
    frame.loc[[3, 60], "x"] = np.nan
    est = lmer("y ~ x + (1 | school)", frame, na_action="drop")
    table = robust_table(est, frame, None)
    full = frame.dropna().reset_index(drop=True)
    same = lmer("y ~ x + (1 | school)", full)
    assert_allclose(table, robust_table(same, full, None), rtol=1e-6)
    by_label = influence(est, frame, None, by=frame["school"].to_numpy())
    assert_allclose(
        by_label["cooks_distance"], influence(same, full, None)["cooks_distance"]
    )
