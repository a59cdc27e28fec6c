"""Numbers for the levels of factors that come in batches, not known in advance.

A level gets its number when it turns up first and keeps it.  Sorted are the
levels once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._engine.design import Factor
from sklearn_lmm._grouping import FactorLevels, learn_factor
from sklearn_lmm._labels import (
    Levels,
    check_kind,
    is_sorted,
    learn_levels,
    order_of,
    whole,
)
from sklearn_lmm._roles import Roles
from sklearn_lmm._types import AnyArray, IntArray

LEVELS_A_ROW = 8
"""Levels are listed whole if there are at most so many for every row."""

KEY_BITS = 32
"""Bits of a number in the key of a pair."""


class LabelNumbers:
    """The labels of one source, numbered 0, 1, 2, … as they turn up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._labels: list[AnyArray] = []
        self._sorted = True
        # Sizes fall by half, so that a label is put into an index rarely.
        self._indexes: list[pd.Index] = []

    def __len__(self) -> int:
        return sum(map(len, self._labels))

    def of_rows(self, column: Any, rows: IntArray | None = None) -> IntArray:
        """Return the numbers (n,) of rows' labels, some of them new.

        `rows` are the rows' numbers as the user counts them.

        Raises
        ------
        ValueError
            As `learn_levels`, or if the labels are of another kind than before.
        """
        values = _integers(column)
        if values is None or not len(self) or self._labels[0].dtype.kind not in "iu":
            codes, levels = learn_levels(column, self.name, rows)
            return self.of(levels.labels)[codes]
        # One look-up a row, instead of finding the batch's labels first.
        numbers = self._find(values)
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            codes, levels = learn_levels(values[unknown], self.name)
            numbers[unknown] = self._append(levels.labels)[codes]
        return numbers

    def of(self, labels: AnyArray) -> IntArray:
        """Return the numbers of different labels, some of them new.

        Raises
        ------
        ValueError
            If they are of another kind than those before.
        """
        if not len(self):
            self._sorted = is_sorted(labels)
            return self._append(labels)
        check_kind(labels, self._labels[0], self.name)
        numbers = self._find(labels)
        unknown = numbers < 0
        numbers[unknown] = self._append(labels[unknown])
        return numbers

    @property
    def labels(self) -> AnyArray:
        """The labels, in the order of their numbers."""
        parts = self._labels
        if len({part.dtype.kind for part in parts}) > 1:
            parts = [part.astype(object) for part in parts]
        return np.concatenate(parts)

    def levels(self) -> tuple[Levels, IntArray]:
        """Return all levels, and for each number the place among them.

        Sorted, unless the first labels came in another order.
        """
        labels = self.labels
        order: IntArray = np.arange(len(labels))
        if self._sorted:
            order = order_of(order, labels)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return Levels(self.name, labels[order]), place

    def _append(self, labels: AnyArray) -> IntArray:
        start = len(self)
        if len(labels):
            self._labels.append(labels)
            self._indexes.append(_index(labels))
        while len(self._indexes) > 1 and len(self._indexes[-2]) < 2 * len(
            self._indexes[-1]
        ):
            last = self._indexes.pop()
            self._indexes[-1] = self._indexes[-1].append(last)
        return np.arange(start, start + len(labels))

    def _find(self, labels: AnyArray) -> IntArray:
        """Return the numbers of labels, -1 for those that are new."""
        wanted = _index(labels)
        numbers = self._indexes[0].get_indexer(wanted)
        start = len(self._indexes[0])
        for index in self._indexes[1:]:
            rest = np.flatnonzero(numbers < 0)
            if not len(rest):
                break
            found = index.get_indexer(wanted[rest])
            numbers[rest] = np.where(found < 0, -1, found + start)
            start += len(index)
        return numbers


class FactorNumbers:
    """The levels of a grouping factor, numbered 0, 1, 2, … as they turn up.

    A level of an interaction has as its key the numbers of the first parts'
    combination and of the next part, side by side in one integer.
    """

    def __init__(self, parts: Sequence[LabelNumbers]) -> None:
        self.parts = tuple(parts)
        self.keys = tuple(LabelNumbers(part.name) for part in parts[1:])

    def __len__(self) -> int:
        return len(self.keys[-1] if self.keys else self.parts[0])

    def combined(self, numbers: Sequence[IntArray]) -> IntArray:
        """Return the numbers (n,) of levels, given those of their parts."""
        pairs = numbers[0]
        for keys, other in zip(self.keys, numbers[1:], strict=True):
            pairs = keys.of_rows((pairs << KEY_BITS) | other)
        return pairs

    def of(self, factor: FactorLevels) -> IntArray:
        """Return the numbers of another set of levels, some of them new."""
        codes = factor.part_codes()
        numbers = [
            part.of(levels.labels)[of_part]
            for part, levels, of_part in zip(
                self.parts, factor.parts, codes, strict=True
            )
        ]
        return self.combined(numbers)

    def levels(self) -> tuple[FactorLevels, IntArray]:
        """Return all levels, and for each number the place among them."""
        finished = [part.levels() for part in self.parts]
        pairs, numbers = np.arange(len(self)), []
        for keys in self.keys[::-1]:
            pairs, other = np.divmod(keys.labels[pairs], 1 << KEY_BITS)
            numbers.append(other)
        numbers = [pairs, *numbers[::-1]]
        codes = [place[n] for (_, place), n in zip(finished, numbers, strict=True)]
        # Every level is a row.
        place, levels = learn_factor(codes, [part for part, _ in finished])
        return levels, place


class Numbering:
    """The levels of all grouping factors of a model, numbered as they turn up."""

    def __init__(self, roles: Roles) -> None:
        self._groupings = [grouping.parts for grouping in roles.groupings]
        self._sources = [LabelNumbers(source.name) for source in roles.sources]
        self._factors = [
            FactorNumbers([self._sources[part] for part in parts])
            for parts in self._groupings
        ]

    def factors(self, labels: Sequence[Any], rows: IntArray | None) -> list[Factor]:
        """Return the factors of rows, with the numbers of their levels as labels.

        Raises
        ------
        ValueError
            If labels are missing, or of another kind than those before.
        """
        numbers = [
            source.of_rows(column, rows)
            for source, column in zip(self._sources, labels, strict=True)
        ]
        return [
            Factor(*_local(factor.combined([numbers[part] for part in parts]), factor))
            for factor, parts in zip(self._factors, self._groupings, strict=True)
        ]

    def of(self, factors: Sequence[FactorLevels]) -> tuple[IntArray, ...]:
        """Return the numbers of other rows' levels, factor by factor."""
        pairs = zip(self._factors, factors, strict=True)
        return tuple(mine.of(others) for mine, others in pairs)

    def levels(self) -> list[tuple[FactorLevels, IntArray]]:
        """Return each factor's levels, and for each number the place among them."""
        return [factor.levels() for factor in self._factors]


def _local(numbers: IntArray, factor: FactorNumbers) -> tuple[IntArray, IntArray]:
    """Return codes of the numbers that rows have, and the numbers they stand for."""
    size = len(factor)
    if size > LEVELS_A_ROW * len(numbers):
        few, codes_of_few = np.unique(numbers, return_inverse=True)
        return codes_of_few, few
    return numbers, np.arange(size)


def _index(labels: AnyArray) -> pd.Index:
    if labels.dtype.kind in "biuf":
        return pd.Index(whole(labels))
    # Said, or pandas would look into it and make text or tuples something else.
    return pd.Index(labels, dtype=labels.dtype, tupleize_cols=False)


def _integers(column: Any) -> IntArray | None:
    """Return a column of plain integers as such; None for anything else."""
    if not isinstance(column, pd.Series | np.ndarray):
        return None
    dtype = column.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu" or dtype == np.uint64:
        return None
    return np.asarray(column, dtype=np.int64)
