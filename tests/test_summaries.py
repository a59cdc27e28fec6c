"""Summaries: the right numbers, readable for every kind of fit; broom's tables."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, fitted, frame
from numpy.testing import assert_allclose
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor, lmer
from sklearn_lmm.diagnostics import residuals
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.intervals import confidence_intervals
from sklearn_lmm.residuals import AR1, Heteroscedastic
from sklearn_lmm.summaries import augment, glance, tidy
from sklearn_lmm.summaries._text import aligned, p_values, shortened, spoken

SLEEP = frame("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@cache
def sleep(formula=FORMULA, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmer(formula, SLEEP, **parameters)


@pytest.mark.parametrize("name", [n for n, o in ORACLES.items() if o["n"] < 5000])
def test_every_summary_can_be_read(name):
    summary = fitted(name)[0].summary(df="residual")
    lines = str(summary).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(text in str(summary) for text in ("Random effects", "Residual"))
    assert "<table" in summary._repr_html_()
    found, expected = summary.random["std_dev"].iloc[-1], ORACLES[name]["sigma"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_blocks_of_lme4():
    text = str(sleep().summary(SLEEP))
    places = [
        text.index(part)
        for part in (
            *("fitted by REML", FORMULA, "criterion: 1743.6", "Scaled residuals:"),
            *("-3.9536 -0.4634", "Random effects:", "612.09", "Residual"),
            *("Fixed effects:", "251.405      6.825 17.0", "<2e-16", "3.26e-06"),
            *("Correlation of fixed effects:", "-0.14", "Variance explained:"),
            *("R2 marginal R2 conditional   ICC", "0.279          0.799 0.722"),
            *("Satterthwaite's", "converged"),
        )
    ]
    assert places == sorted(places)
    assert "180; 18 levels of Subject" in text
    assert "summary(X, y)" in str(sleep().summary())


def test_quantiles_of_scaled_residuals():
    model = sleep(REML=False)
    residuals = (SLEEP["Reaction"] - model.predict(SLEEP)) / model.sigma_
    found = model.summary(SLEEP).residuals
    assert_allclose(found, np.quantile(residuals, [0, 0.25, 0.5, 0.75, 1]), rtol=1e-9)


def test_criteria_of_maximum_likelihood():
    oracle, model = ORACLES["sleep_rs_ml"], sleep(REML=False)
    criteria = model.summary().criteria
    deviance, k = oracle["criterion"], oracle["n_parameters"]
    assert criteria["deviance"] == pytest.approx(deviance, abs=1e-7)
    assert criteria["AIC"] == pytest.approx(deviance + 2 * k)
    assert criteria["BIC"] == pytest.approx(deviance + k * np.log(180))
    assert criteria["df.resid"] == 180 - k
    assert "deviance df.resid" in str(model.summary())


def test_the_tables():
    model = sleep()
    summary = model.summary(df="kenward-roger")
    pd.testing.assert_frame_equal(
        summary.to_frame(), coefficient_table(model, df="kenward-roger")
    )
    assert list(summary.random["group"]) == ["Subject", "Subject", "Residual"]
    covariance = model.covariances_["Subject"].to_numpy()
    assert_allclose(summary.random["variance"][:2], np.diag(covariance))
    root = np.sqrt(np.diag(covariance))
    assert summary.random["corr_1"][1] == pytest.approx(covariance[0, 1] / root.prod())
    vcov = model.fit_.beta_covariance
    correlation = vcov[0, 1] / np.sqrt(vcov[0, 0] * vcov[1, 1])
    assert summary.correlation.iloc[1, 0] == pytest.approx(correlation)
    assert "Kenward and Roger's" in str(summary)


def test_terms_without_correlations_show_none():
    random = sleep("Reaction ~ Days + (Days || Subject)").summary().random
    assert random["corr_1"].isna().all()
    assert "Std.Dev. Corr" not in str(
        sleep("Reaction ~ Days + (1 | Subject)").summary()
    )


def test_what_is_wrong_is_said_in_words():
    singular = fitted("dyestuff2_singular_reml")[0].summary()
    assert "no variance" in str(singular)
    assert "support a simpler" in str(singular)
    dropped = str(fitted("sleep_rankdef_reml")[0].summary())
    assert "'Days2' depends linearly" in " ".join(dropped.split())
    stopped = sleep(max_iter=1, solver="em").summary()
    assert "Raise max_iter" in " ".join(str(stopped).split())


def test_weights_and_dropped_rows_are_said():
    assert "Weights: precision" in str(sleep(weights="w").summary())
    copies = np.arange(180) % 2 + 1
    model = MixedEffectsRegressor(formula=FORMULA).fit(SLEEP, sample_weight=copies)
    assert "Weights: frequency, the rows stand for 270" in str(model.summary())
    assert "Weights" not in str(sleep().summary())
    data = SLEEP.assign(Days=SLEEP["Days"].where(SLEEP.index > 2))
    model = lmer(FORMULA, data, na_action="drop")
    assert "3 rows with missing values were left out" in str(model.summary(data))


def test_many_fixed_effects_and_two_levels():
    rng = np.random.default_rng(0)
    names = [f"a rather long name of column {j}" for j in range(200)]
    X = pd.DataFrame(rng.normal(size=(600, 200)), columns=names)
    X["group"] = np.arange(600) % 2
    y = X["group"] + rng.normal(size=600)
    summary = MixedEffectsRegressor("group").fit(X, y).summary()
    lines = str(summary).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(summary.fixed) == 201
    assert summary.correlation is None
    assert "more than 20 fixed effects are not shown" in str(summary)


def test_wide_correlations_are_broken_up():
    data = SLEEP.assign(
        number_of_day=SLEEP["Days"].astype("category"), x=np.sin(np.arange(180))
    )
    text = str(lmer("Reaction ~ number_of_day*x + (1 | Subject)", data).summary())
    assert max(map(len, text.splitlines())) <= 80
    assert "[20] number_of_day9:x" in text
    assert "[19]" in text.split("Correlation")[1]


def test_without_random_or_fixed_effects():
    text = str(sleep("Reaction ~ Days").summary(SLEEP))
    assert text.startswith("Linear model fitted by REML")
    assert "178.0" in text
    text = str(sleep("Reaction ~ 0 + Days + (0 + Days | Subject)").summary())
    assert "Variance explained" not in text
    text = str(sleep("Reaction ~ 0 + (1 | Subject)").summary(SLEEP))
    assert "Fixed effects" not in text
    X = SLEEP[["Days", "Subject"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        perfect = MixedEffectsRegressor("Subject").fit(X, 2.0 * X["Days"])
        assert "explained exactly" in str(perfect.summary(X, 2.0 * X["Days"]))


def test_html_is_escaped():
    data = SLEEP.rename(columns={"Days": "a<b"})
    model = MixedEffectsRegressor("Subject").fit(
        data[["a<b", "Subject"]], data["Reaction"]
    )
    assert "a<b" not in model.summary()._repr_html_()


def test_other_rows_are_refused():
    with pytest.raises(ValueError, match="rows"):
        sleep().summary(SLEEP[:100])
    with pytest.raises(ValueError, match="df"):
        sleep().summary(df="containment")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([251.405, 10.467], ["251.41", "10.47"]),
        ([0.0], ["0.0"]),
        ([np.nan, 1.0, np.inf, -np.inf], ["", "1.000", "Inf", "-Inf"]),
        ([1e9, 1.0], ["1.000e+09", "1.000e+00"]),
        ([123456.7, 0.5], ["123456.7000", "0.5000"]),
        ([-1e-9, 5.0], ["-1.0e-09", "5.000000"]),
    ],
)
def test_numbers(values, texts):
    assert aligned(np.array(values)) == texts


def test_small_things():
    assert spoken(-0.0001, 2) == "0.00"
    assert p_values(np.array([0.0, 0.04567, np.nan])) == ["<2e-16", "0.0457", ""]
    assert shortened("abcdefghij", 5) == "ab…ij"


def test_tidy():
    model = sleep()
    table = tidy(model)
    assert list(table.columns) == [
        *("effect", "group", "term", "estimate", "std.error", "statistic", "df"),
        "p.value",
    ]
    expected = coefficient_table(model)
    assert_allclose(table["p.value"][:2], expected["p_value"])
    assert table["term"].tolist()[2:] == [
        *("sd__(Intercept)", "sd__Days", "cor__(Intercept).Days", "sd__Observation")
    ]
    assert table["estimate"].iloc[-1] == model.sigma_
    values = tidy(model, "ran_vals")
    assert list(values.columns[:4]) == ["effect", "group", "level", "term"]
    assert_allclose(values["estimate"], model.random_effects()["value"])
    everything = tidy(model, ["ran_vals", "fixed"])
    assert everything["effect"].value_counts().to_dict() == {"ran_vals": 36, "fixed": 2}
    with pytest.raises(ValueError, match=r"'rnd' has \['rnd'\], but may have"):
        tidy(model, "rnd")
    with pytest.raises(ValueError, match=r"effects=\[\] has nothing, but may have"):
        tidy(model, [])


def test_intervals_of_tidy():
    model = sleep()
    wald = tidy(model, conf_int=True, conf_level=0.9).iloc[1]
    half = stats.t.ppf(0.95, wald["df"]) * wald["std.error"]
    assert wald["conf.low"] == pytest.approx(wald["estimate"] - half)
    profile = tidy(model, conf_int=True, conf_method="profile")
    expected = confidence_intervals(model, method="profile")
    assert_allclose(profile[["conf.low", "conf.high"]], expected[["lower", "upper"]])
    values = tidy(model, "ran_vals", conf_int=True)
    assert (values["conf.low"] < values["estimate"]).all()


@pytest.mark.parametrize("name", ["sleep_rs_reml", "sleep_rs_ml", "cake_factor_reml"])
def test_glance(name):
    oracle, row = ORACLES[name], glance(fitted(name)[0]).iloc[0]
    k, n = oracle["n_parameters"], oracle["n"]
    named = "REMLcrit" if oracle["method"] == "REML" else "deviance"
    assert row[named] == pytest.approx(oracle["criterion"], abs=1e-7)
    assert row["AIC"] == pytest.approx(oracle["criterion"] + 2 * k)
    assert row["BIC"] == pytest.approx(oracle["criterion"] + k * np.log(n))
    assert (row["nobs"], row["df.residual"]) == (n, n - k)
    assert row["logLik"] == pytest.approx(-0.5 * oracle["criterion"])


def test_augment():
    formula = "Reaction ~ Days + offset(off) + (Days | Subject)"
    model = sleep(formula, weights="w")
    table = augment(model, SLEEP, sample_weight=SLEEP["w"])
    assert list(table.columns[:7]) == list(SLEEP.columns)
    assert_allclose(table[".fitted"], model.predict(SLEEP))
    assert_allclose(table[".fitted"] + table[".resid"], SLEEP["Reaction"])
    assert_allclose(table[".fixed"], model.predict(SLEEP, random_effects=False))
    assert_allclose(table[".offset"], SLEEP["off"], atol=1e-9)
    assert_allclose(table[".weights"], SLEEP["w"])
    assert 0 < table[".hat"].min() <= table[".hat"].max() < 1
    X, y = SLEEP[["Days"]].to_numpy(), SLEEP["Reaction"]
    plain = MixedEffectsRegressor().fit(X, y, groups=SLEEP["Subject"])
    table = augment(plain, X, y, SLEEP["Subject"])
    assert next(iter(table.columns)) == ".fitted"
    expected = plain.predict(X, SLEEP["Subject"])
    assert_allclose(table[".mu"], expected)


def test_augment_leaves_out_what_the_fit_left_out():
    data = SLEEP.assign(Days=SLEEP["Days"].where(SLEEP.index > 2))
    model = lmer(FORMULA, data, na_action="drop")
    table = augment(model, data)
    assert table.index.tolist() == list(range(3, 180))
    assert_allclose(table[".fitted"] + table[".resid"], data["Reaction"][3:])


def test_residual_structures():
    model = sleep("Reaction ~ Days + (1 | Subject)", residual=AR1("Days"))
    summary = model.summary(SLEEP)
    scaled = residuals(model, SLEEP, SLEEP["Reaction"], kind="scaled")
    assert_allclose(summary.residuals[["Min", "Max"]], [scaled.min(), scaled.max()])
    assert "Errors: AR1(time='Days')\nRows" in str(summary)
    assert f"Optimiser: newton, {model.n_iter_} iterations\n" in str(summary)
    pd.testing.assert_series_equal(summary.errors, model.residual_parameters_)
    plain = sleep("Reaction ~ Days + (1 | Subject)").summary().explained
    assert summary.explained["R2 marginal"] == pytest.approx(
        plain["R2 marginal"], abs=0.05
    )
    unequal = sleep("Reaction ~ Days + (1 | Subject)", residual=Heteroscedastic("cond"))
    assert len(unequal.summary().explained) == 0
    assert "Max" in str(unequal.summary(SLEEP))


def test_monte_carlo_errors_are_said():
    formula = "strength ~ 1 + (1 | batch) + (1 | cask)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = frame("Pastes")
        model = lmer(formula, data, solver="stochastic", random_state=0)
    text = " ".join(str(model.summary()).split())
    assert "random vectors: theta has a Monte-Carlo error of at most" in text


def test_tidy_has_the_parameters_of_a_residual_structure():
    model = sleep("Reaction ~ Days + (1 | Subject)", residual=AR1("Days"))
    table = tidy(model, "ran_pars", conf_int=True).set_index("term")
    assert table.index.to_list() == ["sd__(Intercept)", "sd__Observation", "phi"]
    assert table.loc["phi", "estimate"] == model.residual_parameters_["phi"]
    assert (table["conf.low"] < table["estimate"])[:2].all()
