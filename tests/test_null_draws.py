"""Responses drawn through their cross-products against responses of rows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import DIAG, Effects, crossed, make_design, problem, tree

from sklearn_lmm._engine import null_draws
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.null_draws import NullModel, ResponseDraws, Restriction


@pytest.mark.parametrize(
    "name", ["slope", "no_columns", "nested_intercepts", "crossed_intercepts"]
)
def test_moments_of_the_products(name):
    statistics = cross_products(problem(name))
    rng = np.random.default_rng(0)
    model = NullModel(
        beta=rng.normal(size=statistics.p),
        roots=tuple(np.tril(rng.normal(size=(s.shape[1],) * 2)) for s in statistics.s),
        sigma=0.7,
        n_obs=statistics.sum_weights,
    )
    draws = ResponseDraws(statistics, model)
    dense = DenseStrategy(statistics)
    ZX = dense.stack(statistics.b)[:, :-1]
    XX = statistics.tt[:-1, :-1]
    G = np.block([[XX, ZX.T], [ZX, dense.ZtZ]])
    Psi = np.zeros_like(dense.ZtZ)
    for place, root, (levels, _) in zip(
        dense.places, model.roots, dense.shapes, strict=True
    ):
        Psi[place, place] = np.kron(np.eye(levels), root @ root.T)
    to_all = np.vstack([ZX.T, dense.ZtZ])
    covariance = model.sigma**2 * G + to_all @ Psi @ to_all.T
    mean = np.concatenate([XX, ZX]) @ model.beta
    expected_yy = (
        model.beta @ XX @ model.beta
        + np.sum(dense.ZtZ * Psi)
        + model.sigma**2 * model.n_obs
    )
    n, products, squares = 1000, [], []
    for _ in range(n):
        drawn = draws.draw(rng)
        products.append(np.append(drawn.tt[:-1, -1], dense.stack(drawn.b)[:, -1]))
        squares.append(drawn.tt[-1, -1])
        assert_allclose(drawn.tt[:-1, :-1], XX)
        assert_allclose(drawn.tt, drawn.tt.T, atol=1e-9)
    deviation = (np.mean(products, axis=0) - mean) / np.sqrt(np.diag(covariance) / n)
    assert np.abs(deviation).max() < 4.5
    found = np.cov(np.array(products).T)
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert_allclose(found, covariance, rtol=0, atol=0.2 * spread.max())
    error = np.std(squares) / np.sqrt(n)
    assert abs(np.mean(squares) - expected_yy) < 4.5 * error
    # What y'y leaves on X and Z is chi-squared.
    left = np.array(squares) - np.einsum(
        "ni,ij,nj->n", products, np.linalg.pinv(G, rcond=1e-10), products
    )
    df = model.n_obs - np.linalg.matrix_rank(G, tol=1e-9 * np.abs(G).max())
    assert (left > -1e-8 * expected_yy).all()
    expected_left = model.sigma**2 * df
    error = model.sigma**2 * np.sqrt(2.0 * df / n)
    assert abs(left.mean() - expected_left) < 4.5 * error
    assert_allclose(left.var(), 2.0 * df * model.sigma**4, rtol=0.3)


def test_without_random_effects_errors_alone_are_drawn():
    rng = np.random.default_rng(1)
    statistics = cross_products(make_design(rng, [], [], p=3))
    model = NullModel(np.arange(4.0), (), 0.5, statistics.sum_weights)
    draws = ResponseDraws(statistics, model)
    XX = statistics.tt[:-1, :-1]
    drawn = [draws.draw(rng) for _ in range(2000)]
    beta = np.linalg.solve(XX, np.mean([d.tt[:-1, -1] for d in drawn], axis=0))
    errors = model.sigma * np.sqrt(np.diag(np.linalg.inv(XX)) / len(drawn))
    assert (np.abs(beta - model.beta) < 4.5 * errors).all()
    residuals = [
        d.tt[-1, -1] - d.tt[:-1, -1] @ np.linalg.solve(XX, d.tt[:-1, -1]) for d in drawn
    ]
    df = model.n_obs - 4
    error = model.sigma**2 * np.sqrt(2.0 * df / len(drawn))
    assert abs(np.mean(residuals) - model.sigma**2 * df) < 4.5 * error


LARGE = {
    "one factor": lambda rng: make_design(
        rng, crossed(rng, 90, [9]), [Effects(0, 1)], p=3, weights=True
    ),
    "nested": lambda rng: make_design(
        rng, tree(rng, 120, (5, 4)), [Effects(0), Effects(1, 2)], p=3
    ),
    "crossed": lambda rng: make_design(
        rng, crossed(rng, 120, [8, 9]), [Effects(0, 1), Effects(1)], p=3
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_smaller_model_sees_the_same_response(name):
    rng = np.random.default_rng(7)
    large = LARGE[name](rng)
    # The last factor alone, without its last slope, and one column less.
    last = len(large.factors) - 1
    kept = [block for block in large.blocks if block.factor == last]
    blocks = tuple(
        replace(block, factor=0, slopes=block.slopes[:-1], structure=DIAG)
        for block in kept
    )
    small = replace(
        large, X=large.X[:, [0, 2]], factors=large.factors[last:], blocks=blocks
    )
    q = blocks[0].term.q
    restriction = Restriction([0, 1, 3], [last], [list(range(q))])
    y = 5.0 + 3.0 * rng.normal(size=len(large.y))
    of_small = cross_products(small)
    drawn = cross_products(replace(large, y=y), cross_products(large).columns)
    got = restriction.statistics(drawn, of_small)
    expected = cross_products(replace(small, y=y), of_small.columns)
    assert_allclose(got.tt, expected.tt, rtol=1e-9, atol=1e-9)
    for a, b in zip(got.b, expected.b, strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_null_model_is_the_fitted_one():
    rng = np.random.default_rng(7)
    large = LARGE["one factor"](rng)
    small = replace(
        large,
        X=large.X[:, [0, 2]],
        blocks=tuple(replace(b, slopes=()) for b in large.blocks),
    )
    fits = [fit(design, reml=False) for design in (small, large)]
    model = Restriction([0, 1, 3], [0], [[0]]).null_model(*fits)
    draws = ResponseDraws(fits[1].statistics, model)
    n = 400
    sums = [draws.draw(rng).tt[:-1, -1] for _ in range(n)]
    XX = fits[1].statistics.tt[:-1, :-1]
    beta = np.linalg.solve(XX, np.mean(sums, axis=0))
    columns = fits[1].statistics.columns
    user = -(columns.scale[-1] * columns.map() @ np.append(-beta, 1.0))[:-1]
    expected = np.insert(fits[0].beta, 2, 0.0)
    errors = np.sqrt(np.diag(fits[1].beta_covariance) / n)
    assert (np.abs(user - expected) < 6.0 * errors).all()


def test_several_large_factors_are_refused(monkeypatch):
    monkeypatch.setattr(null_draws, "MOST_COEFFICIENTS", 10)
    statistics = cross_products(problem("crossed_slopes"))
    model = NullModel(np.zeros(3), (), 1.0, 10.0)
    with pytest.raises(ValueError, match="10 random effects of several factors"):
        ResponseDraws(statistics, model)
