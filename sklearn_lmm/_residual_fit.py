"""What an estimator does with its residual structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.validation import _num_samples

from sklearn_lmm._columns import (
    Table,
    listed,
    read_table,
    read_weights,
    without_arrow,
)
from sklearn_lmm._engine.correlation import Correlation, Independent
from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_criterion import ErrorSizes
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._groups import read_groups
from sklearn_lmm._layout import Layout
from sklearn_lmm._residual_columns import ErrorColumns, learn_errors, place_rows
from sklearn_lmm._residual_data import Columns
from sklearn_lmm._types import FloatArray, IntArray


def read_errors(
    estimator: Any,
    layout: Layout,
    design: Design,
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
) -> tuple[ErrorColumns, Errors]:
    """Read the columns of `estimator.residual`, for the rows of a design.

    Raises
    ------
    ValueError
        If columns are absent or unfit for their role, or if the structure does
        not go with the other parameters.
    """
    structure = estimator.residual
    if estimator.solver in ("em", "stochastic"):
        raise ValueError(
            f"solver={estimator.solver!r} knows no residual structure: use 'newton', "
            "or 'auto'."
        )
    if sparse.issparse(design.X):
        raise ValueError(
            "A residual structure needs a dense X: pass X.toarray(), or leave out "
            "residual."
        )
    columns = row_columns(estimator, layout, X, y, groups, sample_weight)
    codes = [factor.codes for factor in design.factors]
    learnt, errors = learn_errors(structure, columns, codes, len(design.y))
    counts = design.weights if estimator.weights == "frequency" else None
    correlated = len(errors.starts) < len(errors.order)
    if counts is not None and correlated and (counts != 1.0).any():
        raise ValueError(
            f"residual={structure!r} with weights='frequency': a row that stands for "
            "several has no place in a correlation. Give every row on its own, or "
            "weights='precision' if the weights are precisions."
        )
    return learnt, errors


def row_columns(
    estimator: Any, layout: Layout, X: Any, y: Any, groups: Any, sample_weight: Any
) -> Columns:
    """Return the columns of the rows that count."""
    table = _table(estimator, layout, X)
    positions: IntArray = np.arange(len(table))
    if layout.formula is not None:
        kept = layout.formula.rows(X, y, groups, sample_weight)
        positions = kept.positions
        sample_weight = kept.sample_weight
    weights = read_weights(sample_weight, np.empty(len(positions)))
    if weights is not None:
        positions = positions[weights > 0]
    rows = None if len(positions) == len(table) else positions
    return Columns(table, read_groups(groups, len(table)), rows)


def _table(estimator: Any, layout: Layout, X: Any) -> Table:
    """Return the columns of X, which a formula need not read all of."""
    if layout.formula is None:
        return read_table(estimator, X, fitting=False)
    X = without_arrow(X)
    return Table(X, tuple(X.columns), True)


def refuse_residual(estimator: Any, method: str) -> None:
    """Raise where rows come in portions, if there is a residual structure.

    Raises
    ------
    ValueError
        If `estimator.residual` is given.
    """
    if estimator.residual is not None:
        raise ValueError(
            f"{method} adds up sums over rows, but with residual="
            f"{estimator.residual!r} these depend on parameters that are estimated "
            "from all rows together: use fit with all rows."
        )


def refuse_errors(estimator: Any, function: str) -> None:
    """Raise where a function takes errors for independent and equal, and they are not.

    Raises
    ------
    ValueError
        If the fit has a residual structure.
    """
    if estimator.fit_.errors is not None:
        raise ValueError(
            f"{function} is not available for a model with residual="
            f"{estimator.residual!r}: it takes errors for independent and equal. "
            "Fit the model without residual for it."
        )


def has_unequal_errors(estimator: Any) -> bool:
    """Say whether the errors' standard deviation varies from row to row."""
    return estimator.fit_.errors is not None and bool(estimator._errors.variances)


def refuse_unequal_errors(estimator: Any, function: str) -> None:
    """Raise where a function takes errors for equal, correlated or not.

    Raises
    ------
    ValueError
        If their standard deviation varies from row to row.
    """
    if has_unequal_errors(estimator):
        raise ValueError(
            f"{function} is not available for a model with residual="
            f"{estimator.residual!r}: it takes errors for equal in size. Fit the model "
            "without residual, or with a correlation alone, for it."
        )


def residual_parameters(columns: ErrorColumns | None, fit: LMMFit) -> pd.Series[float]:
    """Return the parameters of the errors, those that were given included."""
    names = () if columns is None else columns.names
    values = np.full(len(names), np.nan)
    if fit.errors is not None:
        values = fit.errors.values
    return pd.Series(values, index=list(names), name="residual", dtype=float)


def error_sizes(estimator: Any, X: Any, groups: Any) -> ErrorSizes | None:
    """Return how large the errors of new rows are; None if all are alike.

    Raises
    ------
    ValueError
        If a column is unfit, or has a category that the fit did not see.
    """
    if not has_unequal_errors(estimator):
        return None
    table = _table(estimator, estimator._layout, X)
    columns = Columns(table, read_groups(groups, len(table)))
    return ErrorSizes(estimator.fit_.errors, *estimator._errors.deviations(columns))


def relative_variances(estimator: Any, X: Any, groups: Any) -> FloatArray:
    """Return the variances of the errors of any rows (n,), relative to sigma^2.

    Raises
    ------
    ValueError
        As `error_sizes`.
    """
    sizes = error_sizes(estimator, X, groups)
    return np.ones(_num_samples(X)) if sizes is None else sizes.estimated()


def correlation_of_all(
    estimator: Any, X: Any, groups: Any, codes: Sequence[IntArray] | None = None
) -> tuple[Correlation, FloatArray, IntArray, IntArray]:
    """Return the fitted correlation of any rows, with order and starts of groups.

    codes : the levels of every grouping factor of the model; None for those of the
        fit, every row of an unknown level having one of its own

    Raises
    ------
    ValueError
        If rows cannot be placed, or an occasion is new to a correlation that is
        known for the occasions of the fit only.
    """
    layout, fit = estimator._layout, estimator.fit_
    n = len(X)
    structure = estimator.residual
    if structure is None or fit.errors is None:
        return Independent(n), np.zeros(0), np.arange(n), np.arange(n)
    columns = Columns(_table(estimator, layout, X), read_groups(groups, n))
    if codes is None:
        known = layout.read(estimator, X, groups, True, False).codes
        codes = [_distinct(c) for c in known]
    placed = place_rows(structure, columns, codes, n)
    values = fit.errors.values[: len(fit.errors.values) - len(fit.errors.delta)]
    fitted = list(estimator._errors.names[: len(values)])
    if placed.names != fitted:
        raise ValueError(
            f"{structure!r} was fitted with {listed(fitted, quote=False)}; these rows "
            f"would need {listed(placed.names, quote=False)}. A correlation of "
            "occasions is known for those of the fit, and takes all of them."
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        u = placed.correlation.unconstrained(values)
    if not np.isfinite(u).all():
        raise ValueError(
            f"{structure!r} was fitted with {dict(zip(fitted, values, strict=True))}, "
            "with which errors of so many rows of a group cannot be correlated."
        )
    return placed.correlation, u, placed.order, placed.starts


def _distinct(codes: IntArray | None) -> IntArray:
    """Return codes with a level of its own for every row of unknown level."""
    assert codes is not None
    unknown = np.flatnonzero(codes < 0)
    filled = codes.copy()
    filled[unknown] = codes.max(initial=-1) + 1 + np.arange(len(unknown))
    return filled
