"""Every factor strategy against dense algebra, on random problems."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from points import (
    TOLERANCES,
    assert_close,
    dense_point,
    fast_point,
    statistics_of,
)
from problems import (
    NESTED,
    PROBLEMS,
    SINGLE,
    THETAS,
    Effects,
    crossed,
    make_design,
)
from scipy import sparse

from sklearn_lmm._engine import factor_crossed, outer_sums, schur
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor import Direction, level_product
from sklearn_lmm._engine.factor_crossed import CrossedStrategy
from sklearn_lmm._engine.factor_nested import nesting_order
from sklearn_lmm._engine.factor_single import pool_levels
from sklearn_lmm._engine.outer_sums import DenseSums, PairSums
from sklearn_lmm._engine.schur import BlockLayout
from sklearn_lmm._engine.strategy import choose_strategy

each_theta = pytest.mark.parametrize("kind", THETAS)
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def size(statistics):
    """Return the largest entry of any sum_g Z_g'Z_g."""
    return max(np.abs(s.sum(axis=0)).max() for s in statistics.s)


def assert_same_state(name, kind, fast):
    statistics, dense = statistics_of(name), dense_point(name, kind)
    tolerance = TOLERANCES[kind]
    assert_allclose(fast.logdet, dense.state.logdet, rtol=1e-11, atol=1e-11)
    F, U = fast.project(statistics.b)
    largest = max(np.abs(b).max() for b in statistics.b)
    assert_close(F, dense.ZVT, tolerance, scale=largest)
    assert_close(U, dense.U, tolerance)
    # I - S^-1 has the digits of psi n, which need be no more than INVERTIBLE.
    sums = 1e-9 if kind == "small" else tolerance
    expected = dense.state.block_sums()
    assert_close(fast.block_sums(), expected, sums, scale=size(statistics))
    posterior = max(1e-9, tolerance / 100)
    assert_close(fast.posterior_blocks(), dense.state.posterior_blocks(), posterior)


@each_theta
@each_problem
def test_strategy_equals_dense(name, kind):
    assert_same_state(name, kind, fast_point(name, kind).state)


@pytest.mark.parametrize("kind", ["interior", "singular", "large"])
@each_problem
def test_variances_of_predictions_equal_dense(name, kind, monkeypatch):
    monkeypatch.setattr("sklearn_lmm._engine.factor.ROWS_AT_ONCE", 11)
    rng = np.random.default_rng(6)
    shapes = [s.shape[:2] for s in statistics_of(name).s]
    codes = tuple(rng.integers(0, G, 25) for G, _ in shapes)
    z = tuple(rng.normal(size=(25, q)) for _, q in shapes)
    got = fast_point(name, kind).state.posterior_variances(codes, z)
    expected = dense_point(name, kind).state.posterior_variances(codes, z)
    tolerance = max(1e-9, TOLERANCES[kind] / 100)
    assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["interior", "singular", "large"])
@each_problem
def test_forms_equal_dense(name, kind):
    rng = np.random.default_rng(5)
    statistics = statistics_of(name)
    directions = [
        Direction(f, A + A.T)
        for f, s in enumerate(statistics.s)
        for A in rng.normal(size=(2, s.shape[1], s.shape[1]))
    ]
    v = tuple(rng.normal(size=s.shape[:2]) for s in statistics.s)
    F = tuple(0.2 * rng.normal(size=(*s.shape[:2], 3)) for s in statistics.s)
    fast, dense = fast_point(name, kind).state, dense_point(name, kind).state
    for reml in (False, True):
        got = fast.forms(F, v, directions, reml)
        expected = dense.forms(F, v, directions, reml)
        assert_close([got.vAv, got.FAv], [expected.vAv, expected.FAv], 1e-13)
        scale = max(size(statistics), np.abs(expected.vAQAv).max())
        assert_close([got.vAQAv], [expected.vAQAv], TOLERANCES[kind], scale)
        assert (got.traces is None) == (name not in SINGLE)
        if name in SINGLE:
            assert_close([got.traces], [expected.traces], TOLERANCES[kind])


@each_theta
@each_problem
def test_criterion_and_derivatives_equal_dense(name, kind):
    tolerance, statistics = TOLERANCES[kind], statistics_of(name)
    for reml in (False, True):
        fast, dense = fast_point(name, kind, reml), dense_point(name, kind, reml)
        assert_allclose(fast.deviance, dense.deviance, rtol=max(tolerance / 10, 1e-12))
        assert_allclose(fast.beta, dense.beta, rtol=0, atol=100 * tolerance)
        # A gradient near 0 is the difference of numbers like those of its levels.
        scale = size(statistics) * max(1e-2, np.abs(dense.theta).max())
        assert_allclose(fast.gradient, dense.gradient, rtol=0, atol=tolerance * scale)
        if name in SINGLE:
            scale = max(np.abs(dense.hessian).max(), len(statistics.s[0]))
            assert_allclose(fast.hessian, dense.hessian, atol=tolerance * scale)


@pytest.mark.parametrize("name", PROBLEMS)
def test_strategy_is_chosen_by_the_structure_of_the_data(name):
    expected = "single" if name in SINGLE else "nested" if name in NESTED else "crossed"
    assert choose_strategy(statistics_of(name)).name == expected


def test_no_random_effects_is_least_squares():
    design = make_design(np.random.default_rng(0), [], [], p=3)
    statistics = cross_products(design)
    strategy = choose_strategy(statistics)
    assert strategy.name == "none"
    point = Criterion(statistics, strategy, reml=True).at(np.zeros(0))
    X = np.column_stack([np.ones(len(design.y)), design.X])
    beta, r2, *_ = np.linalg.lstsq(X, design.y)
    assert_allclose(point.r2 * statistics.columns.scale[-1] ** 2, r2[0], rtol=1e-12)
    units = statistics.columns
    mapped = -(units.scale[-1] * units.map() @ point.residual)[:-1]
    assert_allclose(mapped, beta, rtol=1e-11)


def test_nesting_is_found_in_any_order_of_the_factors():
    assert nesting_order(statistics_of("nested_any_order")) == [1, 0, 2]


@pytest.mark.parametrize("name", ["crossed_intercepts", "crossed_and_nested"])
def test_crossed_factors_are_not_nested(name):
    assert nesting_order(statistics_of(name)) is None


def test_one_row_in_a_second_class_breaks_the_nesting():
    rng = np.random.default_rng(2)
    pupil = np.repeat(np.arange(20), 4)
    classes = pupil // 5
    moved = np.where(np.arange(80) == 17, 3, classes)
    effects = [Effects(0), Effects(1)]
    nested = cross_products(make_design(rng, (pupil, classes), effects))
    broken = cross_products(make_design(rng, (pupil, moved), effects))
    assert choose_strategy(nested).name == "nested"
    assert choose_strategy(broken).name == "crossed"


@each_theta
@pytest.mark.parametrize("name", NESTED)
def test_crossed_strategy_takes_nested_factors_too(name, kind):
    fast = fast_point(name, kind, strategy=CrossedStrategy).state
    assert_same_state(name, kind, fast)


@pytest.mark.parametrize("name", ["nested_three", "crossed_three", "symmetric"])
def test_projection_of_any_right_hand_side(name):
    rng = np.random.default_rng(8)
    fast, dense = fast_point(name, "interior"), dense_point(name, "interior")
    b = tuple(rng.normal(size=(*s.shape[:2], 5)) for s in statistics_of(name).s)
    for a, e in zip(fast.state.project(b), dense.state.project(b), strict=True):
        assert_close(a, e, 1e-10)


@each_theta
@pytest.mark.parametrize("name", ["crossed_three", "crossed_components"])
def test_projection_before_and_after_the_inverse_is_made(name, kind):
    fast, b = fast_point(name, kind).state, statistics_of(name).b
    before = fast.project(b)
    fast.posterior_blocks()
    after = fast.project(b)
    assert_close(after[1], before[1], 1e-9)
    largest = max(np.abs(b_f).max() for b_f in b)
    assert_close(after[0], before[0], TOLERANCES[kind], scale=largest)


@each_theta
@pytest.mark.parametrize("name", ["crossed_four", "crossed_components"])
def test_block_sums_by_columns_equal_dense(name, kind):
    fast, expected = fast_point(name, kind), dense_point(name, kind).state.block_sums()
    scale = size(statistics_of(name))
    for k, f in enumerate(fast.criterion.strategy.rest):
        got = fast.state._block_sum_by_columns(k)
        assert_close([got], [expected[f]], TOLERANCES[kind], scale)


def test_block_sums_some_columns_at_a_time(monkeypatch):
    name = "crossed_three"
    monkeypatch.setattr("sklearn_lmm._engine.factor_crossed.COLUMNS_AT_ONCE", 3)
    got = fast_point(name, "zero").state.block_sums()
    assert_close(got, dense_point(name, "zero").state.block_sums(), 1e-11)


def test_components_of_different_widths_are_factored_apart():
    statistics = statistics_of("crossed_widths")
    strategy = choose_strategy(statistics)
    widths = dict((width, count) for count, width in strategy.layout.buckets)
    assert sum(width * count for width, count in widths.items()) == sum(
        len(statistics.s[f]) for f in strategy.rest
    )
    assert sum(widths.values()) == 3


def test_both_ways_to_factor_blocks_agree():
    rng = np.random.default_rng(4)
    roots = rng.normal(size=(1, 6, 9))
    matrix = roots @ roots.swapaxes(1, 2)
    x = rng.normal(size=(1, 6, 2))
    for make in (schur.OneBlock, schur.ManyBlocks):
        blocks = matrix.copy()
        factored = make(blocks)
        assert_allclose(factored.logdet, np.linalg.slogdet(matrix[0])[1], rtol=1e-13)
        assert_allclose(factored.solve(x), np.linalg.solve(matrix, x), rtol=1e-10)
        factored.invert()
        schur.mirror(blocks)
        assert_allclose(blocks, np.linalg.inv(matrix), rtol=1e-10)


def test_an_indefinite_block_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        schur.OneBlock(np.diag([1.0, -1.0])[None])


def dense_and_sparse_sums(q, layout, rng):
    """Return N by level, and every way to sum its outer products."""
    G, rows = 7, layout.size
    pattern = np.repeat(rng.random((rows, G)) < 0.4, q, axis=1)
    N = pattern * rng.normal(size=pattern.shape)
    pairs = [PairSums(sparse.csc_array(N), q, layout) for _ in range(2)]
    pairs[1].cached = False
    dense = DenseSums(sparse.csc_array(N), q)
    return N.reshape(rows, G, q).swapaxes(0, 1), [*pairs, dense]


@pytest.mark.parametrize("q", [1, 2, 3])
def test_outer_sums_equal_dense_products(q, monkeypatch):
    monkeypatch.setattr(outer_sums, "PAIRS_AT_ONCE", 10)
    monkeypatch.setattr(outer_sums, "COLUMNS_AT_ONCE", 4)
    rng = np.random.default_rng(q)
    layout = BlockLayout.of_components(np.zeros(9, dtype=int))
    by_level, ways = dense_and_sparse_sums(q, layout, rng)
    roots = rng.normal(size=(len(by_level), q, q))
    K = roots @ roots.swapaxes(1, 2)
    T = rng.normal(size=(9, 9))
    T = T + T.T
    expected = -np.sum(by_level @ K @ by_level.swapaxes(1, 2), axis=0)
    for way in ways:
        flat = np.zeros(layout.n_entries)
        way.subtract_from(flat, K)
        lower = np.tril(flat.reshape(9, 9))
        assert_allclose(lower, np.tril(expected), atol=1e-13)
        contracted = way.contract(np.tril(T).ravel())
        products = by_level.swapaxes(1, 2) @ T @ by_level
        assert_allclose(contracted, products, atol=1e-13)


@pytest.mark.parametrize("way", ["pairs kept", "pairs listed anew", "dense"])
@pytest.mark.parametrize("name", ["crossed_three", "crossed_four"])
def test_every_way_to_sum_gives_the_same_factorisation(name, way, monkeypatch):
    statistics = statistics_of(name)
    strategy = CrossedStrategy(statistics)
    N, q = sparse.csc_array(strategy.N), strategy.S.shape[1]
    monkeypatch.setattr(outer_sums, "PAIRS_AT_ONCE", 50)
    strategy.outer = DenseSums(N, q)
    if way != "dense":
        strategy.outer = PairSums(N, q, strategy.layout)
        strategy.outer.cached = way == "pairs kept"
    fast = fast_point(name, "interior", strategy=lambda _: strategy).state
    assert_same_state(name, "interior", fast)


def test_outer_sums_choose_by_size(monkeypatch):
    rng = np.random.default_rng(0)
    layout = BlockLayout.of_components(np.zeros(40, dtype=int))
    full = sparse.csc_array(rng.normal(size=(40, 60)))
    thin = sparse.csc_array(np.tile(np.eye(40), 100))
    assert isinstance(outer_sums.outer_sums(full, 1, layout), DenseSums)
    kept = outer_sums.outer_sums(thin, 1, layout)
    assert isinstance(kept, PairSums)
    assert kept.cached
    monkeypatch.setattr(outer_sums, "CACHED_BYTES", 0)
    apart = BlockLayout.of_components(np.arange(40))
    assert not outer_sums.outer_sums(thin, 1, apart).cached


def repeated(q, rng, groups=400, sizes=(1, 2, 3)):
    """Draw groups of few sizes; their slopes take the same values in all."""
    size = rng.choice(sizes, groups)
    labels = np.repeat(np.arange(groups), size)
    within = np.concatenate([np.arange(m) for m in size])
    design = make_design(rng, [labels], [Effects(0, q - 1)], p=q)
    for j in range(1, q):
        # The slopes are columns of X, taken from the last one on.
        design.X[:, q - j] = (within + 1.0) ** j
        design.blocks[0].slopes[j - 1][:] = design.X[:, q - j]
    return design


@each_theta
@pytest.mark.parametrize(("q", "reml"), [(1, True), (2, False), (2, True), (3, True)])
def test_pooled_levels_leave_the_criterion_as_it_is(q, reml, kind):
    statistics = cross_products(repeated(q, np.random.default_rng(q)))
    pooled = pool_levels(statistics)
    assert len(pooled.s[0]) < len(statistics.s[0]) / 4
    assert_allclose(pooled.multiplicity.sum(), len(statistics.s[0]))
    whole = Criterion(statistics, choose_strategy(statistics), reml=reml)
    theta = THETAS[kind](whole, np.random.default_rng(3))
    dense = whole.at(theta)
    fast = Criterion(pooled, choose_strategy(pooled), reml=reml).at(theta)
    tolerance = 10 * TOLERANCES[kind]
    assert_allclose(fast.deviance, dense.deviance, rtol=tolerance)
    scale = len(statistics.s[0]) * max(1.0, np.abs(dense.theta).max())
    assert_allclose(fast.gradient, dense.gradient, rtol=0, atol=tolerance * scale)
    scale = max(np.abs(dense.hessian).max(), len(statistics.s[0]))
    assert_allclose(fast.hessian, dense.hessian, rtol=0, atol=tolerance * scale)


def test_levels_without_repetition_are_not_pooled():
    rng = np.random.default_rng(6)
    statistics = cross_products(
        make_design(rng, crossed(rng, 80, [10]), [Effects(0, 1)])
    )
    assert pool_levels(statistics) is statistics


def test_level_product_sums_over_levels_and_coefficients():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2, 4))
    assert_allclose(level_product(a, b), np.einsum("gik,gil->kl", a, b))


def test_schur_complement_that_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(factor_crossed, "memory", lambda: 1.0)
    with pytest.raises(MemoryError, match="too large for an exact fit"):
        CrossedStrategy(statistics_of("crossed_intercepts"))
