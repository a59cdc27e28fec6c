"""Sums of outer products N_g K_g N_g' over the levels of a factor.

N is sparse, with rows for the coefficients that stay in the Schur complement
and, level-major, q columns for every level g that is eliminated.  The sums are
linear in K, and their adjoint is N_g' T N_g.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import blas

from sklearn_lmm._engine.schur import BlockLayout
from sklearn_lmm._types import FloatArray, IntArray

CACHED_BYTES = 64 * 2**20
"""Pairs are kept between evaluations up to this size, or that of 8 complements."""

PAIRS_AT_ONCE = 1 << 16
"""Pairs, and stored entries, of a run of rows: small enough for the cache."""

COLUMNS_AT_ONCE = 256
"""Columns of N made dense at a time."""

CACHED_PAIR, LISTED_PAIR, DENSE_ENTRY = 2.0, 10.0, 0.03
"""Nanoseconds, about, for a pair kept, a pair listed anew, a product in BLAS."""


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
        if dense < per_pair * q * pairs.n_pairs.sum():
            return DenseSums(N, q)
    return pairs


class DenseSums(OuterSums):
    """For N with many entries: some columns at a time as a dense matrix."""

    def __init__(self, N: sparse.csc_array, q: int) -> None:
        self.Nt, self.q = sparse.csr_array(N.T), q

    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        size = self.Nt.shape[1]
        # A row-major lower triangle is the column-major upper one of BLAS.
        target = flat.reshape(size, size).T
        # With roots of K a symmetric update does half the work of a product.
        w, U = np.linalg.eigh(K)
        roots = (U * np.sqrt(np.abs(w))[:, None, :]).swapaxes(1, 2)
        for levels, dense in self._chunks():
            columns = (roots[levels] @ dense).reshape(-1, size)
            for sign in (-1.0, 1.0):
                chosen = columns[(sign * w[levels] < 0.0).ravel()]
                if len(chosen):
                    blas.dsyrk(sign, chosen.T, 1.0, target, overwrite_c=1)

    def contract(self, flat: FloatArray) -> FloatArray:
        size = self.Nt.shape[1]
        T = flat.reshape(size, size).T
        parts = []
        for _, dense in self._chunks():
            TN = blas.dsymm(1.0, T, dense.reshape(-1, size).T)
            parts.append(dense @ TN.T.reshape(dense.shape).swapaxes(1, 2))
        return np.concatenate(parts)

    def _chunks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield (levels, N_g' (m, q, rows) of these)."""
        columns, size = self.Nt.shape
        at_once = max(1, COLUMNS_AT_ONCE // self.q)
        for start in range(0, columns // self.q, at_once):
            part = self.Nt[start * self.q : (start + at_once) * self.q].toarray()
            yield slice(start, start + at_once), part.reshape(-1, self.q, size)


@dataclass(frozen=True, eq=False)
class _Run:
    """The pairs (a, b), a >= b, with a among some consecutive rows.

    stored : the entries of these rows among the lower triangles
    entries : the entries (a, g) of N in these rows
    maps : for j < q, (stored, entries): N_bg of the j-th column at ((a, b), (a, g))
    transposed : the same, transposed
    """

    stored: slice
    entries: slice
    maps: list[sparse.csc_array]
    transposed: list[sparse.csr_array]


class PairSums(OuterSums):
    """For sparse N: the pairs (a, b) of rows that meet in a level.

    With the pairs in the order of the rows a, the part of the complement that
    they meet stays in the processor's cache.

    n_pairs : their number
    cached : whether the list is kept
    """

    def __init__(self, N: sparse.csc_array, q: int, layout: BlockLayout) -> None:
        self.q, self.layout, self.G = q, layout, N.shape[1] // q
        # From here on rows are counted as the complement stores them.
        place = np.empty(layout.size, dtype=np.int32)
        place[layout.rows] = np.arange(layout.size)
        stored = (N.data.copy(), place[N.indices], N.indptr)
        self.by_level = rows_by_level(sparse.csc_array(stored, N.shape), q)
        level = np.repeat(np.arange(self.G), np.diff(self.by_level.pointers))
        order = _by_row(self.by_level, layout.size)
        self.row, self.level = self.by_level.rows[order], level[order]
        self.values = self.by_level.values[:, order]
        # Lists of pairs are of int32: half the memory to take from.
        self.rows = self.by_level.rows.astype(np.int32)
        self.diagonal = layout.diagonal[layout.rows][self.row]
        self.first = self.by_level.pointers[self.level]
        # Entry (a, g) makes a pair with every entry of g up to itself.
        self.n_pairs = order - self.first + 1
        bytes_needed = self.n_pairs.sum() * (4 + 8 * q)
        self.cached = bytes_needed <= max(CACHED_BYTES, 64 * layout.n_entries)
        self._cache: list[_Run] = []

    def subtract_from(self, flat: FloatArray, K: FloatArray) -> None:
        NK = np.einsum("ie,eij->je", self.values, K[self.level])
        for run in self._runs():
            for NK_j, pairs in zip(NK, run.maps, strict=True):
                flat[run.stored] -= pairs @ NK_j[run.entries]

    def contract(self, flat: FloatArray) -> FloatArray:
        # Pairs count twice, as (a, b) and (b, a); those of a row and itself once.
        TN = -0.5 * self.values * flat[self.diagonal]
        for run in self._runs():
            for TN_j, pairs in zip(TN, run.transposed, strict=True):
                TN_j[run.entries] += pairs @ flat[run.stored]
        result = np.empty((self.G, self.q, self.q))
        for i, values in enumerate(self.values):
            for j, TN_j in enumerate(TN):
                result[:, i, j] = np.bincount(self.level, values * TN_j, self.G)
        return result + result.swapaxes(1, 2)

    def _runs(self) -> Iterable[_Run]:
        if not self.cached:
            return self._make_runs()
        if not self._cache:
            self._cache = list(self._make_runs())
        return self._cache

    def _make_runs(self) -> Iterator[_Run]:
        """Yield runs of rows with about `PAIRS_AT_ONCE` pairs and stored entries."""
        size = self.layout.size
        entries = np.searchsorted(self.row, np.arange(size + 1))
        stored = np.append(0, np.cumsum(self.layout.width[self.layout.rows]))
        work = stored + np.append(0, np.cumsum(self.n_pairs))[entries]
        start = 0
        while start < size:
            limit = work[start] + PAIRS_AT_ONCE
            stop = max(start + 1, int(np.searchsorted(work, limit, "right")) - 1)
            yield self._run(
                slice(stored[start], stored[stop]),
                slice(entries[start], entries[stop]),
            )
            start = stop

    def _run(self, stored: slice, entries: slice) -> _Run:
        counts = self.n_pairs[entries].astype(np.int32)
        pointers = np.append(np.int32(0), np.cumsum(counts, dtype=np.int32))
        # Where the second entry of each pair is among the entries by level.
        second = np.repeat(self.first[entries] - pointers[:-1], counts)
        second += np.arange(len(second))
        # Entry (a, b) is stored as far from the diagonal entry of a as b is from a.
        from_row = self.diagonal[entries] - stored.start - self.row[entries]
        index = np.repeat(from_row.astype(np.int32), counts)
        index += self.rows.take(second)
        shape = (stored.stop - stored.start, len(counts))
        maps = [
            sparse.csc_array((values.take(second), index, pointers), shape)
            for values in self.by_level.values
        ]
        return _Run(stored, entries, maps, [pairs.T for pairs in maps])


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
    N.sort_indices()
    pointers = N.indptr[::q].astype(np.int64) // q
    counts = np.diff(pointers)
    starts = N.indptr[:-1:q]
    within = np.arange(pointers[-1]) - np.repeat(pointers[:-1], counts)
    positions = np.repeat(starts, counts) + within
    step = np.repeat(counts, counts)
    values = np.stack([N.data[positions + i * step] for i in range(q)])
    return ByLevel(pointers, N.indices[positions], values)


def _by_row(entries: ByLevel, n_rows: int) -> IntArray:
    """Return the order of the entries by row, then level: a sort in linear time."""
    numbers = np.arange(len(entries.rows))
    columns = (numbers, entries.rows, entries.pointers)
    by_level = sparse.csc_array(columns, (n_rows, len(entries.pointers) - 1))
    order: IntArray = by_level.tocsr().data
    return order
