"""The rows of a model, and the standardisation of their columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import columns, factor

from sklearn_lmm._engine.design import (
    Block,
    Standardization,
    deviation,
    standardize_block,
)
from sklearn_lmm.covariance import CompoundSymmetry, Diagonal, Identity, Unstructured

N = 60


@pytest.fixture
def rng():
    return np.random.default_rng(30)


def block(rng, structure, intercept=True, slopes=2):
    z = rng.normal(3.0, 2.0, (slopes, N)) * np.array([1.0, 10.0, 0.1])[:slopes, None]
    return Block(0, structure, intercept, tuple(z))


def standardized(block, weights=None):
    units = standardize_block(block, weights)
    return units, columns(block, N) @ units.map()


def test_factor_counts_its_levels():
    grouping = factor(["b", "a", "b", "c"])
    assert grouping.n_levels == 3
    assert_array_equal(grouping.codes, [1, 0, 1, 2])
    assert_array_equal(grouping.levels[grouping.codes], ["b", "a", "b", "c"])


@pytest.mark.parametrize("intercept", [True, False])
def test_a_term_knows_how_many_coefficients_it_has(rng, intercept):
    term = block(rng, Diagonal(), intercept).term
    assert (term.q, term.factor, term.intercept) == (2 + intercept, 0, intercept)
    assert term.structure == Diagonal()


def test_map_subtracts_the_centre_and_divides_by_the_scale(rng):
    units = Standardization(np.array([0.0, 2.0, -1.0]), np.array([1.0, 4.0, 0.5]))
    rows = np.column_stack([np.ones(5), rng.normal(size=(5, 2))])
    expected = (rows - units.center) / units.scale
    assert_allclose(rows @ units.map(), expected, atol=1e-15)


def test_units_are_changed_by_one_map(rng):
    a, b = (
        Standardization(np.append(0.0, center), np.append(1.0, scale))
        for center, scale in zip(
            rng.normal(size=(2, 3)), rng.uniform(0.1, 9.0, (2, 3)), strict=True
        )
    )
    assert_allclose(a.map() @ b.from_(a), b.map(), atol=1e-14)
    assert_allclose(a.from_(a), np.eye(4), atol=1e-15)


def test_selected_columns_keep_their_units():
    units = Standardization(np.array([0.0, 2.0, -1.0]), np.array([1.0, 4.0, 0.5]))
    chosen = units.select(np.array([0, 2]))
    assert_array_equal(chosen.center, [0.0, -1.0])
    assert_array_equal(chosen.scale, [1.0, 0.5])


def test_mixed_columns_are_mapped_too(rng):
    plain, other = (
        Standardization(np.append(0.0, center), np.append(1.0, scale))
        for center, scale in zip(
            rng.normal(size=(2, 2)), rng.uniform(0.1, 9.0, (2, 2)), strict=True
        )
    )
    mix = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, -3.0], [0.0, 0.0, 0.5]])
    mixed = Standardization(plain.center, plain.scale, mix)
    assert_allclose(mixed.map(), plain.map() @ mix)
    assert_allclose(other.map() @ mixed.from_(other), mixed.map(), atol=1e-13)
    assert_allclose(mixed.map() @ other.from_(mixed), other.map(), atol=1e-13)
    assert_array_equal(mixed.select(np.array([0, 2])).mix, [[1.0, 0.0], [0.0, 0.5]])


def test_deviation_of_a_constant_is_one():
    squares = np.array([0.0, -1e-18, 1e-30, 4.0, 1e-4])
    centers = np.array([0.0, 1.0, 1e6, 1.0, 1e6])
    assert_array_equal(deviation(squares, centers), [1.0, 1.0, 1.0, 2.0, 1e-2])


@pytest.mark.parametrize("weighted", [False, True])
def test_unstructured_slopes_are_centred_and_scaled(rng, weighted):
    weights = rng.uniform(0.2, 3.0, N) if weighted else None
    _, z = standardized(block(rng, Unstructured()), weights)
    assert_allclose(z[:, 0], 1.0)
    assert_allclose(np.average(z[:, 1:], axis=0, weights=weights), 0.0, atol=1e-13)
    assert_allclose(np.average(z**2, axis=0, weights=weights), 1.0)


@pytest.mark.parametrize(
    ("structure", "intercept"), [(Unstructured(), False), (Diagonal(), True)]
)
def test_columns_that_nothing_absorbs_are_only_scaled(rng, structure, intercept):
    units, z = standardized(block(rng, structure, intercept))
    assert_array_equal(units.center, 0.0)
    assert_allclose(np.mean(z**2, axis=0), 1.0)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("structure", [Identity(), CompoundSymmetry()])
def test_one_scale_for_coefficients_that_are_compared(rng, structure, intercept):
    units, z = standardized(block(rng, structure, intercept))
    assert_array_equal(units.center, 0.0)
    assert len(np.unique(units.scale)) == 1
    assert_allclose(np.mean(z**2), 1.0)


def test_an_intercept_alone_is_left_as_it_is():
    for structure in (Unstructured(), Identity()):
        units = standardize_block(Block(0, structure, True), None)
        assert_array_equal(units.map(), [[1.0]])


def test_a_constant_slope_is_not_blown_up(rng):
    constant = Block(0, Unstructured(), True, (np.full(N, 0.1), rng.normal(size=N)))
    units, z = standardized(constant)
    assert units.scale[1] == 1.0
    assert_allclose(z[:, 1], 0.0, atol=1e-15)
