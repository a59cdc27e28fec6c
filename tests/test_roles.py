"""References by name and position, resolved against X and groups."""

import numpy as np
import pandas as pd
import pytest

from sklearn_lmm import RandomEffect
from sklearn_lmm._columns import Table
from sklearn_lmm._groups import read_groups
from sklearn_lmm._roles import assign_roles
from sklearn_lmm.covariance import Diagonal, Unstructured

NAMES = ("x", "z", "school", "student", "off")
X = Table(None, NAMES, named=True)
ARRAY = Table(None, ("x0", "x1", "x2"), named=False)


def roles(random, *, groups=None, table=X, fixed=None, offset=None):
    columns = read_groups(groups, 2)
    return assign_roles(random, fixed, offset, True, table, columns)


def series(name):
    return pd.Series(["a", "b"], name=name)


def frame(*names):
    return pd.DataFrame({name: ["a", "b"] for name in names})


@pytest.mark.parametrize(
    ("random", "groups", "names", "fixed"),
    [
        ([], None, [], "x z school student off"),
        ("school", None, ["school"], "x z student off"),
        (["school", -2], None, ["school", "student"], "x z off"),
        (("school", 3), None, ["school:student"], "x z off"),
        ("(1 | school/student)", None, ["school", "school:student"], "x z off"),
        (None, np.array([1, 2]), ["groups"], "x z school student off"),
        (None, np.ones((2, 2)), ["groups0", "groups1"], "x z school student off"),
        (None, series("town"), ["town"], "x z school student off"),
        (None, series("school"), ["school"], "x z student off"),
        (None, frame("town", "school"), ["town", "school"], "x z student off"),
        ("(1 | groups)", series("town"), ["town"], "x z school student off"),
        ("(1 | groups)", frame("town"), ["town"], "x z school student off"),
        ("town", series("town"), ["town"], "x z school student off"),
        (["student", None], series("town"), ["student", "town"], "x z school off"),
        (("town", "school"), frame("town"), ["town:school"], "x z student off"),
        ("school", frame("town"), ["school"], "x z student off"),
        ([], frame("town"), [], "x z school student off"),
    ],
)
def test_grouping_factors_and_what_is_left(random, groups, names, fixed):
    r = roles(random, groups=groups)
    assert [grouping.name for grouping in r.groupings] == names
    assert r.fixed_names == ["(Intercept)", *fixed.split()]
    assert r.no_groups is False


def test_arrays_go_by_position_or_made_up_names():
    r = roles([0, RandomEffect("x2", slopes=["x1"])], table=ARRAY)
    assert [source.column for source in r.sources] == [0, 2]
    assert r.terms[1].coefficients == ("(Intercept)", "x1")
    assert r.fixed == (1,)


def test_terms_keep_their_order_and_number_within_a_factor():
    r = roles("(1 | student) + (1 + x | school) + (0 + z | school)")
    assert [term.name for term in r.terms] == ["student", "school", "school.1"]
    assert [term.factor for term in r.terms] == [0, 1, 1]
    assert [(t.columns.start, t.columns.stop) for t in r.terms] == [
        (0, 1),
        (0, 2),
        (2, 3),
    ]
    assert r.coefficients(1) == ["(Intercept)", "x", "z"]
    assert r.terms[2].slopes == (1,)
    assert not r.terms[2].intercept


def test_structures_are_resolved():
    r = roles([RandomEffect("school", "x", covariance="diagonal"), "student"])
    assert [term.structure for term in r.terms] == [Diagonal(), Unstructured()]


def test_a_term_without_group_stands_for_every_factor():
    r = roles(RandomEffect(slopes="x"), groups=frame("town", "school"))
    assert [term.name for term in r.terms] == ["town", "school"]
    assert {term.slopes for term in r.terms} == {(0,)}


def test_fixed_and_offset():
    assert roles("school", offset="off").fixed == (0, 1, 3)
    assert roles("school", offset=-1).offset == 4
    assert roles("school", fixed="z").fixed == (1,)
    assert roles("school", fixed=["z", "school", 0]).fixed == (1, 2, 0)
    assert roles("(x | school)", fixed=["z"]).fixed == (1,)
    assert roles("school", fixed=[]).fixed_names == ["(Intercept)"]
    assert roles("school", fixed=np.array([0, 1])).fixed == (0, 1)


def test_no_groups_is_noticed():
    assert roles(None).no_groups is True
    assert roles(["school", None]).no_groups is True
    assert roles([]).no_groups is False


def test_one_partition_is_one_factor():
    r = roles("(1 | school:student) + (0 + x | student:school)")
    assert [grouping.name for grouping in r.groupings] == ["school:student"]
    assert r.coefficients(0) == ["(Intercept)", "x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random": "shool"}, "names the factor 'shool', but there is no argument gr"),
        ({"random": "shool"}, "Did you mean 'school'"),
        ({"random": "(1 | groups)"}, "factor 'groups', but there is no argument"),
        ({"random": "t", "groups": series("town")}, "'t', but groups has 'town', and"),
        ({"random": "groups", "groups": frame("t", "u")}, "groups has 't', 'u'"),
        ({"random": 5}, "random names column 5 .* n_features = 5"),
        ({"random": "s", "table": ARRAY}, "set_output.*integer position"),
        ({"random": "(y | school)"}, "A slope of 'school' names 'y'"),
        ({"random": RandomEffect("school", [0, "x"])}, "slopes of 'school' list a col"),
        ({"random": ["school", 2]}, r"'\(Intercept\)' varies twice by 'school'"),
        ({"random": "(x | school) + (0 + x | school)"}, "'x' varies twice by 'school'"),
        ({"random": ["school", None], "groups": series("school")}, "varies twice"),
        ({"random": [], "fixed": ["x", "y"]}, "fixed names 'y'"),
        ({"random": [], "fixed": ["x", 0]}, "fixed lists a column twice: 'x'"),
        ({"random": [], "fixed": [True]}, "an entry of fixed, got True"),
        ({"random": [], "fixed": 1.5}, "an entry of fixed, got 1.5"),
        ({"random": [], "offset": "of"}, "offset names 'of'.*mean 'off'"),
        ({"random": [], "offset": ["off"]}, r"the offset, got \['off'\]"),
        ({"random": [], "offset": False}, "the offset, got False"),
        (
            {
                "random": [("town", "area"), "town:area"],
                "groups": frame("town", "area", "town:area"),
            },
            "Two different grouping factors are called 'town:area'",
        ),
    ],
)
def test_bad_references_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        roles(**arguments)


def test_wanted_factors():
    r = roles(["school", "student", ("school", "x")])
    assert r.wanted(True) == {0, 1, 2}
    assert r.wanted(False) == r.wanted([]) == set()
    assert r.wanted(["school:x", "school"]) == {0, 2}
    assert r.wanted("student") == {1}
    with pytest.raises(ValueError, match=r"names \['town'\].*'school', 'student'"):
        r.wanted(["town", "school"])
