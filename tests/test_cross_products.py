"""Cross-products against dense algebra on the rows, and their addition."""

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    PROBLEMS,
    Effects,
    crossed,
    factor,
    interior,
    make_design,
    problem,
    relative_difference,
    take,
    wide_columns,
)
from scipy import sparse

from sklearn_lmm._engine import cross_products as module
from sklearn_lmm._engine import row_sums
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import (
    cross_products,
    in_units,
    merge_levels,
    units_of,
)
from sklearn_lmm._engine.design import Factor
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.fit import fit_statistics
from sklearn_lmm.covariance import Diagonal

each_problem = pytest.mark.parametrize("name", PROBLEMS)


def fixed_columns(design, statistics):
    """Return T = [1 X y] in the units of the cross-products."""
    ones = np.ones((len(design.y), int(design.intercept)))
    T = np.column_stack([ones, design.X, design.y])
    units = statistics.columns
    T = (T - units.center) / units.scale
    return T if units.mix is None else T @ units.mix


def assert_sums_of_rows(statistics, design):
    """Compare every array with W = diag(weights) and Z as one dense matrix."""
    T, Z = fixed_columns(design, statistics), wide_columns(design, statistics)
    w = np.ones(len(T)) if design.weights is None else design.weights
    size = {"rtol": 0, "atol": 1e-12 * w.sum()}
    assert_allclose(statistics.tt, T.T @ (w[:, None] * T), **size)
    dense = DenseStrategy(statistics)
    assert_allclose(dense.ZtZ, Z.T @ (w[:, None] * Z), **size)
    assert_allclose(dense.stack(statistics.b), Z.T @ (w[:, None] * T), **size)


def assert_same_sums(whole, added, tolerance=1e-12):
    assert relative_difference(whole, added) < tolerance
    for mine, theirs in zip(whole.levels, added.levels, strict=True):
        assert list(mine) == list(theirs)
    assert added.n_rows == whole.n_rows
    assert_allclose(added.sum_weights, whole.sum_weights, rtol=1e-14)
    assert_allclose(added.sum_log_weights, whole.sum_log_weights, rtol=1e-12)


@each_problem
def test_arrays_are_sums_of_standardised_rows(name):
    design = problem(name)
    assert_sums_of_rows(cross_products(design), design)


@pytest.mark.parametrize("name", ["slope", "no_fixed_intercept", "zero_weights"])
def test_fixed_columns_have_mean_zero_and_deviation_one(name):
    statistics = cross_products(problem(name))
    mean_squares = np.diag(statistics.tt) / statistics.sum_weights
    assert_allclose(mean_squares, 1.0, rtol=1e-13)
    if statistics.intercept:
        assert_allclose(statistics.tt[0, 1:] / statistics.sum_weights, 0, atol=1e-13)
    else:
        assert_array_equal(statistics.columns.center, 0.0)


@pytest.mark.parametrize("name", ["four", "nested_any_order", "crossed_three"])
def test_rows_are_taken_in_chunks(name, monkeypatch):
    design = problem(name)
    whole = cross_products(design)
    monkeypatch.setattr(row_sums, "ROWS_AT_ONCE", 7)
    assert len(list(row_sums._chunks(design))) > 1
    chunked = cross_products(design)
    assert_sums_of_rows(chunked, design)
    assert_allclose(chunked.columns.center, whole.columns.center, rtol=1e-13)
    assert_allclose(chunked.columns.scale, whole.columns.scale, rtol=1e-13)


@pytest.mark.parametrize("name", ["slope", "no_fixed_intercept", "crossed_slopes"])
def test_sparse_columns_are_scaled_but_not_shifted(name):
    design = problem(name)
    design.X[np.abs(design.X) < 1.0] = 0.0
    statistics = cross_products(replace(design, X=sparse.csr_array(design.X)))
    assert_sums_of_rows(statistics, design)
    dense = cross_products(design)
    assert relative_difference(dense, statistics) < 1e-12


@pytest.mark.parametrize("columns", [np.asarray, sparse.csr_array])
def test_units_can_be_given(columns):
    design = problem("crossed_slopes")
    mix = np.array([[1.0, 0, 0, 0], [0, 2.0, 1.0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1.0]])
    whole = cross_products(design)
    given = replace(design, X=columns(design.X))
    statistics = cross_products(given, replace(whole.columns, mix=mix))
    assert_sums_of_rows(statistics, design)
    assert relative_difference(whole, statistics) < 1e-12


@each_problem
def test_products_with_z_equal_dense(name):
    rng = np.random.default_rng(1)
    statistics = cross_products(problem(name))
    dense = DenseStrategy(statistics)
    w = tuple(rng.normal(size=(*s.shape[:2], 3)) for s in statistics.s)
    product = dense.stack(statistics.ztz(w))
    assert_allclose(product, dense.ZtZ @ dense.stack(w), atol=1e-10)


@each_problem
def test_products_of_two_factors_are_those_of_the_rows(name):
    statistics = cross_products(problem(name))
    dense = DenseStrategy(statistics)
    for f, rows in enumerate(dense.places):
        for h, columns in enumerate(dense.places):
            found = statistics.product(f, h).toarray()
            assert_allclose(found, dense.ZtZ[rows, columns], atol=1e-12)


@each_problem
def test_two_chunks_add_up_to_the_whole(name):
    design = problem(name, seed=2)
    n = len(design.y)
    whole = cross_products(design)
    for cut in (2, n // 3, n - 1):
        first = cross_products(take(design, slice(None, cut)))
        second = cross_products(take(design, slice(cut, None)))
        assert_same_sums(whole, first + second)


@pytest.mark.parametrize("name", ["crossed_slopes", "nested_slopes", "symmetric"])
def test_chunks_give_the_same_criterion(name):
    rng = np.random.default_rng(3)
    design = problem(name)
    whole = cross_products(design)
    rows = np.array_split(rng.permutation(len(design.y)), 4)
    added = reduce(add, (cross_products(take(design, part)) for part in rows))
    results = [
        fit_statistics(statistics, np.ones(statistics.p, bool), reml=True)
        for statistics in (whole, added)
    ]
    assert_allclose(results[1].criterion, results[0].criterion, rtol=1e-10)
    assert_allclose(results[1].beta, results[0].beta, rtol=1e-5, atol=1e-6)
    moved = in_units(added, units_of(whole))
    values = []
    for statistics in (whole, moved):
        criterion = Criterion(statistics, DenseStrategy(statistics), reml=True)
        theta = interior(criterion, np.random.default_rng(4))
        values.append(criterion.at(theta).deviance)
    assert_allclose(values[1], values[0], rtol=1e-13)


@pytest.mark.parametrize("name", ["slope", "crossed_intercepts", "diagonal"])
def test_chunks_of_one_row_add_up(name):
    design = problem(name)
    singles = [
        cross_products(take(design, slice(i, i + 1))) for i in range(len(design.y))
    ]
    assert_same_sums(cross_products(design), reduce(add, singles), 1e-11)


def test_units_are_those_of_the_first_chunk_with_two_rows():
    design = problem("slope")
    one = cross_products(take(design, slice(0, 1)))
    two = cross_products(take(design, slice(1, 30)))
    three = cross_products(take(design, slice(30, None)))
    for total in (one + two, two + one, two + three, one + (two + three)):
        assert total.columns is two.columns
        assert total.blocks is two.blocks
    assert (three + two).columns is three.columns


def test_addition_keeps_the_digits_of_columns_far_from_zero():
    rng = np.random.default_rng(5)
    design = make_design(rng, crossed(rng, 90, [8]), [Effects(0, 1)])
    near = cross_products(design)
    far = replace(design, X=design.X + 1e6, y=design.y + 1e6)
    parts = [take(far, slice(0, 40)), take(far, slice(40, None))]
    added = cross_products(parts[0]) + cross_products(parts[1])
    shift = np.array([0.0, 1e6, 1e6, 1e6])
    shifted = module._change_columns(
        added,
        replace(near.columns, center=near.columns.center + shift),
    )
    # The shift itself costs eps * 1e6 of a column's deviation.
    assert_allclose(shifted.tt, near.tt, rtol=0, atol=1e-9 * near.n_rows)


def test_cross_products_of_different_models_are_not_added():
    rng = np.random.default_rng(6)
    labels = crossed(rng, 40, [6])
    a = cross_products(make_design(rng, labels, [Effects(0, 1)]))
    b = cross_products(make_design(rng, labels, [Effects(0, 1, Diagonal())]))
    c = cross_products(make_design(rng, labels, [Effects(0, 1)], p=3))
    for other in (b, c):
        with pytest.raises(ValueError, match="different models"):
            a + other
    with pytest.raises(TypeError):
        a + 1


MIXED = [3, "b", (1, 2), "a", 2.5]
LABELS = {
    "text": ["delta", "b", "aa", "c", "a"],
    "tuples": [("b", 1), ("a", 2), ("a", 1), ("b", 0), ("c", 5)],
    "mixed": MIXED,
    "numbers": [10, 9, -1, 7, 100],
}


def in_order_of_appearance(labels):
    levels = np.empty(len(dict.fromkeys(labels)), dtype=object)
    levels[:] = list(dict.fromkeys(labels))
    places = {level: i for i, level in enumerate(levels)}
    return Factor(np.array([places[label] for label in labels]), levels)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_are_merged(kind):
    rng = np.random.default_rng(7)
    design = make_design(rng, [rng.integers(0, 5, 60)], [Effects(0, 1)])
    labels = [LABELS[kind][code] for code in design.factors[0].codes]

    def chunk(rows):
        part = take(design, rows)
        return replace(part, factors=(in_order_of_appearance(labels[rows]),))

    added = cross_products(chunk(slice(0, 3))) + cross_products(chunk(slice(3, 60)))
    whole = cross_products(chunk(slice(0, 60)))
    if kind == "mixed":
        assert list(added.levels[0]) == list(whole.levels[0])
    else:
        assert list(added.levels[0]) == sorted(LABELS[kind])
    order = [list(added.levels[0]).index(level) for level in whole.levels[0]]
    moved = in_units(added, units_of(whole))
    assert_allclose(moved.s[0][order], whole.s[0], atol=1e-12)
    assert_allclose(moved.b[0][order], whole.b[0], atol=1e-12)


def test_equal_numbers_of_different_types_are_one_level():
    union, a, b = merge_levels(np.array([1, 308]), np.array([2.5, 308.0]))
    assert list(union) == [1, 2.5, 308]
    assert_array_equal(a, [0, 2])
    assert_array_equal(b, [1, 2])


def test_levels_that_cannot_be_sorted_keep_the_order_of_appearance():
    a, b = np.array(["x", 1], dtype=object), np.array([2, "x", None], dtype=object)
    union, of_a, of_b = merge_levels(a, b)
    assert list(union) == ["x", 1, 2, None]
    assert_array_equal(of_a, [0, 1])
    assert_array_equal(of_b, [2, 0, 3])


def test_a_constant_column_is_centred_and_not_scaled():
    design = problem("slope")
    design.X[:, 1] = 7.3
    statistics = cross_products(design)
    assert statistics.columns.scale[2] == 1.0
    assert_allclose(statistics.columns.center[2], 7.3)
    assert np.abs(statistics.tt[2]).max() < 1e-12


@pytest.mark.parametrize("name", ["two_terms", "nested_three", "crossed_three"])
def test_order_of_rows_does_not_matter(name):
    design = problem(name)
    shuffled = take(design, np.random.default_rng(8).permutation(len(design.y)))
    assert_same_sums(cross_products(design), cross_products(shuffled))


def test_order_of_levels_and_columns_only_reorders_the_sums():
    design = problem("crossed_slopes")
    statistics = cross_products(design)
    renamed = replace(
        design,
        X=design.X[:, ::-1],
        factors=(factor(-design.factors[0].codes), design.factors[1]),
    )
    other = cross_products(renamed)
    T = [0, 2, 1, 3]
    assert_allclose(other.tt, statistics.tt[np.ix_(T, T)], atol=1e-11)
    assert_allclose(other.s[0][::-1], statistics.s[0], atol=1e-12)
    assert_allclose(other.b[0][::-1], statistics.b[0][:, :, T], atol=1e-11)


def test_selecting_columns_equals_leaving_them_out():
    design = problem("crossed_slopes")
    statistics = cross_products(design)
    assert statistics.select(np.ones(3, bool)) is statistics
    fewer = cross_products(replace(design, X=design.X[:, 1:]))
    chosen = statistics.select(np.array([True, False, True]))
    assert chosen.p == 2
    assert_same_sums(fewer, chosen)
    assert not statistics.select(np.array([False, True, True])).intercept


@settings(max_examples=25)
@given(
    n=st.integers(2, 30),
    levels=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    slopes=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    p=st.integers(0, 3),
    intercept=st.booleans(),
    cut=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_any_shape_adds_up(n, levels, slopes, p, intercept, cut, seed):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, m, n) for m in levels]
    terms = [Effects(f, q) for f, q in enumerate(slopes)]
    design = make_design(rng, labels, terms, p=p, intercept=intercept, weights=True)
    whole = cross_products(design)
    assert_sums_of_rows(whole, design)
    at = min(max(int(cut * n), 1), n - 1)
    first = cross_products(take(design, slice(None, at)))
    second = cross_products(take(design, slice(at, None)))
    assert_same_sums(whole, first + second, 1e-10)
