"""X, y and weights: what is refused, what is read, what is not copied."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import DataConversionWarning

from sklearn_lmm._columns import Table, listed, read_response, read_table, read_weights


class Reader(RegressorMixin, BaseEstimator):
    """Stands for the estimator on which the columns of X are recorded."""


def table(X, n_rows=None):
    n_rows = len(X) if n_rows is None else n_rows
    return read_table(Reader(), X, np.zeros(n_rows), fitting=True)


FRAME = pd.DataFrame(
    {
        "x": [1.0, 2.0, 3.0],
        "school": ["a", "b", "a"],
        "k": [4, 5, 6],
        "flag": [True, False, True],
    },
    index=[7, 8, 9],
)
FRAMES = {
    "pandas": FRAME,
    "polars": pl.DataFrame(FRAME.to_dict("list")),
    "objects": FRAME.to_numpy(object),
    "nullable": FRAME.astype({"x": "Float64", "k": "Int64", "flag": "boolean"}),
    "single": FRAME.astype({"x": np.float32, "k": np.uint8}),
    "column of objects": FRAME.astype({"x": object, "k": object}),
    "polars decimal": pl.DataFrame(FRAME.to_dict("list")).with_columns(
        pl.col("x").cast(pl.Decimal(10, 2))
    ),
    "pandas decimal": FRAME.assign(x=[Decimal(1), Decimal(2), Decimal(3)]),
}
each_frame = pytest.mark.parametrize("X", FRAMES.values(), ids=FRAMES)


@each_frame
@pytest.mark.parametrize("positions", [(), (0,), (2, 3), (0, 2), (3, 0), (0, 2, 3)])
def test_numbers_in_the_order_asked_for(X, positions):
    expected = np.array([[1, 2, 3], [0] * 3, [4, 5, 6], [1, 0, 1]], float)
    numbers = table(X).numbers(positions)
    assert numbers.dtype == np.float64
    assert numbers.shape == (3, len(positions))
    assert (numbers.T == expected[list(positions)]).all()


@each_frame
def test_text_among_the_numbers_is_refused_by_name(X):
    name = "x1" if isinstance(X, np.ndarray) else "school"
    with pytest.raises(ValueError, match=rf"not numeric: '{name}' \(.*OneHotEncoder"):
        table(X).numbers([0, 1])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.Categorical([1, 2, 1])),
        pd.Series(pd.to_datetime(["2020-01-01"] * 3)),
        pd.Series(["1", "2", "3"], dtype="string"),
        pd.Series([1, "2", 3], dtype=object),
        pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        pl.Series([1, 2, 3]).cast(pl.Date),
    ],
)
def test_labels_among_the_numbers_are_refused(column):
    frame = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    with pytest.raises(ValueError, match="not numeric: 'odd'"):
        table(frame({"odd": column})).numbers([0])


@each_frame
def test_a_column_is_handed_out_as_it_is(X):
    assert list(table(X).column(1)) == ["a", "b", "a"]


@pytest.mark.parametrize(
    "X",
    [
        np.array([[1.0, np.nan], [1.0, 2.0]]),
        np.array([[1.0, None], [1.0, 2.0]], object),
        pd.DataFrame({"a": [1, 1], "b": [np.nan, 2.0]}),
        pd.DataFrame({"a": [1, 1], "b": [pd.NA, 2]}, dtype="Int64"),
        pl.DataFrame({"a": [1, 1], "b": [None, 2.0]}),
        pl.DataFrame({"a": [1, 1], "b": [float("nan"), 2.0]}),
    ],
)
def test_nan_is_refused(X):
    with pytest.raises(ValueError, match="X contains NaN"):
        table(X).numbers([0, 1])


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="X contains infinity"):
        table(np.array([[1.0], [np.inf]]))
    with pytest.raises(ValueError, match="X contains infinity"):
        table(pd.DataFrame({"a": [1.0, -np.inf]})).numbers([0])


def test_unused_columns_of_a_frame_are_not_looked_at():
    X = pd.DataFrame({"a": [1.0, 2.0], "b": ["u", None], "c": [np.nan, np.inf]})
    assert table(X).numbers([0]).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.arange(3.0), "Reshape your data"),
        (np.eye(3) * 1j, "Complex data not supported"),
        (np.empty((3, 0)), r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1"),
        (FRAME[[]], r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1"),
        (np.eye(1), r"1 sample\(s\) \(shape=\(1, 1\)\) while a minimum of 2"),
        (FRAME[:1], r"1 sample\(s\) \(shape=\(1, 4\)\) while a minimum of 2"),
        (pl.DataFrame({"a": [1]}), r"1 sample\(s\) \(shape=\(1, 1\)\)"),
    ],
)
def test_forms_of_X_that_are_refused(X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        table(X, 3)


def test_one_row_is_enough_after_the_fit():
    reader = Reader()
    read_table(reader, FRAME, np.zeros(3), fitting=True)
    assert len(read_table(reader, FRAME[:1], fitting=False)) == 1


def test_columns_are_recorded_and_compared():
    reader = Reader()
    read_table(reader, FRAME, np.zeros(3), fitting=True)
    assert reader.feature_names_in_.tolist() == ["x", "school", "k", "flag"]
    assert reader.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names should match"):
        read_table(reader, FRAME[["x", "k", "school", "flag"]], fitting=False)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        again = read_table(reader, FRAME.to_numpy(object), fitting=False)
    assert again.names == ("x", "school", "k", "flag")
    with (
        pytest.warns(UserWarning, match="does not have valid feature names"),
        pytest.raises(ValueError, match="X has 2 features, but Reader is expecting 4"),
    ):
        read_table(reader, np.eye(2), fitting=False)


def test_missing_y_gives_the_usual_error():
    with pytest.raises(ValueError, match="requires y to be passed, but the target y"):
        read_table(Reader(), FRAME, None, fitting=True)


def test_positions():
    t = table(FRAME)
    assert [t.position(r, "random") for r in ("x", "flag", 1, -1)] == [0, 3, 1, 3]
    assert table(np.eye(3)).position("x2", "random") == 2
    unnamed = table(pd.DataFrame(np.eye(3)))
    assert unnamed.position("x1", "random") == 1


@pytest.mark.parametrize(
    ("X", "reference", "message"),
    [
        (FRAME, 4, "random names column 4 .* n_features = 4"),
        (FRAME, -5, "random names column -5 .* n_features = 4"),
        (FRAME, "scool", "random names 'scool'.*n_features = 4.*mean 'school'"),
        (FRAME, "zzz", r"no such column \(n_features = 4: 'x', 'school'"),
        (np.eye(3), "school", "DataFrame .*set_output.*integer position"),
        (np.eye(3), "x3", r"no column names \(n_features = 3\)"),
    ],
)
def test_absent_columns(X, reference, message):
    with pytest.raises(ValueError, match=message):
        table(X).position(reference, "random")


def test_a_name_that_several_columns_have_is_refused():
    twice = Table(np.eye(2), ("a", "a"), named=True)
    with pytest.raises(ValueError, match="random names 'a', but X has 2 such"):
        twice.position("a", "random")


def test_numbers_of_an_array_are_views_where_possible():
    X = np.random.default_rng(0).normal(size=(5, 4))
    t = table(X)
    assert np.shares_memory(t.numbers([0, 1, 2, 3]), X)
    assert np.shares_memory(t.numbers([1, 2]), X)
    assert np.shares_memory(t.numbers([3]), X)
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert np.shares_memory(table(frame).numbers([1, 2, 3]), frame.to_numpy())


@pytest.mark.parametrize(
    "y",
    [
        [1, 2, 3],
        np.array([1, 2, 3], np.int8),
        np.array([1, 2, 3], object),
        pd.Series([1.0, 2.0, 3.0]),
        pd.Series([1, 2, 3], dtype="Int64"),
        pl.Series([1, 2, 3]),
    ],
)
def test_response_is_a_vector_of_floats(y):
    response = read_response(y, 3)
    assert response.dtype == np.float64
    assert response.tolist() == [1.0, 2.0, 3.0]


def test_response_is_not_copied():
    y = np.arange(3.0)
    assert np.shares_memory(read_response(y, 3), y)


def test_column_vector_is_taken_with_a_warning():
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        assert read_response(np.ones((3, 1)), 3).shape == (3,)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((3, 2)), "y should be a 1d array"),
        ([1, np.nan, 3], "y contains NaN"),
        ([1, np.inf, 3], "y contains infinity"),
        (["a", "b", "c"], "y must be numeric, got .*'a'"),
        (np.array([1j, 2, 3]), "Complex data not supported"),
        ([1, 2], "inconsistent numbers of samples: X has 3 rows, y has 2"),
    ],
)
def test_bad_response_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        read_response(y, 3)


def test_weights():
    y = np.zeros(3)
    assert read_weights(None, y) is None
    assert read_weights([0, 1, 2], y).tolist() == [0.0, 1.0, 2.0]
    assert read_weights(pd.Series([1, 1, 2], index=[5, 6, 7]), y).dtype == np.float64
    assert read_weights(pl.Series([1, 1, 2]), y).tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -2, -1], "2 negative values, first -2 in row 1"),
        ([0, 0, 0], "at least one non-zero"),
        ([1, np.nan, 1], "sample_weight contains NaN"),
        ([1, 1], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        (np.ones((3, 1)), "must be 1D array or scalar"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        read_weights(weights, np.zeros(3))


def test_long_enumerations_are_cut():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(list("abcdefghij"), quote=False) == "a, b, c, d, e, f, g, h, …"
