"""Intervals, draws and refits of models with a residual structure."""

from functools import cache

import numpy as np
import pandas as pd
import pyarrow
import pytest
from frames import to_polars
from numpy.testing import assert_allclose
from scipy import optimize, stats

from sklearn_lmm import MixedEffectsRegressor, lmer
from sklearn_lmm._engine.held import (
    hold_contrast,
    hold_coordinate,
    hold_sigma,
    hold_variance_parameter,
)
from sklearn_lmm._engine.held_errors import along_errors
from sklearn_lmm._engine.variance_parameters import parameters_of
from sklearn_lmm.intervals import (
    bootstrap,
    confidence_intervals,
    profile,
    refit,
    simulate,
)
from sklearn_lmm.residuals import (
    AR1,
    ARMA,
    EqualCorrelation,
    Heteroscedastic,
    KnownSigma,
    PowerVariance,
    UnstructuredErrors,
)
from sklearn_lmm.summaries import tidy


@cache
def series(n_groups=12, n_times=6):
    """Return X and y of short series with phi = 0.6 and a random intercept."""
    rng = np.random.default_rng(5)
    e = rng.normal(size=(n_groups, n_times))
    for t in range(1, n_times):
        e[:, t] = 0.6 * e[:, t - 1] + 0.8 * e[:, t]
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n_groups * n_times),
            "size": rng.uniform(1.0, 3.0, size=n_groups * n_times),
            "day": np.tile(np.arange(n_times), n_groups),
            "who": np.repeat(np.arange(n_groups), n_times).astype(str),
        }
    )
    y = 1.0 + 0.5 * X["x"] + np.repeat(rng.normal(size=n_groups), n_times) + e.ravel()
    return X, y


@cache
def fitted(residual, random="who", method="reml", fixed=("x",)):
    X, y = series()
    model = MixedEffectsRegressor(
        random or [], fixed=list(fixed), residual=residual, method=method
    )
    return model.fit(X, y)


@pytest.mark.parametrize(
    ("residual", "name", "low", "high"),
    [
        (AR1("day", "who"), "phi", -1.0, 1.0),
        (EqualCorrelation("who"), "rho", -0.2, 1.0),
    ],
)
def test_wald_intervals_stay_in_the_range(residual, name, low, high):
    model = fitted(residual, random=())
    wide = confidence_intervals(model, coverage=1.0 - 1e-9).loc[name]
    assert low < wide["lower"] < wide["estimate"] < wide["upper"] < high


def test_given_parameters_have_no_interval():
    model = fitted(AR1("day", "who", phi=0.5) * PowerVariance("size"))
    names = confidence_intervals(model, parameters="variance").index
    assert list(names)[-1] == "power[size]"
    assert "phi" not in names
    found = tidy(model, conf_int=True).set_index("term")
    assert np.isnan(found.loc["phi", "conf.low"])
    assert np.isfinite(found.loc["power[size]", "conf.low"])


@pytest.mark.parametrize("effects", ["new", "none"])
def test_draws_have_the_covariance_of_the_model(effects):
    model = fitted(AR1("day", "who") * PowerVariance("size"))
    rows = series()[0].iloc[:9].sample(frac=1.0, random_state=0)
    n = 20_000
    Y = simulate(model, rows, n=n, random_effects=effects, random_state=1)
    together = (rows["who"].to_numpy()[:, None] == rows["who"].to_numpy()).astype(float)
    day, size = rows["day"].to_numpy(), rows["size"].to_numpy()
    phi, power = model.residual_parameters_
    C = together * phi ** np.abs(day[:, None] - day)
    expected = model.sigma_**2 * np.outer(size**power, size**power) * C
    if effects == "new":
        expected = expected + together * model.covariances_["who"].iloc[0, 0]
    variances = np.diag(expected)
    error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
    assert np.all(np.abs(np.cov(Y) - expected) < 5.0 * error)
    # A population mean, as known levels are told apart by their effects.
    mean = model.intercept_ + rows["x"].to_numpy() * model.fixed_effects_["x"]
    assert np.all(np.abs(Y.mean(axis=1) - mean) < 5.0 * np.sqrt(variances / n))


def test_draws_of_independent_errors_of_two_sizes():
    model = fitted(PowerVariance("size"))
    rows = series()[0].iloc[:4]
    Y = simulate(model, rows, n=20_000, random_effects="none", random_state=0)
    sizes = rows["size"] ** model.residual_parameters_["power[size]"]
    assert_allclose(Y.std(axis=1), model.sigma_ * sizes, rtol=0.03)
    assert np.all(np.abs(np.corrcoef(Y) - np.eye(4)) < 0.04)


def test_a_correlation_that_larger_groups_cannot_have_is_refused():
    X, _ = series()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(12, 6))
    y = (z - 0.9 * z.mean(axis=1, keepdims=True)).ravel()
    model = MixedEffectsRegressor(
        [], fixed=["x"], residual=EqualCorrelation("who")
    ).fit(X, y)
    assert model.residual_parameters_["rho"] < -0.12
    larger = X.assign(who="one group of 72")
    with pytest.raises(ValueError, match="errors of so many rows"):
        simulate(model, larger)


@pytest.mark.parametrize("residual", [AR1("day", "who"), PowerVariance("size")])
def test_a_refit_is_a_fit_with_the_same_structure(residual):
    X, y = series()
    model = fitted(residual, random=())
    assert_allclose(refit(model, X, y).log_likelihood_, model.log_likelihood_)
    drawn = simulate(model, X, random_state=4)[:, 0]
    before = model.residual_parameters_.copy()
    again = refit(model, X, drawn)
    fresh = MixedEffectsRegressor([], fixed=["x"], residual=residual).fit(X, drawn)
    assert_allclose(again.residual_parameters_, fresh.residual_parameters_)
    assert_allclose(again.fixed_effects_, fresh.fixed_effects_)
    assert not np.allclose(again.residual_parameters_, before, rtol=1e-3)
    pd.testing.assert_series_equal(model.residual_parameters_, before)


def test_a_formula_leaves_rows_out_of_draws():
    X, y = series()
    X = X.assign(y=y)
    model = MixedEffectsRegressor(
        formula="y ~ x + (1 | who)", residual=AR1("day", "who"), na_action="drop"
    ).fit(X)
    X.loc[[1, 7], "x"] = np.nan
    drawn = simulate(model, X, random_state=0)[:, 0]
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [1, 7]
    kept = X["x"].notna()
    assert_allclose(drawn[kept], simulate(model, X[kept], random_state=0)[:, 0])


@pytest.mark.parametrize("form", [pyarrow.Table.from_pandas, to_polars])
def test_frames_of_other_packages(form):
    X, y = series()
    data = X.assign(y=y, x=X["x"].where(X.index > 1))
    formula = "y ~ x + (1 | who)"
    options = {"residual": AR1("day"), "na_action": "drop"}
    expected, model = (lmer(formula, rows, **options) for rows in (data, form(data)))
    assert_allclose(model.theta_, expected.theta_, rtol=1e-9)
    found = simulate(model, form(data), random_state=0)
    assert_allclose(found, simulate(expected, data, random_state=0), rtol=1e-9)


def test_bootstrap_refits_the_model_to_draws_from_it():
    X, y = series()
    model = fitted(AR1("day", "who"), random=())
    result = bootstrap(model, X, y, n_resamples=60, random_state=0)
    assert result.replicates.columns.to_list() == ["(Intercept)", "x", "sigma", "phi"]
    assert result.n_unconverged == 0
    wald = confidence_intervals(model)
    found = confidence_intervals(
        model, X, y, method="bootstrap", n_resamples=60, random_state=0
    )
    assert found["estimate"].equals(wald["estimate"])
    # Widths of percentile intervals from 60 replicates, and those of Wald.
    width = (found["upper"] - found["lower"]) / (wald["upper"] - wald["lower"])
    assert width.between(0.6, 1.5).all()
    apart = (result.replicates.mean() - result.estimates) / result.std_errors
    assert (apart.abs() < 0.7).all()


def test_a_replicate_is_the_fit_to_its_response():
    X, y = series()
    model = fitted(AR1("day", "who") * PowerVariance("size"), random=())
    seen = []

    def kept(again):
        seen.append(again)
        return again.residual_parameters_

    result = bootstrap(model, X, y, n_resamples=3, statistic=kept, random_state=1)
    names = ["phi", "power[size]"]
    assert_allclose(result.statistics[names], result.replicates[names])
    assert_allclose(result.fits["criterion"], [-2.0 * a.log_likelihood_ for a in seen])
    assert result.replicates.nunique().eq(3).all()


def test_a_bootstrap_does_not_depend_on_the_processes():
    X, y = series()
    model = fitted(AR1("day", "who"), random=())
    one, two = (
        bootstrap(model, X, y, n_resamples=4, n_jobs=jobs, random_state=2).replicates
        for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("residual", "exchanged"), ("case", "take its copies for one group")],
)
def test_other_kinds_of_bootstrap_are_refused(kind, message):
    X, y = series()
    with pytest.raises(ValueError, match=message):
        bootstrap(fitted(AR1("day", "who")), X, y, kind=kind)


def test_a_bootstrap_of_rows_that_stand_for_several_is_refused():
    X, y = series()
    weights = np.where(np.arange(len(y)) == 3, 2.0, 1.0)
    model = MixedEffectsRegressor([], fixed=["x"], residual=PowerVariance("size"))
    model.fit(X, y, sample_weight=weights)
    with pytest.raises(ValueError, match="every row on its own"):
        bootstrap(model, X, y, sample_weight=weights)


def deviance(x, intercepts, power):
    """Return -2 log L: beta, log sigma, atanh phi, and log sd and a power if any."""
    X, y = series()
    shape = (12, 6)
    beta, sigma, phi = x[:2], np.exp(x[2]), np.tanh(x[3])
    residual = (y - beta[0] - beta[1] * X["x"]).to_numpy().reshape(shape)
    days = np.arange(6)
    deviations = X["size"].to_numpy().reshape(shape) ** (x[-1] if power else 0.0)
    V = sigma**2 * phi ** np.abs(days[:, None] - days)
    V = V * deviations[:, :, None] * deviations[:, None, :]
    V = V + (np.exp(2.0 * x[4]) if intercepts else 0.0)
    _, logdet = np.linalg.slogdet(V)
    solved = np.linalg.solve(V, residual[:, :, None])[:, :, 0]
    return logdet.sum() + np.vdot(residual, solved) + 72 * np.log(2.0 * np.pi)


ORDER = ["(Intercept)", "x", "sigma", "phi"]


@pytest.mark.parametrize(
    ("random", "residual", "last", "rows"),
    [
        ("who", AR1("day", "who"), "sd((Intercept) | who)", False),
        (
            (),
            AR1("day", "who") * PowerVariance("size"),
            "power[size]",
            True,
        ),
    ],
)
def test_at_the_ends_of_a_profile_the_likelihood_is_so_much_lower(
    random, residual, last, rows
):
    model = fitted(residual, random=random)
    data = series() if rows else (None, None)
    table = confidence_intervals(model, *data, method="profile", coverage=0.5)
    names = [*ORDER, last]
    scales = [float, float, np.log, np.arctanh, np.log if random else float]
    start = np.array(
        [f(table.loc[n, "estimate"]) for n, f in zip(names, scales, strict=True)]
    )

    def least(held=None, value=0.0):
        def function(free):
            x = free if held is None else np.insert(free, held, value)
            return deviance(x, bool(random), not random)

        begin = start if held is None else np.delete(start, held)
        return optimize.minimize(function, begin, method="BFGS").fun

    best, furthest = least(), stats.chi2.ppf(0.5, 1)
    assert table["note"].eq("").all()
    for held, (name, scale) in enumerate(zip(names, scales, strict=True)):
        for end in ("lower", "upper"):
            value = scale(table.loc[name, end])
            assert_allclose(least(held, value) - best, furthest, atol=2e-5)


@pytest.mark.parametrize("which", ["beta", "sigma", "sd", "cor", "phi"])
def test_slopes_and_curvatures_of_the_held_likelihood(which):
    X, y = series()
    with pytest.warns(Warning):
        model = MixedEffectsRegressor(
            "(1 + x | who)", fixed=["x"], residual=AR1("day", "who"), method="ml"
        ).fit(X, y)
    criterion = model.fit_.model()
    point = criterion.at(np.array([0.9, 0.3, 0.5, 0.4]))
    sd, cor = parameters_of(criterion.statistics.terms)[1:3]
    held = {
        "beta": lambda: hold_contrast(point, np.array([0.3, 1.0])),
        "sigma": lambda: hold_sigma(point),
        "sd": lambda: hold_variance_parameter(point, sd),
        "cor": lambda: hold_variance_parameter(point, cor),
        "phi": lambda: hold_coordinate(point, 3),
    }[which]()
    held = along_errors(held)
    base = held.x + 0.05 * np.cos(np.arange(len(held.x)))

    def at(x):
        return held.at(x[held.index], x)

    g, H = at(base).slope_and_curvature()
    for m in range(len(base)):
        step = 1e-5 * np.eye(len(base))[m]
        up, down = at(base + step), at(base - step)
        slope = (up.deviance - down.deviance) / 2e-5
        assert_allclose(g[m], slope, rtol=1e-6, atol=1e-5)
        change = up.slope_and_curvature()[0] - down.slope_and_curvature()[0]
        assert_allclose(H[m], change / 2e-5, rtol=1e-6, atol=1e-4)


def test_profiles_without_rows_and_with_them_are_the_same():
    X, y = series()
    halves = X.assign(half=np.where(np.arange(len(y)) % 2, "odd", "even"))
    model = MixedEffectsRegressor(
        [], fixed=["x"], residual=Heteroscedastic("half")
    ).fit(halves, y)
    (name,) = model.residual_parameters_.index
    alone = profile(model, name).intervals()
    with_rows = profile(model, name, halves, y).intervals()
    pd.testing.assert_frame_equal(alone, with_rows, rtol=1e-6)
    assert alone.loc[name, "lower"] < 1.0 < alone.loc[name, "upper"]


def test_parameters_that_cannot_be_held_alone_say_so():
    X, y = series()
    model = fitted(UnstructuredErrors("day", "who", variances=False), random=())
    names = ["correlation[0, 1]", "correlation[1, 2]"]
    reasons = profile(model, names, X, y, coverage=0.2).reasons
    assert reasons["correlation[0, 1]"] == ""
    assert "cannot be held alone" in reasons["correlation[1, 2]"]


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (ARMA(1, 1, "day", "who"), "give profile the X and y of the fit"),
        (AR1("day", "who") * KnownSigma(1.0), "gives sigma"),
    ],
)
def test_profiles_that_are_refused(residual, message):
    with pytest.raises(ValueError, match=message):
        profile(fitted(residual, random=()))
