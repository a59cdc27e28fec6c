"""The profile likelihood, against brute force and at its edges."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import UN, problem
from scipy.optimize import minimize

from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.held import (
    hold_contrast,
    hold_sigma,
    hold_variance_parameter,
)
from sklearn_lmm._engine.profile import Trace, minimum, trace_profile
from sklearn_lmm._engine.variance_parameters import parameters_of

FURTHEST = 1.96


def optimum_of(name, seed=0):
    result = fit(problem(name, seed), reml=False, weights="precision")
    assert result.converged
    return result.point()


def traces_of(point):
    held = [hold_sigma(point), hold_contrast(point, np.eye(len(point.beta))[-1])]
    for parameter in parameters_of(point.criterion.statistics.terms)[:-1]:
        try:
            held.append(hold_variance_parameter(point, parameter))
        except NotImplementedError:
            raise AssertionError("a known structure") from None
    return [(one, trace_profile(one, FURTHEST)) for one in held]


def least_deviance(held, value):
    """Minimise by differences of the criterion alone, from several starts."""
    free = np.delete(np.arange(len(held.x)), held.index)

    def deviance(z):
        x = held.x.copy()
        x[free] = z
        x[list(held.nonnegative)] = np.abs(x[list(held.nonnegative)])
        return held.at(value, x).deviance

    found = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=len(free))
        start = held.x[free] + 0.1 * seed * noise
        found.append(minimize(deviance, start, method="BFGS").fun)
    return min(found)


@pytest.mark.parametrize("name", ["intercept", "slope", "symmetric", "identity"])
def test_profile_is_the_least_deviance(name):
    point = optimum_of(name)
    for held, trace in traces_of(point):
        for k in (0, len(trace.values) // 3, -1):
            expected = least_deviance(held, trace.values[k]) - point.deviance
            assert_allclose(trace.zeta[k] ** 2, expected, atol=2e-6)


@pytest.mark.parametrize(
    "name", ["slopes", "three_terms", "nested_intercepts", "crossed_intercepts"]
)
def test_zeta_increases_with_the_right_slope(name):
    for held, trace in traces_of(optimum_of(name)):
        assert (np.diff(trace.values) > 0).all()
        level = [end == "level" for end in trace.ends]
        steps = np.diff(trace.zeta)[level[0] : len(trace.zeta) - 1 - level[1]]
        assert (steps > 0).all()
        for side, end in zip((0, -1), trace.ends, strict=True):
            assert end in ("reached", "bound", "level")
            if end == "reached":
                assert_allclose(abs(trace.zeta[side]), FURTHEST, atol=1e-8)
        # Between two points a third lies on the cubic.
        k = len(trace.zeta) - 3
        middle = 0.5 * (trace.zeta[k] + trace.zeta[k + 1])
        value = trace.value_at(middle)
        finer = trace_profile(held, middle)
        if middle > 0 and finer.ends[1] == "reached":
            width = trace.values[-1] - trace.values[0]
            assert_allclose(value, finer.values[-1], atol=2e-4 * width)


def test_a_deviation_may_start_and_end_at_zero():
    rng = np.random.default_rng(5)
    design = problem("intercept")
    # Group means are less spread than errors alone would make them.
    codes = design.factors[0].codes
    y = rng.normal(size=len(codes))
    means = np.bincount(codes, y) / np.bincount(codes)
    object.__setattr__(design, "y", y - means[codes])
    result = fit(design, reml=False)
    assert result.singular
    point = result.point()
    (parameter, _) = parameters_of(point.criterion.statistics.terms)
    trace = trace_profile(hold_variance_parameter(point, parameter), FURTHEST)
    assert trace.ends == ("bound", "reached")
    assert trace.values[0] == 0.0 == trace.zeta[0]
    assert_allclose(trace.zeta[-1], FURTHEST, atol=1e-8)


def test_correlation_with_a_coefficient_that_may_be_zero_is_open_to_its_bounds():
    """Every correlation then does as well as none: zeta becomes level."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        design = problem("slope", seed)
        codes = design.factors[0].codes
        y = rng.normal(size=codes.max() + 1)[codes] + rng.normal(size=len(codes))
        object.__setattr__(design, "y", y)
        result = fit(design, reml=False)
        if result.singular:
            continue
        point = result.point()
        parameter = parameters_of(point.criterion.statistics.terms)[2]
        trace = trace_profile(hold_variance_parameter(point, parameter), FURTHEST)
        if "level" in trace.ends:
            side = -1 if trace.ends[1] == "level" else 0
            assert abs(trace.values[side]) == np.pi / 2
            assert abs(trace.zeta[side]) < FURTHEST
            return
    raise AssertionError("no profile was level")


def small_data(seed, n_groups, n_rows, deviations, correlation):
    """Draw slopes of few groups: likelihoods with more than one minimum."""
    rng = np.random.default_rng([0, seed])
    codes = np.repeat(np.arange(n_groups), n_rows)
    q = len(deviations)
    x = rng.normal(size=(len(codes), q - 1))
    R = np.full((q, q), correlation) + np.eye(q) * (1 - correlation)
    covariance = R * np.outer(deviations, deviations)
    b = rng.multivariate_normal(np.zeros(q), covariance, size=n_groups)
    z = np.column_stack([np.ones(len(codes)), x])
    y = (z * b[codes]).sum(axis=1) + rng.normal(size=len(codes))
    block = Block(0, UN, True, tuple(x.T))
    return Design(x, y, True, (Factor(codes, np.arange(n_groups)),), (block,))


def near_zero():
    """Draw a case whose interval ends where a deviation is nearly 0."""
    rng = np.random.default_rng([10, 215])
    codes = np.repeat(np.arange(10), 8)
    x, w = rng.normal(size=len(codes)), rng.normal(size=10)[codes]
    root = np.linalg.cholesky([[1.0, 0.18], [0.18, 0.36]])
    b = rng.normal(size=(10, 2)) @ root.T
    y = 1.0 + 0.5 * x - 0.5 * w + b[codes, 0] + b[codes, 1] * x
    y += rng.normal(size=len(codes))
    block = Block(0, UN, True, (x,))
    factors = (Factor(codes, np.arange(10)),)
    return Design(np.column_stack([x, w]), y, True, factors, (block,))


HARD = {
    "ends near 0": (near_zero(), "sd", 1),
    "falls towards the bound": (small_data(2, 5, 4, [0.3, 0.2], 0.0), "cor", 0),
    "second minimum": (small_data(59, 6, 5, [0.5, 0.5], -0.9), "sd", 1),
    "level from a point on": (small_data(1, 8, 6, [0.5, 0.3, 0.3], 0.5), "cor", 0),
}


@pytest.mark.parametrize("name", HARD)
def test_ends_of_hard_profiles_are_the_least_of_many_starts(name):
    design, kind, place = HARD[name]
    result = fit(design, reml=False)
    point = result.point()
    parameters = parameters_of(point.criterion.statistics.terms)
    parameter = [p for p in parameters if p.kind == kind][place]
    held = hold_variance_parameter(point, parameter)
    trace = trace_profile(held, FURTHEST)
    assert set(trace.ends) <= {"reached", "bound", "level"}
    for value, zeta in zip(trace.values[[0, -1]], trace.zeta[[0, -1]], strict=True):
        deviances = []
        for seed in range(8):
            noise = np.random.default_rng(seed).normal(size=len(held.x))
            found = minimum(held, value, held.x + 0.5 * noise)
            deviances.append(np.inf if found is None else found.deviance)
        assert_allclose(zeta**2, min(deviances) - point.deviance, atol=1e-5)
    # Wherever it turns on the way, the interval goes on to the outermost end.
    for sign, end, value in zip(
        (-1, 1), trace.ends, trace.values[[0, -1]], strict=True
    ):
        at = trace.value_at(sign * FURTHEST)
        assert at == value if end == "reached" else at is None


def test_value_at():
    ends = ("bound", "reached")
    values, zeta = np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.0, 2.0])
    trace = Trace(values, zeta, np.ones(3), ends)
    found = [trace.value_at(z) for z in (-1.0, -0.3, 0.0, 1.7, 2.0)]
    assert_allclose(found, [0.0, 0.7, 1.0, 2.7, 3.0])
    assert trace.value_at(-1.5) is None
    assert trace.value_at(2.1) is None


def test_value_at_of_a_profile_that_turns_is_the_outermost():
    trace = Trace(
        np.arange(5.0),
        np.array([0.0, 1.0, 0.5, 1.5, 1.2]),
        np.array([1.0, 0.0, 0.0, 0.0, -0.5]),
        ("bound", "bound"),
    )
    assert 2.0 < trace.value_at(0.75) < 3.0
    # Beyond the last point everything is as likely again.
    assert trace.value_at(1.4) is None
