"""What the rows of a fit say of the variables in its fixed part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._types import FloatArray


@dataclass(frozen=True)
class Covariate:
    """One variable.

    levels : of a category, in its order; None of a number
    mean, low, high : of a number; NaN of a category
    """

    levels: tuple[Any, ...] | None
    mean: float = np.nan
    low: float = np.nan
    high: float = np.nan


def describe(
    data: pd.DataFrame, levels: Mapping[str, list[Any]], weights: FloatArray | None
) -> dict[str, Covariate]:
    """Return what there is of every column; those in `levels` are categories."""
    found = {}
    for name, column in ((str(key), values) for key, values in data.items()):
        if name in levels:
            found[name] = Covariate(tuple(levels[name]))
        elif column.dtype.kind == "b":
            found[name] = Covariate((False, True))
        elif pd.api.types.is_numeric_dtype(column.dtype):
            values = column.to_numpy(np.float64)
            mean = float(np.average(values, weights=weights))
            found[name] = Covariate(None, mean, values.min(), values.max())
        else:
            found[name] = Covariate(tuple(pd.unique(column)))
    return found
