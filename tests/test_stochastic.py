"""Stochastic fits against exact ones: errors as small, and as large, as told."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import UN, Effects, crossed, make_design

from sklearn_lmm._engine import stochastic
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.design import Block
from sklearn_lmm._engine.fit import fit, fit_statistics

SEEDS = 24


def draw(name):
    rng = np.random.default_rng(1)
    if name == "intercepts":
        return make_design(
            rng, crossed(rng, 2500, [250, 150]), [Effects(0), Effects(1)]
        )
    if name == "sparse":
        labels = [rng.integers(0, 500, 1500), rng.integers(0, 400, 1500)]
        return make_design(rng, labels, [Effects(0), Effects(1)])
    if name == "three":
        labels = [*crossed(rng, 3000, [200, 120]), rng.integers(0, 6, 3000)]
        return make_design(rng, labels, [Effects(0), Effects(1), Effects(2)])
    effects = [Effects(0, 1), Effects(1, 1), Effects(1, 1, UN, False)]
    return make_design(rng, crossed(rng, 2500, [150, 90]), effects, weights=True)


@cache
def statistics_of(name):
    return cross_products(draw(name))


@cache
def exact(name, reml):
    return fit_statistics(statistics_of(name), reml=reml)


def estimate(name, seed=0, reml=True, **options):
    return fit_statistics(
        statistics_of(name),
        reml=reml,
        solver="stochastic",
        draw_seed=lambda: seed,
        **options,
    )


@pytest.mark.parametrize(
    "name, reml",
    [
        ("intercepts", True),
        ("intercepts", False),
        ("sparse", True),
        ("three", True),
        ("slopes", False),
    ],
)
def test_errors_are_those_reported(name, reml):
    truth = exact(name, reml)
    fits = [estimate(name, seed, reml) for seed in range(SEEDS)]
    assert {f.solver for f in fits} == {"stochastic"}
    assert all(f.converged for f in fits)
    assert all(f.monte_carlo.small for f in fits)
    told = [f.monte_carlo for f in fits]
    _calibrated(
        [f.theta - truth.theta for f in fits],
        [m.theta for m in told],
        # What the search leaves: a thousandth of a standard error.
        1e-3 * np.sqrt(2.0 / np.diag(truth.point().hessian)),
    )
    _calibrated([f.beta - truth.beta for f in fits], [m.beta for m in told], 1e-8)
    _calibrated(
        [[(truth.criterion - f.criterion) / 2] for f in fits],
        [[m.log_likelihood] for m in told],
        1e-4,
    )


def _calibrated(errors, told, search):
    """Check that errors have mean 0 and the standard deviations that are told."""
    errors, told = np.array(errors), np.array(told)
    told = np.sqrt(np.mean(told**2, axis=0))
    scale = told + search
    assert (np.abs(errors.mean(axis=0)) < 4.5 * scale / np.sqrt(len(errors))).all()
    observed = np.sqrt(np.mean(errors**2, axis=0))
    assert (observed < 1.8 * scale).all()
    assert (observed > told / 2.5)[told > 5 * search].all()


def test_effects_and_sigma_follow_theta():
    truth, fitted = exact("intercepts", True), estimate("intercepts")
    assert_allclose(fitted.sigma, truth.sigma, rtol=1e-4)
    for mine, theirs in zip(fitted.effects, truth.effects, strict=True):
        assert_allclose(mine, theirs, atol=1e-3)
    for mine, theirs in zip(fitted.covariances, truth.covariances, strict=True):
        assert_allclose(mine, theirs, atol=5e-3)
    # Given theta, beta and the effects are exact.
    point = fitted.point()
    dense = truth.model().at(fitted.theta_standardized)
    assert_allclose(point.beta, dense.beta, atol=1e-9)
    for U, V in zip(point.U, dense.U, strict=True):
        assert_allclose(U, V, atol=1e-8)


def test_probes_are_doubled_until_the_error_is_small():
    errors = estimate("sparse").monte_carlo
    assert errors.probes > 8
    assert errors.relative <= 0.01


def test_probes_have_a_limit(monkeypatch):
    monkeypatch.setattr(stochastic, "MOST_PROBES", 8)
    errors = estimate("sparse").monte_carlo
    assert errors.probes == 8
    assert not errors.small


def test_with_fewer_levels_than_probes_all_is_exact(monkeypatch):
    truth = exact("three", True)
    monkeypatch.setattr(stochastic, "SMALL_ERROR", 0.0)
    fitted = estimate("three")
    assert fitted.monte_carlo.probes >= 120
    assert_array_equal(fitted.monte_carlo.theta, 0.0)
    assert fitted.monte_carlo.log_likelihood == 0.0
    assert_allclose(fitted.theta, truth.theta, atol=1e-4)
    assert_allclose(fitted.criterion, truth.criterion, atol=1e-2)


def test_seeds_make_fits_the_same():
    one, again, other = (
        estimate("sparse", 3),
        estimate("sparse", 3),
        estimate("sparse", 4),
    )
    assert_array_equal(one.theta, again.theta)
    assert one.criterion == again.criterion
    assert not np.array_equal(one.theta, other.theta)


@pytest.mark.parametrize("varies", [(0,), (1,), ()])
def test_variances_that_vanish(varies):
    rng = np.random.default_rng(2)
    design = draw("intercepts")
    y = rng.normal(size=len(design.y)) + sum(
        rng.normal(size=f.n_levels)[f.codes]
        for f in (design.factors[k] for k in varies)
    )
    design = replace(design, y=y)
    truth, fitted = (
        fit(design, reml=True, solver=solver) for solver in ("newton", "stochastic")
    )
    assert fitted.singular == truth.singular
    assert_array_equal(fitted.theta == 0.0, truth.theta == 0.0)
    assert_allclose(fitted.theta, truth.theta, atol=2e-3)
    assert_allclose(fitted.criterion, truth.criterion, atol=0.05)


def test_a_correlation_at_its_bound():
    rng = np.random.default_rng(7)
    design = draw("intercepts")
    x, (first, second) = design.X[:, 0], design.factors
    b, c = rng.normal(size=first.n_levels), rng.normal(size=second.n_levels)
    y = rng.normal(size=len(x)) + b[first.codes] + c[second.codes] * (1.0 + x)
    blocks = tuple(Block(k, UN, True, (x,)) for k in (0, 1))
    design = replace(design, y=y, blocks=blocks)
    truth, fitted = (
        fit(design, reml=False, solver=solver) for solver in ("newton", "stochastic")
    )
    assert truth.singular and fitted.singular
    assert len(fitted.collapsed) == len(truth.collapsed)
    assert_allclose(fitted.theta, truth.theta, atol=5e-3)


def test_a_factor_of_one_level_is_not_identified():
    design = draw("three")
    one = replace(design.factors[2], codes=np.zeros(3000, int), levels=np.array([7]))
    fitted = fit(
        replace(design, factors=(*design.factors[:2], one)),
        reml=True,
        solver="stochastic",
    )
    assert fitted.unidentified == (2,)
    assert fitted.theta[2] == 0.0


def test_perfect_fits():
    design = draw("intercepts")
    by_columns = replace(design, y=design.X @ [1.0, 2.0])
    fitted = fit(by_columns, reml=True, solver="stochastic")
    assert fitted.perfect and fitted.solver == "stochastic"
    assert_array_equal(fitted.monte_carlo.theta, 0.0)


def test_few_iterations_are_told():
    fitted = estimate("intercepts", max_iter=1, tol=1e-8)
    assert not fitted.converged


def test_trace_tells_the_error(capsys):
    fitted = estimate("sparse", verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(fitted.trace) + 1
    assert "Monte-Carlo error" in lines[-1]
    noise = [line.noise for line in fitted.trace]
    assert_allclose(noise[-1], fitted.monte_carlo.relative, rtol=0.05)
    # More probes, less noise.
    assert noise[-1] < noise[0]
