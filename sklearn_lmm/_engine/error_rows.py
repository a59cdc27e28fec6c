"""Errors of the rows of a fit made equal in size, and uncorrelated.

With Cov(e) = sigma^2 D C D and C = B B' by Cholesky, each group of rows by itself
and in its own order, e / D has equal variances and B^-1 D^-1 e no correlation.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.correlation import Correlation
from sklearn_lmm._engine.error_sums import constant
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._types import FloatArray, IntArray


def relative_deviations(errors: Errors, u: FloatArray) -> FloatArray:
    """Return the diagonal of D (n,), in the order of the rows."""
    _, delta = errors.complete(u)
    deviations = np.empty(len(errors.order))
    deviations[errors.order] = np.exp(errors.log_deviation + errors.slopes @ delta)
    return deviations


def uncorrelated(errors: Errors, u: FloatArray, E: FloatArray) -> FloatArray:
    """Return B^-1 E for columns E (n, k) of errors of equal variance."""
    C, _ = _correlation(errors, u)
    sizes = _sizes(errors)
    ordered, result = E[errors.order], np.empty_like(E)
    for size in np.unique(sizes):
        rows = errors.starts[sizes == size][:, None] + np.arange(size)
        B = np.linalg.cholesky(C[rows, :size])
        result[errors.order[rows]] = np.linalg.solve(B, ordered[rows])
    return result


def correlations(errors: Errors, u: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    """Return entries (i, j) of C for rows in any order."""
    C, position = _correlation(errors, u)
    place = np.argsort(errors.order)
    group = np.repeat(np.arange(len(errors.starts)), _sizes(errors))
    i, j = place[i], place[j]
    return np.where(group[i] == group[j], C[i, position[j]], 0.0)


def correlation_matrix(
    correlation: Correlation, u: FloatArray, order: IntArray, starts: IntArray
) -> sparse.csr_array:
    """Return C (n, n) of rows in any order.

    order (n,), starts (G,) : the rows sorted by group, and where groups start
    """
    n = len(order)
    C, position, sizes = _blocks(correlation, u, starts, n)
    row, k = np.nonzero(np.arange(C.shape[1]) < np.repeat(sizes, sizes)[:, None])
    entries = (order[row], order[row - position[row] + k])
    return sparse.coo_array((C[row, k], entries), (n, n)).tocsr()


def _sizes(errors: Errors) -> IntArray:
    return np.diff(np.append(errors.starts, len(errors.order)))


def _correlation(errors: Errors, u: FloatArray) -> tuple[FloatArray, IntArray]:
    of_C, _ = errors.complete(u)
    n = len(errors.order)
    return _blocks(errors.correlation, of_C, errors.starts, n)[:2]


def _blocks(
    correlation: Correlation, u: FloatArray, starts: IntArray, n: int
) -> tuple[FloatArray, IntArray, IntArray]:
    """Return C's blocks, one below the other (n, m), positions in them, and sizes."""
    sizes = np.diff(np.append(starts, n))
    position = np.arange(n) - np.repeat(starts, sizes)
    columns = np.zeros((n, int(sizes.max(initial=0))))
    columns[np.arange(n), position] = 1.0
    return correlation.times(u, columns), position, sizes


def narrow(errors: Errors, codes: IntArray) -> bool:
    """Say whether the rows of every group, in any order, have one level (n,)."""
    return constant(codes[errors.order], errors.starts)
