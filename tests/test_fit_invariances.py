"""What must not change a fit: order, names, repetition, units, shifts."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import assert_same_fit, factor, problem, take

from sklearn_lmm._engine.fit import fit

SOME = ["slope", "symmetric", "nested_three", "crossed_intercepts", "crossed_three"]
some_problems = pytest.mark.parametrize("name", SOME)
each_method = pytest.mark.parametrize("reml", [False, True])


@cache
def fitted(name, reml=True):
    return fit(problem(name), reml=reml)


@each_method
@some_problems
def test_duplicated_rows_are_a_weight_of_two(name, reml):
    design = replace(problem(name), weights=None)
    times = np.random.default_rng(0).integers(1, 4, len(design.y))
    weighted = fit(replace(design, weights=times.astype(float)), reml=reml)
    repeated = fit(take(design, np.repeat(np.arange(len(times)), times)), reml=reml)
    assert weighted.n_obs == repeated.n_obs == times.sum()
    assert_same_fit(weighted, repeated)


@some_problems
def test_order_of_rows_does_not_matter(name):
    design = problem(name)
    shuffled = take(design, np.random.default_rng(1).permutation(len(design.y)))
    other = fit(shuffled, reml=True)
    assert_same_fit(fitted(name), other)
    for mine, theirs in zip(fitted(name).effects, other.effects, strict=True):
        assert_allclose(theirs, mine, atol=1e-6)


@some_problems
def test_names_of_levels_do_not_matter(name):
    design = problem(name)
    renamed = tuple(
        factor([f"g{7 * c % 101}" for c in f.codes]) for f in design.factors
    )
    other = fit(replace(design, factors=renamed), reml=True)
    assert_same_fit(fitted(name), other)
    for mine, theirs, old, new in zip(
        fitted(name).effects, other.effects, design.factors, renamed, strict=True
    ):
        assert_allclose(theirs[new.codes], mine[old.codes], atol=1e-6)


@some_problems
def test_order_of_columns_does_not_matter(name):
    design = problem(name)
    other = fit(replace(design, X=design.X[:, ::-1]), reml=True)
    first = int(design.intercept)
    order = [*range(first), *range(len(other.beta) - 1, first - 1, -1)]
    assert_same_fit(fitted(name), replace(other, beta=other.beta[order]))


def test_order_of_factors_does_not_matter():
    design = problem("nested_three")
    flipped = replace(
        design,
        factors=design.factors[::-1],
        blocks=tuple(replace(b, factor=2 - b.factor) for b in design.blocks),
    )
    assert_same_fit(fitted("nested_three"), fit(flipped, reml=True))


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@each_method
@some_problems
def test_scale_of_y_only_changes_units(name, reml, scale):
    design, result = problem(name), fitted(name, reml)
    other = fit(replace(design, y=scale * design.y), reml=reml)
    N = result.n_obs - reml * len(result.beta)
    back = replace(
        other,
        criterion=other.criterion - 2 * N * np.log(scale),
        sigma=other.sigma / scale,
        beta=other.beta / scale,
    )
    assert_same_fit(result, back)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@each_method
@some_problems
def test_scale_of_columns_only_changes_units(name, reml, scale):
    """X alone: the slopes of the random terms stay as they are."""
    design, result = problem(name), fitted(name, reml)
    other = fit(replace(design, X=scale * design.X), reml=reml)
    p = design.X.shape[1]
    back = replace(
        other,
        criterion=other.criterion - reml * 2 * p * np.log(scale),
        beta=other.beta * np.append(1.0, np.full(p, scale)),
    )
    assert_same_fit(result, back)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("name", ["slope", "diagonal", "crossed_slopes"])
def test_scale_of_slopes_only_changes_units(name, scale):
    design, result = problem(name), fitted(name)
    blocks = tuple(
        replace(b, slopes=tuple(scale * z for z in b.slopes)) for b in design.blocks
    )
    other = fit(replace(design, blocks=blocks), reml=True)
    assert_allclose(other.criterion, result.criterion, rtol=1e-11)
    assert_allclose(other.theta_standardized, result.theta_standardized, atol=1e-6)
    for mine, theirs in zip(result.covariances, other.covariances, strict=True):
        units = np.append(1.0, np.full(len(mine) - 1, scale))
        assert_allclose(theirs * np.outer(units, units), mine, atol=1e-5)


@each_method
@pytest.mark.parametrize("name", ["slope", "nested_slopes", "crossed_slopes"])
def test_shifts_only_change_the_intercept(name, reml):
    design, result = problem(name), fitted(name, reml)
    far = 1e6
    shifted = replace(
        design,
        X=design.X + far,
        y=design.y + far,
        blocks=tuple(
            replace(b, slopes=tuple(z + far for z in b.slopes)) for b in design.blocks
        ),
    )
    other = fit(shifted, reml=reml)
    # Numbers near 1e6 have lost 10 of their 16 digits.
    assert_allclose(other.criterion, result.criterion, rtol=0, atol=1e-6)
    assert_allclose(other.sigma, result.sigma, rtol=1e-6)
    assert_allclose(other.theta_standardized, result.theta_standardized, atol=1e-4)
    assert_allclose(other.beta[1:], result.beta[1:], rtol=1e-6)
    intercept = other.beta[0] + far * other.beta[1:].sum() - far
    assert_allclose(intercept, result.beta[0], atol=1e-4)


def test_a_shift_of_independent_slopes_is_another_model():
    design = problem("diagonal")
    (block,) = design.blocks
    moved = replace(block, slopes=tuple(z + 5.0 for z in block.slopes))
    other = fit(replace(design, blocks=(moved,)), reml=True)
    assert abs(other.criterion - fitted("diagonal").criterion) > 0.1
