"""Random probes and the fixed vectors beside them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_lmm._engine.probes import draw_probes

PLACES = [slice(0, 40), slice(40, 45), slice(45, 75)]


def draw(count, seed=0, places=PLACES):
    rng = np.random.default_rng(9)
    bases = [(p, rng.normal(size=(p.stop - p.start, 2))) for p in places]
    return draw_probes(bases, 75, count, seed)


def second_moment(probes):
    return (probes.z * probes.weights) @ probes.z.T


def test_mean_square_is_the_identity():
    mean = np.mean([second_moment(draw(8, seed)) for seed in range(400)], axis=0)
    # 400 times 8 signs: a standard error of 1 / sqrt(3200) off the diagonal.
    assert np.abs(mean - np.eye(75)).max() < 5 / np.sqrt(3200)


def test_few_rows_are_exact():
    probes = draw(8)
    small = PLACES[1]
    assert_allclose(second_moment(probes)[small], np.eye(75)[small], atol=1e-6)
    assert_array_equal(probes.z[small, : probes.n_random], 0.0)


def test_with_as_many_probes_as_rows_nothing_is_random():
    probes = draw(40)
    assert probes.n_random == 0
    assert_allclose(second_moment(probes), np.eye(75), atol=1e-6)


def test_directions_are_exact():
    rng = np.random.default_rng(9)
    basis = rng.normal(size=(40, 2))
    along = np.zeros(75)
    along[:40] = basis @ [0.3, -0.7]
    for seed in range(3):
        assert_allclose(second_moment(draw(4, seed)) @ along, along, atol=1e-5)


def test_more_probes_begin_with_the_same():
    few, many = draw(4), draw(16)
    assert_allclose(many.z[:40, :4], few.z[:40, :4], atol=1e-6)
    assert_array_equal(draw(4).z, few.z)
    assert not np.array_equal(draw(4, seed=1).z, few.z)


@pytest.mark.parametrize("wanted", PLACES)
def test_rows_that_are_not_wanted_are_zero(wanted):
    z = draw(8, places=[wanted]).z
    z = np.delete(z, np.arange(75)[wanted], axis=0)
    assert_array_equal(z, 0.0)
