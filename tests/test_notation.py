"""lme4's notation, and the place that an error points at."""

import pytest

from sklearn_lmm._notation import parse_notation


def noted(group, *slopes, intercept=True, independent=False):
    return (tuple(group.split(":")), slopes, intercept, independent)


A, B = noted("a"), noted("b")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("(1 | a)", [A]),
        ("(1|a)+(1|b)", [A, B]),
        ("(x | a)", [noted("a", "x")]),
        ("(1 + x | a)", [noted("a", "x")]),
        ("(+1 + x|a)", [noted("a", "x")]),
        ("(x + z | a)", [noted("a", "x", "z")]),
        ("(0 + x | a)", [noted("a", "x", intercept=False)]),
        ("(x - 1 | a)", [noted("a", "x", intercept=False)]),
        ("(-1 + x | a)", [noted("a", "x", intercept=False)]),
        ("(x+0|a)", [noted("a", "x", intercept=False)]),
        ("(1 + x || a)", [noted("a", "x", independent=True)]),
        ("(0 + x || a)", [noted("a", "x", intercept=False, independent=True)]),
        ("(1 | a:b)", [noted("a:b")]),
        ("(1 | a/b)", [A, noted("a:b")]),
        ("(x | a/b/c)", [noted("a", "x"), noted("a:b", "x"), noted("a:b:c", "x")]),
        ("(1 | a:b/c)", [noted("a:b"), noted("a:b:c")]),
        ("(1 | a/b:c)", [A, noted("a:b:c")]),
        ("(`my x` | `my | a`)", [noted("my | a", "my x")]),
        ("(.x.1 + x_2 | Größe)", [noted("Größe", ".x.1", "x_2")]),
        ("(1\n| a)\n  + (1 | b)", [A, B]),
    ],
)
def test_notation(text, terms):
    assert parse_notation(text) == terms


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
        parse_notation(text.replace("^", ""))
    _, shown, caret = str(error.value).split("\n")
    assert shown.strip() == text.replace("^", "")
    assert caret.index("^") == 4 + place
