"""Rows made uncorrelated: V^-1/2 x, in two ways.

The symmetric root is the one that leaves every row closest to itself, and does
not depend on the order of the rows.  It exists for any V = I + Z Psi Z'.  As

    V^-1/2 = (2 / pi) int_0^inf (V + t^2 I)^-1 dt,
    (V + t^2 I)^-1 = (I + Z Psi Z' / (1 + t^2))^-1 / (1 + t^2),

it is a sum of solutions for smaller Psi, for which the engine has its verbs.
The nodes are those of Hale, Higham and Trefethen (2008, SIAM Journal on Numerical
Analysis 46: 2505-2523, method 3), which converge geometrically.

The Cholesky factor of V makes of every row its error of prediction from the rows
before it.  Where grouping factors are nested it costs one pass over the rows for
each factor: with C = (Psi^-1 + S)^-1 and S, c the sums of zz' and zx over the
earlier rows of the same level,

    x - z'Cc over sqrt(1 + z'Cz)

has lost what the factor adds to the covariance, and the z of the factors above,
changed in the same way, are the columns of a model with one factor less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy import special

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.design import nested
from sklearn_lmm._engine.factor import PerFactor
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.linalg import shrinkage
from sklearn_lmm._types import FloatArray, IntArray

PRECISION = 1e-13
"""Relative error of the quadrature."""

MOST_NODES = 64


class SymmetricRoot:
    """V^-1/2, where V has some of the factors only.

    factors : positions of those that count in V; the effects of the others are
        taken as known
    """

    def __init__(self, rows: FittedRows, factors: Sequence[int]) -> None:
        self.rows = rows
        self._L = tuple(
            L if f in factors else np.zeros_like(L) for f, L in enumerate(rows.point.L)
        )
        largest = _largest(rows.statistics.s, self._L)
        self._shift, weight = _nodes(largest)
        self._share = weight / (1.0 + self._shift)

    def T(self) -> FloatArray:
        """Return V^-1/2 T (n, p + 1)."""
        rows, U = self.rows, self._effects(self.rows.statistics.b)
        parts = [rows.less_effects(rows.T(part), part, U) for part in rows.chunks()]
        return np.concatenate(parts)

    def residuals(self) -> FloatArray:
        """Return V^-1/2 (y - X beta - Z b) (n,), b being the effects taken as known."""
        rows, point = self.rows, self.rows.point
        known = tuple(
            np.zeros_like(b) if L.any() else b
            for L, b in zip(self._L, _coefficients(point), strict=True)
        )
        b = rows.statistics.ztz(known)
        Ze = tuple(
            b_f @ point.residual[:, None] - ztz
            for b_f, ztz in zip(rows.statistics.b, b, strict=True)
        )
        e = rows.less_effects(rows.marginal[:, None], slice(None), known)
        return rows.less_effects(e, slice(None), self._effects(Ze))[:, 0]

    def _effects(self, b: PerFactor) -> PerFactor:
        """Return U with V^-1/2 x = x - Z U, from b = Z'x."""
        total = tuple(np.zeros_like(b_f) for b_f in b)
        strategy = self.rows.point.criterion.strategy
        for shift, share in zip(self._shift, self._share, strict=True):
            smaller = tuple(L / np.sqrt(1.0 + shift) for L in self._L)
            _, U = strategy.factorize(smaller).project(b)
            total = tuple(a + share * u for a, u in zip(total, U, strict=True))
        return total


def _coefficients(point: Point) -> PerFactor:
    """Return b (G, q, 1) of every factor."""
    return tuple(U @ point.residual[:, None] for U in point.U)


def cholesky_residuals(
    rows: FittedRows,
    factors: Sequence[int],
    white: Callable[[FloatArray], FloatArray] = lambda columns: columns,
) -> FloatArray | None:
    """Return L^-1 (y - X beta - Z b) (n,) with V = L L', for nested factors.

    V has the given factors; the effects b of the others are taken as known.
    None if the factors are not nested in each other.

    white : multiplies columns (n, k) by the inverse root of R, for V = R + Z Psi Z',
        each row from those before it that have the same levels
    """
    chain = _chain(rows, factors)
    if chain is None:
        return None
    e = rows.less(f for f in range(len(rows.codes)) if f not in factors)
    above = [rows.z[f] for f in chain]
    columns = white(np.column_stack([*above, e]))
    for f in chain:
        q = rows.z[f].shape[1]
        z, columns = columns[:, :q], columns[:, q:]
        columns = _prediction_errors(columns, z, rows.codes[f], rows.point.L[f])
    return np.asarray(columns[:, 0])


def _chain(rows: FittedRows, factors: Sequence[int]) -> list[int] | None:
    """Return factors from leaves to roots, None if they are not nested."""
    sizes = rows.design.factors
    chain = sorted(factors, key=lambda f: -sizes[f].n_levels)
    codes = [rows.codes[f] for f in chain]
    return chain if all(nested(c, above) for c, above in pairwise(codes)) else None


def _prediction_errors(
    x: FloatArray, z: FloatArray, codes: IntArray, L: FloatArray
) -> FloatArray:
    """Return the standardised errors (n, k) of predicting x from earlier rows."""
    order = np.argsort(codes, kind="stable")
    z, x = z[order], x[order]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(codes)))
    S = _sums_before(z[:, :, None] * z[:, None, :], starts, lengths)
    c = _sums_before(z[:, :, None] * x[:, None, :], starts, lengths)
    C = (L @ L.T) @ shrinkage(S, L)[0]
    Cz = np.einsum("nij,nj->ni", C, z)
    errors = x - np.einsum("ni,nik->nk", Cz, c)
    errors /= np.sqrt(1.0 + np.sum(z * Cz, axis=1))[:, None]
    back: FloatArray = np.empty_like(errors)
    back[order] = errors
    return back


def _sums_before(x: FloatArray, starts: IntArray, lengths: IntArray) -> FloatArray:
    """Return the sums of the earlier rows of the same run."""
    before = np.cumsum(x, axis=0) - x
    return np.asarray(before - np.repeat(before[starts], lengths, axis=0))


def _largest(S: PerFactor, L: PerFactor) -> float:
    """Return a bound on the eigenvalues of V: 1 + sum_f max_g |L'S_gL|."""
    bound = 1.0
    for S_f, L_f in zip(S, L, strict=True):
        traces = np.einsum("gij,ij->g", S_f, L_f @ L_f.T)
        bound += float(traces.max(initial=0.0))
    return bound


def _nodes(largest: float) -> tuple[FloatArray, FloatArray]:
    """Return t^2 and weights with sum_j w_j / (v + t_j^2) = v^-1/2, 1 <= v <= largest.

    As many as it takes, judged on that interval.
    """
    v = np.geomspace(1.0, largest, 200)
    for n in range(4, MOST_NODES, 4):
        K = special.ellipkm1(1.0 / largest)
        tau = (np.arange(n) + 0.5) * K / n
        sn, cn, dn, _ = special.ellipj(tau, 1.0 - 1.0 / largest)
        shift, weight = (sn / cn) ** 2, 2.0 * K / (np.pi * n) * dn / cn**2
        sums = np.sum(weight / (v[:, None] + shift), axis=1)
        if np.abs(sums * np.sqrt(v) - 1.0).max() < PRECISION:
            break
    return np.asarray(shift, float), np.asarray(weight, float)
