"""A model's formula: what it learns of X at fit, and the columns it makes.

The columns of the fixed part, the slopes, the offset and the grouping columns
become one table, which is read like an X that has had these columns all along.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._columns import Table, without_arrow
from sklearn_lmm._covariates import Covariate, describe
from sklearn_lmm._expansion import Expansion, FixedTerm, expand, names_in
from sklearn_lmm._formula_notation import ParsedFormula, parse_formula
from sklearn_lmm._formula_rows import (
    FormulaRows,
    check_present,
    column_names,
    complete_rows,
    plain_covariates,
    refuse_missing,
    take_columns,
)
from sklearn_lmm._types import FloatArray
from sklearn_lmm.terms import RandomEffect, parse_random

_OFFSET = "offset(…)"


@dataclass(frozen=True, eq=False)
class Formula:
    """A formula that has seen the rows of a fit.

    parsed : its parts as text
    fixed, bars, offsets, response : what they make of X; a bar for each random term
    covariates, labels : the columns of X that are read, and those that group rows
    variables : what the rows of the fit say of the covariates
    na_action : "raise" or "drop"
    n_rows, n_dropped : rows that were read, and those left out for missing values
    """

    parsed: ParsedFormula
    fixed: Expansion
    bars: tuple[Expansion, ...]
    offsets: tuple[Expansion, ...]
    response: Expansion | None
    covariates: tuple[str, ...]
    labels: tuple[str, ...]
    variables: dict[str, Covariate]
    na_action: str
    n_rows: int
    n_dropped: int

    @property
    def terms(self) -> tuple[FixedTerm, ...]:
        """The terms of the fixed part, without the intercept."""
        return tuple(term for term in self.fixed.terms if term.factors)

    @property
    def parts(self) -> dict[str, Any]:
        """The parameters of an estimator that say the same of the table."""
        names = self._names()
        random = [
            RandomEffect(
                bar.group if len(bar.group) > 1 else bar.group[0],
                tuple(names.index(name) for name in expansion.columns),
                intercept=expansion.intercept,
                covariance=bar.covariance,
            )
            for bar, expansion in zip(self.parsed.bars, self.bars, strict=True)
        ]
        return {
            "random": random,
            "fixed": list(range(len(self.fixed.columns))),
            "offset": names.index(_OFFSET) if self.offsets else None,
            "fit_intercept": self.fixed.intercept,
        }

    def _names(self) -> list[str]:
        names = [name for part in (self.fixed, *self.bars) for name in part.columns]
        names += [_OFFSET] * bool(self.offsets) + list(self.labels)
        return list(dict.fromkeys(names))

    def select(self, X: Any, without: Collection[str] = ()) -> pd.DataFrame:
        """Return the columns of X that the formula reads.

        Grouping columns in `without` are not asked for, and come empty.

        Raises
        ------
        ValueError
            If X is no frame, or lacks a column.
        """
        X = without_arrow(X)
        names = list(dict.fromkeys([*self.covariates, *self.labels]))
        empty = (set(without) & set(self.labels)) - set(self.covariates)
        wanted = [name for name in names if name not in empty]
        check_present(wanted, X, self.parsed.said)
        frame = take_columns(X, wanted)
        return frame.reindex(columns=names) if empty else frame

    def table(self, data: pd.DataFrame) -> Table:
        """Return the table of rows, given the columns that `select` takes.

        Raises
        ------
        ValueError
            If a value is missing or cannot be computed, or a category is new.
        """
        # The labels that are no covariates come last.
        covariates = data.iloc[:, : len(self.covariates)]
        refuse_missing(covariates)
        covariates = plain_covariates(covariates)
        fixed = self.fixed.values(covariates)
        known = dict(zip(self.fixed.columns, fixed.T, strict=True))
        bars = [part.values(covariates, known) for part in self.bars]
        offsets = [part.values(covariates) for part in self.offsets]
        return self._table(data, [fixed, *bars], offsets)

    def _table(
        self,
        data: pd.DataFrame,
        values: Sequence[FloatArray],
        offsets: Sequence[FloatArray],
    ) -> Table:
        columns: dict[str, Any] = {}
        for part, matrix in zip((self.fixed, *self.bars), values, strict=True):
            for name, column in zip(part.columns, matrix.T, strict=True):
                same = np.array_equal(columns.setdefault(name, column), column)
                if not same or part.columns.count(name) > 1:
                    raise ValueError(self._ambiguous(name))
        if offsets:
            columns[_OFFSET] = np.sum(offsets, axis=0)[:, 0]
        for name in self.labels:
            # A number may be a covariate and a label, whose type is X's own.
            if name in columns and name not in self.covariates:
                raise ValueError(self._ambiguous(name))
            columns[name] = data[name]
        return Table(pd.DataFrame(columns, data.index), tuple(columns), True)

    def _ambiguous(self, name: str) -> str:
        return (
            f"{self.parsed.said} makes two different columns called {name!r}: rename "
            "the column of X."
        )

    def rows(self, X: Any, y: Any, groups: Any, sample_weight: Any) -> FormulaRows:
        """Return rows to fit to or to score, with y from the formula if it is None.

        Raises
        ------
        ValueError
            If X lacks a column, or as `complete_rows`.
        """
        names = [*self.covariates, *self.labels]
        parts = (without_arrow(X), y, groups, sample_weight, self.na_action)
        rows = _rows(self.parsed, names, *parts)
        if y is None and self.parsed.response:
            data = plain_covariates(rows.X)
            response = self.response or _single(self.parsed.response, data)[0]
            rows = rows._replace(y=response.values(data)[:, 0])
        return rows._replace(X=rows.X[list(dict.fromkeys(names))])


def needs_groups(estimator: Any) -> bool:
    """Say whether a term of an estimator takes its labels from `groups`."""
    if estimator.formula is None:
        return any(term.needs_groups for term in parse_random(estimator.random))
    parsed = _readable(estimator.formula)
    return parsed is not None and any("groups" in bar.group for bar in parsed.bars)


def has_response(estimator: Any) -> bool:
    """Say whether the formula of an estimator has a left side."""
    parsed = _readable(estimator.formula)
    return parsed is not None and bool(parsed.response)


def _readable(formula: Any) -> ParsedFormula | None:
    # A tag never raises; what is wrong with the formula is said by fit.
    try:
        return parse_formula(formula) if isinstance(formula, str) else None
    except ValueError:
        return None


def check_alone(estimator: Any) -> None:
    """Refuse parameters that a formula leaves no room for, or that need one.

    Raises
    ------
    ValueError
        Naming them.
    """
    if estimator.formula is None:
        if estimator.na_action != "raise":
            raise ValueError(
                f"na_action={estimator.na_action!r} is for formulas; without one drop "
                "the rows with missing values from X, y, groups and weights."
            )
        return
    neutral = {"random": None, "fixed": None, "offset": None, "fit_intercept": True}
    given = [name for name, v in neutral.items() if getattr(estimator, name) is not v]
    if given:
        raise ValueError(
            f"formula={estimator.formula!r} says everything about the model's terms, "
            f"so {' and '.join(given)} cannot be given as well; write "
            "them into the formula: y ~ 0 + x + offset(o) + (1 | g)."
        )


def learn_formula(
    estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any
) -> tuple[Formula, FormulaRows, Table]:
    """Learn the formula of an estimator from the rows of a fit.

    Returns
    -------
    Formula
    FormulaRows
        Those to fit to, with the columns of X that the formula reads.
    Table
        What it makes of them.

    Raises
    ------
    ValueError
        If the formula cannot be read, X lacks a column, or values are missing.
    """
    X = without_arrow(X)
    parsed = parse_formula(estimator.formula)
    used, groupings = _names_of(parsed)
    wanted = used if groups is not None else used | groupings
    check_present(sorted(wanted), X, parsed.said)
    names = [n for n in column_names(X, parsed.said) if n in used | groupings]
    rows = _rows(parsed, names, X, y, groups, sample_weight, estimator.na_action)
    covariates = plain_covariates(rows.X[[name for name in names if name in used]])
    response = None
    if parsed.response and y is None:
        response, values = _single(parsed.response, plain_covariates(rows.X))
        rows = rows._replace(y=values[:, 0])
    labels = tuple(name for name in names if name in groupings)
    rows = rows._replace(X=rows.X[list(dict.fromkeys([*covariates, *labels]))])
    fixed, *bars = [expand(part, covariates) for part in _sides(parsed)]
    offsets = [_single(part, covariates) for part in parsed.offsets]
    copies = rows.sample_weight if estimator.weights == "frequency" else None
    formula = Formula(
        parsed=parsed,
        fixed=fixed[0],
        bars=tuple(expansion for expansion, _ in bars),
        offsets=tuple(expansion for expansion, _ in offsets),
        response=response,
        covariates=tuple(covariates.columns),
        labels=labels,
        variables=describe(covariates, fixed[0].categories, copies),
        na_action=estimator.na_action,
        n_rows=len(covariates),
        n_dropped=rows.n_dropped,
    )
    made = [values for _, values in (fixed, *bars)]
    return formula, rows, formula._table(rows.X, made, [o for _, o in offsets])


def _sides(parsed: ParsedFormula) -> list[str]:
    """Return the texts of the fixed part, and of what stands before each bar."""
    return [parsed.fixed, *(bar.coefficients for bar in parsed.bars)]


def _names_of(parsed: ParsedFormula) -> tuple[set[str], set[str]]:
    """Return the names of covariates, and those of grouping factors."""
    texts = [*_sides(parsed), *map(_arithmetic, parsed.offsets)]
    covariates = set().union(*map(names_in, texts))
    return covariates, {name for bar in parsed.bars for name in bar.group}


def _rows(
    parsed: ParsedFormula,
    names: Iterable[str],
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
    na_action: str,
) -> FormulaRows:
    names = list(names)
    if y is None and parsed.response:
        names += sorted(names_in(_arithmetic(parsed.response)))
    names = list(dict.fromkeys(names))
    check_present(names, X, parsed.said)
    data = take_columns(X, names)
    return complete_rows(data, y, groups, sample_weight, na_action)


def _single(text: str, data: pd.DataFrame) -> tuple[Expansion, FloatArray]:
    """Return an expression that is one column, such as a response or an offset."""
    text = _arithmetic(text)
    expansion, values = expand(f"0 + {text}", data[sorted(names_in(text))])
    if values.shape[1] != 1 or expansion.levels:
        raise ValueError(
            f"The formula needs one column of numbers, but {text!r} has "
            f"{values.shape[1]} columns{' of categories' * bool(expansion.levels)}."
        )
    return expansion, values


def _arithmetic(text: str) -> str:
    """Return an expression whose operators are those of numbers."""
    return text if re.fullmatch(r"[\w.]+|`[^`]+`", text) else f"I({text})"
