"""Facts of a fit, told as warnings in the user's names."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._layout import learn
from sklearn_lmm._messages import no_labels, warn_about
from sklearn_lmm.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    MissingGroupsWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
)

FRAME = pd.DataFrame(
    {
        "x": [1.0, 2.0, 4.0, 4.0],
        "z": [0.0, 1.0, 0.0, 1.0],
        "row": ["a", "b", "c", "d"],
        "all": ["a"] * 4,
        "g": ["a", "a", "b", "b"],
    }
)
FACTS = {
    "kept": np.ones(3, bool),
    "unidentified": (),
    "perfect": False,
    "converged": True,
    "collapsed": (),
    "sigma": 1.0,
    "solver": "newton",
    "n_iter": 17,
    "gradient_norm": 0.0321,
    "decrement": 0.5,
    "errors": None,
    "monte_carlo": None,
}


def messages(random="g", y=(0.0, 1.0, 2.0, 4.0), X=FRAME, **facts):
    """Return the class and text of each warning that a fit of these facts gives."""
    reader = MixedEffectsRegressor(random, fixed=["x", "z"])
    layout, design = learn(reader, X, np.array(y), None, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = {"statistics": cross_products(design)}
        warn_about(layout, SimpleNamespace(**FACTS | seen | facts))
    return [(w.category, str(w.message)) for w in caught]


def only_message(category, **facts):
    [(found, text)] = messages(**facts)
    assert found is category
    return text


def singular(covariance, directions, random, X=FRAME):
    return only_message(
        SingularFitWarning,
        random=random,
        X=X,
        covariances=(np.array(covariance, float),),
        collapsed=tuple((0, np.array(d, float)) for d in directions),
    )


def test_nothing_to_report():
    assert messages() == []


def test_no_groups():
    text = only_message(MissingGroupsWarning, random=None)
    assert "ordinary least-squares fit" in text
    assert "only the other terms" in only_message(
        MissingGroupsWarning, random=["g", None]
    )


def test_dropped_columns_are_named():
    text = only_message(RankDeficiencyWarning, kept=np.array([True, True, False]))
    assert "'z' depends linearly on earlier columns" in text


@pytest.mark.parametrize(
    ("random", "why"),
    [
        ("row", "every level of 'row' has a single row"),
        ("all", "'all' has one level only"),
        ("g", "cannot tell what varies between the levels of 'g'"),
    ],
)
def test_unidentified_terms(random, why):
    facts = {"random": random, "unidentified": (0,), "collapsed": ((0, np.ones(1)),)}
    assert why in only_message(IdentifiabilityWarning, **facts)


def test_perfect_fit_is_not_reported_as_failed_convergence_too():
    text = only_message(PerfectFitWarning, perfect=True, converged=False)
    assert "y is constant or explained exactly" in text


def test_failed_convergence():
    text = only_message(ConvergenceWarning, converged=False)
    assert "(newton) stopped after 17 iterations with gradient norm 0.032" in text
    assert "max_iter" in text


def test_an_intercept_without_variance():
    text = singular([[0]], [[1]], "g")
    assert "singular: the random effects of 'g' have no variance" in text


def test_no_coefficient_varies():
    text = singular(np.zeros((2, 2)), [[1, 0], [0, 1]], "(x | g)")
    assert "singular: the random effects of 'g' have no variance" in text


def test_one_coefficient_without_variance():
    text = singular(np.diag([4, 0]), [[0, 1]], "(x || g)")
    assert "singular: x of 'g' has no variance." in text
    # Rounding in other units is no variance.
    assert "x of 'g' has no variance." in singular(
        np.diag([4, 1e-16]), [[0, 1]], "(x || g)"
    )


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_perfect_correlation_in_any_units(unit):
    b = np.array([2.0, -3.0 * unit])
    X = FRAME.assign(x=FRAME["x"] / unit)
    text = singular(np.outer(b, b), [[3.0 * unit, 2.0]], "(x | g)", X)
    assert "'g': (Intercept) and x are perfectly correlated" in text


def test_a_collapse_between_the_thresholds_is_still_told():
    text = singular(np.diag([4.0, 1e-8]), [[0, 1]], "(x || g)")
    assert "the random effects of 'g' have lost a direction" in text


def test_three_coefficients():
    b = np.array([1.0, 2.0, -1.0])
    text = singular(np.outer(b, b), [[2, -1, 0], [1, 0, 1]], "(x + z | g)")
    assert "(Intercept), x and z are perfectly correlated" in text
    root = np.array([[1.0, 0], [0, 1], [1, 1]])
    text = singular(root @ root.T, [[1, 1, -1]], "(x + z | g)")
    assert "(Intercept), x and z are linearly dependent" in text
    root = np.array([[1.0, 0], [2, 0], [0, 1]])
    text = singular(root @ root.T, [[2, -1, 0]], "(x + z | g)")
    assert "(Intercept) and x are perfectly correlated" in text
    root = np.array([[1.0], [2], [0]])
    text = singular(root @ root.T, [[2, -1, 0], [0, 0, 1]], "(x + z | g)")
    assert "z of 'g' has no variance" in text
    assert "(Intercept) and x are perfectly correlated" in text


def test_terms_are_told_apart_by_name():
    text = only_message(
        SingularFitWarning,
        random=["g", "(0 + x | g)"],
        covariances=(np.diag([4.0, 0.0]),),
        collapsed=((1, np.ones(1)),),
    )
    assert "the random effects of 'g.1' have no variance" in text


def test_warning_points_at_the_line_that_called_fit():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader = MixedEffectsRegressor(fixed=["x", "z"])
        layout, design = learn(reader, FRAME, np.arange(4.0), None, None)
        fit = SimpleNamespace(**FACTS, statistics=cross_products(design))
        (lambda: (lambda: (lambda: warn_about(layout, fit))())())()
    assert caught[0].filename == __file__


def test_absent_labels_name_their_factors():
    assert no_labels(("school", "town")).startswith(
        "There are no labels of 'school', 'town': "
    )
