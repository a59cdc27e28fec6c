"""Errors that are all equally correlated within a group."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import expit, logit

from sklearn_lmm._engine.correlation import Correlation, Operator, Precision
from sklearn_lmm._types import AnyArray, FloatArray, IntArray

MOST_SIZES = 11
"""Distinct sizes of groups, at most, of which the sums are kept."""


@dataclass(frozen=True, eq=False)
class WithinAndBetween:
    """a (I - J/m) + b J/m for every group of m rows, J the matrix of ones.

    starts, sizes : (G,), the first row and the number of rows of every group
    within : a; between : (G,), b
    """

    starts: IntArray
    sizes: IntArray
    within: float
    between: FloatArray

    def __matmul__(self, U: FloatArray, /) -> FloatArray:
        sums = np.add.reduceat(U, self.starts, axis=0)
        of_mean = (self.between - self.within) / self.sizes
        return self.within * U + np.repeat(of_mean[:, None] * sums, self.sizes, axis=0)

    def sparse(self) -> sparse.csr_array:
        n = int(self.sizes.sum())
        of_mean = (self.between - self.within) / self.sizes
        group = np.repeat(np.arange(len(self.sizes)), self.sizes)
        member = sparse.csr_array((np.ones(n), (np.arange(n), group)))
        means = member @ sparse.diags_array(of_mean) @ member.T
        return sparse.csr_array(means + self.within * sparse.eye_array(n))


class EqualCorrelation(Correlation):
    """C = (1 - rho) I + rho J in groups of m rows, -1 / (m - 1) < rho < 1.

    rho = low + (1 - low) / (1 + exp(-u)), low the bound for the largest group.
    """

    size = 1

    def __init__(self, starts: IntArray, n: int) -> None:
        self.starts = starts
        self.sizes = np.diff(np.append(starts, n))
        self.low = -1.0 / max(1, int(self.sizes.max()) - 1)

    def start(self) -> FloatArray:
        return self.unconstrained(np.array([0.1]))

    def values(self, u: AnyArray) -> AnyArray:
        return self.low + (1.0 - self.low) / (1.0 + np.exp(-u))

    def limits(self) -> FloatArray:
        return np.array([[self.low, 1.0]])

    def unconstrained(self, values: FloatArray) -> FloatArray:
        return np.asarray(logit((values - self.low) / (1.0 - self.low)))

    def at(self, u: FloatArray) -> Precision:
        ones = np.ones(len(self.sizes))
        a, b, logs = self._coefficients(u, self.sizes - 1.0, ones)
        inverse, first, second = (
            WithinAndBetween(self.starts, self.sizes, float(a[k]), b[k])
            for k in range(3)
        )
        return Precision(
            inverse=inverse,
            first=[first],
            second=[[second]],
            logdet=float(logs[0]),
            dlogdet=logs[1:2],
            d2logdet=logs[2:3, None],
        )

    def _coefficients(
        self, u: FloatArray, others: FloatArray, counts: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return 1 / (1 - rho) (3,), 1 / (1 + (m - 1) rho) (3, sizes), log|C| (3,).

        others : m - 1 for some sizes of groups; counts : how many have each
        """
        share = float(expit(u[0]))
        rho = self.low + (1.0 - self.low) * share
        d1 = (1.0 - self.low) * share * (1.0 - share)
        d2 = d1 * (1.0 - 2.0 * share)
        a, b = 1.0 / (1.0 - rho), 1.0 / (1.0 + others * rho)
        da, db = a**2, -others * b**2
        d2a, d2b = 2.0 * a**3, 2.0 * others**2 * b**3
        slope = float(counts @ (others * (b - a)))
        bend = -float(counts @ (others * a**2 + others**2 * b**2))
        return (
            np.array([a, da * d1, d2a * d1**2 + da * d2]),
            np.stack([b, db * d1, d2b * d1**2 + db * d2]),
            np.array(
                [
                    -float(counts @ (others * np.log(a) + np.log(b))),
                    slope * d1,
                    bend * d1**2 + slope * d2,
                ]
            ),
        )

    def squared(self, u: FloatArray) -> tuple[Operator, float] | None:
        ones = np.ones(len(self.sizes))
        a, b, _ = self._coefficients(u, self.sizes - 1.0, ones)
        within, between = a[1] / a[0], b[1] / b[0]
        square = WithinAndBetween(
            self.starts, self.sizes, float(within * a[1]), between * b[1]
        )
        return square, float(np.sum((self.sizes - 1.0) * within**2 + between**2))

    def operators(self) -> list[Operator] | None:
        """Return I - J/m in all groups, and J/m in the groups of every size m."""
        sizes = np.unique(self.sizes)
        if len(sizes) >= MOST_SIZES:
            return None
        starts, nothing = self.starts, np.zeros(len(self.sizes))
        operators: list[Operator] = [WithinAndBetween(starts, self.sizes, 1.0, nothing)]
        for size in sizes:
            own = (self.sizes == size).astype(np.float64)
            operators.append(WithinAndBetween(starts, self.sizes, 0.0, own))
        return operators

    def mixture(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        sizes, counts = np.unique(self.sizes, return_counts=True)
        a, b, logs = self._coefficients(u, sizes - 1.0, counts.astype(np.float64))
        return np.column_stack([a, b]), logs

    def without_rows(self) -> EqualCorrelation:
        small = copy.copy(self)
        small.starts = self.starts[:0]
        return small

    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        rho = float(self.values(u)[0])
        between = 1.0 + (self.sizes - 1.0) * rho
        return WithinAndBetween(self.starts, self.sizes, 1.0 - rho, between) @ U
