"""Small dense linear algebra, batched over the levels of a grouping factor."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache
from itertools import pairwise

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController

from sklearn_lmm._types import FloatArray

COLUMNS_AT_ONCE = 64
"""Columns eliminated before the others are brought up to date."""

SMALL_MAP = 1 << 10
"""Entries of a Kronecker product up to which it takes the place of two products."""


@cache
def _threads() -> ThreadpoolController:
    # Looking for the libraries takes some milliseconds.
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which a product has one core, for thousands of small ones.

    Where other work is done, too, to wait for a second core takes far longer than
    the product itself.
    """
    limits: AbstractContextManager[object] = _threads().limit(limits=1, user_api="blas")
    return limits


def shrinkage(S: FloatArray, L: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (I + S_g Psi)^-1 and log|I + S_g Psi| for every level g, Psi = L L'.

    Parameters
    ----------
    S : (G, q, q), symmetric positive semi-definite
    L : (q, q)

    Returns
    -------
    inverse : (G, q, q), not symmetric
    logdet : (G,)

    Notes
    -----
    Closed forms for q <= 2, where calls of LAPACK on tiny matrices would cost
    far more than the arithmetic.  None of them divides by Psi, so that a
    singular Psi is as good as any.
    """
    q = len(L)
    if q == 1:
        excess = S[:, 0, 0] * L[0, 0] ** 2
        return (1.0 / (1.0 + excess))[:, None, None], np.log1p(excess)
    Psi = L @ L.T
    if q == 2:
        return _shrinkage_2(S, Psi, (L[0, 0] * L[1, 1] - L[0, 1] * L[1, 0]) ** 2)
    M = S @ Psi
    M[:, np.arange(q), np.arange(q)] += 1.0
    return np.asarray(np.linalg.inv(M), float), np.linalg.slogdet(M)[1]


def _shrinkage_2(
    S: FloatArray, Psi: FloatArray, det_Psi: float
) -> tuple[FloatArray, FloatArray]:
    """Write `shrinkage` out for q = 2: det(I + A) = 1 + tr A + det A."""
    a, b, c = S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]
    (Psi_00, Psi_01), (_, Psi_11) = Psi.tolist()
    upper, lower = a * Psi_00 + b * Psi_01, b * Psi_01 + c * Psi_11
    excess = upper + lower + np.maximum(a * c - b * b, 0.0) * det_Psi
    # Levels last: no other order lets the processor take many at once.
    inverse = np.empty((2, 2, len(S)))
    np.add(lower, 1.0, out=inverse[0, 0])
    np.add(upper, 1.0, out=inverse[1, 1])
    inverse[0, 1] = -(a * Psi_01 + b * Psi_11)
    inverse[1, 0] = -(b * Psi_00 + c * Psi_01)
    inverse /= 1.0 + excess
    return inverse.transpose(2, 0, 1), np.log1p(excess)


def inverse_lower(root: FloatArray) -> FloatArray:
    """Return the inverse of a lower triangular matrix (p, p)."""
    if not len(root):
        return root
    inverse: FloatArray = lapack.dtrtri(root, lower=1)[0]
    return inverse


def consecutive(sizes: Iterable[int]) -> list[slice]:
    """Return slices of the given sizes, one after the other from 0."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def symmetrize(A: FloatArray) -> FloatArray:
    """Return (A + A') / 2 over the last two axes."""
    return 0.5 * (A + np.swapaxes(A, -1, -2))


def times_columns(A: FloatArray, M: FloatArray) -> FloatArray:
    """Return A_g M (G, q, l) for A (G, q, k) and M (k, l), as one product."""
    G, q, k = A.shape
    return np.asarray(A.reshape(G * q, k) @ M).reshape(G, q, M.shape[1])


def transformed(A: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """Return left' A_g right (G, k, l) for A (G, q, r), left (q, k), right (r, l).

    Of small matrices as one product, vec(left' A right) = vec(A) (left (x) right):
    one for every level would be little but calls.
    """
    if left.size * right.size > SMALL_MAP:
        return np.asarray(left.T @ A @ right)
    size = left.shape[0] * right.shape[0]
    flat = A.reshape(len(A), size) @ np.kron(left, right)
    return flat.reshape(len(A), left.shape[1], right.shape[1])


def row_gram(A: FloatArray) -> FloatArray:
    """Return sum_g A_g A_g' (q, q) of a stack A (G, q, k)."""
    G, q, k = A.shape
    if q == 1:
        return np.array([[np.vdot(A, A)]])
    flat = np.ascontiguousarray(A.transpose(1, 0, 2)).reshape(q, G * k)
    return flat @ flat.T


def level_gram(X: FloatArray, Y: FloatArray) -> FloatArray:
    """Return sum_g X_g (x) Y_g (q, q, q, q), indices of X first."""
    G, q, _ = X.shape
    gram = X.reshape(G, q * q).T @ Y.reshape(G, q * q)
    return gram.reshape(q, q, q, q)


def sandwich(A: FloatArray, XY: FloatArray) -> FloatArray:
    """Return sum_g tr(A_m X_g A_l Y_g) (m, m), symmetrised, from `level_gram`."""
    half = np.einsum("mij,jkli->mkl", A, XY)
    return symmetrize(np.einsum("mkl,nkl->mn", half, A))


def residual_norms(gram: FloatArray, tol: float) -> FloatArray:
    """Return how much of each column of X earlier ones leave, from gram = X'X.

    The norm of a column's residual on the columns before it, relative to its
    own norm (p,).  Columns that leave less than `tol` are passed over.
    Rounding in X'X limits what this can tell to about 1e-7.
    """
    p = len(gram)
    # The square of a column of rounding errors may have any sign.
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale = np.where(norms > 0, norms, 1.0)
    rest = gram / np.outer(scale, scale)
    left = np.zeros(p)
    for start in range(0, p, COLUMNS_AT_ONCE):
        block = rest[start:, start : start + COLUMNS_AT_ONCE]
        width = block.shape[1]
        L = np.zeros_like(block)
        for j in range(width):
            column = block[:, j] - L[:, :j] @ L[j, :j]
            left[start + j] = np.sqrt(max(column[j], 0.0))
            if left[start + j] > tol:
                L[:, j] = column / left[start + j]
        rest[start + width :, start + width :] -= L[width:] @ L[width:].T
    return left
