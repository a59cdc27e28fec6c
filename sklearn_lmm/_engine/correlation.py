"""Correlations of the errors within groups of rows.

Rows are sorted, those of a group side by side and in order.  C(u) is block-
diagonal, one block a group, and depends on unconstrained parameters u (m,).
What a fit needs of it is C^-1, log|C| and their derivatives by u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from sklearn_lmm._types import AnyArray, FloatArray, IntArray

SMALL = 1e-30
"""Imaginary step of a derivative: its square is nothing beside 1."""

STENCIL = 1e-3
"""Step of the differences of such derivatives."""


class Operator(Protocol):
    """A symmetric matrix (n, n), block-diagonal by groups of rows."""

    def __matmul__(self, U: FloatArray, /) -> FloatArray:
        """Return its product with rows U (n, k)."""

    def sparse(self) -> sparse.csr_array:
        """Return the matrix itself."""


@dataclass(frozen=True, eq=False)
class Precision:
    """C^-1 and log|C| at some u, with first and second derivatives.

    first : m operators; second : m lists of m operators
    """

    inverse: Operator
    first: list[Operator]
    second: list[list[Operator]]
    logdet: float
    dlogdet: FloatArray
    d2logdet: FloatArray


class Correlation(ABC):
    """The correlation of the errors of given rows, as a function of u.

    size : m, the number of parameters
    """

    size: int

    @abstractmethod
    def start(self) -> FloatArray:
        """Return u to start from."""

    @abstractmethod
    def values(self, u: FloatArray) -> FloatArray:
        """Return the parameters on the user's scale; analytic in u."""

    @abstractmethod
    def limits(self) -> FloatArray:
        """Return the ends of the range of every value (m, 2)."""

    @abstractmethod
    def unconstrained(self, values: FloatArray) -> FloatArray:
        """Return u of given parameters."""

    @abstractmethod
    def at(self, u: FloatArray) -> Precision:
        """Return C^-1 and log|C| at u."""

    @abstractmethod
    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        """Return C U for rows U (n, k)."""

    def squared(self, u: FloatArray) -> tuple[Operator, float] | None:
        """Return d(C^-1) C d(C^-1) and tr(C d(C^-1))^2, None if only blocks tell.

        For a correlation with one parameter.
        """
        return None

    def near(self, u: FloatArray) -> sparse.csr_array | None:
        """Return the entries of C where C^-1 has any, None if that is everywhere."""
        return None

    def operators(self) -> list[Operator] | None:
        """Return fixed matrices that C^-1 is a mixture of, None if there are none."""
        return None

    def mixture(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return their coefficients (3, K) and log|C| (3,): value, first, second."""
        raise NotImplementedError

    def without_rows(self) -> Correlation:
        """Return what `mixture` needs."""
        raise NotImplementedError

    def jacobian(self, u: FloatArray) -> FloatArray:
        """Return d values / du (m, m)."""
        return complex_step(self.values, u).T


@dataclass(frozen=True, eq=False)
class Identity:
    """The identity."""

    n: int

    def __matmul__(self, U: FloatArray, /) -> FloatArray:
        return U

    def sparse(self) -> sparse.csr_array:
        return sparse.eye_array(self.n, format="csr")


class Independent(Correlation):
    """No correlation: C = I."""

    size = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def start(self) -> FloatArray:
        return np.zeros(0)

    def values(self, u: FloatArray) -> FloatArray:
        return u

    def limits(self) -> FloatArray:
        return np.zeros((0, 2))

    def unconstrained(self, values: FloatArray) -> FloatArray:
        return values

    def at(self, u: FloatArray) -> Precision:
        none = np.zeros(0)
        return Precision(Identity(self.n), [], [], 0.0, none, np.zeros((0, 0)))

    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        return U


def blocks_of(
    correlation: Correlation, u: FloatArray, starts: IntArray, ends: IntArray, n: int
) -> list[FloatArray]:
    """Return the blocks of C between `starts` and `ends`."""
    columns = stacked_blocks(correlation, u, starts, ends - starts, n)
    return [
        columns[start:end, : end - start]
        for start, end in zip(starts, ends, strict=True)
    ]


def stacked_blocks(
    correlation: Correlation, u: FloatArray, starts: IntArray, sizes: IntArray, n: int
) -> FloatArray:
    """Return the blocks of C from `starts` on, each in its rows (n, m).

    m is the size of the largest; all else is 0.
    """
    places = places_within(sizes)
    unit = np.zeros((n, int(sizes.max(initial=0))))
    unit[np.repeat(starts, sizes) + places, places] = 1.0
    return correlation.times(u, unit)


def places_within(sizes: IntArray) -> IntArray:
    """Return 0, 1, .. for the rows of every group, of groups one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def correlation_matrix(
    correlation: Correlation, u: FloatArray, starts: IntArray, n: int
) -> sparse.csr_array:
    """Return C (n, n), written out."""
    sizes = np.diff(np.append(starts, n))
    blocks = stacked_blocks(correlation, u, starts, sizes, n)
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    places = np.arange(blocks.shape[1])
    present = places < size[:, None]
    columns = (start[:, None] + places)[present]
    ends = np.append(0, np.cumsum(size))
    return sparse.csr_array((blocks[present], columns, ends), shape=(n, n))


def complex_step(function: Callable[[AnyArray], AnyArray], u: FloatArray) -> FloatArray:
    """Return df / du (k, ...) of a function that is analytic in u."""
    columns = []
    for k in range(len(u)):
        v = u.astype(complex)
        v[k] += 1j * SMALL
        columns.append(np.imag(function(v)) / SMALL)
    return np.array(columns)


def symmetric_stencil(
    first: Callable[[FloatArray], FloatArray], u: FloatArray
) -> FloatArray:
    """Return d2f (k, k, ...) from first derivatives (k, ...), by differences."""
    rows = []
    for k in range(len(u)):
        step = np.zeros_like(u)
        step[k] = STENCIL
        near = first(u + step) - first(u - step)
        far = first(u + 2.0 * step) - first(u - 2.0 * step)
        rows.append((8.0 * near - far) / (12.0 * STENCIL))
    second = np.array(rows)
    return 0.5 * (second + second.swapaxes(0, 1))
