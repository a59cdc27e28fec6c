"""The cross-products of crossed factors, as products with vectors want them.

N = Z_R'Z_1 and C = Z_R'Z_R, with factor 1 and R as `elimination` has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.elimination import Elimination
from sklearn_lmm._engine.factor import PerFactor
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import AnyArray, FloatArray, IntArray

Float = type[np.float32] | type[np.float64]

BLOCKS_AT_ONCE = 1 << 18
"""Blocks of N multiplied at a time."""


class Crossing(Elimination):
    """N and C of cross-products, in single and in double precision."""

    def __init__(self, statistics: CrossProducts) -> None:
        super().__init__(statistics)
        product = statistics.product
        N = _in_precisions([[product(f, self.first)] for f in self.rest])
        Nt = _in_precisions([[product(self.first, f) for f in self.rest]])
        C = _in_precisions([[product(f, h) for h in self.rest] for f in self.rest])
        self._single = Products(N[0], Nt[0], C[0])
        self._double = Products(N[1], Nt[1], C[1])
        self._outer = [
            self._outer_of(place, f)
            for place, f in zip(self.places, self.rest, strict=True)
        ]

    def products(self, dtype: Float) -> Products:
        """Return the matrices for vectors of a precision."""
        return self._single if dtype is np.float32 else self._double

    def outer(self, K: FloatArray) -> PerFactor:
        """Return sum_g N_hg K_g N_hg' (G_h, q_h, q_h) for the levels h in R."""
        return tuple(outer.by_row(K) for outer in self._outer)

    def outer_transposed(self, P: PerFactor) -> FloatArray:
        """Return sum_h N_hg'P_h N_hg (G_1, q_1, q_1) for the levels g of factor 1."""
        parts = [
            outer.by_column(P_k) for outer, P_k in zip(self._outer, P, strict=True)
        ]
        return np.asarray(sum(parts[1:], start=parts[0]))

    def _outer_of(self, place: slice, f: int) -> _ScalarOuter | _BlockOuter:
        q = self.statistics.s[f].shape[1], self.statistics.s[self.first].shape[1]
        N = self._double.N
        N = N if len(self.places) == 1 else N[place]
        return _ScalarOuter(N) if q == (1, 1) else _BlockOuter(N, q)


@dataclass(frozen=True, eq=False)
class Products:
    """N, N' and C, all by rows."""

    N: sparse.csr_array
    Nt: sparse.csr_array
    C: sparse.csr_array

    def reduced(self, K: Blocks, x: AnyArray) -> AnyArray:
        """Return A x = C x - N K N'x."""
        y: AnyArray = self.C @ x
        y -= self.N @ K.scale(self.Nt @ x)
        return y


class Blocks:
    """A block-diagonal matrix, over the levels of one factor or of several.

    parts : one (G, q, q) each, or (1, q, q) if all its blocks are the same
    sizes : the number of levels of each
    """

    def __init__(
        self, parts: tuple[FloatArray, ...], sizes: tuple[int, ...], dtype: Float
    ) -> None:
        self._scalar = all(part.shape[1] == 1 for part in parts)
        if self._scalar:
            diagonals = [
                np.broadcast_to(part[:, 0], (size, 1))
                for part, size in zip(parts, sizes, strict=True)
            ]
            self._diagonal = np.concatenate(diagonals).astype(dtype)
        self._parts = [part.astype(dtype) for part in parts]
        self._places = consecutive(
            size * part.shape[1] for part, size in zip(parts, sizes, strict=True)
        )

    def scale(self, x: AnyArray) -> AnyArray:
        """Return the product with x (m, k), in its memory if that is possible."""
        if not self._scalar:
            return self.times(x)
        x *= self._diagonal
        return x

    def times(self, x: AnyArray) -> AnyArray:
        """Return the product with x (m, k)."""
        if self._scalar:
            return self._diagonal * x
        product = np.empty_like(x)
        for part, place in zip(self._parts, self._places, strict=True):
            blocks = x[place].reshape(-1, part.shape[1], x.shape[1])
            product[place] = (part @ blocks).reshape(-1, x.shape[1])
        return product


class _ScalarOuter:
    """Outer products where every block of N is a number."""

    def __init__(self, N: sparse.csr_array) -> None:
        squares = np.square(N.data, dtype=np.float64)
        A = sparse.csr_array((squares, N.indices, N.indptr), N.shape)
        self._squares = _in_precisions([[A]])[1]

    def by_row(self, K: FloatArray) -> FloatArray:
        return np.asarray(self._squares @ K[:, 0, 0])[:, None, None]

    def by_column(self, P: FloatArray) -> FloatArray:
        return np.asarray(self._squares.T @ P[:, 0, 0])[:, None, None]


class _BlockOuter:
    """Outer products of blocks (q_h, q_1), some of them at a time."""

    def __init__(self, N: sparse.csr_array, q: tuple[int, int]) -> None:
        self._blocks = N.tobsr(q)
        counts = np.diff(self._blocks.indptr)
        self._rows = np.repeat(np.arange(len(counts)), counts)

    def by_row(self, K: FloatArray) -> FloatArray:
        columns = self._blocks.indices
        size = self._blocks.shape[0] // self._blocks.blocksize[0]
        return self._sums(K, columns, self._rows, size, transposed=False)

    def by_column(self, P: FloatArray) -> FloatArray:
        columns = self._blocks.indices
        size = self._blocks.shape[1] // self._blocks.blocksize[1]
        return self._sums(P, self._rows, columns, size, transposed=True)

    def _sums(
        self,
        middle: FloatArray,
        inner: IntArray,
        outer: IntArray,
        size: int,
        transposed: bool,
    ) -> FloatArray:
        q = self._blocks.blocksize[1 if transposed else 0]
        sums = np.zeros((size, q, q))
        for start in range(0, len(inner), BLOCKS_AT_ONCE):
            part = slice(start, start + BLOCKS_AT_ONCE)
            N = self._blocks.data[part]
            N = N.swapaxes(1, 2) if transposed else N
            products = N @ middle[inner[part]] @ N.swapaxes(1, 2)
            for i, j in np.ndindex(q, q):
                sums[:, i, j] += np.bincount(outer[part], products[:, i, j], size)
        return sums


def _in_precisions(
    parts: list[list[sparse.csr_array]],
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return a matrix of blocks in single and in double precision.

    Only once, if nothing is lost: counts of rows, which is what unweighted
    intercepts have, are the same in both.
    """
    single = len(parts) == len(parts[0]) == 1
    A = parts[0][0] if single else sparse.block_array(parts, format="csr")
    indices, indptr = A.indices, A.indptr
    if max(A.nnz, *A.shape) < 2**31:
        indices, indptr = indices.astype(np.int32), indptr.astype(np.int32)
    rounded = A.data.astype(np.float32)
    data = rounded if np.array_equal(rounded, A.data) else A.data
    return (
        sparse.csr_array((rounded, indices, indptr), A.shape),
        sparse.csr_array((data, indices, indptr), A.shape),
    )
