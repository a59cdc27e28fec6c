"""Crossed factors: eliminate the largest, keep the rest in a Schur complement.

With factor 1 and R as `elimination` has them,
N_g = Z_R'Z_1g, C = Z_R'Z_R, and with V_1 = I + Z_1 Psi_1 Z_1'

    IS_g = (I + S_g Psi_1)^-1,  K_g = Psi_1 IS_g,
    A = Z_R'V_1^-1 Z_R = C - sum_g N_g K_g N_g',  S = I + L_R'A L_R,
    log|V| = -sum_g log|IS_g| + log|S|,
    c = Z_R'V_1^-1 T = b_R - sum_g N_g K_g b_g,  U = S^-1 L_R'c,
    Z_R'V^-1 T = Psi_R^-1 L_R U, or c - A L_R U,  Z_1g'V^-1 T = IS_g (b_g - N_g'L_R U),
    [Q]_RR = L_R^-T (I - S^-1) L_R^-1, or A - A L_R S^-1 L_R'A,
    [Q]_gg = IS_g S_g - IS_g N_g'L_R S^-1 L_R'N_g IS_g'.

Of the two forms, the first is free of cancellation where Psi_k is large, the
second where it is small or singular.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.elimination import Elimination
from sklearn_lmm._engine.factor import (
    Codes,
    Direction,
    Forms,
    PerFactor,
    average_information,
    quadratic,
)
from sklearn_lmm._engine.level_graph import is_connected, level_components
from sklearn_lmm._engine.linalg import shrinkage, symmetrize
from sklearn_lmm._engine.memory import memory
from sklearn_lmm._engine.outer_sums import ByLevel, outer_sums, rows_by_level
from sklearn_lmm._engine.schur import (
    BlockLayout,
    factorize_blocks,
    symmetric_product,
)
from sklearn_lmm._types import FloatArray, IntArray

INVERTIBLE = 1e-6
"""Smallest eigenvalue of Psi n_g from which [Q]_RR is taken from S^-1."""

COPIES = 3
"""Matrices of the size of S in memory at the same time."""

COLUMNS_AT_ONCE = 512
"""Columns of A made at a time where [Q]_RR has to be taken by subtraction."""


class CrossedStrategy(Elimination):
    """Dense Schur complement of the largest factor, one block a component."""

    name = "crossed"
    exact = True

    def __init__(self, statistics: CrossProducts) -> None:
        super().__init__(statistics)
        self.S = statistics.s[self.first]
        N, self.C = self.stacked(statistics)
        self.N, self.Nt = N.tocsr(), N.T.tocsr()
        self.layout = _layout(statistics, self.rest, self.N, self.Nt)
        _check_memory(self.layout.n_entries, len(self.S))
        self.outer = outer_sums(N, self.S.shape[1], self.layout)
        lower = sparse.tril(self.C).tocoo()
        self.C_entries = (self.layout.index(lower.row, lower.col), lower.data)

    def factorize(self, L: PerFactor) -> CrossedFactored:
        return CrossedFactored(self, L)

    @cached_property
    def N_by_level(self) -> ByLevel:
        return rows_by_level(sparse.csc_array(self.N), self.S.shape[1])

    def reduced(self, K: FloatArray) -> FloatArray:
        """Return the lower triangles of A = C - sum_g N_g K_g N_g', flat."""
        flat = np.zeros(self.layout.n_entries)
        self.outer.subtract_from(flat, K)
        flat[self.C_entries[0]] += self.C_entries[1]
        return flat

    def stacked(
        self, statistics: CrossProducts
    ) -> tuple[sparse.csc_array, sparse.csr_array]:
        """Return N = Z_R'Z_1 by columns, and C = Z_R'Z_R."""
        product = statistics.product
        N = sparse.vstack([product(f, self.first) for f in self.rest], format="csc")
        C = sparse.block_array(
            [[product(f, h) for h in self.rest] for f in self.rest], format="csr"
        )
        N.sort_indices()
        return N, C


def _layout(
    statistics: CrossProducts,
    rest: list[int],
    N: sparse.csr_array,
    Nt: sparse.csr_array,
) -> BlockLayout:
    """Lay out one block for every set of connected rows of R."""
    if is_connected(N, Nt):
        return BlockLayout.of_components(np.zeros(N.shape[0], dtype=np.int64))
    components = level_components(statistics)
    labels = [np.repeat(components[f], statistics.s[f].shape[1]) for f in rest]
    return BlockLayout.of_components(
        np.unique(np.concatenate(labels), return_inverse=True)[1]
    )


def _check_memory(n_entries: int, eliminated: int) -> None:
    """Refuse a Schur complement that cannot be held, with its inverse, in memory.

    Raises
    ------
    MemoryError
        Where the system tells how much memory there is, and that is too little.
    """
    needed, there = COPIES * 8 * n_entries, memory()
    if there is not None and needed > there:
        raise MemoryError(
            "The grouping factors are crossed, and too large for an exact fit: beside "
            f"the {eliminated} levels of the largest factor, the others need "
            f"{needed / 2**30:.0f} GiB, of which there are {there / 2**30:.0f}. "
            "solver='stochastic' (or 'auto') does without; or leave out a term."
        )


class CrossedFactored:
    """V at one theta.

    One array holds S, then its Cholesky factor and, once the gradient is asked
    for, C_R = L_R S^-1 L_R', the relative posterior covariance of R.
    """

    def __init__(self, strategy: CrossedStrategy, L: PerFactor) -> None:
        self.strategy = strategy
        L_1 = L[strategy.first]
        self.L = [L[f] for f in strategy.rest]
        self.IS, logdets = shrinkage(strategy.S, L_1)
        self.K = symmetrize(L_1 @ L_1.T @ self.IS)
        self.flat = strategy.reduced(self.K)
        self._scale(transposed=True)
        self.flat[strategy.layout.diagonal] += 1.0
        self.factors = [
            factorize_blocks(blocks) for _, blocks in strategy.layout.blocks(self.flat)
        ]
        self.logdet = float(logdets.sum() + sum(f.logdet for f in self.factors))

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        strategy = self.strategy
        b_1 = b[strategy.first]
        Kb = (self.K @ b_1).reshape(-1, b_1.shape[-1])
        c = strategy.stack(b) - strategy.N @ Kb
        u = self._posterior_times(c)
        Nu = (strategy.Nt @ u).reshape(b_1.shape)
        rest = b_1 - Nu

        def by_subtraction() -> FloatArray:
            KNu = (self.K @ Nu).reshape(-1, c.shape[1])
            return np.asarray(c - strategy.C @ u + strategy.N @ KNu)

        F_R = strategy.projected(self.L, u, by_subtraction)
        F = strategy.in_user_order(self.IS @ rest, F_R)
        return F, strategy.in_user_order(self.K @ rest, strategy.split(u))

    def block_sums(self) -> PerFactor:
        """Return the sums of [Q]_gg; the module names the two forms used."""
        strategy = self.strategy
        sums = []
        for k, inverse in enumerate(self.inverse.sums):
            if strategy.psi_n(k, self.L[k]) > INVERTIBLE:
                levels = strategy.statistics.s[strategy.rest[k]].shape[0]
                root = np.linalg.inv(self.L[k])
                kept = levels * np.eye(len(root)) - inverse
                sums.append(symmetrize(root.T @ kept @ root))
            else:
                sums.append(self._block_sum_by_columns(k))
        Q = self.IS @ (strategy.S - self.NCN @ self.IS.swapaxes(1, 2))
        return strategy.in_user_order(symmetrize(Q.sum(axis=0)), tuple(sums))

    def posterior_blocks(self) -> PerFactor:
        first = self.K + self.K @ self.NCN @ self.K
        rest = tuple(
            self._diagonal_blocks(k, self.inverse.C) for k in range(len(self.L))
        )
        return self.strategy.in_user_order(first, rest)

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        """Return z'Cz: the blocks of every factor, and those between factors.

        Between R and the first factor C is -C_R N_g K_g.
        """
        strategy = self.strategy
        variances = np.zeros(len(codes[0]))
        for block, level, z_f in zip(self.posterior_blocks(), codes, z, strict=True):
            variances += quadratic(block[level], z_f, z_f)
        for k, f in enumerate(strategy.rest):
            for j, h in enumerate(strategy.rest[:k]):
                C = self._between(k, j, codes[f], codes[h])
                variances += 2.0 * quadratic(C, z[f], z[h])
            g = codes[strategy.first]
            Kz = np.einsum("nij,nj->ni", self.K[g], z[strategy.first])
            CN = self._posterior_with_first(k, codes[f], g)
            variances -= 2.0 * quadratic(CN, z[f], Kz)
        return variances

    def _between(
        self, k: int, j: int, level_k: IntArray, level_j: IntArray
    ) -> FloatArray:
        """Return C_R (n, q_k, q_j) between levels of two factors of R."""
        rows_k = self.strategy.rows(k)[level_k]
        rows_j = self.strategy.rows(j)[level_j]
        return self._entries(rows_k[:, :, None], rows_j[:, None, :])

    def _posterior_with_first(self, k: int, level: IntArray, g: IntArray) -> FloatArray:
        """Return (C_R N_g) (n, q_k, q_1) at the rows of a level of factor k.

        Worked out once for every distinct pair (level, g).
        """
        q_1 = self.K.shape[1]
        pairs, back = np.unique(level * len(self.K) + g, return_inverse=True)
        level, g = np.divmod(pairs, len(self.K))
        N = self.strategy.N_by_level
        counts = np.diff(N.pointers)[g]
        owner = np.repeat(np.arange(len(pairs)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        entry = N.pointers[g][owner] + within
        rows = self.strategy.rows(k)[level]
        result = np.empty((len(pairs), rows.shape[1], q_1))
        for i in range(rows.shape[1]):
            C = self._entries(rows[owner, i], N.rows[entry])
            for j in range(q_1):
                values = C * N.values[j, entry]
                result[:, i, j] = np.bincount(owner, values, len(pairs))
        return result[back]

    def _entries(self, a: IntArray, b: IntArray) -> FloatArray:
        """Return entries (a, b) of C_R, 0 between different blocks."""
        layout = self.strategy.layout
        a, b = np.broadcast_arrays(a, b)
        high, low = np.maximum(a, b), np.minimum(a, b)
        together = layout.offset[high] == layout.offset[low]
        index = np.where(together, layout.index(high, low), 0)
        return np.where(together, self.inverse.C[index], 0.0)

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        return average_information(self, self.strategy.statistics, F, v, directions)

    @cached_property
    def inverse(self) -> Inverse:
        """S^-1, made in the memory of S: the Cholesky factors are used up."""
        for factor in self.factors:
            factor.invert()
        sums = [
            self._diagonal_blocks(k, self.flat).sum(axis=0) for k in range(len(self.L))
        ]
        self.factors = []
        self._scale(transposed=False)
        return Inverse(sums, self.flat)

    @cached_property
    def NCN(self) -> FloatArray:
        """N_g' C_R N_g (G, q, q) for every level g of the first factor."""
        return self.strategy.outer.contract(self.inverse.C)

    def _posterior_times(self, c: FloatArray) -> FloatArray:
        """Return C_R c = L_R S^-1 L_R'c, by whichever of the two is at hand."""
        x = c if not self.factors else self._times_L(c, transposed=True)
        result = np.empty_like(x)
        for b, (rows, blocks) in enumerate(self.strategy.layout.blocks(self.flat)):
            if self.factors:
                result[rows] = self.factors[b].solve(x[rows])
            else:
                result[rows] = symmetric_product(blocks, x[rows])
        return self._times_L(result, transposed=False) if self.factors else result

    def _block_sum_by_columns(self, k: int) -> FloatArray:
        """Return sum_h [Q]_hh of one factor as A - A C_R A, some levels at a time."""
        strategy = self.strategy
        place, s = strategy.places[k], strategy.statistics.s[strategy.rest[k]]
        q = s.shape[1]
        total = np.zeros((q, q))
        at_once = q * max(1, COLUMNS_AT_ONCE // q)
        for start in range(place.start, place.stop, at_once):
            columns = slice(start, min(start + at_once, place.stop))
            unit = np.zeros((strategy.layout.size, columns.stop - start))
            unit[columns] = np.eye(columns.stop - start)
            NK = self.K @ (strategy.Nt @ unit).reshape(len(self.K), len(self.K[0]), -1)
            A = strategy.C @ unit - strategy.N @ NK.reshape(-1, unit.shape[1])
            Q = A[columns] - A.T @ self._posterior_times(A)
            blocks = Q.reshape(len(Q) // q, q, len(Q) // q, q)
            total += np.einsum("gigj->ij", blocks)
        return total

    def _diagonal_blocks(self, k: int, flat: FloatArray) -> FloatArray:
        """Return the (G, q, q) diagonal blocks of factor k from lower triangles."""
        strategy = self.strategy
        rows = strategy.rows(k)
        G, q = rows.shape
        blocks = np.empty((G, q, q))
        for i in range(q):
            for j in range(i + 1):
                entries = flat[strategy.layout.index(rows[:, i], rows[:, j])]
                blocks[:, i, j] = blocks[:, j, i] = entries
        return blocks

    def _times_L(self, x: FloatArray, transposed: bool) -> FloatArray:
        """Return L_R x or L_R'x for rows x (q_R, k)."""
        maps = [L_k.T if transposed else L_k for L_k in self.L]
        parts = zip(maps, self.strategy.split(x), strict=True)
        return np.concatenate([(m @ x_k).reshape(-1, x.shape[1]) for m, x_k in parts])

    def _scale(self, transposed: bool) -> None:
        """Put L_R'X L_R (transposed) or L_R X L_R' in place of X, kept in `flat`.

        X is symmetric, given by its lower triangles.
        """
        layout = self.strategy.layout
        maps = [L_k.T if transposed else L_k for L_k in self.L]
        counts = [len(self.strategy.rows(k)) for k in range(len(maps))]
        if not any((m - np.diag(np.diag(m))).any() for m in maps):
            diagonals = [
                np.tile(np.diag(m), G) for G, m in zip(counts, maps, strict=True)
            ]
            scale = np.concatenate(diagonals)
            if np.ptp(scale) == 0.0:
                self.flat *= scale[0] ** 2
                return
            for rows, blocks in layout.blocks(self.flat):
                blocks *= scale[rows][:, :, None]
                blocks *= scale[rows][:, None, :]
            return
        wide = sparse.block_diag(
            [
                sparse.kron(sparse.eye_array(G), m)
                for G, m in zip(counts, maps, strict=True)
            ],
            format="csr",
        )
        for k in range(len(maps)):
            self._mirror_levels(k)
        for rows, blocks in layout.blocks(self.flat):
            # Levels stay together within a block, so the map does too.  It mixes
            # entries of a pair of levels only: what is above these, no one reads.
            part = wide[rows.ravel()][:, rows.ravel()]
            for _ in range(2):
                half = np.asarray(part @ blocks.reshape(rows.size, -1))
                blocks[...] = half.reshape(blocks.shape).swapaxes(1, 2)

    def _mirror_levels(self, k: int) -> None:
        """Make the blocks of the levels of factor k symmetric, from lower triangles."""
        index, rows = self.strategy.layout.index, self.strategy.rows(k)
        for i, j in combinations(range(rows.shape[1]), 2):
            self.flat[index(rows[:, i], rows[:, j])] = self.flat[
                index(rows[:, j], rows[:, i])
            ]


@dataclass(frozen=True, eq=False)
class Inverse:
    """sums : sum_h [S^-1]_hh of every factor in R; C : C_R, flat lower triangles."""

    sums: list[FloatArray]
    C: FloatArray
