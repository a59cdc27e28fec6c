"""Block-diagonal dense matrices: layout, Cholesky factors, inverses.

Once the levels of one factor are eliminated, the other levels meet in a dense
Schur complement, which falls apart into one block for every connected set of
levels (schools that share no items, say).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import blas, lapack

from sklearn_lmm._types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """Where the entries of a symmetric block-diagonal matrix are stored.

    The blocks lie one after the other in a flat array, each square and by
    rows, in order of size.

    size : number of rows in all
    offset, local, width : per row, where its block starts, its position within
        the block, and the block's width
    rows : the rows in storage order
    buckets : (number of blocks, width) of every distinct width
    """

    size: int
    offset: IntArray
    local: IntArray
    width: IntArray
    rows: IntArray
    buckets: tuple[tuple[int, int], ...]

    @classmethod
    def of_components(cls, labels: IntArray) -> BlockLayout:
        """Lay out one block for every distinct label, labels 0 .. m - 1."""
        widths = np.bincount(labels)
        by_width = np.argsort(widths, kind="stable")
        rank = np.empty_like(by_width)
        rank[by_width] = np.arange(len(widths))
        rows = np.argsort(rank[labels], kind="stable")
        sorted_widths = widths[by_width]
        starts = np.cumsum(sorted_widths) - sorted_widths
        offsets = np.cumsum(sorted_widths**2) - sorted_widths**2
        local = np.empty(len(labels), dtype=np.int64)
        local[rows] = np.arange(len(labels)) - np.repeat(starts, sorted_widths)
        distinct, counts = np.unique(sorted_widths, return_counts=True)
        return cls(
            size=len(labels),
            offset=offsets[rank[labels]],
            local=local,
            width=widths[labels],
            rows=rows,
            buckets=tuple(zip(counts.tolist(), distinct.tolist(), strict=True)),
        )

    @property
    def n_entries(self) -> int:
        return sum(count * width**2 for count, width in self.buckets)

    @cached_property
    def diagonal(self) -> IntArray:
        """Where the diagonal entries are stored."""
        rows = np.arange(self.size)
        return self.index(rows, rows)

    def index(self, a: IntArray, b: IntArray) -> IntArray:
        """Return where entry (a, b) is stored, for rows a, b of one block."""
        return self.offset[a] + self.local[a] * self.width[a] + self.local[b]

    def blocks(self, flat: FloatArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield (rows (c, m), blocks (c, m, m)) for every distinct width m."""
        row = entry = 0
        for count, width in self.buckets:
            rows = self.rows[row : row + count * width].reshape(count, width)
            entries = flat[entry : entry + count * width**2]
            yield rows, entries.reshape(count, width, width)
            row += count * width
            entry += count * width**2


class OneBlock:
    """The Cholesky factor of one large block, by LAPACK, in the block's memory.

    block : (1, m, m), of which the lower triangle is read
    """

    def __init__(self, block: FloatArray) -> None:
        # A row-major lower triangle is LAPACK's column-major upper one.
        self._upper = block[0].T
        _, info = lapack.dpotrf(self._upper, lower=0, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError("the Schur complement is not positive definite")
        self.logdet = 2.0 * float(np.log(np.diagonal(self._upper)).sum())

    def solve(self, x: FloatArray) -> FloatArray:
        """Return the solution for right-hand sides x (1, m, k)."""
        solution: FloatArray = lapack.dpotrs(self._upper, x[0], lower=0)[0]
        return solution[None]

    def invert(self) -> None:
        """Put the inverse's lower triangle in place of the block's."""
        lapack.dpotri(self._upper, lower=0, overwrite_c=1)


class ManyBlocks:
    """The Cholesky factors of many small blocks (c, m, m), factored together."""

    def __init__(self, blocks: FloatArray) -> None:
        self._blocks = blocks
        factors = np.linalg.cholesky(blocks)
        diagonal = np.diagonal(factors, axis1=1, axis2=2)
        self.logdet = 2.0 * float(np.log(diagonal).sum())
        self._root = np.linalg.inv(factors)

    def solve(self, x: FloatArray) -> FloatArray:
        """Return the solutions for right-hand sides x (c, m, k)."""
        return self._root.swapaxes(1, 2) @ (self._root @ x)

    def invert(self) -> None:
        """Put the inverses in place of the blocks."""
        self._blocks[...] = self._root.swapaxes(1, 2) @ self._root


def factorize_blocks(blocks: FloatArray) -> OneBlock | ManyBlocks:
    """Factor blocks (c, m, m); their memory is used again."""
    return OneBlock(blocks) if len(blocks) == 1 else ManyBlocks(blocks)


def mirror(blocks: FloatArray) -> None:
    """Copy the lower triangle of every block (c, m, m) to the upper, in place."""
    lower = np.tril(blocks)
    blocks[...] = lower + np.tril(lower, -1).swapaxes(1, 2)


def symmetric_product(blocks: FloatArray, x: FloatArray) -> FloatArray:
    """Return blocks @ x (c, m, k) for symmetric blocks given by lower triangles."""
    if len(blocks) == 1:
        return blas.dsymm(1.0, blocks[0].T, x[0], lower=0)[None]
    lower = np.tril(blocks)
    return lower @ x + np.tril(lower, -1).swapaxes(1, 2) @ x
