"""The search for the optimum: three ways to step, one optimum, boundary included."""

import weakref
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from boundary import ALLOWED, draw_problem, examine, report
from numpy.testing import assert_allclose, assert_array_equal
from problems import DIAG, Effects, crossed, make_design, problem, wide_columns
from scipy.linalg import block_diag

from sklearn_lmm._engine import optimize
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.optimize import minimize
from sklearn_lmm._engine.result import user_theta
from sklearn_lmm._engine.start import LARGEST, SMALLEST, moment_variances
from sklearn_lmm._engine.steps import EM, SOLVERS, second_moments, without_small
from sklearn_lmm._engine.strategy import choose_strategy
from sklearn_lmm.covariance import Unstructured

REGULAR = [
    "intercept",
    "slope",
    "slopes",
    "two_terms",
    "identity",
    "symmetric",
    "nested_intercepts",
    "nested_three",
    "crossed_intercepts",
    "crossed_slopes",
    "crossed_three",
    "crossed_and_nested",
    "crossed_components",
]
each_solver = pytest.mark.parametrize("solver", SOLVERS)


@cache
def criterion_of(name, reml=True):
    statistics = cross_products(problem(name))
    return Criterion(statistics, choose_strategy(statistics), reml=reml)


@cache
def optimum_of(name, solver, reml=True):
    criterion = criterion_of(name, reml)
    return minimize(criterion.at(criterion.start()), solver=solver)


@pytest.mark.parametrize(
    ("name", "reml"),
    [(name, True) for name in REGULAR] + [(name, False) for name in REGULAR[::3]],
)
def test_solvers_reach_the_same_optimum(name, reml):
    optima = [optimum_of(name, solver, reml) for solver in SOLVERS]
    values = [optimum.point.deviance for optimum in optima]
    assert np.ptp(values) < 1e-7
    for optimum in optima:
        assert optimum.converged
        assert not optimum.perfect
        assert optimum.decrement < 1e-8
        assert_allclose(optimum.gradient_norm, np.linalg.norm(optimum.point.gradient))


@each_solver
@pytest.mark.parametrize("name", ["slope", "nested_three", "crossed_three"])
def test_trace_tells_the_whole_way(name, solver):
    criterion, optimum = criterion_of(name), optimum_of(name, solver)
    trace = optimum.trace
    assert_array_equal(trace[0].theta, criterion.start())
    assert_array_equal(trace[-1].theta, optimum.point.theta)
    values = np.array([line.criterion for line in trace])
    # The last steps lower the gradient, where the criterion shows only rounding.
    assert np.all(np.diff(values) < 1e-9)
    assert np.all(np.diff([line.seconds for line in trace]) > 0)
    for line in trace[:: max(1, len(trace) // 5)]:
        point = criterion.at(line.theta)
        assert_allclose(line.criterion, point.deviance, rtol=1e-13)
        norm = np.linalg.norm(point.gradient)
        assert_allclose(line.gradient_norm, norm, rtol=1e-6, atol=1e-9)


@each_solver
def test_every_iteration_is_reported(solver):
    criterion, lines = criterion_of("slope"), []
    optimum = minimize(
        criterion.at(criterion.start()), solver=solver, report=lines.append
    )
    assert tuple(lines) == optimum.trace


@each_solver
def test_too_few_iterations_do_not_converge(solver):
    criterion = criterion_of("crossed_slopes")
    optimum = minimize(criterion.at(criterion.start()), solver=solver, max_iter=1)
    assert not optimum.converged
    assert len(optimum.trace) == 2
    assert optimum.point.deviance < optimum.trace[0].criterion


@each_solver
@pytest.mark.parametrize("name", ["slope", "nested_intercepts", "crossed_intercepts"])
def test_a_saddle_is_left(name, solver):
    criterion = criterion_of(name)
    zero = criterion.at(np.zeros(criterion.n_parameters))
    assert_array_equal(zero.gradient, 0.0)
    assert np.linalg.eigvalsh(zero.hessian)[0] < 0
    optimum = minimize(zero, solver=solver)
    best = optimum_of(name, "newton").point.deviance
    assert_allclose(optimum.point.deviance, best, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["intercept", "slope", "slopes", "nested_intercepts"])
def test_any_start_leads_to_the_optimum(name):
    rng = np.random.default_rng(0)
    criterion, best = criterion_of(name), optimum_of(name, "newton").point.deviance
    for scale in (0.01, 1.0, 30.0):
        start = scale * rng.normal(size=criterion.n_parameters)
        found = minimize(criterion.at(start))
        assert found.converged
        assert_allclose(found.point.deviance, best, rtol=0, atol=1e-7)


@each_solver
def test_no_parameters_need_no_search(solver):
    design = make_design(np.random.default_rng(1), [], [])
    statistics = cross_products(design)
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    optimum = minimize(criterion.at(np.zeros(0)), solver=solver)
    assert optimum.converged
    assert len(optimum.trace) == 1


def test_vanished_directions_are_put_at_zero():
    criterion = criterion_of("crossed_slopes")
    theta = np.array([1.0, 0.5, 1e-5, 1.0, 1e-6, 1e-6, 1e-5, 0.0, 1e-4])
    cleaned = without_small(criterion.at(theta), 1e-7)
    assert_allclose(cleaned[:2], theta[:2], atol=1e-9)
    assert cleaned[2] == 0.0
    assert_allclose(cleaned[3:], [1.0, 1e-6, 1e-6, 0.0, 0.0, 0.0], atol=1e-9)
    whole = without_small(criterion.at(theta), 1e-16)
    assert_array_equal(whole, theta)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", ["slopes", "nested_any_order", "crossed_slopes"])
def test_second_moments_of_the_effects_are_those_given_y(name, reml):
    design, criterion = problem(name), criterion_of(name, reml)
    point = criterion.at(criterion.start())
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    Z = wide_columns(design, criterion.statistics) * np.sqrt(w)[:, None]
    blocks = [
        np.kron(np.eye(len(s)), L @ L.T)
        for s, L in zip(criterion.statistics.s, point.L, strict=True)
    ]
    Psi = block_diag(*blocks)
    ones = np.ones((len(design.y), 1))
    X = np.hstack([ones, design.X]) * np.sqrt(w)[:, None]
    Vinv = np.linalg.inv(np.eye(len(Z)) + Z @ Psi @ Z.T)
    P = Vinv - Vinv @ X @ np.linalg.solve(X.T @ Vinv @ X, X.T @ Vinv)
    y = design.y * np.sqrt(w)
    N = w.sum() - reml * X.shape[1]
    b = Psi @ Z.T @ P @ y / np.sqrt(y @ P @ y / N)
    moments = Psi - Psi @ Z.T @ (P if reml else Vinv) @ Z @ Psi + np.outer(b, b)
    expected = DenseStrategy(criterion.statistics).diagonal_blocks(moments)
    for got, want in zip(second_moments(point), expected, strict=True):
        assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("name", ["intercept", "slopes", "symmetric", "crossed_three"])
def test_em_without_expansion_takes_the_mean_second_moment(name):
    criterion = criterion_of(name)
    point = criterion.at(criterion.start())
    theta = EM()._update(point, expand=False)
    for term, place, part in criterion.terms():
        mean = second_moments(point)[term.factor][:, place, place].mean(axis=0)
        nearest = term.structure.parameters(np.linalg.cholesky(mean))
        assert_allclose(theta[part], nearest, atol=1e-10)


@pytest.mark.parametrize("name", REGULAR)
def test_em_descends_with_and_without_expansion(name):
    criterion = criterion_of(name)
    for expand in (False, True):
        point = criterion.at(criterion.start())
        for _ in range(5):
            new = criterion.at(EM()._update(point, expand=expand))
            assert new.deviance < point.deviance
            point = new


# A true variance of 0, or a correlation of 1, of every kind; all seeds are in the
# results kept beside this file.
BOUNDARY_SEEDS = [*range(14), 25]


@pytest.mark.parametrize("seed", BOUNDARY_SEEDS)
def test_boundary_problem_against_ten_starts_of_scipy(seed):
    outcome = examine(seed)
    assert outcome.result.converged
    assert outcome.excess < ALLOWED
    assert outcome.result.singular == outcome.on_boundary
    assert str(outcome) in list(report({"newton": [outcome]}))


@pytest.mark.parametrize("solver", ["lbfgs", "em"])
@pytest.mark.parametrize("seed", BOUNDARY_SEEDS)
def test_solvers_agree_on_the_boundary(seed, solver):
    _, design, reml = draw_problem(seed)
    newton, other = fit(design, reml=reml), fit(design, reml=reml, solver=solver)
    assert other.converged
    assert_allclose(other.criterion, newton.criterion, rtol=0, atol=1e-7)
    assert other.singular == newton.singular


@pytest.mark.parametrize("seed", BOUNDARY_SEEDS)
def test_boundary_optimum_carries_its_certificate(seed):
    _, design, reml = draw_problem(seed)
    result = fit(design, reml=reml)
    point = result.point()
    assert point.gradient_norm < 1e-4
    # Along columns of zeros in L the Hessian is 2 D, which must not be negative.
    curvature = np.linalg.eigvalsh(point.observed_hessian)
    assert curvature[0] > -1e-6 * curvature[-1]


def test_moments_start_near_the_truth():
    rng = np.random.default_rng(3)
    labels = [rng.integers(0, 300, 6000), rng.integers(0, 200, 6000)]
    design = make_design(rng, labels, [Effects(0, 1, DIAG), Effects(1)])
    statistics = cross_products(design)
    start = Criterion(statistics, DenseStrategy(statistics), reml=True).start()
    assert_allclose(user_theta(statistics, start), 1.0, atol=0.15)


@pytest.mark.parametrize("factors", [1, 2])
def test_moments_start_with_correlations(factors):
    rng = np.random.default_rng(4)
    labels = [rng.integers(0, G, 6000) for G in (300, 200)[:factors]]
    design = make_design(rng, labels, [Effects(f, 1) for f in range(factors)])
    slope = design.blocks[0].slopes[0]
    design.y[:] += 2.0 * (rng.normal(size=300)[labels[0]] * (1.0 + slope))
    statistics = cross_products(design)
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    start = criterion.start()
    best = minimize(criterion.at(start)).point.theta
    L, optimum = (criterion.factors(theta)[0] for theta in (start, best))
    found, true = (
        Psi[0, 1] / np.sqrt(Psi[0, 0] * Psi[1, 1])
        for Psi in (L @ L.T, optimum @ optimum.T)
    )
    assert abs(true) > 0.15
    assert_allclose(found, true, atol=0.1)


@pytest.mark.parametrize(
    ("name", "seed"),
    [("crossed_slopes", 0), ("crossed_three", 5), ("crossed_zero_weights", 5)],
)
def test_last_steps_outlive_one_that_fails(name, seed, monkeypatch):
    """From average information alone one of the last steps raises the gradient."""
    polished = fit(problem(name, seed), reml=True)
    monkeypatch.setattr(optimize, "LESSONS", 0)
    ended = fit(problem(name, seed), reml=True)
    assert polished.search[-1].gradient_norm < 2e-6 < ended.search[-1].gradient_norm


def test_a_sure_last_step_ends_where_a_checked_one_does(monkeypatch):
    rng = np.random.default_rng(5)
    labels = [rng.integers(0, G, 12_000) for G in (80, 50)]
    statistics = cross_products(make_design(rng, labels, [Effects(0), Effects(1)]))
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    sure = minimize(criterion.at(criterion.start()))
    monkeypatch.setattr(optimize, "SURE", 0.0)
    checked = minimize(criterion.at(criterion.start()))
    assert len(sure.trace) == len(checked.trace)
    assert_allclose(sure.point.theta, checked.point.theta, rtol=1e-12)
    # The derivatives at its end were not made, but expected to vanish.
    assert "D" not in vars(sure.point)
    assert "D" in vars(checked.point)
    assert sure.decrement < optimize.POLISHED
    assert sure.point.gradient_norm < 1e-4


def test_moments_that_say_nothing_start_within_bounds():
    rng = np.random.default_rng(4)
    design = make_design(rng, crossed(rng, 40, [6, 4]), [Effects(0, 2), Effects(1)])
    for y in (rng.normal(size=40), design.X[:, 0], 10.0 ** design.factors[0].codes):
        variances = moment_variances(cross_products(replace(design, y=y)))
        assert [v.shape for v in variances] == [(3,), (1,)]
        for v in variances:
            assert np.all((v >= SMALLEST) & (v <= LARGEST))


def test_perfect_explanation_by_groups_stops_the_search():
    rng = np.random.default_rng(2)
    labels = crossed(rng, 60, [9])
    design = make_design(rng, labels, [Effects(0)])
    design.y[:] = labels[0] ** 2.0
    statistics = cross_products(design)
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    optimum = minimize(criterion.at(criterion.start()))
    assert optimum.perfect
    assert not optimum.converged
    assert np.all(np.isfinite(optimum.point.theta))
    # Not where the search stopped, which leaves half of the digits to effects.
    assert_allclose(optimum.point.sigma2, optimize.NEARLY_PERFECT, rtol=0.5)


@pytest.mark.parametrize("seed", [237, 296])
def test_slopes_that_vary_alone_are_found_beside_an_intercept_that_does_not(seed):
    # At L11 = 0 the other entries of L can be turned at no cost.
    rng = np.random.default_rng(seed)
    group, time = np.repeat(np.arange(10), 5), np.tile(np.arange(5.0) - 2.0, 10)
    y = rng.normal(size=10)[group] * time + rng.normal(size=50)
    block = Block(0, Unstructured(), True, (time,))
    factor = Factor(group, np.arange(10))
    result = fit(Design(time[:, None], y, True, (factor,), (block,)), reml=True)
    assert result.converged
    assert result.singular
    assert result.n_iter < 20


class OneAtATime:
    """A strategy that sees to it that V is held at one theta only."""

    exact = True

    def __init__(self, strategy):
        self.strategy, self.held = strategy, weakref.WeakSet()

    def factorize(self, L):
        assert not self.held, "V at another theta is still in memory"
        state = self.strategy.factorize(L)
        self.held.add(state)
        return state


@pytest.mark.parametrize("name", ["crossed_slopes", "slope", "nested_three"])
def test_a_search_of_many_rows_holds_one_large_matrix(name, monkeypatch):
    monkeypatch.setattr(optimize, "FEW_ROWS", 0)
    criterion = criterion_of(name)
    watched = criterion.using(OneAtATime(criterion.strategy))
    optimum = minimize(watched.at(criterion.start()))
    assert_allclose(optimum.point.theta, optimum_of(name, "newton").point.theta)
    assert len(optimum.trace) > 2


def test_what_was_given_up_is_made_again():
    point = criterion_of("crossed_slopes").at(criterion_of("crossed_slopes").start())
    logdet = point.state.logdet
    point.release()
    assert "state" not in vars(point)
    assert point.state.logdet == logdet
