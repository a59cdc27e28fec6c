"""Sums of outer products N_g K_g N_g' over the levels of a factor.

N is sparse, with rows for the coefficients that stay in the Schur complement
and, level-major, q columns for every level g that is eliminated.  The sums are
linear in K, and their adjoint is N_g' T N_g.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.schur import BlockLayout, symmetric_product
from sklearn_lmm._types import FloatArray, IntArray

PairMaps = dict[tuple[int, int], sparse.csc_array]
LevelMaps = tuple[slice, PairMaps]

CACHED_BYTES = 64 * 2**20
"""Pairs are kept between evaluations up to this size, or twice the blocks'."""

PAIRS_AT_ONCE = 1 << 20
"""Pairs listed at a time, at least, where they are not kept."""

COLUMNS_AT_ONCE = 256
"""Columns of N made dense at a time."""

CACHED_PAIR, LISTED_PAIR, DENSE_ENTRY = 3.0, 16.0, 0.05
"""Nanoseconds, about, for a pair kept, a pair listed anew, a product in gemm."""


class OuterSums(ABC):
    """N_g K_g N_g' summed over g, and N_g' T N_g for every g.

    Symmetric matrices are flat lower triangles, as a `BlockLayout` says.
    """

    @abstractmethod
    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        """Subtract sum_g N_g K_g N_g' from the lower triangles, in place.

        K (G, q, q) is symmetric.
        """

    @abstractmethod
    def contract(self, flat: FloatArray) -> FloatArray:
        """Return N_g' T N_g (G, q, q) for T given by its lower triangles."""


def outer_sums(N: sparse.csc_array, q: int, layout: BlockLayout) -> OuterSums:
    """Return the cheaper way for the sparsity of N."""
    pairs = PairSums(N, q, layout)
    per_pair = CACHED_PAIR if pairs.cached else LISTED_PAIR
    dense = DENSE_ENTRY * layout.n_entries * N.shape[1]
    if len(layout.buckets) == 1 and layout.buckets[0][0] == 1:
        if dense < per_pair * float(pairs.n_pairs.sum()) * q**2:
            return DenseSums(N, q)
    return pairs


class DenseSums(OuterSums):
    """For N with many entries: some columns at a time as a dense matrix."""

    def __init__(self, N: sparse.csc_array, q: int) -> None:
        self.N, self.q = N, q

    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        size = self.N.shape[0]
        target = flat.reshape(size, size)
        for levels, dense in self._chunks():
            NK = dense.reshape(size, -1, self.q).swapaxes(0, 1) @ K[levels]
            target -= NK.swapaxes(0, 1).reshape(size, -1) @ dense.T

    def contract(self, flat: FloatArray) -> FloatArray:
        size = self.N.shape[0]
        T = flat.reshape(1, size, size)
        parts = []
        for _, dense in self._chunks():
            TN = symmetric_product(T, dense[None])[0]
            levels = [x.reshape(size, -1, self.q).swapaxes(0, 1) for x in (dense, TN)]
            parts.append(levels[0].swapaxes(1, 2) @ levels[1])
        return np.concatenate(parts)

    def _chunks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield (levels, their columns of N (rows, m q))."""
        G = self.N.shape[1] // self.q
        at_once = max(1, COLUMNS_AT_ONCE // self.q)
        for start in range(0, G, at_once):
            levels = slice(start, min(start + at_once, G))
            columns = slice(levels.start * self.q, levels.stop * self.q)
            yield levels, self.N[:, columns].toarray()


class PairSums(OuterSums):
    """For sparse N: the pairs (a, b), a >= b, of rows that meet in a level.

    Listed once, they make K and T move through a constant sparse map.

    cached : whether the list is kept
    """

    def __init__(self, N: sparse.csc_array, q: int, layout: BlockLayout) -> None:
        self.q, self.layout = q, layout
        self.G = N.shape[1] // q
        by_level = rows_by_level(N, q)
        self.pointers, self.rows, self.values = (
            by_level.pointers,
            by_level.rows,
            by_level.values,
        )
        widths = np.diff(self.pointers)
        self.n_pairs = widths * (widths + 1) // 2
        bytes_needed = self.n_pairs.sum() * (8 + 4 * q * (q + 1))
        self.cached = bytes_needed <= max(CACHED_BYTES, 16 * layout.n_entries)
        self._cache: list[LevelMaps] = []

    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        for levels, maps in self._maps():
            for (i, j), pairs in maps.items():
                flat -= pairs @ K[levels, i, j]

    def contract(self, flat: FloatArray) -> FloatArray:
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
        if not self.cached:
            return self._make_maps()
        if not self._cache:
            self._cache = list(self._make_maps())
        return self._cache

    def _make_maps(self) -> Iterator[LevelMaps]:
        """Yield (levels, {(i, j): pairs}) for runs of levels of bounded size.

        `pairs` (stored entries, levels) holds what K_g[i, j] = K_g[j, i] adds
        to each entry of the sum.
        """
        ends = np.cumsum(self.n_pairs)
        # Every run costs a pass over the stored entries, too.
        at_once = max(PAIRS_AT_ONCE, self.layout.n_entries)
        at_once = ends[-1] if self.cached else at_once
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
        # The index of (a, b), split into what depends on a and what on b.
        small = max(self.layout.n_entries, len(first)) < 2**31
        dtype: type[np.integer[Any]] = np.int32 if small else np.int64
        of_row = self.layout.index(rows, rows) - self.layout.local[rows]
        target = of_row.astype(dtype)[first]
        target += self.layout.local[rows].astype(dtype)[second]
        shape = (self.layout.n_entries, stop - start)
        indptr = np.append(0, np.cumsum(self.n_pairs[start:stop])).astype(dtype)
        maps = {}
        for i in range(self.q):
            for j in range(i + 1):
                value = values[i, first] * values[j, second]
                if i != j:
                    value += values[j, first] * values[i, second]
                maps[i, j] = sparse.csc_array((value, target, indptr), shape)
        return maps


@dataclass(frozen=True, eq=False)
class ByLevel:
    """N_g for every level g: its non-zero rows, which all its q columns share.

    pointers : (G + 1,), where each level's rows start
    rows, values : (m,) and (q, m)
    """

    pointers: IntArray
    rows: IntArray
    values: FloatArray


def rows_by_level(N: sparse.csc_array, q: int) -> ByLevel:
    """Take the columns of N apart by level; zeros stored in a pattern count."""
    pointers = N.indptr[::q].astype(np.int64) // q
    counts = np.diff(pointers)
    starts = N.indptr[:-1:q]
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], counts)
    positions = np.repeat(starts, counts) + within
    step = np.repeat(counts, counts)
    values = np.stack([N.data[positions + i * step] for i in range(q)])
    return ByLevel(pointers, N.indices[positions], values)


def _pairs_within(counts: IntArray) -> tuple[IntArray, IntArray]:
    """List all pairs (r, s), s <= r, of entries within runs of given lengths."""
    entries = np.arange(counts.sum())
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    n_pairs = entries - starts + 1
    first = np.repeat(entries, n_pairs)
    done = np.cumsum(n_pairs) - n_pairs
    second = np.arange(len(first)) + np.repeat(starts - done, n_pairs)
    return first, second
