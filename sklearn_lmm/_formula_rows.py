"""The rows that a formula is applied to: the columns it reads, without gaps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length

from sklearn_lmm._columns import did_you_mean, listed
from sklearn_lmm._labels import is_polars
from sklearn_lmm._stacking import take
from sklearn_lmm._types import BoolArray, IntArray


class FormulaRows(NamedTuple):
    """Rows of a fit, and where they were.

    X : the columns that are read
    positions : of the rows, among those given
    n_dropped : how many were left out for missing values
    """

    X: pd.DataFrame
    y: Any
    groups: Any
    sample_weight: Any
    positions: IntArray
    n_dropped: int

    @property
    def data(self) -> tuple[pd.DataFrame, Any, Any, Any]:
        """X, y, groups and weights."""
        return self.X, self.y, self.groups, self.sample_weight


def column_names(X: Any, who: str) -> list[Any]:
    """Return the names of the columns of X; `who` wants them, for the error.

    Raises
    ------
    ValueError
        If X has no names.
    """
    if isinstance(X, pd.DataFrame) or (is_polars(X) and hasattr(X, "columns")):
        return list(X.columns)
    raise ValueError(
        f"{who} needs columns with names: they must be a DataFrame (pandas or polars); "
        f"got {type(X).__name__}."
    )


def check_present(wanted: Iterable[str], X: Any, who: str) -> None:
    """Refuse an X that lacks a column which `who` wants, or has two of the name.

    Raises
    ------
    ValueError
        With the columns that there are, and one of a similar name.
    """
    names = column_names(X, who)
    for name in wanted:
        if names.count(name) > 1:
            raise ValueError(
                f"{who} needs the column {name!r}, but there are {names.count(name)} "
                "of this name: rename all but one."
            )
        if name not in names:
            known = [str(other) for other in names]
            raise ValueError(
                f"{who} needs the column {name!r}, but there is no such column "
                f"({listed(known)}).{did_you_mean(name, known)}"
            )


def take_columns(X: Any, wanted: Sequence[str]) -> pd.DataFrame:
    """Return some columns of X in pandas, their rows numbered from 0."""
    if isinstance(X, pd.DataFrame):
        return X[list(wanted)].reset_index(drop=True)
    columns = {name: _from_polars(X[name]) for name in wanted}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(X)))


def _from_polars(column: Any) -> Any:
    import polars as pl

    if column.dtype in (pl.Categorical, pl.Enum):
        text = column.cast(pl.String).to_list()
        present = set(text) - {None}
        # An Enum has an order of its own; categories are in order of appearance.
        own = column.dtype.categories.to_list() if column.dtype == pl.Enum else []
        return pd.Categorical(text, [c for c in own if c in present] or sorted(present))
    values = column.to_numpy()
    return values.astype(object) if column.dtype == pl.String else values


def plain_covariates(data: pd.DataFrame) -> pd.DataFrame:
    """Return covariates as numbers, booleans and categories in use.

    Raises
    ------
    ValueError
        If a column holds times, or text and numbers.
    """
    plain = {str(name): _plain(str(name), column) for name, column in data.items()}
    return pd.DataFrame(plain, data.index)


def _plain(name: str, column: pd.Series[Any]) -> Any:
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories()
    if dtype.kind in "iufb":
        if isinstance(dtype, np.dtype):
            return column
        # Extension types have missing values of their own.
        return column.to_numpy(np.float64 if column.hasnans else dtype.numpy_dtype)
    inferred = column.infer_objects()
    kind = pd.api.types.infer_dtype(inferred, skipna=True)
    if (
        kind.startswith("mixed-integer")
        or kind == "mixed"
        or inferred.dtype.kind in "mM"
    ):
        raise ValueError(
            f"The formula reads {name!r}, whose values are of kind {kind!r}: convert "
            "them to numbers (of times such as days), or all to text."
        )
    return pd.Categorical(inferred) if kind == "string" else inferred


def complete_rows(
    X: pd.DataFrame, y: Any, groups: Any, sample_weight: Any, na_action: str
) -> FormulaRows:
    """Leave out rows of weight 0 and, if na_action says "drop", with missing values.

    Raises
    ------
    ValueError
        If values are missing and na_action is "raise", or no row is left.
    """
    check_consistent_length(X, y, groups, sample_weight)
    keep = np.ones(len(X), dtype=bool)
    if sample_weight is not None:
        keep &= np.asarray(sample_weight) != 0
    missing = X.isna().to_numpy()
    if na_action == "raise":
        _refuse_missing(X.columns, missing[keep])
        n_dropped = 0
    else:
        gaps = missing.any(axis=1) | _missing(y, len(X)) | _missing(groups, len(X))
        gaps |= _missing(sample_weight, len(X))
        n_dropped = int((keep & gaps).sum())
        keep &= ~gaps
    rows = np.flatnonzero(keep)
    if keep.all():
        return FormulaRows(X, y, groups, sample_weight, rows, 0)
    if not keep.any():
        raise ValueError("No row is left: each has missing values or weight 0.")
    return FormulaRows(
        X.iloc[rows].reset_index(drop=True),
        take(y, rows),
        take(groups, rows),
        None if sample_weight is None else np.asarray(sample_weight)[rows],
        rows,
        n_dropped,
    )


def refuse_missing(X: pd.DataFrame) -> None:
    """Refuse missing values, naming columns and counts.

    Raises
    ------
    ValueError
        If there are any.
    """
    _refuse_missing(X.columns, X.isna().to_numpy())


def _refuse_missing(names: Collection[Any], missing: BoolArray) -> None:
    if not missing.any():
        return
    counts = zip(names, missing.sum(axis=0).tolist(), strict=True)
    found = [f"{name!r} ({count})" for name, count in counts if count]
    raise ValueError(
        f"Values are missing in {missing.any(axis=1).sum()} of {len(missing)} rows: "
        f"{listed(found, quote=False)}. Fill them in or leave these rows out; a fit "
        "leaves them out with na_action='drop'."
    )


def _missing(values: Any, n_rows: int) -> BoolArray:
    if values is None:
        return np.zeros(n_rows, dtype=bool)
    if is_polars(values):
        values = values.to_numpy()
    missing = pd.DataFrame(values).isna()
    return np.asarray(missing.any(axis=1))
