"""The tools of scikit-learn that hold a model, each used as its users would.

The data are such that nothing scores well without labels.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SequentialFeatureSelector
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_lmm.exceptions import SingularFitWarning
from sklearn_lmm.metrics import make_group_scorer


def draw(n_groups=8, size=9, seed=0):
    """Return X, y and labels with exactly known shares of the variance of y.

    x varies within groups only, w only between them, where it says a little about
    the group: without labels w looks better than x, with them it is useless.
    """
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), size)
    within = rng.normal(size=(n_groups * size, 2))
    within -= pd.DataFrame(within).groupby(group).transform("mean").to_numpy()
    x, noise = np.linalg.qr(within)[0].T * np.sqrt(n_groups * size)
    between = rng.normal(size=(n_groups, 2))
    b, other = np.linalg.qr(between - between.mean(axis=0))[0].T * np.sqrt(n_groups)
    w = 0.35 * b + np.sqrt(1 - 0.35**2) * other
    y = 0.25 * x + b[group] + 0.28 * noise
    order = rng.permutation(len(y))
    frame = pd.DataFrame({"x": x, "w": w[group], "school": group})
    return frame.iloc[order].reset_index(drop=True), y[order]


FRAME, Y = draw()
FEATURES, SCHOOL = FRAME[["x", "w"]], FRAME["school"]
CV = KFold(3, shuffle=True, random_state=0)
GRID = {"method": ["reml", "ml"]}


# The tools.  Each uses one as its users would, and returns an R2 or its like.

TOOLS: dict[str, Callable] = {}


def tool(title):
    def register(function):
        TOOLS[title] = function
        return function

    return register


def given(groups, name="groups"):
    """Return labels as an argument, if there are labels to be given."""
    return {} if groups is None else {name: groups}


def cv_scores(model, X, y, groups, **options):
    params = given(groups)
    return cross_validate(model, X, y, cv=CV, params=params, **options)["test_score"]


def fit_and_predict(model, X, y, groups):
    fitted = model.fit(X, y, **given(groups))
    return r2_score(y, fitted.predict(X, **given(groups)))


def fit_and_score(model, X, y, groups):
    return model.fit(X, y, **given(groups)).score(X, y, **given(groups))


@tool("cross_validate")
def _(model, X, y, groups):
    return cv_scores(model, X, y, groups)


@tool("cross_validate(groups=...)")
def _(model, X, y, groups):
    return cross_validate(model, X, y, cv=CV, groups=groups)["test_score"]


@tool("cross_validate(scoring='r2')")
def _(model, X, y, groups):
    return cv_scores(model, X, y, groups, scoring="r2")


@tool("cross_validate(scoring=make_group_scorer('r2'))")
def _(model, X, y, groups):
    return cv_scores(model, X, y, groups, scoring=make_group_scorer("r2"))


@tool("cross_val_predict")
def _(model, X, y, groups):
    return r2_score(y, cross_val_predict(model, X, y, cv=CV, params=given(groups)))


@tool("learning_curve")
def _(model, X, y, groups):
    options = {"cv": CV, "train_sizes": [0.7, 1.0], "params": given(groups)}
    return learning_curve(model, X, y, **options)[2]


@tool("validation_curve")
def _(model, X, y, groups):
    options = {"param_name": "method", "param_range": GRID["method"], "cv": CV}
    return validation_curve(model, X, y, params=given(groups), **options)[1]


@tool("permutation_test_score")
def _(model, X, y, groups):
    options = {"cv": CV, "n_permutations": 1, "random_state": 0}
    with warnings.catch_warnings():
        # A permuted response does not vary between groups, and is not meant to.
        warnings.simplefilter("ignore", SingularFitWarning)
        return permutation_test_score(model, X, y, params=given(groups), **options)[0]


def search_score(search, X, y, groups):
    return search.fit(X, y, **given(groups)).best_score_


@tool("GridSearchCV")
def _(model, X, y, groups):
    return search_score(GridSearchCV(model, GRID, cv=CV), X, y, groups)


@tool("GridSearchCV.predict")
def _(model, X, y, groups):
    return fit_and_predict(GridSearchCV(model, GRID, cv=CV), X, y, groups)


@tool("GridSearchCV.score")
def _(model, X, y, groups):
    return fit_and_score(GridSearchCV(model, GRID, cv=CV), X, y, groups)


@tool("GridSearchCV(scoring='r2')")
def _(model, X, y, groups):
    return search_score(GridSearchCV(model, GRID, cv=CV, scoring="r2"), X, y, groups)


@tool("GridSearchCV(scoring=make_group_scorer('r2'))")
def _(model, X, y, groups):
    scoring = make_group_scorer("r2")
    return search_score(GridSearchCV(model, GRID, cv=CV, scoring=scoring), X, y, groups)


@tool("GridSearchCV(Pipeline)")
def _(model, X, y, groups):
    search = GridSearchCV(piped(model), {"model__method": GRID["method"]}, cv=CV)
    return search.fit(X, y, **given(groups, step_argument())).best_score_


@tool("HalvingGridSearchCV")
def _(model, X, y, groups):
    options = {"cv": CV, "min_resources": 36, "random_state": 0}
    return search_score(HalvingGridSearchCV(model, GRID, **options), X, y, groups)


@tool("RandomizedSearchCV")
def _(model, X, y, groups):
    search = RandomizedSearchCV(model, GRID, n_iter=2, cv=CV, random_state=0)
    return search_score(search, X, y, groups)


def piped(model, first="passthrough"):
    return Pipeline([("first", first), ("model", model)])


def step_argument():
    """Return under which name a pipeline takes labels for its last step."""
    routing = sklearn.get_config()["enable_metadata_routing"]
    return "groups" if routing else "model__groups"


@tool("Pipeline.fit(groups=...)")
def _(model, X, y, groups):
    return fit_and_predict(piped(model), X, y, groups)


@tool("Pipeline.fit(model__groups=...)")
def _(model, X, y, groups):
    pipe = piped(model).fit(X, y, **given(groups, "model__groups"))
    return r2_score(y, pipe.predict(X, **given(groups)))


@tool("Pipeline.score")
def _(model, X, y, groups):
    pipe = piped(model).fit(X, y, **given(groups, step_argument()))
    return pipe.score(X, y, **given(groups))


@tool("Pipeline with a ColumnTransformer")
def _(model, X, y, groups):
    scale = ColumnTransformer(
        [("scale", StandardScaler(), [0, 1])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    if isinstance(X, pd.DataFrame):
        scale.set_output(transform="pandas")
    pipe = piped(model, scale).fit(X, y, **given(groups, step_argument()))
    return r2_score(y, pipe.predict(X, **given(groups)))


class Predictions(TransformerMixin, BaseEstimator):
    """A transformer with labels: the predictions of a model, as a column."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y, *, groups=None):
        self.model_ = clone(self.model).fit(X, y, groups=groups)
        return self

    def transform(self, X, groups=None):
        return self.model_.predict(X, groups)[:, None]

    def fit_transform(self, X, y, *, groups=None):
        return self.fit(X, y, groups=groups).transform(X, groups)

    def get_metadata_routing(self):
        routing = super().get_metadata_routing()
        wanted = self.model.get_metadata_routing().fit.requests["groups"]
        for method in (routing.fit, routing.transform):
            method.add_request(param="groups", alias=wanted)
        return routing


def fit_and_transform(transformer, X, y, groups):
    transformer.fit_transform(X, y, **given(groups))
    return r2_score(y, transformer.transform(X, **given(groups)))


@tool("ColumnTransformer of a transformer with groups")
def _(model, X, y, groups):
    columns = list(range(X.shape[1]))
    transformer = ColumnTransformer([("effects", Predictions(model), columns)])
    return fit_and_transform(transformer, X, y, groups)


@tool("FeatureUnion of a transformer with groups")
def _(model, X, y, groups):
    union = FeatureUnion([("effects", Predictions(model))])
    return fit_and_transform(union, X, y, groups)


def on_another_scale(model):
    return TransformedTargetRegressor(model, transformer=StandardScaler())


@tool("TransformedTargetRegressor")
def _(model, X, y, groups):
    return fit_and_predict(on_another_scale(model), X, y, groups)


@tool("TransformedTargetRegressor.score")
def _(model, X, y, groups):
    return fit_and_score(on_another_scale(model), X, y, groups)


@tool("cross_validate(TransformedTargetRegressor)")
def _(model, X, y, groups):
    return cv_scores(on_another_scale(model), X, y, groups)


@tool("StackingRegressor")
def _(model, X, y, groups):
    return fit_and_predict(StackingRegressor([("one", model)], cv=CV), X, y, groups)


@tool("VotingRegressor")
def _(model, X, y, groups):
    return fit_and_predict(VotingRegressor([("one", model)]), X, y, groups)


@tool("VotingRegressor, predict(X)")
def _(model, X, y, groups):
    voting = VotingRegressor([("one", model)]).fit(X, y, **given(groups))
    return r2_score(y, voting.predict(X))


@tool("BaggingRegressor")
def _(model, X, y, groups):
    bagging = BaggingRegressor(model, n_estimators=3, random_state=0)
    return fit_and_predict(bagging, X, y, groups)


@tool("AdaBoostRegressor")
def _(model, X, y, groups):
    boosting = AdaBoostRegressor(model, n_estimators=3, random_state=0)
    return fit_and_predict(boosting, X, y, groups)


def two_outputs(y):
    """Return y and another response that varies by group in its own way."""
    rng = np.random.default_rng(1)
    other = rng.normal(size=SCHOOL.nunique())[SCHOOL] + 0.3 * rng.normal(size=len(y))
    return np.column_stack([y, other])


@tool("MultiOutputRegressor")
def _(model, X, y, groups):
    return fit_and_predict(MultiOutputRegressor(model), X, two_outputs(y), groups)


@tool("MultiOutputRegressor, predict(X)")
def _(model, X, y, groups):
    Y = two_outputs(y)
    return r2_score(
        Y, MultiOutputRegressor(model).fit(X, Y, **given(groups)).predict(X)
    )


@tool("RegressorChain")
def _(model, X, y, groups):
    return fit_and_predict(RegressorChain(model), X, two_outputs(y), groups)


@tool("RegressorChain, predict(X)")
def _(model, X, y, groups):
    Y = two_outputs(y)
    return r2_score(Y, RegressorChain(model).fit(X, Y, **given(groups)).predict(X))


@tool("RFE")
def _(model, X, y, groups):
    return fit_and_predict(RFE(model, n_features_to_select=1), X, y, groups)


@tool("RFE.score")
def _(model, X, y, groups):
    return fit_and_score(RFE(model, n_features_to_select=1), X, y, groups)


@tool("RFECV")
def _(model, X, y, groups):
    selector = RFECV(model, cv=CV).fit(X, y, **given(groups))
    return selector.cv_results_["mean_test_score"]


@tool("SequentialFeatureSelector")
def _(model, X, y, groups):
    selector = SequentialFeatureSelector(model, n_features_to_select=1, cv=CV)
    # Only those who know the labels prefer the first column to the second.
    return selector.fit(X, y, **given(groups)).get_support()[0]


@tool("permutation_importance")
def _(model, X, y, groups):
    fitted = clone(model).fit(X, y, **given(groups))
    # The labels, the last column, make a large part of R2; if they are no column,
    # there is nothing to tell.
    return permutation_importance(fitted, X, y, random_state=0).importances_mean[-1]


@tool("partial_dependence")
def _(model, X, y, groups):
    fitted = clone(model).fit(X, y, **given(groups))
    options = {"kind": "individual", "grid_resolution": 3}
    # At the mean of x what is left of y is mostly the effect of the group.
    return r2_score(
        y, partial_dependence(fitted, X, [0], **options)["individual"][0, :, 1]
    )
