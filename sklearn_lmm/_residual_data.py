"""Columns of data that a residual structure names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_lmm._columns import Table
from sklearn_lmm._groups import GroupColumns
from sklearn_lmm._labels import Levels, learn_levels
from sklearn_lmm._stacking import take
from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.terms import Reference


@dataclass(frozen=True, eq=False)
class Columns:
    """Where a structure finds its columns: in X, or in the argument `groups`."""

    table: Table
    groups: GroupColumns | None
    rows: IntArray | None = None

    def find(self, reference: Reference, role: str) -> Any:
        """Return a column as it is, without the rows of weight 0.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        column = self.in_groups(reference)
        if column is None:
            column = self.table.column(self.table.position(reference, role))
        return take(column, self.rows)

    def in_groups(self, reference: Reference) -> Any:
        """Return a column of the argument `groups`, None if it has none such."""
        if self.groups is None or not isinstance(reference, str):
            return None
        position = self.groups.position(reference)
        return None if position is None else self.groups.columns[position]

    def labels(self, reference: Reference, role: str) -> tuple[IntArray, Levels]:
        """Return the codes of a column of labels, and its levels."""
        return learn_levels(self.find(reference, role), str(reference), self.rows)

    def places(self, reference: Reference, role: str) -> FloatArray:
        """Return a column of numbers or dates, of which only differences count.

        Raises
        ------
        ValueError
            As `numbers`.
        """
        return self._finite(reference, role, in_days(self._values(reference, role)))

    def numbers(self, reference: Reference, role: str) -> FloatArray:
        """Return a column as finite numbers.

        Raises
        ------
        ValueError
            If values are missing, infinite or no numbers.
        """
        values = self._values(reference, role)
        if values.dtype.kind == "M":
            raise ValueError(
                f"{role} names {reference!r}, a column of dates: expected numbers, "
                "such as the days since a date that stays the same for new rows."
            )
        return self._finite(reference, role, values)

    def _values(self, reference: Reference, role: str) -> AnyArray:
        column = self.find(reference, role)
        return np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)

    def _finite(self, reference: Reference, role: str, values: AnyArray) -> FloatArray:
        try:
            numbers = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{role} names {reference!r}: {error}.") from error
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            row = bad[0] if self.rows is None else self.rows[bad[0]]
            raise ValueError(
                f"{role} names {reference!r}, which has {len(bad)} missing or infinite "
                f"values, the first in row {row}: every row needs one."
            )
        return numbers


def in_days(values: AnyArray) -> AnyArray:
    """Return dates as days since the first of them, and other values as they are."""
    if values.dtype.kind != "M":
        return values
    return np.asarray((values - np.fmin.reduce(values)) / np.timedelta64(1, "D"))
