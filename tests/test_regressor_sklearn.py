"""What the estimator promises to scikit-learn, and how labels travel."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from schools import NUMERIC, SCHOOL, X, Y, fit
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_lmm import MixedEffectsRegressor, RandomEffect


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "map"},
        {"solver": "simplex"},
        {"handle_unknown": "ignore"},
        {"weights": "sampling"},
        {"max_iter": 0},
        {"tol": 0},
        {"fit_intercept": "yes"},
        {"verbose": -1},
    ],
)
def test_unknown_options_are_refused(parameters):
    [name] = parameters
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        fit("school", **parameters)


@pytest.mark.parametrize(
    "random", [True, {}, "(1 | school", "shool", 7, "(y | school)"]
)
def test_bad_random_parts_are_refused(random):
    with pytest.raises(ValueError, match=r"school|True|\{\}|n_features = 4"):
        fit(random)


def test_copies_predict_the_same():
    model = fit(["(x | school)", ("school", "town")])
    for twin in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        clone(model).fit(X, Y),
    ):
        np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert clone(model).get_params() == model.get_params()


def test_a_second_fit_forgets_the_first():
    model = fit(["school", "town"])
    model.set_params(random=0).fit(X[["school", "x"]].to_numpy(), Y)
    assert list(model.effects_) == ["x0"]
    assert not hasattr(model, "feature_names_in_")
    assert model.coef_.shape == (2,)


def test_fit_leaves_its_inputs_alone():
    frame, y, weights = X.copy(), Y.copy(), np.ones(len(Y))
    array = X.to_numpy().copy()
    fit(["school", "town"], frame, y, sample_weight=weights)
    fit([2, 3], array, y).predict(array)
    pd.testing.assert_frame_equal(frame, X)
    np.testing.assert_array_equal(array, X.to_numpy())
    np.testing.assert_array_equal(y, Y)
    assert (weights == 1).all()


def test_every_public_attribute_can_be_shown():
    model = fit(["school", "town"])
    names = [name for name in dir(model) if name.endswith("_") and name[0] != "_"]
    assert "fit_" in names
    for name in names:
        assert repr(getattr(model, name))
    assert "MixedEffectsRegressor" in model._repr_html_()


def test_verbose_prints_the_trace(capsys):
    fit("school", verbose=1)
    assert capsys.readouterr().out.count("\n") > 2
    fit("school")
    assert capsys.readouterr().out == ""


def test_unfitted_estimator_says_so():
    model = MixedEffectsRegressor()
    for method in (
        model.predict,
        model.decompose,
        model.design_matrix,
        lambda X: model.random_effects(),
    ):
        with pytest.raises(sklearn.exceptions.NotFittedError):
            method(X)


def requested(model):
    routing = model.get_metadata_routing()
    return [
        getattr(routing, method).requests["groups"]
        for method in ("fit", "predict", "score")
    ]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.parametrize(
    ("random", "wanted"),
    [
        (None, True),
        (RandomEffect(slopes="x"), True),
        ("(1 | groups)", True),
        (["school", None], True),
        ([], False),
        ("school", False),
        ("(x | school)", False),
    ],
)
def test_groups_are_requested_where_a_term_needs_them(random, wanted):
    assert requested(MixedEffectsRegressor(random)) == [wanted] * 3
    assert requested(clone(MixedEffectsRegressor(random))) == [wanted] * 3


def test_requests_of_the_user_win_and_survive_clone(routing):
    model = MixedEffectsRegressor().set_fit_request(groups="labels")
    model.set_predict_request(groups=False).set_score_request(sample_weight=True)
    for twin in (model, clone(model), clone(clone(model))):
        assert requested(twin) == ["labels", False, "labels"]
    renamed = MixedEffectsRegressor().set_fit_request(groups="labels")
    assert requested(clone(renamed)) == ["labels"] * 3
    named = MixedEffectsRegressor("school").set_fit_request(groups=True)
    assert requested(clone(named)) == [True] * 3
    fit_only = clone(named).set_predict_request(groups=False)
    assert requested(fit_only.set_score_request(groups=False)) == [True, False, False]


def test_labels_are_routed_through_cross_validation(routing):
    model = make_pipeline(StandardScaler(), MixedEffectsRegressor())
    cv = KFold(3, shuffle=True, random_state=0)
    routed = cross_validate(model, NUMERIC, Y, cv=cv, params={"groups": SCHOOL})
    inside = cross_validate(
        MixedEffectsRegressor("school"), X[["x", "z", "school"]], Y, cv=cv
    )
    np.testing.assert_allclose(routed["test_score"], inside["test_score"], rtol=1e-6)


def test_column_mode_needs_no_request_beside_group_k_fold(routing):
    scores = cross_validate(
        MixedEffectsRegressor("school"),
        X,
        Y,
        cv=GroupKFold(3),
        params={"groups": SCHOOL},
    )
    assert np.isfinite(scores["test_score"]).all()


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.MissingGroupsWarning")
def test_grid_search_over_random_ignores_labels_that_a_candidate_does_not_use(routing):
    grid = {"random": [None, [], RandomEffect(slopes="x")]}
    search = GridSearchCV(
        MixedEffectsRegressor(), grid, cv=KFold(3, shuffle=True, random_state=0)
    )
    search.fit(NUMERIC, Y, groups=SCHOOL)
    assert search.best_params_["random"] == RandomEffect(slopes="x")


def test_column_mode_works_behind_a_column_transformer():
    scale = ColumnTransformer(
        [("scale", StandardScaler(), ["x", "z"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipe = make_pipeline(scale, MixedEffectsRegressor(["school", "town"]))
    np.testing.assert_allclose(
        pipe.fit(X, Y).predict(X), fit(["school", "town"]).predict(X), rtol=1e-6
    )
    scores = cross_validate(pipe, X, Y, cv=KFold(3), scoring=["r2", "neg_max_error"])
    assert (scores["test_r2"] > 0.3).all()


def test_a_good_fit_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(["(x | school)", "town"]).predict(X)
