"""Lanczos quadrature against eigenvalues."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import logm

from sklearn_lmm._engine.lanczos import log_quadratic_forms


def matrix(rng, m, spread):
    Q = np.linalg.qr(rng.normal(size=(m, m)))[0]
    return (Q * np.exp(rng.uniform(-spread, spread, m))) @ Q.T


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_forms_equal_dense(spread):
    rng = np.random.default_rng(0)
    S, z = matrix(rng, 60, spread), rng.normal(size=(60, 5)) * [1, 1, 1, 1e3, 1e-3]
    middle = logm(S) - (S - np.eye(60))
    expected = np.einsum("ij,ik,kj->j", z, middle, z)
    scale = np.sum(z**2, axis=0)
    got = log_quadratic_forms(lambda w: S @ w, z)
    assert_allclose(got / scale, expected / scale, atol=1e-5)


def test_exhausted_krylov_spaces():
    S = np.diag([1.0, 1.0, 4.0, 0.25, 1.0])
    z = np.eye(5)
    z[:, 1] = [0, 0, 1, 1, 0]
    d = np.diag(S)
    middle = np.log(d) - (d - 1.0)
    expected = np.sum(z**2 * middle[:, None], axis=0)
    assert_allclose(log_quadratic_forms(lambda w: S @ w, z), expected, atol=1e-12)


def test_identity_has_no_logarithm():
    forms = log_quadratic_forms(lambda w: w.copy(), np.ones((7, 2)))
    assert_allclose(forms, 0.0, atol=1e-15)
