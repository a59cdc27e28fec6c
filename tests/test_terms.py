"""Every form of `random`, and the place that an error points at."""

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
        ("(1 | a)", [A]),
        ("(1|a)+(1|b)", [A, B]),
        ("(x | a)", [RandomEffect("a", "x")]),
        ("(1 + x | a)", [RandomEffect("a", "x")]),
        ("(+1 + x|a)", [RandomEffect("a", "x")]),
        ("(x + z | a)", [RandomEffect("a", ["x", "z"])]),
        ("(0 + x | a)", [RandomEffect("a", "x", intercept=False)]),
        ("(x - 1 | a)", [RandomEffect("a", "x", intercept=False)]),
        ("(-1 + x | a)", [RandomEffect("a", "x", intercept=False)]),
        ("(x+0|a)", [RandomEffect("a", "x", intercept=False)]),
        ("(1 + x || a)", [RandomEffect("a", "x", covariance="diagonal")]),
        (
            "(0 + x + z || a)",
            [RandomEffect("a", ["x", "z"], intercept=False, covariance="diagonal")],
        ),
        ("(1 | a:b)", [RandomEffect(("a", "b"))]),
        ("(1 | a/b)", [A, RandomEffect(("a", "b"))]),
        (
            "(x | a/b/c)",
            [
                RandomEffect("a", "x"),
                RandomEffect(("a", "b"), "x"),
                RandomEffect(("a", "b", "c"), "x"),
            ],
        ),
        ("(1 | a:b/c)", [RandomEffect(("a", "b")), RandomEffect(("a", "b", "c"))]),
        ("(1 | a/b:c)", [A, RandomEffect(("a", "b", "c"))]),
        ("(`my x` | `my | a`)", [RandomEffect("my | a", "my x")]),
        ("(.x.1 + x_2 | Größe)", [RandomEffect("Größe", [".x.1", "x_2"])]),
        ("(1\n| a)\n  + (1 | b)", [A, B]),
        ("(1 | groups)", [RandomEffect("groups")]),
    ],
)
def test_notation(text, terms):
    assert parse_random(text) == tuple(terms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("^1 | a", "every term is in parentheses"),
        ("^y ~ (1 | a)", "every term is in parentheses"),
        ("^|", "every term is in parentheses"),
        ("(1 | a) + ^x", "every term is in parentheses"),
        ("(1 | a) +^", "every term is in parentheses"),
        ("(1 | a^", "expected '/', ':' or '\\)'"),
        ("(1 | a ^|| b)", "expected '/', ':' or '\\)'"),
        ("(1 | a)^)", "expected '\\+' and another term"),
        ("(1 | a) ^- (1 | b)", "expected '\\+' and another term"),
        ("(1 | a ^+ b)", "crossed factors are terms of their own"),
        ("(1 | a^*b)", "crossed factors are terms of their own"),
        ("(1 + ^| a)", "the name of a column"),
        ("(^| a)", "the name of a column"),
        ("(^`x | a)", "the name of a column"),
        ("(1 | ^)", "the name of a grouping factor"),
        ("(1 | ^3)", "the name of a grouping factor"),
        ("(1 | a/^)", "the name of a grouping factor"),
        ("(1 | a/^a)", "factor is there already"),
        ("(x + ^x | a)", "slope is there already"),
        ("(x^:z | a)", "compute products and functions first"),
        ("(log^(x) | a)", "compute products and functions first"),
        ("(1 - ^x | a)", "only the intercept can be taken away"),
        ("(^2 | a)", "expected 1 \\(intercept\\)"),
        ("(x - ^0 | a)", "expected 1 \\(intercept\\)"),
        ("(0 ^| a)", "no coefficient is left"),
        ("(0 + ^1 + x | a)", "both asks for an intercept"),
    ],
)
def test_error_in_notation_points_at_the_place(text, message):
    """In `text` a circumflex marks the place, which is not part of it."""
    place = text.index("^")
    with pytest.raises(ValueError, match=message) as error:
        parse_random(text.replace("^", ""))
    _, shown, caret = str(error.value).split("\n")
    assert shown.strip() == text.replace("^", "")
    assert caret.index("^") == 4 + place


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
