"""Grouping factors: one source of labels, or the combinations of several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_lmm._grouping import learn_factor
from sklearn_lmm._labels import learn_levels


def learn(columns):
    """Return the codes of the rows and the factor that the columns make."""
    learnt = [learn_levels(column, f"part {k}") for k, column in enumerate(columns)]
    return learn_factor([codes for codes, _ in learnt], [part for _, part in learnt])


@given(st.integers(0, 50), st.integers(1, 3), st.sampled_from([60, 3]))
def test_levels_are_the_combinations_that_occur(seed, n_parts, n):
    rng = np.random.default_rng(seed)
    columns = [rng.integers(0, size, n) for size in (4, 3, 5)][:n_parts]
    codes, factor = learn(columns)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    rows = rows if n_parts > 1 else [label for [label] in rows]
    assert factor.labels.tolist() == sorted(set(rows))
    assert factor.labels[codes].tolist() == rows
    assert factor.match(columns).tolist() == codes.tolist()


def test_unknown_part_or_new_combination():
    _, factor = learn([np.array(["A", "B", "B"]), np.array([1, 1, 2])])
    assert factor.labels.tolist() == [("A", 1), ("B", 1), ("B", 2)]
    new = [
        np.array(["A", "A", "B", "C", "B", None, "B"], object),
        np.array([1, 2, 2, 1, 7, 1, 1]),
    ]
    assert factor.match(new).tolist() == [0, -1, 2, -1, -1, -1, 1]


@pytest.mark.parametrize("n", [10, 4000])
def test_many_levels_of_both_parts(n):
    """Beyond a table of all pairs the keys are hashed."""
    rng = np.random.default_rng(0)
    columns = [rng.permutation(n), rng.permutation(n)]
    codes, factor = learn(columns)
    assert codes.tolist() == columns[0].tolist()
    assert factor.match(columns).tolist() == codes.tolist()
    shifted = [columns[0], np.roll(columns[1], 1)]
    assert (factor.match(shifted) == -1).all()
