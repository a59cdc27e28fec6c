"""The criterion by blocks of levels is the criterion."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import Effects, interior, make_design, problem, singular

from sklearn_lmm._engine import levelwise
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor_single import pool_levels
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.result import make_criterion
from sklearn_lmm.covariance import Diagonal


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(levelwise, "LEVELS_AT_ONCE", 7)
    monkeypatch.setattr(levelwise, "MANY", 0)


def single(q, n=300, groups=40, **options):
    rng = np.random.default_rng(q)
    return make_design(
        rng, [rng.integers(0, groups, n)], [Effects(0, q - 1, **options)], p=4
    )


DESIGNS = {
    "one coefficient": lambda: single(1),
    "two": lambda: single(2),
    "three, diagonal": lambda: single(3, structure=Diagonal()),
    "four": lambda: single(4),
    "two terms": lambda: problem("two_terms"),
    "weights": lambda: problem("slope"),
}


def both(statistics, reml):
    plain = make_criterion(statistics, reml, "frequency")
    blocks = levelwise.levelwise(plain)
    assert type(blocks) is levelwise.LevelwiseCriterion
    return plain, blocks


@pytest.mark.parametrize("kind", [interior, singular])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_value_and_derivatives(name, reml, kind):
    plain, blocks = both(cross_products(DESIGNS[name]()), reml)
    theta = kind(plain, np.random.default_rng(1))
    expected, point = plain.at(theta), blocks.at(theta)
    assert_allclose(point.deviance, expected.deviance, rtol=1e-12)
    assert_allclose(point.beta, expected.beta, rtol=1e-9, atol=1e-12)
    assert_allclose(point.D[0], expected.D[0], rtol=1e-9, atol=1e-9)
    assert_allclose(point.gradient, expected.gradient, rtol=1e-9, atol=1e-8)
    assert_allclose(point.hessian, expected.hessian, rtol=1e-9, atol=1e-8)
    assert_allclose(point.observed_hessian, point.hessian)
    (effects,), (U,) = point.effects(point.residual), expected.U
    assert_allclose(effects, U @ expected.residual, rtol=1e-9, atol=1e-11)


def test_pooled_levels_count_as_many():
    rng = np.random.default_rng(5)
    design = make_design(rng, [np.arange(600) % 150], [Effects(0)], p=2)
    pooled = pool_levels(cross_products(design))
    assert pooled.multiplicity is not None
    plain, blocks = both(pooled, True)
    theta = np.array([0.7])
    assert_allclose(blocks.at(theta).deviance, plain.at(theta).deviance, rtol=1e-12)
    assert_allclose(blocks.at(theta).hessian, plain.at(theta).hessian, rtol=1e-9)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "em"])
def test_fits_are_the_same(solver, monkeypatch):
    design = single(2)
    by_blocks = fit(design, reml=True, solver=solver)
    monkeypatch.setattr(levelwise, "MANY", 10**9)
    plain = fit(design, reml=True, solver=solver)
    assert_allclose(by_blocks.criterion, plain.criterion, rtol=1e-12)
    assert_allclose(by_blocks.theta, plain.theta, rtol=1e-8)
    assert_allclose(by_blocks.effects[0], plain.effects[0], rtol=1e-7, atol=1e-9)


def test_other_strategies_are_left_alone():
    criterion = make_criterion(
        cross_products(problem("crossed_three")), True, "frequency"
    )
    assert levelwise.levelwise(criterion) is criterion
