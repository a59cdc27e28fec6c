"""A sparse X gives the numbers of the same X made dense, without being made so."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from schools import assert_same_fit
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm._engine import prediction
from sklearn_lmm.diagnostics import influence, leverage, residuals
from sklearn_lmm.exceptions import RankDeficiencyWarning
from sklearn_lmm.intervals import bootstrap

N = 240
SCHOOL, TOWN, OFFSET = 5, 6, 7


def make_data(seed=3):
    """Return X (N, 8): x, z, three dummies, and labels and an offset by position."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, N)) * rng.integers(0, 2, (2, N))
    dummies = np.eye(4)[rng.integers(0, 4, N)][:, 1:]
    school, town = rng.integers(0, 15, N), rng.integers(0, 6, N)
    offset = rng.normal(size=N) * (rng.random(N) < 0.3)
    b, a = rng.normal(size=(2, 15)), rng.normal(size=6)
    y = 5 + x + dummies @ [1.0, -1.0, 2.0] + offset + a[town]
    y += b[0, school] + b[1, school] * x + rng.normal(scale=0.7, size=N)
    return np.column_stack([x, z, dummies, school, town, offset]), y


X, Y = make_data()
CSR = sparse.csr_array(X)
NEW = X[:40].copy()
NEW[:5, SCHOOL] = 99
WEIGHTS = np.random.default_rng(8).integers(0, 4, N).astype(float)
MODELS = {
    "no effects": {"random": []},
    "single": {"random": SCHOOL},
    "slope": {"random": RandomEffect(SCHOOL, slopes=0)},
    "slope of no fixed effect": {
        "random": RandomEffect(SCHOOL, slopes=0, covariance="diagonal"),
        "fixed": [2, 3, 1],
    },
    "nested": {"random": [SCHOOL, (SCHOOL, TOWN)]},
    "crossed": {"random": [SCHOOL, TOWN]},
    "no intercept": {"random": SCHOOL, "fit_intercept": False},
    "no fixed effects": {"random": SCHOOL, "fixed": [], "fit_intercept": False},
    "offset": {"random": SCHOOL, "offset": OFFSET},
    "ml by lbfgs": {"random": SCHOOL, "method": "ml", "solver": "lbfgs"},
}
each_model = pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)


def fit(X, parameters, y=Y, **data):
    return MixedEffectsRegressor(**parameters).fit(X, y, **data)


def assert_same_predictions(one, other, X=NEW):
    rows = sparse.csr_array(X)
    for mine, theirs in zip(
        one.predict(rows, return_std=True),
        other.predict(X, return_std=True),
        strict=True,
    ):
        assert_allclose(mine, theirs, rtol=1e-7)
    assert_allclose(one.predict_interval(rows), other.predict_interval(X), rtol=1e-6)


@each_model
def test_fit_and_predictions_are_those_of_dense_X(parameters):
    mine, theirs = fit(CSR, parameters), fit(X, parameters)
    assert_same_fit(mine, theirs, rtol=1e-7)
    assert_allclose(mine.coef_, theirs.coef_, rtol=1e-7)
    assert_same_predictions(mine, theirs)


@pytest.mark.parametrize("meaning", ["frequency", "precision"])
def test_weights_some_of_them_zero(meaning):
    parameters = {"random": [SCHOOL, TOWN], "weights": meaning}
    data = {"sample_weight": WEIGHTS}
    mine, theirs = (fit(x, parameters, **data) for x in (CSR, X))
    assert (WEIGHTS == 0).any()
    assert_same_fit(mine, theirs, rtol=1e-7)


def test_labels_from_groups():
    groups = pd.Series(X[:, SCHOOL], name="school").map("s{:.0f}".format)
    columns = slice(0, 5)
    mine = fit(CSR[:, columns], {}, groups=groups)
    theirs = fit(X[:, columns], {}, groups=groups)
    assert_same_fit(mine, theirs, rtol=1e-7)
    expected = theirs.predict(X[:, columns], groups)
    assert_allclose(mine.predict(CSR[:, columns], groups), expected)
    score = mine.score(CSR[:, columns], Y, groups=groups)
    assert_allclose(score, theirs.score(X[:, columns], Y, groups=groups))


@pytest.mark.parametrize(
    "convert",
    [
        sparse.csr_matrix,
        sparse.csc_array,
        sparse.csc_matrix,
        sparse.coo_array,
        lambda X: sparse.csr_array(X.astype(np.float32)),
    ],
)
def test_formats_of_sparse_X(convert):
    expected = fit(X, {"random": SCHOOL})
    model = fit(convert(X), {"random": SCHOOL})
    assert_allclose(model.predict(convert(NEW)), expected.predict(NEW), rtol=1e-5)


def test_whole_numbers_and_entries_listed_twice():
    whole = np.round(X).astype(np.int64)
    row, column = np.nonzero(whole)
    values = np.concatenate([whole[row, column] - 1, np.ones_like(row)])
    places = (np.tile(row, 2), np.tile(column, 2))
    order = np.argsort(places[0], kind="stable")
    ends = np.searchsorted(places[0][order], np.arange(N + 1))
    twice = sparse.csr_array((values[order], places[1][order], ends), whole.shape)
    assert not twice.has_canonical_format
    parameters = {"random": RandomEffect(SCHOOL, slopes=0)}
    assert_same_fit(fit(twice, parameters), fit(whole, parameters), rtol=1e-7)


def test_X_of_the_user_is_left_as_it_was():
    given = sparse.csr_array(X)
    data, indices = given.data.copy(), given.indices.copy()
    fit(given, {"random": RandomEffect(SCHOOL, slopes=0)}).predict_interval(given)
    assert (given.data == data).all()
    assert (given.indices == indices).all()


def test_rows_that_come_later():
    parameters = {"random": [SCHOOL, TOWN]}
    whole = fit(X, parameters)
    parts = [slice(0, 100), slice(100, 170), slice(170, N)]
    one_by_one = MixedEffectsRegressor(**parameters)
    for part in parts:
        one_by_one.partial_fit(CSR[part], Y[part])
    mixed = fit(X[parts[0]], parameters, Y[parts[0]])
    for part in parts[1:]:
        mixed.partial_fit(CSR[part], Y[part])
    at_once = MixedEffectsRegressor(**parameters)
    at_once.fit_batches((CSR[part], Y[part]) for part in parts)
    for model in (one_by_one, mixed, at_once):
        assert_same_fit(model, whole, rtol=1e-6)


def test_effects_of_new_groups():
    known = X[:, SCHOOL] < 12
    model = fit(CSR[known], {"random": SCHOOL}, Y[known])
    mine, theirs = (model.adapt(x[~known], Y[~known]) for x in (CSR, X))
    assert len(mine.effects_[f"x{SCHOOL}"]) == 15
    assert_same_predictions(mine, theirs)


def without_schools(model, X, y, **data):
    table = influence(model, X, y, by=f"x{SCHOOL}", refit="newton", **data)
    return table.drop(columns="note")


@pytest.mark.parametrize("name", ["slope", "crossed", "no intercept"])
def test_functions_of_the_rows(name):
    parameters = MODELS[name] | {"weights": "precision"}
    weights = 1.0 + WEIGHTS
    mine, theirs = (fit(x, parameters, sample_weight=weights) for x in (CSR, X))
    for function in (residuals, leverage, without_schools):
        found, expected = (
            function(model, x, Y, sample_weight=weights)
            for model, x in ((mine, CSR), (theirs, X))
        )
        assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    options = {"n_resamples": 3, "random_state": 0, "sample_weight": weights}
    kinds = ["parametric", "residual"]
    for kind in kinds if name == "crossed" else [*kinds, "case"]:
        found, expected = (
            bootstrap(model, x, Y, kind=kind, **options).replicates
            for model, x in ((mine, CSR), (theirs, X))
        )
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_decomposition_and_design_matrix():
    model = fit(CSR, MODELS["crossed"])
    parts = model.decompose(CSR)
    assert_allclose(parts, model.decompose(X))
    assert_allclose(parts["total"], model.predict(CSR))
    Z, names = model.design_matrix(CSR)
    assert (Z != model.design_matrix(X)[0]).nnz == 0
    assert Z.shape == (N, len(names))
    assert fit(CSR, {"random": []}).design_matrix(CSR)[0].shape == (N, 0)


@pytest.mark.parametrize("name", ["no effects", "slope", "crossed", "no fixed effects"])
def test_variances_do_not_depend_on_how_many_rows_are_made_at_once(name, monkeypatch):
    model = fit(CSR, MODELS[name])
    expected = [
        model.predict_interval(CSR, theta_uncertainty=theta) for theta in (False, True)
    ]
    monkeypatch.setattr(prediction, "ENTRIES_AT_ONCE", 77)
    for theta, interval in zip((False, True), expected, strict=True):
        again = model.predict_interval(CSR, theta_uncertainty=theta)
        assert_allclose(again, interval, rtol=1e-12)


def test_a_dense_copy_is_never_made():
    n, p = 30_000, 400
    rng = np.random.default_rng(0)
    places = (np.repeat(np.arange(n), 4), rng.integers(0, p, 4 * n))
    wide = sparse.csr_array((rng.normal(size=4 * n), places), (n, p))
    group = rng.integers(0, 30, n)
    y = wide.sum(axis=1) + rng.normal(size=30)[group] + rng.normal(size=n)
    tracemalloc.start()
    try:
        model = fit(wide, {}, y, groups=group)
        std = model.predict(wide, group, return_std=True)[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert std.shape == (n,)
    assert peak < 0.5 * (8 * n * p)


KINDS = np.array(["ash", "elm", "fir", "oak"])
FRAME = pd.DataFrame(
    {
        "kind": KINDS[(X[:, 2:5] @ [1, 2, 3]).astype(int)],
        "x": X[:, 0],
        "school": X[:, SCHOOL].astype(int),
    }
)


def one_hot_pipeline(sparse_threshold, **encoder):
    columns = make_column_transformer(
        (OneHotEncoder(**encoder), ["kind"]),
        remainder="passthrough",
        sparse_threshold=sparse_threshold,
    )
    return make_pipeline(columns, MixedEffectsRegressor(-1))


def test_behind_a_one_hot_encoder():
    mine, theirs = (
        one_hot_pipeline(threshold, drop="first").fit(FRAME, Y) for threshold in (1, 0)
    )
    assert sparse.issparse(mine[0].transform(FRAME))
    assert isinstance(theirs[0].transform(FRAME), np.ndarray)
    assert_same_fit(mine[-1], theirs[-1], rtol=1e-7)
    assert_allclose(mine.predict(FRAME), theirs.predict(FRAME))


def test_one_category_too_many_is_dropped():
    with pytest.warns(RankDeficiencyWarning, match="x3"):
        model = one_hot_pipeline(1).fit(FRAME, Y)
    without = one_hot_pipeline(1, drop=["ash"]).fit(FRAME, Y)
    assert model[-1].coef_[3] == 0.0
    assert_allclose(model.predict(FRAME), without.predict(FRAME), rtol=1e-7)


def test_grid_search():
    grid = {"random": [[], SCHOOL, RandomEffect(SCHOOL, slopes=0)]}
    mine, theirs = (
        GridSearchCV(MixedEffectsRegressor(), grid, cv=3).fit(x, Y) for x in (CSR, X)
    )
    assert mine.best_params_ == theirs.best_params_ == {"random": grid["random"][2]}
    scores = [s.cv_results_["mean_test_score"] for s in (mine, theirs)]
    assert_allclose(*scores, rtol=1e-7)


def test_bagging():
    bagged = BaggingRegressor(MixedEffectsRegressor(SCHOOL), 3, random_state=0)
    mine, theirs = (cross_val_score(bagged, x, Y, cv=2) for x in (CSR, X))
    assert_allclose(mine, theirs, rtol=1e-7)


def test_the_tag_says_so():
    assert get_tags(MixedEffectsRegressor()).input_tags.sparse


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    odd = CSR.copy()
    odd.data[3] = value
    with pytest.raises(ValueError, match=r"X contains (NaN|infinity)"):
        fit(odd, {"random": SCHOOL})
    model = fit(CSR, {"random": SCHOOL})
    with pytest.raises(ValueError, match=r"X contains (NaN|infinity)"):
        model.predict(odd)


def test_a_name_needs_a_frame():
    with pytest.raises(ValueError, match=r"the factor 'school'.*integer position"):
        fit(CSR, {"random": "school"})


def test_more_columns_than_their_cross_products_can_have():
    wide = sparse.hstack([CSR, sparse.csr_array((N, 5000))], format="csr")
    with pytest.raises(ValueError, match=r"5007 columns.*more than 5000.*`fixed`"):
        fit(wide, {"random": SCHOOL})
    model = fit(wide, {"random": SCHOOL, "fixed": [0, 1]})
    narrow = fit(X, {"random": SCHOOL, "fixed": [0, 1]})
    assert_same_fit(model, narrow, rtol=1e-7)
    assert_allclose(model.predict(wide), narrow.predict(X))
