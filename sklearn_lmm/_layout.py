"""What a fit learns of the data's form, and rows read by it.

`learn` turns X, y and groups into a `Design` for the engine and a `Layout`;
with the layout later rows are read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator

from sklearn_lmm._columns import (
    Table,
    listed,
    read_response,
    read_table,
    read_weights,
)
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._expansion import FixedTerm
from sklearn_lmm._formula import Formula, check_alone, learn_formula
from sklearn_lmm._grouping import FactorLevels, learn_factor
from sklearn_lmm._groups import read_groups
from sklearn_lmm._labels import learn_levels
from sklearn_lmm._numbering import Numbering
from sklearn_lmm._residual_columns import residual_label_columns
from sklearn_lmm._roles import Roles, assign_roles
from sklearn_lmm._row_labels import NewLabels, fit_labels
from sklearn_lmm._stacking import take
from sklearn_lmm._types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in the terms of a fitted model.

    X : (n, p) columns of the fixed part, without the intercept; sparse if X was
    offset : (n,) or 0.0
    codes : per factor (n,), -1 for an unknown level; None where not asked for
    slopes : per term, a column of n values for each slope
    without_labels : names of factors whose labels are absent altogether
    """

    X: FloatArray | sparse.csr_array
    offset: FloatArray | float
    codes: tuple[IntArray | None, ...]
    slopes: tuple[tuple[FloatArray, ...], ...]
    without_labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """What was learnt of the data's form: roles of the columns, and levels.

    With a formula the columns are those that it makes of X's.
    """

    roles: Roles
    factors: tuple[FactorLevels, ...]

    @property
    def formula(self) -> Formula | None:
        """The formula, if there is one."""
        return self.roles.formula

    @property
    def fixed_terms(self) -> tuple[FixedTerm, ...]:
        """The terms of the fixed part in order, without the intercept.

        Each has its columns' names and the variables that it is made of: f:x
        contains f and x.  Without a formula every column is a term of its own.
        """
        if self.formula is not None:
            return self.formula.terms
        names = [self.roles.names[j] for j in self.roles.fixed]
        return tuple(FixedTerm(name, (name,), (name,), (name,)) for name in names)

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
        table = self._table(estimator, X, wanted)
        labels = NewLabels(self.roles, table, read_groups(groups, len(table)))
        X_fixed, offset, slopes = _numbers(self.roles, table)
        codes = tuple(
            self._codes(labels, factor, refuse_unknown) if factor in wanted else None
            for factor in range(len(self.factors))
        )
        return Rows(X_fixed, offset, codes, slopes, tuple(labels.absent))

    def _table(self, estimator: BaseEstimator, X: Any, wanted: set[int]) -> Table:
        if self.formula is None:
            return read_table(estimator, X, fitting=False)
        roles = self.roles
        needed = {part for factor in wanted for part in roles.groupings[factor].parts}
        unused = {s.name for k, s in enumerate(roles.sources) if k not in needed}
        selected = self.formula.select(X, without=unused)
        table = read_table(estimator, selected, fitting=False, empty=True)
        return self.formula.table(table.data)

    def joined(self, other: Layout) -> Layout:
        """Return the layout of these rows and the other's together."""
        pairs = zip(self.factors, other.factors, strict=True)
        return Layout(self.roles, tuple(mine.joined(more) for mine, more in pairs))

    def arrange(self, statistics: CrossProducts) -> CrossProducts:
        """Return statistics with their levels in the order of this layout."""
        index = [
            factor.positions(levels)
            for factor, levels in zip(self.factors, statistics.levels, strict=True)
        ]
        return statistics.with_levels([f.labels for f in self.factors], index)

    def _codes(self, labels: NewLabels, factor: int, refuse_unknown: bool) -> IntArray:
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
    formula, made = None, None
    check_alone(estimator)
    if estimator.formula is not None:
        formula, rows, made = learn_formula(estimator, X, y, groups, sample_weight)
        X, y, groups, sample_weight = rows.data
    table = read_table(estimator, X, y, fitting=True, empty=formula is not None)
    response = read_response(y, len(table))
    weights = read_weights(sample_weight, response)
    labels = read_groups(groups, len(table))
    parts = estimator if formula is None else SimpleNamespace(**formula.parts)
    table = made or table
    # A formula says itself what is fixed.
    structure = None if formula else estimator.residual
    roles = assign_roles(
        parts.random,
        parts.fixed,
        parts.offset,
        parts.fit_intercept,
        table,
        labels,
        residual_label_columns(structure, table, labels),
    )
    roles = replace(roles, formula=formula)
    columns = [fit_labels(source, table, labels) for source in roles.sources]
    return _learn_rows(roles, table, columns, response, weights)


def learn_roles(estimator: Any, X: Any, y: Any, groups: Any) -> Roles:
    """Give each column its role by names alone; what the rows hold is not read.

    Raises
    ------
    ValueError
        If the parameters name columns that are not there.
    """
    table = read_table(estimator, X, y, fitting=True)
    return assign_roles(
        estimator.random,
        estimator.fixed,
        estimator.offset,
        estimator.fit_intercept,
        table,
        read_groups(groups, len(table)),
    )


def learn_more(
    estimator: Any, layout: Layout, X: Any, y: Any, groups: Any, sample_weight: Any
) -> tuple[Layout, Design]:
    """Read more rows of a model, whose levels may be new.

    The layout returned knows the levels of these rows only.

    Raises
    ------
    ValueError
        As `learn`, and if the columns are not those of the fit.
    """
    more = _read_more(estimator, layout.roles, X, y, groups, sample_weight)
    return _learn_rows(layout.roles, *more)


def number_more(
    estimator: Any,
    roles: Roles,
    numbering: Numbering,
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
) -> Design:
    """Read more rows of a model, with the numbers of their levels as labels.

    Raises
    ------
    ValueError
        As `learn_more`, and if labels are of another kind than those before.
    """
    more = _read_more(estimator, roles, X, y, groups, sample_weight)
    table, labels, response, weights = more
    rows = _counting(weights)
    factors = numbering.factors([take(c, rows) for c in labels], rows)
    return _assemble(roles, table, factors, response, weights)


def _read_more(
    estimator: Any, roles: Roles, X: Any, y: Any, groups: Any, sample_weight: Any
) -> tuple[Table, list[Any], FloatArray, FloatArray | None]:
    """Return the columns of further rows, their labels, response and weights."""
    formula = roles.formula
    if formula is not None:
        X, y, groups, sample_weight = formula.rows(X, y, groups, sample_weight).data
    table = read_table(estimator, X, fitting=False, empty=formula is not None)
    if formula is not None:
        table = formula.table(table.data)
    response = read_response(y, len(table))
    weights = read_weights(sample_weight, response)
    labels = NewLabels(roles, table, read_groups(groups, len(table)))
    columns = [labels.of(source) for source in roles.sources]
    if labels.absent:
        raise ValueError(
            f"There are no labels of {listed(labels.absent)}: pass them as groups, "
            "as at fit."
        )
    return table, columns, response, weights


def _learn_rows(
    roles: Roles,
    table: Table,
    labels: Sequence[Any],
    response: FloatArray,
    weights: FloatArray | None,
) -> tuple[Layout, Design]:
    codes, levels = _learn_factors(roles, labels, _counting(weights))
    factors = list(map(Factor, codes, (factor.labels for factor in levels)))
    design = _assemble(roles, table, factors, response, weights)
    return Layout(roles, levels), design


def _counting(weights: FloatArray | None) -> IntArray | None:
    """Return the rows of a weight that is not 0; None for all."""
    if weights is None or weights.all():
        return None
    return np.flatnonzero(weights)


def _assemble(
    roles: Roles,
    table: Table,
    factors: Sequence[Factor],
    response: FloatArray,
    weights: FloatArray | None,
) -> Design:
    """Put rows together for the engine; those of weight 0 are left out."""
    X_fixed, offset, slopes = _numbers(roles, table)
    response = response - offset
    # Only now, so that a row is checked whatever its weight.
    rows = _counting(weights)
    if weights is not None and rows is not None:
        X_fixed, response, weights = X_fixed[rows], response[rows], weights[rows]
        slopes = tuple(tuple(z[rows] for z in columns) for columns in slopes)
    return Design(
        X=X_fixed,
        y=response,
        intercept=roles.intercept,
        factors=tuple(factors),
        blocks=tuple(
            Block(term.factor, term.structure, term.intercept, columns)
            for term, columns in zip(roles.terms, slopes, strict=True)
        ),
        weights=weights,
    )


def _numbers(
    roles: Roles, table: Table
) -> tuple[
    FloatArray | sparse.csr_array,
    FloatArray | float,
    tuple[tuple[FloatArray, ...], ...],
]:
    """Return the fixed part, the offset and the slopes of every term."""
    X = table.matrix(roles.fixed)
    columns: dict[int, FloatArray] = {}
    if not sparse.issparse(X):
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
    roles: Roles, labels: Sequence[Any], rows: IntArray | None
) -> tuple[list[IntArray], tuple[FactorLevels, ...]]:
    learnt = [
        learn_levels(take(column, rows), source.name, rows)
        for source, column in zip(roles.sources, labels, strict=True)
    ]
    codes, factors = [], []
    for grouping in roles.groupings:
        parts = [learnt[part] for part in grouping.parts]
        of_rows, levels = learn_factor([c for c, _ in parts], [p for _, p in parts])
        codes.append(of_rows)
        factors.append(levels)
    return codes, tuple(factors)


def _unknown(name: str, columns: Sequence[Any], rows: IntArray) -> str:
    """Say which labels the fit has not seen."""
    # The first thousand rows name enough of them.
    parts = [
        np.asarray(take(column, rows[:1000]), dtype=object).tolist()
        for column in columns
    ]
    labels = parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
    return (
        f"Unknown levels of {name!r} in {len(rows)} rows: "
        f"{listed(list(dict.fromkeys(map(repr, labels))), quote=False)}. "
        "handle_unknown='population' predicts such rows without their effect."
    )
