"""Rows of one table after those of another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._types import IntArray


def take(rows: Any, positions: IntArray) -> Any:
    """Return some rows of a frame, series or array; None of None."""
    if rows is None:
        return None
    if isinstance(rows, pd.DataFrame | pd.Series):
        return rows.iloc[positions]
    return np.asarray(rows)[positions]


def stacked(first: Any, second: Any) -> Any:
    """Return the rows of both, with the columns that both have.

    Raises
    ------
    ValueError
        If only one is a frame, or only one is there at all.
    """
    if first is None and second is None:
        return None
    framed = [isinstance(x, pd.DataFrame | pd.Series) for x in (first, second)]
    if framed[0] != framed[1]:
        kinds = " and ".join(type(x).__name__ for x in (first, second))
        raise ValueError(
            f"The rows of the fit and the new ones come as {kinds}: give both alike."
        )
    if not framed[0]:
        return np.concatenate([np.asarray(first), np.asarray(second)])
    if isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame):
        shared = [name for name in first.columns if name in set(second.columns)]
        first, second = first[shared], second[shared]
    return pd.concat([first, second], ignore_index=True)
