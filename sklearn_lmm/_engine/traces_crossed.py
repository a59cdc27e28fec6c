"""tr(A Q B Q) for crossed factors, through matrices of the size of the complement.

In the notation of `factor_crossed`, with D_g = IS_g S_g, C0_g = N_g IS_g',
C_R = L_R S^-1 L_R' and J = (I + Psi_R A)^-1 = I - C_R A,

    Q_11 = blockdiag(D_g) - C0'C_R C0,  Q_1R = C0'J,  Q_RR = A J,

and with W_m = sum_g C0_g A_m C0_g' for a change A_m of the first factor,

    both in 1:  sum_g tr(A_m D_g A_l D_g) + tr(C_R W_m C_R W_l)
                - 2 sum_g tr(C0_g'C_R C0_g A_m D_g A_l),
    m in 1, l in R:  sum_h <A_l, [J'W_m J]_hh>,    both in R:  tr(A_m Q_RR A_l Q_RR).

Where Psi_k is well away from 0, J = C_R Psi^-1 and Q_RR = Psi^-1 (I - J) in the
columns and rows of factor k, without cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.factor import Direction
from sklearn_lmm._engine.factor_crossed import CrossedFactored
from sklearn_lmm._engine.linalg import consecutive, level_gram, sandwich, symmetrize
from sklearn_lmm._engine.schur import mirror
from sklearn_lmm._types import FloatArray, IntArray


def crossed_traces(state: CrossedFactored, directions: list[Direction]) -> FloatArray:
    """Return tr(A_m Q A_l Q) (m, m)."""
    return _CrossedTraces(state, directions).total()


@dataclass(frozen=True, eq=False)
class _Part:
    """Blocks of the Schur complement with the same number of rows of every factor.

    rows : (c, m), of every block
    places : per factor of R, where its rows stand within a block
    bucket, members : which blocks of which bucket of the layout
    """

    rows: IntArray
    places: list[slice]
    bucket: int
    members: IntArray


class _CrossedTraces:
    """The traces of some directions at one theta.

    first : (position, A) of the directions of the eliminated factor
    rest : the same of every other factor, in the order of R
    inverse_Psi : of every factor of R, None where Psi is too small
    """

    def __init__(self, state: CrossedFactored, directions: list[Direction]) -> None:
        self.state, self.strategy = state, state.strategy
        self.first = _of_factor(directions, self.strategy.first)
        self.rest = [_of_factor(directions, f) for f in self.strategy.rest]
        self.inverse_Psi: list[FloatArray | None] = [
            np.asarray(np.linalg.inv(L @ L.T), float)
            if self.strategy.is_large(k, L)
            else None
            for k, L in enumerate(state.L)
        ]
        self.result = np.zeros((len(directions), len(directions)))

    def total(self) -> FloatArray:
        C = self.state.inverse.C
        small = any(inverse is None for inverse in self.inverse_Psi)
        A = self.strategy.reduced(self.state.K) if small else None
        W = [self._outer(direction) for _, direction in self.first]
        if W:
            self._within_first()
        for part in self._parts():
            self._add(
                part,
                self._blocks(C, part),
                None if A is None else self._blocks(A, part),
                [self._blocks(W_m, part) for W_m in W],
            )
        return symmetrize(self.result)

    def _outer(self, A: FloatArray) -> FloatArray:
        """Return W = sum_g C0_g A C0_g', flat."""
        IS = self.state.IS
        flat = np.zeros(self.strategy.layout.n_entries)
        self.strategy.outer.subtract_from(flat, -(IS.swapaxes(1, 2) @ A @ IS))
        return flat

    def _within_first(self) -> None:
        """Add what needs the blocks of the eliminated factor only."""
        where, A = _unzip(self.first)
        IS = self.state.IS
        D = symmetrize(IS @ self.strategy.S)
        B = IS @ self.state.NCN @ IS.swapaxes(1, 2)
        traces = sandwich(A, level_gram(D, D)) - 2.0 * sandwich(A, level_gram(B, D))
        self.result[np.ix_(where, where)] += traces

    def _parts(self) -> Iterator[_Part]:
        layout, strategy = self.strategy.layout, self.strategy
        ends = np.array([place.stop for place in strategy.places])
        unused = np.broadcast_to(0.0, layout.n_entries)
        for bucket, (rows, _) in enumerate(layout.blocks(unused)):
            factor = np.searchsorted(ends, rows, side="right")
            sizes = np.sum(factor[:, :, None] == np.arange(len(ends)), axis=1)
            distinct, number = np.unique(sizes, axis=0, return_inverse=True)
            for i, size in enumerate(distinct):
                members = np.flatnonzero(number.ravel() == i)
                yield _Part(rows[members], consecutive(size), bucket, members)

    def _blocks(self, flat: FloatArray, part: _Part) -> FloatArray:
        """Return symmetric blocks (c, m, m) from flat lower triangles."""
        blocks = list(self.strategy.layout.blocks(flat))[part.bucket][1]
        chosen = blocks[part.members]
        mirror(chosen)
        return chosen

    def _add(
        self,
        part: _Part,
        C: FloatArray,
        A: FloatArray | None,
        W: list[FloatArray],
    ) -> None:
        """Add the traces over some blocks of the complement."""
        CW = [C @ W_m for W_m in W]
        for (m, _), CW_m in zip(self.first, CW, strict=True):
            for (n, _), CW_n in zip(self.first, CW, strict=True):
                self.result[m, n] += np.vdot(CW_m, CW_n.swapaxes(1, 2))
        J = self._J(part, C, A)
        for k in range(len(self.rest)):
            for (m, _), W_m, CW_m in zip(self.first, W, CW, strict=True):
                self._add_mixed(m, k, part, J, W_m, CW_m)
        self._add_rest(part, self._Q(part, J, A))

    def _J(self, part: _Part, C: FloatArray, A: FloatArray | None) -> FloatArray:
        """Return J = (I + Psi_R A)^-1."""
        J = C.copy() if A is None else np.eye(C.shape[1]) - C @ A
        for place, inverse in zip(part.places, self.inverse_Psi, strict=True):
            if inverse is not None:
                J[:, :, place] = _times_levels(C[:, :, place], inverse)
        return J

    def _Q(self, part: _Part, J: FloatArray, A: FloatArray | None) -> FloatArray:
        """Return [Q]_RR = A J."""
        Q = np.empty_like(J) if A is None else A @ J
        rest = np.eye(J.shape[1]) - J
        for place, inverse in zip(part.places, self.inverse_Psi, strict=True):
            if inverse is not None:
                rows = rest[:, place].swapaxes(1, 2)
                Q[:, place] = _times_levels(rows, inverse).swapaxes(1, 2)
        return Q

    def _add_mixed(
        self,
        m: int,
        k: int,
        part: _Part,
        J: FloatArray,
        W: FloatArray,
        CW: FloatArray,
    ) -> None:
        """Add <A_l, sum_h [J'W J]_hh> for the directions of factor k in R."""
        place, inverse = part.places[k], self.inverse_Psi[k]
        if not self.rest[k]:
            return
        q = len(self.state.L[k])
        J_k = np.ascontiguousarray(J[:, :, place])
        if inverse is None:
            WJ = W @ J_k
        else:
            WJ = _times_levels(CW[:, place].swapaxes(1, 2), inverse)
        diagonal = J_k.reshape(-1, q).T @ WJ.reshape(-1, q)
        for n, A in self.rest[k]:
            trace = np.sum(A * diagonal)
            self.result[m, n] += trace
            self.result[n, m] += trace

    def _add_rest(self, part: _Part, Q: FloatArray) -> None:
        """Add tr(A_m Q_RR A_l Q_RR)."""
        for k, of_k in enumerate(self.rest):
            for j, of_j in enumerate(self.rest):
                if not (of_k and of_j):
                    continue
                where_k, A_k = _unzip(of_k)
                where_j, A_j = _unzip(of_j)
                gram = _pair_gram(
                    Q[:, part.places[k], part.places[j]], A_k.shape[1], A_j.shape[1]
                )
                half = np.einsum("mab,bcad->mcd", A_k, gram)
                traces = np.einsum("mcd,ncd->mn", half, A_j)
                self.result[np.ix_(where_k, where_j)] += traces


def _of_factor(directions: list[Direction], f: int) -> list[tuple[int, FloatArray]]:
    return [(m, d.A) for m, d in enumerate(directions) if d.factor == f]


def _unzip(chosen: list[tuple[int, FloatArray]]) -> tuple[list[int], FloatArray]:
    return [m for m, _ in chosen], np.array([A for _, A in chosen])


def _times_levels(X: FloatArray, A: FloatArray) -> FloatArray:
    """Return X (I x A) for columns (c, m, G q) of whole levels."""
    q = len(A)
    return (np.ascontiguousarray(X).reshape(-1, q) @ A).reshape(X.shape)


def _pair_gram(X: FloatArray, q: int, r: int) -> FloatArray:
    """Return sum of X_gh (x) X_gh (q, r, q, r) over the blocks X_gh (q, r) of X."""
    c, rows, columns = X.shape
    blocks = X.reshape(c, rows // q, q, columns // r, r).swapaxes(2, 3)
    flat = blocks.reshape(-1, q * r)
    return (flat.T @ flat).reshape(q, r, q, r)
