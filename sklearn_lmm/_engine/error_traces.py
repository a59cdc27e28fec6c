"""Traces with the derivatives of the cross-products.

With C the posterior covariance of b given beta, relative to sigma^2, and
E_L = I - C Z'Z: <C, dS>, tr(C dS_i C dS_j) and tr(A_m E_L'dS_j E_L), where dS is
the part of Z in a derivative of the cross-products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts, block_diagonal
from sklearn_lmm._engine.factor import Direction, Factored, NoRandomEffects
from sklearn_lmm._engine.factor_crossed import CrossedFactored
from sklearn_lmm._engine.factor_nested import NestedFactored
from sklearn_lmm._engine.factor_single import SingleFactored
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import FloatArray

MOST_COEFFICIENTS = 1500
"""Random effects, at most, of which C is made as one matrix."""


class Traces(Protocol):
    """The traces at one theta.

    exact : whether there is more than the first of them
    """

    exact: bool

    def inner(self, dS: CrossProducts) -> float:
        """Return <C, dS>."""

    def pairs(self, dS: Sequence[CrossProducts]) -> FloatArray:
        """Return tr(C dS_i C dS_j)."""

    def mixed(
        self, directions: Sequence[Direction], dS: Sequence[CrossProducts]
    ) -> FloatArray:
        """Return tr(A_m E_L'dS_j E_L)."""


def traces_of(state: Factored, statistics: CrossProducts) -> Traces:
    """Return the traces that suit a factored V."""
    if isinstance(state, NoRandomEffects):
        return NoTraces()
    if isinstance(state, SingleFactored):
        return SingleTraces(state)
    size = sum(s.shape[0] * s.shape[1] for s in statistics.s)
    if size > MOST_COEFFICIENTS and isinstance(state, NestedFactored):
        return NestedTraces(state)
    if size > MOST_COEFFICIENTS and isinstance(state, CrossedFactored):
        return CrossedTraces(state)
    return DenseTraces(state, statistics)


class NoTraces:
    """Without random effects all of them are 0."""

    exact = True

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

    exact = True

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


class DenseTraces:
    """Several factors: C and E_L as matrices, from a projection of I."""

    exact = True

    def __init__(self, state: Factored, statistics: CrossProducts) -> None:
        shapes = [s.shape[:2] for s in statistics.s]
        self.places = consecutive(G * q for G, q in shapes)
        self.shapes = shapes
        unit = np.eye(self.places[-1].stop)
        columns = tuple(
            unit[place].reshape(*shape, -1)
            for place, shape in zip(self.places, shapes, strict=True)
        )
        E_L, C = state.project(columns)
        self.E_L = np.concatenate([x.reshape(-1, len(unit)) for x in E_L]).T
        self.C = np.concatenate([x.reshape(-1, len(unit)) for x in C])

    def inner(self, dS: CrossProducts) -> float:
        matrix = zz(dS).tocoo()
        return float(self.C[matrix.row, matrix.col] @ matrix.data)

    def pairs(self, dS: Sequence[CrossProducts]) -> FloatArray:
        CdS = [(zz(d) @ self.C).T for d in dS]
        return np.array([[np.vdot(a, b.T) for b in CdS] for a in CdS])

    def mixed(
        self, directions: Sequence[Direction], dS: Sequence[CrossProducts]
    ) -> FloatArray:
        mixed = np.empty((len(directions), len(dS)))
        for j, d in enumerate(dS):
            whole = self.E_L.T @ (zz(d) @ self.E_L)
            sums = [
                np.einsum("gigj->ij", whole[place, place].reshape(G, q, G, q))
                for place, (G, q) in zip(self.places, self.shapes, strict=True)
            ]
            mixed[:, j] = [np.vdot(m.A, sums[m.factor]) for m in directions]
        return mixed


def zz(statistics: CrossProducts) -> sparse.csr_array:
    """Return all of Z'Z as one sparse matrix."""
    factors = range(len(statistics.s))
    rows = [[statistics.product(f, h) for h in factors] for f in factors]
    return sparse.csr_array(sparse.block_array(rows, format="csr"))


class _InnerOnly:
    """Where C is too large: the Hessian is then one of differences."""

    exact = False

    def pairs(self, dS: Sequence[CrossProducts]) -> FloatArray:
        raise NotImplementedError

    def mixed(
        self, directions: Sequence[Direction], dS: Sequence[CrossProducts]
    ) -> FloatArray:
        raise NotImplementedError


class NestedTraces(_InnerOnly):
    """Nested factors: dS has entries where C is known, along ancestral lines."""

    def __init__(self, state: NestedFactored) -> None:
        self.state = state

    def inner(self, dS: CrossProducts) -> float:
        order = self.state.strategy.order
        total = 0.0
        for k, f in enumerate(order):
            joint, q = self.state.joints[k], dS.s[f].shape[1]
            total += float(np.vdot(joint[:, :q, :q], dS.s[f]))
            start = q
            for h in order[k + 1 :]:
                n = (dS.n[f, h] if f < h else dS.n[h, f].T).tocoo()
                q_h = dS.s[h].shape[1]
                C = joint[n.row // q, n.row % q, start + n.col % q_h]
                total += 2.0 * float(C @ n.data)
                start += q_h
        return total


class CrossedTraces(_InnerOnly):
    """Crossed factors: with the first, C is -C_R N K."""

    def __init__(self, state: CrossedFactored) -> None:
        self.state = state

    def inner(self, dS: CrossProducts) -> float:
        state, strategy = self.state, self.state.strategy
        first = strategy.first
        C_1 = state.K + state.K @ state.NCN @ state.K
        total = float(np.vdot(C_1, dS.s[first]))
        dN, dC = strategy.stacked(dS)
        NKdN = strategy.N @ block_diagonal(state.K) @ sparse.csr_array(dN).T
        matrix = sparse.coo_array(dC - NKdN - NKdN.T)
        lower = matrix.row >= matrix.col
        row, column, data = matrix.row[lower], matrix.col[lower], matrix.data[lower]
        C = state.inverse.C[strategy.layout.index(row, column)]
        return total + float(C @ np.where(row == column, data, 2.0 * data))
