"""Rows that do not fit into memory, one batch after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._columns import listed
from sklearn_lmm._labels import compact

__all__ = ["ParquetBatches"]

BYTES_AT_ONCE = 1 << 20
"""Bytes of a column read from a file at a time."""

Batch = tuple[pd.DataFrame, pd.Series, pd.DataFrame | None, pd.Series | None]


class ParquetBatches:
    """Batches of rows from Parquet files, for `fit_batches`.

    Only one batch is in memory at a time, whatever the sizes of the files and of
    their row groups.  Can be iterated over more than once.

    Parameters
    ----------
    source : str, path or list of them
        Files; a directory stands for the files in it that end in .parquet, in
        the order of their names.
    y : str
        Column of the response.
    columns : list of str, default=None
        Columns of X, grouping columns and offset included. None: all that have
        no other use here.
    groups : str or list of str, default=None
        Columns to be passed as `groups`.
    sample_weight : str, default=None
        Column of the weights.
    batch_size : int, default=1_000_000
        Rows of a batch. More rows need more memory, but save time if there
        are many levels.

    Raises
    ------
    ValueError
        If there is no file, or if a file lacks a column.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.batches import ParquetBatches
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory) / "sleep.parquet"
    ...     load_sleepstudy().frame.to_parquet(path)
    ...     batches = ParquetBatches(path, y="Reaction", batch_size=50)
    ...     model = MixedEffectsRegressor("(1 + Days | Subject)").fit_batches(batches)
    >>> print(f"{model.sigma_:.4f}")
    25.5918
    """

    def __init__(
        self,
        source: str | PathLike[str] | Sequence[str | PathLike[str]],
        y: str,
        *,
        columns: Sequence[str] | None = None,
        groups: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        batch_size: int = 1_000_000,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it has to be 1 or more.")
        self.files = _files(source)
        self.y = y
        self.groups = [groups] if isinstance(groups, str) else groups
        self.sample_weight = sample_weight
        self.batch_size = batch_size
        others = {y, sample_weight, *(self.groups or ())}
        if columns is None:
            with _open(self.files[0]) as file:
                names = file.schema_arrow.names
            columns = [name for name in names if name not in others]
        self.columns = list(columns)
        for path in self.files:
            self._check(path)

    def __len__(self) -> int:
        """Return the number of batches."""
        total = 0
        for path in self.files:
            with _open(path) as file:
                total += -(-file.metadata.num_rows // self.batch_size)
        return total

    def __iter__(self) -> Iterator[Batch]:
        """Yield (X, y, groups, weights); None for what is not wanted."""
        for path in self.files:
            with _open(path) as file:
                parts = file.iter_batches(self.batch_size, columns=self._names())
                for rows in _of_size(parts, self.batch_size):
                    yield self._split(rows)

    def _names(self) -> list[str]:
        names = [*self.columns, self.y, *(self.groups or ())]
        names += [] if self.sample_weight is None else [self.sample_weight]
        return list(dict.fromkeys(names))

    def _check(self, path: str) -> None:
        with _open(path) as file:
            names = file.schema_arrow.names
        absent = [name for name in self._names() if name not in names]
        if absent:
            raise ValueError(
                f"{path} has no columns {listed(absent)}; it has {listed(names)}."
            )

    def _split(self, rows: Any) -> Batch:
        def series(name: str) -> pd.Series:
            return _frame(rows, [name])[name]

        return (
            _frame(rows, self.columns),
            series(self.y),
            None if self.groups is None else _frame(rows, self.groups),
            None if self.sample_weight is None else series(self.sample_weight),
        )


def _files(source: Any) -> list[str]:
    sources = [source] if isinstance(source, str | PathLike) else source
    files: list[str] = []
    for path in map(Path, sources):
        inside = sorted(map(fspath, path.glob("*.parquet")))
        files += inside if path.is_dir() else [fspath(path)]
    if not files:
        raise ValueError(f"There are no .parquet files in {source!r}.")
    return files


def _open(path: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            'Parquet files need pyarrow: pip install "sklearn-lmm[parquet]".'
        ) from error
    schema = pq.read_schema(path)
    text = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    # Text can only be labels; a dictionary spares us a Python string for each row.
    # Without a pre-buffer a row group need not fit into memory.
    return pq.ParquetFile(
        path, read_dictionary=text, pre_buffer=False, buffer_size=BYTES_AT_ONCE
    )


def _of_size(parts: Iterable[Any], size: int) -> Iterator[Any]:
    """Yield tables of `size` rows, the last of fewer, from record batches.

    pyarrow's own end where a row group does, if there are dictionaries.
    """
    import pyarrow as pa

    waiting: list[Any] = []
    for part in parts:
        missing = size - sum(map(len, waiting))
        while len(part) >= missing:
            yield pa.Table.from_batches([*waiting, part.slice(0, missing)])
            waiting, part, missing = [], part.slice(missing), size
        waiting += [part] if len(part) else []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _frame(rows: Any, names: Sequence[str]) -> pd.DataFrame:
    """Return columns of a table as a frame, text as sorted categories."""
    import pyarrow as pa

    part = rows.select(list(names))
    labels = [field.name for field in part.schema if pa.types.is_dictionary(field.type)]
    plain = part.select([name for name in names if name not in labels])
    frame: pd.DataFrame = plain.to_pandas()
    for name in labels:
        frame.insert(names.index(name), name, _categories(part.column(name)))
    return frame


def _categories(column: Any) -> pd.Series:
    """Return a dictionary-encoded column with only those categories that occur."""
    column = column.unify_dictionaries().combine_chunks()
    indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    codes, used = compact(indices.astype(np.intp), len(column.dictionary))
    categories = column.dictionary.take(used)
    if column.type.ordered:
        return pd.Series(pd.Categorical.from_codes(codes, categories.to_pandas()))
    order = np.argsort(categories.to_numpy(zero_copy_only=False), kind="stable")
    rank = np.empty(len(order) + 1, dtype=np.intp)
    # The last entry is what a missing label, -1, points at.
    rank[np.append(order, -1)] = np.append(np.arange(len(order)), -1)
    labels = categories.to_pandas().to_numpy()[order]
    return pd.Series(pd.Categorical.from_codes(rank[codes], labels))
