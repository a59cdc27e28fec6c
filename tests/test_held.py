"""Coordinates with one parameter held, against dense algebra and stencils."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import interior, problem, stencil, wide_columns
from scipy.linalg import block_diag

from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.held import (
    correlation,
    hold_contrast,
    hold_sigma,
    hold_variance_parameter,
)
from sklearn_lmm._engine.result import factor_maps, make_criterion
from sklearn_lmm._engine.variance_parameters import (
    VarianceParameter,
    parameters_of,
    values_and_gradient,
)
from sklearn_lmm.covariance import STRUCTURES, Covariance

NAMES = [
    "intercept",
    "slopes",
    "two_terms",
    "three_terms",
    "diagonal",
    "identity",
    "symmetric",
    "nested_slopes",
    "crossed_slopes",
]


def point_of(name):
    """Return a problem, its ML criterion, and a point that is no optimum."""
    design = problem(name)
    criterion = make_criterion(cross_products(design), False, "precision")
    return design, criterion.at(interior(criterion, np.random.default_rng(1)))


def all_held(point):
    """Return everything that can be held, by what it is."""
    held = {"sigma": hold_sigma(point)}
    contrast = np.random.default_rng(2).normal(size=len(point.beta))
    held["contrast"] = hold_contrast(point, contrast)
    for parameter in parameters_of(point.criterion.statistics.terms)[:-1]:
        held[parameter] = hold_variance_parameter(point, parameter)
    return held


def moved(held, seed=3):
    """Return coordinates near those of the point, and a value to hold."""
    rng = np.random.default_rng(seed)
    x = held.x + 0.1 * rng.normal(size=len(held.x))
    return 0.9 * held.value + 0.02, x


def deviance_of_rows(design, point):
    """Return -2 log L of n rows at the point's Psi, sigma and beta, user units."""
    statistics = point.criterion.statistics
    n, weights = len(design.y), design.weights
    scale = statistics.columns.scale[-1]
    maps = factor_maps(statistics)
    Psi = [R @ L @ L.T @ R.T for R, L in zip(maps, point.L, strict=True)]
    Z = wide_columns(design)
    G = [np.kron(np.eye(len(s)), P) for s, P in zip(statistics.s, Psi, strict=True)]
    middle = block_diag(*G)
    errors = np.eye(n) if weights is None else np.diag(1.0 / weights)
    V = point.sigma2 * scale**2 * (errors + Z @ middle @ Z.T)
    ones = np.ones((n, int(design.intercept)))
    T = np.column_stack([ones, design.X, design.y]) @ statistics.columns.map()
    residual = T @ point.residual * scale
    return np.linalg.slogdet(2.0 * np.pi * V)[1] + residual @ np.linalg.solve(
        V, residual
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_point_itself_has_its_deviance(name):
    _, point = point_of(name)
    for held in all_held(point).values():
        again = held.at(held.value, held.x)
        assert_allclose(again.deviance, point.deviance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_deviance_is_that_of_the_rows(name):
    design, point = point_of(name)
    for held in all_held(point).values():
        other = held.at(*moved(held))
        expected = deviance_of_rows(design, other)
        assert_allclose(other.deviance, expected, rtol=1e-11)
        assert abs(other.deviance - point.deviance) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_what_is_held_is_what_was_asked_for(name):
    _, point = point_of(name)
    statistics = point.criterion.statistics
    scale = statistics.columns.scale[-1]
    for parameter, held in all_held(point).items():
        value, x = moved(held)
        other = held.at(value, x)
        if parameter == "sigma":
            assert_allclose(other.sigma2, np.exp(2.0 * value))
        elif parameter == "contrast":
            assert_allclose(held.contrast @ other.beta, value)
        else:
            (found,), _ = values_and_gradient(other, [parameter])
            term = statistics.terms[parameter.term]
            expected = value * scale
            if parameter.kind == "cor":
                x[list(held.nonnegative)] = np.abs(x[list(held.nonnegative)])
                (found,), _ = values_and_gradient(held.at(value, x), [parameter])
                expected = correlation(term.structure, term.q, np.array(value))
            assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_slope_and_curvature_are_derivatives(name):
    _, point = point_of(name)
    for held in all_held(point).values():
        value, x = moved(held)
        x[held.index] = value

        def at(y, held=held):
            return held.at(y[held.index], y)

        g, H = at(x).slope_and_curvature()
        size = np.abs(H).max()
        assert_allclose(g, stencil(lambda y: at(y).deviance, x), atol=1e-8 * size)
        if at(x).forms.traces is not None:
            slopes = stencil(lambda y: at(y).slope_and_curvature()[0], x)
            assert_allclose(H, slopes, atol=1e-7 * size)


def test_contrast_is_held_in_any_direction_of_beta():
    """The beta that is left is best among those with the held contrast."""
    _, point = point_of("slopes")
    held = all_held(point)["contrast"]
    other = held.at(held.value + 0.3, held.x)
    H = np.linalg.inv(point.inverse_R_X @ point.inverse_R_X.T)
    gradient = H @ (other.beta - point.beta)
    along = held.contrast * (gradient @ held.contrast) / (held.contrast @ held.contrast)
    assert_allclose(gradient, along, atol=1e-10)


class Mirror(type(STRUCTURES["unstructured"])):
    """A structure that the coordinates do not know."""


def test_unknown_structure_is_refused():
    assert isinstance(Mirror(), Covariance)
    _, point = point_of("slopes")
    terms = point.criterion.statistics.terms
    object.__setattr__(terms[0], "structure", Mirror())
    with pytest.raises(NotImplementedError, match="Mirror"):
        hold_variance_parameter(point, VarianceParameter("sd", 0, (0,)))
