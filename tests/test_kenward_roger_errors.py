"""Kenward and Roger's tests with a residual structure, against n x n matrices."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from problems import Effects, make_design, stencil, wide_columns
from scipy import stats
from test_errors import (
    CORRELATIONS,
    OCCASIONS,
    criterion_of,
    crossed_with_series,
    far,
    make_errors,
    nested,
    no_effects,
    occasions,
    places,
    single,
    user_factors,
)
from test_kenward_roger import textbook, textbook_df

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm._engine import error_fit, error_traces
from sklearn_lmm._engine import error_squares as squares_module
from sklearn_lmm._engine.error_squares import error_squares
from sklearn_lmm._engine.kenward_roger import KenwardRoger
from sklearn_lmm.inference import coefficient_table, contrast
from sklearn_lmm.residuals import (
    AR1,
    ARMA,
    ContinuousAR1,
    EqualCorrelation,
    UnstructuredErrors,
)


def intercepts(rng):
    labels = np.repeat(np.arange(12), OCCASIONS)[:-2]
    return make_design(rng, [rng.permutation(labels)], [Effects(0)])


MODELS = {
    "intercept": intercepts,
    "slope": single,
    "crossed": crossed_with_series,
    "nested": nested,
    "none": no_effects,
}


def groups_of_errors(rng, kind, design):
    if kind == "none":
        return rng.permutation(np.repeat(np.arange(14), OCCASIONS)[:40])
    return design.factors[1 if kind == "nested" else 0].codes


def symmetric_units(q):
    """Return a basis of the symmetric matrices."""
    for i in range(q):
        for j in range(i + 1):
            unit = np.zeros((q, q))
            unit[i, j] = unit[j, i] = 1.0
            yield unit


class Dense:
    """X, V and derivatives of V, with rows in the order of the errors."""

    def __init__(self, design, errors, L):
        self.errors = errors
        design = design.take(errors.order)
        n = len(design.y)
        self.X = np.column_stack([np.ones((n, int(design.intercept))), design.X])
        self.random, self.of_random = [], np.zeros((n, n))
        start, Z = 0, wide_columns(design) if design.factors else None
        for factor, L_f in zip(design.factors, L, strict=True):
            q, G = len(L_f), factor.n_levels
            part = Z[:, start : start + G * q]
            start += G * q
            self.of_random += part @ np.kron(np.eye(G), L_f @ L_f.T) @ part.T
            self.random += [
                part @ np.kron(np.eye(G), unit) @ part.T for unit in symmetric_units(q)
            ]

    def curved(self, R, dR, d2R, sigma):
        """Return the arguments of `textbook` for parameters as users know them."""
        m = len(self.random)
        second = {(m + i, m + j): d2R[i][j] for i, j in np.ndindex(len(dR), len(dR))}
        G = [*self.random, *dR]
        if sigma is None:
            last = len(G)
            for i, change in enumerate(dR):
                second[last, m + i] = second[m + i, last] = change
            G.append(R)
        return self.X, self.of_random + R, G, second

    def linear(self, R, basis):
        return self.X, self.of_random + R, [*self.random, *basis], {}


def check(design, errors, make_pieces, sigma=None, rtol=1e-8):
    """Compare the adjusted covariance, degrees of freedom and scales."""
    rng = np.random.default_rng(5)
    criterion = criterion_of(design, errors, True, sigma)
    k = criterion.n_parameters
    x = criterion.start()
    x[:k] = np.abs(x[:k]) + 0.3
    x[k:] += 0.2 * rng.normal(size=len(x) - k)
    point = criterion.at(x)
    here = point.criterion
    got = KenwardRoger(point, error_squares(criterion.model, here.expansion))
    dense = Dense(design, errors, user_factors(criterion, x))
    pieces = make_pieces(dense, errors.values(x[k:]))
    Phi, adjusted, P, W = textbook(*pieces)
    root = here.statistics.columns.map()[:-1, :-1] @ point.inverse_R_X
    assert_allclose(root @ root.T, Phi, rtol=0, atol=1e-9 * np.abs(Phi).max())
    change, expected = root @ got.adjusted @ root.T - Phi, adjusted - Phi
    assert_allclose(change, expected, rtol=0, atol=rtol * np.abs(expected).max())
    for q in range(1, len(Phi) + 1):
        L = rng.normal(size=(q, len(Phi)))
        found = got.test(L @ root)
        assert_allclose(found, textbook_df(L, Phi, P, W), rtol=rtol)


def ar1_model(rng, kind, slopes):
    """Return a design, its errors, and their matrices with derivatives by hand."""
    design = MODELS[kind](rng)
    by = groups_of_errors(rng, kind, design)
    errors, _ = make_errors(rng, design, "ar1", slopes, by)
    group = by[errors.order]
    times = places(group, rng)
    errors = replace(errors, correlation=CORRELATIONS["ar1"][0](group, times))
    distance = far(group, times)
    near = np.isfinite(distance)
    d = np.where(near, distance, 0.0)

    def pieces(dense, values, sigma=None):
        errors = dense.errors
        phi, delta = values[0], values[1:]
        size = np.exp(errors.log_deviation + errors.slopes @ delta)
        D = np.outer(size, size) * near
        C = phi**d
        by_phi = np.where(d > 0, d * phi ** (d - 1.0), 0.0)
        twice = np.where(d > 1, d * (d - 1.0) * phi ** (d - 2.0), 0.0)
        sums = [w[:, None] + w[None, :] for w in errors.slopes.T]
        dR = [D * by_phi, *(D * C * w for w in sums)]
        d2R = [[D * twice, *(D * by_phi * w for w in sums)]]
        for w in sums:
            d2R.append([D * by_phi * w, *(D * C * w * other for other in sums)])
        free = errors.free
        chosen = [[d2R[i][j] for j in free] for i in free]
        return dense.curved(D * C, [dR[i] for i in free], chosen, sigma)

    return design, errors, pieces


@pytest.mark.parametrize("slopes", [0, 1, 2])
@pytest.mark.parametrize("kind", MODELS)
def test_autoregressive_errors_of_changing_size(kind, slopes):
    check(*ar1_model(np.random.default_rng(21), kind, slopes))


def test_known_sigma():
    design, errors, pieces = ar1_model(np.random.default_rng(22), "slope", 1)
    check(design, errors, lambda *given: pieces(*given, sigma=1.3), sigma=1.3)


@pytest.mark.parametrize("known", [[0.4, np.nan], [np.nan, 0.3], [0.4, 0.3]])
def test_parameters_that_are_given_are_none(known):
    design, errors, pieces = ar1_model(np.random.default_rng(23), "intercept", 1)
    check(design, replace(errors, fixed=np.array(known)), pieces)


CURVED = sorted(set(CORRELATIONS) - {"equal", "unstructured", "independent"})


@pytest.mark.parametrize("name", CURVED)
def test_every_correlation(name):
    rng = np.random.default_rng(24)
    design = make_design(rng, [rng.permutation(np.arange(120) // 20)], [Effects(0)])
    series = rng.permutation(np.arange(120) // 10)
    errors, correlation = make_errors(rng, design, name, 1, series)

    def pieces(dense, values):
        def R(v):
            m = errors.correlation.size
            size = np.exp(errors.log_deviation + errors.slopes @ v[m:])
            return size[:, None] * correlation(v[:m]) * size

        second = stencil(lambda v: stencil(R, v, 1e-2), values, 1e-2)
        return dense.curved(R(values), stencil(R, values, 1e-3), second, None)

    check(design, errors, pieces, rtol=1e-6)


def strata_of(codes):
    return (codes[:, None] == np.arange(1, codes.max() + 1)) * 1.0


def entries(group, codes, size):
    """Return the basis of any covariances of rows with given codes."""
    together = group[:, None] == group[None, :]
    return [
        np.outer(size, size) * unit[codes[:, None], codes[None, :]] * together
        for unit in symmetric_units(codes.max() + 1)
    ]


@pytest.mark.parametrize("kind", ["none", "intercept", "crossed"])
def test_unstructured_errors_are_linear(kind):
    """Their parameters are the covariances of the occasions."""
    rng = np.random.default_rng(25)
    design = MODELS[kind](rng)
    by = groups_of_errors(rng, kind, design)
    errors, correlation = make_errors(rng, design, "unstructured", 2, by)
    group = by[errors.order]
    strata = strata_of(occasions(group))
    errors = replace(errors, slopes=strata, ratio=np.ones(2, dtype=bool))

    def pieces(dense, values):
        known = np.exp(errors.log_deviation)
        size = known * np.exp(strata @ np.log(values[3:]))
        R = size[:, None] * correlation(values[:3]) * size
        return dense.linear(R, entries(group, occasions(group), known))

    check(design, errors, pieces)


def test_strata_are_linear():
    """Their parameters are the variances."""
    rng = np.random.default_rng(26)
    design = single(rng)
    errors, _ = make_errors(rng, design, "independent", 2)
    codes = rng.integers(0, 3, len(design.y))
    ratio = np.ones(2, dtype=bool)
    errors = replace(errors, slopes=strata_of(codes), ratio=ratio)

    def pieces(dense, values):
        known = np.exp(2.0 * errors.log_deviation)
        R = np.diag(known * np.append(1.0, values**2)[codes])
        return dense.linear(R, [np.diag(known * (codes == s)) for s in range(3)])

    check(design, errors, pieces)


@pytest.mark.parametrize("kind", ["none", "crossed"])
def test_equal_correlations_are_linear(kind):
    rng = np.random.default_rng(27)
    design = MODELS[kind](rng)
    by = groups_of_errors(rng, kind, design)
    errors, correlation = make_errors(rng, design, "equal", 0, by)

    def pieces(dense, values):
        size = np.exp(errors.log_deviation)
        scale = np.outer(size, size)
        basis = [np.diag(size**2), scale * correlation([1.0])]
        return dense.linear(scale * correlation(values), basis)

    check(design, errors, pieces)


def panel(rng, sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    between = rng.normal(size=len(sizes))[group]
    columns = {"between": between, "within": rng.normal(size=len(group))}
    X = pd.DataFrame(columns | {"group": group})
    X["time"] = X.groupby("group").cumcount().astype(float)
    return X, rng.normal(size=len(sizes))[group] + rng.normal(size=len(group))


@pytest.mark.parametrize("sizes", [[4] * 9, [2, 5, 3, 3, 6, 4, 4, 2, 1]])
def test_equal_correlations_are_a_random_intercept(sizes):
    X, y = panel(np.random.default_rng(28), sizes)
    balanced = len(set(sizes)) == 1
    X["within"] = X["time"] if balanced else X["within"]
    fixed = ["between", "within"]
    equal = MixedEffectsRegressor(
        [], fixed=fixed, residual=EqualCorrelation("group")
    ).fit(X, y)
    intercept = MixedEffectsRegressor("group", fixed=fixed).fit(X, y)
    found, expected = (
        coefficient_table(est, df="kenward-roger") for est in (equal, intercept)
    )
    assert_allclose(found, expected, rtol=1e-5)
    if balanced:
        assert_allclose(found["df"]["between"], 7.0, rtol=1e-5)


def test_unstructured_errors_of_complete_data_are_tested_exactly():
    """Two groups: t tests with n - 2 degrees of freedom, and Hotelling's T^2."""
    rng = np.random.default_rng(32)
    n, K = 15, 3
    Y = rng.normal(size=(n, K)) @ rng.normal(size=(K, K))
    treated = np.arange(n) % 2
    cells = np.repeat(treated, K)[:, None] * np.tile(np.eye(K), (n, 1))
    X = pd.DataFrame(cells, columns=["a", "b", "c"])
    X[["time_b", "time_c"]] = np.tile(np.eye(K)[:, 1:], (n, 1))
    fixed = list(X)
    X["subject"], X["time"] = np.repeat(np.arange(n), K), np.tile(np.arange(K), n)
    est = MixedEffectsRegressor(
        [], fixed=fixed, residual=UnstructuredErrors("time", "subject")
    ).fit(X, Y.ravel())
    parts = [Y[treated == k] for k in (0, 1)]
    table = coefficient_table(est, df="kenward-roger").loc[["a", "b", "c"]]
    assert_allclose(table["df"], n - 2, rtol=1e-6)
    assert_allclose(table["statistic"], stats.ttest_ind(*parts[::-1])[0], rtol=1e-5)
    difference = parts[1].mean(axis=0) - parts[0].mean(axis=0)
    squares = sum((len(part) - 1) * np.cov(part.T) for part in parts)
    harmonic = len(parts[0]) * len(parts[1]) / n
    F = harmonic * difference @ np.linalg.solve(squares, difference) * (n - K - 1) / K
    test = contrast(est, ["a", "b", "c"], df="kenward-roger").iloc[0]
    assert_allclose(test[["num_df", "den_df"]], [K, n - K - 1], rtol=1e-6)
    assert_allclose(test["statistic"], F, rtol=1e-5)


def test_fitted_models_have_them_without_the_rows():
    """Several columns at once, one of them redundant, from sums or from rows."""
    X, y = panel(np.random.default_rng(29), [6] * 10)
    X["twice"] = 2.0 * X["within"]
    fixed = ["between", "within", "twice"]
    est = MixedEffectsRegressor("group", fixed=fixed, residual=AR1("time", "group"))
    with pytest.warns(match="linear"):
        est.fit(X, y)
    table = coefficient_table(est, df="kenward-roger").dropna()
    assert (table["df"] < len(y)).all()
    both = contrast(est, ["between"], df="kenward-roger")
    assert_allclose(both["den_df"], table["df"]["between"])


def test_maximum_likelihood_is_refused():
    X, y = panel(np.random.default_rng(30), [5] * 8)
    est = MixedEffectsRegressor(
        "group", fixed=["within"], residual=AR1("time", "group"), method="ml"
    ).fit(X, y)
    with pytest.raises(ValueError, match="are for REML fits"):
        coefficient_table(est, df="kenward-roger")


def test_too_large_problems_are_refused(monkeypatch):
    X, y = panel(np.random.default_rng(31), [5] * 8)
    X["item"] = np.tile(np.arange(4), 10)
    y = y + np.array([2.0, -1.0, 0.5, -1.5])[X["item"]]

    def refused(random, structure):
        est = MixedEffectsRegressor(random, fixed=["within"], residual=structure)
        est.fit(X, y)
        with pytest.raises(ValueError, match="Choose Satterthwaite's"):
            coefficient_table(est, df="kenward-roger")

    monkeypatch.setattr(squares_module, "MOST_ENTRIES", 10)
    refused(["group", "item"], AR1("time", "group"))
    refused([], ARMA(1, 0, "time", "group"))
    monkeypatch.setattr(squares_module, "MOST_ENTRIES", 1e6)
    monkeypatch.setattr(error_fit, "MOST_ROWS", len(y) - 1)
    refused("group", AR1("time"))
    monkeypatch.setattr(error_fit, "MOST_ROWS", len(y))
    monkeypatch.setattr(squares_module, "MOST_ENTRIES", 1e6)
    monkeypatch.setattr(error_traces, "MOST_COEFFICIENTS", 0)
    refused(["group", "item"], AR1("time", "group"))


def test_a_parameter_at_the_end_of_its_range_is_refused():
    """Neighbours on opposite sides: no correlation that falls with time fits them."""
    X, y = panel(np.random.default_rng(33), [6] * 8)
    y = y + np.where(X["time"] % 2 == 0, 1.0, -1.0)
    structure = ContinuousAR1("time", "group")
    est = MixedEffectsRegressor("group", fixed=["within"], residual=structure).fit(X, y)
    assert est.residual_parameters_.item() < 1e-4
    with pytest.raises(ValueError, match="expansion does not hold"):
        coefficient_table(est, df="kenward-roger")
