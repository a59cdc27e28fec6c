"""Traces of products of Q against dense algebra, and the Hessian made of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from points import TOLERANCES, dense_point, fast_point
from problems import (
    CROSSED,
    NESTED,
    PROBLEMS,
    THETAS,
    Effects,
    crossed,
    make_design,
    stencil,
    tree,
)

from sklearn_lmm._engine import traces
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor import Direction
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.factor_single import SingleStrategy, pool_levels
from sklearn_lmm._engine.strategy import choose_strategy


def points(name, kind, reml=True):
    """Return the strategy that suits the data and the reference at one theta."""
    return fast_point(name, kind, reml), dense_point(name, kind, reml)


def draw_directions(statistics, each=2):
    rng = np.random.default_rng(5)
    return [
        Direction(f, A + A.T)
        for f, s in enumerate(statistics.s)
        for A in rng.normal(size=(each, s.shape[1], s.shape[1]))
    ]


@pytest.mark.parametrize("kind", THETAS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_traces_equal_dense(name, kind):
    fast, dense = points(name, kind)
    directions = draw_directions(fast.criterion.statistics)
    expected = traces.trace_products(dense.state, directions)
    got = traces.trace_products(fast.state, directions)
    tolerance = TOLERANCES[kind] * np.abs(expected).max()
    assert_allclose(got, expected, rtol=0, atol=tolerance)
    assert_allclose(got, got.T)


@pytest.mark.parametrize("name", ["slope", "nested_three", "crossed_widths"])
def test_directions_of_one_factor_only(name):
    fast, dense = points(name, "interior")
    for f in range(len(fast.L)):
        directions = [
            d for d in draw_directions(fast.criterion.statistics) if d.factor == f
        ]
        expected = traces.trace_products(dense.state, directions)
        assert_allclose(
            traces.trace_products(fast.state, directions), expected, rtol=1e-10
        )


@pytest.mark.parametrize("name", ["four", "nested_slopes", "crossed_three"])
def test_products_with_the_fixed_part_equal_dense(name, monkeypatch):
    monkeypatch.setattr(traces, "COLUMNS_AT_ONCE", 7)
    fast, dense = points(name, "interior")
    statistics = fast.criterion.statistics
    directions = draw_directions(statistics)
    F = dense.state.strategy.stack(dense.F)
    wide = [dense.state.wide(direction) for direction in directions]
    changes = np.array([F.T @ A @ F for A in wide])
    assert_allclose(traces.fixed_part_changes(fast.F, directions), changes, atol=1e-9)
    curvature = traces.fixed_part_curvature(fast.state, statistics, fast.F, directions)
    expected = [[F.T @ A @ dense.state.Q @ B @ F for B in wide] for A in wide]
    assert_allclose(curvature, expected, atol=1e-9 * np.abs(expected).max())
    R = dense.state.Q - F @ F.T
    expected = [[np.trace(A @ R @ B @ R) for B in wide] for A in wide]
    got = traces.reml_traces(fast.state, statistics, fast.F, directions)
    assert_allclose(got, expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("kind", ["interior", "singular"])
@pytest.mark.parametrize("name", NESTED | CROSSED)
def test_observed_hessian_equals_dense_and_stencil(name, kind, reml):
    fast, dense = points(name, kind, reml)
    scale = np.abs(dense.hessian).max()
    observed = fast.observed_hessian
    assert_allclose(observed, dense.hessian, rtol=0, atol=1e-10 * scale)
    if kind == "singular":
        bend = stencil(lambda t: fast.criterion.at(t).gradient, fast.theta)
        assert_allclose(observed, bend, rtol=0, atol=1e-7 * scale)


def test_pooled_levels_count_as_often_as_they_occur():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    statistics = cross_products(make_design(rng, [labels], [Effects(0)]))
    pooled = pool_levels(statistics)
    assert len(pooled.s[0]) < len(statistics.s[0])
    directions = [Direction(0, np.eye(1))]
    L = (np.array([[0.7]]),)
    got, expected = (
        traces.trace_products(SingleStrategy(s).factorize(L), directions)
        for s in (pooled, statistics)
    )
    assert_allclose(got, expected, rtol=1e-12)


def test_strategies_that_cannot_tell_leave_the_hessian_to_differences(monkeypatch):
    fast, dense = points("crossed_slopes", "interior")
    monkeypatch.setattr(
        "sklearn_lmm._engine.criterion.reml_traces", lambda *arguments: None
    )
    assert traces.trace_products(object(), []) is None
    scale = np.abs(dense.hessian).max()
    assert_allclose(fast.observed_hessian, dense.hessian, rtol=0, atol=1e-6 * scale)


def test_no_random_effects_have_no_traces():
    design = make_design(np.random.default_rng(0), [], [], p=3)
    statistics = cross_products(design)
    point = Criterion(statistics, choose_strategy(statistics), reml=True).at([])
    assert traces.trace_products(point.state, []).shape == (0, 0)
    assert point.observed_hessian.shape == (0, 0)


def test_a_large_eliminated_factor_needs_no_matrix_of_its_size():
    rng = np.random.default_rng(8)
    labels = crossed(rng, 30_000, [10_000, 12])
    statistics = cross_products(make_design(rng, labels, [Effects(0, 1), Effects(1)]))
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    assert criterion.strategy.name == "crossed"
    theta = THETAS["interior"](criterion, rng)
    bend = stencil(lambda t: criterion.at(t).gradient, theta)
    observed = criterion.at(theta).observed_hessian
    assert_allclose(observed, bend, rtol=0, atol=1e-7 * np.abs(bend).max())


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(4, 40),
    levels=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    slopes=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    nested=st.booleans(),
)
def test_traces_of_odd_shapes(seed, n, levels, slopes, nested):
    rng = np.random.default_rng(seed)
    if nested:
        labels = tree(rng, n, levels)
    else:
        labels = [rng.integers(0, m, n) for m in levels]
    effects = [Effects(f, slopes[f]) for f in range(len(labels))]
    statistics = cross_products(make_design(rng, labels, effects, p=1))
    fast, dense = (
        Criterion(statistics, make(statistics), reml=True)
        for make in (choose_strategy, DenseStrategy)
    )
    theta = rng.normal(size=dense.n_parameters) * rng.integers(0, 2, dense.n_parameters)
    states = [c.strategy.factorize(c.factors(theta)) for c in (fast, dense)]
    directions = draw_directions(statistics)
    got, expected = (traces.trace_products(state, directions) for state in states)
    tolerance = 1e-9 * max(1.0, np.abs(expected).max())
    assert_allclose(got, expected, rtol=0, atol=tolerance)
