"""The argument `groups` in every container."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_lmm._groups import read_groups

LABELS = ["u", "v", "u"]
ONE = {
    "list": (LABELS, "groups"),
    "array": (np.array(LABELS), "groups"),
    "column": (np.array(LABELS)[:, None], "groups"),
    "series without name": (pd.Series(LABELS), "groups"),
    "series named by a number": (pd.Series(LABELS, name=0), "groups"),
    "index": (pd.Index(LABELS), "groups"),
    "categorical": (pd.Categorical(LABELS), "groups"),
    "polars without name": (pl.Series(LABELS), "groups"),
    "series": (pd.Series(LABELS, name="school", index=[4, 5, 6]), "school"),
    "named index": (pd.Index(LABELS, name="school"), "school"),
    "polars": (pl.Series("school", LABELS), "school"),
    "frame": (pd.DataFrame({"school": LABELS}), "school"),
    "polars frame": (pl.DataFrame({"school": LABELS}), "school"),
}
TWO = {
    "array": (np.array([LABELS, LABELS]).T, ["groups0", "groups1"]),
    "frame without names": (pd.DataFrame([LABELS] * 2).T, ["groups0", "groups1"]),
    "frame": (pd.DataFrame({"a": LABELS, "b": LABELS}), ["a", "b"]),
    "polars": (pl.DataFrame({"a": LABELS, "b": LABELS}), ["a", "b"]),
}


@pytest.mark.parametrize(("groups", "name"), ONE.values(), ids=ONE)
def test_one_factor_answers_to_groups_and_to_its_own_name(groups, name):
    columns = read_groups(groups, 3)
    assert len(columns.columns) == 1
    assert list(columns.columns[0]) == LABELS
    assert columns.factor_names == [name]
    assert columns.named is (name != "groups")
    assert columns.position("groups") == columns.position(name) == 0
    assert columns.position("other") is None


@pytest.mark.parametrize(("groups", "names"), TWO.values(), ids=TWO)
def test_several_factors(groups, names):
    columns = read_groups(groups, 3)
    assert columns.factor_names == names
    assert [columns.position(name) for name in names] == [0, 1]
    assert columns.position("groups") is None
    assert [list(column) for column in columns.columns] == [LABELS, LABELS]


def test_lists_keep_the_types_of_their_entries():
    assert read_groups([1, "a", None], 3).columns[0].tolist() == [1, "a", None]
    assert read_groups(["a", np.nan], 2).columns[0].tolist()[1] is np.nan


def test_nothing_is_none():
    assert read_groups(None, 3) is None
    assert read_groups(pd.DataFrame(index=range(3)), 3) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (LABELS[:2], "groups has 2 rows, but X has 3"),
        (pd.Series([*LABELS, "u"]), "groups has 4 rows, but X has 3"),
        ("school", "groups has 0 dimensions.*named in `random`"),
        (np.zeros((3, 1, 1)), "groups has 3 dimensions"),
        (pd.DataFrame([LABELS] * 2, index=["a", "a"]).T, "two columns of one name"),
    ],
)
def test_bad_groups_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        read_groups(groups, 3)
