"""Kenward and Roger's tests against their formulas with n x n matrices."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import Effects, columns, crossed, interior, make_design, problem, stencil
from test_covariance import AutoRegressive

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.kenward_roger import KenwardRoger
from sklearn_lmm._engine.result import user_theta
from sklearn_lmm._engine.strategy import choose_strategy

AR = AutoRegressive()
NONLINEAR = {
    "autoregressive": lambda rng: make_design(
        rng, crossed(rng, 120, [14]), [Effects(0, 2, AR)]
    ),
    "autoregressive_and_more": lambda rng: make_design(
        rng,
        crossed(rng, 150, [12, 9]),
        [Effects(0, 2, AR), Effects(1, 1)],
        weights=True,
    ),
}
LINEAR = [
    "intercept",
    "slope",
    "two_terms",
    "diagonal",
    "identity",
    "symmetric",
    "no_fixed_intercept",
    "nested_slopes",
    "nested_three",
    "crossed_slopes",
    "crossed_three",
    "crossed_components",
]


def pieces(design, criterion, theta):
    """Return rows times sqrt(w): X, V, and the first and second derivatives of V.

    The parameters are the entries of every Psi that is linear in them, theta of
    the others, and sigma^2 = 1 last, with which only the others are multiplied.
    """
    statistics, n = criterion.statistics, len(design.y)
    w = np.ones(n) if design.weights is None else design.weights
    root_w = np.sqrt(w)[:, None]
    raw, start = user_theta(statistics, theta), 0
    V, by_sigma2, G, second, nonlinear = np.eye(n), np.eye(n), [], {}, []
    for block in design.blocks:
        term, grouping = block.term, design.factors[block.factor]
        wide = np.zeros((n, grouping.n_levels, term.q))
        wide[np.arange(n), grouping.codes] = columns(block, n) * root_w
        same = grouping.codes[:, None] == grouping.codes
        z = columns(block, n) * root_w
        stop = start + term.structure.n_parameters(term.q)

        def psi(t, term=term):
            L = term.structure.factor(t, term.q)
            return L @ L.T

        part = raw[start:stop]
        ZPsiZ = z @ psi(part) @ z.T * same
        V = V + ZPsiZ
        basis = term.structure.directions(term.q)
        if basis is None:
            by_sigma2 = by_sigma2 + ZPsiZ
            first = len(G)
            nonlinear += range(first, first + len(part))
            bends = stencil(lambda t, psi=psi: stencil(psi, t, 1e-2), part, 1e-2)
            for r, s in np.ndindex(*bends.shape[:2]):
                second[first + r, first + s] = z @ bends[r, s] @ z.T * same
            basis = stencil(psi, part, 1e-3)
        G += [z @ A @ z.T * same for A in basis]
        start = stop
    for r in nonlinear:
        second[r, len(G)] = second[len(G), r] = G[r]
    ones = np.ones((n, int(design.intercept)))
    return np.hstack([ones, design.X]) * root_w, V, [*G, by_sigma2], second


def textbook(X, V, G, second):
    """Return Phi, the adjusted Phi, P_r and W of Kenward and Roger (1997)."""
    iV = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ iV @ X)
    P = [-X.T @ iV @ g @ iV @ X for g in G]
    m = len(G)
    Q = {
        (r, s): X.T @ iV @ G[r] @ iV @ G[s] @ iV @ X for r in range(m) for s in range(m)
    }
    information = np.array(
        [
            [
                np.trace(iV @ G[r] @ iV @ G[s])
                - 2 * np.trace(Phi @ Q[r, s])
                + np.trace(Phi @ P[r] @ Phi @ P[s])
                for s in range(m)
            ]
            for r in range(m)
        ]
    )
    W = 2.0 * np.linalg.inv(information)
    Lambda = np.zeros_like(Phi)
    for r, s in Q:
        R = X.T @ iV @ second[r, s] @ iV @ X if (r, s) in second else 0.0
        Lambda += W[r, s] * (Q[r, s] - P[r] @ Phi @ P[s] - R / 4.0)
    return Phi, Phi + 2 * Phi @ Lambda @ Phi, P, W


def textbook_df(L, Phi, P, W):
    """Return the denominator df and the scale of F, in the notation of the paper."""
    q = len(L)
    Theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    A1 = A2 = 0.0
    for r, s in np.ndindex(*W.shape):
        left, right = Theta @ Phi @ P[r] @ Phi, Theta @ Phi @ P[s] @ Phi
        A1 += W[r, s] * np.trace(left) * np.trace(right)
        A2 += W[r, s] * np.trace(left @ right)
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c1, c2, c3 = np.array([g, q - g, q + 2 - g]) / (3 * q + 2 * (1 - g))
    E = 1 / (1 - A2 / q)
    variance = 2 / q * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B))
    rho = variance / (2 * E**2)
    df = 4 + (q + 2) / (q * rho - 1)
    return df, df / (E * (df - 2))


def make_point(design):
    statistics = cross_products(design)
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    criterion.n_obs = float(statistics.n_rows)
    point = criterion.at(interior(criterion, np.random.default_rng(2)))
    root = statistics.columns.map()[:-1, :-1] @ point.inverse_R_X
    return criterion, point, root


@pytest.mark.parametrize("name", [*LINEAR, *NONLINEAR])
def test_small_matrices_equal_large_ones(name):
    rng = np.random.default_rng(4)
    design = NONLINEAR[name](rng) if name in NONLINEAR else problem(name, seed=4)
    criterion, point, root = make_point(design)
    Phi, adjusted, P, W = textbook(*pieces(design, criterion, point.theta))
    got = KenwardRoger(point)
    # Second derivatives of the reference are differences.
    tolerance = 1e-7 if name in NONLINEAR else 1e-9
    assert_allclose(root @ root.T, Phi, rtol=0, atol=tolerance * np.abs(Phi).max())
    change, expected = root @ got.adjusted @ root.T - Phi, adjusted - Phi
    assert_allclose(change, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    p = len(Phi)
    for q in range(1, p + 1):
        L = rng.normal(size=(q, p))
        df, scale = textbook_df(L, Phi, P, W)
        assert_allclose(got.test(L @ root), (df, scale), rtol=1e-7)


def test_second_derivatives_matter():
    design = NONLINEAR["autoregressive"](np.random.default_rng(4))
    criterion, point, root = make_point(design)
    X, V, G, _ = pieces(design, criterion, point.theta)
    Phi, without, _, _ = textbook(X, V, G, {})
    change = root @ KenwardRoger(point).adjusted @ root.T - Phi
    assert np.abs(change - (without - Phi)).max() > 1e-2 * np.abs(without - Phi).max()


def test_units_of_measurement_do_not_matter():
    design = problem("slope", seed=4)
    _, point, _ = make_point(design)
    expected = [KenwardRoger(point).test(row[None]) for row in np.eye(3)]
    design.X[:, 1] *= 1e-6
    design.y[:] *= 1e5
    _, point, _ = make_point(design)
    got = [KenwardRoger(point).test(row[None]) for row in np.eye(3)]
    assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize("groups", range(3, 12))
def test_exact_tests_of_balanced_designs(groups):
    # With four degrees of freedom the variance of F does not exist.
    rng = np.random.default_rng(groups)
    labels = np.repeat(np.arange(groups), 4)
    design = make_design(rng, [labels], [Effects(0)], p=0)
    between = rng.normal(size=groups)[labels]
    _, point, root = make_point(replace(design, X=between[:, None]))
    tests = KenwardRoger(point)
    assert_allclose(tests.test(root[1:]), (groups - 2.0, 1.0), rtol=1e-6)
    Phi = root @ root.T
    assert_allclose(root @ tests.adjusted @ root.T, Phi, rtol=1e-9, atol=1e-12)


def test_no_random_effects_have_residual_degrees_of_freedom():
    design = make_design(np.random.default_rng(0), [], [], p=3)
    statistics = cross_products(design)
    criterion = Criterion(statistics, choose_strategy(statistics), reml=True)
    tests = KenwardRoger(criterion.at([]))
    assert_allclose(tests.adjusted, np.eye(4), atol=1e-12)
    for q in range(1, 5):
        assert_allclose(tests.test(np.eye(4)[:q]), (36.0, 1.0), rtol=1e-9)


def test_a_parameter_that_cannot_be_known_takes_the_degrees_of_freedom_away():
    # One level only: its variance is the intercept's, and nothing tells of it.
    rng = np.random.default_rng(3)
    labels = [np.zeros(60, int), rng.integers(0, 9, 60)]
    design = make_design(rng, labels, [Effects(0), Effects(1)])
    _, point, root = make_point(design)
    df = [KenwardRoger(point).test(row[None])[0] for row in root]
    assert np.isnan(df[0])
    assert np.isfinite(df[1:]).all()
