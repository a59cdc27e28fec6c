"""Block-diagonal dense matrices, and sums of outer products into them.

Once the levels of one factor are eliminated, the other levels meet in a dense
Schur complement, which falls apart into one block for every connected set of
levels (schools that share no items, say).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import blas, lapack

from sklearn_lmm._types import FloatArray, IntArray

PairMaps = dict[tuple[int, int], sparse.csc_array]
LevelMaps = tuple[slice, PairMaps]

CACHED_PAIRS_BYTES = 64 * 2**20
"""Pairs are kept between evaluations up to this size, or that of the blocks."""


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """Where the entries of a symmetric block-diagonal matrix are stored.

    The blocks lie one after the other in a flat array, each square and by
    rows, in order of size.

    size : number of rows in all
    offset, local, width : per row, where its block starts, its position within
        the block, and the block's width
    rows : the rows in storage order
    buckets : (number of blocks, width) of every distinct width
    """

    size: int
    offset: IntArray
    local: IntArray
    width: IntArray
    rows: IntArray
    buckets: tuple[tuple[int, int], ...]

    @classmethod
    def of_components(cls, labels: IntArray) -> BlockLayout:
        """Lay out one block for every distinct label, labels 0 .. m - 1."""
        widths = np.bincount(labels)
        by_width = np.argsort(widths, kind="stable")
        rank = np.empty_like(by_width)
        rank[by_width] = np.arange(len(widths))
        rows = np.argsort(rank[labels], kind="stable")
        sorted_widths = widths[by_width]
        starts = np.cumsum(sorted_widths) - sorted_widths
        offsets = np.cumsum(sorted_widths**2) - sorted_widths**2
        local = np.empty(len(labels), dtype=np.int64)
        local[rows] = np.arange(len(labels)) - np.repeat(starts, sorted_widths)
        distinct, counts = np.unique(sorted_widths, return_counts=True)
        return cls(
            size=len(labels),
            offset=offsets[rank[labels]],
            local=local,
            width=widths[labels],
            rows=rows,
            buckets=tuple(zip(counts.tolist(), distinct.tolist(), strict=True)),
        )

    @property
    def n_entries(self) -> int:
        return sum(count * width**2 for count, width in self.buckets)

    @cached_property
    def diagonal(self) -> IntArray:
        """Where the diagonal entries are stored."""
        rows = np.arange(self.size)
        return self.index(rows, rows)

    def index(self, a: IntArray, b: IntArray) -> IntArray:
        """Return where entry (a, b) is stored, for rows a, b of one block."""
        return self.offset[a] + self.local[a] * self.width[a] + self.local[b]

    def blocks(self, flat: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield (rows (c, m), blocks (c, m, m)) for every distinct width m."""
        row = entry = 0
        for count, width in self.buckets:
            rows = self.rows[row : row + count * width].reshape(count, width)
            entries = flat[entry : entry + count * width**2]
            yield rows, entries.reshape(count, width, width)
            row += count * width
            entry += count * width**2


class OneBlock:
    """The Cholesky factor of one large block, by LAPACK, in the block's memory.

    block : (1, m, m), of which the lower triangle is read
    """

    def __init__(self, block: FloatArray) -> None:
        # A row-major lower triangle is LAPACK's column-major upper one.
        self._upper = block[0].T
        _, info = lapack.dpotrf(self._upper, lower=0, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError("the Schur complement is not positive definite")
        self.logdet = 2.0 * float(np.log(np.diagonal(self._upper)).sum())

    def solve(self, x: FloatArray) -> FloatArray:
        """Return the solution for right-hand sides x (1, m, k)."""
        solution: FloatArray = lapack.dpotrs(self._upper, x[0], lower=0)[0]
        return solution[None]

    def invert(self) -> None:
        """Put the inverse's lower triangle in place of the block's."""
        lapack.dpotri(self._upper, lower=0, overwrite_c=1)


class ManyBlocks:
    """The Cholesky factors of many small blocks (c, m, m), factored together."""

    def __init__(self, blocks: FloatArray) -> None:
        self._blocks = blocks
        factors = np.linalg.cholesky(blocks)
        diagonal = np.diagonal(factors, axis1=1, axis2=2)
        self.logdet = 2.0 * float(np.log(diagonal).sum())
        self._root = np.linalg.inv(factors)

    def solve(self, x: FloatArray) -> FloatArray:
        """Return the solutions for right-hand sides x (c, m, k)."""
        return self._root.swapaxes(1, 2) @ (self._root @ x)

    def invert(self) -> None:
        """Put the inverses in place of the blocks."""
        self._blocks[...] = self._root.swapaxes(1, 2) @ self._root


def factorize_blocks(blocks: FloatArray) -> OneBlock | ManyBlocks:
    """Factor blocks (c, m, m); their memory is used again."""
    return OneBlock(blocks) if len(blocks) == 1 else ManyBlocks(blocks)


def mirror(blocks: FloatArray) -> None:
    """Copy the lower triangle of every block (c, m, m) to the upper, in place."""
    lower = np.tril(blocks)
    blocks[...] = lower + np.tril(lower, -1).swapaxes(1, 2)


def symmetric_product(blocks: FloatArray, x: FloatArray) -> FloatArray:
    """Return blocks @ x (c, m, k) for symmetric blocks given by lower triangles."""
    if len(blocks) == 1:
        return blas.dsymm(1.0, blocks[0].T, x[0], lower=0)[None]
    lower = np.tril(blocks)
    return lower @ x + np.tril(lower, -1).swapaxes(1, 2) @ x


class OuterSums:
    """The sums N_g K_g N_g' over levels g, and their adjoint N_g' T N_g.

    N : (rows, G q) sparse, columns level-major; N_g are the q columns of g
    layout : of the symmetric matrices with the rows of N

    For every level, the pairs (a, b), a >= b, of rows that meet in it are
    listed once; K and T then move through a constant sparse map each.
    """

    def __init__(self, N: sparse.csc_array, q: int, layout: BlockLayout) -> None:
        self.q, self.layout = q, layout
        self.G = N.shape[1] // q
        self.pointers, self.rows, self.values = _rows_by_level(N, q)
        widths = np.diff(self.pointers)
        self.n_pairs = widths * (widths + 1) // 2
        bytes_needed = self.n_pairs.sum() * (8 + 4 * q * (q + 1))
        limit = max(CACHED_PAIRS_BYTES, 16 * layout.n_entries)
        self._cache = list(self._make_maps()) if bytes_needed <= limit else None

    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        """Subtract sum_g N_g K_g N_g' from the stored lower triangles, in place."""
        for levels, maps in self._maps():
            for (i, j), pairs in maps.items():
                flat -= pairs @ K[levels, i, j]

    def contract(self, flat: FloatArray) -> FloatArray:
        """Return N_g' T N_g (G, q, q) for T given by its lower triangles."""
        result = np.empty((self.G, self.q, self.q))
        doubled = 2.0 * flat
        diagonal = self.layout.diagonal
        doubled[diagonal] = flat[diagonal]
        for levels, maps in self._maps():
            for (i, j), pairs in maps.items():
                product = pairs.T @ doubled
                result[levels, i, j] = product if i == j else 0.5 * product
                result[levels, j, i] = result[levels, i, j]
        return result

    def _maps(self) -> Iterable[LevelMaps]:
        return self._make_maps() if self._cache is None else self._cache

    def _make_maps(self) -> Iterator[LevelMaps]:
        """Yield (levels, {(i, j): pairs}) for runs of levels of bounded size.

        `pairs` (stored entries, levels) holds what K_g[i, j] = K_g[j, i] adds
        to each entry of the sum.
        """
        ends = np.cumsum(self.n_pairs)
        at_once = CACHED_PAIRS_BYTES // (8 + 4 * self.q * (self.q + 1))
        start = 0
        while start < self.G:
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + at_once, "right")))
            yield slice(start, stop), self._pairs(start, stop)
            start = stop

    def _pairs(self, start: int, stop: int) -> PairMaps:
        entries = slice(self.pointers[start], self.pointers[stop])
        rows, values = self.rows[entries], self.values[:, entries]
        first, second = _pairs_within(np.diff(self.pointers[start : stop + 1]))
        target = self.layout.index(rows[first], rows[second])
        shape = (self.layout.n_entries, stop - start)
        indptr = np.append(0, np.cumsum(self.n_pairs[start:stop]))
        if self.layout.n_entries < 2**31:
            target, indptr = target.astype(np.int32), indptr.astype(np.int32)
        maps = {}
        for i in range(self.q):
            for j in range(i + 1):
                value = values[i, first] * values[j, second]
                if i != j:
                    value += values[j, first] * values[i, second]
                maps[i, j] = sparse.csc_array((value, target, indptr), shape)
        return maps


def _rows_by_level(
    N: sparse.csc_array, q: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return (pointers (G + 1,), rows (m,), values (q, m)): N_g as dense rows.

    The q columns of a level share their pattern, zeros included.
    """
    pointers = N.indptr[::q].astype(np.int64) // q
    counts = np.diff(pointers)
    starts = N.indptr[:-1:q]
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], counts)
    positions = np.repeat(starts, counts) + within
    step = np.repeat(counts, counts)
    values = np.stack([N.data[positions + i * step] for i in range(q)])
    return pointers, N.indices[positions], values


def _pairs_within(counts: IntArray) -> tuple[IntArray, IntArray]:
    """List all pairs (r, s), s <= r, of entries within runs of given lengths."""
    entries = np.arange(counts.sum())
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    n_pairs = entries - starts + 1
    first = np.repeat(entries, n_pairs)
    done = np.cumsum(n_pairs) - n_pairs
    second = np.arange(len(first)) + np.repeat(starts - done, n_pairs)
    return first, second
