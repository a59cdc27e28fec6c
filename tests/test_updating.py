"""Rows that come later: partial_fit, fit_batches, adapt."""

import copy
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from schools import NUMERIC, SCHOOL, X, Y, fit
from scipy.linalg import block_diag

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.exceptions import SingularFitWarning

RANDOMS = {
    "intercept": "school",
    "slope": "(1 + x | school)",
    "crossed": ["(1 + x || school)", "town"],
    "nested": "(1 | town/school)",
}
WEIGHTS = np.random.default_rng(5).integers(1, 4, len(Y)).astype(float)
each_random = pytest.mark.parametrize("random", RANDOMS.values(), ids=RANDOMS)


def chunks(weights=None):
    """Yield (X, y, groups, weights) of ten portions of shuffled rows.

    The first is the largest, so that a model can be fitted to it.
    """
    order = np.random.default_rng(2).permutation(len(Y))
    for rows in np.split(order, np.arange(30, 120, 10)):
        yield X.iloc[rows], Y[rows], None, None if weights is None else weights[rows]


def fit_in_chunks(random, sample_weight=None, **parameters):
    model = MixedEffectsRegressor(random, **parameters)
    for part, y, _, w in chunks(sample_weight):
        with warnings.catch_warnings():
            # The first few rows may well leave an effect without variance.
            warnings.simplefilter("ignore", SingularFitWarning)
            model.partial_fit(part, y, sample_weight=w)
    return model


def assert_same(one, other, X=X, criterion=1e-9, theta=1e-7):
    """Compare two fits, to the agreement that is promised of chunks and whole."""
    assert_allclose(other.fit_.criterion, one.fit_.criterion, rtol=criterion)
    size = max(1.0, np.abs(one.theta_).max())
    assert_allclose(other.theta_, one.theta_, rtol=0, atol=theta * size)
    assert_allclose(other.fixed_effects_, one.fixed_effects_, rtol=theta)
    assert_allclose(other.sigma_, one.sigma_, rtol=theta)
    assert_allclose(other.predict(X), one.predict(X), atol=1e-6)
    for name, effects in one.effects_.items():
        pd.testing.assert_index_equal(other.effects_[name].index, effects.index)


@each_random
def test_ten_chunks_are_one_fit(random):
    assert_same(fit(random), fit_in_chunks(random))


@each_random
def test_batches_are_one_fit(random):
    batched = MixedEffectsRegressor(random).fit_batches(chunks())
    assert_same(fit(random), batched)
    assert_same(fit_in_chunks(random), batched)


@pytest.mark.parametrize("weights", ["frequency", "precision"])
def test_chunks_with_weights(weights):
    options = {"weights": weights, "method": "ml"}
    whole = fit("(1 + x | school)", sample_weight=WEIGHTS, **options)
    parts = fit_in_chunks("(1 + x | school)", WEIGHTS, **options)
    batched = MixedEffectsRegressor("(1 + x | school)", **options)
    assert_same(whole, parts)
    assert_same(whole, batched.fit_batches(chunks(WEIGHTS)))


def test_rows_of_weight_zero_do_not_count_in_later_chunks():
    weights = np.where(SCHOOL == SCHOOL.iloc[0], 0.0, 1.0)
    parts = fit_in_chunks("school", weights)
    assert SCHOOL.iloc[0] not in parts.effects_["school"].index
    assert_same(fit("school", sample_weight=weights), parts)


def test_chunks_with_an_offset():
    options = {"offset": "z"}
    assert_same(fit("school", **options), fit_in_chunks("school", **options))


def test_chunks_of_groups_as_an_argument():
    model = MixedEffectsRegressor()
    for rows in (slice(0, 50), slice(50, 120)):
        model.partial_fit(NUMERIC[rows], Y[rows], groups=SCHOOL[rows])
    whole = fit(None, NUMERIC, groups=SCHOOL)
    assert_allclose(model.theta_, whole.theta_, atol=1e-7)
    assert_allclose(model.predict(NUMERIC, SCHOOL), whole.predict(NUMERIC, SCHOOL))
    batches = [(NUMERIC[:70], Y[:70], SCHOOL[:70]), (NUMERIC[70:], Y[70:], SCHOOL[70:])]
    batched = MixedEffectsRegressor().fit_batches(batches)
    assert_allclose(batched.predict(NUMERIC, SCHOOL), whole.predict(NUMERIC, SCHOOL))


@each_random
def test_a_chunk_of_one_row(random):
    head = fit(random, X[:-1], Y[:-1])
    assert_same(fit(random), head.partial_fit(X[-1:], Y[-1:]))


def test_every_level_may_come_late():
    order = np.argsort(SCHOOL.to_numpy(), kind="stable")[::-1]
    model = MixedEffectsRegressor("school")
    for rows in np.split(order, [40, 80]):
        model.partial_fit(X.iloc[rows], Y[rows])
    assert_same(fit("school"), model)
    assert model.effects_["school"].index.is_monotonic_increasing


def test_new_levels_of_labels_without_an_order_come_last():
    labels = SCHOOL.map(lambda school: (school,) if school % 2 else frozenset([school]))
    data = NUMERIC.assign(school=labels)
    model = fit("school", data[:20], Y[:20])
    first = model.effects_["school"].index.tolist()
    model.partial_fit(data[20:], Y[20:])
    assert model.effects_["school"].index.tolist()[: len(first)] == first
    assert len(model.effects_["school"]) == SCHOOL.nunique()
    plain = NUMERIC.assign(school=SCHOOL)
    assert_allclose(model.predict(data), fit("school", plain).predict(plain), atol=1e-6)


def test_levels_of_interactions_may_come_late():
    random = [("town", "school")]
    parts = fit_in_chunks(random)
    assert_same(fit(random), parts)
    cells = set(zip(X["town"], X["school"], strict=True))
    assert set(parts.effects_["town:school"].index) == cells


def test_categories_keep_the_order_that_they_were_given():
    categories = sorted(SCHOOL.unique(), key=lambda school: (school % 3, school))
    data = X.assign(school=pd.Categorical(SCHOOL, categories))
    whole = fit("school", data)
    assert whole.effects_["school"].index.tolist() == categories
    model = fit("school", data[:60], Y[:60])
    model.partial_fit(data[60:], Y[60:])
    assert_allclose(
        model.effects_["school"].loc[categories], whole.effects_["school"], atol=1e-6
    )


def test_partial_fit_of_an_adapted_model_uses_all_rows_once():
    model = fit("school", X[:60], Y[:60]).adapt(X[60:90], Y[60:90])
    assert_same(fit("school"), model.partial_fit(X[90:], Y[90:]))


def test_other_columns_are_refused():
    model = fit("school")
    without = X.drop(columns="z")
    for method in (model.partial_fit, model.adapt):
        with pytest.raises(ValueError, match="feature names should match") as error:
            method(without, Y)
        assert "z" in str(error.value)
    of_arrays = fit(0, np.column_stack([SCHOOL, NUMERIC]))
    with pytest.raises(ValueError, match=r"2 features, but .* 3 features"):
        of_arrays.partial_fit(np.zeros((3, 2)), Y[:3])
    with pytest.raises(ValueError, match="z"):
        MixedEffectsRegressor("school").fit_batches([(X, Y), (without, Y)])


def test_labels_of_another_type_are_refused():
    model = fit("school")
    text = X.assign(school=SCHOOL.astype(str))
    with pytest.raises(ValueError, match=r"'school' are text.*numbers"):
        model.partial_fit(text, Y)


def test_labels_must_not_be_absent():
    model = fit(None, NUMERIC, groups=SCHOOL)
    for method in (model.partial_fit, model.adapt):
        with pytest.raises(ValueError, match=r"no labels of 'school'.*pass them"):
            method(NUMERIC, Y)


def test_a_refused_chunk_leaves_the_model_as_it_was():
    model = fit("school", X[:80], Y[:80])
    before = model.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(X[80:], np.full(40, np.nan))
    assert_allclose(model.predict(X), before)
    assert_same(fit("school"), model.partial_fit(X[80:], Y[80:]))


def test_no_batch_at_all_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        MixedEffectsRegressor("school").fit_batches(iter([]))


def test_entries_of_a_batch_that_nobody_reads_are_refused():
    batch = (X, Y, None, None, Y)
    with pytest.raises(ValueError, match="A batch has 5 entries"):
        MixedEffectsRegressor("school").fit_batches([batch])


def blup(model, X, y, weights=None):
    """Return b = Psi Z'V^-1 (y - X beta) of all rows, with V (n, n) written out."""
    Z, names = model.design_matrix(X)
    factor_of = [name.partition(" | ")[2].partition("[")[0] for name in names]
    blocks = []
    for name, levels in itertools.groupby(factor_of):
        Psi = model.covariances_[name].to_numpy()
        blocks.append(np.kron(np.eye(len(list(levels)) // len(Psi)), Psi))
    Psi, Z = block_diag(*blocks), Z.toarray()
    own = np.ones(len(y)) if weights is None else 1.0 / weights
    V = Z @ Psi @ Z.T + model.sigma_**2 * np.diag(own)
    fixed = model.predict(X, random_effects=False)
    return names, Psi @ Z.T @ np.linalg.solve(V, y - fixed)


OLD, NEW = X["school"] < 308, X["school"] >= 308


@pytest.mark.parametrize(
    ("random", "options"),
    [
        ("school", {}),
        ("(1 + x | school)", {"method": "ml"}),
        (["(1 + x | school)", "town"], {}),
        ([("town", "school"), "town"], {}),
        ("school", {"offset": "z"}),
    ],
)
def test_adapted_effects_are_the_best_linear_prediction(random, options):
    model = fit(random, X[OLD], Y[OLD], **options)
    adapted = model.adapt(X[NEW], Y[NEW])
    names, expected = blup(adapted, X, Y)
    effects = np.concatenate([e.to_numpy().ravel() for e in adapted.effects_.values()])
    assert len(names) == len(effects)
    assert_allclose(effects, expected, atol=1e-8)
    assert_allclose(adapted.theta_, model.theta_)
    assert_allclose(adapted.fixed_effects_, model.fixed_effects_)
    assert adapted.sigma_ == model.sigma_


def test_adapt_with_precision_weights():
    options = {"weights": "precision", "sample_weight": WEIGHTS[OLD]}
    model = fit("(1 + x | school)", X[OLD], Y[OLD], **options)
    adapted = model.adapt(X[NEW], Y[NEW], sample_weight=WEIGHTS[NEW])
    _, expected = blup(adapted, X, Y, WEIGHTS)
    effects = adapted.effects_["school"].to_numpy().ravel()
    assert_allclose(effects, expected, atol=1e-8)


def test_adapt_with_frequency_weights_is_repeated_rows():
    model = fit("school", X[OLD], Y[OLD])
    weighted = model.adapt(X[NEW], Y[NEW], sample_weight=WEIGHTS[NEW])
    times = WEIGHTS[NEW].astype(int)
    repeated = model.adapt(X[NEW].loc[X[NEW].index.repeat(times)], Y[NEW].repeat(times))
    assert_allclose(weighted.predict(X), repeated.predict(X))


@each_random
def test_portions_in_any_order_adapt_to_the_same(random):
    model = fit(random, X[OLD], Y[OLD])
    X_new, y_new = X[NEW], Y[NEW]
    at_once = model.adapt(X_new, y_new)
    portions = np.array_split(np.random.default_rng(0).permutation(len(y_new)), 3)
    for order in itertools.permutations(portions):
        adapted = model
        for rows in order:
            adapted = adapted.adapt(X_new.iloc[rows], y_new[rows])
        for name, effects in at_once.effects_.items():
            pd.testing.assert_frame_equal(adapted.effects_[name], effects, rtol=1e-9)
        assert_allclose(
            adapted.predict(X, return_std=True), at_once.predict(X, return_std=True)
        )


def test_known_groups_take_old_and_new_rows_together():
    model = fit("(1 + x | school)", X[:80], Y[:80])
    adapted = model.adapt(X[80:], Y[80:])
    _, expected = blup(adapted, X, Y)
    effects = adapted.effects_["school"].to_numpy().ravel()
    assert_allclose(effects, expected, atol=1e-8)


def test_adapting_to_the_rows_of_the_fit_in_two_parts_changes_no_other_group():
    model = fit("school", X[OLD], Y[OLD])
    adapted = model.adapt(X[NEW], Y[NEW])
    known = model.effects_["school"]
    assert_allclose(adapted.effects_["school"].loc[known.index], known, rtol=1e-9)
    assert_allclose(adapted.predict(X[OLD]), model.predict(X[OLD]))


def test_the_original_is_unchanged():
    model = fit(["(1 + x | school)", "town"], X[OLD], Y[OLD])
    before = copy.deepcopy(model)
    expected = model.predict(X, return_std=True)
    adapted = model.adapt(X[NEW], Y[NEW])
    assert adapted is not model
    assert adapted.get_params() == model.get_params()
    assert_allclose(model.predict(X, return_std=True), expected)
    for name in ("school", "town"):
        pd.testing.assert_frame_equal(model.effects_[name], before.effects_[name])
    # Nor is it changed by what is done to the adapted one.
    adapted.partial_fit(X[OLD], Y[OLD])
    assert_allclose(model.predict(X, return_std=True), expected)


def test_new_levels_keep_the_order_of_the_categories():
    categories = sorted(SCHOOL.unique(), key=lambda school: (school % 3, school))
    data = X.assign(school=pd.Categorical(SCHOOL, categories))
    model = fit("school", data[OLD], Y[OLD])
    adapted = model.adapt(data[NEW], Y[NEW])
    known = model.effects_["school"].index.tolist()
    new = [school for school in categories if school not in known]
    assert adapted.effects_["school"].index.tolist() == known + new
    plain = fit("school", X[OLD], Y[OLD]).adapt(X[NEW], Y[NEW])
    assert_allclose(adapted.predict(data), plain.predict(X))


def test_more_rows_of_a_new_group_narrow_its_interval():
    model = fit("school", X[OLD], Y[OLD])
    X_new, y_new = X[X["school"] == 311], Y[X["school"] == 311]
    errors = []
    for k in range(len(y_new)):
        adapted = model.adapt(X_new[:k], y_new[:k]) if k else model
        interval = adapted.predict_interval(X_new[:1], kind="mean")
        errors.append(interval[0, 1] - interval[0, 0])
    assert (np.diff(errors) < 0).all()


def test_unfitted_models_do_not_adapt():
    with pytest.raises(ValueError, match="not fitted"):
        MixedEffectsRegressor("school").adapt(X, Y)
