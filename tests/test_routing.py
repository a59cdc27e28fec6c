"""Where labels go in scikit-learn: every tool, every way in, and no silent loss.

TABLE is written down in advance, and docs/labels.md shows it to users.  A cell is
*reached* when labels count in fit and in what is asked of the model (the data are such
that nothing scores well without), *warned* when they do not and MissingGroupsWarning
says so, *raised* when the tool refuses.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import StackingRegressor
from sklearn.feature_selection import RFE, SequentialFeatureSelector
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.multioutput import RegressorChain
from tools import CV, FEATURES, FRAME, SCHOOL, TOOLS, Y, two_outputs

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.exceptions import IdentifiabilityWarning, MissingGroupsWarning

REACHED, WARNED, RAISED = "reached", "warned", "raised"
# What is used, then: groups with routing off, groups with routing on, a column of X
# by its name, a column of X by its position.
TABLE = {
    "cross_validate": (WARNED, REACHED, REACHED, REACHED),
    "cross_validate(groups=...)": (WARNED, RAISED, REACHED, REACHED),
    "cross_validate(scoring='r2')": (WARNED, WARNED, REACHED, REACHED),
    "cross_validate(scoring=make_group_scorer('r2'))": (
        RAISED,
        REACHED,
        REACHED,
        REACHED,
    ),
    "cross_val_predict": (WARNED, WARNED, REACHED, REACHED),
    "learning_curve": (WARNED, REACHED, REACHED, REACHED),
    "validation_curve": (WARNED, REACHED, REACHED, REACHED),
    "permutation_test_score": (WARNED, REACHED, REACHED, REACHED),
    "GridSearchCV": (WARNED, REACHED, REACHED, REACHED),
    "GridSearchCV.predict": (RAISED, RAISED, REACHED, REACHED),
    "GridSearchCV.score": (RAISED, REACHED, REACHED, REACHED),
    "GridSearchCV(scoring='r2')": (WARNED, WARNED, REACHED, REACHED),
    "GridSearchCV(scoring=make_group_scorer('r2'))": (
        RAISED,
        REACHED,
        REACHED,
        REACHED,
    ),
    "GridSearchCV(Pipeline)": (WARNED, REACHED, REACHED, REACHED),
    "HalvingGridSearchCV": (WARNED, REACHED, REACHED, REACHED),
    "RandomizedSearchCV": (WARNED, REACHED, REACHED, REACHED),
    "Pipeline.fit(groups=...)": (RAISED, REACHED, REACHED, REACHED),
    "Pipeline.fit(model__groups=...)": (REACHED, RAISED, REACHED, REACHED),
    "Pipeline.score": (WARNED, REACHED, REACHED, REACHED),
    "Pipeline with a ColumnTransformer": (REACHED, REACHED, REACHED, REACHED),
    "ColumnTransformer of a transformer with groups": (
        RAISED,
        REACHED,
        REACHED,
        REACHED,
    ),
    "FeatureUnion of a transformer with groups": (RAISED, REACHED, REACHED, REACHED),
    "TransformedTargetRegressor": (REACHED, REACHED, REACHED, REACHED),
    "TransformedTargetRegressor.score": (RAISED, RAISED, REACHED, REACHED),
    "cross_validate(TransformedTargetRegressor)": (WARNED, WARNED, REACHED, REACHED),
    "StackingRegressor": (RAISED, RAISED, REACHED, REACHED),
    "VotingRegressor": (RAISED, RAISED, REACHED, REACHED),
    "VotingRegressor, predict(X)": (RAISED, WARNED, REACHED, REACHED),
    "BaggingRegressor": (RAISED, REACHED, RAISED, REACHED),
    "AdaBoostRegressor": (RAISED, RAISED, RAISED, REACHED),
    "MultiOutputRegressor": (RAISED, RAISED, REACHED, REACHED),
    "MultiOutputRegressor, predict(X)": (WARNED, WARNED, REACHED, REACHED),
    "RegressorChain": (RAISED, RAISED, RAISED, REACHED),
    "RegressorChain, predict(X)": (WARNED, WARNED, RAISED, REACHED),
    "RFE": (RAISED, REACHED, RAISED, RAISED),
    "RFE.score": (REACHED, REACHED, RAISED, RAISED),
    "RFECV": (WARNED, WARNED, RAISED, RAISED),
    "SequentialFeatureSelector": (RAISED, REACHED, RAISED, RAISED),
    "permutation_importance": (WARNED, WARNED, REACHED, REACHED),
    "partial_dependence": (WARNED, WARNED, REACHED, REACHED),
}
WAYS = ("off", "on", "name", "position")
NEEDS_ROUTING = {title for title in TABLE if "make_group_scorer" in title}


def test_nothing_scores_well_without_labels():
    population = LinearRegression().fit(FEATURES, Y).score(FEATURES, Y)
    conditional = MixedEffectsRegressor("school").fit(FRAME, Y).score(FRAME, Y)
    assert 0.1 < population < 0.2
    assert 0.9 < conditional < 0.95
    blind = SequentialFeatureSelector(LinearRegression(), cv=CV).fit(FEATURES, Y)
    assert blind.get_feature_names_out().tolist() == ["w"]


def outcome(title, way, frame=FRAME, **parameters):
    """Return what happens to labels, and the text of an error."""
    X, groups, random = {
        "off": (frame[["x", "w"]], frame["school"], None),
        "on": (frame[["x", "w"]], frame["school"], None),
        "name": (frame, None, "school"),
        "position": (frame.to_numpy(), None, 2),
    }[way]
    model = MixedEffectsRegressor(random, **parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            quality = np.min(TOOLS[title](model, X, Y, groups))
        except Exception as error:
            return RAISED, str(error)
    kinds = {warning.category for warning in caught}
    if MissingGroupsWarning in kinds:
        return WARNED, ""
    if quality > 0.7 and not kinds:
        return REACHED, ""
    return f"quality {quality:.2f}, warnings {kinds}", ""


def cells(*ways):
    return pytest.mark.parametrize(
        ("title", "way", "expected"),
        [
            pytest.param(title, way, cell, id=f"{title}-{way}")
            for title, row in TABLE.items()
            for way, cell in zip(WAYS, row, strict=True)
            if way in ways
        ],
    )


def test_every_tool_is_in_the_table():
    assert list(TABLE) == list(TOOLS)


@cells("off", "on", "name", "position")
def test_what_happens_to_labels(title, way, expected):
    routing = way == "on" or (way != "off" and title in NEEDS_ROUTING)
    with sklearn.config_context(enable_metadata_routing=routing):
        found, text = outcome(title, way)
    assert found == expected
    if found == RAISED:
        assert re.search(
            "groups|metadata routing|has no column names|names column", text
        )


@cells("name", "position")
def test_routing_changes_nothing_for_labels_in_a_column(title, way, expected):
    with sklearn.config_context(enable_metadata_routing=True):
        assert outcome(title, way)[0] == expected


@cells("name", "position")
def test_labels_may_be_text_where_a_tool_keeps_text(title, way, expected):
    chain = title.startswith("RegressorChain")
    with sklearn.config_context(enable_metadata_routing=title in NEEDS_ROUTING):
        text = FRAME.assign(school=SCHOOL.map("school {}".format))
        assert outcome(title, way, text)[0] == (RAISED if chain else expected)


@pytest.mark.parametrize(
    ("title", "way"),
    [
        (title, way)
        for title, row in TABLE.items()
        for way, cell in zip(WAYS, row, strict=True)
        if cell == WARNED
    ],
)
def test_a_strict_model_gives_no_score_where_labels_are_lost(title, way):
    """What handle_unknown="error" is for: warnings of worker processes may be lost."""
    with sklearn.config_context(enable_metadata_routing=way == "on"):
        found, text = outcome(title, way, handle_unknown="error")
    missing = "no labels of 'school'|takes its labels from the argument groups"
    assert found.startswith("quality nan") or re.search(missing, text)


def moved(values, first):
    """Return an array with the labels in the first or in the last column."""
    x, w, labels = values.T
    return np.column_stack([labels, x, w] if first else [x, w, labels])


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("kind", [RFE, SequentialFeatureSelector])
def test_another_column_in_the_place_of_the_labels_is_noticed(kind, first):
    # Measurements: each row has a value of its own.
    frame = FRAME.assign(w=FRAME["w"] + 0.1 * np.random.default_rng(0).normal(size=72))
    model = MixedEffectsRegressor(0 if first else -1)
    with pytest.warns(IdentifiabilityWarning, match="has a single row"):
        kind(model, n_features_to_select=1).fit(moved(frame.to_numpy(), first), Y)


def test_a_chain_puts_its_predictions_in_the_last_place():
    with pytest.warns(IdentifiabilityWarning, match="has a single row"):
        RegressorChain(MixedEffectsRegressor(-1)).fit(FRAME.to_numpy(), two_outputs(Y))


def test_a_final_estimator_with_groups_lets_labels_through_a_stack():
    stack = StackingRegressor(
        [("one", MixedEffectsRegressor())], MixedEffectsRegressor(), cv=CV
    )
    with sklearn.config_context(enable_metadata_routing=True):
        # The predictions that the final estimator learns from are made without.
        with pytest.warns(MissingGroupsWarning):
            stack.fit(FEATURES, Y, groups=SCHOOL)
        with pytest.warns(MissingGroupsWarning):
            prediction = stack.predict(FEATURES, groups=SCHOOL)
    assert r2_score(Y, prediction) > 0.7


@pytest.mark.parametrize("labels", [SCHOOL, FRAME[["school"]], SCHOOL.to_numpy()])
def test_the_splitter_and_the_model_may_group_by_different_factors(labels):
    half = np.arange(len(Y)) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = MixedEffectsRegressor().set_fit_request(groups="re_groups")
        params = {"groups": half, "re_groups": labels}
        options = {"cv": GroupKFold(2), "params": params, "error_score": "raise"}
        assert cross_validate(model, FEATURES, Y, **options)["test_score"].min() > 0.7


def test_new_groups_have_no_effect_whatever_the_way_in():
    with sklearn.config_context(enable_metadata_routing=True):
        options = {"cv": GroupKFold(4), "params": {"groups": SCHOOL}}
        routed = cross_validate(MixedEffectsRegressor(), FEATURES, Y, **options)
        column = cross_validate(MixedEffectsRegressor("school"), FRAME, Y, **options)
    np.testing.assert_allclose(routed["test_score"], column["test_score"], rtol=1e-6)
    assert routed["test_score"].mean() < 0.4


PAGE = Path(__file__).parents[1] / "docs" / "labels.md"


def test_the_page_shows_this_table():
    lines = PAGE.read_text(encoding="utf-8").replace("`", "").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert rows[0][0] == "tool"
    assert {title: tuple(row) for title, *row in rows[1:]} == TABLE
    assert [title for title, *_ in rows[1:]] == list(TABLE)
