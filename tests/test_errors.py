"""Errors that are correlated or not equal, against dense algebra."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import Effects, crossed, make_design, stencil, wide_columns
from scipy.linalg import block_diag

from sklearn_lmm._engine import error_traces
from sklearn_lmm._engine.autoregressive import AR1, ContinuousAR1
from sklearn_lmm._engine.correlation import Independent
from sklearn_lmm._engine.correlation_families import (
    KERNELS,
    Arma,
    Spatial,
    Unstructured,
)
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.error_criterion import ErrorCriterion, standardized_variance
from sklearn_lmm._engine.error_fit import error_model, row_errors
from sklearn_lmm._engine.errors import Errors, LocalErrors
from sklearn_lmm._engine.exchangeable import EqualCorrelation
from sklearn_lmm._engine.result import factor_maps
from sklearn_lmm._engine.summed_errors import SummedErrors

OCCASIONS = 3


def places(group, rng):
    """Return times within groups, whole and increasing, with gaps."""
    steps = rng.integers(1, 3, len(group))
    times = np.cumsum(steps).astype(float)
    return times - np.repeat(times[starts_of(group)], sizes_of(group))


def starts_of(group):
    return np.flatnonzero(np.append(True, np.diff(group) != 0))


def sizes_of(group):
    return np.diff(np.append(starts_of(group), len(group)))


def gaps(group, times):
    between = np.append(0.0, np.diff(times))
    between[starts_of(group)] = 0.0
    return between


def far(group, times):
    """Return |t_i - t_j|, and infinity between groups."""
    apart = np.abs(times[:, None] - times[None, :])
    return np.where(group[:, None] == group[None, :], apart, np.inf)


def arma11(distance, phi, theta):
    """Return the textbook's correlations of an ARMA(1, 1) process."""
    first = (1 + phi * theta) * (phi + theta) / (1 + 2 * phi * theta + theta**2)
    rho = first * phi ** np.where(np.isfinite(distance), distance - 1, 0)
    return np.where(np.isinf(distance), 0.0, np.where(distance == 0, 1.0, rho))


def finite(distance, value):
    return np.where(np.isfinite(distance), value, 0.0)


def kernel(name, distance, reach, nugget):
    x = np.where(np.isfinite(distance), distance, 0.0) / reach
    k = finite(distance, KERNELS[name](x)[0])
    return np.where(distance == 0, 1.0, (1.0 - nugget) * k)


def occasions(group):
    """Return which of the occasions a row is of: not all are in every group."""
    within = np.arange(len(group)) - np.repeat(starts_of(group), sizes_of(group))
    return (within + group % 2) % OCCASIONS


def unstructured(group, values):
    C = np.eye(OCCASIONS)
    C[np.triu_indices(OCCASIONS, 1)] = values
    C = np.triu(C) + np.triu(C, 1).T
    which = occasions(group)
    return np.where(
        group[:, None] == group[None, :], C[which[:, None], which[None, :]], 0.0
    )


# A correlation of rows, and the same by the textbook, given the user's parameters.
CORRELATIONS = {
    "ar1": (
        lambda g, t: AR1(gaps(g, t)),
        lambda g, t, v: finite(far(g, t), v[0] ** np.minimum(far(g, t), 1e6)),
    ),
    "car1": (
        lambda g, t: ContinuousAR1(gaps(g, t) * 0.37, True),
        lambda g, t, v: finite(far(g, t), v[0] ** (0.37 * np.minimum(far(g, t), 1e3))),
    ),
    "range": (
        lambda g, t: ContinuousAR1(gaps(g, t), False),
        lambda g, t, v: np.exp(-far(g, t) / v[0]),
    ),
    "arma": (
        lambda g, t: Arma(starts_of(g), t[:, None], 1, 1),
        lambda g, t, v: arma11(far(g, t), *v),
    ),
    "equal": (
        lambda g, t: EqualCorrelation(starts_of(g), len(g)),
        lambda g, t, v: (
            kernel("exponential", far(g, 0 * t + 1), 1.0, 0)
            * np.where(np.eye(len(g)) == 1, 1.0, v[0])
        ),
    ),
    "unstructured": (
        lambda g, t: Unstructured(starts_of(g), occasions(g)[:, None] * 1.0, OCCASIONS),
        lambda g, t, v: unstructured(g, v),
    ),
    "independent": (
        lambda g, t: Independent(len(g)),
        lambda g, t, v: np.eye(len(g)),
    ),
} | {
    f"{name}_{nugget}": (
        lambda g, t, name=name, nugget=nugget: Spatial(
            starts_of(g), t[:, None], name, nugget
        ),
        lambda g, t, v, name=name: kernel(name, far(g, t), *np.append(v, 0.0)[:2]),
    )
    for name in KERNELS
    for nugget in (False, True)
}
each_correlation = pytest.mark.parametrize("name", CORRELATIONS)


def make_group(rng, n=60, size=OCCASIONS):
    return np.sort(rng.permutation(np.repeat(np.arange(n // size), size))[: n - 7])


@each_correlation
def test_precision_and_its_derivatives(name):
    rng = np.random.default_rng(3)
    group = make_group(rng)
    times = places(group, rng)
    make, textbook = CORRELATIONS[name]
    correlation = make(group, times)
    u = correlation.start() + 0.2 * rng.normal(size=correlation.size)
    C = textbook(group, times, correlation.values(u))
    eye = np.eye(len(group))
    precision = correlation.at(u)
    assert_allclose(precision.inverse @ eye, np.linalg.inv(C), atol=1e-9)
    assert_allclose(precision.inverse.sparse().toarray(), np.linalg.inv(C), atol=1e-9)
    assert_allclose(precision.logdet, np.linalg.slogdet(C)[1], atol=1e-9)
    assert_allclose(correlation.times(u, eye), C, atol=1e-9)
    if not correlation.size:
        return

    def inverse(u):
        return correlation.at(u).inverse @ eye

    def first(u):
        return np.array([operator @ eye for operator in correlation.at(u).first])

    scale = np.abs(np.linalg.inv(C)).max()
    assert_allclose(first(u), stencil(inverse, u), atol=1e-7 * scale)
    second = [[operator @ eye for operator in row] for row in precision.second]
    assert_allclose(second, stencil(first, u), atol=1e-6 * scale)
    slope = stencil(lambda u: correlation.at(u).logdet, u)
    assert_allclose(precision.dlogdet, slope, atol=1e-7)
    bend = stencil(lambda u: correlation.at(u).dlogdet, u)
    assert_allclose(precision.d2logdet, bend, atol=1e-6)


@each_correlation
def test_parameters_there_and_back(name):
    rng = np.random.default_rng(4)
    group = make_group(rng)
    make, _ = CORRELATIONS[name]
    correlation = make(group, places(group, rng))
    u = correlation.start() + 0.3 * rng.normal(size=correlation.size)
    values = correlation.values(u)
    assert_allclose(correlation.unconstrained(values), u, atol=1e-9)
    if correlation.size:
        by_u = stencil(correlation.values, u).T
        assert_allclose(correlation.jacobian(u), by_u, atol=1e-8)


def test_negative_correlation_of_neighbours():
    group, times = np.zeros(6, int), np.array([0.0, 1, 2, 4, 7, 8])
    correlation = AR1(gaps(group, times))
    C = (-0.6) ** np.abs(times[:, None] - times[None, :])
    precision = correlation.at(np.arctanh([-0.6]))
    assert_allclose(precision.inverse @ np.eye(6), np.linalg.inv(C), atol=1e-12)


def make_errors(rng, design, name, slopes, by=None):
    """Draw the structure of the errors, in the order of groups."""
    n = len(design.y)
    group = design.factors[0].codes if by is None else by
    order = np.argsort(group, kind="stable")
    group = group[order]
    times = places(group, rng)
    make, textbook = CORRELATIONS[name]
    correlation = make(group, times)
    starts = np.arange(n) if name == "independent" else starts_of(group)
    m = correlation.size + slopes
    errors = Errors(
        order=order,
        starts=starts,
        correlation=correlation,
        log_deviation=0.2 * rng.normal(size=n),
        slopes=rng.normal(size=(n, slopes)),
        ratio=np.zeros(slopes, dtype=bool),
        fixed=np.full(m, np.nan),
    )
    return errors, lambda values: textbook(group, times, values)


def criterion_of(design, errors, reml, sigma=None, rows=True):
    plain = cross_products(replace(design, weights=None))
    make = row_errors if rows else error_model
    model = make(errors, design.take(errors.order), plain)
    return ErrorCriterion(
        model,
        model.at(errors.start()),
        reml=reml,
        sigma2=standardized_variance(sigma, plain),
    )


def dense_criterion(design, errors, C, u, L, reml, sigma=None):
    """Return -2 log L by matrices of the size of the rows."""
    design = design.take(errors.order)
    n = len(design.y)
    _, delta = errors.complete(u)
    deviation = np.exp(errors.log_deviation + errors.slopes @ delta)
    R = deviation[:, None] * C * deviation[None, :]
    V = R.copy()
    if design.factors:
        Z = wide_columns(design)
        wide = block_diag(
            *(
                np.kron(np.eye(factor.n_levels), L_f)
                for factor, L_f in zip(design.factors, L, strict=True)
            )
        )
        V += Z @ wide @ wide.T @ Z.T
    X = np.column_stack([np.ones((n, int(design.intercept))), design.X])
    inverse = np.linalg.inv(V)
    H = X.T @ inverse @ X
    beta = np.linalg.solve(H, X.T @ inverse @ design.y)
    rest = design.y - X @ beta
    N = n - X.shape[1] * reml
    r2 = rest @ inverse @ rest
    sigma2 = r2 / N if sigma is None else sigma**2
    value = np.linalg.slogdet(V)[1] + N * np.log(2 * np.pi * sigma2) + r2 / sigma2
    return value + reml * np.linalg.slogdet(H)[1]


def user_factors(criterion, theta):
    maps = factor_maps(criterion.statistics)
    return [R @ L for R, L in zip(maps, criterion.factors(theta), strict=True)]


def single(rng):
    labels = np.repeat(np.arange(12), OCCASIONS)[:-2]
    return make_design(rng, [rng.permutation(labels)], [Effects(0, 1)])


def no_effects(rng):
    return make_design(rng, [], [])


@pytest.mark.parametrize(("slopes", "reml"), [(0, True), (1, False), (2, True)])
@each_correlation
def test_criterion_gradient_and_hessian(name, slopes, reml):
    rng = np.random.default_rng(1)
    design = single(rng)
    check_derivatives(rng, design, name, slopes, reml)


@each_correlation
def test_without_random_effects(name):
    rng = np.random.default_rng(2)
    design = no_effects(rng)
    by = rng.permutation(np.repeat(np.arange(14), OCCASIONS)[:40])
    check_derivatives(rng, design, name, 1, True, by=by)


@pytest.mark.parametrize("reml", [True, False])
def test_known_sigma(reml):
    rng = np.random.default_rng(6)
    check_derivatives(rng, single(rng), "ar1", 1, reml, sigma=1.3)


def check_derivatives(rng, design, name, slopes, reml, by=None, sigma=None):
    errors, textbook = make_errors(rng, design, name, slopes, by)
    criterion = criterion_of(design, errors, reml, sigma)
    k = criterion.n_parameters
    x = criterion.start()
    x = x + 0.2 * rng.normal(size=len(x))
    point = criterion.at(x)
    C = textbook(errors.values(x[k:])[: errors.correlation.size])
    L = user_factors(criterion, x)
    expected = dense_criterion(design, errors, C, x[k:], L, reml, sigma)
    assert_allclose(point.deviance, expected, rtol=0, atol=1e-8)
    if not len(x):
        return

    def value_and_gradient(x):
        near = criterion.at(x)
        return np.append(near.deviance, near.gradient)

    gradient, hessian = np.split(stencil(value_and_gradient, x), [1], axis=1)
    assert_allclose(point.gradient, gradient[:, 0], atol=1e-6)
    scale = np.abs(hessian).max()
    assert_allclose(point.hessian, hessian, atol=1e-7 * scale)
    assert_allclose(point.observed_hessian, hessian, atol=1e-7 * scale)


def nested(rng):
    leaf = np.repeat(np.arange(16), OCCASIONS)[:-2]
    return make_design(rng, [leaf // 4, leaf], [Effects(0, 1), Effects(1)])


def crossed_with_series(rng):
    """Subjects with a series each, and items in any order within it."""
    subjects = np.repeat(np.arange(14), OCCASIONS)[:-2]
    items = rng.integers(0, 5, len(subjects))
    return make_design(rng, [subjects, items], [Effects(0), Effects(1, 1)])


def three(rng):
    subjects = np.repeat(np.arange(8), OCCASIONS)[:-2]
    labels = [rng.integers(0, m, len(subjects)) for m in (3, 4)]
    return make_design(
        rng, [labels[0], subjects, labels[1]], [Effects(0), Effects(1, 1), Effects(2)]
    )


def items_only(rng):
    items = rng.integers(0, 5, 40)
    return make_design(rng, [items], [Effects(0, 1)])


SEVERAL = {"nested": nested, "crossed": crossed_with_series, "three": three}


@pytest.mark.parametrize(
    ("kind", "name", "all_of_C"),
    [
        ("nested", "ar1", True),
        ("nested", "equal", False),
        ("crossed", "equal", True),
        ("crossed", "ar1", False),
        ("three", "ar1", True),
    ],
)
def test_several_factors(kind, name, all_of_C, monkeypatch):
    if not all_of_C:
        monkeypatch.setattr(error_traces, "MOST_COEFFICIENTS", 0)
    rng = np.random.default_rng(11)
    design = SEVERAL[kind](rng)
    by = design.factors[1 if kind != "crossed" else 0].codes
    check_derivatives(rng, design, name, 1, name != "equal", by=by)


@pytest.mark.parametrize("name", ["ar1", "equal"])
def test_series_that_cross_the_only_factor(name):
    rng = np.random.default_rng(12)
    by = rng.permutation(np.repeat(np.arange(14), OCCASIONS)[:40])
    check_derivatives(rng, items_only(rng), name, 1, True, by=by)


def balanced(rng):
    """Series of two lengths, so that levels can be pooled."""
    labels = np.repeat(np.arange(40), np.tile([OCCASIONS, OCCASIONS - 1], 20))
    return make_design(rng, [labels], [Effects(0)], p=1)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", ["ar1", "car1", "equal", "strata"])
@pytest.mark.parametrize("make", [single, nested, balanced, no_effects])
def test_sums_instead_of_rows(make, name, reml):
    rng = np.random.default_rng(13)
    design = make(rng)
    by = rng.permutation(np.repeat(np.arange(14), OCCASIONS)[:40])
    if design.factors:
        by = design.factors[-1].codes
    slopes = 2 if name == "strata" else 0
    kind = "independent" if name == "strata" else name
    errors, _ = make_errors(rng, design, kind, slopes, by)
    strata = rng.integers(0, 3, len(by))[:, None] == [1, 2]
    known = np.zeros(len(by)) if make is balanced else errors.log_deviation
    errors = replace(errors, slopes=strata[:, :slopes] * 1.0, log_deviation=known)
    if make is balanced and slopes == 0:
        # Whole numbers from 0, so that there are few patterns.
        group = by[errors.order]
        within = np.arange(len(by)) - np.repeat(starts_of(group), sizes_of(group))
        correlation = CORRELATIONS[kind][0](group, within * 1.0)
        errors = replace(errors, correlation=correlation)
    slow = criterion_of(design, errors, reml)
    fast = criterion_of(design, errors, reml, rows=False)
    assert isinstance(fast.model, SummedErrors)
    pooled = fast.model.pooled()
    criteria = [fast]
    if make is balanced and slopes == 0:
        assert len(pooled.parts[0].s[0]) < len(fast.model.parts[0].s[0])
        criteria.append(ErrorCriterion(pooled, pooled.at(errors.start()), reml=reml))
    x = slow.start() + 0.2 * rng.normal(size=len(slow.start()))
    expected = slow.at(x)
    for criterion in criteria:
        point = criterion.at(x)
        assert_allclose(point.deviance, expected.deviance, rtol=1e-11)
        assert_allclose(point.gradient, expected.gradient, atol=1e-8)
        assert_allclose(point.hessian, expected.hessian, atol=1e-7)


def test_taylor_expansion_close_to_the_optimum():
    """After a fit derivatives by differences are those with the rows at hand."""
    rng = np.random.default_rng(5)
    design = single(rng)
    errors, _ = make_errors(rng, design, "arma", 1)
    criterion = criterion_of(design, errors, True)
    x = criterion.start()
    local = ErrorCriterion(
        LocalErrors(criterion.expansion), criterion.expansion, reml=True
    )
    step = 1e-5 * rng.normal(size=len(x))
    assert_allclose(local.at(x + step).deviance, criterion.at(x + step).deviance)
    assert_allclose(
        local.at(x + step).gradient, criterion.at(x + step).gradient, atol=1e-6
    )
    with pytest.raises(ValueError, match="need the rows again"):
        local.at(x + 0.1)


def test_satterthwaite_pieces_by_differences():
    rng = np.random.default_rng(7)
    design = single(rng)
    errors, _ = make_errors(rng, design, "ar1", 1)
    criterion = criterion_of(design, errors, True)
    x = criterion.start() + 0.1
    point = criterion.at(x)

    def covariance(x):
        inverse_R_X = criterion.at(x).inverse_R_X
        return inverse_R_X @ inverse_R_X.T

    R = np.linalg.inv(point.inverse_R_X)
    whitened = R @ stencil(covariance, x) @ R.T
    assert_allclose(point.changes_of_H, whitened, atol=1e-7)

    sigma = np.sqrt(point.sigma2)
    by_x = stencil(lambda x: criterion.at(x).r2, x)
    assert_allclose(-point.forms.vAv * point.sigma2, by_x, atol=1e-6)
    beta = stencil(lambda x: criterion.at(x).beta, x)
    whitened = -point.forms.FAv @ point.inverse_R_X.T * sigma
    assert_allclose(whitened, beta, atol=1e-7)


def test_crossed_labels_are_sorted_by_group_whatever_their_order():
    """Row order does not matter: the criterion is that of the sorted rows."""
    rng = np.random.default_rng(8)
    design = make_design(rng, crossed(rng, 50, [8]), [Effects(0)])
    errors, _ = make_errors(rng, design, "ar1", 0)
    x = criterion_of(design, errors, True).start()
    shuffle = rng.permutation(len(design.y))
    shuffled = design.take(shuffle)
    back = np.argsort(shuffle)
    moved = replace(errors, order=back[errors.order])
    assert_allclose(
        criterion_of(shuffled, moved, True).at(x).deviance,
        criterion_of(design, errors, True).at(x).deviance,
        rtol=1e-12,
    )
