"""Correlations given by their matrix, one for every distinct pattern of rows.

d C^-1 = -C^-1 dC C^-1,
d2 C^-1 = C^-1 (dC_i C^-1 dC_j + dC_j C^-1 dC_i - d2C_ij) C^-1,
d log|C| = tr(C^-1 dC),  d2 log|C| = tr(C^-1 d2C_ij) - tr(C^-1 dC_i C^-1 dC_j).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.correlation import (
    Correlation,
    Precision,
    complex_step,
    symmetric_stencil,
)
from sklearn_lmm._engine.linalg import symmetrize
from sklearn_lmm._types import FloatArray, IntArray

FEW = 64
"""Up to so many different blocks are applied one by one."""


@dataclass(frozen=True, eq=False)
class Patterns:
    """The groups of one size, sorted by where their rows stand.

    rows : (G, m), the rows of every group
    pattern : (G,), which of the distinct positions a group has
    positions : (P, m, d), the distinct ones: times, coordinates or occasions
    """

    rows: IntArray
    pattern: IntArray
    positions: FloatArray

    @cached_property
    def counts(self) -> FloatArray:
        """How many groups have each of the positions (P,)."""
        return np.bincount(self.pattern, minlength=len(self.positions)).astype(float)


@dataclass(frozen=True, eq=False)
class Blocks:
    """blocks : for every size of groups (P, m, m), one for each pattern."""

    patterns: tuple[Patterns, ...]
    blocks: tuple[FloatArray, ...]

    def __matmul__(self, U: FloatArray, /) -> FloatArray:
        product = np.empty_like(U)
        for patterns, blocks in zip(self.patterns, self.blocks, strict=True):
            if len(blocks) <= FEW:
                for k, block in enumerate(blocks):
                    rows = patterns.rows[patterns.pattern == k]
                    product[rows] = block @ U[rows]
            else:
                rows = patterns.rows
                product[rows] = blocks[patterns.pattern] @ U[rows]
        return product

    def sparse(self) -> sparse.csr_array:
        rows, columns, values = [], [], []
        for patterns, blocks in zip(self.patterns, self.blocks, strict=True):
            shape = (*patterns.rows.shape, patterns.rows.shape[1])
            rows.append(np.broadcast_to(patterns.rows[:, :, None], shape).ravel())
            columns.append(np.broadcast_to(patterns.rows[:, None, :], shape).ravel())
            values.append(blocks[patterns.pattern].ravel())
        n = sum(patterns.rows.size for patterns in self.patterns)
        entries = (np.concatenate(rows), np.concatenate(columns))
        return sparse.coo_array((np.concatenate(values), entries), (n, n)).tocsr()


class BlockCorrelation(Correlation):
    """A correlation given by its matrix for every distinct pattern of rows."""

    def __init__(self, starts: IntArray, positions: FloatArray) -> None:
        self.patterns = find_patterns(starts, positions)

    @abstractmethod
    def matrix(self, u: FloatArray, positions: FloatArray) -> FloatArray:
        """Return C (P, m, m) at positions (P, m, d); analytic in u."""

    def derivatives(
        self, u: FloatArray, positions: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return C (P, m, m), dC (k, P, m, m) and d2C (k, k, P, m, m).

        The first by a complex step (Squire and Trapp 1998, SIAM Review 40:
        110-112), exact up to rounding; the second as differences of these.
        """

        def first(v: FloatArray) -> FloatArray:
            return complex_step(lambda x: self.matrix(x, positions), v)

        return self.matrix(u, positions), first(u), symmetric_stencil(first, u)

    def at(self, u: FloatArray) -> Precision:
        parts = [
            block_precision(*self.derivatives(u, patterns.positions), patterns.counts)
            for patterns in self.patterns
        ]
        k = self.size

        def operator(choose: tuple[int, ...]) -> Blocks:
            blocks = tuple(part[0][len(choose)][choose] for part in parts)
            return Blocks(self.patterns, blocks)

        return Precision(
            inverse=operator(()),
            first=[operator((i,)) for i in range(k)],
            second=[[operator((i, j)) for j in range(k)] for i in range(k)],
            logdet=float(sum(part[1] for part in parts)),
            dlogdet=np.sum([part[2] for part in parts], axis=0),
            d2logdet=np.sum([part[3] for part in parts], axis=0),
        )

    def times(self, u: FloatArray, U: FloatArray) -> FloatArray:
        blocks = tuple(self.matrix(u, p.positions) for p in self.patterns)
        return Blocks(self.patterns, blocks) @ U


def block_precision(
    C: FloatArray, dC: FloatArray, d2C: FloatArray, counts: FloatArray
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], float, FloatArray, FloatArray]:
    """Return C^-1 with derivatives, and log|C| with derivatives, summed over blocks.

    C (P, m, m), dC (k, P, m, m), d2C (k, k, P, m, m), counts (P,)

    Raises
    ------
    LinAlgError
        If a block is not positive definite.
    """
    root = np.linalg.cholesky(C)
    inverse = np.linalg.inv(root)
    inverse = inverse.swapaxes(-1, -2) @ inverse
    CdC = inverse @ dC
    first = -CdC @ inverse
    twice = np.einsum("iprs,jpst->ijprt", CdC, CdC)
    Cd2C = inverse @ d2C
    second = (twice + twice.swapaxes(0, 1) - Cd2C) @ inverse
    diagonals = np.diagonal(root, axis1=1, axis2=2)
    logdet = 2.0 * float(counts @ np.log(diagonals).sum(axis=1))
    traces = np.trace(CdC, axis1=-2, axis2=-1) @ counts
    second_traces = np.trace(Cd2C - twice, axis1=-2, axis2=-1) @ counts
    blocks = (inverse, symmetrize(first), symmetrize(second))
    return blocks, logdet, traces, second_traces


def find_patterns(starts: IntArray, positions: FloatArray) -> tuple[Patterns, ...]:
    """Sort groups by size and by the positions (n, d) of their rows.

    starts : (G,), the first row of every group
    """
    sizes = np.diff(np.append(starts, len(positions)))
    found = []
    for size in np.unique(sizes):
        rows = starts[sizes == size][:, None] + np.arange(size)
        where = positions[rows].reshape(len(rows), -1)
        distinct, pattern = np.unique(where, axis=0, return_inverse=True)
        shape = (len(distinct), int(size), positions.shape[1])
        found.append(Patterns(rows, pattern.ravel(), distinct.reshape(shape)))
    return tuple(found)
