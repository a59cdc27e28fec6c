"""Rows of tables in every container."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse

from sklearn_lmm._stacking import take

ROWS = [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        np.array(ROWS),
        pd.DataFrame(ROWS, columns=["a", "b"], index=[7, 8, 9]),
        pl.DataFrame(ROWS, schema=["a", "b"], orient="row"),
        sparse.csr_array(ROWS),
    ],
    ids=lambda data: type(data).__name__,
)
def test_some_rows_of_a_table(data):
    found = take(data, np.array([2, 0]))
    assert type(found) is type(data)
    entries = found.toarray() if sparse.issparse(found) else np.asarray(found)
    assert entries.tolist() == [ROWS[2], ROWS[0]]
    assert take(data, None) is data


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pl.Series, pd.Categorical])
def test_some_entries_of_a_column(kind):
    found = take(kind(["u", "v", "w"]), np.array([2, 0]))
    assert list(found) == ["w", "u"]


def test_nothing_has_no_rows():
    assert take(None, np.array([0])) is None
