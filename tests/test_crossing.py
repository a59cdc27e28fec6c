"""Products of the cross-products of crossed factors against dense ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import CROSSED, problem, wide_columns

from sklearn_lmm._engine import crossing
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.crossing import Blocks, Crossing

each_problem = pytest.mark.parametrize("name", CROSSED)


def dense(name):
    """Return the crossing, and N and C by the rows of the design."""
    design = problem(name)
    statistics = cross_products(design)
    parts = Crossing(statistics)
    Z = wide_columns(design, statistics)
    if design.weights is not None:
        Z = Z * np.sqrt(design.weights)[:, None]
    ends = np.cumsum([s.shape[0] * s.shape[1] for s in statistics.s])
    by_factor = np.split(Z, ends[:-1], axis=1)
    Z_R = np.hstack([by_factor[f] for f in parts.rest])
    return parts, Z_R.T @ by_factor[parts.first], Z_R.T @ Z_R


def random_blocks(rng, G, q):
    A = rng.normal(size=(G, q, q))
    return A @ A.swapaxes(1, 2)


def wide(blocks):
    G, q, _ = blocks.shape
    result = np.zeros((G, q, G, q))
    result[np.arange(G), :, np.arange(G)] = blocks
    return result.reshape(G * q, G * q)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_problem
def test_reduced_product(name, dtype):
    parts, N, C = dense(name)
    rng = np.random.default_rng(0)
    G, q, _ = parts.statistics.s[parts.first].shape
    K = random_blocks(rng, G, q)
    x = rng.normal(size=(parts.size, 3))
    got = parts.products(dtype).reduced(Blocks((K,), (G,), dtype), x.astype(dtype))
    expected = (C - N @ wide(K) @ N.T) @ x
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    scale = np.abs(N @ wide(K) @ N.T).max() * np.abs(x).max()
    assert got.dtype == dtype
    assert_allclose(got, expected, rtol=0, atol=10 * tolerance * scale)


@each_problem
def test_outer_products(name, monkeypatch):
    monkeypatch.setattr(crossing, "BLOCKS_AT_ONCE", 7)
    parts, N, _ = dense(name)
    rng = np.random.default_rng(0)
    G, q, _ = parts.statistics.s[parts.first].shape
    K = random_blocks(rng, G, q)
    product = N @ wide(K) @ N.T
    P = []
    for place, f, got in zip(parts.places, parts.rest, parts.outer(K), strict=True):
        G_f, q_f, _ = parts.statistics.s[f].shape
        mine = product[place, place].reshape(G_f, q_f, G_f, q_f)
        expected = mine[np.arange(G_f), :, np.arange(G_f)]
        assert_allclose(got, expected, atol=1e-11 * np.abs(product).max())
        P.append(random_blocks(rng, G_f, q_f))
    middle = np.zeros((parts.size, parts.size))
    for place, P_k in zip(parts.places, P, strict=True):
        middle[place, place] = wide(P_k)
    back = (N.T @ middle @ N).reshape(G, q, G, q)[np.arange(G), :, np.arange(G)]
    got = parts.outer_transposed(tuple(P))
    assert_allclose(got, back, atol=1e-11 * np.abs(back).max())


def test_counts_are_kept_once():
    parts = Crossing(cross_products(problem("crossed_intercepts")))
    assert parts.products(np.float64).N.dtype == np.float32
    weighted = Crossing(cross_products(problem("crossed_four")))
    assert weighted.products(np.float64).N.dtype == np.float64
    assert weighted.products(np.float32).N.dtype == np.float32
