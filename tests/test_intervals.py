"""Intervals and standard errors through the estimator, against lme4's numbers."""

import json

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, ORACLES_DIR, fitted, model
from numpy.testing import assert_allclose
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.datasets import load_sleepstudy
from sklearn_lmm.exceptions import PerfectFitWarning, SingularFitWarning
from sklearn_lmm.intervals import (
    confidence_intervals,
    profile,
    variance_parameters,
)

EXPECTED = json.loads((ORACLES_DIR / "intervals.json").read_text())
PROFILED = [name for name, expected in EXPECTED.items() if "profile" in expected]
WITH_COVARIANCE = [
    name
    for name, expected in EXPECTED.items()
    if "covariance_of_theta_and_sigma" in expected and not ORACLES[name]["singular"]
]
Z = stats.norm.ppf(0.975)


def our_name(theirs):
    """Return our name of lme4's "cor_Days.(Intercept)|Subject"."""
    if "|" not in theirs:
        return theirs
    kind, rest = theirs.split("_", 1)
    coefficients, factor = rest.split("|")
    factor = ":".join(sorted(factor.split(":")))
    if kind == "cor":
        coefficients = ", ".join(reversed(coefficients.split(".", 1)))
    return f"{kind}({coefficients} | {factor})"


@pytest.mark.parametrize("name", EXPECTED)
def test_wald_intervals_of_fixed_effects(name):
    table = confidence_intervals(fitted(name)[0], parameters="fixed")
    expected = np.array(EXPECTED[name]["wald"])
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(table[["lower", "upper"]] - expected) < 2e-6 * scale).all(axis=None)
    assert (table["note"] == "").all()


@pytest.mark.parametrize("name", [n for n in EXPECTED if "t" in EXPECTED[n]])
def test_wald_intervals_with_satterthwaites_degrees_of_freedom(name):
    options = {"parameters": "fixed", "df": "satterthwaite"}
    table = confidence_intervals(fitted(name)[0], **options)
    expected = np.array(EXPECTED[name]["t"]).T
    width = np.ptp(expected, axis=1)[:, None]
    assert (np.abs(table[["lower", "upper"]] - expected) < 1e-5 * width).all(axis=None)


@pytest.mark.parametrize("name", WITH_COVARIANCE)
def test_standard_errors_from_the_covariance_of_theta_and_sigma(name):
    """The delta method on lme4's scale, by differences."""
    est = fitted(name)[0]
    covariance = np.array(EXPECTED[name]["covariance_of_theta_and_sigma"])
    oracle = ORACLES[name]
    ours = variance_parameters(est)
    order = [
        list(map(sorted_parts, oracle["theta"])).index(n) for n in theta_names(est)
    ]
    order.append(len(order))
    covariance = covariance[np.ix_(order, order)]
    x = np.append(est.theta_, est.sigma_)

    def deviations_and_correlations(x):
        values = []
        for term, part in zip(
            est._layout.roles.terms, est.fit_.model().parameters, strict=True
        ):
            L = term.structure.factor(x[:-1][part], len(term.coefficients))
            S = x[-1] ** 2 * L @ L.T
            sd = np.sqrt(np.diag(S))
            i, j = np.triu_indices(len(S), 1)
            together = type(term.structure).__name__ == "Unstructured"
            values += [*sd, *(S / np.outer(sd, sd))[i, j][: together * len(i)]]
        return np.array([*values, x[-1]])

    steps = 1e-6 * np.maximum(1.0, np.abs(x))
    J = np.array(
        [
            (deviations_and_correlations(x + h) - deviations_and_correlations(x - h))
            / (2 * h.max())
            for h in np.diag(steps)
        ]
    )
    expected = np.sqrt(np.diag(J.T @ covariance @ J))
    assert_allclose(ours["std_error"], expected, rtol=2e-4)


def sorted_parts(name):
    factor, rest = name.split(".", 1)
    return ":".join(sorted(factor.split(":"))) + "." + rest


def theta_names(est):
    """Return the names of theta as lme4 has them, in our order."""
    return [
        sorted_parts(f"{est._layout.roles.groupings[term.factor].name}.{name}")
        for term in est._layout.roles.terms
        for name in term.structure.names(term.coefficients)
    ]


@pytest.mark.parametrize("name", PROFILED)
def test_profile_intervals(name):
    table = confidence_intervals(fitted(name)[0], method="profile")
    expected = EXPECTED[name]["profile"]
    assert set(table.index) == {our_name(theirs) for theirs in expected}
    for theirs, ends in expected.items():
        ours = table.loc[our_name(theirs), ["lower", "upper"]].to_numpy(float)
        assert np.abs(ours - ends).max() <= 1e-3 * np.abs(ends).max()


def test_profile_of_reml_is_that_of_ml():
    reml, ml = (profile(fitted(f"sleep_rs_{m}")[0]) for m in ("reml", "ml"))
    assert_allclose(reml.intervals()["lower"], ml.intervals()["lower"], rtol=1e-6)
    assert not np.allclose(reml.estimates, ml.estimates, rtol=1e-3)


def test_lower_coverage_is_read_off_the_same_profile():
    est = fitted("sleep_rs_ml")[0]
    wide = profile(est, coverage=0.99)
    narrow = profile(est, coverage=0.8)
    columns = ["lower", "upper"]
    assert_allclose(
        wide.intervals(0.8)[columns], narrow.intervals()[columns], rtol=2e-4
    )
    with pytest.raises(ValueError, match="goes further"):
        narrow.intervals(0.95)


def test_profile_frame_is_for_a_picture():
    traced = profile(fitted("sleep_rs_reml")[0], ["Days", "sigma"], coverage=0.95)
    assert list(traced.frame.columns) == ["parameter", "value", "zeta"]
    for _, one in traced.frame.groupby("parameter"):
        assert one["value"].is_monotonic_increasing
        assert one["zeta"].is_monotonic_increasing
        assert_allclose(one["zeta"].iloc[[0, -1]], [-Z, Z], atol=1e-7)


def test_intervals_follow_the_units():
    X, y = load_sleepstudy(return_X_y=True)
    model = MixedEffectsRegressor("(1 + Days | Subject)", method="ml")
    plain = confidence_intervals(model.fit(X, y), method="profile")
    other = X.assign(Days=24.0 * X["Days"])
    scaled = confidence_intervals(model.fit(other, y / 1000.0), method="profile")
    factor = np.array([1.0, 1.0 / 24, 1.0, 1.0 / 24, 1000.0, 1.0]) / 1000.0
    for end in ("lower", "upper"):
        assert_allclose(scaled[end], plain[end] * factor, rtol=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "identity", "compound_symmetry"])
def test_structures(covariance):
    m = model("machines_cellslopes_ml")
    slopes = ["MachineA", "MachineB", "MachineC"]
    effect = RandomEffect(
        "Worker", slopes=slopes, intercept=False, covariance=covariance
    )
    est = MixedEffectsRegressor(effect, fixed=slopes[1:], method="ml").fit(m.X, m.y)
    table = confidence_intervals(est, method="profile", parameters="variance")
    assert (table["lower"] < table["estimate"]).all()
    assert (table["estimate"] < table["upper"]).all()
    names = {
        "diagonal": [f"sd({slope} | Worker)" for slope in slopes],
        "identity": ["sd(all | Worker)"],
        "compound_symmetry": ["sd(all | Worker)", "cor(all | Worker)"],
    }
    assert list(table.index) == [*names[covariance], "sigma"]
    wald = confidence_intervals(est, parameters="variance")
    # Two methods for one thing: about as wide, on the scale of either.
    ratio = (table["upper"] - table["lower"]) / (wald["upper"] - wald["lower"])
    assert ratio.between(0.7, 1.6).all()


def test_singular_fit_has_reasons_and_no_bare_nan():
    for name in ("dyestuff2_singular_reml", "synth_crossed_zerocorr_reml"):
        est = fitted(name)[0]
        for method in ("wald", "profile"):
            table = confidence_intervals(est, method=method)
            missing = table[["lower", "upper"]].isna().any(axis=1)
            assert (table.loc[missing, "note"] != "").all()
        errors = variance_parameters(est)
        assert (errors.loc[errors["std_error"].isna(), "note"] != "").all()
        assert (errors["note"] != "").all()
    table = confidence_intervals(fitted("dyestuff2_singular_reml")[0], method="profile")
    deviation = table.loc["sd((Intercept) | Batch)"]
    assert deviation["lower"] == 0.0 < deviation["upper"]
    assert "bound" in deviation["note"]


def test_response_without_errors():
    X = pd.DataFrame({"x": np.arange(12.0), "g": np.repeat(list("abc"), 4)})
    with pytest.warns(PerfectFitWarning):
        est = MixedEffectsRegressor("g").fit(X, 2.0 * X["x"])
    for method in ("wald", "profile"):
        table = confidence_intervals(est, method=method)
        assert table["note"].str.contains("explained exactly").all()
    assert variance_parameters(est)["std_error"].isna().all()


def test_no_random_effects():
    X, y = load_sleepstudy(return_X_y=True)
    est = MixedEffectsRegressor([], method="ml").fit(X[["Days"]], y)
    table = confidence_intervals(est, method="profile", coverage=0.9)
    # Regression has its profile in closed form.
    rss, n = len(y) * est.sigma_**2, len(y)
    t = np.sqrt(n * np.expm1(stats.norm.ppf(0.95) ** 2 / n))
    centred = X["Days"] - X["Days"].mean()
    half = t * np.sqrt(rss / n / (centred**2).sum())
    assert_allclose(
        table.loc["Days", ["lower", "upper"]].to_numpy(float),
        est.coef_[0] + half * np.array([-1.0, 1.0]),
        rtol=1e-7,
    )


def test_unidentified_term_says_so():
    X, y = load_sleepstudy(return_X_y=True)
    X = X.assign(all="same")
    model = MixedEffectsRegressor(["Subject", "all"])
    with pytest.warns(UserWarning, match="all"):
        est = model.fit(X, y)
    for method in ("wald", "profile"):
        table = confidence_intervals(est, method=method)
        assert "nothing" in table.loc["sd((Intercept) | all)", "note"]
        assert (table["note"].drop("sd((Intercept) | all)") == "").all()
    table = confidence_intervals(est, parameters="fixed", df="satterthwaite")
    assert table["lower"].isna().to_dict() == {"(Intercept)": True, "Days": False}
    assert "degrees of freedom" in table.loc["(Intercept)", "note"]


def test_names_and_messages():
    est = fitted("sleep_rs_reml")[0]
    table = confidence_intervals(est, parameters=["sigma", "Days"])
    assert list(table.index) == ["Days", "sigma"]
    with pytest.raises(ValueError, match=r"no parameter 'days'.*'Days'"):
        confidence_intervals(est, parameters="days")
    for method, options in {
        "wald": {"n_resamples": 10},
        "profile": {"X": [[1.0]], "n_resamples": 10},
    }.items():
        message = f"'{method}' does not take n_resamples: .* for method='bootstrap'"
        with pytest.raises(ValueError, match=message):
            confidence_intervals(est, method=method, **options)
    with pytest.raises(ValueError, match="'bootstrap' needs the rows of the fit"):
        confidence_intervals(est, method="bootstrap")
    with pytest.raises(ValueError, match="coverage"):
        confidence_intervals(est, coverage=1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        profile(est, coverage=1.5)


def test_rank_deficient_columns_have_no_row():
    table = confidence_intervals(fitted("sleep_rankdef_ml")[0], method="profile")
    same = confidence_intervals(fitted("sleep_rs_ml")[0], method="profile")
    assert list(table.index) == list(same.index)
    assert_allclose(table["upper"], same["upper"], rtol=1e-6)


def test_singular_fits_warn_where_they_are_fitted_not_here():
    X, y = load_sleepstudy(return_X_y=True)
    y = y - y.groupby(X["Subject"]).transform("mean")
    with pytest.warns(SingularFitWarning):
        est = MixedEffectsRegressor("Subject").fit(X, y)
    assert profile(est).intervals()["lower"].notna().all()
