"""The rows of a fit, given once more: read, and compared with what the fit kept.

A fitted model holds the cross-products of its rows, not the rows. Whatever
needs them again takes X and y as fit did, and would give wrong numbers for any
others: the cross-products tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklearn_lmm._columns import listed, read_weights
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Design, Factor
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.row_sums import RowSums, sum_rows
from sklearn_lmm._layout import Layout, learn_more
from sklearn_lmm._residual_fit import refuse_errors
from sklearn_lmm._results import row_index
from sklearn_lmm._types import BoolArray, FloatArray, IntArray

SAME = 1e-8
"""Sums that differ by less than this, relative to their size, are the same."""


@dataclass(frozen=True, eq=False)
class FitRows:
    """The rows that a model was fitted to.

    layout, fit : of the estimator
    design : the rows that count, those of positive weight; its factors have the
        levels of the fit, in the order of `fit.effects`
    positions : where each of them is among the rows of X
    n_rows : how many rows X has
    index : of X, if it is a pandas frame
    """

    layout: Layout
    fit: LMMFit
    design: Design
    positions: IntArray
    n_rows: int
    index: pd.Index | None

    @cached_property
    def beside_fit(self) -> FittedRows:
        """The rows beside the fitted model, in the engine's units."""
        return FittedRows.of(self.fit, self.design)

    def spread(self, values: FloatArray) -> FloatArray:
        """Return one value for each row of X, NaN where the weight is 0."""
        if len(values) == self.n_rows:
            return values
        everywhere = np.full((self.n_rows, *values.shape[1:]), np.nan)
        everywhere[self.positions] = values
        return everywhere

    def factor(self, name: str) -> int | None:
        """Return the position of a grouping factor, None if there is no such."""
        names = self.layout.roles.factor_names
        return names.index(name) if name in names else None


def rows_of_fit(
    est: Any,
    X: Any,
    y: Any,
    groups: Any = None,
    sample_weight: Any = None,
    *,
    plain: str | None = "This",
) -> FitRows:
    """Read the rows of the fit again.

    plain : the function that takes errors for independent and equal, to be named
        if they are not; None if it takes account of a residual structure

    Raises
    ------
    ValueError
        If these are other rows than those of the fit, or cannot be read; if the
        effects are predicted from other rows than the rest (`adapt`); if there is
        a residual structure that is not taken account of.
    """
    check_is_fitted(est)
    fit = est.fit_
    if plain is not None:
        refuse_errors(est, plain)
    if fit.effect_statistics is not fit.statistics:
        raise ValueError(
            "This estimator comes from adapt: its random effects and its fixed "
            "effects are from different rows. Use the one that adapt was called on, "
            "or fit all rows together."
        )
    index, n_rows = row_index(X), _num_samples(X)
    positions = np.arange(n_rows)
    if est._layout.formula is not None:
        rows = est._layout.formula.rows(X, y, groups, sample_weight)
        X, y, groups, sample_weight = rows.data
        positions = rows.positions
    layout, design = learn_more(est, est._layout, X, y, groups, sample_weight)
    design = replace(design, factors=_factors_of_fit(est._layout, layout, design))
    _check_same(est._layout, fit.row_statistics, design)
    if len(design.y) < len(positions):
        weights = read_weights(sample_weight, np.empty(len(positions)))
        assert weights is not None
        positions = positions[np.flatnonzero(weights)]
    return FitRows(est._layout, fit, design, positions, n_rows, index)


def _factors_of_fit(
    fitted: Layout, given: Layout, design: Design
) -> tuple[Factor, ...]:
    """Number the levels as the fit did."""
    factors = []
    for k, factor in enumerate(design.factors):
        levels = fitted.factors[k].labels
        place = fitted.factors[k].positions(given.factors[k].labels)
        name = fitted.roles.groupings[k].name
        unknown = factor.levels[place < 0].tolist()
        if unknown:
            raise _other_rows(
                f"{name!r} has levels that the fit did not see: {listed(unknown)}"
            )
        if len(place) < len(levels):
            missing = np.delete(levels, place).tolist()
            raise _other_rows(
                f"{name!r} had the levels {listed(missing)} at fit, which no row has "
                "here"
            )
        factors.append(Factor(place[factor.codes], levels))
    return tuple(factors)


def _other_rows(difference: str) -> ValueError:
    return ValueError(
        f"These are not the rows of the fit: {difference}. Give the X, y, groups and "
        "sample_weight that the model was fitted to, in any order of the rows."
    )


def _check_same(layout: Layout, fitted: CrossProducts, design: Design) -> None:
    """Refuse rows whose totals are not those of the fit."""
    if len(design.y) != fitted.n_rows:
        raise _other_rows(f"there are {len(design.y)}, the fit had {fitted.n_rows}")
    total = len(design.y) if design.weights is None else design.weights.sum()
    if abs(total - fitted.sum_weights) > SAME * fitted.sum_weights:
        raise _other_rows(
            f"their weights add up to {total:g}, those of the fit to "
            f"{fitted.sum_weights:g}"
        )
    sums = sum_rows(design, fitted.columns, fitted.blocks)
    size = np.sqrt(np.diag(fitted.tt))
    off = _differs(sums.tt, fitted.tt, np.outer(size, size))
    if off.any():
        raise _other_rows(_which_column(layout, fitted, sums.tt, off))
    for k, grouping in enumerate(layout.roles.groupings):
        level = _first_other_level(fitted, sums, k, size)
        if level is not None:
            label = fitted.levels[k].tolist()[level]
            raise _other_rows(
                f"{label!r} of {grouping.name!r} has other rows here, or its slope "
                "columns have other values"
            )


def _differs(here: FloatArray, then: FloatArray, size: FloatArray) -> BoolArray:
    return np.asarray(np.abs(here - then) > SAME * size)


def _which_column(
    layout: Layout, fitted: CrossProducts, tt: FloatArray, off: BoolArray
) -> str:
    """Name a column of which the sums differ, by its mean if that does."""
    names = [*layout.roles.fixed_names, "y"]
    if fitted.columns.mix is not None:
        return "the sums of products of X and y are others"
    if fitted.intercept and off[0].any():
        j = int(np.argmax(off[0]))
        here, then = (
            fitted.columns.center[j]
            + fitted.columns.scale[j] * sums[0, j] / fitted.sum_weights
            for sums in (tt, fitted.tt)
        )
        return f"the mean of {names[j]!r} is {here:.10g}, at fit it was {then:.10g}"
    i, j = np.argwhere(off)[0].tolist()
    if i == j:
        return f"the sum of squares of {names[i]!r} is another"
    return f"the sum of products of {names[i]!r} and {names[j]!r} is another"


def _first_other_level(
    fitted: CrossProducts, sums: RowSums, k: int, size: FloatArray
) -> int | None:
    """Return the first level of a factor whose sums differ."""
    spread = np.sqrt(np.einsum("gii->gi", fitted.s[k]))
    largest = spread.max(axis=0)
    other = _differs(sums.s[k], fitted.s[k], np.outer(largest, largest)).any(
        axis=(1, 2)
    )
    b_size = largest[:, None] * size
    other |= _differs(sums.b[k], fitted.b[k], b_size).any(axis=(1, 2))
    return int(np.argmax(other)) if other.any() else None
