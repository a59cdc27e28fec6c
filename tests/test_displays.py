"""Displays: what they show, in which order, and how they are drawn."""

import numpy as np
import pandas as pd
import pytest
from models import fitted, frame
from scipy import stats

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.diagnostics import autocorrelation, semivariogram
from sklearn_lmm.displays import (
    AutocorrelationDisplay,
    CaterpillarDisplay,
    CoefficientDisplay,
    LatticeDisplay,
    ProfileDisplay,
    QuantileDisplay,
    ResidualsDisplay,
    SemivariogramDisplay,
    ShrinkageDisplay,
)
from sklearn_lmm.displays._figure import ORANGE
from sklearn_lmm.displays._semivariogram import local_lines
from sklearn_lmm.exceptions import PerfectFitWarning
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.intervals import profile
from sklearn_lmm.residuals import AR1

plt = pytest.importorskip("matplotlib.pyplot")
to_hex = pytest.importorskip("matplotlib.colors").to_hex


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleep():
    data = frame("sleepstudy")[["Days", "Subject", "Reaction"]]
    X, y = data[["Days", "Subject"]], data["Reaction"]
    return MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y), X, y


@pytest.fixture(scope="module")
def many():
    """500 groups of 6 rows on average, labels given as groups."""
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 500, 3000)
    X = rng.normal(size=(3000, 2))
    y = X[:, 0] + rng.normal(size=500)[groups] + rng.normal(size=3000)
    return MixedEffectsRegressor().fit(X, y, groups=groups), X, y, groups


def ticks(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_caterpillar_is_in_order_of_the_first_coefficient(sleep):
    model, _, _ = sleep
    display = CaterpillarDisplay.from_estimator(model, coverage=0.9)
    first = display.effects[display.effects["coefficient"] == "(Intercept)"]
    assert first["value"].is_monotonic_increasing
    assert ticks(display.axes_[0]) == first["level"].tolist()
    expected = model.random_effects(return_std=True).set_index(["level", "coefficient"])
    shown = display.effects.set_index(["level", "coefficient"])
    half = stats.norm.ppf(0.95) * expected.loc[shown.index, "std"]
    np.testing.assert_allclose(shown["upper"] - shown["value"], half)
    np.testing.assert_allclose(shown["value"] - shown["lower"], half)
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["(Intercept)", "Days"]


def test_caterpillar_in_the_order_of_another_coefficient(sleep):
    display = CaterpillarDisplay.from_estimator(sleep[0], order_by="Days")
    slopes = display.effects[display.effects["coefficient"] == "Days"]
    assert slopes["value"].is_monotonic_increasing
    with pytest.raises(ValueError, match="no coefficient 'age' of 'Subject'"):
        CaterpillarDisplay.from_estimator(sleep[0], order_by="age")


@pytest.mark.parametrize("display", [CaterpillarDisplay, CoefficientDisplay])
def test_a_coverage_in_per_cent_is_refused(sleep, display):
    with pytest.raises(ValueError, match="coverage=95 must be between 0 and 1"):
        display.from_estimator(sleep[0], coverage=95)


def test_caterpillar_of_many_levels_has_no_names(many):
    display = CaterpillarDisplay.from_estimator(many[0])
    (ax,) = display.axes_
    assert ticks(ax) == []
    n_levels = len(np.unique(many[3]))
    assert ax.get_ylabel() == f"{n_levels} levels of groups, in order"


def test_factor_by_name():
    model, _ = fitted("penicillin_reml")
    display = CaterpillarDisplay.from_estimator(model, factor="sample")
    assert len(display.effects) == 6
    with pytest.raises(ValueError, match=r"no grouping factor 'dose': .*'sample'"):
        CaterpillarDisplay.from_estimator(model, factor="dose")
    with pytest.raises(ValueError, match="no random effects"):
        CaterpillarDisplay.from_estimator(
            MixedEffectsRegressor([]).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 1.0])
        )


def test_shrinkage_starts_at_each_groups_own_line(sleep):
    model, X, y = sleep
    display = ShrinkageDisplay.from_estimator(model)
    for subject, rows in X.groupby("Subject", observed=True):
        slope, intercept = np.polyfit(rows["Days"], y[rows.index], 1)
        own = np.array([intercept, slope]) - model.fixed_effects_.to_numpy()
        np.testing.assert_allclose(display.own.loc[subject], own, rtol=1e-8, atol=1e-8)
    pd.testing.assert_frame_equal(
        display.effects.set_axis(model.effects_["Subject"].index),
        model.effects_["Subject"],
    )


def test_own_estimates_beside_another_factor_leave_its_effects_out():
    model, _ = fitted("penicillin_reml")
    data = frame("Penicillin")
    left = (
        data["diameter"]
        - model.intercept_
        - data["plate"]
        .astype(str)
        .map(
            dict(
                zip(
                    model.effects_["plate"].index.astype(str),
                    model.effects_["plate"].iloc[:, 0],
                    strict=True,
                )
            )
        )
    )
    own = left.groupby(data["sample"].astype(str)).mean()
    display = ShrinkageDisplay.from_estimator(model, factor="sample")
    shown = display.own.iloc[:, 0]
    np.testing.assert_allclose(shown[own.index], own, rtol=1e-10, atol=1e-10)


def test_groups_that_do_not_determine_a_line_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    X = rng.normal(size=60)
    slopes = rng.normal(size=12)[groups]
    X[groups == 3] = 0.5
    y = (1 + slopes) * X + rng.normal(size=12)[groups] + 0.3 * rng.normal(size=60)
    data = pd.DataFrame({"x": X, "g": groups})
    model = MixedEffectsRegressor("(1 + x | g)").fit(data, y)
    display = ShrinkageDisplay.from_estimator(model)
    assert display.own.isna().all(axis=1).tolist() == [g == 3 for g in range(12)]
    title = display.ax_.get_title(loc="left")
    assert title.startswith("12 groups; 1 with too few rows")


def test_shrinkage_of_one_coefficient(many, sleep):
    display = ShrinkageDisplay.from_estimator(many[0])
    assert display.ax_.get_xlabel().startswith("(Intercept) from a group's own rows")
    one = ShrinkageDisplay.from_estimator(sleep[0], coefficients=("Days",))
    assert list(one.own) == ["Days"]
    with pytest.raises(ValueError, match="one or two of those of 'Subject'"):
        ShrinkageDisplay.from_estimator(sleep[0], coefficients=("age",))


def test_residual_panels(sleep):
    model, X, y = sleep
    display = ResidualsDisplay.from_estimator(model, X, y)
    assert display.axes_.shape == (2, 2)
    expected = (y - model.predict(X)) / model.sigma_
    np.testing.assert_allclose(display.residuals, expected, rtol=1e-10, atol=1e-12)
    assert display.axes_[1, 1].get_xlabel() == "Subject"


def test_residual_panels_of_many_groups_and_of_none(many):
    model, X, y, groups = many
    display = ResidualsDisplay.from_estimator(model, X, y, groups=groups)
    n_levels = len(np.unique(groups))
    label = display.axes_[1, 1].get_xlabel()
    assert label == f"{n_levels} levels of groups, in order"
    plain = MixedEffectsRegressor([]).fit(X, y)
    assert ResidualsDisplay.from_estimator(plain, X, y).axes_.shape == (1, 3)


def test_axes_of_the_user_are_drawn_in(sleep):
    model, X, y = sleep
    figure, axes = plt.subplots(2, 2)
    display = ResidualsDisplay.from_estimator(model, X, y, ax=axes)
    assert display.figure_ is figure and display.axes_[1, 0] is axes[1, 0]
    with pytest.raises(ValueError, match=r"ax has 4 axes, but .* draws 2 panels"):
        CaterpillarDisplay.from_estimator(model, ax=axes)


def test_standardised_random_effects_have_unit_variance(many):
    display = QuantileDisplay.from_random_effects(many[0])
    (values,) = display.samples.values()
    assert abs(values.std() - 1.0) < 3 / np.sqrt(2 * len(values))


def test_quantiles_of_residuals(sleep):
    model, X, y = sleep
    display = QuantileDisplay.from_estimator(model, X, y)
    (points,) = display.axes_[0].collections[1:]
    shown = points.get_offsets()[:, 1]
    np.testing.assert_allclose(shown, np.sort((y - model.predict(X)) / model.sigma_))


def test_rows_that_the_fit_left_out_are_left_out(sleep):
    _, X, y = sleep
    weights = np.tile([1.0, 1.0, 0.0], 60)
    model = MixedEffectsRegressor("Subject").fit(X, y, sample_weight=weights)
    kept = weights > 0
    expected = ((y - model.predict(X)) / model.sigma_)[kept]
    shown = ResidualsDisplay.from_estimator(model, X, y, sample_weight=weights)
    np.testing.assert_allclose(shown.residuals, expected, atol=1e-12)
    np.testing.assert_allclose(shown.prediction, model.predict(X[kept]))
    assert shown.labels.tolist() == X["Subject"][kept].astype(str).tolist()
    quantiles = QuantileDisplay.from_estimator(model, X, y, sample_weight=weights)
    (sample,) = quantiles.samples.values()
    np.testing.assert_allclose(sample, expected, atol=1e-12)


def test_rows_with_gaps_that_the_formula_left_out():
    data = frame("sleepstudy")[["Days", "Subject", "Reaction"]].astype({"Days": float})
    data.loc[[3, 50], "Days"] = np.nan
    formula = "Reaction ~ Days + (1 | Subject)"
    model = MixedEffectsRegressor(formula=formula, na_action="drop").fit(data)
    shown = ResidualsDisplay.from_estimator(model, data, data["Reaction"])
    assert len(shown.residuals) == len(shown.prediction) == 178


def test_a_collapsed_random_effect_has_no_quantiles():
    model, warned = fitted("dyestuff2_singular_reml")
    assert "SingularFitWarning" in warned
    display = QuantileDisplay.from_random_effects(model)
    assert len(display.samples["Batch: (Intercept)"]) == 0


def test_lattice_lines_are_predictions(sleep):
    model, X, y = sleep
    display = LatticeDisplay.from_estimator(
        model, X, y, x="Days", levels=["308", "337"]
    )
    assert display.lines["level"].unique().tolist() == ["308", "337"]
    at_end = display.lines.groupby("level").last()
    row = pd.DataFrame({"Days": [9.0], "Subject": ["308"]})
    assert at_end.loc["308", "group"] == pytest.approx(model.predict(row)[0])
    population = model.predict(row, random_effects=False)[0]
    assert at_end.loc["308", "population"] == pytest.approx(population)
    assert (display.x, display.y, display.factor) == ("Days", "Reaction", "Subject")


def test_lattice_of_arrays_shows_the_extremes(many):
    model, X, y, groups = many
    display = LatticeDisplay.from_estimator(model, X, y, x=0, groups=groups, levels=5)
    effects = model.effects_["groups"].iloc[:, 0]
    assert len(display.axes_) == 5
    shown = [int(level) for level in display.lines["level"].unique()]
    assert {effects.idxmin(), effects.idxmax()} <= set(shown)
    with pytest.raises(ValueError, match="no column 'dose'"):
        LatticeDisplay.from_estimator(model, X, y, x="dose", groups=groups)
    with pytest.raises(ValueError, match="no rows of level 'unheard of'"):
        LatticeDisplay.from_estimator(
            model, X, y, x=0, groups=groups, levels=["unheard of"]
        )


def test_coefficients_of_several_models(sleep):
    model, X, y = sleep
    models = {"slopes": model, "intercepts": MixedEffectsRegressor("Subject").fit(X, y)}
    display = CoefficientDisplay.from_estimator(models, intercept=True)
    assert display.coefficients["model"].tolist() == ["slopes"] * 2 + ["intercepts"] * 2
    table = coefficient_table(model)
    half = stats.t.ppf(0.975, table["df"]) * table["std_error"]
    first = display.coefficients[:2]
    np.testing.assert_allclose(first["upper"] - first["estimate"], half)


@pytest.mark.parametrize("kind", ["zeta", "density"])
def test_profiles_mark_their_intervals(sleep, kind):
    traced = profile(sleep[0], ["Days", "sigma"])
    display = ProfileDisplay(traced).plot(kind=kind, coverage=0.9)
    titles = [ax.get_title(loc="left") for ax in display.axes_]
    assert titles == ["Days", "sigma"]
    low, high = traced.intervals(0.9).loc["Days", ["lower", "upper"]]
    marks = display.axes_[0].collections
    if kind == "zeta":
        places = [mark.get_segments()[0][0, 0] for mark in marks]
        np.testing.assert_allclose(places, [low, high])
    else:
        (area,) = marks
        x = area.get_paths()[0].vertices[:, 0]
        step = np.ptp(traced.frame.query("parameter == 'Days'")["value"]) / 199
        assert low <= x.min() < low + step and high - step < x.max() <= high


def test_density_of_a_profile_integrates_to_its_coverage(sleep):
    display = ProfileDisplay.from_estimator(sleep[0], "sigma", kind="density")
    x, density = display.axes_[0].lines[0].get_data()
    assert np.trapezoid(density, x) == pytest.approx(0.99, abs=1e-3)


def test_profile_display_refuses_what_it_cannot_draw(sleep):
    with pytest.raises(ValueError, match="neither 'zeta' nor 'density'"):
        ProfileDisplay(profile(sleep[0], "sigma")).plot(kind="cloud")
    perfect = MixedEffectsRegressor([])
    with pytest.warns(PerfectFitWarning):
        perfect.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="No parameter has a profile: "):
        ProfileDisplay.from_estimator(perfect)


def test_autocorrelations_outside_their_band_are_orange(sleep):
    model, X, y = sleep
    display = AutocorrelationDisplay.from_estimator(model, X, y, time="Days", max_lag=9)
    table = autocorrelation(model, X, y, time="Days", max_lag=9)
    pd.testing.assert_frame_equal(display.autocorrelations, table)
    stems = display.ax_.collections[-2]
    ends = np.array([line[-1] for line in stems.get_segments()])
    np.testing.assert_allclose(ends, table[["lag", "autocorrelation"]])
    outside = (table["autocorrelation"].abs() > table["upper"]).to_numpy()
    colours = [to_hex(colour).upper() == ORANGE for colour in stems.get_colors()]
    assert colours == outside.tolist()
    assert set(colours) == {False, True}
    assert display.ax_.get_xlabel() == "lag (Days)"
    rows = AutocorrelationDisplay.from_estimator(model, X, y, max_lag=2)
    assert rows.ax_.get_xlabel() == "lag (rows)"


def test_semivariogram_has_the_line_of_the_model():
    data = frame("sleepstudy")
    X, y = data[["Days", "Subject"]], data["Reaction"]
    model = MixedEffectsRegressor("Subject", residual=AR1("Days")).fit(X, y)
    display = SemivariogramDisplay.from_estimator(model, X, y)
    bins = semivariogram(model, X, y)
    smooth, line = display.ax_.lines
    np.testing.assert_allclose(line.get_ydata(), bins["model"])
    np.testing.assert_allclose(smooth.get_ydata(), display.smooth)
    points = display.ax_.collections[0].get_offsets()
    np.testing.assert_allclose(points, bins[["distance", "semivariogram"]])
    assert display.ax_.get_xlabel() == "distance (Days)"


def test_local_lines_go_through_lines_and_near_points():
    x = np.array([0.0, 1.0, 1.5, 3.0, 4.0, 7.0])
    np.testing.assert_allclose(
        local_lines(x, 2.0 - 3.0 * x, np.arange(1, 7)), 2 - 3 * x
    )
    y = np.array([0.0, 5.0, -5.0, 5.0, -5.0, 0.0])
    assert abs(local_lines(x, y, np.ones(6))).max() < 5.0
    np.testing.assert_allclose(local_lines(x[:2], y[:2], np.ones(2)), y[:2])


def test_coefficients_of_an_intercept_alone():
    est = MixedEffectsRegressor("batch", fixed=[])
    data = frame("Dyestuff")
    est.fit(data[["Batch"]].rename(columns={"Batch": "batch"}), data["Yield"])
    with pytest.raises(ValueError, match="intercept=True"):
        CoefficientDisplay.from_estimator(est)
    shown = CoefficientDisplay.from_estimator(est, intercept=True).coefficients
    assert shown["name"].to_list() == ["(Intercept)"]
