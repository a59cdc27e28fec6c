"""Fitted models elsewhere: stored, copied, and asked by several threads."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from schools import NUMERIC, SCHOOL, X, Y, fit
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm import MixedEffectsRegressor

MODELS = {
    "slope": "(1 + x | school)",
    "crossed": ["(1 + x || school)", "town"],
    "interaction": [("town", "school"), "town"],
}
MEGABYTE = 1_000_000


def by_joblib(model):
    stored = io.BytesIO()
    joblib.dump(model, stored)
    stored.seek(0)
    return joblib.load(stored)


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "joblib": by_joblib,
    "deepcopy": copy.deepcopy,
}


def answers(model, data):
    """Return everything that a model says of rows."""
    prediction, std = model.predict(data, return_std=True)
    interval = model.predict_interval(data, theta_uncertainty=True)
    return np.column_stack([prediction, std, interval, model.decompose(data)])


@pytest.mark.parametrize("random", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_copies_say_the_same(way, random):
    model = fit(random)
    other = way(model)
    assert other is not model
    assert_array_equal(answers(other, X), answers(model, X))
    for name, effects in model.effects_.items():
        pd.testing.assert_frame_equal(other.effects_[name], effects)
    pd.testing.assert_series_equal(other.fixed_effects_, model.fixed_effects_)


@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_copies_go_on_learning(way):
    first, rest = slice(0, 80), slice(80, 120)
    model = fit("(1 + x | school)", X[first], Y[first])
    other = way(model)
    adapted = [m.adapt(X[rest], Y[rest]).predict(X) for m in (model, other)]
    assert_array_equal(*adapted)
    assert_array_equal(
        other.partial_fit(X[rest], Y[rest]).predict(X),
        model.partial_fit(X[rest], Y[rest]).predict(X),
    )


@pytest.mark.parametrize("way", [*COPIES.values(), clone], ids=[*COPIES, "clone"])
def test_copies_of_unfitted_models_fit_alike(way):
    model = MixedEffectsRegressor("(1 + x | school)", method="ml", offset="z")
    other = way(model)
    assert other.get_params() == model.get_params()
    assert_array_equal(other.fit(X, Y).predict(X), model.fit(X, Y).predict(X))


def test_a_clone_has_forgotten_the_fit():
    model = fit("school", method="ml")
    other = clone(model)
    assert other.get_params() == model.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(other)
    assert_array_equal(other.fit(X, Y).predict(X), model.predict(X))


def test_a_copy_is_independent():
    model = fit("school", X[:80], Y[:80])
    other = copy.deepcopy(model)
    expected = model.predict(X)
    other.partial_fit(X[80:], Y[80:])
    assert_array_equal(model.predict(X), expected)
    assert not np.array_equal(other.predict(X), expected)


def test_a_million_rows_make_a_small_model():
    rng = np.random.default_rng(0)
    n, groups = 1_000_000, 1000
    x, labels = rng.normal(size=(n, 2)), rng.integers(0, groups, n)
    b = rng.normal(size=(groups, 2))
    y = x[:, 0] + b[labels, 0] + b[labels, 1] * x[:, 1] + rng.normal(size=n)
    data = pd.DataFrame({"x": x[:, 0], "z": x[:, 1], "g": labels})
    model = fit("(1 + z | g)", data, y)
    model.predict_interval(data[:10])
    assert len(pickle.dumps(model)) < 5 * MEGABYTE


@pytest.mark.parametrize("random", MODELS.values(), ids=MODELS)
def test_size_depends_on_levels_and_not_on_rows(random):
    few = fit(random)
    many = fit(random, pd.concat([X] * 20, ignore_index=True), np.tile(Y, 20))
    sizes = [len(pickle.dumps(model)) for model in (few, many)]
    # The optimiser's trace may differ by some iterations.
    assert sizes[1] < 1.5 * sizes[0]


def test_what_was_computed_for_predictions_is_not_stored():
    model = fit(["(1 + x || school)", "town"])
    size = len(pickle.dumps(model))
    answers(model, X)
    model.random_effects(return_std=True)
    assert len(pickle.dumps(model)) == size


def test_threads_get_the_same_answers():
    model = fit(["(1 + x || school)", "town"])
    parts = [X.sample(40, random_state=seed) for seed in range(24)]
    expected = [answers(model, part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: answers(model, part), parts))
    for one, other in zip(expected, found, strict=True):
        assert_array_equal(one, other)


def test_threads_with_labels_as_an_argument():
    model = fit(None, NUMERIC, groups=SCHOOL)
    orders = [np.random.default_rng(seed).permutation(len(Y)) for seed in range(24)]

    def ask(rows):
        return model.predict(NUMERIC.iloc[rows], SCHOOL.iloc[rows])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, orders))
    for rows, prediction in zip(orders, found, strict=True):
        assert_array_equal(prediction, ask(rows))
