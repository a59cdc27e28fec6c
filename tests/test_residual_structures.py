"""Residual structures as specs, and on the columns of data."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

from sklearn_lmm import (
    MixedEffectsRegressor,
    diagnostics,
    inference,
    intervals,
    residuals,
)
from sklearn_lmm.datasets import load_sleepstudy
from sklearn_lmm.residuals import (
    AR1,
    ARMA,
    ContinuousAR1,
    EqualCorrelation,
    Exponential,
    ExponentialVariance,
    Gaussian,
    Heteroscedastic,
    KnownSigma,
    KnownVariance,
    Matern,
    PowerVariance,
    UnstructuredErrors,
)

STRUCTURES = [
    AR1("week", "patient"),
    AR1(phi=0.5),
    ContinuousAR1("day", ("patient", "eye")),
    ARMA(2, 1, "week", ar=[0.5, 0.1]),
    EqualCorrelation("litter", rho=-0.1),
    UnstructuredErrors("visit", variances=False),
    Exponential(["east", "north"], range=3, nugget=True),
    Gaussian("day", nugget=0.2),
    Matern(("east", 2), nu=2.5),
    Heteroscedastic("sex", ratios={"m": 2.0}),
    PowerVariance("age", power=1),
    ExponentialVariance("age"),
    KnownVariance("v", sigma=None),
    KnownSigma(2.0),
    AR1("week") * PowerVariance("age") * Heteroscedastic("sex") * KnownSigma(1.0),
]
X, Y = load_sleepstudy(return_X_y=True)
X = X.assign(Subject=X["Subject"].astype(str))
DATES = pd.Timestamp("2020-02-27") + pd.to_timedelta(X["Days"], "D")


def fit(residual, data=X, random="Subject", y=Y, **options):
    fit_params = {
        k: options.pop(k) for k in ("groups", "sample_weight") & options.keys()
    }
    return MixedEffectsRegressor(random, residual=residual, **options).fit(
        data, y, **fit_params
    )


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_repr_evaluates_to_an_equal_hashable_object(structure):
    again = eval(repr(structure), vars(residuals).copy())
    assert again == structure
    assert hash(again) == hash(structure)
    assert pickle.loads(pickle.dumps(structure)) == structure


def test_joining_keeps_the_order_and_is_associative():
    a, b, c = AR1("t"), PowerVariance("v"), KnownSigma(1.0)
    assert (a * b) * c == a * (b * c)
    assert repr(a * b) == "AR1(time='t') * PowerVariance(column='v')"
    with pytest.raises(TypeError):
        a * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AR1(1.5), "time of a residual structure"),
        (lambda: AR1(phi=1.0), "between -1 and 1"),
        (lambda: AR1(phi="x"), "phi='x' of AR1"),
        (lambda: ARMA(0, 0), "no correlation"),
        (lambda: ARMA(-1, 0), "order of ar"),
        (lambda: ARMA(1, 0, ar=[0.1, 0.2]), "ar has 2 values, not 1"),
        (lambda: Matern("t", nu=1.0), "nu=1.0"),
        (lambda: Exponential("t", nugget=1.5), "nugget=1.5"),
        (lambda: KnownSigma(0.0), "sigma=0.0"),
        (lambda: Heteroscedastic("sex", ratios={"m": -2.0}), "ratio of 'm' is -2.0"),
        (lambda: Heteroscedastic("sex", ratios={"m": "x"}), "ratio of 'm' is 'x'"),
        (lambda: AR1("t") * ARMA(1, 0, "t"), "has 2 correlations"),
        (lambda: KnownVariance("v") * KnownSigma(1.0), "what sigma is"),
    ],
)
def test_structures_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_estimator_with_a_structure_can_be_cloned():
    model = MixedEffectsRegressor("Subject", residual=AR1("Days"))
    assert clone(model).residual == AR1("Days")


def test_row_order_does_not_matter_where_times_are_given():
    order = np.random.default_rng(0).permutation(len(X))
    model, shuffled = fit(AR1("Days")), fit(AR1("Days"), X.iloc[order], y=Y.iloc[order])
    assert_allclose(shuffled.log_likelihood_, model.log_likelihood_, rtol=1e-12)
    assert_allclose(shuffled.residual_parameters_, model.residual_parameters_)
    assert_allclose(shuffled.predict(X), model.predict(X))


def test_without_a_time_rows_follow_each_other():
    assert_allclose(fit(AR1()).log_likelihood_, fit(AR1("Days")).log_likelihood_)


def test_groups_are_found_wherever_they_are():
    expected = fit(AR1("Days")).log_likelihood_
    bare, subject = X[["Days"]], X["Subject"]
    days = pd.DataFrame({"Subject": subject, "day": X["Days"]})
    for structure, data, groups, random in (
        (AR1("Days", "Subject"), X, None, "Subject"),
        (AR1(0, 1), X.to_numpy(), None, 1),
        (AR1("Days"), bare, subject, None),
        (AR1("day", "Subject"), bare, days, ["Subject"]),
        (AR1("Days", ("Subject", "Subject2")), X.assign(Subject2=subject), None, [1]),
    ):
        model = fit(structure, data, random, fixed=[0], groups=groups)
        assert_allclose(model.log_likelihood_, expected, rtol=1e-10)


def test_without_random_effects():
    bare = X[["Days"]]
    one = fit(AR1("Days", "Subject"), random=[])
    for model in (
        fit(AR1("Days"), bare, [], groups=X["Subject"]),
        fit(AR1(0, 1), X.to_numpy(), []),
    ):
        assert_allclose(model.log_likelihood_, one.log_likelihood_, rtol=1e-10)
    series = fit(AR1(), bare[:30], [], y=Y[:30])
    assert series.residual_parameters_.index.tolist() == ["phi"]


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.SingularFitWarning")
def test_the_innermost_factor_is_the_default():
    data = X.assign(site=X["Subject"].astype(int) % 4)
    nested = fit(AR1("Days"), data, ["site", "Subject"], method="ml")
    told = fit(AR1("Days", "Subject"), data, ["site", "Subject"], method="ml")
    assert nested.log_likelihood_ == told.log_likelihood_


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.RankDeficiencyWarning")
def test_which_columns_are_fixed_effects():
    data = X.assign(v=1.0 + X["Days"], sex=np.where(X["Days"] > 4, "f", "m"), site=1)
    for structure, expected in (
        (AR1("Days"), ["Days", "v", "site"]),
        (AR1("Days", ("Subject", "site")), ["Days", "v"]),
        (KnownVariance("v", sigma=None), ["Days", "site"]),
        (Heteroscedastic("sex") * PowerVariance("v"), ["Days", "v", "site"]),
    ):
        kept = [n for n in ("Days", "v", "site") if n in expected]
        columns = data if "sex" in repr(structure) else data.drop(columns="sex")
        model = fit(structure, columns)
        names = columns.columns.to_list()
        assert [names[j] for j in model._layout.roles.fixed] == kept


def test_crossed_factors_with_series_in_time():
    """The engine's numbers from a model with everything in one dense matrix."""
    rng = np.random.default_rng(5)
    n = 240
    data = pd.DataFrame(
        {
            "subject": np.repeat(np.arange(12), 20),
            "item": rng.integers(0, 15, n),
            "trial": np.tile(np.arange(20), 12),
            "x": rng.normal(size=n),
        }
    )
    errors = rng.normal(size=n)
    for t in range(1, n):
        if t % 20:
            errors[t] = 0.6 * errors[t - 1] + 0.8 * errors[t]
    effects = rng.normal(size=12)[data["subject"]] + rng.normal(size=15)[data["item"]]
    y = data["x"] + effects + errors
    both, structure = ["subject", "item"], AR1("trial", "subject")
    model = fit(structure, data, both, y=y, fixed=["x"], method="ml")
    phi, sigma2 = model.residual_parameters_["phi"], model.sigma_**2
    same = data["subject"].to_numpy()[:, None] == data["subject"].to_numpy()
    apart = np.abs(np.subtract.outer(*[data["trial"].to_numpy()] * 2))
    V = sigma2 * np.where(same, phi**apart, 0.0)
    for name in ("subject", "item"):
        labels = data[name].to_numpy()
        V += model.covariances_[name].iloc[0, 0] * (labels[:, None] == labels)
    rest = y - model.intercept_ - model.fixed_effects_["x"] * data["x"]
    quadratic = rest @ np.linalg.solve(V, rest)
    dense = -0.5 * (n * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + quadratic)
    assert_allclose(model.log_likelihood_, dense, rtol=1e-10)
    assert model.converged_
    assert 0.4 < phi < 0.8
    assert fit(structure, data, "item", y=y, fixed=["x"]).converged_


def test_beside_a_formula():
    expected = fit(
        AR1("day", "who"), X.assign(day=X["Days"], who=X["Subject"]), fixed=[0]
    )
    data = X.assign(day=X["Days"], who=X["Subject"])
    text = "Reaction ~ Days + (1 | Subject)"
    model = MixedEffectsRegressor(formula=text, residual=AR1("day", "who"))
    model = model.fit(data.assign(Reaction=Y))
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-12)
    gaps = data.assign(Reaction=Y.where(X["Days"] != 3))
    dropped = clone(model).set_params(na_action="drop").fit(gaps)
    kept = X["Days"] != 3
    expected = fit(AR1("Days"), X[kept], y=Y[kept])
    assert_allclose(dropped.log_likelihood_, expected.log_likelihood_, rtol=1e-12)
    structure = Heteroscedastic("half")
    halves = data.assign(Reaction=Y, half=np.where(X["Days"] > 4, "b", "a"))
    unequal = MixedEffectsRegressor(formula=text, residual=structure).fit(halves)
    a, b = unequal.predict(
        halves.iloc[[3, 3]].assign(half=["a", "b"]), return_std=True
    )[1]
    assert a != b


def test_frames_of_polars():
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(X)
    expected = fit(
        AR1("Days") * Heteroscedastic("half"), X.assign(half=X["Days"] > 4), fixed=[0]
    )
    model = MixedEffectsRegressor("Subject", fixed=["Days"], residual=expected.residual)
    model.fit(frame.with_columns(half=polars.col("Days") > 4), Y.to_numpy())
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-12)


def test_numbers_of_any_kind_stay_in_the_fixed_part():
    """A covariate of the errors is a fixed effect, too, if it is a number."""
    late = X.assign(late=X["Days"] > 4)
    structure = Heteroscedastic("late")
    expected = fit(structure, late)
    assert "late" in expected.fixed_effects_
    as_objects = fit(structure, late.assign(late=late["late"].astype(object)))
    assert_allclose(as_objects.coef_, expected.coef_, rtol=1e-10)


def test_booleans_of_polars_are_numbers():
    polars = pytest.importorskip("polars")
    late = X.assign(late=X["Days"] > 4)
    expected = fit(Heteroscedastic("late"), late)
    model = MixedEffectsRegressor("Subject", residual=expected.residual)
    model.fit(polars.from_pandas(late), Y.to_numpy())
    assert_allclose(model.coef_, expected.coef_, rtol=1e-10)


def test_dates_count_in_days():
    model = fit(ContinuousAR1("date"), X.assign(date=DATES))
    expected = fit(ContinuousAR1("Days"))
    assert_allclose(model.residual_parameters_, expected.residual_parameters_)


@pytest.mark.parametrize(
    ("structure", "change", "message"),
    [
        (AR1("week"), {}, "no such column"),
        (AR1("Days"), {"Days": 1.5 * X["Days"]}, "ContinuousAR1 for any times"),
        (AR1("Days"), {"Days": X["Days"] // 2}, "90 rows have the time"),
        (Exponential("Days"), {"Days": X["Days"] // 2}, "nugget=True"),
        (AR1("t"), {"t": X["Days"].where(X["Days"] > 0)}, "18 missing"),
        (ContinuousAR1("t"), {"t": DATES.where(X["Days"] > 0)}, "18 missing"),
        (ExponentialVariance("t"), {"t": DATES}, "a column of dates: expected numbers"),
        (AR1("Subject"), {"Subject": "s" + X["Subject"]}, "residual names 'Subject'"),
        (AR1("Days", "row"), {"row": range(180)}, "a single row"),
        (PowerVariance("Days"), {}, "is 0 in some rows"),
        (KnownVariance("Days"), {}, "variances are positive"),
        (Heteroscedastic("Days", ratios={1: 2.0}), {}, "lack 2, 3"),
        (
            Heteroscedastic("half", ratios={"a": 2.0, "b": 3.0}),
            {"half": np.where(X["Days"] > 4, "b", "a")},
            "has a ratio for 'a', the first",
        ),
        (EqualCorrelation(rho=-0.5), {}, "no correlation of these rows"),
        (ARMA(2, 0, "Days", ar=[0.9, 0.9]), {}, "no correlation of these rows"),
        ("AR1('Days')", {}, "a structure of sklearn_lmm.residuals"),
        (
            UnstructuredErrors("visit"),
            {"visit": X["Days"] + 10 * (X["Subject"] > "340")},
            "no group has rows of both 0, 10",
        ),
    ],
)
def test_columns_that_do_not_fit(structure, change, message):
    with pytest.raises(ValueError, match=message):
        fit(structure, X.assign(**change), "Subject", fixed=[])


def test_crossed_factors_do_not_tell_the_groups():
    data = X.assign(item=X["Days"] % 3)
    with pytest.raises(ValueError, match="nested in all others: give groups"):
        fit(AR1("Days"), data, ["Subject", "item"])


def test_where_rows_must_stay_together():
    model = MixedEffectsRegressor("Subject", residual=AR1("Days"))
    with pytest.raises(ValueError, match="partial_fit adds up sums over rows"):
        model.partial_fit(X, Y)
    with pytest.raises(ValueError, match="fit_batches adds up"):
        model.fit_batches([(X, Y)])
    with pytest.raises(ValueError, match="adapt adds up"):
        model.fit(X, Y).adapt(X, Y)
    with pytest.raises(ValueError, match="stands for several"):
        fit(AR1("Days"), sample_weight=np.full(len(X), 2.0))
    with pytest.raises(ValueError, match="solver='em'"):
        fit(AR1("Days"), solver="em")


def test_what_takes_errors_for_independent_says_so():
    model = fit(AR1("Days"))
    with pytest.raises(ValueError, match="takes errors for independent and equal"):
        diagnostics.leverage(model, X, Y)
    with pytest.raises(ValueError, match="takes errors for equal in size"):
        diagnostics.r_squared(fit(ExponentialVariance("Days")))
    assert 0 < diagnostics.r_squared(model)["marginal"] < 1


def test_satterthwaite_and_wald_intervals_know_the_parameters_of_the_errors():
    model, plain = fit(AR1("Days")), fit(None)
    table = inference.coefficient_table(model)
    assert (table["df"] > 5).all()
    assert table["df"]["Days"] < inference.coefficient_table(plain)["df"]["Days"]
    widths = intervals.confidence_intervals(model)
    assert widths.loc["sigma", "lower"] < model.sigma_ < widths.loc["sigma", "upper"]


def test_likelihood_ratio_of_correlated_and_independent_errors():
    small, large = fit(None, method="ml"), fit(AR1("Days"), method="ml")
    table = inference.likelihood_ratio_test(small, large)
    assert table["n_parameters"].to_list() == [4, 5]
    statistic = 2.0 * (large.log_likelihood_ - small.log_likelihood_)
    assert_allclose(table["statistic"].iloc[1], statistic)
    known = fit(AR1("Days", phi=0.3) * KnownSigma(30.0), method="ml")
    assert known.fit_.n_parameters == 3


def test_ones_and_zeros_as_weights():
    keep = X["Days"] != 3
    expected = fit(AR1("Days"), X[keep], y=Y[keep])
    model = fit(AR1("Days"), sample_weight=keep.astype(float))
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-12)


def test_precision_weights_are_known_variances():
    w = 1.0 + X["Days"] % 3
    weighted = fit(AR1("Days"), sample_weight=w, weights="precision")
    structure, data = KnownVariance("v", sigma=None), X.assign(v=1.0 / w)
    known = fit(AR1("Days") * structure, data)
    assert_allclose(weighted.log_likelihood_, known.log_likelihood_, rtol=1e-12)
    assert_allclose(weighted.sigma_, known.sigma_)
    plain = fit(None, sample_weight=w, weights="precision")
    alone = fit(structure, data)
    assert_allclose(alone.log_likelihood_, plain.log_likelihood_, rtol=1e-12)


def test_rows_that_stand_for_several_where_errors_are_independent():
    late = X.assign(late=X["Days"] > 4)
    twice = pd.concat([late, late[:40]]), pd.concat([Y, Y[:40]])
    weights = np.where(np.arange(len(X)) < 40, 2.0, 1.0)
    structure = Heteroscedastic("late")
    expected = fit(structure, twice[0], y=twice[1], fixed=["Days"])
    model = fit(structure, late, fixed=["Days"], sample_weight=weights)
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-12)
    assert_allclose(model.residual_parameters_, expected.residual_parameters_)


@pytest.mark.parametrize(
    ("free", "known"),
    [
        (AR1("Days"), lambda p: AR1("Days", phi=p.iloc[0])),
        (ContinuousAR1("Days"), lambda p: ContinuousAR1("Days", phi=p.iloc[0])),
        (
            ARMA(1, 1, "Days"),
            lambda p: ARMA(1, 1, "Days", ar=p.iloc[:1], ma=p.iloc[1:]),
        ),
        (
            Exponential("Days", nugget=True),
            lambda p: Exponential("Days", range=p["range"], nugget=p["nugget"]),
        ),
        (
            ExponentialVariance("Days"),
            lambda p: ExponentialVariance("Days", rate=p.iloc[0]),
        ),
        (
            Heteroscedastic("half"),
            lambda p: Heteroscedastic("half", ratios={True: p.iloc[0]}),
        ),
    ],
)
def test_known_parameters_are_kept(free, known):
    data = X.assign(half=X["Days"] > 4)
    estimated = fit(free, data, fixed=["Days"])
    parameters = estimated.residual_parameters_
    again = fit(known(parameters), data, fixed=["Days"])
    assert_allclose(again.residual_parameters_, parameters)
    assert_allclose(again.log_likelihood_, estimated.log_likelihood_, rtol=1e-10)
    assert len(again.fit_.theta_standardized) == 1
    told = intervals.variance_parameters(again).loc[parameters.index]
    assert told["std_error"].isna().all()
    assert set(told["note"]) == {"given, not estimated"}


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.PerfectFitWarning")
def test_a_response_without_errors():
    model = fit(AR1("Days") * ExponentialVariance("Days"), y=2.0 + 3.0 * X["Days"])
    assert_allclose(model.predict(X), 2.0 + 3.0 * X["Days"])
    assert model.residual_parameters_.isna().all()
    assert (model.predict(X, return_std=True)[1] == 0).all()


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.RankDeficiencyWarning")
@pytest.mark.parametrize("structure", [AR1("Days"), ExponentialVariance("Days")])
def test_columns_that_depend_on_others(structure):
    data = X.assign(twice=2.0 * X["Days"] + 1.0, other=X["Days"] ** 2)
    model = fit(structure, data)
    expected = fit(structure, data.drop(columns="twice"))
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-10)
    assert_allclose(model.predict(data), expected.predict(data.drop(columns="twice")))
    assert model.coef_[2] == 0.0


def test_units_do_not_matter():
    """A covariate far from 0 changes sigma only, a scale everything by itself."""
    model = fit(ExponentialVariance("Days"))
    data = X.assign(far=X["Days"] + 1000.0)
    far = fit(ExponentialVariance("far"), data, fixed=["Days"], y=1e3 * Y)
    assert_allclose(far.residual_parameters_, model.residual_parameters_, rtol=1e-5)
    assert_allclose(far.fixed_effects_, 1e3 * model.fixed_effects_, rtol=1e-6)
    shift = np.exp(1000.0 * far.residual_parameters_.iloc[0])
    assert_allclose(far.sigma_ * shift, 1e3 * model.sigma_, rtol=1e-4)
    for name, covariance in model.covariances_.items():
        assert_allclose(far.covariances_[name], 1e6 * covariance, rtol=1e-5)


def test_meta_analysis():
    """Closed forms: the estimate and its error, given the variance between."""
    rng = np.random.default_rng(0)
    v = rng.uniform(0.5, 2.0, 12)
    effects = 1.0 + rng.normal(size=12) * np.sqrt(v + 1.0)
    data = pd.DataFrame({"study": np.arange(12), "v": v})
    model = fit(KnownVariance("v"), data, "study", y=effects)
    tau2 = model.covariances_["study"].iloc[0, 0]
    w = 1.0 / (v + tau2)
    assert model.sigma_ == 1.0
    assert_allclose(model.intercept_, w @ effects / w.sum())
    assert_allclose(model.fit_.beta_covariance, 1.0 / w.sum())
    # The score of the restricted likelihood by tau2 is zero.
    rest = effects - model.intercept_
    score = (w**2) @ rest**2 - w.sum() + w @ w / w.sum()
    assert_allclose(score, 0.0, atol=1e-6)


def test_intervals_are_as_wide_as_the_errors_of_the_row():
    data = X.assign(half=np.where(X["Days"] > 4, "late", "early"))
    model = fit(Heteroscedastic("half"), data, fixed=["Days"])
    ratio = model.residual_parameters_["ratio[late]"]
    row = data.iloc[[3, 3]].assign(half=["early", "late"])
    early, late = model.predict(row, return_std=True)[1] ** 2
    assert_allclose(late - early, model.sigma_**2 * (ratio**2 - 1.0))
    width = np.diff(model.predict_interval(row))[:, 0]
    assert width[1] > width[0]
    mean = np.diff(model.predict_interval(row, kind="mean"))[:, 0]
    assert_allclose(mean[0], mean[1])
    with pytest.raises(ValueError, match="no ratio for some categories"):
        model.predict(row.assign(half="noon"), return_std=True)


def test_unknown_levels_need_no_times():
    model = fit(AR1("Days"))
    new = pd.DataFrame({"Days": [2.0, 2.0], "Subject": ["308", "new"]})
    prediction, std = model.predict(new, return_std=True)
    assert_allclose(prediction[1], model.intercept_ + 2.0 * model.coef_[0])
    assert std[1] > std[0] > model.sigma_
