"""The labels of rows: in X, in groups, or in both."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_lmm._columns import Table, listed
from sklearn_lmm._groups import GroupColumns
from sklearn_lmm._labels import first_difference
from sklearn_lmm._roles import Roles, Source
from sklearn_lmm._stacking import take


def fit_labels(source: Source, table: Table, groups: GroupColumns | None) -> Any:
    """Return the labels of a factor at fit.

    Raises
    ------
    ValueError
        If X and groups have them both, and they differ.
    """
    column = None if source.column is None else table.column(source.column)
    if groups is None or source.group is None:
        return column
    given = groups.columns[source.group]
    _check_same(given, column, source.name)
    return given


class NewLabels:
    """Finds the labels of the fit's factors in new data.

    absent : names of factors that were looked for without any labels given
    """

    def __init__(self, roles: Roles, table: Table, groups: GroupColumns | None) -> None:
        self.table = table
        self.groups = groups
        self.roles = roles
        from_groups = [s for s in roles.sources if s.group is not None]
        self.lone = (
            len(from_groups) == 1 and groups is not None and len(groups.names) == 1
        )
        self.absent: list[str] = []

    def of(self, source: Source) -> Any:
        """Return the labels of a factor, None if there is nothing to look at."""
        column = None
        if source.column is not None:
            column = self.table.column(source.column)
        given = self._in_groups(source)
        if given is None:
            if column is None and source.name not in self.absent:
                self.absent.append(source.name)
            return column
        _check_same(given, column, source.name)
        return given

    def _in_groups(self, source: Source) -> Any:
        groups = self.groups
        if groups is None:
            return None
        if groups.named:
            position = self._by_name(groups, source)
        else:
            position = self._by_position(groups, source)
        if position is not None:
            return groups.columns[position]
        if source.column is not None:
            return None
        names = [name for name in groups.names if name is not None]
        raise ValueError(
            f"groups has no labels of {source.name!r}, which the model was fitted "
            f"with; it has {listed(names) or f'{len(groups.names)} unnamed columns'}. "
            "Give one column for each factor, under the name it had at fit."
        )

    def _by_name(self, groups: GroupColumns, source: Source) -> int | None:
        if source.name in groups.names:
            return groups.names.index(source.name)
        # A frame means its names; only a factor that had none takes what there is.
        open_name = source.any_name and (not groups.framed or source.name == "groups")
        return 0 if self.lone and open_name and source.group is not None else None

    def _by_position(self, groups: GroupColumns, source: Source) -> int | None:
        if self.lone and source.group is not None:
            return 0
        as_at_fit = len(groups.names) == self.roles.n_group_columns
        return source.group if as_at_fit else None


def _check_same(given: Any, column: Any, name: str) -> None:
    if column is None:
        return
    row = first_difference(given, column, name)
    if row is not None:
        one, other = (take(c, np.array([row])) for c in (given, column))
        raise ValueError(
            f"The labels of {name!r} are given twice, in groups and as a column of "
            f"X, and differ: {_shown(one)} and {_shown(other)} in row {row}. "
            "Give them once."
        )


def _shown(column: Any) -> str:
    return repr(np.asarray(column, dtype=object).tolist()[0])
