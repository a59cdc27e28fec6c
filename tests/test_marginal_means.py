"""Marginal means, trends and their comparisons: emmeans' numbers, and invariances."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from models import ORACLES_DIR, frame
from numpy.testing import assert_allclose

from sklearn_lmm import MixedEffectsRegressor, lmer
from sklearn_lmm.exceptions import RankDeficiencyWarning
from sklearn_lmm.inference import marginal_means, marginal_trends, pairwise
from sklearn_lmm.residuals import AR1

EMMEANS = json.loads((ORACLES_DIR / "emmeans.json").read_text())
METHODS = {
    "kenward-roger": "kenward-roger",
    "satterthwaite": "satterthwaite",
    "asymptotic": "normal",
}


@cache
def fitted(dataset, formula):
    return lmer(formula, frame(dataset))


def means_of(name, df):
    oracle = EMMEANS[name]
    model = fitted(oracle["dataset"], oracle["formula"])
    by = "Machine" if oracle["dataset"] == "Machines" else "Diet"
    if oracle["trend_var"]:
        return marginal_trends(model, oracle["trend_var"], by, df=df)
    return marginal_means(model, by, df=df)


def finite(values):
    return np.array([np.inf if value is None else value for value in values])


@pytest.mark.parametrize("df", METHODS)
@pytest.mark.parametrize("name", EMMEANS)
def test_means_of_emmeans(name, df):
    expected = pd.DataFrame(EMMEANS[name]["tables"][df]["means"])
    found = means_of(name, METHODS[df]).frame
    trend = EMMEANS[name]["trend_var"]
    estimate = expected[f"{trend}.trend" if trend else "emmean"]
    assert_allclose(found["estimate"], estimate, rtol=2e-6)
    assert_allclose(found["std_error"], expected["SE"], rtol=2e-5)
    assert_allclose(found["df"], finite(expected["df"]), rtol=1e-4)
    ends = [c for c in expected if c.endswith((".CL", ".LCL", ".UCL"))]
    assert_allclose(found[["lower", "upper"]], expected[ends], rtol=2e-5)


@pytest.mark.parametrize("adjust", ["none", "tukey", "holm"])
@pytest.mark.parametrize("df", METHODS)
@pytest.mark.parametrize("name", EMMEANS)
def test_pairs_of_emmeans(name, df, adjust):
    expected = pd.DataFrame(EMMEANS[name]["tables"][df][f"pairs_{adjust}"])
    found = pairwise(means_of(name, METHODS[df]), adjust=adjust)
    assert_allclose(found["estimate"], expected["estimate"], rtol=1e-5)
    assert_allclose(found["std_error"], expected["SE"], rtol=2e-5)
    assert_allclose(found["df"], finite(expected["df"]), rtol=1e-4)
    assert_allclose(found["p_value"], expected["p.value"], rtol=5e-4)
    assert [text.replace("Diet", "") for text in expected["contrast"]] == [
        *found["contrast"]
    ]


COLUMNS = ["estimate", "std_error", "df", "statistic", "p_value"]
SLEEP = frame("sleepstudy")
TWO_WAY = "Reaction ~ cond*poly(Days, 2) + w + (1 | Subject)"


def grid(**values):
    """Return all combinations, with a subject that any model knows."""
    index = pd.MultiIndex.from_product(values.values(), names=[*values])
    return index.to_frame(index=False).assign(Subject="308")


def test_means_are_predictions_averaged_over_the_grid():
    model = fitted("sleepstudy", TWO_WAY)
    means = marginal_means(model, "cond", at={"Days": [1, 5, 8]}).frame
    rows = grid(
        cond=SLEEP["cond"].cat.categories, Days=[1, 5, 8], w=[SLEEP["w"].mean()]
    )
    predicted = model.predict(rows, random_effects=False)
    expected = pd.Series(predicted).groupby(rows["cond"], sort=False).mean()
    assert_allclose(means["estimate"], expected, rtol=1e-10)
    overall = marginal_means(model, [], at={"Days": [1, 5, 8]}).frame
    assert_allclose(overall["estimate"], [expected.mean()], rtol=1e-10)


def test_trends_are_derivatives():
    model = fitted("sleepstudy", TWO_WAY)
    found = marginal_trends(model, "Days", "cond", at={"Days": 7.0}).frame
    levels, h = SLEEP["cond"].cat.categories, 1e-2
    ends = [grid(cond=levels, Days=[7 + s], w=[1.0]) for s in (h, -h)]
    up, down = (model.predict(rows, random_effects=False) for rows in ends)
    assert_allclose(found["estimate"], (up - down) / (2 * h), rtol=1e-8)


def test_two_means_by_tukey_are_a_t_test():
    model = fitted("sleepstudy", "Reaction ~ I(Days > 4) + (1 | Subject)")
    means = marginal_means(model, "Days", at={"Days": [1, 8]})
    tukey, plain = (pairwise(means, adjust=a) for a in ("tukey", "none"))
    assert_allclose(tukey["p_value"], plain["p_value"], rtol=1e-6, atol=1e-12)
    assert tukey["contrast"].tolist() == ["1 - 8"]
    t = means.estimator.summary().fixed.iloc[1]
    assert_allclose(plain["statistic"].abs(), abs(t["statistic"]), rtol=1e-9)


def test_families_of_comparisons():
    model = fitted("sleepstudy", TWO_WAY)
    means = marginal_means(model, ["Days", "cond"], at={"Days": [0, 9]})
    everything = pairwise(means, adjust="bonferroni")
    assert len(everything) == 15
    assert everything["contrast"][0] == "0 base - 0 mid"
    within = pairwise(means, by="Days", adjust="bonferroni")
    assert within["Days"].tolist() == [0, 0, 0, 9, 9, 9]
    assert within["contrast"].tolist()[:2] == ["base - mid", "base - late"]
    alone = pairwise(marginal_means(model, "cond", at={"Days": 9}), adjust="bonferroni")
    assert_allclose(within[COLUMNS].iloc[3:], alone[COLUMNS])
    plain = pairwise(means, adjust="none")["p_value"]
    assert_allclose(everything["p_value"], np.minimum(15 * plain, 1.0))


def test_units_of_a_covariate_do_not_matter():
    model = fitted("sleepstudy", TWO_WAY)
    hours = lmer(TWO_WAY, SLEEP.assign(Days=SLEEP["Days"] * 24.0))
    one, other = (marginal_means(m, "cond").frame for m in (model, hours))
    assert_allclose(one.iloc[:, 1:], other.iloc[:, 1:], rtol=1e-6)
    slopes = [marginal_trends(m, "Days", "cond").frame for m in (model, hours)]
    assert_allclose(slopes[0]["estimate"], 24.0 * slopes[1]["estimate"], rtol=1e-6)


def test_a_formulas_offset_counts_at_its_mean():
    plain = fitted("sleepstudy", "Reaction ~ cond + (1 | Subject)")
    data = SLEEP.assign(Reaction=SLEEP["Reaction"] + SLEEP["Days"])
    shifted = lmer("Reaction ~ cond + offset(Days) + (1 | Subject)", data)
    means = [marginal_means(m, "cond").frame["estimate"] for m in (plain, shifted)]
    assert_allclose(means[1], means[0] + SLEEP["Days"].mean(), rtol=1e-9)
    zero = marginal_means(shifted, "cond", at={"Days": 0}).frame["estimate"]
    assert_allclose(zero, means[0], rtol=1e-9)


def test_empty_cells_have_no_mean():
    data = SLEEP.assign(late=np.where(SLEEP["Days"] % 2, "b", "a"))
    data = data[~((data["cond"] == "mid") & (data["late"] == "b"))]
    with pytest.warns(RankDeficiencyWarning, match="rank deficient"):
        model = lmer("Reaction ~ cond*late + (1 | Subject)", data)
    with pytest.warns(RankDeficiencyWarning, match="1 of 6 means"):
        means = marginal_means(model, ["cond", "late"])
    nan = means.frame["estimate"].isna()
    assert means.frame.loc[nan, ["cond", "late"]].to_numpy().tolist() == [["mid", "b"]]
    cells = data.groupby(["cond", "late"], observed=True)
    rows = cells.head(1)[["cond", "late", "Subject"]]
    expected = model.predict(rows, random_effects=False)
    table = means.frame.set_index(["cond", "late"])["estimate"]
    found = [table[cell] for cell in zip(rows["cond"], rows["late"], strict=True)]
    assert_allclose(found, expected, rtol=1e-9)
    pairs = pairwise(means, adjust="holm")
    assert pairs["p_value"].isna().sum() == 5
    with pytest.warns(RankDeficiencyWarning, match="1 of 3 means"):
        assert marginal_means(model, "cond").frame["estimate"].isna().sum() == 1


def test_columns_without_a_formula():
    X, y = SLEEP[["Days", "w", "Subject"]], SLEEP["Reaction"]
    model = MixedEffectsRegressor("Subject").fit(X, y)
    means = marginal_means(model, "Days", at={"Days": [0, 9]}).frame
    rows = X.head(2).assign(Days=[0, 9], w=SLEEP["w"].mean())
    expected = model.predict(rows, random_effects=False)
    assert_allclose(means["estimate"], expected, rtol=1e-10)
    with pytest.raises(ValueError, match="fit the model with a formula"):
        marginal_trends(model, "Days")
    bare = MixedEffectsRegressor("Subject", fit_intercept=False).fit(X, y)
    with pytest.raises(ValueError, match="There is no mean of 'w'"):
        marginal_means(bare, "Days", at={"Days": [1]})
    assert len(marginal_means(bare, "Days", at={"Days": [1]}, data=SLEEP).frame) == 1


def test_rows_that_came_later_count():
    model = MixedEffectsRegressor(formula="Reaction ~ cond + Days + (1 | Subject)")
    model.fit(SLEEP[:90]).partial_fit(SLEEP[90:])
    with pytest.raises(ValueError, match="There is no mean of 'Days'"):
        marginal_means(model, "cond")
    found = marginal_means(model, "cond", data=SLEEP).frame
    whole = fitted("sleepstudy", "Reaction ~ cond + Days + (1 | Subject)")
    assert_allclose(found.iloc[:, 1:], marginal_means(whole, "cond").frame.iloc[:, 1:])


def test_frequency_weights_count_in_means():
    copies = np.arange(180) % 3 + 1
    formula = "Reaction ~ cond + Days + (1 | Subject)"
    weighted = MixedEffectsRegressor(formula=formula).fit(SLEEP, sample_weight=copies)
    repeated = lmer(formula, SLEEP.loc[SLEEP.index.repeat(copies)])
    tables = [marginal_means(m, "cond").frame for m in (weighted, repeated)]
    assert_allclose(tables[0].iloc[:, 1:], tables[1].iloc[:, 1:], rtol=1e-6)


def test_it_prints_as_its_table():
    means = marginal_means(fitted("sleepstudy", TWO_WAY), "cond")
    assert repr(means) == repr(means.frame)
    assert means._repr_html_() == means.frame.to_html()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: marginal_means(m, "dose"), "no variable 'dose'; it has 'cond'"),
        (lambda m: marginal_means(m, "Days"), "'Days' is a number: say at which"),
        (lambda m: marginal_means(m, "cond", at={"x": 1}), "no variable 'x'"),
        (lambda m: marginal_trends(m, "cond"), "'cond' is not a number"),
        (lambda m: marginal_trends(m, "Days", at={"Days": [1, 2]}), "where to take"),
        (
            lambda m: marginal_means(m, "cond", data=frame("sleepstudy")[["cond"]]),
            "^data needs the column 'Days', but there is no such",
        ),
        (lambda m: marginal_means(m, "cond", at={"cond": ["no"]}), "has not seen"),
        (
            lambda m: marginal_means(m, "cond", at={"Days": range(10**6)}),
            "3000000 comb",
        ),
        (lambda m: pairwise(marginal_means(m, "cond"), by="Days"), "do not differ in"),
        (lambda m: pairwise(marginal_means(m, [])), "no two means"),
        (lambda m: marginal_means(m, "cond", coverage=2), "coverage"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(fitted("sleepstudy", TWO_WAY))


def test_means_of_columns_are_those_of_the_rows_whatever_their_errors():
    data = frame("sleepstudy")[:-5]
    X, y = data[["Days", "Subject"]], data["Reaction"]
    model = MixedEffectsRegressor("Subject", residual=AR1("Days")).fit(X, y)
    found = marginal_means(model, ()).frame["estimate"].item()
    expected = model.intercept_ + model.coef_[0] * X["Days"].mean()
    assert found == pytest.approx(expected, rel=1e-12)
