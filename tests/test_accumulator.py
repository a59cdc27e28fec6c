"""Cross-products added up in place, against those of all rows at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from problems import PROBLEMS, Effects, crossed, make_design, problem, take
from scipy import sparse

from sklearn_lmm._engine import accumulator as module
from sklearn_lmm._engine.accumulator import Accumulator, GrowingMatrix
from sklearn_lmm._engine.cross_products import (
    FAR,
    cross_products,
    in_units,
    own_units,
    similar,
    units_of,
)


def numbered(design):
    """Return the design with its levels named 0, 1, 2, …"""
    factors = [replace(f, levels=np.arange(f.n_levels)) for f in design.factors]
    return replace(design, factors=tuple(factors))


def portions(n, sizes):
    """Return slices of the given sizes, the last one taking what is left."""
    ends = np.minimum(np.cumsum(sizes), n)
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, n], strict=True) if a < b]


def assert_same(whole, total, rtol=1e-12):
    """Compare cross-products entry by entry, relative to the rows behind them."""
    total = in_units(total, units_of(whole))
    assert (total.n_rows, total.terms) == (whole.n_rows, whole.terms)
    assert_allclose(total.sum_weights, whole.sum_weights, rtol=rtol)
    assert_allclose(total.sum_log_weights, whole.sum_log_weights, atol=1e-11)
    size = {"rtol": 0, "atol": rtol * whole.sum_weights}
    assert_allclose(total.tt, whole.tt, **size)
    for f, levels in enumerate(whole.levels):
        assert_array_equal(total.levels[f], levels)
        assert_allclose(total.s[f], whole.s[f], **size)
        assert_allclose(total.b[f], whole.b[f], **size)
    assert total.n.keys() == whole.n.keys()
    for pair, n in whole.n.items():
        assert_array_equal(total.n[pair].indices, n.indices)
        assert_array_equal(total.n[pair].indptr, n.indptr)
        assert_allclose(total.n[pair].data, n.data, **size)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sizes", [[2, 30], [1, 1, 1, 40, 1], [7] * 9])
def test_chunks_add_up_to_the_whole(name, sizes):
    design = numbered(problem(name))
    total = Accumulator()
    for rows in portions(len(design.y), sizes):
        total.add_rows(take(design, rows))
    assert_same(cross_products(design), total.total())


def test_sums_of_all_levels_are_not_copied_for_a_chunk(monkeypatch):
    design = numbered(problem("crossed_slopes"))
    total = Accumulator()
    total.add_rows(take(design, slice(0, 40)))
    made = []

    def noting(*arguments):
        made.append(cross_products(*arguments))
        return made[-1]

    monkeypatch.setattr(module, "cross_products", noting)
    total.add_rows(take(design, slice(40, None)))
    assert (made[0].s, made[0].b) == ((), ())
    assert_same(cross_products(design), total.total())


@pytest.mark.parametrize("name", ["slope", "crossed_slopes", "nested_slopes"])
def test_cross_products_add_up_as_rows_do(name):
    design = numbered(problem(name))
    parts = [take(design, rows) for rows in portions(len(design.y), [1, 20, 20])]
    total = Accumulator()
    for part in parts:
        total.add(cross_products(part))
    assert_same(cross_products(design), total.total())


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 60), max_size=12), entries=st.integers(0, 50))
def test_any_portions(sizes, entries):
    design = numbered(problem("crossed_slopes"))
    total = Accumulator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENTRIES_AT_ONCE", entries)
        for rows in portions(len(design.y), sizes):
            total.add_rows(take(design, rows))
    assert_same(cross_products(design), total.total())


def test_sparse_rows_add_up():
    design = numbered(problem("slope"))
    total = Accumulator()
    for rows in portions(len(design.y), [25, 25]):
        part = take(design, rows)
        total.add_rows(replace(part, X=sparse.csr_array(part.X)))
    assert_same(cross_products(design), total.total())


def test_many_chunks_keep_the_digits():
    rng = np.random.default_rng(6)
    n = 3000
    design = numbered(make_design(rng, crossed(rng, n, [4]), [Effects(0, 1)]))
    total = Accumulator()
    for start in range(0, n, 3):
        total.add_rows(take(design, slice(start, start + 3)))
    assert_same(cross_products(design), total.total(), 1e-13)


@pytest.mark.parametrize("drift", [1e3, 1e7])
def test_rows_far_from_the_first_ones_keep_their_digits(drift):
    rng = np.random.default_rng(7)
    n = 400
    design = numbered(make_design(rng, crossed(rng, n, [8]), [Effects(0, 1)]))
    away = drift * np.linspace(0, 1, n) ** 2
    z = design.blocks[0].slopes[0] + away
    blocks = (replace(design.blocks[0], slopes=(z,)),)
    moved = replace(design, X=design.X + away[:, None], y=design.y + away)
    moved = replace(moved, blocks=blocks)
    total = Accumulator()
    for rows in portions(n, [20] * 20):
        total.add_rows(take(moved, rows))
    assert_same(cross_products(moved), total.total(), 1e-13)


def test_units_are_kept_while_they_suit_and_no_longer():
    rng = np.random.default_rng(8)
    design = numbered(make_design(rng, crossed(rng, 90, [8]), [Effects(0, 1)]))
    total = Accumulator()
    total.add_rows(take(design, slice(0, 30)))
    first = units_of(total._head)
    total.add_rows(take(design, slice(30, 60)))
    assert units_of(total._head) == first
    last = take(design, slice(60, None))
    total.add_rows(replace(last, X=last.X + 10 * FAR))
    assert units_of(total._head) != first
    statistics = total._gathered()
    assert similar(units_of(statistics), own_units(statistics))


def test_a_constant_column_may_vary_later():
    rng = np.random.default_rng(9)
    design = numbered(make_design(rng, crossed(rng, 90, [8]), [Effects(0)]))
    X = design.X.copy()
    X[:40, 0] = 5.0
    X[40:, 0] = 5.0 + 1e-3 * X[40:, 0]
    design = replace(design, X=X)
    total = Accumulator()
    for rows in portions(90, [40, 25]):
        total.add_rows(take(design, rows))
    assert_same(cross_products(design), total.total(), 1e-11)


def test_what_is_returned_does_not_change_with_what_comes():
    design = numbered(problem("crossed_slopes"))
    total = Accumulator()
    total.add_rows(take(design, slice(0, 50)))
    before = total.total()
    copies = [array.copy() for array in (before.tt, *before.s, *before.b)]
    total.add_rows(take(design, slice(50, None)))
    for array, copy in zip((before.tt, *before.s, *before.b), copies, strict=True):
        assert_array_equal(array, copy)


def test_stored_zeros_stay_in_the_pattern():
    matrix = GrowingMatrix()
    matrix.add(np.array([0, 2]), np.array([1, 0]), np.array([0.0, 1.0]))
    matrix.add(np.array([2]), np.array([0]), np.array([-1.0]))
    total = matrix.sum((4, 2))
    assert total.shape == (4, 2)
    assert total.nnz == 2
