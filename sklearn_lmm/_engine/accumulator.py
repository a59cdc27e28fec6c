"""Cross-products of rows that come in chunks, added up in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import (
    CrossProducts,
    Units,
    cross_products,
    in_units,
    own_units,
    similar,
    units_of,
)
from sklearn_lmm._engine.design import Design
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
        self._head: CrossProducts | None = None
        self._s: list[GrowingArray] = []
        self._b: list[GrowingArray] = []
        self._n: dict[tuple[int, int], GrowingMatrix] = {}

    def add_rows(self, design: Design) -> None:
        """Add the rows of a design."""
        # Rows of a sparse X cannot be shifted to the units at hand.
        if self._head is None or sparse.issparse(design.X):
            self.add(cross_products(design))
            return
        units = units_of(self._head)
        chunk = cross_products(design, *units)
        if similar(units, own_units(_joined(self._head, _pooled(chunk)))):
            self._add(chunk)
        else:
            self.add(cross_products(design))

    def add(self, chunk: CrossProducts) -> None:
        """Add cross-products in any units."""
        if self._head is None:
            self._head = _pooled(chunk)
            self._s = [GrowingArray(s[:0]) for s in chunk.s]
            self._b = [GrowingArray(b[:0]) for b in chunk.b]
            self._n = {pair: GrowingMatrix() for pair in chunk.n}
            self._scatter(chunk)
            return
        units = units_of(self._head)
        together = _joined(self._head, in_units(_pooled(chunk), units))
        if not similar(units, own_units(together)):
            self._change_units(own_units(together))
        self._add(in_units(chunk, units_of(self._head)))

    def total(self) -> CrossProducts:
        """Return the cross-products of all rows, in units by their moments."""
        statistics = self._gathered()
        return in_units(statistics, own_units(statistics))

    def _add(self, chunk: CrossProducts) -> None:
        """Add cross-products that are in the units at hand."""
        assert self._head is not None
        self._head = _joined(self._head, _pooled(chunk))
        self._scatter(chunk)

    def _scatter(self, chunk: CrossProducts) -> None:
        places = chunk.levels
        for f, to in enumerate(places):
            self._s[f].add(to, chunk.s[f])
            self._b[f].add(to, chunk.b[f])
        for (f, h), n in chunk.n.items():
            q_f, q_h = chunk.s[f].shape[1], chunk.s[h].shape[1]
            coo = n.tocoo()
            rows = places[f][coo.row // q_f] * q_f + coo.row % q_f
            columns = places[h][coo.col // q_h] * q_h + coo.col % q_h
            self._n[f, h].add(rows, columns, coo.data)

    def _gathered(self) -> CrossProducts:
        assert self._head is not None
        s = tuple(array.values for array in self._s)
        sizes = [len(s_f) * s_f.shape[1] for s_f in s]
        return replace(
            self._head,
            levels=tuple(np.arange(len(s_f)) for s_f in s),
            s=s,
            b=tuple(array.values for array in self._b),
            n={
                (f, h): matrix.sum((sizes[f], sizes[h]))
                for (f, h), matrix in self._n.items()
            },
        )

    def _change_units(self, units: Units) -> None:
        assert self._head is not None
        there = in_units(self._gathered(), units)
        self._head = in_units(self._head, units)
        self._s = [GrowingArray(s) for s in there.s]
        self._b = [GrowingArray(b) for b in there.b]
        for pair, n in there.n.items():
            self._n[pair] = GrowingMatrix(n)


def _pooled(chunk: CrossProducts) -> CrossProducts:
    """Return what a chunk says of all levels together, in a few numbers."""
    return replace(
        chunk,
        levels=tuple(levels[:0] for levels in chunk.levels),
        s=tuple(s.sum(axis=0, keepdims=True) for s in chunk.s),
        b=tuple(b[:0] for b in chunk.b),
        n={},
    )


def _joined(a: CrossProducts, b: CrossProducts) -> CrossProducts:
    """Return what pooled chunks in the same units say together."""
    return replace(
        a,
        n_rows=a.n_rows + b.n_rows,
        sum_weights=a.sum_weights + b.sum_weights,
        sum_log_weights=a.sum_log_weights + b.sum_log_weights,
        tt=a.tt + b.tt,
        s=tuple(mine + theirs for mine, theirs in zip(a.s, b.s, strict=True)),
    )


class GrowingArray:
    """An array (n, …) whose first dimension grows, with room to spare."""

    def __init__(self, values: FloatArray) -> None:
        self._room = values
        self._size = len(values)

    @property
    def values(self) -> FloatArray:
        return self._room[: self._size]

    def add(self, places: IntArray, values: FloatArray) -> None:
        """Add values at places, each given once, that may lie beyond the end."""
        self._size = max(self._size, int(places.max(initial=-1)) + 1)
        if self._size > len(self._room):
            room = np.zeros((2 * self._size, *self._room.shape[1:]))
            room[: len(self._room)] = self._room
            self._room = room
        # A slice, which is many times faster, where it says the same.
        every = len(places) == self._size and bool((np.diff(places) == 1).all())
        self._room[slice(self._size) if every else places] += values


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
