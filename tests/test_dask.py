"""Fits on a cluster, against the same rows in memory."""

import os
import pickle
import signal
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from problems import relative_difference
from schools import NUMERIC, SCHOOL, X, Y, fit
from test_updating import RANDOMS, WEIGHTS, assert_same

from sklearn_lmm import MixedEffectsRegressor, dask
from sklearn_lmm.datasets import make_mixed_regression
from sklearn_lmm.residuals import AR1

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
config = pytest.importorskip("dask.config")
distributed = pytest.importorskip("distributed")


FRAME = X.assign(y=Y, weight=WEIGHTS)
INDEX = pd.Index(np.random.default_rng(3).permutation(len(Y)), name="row")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Run everything on one cluster of two processes."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield cluster


def collection(frame=FRAME, npartitions=5, index=INDEX):
    """Return a frame whose partitions follow no order of the rows."""
    return dd.from_pandas(frame.set_index(index), npartitions=npartitions)


def fitted(random, X, y, *, groups=None, sample_weight=None, **parameters):
    model = MixedEffectsRegressor(random, **parameters)
    return dask.fit(model, X, y, groups=groups, sample_weight=sample_weight)


@pytest.mark.parametrize("random", RANDOMS.values(), ids=RANDOMS)
def test_a_frame_is_one_fit(random):
    rows = collection()
    model = fitted(random, rows[list(X)], rows["y"])
    assert_same(fit(random), model)
    assert model.feature_names_in_.tolist() == list(X)
    prediction = dask.predict(model, rows[list(X)])
    assert isinstance(prediction, dd.Series)
    expected = pd.Series(model.predict(X), INDEX).sort_index()
    assert_allclose(prediction.compute(), expected, atol=1e-12)
    assert_allclose(prediction.compute().index, expected.index)


def test_weights_and_groups_are_collections_too():
    rows = collection()
    options = {"method": "ml", "weights": "precision"}
    model = fitted(
        None,
        rows[["x", "z"]],
        rows["y"],
        groups=rows["school"],
        sample_weight=rows["weight"],
        **options,
    )
    whole = fit(None, NUMERIC, groups=SCHOOL, sample_weight=WEIGHTS, **options)
    assert_allclose(model.theta_, whole.theta_, atol=1e-7)
    lazy = dask.predict(model, rows[["x", "z"]], rows["school"], return_std=True)
    expected = model.predict(NUMERIC, SCHOOL, return_std=True)
    for mine, theirs in zip(lazy, expected, strict=True):
        assert_allclose(mine.compute(), pd.Series(theirs, INDEX).sort_index())


def test_factors_in_a_frame_of_groups():
    rows = collection()
    labels = rows[["school", "town"]]
    model = fitted(None, rows[["x", "z"]], rows["y"], groups=labels)
    whole = fit(None, NUMERIC, groups=X[["school", "town"]])
    assert_allclose(model.theta_, whole.theta_, atol=1e-7)
    alone = dask.predict(model, rows[["x", "z"]], labels, random_effects=["town"])
    expected = whole.predict(NUMERIC, X[["school", "town"]], random_effects=["town"])
    assert_allclose(alone.compute(), pd.Series(expected, INDEX).sort_index(), atol=1e-6)


def test_arrays():
    values = X.to_numpy()
    rows = da.from_array(values, chunks=(33, 3))
    model = fitted([2, 3], rows, da.from_array(Y, chunks=50))
    whole = MixedEffectsRegressor([2, 3]).fit(values, Y)
    assert_allclose(model.theta_, whole.theta_, atol=1e-7)
    assert model.n_features_in_ == 4
    prediction = dask.predict(model, rows)
    assert isinstance(prediction, da.Array)
    assert prediction.shape == (120,)
    assert_allclose(prediction, whole.predict(values), atol=1e-6)
    _, std = dask.predict(model, rows, return_std=True)
    assert_allclose(std, whole.predict(values, return_std=True)[1], atol=1e-6)


def test_arrays_of_unknown_length_with_groups():
    rows = collection()
    numeric = rows[["x", "z"]].to_dask_array()
    labels, y = rows["school"].to_dask_array(), rows["y"].to_dask_array()
    model = fitted(None, numeric, y, groups=labels)
    assert_allclose(model.theta_, fit(None, NUMERIC, groups=SCHOOL).theta_, atol=1e-7)
    expected = model.predict(NUMERIC.to_numpy(), SCHOOL.to_numpy())
    expected = pd.Series(expected, INDEX).sort_index()
    assert_allclose(dask.predict(model, numeric, labels), expected)


def test_categories_unknown_in_advance():
    names = "s" + SCHOOL.astype(str)
    rows = collection(FRAME.assign(school=names))
    rows["school"] = rows["school"].astype("category")
    assert not rows["school"].cat.known
    model = fitted("(1 + x | school)", rows[list(X)], rows["y"])
    data = X.assign(school=names)
    assert_same(fit("(1 + x | school)", data), model, data)


def test_partitions_without_rows_or_weight():
    frame = FRAME.assign(weight=np.where(INDEX > 40, WEIGHTS, 0.0))
    rows = collection(frame, npartitions=6)
    some = rows.map_partitions(lambda part: part[part.index < 90])
    sizes = some.map_partitions(len).compute()
    assert min(sizes) == 0
    kept = FRAME[(INDEX < 90) & (INDEX > 40)]
    whole = fit("school", kept[list(X)], kept["y"], sample_weight=kept["weight"])
    model = fitted("school", some[list(X)], some["y"], sample_weight=some["weight"])
    assert_same(whole, model)
    prediction = dask.predict(model, some[list(X)])
    assert len(prediction.compute()) == sum(sizes)


def test_cross_products_and_criterion_agree():
    sample = make_mixed_regression(
        20_000, 4, n_groups=[700, 300], n_slopes=1, as_frame=True, random_state=1
    )
    data = pd.concat([sample.X, sample.groups], axis=1)
    random = "(1 + x0 | group0) + (1 | group1)"
    whole = fit(random, data, sample.y)
    rows = dd.from_pandas(data.assign(y=sample.y), npartitions=13)
    model = fitted(random, rows[list(data)], rows["y"])
    assert_same(whole, model, data)
    assert relative_difference(whole.fit_.statistics, model.fit_.statistics) < 1e-12
    # Of the size of that of the fit in memory, and without Dask.
    assert len(pickle.dumps(model)) < 1.5 * len(pickle.dumps(whole))
    assert b"dask" not in pickle.dumps(model).replace(b"sklearn_lmm.dask", b"")


def die_once(frame, flag):
    """Pass a partition on; the first to get here takes its process down."""
    if not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return frame


@pytest.mark.skipif(sys.platform == "win32", reason="needs a signal to kill with")
def test_a_worker_killed_in_mid_fit(cluster, tmp_path):
    flag = tmp_path / "died"
    before = {worker.pid for worker in cluster.workers.values()}
    rows = collection(npartitions=12)
    # The last partition, so that sums of others are lost with the worker.
    last = rows.partitions[11].map_partitions(die_once, str(flag), meta=rows._meta)
    rows = dd.concat([rows.partitions[:11], last])
    model = fitted("(1 + x | school)", rows[list(X)], rows["y"])
    assert flag.exists()
    assert {worker.pid for worker in cluster.workers.values()} != before
    assert_same(fit("(1 + x | school)"), model)


def test_rows_that_cannot_be_used_are_refused_as_in_memory():
    rows = collection(FRAME.assign(z=FRAME["z"].where(FRAME["z"] < 2)))
    with pytest.raises(ValueError, match="NaN"):
        fitted("school", rows[list(X)], rows["y"])


def test_names_are_checked_before_anything_is_computed():
    rows = collection().map_partitions(lambda frame: 1 / 0, meta=FRAME)
    with pytest.raises(ValueError, match=r"'scool'.*Did you mean 'school'"):
        fitted("scool", rows[list(X)], rows["y"])


def test_other_data_are_refused():
    rows = collection()
    numeric = rows[list(X)]
    with pytest.raises(ValueError, match=r"X is a pandas.*DataFrame, not a Dask"):
        fitted("school", X, rows["y"])
    with pytest.raises(ValueError, match=r"y is a numpy\.ndarray, but .* Series"):
        fitted("school", numeric, Y)
    with pytest.raises(ValueError, match="y has 2 partitions and X has 5"):
        fitted("school", numeric, collection(npartitions=2)["y"])
    with pytest.raises(ValueError, match="fewer than two rows"):
        fitted("school", numeric, rows["y"], sample_weight=rows["weight"] * 0)
    with pytest.raises(ValueError, match="does not fit models with formula="):
        dask.fit(MixedEffectsRegressor(formula="y ~ x + (1 | school)"), numeric, None)
    with pytest.raises(ValueError, match="models with residual=: leave it out"):
        dask.fit(MixedEffectsRegressor([], residual=AR1("x")), numeric, None)
    with pytest.raises(ValueError, match="not fitted"):
        dask.predict(MixedEffectsRegressor("school"), numeric)


# Calls can be counted in this process only.
@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning")
def test_parts_that_collections_share_are_made_once():
    calls = []

    def counted(frame):
        calls.append(len(frame))
        return frame

    rows = collection().map_partitions(counted, meta=FRAME)
    arrays = da.from_array(X.to_numpy(), chunks=(40, 4)).map_blocks(counted)
    with config.set(scheduler="synchronous"):
        fitted("school", rows[list(X)], rows["y"])
        assert calls.count(24) == 5
        calls.clear()
        fitted([], arrays, arrays[:, 0], fixed=[1])
        assert calls.count(40) == 3


def test_a_refit_forgets_the_names_of_the_fit_before():
    model = fit("school")
    rows = da.from_array(X.to_numpy(), chunks=(40, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(random=2)
        dask.fit(model, rows, da.from_array(Y, chunks=40))
    assert not hasattr(model, "feature_names_in_")


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.dataframe", None)
    with pytest.raises(ImportError, match=r"sklearn-lmm\[dask\]"):
        dask.fit(MixedEffectsRegressor("school"), None, None)
