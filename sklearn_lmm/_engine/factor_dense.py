"""The reference: textbook algebra on dense matrices.

M = L'Z'Z L + I and Q = Z'Z - Z'Z L M^-1 L'Z'Z, with all levels of all factors
in one matrix.  Every other strategy must give the same numbers.  It is used by the
tests, where correlated errors tie the levels of every factor together, and for
draws from all of Z'Z.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import Codes, Direction, Forms, PerFactor
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import FloatArray


class DenseStrategy:
    """All of Z'Z in one dense matrix of size sum_f G_f q_f."""

    name = "dense"
    exact = True

    def __init__(self, statistics: CrossProducts) -> None:
        self.shapes = [s.shape[:2] for s in statistics.s]
        self.places = consecutive(G * q for G, q in self.shapes)
        size = self.places[-1].stop
        self.ZtZ = np.zeros((size, size))
        for place, s in zip(self.places, statistics.s, strict=True):
            self.ZtZ[place, place] = linalg.block_diag(*s)
        for (f, h), n in statistics.n.items():
            if f == h:
                self.ZtZ[self.places[f], self.places[f]] += n.toarray()
                continue
            self.ZtZ[self.places[f], self.places[h]] = n.toarray()
            self.ZtZ[self.places[h], self.places[f]] = n.toarray().T

    def factorize(self, L: PerFactor) -> DenseFactored:
        return DenseFactored(self, L)

    def split(self, stacked: FloatArray) -> PerFactor:
        """Cut rows of all coefficients into (G_f, q_f, k) arrays."""
        return tuple(
            stacked[place].reshape(*shape, -1)
            for place, shape in zip(self.places, self.shapes, strict=True)
        )

    def stack(self, b: PerFactor) -> FloatArray:
        return np.concatenate([b_f.reshape(-1, b_f.shape[-1]) for b_f in b])

    def diagonal_blocks(self, A: FloatArray) -> PerFactor:
        """Return every level's (q_f, q_f) diagonal block of A."""
        blocks = []
        for place, (G, q) in zip(self.places, self.shapes, strict=True):
            four = A[place, place].reshape(G, q, G, q)
            blocks.append(four[np.arange(G), :, np.arange(G)])
        return tuple(blocks)


class DenseFactored:
    """V at one theta, through M and Q as dense matrices."""

    def __init__(self, strategy: DenseStrategy, L: PerFactor) -> None:
        self.strategy = strategy
        levels = [np.eye(G) for G, _ in strategy.shapes]
        wide = linalg.block_diag(*map(np.kron, levels, L))
        ZtZ = strategy.ZtZ
        M = wide.T @ ZtZ @ wide + np.eye(len(wide))
        self.logdet = float(np.linalg.slogdet(M)[1])
        self.posterior = wide @ np.linalg.solve(M, wide.T)
        self.Q = ZtZ - ZtZ @ self.posterior @ ZtZ

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        stacked, split = self.strategy.stack(b), self.strategy.split
        effects = self.posterior @ stacked
        return split(stacked - self.strategy.ZtZ @ effects), split(effects)

    def block_sums(self) -> PerFactor:
        return tuple(
            blocks.sum(axis=0) for blocks in self.strategy.diagonal_blocks(self.Q)
        )

    def posterior_blocks(self) -> PerFactor:
        return self.strategy.diagonal_blocks(self.posterior)

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        rows = np.zeros((len(codes[0]), len(self.posterior)))
        everyone = np.arange(len(rows))
        for place, level, z_f in zip(self.strategy.places, codes, z, strict=True):
            for i in range(z_f.shape[1]):
                rows[everyone, place.start + level * z_f.shape[1] + i] = z_f[:, i]
        return np.asarray(np.sum((rows @ self.posterior) * rows, axis=1))

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        stack, stacked_F = self.strategy.stack, self.strategy.stack(F)
        stacked_v = stack(tuple(v_f[:, :, None] for v_f in v))[:, 0]
        A = [self.wide(direction) for direction in directions]
        R = self.Q - stacked_F @ stacked_F.T if reml else self.Q
        Av = np.array([A_m @ stacked_v for A_m in A])
        AR = [A_m @ R for A_m in A]
        return Forms(
            vAv=Av @ stacked_v,
            FAv=Av @ stacked_F,
            vAQAv=Av @ self.Q @ Av.T,
            traces=np.array([[np.sum(a * b.T) for b in AR] for a in AR]),
        )

    def wide(self, direction: Direction) -> FloatArray:
        """Return I x A on the rows of the direction's factor, 0 elsewhere."""
        wide = np.zeros_like(self.Q)
        place = self.strategy.places[direction.factor]
        levels = self.strategy.shapes[direction.factor][0]
        wide[place, place] = np.kron(np.eye(levels), direction.A)
        return np.asarray(wide)
