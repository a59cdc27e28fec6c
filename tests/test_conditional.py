"""The conditional AIC against derivatives by every response."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import Effects, columns, crossed, make_design, tree

from sklearn_lmm._engine.conditional import conditional_deviance, trace_by_response
from sklearn_lmm._engine.description import effective_parameters
from sklearn_lmm._engine.fit import fit

DESIGNS = {
    "slope": lambda rng: make_design(rng, crossed(rng, 40, [8]), [Effects(0, 1)]),
    "weighted": lambda rng: make_design(
        rng, crossed(rng, 40, [8]), [Effects(0)], weights=True
    ),
    "crossed": lambda rng: make_design(
        rng, crossed(rng, 40, [6, 5]), [Effects(0), Effects(1)]
    ),
    "nested": lambda rng: make_design(
        rng, tree(rng, 40, (5, 3)), [Effects(0), Effects(1)]
    ),
    "none": lambda rng: make_design(rng, [], [], p=3),
}


def fitted_values(design, result):
    """Return X beta + Z b (n,)."""
    ones = np.ones((len(design.y), int(design.intercept)))
    values = np.hstack([ones, design.X]) @ result.beta
    used = [0] * len(design.factors)
    for block in design.blocks:
        f, q = block.factor, block.term.q
        b = result.effects[f][:, used[f] : used[f] + q]
        values += np.sum(columns(block, len(design.y)) * b[design.factors[f].codes], 1)
        used[f] += q
    return values


def regular_fit(name, reml):
    """Return the first of some designs whose variances are not 0, and its fit."""
    for seed in range(30):
        design = DESIGNS[name](np.random.default_rng(seed))
        result = fit(design, reml=reml)
        if not result.singular and (np.abs(result.theta) > 0.3).all():
            return design, result
    raise LookupError(name)


@pytest.mark.parametrize(
    ("name", "reml"),
    [(name, True) for name in DESIGNS] + [("weighted", False), ("none", False)],
)
def test_traces_are_derivatives_of_fitted_values(name, reml):
    design, result = regular_fit(name, reml)
    point = result.point()
    rho, whole = effective_parameters(point), trace_by_response(point)
    step, trace = 1e-4 * design.y.std(), 0.0
    y = design.y.copy()
    for i in range(len(y)):
        changes = []
        for sign in (1.0, -1.0):
            design.y[i] = y[i] + sign * step
            changes.append(fitted_values(design, fit(design, reml=reml))[i])
            design.y[i] = y[i]
        trace += (changes[0] - changes[1]) / (2.0 * step)
    assert_allclose(whole, trace, rtol=1e-4)
    if name == "none":
        assert_allclose([rho, whole], 4.0)
    else:
        assert abs(whole - rho) > 1e-2


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("weights", ["frequency", "precision"])
def test_deviance_given_the_effects(name, weights):
    design = DESIGNS[name](np.random.default_rng(11))
    result = fit(design, reml=True, weights=weights)
    point = result.point()
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    e = design.y - fitted_values(design, result)
    sigma2 = result.sigma**2
    squares = np.sum(w * e**2) / sigma2
    if weights == "frequency":
        expected = w.sum() * np.log(2 * np.pi * sigma2) + squares
    else:
        expected = np.sum(np.log(2 * np.pi * sigma2 / w)) + squares
    got = conditional_deviance(point, weights == "frequency")
    assert_allclose(got, expected, rtol=1e-10)


def test_effective_parameters_of_a_textbook_example():
    # One way, balanced, variances known: p + (G - 1) k, k = m psi / (1 + m psi).
    rng = np.random.default_rng(2)
    design = make_design(rng, [np.repeat(np.arange(10), 5)], [Effects(0)], p=0)
    result = fit(design, reml=True)
    point = result.point()
    psi = result.theta[0] ** 2
    rho = effective_parameters(point)
    assert_allclose(rho, 1.0 + 9.0 * 5.0 * psi / (1.0 + 5.0 * psi), rtol=1e-9)
