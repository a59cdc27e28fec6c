"""Formulas: every oracle through its own, and what may go wrong."""

from __future__ import annotations

import pickle
import sys
import warnings
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
from models import ORACLES, frame
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate

from sklearn_lmm import MixedEffectsRegressor, lmer
from sklearn_lmm._rows import rows_of_fit


@pytest.mark.parametrize("name", ORACLES)
def test_oracle_through_its_formula(name):
    oracle = ORACLES[name]
    data = frame(oracle["dataset"])
    if "temperature" in data:
        data = data.assign(temperature=data["temperature"].cat.as_ordered())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lmer(
            oracle["formula"],
            data,
            REML=oracle["method"] == "REML",
            weights=oracle["weights"],
        )
    assert abs(model.fit_.criterion - oracle["criterion"]) <= 1e-7
    beta, se = (pd.Series(oracle[k], dtype=float) for k in ("beta", "se"))
    assert set(model.fixed_effects_.index) == set(beta.index)
    error = (model.fixed_effects_ - beta).abs() / np.maximum(beta.abs(), se)
    assert error.max() <= 1e-6
    assert abs(model.sigma_ / oracle["sigma"] - 1) <= 1e-6 or oracle["singular"]


SLEEP = frame("sleepstudy")
MACHINES = frame("Machines")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@cache
def sleep(formula=FORMULA):
    return MixedEffectsRegressor(formula=formula).fit(SLEEP)


def machines(formula):
    return MixedEffectsRegressor(formula=formula).fit(MACHINES)


def test_columns_have_the_names_of_R():
    data = SLEEP.assign(dose=pd.Categorical(SLEEP["Days"] % 3, ordered=True))
    model = MixedEffectsRegressor(
        formula="Reaction ~ cond*w + dose + poly(Days, 2) + (1 | Subject)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data)
    assert [c for term in model._layout.fixed_terms for c in term.columns] == [
        *("condmid", "condlate", "w", "dose.L", "dose.Q"),
        *("poly(Days, 2)1", "poly(Days, 2)2", "condmid:w", "condlate:w"),
    ]


def test_the_structure_of_terms():
    formula = "score ~ Machine*poly(x, 2) + (1 | Worker)"
    data = MACHINES.assign(x=np.arange(len(MACHINES)) % 7)
    layout = MixedEffectsRegressor(formula=formula).fit(data)._layout
    found = [(term.name, term.factors, term.variables) for term in layout.fixed_terms]
    assert found == [
        ("Machine", ("Machine",), ("Machine",)),
        ("poly(x, 2)", ("poly(x, 2)",), ("x",)),
        ("Machine:poly(x, 2)", ("Machine", "poly(x, 2)"), ("Machine", "x")),
    ]
    columns = MixedEffectsRegressor("Subject").fit(
        SLEEP[["Days", "Subject"]], SLEEP["Reaction"]
    )
    assert [t.name for t in columns._layout.fixed_terms] == ["Days"]


@pytest.mark.parametrize(
    "text",
    [
        *("poly(Days, 2)", "bs(Days, df=4)", "cs(Days, df=3)", "scale(Days)"),
        *("C(Days)", "factor(Days)", "np.log(Days + 1)", "I(Days^2) + Days"),
        *("cond*Days", "0 + cond:Days", "C(cond, contr.sum)", "center(Days)"),
    ],
)
def test_what_is_learnt_holds_for_later_rows(text):
    model = MixedEffectsRegressor(formula=f"Reaction ~ {text} + (1 | Subject)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(SLEEP)
    some = SLEEP.drop(columns="Reaction").iloc[[171, 13, 44]]
    copied = pickle.loads(pickle.dumps(model))
    assert_allclose(copied.predict(some), model.predict(SLEEP)[[171, 13, 44]], 1e-12)


def test_contrasts_span_the_same_space():
    expected = machines("score ~ Machine + (1 | Worker)").predict(MACHINES)
    for text in ("C(Machine, contr.sum)", "0 + Machine", "C(Machine, contr.poly)"):
        other = machines(f"score ~ {text} + (1 | Worker)")
        assert_allclose(other.predict(MACHINES), expected, 1e-6)


def test_new_rows_may_lack_the_reference_level():
    model = machines("score ~ Machine + (1 | Worker)")
    rows = MACHINES[MACHINES["Machine"] == "C"].astype({"Machine": str})
    expected = model.predict(MACHINES)[MACHINES["Machine"] == "C"]
    assert_allclose(model.predict(rows), expected, 1e-12)


@pytest.mark.parametrize("label", ["D", 1])
def test_unseen_categories_are_named(label):
    model = machines("score ~ Machine + (1 | Worker)")
    with pytest.raises(ValueError, match=f"'Machine' has .*: {label!r};"):
        model.predict(MACHINES.assign(Machine=label))
    model = machines("score ~ C(Machine) + (1 | Worker)")
    with pytest.raises(ValueError, match="'Machine' has categories that the fit"):
        model.predict(MACHINES.assign(Machine=label))


def test_a_failed_prediction_leaves_the_model_as_it_was():
    before = sleep().predict(SLEEP)
    with pytest.raises(ValueError, match="'Days' was numeric at fit"):
        sleep().predict(SLEEP.assign(Days="three"))
    assert np.array_equal(sleep().predict(SLEEP), before)


def test_a_double_bar_makes_the_columns_of_a_category_independent():
    model = machines("score ~ Machine + (Machine || Worker)")
    covariance = model.covariances_["Worker"]
    assert list(covariance) == ["(Intercept)", "MachineB", "MachineC"]
    assert np.count_nonzero(covariance) == 3
    same = machines("score ~ Machine + diag(1 + Machine | Worker)")
    assert same.log_likelihood_ == model.log_likelihood_


def test_expressions_vary_by_group():
    model = sleep("Reaction ~ poly(Days, 2) + (poly(Days, 2) || Subject)")
    names = ["(Intercept)", "poly(Days, 2)1", "poly(Days, 2)2"]
    assert list(model.effects_["Subject"]) == names
    Z, columns = model.design_matrix(SLEEP)
    assert Z.shape == (180, 54)
    assert columns[1] == "poly(Days, 2)1 | Subject[308]"
    assert list(model.decompose(SLEEP)) == ["fixed", "Subject", "total"]


def test_structures_before_the_parenthesis():
    model = sleep("Reaction ~ Days + cs(0 + cond | Subject)")
    block = model.covariances_["Subject"].to_numpy()
    assert block[0, 0] == pytest.approx(block[1, 1])


def test_offsets_add_up_and_may_be_expressions():
    data = SLEEP.assign(o=SLEEP["Days"] / 3.0)
    model = MixedEffectsRegressor(
        formula="Reaction ~ Days + offset(2*o) + offset(o) + (1 | Subject)"
    ).fit(data)
    plain = sleep("Reaction ~ Days + (1 | Subject)")
    assert model.coef_[0] == pytest.approx(plain.coef_[0] - 1.0)
    assert_allclose(model.predict(data), plain.predict(data))


def test_labels_may_be_numbers_and_come_through_groups():
    data = SLEEP.assign(number=SLEEP["Subject"].cat.codes)
    by_number = MixedEffectsRegressor(
        formula="Reaction ~ number + Days + (1 | number:cond)"
    ).fit(data)
    assert by_number.effects_["number:cond"].index[0] == (0, "base")
    assert "number" in by_number.fixed_effects_
    model = MixedEffectsRegressor(formula="Days + (1 | g)")
    labels = SLEEP["Subject"].rename("g")
    model.fit(SLEEP[["Days"]], SLEEP["Reaction"], groups=labels)
    expected = sleep("Reaction ~ Days + (1 | Subject)").predict(SLEEP)
    assert_allclose(model.predict(SLEEP, labels), expected, 1e-12)


def test_coefficients_line_up_with_the_columns_that_are_made():
    model = sleep("Reaction ~ cond*Days + (1 | Subject)")
    assert_allclose(model.coef_, model.fixed_effects_.iloc[1:])
    assert list(model.feature_names_in_) == ["Days", "cond", "Subject"]
    assert model.n_features_in_ == 3


def test_without_random_effects():
    model = sleep("Reaction ~ Days")
    assert model.effects_ == {}
    assert_allclose(model.coef_, np.polyfit(SLEEP["Days"], SLEEP["Reaction"], 1)[:1])
    assert sleep("Reaction ~ 1").predict(SLEEP)[0] == pytest.approx(298.507892)
    assert len(sleep("Reaction ~ 0 + (1 | Subject)").fixed_effects_) == 0


def test_the_response_may_be_an_expression_and_be_left_out():
    model = sleep("log(Reaction) ~ Days + (1 | Subject)")
    y = np.log(SLEEP["Reaction"])
    other = MixedEffectsRegressor(formula="Days + (1 | Subject)").fit(SLEEP, y)
    assert model.log_likelihood_ == other.log_likelihood_
    assert model.score(SLEEP) == other.score(SLEEP, y)
    with pytest.raises(ValueError, match="requires y to be passed"):
        MixedEffectsRegressor(formula="Days + (1 | Subject)").fit(SLEEP)


def gaps():
    data = SLEEP.astype({"Subject": object})
    data.loc[[1, 5], "Days"] = np.nan
    data.loc[7, "Reaction"] = np.nan
    data.loc[9, "Subject"] = None
    return data


def test_missing_values_are_refused_or_dropped():
    with pytest.raises(
        ValueError, match=r"4 of 180 rows: 'Days' \(2\), 'Subject' \(1\)"
    ):
        MixedEffectsRegressor(formula=FORMULA).fit(gaps())
    dropping = MixedEffectsRegressor(formula=FORMULA, na_action="drop")
    weights = np.arange(1.0, 181.0)
    model = dropping.fit(gaps(), sample_weight=weights)
    whole = gaps().notna().all(axis=1)
    expected = MixedEffectsRegressor(formula=FORMULA).fit(
        gaps()[whole], sample_weight=weights[whole]
    )
    assert model.log_likelihood_ == expected.log_likelihood_
    assert model.score(gaps()) == pytest.approx(expected.score(gaps()[whole]))
    assert model._layout.formula.n_dropped == 4
    with pytest.raises(ValueError, match=r"missing in 2 of 180 rows: 'Days' \(2\)"):
        model.predict(gaps())
    with pytest.raises(ValueError, match="na_action='drop' is for formulas"):
        MixedEffectsRegressor(na_action="drop").fit(SLEEP[["Days"]], SLEEP["Reaction"])


@pytest.mark.parametrize("kind", [np.asarray, list, pl.Series, pd.Series])
def test_gaps_in_y_groups_and_weights_are_dropped_alike(kind):
    y = SLEEP["Reaction"].to_numpy(copy=True)
    weights, labels = np.ones(180), SLEEP["Subject"].astype(object).to_numpy(copy=True)
    y[3], weights[4], labels[5], weights[6] = np.nan, np.nan, None, 0.0
    model = MixedEffectsRegressor(formula="Days + (1 | groups)", na_action="drop")
    model.fit(
        SLEEP[["Days"]], kind(y), groups=kind(labels), sample_weight=kind(weights)
    )
    assert model.fit_.n_obs == 176
    assert model._layout.formula.n_dropped == 3


def test_rows_of_weight_zero_teach_nothing():
    data = SLEEP.astype({"cond": str})
    data.loc[:9, ["cond", "Days"]] = ("elsewhere", 1e6)
    weights = np.repeat([0.0, 1.0], [10, 170])
    model = MixedEffectsRegressor(
        formula="Reaction ~ cond + poly(Days, 2) + (1 | Subject)"
    )
    model.fit(data, sample_weight=weights)
    assert "condelsewhere" not in model.fixed_effects_
    expected = clone(model).fit(data[10:])
    assert_allclose(model.coef_, expected.coef_, 1e-9)


def test_in_the_tools_of_scikit_learn():
    model = clone(MixedEffectsRegressor(formula=FORMULA))
    cv = KFold(3, shuffle=True, random_state=0)
    scores = cross_validate(model, SLEEP, cv=cv)["test_score"]
    named = cross_validate(model, SLEEP, SLEEP["Reaction"], cv=cv, scoring="r2")
    assert_allclose(scores, named["test_score"], 1e-12)
    formulas = ["Reaction ~ 1 + (1 | Subject)", FORMULA]
    search = GridSearchCV(model, {"formula": formulas}, cv=cv).fit(SLEEP)
    assert search.best_params_ == {"formula": FORMULA}
    assert search.predict(SLEEP.drop(columns="Reaction")).shape == (180,)


def test_rows_may_be_added():
    parts = [SLEEP[start : start + 60] for start in range(0, 180, 60)]
    model = MixedEffectsRegressor(formula=FORMULA)
    for part in parts:
        model.partial_fit(part)
    assert model.sigma_ == pytest.approx(sleep().sigma_, rel=1e-9)
    batched = MixedEffectsRegressor(formula=FORMULA).fit_batches((p,) for p in parts)
    assert batched.sigma_ == pytest.approx(sleep().sigma_, rel=1e-9)
    new = SLEEP["Subject"] == "308"
    adapted = MixedEffectsRegressor(formula=FORMULA).fit(SLEEP[~new]).adapt(SLEEP[new])
    assert "308" in adapted.effects_["Subject"].index


def test_polars_frames():
    data = pl.from_pandas(MACHINES)
    model = MixedEffectsRegressor(formula="score ~ Machine + (1 | Worker)").fit(data)
    expected = machines("score ~ Machine + (1 | Worker)")
    assert_allclose(model.coef_, expected.coef_, 1e-12)
    assert_allclose(model.predict(data), expected.predict(MACHINES), 1e-12)
    text = data.with_columns(pl.col("Machine").cast(pl.String))
    assert_allclose(model.predict(text), expected.predict(MACHINES), 1e-12)


def test_grouping_columns_may_be_absent_for_the_population():
    rows = SLEEP[["Days"]].head(2)
    assert sleep().predict(rows, random_effects=False).shape == (2,)
    with pytest.raises(ValueError, match="needs the column 'Subject'"):
        sleep().predict(rows)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ~ Dayz + (1 | Subject)", "Did you mean 'Days'"),
        ("Reaction ~ Days + (1 | Sbject)", "Did you mean 'Subject'"),
        ("Reaction ~ . + (1 | Subject)", "name the columns"),
        ("Reaction ~ log(", "cannot read 'log\\('"),
        ("Reaction ~ Days +* cond", "cannot read .*incorrectly used. Days"),
        ("Reaction ~ foo(Days)", "name 'foo' is not defined"),
        ("Subject ~ Days", "needs one column of numbers, but 'Subject' has 18"),
        ("Reaction ~ offset(poly(Days, 2))", "one column of numbers"),
        ("Reaction ~ Days + (0 | Subject)", "has no coefficient"),
        ("Reaction ~ Days + (1 | Subject) + (1 | Subject)", "varies twice"),
        ("Reaction ~ Days + x(|", "cannot read"),
    ],
)
def test_errors(formula, message):
    with pytest.raises(ValueError, match=message):
        MixedEffectsRegressor(formula=formula).fit(SLEEP)


def test_names_that_collide():
    data = SLEEP.assign(condmid=SLEEP["Days"] ** 2)
    model = MixedEffectsRegressor(formula="Reaction ~ cond + condmid + (1 | Subject)")
    with pytest.raises(ValueError, match="two different columns called 'condmid'"):
        model.fit(data)
    model = MixedEffectsRegressor(formula="Reaction ~ cond + (1 | condmid)")
    with pytest.raises(ValueError, match="two different columns called 'condmid'"):
        model.fit(data)
    with pytest.raises(ValueError, match="'Days', but there are 2 of this name"):
        MixedEffectsRegressor(formula=FORMULA).fit(
            pd.concat([SLEEP, SLEEP["Days"]], axis=1)
        )


def test_a_formula_says_everything():
    for parameters in ({"random": "Subject"}, {"fixed": []}, {"fit_intercept": False}):
        with pytest.raises(
            ValueError, match=f"{next(iter(parameters))} cannot be given"
        ):
            MixedEffectsRegressor(formula=FORMULA, **parameters).fit(SLEEP)
    with pytest.raises(ValueError, match="must be a DataFrame"):
        MixedEffectsRegressor(formula=FORMULA).fit(SLEEP.to_numpy())


def test_a_bad_formula_has_a_repr():
    assert "x(" in repr(MixedEffectsRegressor(formula="y ~ x((|"))


def test_without_formulaic(monkeypatch):
    monkeypatch.setitem(sys.modules, "formulaic", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-lmm\[formula\]"'):
        MixedEffectsRegressor(formula=FORMULA).fit(SLEEP)


def test_the_rows_of_the_fit_can_be_given_again():
    model = MixedEffectsRegressor(formula=FORMULA, na_action="drop").fit(gaps())
    rows = rows_of_fit(model, gaps(), None)
    assert (
        rows.positions.tolist() == np.flatnonzero(gaps().notna().all(axis=1)).tolist()
    )
    with pytest.raises(ValueError, match="rows"):
        rows_of_fit(model, gaps()[20:], None)


def test_weights_of_lmer_are_precisions():
    by_name = lmer(FORMULA, SLEEP, weights="w")
    by_value = lmer(FORMULA, SLEEP, weights=SLEEP["w"].to_numpy(), solver="lbfgs")
    assert by_name.log_likelihood_ == pytest.approx(by_value.log_likelihood_, rel=1e-10)
    assert by_value.solver_ == "lbfgs"
    table = lmer(FORMULA, pyarrow.Table.from_pandas(SLEEP), weights="w")
    assert table.log_likelihood_ == by_name.log_likelihood_
    with pytest.raises(ValueError, match=r"^weights='v' needs .*no such column"):
        lmer(FORMULA, SLEEP, weights="v")


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_types_of_text(dtype):
    data = MACHINES.astype({"Machine": str}).astype({"Machine": dtype})
    model = MixedEffectsRegressor(formula="score ~ Machine + (1 | Worker)").fit(data)
    expected = machines("score ~ Machine + (1 | Worker)")
    assert_allclose(model.coef_, expected.coef_, 1e-12)


def test_types_of_numbers():
    formula = "Reaction ~ C(Days) + late + (1 | Subject)"
    data = SLEEP.assign(late=SLEEP["off"] > SLEEP["off"].median())
    whole = MixedEffectsRegressor(formula=formula).fit(data)
    nullable = MixedEffectsRegressor(formula=formula).fit(
        data.astype({"Days": "Int64", "late": "boolean"})
    )
    pd.testing.assert_series_equal(whole.fixed_effects_, nullable.fixed_effects_)
    assert "C(Days)9" in whole.fixed_effects_
    gappy = data.astype({"Days": "Int64"})
    gappy.loc[[0, 1], "Days"] = pd.NA
    dropped = lmer("Reaction ~ Days + (1 | Subject)", gappy, na_action="drop")
    assert dropped.fit_.n_obs == 178


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.date_range("2020", periods=180)),
        pd.Series(["a", 1] * 90, dtype=object),
    ],
)
def test_types_that_are_refused(values):
    with pytest.raises(ValueError, match="The formula reads 'odd', whose values are"):
        lmer("Reaction ~ odd + (1 | Subject)", SLEEP.assign(odd=values))


def test_arrow_tables():
    table = pyarrow.Table.from_pandas(SLEEP)
    model = lmer(FORMULA, table)
    assert model.log_likelihood_ == sleep().log_likelihood_
    assert_allclose(model.predict(table), sleep().predict(SLEEP))


def test_labels_are_asked_for_where_a_bar_says_so():
    def requested(formula):
        model = MixedEffectsRegressor(formula=formula)
        return model.get_metadata_routing().fit.requests["groups"]

    assert requested("Days + (1 | groups)")
    assert not requested(FORMULA)


def test_categories_of_later_batches():
    data = frame("cake").astype({"recipe": str})
    model = MixedEffectsRegressor(formula="angle ~ recipe + (1 | replicate)")
    first = data["recipe"] == "A"
    with pytest.raises(ValueError, match="first need every category"):
        model.fit_batches([(data[first], None), (data[~first], None)])
