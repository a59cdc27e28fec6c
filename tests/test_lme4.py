"""Every oracle fit of lme4, reproduced through the estimator.

Tolerances are those of oracles/README.md; they are not to be loosened.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, fitted, inputs, model

REGULAR = [name for name, oracle in ORACLES.items() if not oracle["singular"]]
WITH_NEW_ROWS = [name for name, oracle in ORACLES.items() if "newdata" in oracle]
SMALL = [name for name, oracle in ORACLES.items() if oracle["n"] < 1000]

every_fit = pytest.mark.parametrize("name", ORACLES)
every_regular_fit = pytest.mark.parametrize("name", REGULAR)


def assert_near(actual, expected, tolerance, scale):
    """Compare, with a tolerance in units of `scale`, a number for each entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected) / scale
    assert error.max() <= tolerance, f"off by {error.max():.2e}: {actual}, {expected}"


def series(values):
    return pd.Series(values, dtype=float)


def our_factor(estimator, theirs):
    """Return our name of a factor: lme4 reverses nested ones, b:a for a:b."""
    parts = set(theirs.split(":"))
    [name] = [name for name in estimator.effects_ if set(name.split(":")) == parts]
    return name


def our_levels(ours, theirs, labels):
    """Return our labels of an interaction's levels: tuples, in our order."""
    if ":" not in theirs:
        return labels
    order = [theirs.split(":").index(part) for part in ours.split(":")]
    split = [label.split(":") for label in labels]
    return [tuple(parts[i] for i in order) for parts in split]


def deviations(oracle, block):
    return np.sqrt(np.diag(oracle["covariances"][block]["values"]))


def labelled_theta(oracle, blocks):
    """Return lme4's theta and its scale in the order of our terms.

    An entry off the diagonal may be anything down to 0; its scale is the
    relative standard deviation of the coefficient in its row.
    """
    theta, scale = [], []
    for block in blocks:
        factor = block.removesuffix(".1")
        names = oracle["covariances"][block]["coefficients"]
        spread = deviations(oracle, block) / oracle["sigma"]
        for j, column in enumerate(names):
            theta.append(oracle["theta"][f"{factor}.{column}"])
            scale.append(abs(theta[-1]))
            for i in range(j + 1, len(names)):
                theta.append(oracle["theta"][f"{factor}.{names[i]}.{column}"])
                scale.append(spread[i])
    return theta, scale


def predicted(name, data=None, **options):
    """Return predictions for the rows of the fit, or for `data`."""
    m = model(name)
    X, groups = (m.X, m.fit_params.get("groups"))
    if data is not None:
        X, groups = inputs(m.spec, data)
    return fitted(name)[0].predict(X, groups, **options)


@every_fit
def test_criterion(name):
    estimator, _ = fitted(name)
    assert abs(estimator.fit_.criterion - ORACLES[name]["criterion"]) <= 1e-7
    assert estimator.converged_


@every_fit
def test_warnings_name_what_is_wrong_and_nothing_else(name):
    oracle = ORACLES[name]
    expected = set()
    if oracle["singular"]:
        expected.add("SingularFitWarning")
    if oracle["dropped"]:
        expected.add("RankDeficiencyWarning")
    estimator, warned = fitted(name)
    assert set(warned) == expected
    assert estimator.singular_ == oracle["singular"]


@every_fit
def test_fixed_effects(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    beta, se = series(oracle["beta"]), series(oracle["se"])
    assert list(estimator.fixed_effects_.index) == list(beta.index)
    scale = np.maximum(beta.abs(), se)
    assert_near(estimator.fixed_effects_, beta, 1e-6, scale)
    fit = estimator.fit_
    vcov = fit.beta_covariance[np.ix_(fit.kept, fit.kept)]
    assert_near(np.sqrt(np.diag(vcov)), se, 1e-6, se)
    assert_near(vcov, oracle["vcov"], 2e-6, np.outer(se, se))


@every_fit
def test_coef_lines_up_with_the_columns_of_X(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    coef = pd.Series(estimator.coef_, estimator.feature_names_in_)
    slopes = series(oracle["beta"]).drop("(Intercept)", errors="ignore")
    estimated = estimator.fixed_effects_[slopes.index]
    assert coef[slopes.index].equals(estimated.rename(None))
    assert (coef.drop(slopes.index) == 0).all()
    assert coef.index.isin(oracle["dropped"]).sum() == len(oracle["dropped"])


@every_regular_fit
def test_theta_and_sigma(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    theta, scale = labelled_theta(oracle, model(name).spec.blocks)
    assert_near(estimator.theta_, theta, 1e-5, scale)
    assert_near(estimator.sigma_, oracle["sigma"], 1e-6, oracle["sigma"])


@every_regular_fit
def test_covariances(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    for block, expected in oracle["covariances"].items():
        names, spread = expected["coefficients"], deviations(oracle, block)
        ours = estimator.covariances_[our_factor(estimator, block.removesuffix(".1"))]
        assert_near(
            ours.loc[names, names], expected["values"], 1e-5, np.outer(spread, spread)
        )


@every_regular_fit
def test_random_effects(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    for theirs, expected in oracle["effects"].items():
        ours = our_factor(estimator, theirs)
        names = expected["coefficients"]
        effects = estimator.effects_[ours][names]
        spread = np.sqrt(np.diag(estimator.covariances_[ours].loc[names, names]))
        levels = our_levels(ours, theirs, expected["levels"])
        assert_near(effects.loc[levels], expected["values"], 1e-5, spread)
        squares = np.array(expected["squares"])
        assert_near((effects**2).sum(), squares, 2e-5, squares)


@every_regular_fit
def test_conditional_variances(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    tidy = estimator.random_effects(return_std=True)
    for theirs, expected in oracle["effects"].items():
        ours = our_factor(estimator, theirs)
        std = tidy[tidy["factor"] == ours].pivot(
            index="level", columns="coefficient", values="std"
        )
        variances = np.array(expected["variances"])
        levels = our_levels(ours, theirs, expected["levels"][: len(variances)])
        found = std.loc[levels, expected["coefficients"]] ** 2
        assert_near(found, variances, 1e-5, variances)


@every_regular_fit
def test_fitted_values(name):
    m, oracle = model(name), ORACLES[name]
    values = predicted(name)
    expected = np.array(oracle["fitted_first"])
    scale = np.maximum(np.abs(expected), oracle["sigma"])
    assert_near(values[: len(expected)], expected, 1e-6, scale)
    total = oracle["resid_sumsq"]
    assert_near(np.sum((m.y.to_numpy() - values) ** 2), total, 2e-6, total)


@every_regular_fit
def test_parts_of_the_criterion(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    fit = estimator.fit_
    point = fit.point()
    assert abs(point.state.logdet - oracle["ldL2"]) <= 1e-5
    H = fit.beta_covariance[np.ix_(fit.kept, fit.kept)] / fit.sigma**2
    assert abs(np.linalg.slogdet(H)[1] + oracle["ldRX2"]) <= 2e-6
    N = oracle["n"] - (oracle["method"] == "REML") * len(oracle["beta"])
    assert_near(fit.sigma**2 * N, oracle["pwrss"], 2e-6, oracle["pwrss"])


@every_fit
def test_log_likelihood_and_counts(name):
    oracle, (estimator, _) = ORACLES[name], fitted(name)
    fit = estimator.fit_
    assert estimator.log_likelihood_ == -fit.criterion / 2
    assert fit.n_obs == oracle["n"]
    assert len(estimator.theta_) + fit.kept.sum() + 1 == oracle["n_parameters"]


@pytest.mark.parametrize("name", [name for name in SMALL if name.endswith("_reml")])
def test_deviance_at_the_theta_of_reml(name):
    """The criterion away from its own optimum."""
    ml, reml = fitted(name.replace("_reml", "_ml"))[0], fitted(name)[0]
    point = ml.fit_.model().at(reml.fit_.theta_standardized)
    assert abs(point.deviance - ORACLES[name]["ml_deviance_at_this_theta"]) <= 1e-6


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "em"])
@pytest.mark.parametrize("name", SMALL)
def test_solvers_agree(name, solver):
    estimator, _ = fitted(name, solver)
    assert estimator.solver_ == solver
    assert abs(estimator.fit_.criterion - ORACLES[name]["criterion"]) <= 1e-7


@pytest.mark.parametrize("name", WITH_NEW_ROWS)
def test_predictions_for_new_rows(name):
    oracle = ORACLES[name]
    data = pd.DataFrame(oracle["newdata"])
    conditional = np.array(oracle["predict_new_conditional"])
    population = np.array(oracle["predict_new_population"])
    assert_near(predicted(name, data), conditional, 1e-6, np.abs(conditional))
    fixed_only = predicted(name, data, random_effects=False)
    assert_near(fixed_only, population, 1e-6, population)
