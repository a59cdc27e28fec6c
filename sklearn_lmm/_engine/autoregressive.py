"""Autoregressive errors: correlations that pass from neighbour to neighbour."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import solveh_banded

from sklearn_lmm._engine.correlation import Correlation, Operator, Precision
from sklearn_lmm._types import FloatArray, IntArray

MOST_OPERATORS = 11
"""Fixed matrices, at most, that C^-1 is made of."""


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """diagonal (n,), and below (n,): entry (t, t - 1), 0 in a group's first row."""

    diagonal: FloatArray
    below: FloatArray

    def __matmul__(self, U: FloatArray, /) -> FloatArray:
        product: FloatArray = self.diagonal[:, None] * U
        product[1:] += self.below[1:, None] * U[:-1]
        product[:-1] += self.below[1:, None] * U[1:]
        return product

    def sparse(self) -> sparse.csr_array:
        n = len(self.diagonal)
        off = self.below[1:]
        bands: Any = [off, self.diagonal, off]
        matrix = sparse.diags_array(bands, offsets=[-1, 0, 1], shape=(n, n))
        return sparse.csr_array(matrix)


class Autoregressive(Correlation):
    """Correlations rho_t between neighbours, and their products further away.

    Given the row before it, a row does not depend on those before that, so that
    C^-1 is tridiagonal.  With w = 1 / (1 - rho_t^2) row t adds w to entry
    (t, t), w rho_t^2 = w - 1 to (t - 1, t - 1), -w rho_t to (t, t - 1), and
    -log w to log|C|.

    gaps : (n,) distance in time to the row before; 0 in a group's first row
    """

    size = 1

    def __init__(self, gaps: FloatArray) -> None:
        distinct, self.which = np.unique(gaps, return_inverse=True)
        self.has_first = bool(distinct[0] == 0.0)
        self.distinct = distinct[1:] if self.has_first else distinct
        # Class 0 holds the first rows of the groups.
        self.which = self.which + (not self.has_first)
        self.counts = np.bincount(self.which, minlength=len(self.distinct) + 1)

    @abstractmethod
    def neighbours(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return rho of every distinct gap, and its derivatives by u."""

    def coefficients(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return w, -w rho and -log w (each (3, classes): value, first, second).

        The first class, of the first rows, has w = 1 and rho = 0.
        """
        rho, d1, d2 = self.neighbours(u)
        w = 1.0 / ((1.0 - rho) * (1.0 + rho))
        dw, d2w = 2.0 * rho * w**2, 2.0 * w**2 + 8.0 * rho**2 * w**3
        by_rho = (
            (w, dw, d2w),
            (-rho * w, -w - rho * dw, -2.0 * dw - rho * d2w),
            (-np.log(w), -2.0 * rho * w, -2.0 * w - 4.0 * rho**2 * w**2),
        )
        starts = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        return tuple(  # type: ignore[return-value]
            np.column_stack([first, [f, df * d1, d2f * d1**2 + df * d2]])
            for first, (f, df, d2f) in zip(starts, by_rho, strict=True)
        )

    def at(self, u: FloatArray) -> Precision:
        w, off, logs = self.coefficients(u)
        logdets = logs @ self.counts
        levels = [self._operator(w[k], off[k], k == 0) for k in range(3)]
        return Precision(
            inverse=levels[0],
            first=[levels[1]],
            second=[[levels[2]]],
            logdet=float(logdets[0]),
            dlogdet=logdets[1:2],
            d2logdet=logdets[2:3, None],
        )

    def _operator(self, w: FloatArray, off: FloatArray, value: bool) -> Tridiagonal:
        diagonal = w[self.which]
        previous = diagonal[1:] - 1.0 if value else diagonal[1:]
        diagonal = diagonal.copy()
        diagonal[:-1] += previous
        return Tridiagonal(diagonal, off[self.which])

    def operators(self) -> list[Operator] | None:
        """Return what is added for every first row, and for every class of gaps.

        C^-1 = Omega_0 + sum_k (w_k Omega_k1 - w_k rho_k Omega_k2): Omega_k1 has
        ones at (t, t) and (t - 1, t - 1), Omega_k2 at (t, t - 1) and (t - 1, t),
        and Omega_0 what w - 1 in place of w makes of it.
        """
        if 1 + 2 * len(self.distinct) > MOST_OPERATORS:
            return None
        n = len(self.which)
        rest = np.where(self.which == 0, 1.0, 0.0)
        rest[:-1] -= self.which[1:] > 0
        operators: list[Operator] = [Tridiagonal(rest, np.zeros(n))]
        for k in range(1, len(self.distinct) + 1):
            here = (self.which == k).astype(np.float64)
            both = here.copy()
            both[:-1] += here[1:]
            operators += [
                Tridiagonal(both, np.zeros(n)),
                Tridiagonal(np.zeros(n), here),
            ]
        return operators

    def mixture(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        w, off, logs = self.coefficients(u)
        pairs = np.stack([w[:, 1:], off[:, 1:]], axis=2).reshape(3, -1)
        return np.column_stack([[1.0, 0.0, 0.0], pairs]), logs @ self.counts

    def without_rows(self) -> Autoregressive:
        small = copy.copy(self)
        small.which = self.which[:0]
        return small

    def near(self, u: FloatArray) -> sparse.csr_array | None:
        rho = np.append(0.0, self.neighbours(u)[0])[self.which]
        return Tridiagonal(np.ones(len(rho)), rho).sparse()

    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        inverse = self.at(u).inverse
        assert isinstance(inverse, Tridiagonal)
        bands = np.stack([inverse.diagonal, np.append(inverse.below[1:], 0.0)])
        return np.asarray(solveh_banded(bands, U, lower=True))


class AR1(Autoregressive):
    """rho = phi^gap for integer gaps, with phi = tanh u in (-1, 1)."""

    def start(self) -> FloatArray:
        return np.array([0.2])

    def values(self, u: FloatArray) -> FloatArray:
        return np.asarray(np.tanh(u))

    def limits(self) -> FloatArray:
        return np.array([[-1.0, 1.0]])

    def unconstrained(self, values: FloatArray) -> FloatArray:
        return np.arctanh(values)

    def neighbours(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        phi = float(np.tanh(u[0]))
        slope = 1.0 - phi**2
        d = self.distinct.astype(np.int64)
        first = d * float_power(phi, d - 1)
        second = d * (d - 1) * float_power(phi, np.maximum(d - 2, 0))
        return (
            float_power(phi, d),
            first * slope,
            second * slope**2 - 2.0 * phi * slope * first,
        )


class ContinuousAR1(Autoregressive):
    """rho = exp(-gap / range) with range = (median gap) exp(-u).

    decay : whether the user's parameter is phi = exp(-1 / range), the
        correlation at distance 1, and not the range
    """

    def __init__(self, gaps: FloatArray, decay: bool) -> None:
        super().__init__(gaps)
        self.decay = decay
        between = gaps[gaps > 0]
        self.unit = float(np.median(between)) if len(between) else 1.0

    def start(self) -> FloatArray:
        return np.array([0.0])

    def values(self, u: FloatArray) -> FloatArray:
        reach = self.unit * np.exp(-u)
        return np.asarray(np.exp(-1.0 / reach) if self.decay else reach)

    def limits(self) -> FloatArray:
        return np.array([[0.0, 1.0 if self.decay else np.inf]])

    def unconstrained(self, values: FloatArray) -> FloatArray:
        reach = -1.0 / np.log(values) if self.decay else values
        return -np.log(reach / self.unit)

    def neighbours(self, u: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        x = self.distinct / self.unit * np.exp(u[0])
        rho = np.exp(-x)
        return rho, -x * rho, (x**2 - x) * rho


def float_power(base: float, exponents: IntArray) -> FloatArray:
    """Return base ** exponents for integers, base of either sign."""
    return np.asarray(np.power(np.float64(base), exponents), float)
