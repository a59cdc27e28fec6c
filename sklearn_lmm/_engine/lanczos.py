"""Quadratic forms in the logarithm of a matrix, by Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sklearn_lmm._engine.conjugate_gradients import column_products
from sklearn_lmm._types import AnyArray, FloatArray

CHECKED_EVERY = 2

SETTLED = 1e-6
"""Change of the quadrature, relative to z'z, from which more steps add nothing."""

MOST_STEPS = 60


def log_quadratic_forms(
    times: Callable[[AnyArray], AnyArray], z: AnyArray
) -> FloatArray:
    """Return z_j'(log S - (S - I)) z_j (k,) for the columns of z (m, k).

    Lanczos steps from z give the nodes and weights of Gaussian quadrature for
    the spectral measure of z (Golub and Meurant 2010, Matrices, Moments and
    Quadrature, chapter 7).  Taking off S - I leaves the mean over random z as
    it is where the diagonal of S is 1, and most of the variance away.

    Parameters
    ----------
    times : S w for w (m, k), S symmetric positive definite with eigenvalues
        around 1
    """
    squares = column_products(z, z)
    w = z / np.sqrt(squares).astype(z.dtype)
    before = np.zeros_like(w)
    diagonal: list[FloatArray] = []
    beside: list[FloatArray] = []
    forms = np.zeros(len(squares))
    for step in range(1, MOST_STEPS + 1):
        Sw = times(w)
        if beside:
            Sw -= beside[-1].astype(z.dtype) * before
        alpha = column_products(w, Sw)
        Sw -= alpha.astype(z.dtype) * w
        diagonal.append(alpha)
        if step % CHECKED_EVERY == 0:
            last, forms = forms, squares * _quadrature(diagonal, beside)
            if (np.abs(forms - last) <= SETTLED * squares).all():
                break
        beta = np.sqrt(column_products(Sw, Sw))
        # An exhausted Krylov space goes on with zeros, which carry no weight.
        beta[beta < 10 * np.finfo(z.dtype).eps] = 0.0
        scale = np.divide(1.0, beta, out=np.zeros_like(beta), where=beta > 0)
        before, w = w, Sw * scale.astype(z.dtype)
        beside.append(beta)
    return forms - squares * (diagonal[0] - 1.0)


def _quadrature(diagonal: list[FloatArray], beside: list[FloatArray]) -> FloatArray:
    """Return e_1'log(T_j) e_1 for tridiagonal T_j, one for every column j."""
    m = len(diagonal)
    T = np.zeros((len(diagonal[0]), m, m))
    steps = np.arange(m)
    T[:, steps, steps] = np.transpose(diagonal)
    if m > 1:
        T[:, steps[1:], steps[:-1]] = np.transpose(beside[: m - 1])
    # Of an exhausted space the diagonal is 0 and log 1 will do.
    T[:, steps, steps] += (T[:, steps, steps] == 0.0).astype(float)
    nodes, vectors = np.linalg.eigh(T)
    weights = vectors[:, 0] ** 2
    tiny = np.finfo(float).tiny
    return np.asarray(np.sum(weights * np.log(np.maximum(nodes, tiny)), axis=1))
