"""What only traces can tell of V at one theta, estimated with random vectors.

With z_j, w_j probes, x = S^-1 z, y = B^-1 z, Y = y - B^-1 (S - B) y,
E = sum_j w_j, C_B = L B^-1 L' and sym(M) = (M + M') / 2,

    sum_h [S^-1]_hh = sum_h B_h^-1 + E sum_h sym((x - Y)_h z_h'),
    sum_h [Q]_hh = L^-T (levels I - sum_h [S^-1]_hh) L^-1,
    sum_g [Q]_gg = sum_g IS_g (S_g - N_g'C_B N_g IS_g')
                   - E sum_g sym(w(x - y)_g w(z)_g'),  w(x)_g = IS_g N_g'L x:

what B^-1 gives is taken exactly, without an inverse of L, and only the rest
from the probes.  Y - y, a first step towards x, has blocks of mean 0, as S - B
has none on the diagonal, and takes most of the scatter away.  Where L_k is
singular, [Q]_hh = [A - A L S^-1 L'A]_hh is probed by vectors of its own, in the
same way: with A_B the diagonal blocks of A and T = (I + A_B Psi)^-1,

    sum_h [Q]_hh = sum_h T_h A_hh + E sum_h sym(d_h z_h'),
    d = A (z - L S^-1 L'A z) - T A_B z - T (A - A_B) T'z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.conjugate_gradients import column_products
from sklearn_lmm._engine.factor import PerFactor
from sklearn_lmm._engine.implicit_schur import ImplicitSchur
from sklearn_lmm._engine.lanczos import log_quadratic_forms
from sklearn_lmm._engine.linalg import symmetrize
from sklearn_lmm._engine.probes import Probes
from sklearn_lmm._types import AnyArray, FloatArray

INVERTIBLE = 1e-2
"""Smallest eigenvalue of Psi n_g from which L^-1 is used, in single precision."""

COLUMNS_AT_ONCE = 40
"""Probes solved for at a time."""

Solve = Callable[[AnyArray, str], AnyArray]
"""S^-1 b for b (q_R, k), kept under a name as the next start."""


@dataclass(frozen=True, eq=False)
class Traces:
    """Estimated sums of [Q]_gg, one entry per factor.

    sums : (q, q)
    samples : (s, q, q), of which the means over s are part of the sums; s = 0
        where all is exact
    """

    sums: PerFactor
    samples: PerFactor


@dataclass(frozen=True, eq=False)
class _Scatter:
    """What every probe says of a (q, q) matrix.

    values : (k, q, q)
    n_samples : of how many random probes the others tell; None for as many
    """

    values: FloatArray
    probes: Probes
    n_samples: int | None = None

    @property
    def mean(self) -> FloatArray:
        return symmetrize(np.tensordot(self.probes.weights, self.values, 1))

    @property
    def samples(self) -> FloatArray:
        random = symmetrize(self.values[: self.probes.n_random])
        if self.n_samples is None or len(random) == self.n_samples:
            return random
        # A factor without random probes of its own does not scatter.
        return np.zeros((self.n_samples, *random.shape[1:]))


class TraceEstimator:
    """Estimates at one theta.

    probes : for a factor of R, or for all of them (None)
    """

    def __init__(
        self,
        schur: ImplicitSchur,
        solve: Solve,
        probes: Callable[[int | None], Probes],
    ) -> None:
        self.schur, self.solve, self.probes = schur, solve, probes
        self.crossing = schur.crossing
        self.single = schur.in_(np.float32)

    def traces(self) -> Traces:
        """Return the sums of [Q]_gg, and how they scatter."""
        schur, in_order = self.schur, self.crossing.in_user_order
        first, rest = self._of_all_probes()
        for k in range(len(schur.L)):
            if self.crossing.psi_n(k, schur.L[k]) <= INVERTIBLE:
                rest[k] = self._in_level_space(k)
        NCN = self.crossing.outer_transposed(schur.C_B())
        first_B = schur.IS @ (schur.S_1 - NCN @ schur.IS.swapaxes(1, 2))
        exact = in_order(first_B.sum(axis=0), tuple(Q.sum(axis=0) for Q in schur.Q_B))
        rests = in_order(first.mean, tuple(part.mean for part in rest))
        return Traces(
            tuple(symmetrize(Q + d) for Q, d in zip(exact, rests, strict=True)),
            in_order(first.samples, tuple(part.samples for part in rest)),
        )

    def _of_all_probes(self) -> tuple[_Scatter, list[_Scatter]]:
        """Return what probes add to sum_g [Q]_gg: of factor 1, and in R."""
        first, rest = [], []
        for to_y, to_Y, z in self._solved_probes():
            w = [self.schur.from_R(self.schur.IS, a) for a in (to_y, z)]
            first.append(-level_products(*w))
            rest.append([level_products(*a) for a in self._split(to_Y, z)])
        parts = []
        for L, values in zip(self.schur.L, zip(*rest, strict=True), strict=True):
            root = np.linalg.pinv(L)
            parts.append(-(root.T @ np.concatenate(values) @ root))
        probes = self.probes(None)
        return _Scatter(np.concatenate(first), probes), [
            _Scatter(part, probes) for part in parts
        ]

    def _in_level_space(self, k: int) -> _Scatter:
        """Return what probes add to sum_h [Q]_hh, for a singular L_k."""
        single, values, probes = self.single, [], self.probes(k)
        for name, z in _batches(probes, f"factor {k}"):
            x = self.solve(single.Lt.scale(single.times_A(z)), name)
            Qz = single.times_A(z - single.L.times(x))
            values.append(level_products(*self._from_blocks(k, Qz, z)))
        return _Scatter(np.concatenate(values), probes, self.probes(None).n_random)

    def _from_blocks(
        self, k: int, Qz: AnyArray, z: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        """Return d and z (G, q, s) of factor k, z being zero elsewhere."""
        place = self.crossing.places[k]
        L, Q_B, A_B = (
            a.astype(np.float32)
            for a in (self.schur.L[k], self.schur.Q_B[k], self.schur.A_B[k])
        )
        Qz_k, z_k = self._split(Qz, z)[k]
        Tz = z_k - L @ (L.T @ (Q_B @ z_k))
        wide = np.zeros_like(z)
        wide[place] = Tz.reshape(-1, z.shape[1])
        apart = self._split(self.single.times_A(wide), z)[k][0] - A_B @ Tz
        d = Qz_k - Q_B @ z_k - (apart - Q_B @ (L @ (L.T @ apart)))
        return d, z_k

    def posterior_blocks(self) -> PerFactor:
        """Return Psi - Psi [Q]_gg Psi, with the scatter of the probes in each."""
        schur, crossing = self.schur, self.crossing
        K, C_B = schur.K, schur.C_B()
        first = K @ crossing.outer_transposed(C_B) @ K
        rest = [np.zeros_like(inverse) for inverse in schur.inverse_B]
        weights, done = self.probes(None).weights, 0
        for to_y, to_Y, z in self._solved_probes():
            w = weights[done : done + z.shape[1]]
            done += z.shape[1]
            first += _level_means(schur.from_R(K, to_y), schur.from_R(K, z), w)
            for block, (x_k, z_k) in zip(rest, self._split(to_Y, z), strict=True):
                block += _level_means(x_k, z_k, w)
        blocks = [
            C + L @ symmetrize(mean) @ L.T
            for C, L, mean in zip(C_B, schur.L, rest, strict=True)
        ]
        return crossing.in_user_order(K + symmetrize(first), tuple(blocks))

    def _solved_probes(self) -> Iterator[tuple[AnyArray, AnyArray, AnyArray]]:
        """Yield (x - y, x - Y, z), some of the probes at a time."""
        single = self.single
        for name, z in _batches(self.probes(None), "all"):
            y = single.inverse_B.times(z)
            to_y = self.solve(z, name) - y
            yield to_y, to_y - single.inverse_B.scale(z - single.times(y)), z

    def _split(self, x: AnyArray, z: AnyArray) -> list[tuple[AnyArray, AnyArray]]:
        split = self.crossing.split
        return list(zip(split(x), split(z), strict=True))


def log_forms(schur: ImplicitSchur, roots: PerFactor, probes: Probes) -> FloatArray:
    """Return z_j'(log S~ - (S~ - I)) z_j, S~ = R_B S R_B' for B^-1 = R_B'R_B.

    roots : the transposed R_B of all levels in R, lower triangular; the diagonal
        blocks of S~ are I
    """
    single = schur.in_(np.float32)
    Rt = schur.blocks(roots, np.float32)
    R = schur.blocks(tuple(root.swapaxes(1, 2) for root in roots), np.float32)
    forms = [
        log_quadratic_forms(lambda w: R.scale(single.times(Rt.times(w))), z)
        for _, z in _batches(probes, "")
    ]
    return np.concatenate(forms)


def level_products(a: AnyArray, b: AnyArray) -> FloatArray:
    """Return sum_g a_gj b_gj' (k, q, q) for every column j of a and b (G, q, k)."""
    _, q, k = a.shape
    products = np.empty((k, q, q))
    for i, j in np.ndindex(q, q):
        products[:, i, j] = column_products(a[:, i], b[:, j])
    return products


def _level_means(a: AnyArray, b: AnyArray, weights: FloatArray) -> FloatArray:
    """Return sum_j w_j a_gj b_gj' (G, q, q) for columns of a and b (G, q, k)."""
    return np.asarray((a * weights) @ b.swapaxes(1, 2), float)


def _batches(probes: Probes, name: str) -> Iterator[tuple[str, AnyArray]]:
    for start in range(0, probes.z.shape[1], COLUMNS_AT_ONCE):
        z = probes.z[:, start : start + COLUMNS_AT_ONCE]
        yield f"{name} {start}", np.ascontiguousarray(z)
