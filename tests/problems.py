"""Random mixed-model problems, shared by the tests of the engine.

Every problem is a function of a seeded generator, so that a test can draw the
same rows again and change one thing about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import CrossProducts, in_units, units_of
from sklearn_lmm._engine.design import Block, Design, Factor, Standardization
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm.covariance import (
    CompoundSymmetry,
    Covariance,
    Diagonal,
    Identity,
    Unstructured,
)

FloatArray = NDArray[np.float64]
Rng = np.random.Generator

UN, DIAG, ID, CS = Unstructured(), Diagonal(), Identity(), CompoundSymmetry()


@dataclass(frozen=True)
class Effects:
    """One random term: a factor's position, and what varies between its levels."""

    factor: int
    slopes: int = 0
    structure: Covariance = UN
    intercept: bool = True


def factor(labels: Sequence[object] | NDArray) -> Factor:
    """Return the factor of sortable labels, one a row."""
    levels, codes = np.unique(np.asarray(labels), return_inverse=True)
    return Factor(codes, levels)


def unbalanced(rng: Rng, n: int, levels: int) -> NDArray[np.integer]:
    """Draw labels of very different frequencies, singletons among them."""
    return rng.choice(levels, n, p=rng.dirichlet(np.full(levels, 0.7)))


def tree(rng: Rng, n: int, children: Sequence[int]) -> tuple[NDArray[np.integer], ...]:
    """Draw nested labels, leaves first: children[0] roots, children[1] below each."""
    leaf = unbalanced(rng, n, int(np.prod(children)))
    below = np.cumprod([1, *children[:0:-1]])
    return tuple(leaf // size for size in below)


def make_design(
    rng: Rng,
    labels: Sequence[NDArray],
    effects: Sequence[Effects],
    *,
    p: int = 2,
    intercept: bool = True,
    weights: bool = False,
) -> Design:
    """Draw rows of a model whose effects and errors have variances near 1.

    The slopes of the first term are columns of X, as far as there are any.
    """
    n = len(labels[0]) if labels else 40
    X = rng.normal(size=(n, p)) * rng.uniform(0.5, 3.0, p) + rng.normal(size=p)
    factors = tuple(factor(codes) for codes in labels)
    y = X @ rng.normal(size=p) + 2.0 * intercept + rng.normal(size=n)
    spare = list(X.T)
    blocks = []
    for term in effects:
        slopes = tuple(
            spare.pop() if spare else rng.normal(1.0, 1.5, n)
            for _ in range(term.slopes)
        )
        block = Block(term.factor, term.structure, term.intercept, slopes)
        grouping = factors[term.factor]
        b = rng.normal(size=(grouping.n_levels, block.term.q))
        y = y + np.sum(columns(block, n) * b[grouping.codes], axis=1)
        blocks.append(block)
    return Design(
        X=X,
        y=y,
        intercept=intercept,
        factors=factors,
        blocks=tuple(blocks),
        weights=rng.uniform(0.3, 4.0, n) if weights else None,
    )


def columns(block: Block, n: int) -> FloatArray:
    """Return z (n, q) of a term, in the user's units."""
    ones = [np.ones(n)] if block.intercept else []
    return np.column_stack([*ones, *block.slopes])


def take(design: Design, rows: NDArray | slice) -> Design:
    """Return a design of some of the rows, in that order, without empty levels."""
    some = design.take(rows)
    return replace(some, factors=tuple(factor(f.levels[f.codes]) for f in some.factors))


def without_zero_weights(rng: Rng, design: Design) -> Design:
    """Give a third of the rows, and one whole level, no weight: they are dropped."""
    weights = rng.uniform(0.3, 4.0, len(design.y)) * (rng.random(len(design.y)) > 0.3)
    weights[design.factors[0].codes == 0] = 0.0
    return take(replace(design, weights=weights), weights > 0)


def disconnected(
    rng: Rng, n: int, components: int, levels: Sequence[int]
) -> tuple[NDArray[np.integer], ...]:
    """Draw crossed labels of components that share no level of any factor."""
    component = rng.integers(0, components, n)
    return tuple(component * m + rng.integers(0, m, n) for m in levels)


def crossed(rng: Rng, n: int, levels: Sequence[int]) -> tuple[NDArray, ...]:
    """Draw independent unbalanced labels: most pairs of rare levels never meet."""
    return tuple(unbalanced(rng, n, m) for m in levels)


def _shuffled_tree(rng: Rng) -> Design:
    leaf, middle, root = tree(rng, 150, (4, 3, 4))
    effects = [Effects(0, 1), Effects(1, structure=DIAG, slopes=1), Effects(2)]
    return make_design(rng, (middle, leaf, root), effects, weights=True)


def _classes_and_items(rng: Rng) -> Design:
    classes, schools = tree(rng, 160, (5, 4))
    items = unbalanced(rng, 160, 7)
    effects = [Effects(0), Effects(1, 1), Effects(2, 1, DIAG)]
    return make_design(rng, (classes, schools, items), effects)


SINGLE: dict[str, Callable[[Rng], Design]] = {
    "intercept": lambda rng: make_design(rng, crossed(rng, 60, [12]), [Effects(0)]),
    "slope": lambda rng: make_design(
        rng, crossed(rng, 80, [10]), [Effects(0, 1)], weights=True
    ),
    "slopes": lambda rng: make_design(rng, crossed(rng, 120, [12]), [Effects(0, 2)]),
    "four": lambda rng: make_design(
        rng, crossed(rng, 150, [10]), [Effects(0, 3)], weights=True
    ),
    "two_terms": lambda rng: make_design(
        rng,
        crossed(rng, 120, [11]),
        [Effects(0, 1), Effects(0, 2, ID, intercept=False)],
    ),
    "three_terms": lambda rng: make_design(
        rng,
        crossed(rng, 120, [9]),
        [Effects(0, 1, intercept=False), Effects(0, 0), Effects(0, 1, DIAG, False)],
    ),
    "diagonal": lambda rng: make_design(
        rng, crossed(rng, 90, [9]), [Effects(0, 2, DIAG)]
    ),
    "identity": lambda rng: make_design(
        rng, crossed(rng, 90, [9]), [Effects(0, 2, ID)], weights=True
    ),
    "symmetric": lambda rng: make_design(
        rng, crossed(rng, 90, [9]), [Effects(0, 2, CS)]
    ),
    "symmetric_slopes": lambda rng: make_design(
        rng, crossed(rng, 120, [9]), [Effects(0, 4, CS, intercept=False)], p=4
    ),
    "singletons": lambda rng: make_design(
        rng,
        [np.concatenate([np.arange(30), rng.integers(0, 6, 40)])],
        [Effects(0, 1)],
    ),
    "no_fixed_intercept": lambda rng: make_design(
        rng, crossed(rng, 70, [8]), [Effects(0, 1)], intercept=False
    ),
    "no_columns": lambda rng: make_design(
        rng, crossed(rng, 70, [8]), [Effects(0, 1)], p=0
    ),
    "one_level": lambda rng: make_design(rng, [np.zeros(30, int)], [Effects(0, 1)]),
    "zero_weights": lambda rng: without_zero_weights(
        rng, make_design(rng, crossed(rng, 110, [9]), [Effects(0, 1)])
    ),
}
NESTED: dict[str, Callable[[Rng], Design]] = {
    "nested_intercepts": lambda rng: make_design(
        rng, tree(rng, 120, (5, 4)), [Effects(0), Effects(1)]
    ),
    "nested_slopes": lambda rng: make_design(
        rng, tree(rng, 160, (5, 4)), [Effects(0, 1), Effects(1, 2)], weights=True
    ),
    "nested_three": lambda rng: make_design(
        rng,
        tree(rng, 160, (3, 3, 4)),
        [Effects(2, 1), Effects(0), Effects(1, 2, CS), Effects(0, 1, UN, False)],
    ),
    "nested_four": lambda rng: make_design(
        rng,
        tree(rng, 200, (3, 2, 3, 3)),
        [Effects(0), Effects(1, 1, DIAG), Effects(2, 2, ID), Effects(3, 1)],
    ),
    "nested_any_order": _shuffled_tree,
    "nested_one_root": lambda rng: make_design(
        rng, tree(rng, 90, (1, 4, 3)), [Effects(0), Effects(1, 1), Effects(2)]
    ),
    "nested_zero_weights": lambda rng: without_zero_weights(
        rng, make_design(rng, tree(rng, 150, (5, 4)), [Effects(0), Effects(1, 1)])
    ),
}
CROSSED: dict[str, Callable[[Rng], Design]] = {
    "crossed_intercepts": lambda rng: make_design(
        rng, crossed(rng, 110, [16, 8]), [Effects(0), Effects(1)]
    ),
    "crossed_slopes": lambda rng: make_design(
        rng, crossed(rng, 160, [9, 14]), [Effects(0, 1), Effects(1, 2)], weights=True
    ),
    "crossed_three": lambda rng: make_design(
        rng,
        crossed(rng, 180, [6, 5, 20]),
        [Effects(0, 1), Effects(1, 2, CS), Effects(2), Effects(0, 1, DIAG, False)],
    ),
    "crossed_four": lambda rng: make_design(
        rng,
        crossed(rng, 200, [5, 6, 7, 8]),
        [Effects(0), Effects(1), Effects(2, 1, ID), Effects(3, 3)],
        weights=True,
    ),
    "crossed_and_nested": _classes_and_items,
    "crossed_components": lambda rng: make_design(
        rng, disconnected(rng, 180, 5, (4, 6)), [Effects(0, 1), Effects(1)]
    ),
    "crossed_widths": lambda rng: make_design(
        rng,
        disconnected(rng, 160, 3, (3, 7, 2)),
        [Effects(0), Effects(1), Effects(2)],
        weights=True,
    ),
    "crossed_with_one_level": lambda rng: make_design(
        rng,
        [*crossed(rng, 100, [12, 5]), np.zeros(100, int)],
        [Effects(0, 1), Effects(1), Effects(2)],
    ),
    "crossed_zero_weights": lambda rng: without_zero_weights(
        rng,
        make_design(rng, crossed(rng, 150, [9, 12]), [Effects(0, 1), Effects(1)]),
    ),
}
PROBLEMS = SINGLE | NESTED | CROSSED


def problem(name: str, seed: int = 0) -> Design:
    """Draw a named problem."""
    return PROBLEMS[name](np.random.default_rng(seed))


def identity(criterion: Criterion) -> FloatArray:
    """Return theta of Psi = I."""
    theta = np.zeros(criterion.n_parameters)
    for term, _, part in criterion.terms():
        theta[part] = term.structure.start(term.q)
    return theta


def interior(criterion: Criterion, rng: Rng) -> FloatArray:
    return identity(criterion) + 0.3 * rng.normal(size=criterion.n_parameters)


def singular(criterion: Criterion, rng: Rng) -> FloatArray:
    """Draw theta with Psi of rank one for q > 1, and zero for every other q = 1."""
    theta = interior(criterion, rng)
    for k, (term, _, part) in enumerate(criterion.terms()):
        if isinstance(term.structure, Unstructured) and term.q > 1:
            theta[part] = term.structure.parameters(rng.normal(size=(term.q, 1)))
        elif term.q > 1 or k % 2 == 0:
            theta[part.start] = 0.0
    return theta


THETAS: dict[str, Callable[[Criterion, Rng], FloatArray]] = {
    "interior": interior,
    "zero": lambda criterion, rng: np.zeros(criterion.n_parameters),
    "singular": singular,
    "small": lambda criterion, rng: 1e-4 * interior(criterion, rng),
    "large": lambda criterion, rng: 30.0 * interior(criterion, rng),
}


def wide_columns(design: Design, statistics: CrossProducts | None = None) -> FloatArray:
    """Return Z (n, sum_f G_f q_f) factor by factor, level-major, as one matrix.

    In the units of the cross-products, or in the user's without them.
    """
    n, parts = len(design.y), []
    for f, grouping in enumerate(design.factors):
        z = [
            columns(block, n)
            if statistics is None
            else _in_units(block, statistics.blocks[k], n)
            for k, block in enumerate(design.blocks)
            if block.factor == f
        ]
        side_by_side = np.hstack(z)
        wide = np.zeros((n, grouping.n_levels, side_by_side.shape[1]))
        wide[np.arange(n), grouping.codes] = side_by_side
        parts.append(wide.reshape(n, -1))
    return np.hstack(parts) if parts else np.zeros((n, 0))


def _in_units(block: Block, units: Standardization, n: int) -> FloatArray:
    return (columns(block, n) - units.center) / units.scale


def stencil(
    function: Callable[[FloatArray], object], x: FloatArray, h: float = 3e-4
) -> FloatArray:
    """Return the derivatives by every x_m, first, from the five-point stencil."""
    derivatives = []
    for step in h * np.eye(len(x)):
        near = np.subtract(function(x + step), function(x - step))
        far = np.subtract(function(x + 2 * step), function(x - 2 * step))
        derivatives.append((8.0 * near - far) / (12.0 * h))
    return np.array(derivatives)


def relative_difference(a: CrossProducts, b: CrossProducts) -> float:
    """Return the largest difference of two sets of cross-products, units alike.

    Each array is measured by its largest entry.
    """
    b = in_units(b, units_of(a))
    pairs = [(a.tt, b.tt), *zip(a.s, b.s, strict=True), *zip(a.b, b.b, strict=True)]
    pairs += [(a.n[key].toarray(), b.n[key].toarray()) for key in a.n]
    return max(np.abs(x - y).max() / np.abs(x).max() for x, y in pairs)


def assert_same_fit(
    a: LMMFit, b: LMMFit, *, criterion: float = 1e-9, theta: float = 1e-6
) -> None:
    """Compare two fits of the same model to the same rows."""
    assert_allclose(b.criterion, a.criterion, rtol=0, atol=criterion * a.n_obs)
    assert_allclose(b.sigma, a.sigma, rtol=theta)
    assert_allclose(b.theta, a.theta, rtol=0, atol=theta * max(1, *np.abs(a.theta)))
    assert_allclose(b.beta, a.beta, rtol=theta, atol=theta)
