"""The argument `groups`: labels of one factor or several, in any container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sklearn_lmm._labels import as_array, is_polars


@dataclass(frozen=True, eq=False)
class GroupColumns:
    """The columns of labels in `groups`.

    names : of the columns, None for those of an array or a series without name
    columns : series or 1-D arrays
    framed : whether they were columns of a frame
    """

    names: tuple[str | None, ...]
    columns: tuple[Any, ...]
    framed: bool

    @property
    def named(self) -> bool:
        """Whether at least one column has a name."""
        return any(name is not None for name in self.names)

    @property
    def factor_names(self) -> list[str]:
        """Names of the columns, made up for those without."""
        if self.names == (None,):
            return ["groups"]
        return [f"groups{k}" if n is None else n for k, n in enumerate(self.names)]

    def position(self, factor: str) -> int | None:
        """Return where the labels of a factor are, if they are here.

        Labels of a single factor answer to "groups" as well.
        """
        names = self.factor_names
        if factor in names:
            return names.index(factor)
        return 0 if factor == "groups" and len(names) == 1 else None


def read_groups(
    groups: Any, n_rows: int, argument: str = "groups"
) -> GroupColumns | None:
    """Split `groups` into columns; None if there is none.

    argument : what the user knows it by

    Raises
    ------
    ValueError
        If groups has not one label for each row, a name twice, or no such form.
    """
    if groups is None:
        return None
    names, columns = _split(groups, argument)
    known = [name for name in names if name is not None]
    if len(set(known)) < len(known):
        raise ValueError(
            f"{argument} has two columns of one name: {known}. Rename one of them."
        )
    for column in columns:
        if len(column) != n_rows:
            raise ValueError(
                f"{argument} has {len(column)} rows, but X has {n_rows}: "
                "one label is needed for each row."
            )
    if not columns:
        return None
    framed = hasattr(groups, "columns")
    return GroupColumns(tuple(names), tuple(columns), framed)


def _split(groups: Any, argument: str) -> tuple[list[str | None], list[Any]]:
    if isinstance(groups, pd.DataFrame):
        columns = [groups.iloc[:, j] for j in range(groups.shape[1])]
        return [_name(name) for name in groups.columns], columns
    if is_polars(groups) and hasattr(groups, "columns"):
        return list(groups.columns), groups.get_columns()
    if isinstance(groups, pd.Categorical | pd.Index):
        groups = pd.Series(groups)
    if isinstance(groups, pd.Series) or is_polars(groups):
        return [_name(groups.name)], [groups]
    values = as_array(groups)
    if values.ndim == 1:
        return [None], [values]
    if values.ndim != 2:
        hint = " (A column of X that holds labels is named in `random`.)"
        hint *= argument == "groups"
        raise ValueError(
            f"{argument} has {values.ndim} dimensions; expected one label for each "
            f"row, or a column of labels for each factor.{hint}"
        )
    return [None] * values.shape[1], list(values.T)


def _name(name: Any) -> str | None:
    return name if isinstance(name, str) and name else None
