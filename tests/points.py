"""Problems at some theta, by a strategy under test and by dense algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.testing import assert_allclose
from problems import THETAS, FloatArray, problem

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts, cross_products
from sklearn_lmm._engine.factor import Strategy
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.strategy import choose_strategy

# Relative to what the dense reference starts its subtractions from.  At theta = 30
# two nested factors give Q a condition of 1e10, and the reference loses as much.
TOLERANCES = dict.fromkeys(THETAS, 1e-11) | {"large": 1e-6}


@cache
def statistics_of(name: str) -> CrossProducts:
    """Return the cross-products of a named problem."""
    return cross_products(problem(name))


@cache
def dense_point(name: str, kind: str, reml: bool = True) -> Point:
    """Return the reference at a theta of some kind."""
    statistics = statistics_of(name)
    criterion = Criterion(statistics, DenseStrategy(statistics), reml=reml)
    return criterion.at(THETAS[kind](criterion, np.random.default_rng(3)))


def fast_point(
    name: str,
    kind: str,
    reml: bool = True,
    strategy: Callable[[CrossProducts], Strategy] = choose_strategy,
) -> Point:
    """Return the strategy under test at the same theta."""
    statistics = statistics_of(name)
    criterion = Criterion(statistics, strategy(statistics), reml=reml)
    return criterion.at(dense_point(name, kind).theta)


def assert_close(
    actual: Sequence[FloatArray],
    expected: Sequence[FloatArray],
    tolerance: float,
    scale: float | None = None,
) -> None:
    """Compare arrays, one per factor, relative to the largest number in them."""
    for a, e in zip(actual, expected, strict=True):
        largest = np.abs(e).max(initial=0.0) if scale is None else scale
        assert_allclose(a, e, rtol=0, atol=tolerance * max(largest, 1e-12))
