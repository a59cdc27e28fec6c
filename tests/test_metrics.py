"""Scorers that hand labels to predict."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import VotingRegressor
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    get_scorer,
    make_scorer,
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import make_mixed_regression
from sklearn_lmm.exceptions import MissingGroupsWarning
from sklearn_lmm.metrics import make_group_scorer

DATA = make_mixed_regression(
    120, 2, n_groups=10, coef=[0.4, 0.2], noise=0.4, random_state=0
)
X, Y, GROUPS = DATA.X, DATA.y, DATA.groups
CV = KFold(3, shuffle=True, random_state=0)
NEG_RMSE = "neg_root_mean_squared_error"


@pytest.fixture(autouse=True)
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def column_scores(scoring):
    """Return the scores of the same model with the labels in a column of X."""
    model = MixedEffectsRegressor(2)
    frame = np.column_stack([X, GROUPS])
    return cross_validate(model, frame, Y, cv=CV, scoring=scoring)["test_score"]


def weighted_scorer(**request):
    return make_group_scorer("r2").set_score_request(**request)


@pytest.fixture(scope="module")
def model():
    return MixedEffectsRegressor().fit(X, Y, groups=GROUPS)


@pytest.mark.parametrize(
    "scorer",
    [
        lambda: make_group_scorer(NEG_RMSE),
        lambda: make_group_scorer(get_scorer(NEG_RMSE)),
        lambda: make_group_scorer(root_mean_squared_error, greater_is_better=False),
        lambda: make_group_scorer(
            lambda estimator, X, y: -root_mean_squared_error(y, estimator.predict(X))
        ),
    ],
    ids=["name", "scorer", "metric", "callable"],
)
def test_the_score_is_that_of_the_prediction_with_labels(scorer, model):
    expected = -root_mean_squared_error(Y, model.predict(X, GROUPS))
    assert scorer()(model, X, Y, groups=GROUPS) == expected
    population = model.predict(X, random_effects=False)
    assert expected > -0.6 * root_mean_squared_error(Y, population)


def test_weights_reach_the_metric(model):
    weights = np.arange(len(Y))
    expected = r2_score(Y, model.predict(X, GROUPS), sample_weight=weights)
    scorer = make_group_scorer(r2_score, greater_is_better=True)
    assert scorer(model, X, Y, groups=GROUPS, sample_weight=weights) == expected


def test_without_labels_predict_warns(model):
    with pytest.warns(MissingGroupsWarning):
        score = make_group_scorer("r2")(model, X, Y)
    assert score == r2_score(Y, model.predict(X, random_effects=False))


def test_labels_go_only_to_a_model_that_asks_for_them(model):
    baseline = LinearRegression().fit(X, Y)
    scorer = make_group_scorer("r2")
    for one in (baseline, make_pipeline(StandardScaler(), baseline).fit(X, Y)):
        assert scorer(one, X, Y, groups=GROUPS) == one.score(X, Y)
    # These labels would contradict the column of X, were they handed over.
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(g=GROUPS)
    column = MixedEffectsRegressor("g").fit(frame, Y)
    other = pd.Series(GROUPS[::-1], name="g")
    assert scorer(column, frame, Y, groups=other) == column.score(frame, Y)
    with pytest.raises(ValueError, match="given twice"):
        column.predict(frame, other)


def test_an_ensemble_that_hands_nothing_on_is_not_silent():
    voting = VotingRegressor([("model", MixedEffectsRegressor())])
    voting.fit(X, Y, groups=GROUPS)
    with pytest.warns(MissingGroupsWarning):
        make_group_scorer("r2")(voting, X, Y, groups=GROUPS)


class Asker(RegressorMixin, BaseEstimator):
    """A regressor of someone else, with labels but no request for them."""

    def fit(self, X, y, groups=None):
        self.fitted_ = True
        return self

    def predict(self, X, groups=None):
        return np.zeros(len(X)) if groups is None else np.asarray(groups, float)


def test_a_predict_with_groups_gets_them_unless_it_refuses():
    scorer = make_group_scorer("r2")
    assert scorer(Asker(), GROUPS, GROUPS, groups=GROUPS) == 1
    refusing = Asker().set_predict_request(groups=False)
    assert scorer(refusing, GROUPS, GROUPS, groups=GROUPS) < 0


def test_cross_validate():
    scores = cross_validate(
        MixedEffectsRegressor(),
        X,
        Y,
        cv=CV,
        scoring=make_group_scorer(NEG_RMSE),
        params={"groups": GROUPS},
    )["test_score"]
    np.testing.assert_allclose(scores, column_scores(NEG_RMSE), rtol=1e-7)


@pytest.mark.parametrize("piped", [False, True], ids=["bare", "pipeline"])
def test_search_by_several_metrics(piped):
    model, prefix = MixedEffectsRegressor(), ""
    if piped:
        model = make_pipeline(StandardScaler(), model)
        prefix = "mixedeffectsregressor__"
    search = GridSearchCV(
        model,
        {f"{prefix}method": ["reml", "ml"]},
        cv=CV,
        scoring={
            "rmse": make_group_scorer(NEG_RMSE),
            "mae": make_group_scorer(mean_absolute_error, greater_is_better=False),
        },
        refit="rmse",
    ).fit(X, Y, groups=GROUPS)
    for name, scoring in (("rmse", NEG_RMSE), ("mae", "neg_mean_absolute_error")):
        means = search.cv_results_[f"mean_test_{name}"]
        np.testing.assert_allclose(means[0], column_scores(scoring).mean(), rtol=1e-6)


def test_a_search_inside_cross_validation():
    search = GridSearchCV(MixedEffectsRegressor(), {"method": ["reml"]}, cv=CV)
    scores = cross_validate(
        search,
        X,
        Y,
        cv=CV,
        scoring=make_group_scorer("r2"),
        params={"groups": GROUPS},
        error_score="raise",
    )["test_score"]
    np.testing.assert_allclose(scores, column_scores("r2"), rtol=1e-7)


def test_a_scorer_without_labels_does_not_spoil_its_neighbour():
    with pytest.warns(MissingGroupsWarning):
        scores = cross_validate(
            MixedEffectsRegressor(),
            X,
            Y,
            cv=CV,
            scoring={"with": make_group_scorer("r2"), "without": "r2"},
            params={"groups": GROUPS},
        )
    assert scores["test_with"].min() > 0.7
    assert scores["test_without"].max() < 0.4


def test_another_name_for_the_labels():
    """Split by one factor, group by another."""
    model = MixedEffectsRegressor().set_fit_request(groups="site")
    scorer = make_group_scorer("r2").set_score_request(groups="site")
    halves = np.arange(len(Y)) % 2
    for estimator in (model, make_pipeline(StandardScaler(), model)):
        scores = cross_validate(
            estimator,
            X,
            Y,
            cv=GroupKFold(2),
            scoring=scorer,
            params={"groups": halves, "site": GROUPS},
        )["test_score"]
        assert scores.min() > 0.7


def test_weights_are_requested_as_usual():
    weights = np.ones(len(Y))
    keywords = {
        "cv": CV,
        "params": {"groups": GROUPS, "sample_weight": weights},
        "error_score": "raise",
    }
    model = MixedEffectsRegressor().set_fit_request(sample_weight=True)
    with pytest.raises(UnsetMetadataPassedError, match="GroupScorer"):
        cross_validate(model, X, Y, scoring=make_group_scorer("r2"), **keywords)
    scorer = weighted_scorer(sample_weight=True)
    scores = cross_validate(model, X, Y, scoring=scorer, **keywords)["test_score"]
    np.testing.assert_allclose(scores, column_scores("r2"), rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: make_group_scorer(NEG_RMSE), f"make_group_scorer('{NEG_RMSE}')"),
        (
            lambda: make_group_scorer(mean_absolute_error, greater_is_better=False),
            "make_group_scorer(make_scorer(mean_absolute_error, "
            "greater_is_better=False, response_method='predict'))",
        ),
        (
            lambda: make_group_scorer(make_scorer(mean_pinball_loss, alpha=0.9)),
            "make_group_scorer(make_scorer(mean_pinball_loss, "
            "response_method='predict', alpha=0.9))",
        ),
    ],
)
def test_repr_evaluates_to_the_same_scorer(make, shown, model):
    scorer = make()
    assert repr(scorer) == shown
    again = eval(repr(scorer))  # of our own text
    labels = {"groups": GROUPS}
    assert again(model, X, Y, **labels) == scorer(model, X, Y, **labels)


def test_copies_score_the_same_and_keep_their_requests(model):
    scorer = weighted_scorer(sample_weight="w", groups="g")
    search = GridSearchCV(MixedEffectsRegressor(), {}, scoring=scorer)
    for twin in (
        pickle.loads(pickle.dumps(scorer)),
        copy.deepcopy(scorer),
        clone(search).scoring,
    ):
        assert twin is not scorer
        requests = twin.get_metadata_routing().score.requests
        assert requests == {"groups": "g", "sample_weight": "w"}
        labels = {"groups": GROUPS}
        assert twin(model, X, Y, **labels) == scorer(model, X, Y, **labels)


def test_setting_one_request_leaves_the_other():
    scorer = make_group_scorer("r2")
    assert scorer.get_metadata_routing().score.requests["groups"] is True
    scorer.set_score_request(sample_weight=False)
    requests = scorer.get_metadata_routing().score.requests
    assert requests == {"groups": True, "sample_weight": False}


def test_without_routing_it_says_what_to_do():
    with (
        sklearn.config_context(enable_metadata_routing=False),
        pytest.raises(RuntimeError, match=r"off.*set_config.*random='school'"),
    ):
        make_group_scorer("r2")


def test_a_direct_call_needs_no_routing(model):
    scorer = make_group_scorer("r2")
    with sklearn.config_context(enable_metadata_routing=False):
        expected = model.score(X, Y, groups=GROUPS)
        assert scorer(model, X, Y, groups=GROUPS) == expected
        pipe = make_pipeline("passthrough", model)
        assert scorer(pipe, X, Y, groups=GROUPS) == expected


def test_a_metric_has_a_direction():
    cure = "make_group_scorer(mean_absolute_error, greater_is_better=False)"
    with pytest.raises(ValueError, match=re.escape(cure)):
        make_group_scorer(mean_absolute_error)


@pytest.mark.parametrize("scoring", ["r2", get_scorer("r2")])
def test_a_scorer_has_one_already(scoring):
    with pytest.raises(ValueError, match="larger values are better already"):
        make_group_scorer(scoring, greater_is_better=False)


def test_unknown_names_are_scikit_learns_to_refuse():
    with pytest.raises(ValueError, match="'rmse' is not a valid scoring value"):
        make_group_scorer("rmse")
