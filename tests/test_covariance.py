"""Covariance structures, and the contract that any other one must keep."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import Effects, crossed, make_design, stencil
from scipy.optimize import minimize_scalar

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.strategy import choose_strategy
from sklearn_lmm.covariance import (
    STRUCTURES,
    CompoundSymmetry,
    Covariance,
    Diagonal,
    Unstructured,
)


@dataclass(frozen=True)
class AutoRegressive(Covariance):
    """Psi_ij = s^2 rho^|i - j| with theta = (s, a) and rho = sin a.

    Not linear in theta: L_i0 = s rho^i and L_ij = s rho^(i - j) cos a.
    """

    def n_parameters(self, q):
        return 2

    def start(self, q):
        return np.array([1.0, 0.0])

    def factor(self, theta, q):
        return theta[0] * self._powers(theta[1], q)[0]

    def derivative(self, theta, q):
        L, dL, _ = self._powers(theta[1], q)
        return np.stack([L, theta[0] * dL])

    def second_derivative(self, theta, q):
        _, dL, d2L = self._powers(theta[1], q)
        return np.array([[0.0 * dL, dL], [dL, theta[0] * d2L]])

    def _powers(self, a, q):
        """Return L / s and its derivatives by a."""
        s, c = np.sin(a), np.cos(a)
        k = np.subtract.outer(np.arange(q), np.arange(q))
        first = np.arange(q) == 0

        def power(e):
            return np.where(k < 0, 0.0, s ** np.maximum(e, 0))

        L = power(k) * np.where(first, 1.0, c)
        dL = k * power(k - 1) * np.where(first, c, c**2)
        dL = dL - np.where(first, 0.0, power(k + 1))
        d2L = k * (k - 1) * power(k - 2) * np.where(first, c**2, c**3)
        d2L = d2L - np.where(first, k, (3 * k + 1) * c) * power(k)
        return L, np.tril(dL), np.tril(d2L)

    def parameters(self, root):
        q = len(root)

        def variance(a):
            scaled = np.linalg.solve(self._powers(a, q)[0], root)
            return np.sum(scaled**2) / q

        def misfit(a):
            logdet = 2 * (q - 1) * np.log(np.cos(a))
            return logdet + q * np.log(variance(a))

        a = minimize_scalar(
            misfit, bounds=(-1.5, 1.5), method="bounded", options={"xatol": 1e-11}
        ).x
        return np.array([np.sqrt(variance(a)), a])

    def names(self, coefficients):
        return ["deviation", "angle"]

    def standardization(self, intercept):
        return "common"


EVERY = STRUCTURES | {"autoregressive": AutoRegressive()}
every_structure = pytest.mark.parametrize("structure", EVERY.values(), ids=EVERY)
every_q = pytest.mark.parametrize("q", [1, 2, 3, 4])
# One coefficient has no angle to the next.
identified = pytest.mark.parametrize(
    ("structure", "q"),
    [
        pytest.param(structure, q, id=f"{name}-{q}")
        for name, structure in EVERY.items()
        for q in range(2 if name == "autoregressive" else 1, 5)
    ],
)


def draw(structure, q, seed=0):
    """Draw parameters of a regular covariance."""
    rng = np.random.default_rng(seed)
    return structure.start(q) + 0.4 * rng.uniform(-1, 1, structure.n_parameters(q))


def psi(structure, theta, q):
    L = structure.factor(theta, q)
    return L @ L.T


@every_q
@every_structure
def test_start_is_the_identity(structure, q):
    assert_allclose(psi(structure, structure.start(q), q), np.eye(q), atol=1e-15)


@identified
def test_parameters_invert_factor(structure, q):
    for seed in range(3):
        theta = draw(structure, q, seed)
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], q)
        flipped = structure.factor(theta, q) * signs
        assert_allclose(structure.parameters(flipped), theta, atol=1e-7)


@every_q
@every_structure
def test_derivatives_equal_stencils(structure, q):
    theta = draw(structure, q)
    slope = stencil(lambda t: structure.factor(t, q), theta)
    assert_allclose(structure.derivative(theta, q), slope, atol=1e-10)
    bend = stencil(lambda t: structure.derivative(t, q), theta)
    second = structure.second_derivative(theta, q)
    assert_allclose(0.0 if second is None else second, bend, atol=1e-10)


@identified
def test_parameters_are_the_nearest_in_the_sense_of_em(structure, q):
    rng = np.random.default_rng(q)
    S = np.diag(np.linspace(0.5, 2.0, q)) + 0.1
    theta = structure.parameters(np.linalg.cholesky(S))

    def misfit(t):
        Psi = psi(structure, t, q)
        return np.linalg.slogdet(Psi)[1] + np.trace(np.linalg.solve(Psi, S))

    assert_allclose(stencil(misfit, theta), 0.0, atol=1e-7)
    for _ in range(20):
        step = rng.normal(size=len(theta)) * rng.choice([0.01, 0.3])
        assert misfit(theta + step) > misfit(theta)


@every_structure
def test_there_is_a_name_for_every_parameter(structure):
    names = structure.names(["(Intercept)", "x", "z"])
    assert len(names) == len(set(names)) == structure.n_parameters(3)


def test_names_follow_the_order_of_the_parameters():
    assert Unstructured().names(["a", "b", "c"]) == [
        *("a", "b.a", "c.a"),
        *("b", "c.b"),
        "c",
    ]
    theta = np.arange(1.0, 7.0)
    L = Unstructured().factor(theta, 3)
    assert_array_equal(L, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    assert Diagonal().names(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("q", [2, 3, 4])
@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_any_root_gives_the_lower_triangle_of_its_product(q, rank):
    root = np.random.default_rng(rank).normal(size=(q, rank)) @ np.eye(rank, 6)
    root[0] *= rank != 2
    theta = Unstructured().parameters(root)
    L = Unstructured().factor(theta, q)
    assert_allclose(L @ L.T, root @ root.T, atol=1e-14)
    assert np.all(np.diag(L) >= 0)
    # A coefficient that depends on those before it has a column of zeros.
    assert np.sum(np.any(np.abs(L) > 1e-10, axis=0)) == np.linalg.matrix_rank(root)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_singular_roots_are_recognised_at_any_scale(scale):
    theta = Unstructured().parameters(scale * np.array([[1.0, 0.0], [2.0, 0.0]]))
    assert_allclose(theta, scale * np.array([1.0, 2.0, 0.0]), rtol=1e-15)


@pytest.mark.parametrize("q", [2, 3, 5])
def test_compound_symmetry_spans_all_correlations(q):
    structure = CompoundSymmetry()
    lowest = -1.0 / (q - 1)
    for rho in np.linspace(lowest, 1.0, 7):
        Psi = 2.5 * ((1 - rho) * np.eye(q) + rho)
        w, U = np.linalg.eigh(Psi)
        theta = structure.parameters(U * np.sqrt(np.maximum(w, 0.0)))
        assert_allclose(psi(structure, theta, q), Psi, atol=1e-14)
    contrasts, mean = (structure.factor(theta, q) for theta in np.eye(2))
    assert_allclose(correlation(contrasts), lowest)
    assert_allclose(correlation(mean), 1.0)


def correlation(L):
    Psi = L @ L.T
    return Psi[0, 1] / np.sqrt(Psi[0, 0] * Psi[1, 1])


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("q", [2, 3, 4])
@every_structure
def test_standardization_keeps_the_structure(structure, q, intercept):
    rng = np.random.default_rng(q)
    kind = structure.standardization(intercept)
    A = np.eye(q) * 1.7
    if kind != "common":
        A = np.diag(rng.uniform(0.3, 3.0, q))
    if kind == "affine":
        assert intercept
        A[0] = [1.0, *rng.normal(size=q - 1)]
    root = A @ structure.factor(draw(structure, q), q)
    kept = psi(structure, structure.parameters(root), q)
    assert_allclose(kept, root @ root.T, atol=1e-7)


def autoregressive_criterion(reml, factors):
    rng = np.random.default_rng(11)
    terms = [Effects(0, 4, AutoRegressive(), intercept=False), Effects(1)]
    labels = crossed(rng, 150, [12, 6])
    design = make_design(rng, labels[:factors], terms[:factors], p=4)
    statistics = cross_products(design)
    strategy = choose_strategy(statistics)
    return design, Criterion(statistics, strategy, reml=reml)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("factors", [1, 2])
def test_structure_that_is_not_linear_has_exact_derivatives(factors, reml):
    _, criterion = autoregressive_criterion(reml, factors)
    theta = np.array([0.7, 0.5, 1.2])[: criterion.n_parameters]
    point = criterion.at(theta)
    slope = stencil(lambda t: criterion.at(t).deviance, theta)
    assert_allclose(point.gradient, slope, rtol=1e-8)
    if factors == 1:
        bend = stencil(lambda t: criterion.at(t).gradient, theta)
        assert_allclose(point.hessian, bend, rtol=1e-8)


@pytest.mark.parametrize("factors", [1, 2])
def test_structure_that_is_not_linear_is_fitted_by_every_solver(factors):
    design, _ = autoregressive_criterion(True, factors)
    fits = {s: fit(design, reml=True, solver=s) for s in ("newton", "lbfgs", "em")}
    best = min(f.criterion for f in fits.values())
    for result in fits.values():
        assert result.converged
        assert result.criterion < best + 1e-7
        Psi = result.covariances[0] / result.sigma**2
        steps = np.diag(Psi, 1) / Psi[0, 0]
        assert_allclose(np.diag(Psi, 3) / Psi[0, 0], steps[0] ** 3, atol=1e-9)
