"""Warnings of the estimator, each with a fit that is usable."""

import numpy as np
import pandas as pd
import pytest
from schools import NUMERIC, SCHOOL, X, Y, fit
from sklearn.linear_model import LinearRegression

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    MissingGroupsWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
)


def test_no_groups_at_fit_is_least_squares():
    with pytest.warns(MissingGroupsWarning, match="ordinary least-squares fit") as seen:
        model = MixedEffectsRegressor().fit(NUMERIC, Y)
    assert seen[0].filename == __file__
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(NUMERIC, Y).coef_)
    # The model has no factor, so predict has nothing to miss.
    assert model.predict(NUMERIC).shape == Y.shape


def test_no_labels_at_predict():
    model = fit(None, NUMERIC, groups=SCHOOL)
    population = model.predict(NUMERIC, random_effects=False)
    with pytest.warns(MissingGroupsWarning, match="no labels of 'school'") as seen:
        np.testing.assert_array_equal(model.predict(NUMERIC), population)
    assert seen[0].filename == __file__
    model.set_params(handle_unknown="error")
    for method in (model.predict, lambda X: model.score(X, Y)):
        with pytest.raises(ValueError, match=r"no labels of 'school'.*groups="):
            method(NUMERIC)
    np.testing.assert_array_equal(
        model.predict(NUMERIC, random_effects=False), population
    )


def test_an_intercept_that_does_not_vary():
    frame = X.assign(day=np.arange(len(X)) % 8)
    y = Y - pd.Series(Y).groupby(frame["day"]).transform("mean")
    with pytest.warns(SingularFitWarning, match="effects of 'day' have no variance"):
        model = fit("day", frame[["day"]], y)
    assert model.singular_ is True
    assert model.converged_ is True
    assert model.theta_.tolist() == [0.0]
    assert (model.effects_["day"] == 0).all(axis=None)


def test_an_intercept_and_a_slope_that_vary_as_one():
    rng = np.random.default_rng(2)
    y = rng.normal(size=12)[SCHOOL - 300] * (1 + X["x"])
    y += rng.normal(scale=0.5, size=len(X))
    with pytest.warns(SingularFitWarning, match=r"\(Intercept\) and x are perfectly"):
        model = fit("(x | school)", X[["x", "school"]], y)
    assert model.singular_ is True
    effects = model.effects_["school"]
    assert abs(np.corrcoef(effects.T)[0, 1]) > 1 - 1e-9


@pytest.mark.parametrize(
    ("labels", "why"), [(0, "has one level only"), (range(len(Y)), "has a single row")]
)
def test_unidentified_variance(labels, why):
    with pytest.warns(IdentifiabilityWarning, match=f"'g' {why}|of 'g' {why}"):
        model = fit("g", NUMERIC.assign(g=labels))
    assert model.theta_.tolist() == [0.0]
    ols = LinearRegression().fit(NUMERIC, Y)
    np.testing.assert_allclose(model.coef_[:2], ols.coef_, rtol=1e-8)


def test_dependent_columns_are_dropped_in_order():
    frame = X.assign(twice=2 * X["x"] + 1, one=1.0)
    with pytest.warns(RankDeficiencyWarning, match="'twice', 'one' depend linearly"):
        model = fit(["school", "town"], frame)
    assert model.fixed_effects_.index.tolist() == ["(Intercept)", "x", "z"]
    assert model.coef_[4:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(
        model.predict(frame), fit(["school", "town"]).predict(X), rtol=1e-8
    )


def test_more_columns_than_rows():
    wide = np.random.default_rng(0).normal(size=(20, 30))
    with pytest.warns((RankDeficiencyWarning, PerfectFitWarning)):
        model = fit([], wide, Y[:20])
    np.testing.assert_allclose(model.predict(wide), Y[:20], atol=1e-8)


@pytest.mark.parametrize(
    ("y", "what"), [(np.full(len(Y), 3.0), "constant"), (2 * X["x"], "exactly")]
)
def test_perfect_fit(y, what):
    with pytest.warns(PerfectFitWarning, match=f"y is .*{what}"):
        model = fit("school", X[["x", "school"]], y)
    np.testing.assert_allclose(model.predict(X[["x", "school"]]), y, atol=1e-10)


def test_failed_convergence():
    with pytest.warns(
        ConvergenceWarning, match="stopped after 1 iterations .*max_iter"
    ):
        model = fit(["(x | school)", "town"], solver="em", max_iter=1)
    assert model.converged_ is False
    assert np.isfinite(model.predict(X)).all()
