"""Small dense linear algebra."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_lmm._engine.linalg import (
    consecutive,
    inverse_lower,
    level_gram,
    residual_norms,
    row_gram,
    shrinkage,
    symmetrize,
    transformed,
)

RNG_SEED = 20


def draw(q, *, rank_S=None, rank_L=None, G=6):
    rng = np.random.default_rng(RNG_SEED + q)
    roots = rng.normal(size=(G, q, q if rank_S is None else rank_S))
    L = rng.normal(size=(q, q if rank_L is None else rank_L))
    # Not triangular: structures may have any root.
    return roots @ roots.swapaxes(1, 2), L @ np.eye(L.shape[1], q)


@pytest.mark.parametrize("q", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "ranks", [{}, {"rank_S": 1}, {"rank_L": 1}, {"rank_L": 0}, {"rank_S": 0}]
)
def test_shrinkage_is_the_inverse_and_its_log_determinant(q, ranks):
    S, L = draw(q, **ranks)
    inverse, logdet = shrinkage(S, L)
    M = np.eye(q) + S @ L @ L.T
    assert_allclose(inverse @ M, np.broadcast_to(np.eye(q), M.shape), atol=1e-12)
    assert_allclose(logdet, np.linalg.slogdet(M)[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("q", [1, 2])
def test_shrinkage_keeps_the_digits_of_tiny_covariances(q):
    S, L = draw(q)
    _, logdet = shrinkage(S, 1e-10 * L)
    traces = np.trace(S @ L @ L.T, axis1=1, axis2=2)
    assert_allclose(logdet, 1e-20 * traces, rtol=1e-12)


def test_symmetrize_averages_over_the_last_two_axes():
    A = np.arange(8.0).reshape(2, 2, 2)
    assert_array_equal(symmetrize(A), [[[0, 1.5], [1.5, 3]], [[4, 5.5], [5.5, 7]]])


@pytest.mark.parametrize("q", [1, 3])
def test_grams_are_sums_over_levels(q):
    rng = np.random.default_rng(RNG_SEED)
    A = rng.normal(size=(5, q, 2))
    assert_allclose(row_gram(A), np.einsum("gik,gjk->ij", A, A))
    X, Y = rng.normal(size=(2, 5, q, q))
    assert_allclose(level_gram(X, Y), np.einsum("gij,gkl->ijkl", X, Y), atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (7, 40)])
def test_levels_are_transformed_from_both_sides(shape):
    rng = np.random.default_rng(RNG_SEED)
    q, r = shape
    A = rng.normal(size=(5, q, r + 2))[:, :, :r]
    left, right = rng.normal(size=(q, 2)), rng.normal(size=(r, r))
    assert_allclose(transformed(A, left, right), left.T @ A @ right, atol=1e-13)


def test_inverse_of_a_lower_triangle():
    L = np.tril(np.random.default_rng(RNG_SEED).normal(size=(5, 5))) + 3 * np.eye(5)
    assert_allclose(inverse_lower(L) @ L, np.eye(5), atol=1e-14)
    assert inverse_lower(L[:0, :0]).shape == (0, 0)


def test_consecutive_slices():
    assert consecutive([2, 0, 3]) == [slice(0, 2), slice(2, 2), slice(2, 5)]
    assert consecutive([]) == []


def left(X, tol=1e-5):
    return residual_norms(X.T @ X, tol)


def kept(X, tol=1e-5):
    return list(np.flatnonzero(left(X, tol) > tol))


@pytest.fixture
def X():
    return np.random.default_rng(RNG_SEED).normal(size=(50, 4))


def test_what_earlier_columns_leave_is_the_residual_norm(X):
    norms = np.linalg.norm(X, axis=0)
    expected = np.abs(np.diag(np.linalg.qr(X, mode="r"))) / norms
    assert_allclose(left(X), expected, rtol=1e-12)
    assert_allclose(left(X * [1e-8, 1.0, 1e8, 1.0]), expected, rtol=1e-12)


def test_the_later_of_two_dependent_columns_is_passed_over(X):
    assert kept(X[:, [0, 1, 0, 2]]) == [0, 1, 3]
    assert kept(np.column_stack([X, X @ [1.0, -2.0, 0.5, 3.0]])) == [0, 1, 2, 3]
    assert kept(np.column_stack([X @ [1.0, -2.0, 0.0, 0.0], X])) == [0, 1, 3, 4]
    after = left(X[:, [0, 0, 1]])[2]
    assert_allclose(after, left(X[:, [0, 1]])[1], rtol=1e-7)


def test_a_column_of_zeros_leaves_nothing(X):
    X[:, 1] = 0.0
    assert kept(X) == [0, 2, 3]
    assert kept(0.0 * X) == []
    assert kept(X[:, :0]) == []


@pytest.mark.parametrize(("part", "expected"), [(1e-4, [0, 1]), (1e-6, [0])])
def test_a_column_is_judged_by_what_the_earlier_ones_leave_of_it(X, part, expected):
    assert kept(np.column_stack([X[:, 0], X[:, 0] + part * X[:, 1]])) == expected
