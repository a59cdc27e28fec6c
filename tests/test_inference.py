"""Tests of the fixed part against reference numbers and textbook designs."""

import json
import pickle
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from models import ORACLES_DIR, fitted, frame, model
from numpy.testing import assert_allclose

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, lmer
from sklearn_lmm.exceptions import IdentifiabilityWarning, PerfectFitWarning
from sklearn_lmm.inference import anova, coefficient_table, contrast

REFERENCE = json.loads((ORACLES_DIR / "inference.json").read_text())
FITS = [name for name, entry in REFERENCE.items() if "satterthwaite" in entry]
KR = [name for name in FITS if "kenward_roger" in REFERENCE[name]]
# What lmerTest finds by differences is good to 1e-7.
SATTERTHWAITE, KENWARD_ROGER = 3e-7, 1e-8


@cache
def by_formula(name):
    """Return the fit of a reference formula, which `models` gives in columns."""
    entry, oracle = REFERENCE[name], model(name).oracle
    data = frame(oracle["dataset"])
    weights = None if oracle["weights"] is None else data[oracle["weights"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmer(
            entry["formula"], data, weights=weights, REML=entry["method"] == "REML"
        )


@pytest.mark.parametrize("name", FITS)
def test_satterthwaite_table(name):
    estimator, _ = fitted(name)
    table = coefficient_table(estimator)
    expected = pd.DataFrame(REFERENCE[name]["satterthwaite"])
    assert [*table] == ["estimate", "std_error", "df", "statistic", "p_value"]
    assert_allclose(table["df"], expected["df"][table.index], rtol=SATTERTHWAITE)
    assert_allclose(table["p_value"], expected["p"][table.index], rtol=1e-4)
    assert_allclose(table["estimate"], estimator.fixed_effects_)
    assert_allclose(table["statistic"], table["estimate"] / table["std_error"])
    assert table.attrs == {"df": "satterthwaite", "singular": estimator.singular_}


@pytest.mark.parametrize("name", KR)
def test_kenward_roger_table(name):
    estimator, _ = fitted(name)
    table = coefficient_table(estimator, df="kenward-roger")
    expected = pd.DataFrame(REFERENCE[name]["kenward_roger"])
    assert_allclose(table["df"], expected["df"][table.index], rtol=KENWARD_ROGER)
    assert_allclose(table["std_error"], expected["se"][table.index], rtol=1e-8)


TABLES = [
    (name, key)
    for name in FITS
    for key in REFERENCE[name]
    if key.startswith("anova_type")
]


@pytest.mark.parametrize(("name", "key"), TABLES)
def test_tables_of_terms(name, key):
    _, kind, method = key.split("_", 2)
    table = anova(
        by_formula(name), type=kind.removeprefix("type"), df=method.replace("_", "-")
    )
    expected = pd.DataFrame(REFERENCE[name][key]).T
    assert list(table.index) == list(expected.index)
    assert list(table) == list(expected)
    assert_allclose(table.drop(columns="p_value"), expected.iloc[:, :-1], rtol=1e-6)
    assert_allclose(table["p_value"], expected["p_value"], rtol=1e-4)
    assert table.attrs["df"] == method.replace("_", "-")


def test_models_of_columns_have_the_tables_of_formulas():
    estimator, _ = fitted("chick_rs_reml")
    slopes = [f"Time:Diet{k}" for k in (2, 3, 4)]
    terms = {"Time": ["Time"], "Diet": ["Diet2", "Diet3", "Diet4"], "Time:Diet": slopes}
    for kind in (1, 2):
        got = anova(estimator, type=kind, terms=terms)
        expected = pd.DataFrame(
            REFERENCE["chick_rs_reml"][f"anova_type{'I' * kind}_satterthwaite"]
        ).T
        if kind == 2:
            # By their names Diet is in Time:Diet, but Time is a number, and the
            # formula knows that.
            got, expected = got.loc[["Time", "Time:Diet"]], expected.drop("Diet")
        assert_allclose(got, expected, rtol=1e-5)
    third = anova(estimator, terms=terms)
    assert_allclose(third.loc["Diet"], anova(by_formula("chick_rs_reml")).loc["Diet"])
    alone = anova(estimator)
    table = coefficient_table(estimator).iloc[1:]
    assert_allclose(alone["statistic"], table["statistic"] ** 2)
    assert_allclose(alone[["den_df", "p_value"]], table[["df", "p_value"]])
    assert (alone["num_df"] == 1).all()


def test_type_iii_does_not_depend_on_the_coding():
    data = frame("cake")
    formula = "angle ~ {} * {} + (1 | recipe:replicate)"
    expected = anova(by_formula("cake_factor_reml"))
    for one, two in [
        ("C(recipe, contr.sum)", "C(temperature, contr.sum)"),
        ("C(recipe, contr.helmert)", "C(temperature, contr.treatment)"),
    ]:
        got = anova(lmer(formula.format(one, two), data))
        assert_allclose(got, expected, rtol=1e-7)


def test_type_iii_of_an_empty_cell():
    # lmerTest 3.1.3 on the same rows.
    data = frame("cake").query("not (recipe == 'C' and temperature == '225')")
    with pytest.warns(UserWarning, match="recipeC:temperature"):
        estimator = lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", data)
    got = anova(estimator)
    assert list(got["num_df"]) == [2, 5, 9]
    assert_allclose(
        got["statistic"], [0.317594836803, 18.7707725358, 1.05800788604], rtol=2e-6
    )
    assert_allclose(
        got["den_df"], [42.145530215, 195.938024577, 195.938024577], rtol=2e-6
    )


@pytest.mark.parametrize("name", ["krmodcomp_cake_inter", "krmodcomp_sleep_quad"])
def test_contrasts_of_several_effects(name):
    entry = REFERENCE[name]
    data = frame(entry["dataset"])
    if name == "krmodcomp_sleep_quad":
        X = data[["Days", "Subject"]].assign(square=data["Days"] ** 2)
        estimator = MixedEffectsRegressor("(Days | Subject)", fixed=["Days", "square"])
        estimator.fit(X, data["Reaction"])
        L = ["Days", "square"]
    else:
        estimator = by_formula("cake_factor_reml")
        L = [n for n in estimator.fixed_effects_.index if ":" in n]
    kr, sat = entry["kr"][0], entry["sat"][0]
    got = contrast(estimator, L, df="kenward-roger").iloc[0]
    expected = [kr["ndf"], kr["ddf"], kr["stat"], kr["p.value"]]
    assert_allclose(got, expected, rtol=1e-7)
    got = contrast(estimator, L).iloc[0]
    expected = [sat["ndf"], sat["ddf"], sat["statistic"], sat["p.value"]]
    assert_allclose(got, expected, rtol=1e-6)


def balanced(between):
    """Return 18 groups of 10 rows with a covariate within or between groups."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(18), 10)
    x = rng.normal(size=18)[group] if between else np.tile(np.arange(10.0), 18)
    y = x + rng.normal(size=18)[group] + rng.normal(size=180)
    return pd.DataFrame({"x": x, "group": group}), y


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize(("between", "exact"), [(False, 161.0), (True, 16.0)])
def test_balanced_designs_have_textbook_degrees_of_freedom(df, between, exact):
    X, y = balanced(between)
    table = coefficient_table(MixedEffectsRegressor("group").fit(X, y), df=df)
    assert_allclose(table.loc["x", "df"], exact, rtol=1e-7)
    sizes = np.repeat([1.0, 2.0], 90)
    halves = [i for i, size in enumerate(sizes) for _ in range(int(size))]
    weighted = MixedEffectsRegressor("group").fit(X, y, sample_weight=sizes)
    repeated = MixedEffectsRegressor("group").fit(X.iloc[halves], y[halves])
    assert_allclose(
        coefficient_table(weighted, df=df),
        coefficient_table(repeated, df=df),
        rtol=1e-6,
    )


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger", "residual"])
def test_no_random_effects_are_least_squares(df):
    X, y = balanced(True)
    estimator = MixedEffectsRegressor([]).fit(X[["x"]], y)
    table = coefficient_table(estimator, df=df)
    assert_allclose(table["df"], 178.0)
    design = np.column_stack([np.ones(180), X["x"]])
    beta, r2, *_ = np.linalg.lstsq(design, y)
    variance = r2[0] / 178 * np.diag(np.linalg.inv(design.T @ design))
    assert_allclose(table["estimate"], beta)
    assert_allclose(table["std_error"], np.sqrt(variance))
    assert contrast(estimator, [[1.0, 0.0], [0.0, 1.0]], df=df)["den_df"].item() == (
        pytest.approx(178.0)
    )


def test_ways_to_write_a_contrast():
    estimator, _ = fitted("sleep_rs_reml")
    one = contrast(estimator, [1.0, 9.0])
    for L in (
        {"Days": 9, "(Intercept)": 1},
        pd.Series({"(Intercept)": 1.0, "Days": 9.0}),
        np.array([1, 9]),
    ):
        pd.testing.assert_frame_equal(contrast(estimator, L), one)
    beta = estimator.fixed_effects_
    assert one["estimate"].item() == pytest.approx(beta.iloc[0] + 9 * beta.iloc[1])
    table = coefficient_table(estimator)
    assert_allclose(contrast(estimator, "Days"), table.loc[["Days"]])
    rows = pd.DataFrame({"Days": [1.0, 2.0]}, index=["a", "b"])
    single = contrast(estimator, rows, joint=False)
    assert list(single.index) == ["a", "b"]
    assert_allclose(single["statistic"], table.loc["Days", "statistic"])
    both = contrast(estimator, ["(Intercept)", "Days"])
    assert both["num_df"].item() == 2
    # The second row says the same as the first.
    t = contrast(estimator, rows)
    assert t["num_df"].item() == 1
    assert t["statistic"].item() == pytest.approx(single["statistic"].iloc[0] ** 2)
    assert t["p_value"].item() == pytest.approx(single["p_value"].iloc[0])


def test_right_hand_sides():
    estimator, _ = fitted("sleep_rs_reml")
    beta = estimator.fixed_effects_
    zero = contrast(estimator, "Days", beta["Days"])
    assert zero["statistic"].item() == pytest.approx(0, abs=1e-12)
    assert zero["p_value"].item() == pytest.approx(1)
    exact = contrast(estimator, ["(Intercept)", "Days"], beta.to_numpy())
    assert exact["p_value"].item() == pytest.approx(1)
    rows = [[0.0, 1.0], [0.0, 2.0]]
    contrast(estimator, rows, [10.0, 20.0])
    with pytest.raises(ValueError, match="contradict"):
        contrast(estimator, rows, [10.0, 10.0])


@pytest.mark.parametrize(
    ("L", "message"),
    [
        ({"days": 1}, "'days', but the fixed effects are '\\(Intercept\\)', 'Days'"),
        ([1.0, 2.0, 3.0], "shape \\(1, 3\\), but needs 2 weights"),
        ([0.0, 0.0], "not all of them 0"),
        ([np.nan, 1.0], "finite"),
        (["Days", "Nights"], "'Nights'"),
    ],
)
def test_contrasts_that_are_refused(L, message):
    estimator, _ = fitted("sleep_rs_reml")
    with pytest.raises(ValueError, match=message):
        contrast(estimator, L)


def test_dropped_columns_cannot_be_tested():
    estimator, _ = fitted("sleep_rankdef_reml")
    assert list(coefficient_table(estimator).index) == ["(Intercept)", "Days"]
    assert list(anova(estimator).index) == ["Days"]
    with pytest.raises(ValueError, match="'Days2' depends linearly"):
        contrast(estimator, {"Days2": 1})


def test_options_that_do_not_suit_the_fit():
    ml, _ = fitted("sleep_rs_ml")
    reml, _ = fitted("sleep_rs_reml")
    for function in (coefficient_table, anova):
        with pytest.raises(ValueError, match="method='reml'"):
            function(ml, df="kenward-roger")
        with pytest.raises(ValueError, match="'satterthwaite', 'kenward-roger'"):
            function(reml, df="kr")
    with pytest.raises(ValueError, match="type=4"):
        anova(reml, type=4)
    with pytest.raises(ValueError, match="'x' lists 'nights'"):
        anova(reml, terms={"x": ["nights"]})
    with pytest.raises(ValueError, match="'Days' more than once"):
        anova(reml, terms={"x": ["Days"], "z": "Days"})


def test_normal_and_given_degrees_of_freedom():
    estimator, _ = fitted("sleep_rs_reml")
    normal = coefficient_table(estimator, df="normal")
    assert np.isinf(normal["df"]).all()
    t = contrast(estimator, ["(Intercept)", "Days"], df="normal")
    assert np.isinf(t["den_df"].item())
    exact = coefficient_table(estimator)
    given = coefficient_table(estimator, df=exact["df"])
    assert_allclose(given, exact)
    assert given.attrs["df"] == "given"
    with pytest.raises(ValueError, match="one for each of the 2"):
        coefficient_table(estimator, df=[1.0, 2.0, 3.0])


def test_another_covariance():
    estimator, _ = fitted("sleep_rs_reml")
    names = ["(Intercept)", "Days"]
    wide = pd.DataFrame([[100.0, 1.0], [1.0, 4.0]], names, names)
    turned = wide.loc[names[::-1], names[::-1]]
    for covariance in (wide, turned, wide.to_numpy()):
        table = coefficient_table(estimator, df=17, covariance=covariance)
        assert_allclose(table["std_error"], [10.0, 2.0])
        assert_allclose(table["df"], 17.0)
    with pytest.raises(ValueError, match="model's own covariance"):
        coefficient_table(estimator, covariance=wide)
    with pytest.raises(ValueError, match="shape \\(1, 1\\)"):
        coefficient_table(estimator, df="normal", covariance=np.eye(1))
    with pytest.raises(ValueError, match="names of fixed_effects_"):
        coefficient_table(
            estimator, df="normal", covariance=wide.rename(columns={"Days": "days"})
        )


def test_a_variance_that_cannot_be_known():
    X, y = balanced(False)
    X["one"] = "level"
    with pytest.warns(IdentifiabilityWarning):
        estimator = MixedEffectsRegressor(["group", "one"]).fit(X, y)
    for df in ("satterthwaite", "kenward-roger"):
        with pytest.warns(IdentifiabilityWarning, match=r"for \(Intercept\)"):
            table = coefficient_table(estimator, df=df)
        assert np.isnan(table.loc["(Intercept)", ["df", "p_value"]].astype(float)).all()
        assert_allclose(table.loc["x", "df"], 161.0, rtol=1e-6)
        assert np.isfinite(anova(estimator, df=df).to_numpy()).all()


def test_a_response_that_is_explained_exactly():
    X, _ = balanced(False)
    with pytest.warns(PerfectFitWarning):
        estimator = MixedEffectsRegressor("group").fit(X, 2.0 * X["x"] + 1.0)
    table = coefficient_table(estimator)
    assert_allclose(table["std_error"], 0.0)
    assert table[["df", "p_value"]].isna().all(axis=None)
    assert anova(estimator)["p_value"].isna().all()


def test_units_and_covariance_structures():
    X, y = balanced(False)
    y = y + np.random.default_rng(1).normal(size=18)[X["group"]] * X["x"]
    effect = RandomEffect("group", slopes="x")
    plain = MixedEffectsRegressor(effect).fit(X, y)
    moved = X.assign(x=X["x"] * 1e4 + 3e4)
    scaled = MixedEffectsRegressor(effect).fit(moved, 1e-3 * y)
    for df in ("satterthwaite", "kenward-roger"):
        ours = coefficient_table(plain, df=df).loc["x", "df"]
        theirs = coefficient_table(scaled, df=df).loc["x", "df"]
        assert_allclose(ours, theirs, rtol=1e-5)
    for structure in ("diagonal", "compound_symmetry"):
        effect = RandomEffect("group", slopes="x", covariance=structure)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = MixedEffectsRegressor(effect).fit(X, y)
        kr = coefficient_table(estimator, df="kenward-roger")
        assert_allclose(kr["df"], coefficient_table(estimator)["df"], rtol=0.5)


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_nothing_to_test_is_an_empty_table(df):
    X, y = balanced(False)
    none = MixedEffectsRegressor("group", fixed=[], fit_intercept=False).fit(X, y)
    assert coefficient_table(none, df=df).empty
    assert anova(none, df=df).empty
    mean = MixedEffectsRegressor("group", fixed=[]).fit(X, y)
    for kind in (1, 2, 3):
        assert anova(mean, type=kind, df=df).empty
    assert_allclose(coefficient_table(mean, df=df)["df"], 17.0, rtol=1e-6)


def test_models_that_came_another_way_have_the_same_table():
    X, y = balanced(True)
    model = MixedEffectsRegressor("group").fit(X, y)
    expected = coefficient_table(model)
    pd.testing.assert_frame_equal(
        coefficient_table(pickle.loads(pickle.dumps(model))), expected
    )
    adapted = model.adapt(X.head(5), y[:5])
    pd.testing.assert_frame_equal(coefficient_table(adapted), expected)
    parts = MixedEffectsRegressor("group").partial_fit(X.iloc[:90], y[:90])
    parts.partial_fit(X.iloc[90:], y[90:])
    assert_allclose(coefficient_table(parts), expected, rtol=1e-6, atol=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(y))
    again = MixedEffectsRegressor("group").fit(X.iloc[shuffled], y[shuffled])
    assert_allclose(coefficient_table(again), expected, rtol=1e-6, atol=1e-12)
