"""Folds of new groups with a few labelled rows, and models adapted to these."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LinearRegression
from sklearn.metrics import get_scorer, mean_absolute_error, r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.model_selection import GroupAdaptSplit, cross_val_adapt

# Nine groups of 1 to 9 rows, in mixed order.
GROUPS = np.random.default_rng(0).permutation(
    np.repeat(list("abcdefghi"), range(1, 10))
)
N = len(GROUPS)
SIZE = dict(zip("abcdefghi", range(1, 10), strict=True))


def splits(cv, groups=GROUPS):
    return list(cv.split(np.zeros(len(groups)), groups=groups))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_k_rows_of_every_tested_group_stay_in_training(k, shuffle):
    tested = []
    for train, test in splits(GroupAdaptSplit(3, n_adapt=k, shuffle=shuffle)):
        assert sorted([*train, *test]) == list(range(N))
        for group in set(GROUPS[test]):
            assert np.sum(GROUPS[train] == group) == k
            assert np.sum(GROUPS[test] == group) == SIZE[group] - k
        tested += list(GROUPS[test])
    # Every group is tested in one fold, if there is anything to test.
    assert {group: tested.count(group) for group in set(tested)} == {
        group: size - k for group, size in SIZE.items() if size > k
    }


def test_without_shuffling_the_first_rows_stay():
    for train, test in splits(GroupAdaptSplit(3, n_adapt=2, shuffle=False)):
        for group in set(GROUPS[test]):
            rows = np.flatnonzero(GROUPS == group)
            assert rows[:2].tolist() == train[GROUPS[train] == group].tolist()


def test_without_shuffling_folds_have_nearly_the_same_size():
    sizes = [len(test) for _, test in splits(GroupAdaptSplit(3, shuffle=False))]
    assert sum(sizes) == N - 9
    assert max(sizes) - min(sizes) <= 2


def test_k_of_zero_is_group_k_fold():
    for shuffle in (False, True):
        ours = splits(GroupAdaptSplit(3, n_adapt=0, shuffle=shuffle))
        for train, test in ours:
            assert set(GROUPS[train]).isdisjoint(GROUPS[test])
    theirs = GroupKFold(3).split(GROUPS, groups=pd.factorize(GROUPS)[0])
    ours = splits(GroupAdaptSplit(3, n_adapt=0, shuffle=False))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_a_seed_repeats_the_draw_and_another_changes_it():
    first, again, other = (
        [test.tolist() for _, test in splits(GroupAdaptSplit(3, random_state=seed))]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_rows_that_stay_for_a_smaller_k_are_among_those_of_a_larger():
    groups = np.repeat(np.arange(6), 8)
    few = splits(GroupAdaptSplit(3, n_adapt=2, random_state=3), groups)
    many = splits(GroupAdaptSplit(3, n_adapt=5, random_state=3), groups)
    for (_, test_few), (_, test_many) in zip(few, many, strict=True):
        assert set(test_many) < set(test_few)
        assert set(groups[test_many]) == set(groups[test_few])


def test_order_of_the_rows_that_stay_is_random():
    groups = np.repeat(np.arange(40), 5)
    places = [
        train[np.isin(groups[train], groups[test])] % 5
        for train, test in splits(GroupAdaptSplit(2, random_state=0), groups)
    ]
    assert set(np.concatenate(places)) == set(range(5))


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(GROUPS, index=np.arange(N) + 7),
        pd.Series(pd.Categorical(GROUPS, list("zihgfedcba"))),
        pl.Series(GROUPS),
        list(GROUPS),
    ],
    ids=["series", "categories", "polars", "list"],
)
def test_labels_in_any_container(labels):
    cv = GroupAdaptSplit(3, n_adapt=2, random_state=0)
    for one, other in zip(splits(cv, labels), splits(cv), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_it_is_a_splitter_of_scikit_learn():
    cv = GroupAdaptSplit(4, n_adapt=2, random_state=1)
    assert cv.get_n_splits() == 4
    assert repr(cv) == (
        "GroupAdaptSplit(n_adapt=2, n_splits=4, random_state=1, shuffle=True)"
    )
    assert cv.get_metadata_routing().split.requests == {"groups": True}
    X = np.arange(N, dtype=float)[:, None]
    for twin in (cv, copy.deepcopy(cv), pickle.loads(pickle.dumps(cv))):
        scores = cross_val_score(LinearRegression(), X, X[:, 0], cv=twin, groups=GROUPS)
        np.testing.assert_allclose(scores, np.ones(4))
    with sklearn.config_context(enable_metadata_routing=True):
        routed = cross_validate(
            LinearRegression(), X, X[:, 0], cv=cv, params={"groups": GROUPS}
        )
    assert len(routed["test_score"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_splits": 1}, "n_splits must be an int of at least 2: 1"),
        ({"n_splits": 2.5}, "n_splits must be an int"),
        ({"n_adapt": -1}, "n_adapt must be an int of at least 0: -1"),
        ({"n_adapt": "all"}, "n_adapt must be an int"),
        ({"shuffle": False, "random_state": 0}, "random_state has no effect"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupAdaptSplit(**arguments)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (None, "groups is missing"),
        (np.column_stack([GROUPS, GROUPS]), r"groups has shape \(45, 2\)"),
        (np.where(GROUPS == "b", None, GROUPS), "group of 2 rows is missing"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        list(GroupAdaptSplit(3).split(np.zeros(N), groups=groups))


def test_too_few_groups_with_something_to_test():
    message = "only 2 of 9 groups have more than n_adapt=7 rows"
    with pytest.raises(ValueError, match=message):
        splits(GroupAdaptSplit(3, n_adapt=7))


class Means(RegressorMixin, BaseEstimator):
    """The mean of all rows, and known deviations of groups: the least that adapts.

    in_column : whether labels are the last column of X instead of groups
    """

    def __init__(self, in_column=False):
        self.in_column = in_column

    def fit(self, X, y, groups=None):
        self.labels_ = self._labels(X, groups)
        self.mean_ = np.mean(np.asarray(y))
        self.effects_ = {}
        return self

    def adapt(self, X, y, groups=None):
        twin = copy.deepcopy(self)
        deviations = (
            pd.Series(np.asarray(y) - self.mean_)
            .groupby(self._labels(X, groups))
            .mean()
        )
        twin.effects_ |= deviations.to_dict()
        return twin

    def predict(self, X, groups=None):
        labels = self._labels(X, groups)
        return self.mean_ + np.array([self.effects_.get(g, 0.0) for g in labels])

    def _labels(self, X, groups):
        assert (groups is None) == self.in_column
        return np.asarray(X)[:, -1] if self.in_column else np.asarray(groups)

    def get_metadata_routing(self):
        routing = super().get_metadata_routing()
        for method in (routing.fit, routing.predict):
            method.add_request(param="groups", alias=not self.in_column)
        return routing


CODES = pd.factorize(GROUPS)[0]
RNG = np.random.default_rng(5)
X = np.column_stack([RNG.normal(size=N), CODES])
Y = 3 * RNG.normal(size=9)[CODES] + RNG.normal(size=N)
CV = GroupAdaptSplit(3, n_adapt=2, random_state=0)


def by_hand(cv, score=r2_score):
    """Return the scores of Means, written out."""
    scores = []
    for train, test in splits(cv, CODES):
        new = np.isin(CODES[train], CODES[test])
        mean = Y[train[~new]].mean()
        rows = train[new]
        deviation = pd.Series(Y[rows] - mean).groupby(CODES[rows]).mean()
        prediction = mean + deviation.reindex(CODES[test], fill_value=0.0)
        scores.append(score(Y[test], prediction))
    return scores


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("in_column", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_it_is_fitted_to_other_groups_and_adapted_to_new_ones(
    in_column, piped, routing
):
    model = Means(in_column)
    if piped:
        model = make_pipeline(FunctionTransformer(), model)
    with sklearn.config_context(enable_metadata_routing=routing):
        scores = cross_val_adapt(model, X, Y, CODES, cv=CV)
    np.testing.assert_allclose(scores, by_hand(CV))
    assert scores.mean() > 0.5
    assert not hasattr(model, "mean_")


def test_the_model_is_cloned_and_transformers_never_see_the_new_rows():
    seen = []

    class Spy(StandardScaler):
        def fit(self, X, y=None):
            seen.append(len(X))
            return super().fit(X)

    model = make_pipeline(Spy(), Means())
    cross_val_adapt(model, X, Y, CODES, cv=CV)
    other = [
        len(train) - 2 * len(set(CODES[test])) for train, test in splits(CV, CODES)
    ]
    assert seen == other
    assert not hasattr(model[0], "mean_")


def test_a_pipeline_of_one_step():
    scores = cross_val_adapt(make_pipeline(Means()), X, Y, CODES, cv=CV)
    np.testing.assert_allclose(scores, by_hand(CV))


def test_where_nothing_is_to_be_adapted_the_fit_is_scored():
    scores = cross_val_adapt(Means(), X, Y, CODES, cv=GroupKFold(3))
    np.testing.assert_allclose(scores, by_hand(GroupKFold(3)))
    assert scores.mean() < 0.1
    # Then any regressor will do.
    line = LinearRegression()
    np.testing.assert_allclose(
        cross_val_adapt(line, X, Y, CODES, cv=GroupKFold(3)),
        cross_val_score(line, X, Y, groups=CODES, cv=GroupKFold(3)),
    )


def test_more_rows_help():
    errors = [
        -cross_val_adapt(Means(), X, Y, CODES, cv=cv, scoring="neg_max_error").mean()
        for k in (0, 1, 3)
        for cv in [GroupAdaptSplit(3, n_adapt=k, random_state=0)]
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    "scoring",
    [
        "neg_mean_absolute_error",
        get_scorer("neg_mean_absolute_error"),
        lambda estimator, X, y: -mean_absolute_error(y, estimator.predict(X)),
    ],
)
def test_scoring(scoring):
    scores = cross_val_adapt(Means(), X, Y, CODES, cv=CV, scoring=scoring)
    expected = by_hand(CV, lambda y, p: -mean_absolute_error(y, p))
    np.testing.assert_allclose(scores, expected)


def test_default_splits_are_five_folds_with_one_row():
    groups = np.arange(N) % 9
    scores = cross_val_adapt(Means(), X, Y, groups)
    assert scores.shape == (5,)
    own = list(GroupAdaptSplit(5, n_adapt=1, random_state=1).split(X, groups=groups))
    assert cross_val_adapt(Means(), X, Y, groups, cv=own).shape == (5,)


@pytest.mark.parametrize("kind", ["pandas", "polars", "lists"])
def test_any_container(kind):
    names = ["x", "g"]
    data = {
        "pandas": (
            pd.DataFrame(X, columns=names, index=np.arange(N) + 7),
            pd.Series(Y),
            pd.Series(CODES),
        ),
        "polars": (pl.DataFrame(X, schema=names), pl.Series(Y), pl.Series(CODES)),
        "lists": (X.tolist(), Y.tolist(), CODES.tolist()),
    }[kind]
    scores = cross_val_adapt(Means(), *data, cv=CV)
    np.testing.assert_allclose(scores, by_hand(CV))


def test_a_regressor_that_cannot_adapt():
    with pytest.raises(TypeError, match="LinearRegression has no method adapt"):
        cross_val_adapt(LinearRegression(), X, Y, CODES, cv=CV)


def test_folds_without_a_new_group():
    with pytest.raises(ValueError, match="GroupAdaptSplit or GroupKFold"):
        cross_val_adapt(Means(), X, Y, np.arange(N) % 3, cv=list(KFold(3).split(X)))


def test_rows_that_do_not_match():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        cross_val_adapt(Means(), X, Y, CODES[1:], cv=CV)


def test_the_mixed_model_adapts_with_its_fitted_parameters():
    """The effect of a new group is its BLUP: psi n / (psi n + sigma^2) of the mean."""
    groups = np.repeat(np.arange(12), 6)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(72, 1))
    y = x[:, 0] + 2 * rng.normal(size=12)[groups] + rng.normal(size=72)
    cv = GroupAdaptSplit(3, n_adapt=2, random_state=0)
    expected = []
    for train, test in splits(cv, groups):
        new = np.isin(groups[train], groups[test])
        known, rows = train[~new], train[new]
        model = MixedEffectsRegressor().fit(x[known], y[known], groups=groups[known])
        psi = model.covariances_["groups"].iloc[0, 0]
        residual = y[rows] - model.predict(x[rows], random_effects=False)
        share = psi * 2 / (psi * 2 + model.sigma_**2)
        effect = share * pd.Series(residual).groupby(groups[rows]).mean()
        prediction = model.predict(x[test], random_effects=False)
        expected.append(r2_score(y[test], prediction + effect[groups[test]]))
    for model, X in (
        (clone(MixedEffectsRegressor()), x),
        (MixedEffectsRegressor(-1), np.column_stack([x, groups])),
    ):
        scores = cross_val_adapt(model, X, y, groups, cv=cv)
        np.testing.assert_allclose(scores, expected, rtol=1e-8)
