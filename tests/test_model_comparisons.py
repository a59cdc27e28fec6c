"""Likelihood-ratio tests, ranova, drop1 and information criteria."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, ORACLES_DIR, fitted, frame
from numpy.testing import assert_allclose
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, lmer
from sklearn_lmm._engine.smaller import fit_again
from sklearn_lmm.exceptions import SingularFitWarning
from sklearn_lmm.inference import (
    coefficient_table,
    drop1,
    information_criteria,
    likelihood_ratio_test,
    ranova,
)
from sklearn_lmm.residuals import AR1, ARMA, Heteroscedastic

REFERENCE = json.loads((ORACLES_DIR / "inference.json").read_text())
LRT = [name for name in REFERENCE if name.startswith("lrt_")]
RANOVA = [name for name in REFERENCE if name.startswith("ranova_")]


@pytest.mark.parametrize("name", LRT)
def test_likelihood_ratio_tests_of_lme4(name):
    entry = REFERENCE[name]
    data, reml = frame(entry["dataset"]), entry["method"] == "REML"
    small, large = (lmer(entry[f"formula{k}"], data, REML=reml) for k in (0, 1))
    table = likelihood_ratio_test(small, large, refit=False, boundary="ignore")
    for (_, got), expected in zip(table.iterrows(), entry["table"], strict=True):
        assert got["n_parameters"] == expected["npar"]
        assert_allclose(got["log_likelihood"], expected["logLik"], rtol=1e-10)
        assert_allclose(got["aic"], expected["AIC"], rtol=1e-10)
        assert_allclose(got["bic"], expected["BIC"], rtol=1e-10)
    got, expected = table.iloc[1], entry["table"][1]
    assert_allclose(got["statistic"], expected["Chisq"], atol=3e-7)
    assert got["df"] == expected["Df"]
    assert_allclose(got["p_value"], expected["Pr(>Chisq)"], rtol=1e-6)
    assert set(table["method"]) == {"reml" if reml else "ml"}
    # The order of the models is found out.
    swapped = likelihood_ratio_test(large, small, refit=False, boundary="ignore")
    assert list(swapped.index) == [1, 0]
    pd.testing.assert_frame_equal(swapped.reset_index(drop=True), table)


@pytest.mark.parametrize("name", LRT[:5])
def test_reml_fits_are_refitted_by_maximum_likelihood(name):
    entry = REFERENCE[name]
    data = frame(entry["dataset"])
    models = [lmer(entry[f"formula{k}"], data) for k in (0, 1)]
    table = likelihood_ratio_test(*models, boundary="ignore")
    assert_allclose(table.loc[1, "statistic"], entry["table"][1]["Chisq"], atol=3e-7)
    assert list(table["method"]) == ["ml, refitted"] * 2


@pytest.mark.parametrize("name", RANOVA)
def test_ranova_of_lmerTest(name):
    entry = REFERENCE[name]
    table = ranova(lmer(entry["formula"], frame(entry["dataset"])), boundary="ignore")
    rows = entry["table"]
    assert len(table) == len(rows)
    for (_, got), expected in zip(table.iterrows(), rows, strict=True):
        assert got["n_parameters"] == expected["npar"]
        assert_allclose(got["log_likelihood"], expected["logLik"], rtol=1e-10)
        assert_allclose(got["aic"], expected["AIC"], rtol=1e-10)
        if expected["LRT"] is not None:
            assert_allclose(got["statistic"], expected["LRT"], rtol=1e-8)
            assert got["df"] == expected["Df"]
            assert_allclose(got["p_value"], expected["Pr(>Chisq)"], rtol=1e-6)


def test_drop1():
    entry = REFERENCE["drop1_orthodont"]
    model = lmer(entry["formula"], frame("Orthodont"))
    got, expected = drop1(model), entry["table_F"][0]
    assert list(got.index) == ["age:Sex"]
    assert_allclose(got["statistic"].item(), expected["F value"], rtol=1e-7)
    assert_allclose(got["den_df"].item(), expected["DenDF"], rtol=1e-7)
    got, expected = drop1(model, test="chi2"), entry["table_chisq_ml"]
    assert list(got.index) == ["<none>", "age:Sex"]
    # R counts parameters that are left out.
    assert_allclose(got["aic"], [row["AIC"] for row in expected], rtol=1e-9)
    assert_allclose(got["statistic"].iloc[1], expected[1]["LRT"], atol=3e-7)
    assert_allclose(got["p_value"].iloc[1], expected[1]["Pr(Chi)"], rtol=1e-6)
    with pytest.raises(ValueError, match="'f' or 'chi2'"):
        drop1(model, test="t")


@pytest.mark.parametrize("name", ["sleep_rs_ml", "pastes_nested_reml", "chick_rs_ml"])
def test_information_criteria_of_lme4(name):
    estimator, _ = fitted(name)
    oracle = ORACLES[name]
    got = information_criteria(estimator)
    k = oracle["n_parameters"]
    assert got["n_parameters"] == k
    assert_allclose(got["log_likelihood"], -oracle["criterion"] / 2)
    assert_allclose(got["aic"], oracle["criterion"] + 2 * k)
    assert_allclose(got["bic"], oracle["criterion"] + k * np.log(oracle["n"]))
    extra = 2 * k * (k + 1) / (oracle["n"] - k - 1)
    assert_allclose(got["aicc"], got["aic"] + extra)


N = 192


def rows():
    """Return two rows for every pair of 12 levels of g and 8 of h."""
    rng = np.random.default_rng(0)
    g, h = np.repeat(np.arange(12), 16), np.tile(np.arange(8), 24)
    x = rng.normal(1.0, 1.0, N)
    effects = rng.normal(size=(12, 2))[g] + 0.5 * rng.normal(size=12)[g, None]
    y = x + effects[:, 0] + effects[:, 1] * x + rng.normal(size=8)[h]
    y += 0.5 * rng.normal(size=(12, 8))[g, h] + rng.normal(size=N)
    return pd.DataFrame({"x": x, "z": x**2, "g": g, "h": h}), y


def fit(random, columns=("x",), method="reml", **options):
    X, y = rows()
    model = MixedEffectsRegressor(random, fixed=list(columns), method=method, **options)
    return model.fit(X, y)


@pytest.mark.parametrize(
    ("small", "large", "df", "distribution"),
    [
        ("h", ["g", "h"], 1, "chi2(0), chi2(1)"),
        ("h", ["h", RandomEffect("g", slopes="x")], 3, "chi2(3), conservative"),
        (
            ["h", "g"],
            ["h", RandomEffect("g", slopes="x")],
            2,
            "chi2(1), chi2(2)",
        ),
        (
            ["h", RandomEffect("g", slopes="x", covariance="diagonal")],
            ["h", RandomEffect("g", slopes="x")],
            1,
            "chi2(1)",
        ),
        (
            "h",
            ["h", RandomEffect("g", slopes=("x", "z"), covariance="identity")],
            1,
            "chi2(0), chi2(1)",
        ),
        (
            ["h", RandomEffect("g", slopes="x", covariance="identity")],
            ["h", RandomEffect("g", slopes="x", covariance="compound_symmetry")],
            1,
            "chi2(1)",
        ),
        (
            ["h", "(1 | g) + (0 + x | g)"],
            ["h", "(1 + x | g)"],
            1,
            "chi2(1)",
        ),
        ([], "g", 1, "chi2(0), chi2(1)"),
        ([], ["g", "h"], 2, "chi2(2), conservative"),
    ],
)
def test_variances_on_the_boundary(small, large, df, distribution):
    models = fit(small, method="ml"), fit(large, method="ml")
    table = likelihood_ratio_test(*models)
    got = table.loc[1]
    assert (got["df"], got["distribution"]) == (df, distribution)
    statistic = models[0].fit_.criterion - models[1].fit_.criterion
    assert_allclose(got["statistic"], max(statistic, 0), atol=1e-9)
    parts = [int(part[5]) for part in distribution.split(", ") if part[0:4] == "chi2"]
    tails = [stats.chi2.sf(got["statistic"], k) if k else 0.0 for k in parts]
    assert_allclose(got["p_value"], np.mean(tails), rtol=1e-10)
    plain = likelihood_ratio_test(*models, boundary="ignore").loc[1]
    assert_allclose(plain["p_value"], stats.chi2.sf(got["statistic"], df))


def test_more_fixed_effects_and_one_variance():
    models = fit("h", (), "ml"), fit(["g", "h"], ("x", "z"), "ml")
    got = likelihood_ratio_test(*models).loc[1]
    assert (got["df"], got["distribution"]) == (3, "chi2(2), chi2(3)")


def test_a_variance_estimated_at_its_bound_has_p_value_one():
    X, y = rows()
    for seed in range(20):
        X["noise"] = np.random.default_rng(seed).integers(0, 5, N)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SingularFitWarning)
            large = MixedEffectsRegressor(["g", "h", "noise"], fixed=["x"]).fit(X, y)
        if large.singular_:
            break
    small = MixedEffectsRegressor(["g", "h"], fixed=["x"]).fit(X, y)
    got = likelihood_ratio_test(small, large, refit=False).loc[1]
    assert got["statistic"] == pytest.approx(0, abs=1e-7)
    assert 0.49 < got["p_value"] <= 1.0


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        (("g", ("z",)), ("g", ("x",)), "fixed effects 'z' are in the smaller"),
        (("g", ("z",)), (["g", "h"], ("x",)), "fixed effects 'z' are in the smaller"),
        (("h", ("x",)), ("(1 + x | g)", ("x",)), "covariance of 'h'"),
        (
            (RandomEffect("g", slopes="x", covariance="compound_symmetry"), ("x",)),
            (["h", RandomEffect("g", slopes="x", covariance="diagonal")], ("x",)),
            "covariance of 'g'",
        ),
    ],
)
def test_models_that_are_not_nested(small, large, message):
    models = fit(*small, method="ml"), fit(*large, method="ml")
    with pytest.raises(ValueError, match=message):
        likelihood_ratio_test(*models)


def test_nesting_under_other_names_can_be_asserted():
    X, y = rows()
    small = fit("g", ("x",), "ml")
    renamed = X.rename(columns={"x": "other"})
    large = MixedEffectsRegressor("g", fixed=["other", "z"], method="ml").fit(
        renamed, y
    )
    with pytest.raises(ValueError, match="assume_nested=True"):
        likelihood_ratio_test(small, large)
    got = likelihood_ratio_test(small, large, assume_nested=True).loc[1]
    same = fit("g", ("x", "z"), "ml")
    expected = likelihood_ratio_test(small, same).loc[1]
    assert_allclose(got["statistic"], expected["statistic"], rtol=1e-6)


def test_interactions_of_factors_are_the_same_in_any_order():
    models = fit(("g", "h"), method="ml"), fit([("h", "g"), "g"], method="ml")
    assert likelihood_ratio_test(*models).loc[1, "df"] == 1


def test_other_data_is_refused():
    X, y = rows()
    one = fit("g", method="ml")

    def other(X, y, **weights):
        model = MixedEffectsRegressor(["g", "h"], fixed=["x"], method="ml")
        return model.fit(X, y, **weights)

    with pytest.raises(ValueError, match="numbers of rows are 192 and 191"):
        likelihood_ratio_test(one, other(X.iloc[1:], y[1:]))
    with pytest.raises(ValueError, match="sums of squares of the response"):
        likelihood_ratio_test(one, other(X, y + 0.1))
    with pytest.raises(ValueError, match="sums of weights are 192 and 384"):
        likelihood_ratio_test(one, other(X, y, sample_weight=np.full(N, 2.0)))
    with pytest.raises(ValueError, match="two models or more; got 1"):
        likelihood_ratio_test(one)
    with pytest.raises(ValueError, match="'mixture' or 'ignore'"):
        likelihood_ratio_test(one, one, boundary="half")


def test_the_meaning_of_weights_matters_where_there_are_any():
    X, y = rows()
    models = [
        MixedEffectsRegressor(random, fixed=["x"], method="ml", weights=weights)
        for random, weights in (("g", "frequency"), (["g", "h"], "precision"))
    ]
    table = likelihood_ratio_test(*(model.fit(X, y) for model in models))
    other = models[1].set_params(weights="frequency").fit(X, y)
    expected = likelihood_ratio_test(models[0], other)
    pd.testing.assert_frame_equal(table, expected)
    weights = np.linspace(0.5, 1.5, N)
    models[1].set_params(weights="precision")
    with pytest.raises(ValueError, match="'frequency', the other as 'precision'"):
        likelihood_ratio_test(*(m.fit(X, y, sample_weight=weights) for m in models))


def test_restricted_likelihoods_that_cannot_be_compared():
    with pytest.raises(ValueError, match=r"different fixed effects .*'z'"):
        likelihood_ratio_test(fit("g"), fit("g", ("x", "z")), refit=False)
    with pytest.raises(ValueError, match="others by maximum likelihood"):
        likelihood_ratio_test(fit("g"), fit(["g", "h"], method="ml"), refit=False)
    refitted = likelihood_ratio_test(fit("g"), fit("g", ("x", "z")))
    direct = likelihood_ratio_test(
        fit("g", method="ml"), fit("g", ("x", "z"), method="ml")
    )
    assert_allclose(refitted["log_likelihood"], direct["log_likelihood"], rtol=1e-10)


@pytest.mark.parametrize(
    ("random", "reduced"),
    [
        (
            ["h", RandomEffect("g", slopes=("x", "z"))],
            {
                "(1 | h)": [RandomEffect("g", slopes=("x", "z"))],
                "x in (1 + x + z | g)": ["h", RandomEffect("g", slopes="z")],
                "z in (1 + x + z | g)": ["h", RandomEffect("g", slopes="x")],
            },
        ),
        (
            [RandomEffect("g", slopes="x", covariance="diagonal"), "h"],
            {
                "(Intercept) in (1 + x || g)": ["(0 + x | g)", "h"],
                "x in (1 + x || g)": ["g", "h"],
                "(1 | h)": [RandomEffect("g", slopes="x", covariance="diagonal")],
            },
        ),
        (
            [RandomEffect("g", slopes="x", covariance="compound_symmetry"), "h"],
            {
                "(1 + x | g)": ["h"],
                "(1 | h)": [
                    RandomEffect("g", slopes="x", covariance="compound_symmetry")
                ],
            },
        ),
        (
            "(0 + x | g) + (1 | g:h)",
            {"(0 + x | g)": [("g", "h")], "(1 | g:h)": "(0+x|g)"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ranova_fits_the_models_without_each_effect(random, reduced):
    table = ranova(fit(random))
    assert list(table.index) == ["<none>", *reduced]
    for label, spec in reduced.items():
        expected = fit(spec)
        got = table.loc[label]
        assert_allclose(got["log_likelihood"], expected.log_likelihood_, rtol=1e-9)
        assert got["n_parameters"] == len(expected.theta_) + 3
        assert 0.0 <= got["p_value"] <= 1.0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ranova_takes_the_levels_of_a_category_together():
    data = frame("Machines")
    table = ranova(lmer("score ~ Machine + (Machine | Worker)", data))
    label = "Machine in (1 + MachineB + MachineC | Worker)"
    assert list(table.index) == ["<none>", label]
    expected = lmer("score ~ Machine + (1 | Worker)", data).log_likelihood_
    assert_allclose(table.loc[label, "log_likelihood"], expected, rtol=1e-9)
    assert table.loc[label, "df"] == 5
    whole = stats.chi2.sf(table.loc[label, "statistic"], 5)
    assert_allclose(table.loc[label, "p_value"], whole)
    cells = ranova(lmer("score ~ Machine + (0 + Machine | Worker)", data))
    expected = MixedEffectsRegressor(formula="score ~ Machine").fit(data)
    assert cells["df"].iloc[1] == 6
    assert_allclose(cells["log_likelihood"].iloc[1], expected.log_likelihood_)


def test_ranova_of_a_single_variance_is_halved():
    model = fit(["g", "h"])
    half, whole = ranova(model), ranova(model, boundary="ignore")
    assert_allclose(half["p_value"].iloc[1:], whole["p_value"].iloc[1:] / 2)
    with pytest.raises(ValueError, match="has none"):
        ranova(fit([]))


def test_weights_and_offsets_go_into_refits():
    X, y = rows()
    w = np.random.default_rng(1).integers(1, 4, N).astype(float)
    for weights in ("frequency", "precision"):
        make = {"weights": weights, "method": "ml"}
        large = MixedEffectsRegressor("g", fixed=["x", "z"], offset="h", **make)
        large.fit(X, y, sample_weight=w)
        small = MixedEffectsRegressor("g", fixed=["x"], offset="h", **make)
        small.fit(X, y, sample_weight=w)
        got = drop1(large, test="chi2")
        assert_allclose(got.loc["z", "log_likelihood"], small.log_likelihood_)
        assert list(got["method"]) == ["ml", "ml, refitted", "ml, refitted"]
        direct = likelihood_ratio_test(small, large)
        assert_allclose(direct.loc[1, "p_value"], got.loc["z", "p_value"])


def test_nearly_dependent_columns_go_one_by_one():
    X, y = rows()
    X["near"] = X["x"] + 1e-6 * np.random.default_rng(3).normal(size=N)
    large = MixedEffectsRegressor("g", fixed=["x", "near", "z"], method="ml").fit(X, y)
    small = MixedEffectsRegressor("g", fixed=["near", "z"], method="ml").fit(X, y)
    got = drop1(large, test="chi2").loc["x"]
    assert_allclose(got["log_likelihood"], small.log_likelihood_, rtol=1e-8)


def test_terms_that_contain_others_go_first():
    model = fit("g", ("x", "z"))
    terms = {"x": "x", "x:z": "z"}
    assert list(drop1(model, terms=terms).index) == ["x:z"]
    assert list(drop1(model, test="chi2", terms=terms).index) == ["<none>", "x:z"]


@pytest.mark.parametrize(
    ("small", "large", "p_value"),
    [("sleep_indep_ml", "sleep_rs_ml", 0.80), ("sleep_ri_ml", "sleep_rs_ml", 0.0)],
)
def test_bootstrap_agrees_with_theory_where_there_is_one(small, large, p_value):
    models = [fitted(name)[0] for name in (small, large)]
    options = {"bootstrap": 59, "random_state": 1}
    drawn = likelihood_ratio_test(*models, **options)
    pd.testing.assert_frame_equal(drawn, likelihood_ratio_test(*models, **options))
    got = drawn.loc[1]
    assert got["distribution"] == "bootstrap(59)"
    error = np.sqrt(p_value * (1 - p_value) / 59) + 0.01
    assert abs(got["p_value"] - p_value) < 3 * error


def test_bootstrap_of_several_variances_is_less_conservative():
    models = fit([]), fit(["g", "h"])
    drawn = likelihood_ratio_test(*models, bootstrap=9, random_state=0).loc[1]
    assert drawn["p_value"] == pytest.approx(1 / 10)


def test_bootstrap_needs_the_effects_of_the_smaller_model_in_the_larger():
    X, y = rows()
    small = fit("g", ("x",), "ml")
    renamed = X.rename(columns={"x": "other"})
    large = MixedEffectsRegressor("g", fixed=["other", "z"], method="ml").fit(
        renamed, y
    )
    with pytest.raises(ValueError, match="under the same names"):
        likelihood_ratio_test(small, large, assume_nested=True, bootstrap=9)


def serial(residual, method="ml", fixed=("x",), random="g"):
    X, y = rows()
    X["t"] = np.tile(np.arange(16.0), 12)
    model = MixedEffectsRegressor(
        random, fixed=list(fixed), residual=residual, method=method
    )
    return model.fit(X, y)


def test_models_with_a_residual_structure():
    models = serial(None), serial(AR1("t"))
    got = likelihood_ratio_test(*models).loc[1]
    assert (got["n_parameters"], got["df"], got["distribution"]) == (5, 1, "chi2(1)")
    statistic = models[0].fit_.criterion - models[1].fit_.criterion
    assert_allclose(got["statistic"], statistic, rtol=1e-12)
    criteria = information_criteria(models[1])
    assert criteria["n_parameters"] == 5
    assert np.isnan(criteria["conditional_aic"])
    with pytest.raises(ValueError, match=r"AR1\(time='t'\) is in the smaller only"):
        likelihood_ratio_test(serial(AR1("t"), fixed=()), serial(None))
    again = likelihood_ratio_test(*(serial(r, "reml") for r in (None, AR1("t"))))
    assert again["method"].eq("ml, refitted").all()
    assert_allclose(again.loc[1, "statistic"], statistic, rtol=1e-7)
    with pytest.raises(ValueError, match="independent and equal"):
        likelihood_ratio_test(*models, bootstrap=9)
    assert drop1(models[1]).index.tolist() == ["x"]


def test_effects_left_out_beside_a_residual_structure():
    full = serial(AR1("t", "g"), "reml")
    got = ranova(full)
    without = serial(AR1("t", "g"), "reml", random=[])
    expected = [full.log_likelihood_, without.log_likelihood_]
    assert_allclose(got["log_likelihood"], expected, rtol=1e-9)
    assert got["n_parameters"].to_list() == [5, 4]
    got = drop1(full, test="chi2")
    by_ml = [serial(AR1("t", "g"), fixed=fixed) for fixed in (("x",), ())]
    expected = [model.log_likelihood_ for model in by_ml]
    assert_allclose(got["log_likelihood"], expected, rtol=1e-9)


def test_what_a_refit_without_rows_knows_of_the_errors():
    X, y = rows()
    X["half"] = np.where(np.arange(len(y)) % 2, "odd", "even")
    by_reml, by_ml = (
        MixedEffectsRegressor(
            "g", fixed=["x"], residual=Heteroscedastic("half"), method=method
        ).fit(X, y)
        for method in ("reml", "ml")
    )
    again, direct = fit_again(by_reml.fit_, reml=False), by_ml.fit_
    assert_allclose(again.criterion, direct.criterion, rtol=1e-10)
    assert_allclose(again.sigma, direct.sigma, rtol=1e-5)
    for name in ("u", "values", "jacobian", "delta"):
        got, expected = getattr(again.errors, name), getattr(direct.errors, name)
        assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_structures_that_need_the_rows_for_a_refit():
    model = serial(ARMA(1, 1, "t"), "reml")
    for refit in (ranova, lambda m: drop1(m, test="chi2")):
        with pytest.raises(ValueError, match="fitted again without its rows"):
            refit(model)
    with pytest.raises(ValueError, match=r"rows: .* refit=False takes the fits"):
        likelihood_ratio_test(serial(None), model)


def test_stochastic_fits_have_no_likelihood_ratios():
    X, y = rows()
    exact = fit(["g", "h"])
    model = MixedEffectsRegressor(
        ["g", "h"], fixed=["x"], solver="stochastic", random_state=0
    ).fit(X, y)
    with pytest.raises(ValueError, match="A likelihood-ratio test cannot be had"):
        likelihood_ratio_test(exact, model)
    with pytest.raises(ValueError, match="cannot be had from a stochastic fit"):
        ranova(model)
    with pytest.raises(ValueError, match="Kenward and Roger's test cannot"):
        coefficient_table(model, df="kenward-roger")
    ours, theirs = (coefficient_table(m)["df"] for m in (model, exact))
    assert_allclose(ours, theirs, rtol=0.1)


def test_models_with_as_many_parameters_have_no_test():
    model = fit("g", method="ml")
    got = likelihood_ratio_test(model, model).iloc[1]
    assert (got["df"], got["statistic"], got["distribution"]) == (0, 0.0, "none")
    assert np.isnan(got["p_value"])
