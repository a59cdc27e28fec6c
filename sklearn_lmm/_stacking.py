"""Some rows of a table, and the rows of one after those of another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from sklearn_lmm._labels import is_polars
from sklearn_lmm._types import IntArray


def take(data: Any, rows: IntArray | None) -> Any:
    """Return some rows of a frame, series, array or list, all for None; None of None.

    rows : their positions
    """
    return data if data is None or rows is None else _safe_indexing(data, rows)


def stacked(first: Any, second: Any) -> Any:
    """Return the rows of both, with the columns that both have.

    Raises
    ------
    ValueError
        If they are not of one kind, or only one is there at all.
    """
    if first is None and second is None:
        return None
    kind, other = _kind(first), _kind(second)
    if kind != other:
        kinds = " and ".join(type(x).__name__ for x in (first, second))
        raise ValueError(
            f"The rows of the fit and the new ones come as {kinds}: give both alike."
        )
    if kind == "array":
        return np.concatenate([np.asarray(first), np.asarray(second)])
    tables = hasattr(first, "columns") and hasattr(second, "columns")
    if tables:
        shared = [name for name in first.columns if name in set(second.columns)]
        first, second = first[shared], second[shared]
    if kind == "pandas":
        return pd.concat([first, second], ignore_index=True)
    import polars as pl

    return pl.concat([first, second], how="vertical_relaxed" if tables else "vertical")


def _kind(rows: Any) -> str:
    if is_polars(rows):
        return "polars"
    return "pandas" if isinstance(rows, pd.DataFrame | pd.Series) else "array"
