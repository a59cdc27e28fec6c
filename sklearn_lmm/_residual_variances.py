"""Functions for the standard deviations of errors, read from the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._labels import Levels
from sklearn_lmm._residual_data import Columns
from sklearn_lmm._types import FloatArray
from sklearn_lmm.residuals import (
    ExponentialVariance,
    Heteroscedastic,
    KnownVariance,
    PowerVariance,
)
from sklearn_lmm.residuals._base import VarianceStructure


def read_levels(part: VarianceStructure, columns: Columns) -> Levels | None:
    if not isinstance(part, Heteroscedastic):
        return None
    levels = columns.labels(part.column, "residual")[1]
    if part.ratios is not None:
        known = dict(part.ratios)
        first, *others = levels.labels.tolist()
        missing = [label for label in others if label not in known]
        if missing:
            raise ValueError(
                f"The ratios of {part!r} lack {listed(missing)}: give one "
                f"for every category but the first, {first!r}."
            )
        if known.get(first, 1.0) != 1.0:
            raise ValueError(
                f"{part!r} has a ratio for {first!r}, the first of the categories, of "
                "which the deviation is sigma itself: leave it out, and give those of "
                "the others to it."
            )
    return levels


def n_slopes(part: VarianceStructure, levels: Levels | None) -> int:
    if levels is not None:
        return len(levels.labels) - 1
    return 0 if isinstance(part, KnownVariance) else 1


def known_slopes(part: VarianceStructure, levels: Levels | None) -> FloatArray:
    """Return delta of a structure, NaN where it is estimated."""
    known: Any = [None] * n_slopes(part, levels)
    if isinstance(part, Heteroscedastic) and part.ratios is not None:
        assert levels is not None
        ratios = dict(part.ratios)
        known = [np.log(ratios[label]) for label in levels.labels[1:].tolist()]
    elif isinstance(part, PowerVariance):
        known = [part.power]
    elif isinstance(part, ExponentialVariance):
        known = [part.rate]
    return np.array([np.nan if value is None else value for value in known], float)


def slope_names(part: VarianceStructure, levels: Levels | None) -> list[str]:
    if levels is not None:
        return [f"ratio[{label}]" for label in levels.labels[1:].tolist()]
    if isinstance(part, PowerVariance):
        return [f"power[{part.column}]"]
    if isinstance(part, ExponentialVariance):
        return [f"rate[{part.column}]"]
    return []


def read_variances(
    variances: Sequence[tuple[VarianceStructure, Levels | None]],
    columns: Columns,
    n: int,
) -> tuple[FloatArray, FloatArray]:
    """Return the known part (n,) of log deviations, and their slopes W (n, m)."""
    known, slopes = np.zeros(n), [np.zeros((n, 0))]
    for part, levels in variances:
        if levels is not None:
            codes = levels.match(columns.find(part.column, "residual"))
            if (codes < 0).any():
                raise ValueError(
                    f"{part!r} has no ratio for some categories of these rows: the fit "
                    f"knows {listed(levels.labels.tolist())}."
                )
            slopes.append(np.eye(len(levels.labels))[codes][:, 1:])
            continue
        values = columns.numbers(part.column, "residual")
        if isinstance(part, ExponentialVariance):
            slopes.append(values[:, None])
        elif isinstance(part, PowerVariance):
            if not values.all():
                raise ValueError(f"{part!r}: {part.column!r} is 0 in some rows.")
            slopes.append(np.log(np.abs(values))[:, None])
        else:
            if not (values > 0).all():
                raise ValueError(
                    f"{part!r}: variances are positive, but {part.column!r} has "
                    f"{values.min():g}."
                )
            known = known + 0.5 * np.log(values)
    return known, np.hstack(slopes)
