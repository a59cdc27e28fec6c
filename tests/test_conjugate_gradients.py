"""Conjugate gradients against dense solutions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_lmm._engine.conjugate_gradients import (
    column_products,
    conjugate_gradients,
)


def matrix(rng, m, condition):
    Q = np.linalg.qr(rng.normal(size=(m, m)))[0]
    return (Q * np.geomspace(1.0, condition, m)) @ Q.T


def solve(S, b, start=None, **options):
    inverse = 1.0 / np.diag(S)[:, None]
    return conjugate_gradients(
        lambda z: S @ z,
        lambda z: inverse.astype(z.dtype) * z,
        b,
        np.zeros_like(b) if start is None else start,
        **({"tolerance": 1e-12, "max_iter": 500} | options),
    )


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e4])
def test_solution_equals_dense(condition):
    rng = np.random.default_rng(0)
    S = matrix(rng, 40, condition)
    # Columns of very different sizes, one of them zero, are independent.
    b = rng.normal(size=(40, 4)) * [1.0, 1e-8, 1e6, 0.0]
    x, arrived = solve(S, b)
    assert arrived
    assert_allclose(
        x / [1.0, 1e-8, 1e6, 1.0], np.linalg.solve(S, b / [1, 1e-8, 1e6, 1])
    )


def test_a_start_at_the_solution_takes_no_step():
    rng = np.random.default_rng(1)
    S, b = matrix(rng, 30, 100.0), rng.normal(size=(30, 2))
    x = np.linalg.solve(S, b)
    again, arrived = solve(S, b, x.copy(), max_iter=0, tolerance=1e-9)
    assert arrived
    assert_allclose(again, x)


def test_too_few_steps_are_told():
    rng = np.random.default_rng(2)
    S, b = matrix(rng, 40, 1e6), rng.normal(size=(40, 1))
    assert not solve(S, b, max_iter=3)[1]


def test_single_precision_stays_single():
    rng = np.random.default_rng(3)
    S = matrix(rng, 40, 50.0).astype(np.float32)
    b = rng.normal(size=(40, 3)).astype(np.float32)
    x, arrived = solve(S, b, tolerance=1e-4)
    assert arrived
    assert x.dtype == np.float32
    assert_allclose(x, np.linalg.solve(S.astype(float), b), atol=1e-3)


def test_column_products_are_summed_in_double():
    rng = np.random.default_rng(4)
    a = rng.uniform(1.0, 2.0, size=(50_000, 3)).astype(np.float32)
    expected = np.sum(a.astype(float) ** 2, axis=0)
    assert_allclose(column_products(a, a), expected, rtol=1e-5)
    assert column_products(a, a).dtype == np.float64
