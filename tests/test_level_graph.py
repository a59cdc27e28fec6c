"""Components of the graph of levels."""

import numpy as np
import pytest
from problems import Effects, disconnected, make_design, problem
from scipy import sparse

from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.level_graph import is_connected, level_components


def test_levels_are_together_if_rows_connect_them():
    rng = np.random.default_rng(0)
    labels = disconnected(rng, 200, 5, (4, 3))
    statistics = cross_products(make_design(rng, labels, [Effects(0, 1), Effects(1)]))
    first, second = level_components(statistics)
    # Blocks of labels have nothing in common: the component tells the block.
    design = make_design(rng, labels, [Effects(0), Effects(1)])
    by_row = [
        component[factor.codes]
        for component, factor in zip((first, second), design.factors, strict=True)
    ]
    np.testing.assert_array_equal(*by_row)
    assert len(np.unique(first)) == 5


def test_three_factors_connect_through_any_of_them():
    statistics = cross_products(problem("crossed_three"))
    numbers = np.concatenate(level_components(statistics))
    assert len(np.unique(numbers)) == 1


@pytest.mark.parametrize("bridge", [0.0, 2.0])
def test_rows_are_reached_through_entries(bridge):
    N = sparse.csr_array([[1.0, 1.0, 0.0], [0.0, 3.0, bridge], [0.0, 0.0, 1.0]])
    assert is_connected(N, N.T.tocsr()) == (bridge > 0)
