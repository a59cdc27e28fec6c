"""Kenward and Roger's matrices for the parameters u of the errors.

In the notation of `kenward_roger` and `error_criterion`, sigma^2 = 1 and X
whitened, with dG_j the derivatives of T'R^-1 T, D_ij = T'R^-1 dR_i R^-1 dR_j R^-1 T
and x_j = [dG_j E]_Z,

    P_j  = E'dG_j E,
    Q_mj = -F'A_m (Z'V^-1) x_j,       Q_ij = E'D_ij E - x_i'C x_j,
    T_mj = -tr(A_m E_L'dG_j E_L),     T_Vj = d log|V| / du_j,
    T_ij = tr(R^-1 dR_i R^-1 dR_j) - 2 <C, D_ij> + tr(C dG_i C dG_j),
    R_Vj = -P_j,  R_ij = E'(2 D_ij - d2G_ij) E + sum_k c_kij P_k

for m among the random effects' parameters and V, the direction of V itself.  The
second derivatives R_ij are those by the parameters that users know, which are
curved in u; R_ij and R_Vj are 0 for parameters that Cov(e) is linear in.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_criterion import ErrorPoint
from sklearn_lmm._engine.error_squares import ErrorSquares
from sklearn_lmm._engine.errors import combine
from sklearn_lmm._engine.factor import Direction, level_product
from sklearn_lmm._types import FloatArray

TOO_CURVED = 1e4
"""Second derivatives that count this much, each by itself, cancel to nothing sure."""


class ErrorMatrices:
    """The matrices at one point, for k parameters of the errors."""

    def __init__(self, point: ErrorPoint, squares: ErrorSquares) -> None:
        self.point, self.squares = point, squares
        self.expansion = point.criterion.expansion

    @cached_property
    def P(self) -> FloatArray:
        """P_j (k, p, p)."""
        p = len(self.point.beta)
        P = np.array([gram[:p, :p] for gram in self.point.grams])
        return np.asarray(P.reshape(-1, p, p))

    def Q_mixed(self, directions: list[Direction]) -> FloatArray:
        """Return Q_mj (m, k, p, p)."""
        point, p = self.point, len(self.point.beta)
        Q = np.empty((len(directions), len(self.P), p, p))
        for m, direction in enumerate(directions):
            AF = direction.A @ point.F[direction.factor]
            for j, (ZVx, _) in enumerate(point.projected):
                Q[m, j] = -level_product(AF, ZVx[direction.factor][:, :, :p])
        return Q

    @cached_property
    def Q(self) -> FloatArray:
        """Q_ij (k, k, p, p)."""
        k, p = len(self.P), len(self.point.beta)
        Q = np.empty((k, k, p, p))
        for i, (_, x) in enumerate(self.point.images):
            for j, (_, Cx) in enumerate(self.point.projected):
                Q[i, j] = self._gram(self.squares.products[i][j])
                for x_f, Cx_f in zip(x, Cx, strict=True):
                    Q[i, j] -= level_product(x_f[:, :, :p], Cx_f[:, :, :p])
        return Q

    def T_mixed(self, directions: list[Direction]) -> FloatArray:
        """Return T_mj (m, k)."""
        return -self.point.traces_of_Z.mixed(directions, self.expansion.first)

    @cached_property
    def T(self) -> FloatArray:
        """T_ij (k, k)."""
        inner = self.point.traces_of_Z.inner
        k = len(self.P)
        of_C = np.array([[inner(D) for D in row] for row in self.squares.products])
        pairs = self.point.traces_of_Z.pairs(self.expansion.first)
        T = self.squares.traces - 2.0 * of_C.reshape(k, k) + pairs.reshape(k, k)
        return np.asarray(T)

    @cached_property
    def T_V(self) -> FloatArray:
        """T_Vj (k,)."""
        changes = [self.point.traces_of_Z.inner(dG) for dG in self.expansion.first]
        return np.asarray(self.expansion.dlogdet + np.array(changes).reshape(-1))

    def curvature(self, W: FloatArray, W_V: FloatArray) -> FloatArray:
        """Return sum W_ij R_ij + 2 sum W_Vj R_Vj (p, p) for W (k, k) and W_V (k,).

        NaN where little is sure of it: a parameter at the end of its range.
        """
        bend = self.squares.bend
        if bend is None or not len(self.P):
            return np.zeros((len(self.point.beta),) * 2)
        weights = W.ravel()
        of_D = combine(2.0 * weights, [D for row in self.squares.products for D in row])
        of_d2G = combine(weights, [d2G for row in self.expansion.second for d2G in row])
        by_first = np.tensordot(bend, W, 2) - 2.0 * W_V
        parts = np.array(
            [
                self._gram(of_D),
                -self._gram(of_d2G),
                np.tensordot(by_first, self.P, 1),
            ]
        )
        if np.abs(parts).max(initial=0.0) > TOO_CURVED:
            return np.full_like(parts[0], np.nan)
        return np.asarray(parts.sum(axis=0))

    def _gram(self, dG: CrossProducts) -> FloatArray:
        """Return E'dG E."""
        return np.asarray(self.point.gram(dG)[:-1, :-1])
