"""Rows from Parquet files, against the same rows in memory."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from problems import relative_difference
from schools import NUMERIC, SCHOOL, X, Y, fit
from test_updating import RANDOMS, WEIGHTS, assert_same

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.batches import ParquetBatches
from sklearn_lmm.datasets import make_mixed_regression

FRAME = X.assign(y=Y, weight=WEIGHTS)


@pytest.fixture
def path(tmp_path):
    """Return a file with small row groups."""
    file = tmp_path / "rows.parquet"
    FRAME.to_parquet(file, row_group_size=17)
    return file


def fitted(random, batches, **parameters):
    return MixedEffectsRegressor(random, **parameters).fit_batches(batches)


@pytest.mark.parametrize("random", RANDOMS.values(), ids=RANDOMS)
@pytest.mark.parametrize("batch_size", [7, 50, 1000])
def test_a_file_is_one_fit(random, batch_size, path):
    batches = ParquetBatches(
        path, "y", columns=["x", "z", "school", "town"], batch_size=batch_size
    )
    assert_same(fit(random), fitted(random, batches))


def test_weights_and_groups_are_columns_of_the_file(path):
    options = {"method": "ml", "weights": "precision"}
    batches = ParquetBatches(
        path,
        "y",
        columns=["x", "z"],
        groups="school",
        sample_weight="weight",
        batch_size=40,
    )
    model = fitted(None, batches, **options)
    whole = fit(None, NUMERIC, groups=SCHOOL, sample_weight=WEIGHTS, **options)
    assert_allclose(model.theta_, whole.theta_, atol=1e-7)
    assert_allclose(
        model.predict(NUMERIC, SCHOOL), whole.predict(NUMERIC, SCHOOL), atol=1e-6
    )


def test_columns_are_all_that_have_no_other_use(path):
    batches = ParquetBatches(path, "y", groups=["town"], sample_weight="weight")
    assert batches.columns == ["x", "z", "school"]
    X_batch, y, groups, weights = next(iter(batches))
    pd.testing.assert_frame_equal(X_batch, X[["x", "z", "school"]])
    assert_allclose(y, Y)
    assert list(groups.columns) == ["town"]
    assert_allclose(weights, WEIGHTS)


@pytest.mark.parametrize("batch_size", [1, 16, 17, 18, 60, 119, 120, 1000])
def test_batches_have_the_size_that_was_asked_for(batch_size, path):
    batches = ParquetBatches(path, "y", batch_size=batch_size)
    sizes = [len(y) for _, y, _, _ in batches]
    assert len(batches) == len(sizes)
    assert set(sizes[:-1]) <= {batch_size}
    assert sum(sizes) == len(Y)
    # They can be read again.
    assert_allclose(np.concatenate([y for _, y, _, _ in batches]), Y)


def test_a_directory_is_its_files(tmp_path):
    for k, rows in enumerate((slice(0, 50), slice(50, 51), slice(51, 120))):
        FRAME[rows].to_parquet(tmp_path / f"part-{k}.parquet")
    (tmp_path / "notes.txt").write_text("not rows")
    for source in (tmp_path, str(tmp_path), sorted(tmp_path.glob("*.parquet"))):
        batches = ParquetBatches(source, "y", columns=list(X), batch_size=30)
        assert_same(fit("school"), fitted("school", batches))


@pytest.mark.parametrize("as_dictionary", [False, True])
@pytest.mark.parametrize("batch_size", [20, 1000])
def test_text_comes_as_sorted_categories(as_dictionary, batch_size, tmp_path):
    label = SCHOOL.map(lambda school: f"{'äb'[school % 2]}{school}").to_numpy(object)
    table = pa.Table.from_pandas(X.assign(school=label, y=Y))
    if as_dictionary:
        at = table.schema.get_field_index("school")
        table = table.set_column(at, "school", table["school"].dictionary_encode())
    pq.write_table(table, tmp_path / "text.parquet", row_group_size=17)
    batches = ParquetBatches(tmp_path, "y", batch_size=batch_size)
    for part, _, _, _ in batches:
        assert part["school"].cat.categories.is_monotonic_increasing
    model = fitted("school", batches)
    whole = fit("school", X.assign(school=label))
    assert_same(whole, model, X.assign(school=label))


def test_ordered_categories_keep_their_order(tmp_path):
    categories = sorted(SCHOOL.unique(), key=lambda school: (school % 3, school))
    names = [f"s{school}" for school in categories]
    label = pd.Categorical("s" + SCHOOL.astype(str), names, ordered=True)
    X.assign(school=label, y=Y).to_parquet(tmp_path / "ordered.parquet")
    model = fitted("school", ParquetBatches(tmp_path, "y"))
    assert model.effects_["school"].index.tolist() == names


def test_missing_labels_are_refused(tmp_path):
    label = SCHOOL.astype(str).where(SCHOOL != SCHOOL[3], None)
    X.assign(school=label, y=Y).to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(ValueError, match="'school' are missing"):
        fitted("school", ParquetBatches(tmp_path, "y"))


def test_cross_products_are_those_of_all_rows(tmp_path):
    sample = make_mixed_regression(
        20_000, 4, n_groups=[700, 300], n_slopes=1, as_frame=True, random_state=1
    )
    data = pd.concat([sample.X, sample.groups], axis=1)
    data.assign(y=sample.y).to_parquet(tmp_path / "rows.parquet")
    random = "(1 + x0 | group0) + (1 | group1)"
    whole = fit(random, data, sample.y).fit_.statistics
    model = fitted(random, ParquetBatches(tmp_path, "y", batch_size=1500))
    assert relative_difference(whole, model.fit_.statistics) < 1e-12


def test_absent_columns_and_files_are_named(path, tmp_path):
    with pytest.raises(ValueError, match="no columns 'v', 'w'; it has 'x', 'z'"):
        ParquetBatches(path, "w", columns=["x", "v"])
    FRAME.drop(columns="z").to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet has no columns 'z'"):
        ParquetBatches([path, tmp_path / "t.parquet"], "y")
    with pytest.raises(ValueError, match=r"no \.parquet files"):
        ParquetBatches([], "y")
    with pytest.raises(ValueError, match="batch_size is 0"):
        ParquetBatches(path, "y", batch_size=0)


def test_without_pyarrow_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"sklearn-lmm\[parquet\]"):
        ParquetBatches(path, "y")


def test_arrow_tables_are_frames():
    table = pa.Table.from_pandas(X)
    model = fit("(1 + x | school)", table, Y)
    assert_same(fit("(1 + x | school)"), model)
    assert_allclose(model.predict(table), model.predict(X))
    batches = [(part, Y[k * 60 :][:60]) for k, part in enumerate(table.to_batches(60))]
    assert_same(fit("school"), fitted("school", batches))
