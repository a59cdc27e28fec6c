"""Errors that are all equally correlated within a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import expit, logit

from sklearn_lmm._engine.correlation import Correlation, Precision
from sklearn_lmm._types import AnyArray, FloatArray, IntArray


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

    def unconstrained(self, values: FloatArray) -> FloatArray:
        return np.asarray(logit((values - self.low) / (1.0 - self.low)))

    def at(self, u: FloatArray) -> Precision:
        share = float(expit(u[0]))
        rho = self.low + (1.0 - self.low) * share
        d1 = (1.0 - self.low) * share * (1.0 - share)
        d2 = d1 * (1.0 - 2.0 * share)
        others = self.sizes - 1.0
        a = 1.0 / (1.0 - rho)
        b = 1.0 / (1.0 + others * rho)
        operators = [
            WithinAndBetween(self.starts, self.sizes, within, between)
            for within, between in (
                (a, b),
                (a**2 * d1, -others * b**2 * d1),
                (
                    2.0 * a**3 * d1**2 + a**2 * d2,
                    2.0 * others**2 * b**3 * d1**2 - others * b**2 * d2,
                ),
            )
        ]
        slope = float(np.sum(others * (b - a)))
        bend = -float(np.sum(others * a**2 + others**2 * b**2))
        return Precision(
            inverse=operators[0],
            first=[operators[1]],
            second=[[operators[2]]],
            logdet=-float(np.sum(others * np.log(a) + np.log(b))),
            dlogdet=np.array([slope * d1]),
            d2logdet=np.array([[bend * d1**2 + slope * d2]]),
        )

    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        rho = float(self.values(u)[0])
        between = 1.0 + (self.sizes - 1.0) * rho
        return WithinAndBetween(self.starts, self.sizes, 1.0 - rho, between) @ U
