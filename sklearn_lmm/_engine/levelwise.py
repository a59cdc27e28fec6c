"""The criterion of one factor with very many levels, a cache full at a time.

The criterion and its derivatives need sums over levels only of Z'V^-1 T
(G, q, p + 1), T = [X y].  An array of that size that does not fit a processor's
cache is made for some thousand levels at a time here and never stored: to fetch
it from memory several times would take most of an evaluation.  Arrays have the
levels last, along which the processor works on many numbers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.factor import Forms, PerFactor
from sklearn_lmm._engine.factor_single import LevelSums, SingleFactored, SingleStrategy
from sklearn_lmm._engine.linalg import one_thread, shrinkage
from sklearn_lmm._types import FloatArray

LEVELS_AT_ONCE = 4096
"""Levels of a block: a few megabytes of numbers."""

MANY = 4 * LEVELS_AT_ONCE
"""Levels above which blocks are worth their overhead."""


def levelwise(criterion: Criterion) -> Criterion:
    """Return the same criterion for a search, by blocks if levels are very many."""
    statistics, strategy = criterion.statistics, criterion.strategy
    if not isinstance(strategy, SingleStrategy) or len(strategy.S) <= MANY:
        return criterion
    return LevelwiseCriterion(
        statistics,
        LevelwiseStrategy(statistics),
        reml=criterion.reml,
        frequency=criterion.frequency,
    )


class LevelwiseCriterion(Criterion):
    """The criterion for the search; its points hold sums, and no level's own."""

    def at(self, theta: FloatArray) -> Point:
        """Return the criterion at theta."""
        return LevelwisePoint(self, np.array(theta, dtype=np.float64))


class LevelwiseStrategy(SingleStrategy):
    """One factor, of which nothing is kept for every level."""

    def factorize(self, L: PerFactor) -> SingleFactored:
        return _Factored(self, L[0])


class _Factored(SingleFactored):
    """V at one theta, made when asked for."""

    def __init__(self, strategy: SingleStrategy, L: FloatArray) -> None:
        self.S, self.counts, self.L = strategy.S, strategy.counts, L
        self.Psi = L @ L.T

    @cached_property
    def IS(self) -> FloatArray:  # type: ignore[override]
        return shrinkage(self.S, self.L)[0]

    @cached_property
    def logdet(self) -> float:  # type: ignore[override]
        parts = _parts(len(self.S))
        return float(
            sum(self.counts[i] @ shrinkage(self.S[i], self.L)[1] for i in parts)
        )


class LevelwisePoint(Point):
    """The criterion at one theta, by sums over blocks of levels."""

    @cached_property
    def D(self) -> PerFactor:
        """The derivative of the criterion by Psi (q, q)."""
        Q, sums = self._sums
        D = Q - sums.vv
        return (D if sums.FF is None else D - np.einsum("iaja->ij", sums.FF),)

    @cached_property
    def forms(self) -> Forms:
        """What the Hessian is made of, exact traces included."""
        return self._sums[1].forms(self.directions())

    def effects(self, residual: FloatArray) -> PerFactor:
        """Return Psi Z'V^-1 T r (G, q), from one column instead of p + 1."""
        b = self.criterion.statistics.b[0] @ residual
        (effects,) = self.state.project((b[:, :, None],))[1]
        return (effects[:, :, 0],)

    def explained(self) -> FloatArray:
        """Return T'Z Psi Z'V^-1 T (p + 1, p + 1)."""
        _, q, k = self.criterion.statistics.b[0].shape
        gram = np.zeros((q * k, q * k))
        with one_thread():
            for block in self._blocks():
                ZVT = _times(block.IS, block.b)
                gram += block.b.reshape(q * k, -1) @ ZVT.reshape(q * k, -1).T
        Psi = self.L[0] @ self.L[0].T
        return np.asarray(np.einsum("iajb,ij->ab", gram.reshape(q, k, q, k), Psi))

    @cached_property
    def _sums(self) -> tuple[FloatArray, LevelSums]:
        """sum_g [Q]_gg (q, q), and what the forms are made of."""
        root, weights = self.root, self.residual / np.sqrt(self.sigma2)
        reml = self.criterion.reml
        q, p = self.criterion.statistics.b[0].shape[1], len(self.beta)
        shapes = [(q, q), (q, q), (q, p, q), (q, q, q, q), (q, q, q, q)]
        shapes += [(q, p, q, p), (q, q, q, q)] if reml else []
        total = [np.zeros(shape) for shape in shapes]
        with one_thread():
            for block in self._blocks():
                for sums, of_block in zip(
                    total, _products(block, root, weights, reml), strict=True
                ):
                    sums += of_block.reshape(sums.shape)
        return total[0], LevelSums(*total[1:])

    def _blocks(self) -> Iterator[_Block]:
        """Yield the levels, some at a time."""
        statistics = self.criterion.statistics
        (S,), (b,) = statistics.s, statistics.b
        for part in _parts(len(S)):
            of_S = _levels_last(S[part])
            IS = _levels_last(shrinkage(of_S.transpose(2, 0, 1), self.L[0])[0])
            counts = statistics.multiplicity
            here = None if counts is None else counts[part]
            yield _Block(of_S, _levels_last(b[part]), IS, here)


@dataclass(frozen=True, eq=False)
class _Block:
    """Some levels: S, IS (q, q, g), b (q, p + 1, g), how many each stands for."""

    S: FloatArray
    b: FloatArray
    IS: FloatArray
    counts: FloatArray | None


def _parts(G: int) -> list[slice]:
    starts = range(0, G, LEVELS_AT_ONCE)
    return [slice(start, start + LEVELS_AT_ONCE) for start in starts]


def _levels_last(A: FloatArray) -> FloatArray:
    return np.ascontiguousarray(A.transpose(1, 2, 0))


def _times(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return A_g B_g (q, k, g) for A (q, q, g) and B (q, k, g)."""
    product: FloatArray = A[:, 0, None] * B[0]
    for j in range(1, len(B)):
        product += A[:, j, None] * B[j]
    return product


def _symmetric(A: FloatArray) -> FloatArray:
    return 0.5 * (A + A.swapaxes(0, 1))


def _products(
    block: _Block, root: FloatArray, weights: FloatArray, reml: bool
) -> list[FloatArray]:
    """Return sum_g [Q]_gg and what `LevelSums` has, of some levels, flat.

    root (p + 1, p) and weights (p + 1,) make F and v of Z'V^-1 T; the number of
    levels that each stands for enters what has no data in it
    """
    ZVT = _times(block.IS, block.b)
    F, v = np.matmul(root.T, ZVT), np.einsum("a,iag->ig", weights, ZVT)
    q, p, g = F.shape
    vv = (v[:, None] * v).reshape(q * q, g)
    Q = _symmetric(_times(block.IS, block.S)).reshape(q * q, g)
    flat = F.reshape(q * p, g)
    counted = Q if block.counts is None else Q * block.counts
    products = [
        counted.sum(axis=1),
        vv.sum(axis=1),
        flat @ v.T,
        counted @ Q.T,
        Q @ vv.T,
    ]
    if reml:
        FF = np.einsum("iag,jag->ijg", F, F).reshape(q * q, g)
        products += [flat @ flat.T, Q @ FF.T]
    return products
