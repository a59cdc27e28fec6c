"""Which factor strategy suits the structure and the size of the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import NoRandomEffects, Strategy
from sklearn_lmm._engine.factor_crossed import CrossedStrategy
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.factor_krylov import KrylovStrategy, Sampling
from sklearn_lmm._engine.factor_nested import NestedStrategy, nesting_order
from sklearn_lmm._engine.factor_single import SingleStrategy
from sklearn_lmm._engine.level_graph import level_components
from sklearn_lmm._engine.memory import memory
from sklearn_lmm._types import FloatArray

MEMORY_PART = 0.25
"""Part of the memory that a Schur complement and its inverse may take."""

UNKNOWN_MEMORY = 8 * 2**30
"""Bytes taken to be there where the system does not tell."""

MOST_FLOPS = 2e13
"""Operations of an exact fit, about ten minutes of a few cores."""

EVALUATIONS = 6
"""Of the criterion in a fit by Newton's method."""


def choose_strategy(
    statistics: CrossProducts,
    sampling: Callable[[], Sampling] | None = None,
    *,
    if_needed: bool = False,
) -> Strategy:
    """Return the cheapest strategy that fits the grouping factors.

    None at all, one factor, factors nested in each other, anything else; or
    all of Z'Z, where correlated errors tie the levels of every factor together.

    Parameters
    ----------
    sampling : called for how to estimate traces, where factors are crossed; None
        to have them exact
    if_needed : whether to do so only where an exact fit is out of reach
    """
    if not statistics.s:
        return NoRandomEffects()
    tied = [(f, f) in statistics.n for f in range(len(statistics.s))]
    if all(tied):
        return DenseStrategy(statistics)
    if len(statistics.s) == 1:
        return SingleStrategy(statistics)
    order = None if any(tied) else nesting_order(statistics)
    if order is not None:
        return NestedStrategy(statistics, order)
    if sampling is None or (if_needed and exact_is_affordable(statistics)):
        return CrossedStrategy(statistics)
    return KrylovStrategy(statistics, sampling())


def exact_is_affordable(statistics: CrossProducts) -> bool:
    """Say whether crossed factors have a Schur complement of a size to work with.

    Beside the largest factor the others have q_R coefficients: two matrices of
    q_R^2 numbers, and about q_R^3 operations each time.  Factors that fall apart
    into components have smaller matrices, which are looked at only if needed.
    """
    sizes = sorted(s.shape[0] * s.shape[1] for s in statistics.s)
    if _affordable(np.array([float(sum(sizes[:-1]))])):
        return True
    return _affordable(_component_sizes(statistics))


def _affordable(sizes: FloatArray) -> bool:
    bytes_needed = 2 * 8 * float(np.sum(sizes**2))
    flops = EVALUATIONS * float(np.sum(sizes**3))
    there = memory() or UNKNOWN_MEMORY
    return bytes_needed <= MEMORY_PART * there and flops <= MOST_FLOPS


def _component_sizes(statistics: CrossProducts) -> FloatArray:
    """Return the coefficients outside the largest factor of every component."""
    widths = [s.shape[1] for s in statistics.s]
    components = level_components(statistics)
    largest = int(np.argmax([s.shape[0] * s.shape[1] for s in statistics.s]))
    m = 1 + max(int(numbers.max()) for numbers in components)
    counts = [
        q * np.bincount(numbers, minlength=m)
        for q, numbers in zip(widths, components, strict=True)
    ]
    del counts[largest]
    total: FloatArray = np.sum(counts, axis=0, dtype=float)
    return total
