"""What every factor strategy offers to the criterion, and which one to take.

Notation, at a given theta: Psi_f = L_f L_f' the relative covariance of factor
f's coefficients, V = I + sum_f Z_f (I x Psi_f) Z_f', Q = Z'V^-1 Z.  Arrays over
the levels of a factor have the shape (G_f, q_f, ...); a tuple holds one for
every factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._types import FloatArray, IntArray

PerFactor = tuple[FloatArray, ...]
Codes = tuple[IntArray, ...]

ROWS_AT_ONCE = 256
"""Rows projected at a time."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A change dPsi = A (q_f, q_f), symmetric, of one factor's covariance."""

    factor: int
    A: FloatArray


@dataclass(frozen=True, eq=False)
class Forms:
    """What the curvature of the criterion is made of, for directions m, l.

    With v (G, q) and F (G, q, p) as `forms` got them:

    vAv : (m,), sum_g v_g'A_m v_g
    FAv : (m, p), sum_g v_g'A_m F_g
    vAQAv : (m, m), v'A_m Q A_l v
    traces : (m, m), tr(A_m Q A_l Q) under ML, tr(A_m Z'PZ A_l Z'PZ) under
        REML; None where only average information is offered
    """

    vAv: FloatArray
    FAv: FloatArray
    vAQAv: FloatArray
    traces: FloatArray | None


class Factored(Protocol):
    """V at one theta."""

    @property
    def logdet(self) -> float:
        """log|V|."""

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        """Return Z'V^-1 T and Psi Z'V^-1 T from b = Z'T, any number of columns.

        The second, the predicted effects of every column, is not the first
        times Psi: it is found without the cancellation that the first suffers
        where Psi n_g is large.
        """

    def block_sums(self) -> PerFactor:
        """Return sum_g [Q]_gg (q, q) for every factor."""

    def posterior_blocks(self) -> PerFactor:
        """Return Psi - Psi [Q]_gg Psi (G, q, q): Cov(b_g | y, beta) / sigma^2."""

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        """Return z'(L M^-1 L')z (n,) of rows: Var(z'b | y, beta) / sigma^2.

        codes : per factor (n,), the levels of the rows
        z : per factor (n, q_f), zero where a row has no effect of the factor
        """

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        """Return the quadratic forms of the curvature.

        F (G, q, p) is Z'V^-1 X R_X^-1 with H = X'V^-1X = R_X'R_X: whitened, so
        that H^-1 does not appear.  v (G, q) is Z'V^-1 (y - X beta).
        """


class Strategy(Protocol):
    """A way to work with V, prepared once for given cross-products.

    name : as shown to users
    exact : whether traces and log-determinants are right to rounding
    """

    name: str
    exact: bool

    def factorize(self, L: PerFactor) -> Factored:
        """Return V for the relative factors L_f (q_f, q_f)."""


def average_information(
    state: Factored,
    statistics: CrossProducts,
    F: PerFactor,
    v: PerFactor,
    directions: list[Direction],
) -> Forms:
    """Return `Forms` without traces, from one projection of all A_m v."""
    Av = changes_of(v, directions)
    QAv, _ = state.project(statistics.ztz(Av))
    v_columns = tuple(v_f[:, :, None] for v_f in v)
    return Forms(
        vAv=total_product(Av, v_columns)[:, 0],
        FAv=total_product(Av, F),
        vAQAv=total_product(Av, QAv),
        traces=None,
    )


def changes_of(v: PerFactor, directions: list[Direction]) -> PerFactor:
    """Return A_m v (G, q, m) of every factor, zero but for the factor of A_m."""
    Av = tuple(np.zeros((*v_f.shape, len(directions))) for v_f in v)
    for m, direction in enumerate(directions):
        Av[direction.factor][:, :, m] = v[direction.factor] @ direction.A
    return Av


def variances_by_projection(
    state: Factored, statistics: CrossProducts, codes: Codes, z: PerFactor
) -> FloatArray:
    """Return `posterior_variances` by a projection for every row, some at a time."""
    n = len(codes[0])
    variances = np.zeros(n)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, n))
        columns = rows - start
        b = tuple(np.zeros((*s.shape[:2], len(rows))) for s in statistics.s)
        for b_f, level, z_f in zip(b, codes, z, strict=True):
            b_f[level[rows], :, columns] = z_f[rows]
        _, effects = state.project(b)
        for effect, level, z_f in zip(effects, codes, z, strict=True):
            variances[rows] += np.sum(
                z_f[rows] * effect[level[rows], :, columns], axis=1
            )
    return variances


def quadratic(blocks: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """Return l'B r (n,) for every row's B (n, q, k), l (n, q) and r (n, k)."""
    return np.asarray(np.einsum("ni,nij,nj->n", left, blocks, right, optimize=True))


def level_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return sum_g a_g'b_g (k, l) for a (G, q, k) and b (G, q, l)."""
    rows = a.shape[0] * a.shape[1]
    return a.reshape(rows, a.shape[2]).T @ b.reshape(rows, b.shape[2])


def total_product(a: PerFactor, b: PerFactor) -> FloatArray:
    """Return a'b (k, l) for a (G, q, k) and b (G, q, l) of every factor."""
    products = [level_product(a_f, b_f) for a_f, b_f in zip(a, b, strict=True)]
    return np.asarray(np.sum(products, axis=0))


class NoRandomEffects:
    """The strategy of a model without random terms: V = I."""

    name = "none"
    exact = True
    logdet = 0.0

    def factorize(self, L: PerFactor) -> Factored:
        return self

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        return (), ()

    def block_sums(self) -> PerFactor:
        return ()

    def posterior_blocks(self) -> PerFactor:
        return ()

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        return np.zeros(1)

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        none = np.zeros((0, 0))
        return Forms(np.zeros(0), none, none, none)
