"""Residuals as series: what rows belong together, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._engine.correlation import places_within
from sklearn_lmm._residual_columns import codes_of_groups, default_groups
from sklearn_lmm._residual_data import Columns, in_days
from sklearn_lmm._residual_fit import row_columns
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.diagnostics._residuals import residuals_of_rows
from sklearn_lmm.residuals._base import correlation_of

Place = str | int | Sequence[Any] | None


@dataclass(frozen=True, eq=False)
class Series:
    """Rows sorted by series, and within them by place.

    order : (n,), positions of the rows that count
    codes : (n,), the series, ascending
    places : (n, d), times or coordinates; the number within the series if there
        are none
    """

    order: IntArray
    codes: IntArray
    places: FloatArray

    @property
    def lengths(self) -> IntArray:
        """How many rows every series has."""
        return np.bincount(self.codes)


def residual_series(
    est: Any,
    data: tuple[Any, ...],
    kind: str,
    random_effects: Any,
    time: Place,
    series: Place,
) -> tuple[FitRows, FloatArray, Series]:
    """Return the rows of the fit that count, their residuals, and the series.

    data, time, series : as in `read_series`
    kind, random_effects : as in `residuals`

    Raises
    ------
    ValueError
        As `residuals` and `read_series`.
    """
    given = rows_of_fit(est, *data, plain=None)
    r = residuals_of_rows(est, given, data, kind, random_effects)
    return given, r, read_series(est, given, data, time, series)


def read_series(
    est: Any, given: FitRows, data: tuple[Any, ...], time: Place, series: Place
) -> Series:
    """Return the rows of a fit as series.

    data : X, y, groups and sample_weight as the user gave them
    time : a column, several, or an array; None for what the structure of the
        model says, or the order of the rows
    series : a column or an array; None for what the structure says, or the
        grouping factor that is nested in all others

    Raises
    ------
    ValueError
        If a column is absent, or it is not clear which rows belong together.
    """
    X, y, groups, sample_weight = data
    columns = row_columns(est, est._layout, X, y, groups, sample_weight)
    structure = correlation_of(est.residual)
    if series is None and structure is not None and structure.groups is not None:
        series = structure.groups
    codes = _codes(given, columns, series)
    if time is None:
        references = () if structure is None else structure.places
        places = _numbers(columns, references, len(codes))
    else:
        places = _places(given, columns, time)
    order = np.lexsort((*places.T[::-1], codes))
    codes, places = codes[order], places[order]
    if not places.shape[1]:
        places = places_within(np.bincount(codes))[:, None].astype(np.float64)
    if codes[-1] == len(codes) - 1:
        raise ValueError("Every series has a single row: there are no pairs of rows.")
    return Series(order, codes, places)


def _codes(given: FitRows, columns: Columns, series: Any) -> IntArray:
    """Return the series of every row, numbered 0, 1, …, each in use."""
    if series is None:
        factors = [factor.codes for factor in given.design.factors]
        unsaid = "Nothing says which rows make up a series"
        n = len(given.design.y)
        codes = default_groups(factors, columns, n, unsaid, "say it by series=...")
    elif isinstance(series, str | int | tuple):
        codes = codes_of_groups(series, columns)
    else:
        codes = pd.factorize(_array(given, series, "series"))[0]
    return np.unique(codes, return_inverse=True)[1]


def _places(given: FitRows, columns: Columns, time: Any) -> FloatArray:
    n = len(given.design.y)
    if isinstance(time, str | int):
        return _numbers(columns, (time,), n)
    if all(isinstance(part, str) for part in time):
        return _numbers(columns, tuple(time), n)
    values = in_days(_array(given, time, "time"))
    values = values.astype(np.float64).reshape(n, -1)
    if not np.isfinite(values).all():
        raise ValueError("time has missing or infinite values.")
    return np.asarray(values)


def _numbers(columns: Columns, references: tuple[Any, ...], n: int) -> FloatArray:
    found = [columns.places(reference, "time") for reference in references]
    return np.column_stack([np.zeros((n, 0)), *found])


def _array(given: FitRows, values: Any, name: str) -> AnyArray:
    """Return the rows that count of an array with a value for each row of X."""
    values = np.asarray(values)
    if len(values) != given.n_rows:
        raise ValueError(
            f"{name} has {len(values)} values, X has {given.n_rows} rows: expected one "
            "for each, or the name of a column."
        )
    return values[given.positions]
