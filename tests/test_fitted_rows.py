"""Residuals, leverage and V^-1/2 of rows, against dense matrices."""

from dataclasses import replace

import numpy as np
import pytest
from dense_rows import dense_fit
from numpy.testing import assert_allclose, assert_array_equal
from problems import CROSSED, PROBLEMS, Effects, make_design
from scipy import linalg, sparse

from sklearn_lmm._engine import fitted_rows
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows
from sklearn_lmm._engine.whitening import SymmetricRoot, cholesky_residuals

every_problem = pytest.mark.parametrize("name", PROBLEMS)


def all_factors(rows):
    return range(len(rows.codes))


@every_problem
def test_solutions_and_residuals(name):
    _, rows, dense = dense_fit(name)
    T = rows.T(slice(None))
    assert_allclose(rows.solved(slice(None)), dense.solve(T), atol=1e-11)
    assert_allclose(rows.marginal, dense.marginal, atol=1e-11)
    assert_allclose(rows.conditional, dense.solve(dense.marginal), atol=1e-11)
    some = np.array([5, 2, 2, 11])
    assert_allclose(rows.T(some), T[some], rtol=1e-14)
    assert_allclose(rows.solved(some), rows.solved(slice(None))[some], atol=1e-13)


@every_problem
@pytest.mark.parametrize("weights", ["frequency", "precision"])
def test_leverage_and_variances(name, weights):
    _, rows, dense = dense_fit(name, weights)
    of_fixed_part = dense.X @ np.linalg.solve(dense.H, dense.solve(dense.X).T)
    assert_allclose(rows.leverage, 1.0 - np.diag(dense.P), atol=1e-11)
    assert_allclose(rows.leverage_of_fixed_part, np.diag(of_fixed_part), atol=1e-11)
    assert_allclose(rows.leverage_of_fixed_part.sum(), rows.p, atol=1e-10)
    covariance = dense.V - dense.X @ np.linalg.solve(dense.H, dense.X.T)
    # A copy of a row: its own error, and 1 / w of what its copies share.
    copies = rows.copies
    expected = 1.0 + (np.diag(covariance) - 1.0) / copies
    assert_allclose(rows.marginal_variance, expected, rtol=1e-11)
    expected = 1.0 + (np.diag(dense.P) - 1.0) / copies
    assert_allclose(rows.conditional_variance, expected, atol=1e-11)


@every_problem
def test_the_symmetric_root(name):
    _, rows, dense = dense_fit(name)
    root = SymmetricRoot(rows, all_factors(rows))
    T = np.column_stack([dense.X, dense.y])
    w, Q = np.linalg.eigh(dense.V)
    expected = Q @ ((Q.T @ T) / np.sqrt(w)[:, None])
    assert_allclose(root.T(), expected, atol=1e-11)
    assert_allclose(root.residuals(), root.T() @ rows.point.residual, atol=1e-11)


@every_problem
def test_the_cholesky_factor(name):
    _, rows, dense = dense_fit(name)
    found = cholesky_residuals(rows, all_factors(rows))
    if name in CROSSED:
        assert found is None
        return
    C = np.linalg.cholesky(dense.V)
    expected = linalg.solve_triangular(C, dense.marginal, lower=True)
    assert_allclose(found, expected, atol=1e-11)


@pytest.mark.parametrize("name", ["nested_three", "crossed_slopes", "crossed_four"])
@pytest.mark.parametrize("factor", [0, 1])
def test_given_the_effects_of_the_other_factors(name, factor):
    _, rows, dense = dense_fit(name)
    V = np.eye(len(rows)) + dense.ZPsiZ[factor]
    known = sum(rows.effects(f) for f in all_factors(rows) if f != factor)
    e = dense.marginal - known
    C = np.linalg.cholesky(V)
    expected = linalg.solve_triangular(C, e, lower=True)
    assert_allclose(cholesky_residuals(rows, [factor]), expected, atol=1e-11)
    w, Q = np.linalg.eigh(V)
    expected = Q @ ((Q.T @ e) / np.sqrt(w))
    assert_allclose(SymmetricRoot(rows, [factor]).residuals(), expected, atol=1e-11)


def test_large_variances_have_a_root_too():
    result, rows, _ = dense_fit("crossed_intercepts")
    model = result.model()
    large = FittedRows(rows.design, rows.statistics, model.at(np.full(2, 1e5)), True)
    root = SymmetricRoot(large, [0, 1])
    twice = SymmetricRoot(large, [0, 1])._effects
    x = root.T()
    b = tuple(
        np.stack([z[codes == g].T @ x[codes == g] for g in range(len(s))])
        for z, codes, s in zip(large.z, large.codes, large.statistics.s, strict=True)
    )
    again = large.less_effects(x, slice(None), twice(b))
    scale = np.abs(large.T(slice(None))).max()
    assert_allclose(again, large.solved(slice(None)), atol=1e-6 * scale)


def test_sparse_columns_are_read_in_chunks(monkeypatch):
    _, rows, _ = dense_fit("crossed_slopes")
    monkeypatch.setattr(fitted_rows, "ENTRIES_AT_ONCE", 40)
    sparse_X = replace(rows.design, X=sparse.csr_array(rows.design.X))
    pieces = FittedRows(sparse_X, rows.statistics, rows.point, True)
    assert len(list(pieces.chunks())) > 3
    assert_allclose(pieces.leverage, rows.leverage, atol=1e-12)
    assert_allclose(pieces.conditional, rows.conditional, atol=1e-12)


def test_clusters():
    clusters = Clusters(np.array([1, 0, 1, 2]), 3)
    assert [run.tolist() for run in clusters.runs()] == [[1], [0, 2], [3]]
    assert clusters.contain(np.array([0, 1, 0, 1])) is False
    assert clusters.contain(np.array([3, 1, 0, 2])) is True


def test_a_dropped_column_is_not_among_them():
    rng = np.random.default_rng(0)
    design = make_design(rng, [rng.integers(0, 9, 80)], [Effects(0)], p=3)
    design.X[:, 1] = 2.0 * design.X[:, 0] + 1.0
    result = fit(design, reml=True)
    rows = FittedRows.of(result, design)
    assert_array_equal(rows.design.X, design.X[:, [0, 2]])
    assert_allclose(
        rows.T(slice(None)).T @ rows.T(slice(None)), rows.statistics.tt, atol=1e-12
    )
