"""Standard deviations and intervals in the user's terms."""

import warnings

import numpy as np
import pandas as pd
import pytest
from models import fitted
from numpy.testing import assert_allclose
from schools import NUMERIC, SCHOOL, X, Y, fit
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.exceptions import SingularFitWarning

NEW = pd.DataFrame({"Days": [0, 5, 12, 3], "Subject": ["308", "309", "310", "new"]})
# lme4 2.0, predict(se.fit=TRUE): given the covariances, of the population alone
# (re.form=NA); then with the variance of the effects of a new subject, of a new
# observation.
LME4 = {
    "sleep_ri_reml": (
        [10.1603667864424, 9.50250551668232, 11.2479708875813, 9.12998246510295],
        [9.74671625418045, 9.05886502819427, 10.8757654255846, 9.12998246510296],
        38.2300286191532,
        [32.614255045371, 32.4153388077935, 32.9692800651962, 49.2137345377359],
    ),
    "sleep_rs_reml": (
        [12.2547929530377, 8.0160579227637, 20.0612277194331, 7.70539860948297],
        [6.82455652143989, 9.58124199387003, 18.8634830541164, 7.70539860948296],
        32.3223460803891,
        [28.3746537888167, 26.8178711297987, 32.5175934676036, 41.2271158760085],
    ),
    "sleep_indep_reml": (
        [12.4102146082629, 8.00303391023432, 20.1936379586773, 7.57729152358216],
        [6.88538129145956, 9.40260887760561, 18.7114542879606, 7.57729152358217],
        31.7444199057407,
        [28.4182554351782, 26.7886611670731, 32.5786253448795, 40.7589500663091],
    ),
    "sleep_ri_ml": (
        [10.1137882915803, 9.45690857915542, 11.1994991997515, 8.87679684730107],
        [9.50618517742092, 8.80408785139115, 10.6539957455287, 8.87679684730104],
        37.0899927517599,
        [32.5087149582678, 32.3103846232987, 32.8626933916901, 48.2720974990377],
    ),
    "sleep_rs_ml": (
        [12.0708369137288, 8.00422884535196, 19.8999063727631, 7.48830141494412],
        [6.63227680898883, 9.31129349422593, 18.3320103444303, 7.48830141494406],
        31.3378744146759,
        [28.2956910289382, 26.8143377023573, 32.4183173630593, 40.4598986632108],
    ),
    "sleep_indep_ml": (
        [12.2742186090675, 7.98722219387336, 20.0715540689163, 7.3411782835319],
        [6.7076737301087, 9.10546015856528, 18.162904925574, 7.34117828353192],
        30.6731350861372,
        [28.3508811748581, 26.7752075491573, 32.4958967204965, 39.9243940084276],
    ),
}


def half_width(model, *args, **options):
    """Return half the width of intervals, theta taken as known unless asked."""
    options = {"theta_uncertainty": False} | options
    return np.diff(model.predict_interval(*args, **options))[:, 0] / 2


def normal_sd(model, X, **options):
    """Return the standard deviation that an interval is made of.

    Two coverages give the quantiles of one t distribution: sd and df.
    """
    wide, narrow = (half_width(model, X, coverage=c, **options) for c in (0.95, 0.5))
    grid = np.exp(np.linspace(0.0, 16.0, 20_001))
    ratios = stats.t.ppf(0.975, grid) / stats.t.ppf(0.75, grid)
    df = np.interp(-wide / narrow, -ratios, grid)
    return wide / stats.t.ppf(0.975, df)


@pytest.mark.parametrize("name", LME4)
def test_reference_numbers(name):
    model, _ = fitted(name)
    conditional, population, new_level, observation = LME4[name]
    _, std = model.predict(NEW, return_std=True)
    assert_allclose(std, observation, rtol=1e-6)
    mean = normal_sd(model, NEW, kind="mean")
    assert_allclose(mean[:3], conditional[:3], rtol=1e-5)
    assert_allclose(mean[3], new_level, rtol=1e-5)
    alone = normal_sd(model, NEW, kind="mean", random_effects=False)
    assert_allclose(alone, population, rtol=1e-5)


def test_uncertainty_of_theta_as_glmmTMB_has_it():
    model, _ = fitted("sleep_rs_reml")
    first = NEW.head(1)
    error = half_width(model, first, kind="mean", theta_uncertainty=True)
    ratio = error / half_width(model, first, kind="mean")
    assert_allclose(ratio * LME4["sleep_rs_reml"][0][0], 13.067632, rtol=1e-6)


def test_intervals_are_about_the_prediction_and_grow_with_coverage():
    model = fit("school")
    prediction = model.predict(X)
    widths = []
    for coverage in (0.5, 0.9, 0.99):
        interval = model.predict_interval(X, coverage=coverage)
        assert interval.shape == (len(X), 2)
        assert_allclose(interval.mean(axis=1), prediction)
        widths.append(interval[:, 1] - interval[:, 0])
    assert (np.diff(widths, axis=0) > 0).all()


@pytest.mark.parametrize("theta_uncertainty", [False, True])
def test_without_random_effects_they_are_those_of_least_squares(theta_uncertainty):
    model = fit([], NUMERIC)
    design = np.column_stack([np.ones(len(Y)), NUMERIC])
    inverse = np.linalg.inv(design.T @ design)
    df = len(Y) - 3
    residual = Y - design @ inverse @ design.T @ Y
    variance = np.sum((design @ inverse) * design, axis=1)
    sigma = np.sqrt(residual @ residual / df)
    t = stats.t.ppf(0.975, df)
    options = {"theta_uncertainty": theta_uncertainty}
    mean = half_width(model, NUMERIC, kind="mean", **options)
    assert_allclose(mean, t * sigma * np.sqrt(variance))
    observation = half_width(model, NUMERIC, **options)
    assert_allclose(observation, t * sigma * np.sqrt(1 + variance))


def test_populations_of_chosen_factors():
    model = fit(["school", "town"])
    town = model.covariances_["town"].iloc[0, 0]
    unknown = X.assign(town=99)
    # For an observation an effect left out is an effect not known ...
    _, left_out = model.predict(X, random_effects=["school"], return_std=True)
    _, not_seen = model.predict(unknown, return_std=True)
    assert_allclose(left_out, not_seen)
    # ... but a mean is over the towns, unless it is that of one new town.
    over_towns = normal_sd(model, X, kind="mean", random_effects=["school"])
    of_new_town = normal_sd(model, unknown, kind="mean")
    assert_allclose(of_new_town**2 - over_towns**2, town, rtol=1e-3)


def test_variances_of_several_unseen_factors_add_up():
    model = fit(["(1 + x | school)", "town"])
    nowhere = X.assign(school=1, town=99)
    _, std = model.predict(nowhere, return_std=True)
    z = np.column_stack([np.ones(len(X)), X["x"]])
    design = np.column_stack([z, X["z"]])
    of_school, of_town = (model.covariances_[f].to_numpy() for f in ("school", "town"))
    expected = model.sigma_**2 + of_town[0, 0]
    expected += np.sum((z @ of_school) * z, axis=1)
    expected += np.sum((design @ model.fit_.beta_covariance) * design, axis=1)
    assert_allclose(std**2, expected)


def test_labels_that_are_absent_are_unknown():
    model = fit(None, NUMERIC, groups=SCHOOL)
    with pytest.warns(UserWarning, match="labels"):
        _, absent = model.predict(NUMERIC, return_std=True)
    _, unknown = model.predict(NUMERIC, 0 * SCHOOL, return_std=True)
    assert_allclose(absent, unknown)


def test_more_rows_of_a_group_make_its_interval_narrower():
    model = fit("school")
    rows = X["school"].value_counts()
    one = X.head(1)
    errors = [
        half_width(model, one.assign(school=school), kind="mean")[0]
        for school in (rows.index[0], rows.index[-1], 1)
    ]
    assert errors == sorted(errors)


def test_a_perfect_fit_has_no_width():
    y = SCHOOL.to_numpy() * 1.5
    with pytest.warns(UserWarning, match="exactly"):
        model = fit("school", y=y)
    interval = model.predict_interval(X)
    assert_allclose(interval, np.column_stack([y, y]))
    assert (interval[:, 0] == interval[:, 1]).all()
    _, std = model.predict(X, return_std=True)
    assert (std == 0).all()


def test_an_effect_on_the_boundary_has_intervals():
    model, warned = fitted("dyestuff2_singular_reml")
    assert warned == ("SingularFitWarning",)
    rows = pd.DataFrame({"Batch": ["A", "unheard of"]})
    for kind in ("observation", "mean"):
        interval = model.predict_interval(rows, kind=kind, theta_uncertainty=True)
        assert np.isfinite(interval).all()
        assert (interval[:, 0] < interval[:, 1]).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"coverage": 1.0}, "coverage"),
        ({"coverage": 95}, "coverage"),
        ({"kind": "group"}, "kind"),
        ({"random_effects": ["village"]}, "village"),
    ],
)
def test_wrong_options_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        fit("school").predict_interval(X, **option)


def test_unknown_levels_can_be_refused():
    model = fit("school", handle_unknown="error")
    with pytest.raises(ValueError, match="Unknown levels of 'school'"):
        model.predict_interval(X.assign(school=1))


def test_intervals_cover_as_often_as_they_promise():
    """A short run of benchmarks/coverage.py: a slope, and another factor."""
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(30):
        labels, x = rng.integers(0, 10, (100, 2)), rng.normal(size=100)
        b, c = rng.normal(size=(10, 2)), rng.normal(size=10)
        mean = x + b[labels[:, 0], 0] + b[labels[:, 0], 1] * x + c[labels[:, 1]]
        y = mean + rng.normal(size=100)
        data = pd.DataFrame({"x": x, "g": labels[:, 0], "h": labels[:, 1]})
        model = MixedEffectsRegressor(["(1 + x | g)", "h"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SingularFitWarning)
            model.fit(data[:80], y[:80])
        for kind, true in (("observation", y[80:]), ("mean", mean[80:])):
            lower, upper = model.predict_interval(data[80:], kind=kind).T
            hits.append((lower < true) & (true < upper))
    covered = np.reshape(hits, (30, 2, 20)).mean(axis=(0, 2))
    # Three standard errors of 600 rows, if they were independent.
    assert_allclose(covered, 0.95, atol=0.027)
