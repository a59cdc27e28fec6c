"""X, y and weights: checked, and read column by column as numbers.

A frame stays the frame it is and every column is read on its own, so that
labels and unused text never meet a numeric check; an array is checked whole.
A sparse matrix stays sparse: only single columns of it are made dense.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from sklearn_lmm._labels import as_array, is_polars
from sklearn_lmm._types import AnyArray, FloatArray
from sklearn_lmm.terms import Reference

MOST_SPARSE_COLUMNS = 5000
"""Fixed effects of a sparse X, at most: X'X is dense, and takes 8 p^2 bytes."""


@dataclass(frozen=True, eq=False)
class Table:
    """X, its form checked: columns by position or name, as they are or as numbers.

    data : a pandas or polars DataFrame, a 2-D array, or a sparse one in CSR
    names : of the columns; x0, x1, … where X has none
    named : whether the names are X's own
    """

    data: Any
    names: tuple[str, ...]
    named: bool

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def column(self, position: int) -> Any:
        """Return one column as it is: a series or a 1-D array."""
        if isinstance(self.data, pd.DataFrame):
            return self.data.iloc[:, position]
        if is_polars(self.data):
            return self.data.to_series(position)
        if sparse.issparse(self.data):
            return self._csr()[:, [position]].toarray()[:, 0]
        return self.data[:, position]

    def position(self, reference: Reference, role: str) -> int:
        """Return the position of a column, given its name or position.

        Raises
        ------
        ValueError
            If X has no such column, or several of the name; `role` says what
            the column was wanted for.
        """
        if isinstance(reference, str):
            return self._by_name(reference, role)
        n_columns = len(self.names)
        if not -n_columns <= reference < n_columns:
            raise ValueError(
                f"{role} names column {reference} of X by position, but X has "
                f"n_features = {n_columns}."
            )
        return reference % n_columns

    def _by_name(self, name: str, role: str) -> int:
        count = self.names.count(name)
        if count == 1:
            return self.names.index(name)
        if count:
            raise ValueError(
                f"{role} names {name!r}, but X has {count} such columns: rename all "
                "but one."
            )
        raise ValueError(f"{role} names {name!r}, but {self.without(name)}")

    def without(self, name: str) -> str:
        """Say that a column is absent, and what may help."""
        if not self.named:
            return (
                f"X has no column names (n_features = {len(self.names)}). Pass a "
                "DataFrame (in a pipeline: set_output(transform='pandas')), or give "
                "the column's integer position."
            )
        return (
            f"X has no such column (n_features = {len(self.names)}: "
            f"{listed(self.names)}).{did_you_mean(name, self.names)}"
        )

    def matrix(self, positions: Sequence[int]) -> FloatArray | sparse.csr_array:
        """Return columns as `numbers` does, but sparse if X is sparse.

        Raises
        ------
        ValueError
            As `numbers`, or if there are more than `MOST_SPARSE_COLUMNS`.
        """
        if not sparse.issparse(self.data):
            return self.numbers(positions)
        if len(positions) > MOST_SPARSE_COLUMNS:
            raise ValueError(
                f"X is sparse and has {len(positions)} columns with fixed effects, "
                f"more than {MOST_SPARSE_COLUMNS}: their cross-products are a dense "
                "square matrix. Say in `fixed` which columns to use, or do not "
                "one-hot encode a column of many categories, but name it in `random`."
            )
        every = list(positions) == list(range(len(self.names)))
        part = self._csr() if every else self._csr()[:, list(positions)]
        return sparse.csr_array(part.astype(np.float64, copy=False))

    def _csr(self) -> sparse.csr_array:
        # Sparse matrices, which share no operators with arrays, are accepted too.
        return sparse.csr_array(self.data)

    def numbers(self, positions: Sequence[int]) -> FloatArray:
        """Return columns as an (n, len(positions)) array of finite numbers.

        A view of X where its type and the positions allow it.

        Raises
        ------
        ValueError
            If a column holds text or other labels, NaN or infinity.
        """
        if not len(positions):
            return np.empty((len(self), 0))
        if sparse.issparse(self.data):
            columns = self._csr()[:, list(positions)]
            return np.asarray(columns.toarray(), dtype=np.float64)
        if isinstance(self.data, pd.DataFrame):
            return self._pandas_numbers(positions)
        if is_polars(self.data):
            return self._polars_numbers(positions)
        part = self.data[:, _selection(positions)]
        if part.dtype.kind in "biuf":
            return np.asarray(part, dtype=np.float64)
        return self._each(part.astype(object).T, positions)

    def _pandas_numbers(self, positions: Sequence[int]) -> FloatArray:
        part = self.data.iloc[:, _selection(positions)]
        dtypes = part.dtypes.to_numpy()
        if all(dtype.kind in "biuf" for dtype in dtypes):
            plain = all(isinstance(dtype, np.dtype) for dtype in dtypes)
            missing = {} if plain else {"na_value": np.nan}
            numbers: FloatArray = part.to_numpy(np.float64, **missing)
            assert_all_finite(numbers, input_name="X")
            return numbers
        labels = [isinstance(t, pd.CategoricalDtype) or t.kind in "mM" for t in dtypes]
        self._refuse(positions, labels, dtypes)
        columns = [part.iloc[:, k].to_numpy(object) for k in range(len(dtypes))]
        return self._each(columns, positions)

    def _polars_numbers(self, positions: Sequence[int]) -> FloatArray:
        import polars as pl

        part = self.data[:, list(positions)]
        labels = [not (t.is_numeric() or t == pl.Boolean) for t in part.dtypes]
        self._refuse(positions, labels, part.dtypes)
        numbers: FloatArray = part.cast(pl.Float64).to_numpy()
        assert_all_finite(numbers, input_name="X")
        return numbers

    def _each(self, columns: Sequence[Any], positions: Sequence[int]) -> FloatArray:
        """Read columns of Python objects, none of them text."""
        self._refuse(
            positions, [_has_text(c) for c in columns], ["text"] * len(columns)
        )
        numbers = np.column_stack([_as_float(column) for column in columns])
        assert_all_finite(numbers, input_name="X")
        return numbers

    def _refuse(
        self, positions: Sequence[int], wrong: Sequence[bool], types: Sequence[Any]
    ) -> None:
        found = [
            f"{self.names[position]!r} ({kind})"
            for position, is_wrong, kind in zip(positions, wrong, types, strict=True)
            if is_wrong
        ]
        if found:
            raise ValueError(
                f"X has columns that are not numeric: {listed(found, quote=False)}. "
                "Name them in `random` if rows are grouped by them, say in `fixed` "
                "which columns do have fixed effects, or encode them (OneHotEncoder, "
                "TargetEncoder)."
            )


# What `infer_dtype` calls a column without text.
_NUMERIC = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty"}


def is_numeric(column: Any) -> bool:
    """Whether a column of a table holds what `Table.numbers` takes for numbers."""
    if is_polars(column):
        import polars as pl

        return bool(column.dtype.is_numeric() or column.dtype == pl.Boolean)
    if column.dtype.kind != "O":
        return column.dtype.kind in "biuf"
    if isinstance(column.dtype, pd.CategoricalDtype):
        return False
    return pd.api.types.infer_dtype(column, skipna=True) in _NUMERIC


def _has_text(column: AnyArray) -> bool:
    if pd.api.types.infer_dtype(column, skipna=True) in _NUMERIC:
        return False
    return any(isinstance(value, str) for value in column)


def _as_float(column: AnyArray) -> FloatArray:
    return np.where(pd.isna(column), np.nan, column).astype(np.float64)


def _selection(positions: Sequence[int]) -> slice | list[int]:
    """Return a slice where it says the same, because it makes a view."""
    first, last = positions[0], positions[-1]
    if list(positions) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return list(positions)


def listed(names: Sequence[object], quote: bool = True, limit: int = 8) -> str:
    """Return names or labels as an enumeration, the long tail left out."""
    shown = list(map(repr if quote else str, names[:limit]))
    return ", ".join(shown + ["…"] * (len(names) > limit))


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return a question after the name that is most like one that is not there."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def read_table(
    estimator: BaseEstimator,
    X: Any,
    y: Any = None,
    *,
    fitting: bool,
    empty: bool = False,
) -> Table:
    """Check the form of X as scikit-learn does, without converting it.

    At fit names and number of columns are recorded on the estimator, and y has
    to be there; later they are compared with the recorded ones.  A formula may
    read no column at all, so that the frame it leaves is `empty`.

    Raises
    ------
    ValueError
        If X is complex, not 2-D or empty, if an array holds NaN or infinity,
        or if the columns are not those of the fit.
    """
    min_rows = 2 if fitting else 1
    X = without_arrow(X)
    data = X
    # 1-D and empty X come before the columns are counted and compared.
    if isinstance(X, pd.DataFrame) or (is_polars(X) and hasattr(X, "columns")):
        _check_frame(X, min_rows, 0 if empty else 1)
    else:
        data = check_array(
            as_array(X) if isinstance(X, list | tuple) else X,
            accept_sparse="csr",
            dtype=None,
            ensure_all_finite=False,
            ensure_min_samples=min_rows,
            estimator=estimator,
            input_name="X",
        )
        if data.dtype.kind == "f":
            assert_all_finite(data, input_name="X")
    response = {"y": y} if fitting else {}
    validate_data(estimator, X, **response, reset=fitting, skip_check_array=True)
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return Table(data, tuple(names), True)
    return Table(data, tuple(f"x{j}" for j in range(data.shape[1])), False)


def without_arrow(X: Any) -> Any:
    """Return pyarrow's tables and record batches as pandas frames, the rest as is."""
    arrow = type(X).__module__.partition(".")[0] == "pyarrow"
    return X.to_pandas() if arrow and hasattr(X, "to_pandas") else X


def _check_frame(X: Any, min_rows: int, min_columns: int) -> None:
    n_rows, n_columns = X.shape
    for found, minimum, what in (
        (n_rows, min_rows, "sample"),
        (n_columns, min_columns, "feature"),
    ):
        if found < minimum:
            raise ValueError(
                f"Found array with {found} {what}(s) (shape={X.shape}) while a "
                f"minimum of {minimum} is required."
            )


def read_response(y: Any, n_rows: int) -> FloatArray:
    """Return y (n,) as finite floats; a single column is taken as a vector.

    Raises
    ------
    ValueError
        If y has several columns, another length than X, NaN, infinity or text.
    """
    # A series would be converted column by column, like a frame: ten times slower.
    plain = isinstance(y, pd.Series) and isinstance(y.dtype, np.dtype)
    values = column_or_1d(y.to_numpy() if plain else y, warn=True)
    if values.dtype == object:
        values = _as_float(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"y must be numeric, got values of type {values.dtype}, such as "
            f"{values.tolist()[0]!r}."
        )
    if len(values) != n_rows:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {n_rows} rows, y has {len(values)}."
        )
    response: FloatArray = values.astype(np.float64, copy=False)
    assert_all_finite(response, input_name="y")
    return response


def read_weights(sample_weight: Any, y: FloatArray) -> FloatArray | None:
    """Return weights (n,), 0 or more and not all 0; None for None.

    Raises
    ------
    ValueError
        If there are negative weights, only zeros, NaN, or not one for each row.
    """
    if sample_weight is None:
        return None
    weights: FloatArray = _check_sample_weight(sample_weight, y, dtype=np.float64)
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise ValueError(
            f"sample_weight has {len(negative)} negative values, first "
            f"{weights[negative[0]]:g} in row {negative[0]}; weights are 0 or more."
        )
    if not weights.any():
        raise ValueError("sample_weight has only zeros: at least one non-zero weight.")
    return weights
