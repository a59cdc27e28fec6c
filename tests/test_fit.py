"""Whole fits: results in the user's units, invariances, degenerate data."""

import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    PROBLEMS,
    Effects,
    assert_same_fit,
    crossed,
    make_design,
    problem,
    take,
    tree,
    wide_columns,
)
from scipy import sparse
from scipy.linalg import block_diag

from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.design import Block
from sklearn_lmm._engine.fit import fit, fit_statistics
from sklearn_lmm.covariance import Unstructured

SOME = ["slope", "symmetric", "nested_three", "crossed_intercepts", "crossed_three"]
some_problems = pytest.mark.parametrize("name", SOME)
each_method = pytest.mark.parametrize("reml", [False, True])


def _pickled(result):
    return pickle.loads(pickle.dumps(result))


@cache
def fitted(name, reml=True):
    return fit(problem(name), reml=reml)


def fixed_columns(design):
    return np.hstack([np.ones((len(design.y), int(design.intercept))), design.X])


@each_method
@pytest.mark.parametrize("weights", ["frequency", "precision"])
@pytest.mark.parametrize("name", [*SOME, "nested_slopes", "no_fixed_intercept"])
def test_results_are_those_of_textbook_algebra(name, weights, reml):
    design = problem(name)
    result = fit(design, reml=reml, weights=weights)
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    root = np.sqrt(w)[:, None]
    X, Z = root * fixed_columns(design), root * wide_columns(design)
    y = root[:, 0] * design.y
    G = block_diag(
        *[
            np.kron(np.eye(len(effects)), covariance)
            for effects, covariance in zip(
                result.effects, result.covariances, strict=True
            )
        ]
    )
    Vinv = np.linalg.inv(result.sigma**2 * np.eye(len(y)) + Z @ G @ Z.T)
    covariance = np.linalg.inv(X.T @ Vinv @ X)
    beta = covariance @ X.T @ Vinv @ y
    b = G @ Z.T @ Vinv @ (y - X @ beta)
    posterior = G - G @ Z.T @ Vinv @ Z @ G
    N = (w.sum() if weights == "frequency" else len(y)) - reml * X.shape[1]
    assert_allclose(result.beta, beta, rtol=1e-8, atol=1e-8)
    assert_allclose(result.beta_covariance, covariance, rtol=1e-7, atol=1e-10)
    effects = np.concatenate([e.ravel() for e in result.effects])
    assert_allclose(effects, b, atol=1e-8)
    residual = y - X @ beta
    assert_allclose(residual @ Vinv @ residual, N, rtol=1e-9)
    end = 0
    for blocks in result.conditional_covariances():
        for block in blocks:
            place = slice(end, end + len(block))
            assert_allclose(block, posterior[place, place], atol=1e-8)
            end += len(block)


@some_problems
def test_theta_gives_the_covariances(name):
    result = fitted(name)
    start = 0
    for term, place in zip(
        result.statistics.terms, result.statistics.slices, strict=True
    ):
        stop = start + term.structure.n_parameters(term.q)
        L = result.sigma * term.structure.factor(result.theta[start:stop], term.q)
        covariance = result.covariances[term.factor][place, place]
        assert_allclose(covariance, L @ L.T, rtol=1e-9)
        start = stop
    assert start == len(result.theta)


def test_results_say_how_they_were_found():
    result = fitted("slope")
    assert (result.strategy, result.solver) == ("single", "newton")
    assert result.converged
    assert not result.singular
    assert not result.perfect
    assert result.n_iter == len(result.trace) - 1 > 1
    assert result.decrement < 1e-8
    assert_allclose(result.trace[-1].theta, result.theta)
    assert_allclose(result.trace[-1].criterion, result.criterion)
    assert "REML" in repr(result)
    assert "converged=True" in repr(result)
    assert result.effect_statistics is result.statistics
    value = result.point().deviance
    assert_allclose(value, result.criterion, rtol=1e-14)


@pytest.mark.parametrize("copied", [lambda result: result, _pickled])
def test_arrays_of_a_result_are_read_only(copied):
    result = copied(fitted("crossed_three"))
    arrays = [result.theta, result.beta, result.beta_covariance, result.kept]
    for array in [*arrays, *result.effects, *result.covariances]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_iterations_are_printed(capsys):
    result = fit(problem("slope"), reml=True, verbose=1)
    header, *lines = capsys.readouterr().out.splitlines()
    assert "criterion" in header
    assert "theta" in header
    assert len(lines) == len(result.trace)
    last = lines[-1].split()
    assert_allclose(float(last[0]), result.criterion)
    assert_allclose(float(lines[-1].split("[")[1].split()[0]), result.theta[0], 1e-4)
    fit(problem("slope"), reml=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "em"])
def test_one_iteration_is_not_enough(solver):
    result = fit(problem("crossed_three"), reml=True, solver=solver, max_iter=1)
    assert not result.converged
    assert result.n_iter == 1
    assert np.all(np.isfinite(result.beta))


@pytest.mark.parametrize("name", ["slope", "crossed_slopes"])
def test_dependent_columns_are_dropped_in_order(name):
    design, result = problem(name), fitted(name)
    n = len(design.y)
    combined = 2.0 * design.X[:, 0] - design.X[:, 1] + 3.0
    X = np.column_stack(
        [design.X[:, 0], design.X[:, 0], np.full(n, 4.0), design.X[:, 1], combined]
    )
    other = fit(replace(design, X=X), reml=True)
    assert_array_equal(other.kept, [True, True, False, False, True, False])
    assert_array_equal(other.beta[~other.kept], 0.0)
    assert_array_equal(other.beta_covariance[~other.kept], 0.0)
    assert_same_fit(result, replace(other, beta=other.beta[other.kept]))


def test_without_intercept_a_constant_column_is_kept():
    design = problem("slope")
    X = np.column_stack([np.full(len(design.y), 2.0), design.X])
    other = fit(replace(design, X=X, intercept=False), reml=False)
    assert other.kept.all()
    assert_allclose(other.criterion, fitted("slope", False).criterion, rtol=1e-11)
    assert_allclose(2.0 * other.beta[0], fitted("slope", False).beta[0], rtol=1e-6)


@pytest.mark.parametrize(("part", "kept"), [(1e-6, True), (1e-9, False)])
def test_a_nearly_dependent_column_is_kept_as_long_as_rows_can_tell(part, kept):
    design = problem("slope")
    X = design.X[:, [0, 1, 0]]
    extra = np.random.default_rng(3).normal(size=len(design.y))
    X[:, 2] += part * extra
    other = fit(replace(design, X=X), reml=True)
    assert_array_equal(other.kept, [True, True, True, kept])
    if kept:
        X = np.column_stack([design.X, extra])
        apart = fit(replace(design, X=X), reml=True)
        criterion = other.criterion - 2.0 * np.log(part)
        assert_allclose(criterion, apart.criterion, rtol=0, atol=1e-6)
        assert_allclose(other.beta[3] * part, apart.beta[3], rtol=1e-5)
        assert_allclose(other.beta[1] + other.beta[3], apart.beta[1], rtol=1e-4)


def test_no_random_effects_are_least_squares():
    design = make_design(np.random.default_rng(4), [], [], p=3)
    result = fit(design, reml=True)
    X = fixed_columns(design)
    beta, r2, *_ = np.linalg.lstsq(X, design.y)
    sigma2 = r2[0] / (len(X) - 4)
    assert_allclose(result.beta, beta, rtol=1e-11)
    assert_allclose(result.sigma**2, sigma2, rtol=1e-12)
    covariance = sigma2 * np.linalg.inv(X.T @ X)
    assert_allclose(result.beta_covariance, covariance, rtol=1e-9, atol=1e-14)
    assert (result.strategy, result.converged, result.effects) == ("none", True, ())


def exact(kind):
    """Return data whose y the fixed part, or nothing at all, explains."""
    design = problem("slope")
    X = fixed_columns(design)
    y = {"columns": X @ [1.0, 2.0, -3.0], "constant": X[:, 0], "zero": 0 * X[:, 0]}
    return replace(design, y=y[kind])


@each_method
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["columns", "constant", "zero"])
def test_y_that_the_fixed_part_explains(kind, scale, reml):
    design = exact(kind)
    result = fit(replace(design, y=scale * design.y), reml=reml)
    assert result.perfect
    assert result.criterion == -np.inf
    assert result.sigma == 0.0
    fitted_y = fixed_columns(design) @ result.beta
    assert_allclose(fitted_y, scale * design.y, rtol=1e-9, atol=1e-12 * scale)
    for array in (*result.effects, *result.covariances):
        assert_allclose(array, 0.0, atol=1e-9 * scale)


@each_method
@pytest.mark.parametrize("factors", [1, 2])
def test_y_that_the_groups_explain(factors, reml):
    rng = np.random.default_rng(5)
    labels = tree(rng, 80, (4, 3))[:factors]
    design = make_design(rng, labels, [Effects(f) for f in range(factors)])
    y = 2.0 * design.X[:, 0] + labels[0] ** 2.0
    result = fit(replace(design, y=y), reml=reml)
    assert result.perfect
    assert not result.converged
    assert result.sigma == 0.0
    predicted = fixed_columns(design) @ result.beta
    for effects, grouping in zip(result.effects, design.factors, strict=True):
        predicted = predicted + effects[grouping.codes, 0]
    assert_allclose(predicted, y, atol=1e-5 * np.ptp(y))
    assert np.all(np.isfinite(result.theta))


@each_method
@pytest.mark.parametrize("n", [3, 4, 5])
def test_fewer_rows_than_columns(n, reml):
    design = make_design(
        np.random.default_rng(6), [np.arange(n) % 2], [Effects(0)], p=6
    )
    result = fit(design, reml=reml)
    assert result.perfect
    assert result.kept.sum() == n
    assert_allclose(fixed_columns(design) @ result.beta, design.y, atol=1e-8)


NOTHING = [("one level", True), ("singletons", False), ("singletons", True)]


@pytest.mark.parametrize(("kind", "reml"), NOTHING)
def test_data_that_say_nothing_about_the_groups(kind, reml):
    rng = np.random.default_rng(7)
    labels = np.zeros(40, int) if kind == "one level" else np.arange(40)
    design = make_design(rng, [labels], [Effects(0)])
    result = fit(design, reml=reml)
    plain = fit(replace(design, factors=(), blocks=()), reml=reml)
    assert result.unidentified == (0,)
    assert_array_equal(result.theta, 0.0)
    assert result.converged
    assert not result.singular
    assert_allclose(result.criterion, plain.criterion, rtol=1e-13)
    assert_allclose(result.beta, plain.beta, rtol=1e-10)
    assert_array_equal(result.effects[0], 0.0)


@each_method
def test_one_of_two_factors_has_one_level(reml):
    rng = np.random.default_rng(8)
    labels = [rng.integers(0, 8, 80), np.zeros(80, int)]
    both = make_design(rng, labels, [Effects(0, 1), Effects(1)])
    alone = replace(both, factors=both.factors[:1], blocks=both.blocks[:1])
    result = fit(both, reml=reml)
    # Under ML the criterion is not flat: its optimum is at zero.
    assert result.unidentified == ((1,) if reml else ())
    assert_same_fit(fit(alone, reml=reml), replace(result, theta=result.theta[:3]))
    assert result.theta[3] == 0.0


def test_one_level_counts_where_no_fixed_effect_takes_its_place():
    rng = np.random.default_rng(10)
    design = make_design(rng, [np.zeros(30, int)], [Effects(0)])
    design = replace(design, intercept=False, y=design.y + 50.0)
    result = fit(design, reml=False)
    assert result.unidentified == ()
    assert result.theta[0] > 1.0


def test_a_row_of_its_own_for_every_level_beside_another_factor():
    rng = np.random.default_rng(11)
    labels = [np.arange(60), np.arange(60) // 6]
    both = make_design(rng, labels, [Effects(0), Effects(1)])
    alone = replace(
        both, factors=both.factors[1:], blocks=(replace(both.blocks[1], factor=0),)
    )
    result, plain = fit(both, reml=True), fit(alone, reml=True)
    assert result.unidentified == (0,)
    assert_allclose(result.theta[1:], plain.theta, rtol=1e-7)
    assert_allclose(result.criterion, plain.criterion, rtol=1e-12)


def test_no_fixed_effects_at_all_beside_two_factors():
    rng = np.random.default_rng(12)
    labels = [rng.integers(0, 9, 90), rng.integers(0, 7, 90)]
    design = make_design(rng, labels, [Effects(0), Effects(1)])
    design = replace(design, X=np.empty((90, 0)), intercept=False)
    assert fit(design, reml=True).converged


def test_large_precision_weights_do_not_make_a_fit_singular():
    rng = np.random.default_rng(13)
    labels = rng.integers(0, 12, 120)
    design = make_design(rng, [labels], [Effects(0, 1)])
    design = replace(design, y=design.y + 3.0 * rng.normal(size=12)[labels])
    results = [
        fit(replace(design, weights=np.full(120, w)), reml=True, weights="precision")
        for w in (1.0, 1e8)
    ]
    assert [result.singular for result in results] == [False, False]
    assert_allclose(results[1].theta * 1e4, results[0].theta, rtol=1e-5)


def collapsed_problem():
    """Return rows in which the intercepts and slopes of groups are one thing."""
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(12), 15)
    x = rng.normal(2.0, 3.0, 180)
    b = rng.normal(size=12)[labels]
    y = 1.0 + b * (1.0 + 0.5 * x) + rng.normal(size=180)
    blocks = (Block(0, Unstructured(), True, (x,)),)
    empty = make_design(rng, [labels], [Effects(0)])
    return replace(empty, X=x[:, None], y=y, blocks=blocks)


def test_the_direction_that_collapsed_is_told_in_the_users_units():
    result = fit(collapsed_problem(), reml=True)
    assert result.singular
    ((term, direction),) = result.collapsed
    assert term == 0
    covariance = result.covariances[0]
    variance = direction @ covariance @ direction
    assert variance < 1e-9 * direction**2 @ np.diag(covariance)
    # b0 = 2 b1 up to the noise, so that b0 - 2 b1 does not vary.
    assert -3.0 < direction[1] / direction[0] < -1.4


def repeated_measures(q):
    """Return many groups observed at the same few points each."""
    rng = np.random.default_rng(10)
    labels = np.repeat(np.arange(90), 4)
    x = np.tile([0.0, 1.0, 2.0, 5.0], 90)
    design = make_design(rng, [labels], [Effects(0)])
    slopes = (x,)[: q - 1]
    return replace(
        design,
        X=x[:, None],
        y=design.y + rng.normal(size=90)[labels] * x,
        blocks=(Block(0, Unstructured(), True, slopes),),
    )


@each_method
@pytest.mark.parametrize("q", [1, 2])
def test_pooling_of_levels_is_not_seen_in_the_result(q, reml, monkeypatch):
    design = repeated_measures(q)
    pooled = fit(design, reml=reml)
    monkeypatch.setattr("sklearn_lmm._engine.fit.pool_levels", lambda s: s)
    plain = fit(design, reml=reml)
    assert_same_fit(plain, pooled)
    assert pooled.effects[0].shape == (90, q)
    assert_allclose(pooled.effects[0], plain.effects[0], atol=1e-6)
    for a, b in zip(
        pooled.conditional_covariances(), plain.conditional_covariances(), strict=True
    ):
        assert_allclose(a, b, atol=1e-6)


def test_fit_statistics_needs_no_rows():
    design = problem("crossed_three")
    statistics = cross_products(design)
    result = fit_statistics(statistics, np.ones(statistics.p, bool), reml=True)
    assert_same_fit(fitted("crossed_three"), result, criterion=1e-12, theta=1e-9)


@settings(max_examples=40)
@given(
    n=st.integers(1, 25),
    levels=st.tuples(st.integers(1, 5), st.integers(1, 12)),
    slopes=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    factors=st.integers(0, 2),
    p=st.integers(0, 4),
    intercept=st.booleans(),
    reml=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_any_shape_can_be_fitted(n, levels, slopes, factors, p, intercept, reml, seed):
    rng = np.random.default_rng(seed)
    labels = crossed(rng, n, levels)[:factors]
    terms = [Effects(f, slopes[f]) for f in range(factors)]
    design = make_design(rng, labels, terms, p=p, intercept=intercept)
    # With as many unknowns as rows the groups explain y, or the criterion is flat.
    effects = sum(
        f.n_levels * (1 + q)
        for f, q in zip(design.factors, slopes[:factors], strict=True)
    )
    assume(0 < p + intercept < n - effects)
    assume(all(f.n_levels > 1 for f in design.factors))
    result = fit(design, reml=reml)
    assert result.converged or result.perfect or result.n_iter > 50
    for array in (result.beta, result.theta, *result.effects, *result.covariances):
        assert np.all(np.isfinite(array))
    assert result.criterion <= result.trace[0].criterion + 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_converges(name):
    result = fitted(name)
    assert result.converged
    assert result.gradient_norm < 1e-2


@pytest.mark.parametrize("value", [1.0, 3.3, 1e5 / 3])
def test_a_constant_column_of_sparse_columns_is_dropped(value):
    """It is not centred, so that sums of products know its spread to 1e-8 only."""
    design = problem("slope")
    for rows in range(60, 80):
        some = take(design, np.arange(rows))
        constant = np.full((rows, 1), value)
        X = sparse.csr_array(np.hstack([some.X, constant]))
        result = fit(replace(some, X=X), reml=True)
        assert result.kept.tolist() == [True, True, True, False]
        assert_allclose(result.criterion, fit(some, reml=True).criterion, atol=1e-7)
