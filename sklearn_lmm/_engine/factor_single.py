"""One grouping factor: V is block-diagonal, and so is everything else.

Per level g, with S_g = Z_g'Z_g, B_g = Z_g'T and IS_g = (I + S_g Psi)^-1:

    log|V| = -sum_g log|IS_g|     Z_g'V^-1 T = IS_g B_g     [Q]_gg = IS_g S_g

None of them subtracts, so that none loses digits when Psi is large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import Codes, Direction, Forms, PerFactor, quadratic
from sklearn_lmm._engine.linalg import level_gram, sandwich, shrinkage, symmetrize
from sklearn_lmm._types import FloatArray, IntArray

SAME = 1e-12
"""Levels whose Z_g'Z_g agree to this, relative to the largest, are alike."""


@dataclass(frozen=True, eq=False)
class LevelSums:
    """Sums over levels of which every form of the curvature is linear.

    They cost one matrix product each, whatever the number of directions.  With
    (x) the outer product,

    vv, Fv : v (x) v (q, q) and F (x) v (q, p, q)
    Q_Q, Q_vv : Q (x) Q and Q (x) vv' (q, q, q, q)
    FF, Q_FF : F (x) F (q, p, q, p) and Q (x) FF' (q, q, q, q); None under ML
    """

    vv: FloatArray
    Fv: FloatArray
    Q_Q: FloatArray
    Q_vv: FloatArray
    FF: FloatArray | None = None
    Q_FF: FloatArray | None = None

    def forms(self, directions: list[Direction]) -> Forms:
        """Return the forms of some directions, exact traces included."""
        A = np.array([direction.A for direction in directions])
        traces = sandwich(A, self.Q_Q)
        if self.FF is not None and self.Q_FF is not None:
            FAF = np.einsum("iajb,mij->mab", self.FF, A).reshape(len(A), -1)
            traces += FAF @ FAF.T - 2.0 * sandwich(A, self.Q_FF)
        return Forms(
            vAv=A.reshape(len(A), -1) @ self.vv.ravel(),
            FAv=np.einsum("iaj,mij->ma", self.Fv, A),
            vAQAv=sandwich(A, self.Q_vv),
            traces=traces,
        )


class SingleStrategy:
    """Batched q x q blocks."""

    name = "single"
    exact = True

    def __init__(self, statistics: CrossProducts) -> None:
        (self.S,) = statistics.s
        ones = np.ones(len(self.S))
        counts = statistics.multiplicity
        self.counts = ones if counts is None else counts

    def factorize(self, L: PerFactor) -> SingleFactored:
        return SingleFactored(self, L[0])


class SingleFactored:
    """V at one theta."""

    def __init__(self, strategy: SingleStrategy, L: FloatArray) -> None:
        self.S, self.counts = strategy.S, strategy.counts
        self.Psi = L @ L.T
        self.IS, logdets = shrinkage(self.S, L)
        self.logdet = float(self.counts @ logdets)

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        F = self.IS @ b[0]
        return (F,), (self.Psi @ F,)

    def block_sums(self) -> PerFactor:
        return (np.tensordot(self.counts, self.Q, 1),)

    def posterior_blocks(self) -> PerFactor:
        return (symmetrize(self.Psi @ self.IS),)

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        (blocks,) = self.posterior_blocks()
        return quadratic(blocks[codes[0]], z[0], z[0])

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        """Return the forms, exact traces included, through sums over levels."""
        v_, F_, Q = v[0], F[0], self.Q
        vv = v_[:, :, None] * v_[:, None, :]
        sums = LevelSums(
            vv=vv.sum(axis=0),
            Fv=np.tensordot(F_, v_, (0, 0)),
            Q_Q=level_gram(Q * self.counts[:, None, None], Q),
            Q_vv=level_gram(Q, vv),
        )
        if reml:
            # Levels last, along which the processor multiplies many numbers at once.
            last = np.ascontiguousarray(F_.transpose(1, 2, 0))
            FF = np.einsum("ipg,jpg->ijg", last, last).transpose(2, 0, 1)
            of_F = np.tensordot(F_, F_, (0, 0))
            sums = replace(sums, FF=of_F, Q_FF=level_gram(Q, FF))
        return sums.forms(directions)

    @cached_property
    def Q(self) -> FloatArray:
        """[Q]_gg (G, q, q)."""
        return symmetrize(self.IS @ self.S)


def pool_levels(statistics: CrossProducts) -> CrossProducts:
    """Pool the levels with the same S_g, without changing the criterion.

    What a fit needs of B_g (q, p + 1) is, for every distinct S, the sum of
    vec(B_g) vec(B_g)' over its levels: c levels with c > q (p + 1) give the
    same sums as the q (p + 1) rows of the R in a QR decomposition of their
    stacked B_g.  `multiplicity` keeps the c levels in log|V| and in the traces.
    With a random intercept and no weights S_g is the size of the group, and
    a million groups become some thousand rows.
    """
    (S,), (B,) = statistics.s, statistics.b
    G, q, width = B.shape
    size = q * width
    pattern, counts = _patterns(S)
    if counts.max() <= size or np.minimum(counts, size).sum() > 0.7 * G:
        return statistics
    order = np.argsort(pattern, kind="stable")
    ends = np.cumsum(counts)
    new_S, new_B, multiplicity = [], [], []
    for end, count in zip(ends, counts, strict=True):
        members = order[end - count : end]
        stacked = B[members].reshape(count, size)
        if count > size:
            stacked = np.asarray(np.linalg.qr(stacked, mode="r"))
        new_B.append(stacked)
        new_S.append(np.broadcast_to(S[members[0]], (len(stacked), q, q)))
        multiplicity.append(np.full(len(stacked), count / len(stacked)))
    return replace(
        statistics,
        s=(np.concatenate(new_S),),
        b=(np.concatenate(new_B).reshape(-1, q, width),),
        multiplicity=np.concatenate(multiplicity),
    )


def _patterns(S: FloatArray) -> tuple[IntArray, IntArray]:
    """Number the distinct S_g: the number of every level's S, and its frequency."""
    upper = S[:, *np.triu_indices(S.shape[1])]
    scale = np.abs(upper).max(axis=0)
    keys = np.round(upper / (SAME * np.where(scale > 0, scale, 1.0)))
    # Sorting numbers is far faster than sorting rows, so the rows are mixed into
    # one number each; should different rows ever share it, the rows are sorted.
    mix = keys @ np.cos(1.0 + np.arange(keys.shape[1]))
    _, first, pattern, counts = np.unique(
        mix, return_index=True, return_inverse=True, return_counts=True
    )
    if not np.array_equal(keys, keys[first[pattern]]):
        _, pattern, counts = np.unique(
            keys, axis=0, return_inverse=True, return_counts=True
        )
    return pattern.ravel(), counts
