"""Which factor is eliminated, and the rows of the others."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import CROSSED, problem
from scipy import sparse

from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.elimination import Elimination


@pytest.mark.parametrize("name", CROSSED)
def test_the_factor_with_most_coefficients_is_eliminated(name):
    statistics = cross_products(problem(name))
    sizes = [s.shape[0] * s.shape[1] for s in statistics.s]
    parts = Elimination(statistics)
    assert sizes[parts.first] == max(sizes)
    assert parts.size == sum(sizes) - max(sizes)


def test_a_factor_whose_levels_are_tied_together_stays():
    statistics = cross_products(problem("crossed_intercepts"))
    first = Elimination(statistics).first
    size = len(statistics.s[first])
    tie = {(first, first): sparse.csr_array((size, size))}
    tied = replace(statistics, n=statistics.n | tie)
    assert Elimination(tied).first == 1 - first


def test_rows_are_stacked_and_cut():
    parts = Elimination(cross_products(problem("crossed_three")))
    rng = np.random.default_rng(0)
    b = tuple(rng.normal(size=(*s.shape[:2], 2)) for s in parts.statistics.s)
    stacked = parts.stack(b)
    again = parts.in_user_order(b[parts.first], parts.split(stacked))
    for old, new in zip(b, again, strict=True):
        assert_allclose(new, old)
    for k, f in enumerate(parts.rest):
        assert_array_equal(stacked[parts.rows(k)], b[f])


def test_the_size_of_a_covariance_is_beside_that_of_the_data():
    statistics = cross_products(problem("crossed_slopes"))
    parts = Elimination(statistics)
    (f,) = parts.rest
    most = np.abs(statistics.s[f]).max()
    L = np.diag(np.linspace(0.5, 2.0, statistics.s[f].shape[1]))
    assert_allclose(parts.psi_n(0, L), 0.25 * most)
    assert parts.is_large(0, L * 2.1 / np.sqrt(most))
    assert not parts.is_large(0, L * 1.9 / np.sqrt(most))
