"""tr(A Q B Q) for changes A, B of the covariances, from any factored V.

With Q = Z'V^-1 Z these traces are the expected curvature of log|V|.  The exact
Hessian of the criterion, Satterthwaite's and Kenward and Roger's degrees of
freedom are all made of them.  Nothing of the size of V, or of the largest
factor squared, is ever formed.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import (
    Direction,
    Factored,
    NoRandomEffects,
    PerFactor,
    level_product,
    total_product,
)
from sklearn_lmm._engine.factor_crossed import CrossedFactored
from sklearn_lmm._engine.factor_dense import DenseFactored
from sklearn_lmm._engine.factor_nested import NestedFactored
from sklearn_lmm._engine.factor_single import SingleFactored
from sklearn_lmm._engine.linalg import consecutive, level_gram, sandwich, symmetrize
from sklearn_lmm._engine.traces_crossed import crossed_traces
from sklearn_lmm._engine.traces_nested import nested_traces
from sklearn_lmm._types import FloatArray

COLUMNS_AT_ONCE = 256
"""Columns projected at a time."""


@singledispatch
def trace_products(state: Factored, directions: list[Direction]) -> FloatArray | None:
    """Return tr(A_m Q A_l Q) (m, m); None where the strategy cannot tell."""
    return None


@trace_products.register
def _(state: NoRandomEffects, directions: list[Direction]) -> FloatArray | None:
    return np.zeros((0, 0))


@trace_products.register
def _(state: DenseFactored, directions: list[Direction]) -> FloatArray | None:
    AQ = [state.wide(direction) @ state.Q for direction in directions]
    return np.array([[np.sum(a * b.T) for b in AQ] for a in AQ])


@trace_products.register
def _(state: SingleFactored, directions: list[Direction]) -> FloatArray | None:
    A = np.array([direction.A for direction in directions])
    Q = state.Q
    return sandwich(A, level_gram(Q * state.counts[:, None, None], Q))


@trace_products.register
def _(state: NestedFactored, directions: list[Direction]) -> FloatArray | None:
    return nested_traces(state, directions)


@trace_products.register
def _(state: CrossedFactored, directions: list[Direction]) -> FloatArray | None:
    return crossed_traces(state, directions)


def reml_traces(
    state: Factored,
    statistics: CrossProducts,
    F: PerFactor,
    directions: list[Direction],
) -> FloatArray | None:
    """Return tr(A_m Z'PZ A_l Z'PZ) (m, m), with F = Z'V^-1 X R_X^-1 whitened.

    tr(A_m Q A_l Q) - 2 tr(F'A_m Q A_l F) + tr(F'A_m F F'A_l F).
    """
    traces = trace_products(state, directions)
    if traces is None or not directions:
        return traces
    m, p = len(directions), F[0].shape[2]
    at_once = max(1, COLUMNS_AT_ONCE // m)
    for start in range(0, p, at_once):
        AF = _changes_of_F(F, slice(start, start + at_once), directions)
        QAF, _ = state.project(statistics.ztz(AF))
        for AF_f, QAF_f in zip(AF, QAF, strict=True):
            wide = (*AF_f.shape[:2], m, -1)
            axes = ((0, 1, 3), (0, 1, 3))
            traces = traces - 2.0 * np.tensordot(
                AF_f.reshape(wide), QAF_f.reshape(wide), axes
            )
    FAF = fixed_part_changes(F, directions).reshape(m, p * p)
    return symmetrize(traces + FAF @ FAF.T)


def fixed_part_changes(F: PerFactor, directions: list[Direction]) -> FloatArray:
    """Return F'A_m F (m, p, p)."""
    changes = [level_product(F[d.factor], d.A @ F[d.factor]) for d in directions]
    return np.array(changes)


def fixed_part_curvature(
    state: Factored,
    statistics: CrossProducts,
    F: PerFactor,
    directions: list[Direction],
) -> FloatArray:
    """Return F'A_m Q A_l F (m, m, p, p)."""
    m, p = len(directions), statistics.p
    if not m:
        return np.zeros((0, 0, p, p))
    AF = _changes_of_F(F, slice(None), directions)
    QAF, _ = state.project(statistics.ztz(AF))
    return total_product(AF, QAF).reshape(m, p, m, p).swapaxes(1, 2)


def _changes_of_F(
    F: PerFactor, columns: slice, directions: list[Direction]
) -> PerFactor:
    """Return A_m F (G, q, m c) of every factor for c columns of F."""
    chosen = [F_f[:, :, columns] for F_f in F]
    c = chosen[0].shape[2]
    AF = [np.zeros((*F_f.shape[:2], len(directions) * c)) for F_f in F]
    for direction, place in zip(
        directions, consecutive([c] * len(directions)), strict=True
    ):
        f = direction.factor
        AF[f][:, :, place] = direction.A @ chosen[f]
    return tuple(AF)
