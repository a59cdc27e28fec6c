"""Errors drawn from their model: e = sigma D C^(1/2) z, z independent normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.correlation import Correlation, blocks_of
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._engine.simulation import NormalDraws, Rng, square_root
from sklearn_lmm._types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class ErrorRoot:
    """C^(1/2), the symmetric root of every block; C may be singular.

    order : (n,), the rows sorted by group
    starts : (G,), the first of every group among the sorted ones
    blocks : per group; None if C = I
    """

    order: IntArray
    starts: IntArray
    blocks: list[FloatArray] | None

    @classmethod
    def of(
        cls, correlation: Correlation, u: FloatArray, order: IntArray, starts: IntArray
    ) -> ErrorRoot:
        """Return the root of C(u)."""
        if not correlation.size:
            return cls(order, starts, None)
        ends = np.append(starts[1:], len(order))
        blocks = blocks_of(correlation, u, starts, ends, len(order))
        return cls(order, starts, [square_root(C) for C in blocks])

    def times(self, z: FloatArray) -> FloatArray:
        """Return C^(1/2) z for z (n, ...), rows in the order that they are given in."""
        if self.blocks is None:
            return z
        e = np.empty_like(z)
        for start, root in zip(self.starts, self.blocks, strict=True):
            rows = self.order[start : start + len(root)]
            e[rows] = root @ z[rows]
        return e


@dataclass(frozen=True, eq=False)
class ErrorDraws(NormalDraws):
    """Effects and errors from normal distributions, errors with a structure.

    root : C^(1/2); D is part of `error_scale`
    """

    root: ErrorRoot

    def _errors(self, rng: Rng) -> FloatArray:
        return self.root.times(super()._errors(rng))


def root_of(errors: Errors, u: FloatArray) -> ErrorRoot:
    """Return C^(1/2) of the rows of a fit, u being its free parameters."""
    of_C, _ = errors.complete(u)
    return ErrorRoot.of(errors.correlation, of_C, errors.order, errors.starts)
