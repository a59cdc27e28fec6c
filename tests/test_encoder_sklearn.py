"""RandomEffectsEncoder among scikit-learn's tools, with and without routing."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from frames import to_polars
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lmm import RandomEffectsEncoder

RNG = np.random.default_rng(0)
N = 480
CODE = RNG.integers(0, 24, N)
X = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "city": [f"city {c}" for c in CODE],
        "kind": pd.Categorical(RNG.choice(["a", "b", "c"], N)),
    },
    index=np.arange(N) + 1000,
)
Y = 3 + X["x"] + 2 * np.cos(CODE) + 0.5 * (X["kind"] == "b") + RNG.normal(size=N)
REGIONS = (CODE // 4).astype(str)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# Columns of the checks are numbers, often all different; y may be constant or a
# function of them.
@pytest.mark.filterwarnings(
    "ignore::sklearn_lmm.exceptions.ConvergenceWarning",
    "ignore::sklearn_lmm.exceptions.IdentifiabilityWarning",
    "ignore::sklearn_lmm.exceptions.PerfectFitWarning",
    "ignore::sklearn_lmm.exceptions.RankDeficiencyWarning",
    "ignore::sklearn_lmm.exceptions.SingularFitWarning",
)
@parametrize_with_checks(
    [
        RandomEffectsEncoder(),
        RandomEffectsEncoder(joint=False),
        RandomEffectsEncoder(0, extras="std"),
        RandomEffectsEncoder(0, adjust_for=1),
        RandomEffectsEncoder(0, slopes=1),
        RandomEffectsEncoder([0, 1], method="ml", cv=2, handle_unknown="error"),
    ]
)
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


def test_tags():
    tags = get_tags(RandomEffectsEncoder())
    assert tags.target_tags.required
    assert tags.input_tags.categorical and tags.input_tags.string
    assert tags.input_tags.allow_nan and not tags.input_tags.sparse
    with pytest.raises(TypeError, match="Sparse data was passed"):
        RandomEffectsEncoder().fit(sparse.csr_array(np.eye(9)), np.arange(9.0))


@pytest.mark.parametrize("frame", [X, to_polars(X)])
@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_set_output(frame, kind):
    encoder = RandomEffectsEncoder(slopes="x", extras=["std", "count"], cv=KFold(3))
    expected = clone(encoder).fit_transform(frame, Y)
    encoder.set_output(transform=kind)
    found = encoder.fit_transform(frame, Y)
    assert type(found) is {"pandas": pd.DataFrame, "polars": pl.DataFrame}[kind]
    assert list(found.columns) == encoder.get_feature_names_out().tolist()
    np.testing.assert_array_equal(found.to_numpy(), expected)
    if kind == "pandas" and frame is X:
        assert found.index.equals(X.index)
    assert list(encoder.transform(frame[:5]).columns) == list(found.columns)


def test_feature_names_follow_the_input_names():
    array = X[["city", "kind"]].to_numpy()
    encoder = RandomEffectsEncoder([1, 0], extras="count").fit(array, Y)
    assert encoder.get_feature_names_out(["p", "q"]).tolist() == [
        "q",
        "q_count",
        "p",
        "p_count",
    ]
    with pytest.raises(ValueError, match="input_features"):
        encoder.get_feature_names_out(["p"])


def test_copies_encode_the_same():
    encoder = RandomEffectsEncoder(adjust_for="x", extras="std").fit(X, Y)
    for twin in (
        pickle.loads(pickle.dumps(encoder)),
        copy.deepcopy(encoder),
        clone(encoder).fit(X, Y),
    ):
        np.testing.assert_array_equal(twin.transform(X), encoder.transform(X))
    assert not hasattr(clone(encoder), "encodings_")


def test_size_when_pickled_is_that_of_the_categories():
    many = pd.concat([X] * 50, ignore_index=True)
    small = RandomEffectsEncoder().fit(X, Y)
    large = RandomEffectsEncoder().fit(many, np.tile(Y, 50))
    assert len(pickle.dumps(large)) < 1.1 * len(pickle.dumps(small))


def test_random_state_fixes_the_folds():
    def encoded(seed, **options):
        encoder = RandomEffectsEncoder("city", random_state=seed, **options)
        return encoder.fit_transform(X, Y)

    np.testing.assert_array_equal(encoded(1), encoded(1))
    assert (encoded(1) != encoded(2)).any()
    unshuffled = RandomEffectsEncoder("city", cv=KFold(5)).fit_transform(X, Y)
    for seed in (None, 1):
        np.testing.assert_array_equal(encoded(seed, shuffle=False), unshuffled)
    np.testing.assert_array_equal(encoded(None, shuffle=False, cv=None), unshuffled)


def test_pipeline_learns_from_the_cross_fitted_columns():
    pipeline = make_pipeline(
        RandomEffectsEncoder("city", cv=KFold(4)), LinearRegression()
    )
    pipeline.fit(X, Y)
    encoded = RandomEffectsEncoder("city", cv=KFold(4)).fit_transform(X, Y)
    expected = LinearRegression().fit(encoded, Y)
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_)
    by_all = pipeline[0].transform(X[:5])
    np.testing.assert_allclose(pipeline.predict(X[:5]), expected.predict(by_all))


def test_column_transformer_and_feature_union():
    encoder = RandomEffectsEncoder(cv=KFold(4), extras="count")
    transformer = ColumnTransformer(
        [("encoded", encoder, ["city", "kind"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    found = transformer.fit_transform(X, Y)
    assert list(found) == ["city", "city_count", "kind", "kind_count", "x"]
    alone = encoder.fit_transform(X[["city", "kind"]], Y)
    np.testing.assert_array_equal(found.iloc[:, :4], alone)
    union = FeatureUnion([("a", encoder), ("b", RandomEffectsEncoder("kind"))])
    assert union.fit_transform(X, Y).shape == (N, 5)


def test_grid_search_over_its_parameters():
    pipeline = make_pipeline(
        RandomEffectsEncoder(random_state=0),
        HistGradientBoostingRegressor(max_iter=5, random_state=0),
    )
    grid = {
        "randomeffectsencoder__joint": [True, False],
        "randomeffectsencoder__extras": [(), ("std",)],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, Y)
    assert search.best_score_ > 0.25


def test_default_works_with_routing_on(routing):
    pipeline = make_pipeline(RandomEffectsEncoder("city"), LinearRegression())
    scores = cross_val_score(pipeline, X, Y, cv=3, error_score="raise")
    assert scores.min() > 0.3
    result = cross_validate(
        pipeline,
        X,
        Y,
        cv=GroupKFold(3),
        params={"groups": REGIONS},
        error_score="raise",
    )
    # Every city is new to a fold by regions, so that nothing is known of it.
    assert result["test_score"].max() < 0.1


def test_groups_reach_the_splitter(routing):
    encoder = RandomEffectsEncoder("city", cv=GroupKFold(3), extras="count")
    encoded = encoder.fit_transform(X, Y, groups=REGIONS)
    splits = list(GroupKFold(3).split(X, groups=REGIONS))
    by_hand = RandomEffectsEncoder("city", cv=splits, extras="count")
    np.testing.assert_array_equal(encoded, by_hand.fit_transform(X, Y))
    assert (encoded[:, 1] == 0).all()


def test_groups_reach_the_splitter_through_a_pipeline(routing):
    encoder = RandomEffectsEncoder("city", cv=GroupKFold(3))
    model = LinearRegression()
    pipeline = make_pipeline(encoder, model).fit(X, Y, groups=REGIONS)
    expected = clone(encoder).fit_transform(X, Y, groups=REGIONS)
    np.testing.assert_allclose(
        pipeline[-1].coef_, clone(model).fit(expected, Y).coef_, atol=1e-12
    )
    result = cross_validate(
        make_pipeline(ColumnTransformer([("e", encoder, ["city"])]), model),
        X,
        Y,
        cv=KFold(3),
        params={"groups": REGIONS},
        error_score="raise",
    )
    assert np.isfinite(result["test_score"]).all()


def test_groups_without_routing_are_refused():
    encoder = RandomEffectsEncoder("city", cv=GroupKFold(3))
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        encoder.fit_transform(X, Y, groups=REGIONS)


def test_groups_that_no_splitter_asks_for_are_refused(routing):
    with pytest.raises(TypeError, match="groups"):
        RandomEffectsEncoder("city").fit_transform(X, Y, groups=REGIONS)
