"""What a fit learns of its data, and new rows read in the same way."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm._layout import learn

FRAME = pd.DataFrame(
    {
        "x": [1.0, 2.0, 3.0, 4.0, 5.0],
        "batch": ["B", "A", "B", "A", "B"],
        "cask": [2, 1, 1, 1, 2],
        "off": [10, 20, 30, 40, 50],
    }
)
Y = np.arange(5.0)


class Fitted:
    """A layout with the estimator that learnt it."""

    def __init__(self, random, X=FRAME, *, groups=None, weights=None, **parameters):
        self.reader = MixedEffectsRegressor(random, **parameters)
        self.layout, self.design = learn(self.reader, X, Y, groups, weights)

    def read(self, X=FRAME, groups=None, random_effects=True, strict=False):
        return self.layout.read(self.reader, X, groups, random_effects, strict)

    def codes(self, *args, **kwargs):
        codes = self.read(*args, **kwargs).codes
        return [None if c is None else c.tolist() for c in codes]


def test_design():
    random = ["(1 + x | batch)", "cask", RandomEffect("batch", "off", intercept=False)]
    design = Fitted(random, fixed=["off", "x"], offset="off").design
    assert design.X.tolist() == FRAME[["off", "x"]].to_numpy().tolist()
    assert design.y.tolist() == (Y - FRAME["off"]).tolist()
    assert design.weights is None
    batch, cask = design.factors
    assert batch.codes.tolist() == [1, 0, 1, 0, 1]
    assert batch.levels.tolist() == ["A", "B"]
    assert cask.codes.tolist() == [1, 0, 0, 0, 1]
    assert cask.levels.tolist() == [1, 2]
    assert [block.factor for block in design.blocks] == [0, 1, 0]
    assert [block.intercept for block in design.blocks] == [True, True, False]
    assert [len(block.slopes) for block in design.blocks] == [1, 0, 1]
    assert design.blocks[0].slopes[0].tolist() == FRAME["x"].tolist()
    assert design.blocks[2].slopes[0].tolist() == FRAME["off"].tolist()


def test_interaction_levels_are_tuples_of_occupied_combinations():
    [factor] = Fitted(("batch", "cask")).design.factors
    assert factor.levels.tolist() == [("A", 1), ("B", 1), ("B", 2)]
    assert factor.codes.tolist() == [2, 0, 1, 0, 2]


CONTAINERS = {
    "pandas": FRAME,
    "category": FRAME.astype({"batch": "category", "cask": "category"}),
    "polars": pl.DataFrame(FRAME.to_dict("list")),
    "polars category": pl.DataFrame(FRAME.to_dict("list")).with_columns(
        pl.col("batch").cast(pl.Categorical)
    ),
    "objects": FRAME.to_numpy(object),
    "lists": FRAME.to_numpy(object).tolist(),
}


@pytest.mark.parametrize("X", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_give_one_design(X):
    expected = Fitted([1, (1, 2)], offset=3).design
    fitted = Fitted([1, (1, 2)], X, offset=3)
    assert (fitted.design.X == expected.X).all()
    assert (fitted.design.y == expected.y).all()
    for factor, other in zip(fitted.design.factors, expected.factors, strict=True):
        assert factor.codes.tolist() == other.codes.tolist()
        assert factor.levels.tolist() == other.levels.tolist()
    rows = fitted.read(X)
    assert (rows.X == expected.X).all()
    assert [c.tolist() for c in rows.codes] == [
        factor.codes.tolist() for factor in expected.factors
    ]


def test_rows_of_weight_zero_leave_before_levels_are_looked_at():
    X = FRAME.assign(batch=["C", "A", "B", "A", None])
    design = Fitted("(x | batch)", X, weights=[0, 1, 2, 1, 0]).design
    assert design.X[:, 0].tolist() == [2.0, 3.0, 4.0]
    assert design.y.tolist() == [1.0, 2.0, 3.0]
    assert design.weights.tolist() == [1.0, 2.0, 1.0]
    assert design.factors[0].levels.tolist() == ["A", "B"]
    assert design.factors[0].codes.tolist() == [0, 1, 0]
    assert design.blocks[0].slopes[0].tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match=r"missing .* in 1 of 4 rows, first in row 4"):
        Fitted("batch", X, weights=[0, 1, 1, 1, 1])


def test_labels_of_weight_zero_leave_from_every_container():
    for labels in (list("CABAC"), pd.Series(list("CABAC")), pl.Series(list("CABAC"))):
        design = Fitted(None, FRAME[["x"]], groups=labels, weights=[0, 1, 1, 1, 0])
        assert design.design.factors[0].levels.tolist() == ["A", "B"]


def test_float_array_is_not_copied():
    X = np.column_stack([FRAME["cask"], FRAME["x"], FRAME["off"]]).astype(float)
    design = Fitted(RandomEffect(0, slopes=1), X).design
    assert np.shares_memory(design.X, X)
    assert np.shares_memory(design.blocks[0].slopes[0], X)


def test_grouping_column_meets_no_numeric_check_unless_it_is_listed():
    X = FRAME.assign(batch=[1.0, 2.0, 1.0, 2.0, 1.0])
    assert Fitted("batch", X, fixed=["batch", "x"]).design.X.shape == (5, 2)
    with pytest.raises(ValueError, match=r"not numeric: 'batch' \(text\)"):
        Fitted("batch", fixed=["batch", "x"])
    with pytest.raises(ValueError, match="not numeric: 'batch'"):
        Fitted("cask")
    with pytest.raises(ValueError, match="not numeric: 'batch'"):
        Fitted("(batch | cask)", fixed="x")


def test_unknown_level_of_one_factor_leaves_the_others():
    fitted = Fitted(["batch", "cask", ("batch", "cask")])
    new = FRAME.assign(batch=["B", "Z", "B", None, "A"], cask=[2, 1, 7, 1, 2])
    assert fitted.codes(new) == [
        [1, -1, 1, -1, 0],
        [1, 0, -1, 0, 1],
        [2, -1, -1, -1, -1],
    ]


def test_unknown_levels_are_refused_by_name():
    fitted = Fitted(["batch", ("batch", "cask")])
    new = FRAME.assign(batch=["B", "Z", "B", "Y", "Z"])
    with pytest.raises(
        ValueError, match="Unknown levels of 'batch' in 3 rows: 'Z', 'Y'"
    ):
        fitted.read(new, strict=True)
    new = FRAME.assign(batch=["B", "A", "B", "A", None])
    with pytest.raises(ValueError, match=r"of 'batch' in 1 rows: (nan|None)"):
        fitted.read(new, strict=True)
    new = FRAME.assign(cask=[2, 2, 1, 2, 2])
    with pytest.raises(ValueError, match=r"of 'batch:cask' in 2 rows: \('A', 2\)\. "):
        fitted.read(new, strict=True)
    assert fitted.codes(strict=True)[0] == [1, 0, 1, 0, 1]


def test_only_wanted_factors_are_looked_at():
    fitted = Fitted(["batch", "town"], groups=pd.Series(list("uvuvu"), name="town"))
    assert fitted.codes(random_effects=["batch"], strict=True) == [
        [1, 0, 1, 0, 1],
        None,
    ]
    assert fitted.codes(random_effects=False) == [None, None]
    assert fitted.read(random_effects=False).without_labels == ()


X_ONLY = FRAME[["x"]]
TOWN = pd.Series(list("vuvuv"), name="town")
TWO = pd.DataFrame({"town": list("vuvuv"), "day": [2, 1, 1, 1, 2]})
CODES = [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("random", "at_fit", "later"),
    [
        (None, TOWN, TOWN),
        (None, TOWN, TOWN.to_numpy()),
        (None, TOWN, TOWN.rename("city")),
        (None, TOWN, pl.Series("town", list("vuvuv"))),
        (None, TOWN, TWO[["day", "town"]]),
        (None, TOWN.to_numpy(), TOWN),
        (None, TOWN.to_numpy(), TOWN.to_frame()),
        (None, TOWN.to_numpy()[:, None], list(TOWN)),
        ("(1 | groups)", TOWN, TOWN.rename("city")),
        ("groups", TOWN.to_numpy(), TOWN),
        ("town", TOWN, TOWN.to_numpy()),
        ("town", TOWN, TOWN.rename(None)),
        ("town", TWO, TOWN),
        ("town", TWO, TWO.to_numpy()),
        ("town", TWO, TWO["town"].to_numpy()),
        ("town", TWO, TWO[["day", "town"]]),
    ],
)
def test_labels_through_groups(random, at_fit, later):
    fitted = Fitted(random, X_ONLY, groups=at_fit)
    assert fitted.design.factors[0].codes.tolist() == CODES
    assert fitted.codes(X_ONLY, later) == [CODES]


def test_several_factors_through_groups():
    fitted = Fitted(None, X_ONLY, groups=TWO)
    assert fitted.codes(X_ONLY, TWO[["day", "town"]]) == [CODES, [1, 0, 0, 0, 1]]
    assert fitted.codes(X_ONLY, TWO.to_numpy()) == [CODES, [1, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("random", "at_fit", "later", "message"),
    [
        (None, TWO, TWO[["town"]], "no labels of 'day'.*it has 'town'"),
        (None, TWO, TOWN, "no labels of 'day'.*it has 'town'"),
        (None, TWO, TOWN.to_numpy(), "no labels of 'town'.*it has 1 unnamed columns"),
        ("town", TOWN, TOWN.rename("city"), "no labels of 'town'.*it has 'city'"),
        (None, TOWN, TOWN.to_frame("city"), "no labels of 'town'.*it has 'city'"),
        ("town", TWO, np.ones((5, 3)), "no labels of 'town'.*it has 3 unnamed"),
        (None, TOWN.to_numpy(), TWO.to_numpy(), "labels of 'groups'.*2 unnamed"),
        ("town", TOWN, TOWN[:3], "groups has 3 rows, but X has 5"),
        ("town", TOWN, np.arange(5), r"'town' are numbers \(int64\).*text"),
    ],
)
def test_labels_through_groups_that_are_refused(random, at_fit, later, message):
    fitted = Fitted(random, X_ONLY, groups=at_fit)
    with pytest.raises(ValueError, match=message):
        fitted.read(X_ONLY, later)


def test_absent_labels_are_reported():
    fitted = Fitted(["batch", None, ("batch", "town")], FRAME, groups=TOWN)
    rows = fitted.read()
    assert rows.without_labels == ("town",)
    assert [c.tolist() for c in rows.codes] == [CODES, [-1] * 5, [-1] * 5]


def test_labels_given_twice_must_agree():
    batch = FRAME["batch"].astype("category")
    fitted = Fitted("batch", groups=batch)
    assert fitted.codes() == fitted.codes(groups=batch) == [CODES]
    other = batch.to_numpy(object).copy()
    other[3] = "B"
    message = "'batch' are given twice.*differ: 'B' and 'A' in row 3"
    with pytest.raises(ValueError, match=message):
        Fitted("batch", groups=pd.Series(other, name="batch"))
    with pytest.raises(ValueError, match=message):
        fitted.read(groups=pl.Series("batch", other.tolist()))
    # The position and the name of one column are one factor.
    other = pd.Series(other, name="batch")
    with pytest.raises(ValueError, match=message):
        Fitted([1, RandomEffect("batch", "x", intercept=False)], groups=other)
    numbers = pd.Series(FRAME["cask"].astype(str), name="cask")
    with pytest.raises(
        ValueError, match=r"'cask' are given twice.*: '2' and 2 in row 0"
    ):
        Fitted(["batch", "cask"], groups=numbers)


def test_labels_that_no_term_uses_are_ignored():
    fitted = Fitted("batch", groups=np.arange(5))
    assert fitted.codes(groups=[None] * 5) == [CODES]
    assert fitted.codes(groups=pd.Series(range(5), name="other")) == [CODES]


def test_new_rows_carry_offset_and_slopes():
    rows = Fitted(["(x | batch)"], fixed=[], offset="off").read()
    assert rows.X.shape == (5, 0)
    assert rows.offset.tolist() == FRAME["off"].tolist()
    assert rows.slopes[0][0].tolist() == FRAME["x"].tolist()
    assert (
        Fitted("batch", FRAME[["x", "batch"]]).read(FRAME[["x", "batch"]]).offset == 0
    )
