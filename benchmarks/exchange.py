"""A frame on disk, in a form that Python and R read fast and exactly.

`columns.csv` lists (name, kind, rows); NAME.bin holds a column as 8-byte numbers,
for a factor the positions of its labels, which NAME.txt lists one a line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DTYPES = {"double": np.float64, "integer": np.int64, "factor": np.int64}


def save(frame: pd.DataFrame, directory: Path) -> None:
    """Write the columns of a frame: numbers, integers and categoricals."""
    columns = []
    for name, column in frame.items():
        kind = _kind(column)
        if kind == "factor":
            labels = column.cat.categories.astype(str)
            (directory / f"{name}.txt").write_text("\n".join(labels) + "\n")
            column = column.cat.codes
        column.to_numpy(DTYPES[kind]).tofile(directory / f"{name}.bin")
        columns.append((name, kind, len(column)))
    table = pd.DataFrame(columns, columns=["name", "kind", "rows"])
    table.to_csv(directory / "columns.csv", index=False)


def load(directory: Path) -> pd.DataFrame:
    """Read the columns again, without using more memory than they need."""
    data = {}
    for name, kind, _ in pd.read_csv(directory / "columns.csv").itertuples(index=False):
        values: Any = np.fromfile(directory / f"{name}.bin", DTYPES[kind])
        if kind == "factor":
            labels = (directory / f"{name}.txt").read_text().splitlines()
            values = pd.Categorical.from_codes(values, pd.Index(labels))
        data[name] = values
    return pd.DataFrame(data, copy=False)


def _kind(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "factor"
    return "integer" if column.dtype.kind in "iu" else "double"
