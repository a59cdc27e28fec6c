"""Errors of the rows of a fit made equal in size, and uncorrelated.

With Cov(e) = sigma^2 D C D and C = B B' by Cholesky, each group of rows by itself
and in its own order, e / D has equal variances and B^-1 D^-1 e no correlation.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.correlation import places_within, stacked_blocks
from sklearn_lmm._engine.error_sums import constant
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._types import FloatArray, IntArray


def uncorrelated(errors: Errors, u: FloatArray, E: FloatArray) -> FloatArray:
    """Return B^-1 E for columns E (n, k) of errors of equal variance."""
    C, sizes = _blocks(errors, u), errors.sizes
    ordered, result = E[errors.order], np.empty_like(E)
    for size in np.unique(sizes):
        rows = errors.starts[sizes == size][:, None] + np.arange(size)
        B = np.linalg.cholesky(C[rows, :size])
        result[errors.order[rows]] = np.linalg.solve(B, ordered[rows])
    return result


def correlations(errors: Errors, u: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    """Return entries (i, j) of C for rows in any order."""
    C, sizes = _blocks(errors, u), errors.sizes
    place = np.argsort(errors.order)
    group = np.repeat(np.arange(len(sizes)), sizes)
    i, j = place[i], place[j]
    return np.where(group[i] == group[j], C[i, places_within(sizes)[j]], 0.0)


def _blocks(errors: Errors, u: FloatArray) -> FloatArray:
    """Return the blocks of C, one below the other (n, m)."""
    of_C, _ = errors.complete(u)
    n = len(errors.order)
    return stacked_blocks(errors.correlation, of_C, errors.starts, errors.sizes, n)


def narrow(errors: Errors, codes: IntArray) -> bool:
    """Say whether the rows of every group, in any order, have one level (n,)."""
    return constant(codes[errors.order], errors.starts)
