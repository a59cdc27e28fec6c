"""Prediction errors and later effects, against n x n textbook algebra."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import UN, factor, problem, stencil, take, wide_columns
from scipy.linalg import block_diag

from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.design import Block, Design
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.prediction import (
    NewRows,
    PredictionError,
    predict_effects_from,
)
from sklearn_lmm._engine.result import factor_maps

NAMES = [
    "intercept",
    "slope",
    "four",
    "two_terms",
    "diagonal",
    "symmetric",
    "singletons",
    "no_fixed_intercept",
    "no_columns",
    "nested_slopes",
    "nested_three",
    "crossed_slopes",
    "crossed_four",
    "crossed_and_nested",
]
FEW = ["intercept", "slope", "nested_intercepts"]
each_method = pytest.mark.parametrize("reml", [False, True])


@cache
def fitted(name, reml=True, weights="precision"):
    return fit(problem(name), reml=reml, weights=weights)


class Textbook:
    """The model of a design with V (n, n) written out, at given covariances.

    Psi : per factor (q, q), relative to the residual variance sigma2
    """

    def __init__(self, design, Psi, sigma2=1.0):
        n = len(design.y)
        self.design, self.Psi, self.sigma2 = design, Psi, sigma2
        self.X = np.hstack([np.ones((n, int(design.intercept))), design.X])
        w = np.ones(n) if design.weights is None else design.weights
        blocks = [
            np.kron(np.eye(f.n_levels), P)
            for f, P in zip(design.factors, Psi, strict=True)
        ]
        self.G = sigma2 * block_diag(*blocks)
        self.Z = wide_columns(design)
        self.V = self.Z @ self.G @ self.Z.T + sigma2 * np.diag(1.0 / w)
        self.Vinv = np.linalg.inv(self.V)
        self.H = self.X.T @ self.Vinv @ self.X
        self.beta = np.linalg.solve(self.H, self.X.T @ self.Vinv @ design.y)
        self.residual = design.y - self.X @ self.beta
        self.b = self.effects(self.beta)

    def effects(self, beta):
        residual = self.design.y - self.X @ beta
        return self.G @ self.Z.T @ self.Vinv @ residual

    def wide(self, rows):
        """Return z of rows (n, all coefficients), zero for unseen levels."""
        parts = []
        for f, codes, z in zip(self.design.factors, rows.codes, rows.z, strict=True):
            part = np.zeros((len(codes), f.n_levels, z.shape[1]))
            known = np.flatnonzero(codes >= 0)
            part[known, codes[known]] = z[known]
            parts.append(part.reshape(len(codes), -1))
        return np.hstack(parts)

    def predict(self, rows):
        return rows.X @ self.beta + self.wide(rows) @ self.b

    def variance(self, rows, counts_unseen):
        """Return the error variance of x'beta + z'b, as universal kriging has it."""
        z = self.wide(rows)
        c = self.Z @ self.G @ z.T
        d = rows.X.T - self.X.T @ self.Vinv @ c
        variance = np.sum((z @ self.G) * z, axis=1)
        variance -= np.sum(c * (self.Vinv @ c), axis=0)
        variance += np.sum(d * np.linalg.solve(self.H, d), axis=0)
        for P, codes, z_f, counts in zip(
            self.Psi, rows.codes, rows.z, counts_unseen, strict=True
        ):
            unseen = (codes < 0) & counts
            variance += self.sigma2 * unseen * np.sum((z_f @ P) * z_f, axis=1)
        return variance

    def deviance(self, reml):
        """Return -2 log (restricted) likelihood up to a constant."""
        value = np.linalg.slogdet(self.V)[1]
        value += self.residual @ self.Vinv @ self.residual
        return value + reml * np.linalg.slogdet(self.H)[1]


def textbook(name, result, theta=None, sigma2=None):
    """Return the dense model at a result, or at another theta and sigma^2."""
    theta = result.theta_standardized if theta is None else theta
    maps, L = factor_maps(result.statistics), result.model().factors(theta)
    Psi = [R @ L_f @ L_f.T @ R.T for R, L_f in zip(maps, L, strict=True)]
    sigma2 = result.sigma**2 if sigma2 is None else sigma2
    return Textbook(problem(name), Psi, sigma2)


def new_rows(name, n=12, unseen=0.4):
    """Draw rows of known and unseen levels of every factor."""
    design, rng = problem(name), np.random.default_rng(8)
    X = rng.normal(size=(n, int(design.intercept) + design.X.shape[1]))
    X[:, : int(design.intercept)] = 1.0
    widths = [
        sum(block.term.q for block in design.blocks if block.factor == f)
        for f in range(len(design.factors))
    ]
    codes = [rng.integers(0, f.n_levels, n) for f in design.factors]
    return NewRows(
        X=X,
        codes=tuple(np.where(rng.random(n) < unseen, -1, code) for code in codes),
        z=tuple(rng.normal(size=(n, q)) for q in widths),
    )


def switches(name):
    """Yield all, none and one of the factors, to count their unseen levels."""
    k = len(problem(name).factors)
    yield np.ones(k, bool)
    yield np.zeros(k, bool)
    yield np.arange(k) == 0


@each_method
@pytest.mark.parametrize("name", NAMES)
def test_variance_is_that_of_universal_kriging(name, reml):
    result, rows = fitted(name, reml), new_rows(name)
    dense, error = textbook(name, result), PredictionError(result)
    for counts in switches(name):
        expected = dense.variance(rows, counts)
        assert_allclose(error.variance(rows, counts), expected, rtol=1e-8)


def test_variance_of_rows_whose_levels_are_all_known_or_all_unseen():
    for unseen in (0.0, 1.0):
        name = "crossed_slopes"
        result, rows = fitted(name), new_rows(name, unseen=unseen)
        counts = np.ones(2, bool)
        expected = textbook(name, result).variance(rows, counts)
        actual = PredictionError(result).variance(rows, counts)
        assert_allclose(actual, expected, rtol=1e-8)


def test_variance_with_frequency_weights():
    name = "crossed_slopes"
    result, rows = fitted(name, weights="frequency"), new_rows(name)
    counts = np.ones(2, bool)
    expected = textbook(name, result).variance(rows, counts)
    assert_allclose(PredictionError(result).variance(rows, counts), expected, rtol=1e-8)


def test_an_effect_without_variance_leaves_the_error_of_the_fixed_part():
    design = problem("intercept")
    codes = design.factors[0].codes
    means = np.bincount(codes, design.y) / np.bincount(codes)
    result = fit(replace(design, y=design.y - means[codes]), reml=True)
    assert_allclose(result.theta, 0.0, atol=1e-12)
    rows = new_rows("intercept")
    expected = np.sum((rows.X @ result.beta_covariance) * rows.X, axis=1)
    actual = PredictionError(result).variance(rows, np.ones(1, bool))
    assert_allclose(actual, expected, rtol=1e-9)


@each_method
@pytest.mark.parametrize("name", [*FEW, "two_terms", "symmetric", "crossed_slopes"])
def test_what_theta_adds_is_the_change_of_refitted_predictions(name, reml):
    result, rows = fitted(name, reml), new_rows(name)
    theta = result.theta_standardized
    J = stencil(lambda t: textbook(name, result, t).predict(rows), theta).T
    criterion = result.model()
    hessian = stencil(lambda t: criterion.at(t).gradient, theta)
    expected = np.sum((J @ (2.0 * np.linalg.inv(hessian))) * J, axis=1)
    actual = PredictionError(result).variance_by_theta(rows)
    assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("observation", [False, True])
@each_method
@pytest.mark.parametrize("name", FEW)
def test_degrees_of_freedom_by_brute_force(name, reml, observation):
    result, rows = fitted(name, reml, "frequency"), new_rows(name, n=6)
    if problem(name).weights is not None:
        result = fitted(name, reml, "precision")
    counts = np.ones(len(problem(name).factors), bool)

    def model(parameters):
        return textbook(name, result, parameters[:-1], parameters[-1])

    def variance(parameters):
        own = observation * parameters[-1]
        return model(parameters).variance(rows, counts) + own

    def deviance(parameters):
        return model(parameters).deviance(reml)

    at = np.append(result.theta_standardized, result.sigma**2)
    hessian = stencil(lambda t: stencil(deviance, t, 1e-3), at, 1e-3)
    g = stencil(variance, at).T
    spread = np.sum((g @ (2.0 * np.linalg.inv(hessian))) * g, axis=1)
    expected = 2.0 * variance(at) ** 2 / spread
    actual = PredictionError(result).degrees_of_freedom(
        rows, counts, observation=observation
    )
    assert_allclose(actual, expected, rtol=2e-4)


def test_degrees_of_freedom_of_a_balanced_layout_are_those_of_mean_squares():
    groups, size = 9, 6
    rng = np.random.default_rng(3)
    y = rng.normal(size=(groups, size)) + 1.5 * rng.normal(size=(groups, 1))
    design = Design(
        X=np.zeros((groups * size, 0)),
        y=y.ravel(),
        intercept=True,
        factors=(factor(np.repeat(np.arange(groups), size)),),
        blocks=(Block(0, UN, True),),
    )
    between = size * y.mean(axis=1).var(ddof=1)
    within = y.var(axis=1, ddof=1).mean()
    rows = NewRows(np.ones((1, 1)), (np.array([-1]),), (np.ones((1, 1)),))
    error = PredictionError(fit(design, reml=True))
    # The population's mean: the mean square between groups alone.
    left_out, counted = np.zeros(1, bool), np.ones(1, bool)
    expected = between / (groups * size)
    assert_allclose(error.variance(rows, left_out), expected, rtol=1e-8)
    mean = error.degrees_of_freedom(rows, left_out, observation=False)
    assert_allclose(mean, groups - 1, rtol=1e-6)
    # A new group: ((1 + 1/G) MSB - MSW) / n, and for an observation + MSW.
    for own in (0, 1):
        parts = np.array([(1 + 1 / groups) * between, (size * own - 1) * within])
        df = np.array([groups - 1, groups * (size - 1)])
        variance = error.variance(rows, counted) + own * within
        assert_allclose(variance, parts.sum() / size, rtol=1e-8)
        expected = parts.sum() ** 2 / np.sum(parts**2 / df)
        actual = error.degrees_of_freedom(rows, counted, observation=own == 1)
        assert_allclose(actual, expected, rtol=1e-5)


def fitted_in_part(name, share=0.6):
    """Return the fit of the first rows, and the same with effects from all."""
    design = problem(name)
    cut = int(share * len(design.y))
    first, rest = take(design, slice(0, cut)), take(design, slice(cut, None))
    result = fit(first, reml=True, weights="precision")
    statistics = result.statistics + cross_products(rest)
    labels = [f.levels for f in design.factors]
    index = [
        np.searchsorted(all_labels, found)
        for all_labels, found in zip(labels, statistics.levels, strict=True)
    ]
    return (
        first,
        result,
        predict_effects_from(result, statistics.with_levels(labels, index)),
    )


@pytest.mark.parametrize("name", NAMES)
def test_effects_from_all_rows_with_beta_of_some(name):
    _, result, adapted = fitted_in_part(name)
    effects = np.concatenate([b.ravel() for b in adapted.effects])
    expected = textbook(name, result).effects(result.beta)
    assert_allclose(effects, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert adapted.beta is result.beta
    assert adapted.theta is result.theta
    assert not adapted.effects[0].flags.writeable


@pytest.mark.parametrize("name", ["slope", "nested_slopes", "crossed_slopes"])
def test_variance_where_beta_is_of_some_rows_and_effects_are_of_all(name):
    first, result, adapted = fitted_in_part(name)
    rows, dense = new_rows(name), textbook(name, result)
    z = dense.wide(rows)
    to_effects = dense.G @ dense.Z.T @ dense.Vinv
    # betahat - beta = to_beta (y - X beta), from the first rows only.
    some = Textbook(first, dense.Psi, result.sigma**2)
    to_beta = np.zeros((dense.X.shape[1], len(dense.design.y)))
    to_beta[:, : len(first.y)] = np.linalg.solve(some.H, some.X.T @ some.Vinv)
    a = (rows.X - z @ to_effects @ dense.X) @ to_beta + z @ to_effects
    expected = np.sum((a @ dense.V) * a, axis=1)
    expected -= 2.0 * np.sum((a @ dense.Z @ dense.G) * z, axis=1)
    expected += np.sum((z @ dense.G) * z, axis=1)
    left_out = np.zeros(len(rows.codes), bool)
    actual = PredictionError(adapted).variance(rows, left_out)
    assert_allclose(actual, expected, rtol=1e-8)
