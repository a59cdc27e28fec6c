"""Cross-products of resamples, against those of their rows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import PROBLEMS, assert_same_fit, problem, wide_columns
from scipy import sparse

from sklearn_lmm._engine.cross_products import cross_products, in_units, units_of
from sklearn_lmm._engine.design import Factor
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.refits import (
    FixedDesign,
    GroupSums,
    lost_a_direction,
    outermost,
    refit,
    resampled_rows,
)
from sklearn_lmm._engine.result import fixed_effects
from sklearn_lmm._engine.simulation import (
    NormalDraws,
    coefficient_matrices,
    reflated,
    square_root,
)

NAMES = ["intercept", "slopes", "two_terms", "no_columns", "nested_slopes"]
NAMES += ["crossed_slopes", "crossed_and_nested"]


def fitted(name, **options):
    design = problem(name)
    return design, fit(design, reml=True, weights="precision", **options)


def assert_same_sums(a, b):
    for x, y in [
        (a.tt, b.tt),
        *zip(a.s, b.s, strict=True),
        *zip(a.b, b.b, strict=True),
    ]:
        assert_allclose(y, x, rtol=0, atol=1e-11 * max(1.0, np.abs(x).max()))
    assert a.n.keys() == b.n.keys()
    for pair in a.n:
        assert abs(a.n[pair] - b.n[pair]).max() < 1e-11
    assert (a.n_rows, len(a.levels)) == (b.n_rows, len(b.levels))
    assert_allclose(b.sum_weights, a.sum_weights)
    assert_allclose(b.sum_log_weights, a.sum_log_weights, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_other_responses_have_the_sums_of_their_rows(name):
    design, result = fitted(name)
    Y = np.random.default_rng(0).normal(3.0, 2.0, size=(len(design.y), 3))
    found = FixedDesign.of(design, result).statistics(Y)
    for y, statistics in zip(Y.T, found, strict=True):
        rows = cross_products(replace(design, y=y))
        expected = in_units(rows, units_of(result.statistics))
        assert_same_sums(expected, statistics)


@pytest.mark.parametrize("name", ["slopes", "crossed_slopes"])
def test_other_responses_of_sparse_columns(name):
    design = problem(name)
    other = replace(design, X=sparse.csr_array(design.X))
    result = fit(other, reml=True, weights="precision")
    y = 3.0 + np.random.default_rng(0).normal(size=len(design.y))
    (found,) = FixedDesign.of(other, result).statistics(y[:, None])
    rows = cross_products(replace(design, y=y))
    assert_same_sums(in_units(rows, units_of(result.statistics)), found)


@pytest.mark.parametrize("name", NAMES)
def test_refit_is_the_fit(name):
    design, result = fitted(name)
    again = FixedDesign.of(design, result)
    rng = np.random.default_rng(1)
    y = design.y + 0.5 * rng.normal(size=len(design.y))
    (statistics,) = again.statistics(y[:, None])
    found = refit(statistics, result, again.model)
    expected = fit(replace(design, y=y), reml=True, weights="precision")
    assert found.converged
    assert_allclose(found.point.deviance, expected.criterion, rtol=0, atol=1e-7)
    assert_allclose(fixed_effects(found.point), expected.beta, rtol=1e-6, atol=1e-7)
    assert lost_a_direction(found.point) == expected.singular


def test_refit_leaves_the_boundary():
    """The search starts from a fit without variance, and must not stay there."""
    design = problem("intercept")
    codes = design.factors[0].codes
    means = np.bincount(codes, design.y) / np.bincount(codes)
    flat = replace(design, y=design.y - means[codes])
    result = fit(flat, reml=True)
    assert result.singular
    again = FixedDesign.of(flat, result)
    (statistics,) = again.statistics(design.y[:, None])
    found = refit(statistics, result, again.model)
    expected = fit(design, reml=True)
    assert not expected.singular
    assert_allclose(found.point.deviance, expected.criterion, atol=1e-8)


def test_sparse_columns_and_dropped_ones():
    design = problem("slopes")
    X = np.column_stack([design.X, design.X[:, 0] - 2.0, np.ones(len(design.y))])
    for columns in (X, sparse.csr_array(X)):
        other = replace(design, X=columns)
        result = fit(other, reml=True)
        assert not result.kept.all()
        again = FixedDesign.of(other, result)
        (statistics,) = again.statistics(design.y[:, None])
        found = refit(statistics, result, again.model)
        assert_allclose(found.point.deviance, result.criterion, rtol=0, atol=1e-8)
        assert_allclose(fixed_effects(found.point), result.beta[result.kept])


@pytest.mark.parametrize("name", ["intercept", "slope", "three_terms"])
def test_groups_drawn_again_have_the_sums_of_their_rows(name):
    design, result = fitted(name)
    n = design.factors[0].n_levels
    groups = np.random.default_rng(2).integers(n, size=n)
    assert len(np.unique(groups)) < n
    rows, sources = resampled_rows(design, 0, groups)
    assert (sources[0] == groups).all()
    expected = in_units(cross_products(rows), units_of(result.statistics))
    assert_same_sums(expected, GroupSums.of(design, result).statistics(groups))


def test_levels_within_a_group_are_copied_with_it():
    design = problem("crossed_and_nested")
    classes, schools, items = design.factors
    assert outermost(design) == [1, 2]
    groups = np.array([2, 2, 0, 1])
    rows, sources = resampled_rows(design, 1, groups)
    sizes = np.bincount(schools.codes)[groups]
    assert (np.bincount(rows.factors[1].codes) == sizes).all()
    of_school = [
        len(np.unique(classes.codes[schools.codes == school])) for school in groups
    ]
    assert rows.factors[0].n_levels == sum(of_school) == len(sources[0])
    # Items are not within schools: they stay what they are.
    used = np.unique(items.codes[np.isin(schools.codes, groups)])
    assert (sources[2] == used).all()
    same = sources[0][rows.factors[0].codes]
    first = rows.factors[1].codes == 0
    assert set(same[first]) == set(classes.codes[schools.codes == 2])


def test_a_sample_without_a_column_has_no_fit():
    design = problem("intercept")
    in_first = (design.factors[0].codes == 0).astype(float)
    design = replace(design, X=np.column_stack([design.X, in_first]))
    result = fit(design, reml=True)
    n = design.factors[0].n_levels
    statistics = GroupSums.of(design, result).statistics(np.arange(1, n))
    assert refit(statistics, result) is None


@pytest.mark.parametrize("name", PROBLEMS)
def test_coefficient_matrices(name):
    design = problem(name)
    side_by_side = sparse.hstack(coefficient_matrices(design)).toarray()
    assert_allclose(side_by_side, wide_columns(design))


def test_reflated_values_have_the_covariance():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3)) + 5.0
    root = rng.normal(size=(3, 3))
    for covariance in (root @ root.T, np.diag([1.0, 0.0, 2.0]), np.zeros((3, 3))):
        new = reflated(values, covariance)
        assert_allclose(new.mean(axis=0), 0.0, atol=1e-12)
        assert_allclose(new.T @ new / 9, covariance, atol=1e-10)
    # Values without variance in a direction cannot get any there.
    flat = values.copy()
    flat[:, 1] = 2.0
    new = reflated(flat, np.diag([1.0, 0.0, 2.0]))
    assert_allclose(new.T @ new / 9, np.diag([1.0, 0.0, 2.0]), atol=1e-10)
    assert_allclose(
        reflated(values, np.cov(values.T, bias=True)), values - values.mean(0)
    )


def test_square_root():
    A = np.array([[4.0, 2.0], [2.0, 1.0]])
    assert_allclose(square_root(A) @ square_root(A).T, A, atol=1e-14)


def test_normal_draws_have_the_moments_of_the_model():
    design = replace(problem("crossed_slopes"), y=np.zeros(160))
    rng = np.random.default_rng(4)
    roots = [np.array([[1.0, 0.0], [0.5, 1.0]]), np.diag([1.0, 0.0, 2.0])]
    draws = NormalDraws(
        mean=np.arange(160.0),
        Z=coefficient_matrices(design),
        error_scale=np.linspace(1.0, 2.0, 160),
        roots=roots,
        n_levels=[f.n_levels for f in design.factors],
    )
    Y = np.column_stack([draws.draw(rng) for _ in range(4000)])
    V = np.diag(draws.error_scale**2)
    for Z, root in zip(draws.Z, roots, strict=True):
        G = np.kron(np.eye(Z.shape[1] // len(root)), root @ root.T)
        V += Z.toarray() @ G @ Z.toarray().T
    deviation = (Y.mean(axis=1) - draws.mean) / np.sqrt(np.diag(V) / 4000)
    assert np.abs(deviation).max() < 4.5
    spread = np.sqrt(np.outer(np.diag(V), np.diag(V)) + V**2) / np.sqrt(4000)
    assert (np.abs(np.cov(Y) - V) / spread).max() < 6.0


def test_factor_of_copies_is_numbered_from_zero():
    design = problem("nested_intercepts")
    rows, _ = resampled_rows(design, 0, np.array([3, 3, 3]))
    for factor in rows.factors:
        assert isinstance(factor, Factor)
        assert (np.unique(factor.codes) == np.arange(factor.n_levels)).all()
    same = fit(rows, reml=True)
    order = np.random.default_rng(5).permutation(len(rows.y))
    other = replace(
        rows,
        X=rows.X[order],
        y=rows.y[order],
        factors=tuple(Factor(f.codes[order], f.levels) for f in rows.factors),
    )
    assert_same_fit(same, fit(other, reml=True))
