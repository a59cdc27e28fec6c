"""Crossed factors: which of them is eliminated, and how the others are laid out.

Factor 1 is the one with most coefficients; R stands for all others together,
level-major, one factor after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import PerFactor
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import AnyArray, FloatArray, IntArray


class Elimination:
    """Factor 1 and R of some cross-products.

    first, rest : the position of factor 1, and of those in R
    places : where each factor of R stands in its rows
    """

    def __init__(self, statistics: CrossProducts) -> None:
        self.statistics = statistics
        sizes = [s.shape[0] * s.shape[1] for s in statistics.s]
        # Only a factor whose levels share no rows can be eliminated level by level.
        apart = [(f, f) not in statistics.n for f in range(len(sizes))]
        self.first = int(np.argmax(np.multiply(sizes, apart)))
        self.rest = [f for f in range(len(sizes)) if f != self.first]
        self.places = consecutive(sizes[f] for f in self.rest)
        self._most = [float(np.abs(statistics.s[f]).max()) for f in self.rest]

    @property
    def size(self) -> int:
        """The number of rows of R."""
        return int(self.places[-1].stop)

    def rows(self, k: int) -> IntArray:
        """Return the rows (G, q) in R of the levels of its k-th factor."""
        G, q, _ = self.statistics.s[self.rest[k]].shape
        return np.arange(G * q).reshape(G, q) + int(self.places[k].start)

    def stack(self, b: PerFactor) -> FloatArray:
        """Return the rows of all factors in R (q_R, k)."""
        return np.concatenate([b[f].reshape(-1, b[f].shape[-1]) for f in self.rest])

    def split(self, stacked: AnyArray) -> tuple[AnyArray, ...]:
        """Cut rows (q_R, k) into (G_f, q_f, k) for every factor in R."""
        return tuple(
            stacked[place].reshape(*self.statistics.s[f].shape[:2], -1)
            for place, f in zip(self.places, self.rest, strict=True)
        )

    def in_user_order(self, first: FloatArray, rest: PerFactor) -> PerFactor:
        """Return one array per factor, as the cross-products have them."""
        parts = list(rest)
        parts.insert(self.first, first)
        return tuple(parts)

    def psi_n(self, k: int, L: FloatArray) -> float:
        """Return the smallest eigenvalue of Psi_k = L L' times the largest Z_g'Z_g."""
        smallest = float(np.linalg.svd(L, compute_uv=False)[-1])
        return smallest**2 * self._most[k]

    def is_large(self, k: int, L: FloatArray) -> bool:
        """Say whether Psi_k = L L' is so large that its inverse costs no digits."""
        return self.psi_n(k, L) > 1.0

    def projected(
        self,
        L: Sequence[FloatArray],
        effects: FloatArray,
        by_subtraction: Callable[[], FloatArray],
    ) -> PerFactor:
        """Return Z_R'V^-1 T (G, q, k) of every factor in R.

        It is Psi^-1 times the predicted effects (q_R, k) where Psi is large, and
        elsewhere what `by_subtraction` makes (q_R, k), which is free of
        cancellation there.

        L : (q, q) of every factor in R
        """
        large = [self.is_large(k, L_k) for k, L_k in enumerate(L)]
        rest = effects if all(large) else by_subtraction()
        parts = zip(large, L, self.split(effects), self.split(rest), strict=True)
        return tuple(
            np.asarray(np.linalg.inv(L_k @ L_k.T) @ u_k if is_large else rest_k, float)
            for is_large, L_k, u_k, rest_k in parts
        )
