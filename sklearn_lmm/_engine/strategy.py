"""Which factor strategy suits the structure of the data."""

from __future__ import annotations

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import NoRandomEffects, Strategy
from sklearn_lmm._engine.factor_crossed import CrossedStrategy
from sklearn_lmm._engine.factor_nested import NestedStrategy, nesting_order
from sklearn_lmm._engine.factor_single import SingleStrategy


def choose_strategy(statistics: CrossProducts) -> Strategy:
    """Return the cheapest strategy that fits the grouping factors.

    None at all, one factor, factors nested in each other, anything else.
    """
    if not statistics.s:
        return NoRandomEffects()
    if len(statistics.s) == 1:
        return SingleStrategy(statistics)
    order = nesting_order(statistics)
    if order is not None:
        return NestedStrategy(statistics, order)
    return CrossedStrategy(statistics)
