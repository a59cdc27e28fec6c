"""Traces with the derivatives of the cross-products.

With C the posterior covariance of b given beta, relative to sigma^2, and
E_L = I - C Z'Z: <C, dS>, tr(C dS_i C dS_j) and tr(A_m E_L'dS_j E_L), where dS is
the part of Z in a derivative of the cross-products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import Direction, Factored, NoRandomEffects
from sklearn_lmm._engine.factor_single import SingleFactored
from sklearn_lmm._types import FloatArray


def traces_of(state: Factored, statistics: CrossProducts) -> NoTraces | SingleTraces:
    if isinstance(state, SingleFactored):
        return SingleTraces(state)
    if isinstance(state, NoRandomEffects):
        return NoTraces()
    raise ValueError(
        "A residual structure is possible beside one grouping factor, whose levels "
        "contain the groups of the structure, or beside none."
    )


class NoTraces:
    """Without random effects all of them are 0."""

    def inner(self, dS: CrossProducts) -> float:
        return 0.0

    def pairs(self, dS: Sequence[CrossProducts]) -> FloatArray:
        return np.zeros((len(dS), len(dS)))

    def mixed(
        self, directions: Sequence[Direction], dS: Sequence[CrossProducts]
    ) -> FloatArray:
        return np.zeros((len(directions), len(dS)))


class SingleTraces:
    """One factor: sums over levels, with E_L = IS' in every level."""

    def __init__(self, state: SingleFactored) -> None:
        self.IS, self.counts = state.IS, state.counts
        (self.C,) = state.posterior_blocks()

    def inner(self, dS: CrossProducts) -> float:
        return float(self.counts @ np.einsum("gij,gij->g", self.C, dS.s[0]))

    def pairs(self, dS: Sequence[CrossProducts]) -> FloatArray:
        CdS = [self.C @ d.s[0] for d in dS]
        pairs = np.zeros((len(dS), len(dS)))
        for i, a in enumerate(CdS):
            for j, b in enumerate(CdS):
                pairs[i, j] = self.counts @ np.einsum("gij,gji->g", a, b)
        return pairs

    def mixed(
        self, directions: Sequence[Direction], dS: Sequence[CrossProducts]
    ) -> FloatArray:
        mixed = np.empty((len(directions), len(dS)))
        for j, d in enumerate(dS):
            blocks = self.IS @ d.s[0] @ self.IS.swapaxes(1, 2)
            total = np.tensordot(self.counts, blocks, 1)
            mixed[:, j] = [np.vdot(direction.A, total) for direction in directions]
        return mixed
