"""Labels to codes: every container, by value, never text against numbers."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_lmm._labels import (
    encode,
    first_difference,
    kind_of,
    learn_levels,
)

INTEGERS = [308, 309, 308, 372, 309, 308]
NUMBERS = {
    "int64": np.array(INTEGERS),
    "int16": np.array(INTEGERS, np.int16),
    "uint64": np.array(INTEGERS, np.uint64),
    "float64": np.array(INTEGERS, float),
    "float32": np.array(INTEGERS, np.float32),
    "object": np.array(INTEGERS, object),
    "mixed objects": np.array([308, 309.0, Decimal(308), 372, 309, 308], object),
    "series": pd.Series(INTEGERS, index=list("fedcba")),
    "Int64": pd.Series(INTEGERS, dtype="Int64"),
    "Float64": pd.Series(INTEGERS, dtype="Float64"),
    "category": pd.Series(pd.Categorical(INTEGERS, [1, 372, 309, 308])),
    "polars": pl.Series(INTEGERS),
    "polars float": pl.Series(INTEGERS, dtype=pl.Float32),
}
WORDS = ["b", "a", "b", "d", "a", "b"]
TEXTS = {
    "str": np.array(WORDS),
    "object": np.array(WORDS, object),
    "series": pd.Series(WORDS),
    "object series": pd.Series(WORDS, dtype=object),
    "string": pd.Series(WORDS, dtype="string"),
    "category": pd.Series(pd.Categorical(WORDS, ["x", "d", "a", "b", "y"])),
    "ordered": pd.Series(pd.Categorical(WORDS, ["d", "b", "a"], ordered=True)),
    "polars": pl.Series(WORDS),
    "polars category": pl.Series(WORDS, dtype=pl.Categorical),
    "polars enum": pl.Series(WORDS, dtype=pl.Enum(["x", "d", "b", "a"])),
}
ALL = [*NUMBERS.values(), *TEXTS.values()]


@pytest.mark.parametrize("column", ALL, ids=[*NUMBERS, *TEXTS])
def test_containers_give_the_same_codes(column):
    text = any(column is other for other in TEXTS.values())
    codes, levels = learn_levels(column, "g")
    assert sorted(levels.labels) == (["a", "b", "d"] if text else [308, 309, 372])
    assert codes.dtype == np.intp
    assert levels.labels[codes].tolist() == (WORDS if text else INTEGERS)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (NUMBERS["category"], [372, 309, 308]),
        (TEXTS["category"], ["d", "a", "b"]),
        (TEXTS["ordered"], ["d", "b", "a"]),
        (TEXTS["polars enum"], ["d", "b", "a"]),
        (TEXTS["polars category"], ["a", "b", "d"]),
        (TEXTS["str"], ["a", "b", "d"]),
        (NUMBERS["mixed objects"], [308, 309, 372]),
    ],
)
def test_levels_are_sorted_unless_categories_have_an_order(column, expected):
    assert learn_levels(column, "g")[1].labels.tolist() == expected


@pytest.mark.parametrize("family", [NUMBERS, TEXTS], ids=["numbers", "text"])
def test_labels_match_by_value_in_every_pair_of_containers(family):
    for at_fit in family.values():
        codes, levels = learn_levels(at_fit, "g")
        for new in family.values():
            assert levels.match(new).tolist() == codes.tolist()


def test_unknown_and_missing_labels_are_minus_one():
    _, levels = learn_levels(np.array([3, 5]), "g")
    assert levels.match(np.array([5.0, np.nan, 4.0, 3.0])).tolist() == [1, -1, -1, 0]
    assert levels.match(np.array([3, 4.5])).tolist() == [0, -1]
    assert levels.match(np.array([None, None])).tolist() == [-1, -1]
    _, levels = learn_levels(np.array(["u", "v"]), "g")
    for missing in (None, np.nan, pd.NA, pd.NaT):
        new = np.array(["v", missing, "w"], object)
        assert levels.match(new).tolist() == [1, -1, -1]
    assert levels.match(pl.Series([None, "v"])).tolist() == [-1, 1]


@pytest.mark.parametrize(
    "column",
    [
        np.array([1.0, 2.0, np.nan, 2.0, np.nan]),
        np.array([1.5, 2.0, np.nan, 2.0, np.nan]),
        np.array(["a", "b", None, "b", np.nan], object),
        pd.Series(["a", "b", None, "b", None]),
        pd.Series([1, 2, None, 2, None], dtype="Int64"),
        pd.Series(pd.Categorical(["a", "b", None, "b", None])),
        pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01", None, None, None])),
        pl.Series(["a", "b", None, "b", None]),
        pl.Series([1, 2, None, 2, None]),
        pl.Series(["a", "b", None, "b", None], dtype=pl.Categorical),
    ],
)
def test_missing_label_at_fit_is_refused_with_the_first_row(column):
    with pytest.raises(ValueError, match=r"'g' are missing .* in \d of 5 rows.*row 2"):
        learn_levels(column, "g")


def test_first_row_is_counted_as_the_user_counts():
    with pytest.raises(ValueError, match="first in row 7"):
        learn_levels(np.array([1.0, np.nan]), "g", np.array([4, 7]))


@pytest.mark.parametrize(
    ("at_fit", "new", "types"),
    [
        (np.array([308]), np.array(["308"]), r"text \(str\).*numbers \(int64\)"),
        (pd.Series(["308"]), pd.Series([308.0]), r"numbers \(float64\).*text \(str\)"),
        (np.array(["a"]), np.array(["2020-01-01"], "M8[D]"), r"times.*text"),
    ],
)
def test_labels_of_another_type_are_refused(at_fit, new, types):
    _, levels = learn_levels(at_fit, "g")
    with pytest.raises(ValueError, match=f"labels of 'g' are {types}"):
        levels.match(new)


def test_text_and_numbers_in_one_column_are_refused():
    mixed = np.array([308, "308"], object)
    with pytest.raises(ValueError, match=r"'g' mix text and numbers \(int, str\)"):
        learn_levels(mixed, "g")
    _, levels = learn_levels(np.array([308]), "g")
    with pytest.raises(ValueError, match="mix text and numbers"):
        levels.match(mixed)


def test_infinity_and_unhashable_labels_are_refused():
    with pytest.raises(ValueError, match="'g' contain infinity"):
        encode(np.array([1.0, np.inf]), "g")
    with pytest.raises(TypeError, match="argument must be of strings or of numbers"):
        encode(np.array([{"a": 1}, 2], object), "g")


def test_levels_that_cannot_be_sorted_keep_the_order_of_appearance():
    objects = np.empty(4, object)
    objects[:] = [(1, "b"), ("a", 2), (1, "b"), (0, 0)]
    codes, levels = learn_levels(objects, "g")
    assert levels.labels.tolist() == [(1, "b"), ("a", 2), (0, 0)]
    assert codes.tolist() == [0, 1, 0, 2]
    assert levels.match(objects[::-1]).tolist() == [2, 0, 1, 0]
    categories = pd.Series(pd.Categorical(objects, [(0, 0), ("a", 2), (1, "b")]))
    assert learn_levels(categories, "g")[1].labels.tolist() == [
        (0, 0),
        ("a", 2),
        (1, "b"),
    ]


def test_times_are_labels():
    days = np.array(["2021-05-01", "2020-01-01", "2021-05-01"], "M8[D]")
    codes, levels = learn_levels(days, "g")
    assert codes.tolist() == [1, 0, 1]
    assert levels.match(pd.Series(days.astype("M8[ns]"))).tolist() == [1, 0, 1]
    assert levels.match(pl.Series(days)).tolist() == [1, 0, 1]
    dates = np.array([datetime.date(2021, 5, 1), datetime.date(2020, 1, 1)], object)
    codes, levels = learn_levels(dates, "g")
    assert codes.tolist() == [1, 0]
    assert levels.match(dates[:1]).tolist() == [1]


def test_large_and_wide_integers_stay_exact():
    big = np.array([2**62, 2**62 + 1, 0])
    codes, levels = learn_levels(big, "g")
    assert codes.tolist() == [1, 2, 0]
    assert levels.match(big.astype(np.uint64)).tolist() == [1, 2, 0]
    huge = np.array([2**64 - 1, 2**64 - 2], np.uint64)
    assert learn_levels(huge, "g")[0].tolist() == [1, 0]
    small = np.array([-128, 127], np.int8)
    assert learn_levels(small, "g")[0].tolist() == [0, 1]


def test_bool_labels():
    codes, levels = learn_levels(np.array([True, False, True]), "g")
    assert levels.labels.tolist() == [False, True]
    assert codes.tolist() == [1, 0, 1]
    assert levels.match(np.array([1, 0, 2])).tolist() == [1, 0, -1]


@given(
    st.lists(st.integers(-5, 5) | st.integers(-(10**12), 10**12), min_size=1),
    st.sampled_from([np.int64, np.float64, object]),
)
def test_codes_and_labels_give_the_column_back(values, dtype):
    column = np.array(values, dtype)
    codes, labels = encode(column, "g")
    assert labels[codes].tolist() == column.tolist()
    assert sorted(set(codes.tolist())) == list(range(len(labels)))
    codes, levels = learn_levels(column, "g")
    assert levels.labels.tolist() == sorted(set(values))
    assert levels.labels[codes].tolist() == column.tolist()


@pytest.mark.parametrize("column", [np.array([]), pl.Series([], dtype=pl.String)])
def test_no_rows_have_no_labels(column):
    codes, labels = encode(column, "g")
    assert len(codes) == len(labels) == 0


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (np.array([True]), "numbers"),
        (np.array([Decimal(1), 2], object), "numbers"),
        (np.array(["a"], object), "text"),
        (np.array([b"a"], object), "objects"),
        (np.array([pd.Timestamp(0)], object), "times"),
    ],
)
def test_kinds(labels, kind):
    assert kind_of(labels, "g") == kind


@pytest.mark.parametrize(
    ("one", "other", "row"),
    [
        (np.array([1, 2]), pd.Series([1.0, 2.0]), None),
        (np.array([1, 2]), np.array([1, 3]), 1),
        (np.array([1, 2]), np.array(["1", "2"]), 0),
        (np.array([1.0, np.nan]), pl.Series([1, None]), None),
        (np.array([1.0, np.nan]), np.array([1, 7]), 1),
        (np.array([None, None]), np.array([None, "a"], object), 1),
    ],
)
def test_first_difference_between_columns(one, other, row):
    assert first_difference(one, other, "g") == row
    assert first_difference(other, one, "g") == row
