"""The estimator with solver="stochastic", and with "auto" past the exact limit."""

import pickle
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm._engine import strategy
from sklearn_lmm.exceptions import StochasticFitWarning


def rows(n=2000, users=200, items=120, seed=0):
    rng = np.random.default_rng(seed)
    user, item, x = rng.integers(0, users, n), rng.integers(0, items, n), rng.random(n)
    y = 1.0 + 2.0 * x + rng.normal(size=users)[user] + rng.normal(size=items)[item]
    X = pd.DataFrame({"x": x, "user": user, "item": item})
    return X, y + rng.normal(size=n)


X, Y = rows()


def model(solver="stochastic", random_state=0, **parameters):
    return MixedEffectsRegressor(
        ["user", "item"], solver=solver, random_state=random_state, **parameters
    )


@cache
def fitted(solver="stochastic"):
    return model(solver).fit(X, Y)


def past_the_limit(monkeypatch):
    monkeypatch.setattr(strategy, "memory", lambda: 1e3)


def test_agrees_with_newton_within_its_error():
    mine, exact = fitted(), fitted("newton")
    error = mine.fit_.monte_carlo
    assert mine.solver_ == "stochastic"
    assert exact.fit_.monte_carlo is None
    assert_allclose(mine.theta_, exact.theta_, rtol=0, atol=6 * error.theta.max())
    difference = mine.log_likelihood_ - exact.log_likelihood_
    assert abs(difference) < 6 * error.log_likelihood
    assert_allclose(mine.coef_, exact.coef_, atol=1e-4)
    assert_allclose(mine.predict(X), exact.predict(X), atol=1e-2)
    assert error.beta.shape == mine.fit_.beta.shape
    assert "probes=8" in repr(error)


def test_auto_is_exact_while_it_can(monkeypatch):
    assert fitted("auto").solver_ == "newton"
    past_the_limit(monkeypatch)
    with pytest.warns(StochasticFitWarning, match="solver='stochastic'") as seen:
        est = model("auto").fit(X, Y)
    assert seen[0].filename == __file__
    assert est.solver_ == "stochastic"
    assert_array_equal(est.theta_, fitted().theta_)


def test_solvers_asked_for_by_name_are_taken(monkeypatch):
    past_the_limit(monkeypatch)
    assert model("newton").fit(X, Y).solver_ == "newton"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model("stochastic").fit(X, Y)


def test_a_large_error_is_told(monkeypatch):
    monkeypatch.setattr("sklearn_lmm._engine.stochastic.MOST_PROBES", 8)
    few, y = rows(800, 400, 300)
    with pytest.warns(StochasticFitWarning, match="Monte-Carlo error of at most"):
        model().fit(few, y)


@pytest.mark.parametrize("random", ["user", [], "(1 | user/item)"])
def test_elsewhere_it_is_newton(random):
    exact = MixedEffectsRegressor(random, solver="newton").fit(X, Y)
    est = MixedEffectsRegressor(random, solver="stochastic").fit(X, Y)
    assert est.solver_ == "newton"
    assert_array_equal(est.theta_, exact.theta_)


def test_random_state():
    same = model().fit(X, Y)
    assert_array_equal(same.theta_, fitted().theta_)
    assert same.log_likelihood_ == fitted().log_likelihood_
    other = model(random_state=1).fit(X, Y)
    assert other.log_likelihood_ != fitted().log_likelihood_
    # An instance goes on, as everywhere in scikit-learn.
    stream = np.random.RandomState(3)
    first, second = (model(random_state=stream).fit(X, Y) for _ in range(2))
    assert first.log_likelihood_ != second.log_likelihood_
    again = model(random_state=np.random.RandomState(3)).fit(X, Y)
    assert again.log_likelihood_ == first.log_likelihood_


def test_exact_fits_leave_the_global_stream_alone():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    model("auto", random_state=None).fit(X, Y)
    assert np.random.rand() == expected


def test_clone_and_pickle():
    est = clone(fitted())
    assert est.random_state == 0
    again = pickle.loads(pickle.dumps(fitted()))
    head = X.head(3)
    for a, b in zip(
        again.predict(head, return_std=True),
        fitted().predict(head, return_std=True),
        strict=True,
    ):
        assert_allclose(a, b, rtol=1e-12)


def test_standard_deviations_of_predictions():
    some = pd.concat([X.head(6), X.head(1).assign(user=-1)])
    for method in ("predict", "predict_interval"):
        options = {"return_std": True} if method == "predict" else {}
        mine = getattr(fitted(), method)(some, **options)
        exact = getattr(fitted("newton"), method)(some, **options)
        assert_allclose(np.column_stack(mine), np.column_stack(exact), rtol=3e-3)
    population = fitted().predict_interval(some, random_effects=False)
    exact = fitted("newton").predict_interval(some, random_effects=False)
    assert_allclose(population, exact, rtol=3e-3)


def test_standard_deviations_of_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr("sklearn_lmm._engine.factor_krylov.MOST_ROWS", 20)
    with pytest.raises(ValueError, match="Ask for at most 20 at a time"):
        fitted().predict(X, return_std=True)
    assert fitted().predict(X, random_effects=False, return_std=True)[1].min() > 0


def test_standard_deviations_of_effects_are_estimated():
    mine = fitted().random_effects(return_std=True)
    exact = fitted("newton").random_effects(return_std=True)
    assert_allclose(mine["value"], exact["value"], atol=1e-2)
    ratio = mine["std"] / exact["std"]
    assert abs(ratio.mean() - 1.0) < 0.01
    assert ratio.std() < 0.05


def test_rows_that_come_later():
    first, second = X.iloc[:1200], X.iloc[1200:]
    est = model().partial_fit(first, Y[:1200]).partial_fit(second, Y[1200:])
    assert est.solver_ == "stochastic"
    assert_allclose(est.theta_, fitted().theta_, atol=1e-3)
    batches = [(first, Y[:1200]), (second, Y[1200:])]
    assert_allclose(model().fit_batches(batches).theta_, fitted().theta_, atol=1e-3)
    mine, exact = (
        model(solver).fit(first, Y[:1200]).adapt(second, Y[1200:])
        for solver in ("stochastic", "newton")
    )
    for factor in ("user", "item"):
        assert_allclose(mine.effects_[factor], exact.effects_[factor], atol=1e-2)


def test_what_needs_the_exact_likelihood_is_refused():
    from sklearn_lmm.intervals import profile

    with pytest.raises(ValueError, match="cannot be had from a stochastic fit"):
        profile(fitted())


def test_maximum_likelihood_and_weights():
    weights = np.random.default_rng(2).uniform(0.5, 2.0, len(X))
    mine, exact = (
        model(solver, method="ml", weights="precision").fit(X, Y, sample_weight=weights)
        for solver in ("stochastic", "newton")
    )
    assert_allclose(mine.theta_, exact.theta_, atol=2e-3)
    assert_allclose(mine.log_likelihood_, exact.log_likelihood_, atol=0.5)


def test_summary_tells_the_error():
    assert "Monte-Carlo error: 0." in str(fitted().summary())
    assert "Monte-Carlo" not in str(fitted("newton").summary())


def test_degrees_of_freedom():
    from sklearn_lmm.inference import coefficient_table

    mine, exact = coefficient_table(fitted()), coefficient_table(fitted("newton"))
    assert_allclose(mine["df"], exact["df"], rtol=0.02)
    assert_allclose(mine["std_error"], exact["std_error"], rtol=1e-3)
    with pytest.raises(ValueError, match="cannot be had from a stochastic fit"):
        coefficient_table(fitted(), df="kenward-roger")


def test_verbose_tells_the_error(capsys):
    model(verbose=1).fit(X, Y)
    assert "Monte-Carlo error" in capsys.readouterr().out
