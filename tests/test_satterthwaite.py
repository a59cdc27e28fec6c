"""Satterthwaite's degrees of freedom against their definition by differences."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import Effects, make_design, problem, stencil

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.satterthwaite import Satterthwaite, fai_cornelius
from sklearn_lmm._engine.strategy import choose_strategy


def make_criterion(design, reml):
    statistics = cross_products(design)
    return Criterion(statistics, choose_strategy(statistics), reml=reml)


def fitted_point(name, reml):
    result = fit(problem(name, seed=2), reml=reml)
    return result.point()


def deviance(criterion, parameters):
    """Return the deviance at (theta, sigma), which is not profiled out."""
    point, sigma2 = criterion.at(parameters[:-1]), parameters[-1] ** 2
    value = point.state.logdet + criterion.N * np.log(sigma2) + point.r2 / sigma2
    return value + criterion.reml * point.logdet_H


def covariance(criterion, parameters):
    point = criterion.at(parameters[:-1])
    return parameters[-1] ** 2 * point.inverse_R_X @ point.inverse_R_X.T


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", ["slope", "nested_intercepts", "crossed_intercepts"])
def test_one_contrast_equals_its_definition(name, reml):
    point = fitted_point(name, reml)
    criterion = point.criterion
    at = np.append(point.theta, np.sqrt(point.sigma2))

    def gradient(t):
        return stencil(lambda x: deviance(criterion, x), t, 3e-3)

    hessian = stencil(gradient, at, 3e-3)
    A = 2.0 * np.linalg.inv(0.5 * (hessian + hessian.T))
    Phi = covariance(criterion, at)
    J = stencil(lambda x: covariance(criterion, x), at)
    got = Satterthwaite(point)
    for contrast in np.random.default_rng(3).normal(size=(4, len(Phi))):
        g = J @ contrast @ contrast
        expected = 2.0 * (contrast @ Phi @ contrast) ** 2 / (g @ A @ g)
        assert_allclose(got.one(contrast @ point.inverse_R_X), expected, rtol=1e-5)


def test_several_contrasts_come_down_to_uncorrelated_ones():
    tests = Satterthwaite(fitted_point("crossed_slopes", True))
    rows = np.random.default_rng(4).normal(size=(2, 3))
    df = tests.several(rows)
    # What the others imply changes nothing, nor does an orthogonal map.
    turned = np.array([[0.6, 0.8], [-0.8, 0.6]]) @ rows
    assert_allclose(tests.several(turned), df, rtol=1e-9)
    padded = np.vstack([rows / np.sqrt(2), rows / np.sqrt(2)])
    assert_allclose(tests.several(padded), df, rtol=1e-9)
    _, U = np.linalg.eigh(rows @ rows.T)
    nu = np.array([tests.one(row) for row in U.T @ rows])
    assert_allclose(df, fai_cornelius(nu), rtol=1e-9)
    assert nu.max() > 1.01 * nu.min()
    assert_allclose(tests.several(rows[:1] * 7.0), tests.one(rows[0]), rtol=1e-12)


def test_degrees_of_freedom_of_f_from_those_of_t():
    assert fai_cornelius(np.array([12.0, 12.0])) == 12.0
    assert fai_cornelius(np.array([1.5, 12.0])) == 2.0
    # E = 10/8 + 20/18 and 2 E / (E - 2)
    E = 10.0 / 8.0 + 20.0 / 18.0
    assert_allclose(fai_cornelius(np.array([10.0, 20.0])), 2 * E / (E - 2))
    assert fai_cornelius(np.array([np.inf, np.inf])) == np.inf
    assert_allclose(fai_cornelius(np.array([10.0, np.inf])), 2 * 2.25 / 0.25)
    assert np.isnan(fai_cornelius(np.array([10.0, np.nan])))
    assert np.isnan(fai_cornelius(np.array([])))


@pytest.mark.parametrize(("reml", "expected"), [(True, 36.0), (False, 40.0)])
def test_no_random_effects_have_residual_degrees_of_freedom(reml, expected):
    criterion = make_criterion(make_design(np.random.default_rng(0), [], [], p=3), reml)
    tests = Satterthwaite(criterion.at([]))
    assert_allclose(tests.one(np.array([1.0, 0.0, 2.0, 0.0])), expected)
    assert_allclose(tests.several(np.eye(4)[:3]), expected)


def test_a_parameter_that_cannot_be_known_takes_the_degrees_of_freedom_away():
    rng = np.random.default_rng(3)
    labels = [np.zeros(60, int), rng.integers(0, 9, 60)]
    design = make_design(rng, labels, [Effects(0), Effects(1)])
    criterion = make_criterion(design, True)
    point = criterion.at(np.array([0.8, 0.9]))
    root = criterion.statistics.columns.map()[:-1, :-1] @ point.inverse_R_X
    tests = Satterthwaite(point)
    df = [tests.one(row) for row in root]
    assert np.isnan(df[0])
    assert np.isfinite(df[1:]).all()
