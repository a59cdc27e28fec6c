"""Every form of `random`, and what is refused."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.covariance import STRUCTURES, Diagonal
from sklearn_lmm.terms import parse_random

A, B = RandomEffect("a"), RandomEffect("b")


@pytest.mark.parametrize(
    ("random", "terms"),
    [
        (None, [RandomEffect(None)]),
        ([], []),
        ("school", [RandomEffect("school")]),
        ("my school", [RandomEffect("my school")]),
        ("a:b", [RandomEffect("a:b")]),
        (3, [RandomEffect(3)]),
        (-1, [RandomEffect(-1)]),
        (np.int64(2), [RandomEffect(2)]),
        (("a", "b"), [RandomEffect(("a", "b"))]),
        (("a", 0, "b"), [RandomEffect(("a", 0, "b"))]),
        (("a",), [A]),
        (A, [A]),
        (["a", "b"], [A, B]),
        ([None, 0], [RandomEffect(None), RandomEffect(0)]),
        (
            ["b", ("a", "b"), "(x | a)", RandomEffect("c", "z", intercept=False)],
            [
                B,
                RandomEffect(("a", "b")),
                RandomEffect("a", ["x"]),
                RandomEffect("c", ["z"], intercept=False),
            ],
        ),
    ],
)
def test_every_form_is_a_tuple_of_terms(random, terms):
    assert parse_random(random) == tuple(terms)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("(1 | a)+(1|b)", [A, B]),
        ("(0 + x | a)", [RandomEffect("a", "x", intercept=False)]),
        ("(1 + x || a)", [RandomEffect("a", "x", covariance="diagonal")]),
        ("(x | a/b)", [RandomEffect("a", "x"), RandomEffect(("a", "b"), "x")]),
        ("(1 | groups)", [RandomEffect("groups")]),
    ],
)
def test_a_string_with_a_bar_is_notation(text, terms):
    assert parse_random(text) == tuple(terms)
    assert parse_random([text, "c"]) == (*terms, RandomEffect("c"))


@pytest.mark.parametrize(
    ("random", "message"),
    [
        (True, "got True of type bool"),
        ([False], "got False of type bool"),
        (1.5, "got 1.5 of type float"),
        ({"a": "x"}, "of type dict"),
        (("a", True), "a factor of an interaction, got True"),
        (("a", None), "a factor of an interaction, got None"),
        ((), "An interaction of no factors"),
        (("a", "a"), "names a factor twice"),
        ([["a", "b"]], "list inside a list"),
    ],
)
def test_bad_spec_is_refused(random, message):
    with pytest.raises(ValueError, match=message):
        parse_random(random)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": ["a", "b"]}, "a grouping factor, got \\['a', 'b'\\]"),
        ({"slopes": [True]}, "an entry of slopes, got True"),
        ({"slopes": None}, "an entry of slopes, got None"),
        ({"slopes": ["x", "x"]}, "names a column twice"),
        ({"intercept": 1}, "intercept must be True or False, got 1"),
        ({"group": "a", "intercept": False}, "random effect of a has no coefficient"),
        ({"covariance": "diag"}, "Unknown covariance 'diag'.*'diagonal'"),
        ({"covariance": Diagonal}, "Unknown covariance"),
    ],
)
def test_bad_random_effect_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomEffect(**arguments)


references = st.one_of(st.text(), st.integers())
effects = st.builds(
    RandomEffect,
    group=st.one_of(
        st.none(),
        references,
        st.lists(references, min_size=2, max_size=3, unique=True).map(tuple),
    ),
    slopes=st.lists(references, min_size=1, max_size=3, unique=True),
    intercept=st.booleans(),
    covariance=st.sampled_from([*STRUCTURES, *STRUCTURES.values()]),
)


@given(effects)
def test_repr_evaluates_back(effect):
    names = {"RandomEffect": RandomEffect}
    names |= {type(s).__name__: type(s) for s in STRUCTURES.values()}
    assert eval(repr(effect), names) == effect


@given(effects)
def test_copies_are_equal_and_hash_alike(effect):
    estimator = MixedEffectsRegressor([effect])
    copies = [
        pickle.loads(pickle.dumps(effect)),
        copy.deepcopy(effect),
        clone(estimator).random[0],
    ]
    assert {effect, *copies} == {effect}


def test_random_effects_are_frozen_and_differ_in_every_part():
    with pytest.raises(FrozenInstanceError):
        A.group = "b"
    variants = {
        A,
        B,
        RandomEffect("a", "x"),
        RandomEffect("a", "x", intercept=False),
        RandomEffect("a", "x", covariance="diagonal"),
    }
    assert len(variants) == 5


def test_lone_slope_is_that_one_column():
    assert RandomEffect("a", "abc").slopes == ("abc",)
    assert RandomEffect("a", 2).slopes == (2,)


def test_names_and_structure():
    assert RandomEffect().name == "groups"
    assert RandomEffect(("batch", 1)).name == "batch:1"
    assert RandomEffect("a", covariance="diagonal").structure == Diagonal()
    assert RandomEffect("a", covariance=Diagonal()).structure == Diagonal()


@pytest.mark.parametrize(
    ("random", "needs"),
    [(None, True), ("(1 | groups)", True), (("groups", "a"), True), ("a", False)],
)
def test_some_terms_need_the_argument_groups(random, needs):
    assert parse_random(random)[0].needs_groups is needs
