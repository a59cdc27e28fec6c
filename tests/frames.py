"""Frames for the tests."""

import pandas as pd
import polars as pl


def to_polars(frame: pd.DataFrame) -> pl.DataFrame:
    """Return the same rows as a polars frame, nulls for missing values.

    `polars.from_pandas` would need pyarrow.
    """
    return pl.DataFrame(
        {
            name: [None if pd.isna(value) else value for value in frame[name].tolist()]
            for name in frame.columns
        }
    )
