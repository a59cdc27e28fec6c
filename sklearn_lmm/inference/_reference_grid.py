"""Combinations of the variables of the fixed part, and their rows of X."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._columns import listed
from sklearn_lmm._covariates import Covariate, describe
from sklearn_lmm._formula_rows import check_present, take_columns
from sklearn_lmm._types import BoolArray, FloatArray

LARGEST = 1_000_000
"""Rows of a grid, at most."""

ESTIMABLE = 1e-7
"""Part of a row, relative to its size, that may be seen as rounding."""


class ReferenceGrid:
    """The variables of a model's fixed part, and rows of X for their values.

    variables : categories with their levels, numbers with mean and range
    """

    def __init__(self, est: Any, data: Any = None) -> None:
        self.est = est
        self.layout = est._layout
        self.formula = est._layout.formula
        self.variables = self._variables(data)

    def _variables(self, data: Any) -> dict[str, Covariate]:
        terms = self.layout.fixed_terms
        used = dict.fromkeys(name for term in terms for name in term.variables)
        if self.formula is None:
            found = column_means(self.est)
        else:
            found = dict(self.formula.variables)
            offsets = [t for part in self.formula.offsets for t in part.terms]
            used |= dict.fromkeys(name for term in offsets for name in term.variables)
            if self.formula.n_rows != self.est.fit_.statistics.n_rows:
                # Rows were added since; what the first ones say is no mean of all.
                numbers = (n for n, v in found.items() if v.levels is None)
                found |= dict.fromkeys(numbers, Covariate(None))
        found = {name: found.get(name, Covariate(None)) for name in used}
        if data is not None:
            levels = {n: list(v.levels) for n, v in found.items() if v.levels}
            check_present(found, data, "data")
            found |= describe(take_columns(data, list(found)), levels, None)
        return found

    def values(self, by: Sequence[str], at: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the values of every variable, those in `by` first.

        Levels of a category, and the mean of a number, unless `at` has others.

        Raises
        ------
        ValueError
            If a variable is unknown, or there is no value for it.
        """
        self._check_known([*by, *at])
        values: dict[str, list[Any]] = {}
        for name in [*by, *(n for n in self.variables if n not in by)]:
            variable = self.variables[name]
            if name in at:
                values[name] = list(at[name]) if np.ndim(at[name]) else [at[name]]
            elif variable.levels is not None:
                values[name] = list(variable.levels)
            elif name in by or np.isnan(variable.mean):
                raise ValueError(_no_value(name, name in by))
            else:
                values[name] = [variable.mean]
        return values

    def _check_known(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self.variables]
        if unknown:
            raise ValueError(
                f"The fixed part has no variable {unknown[0]!r}; it has "
                f"{listed(list(self.variables)) or 'none'}."
            )

    def rows(self, values: Mapping[str, list[Any]]) -> tuple[FloatArray, FloatArray]:
        """Return X (m, p), the intercept included, and the offset (m,) of the grid.

        The last variable varies fastest.

        Raises
        ------
        ValueError
            If there are too many combinations, or a value is refused.
        """
        size = int(np.prod([len(v) for v in values.values()]))
        if size > LARGEST:
            raise ValueError(
                f"There are {size} combinations of {listed(list(values))}, more than "
                f"{LARGEST}: choose some with at={{name: [values]}}."
            )
        index = np.unravel_index(np.arange(size), [len(v) for v in values.values()])
        grid = pd.DataFrame(
            {n: _taken(v, k) for (n, v), k in zip(values.items(), index, strict=True)},
            index=pd.RangeIndex(size),
        )
        offset = np.zeros(size)
        if self.formula is None:
            X = grid[[t.name for t in self.layout.fixed_terms]].to_numpy(np.float64)
        else:
            X = self.formula.fixed.values(grid)
            for part in self.formula.offsets:
                offset = offset + part.values(grid)[:, 0]
        ones = np.ones((size, int(self.layout.roles.intercept)))
        return np.hstack([ones, X]), offset

    def estimable(self, L: FloatArray) -> BoolArray:
        """Say which combinations l'beta do not depend on the columns dropped.

        With X d = 0 for a direction d that a dropped column completes, l'd = 0.
        """
        fit = self.est.fit_
        kept, tt = fit.kept, fit.statistics.tt[:-1, :-1]
        if kept.all():
            return np.ones(len(L), dtype=bool)
        coefficients = np.linalg.solve(tt[np.ix_(kept, kept)], tt[np.ix_(kept, ~kept)])
        directions = np.zeros((len(kept), int((~kept).sum())))
        directions[kept], directions[~kept] = coefficients, -np.eye(directions.shape[1])
        # The cross-products are those of standardised columns.
        directions = fit.statistics.columns.map()[:-1, :-1] @ directions
        sizes = np.linalg.norm(L, axis=1)[:, None] * np.linalg.norm(directions, axis=0)
        return np.asarray((np.abs(L @ directions) <= ESTIMABLE * sizes).all(axis=1))


def column_means(est: Any) -> dict[str, Covariate]:
    """Return the (weighted) means of the columns of the fixed part, from their sums.

    NaN without an intercept, of which they are the products.
    """
    names, statistics = est._layout.roles.fixed_names, est.fit_.row_statistics
    if not est._layout.roles.intercept:
        return {name: Covariate(None) for name in names}
    units = np.linalg.inv(statistics.columns.map())
    total = statistics.tt[0] @ units
    means = total / total[0]
    return {n: Covariate(None, m, m, m) for n, m in zip(names, means, strict=False)}


def _taken(values: list[Any], index: Any) -> Any:
    # A mixture of types, such as text and None, has to stay what it is.
    kinds = {type(value) for value in values}
    array = np.array(values) if len(kinds) == 1 else np.array(values, dtype=object)
    return array[index]


def _no_value(name: str, in_by: bool) -> str:
    if in_by:
        return (
            f"{name!r} is a number: say at which values, at={{{name!r}: [...]}}, or "
            "take marginal_trends for its slope."
        )
    return (
        f"There is no mean of {name!r} over all rows of the fit (rows were added to "
        f"it, or it has no intercept): give at={{{name!r}: value}} or data, the rows."
    )
