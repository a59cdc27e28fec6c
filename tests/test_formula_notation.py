"""Formulas taken apart, and the place that an error points at."""

import pytest

from sklearn_lmm._formula_notation import BarTerm, parse_formula


def bar(group, coefficients="1", covariance="unstructured"):
    return BarTerm(tuple(group.split(":")), coefficients, covariance)


@pytest.mark.parametrize(
    ("text", "response", "fixed", "offsets", "bars"),
    [
        ("y ~ x + (x | g)", "y", "x", (), [bar("g", "x")]),
        ("y~1", "y", "1", (), []),
        ("~ x", "", "x", (), []),
        ("(1 | g)", "", "1", (), [bar("g")]),
        ("y ~ (1 | g) + x", "y", "x", (), [bar("g")]),
        ("y ~ -1 + x", "y", "- 1 + x", (), []),
        ("y ~ x*z - x:z+(1|a/b)", "y", "x*z - x:z", (), [bar("a"), bar("a:b")]),
        ("y ~ (0+f || c:d)", "y", "1", (), [bar("c:d", "0+f", "diagonal")]),
        ("y ~ diag(1 + x | g)", "y", "1", (), [bar("g", "1 + x", "diagonal")]),
        ("y ~ cs(0 + f | g)", "y", "1", (), [bar("g", "0 + f", "compound_symmetry")]),
        ("y ~ cs(x, df=3) + z", "y", "cs(x, df=3) + z", (), []),
        ("log(y) ~ offset(log(n)) + offset(o)", "log(y)", "1", ("log(n)", "o"), []),
        ("y ~ x + I(a | b)", "y", "x + I(a | b)", (), []),
        ("y ~ C(f, levels=['|', '+'])", "y", "C(f, levels=['|', '+'])", (), []),
        ("y ~ (I(a|b) + 1|`my | g`)", "y", "1", (), [bar("my | g", "I(a|b) + 1")]),
        ("y ~ I(x^2) + `a^b`", "y", "I(x**2) + `a^b`", (), []),
        ("y ~\n (a + b)**2", "y", "(a + b)**2", (), []),
    ],
)
def test_parts(text, response, fixed, offsets, bars):
    parsed = parse_formula(text)
    assert parsed[1:] == (response, fixed, offsets, tuple(bars))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("^", "expected a term"),
        ("y ~ x +^", "expected a term"),
        ("y ~ x + ^+ z", "expected a term"),
        ("y ~ x ^~ z", "one '~' at most"),
        ("y ~ x*(1 ^| g)", "in parentheses of its own"),
        ("y ~ x + 1 ^| g", "in parentheses of its own"),
        ("y ~ (1 | g)^*x", "stands alone"),
        ("y ~ x - ^(1 | g)", "can be added only"),
        ("y ~ x - ^offset(o)", "can be added only"),
        ("y ~ (^| g)", "what varies before the bar"),
        ("y ~ (1 | ^)", "the name of a grouping factor"),
        ("y ~ (1 | g^", "expected '/', ':' or '\\)'"),
        ("y ~ (1 | a ^+ b)", "crossed factors are terms of their own"),
    ],
)
def test_errors_point_at_the_place(text, message):
    place = text.index("^")
    text = text.replace("^", "", 1)
    with pytest.raises(ValueError, match=f"Bad notation in formula: .*{message}") as e:
        parse_formula(text)
    lines = str(e.value).splitlines()
    if text:
        assert lines[-2][4:] == text.rstrip() or lines[-2][4:] == text
    assert lines[-1].index("^") == place + 4
