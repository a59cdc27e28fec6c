"""Levels that come in batches, against those of all rows at once."""

import datetime
import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sklearn_lmm._grouping import learn_factor
from sklearn_lmm._labels import learn_levels
from sklearn_lmm._numbering import LabelNumbers, Numbering
from sklearn_lmm._roles import Grouping, Source

LABELS = {
    "integers": [5, 3, 900, 3, 5, 7, 2**60, 3, -1, 900],
    "numbers": [5, 3.0, 900, 2.5, 5.0, 7, 0.125, 3, -1, 2.5],
    "text": ["b", "a", "c", "a", "d", "é", "b", "z", "a", "c"],
    "dates": [
        datetime.date(2020, 1, 1 + k % 4) for k in (3, 1, 2, 0, 1, 2, 3, 3, 0, 1)
    ],
    "booleans": [True, False, True, True, False, False, True, True, False, True],
}


def in_portions(column, sizes):
    ends = [0, *np.minimum(np.cumsum(sizes), len(column)), len(column)]
    parts = [column[a:b] for a, b in pairwise(ends)]
    return [part for part in parts if len(part)]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("sizes", [[1, 2, 3], [5], [1] * 9, [9]])
@pytest.mark.parametrize("form", [np.array, pd.Series, pd.Categorical])
def test_numbers_lead_to_the_levels_of_all_rows(kind, sizes, form):
    values = LABELS[kind]
    source = LabelNumbers("g")
    as_given = np.array(values, dtype=object) if kind == "dates" else np.array(values)
    parts = [
        source.of_rows(pd.Series(form(p)) if form is pd.Categorical else form(p))
        for p in in_portions(as_given, sizes)
    ]
    codes, levels = learn_levels(as_given, "g")
    found, place = source.levels()
    assert_array_equal(found.labels, levels.labels)
    assert_array_equal(place[np.concatenate(parts)], codes)


@given(
    st.lists(st.lists(st.integers(-4, 4) | st.integers(-(2**62), 2**62), min_size=1)),
    st.sampled_from([np.int64, float, object]),
)
def test_a_label_keeps_its_number(batches, dtype):
    source, known = LabelNumbers("g"), {}
    for batch in batches:
        labels = np.array(batch, dtype=dtype)
        for label, number in zip(labels, source.of_rows(labels), strict=True):
            assert known.setdefault(label, number) == number
    assert sorted(known.values()) == list(range(len(source)))


def test_narrow_and_wide_integers_and_whole_floats_are_one_label():
    source = LabelNumbers("g")
    for dtype in (np.int8, np.uint64, np.int64, np.float32, "Int64"):
        column = pd.Series([7, 3], dtype=dtype)
        assert_array_equal(source.of_rows(column)[::-1], [0, 1])


def test_categories_keep_the_order_of_the_first_batch():
    source = LabelNumbers("g")
    source.of_rows(pd.Series(pd.Categorical(["b", "c"], ["c", "b", "a"])))
    source.of_rows(pd.Series(pd.Categorical(["a", "c"])))
    assert source.levels()[0].labels.tolist() == ["c", "b", "a"]


def test_labels_of_another_kind_are_refused():
    source = LabelNumbers("g")
    source.of_rows(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"'g' are text .*numbers"):
        source.of_rows(np.array(["1"]))
    source = LabelNumbers("g")
    source.of_rows(np.array(["1"]))
    with pytest.raises(ValueError, match=r"'g' are numbers .*text"):
        source.of_rows(np.array([1, 2]))


def test_missing_labels_are_refused_in_any_batch():
    source = LabelNumbers("g")
    source.of_rows(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"missing .* first in row 1"):
        source.of_rows(pd.Series([1, None], dtype="Int64"))


def test_a_batch_costs_no_index_of_all_labels(monkeypatch):
    source = LabelNumbers("g")
    built = []
    append = pd.Index.append

    def counted(index, other):
        built.append(len(index) + len(other))
        return append(index, other)

    monkeypatch.setattr(pd.Index, "append", counted)
    for start in range(0, 1000, 10):
        source.of_rows(np.arange(start, start + 10))
    # Every label is put into at most log2(1000 / 10) new indexes.
    assert sum(built) <= 1000 * 7
    assert len(source._indexes) <= 7


def roles(n_sources, *groupings):
    return SimpleNamespace(
        sources=[Source(f"s{k}", None, k) for k in range(n_sources)],
        groupings=[Grouping(":".join(map(str, parts)), parts) for parts in groupings],
    )


@pytest.mark.parametrize("sizes", [[3, 4], [1] * 19, [20]])
def test_interactions_in_portions(sizes):
    rng = np.random.default_rng(3)
    text = np.array(["x", "y", "z"], dtype=object)
    columns = [rng.integers(0, 4, 30) * 7, rng.choice(text, 30), rng.integers(0, 3, 30)]
    groupings = [(0,), (0, 1), (1, 0, 2)]
    numbering = Numbering(roles(3, *groupings))
    of_rows = [[] for _ in groupings]
    for portion in zip(*(in_portions(c, sizes) for c in columns), strict=True):
        for rows, factor in zip(of_rows, numbering.factors(portion, None), strict=True):
            rows.append(factor.levels[factor.codes])
            assert len(set(factor.levels)) == factor.n_levels
    learnt = [learn_levels(c, f"s{k}") for k, c in enumerate(columns)]
    for parts, rows, (levels, place) in zip(
        groupings, of_rows, numbering.levels(), strict=True
    ):
        codes, expected = learn_factor(
            [learnt[k][0] for k in parts], [learnt[k][1] for k in parts]
        )
        assert levels.labels.tolist() == expected.labels.tolist()
        assert_array_equal(place[np.concatenate(rows)], codes)
        # As they are for rows to come.
        assert_array_equal(levels.match([columns[k] for k in parts]), codes)


def test_levels_of_others_are_numbered_like_rows():
    rng = np.random.default_rng(4)
    columns = [rng.integers(0, 4, 30) * 7, rng.integers(0, 3, 30)]
    of_rows, of_levels = (Numbering(roles(2, (0,), (1, 0))) for _ in range(2))
    for rows in (slice(0, 9), slice(9, 30)):
        portion = [c[rows] for c in columns]
        learnt = [learn_levels(c, f"s{k}") for k, c in enumerate(portion)]
        others = [
            learn_factor([learnt[k][0] for k in parts], [learnt[k][1] for k in parts])
            for parts in ((0,), (1, 0))
        ]
        numbers = of_levels.of([levels for _, levels in others])
        factors = of_rows.factors(portion, None)
        for (codes, _), mine, factor in zip(others, numbers, factors, strict=True):
            # Which numbers they are may differ: the rows that share one may not.
            pairs = set(zip(mine[codes], factor.levels[factor.codes], strict=True))
            assert len(pairs) == len(mine) == len(set(factor.codes))
    pairs = zip(of_rows.levels(), of_levels.levels(), strict=True)
    for (mine, _), (theirs, _) in pairs:
        assert mine.labels.tolist() == theirs.labels.tolist()


def test_numbers_survive_a_pickle():
    source = LabelNumbers("g")
    source.of_rows(np.array(["b", "a"]))
    source = pickle.loads(pickle.dumps(source))
    assert_array_equal(source.of_rows(np.array(["c", "b"])), [2, 1])
