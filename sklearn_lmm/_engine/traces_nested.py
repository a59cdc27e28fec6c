"""tr(A Q B Q) for nested factors: the elimination, differentiated.

Q changes by -Q A Q with Psi, so that tr(B Q A Q) is minus the derivative of
tr(B Q) = <B, sum_g [Q]_gg> in the direction A.  Every quantity of the sweeps up
and down the tree (`factor_nested`) is followed by its derivative.  With
E = IS A_gg and S = A_gg as it stands when the level is eliminated,

    dK = IS' dPsi IS - K dS K,        dE = IS dS IS' - E dPsi E,
    dIS = -IS dS K - E dPsi IS,

and everything else is a product.  The cost is that of some evaluations of the
gradient for every direction, linear in the number of levels.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.factor import Direction
from sklearn_lmm._engine.factor_nested import NestedFactored
from sklearn_lmm._engine.linalg import symmetrize
from sklearn_lmm._types import FloatArray


def nested_traces(state: NestedFactored, directions: list[Direction]) -> FloatArray:
    """Return tr(A_m Q A_l Q) (m, m)."""
    position = {f: k for k, f in enumerate(state.strategy.order)}
    below = _Constants(state)
    traces = np.empty((len(directions), len(directions)))
    for m, direction in enumerate(directions):
        change = _Derivative(below, position[direction.factor], direction.A)
        sums = change.block_sums()
        for n, other in enumerate(directions):
            traces[m, n] = -np.sum(sums[position[other.factor]] * other.A)
    return symmetrize(traces)


class _Constants:
    """What all directions share; lists run along the chain, leaves first.

    E : [Q]_gg were a level's ancestors known
    A : Z_g'V^-1 Z_anc given the levels below, ancestors side by side
    J, KA : IS A and K A
    C : the posterior covariance of the ancestors
    """

    def __init__(self, state: NestedFactored) -> None:
        strategy = self.strategy = state.strategy
        self.state = state
        self.E = [
            symmetrize(IS @ S) for IS, S in zip(state.IS, state.diagonal, strict=True)
        ]
        self.A = [strategy.side_by_side(k, state.A) for k in range(len(self.E))]
        self.C: list[FloatArray] = []
        for k, S in enumerate(state.diagonal):
            above, nobody = strategy.ancestors(k), np.zeros((len(S), 0, 0))
            joint = state.joints[k + 1][strategy.parent[k, k + 1]] if above else nobody
            self.C.append(joint)
        self.J = [IS @ A for IS, A in zip(state.IS, self.A, strict=True)]
        self.KA = [K @ A for K, A in zip(state.K, self.A, strict=True)]


class _Derivative:
    """The derivatives for one direction, a change of Psi at one place of the chain.

    S, A, IS, K, E : as in `factor_nested` and `_Constants`, by level; None where
        they do not change, which is below the place
    """

    def __init__(self, at: _Constants, place: int, dPsi: FloatArray) -> None:
        self.at, self.place, self.dPsi = at, place, dPsi
        state = at.state
        self.S = [np.zeros_like(S) for S in state.diagonal]
        self.A = {pair: np.zeros_like(A) for pair, A in state.A.items()}
        self.IS: dict[int, FloatArray] = {}
        self.K: dict[int, FloatArray] = {}
        self.E: dict[int, FloatArray] = {}
        for k in range(place, len(state.K)):
            self._level(k)
            self._eliminate(k)

    def _level(self, k: int) -> None:
        state, E = self.at.state, self.at.E[k]
        IS, K, dS = state.IS[k], state.K[k], self.S[k]
        IS_t = IS.swapaxes(1, 2)
        self.IS[k] = -IS @ dS @ K
        self.K[k] = -K @ dS @ K
        self.E[k] = IS @ dS @ IS_t
        if k == self.place:
            self.IS[k] -= E @ self.dPsi @ IS
            self.K[k] += IS_t @ self.dPsi @ IS
            self.E[k] -= E @ self.dPsi @ E

    def _eliminate(self, k: int) -> None:
        state, strategy = self.at.state, self.at.state.strategy
        for h in strategy.ancestors(k):
            KA = state.K[k] @ state.A[k, h]
            dKA = self.K[k] @ state.A[k, h] + state.K[k] @ self.A[k, h]
            for h2 in range(k + 1, h + 1):
                update = self.A[k, h2].swapaxes(1, 2) @ KA
                update += state.A[k, h2].swapaxes(1, 2) @ dKA
                summed = strategy.sum_children(k, h2, update)
                if h2 == h:
                    self.S[h] = self.S[h] - symmetrize(summed)
                else:
                    self.A[h2, h] = self.A[h2, h] - summed

    def block_sums(self) -> list[FloatArray]:
        """Return the derivatives of sum_g [Q]_gg (q, q), leaves first."""
        at, strategy = self.at, self.at.state.strategy
        sums: list[FloatArray] = []
        joint = np.zeros((len(at.C[-1]), 0, 0))
        for k in reversed(range(len(at.E))):
            above = strategy.ancestors(k)
            dC = joint[strategy.parent[k, k + 1]] if above else joint
            sums.insert(0, self._block(k, dC).sum(axis=0))
            if k:
                joint = self._joint(k, dC)
        return sums

    def _block(self, k: int, dC: FloatArray) -> FloatArray:
        """Return d[Q]_gg, of [Q]_gg = E - J C J'."""
        J, C = self.at.J[k], self.at.C[k]
        dQ = -J @ dC @ J.swapaxes(1, 2)
        if k >= self.place:
            dJ = self.IS[k] @ self.at.A[k] + self.at.state.IS[k] @ self._dA(k)
            dQ += self.E[k] - 2.0 * symmetrize(dJ @ C @ J.swapaxes(1, 2))
        return dQ

    def _joint(self, k: int, dC: FloatArray) -> FloatArray:
        """Return the derivative of [[K + KA C KA', -KA C], [., C]]."""
        KA, C = self.at.KA[k], self.at.C[k]
        dKAC = KA @ dC
        own = dKAC @ KA.swapaxes(1, 2)
        if k >= self.place:
            dKA = self.K[k] @ self.at.A[k] + self.at.state.K[k] @ self._dA(k)
            own += self.K[k] + 2.0 * symmetrize(dKA @ C @ KA.swapaxes(1, 2))
            dKAC = dKAC + dKA @ C
        upper = np.concatenate([own, -dKAC], axis=2)
        lower = np.concatenate([-dKAC.swapaxes(1, 2), dC], axis=2)
        return np.concatenate([upper, lower], axis=1)

    def _dA(self, k: int) -> FloatArray:
        """Return the derivative of A, ancestors side by side."""
        return self.at.strategy.side_by_side(k, self.A)
