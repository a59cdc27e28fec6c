"""What a fit learns of the data's form, and rows read by it.

`learn` turns X, y and groups into a `Design` for the engine and a `Layout`;
with the layout later rows are read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_lmm._columns import (
    FloatArray,
    Table,
    listed,
    read_response,
    read_table,
    read_weights,
)
from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._groups import GroupColumns, read_groups
from sklearn_lmm._labels import (
    IntArray,
    Interaction,
    Levels,
    first_difference,
    learn_interaction,
    learn_levels,
)
from sklearn_lmm._roles import Roles, Source, assign_roles


@dataclass(frozen=True, eq=False)
class FactorLevels:
    """How the labels of a grouping factor become its codes.

    levels : of the factor; tuples label the levels of an interaction
    parts : the levels of its sources
    interaction : of the parts, None if there is only one
    """

    levels: Levels
    parts: tuple[Levels, ...]
    interaction: Interaction | None

    def match(self, columns: Sequence[Any]) -> IntArray:
        """Return the codes of rows, given the labels of every part."""
        codes = [part.match(c) for part, c in zip(self.parts, columns, strict=True)]
        return codes[0] if self.interaction is None else self.interaction.match(codes)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in the terms of a fitted model.

    X : (n, p) columns of the fixed part, without the intercept
    offset : (n,) or 0.0
    codes : per factor (n,), -1 for an unknown level; None where not asked for
    slopes : per term, a column of n values for each slope
    without_labels : names of factors whose labels are absent altogether
    """

    X: FloatArray
    offset: FloatArray | float
    codes: tuple[IntArray | None, ...]
    slopes: tuple[tuple[FloatArray, ...], ...]
    without_labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """What was learnt of the data's form: roles of the columns, and levels."""

    roles: Roles
    factors: tuple[FactorLevels, ...]

    def read(
        self,
        estimator: BaseEstimator,
        X: Any,
        groups: Any,
        random_effects: bool | Sequence[str],
        refuse_unknown: bool,
    ) -> Rows:
        """Read new rows, with the labels of the factors whose effects are wanted.

        Raises
        ------
        ValueError
            If the columns are not those of the fit, groups lacks a factor, or
            `refuse_unknown` is set and a level is unknown.
        """
        wanted = self.roles.wanted(random_effects)
        table = read_table(estimator, X, fitting=False)
        labels = _NewLabels(self.roles, table, read_groups(groups, len(table)))
        X_fixed, offset, slopes = _numbers(self.roles, table)
        codes = tuple(
            self._codes(labels, factor, refuse_unknown) if factor in wanted else None
            for factor in range(len(self.factors))
        )
        return Rows(X_fixed, offset, codes, slopes, tuple(labels.absent))

    def _codes(self, labels: _NewLabels, factor: int, refuse_unknown: bool) -> IntArray:
        grouping = self.roles.groupings[factor]
        columns = [labels.of(self.roles.sources[part]) for part in grouping.parts]
        if any(column is None for column in columns):
            return np.full(len(labels.table), -1)
        codes = self.factors[factor].match(columns)
        unknown = np.flatnonzero(codes < 0)
        if refuse_unknown and len(unknown):
            raise ValueError(_unknown(grouping.name, columns, unknown))
        return codes


def learn(
    estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any
) -> tuple[Layout, Design]:
    """Check the data of a fit, and give each column its role.

    Rows of weight 0 are dropped before levels are looked at.

    Raises
    ------
    ValueError
        If X, y, groups, weights or the parameters that name columns are wrong.
    """
    table = read_table(estimator, X, y, fitting=True)
    response = read_response(y, len(table))
    weights = read_weights(sample_weight, response)
    labels = read_groups(groups, len(table))
    roles = assign_roles(
        estimator.random,
        estimator.fixed,
        estimator.offset,
        estimator.fit_intercept,
        table,
        labels,
    )
    X_fixed, offset, slopes = _numbers(roles, table)
    rows = None
    if weights is not None and not weights.all():
        rows = np.flatnonzero(weights)
        weights, X_fixed = weights[rows], X_fixed[rows]
        slopes = tuple(tuple(z[rows] for z in columns) for columns in slopes)
    codes, factors = _learn_factors(roles, table, labels, rows)
    response = response - offset
    design = Design(
        X=X_fixed,
        y=response if rows is None else response[rows],
        intercept=roles.intercept,
        factors=tuple(
            Factor(c, factor.levels.labels)
            for c, factor in zip(codes, factors, strict=True)
        ),
        blocks=tuple(
            Block(term.factor, term.structure, term.intercept, columns)
            for term, columns in zip(roles.terms, slopes, strict=True)
        ),
        weights=weights,
    )
    return Layout(roles, factors), design


def _numbers(
    roles: Roles, table: Table
) -> tuple[FloatArray, FloatArray | float, tuple[tuple[FloatArray, ...], ...]]:
    """Return the fixed part, the offset and the slopes of every term."""
    X = table.numbers(roles.fixed)
    columns = {position: X[:, k] for k, position in enumerate(roles.fixed)}
    others = [position for term in roles.terms for position in term.slopes]
    if roles.offset is not None:
        others.append(roles.offset)
    for position in others:
        if position not in columns:
            columns[position] = table.numbers([position])[:, 0]
    offset = 0.0 if roles.offset is None else columns[roles.offset]
    return X, offset, tuple(tuple(columns[j] for j in t.slopes) for t in roles.terms)


def _learn_factors(
    roles: Roles, table: Table, groups: GroupColumns | None, rows: IntArray | None
) -> tuple[list[IntArray], tuple[FactorLevels, ...]]:
    learnt = []
    for source in roles.sources:
        column = None if source.column is None else table.column(source.column)
        if groups is not None and source.group is not None:
            given = groups.columns[source.group]
            _check_same(given, column, source.name)
            column = given
        learnt.append(learn_levels(_rows_of(column, rows), source.name, rows))
    factors, codes = [], []
    for grouping in roles.groupings:
        part_codes, parts = zip(*(learnt[part] for part in grouping.parts), strict=True)
        interaction = None
        combined, levels = part_codes[0], parts[0]
        if len(parts) > 1:
            combined, levels, interaction = learn_interaction(
                part_codes, parts, grouping.name
            )
        codes.append(combined)
        factors.append(FactorLevels(levels, parts, interaction))
    return codes, tuple(factors)


def _rows_of(column: Any, rows: IntArray | None) -> Any:
    if rows is None:
        return column
    return column.iloc[rows] if isinstance(column, pd.Series) else column[rows]


class _NewLabels:
    """Finds the labels of the fit's factors in new data.

    absent : names of factors that were looked for without any labels given
    """

    def __init__(self, roles: Roles, table: Table, groups: GroupColumns | None) -> None:
        self.table = table
        self.groups = groups
        self.n_from_groups = sum(source.group is not None for source in roles.sources)
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
        lone = len(groups.names) == 1 and self.n_from_groups == 1
        return 0 if lone and source.any_name and source.group is not None else None

    def _by_position(self, groups: GroupColumns, source: Source) -> int | None:
        if source.group is None:
            return None
        if len(groups.names) == 1 and self.n_from_groups == 1:
            return 0
        return source.group if source.group < len(groups.names) else None


def _check_same(given: Any, column: Any, name: str) -> None:
    if column is None:
        return
    row = first_difference(given, column, name)
    if row is not None:
        one, other = (_rows_of(c, np.array([row])) for c in (given, column))
        raise ValueError(
            f"The labels of {name!r} are given twice, in groups and as a column of "
            f"X, and differ: {_shown(one)} and {_shown(other)} in row {row}. "
            "Give them once."
        )


def _shown(column: Any) -> str:
    return repr(np.asarray(column, dtype=object).tolist()[0])


def _unknown(name: str, columns: Sequence[Any], rows: IntArray) -> str:
    """Say which labels the fit has not seen."""
    # The first thousand rows name enough of them.
    parts = [
        np.asarray(_rows_of(column, rows[:1000]), dtype=object).tolist()
        for column in columns
    ]
    labels = parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
    return (
        f"Unknown levels of {name!r} in {len(rows)} rows: "
        f"{listed(list(dict.fromkeys(map(repr, labels))), quote=False)}. "
        "handle_unknown='population' predicts such rows without their effect."
    )
