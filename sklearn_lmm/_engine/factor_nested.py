"""Nested factors: pupils in classes in schools, any depth, any coefficients.

The levels form a forest; factor 0 of the chain holds the leaves, the last one
the roots.  Leaves are eliminated first, so that nothing fills in:

up, for a level g with A_gg, A_gh (h its ancestors) and b_g as they then stand,
    IS_g = (I + A_gg Psi)^-1,  K_g = Psi IS_g,  log|V| -= log|IS_g|,
    A_hh' -= A_gh' K_g A_gh',  b_h -= A_gh' K_g b_g  for all ancestors h, h';
down, with U the solution and C the relative posterior covariance of ancestors,
    J_g = IS_g A_g,anc,  W_g = IS_g (b_g - A_g,anc U_anc) = Z_g'V^-1 T,
    U_g = Psi W_g,  [Q]_gg = IS_g A_gg - J_g C_anc J_g',
    C_gg = K_g + K_g A_g,anc C_anc A_g,anc' K_g,  C_g,anc = -K_g A_g,anc C_anc.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import (
    Codes,
    Direction,
    Forms,
    PerFactor,
    average_information,
    quadratic,
    variances_by_projection,
)
from sklearn_lmm._engine.linalg import shrinkage, symmetrize
from sklearn_lmm._types import FloatArray, IntArray


def nesting_order(statistics: CrossProducts) -> list[int] | None:
    """Return the factors from leaves to roots; None if they are not nested.

    A factor is nested in another if each of its levels meets exactly one level
    of the other, that is one stored block in each row of Z_f'Z_h.
    """
    order = sorted(range(len(statistics.s)), key=lambda f: -len(statistics.s[f]))
    for f, h in pairwise(order):
        n = statistics.product(f, h)
        q_f, q_h = statistics.s[f].shape[1], statistics.s[h].shape[1]
        if n.nnz != n.shape[0] * q_h or len(statistics.s[f]) * q_f != n.shape[0]:
            return None
    return order


class NestedStrategy:
    """Elimination up the tree and substitution down, level by level."""

    name = "nested"
    exact = True

    def __init__(self, statistics: CrossProducts, order: list[int]) -> None:
        self.statistics = statistics
        self.order = order
        self.S = [statistics.s[f] for f in order]
        depth = len(order)
        self.parent: dict[tuple[int, int], IntArray] = {}
        self.A: dict[tuple[int, int], FloatArray] = {}
        self.up: dict[tuple[int, int], sparse.csr_array] = {}
        for k in range(depth):
            for h in range(k + 1, depth):
                self._connect(k, h)

    def factorize(self, L: PerFactor) -> NestedFactored:
        return NestedFactored(self, [L[f] for f in self.order])

    def ancestors(self, k: int) -> range:
        return range(k + 1, len(self.order))

    def side_by_side(self, k: int, A: dict[tuple[int, int], FloatArray]) -> FloatArray:
        """Return A[k, h] (G_k, q_k, q_h) of all ancestors h as one array."""
        nothing = np.zeros((*self.S[k].shape[:2], 0))
        return np.concatenate([A[k, h] for h in self.ancestors(k)] or [nothing], axis=2)

    def sum_children(self, k: int, h: int, x: FloatArray) -> FloatArray:
        """Return, for every level of h, the sum of x (G_k, ...) below it."""
        summed = self.up[k, h] @ x.reshape(len(x), -1)
        return summed.reshape(-1, *x.shape[1:])

    def _connect(self, k: int, h: int) -> None:
        """Record every level's ancestor in h, and its block of Z_k'Z_h."""
        n = self.statistics.product(self.order[k], self.order[h])
        (G_k, q_k, _), (G_h, q_h, _) = self.S[k].shape, self.S[h].shape
        parent = n.indices.reshape(G_k, q_k, q_h)[:, 0, 0] // q_h
        self.A[k, h] = n.data.reshape(G_k, q_k, q_h)
        self.parent[k, h] = parent
        entries = (np.ones(G_k), (parent, np.arange(G_k)))
        self.up[k, h] = sparse.csr_array(entries, (G_h, G_k))


class NestedFactored:
    """V at one theta; lists run along the chain, leaves first."""

    def __init__(self, strategy: NestedStrategy, L: list[FloatArray]) -> None:
        self.strategy = strategy
        self.Psi = [L_k @ L_k.T for L_k in L]
        self.diagonal = list(strategy.S)
        self.A = dict(strategy.A)
        self.IS: list[FloatArray] = []
        self.K: list[FloatArray] = []
        self.logdet = 0.0
        for k, L_k in enumerate(L):
            IS, logdets = shrinkage(self.diagonal[k], L_k)
            self.IS.append(IS)
            self.K.append(symmetrize(self.Psi[k] @ IS))
            self.logdet += float(logdets.sum())
            self._eliminate(k)

    def _eliminate(self, k: int) -> None:
        strategy = self.strategy
        for h in strategy.ancestors(k):
            KA = self.K[k] @ self.A[k, h]
            for h2 in range(k + 1, h + 1):
                update = self.A[k, h2].swapaxes(1, 2) @ KA
                if h2 == h:
                    self.diagonal[h] = self.diagonal[h] - strategy.sum_children(
                        k, h, update
                    )
                else:
                    self.A[h2, h] = self.A[h2, h] - strategy.sum_children(k, h2, update)

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        strategy = self.strategy
        rest = [b[f] for f in strategy.order]
        for k in range(len(rest)):
            Kb = self.K[k] @ rest[k]
            for h in strategy.ancestors(k):
                update = self.A[k, h].swapaxes(1, 2) @ Kb
                rest[h] = rest[h] - strategy.sum_children(k, h, update)
        U: dict[int, FloatArray] = {}
        W: dict[int, FloatArray] = {}
        for k in reversed(range(len(rest))):
            b_k = rest[k]
            for h in strategy.ancestors(k):
                b_k = b_k - self.A[k, h] @ U[h][strategy.parent[k, h]]
            W[k] = self.IS[k] @ b_k
            U[k] = self.Psi[k] @ W[k]
        return self._in_user_order(W), self._in_user_order(U)

    def block_sums(self) -> PerFactor:
        return tuple(blocks.sum(axis=0) for blocks in self._down[0])

    def posterior_blocks(self) -> PerFactor:
        return self._down[1]

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        """Return z'Cz, from the joint C of a row's lowest level and its ancestors.

        A row whose levels are not an ancestral line (a known class, said to be
        in another school) is no row of the tree: it goes through `project`.
        """
        order = self.strategy.order
        along = [codes[f] for f in order]
        z_along = [z[f] for f in order]
        used = np.array([np.any(z_k != 0.0, axis=1) for z_k in z_along])
        lowest = np.argmax(used, axis=0)
        variances = np.zeros(len(lowest))
        astray = np.zeros(len(lowest), dtype=bool)
        for k, joint in enumerate(self.joints):
            rows = np.flatnonzero((lowest == k) & used[k])
            level = along[k][rows]
            for h in self.strategy.ancestors(k):
                parent = self.strategy.parent[k, h][level]
                astray[rows] |= used[h, rows] & (along[h][rows] != parent)
            wide = np.concatenate([z_h[rows] for z_h in z_along[k:]], axis=1)
            variances[rows] = quadratic(joint[level], wide, wide)
        if astray.any():
            variances[astray] = variances_by_projection(
                self,
                self.strategy.statistics,
                tuple(c[astray] for c in codes),
                tuple(z_f[astray] for z_f in z),
            )
        return variances

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        return average_information(self, self.strategy.statistics, F, v, directions)

    @property
    def joints(self) -> list[FloatArray]:
        """The posterior covariance of every level and its ancestors, leaves first."""
        return self._down[2]

    @cached_property
    def _down(self) -> tuple[PerFactor, PerFactor, list[FloatArray]]:
        """The diagonal blocks of Q and of C, and the joint C of ancestral lines."""
        strategy = self.strategy
        Q: dict[int, FloatArray] = {}
        C: dict[int, FloatArray] = {}
        joint = np.zeros((len(strategy.S[-1]), 0, 0))
        joints: list[FloatArray] = []
        for k in reversed(range(len(strategy.S))):
            q = strategy.S[k].shape[1]
            above = strategy.ancestors(k)
            A = strategy.side_by_side(k, self.A)
            C_anc = joint[strategy.parent[k, k + 1]] if above else joint
            J = self.IS[k] @ A
            Q[k] = symmetrize(
                self.IS[k] @ self.diagonal[k] - J @ C_anc @ J.swapaxes(1, 2)
            )
            KAC = self.K[k] @ A @ C_anc
            C[k] = self.K[k] + KAC @ A.swapaxes(1, 2) @ self.K[k]
            joint = np.empty((len(A), q + A.shape[2], q + A.shape[2]))
            joint[:, :q, :q] = C[k]
            joint[:, :q, q:] = -KAC
            joint[:, q:, :q] = -KAC.swapaxes(1, 2)
            joint[:, q:, q:] = C_anc
            joints.insert(0, joint)
        return self._in_user_order(Q), self._in_user_order(C), joints

    def _in_user_order(self, along_chain: dict[int, FloatArray]) -> PerFactor:
        position = {f: k for k, f in enumerate(self.strategy.order)}
        return tuple(along_chain[position[f]] for f in range(len(position)))
