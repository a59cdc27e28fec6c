"""Cross-products of rows that come in chunks, added up in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import (
    FAR,
    CrossProducts,
    cross_products,
    in_units,
    moved_entries,
    own_units,
    similar,
    units_of,
)
from sklearn_lmm._engine.design import Design, Factor
from sklearn_lmm._engine.row_sums import ROWS_AT_ONCE, Places, places_of, rows_of_T
from sklearn_lmm._types import FloatArray, IntArray

ENTRIES_AT_ONCE = 1 << 20
"""Entries between two factors that wait to be merged, at least."""


class Accumulator:
    """The sum of the cross-products of chunks of rows.

    The levels of a chunk are integers: the places of its levels among those of
    all rows, 0, 1, 2, …, in whatever order.  A chunk costs what its own rows
    and levels do, however many there have been before.

    Sums are held in the units of the first chunk, until rows come that it was
    no guide to.
    """

    def __init__(self) -> None:
        # All but s, b and n, which grow; s and b in one array, as `row_sums` says.
        self._head: CrossProducts | None = None
        self._places: list[Places] = []
        self._of_levels: list[GrowingArray] = []
        self._n: dict[tuple[int, int], GrowingMatrix] = {}
        self._n_checked = 0

    def add_rows(self, design: Design) -> None:
        """Add the rows of a design."""
        head = self._head
        # Rows of a sparse X cannot be shifted to the units at hand.
        if head is None or sparse.issparse(design.X) or _far_out(design, head):
            self.add(cross_products(design))
            return
        factors = tuple(map(_by_place, design.factors))
        for factor, sums in zip(factors, self._of_levels, strict=True):
            sums.reach(factor.n_levels)
        into = [sums.values for sums in self._of_levels]
        chunk = cross_products(replace(design, factors=factors), *units_of(head), into)
        self._head = _joined(head, chunk)
        self._add_between(chunk)
        # Seldom, because it looks at all levels.
        if self._head.n_rows >= 2 * self._n_checked:
            self._check_units(self._sums())

    def add(self, chunk: CrossProducts) -> None:
        """Add cross-products in any units."""
        if self._head is None:
            self._hold(_without_levels(chunk))
        else:
            pooled = in_units(_pooled(chunk), units_of(self._head))
            s = [a + b for a, b in zip(self._sums().s, pooled.s, strict=True)]
            self._check_units(replace(_joined(self._head, pooled), s=tuple(s)))
            chunk = in_units(chunk, units_of(self._head))
            self._head = _joined(self._head, chunk)
        for sums, levels, values in zip(
            self._of_levels, chunk.levels, self._side_by_side(chunk), strict=True
        ):
            sums.add(levels, values)
        self._add_between(chunk)

    def total(self) -> CrossProducts:
        """Return the cross-products of all rows, in units by their moments."""
        statistics = self._gathered()
        return in_units(statistics, own_units(statistics))

    def _add_between(self, chunk: CrossProducts) -> None:
        places = chunk.levels
        for (f, h), n in chunk.n.items():
            q = len(self._places[f].of_z), len(self._places[h].of_z)
            self._n[f, h].add(*moved_entries(n, q, (places[f], places[h])))

    def _hold(self, statistics: CrossProducts) -> None:
        """Hold cross-products of the levels 0, 1, 2, …, and no others."""
        self._head = _bare(statistics)
        self._places = places_of(
            statistics.terms,
            statistics.blocks,
            statistics.columns,
            statistics.intercept,
            len(statistics.s),
        )
        self._of_levels = [GrowingArray(v) for v in self._side_by_side(statistics)]
        self._n = {pair: GrowingMatrix(n) for pair, n in statistics.n.items()}

    def _side_by_side(self, statistics: CrossProducts) -> list[FloatArray]:
        """Return s and b of every factor in one array."""
        parts = zip(self._places, statistics.s, statistics.b, strict=True)
        return [at.joined(s, b) for at, s, b in parts]

    def _sums(self) -> CrossProducts:
        """Return what all rows say of all levels together, in a few numbers."""
        assert self._head is not None
        sums = [array.values.sum(axis=0, keepdims=True) for array in self._of_levels]
        s = [at.s(values) for at, values in zip(self._places, sums, strict=True)]
        return replace(self._head, s=tuple(s))

    def _gathered(self) -> CrossProducts:
        assert self._head is not None
        pairs = [
            (at, array.values)
            for at, array in zip(self._places, self._of_levels, strict=True)
        ]
        s = tuple(at.s(values) for at, values in pairs)
        sizes = [len(s_f) * s_f.shape[1] for s_f in s]
        return replace(
            self._head,
            levels=tuple(np.arange(len(s_f)) for s_f in s),
            s=s,
            b=tuple(at.b(values) for at, values in pairs),
            n={
                (f, h): matrix.sum((sizes[f], sizes[h]))
                for (f, h), matrix in self._n.items()
            },
        )

    def _check_units(self, pooled: CrossProducts) -> None:
        """Change the units if they suit these rows badly."""
        assert self._head is not None
        self._n_checked = pooled.n_rows
        units = own_units(pooled)
        if similar(units_of(self._head), units):
            return
        self._hold(in_units(self._gathered(), units))


def _far_out(design: Design, statistics: CrossProducts) -> bool:
    """Say whether sums in the units of the statistics would lose these rows' digits.

    Judged by the first rows.
    """
    units, blocks = units_of(statistics)
    head = slice(0, ROWS_AT_ONCE)
    columns = [*rows_of_T(design, units, head).T]
    for block, of_block in zip(design.blocks, blocks, strict=True):
        for j, z in enumerate(block.slopes, start=int(block.intercept)):
            columns.append((z[head] - of_block.center[j]) / of_block.scale[j])
    return any(np.mean(column**2) > FAR**2 for column in columns)


def _by_place(factor: Factor) -> Factor:
    """Return the factor with the levels 0, 1, 2, …, as far as its own go."""
    places = factor.levels
    all_places = np.arange(int(places.max(initial=-1)) + 1)
    if len(places) == len(all_places) and (places == all_places).all():
        return factor
    return Factor(places[factor.codes], all_places)


def _bare(chunk: CrossProducts) -> CrossProducts:
    """Return a chunk without what it says of levels."""
    levels = tuple(places[:0] for places in chunk.levels)
    return replace(chunk, levels=levels, s=(), b=(), n={})


def _without_levels(chunk: CrossProducts) -> CrossProducts:
    """Return a chunk with arrays of no level, of the shapes that its own have."""
    return replace(
        chunk,
        s=tuple(s[:0] for s in chunk.s),
        b=tuple(b[:0] for b in chunk.b),
        n={pair: sparse.csr_array((0, 0)) for pair in chunk.n},
    )


def _pooled(chunk: CrossProducts) -> CrossProducts:
    """Return what a chunk says of all levels together, in a few numbers."""
    sums = [s.sum(axis=0, keepdims=True) for s in chunk.s]
    return replace(chunk, s=tuple(sums), b=tuple(b[:0] for b in chunk.b), n={})


def _joined(a: CrossProducts, b: CrossProducts) -> CrossProducts:
    """Return a with what b, in the same units, says of all rows."""
    return replace(
        a,
        n_rows=a.n_rows + b.n_rows,
        sum_weights=a.sum_weights + b.sum_weights,
        sum_log_weights=a.sum_log_weights + b.sum_log_weights,
        tt=a.tt + b.tt,
    )


class GrowingArray:
    """An array (n, …) whose first dimension grows, with room to spare."""

    def __init__(self, values: FloatArray) -> None:
        self._room = values
        self._size = len(values)

    @property
    def values(self) -> FloatArray:
        return self._room[: self._size]

    def reach(self, size: int) -> None:
        """Make it at least so long."""
        self._size = max(self._size, size)
        if self._size > len(self._room):
            room = np.zeros((2 * self._size, *self._room.shape[1:]))
            room[: len(self._room)] = self._room
            self._room = room

    def add(self, places: IntArray, values: FloatArray) -> None:
        """Add values at places, each given once, that may lie beyond the end."""
        self.reach(int(places.max(initial=-1)) + 1)
        self._room[places] += values


class GrowingMatrix:
    """A sparse matrix that grows, as a sum whose stored zeros stay stored."""

    def __init__(self, start: sparse.csr_array | None = None) -> None:
        self._merged = start
        self._waiting: list[sparse.coo_array] = []

    def add(self, rows: IntArray, columns: IntArray, values: FloatArray) -> None:
        """Add values at entries, each given once."""
        shape = (int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1)
        self._waiting.append(sparse.coo_array((values, (rows, columns)), shape))
        merged = 0 if self._merged is None else self._merged.nnz
        # As many as have been merged, so that none is merged often.
        if sum(part.nnz for part in self._waiting) > max(merged, ENTRIES_AT_ONCE):
            self.sum()

    def sum(self, shape: tuple[int, int] = (0, 0)) -> sparse.csr_array:
        """Return the sum, of at least the given shape."""
        merged = [] if self._merged is None else [self._merged.tocoo()]
        parts = [*merged, *self._waiting]
        shapes = [shape, *(part.shape for part in parts)]
        rows = np.concatenate([part.row for part in parts])
        columns = np.concatenate([part.col for part in parts])
        values = np.concatenate([part.data for part in parts])
        size = (max(s[0] for s in shapes), max(s[1] for s in shapes))
        self._merged = sparse.coo_array((values, (rows, columns)), size).tocsr()
        self._waiting = []
        return self._merged
