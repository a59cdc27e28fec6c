"""Conjugate gradients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sklearn_lmm._types import AnyArray, FloatArray

Map = Callable[[AnyArray], AnyArray]

ROWS_AT_ONCE = 4096
"""Rows summed in their own precision, before sums of sums in double."""


def conjugate_gradients(
    times: Map,
    precondition: Map,
    b: AnyArray,
    x: AnyArray,
    *,
    tolerance: float,
    max_iter: int,
) -> tuple[AnyArray, bool]:
    """Return S^-1 b (m, k), and whether all columns got there.

    Every column has its own step lengths; the product with S, which is what
    costs, is made for all at once (Hestenes and Stiefel 1952, Journal of
    Research of the National Bureau of Standards 49: 409-436).

    Parameters
    ----------
    times : S z for z (m, k), S symmetric positive definite
    precondition : an approximation of S^-1 z, symmetric and positive definite
    x : (m, k) where to start; used up
    tolerance : of the norm of the residual, relative to b's, in the metric of
        the preconditioner
    """
    goal = tolerance**2 * column_products(b, precondition(b))
    r = b - times(x)
    z = precondition(r)
    p = z.copy()
    rz = column_products(r, z)
    for _ in range(max_iter):
        if (rz <= goal).all():
            return x, True
        Sp = times(p)
        step = _ratio(rz, column_products(p, Sp)).astype(b.dtype)
        x += step * p
        r -= step * Sp
        z = precondition(r)
        before, rz = rz, column_products(r, z)
        p *= _ratio(rz, before).astype(b.dtype)
        p += z
    return x, bool((rz <= goal).all())


def column_products(a: AnyArray, b: AnyArray) -> FloatArray:
    """Return a_j'b_j (k,) of the columns of a and b (m, k), summed in double."""
    total = np.zeros(a.shape[1])
    for start in range(0, len(a), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        total += np.einsum("ij,ij->j", a[rows], b[rows])
    return total


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a / b, and 0 where b is 0: columns that are done stay as they are."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
