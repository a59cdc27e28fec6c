"""The criterion against textbook algebra on the rows, and its derivatives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from problems import (
    CROSSED,
    NESTED,
    PROBLEMS,
    SINGLE,
    THETAS,
    Effects,
    crossed,
    interior,
    make_design,
    problem,
    stencil,
    take,
    wide_columns,
)
from scipy.linalg import block_diag, null_space
from scipy.stats import multivariate_normal

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.result import user_theta
from sklearn_lmm._engine.strategy import choose_strategy

each_method = pytest.mark.parametrize("reml", [False, True])
at_thetas = pytest.mark.parametrize(
    ("kind", "reml"),
    [
        ("interior", False),
        ("interior", True),
        ("singular", True),
        ("zero", False),
        ("small", True),
    ],
)


def make_criterion(design, reml, *, frequency=True, dense=False):
    statistics = cross_products(design)
    make = DenseStrategy if dense else choose_strategy
    return Criterion(statistics, make(statistics), reml=reml, frequency=frequency)


def raw_columns(design):
    ones = np.ones((len(design.y), int(design.intercept)))
    return np.hstack([ones, design.X])


def raw_relative_covariance(criterion, theta):
    """Return Z (I x Psi) Z' in the user's units, theta being standardised."""
    statistics = criterion.statistics
    raw, blocks, start = user_theta(statistics, theta), {}, 0
    for term in statistics.terms:
        stop = start + term.structure.n_parameters(term.q)
        L = term.structure.factor(raw[start:stop], term.q)
        blocks.setdefault(term.factor, []).append(L @ L.T)
        start = stop
    wide = [
        np.kron(np.eye(len(levels)), block_diag(*blocks[f]))
        for f, levels in enumerate(statistics.levels)
    ]
    return block_diag(*wide)


def textbook(design, criterion, theta, reml, weights="frequency"):
    """Return -2 log L by n x n algebra on rows multiplied by sqrt(w)."""
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    X, y, Z = (
        np.sqrt(w)[:, None] * a
        for a in (raw_columns(design), design.y[:, None], wide_columns(design))
    )
    V = np.eye(len(y)) + Z @ raw_relative_covariance(criterion, theta) @ Z.T
    H = X.T @ np.linalg.solve(V, X)
    residual = y - X @ np.linalg.solve(H, X.T @ np.linalg.solve(V, y))
    r2 = (residual.T @ np.linalg.solve(V, residual)).item()
    N = (w.sum() if weights == "frequency" else len(y)) - reml * X.shape[1]
    value = np.linalg.slogdet(V)[1] + N * (1 + np.log(2 * np.pi * r2 / N))
    if reml:
        value += np.linalg.slogdet(H)[1]
    return value - (np.log(w).sum() if weights == "precision" else 0.0)


@pytest.mark.parametrize(
    ("reml", "weights"),
    [(False, "precision"), (True, "precision"), (True, "frequency")],
)
@pytest.mark.parametrize("name", PROBLEMS)
def test_value_equals_textbook_algebra_in_raw_units(name, reml, weights):
    design = problem(name, seed=4)
    criterion = make_criterion(design, reml, frequency=weights == "frequency")
    rng = np.random.default_rng(5)
    for kind in ("interior", "singular"):
        theta = THETAS[kind](criterion, rng)
        expected = textbook(design, criterion, theta, reml, weights)
        assert_allclose(criterion.at(theta).deviance, expected, rtol=1e-9)


def normal_at(point, design, criterion):
    """Return beta and Cov(y) = sigma^2 (I + Z Psi Z') in the user's units."""
    units = criterion.statistics.columns
    beta = -(units.scale[-1] * units.map() @ point.residual)[:-1]
    Z = wide_columns(design)
    V = Z @ raw_relative_covariance(criterion, point.theta) @ Z.T
    V[np.diag_indices(len(V))] += 1.0 if design.weights is None else 1 / design.weights
    return beta, point.sigma2 * units.scale[-1] ** 2 * V


@pytest.mark.parametrize("name", ["slope", "crossed_slopes", "nested_three"])
def test_likelihood_is_that_of_the_normal_distribution(name):
    design = problem(name)
    criterion = make_criterion(design, False, frequency=False)
    point = criterion.at(interior(criterion, np.random.default_rng(6)))
    beta, covariance = normal_at(point, design, criterion)
    normal = multivariate_normal(raw_columns(design) @ beta, covariance)
    assert_allclose(point.deviance, -2.0 * normal.logpdf(design.y), rtol=1e-11)


@pytest.mark.parametrize("name", ["slope", "crossed_slopes", "nested_three"])
def test_restricted_likelihood_is_that_of_error_contrasts(name):
    design = problem(name)
    criterion = make_criterion(design, True, frequency=False)
    point = criterion.at(interior(criterion, np.random.default_rng(6)))
    _, covariance = normal_at(point, design, criterion)
    X = raw_columns(design)
    K = null_space(X.T)
    density = multivariate_normal(np.zeros(K.shape[1]), K.T @ covariance @ K)
    # lme4 leaves out log|X'X|, which orthonormal contrasts bring in.
    expected = -2.0 * density.logpdf(K.T @ design.y) + np.linalg.slogdet(X.T @ X)[1]
    assert_allclose(point.deviance, expected, rtol=1e-10)


@each_method
@pytest.mark.parametrize("name", ["slope", "crossed_slopes", "nested_slopes"])
def test_a_weight_of_two_is_the_row_twice(name, reml):
    rng = np.random.default_rng(7)
    design = replace(problem(name), weights=None)
    times = rng.integers(1, 4, len(design.y))
    weighted = make_criterion(replace(design, weights=times.astype(float)), reml)
    repeated = make_criterion(
        take(design, np.repeat(np.arange(len(times)), times)), reml
    )
    theta = interior(weighted, rng)
    mine, theirs = weighted.at(theta), repeated.at(theta)
    assert_allclose(mine.deviance, theirs.deviance, rtol=1e-12)
    assert_allclose(mine.gradient, theirs.gradient, rtol=1e-9, atol=1e-9)


@at_thetas
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_equals_stencil(name, kind, reml):
    criterion = make_criterion(problem(name, seed=6), reml)
    theta = THETAS[kind](criterion, np.random.default_rng(8))
    slope = stencil(lambda t: criterion.at(t).deviance, theta)
    scale = max(np.abs(slope).max(), 1.0)
    assert_allclose(criterion.at(theta).gradient, slope, rtol=0, atol=3e-8 * scale)


@at_thetas
@pytest.mark.parametrize("name", SINGLE)
def test_hessian_of_one_factor_equals_stencil(name, kind, reml):
    criterion = make_criterion(problem(name, seed=6), reml)
    theta = THETAS[kind](criterion, np.random.default_rng(8))
    bend = stencil(lambda t: criterion.at(t).gradient, theta)
    scale = max(np.abs(bend).max(), 1.0)
    assert_allclose(criterion.at(theta).hessian, bend, rtol=0, atol=3e-8 * scale)


@each_method
@pytest.mark.parametrize("name", NESTED | CROSSED)
def test_dense_hessian_of_several_factors_equals_stencil(name, reml):
    criterion = make_criterion(problem(name), reml, dense=True)
    theta = interior(criterion, np.random.default_rng(9))
    bend = stencil(lambda t: criterion.at(t).gradient, theta)
    scale = np.abs(bend).max()
    assert_allclose(criterion.at(theta).hessian, bend, rtol=0, atol=1e-8 * scale)


@each_method
@pytest.mark.parametrize("name", ["slope", "nested_slopes", "crossed_three"])
def test_observed_hessian_is_exact_for_several_factors_too(name, reml):
    criterion = make_criterion(problem(name), reml)
    theta = interior(criterion, np.random.default_rng(9))
    bend = stencil(lambda t: criterion.at(t).gradient, theta)
    observed = criterion.at(theta).observed_hessian
    assert_allclose(observed, bend, rtol=0, atol=1e-8 * np.abs(bend).max())


@each_method
@pytest.mark.parametrize("slopes", [0, 1])
def test_average_information_is_near_the_hessian_at_the_optimum(slopes, reml):
    rng = np.random.default_rng(10)
    rows = np.indices((40, 30, 2)).reshape(3, -1)
    effects = [Effects(0, slopes), Effects(1)]
    design = make_design(rng, list(rows[:2]), effects)
    result = fit(design, reml=reml)
    model, theta = result.model(), result.theta_standardized
    average = model.at(theta).hessian
    exact = stencil(lambda t: model.at(t).gradient, theta)
    root = np.linalg.inv(np.linalg.cholesky(exact))
    ratio = np.linalg.eigvalsh(root @ average @ root.T)
    assert_allclose(ratio, 1.0, atol=0.05)
    assert np.abs(average - exact).max() > 1e-6


@pytest.mark.parametrize("name", ["slope", "nested_three", "crossed_three"])
def test_derivative_by_psi_is_finite_and_true_at_zero(name):
    criterion = make_criterion(problem(name), True)
    point = criterion.at(np.zeros(criterion.n_parameters))
    assert_allclose(point.gradient, 0.0, atol=1e-14)
    for term, place, part in criterion.terms():
        D = point.D[term.factor][place, place]
        root = np.cos(np.arange(term.q))[:, None]
        theta = point.theta.copy()
        theta[part] = term.structure.parameters(1e-4 * root)
        L = term.structure.factor(theta[part], term.q)
        change = criterion.at(theta).deviance - point.deviance
        assert_allclose(change, np.sum(D * (L @ L.T)), rtol=1e-4)


def test_start_has_a_variance_for_every_coefficient():
    criterion = make_criterion(problem("crossed_three"), True)
    for L in criterion.factors(criterion.start()):
        assert np.all(np.linalg.eigvalsh(L @ L.T) > 0)


def test_parameters_are_taken_term_by_term():
    criterion = make_criterion(problem("nested_three"), True)
    theta = np.arange(1.0, criterion.n_parameters + 1)
    sizes = [part.stop - part.start for part in criterion.parameters]
    assert sizes == [3, 1, 2, 1]
    leaf = criterion.factors(theta)[0]
    # The factor has two terms, the second and the fourth.
    assert_allclose(leaf, np.diag([theta[3], theta[6]]))


def test_a_point_does_not_change_with_the_array_it_was_made_from():
    criterion = make_criterion(problem("slope"), True)
    theta = criterion.start()
    point = criterion.at(theta)
    theta[:] = 0.0
    assert_allclose(point.gradient, criterion.at(criterion.start()).gradient)


@settings(max_examples=25)
@given(
    n=st.integers(8, 40),
    levels=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    slopes=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    p=st.integers(0, 3),
    intercept=st.booleans(),
    reml=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_any_shape_has_the_textbook_value_and_gradient(
    n, levels, slopes, p, intercept, reml, seed
):
    rng = np.random.default_rng(seed)
    labels = crossed(rng, n, levels)
    terms = [Effects(f, q) for f, q in enumerate(slopes)]
    design = make_design(rng, labels, terms, p=p, intercept=intercept, weights=True)
    criterion = make_criterion(design, reml)
    theta = interior(criterion, rng)
    point = criterion.at(theta)
    assert_allclose(point.deviance, textbook(design, criterion, theta, reml), rtol=1e-8)
    slope = stencil(lambda t: criterion.at(t).deviance, theta)
    scale = max(1.0, np.abs(slope).max())
    assert_allclose(point.gradient, slope, rtol=0, atol=1e-6 * scale)
