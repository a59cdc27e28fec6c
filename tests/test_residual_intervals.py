"""Intervals, draws and refits of models with a residual structure."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.intervals import bootstrap, confidence_intervals, refit, simulate
from sklearn_lmm.residuals import AR1, EqualCorrelation, PowerVariance
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
