"""The Schur complement of the largest of crossed factors, by its products alone.

Notation and formulas are those of `factor_crossed`, but
S = I + L'A L, A = C - sum_g N_g K_g N_g' (L, A and C over R) is never formed.
Systems with S are solved by conjugate gradients, preconditioned by its diagonal
blocks B_h = I + L_h'A_hh L_h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.conjugate_gradients import conjugate_gradients
from sklearn_lmm._engine.crossing import Blocks, Crossing, Float, Products
from sklearn_lmm._engine.factor import PerFactor
from sklearn_lmm._engine.linalg import shrinkage, symmetrize
from sklearn_lmm._types import AnyArray, FloatArray

MOST_STEPS = {np.float32: 200, np.float64: 5000}
"""Steps of conjugate gradients."""


@dataclass(frozen=True, eq=False)
class InPrecision:
    """S and what it is made of, for vectors of one precision."""

    products: Products
    L: Blocks
    Lt: Blocks
    K: Blocks
    inverse_B: Blocks

    def times(self, z: AnyArray) -> AnyArray:
        """Return S z."""
        Sz = self.Lt.scale(self.times_A(self.L.times(z)))
        Sz += z
        return Sz

    def times_A(self, x: AnyArray) -> AnyArray:
        """Return A x."""
        return self.products.reduced(self.K, x)

    def solve(
        self, b: AnyArray, start: AnyArray | None, tolerance: float
    ) -> tuple[AnyArray, bool]:
        """Return S^-1 b, and whether it is right to the tolerance."""
        return conjugate_gradients(
            self.times,
            self.inverse_B.times,
            b,
            self.inverse_B.times(b) if start is None else start,
            tolerance=tolerance,
            max_iter=MOST_STEPS[b.dtype.type],
        )


class ImplicitSchur:
    """S at one theta, with its diagonal blocks.

    L : L_k of every factor in R
    IS, K : of the levels of factor 1
    A_B : A_hh of the levels in R
    inverse_B : B_h^-1 of the same
    Q_B : (I + A_hh Psi)^-1 A_hh = L_h^-T (I - B_h^-1) L_h^-1 of the same
    logdet : log|V| - log|S| + log|B|
    """

    def __init__(self, crossing: Crossing, L: PerFactor) -> None:
        self.crossing = crossing
        L_1 = L[crossing.first]
        self.L = tuple(L[f] for f in crossing.rest)
        self.S_1 = crossing.statistics.s[crossing.first]
        self.IS, logdets_1 = shrinkage(self.S_1, L_1)
        self.K = symmetrize(L_1 @ L_1.T @ self.IS)
        blocks = zip(crossing.rest, crossing.outer(self.K), strict=True)
        self.A_B = tuple(crossing.statistics.s[f] - NKN for f, NKN in blocks)
        pairs = list(zip(self.A_B, self.L, strict=True))
        shrunken = [shrinkage(A_k, L_k) for A_k, L_k in pairs]
        self.Q_B = tuple(
            IS @ A_k for (IS, _), (A_k, _) in zip(shrunken, pairs, strict=True)
        )
        self.logdet = float(logdets_1.sum() + sum(d.sum() for _, d in shrunken))
        self.inverse_B: PerFactor = tuple(
            symmetrize(_inverse(np.eye(len(L_k)) + L_k.T @ A_k @ L_k))
            for A_k, L_k in pairs
        )
        self._precisions: dict[Float, InPrecision] = {}

    def in_(self, dtype: Float) -> InPrecision:
        """Return S for vectors of a precision."""
        if dtype not in self._precisions:
            self._precisions[dtype] = InPrecision(
                self.crossing.products(dtype),
                self.blocks(self.L, dtype),
                self.blocks(tuple(L.T for L in self.L), dtype),
                Blocks((self.K,), (len(self.K),), dtype),
                self.blocks(self.inverse_B, dtype),
            )
        return self._precisions[dtype]

    def blocks(self, parts: PerFactor, dtype: Float) -> Blocks:
        """Return a block-diagonal matrix over R; (q, q) stands for equal blocks."""
        sizes = tuple(len(inverse) for inverse in self.inverse_B)
        stacks = tuple(part[None] if part.ndim == 2 else part for part in parts)
        return Blocks(stacks, sizes, dtype)

    def solve(
        self, b: AnyArray, tolerance: float, start: AnyArray | None = None
    ) -> AnyArray:
        """Return S^-1 b, in the precision of b.

        It is worked out in double precision if single does not get there.

        Raises
        ------
        LinAlgError
            If double precision does not get there either.
        """
        x, arrived = self.in_(b.dtype.type).solve(b, start, tolerance)
        if not arrived and b.dtype == np.float32:
            schur = self.in_(np.float64)
            x, arrived = schur.solve(b.astype(np.float64), None, tolerance)
        if not arrived:
            raise np.linalg.LinAlgError(
                f"conjugate gradients did not converge in {MOST_STEPS[np.float64]} "
                "steps: the grouping factors are nearly confounded"
            )
        return x.astype(b.dtype, copy=False)

    def from_R(self, left: FloatArray, x: AnyArray) -> AnyArray:
        """Return left_g N_g'L x (G_1, q_1, k) for the levels g of factor 1."""
        schur = self.in_(x.dtype.type)
        blocks = Blocks((left,), (len(left),), x.dtype.type)
        product = blocks.scale(schur.products.Nt @ schur.L.times(x))
        return product.reshape(*left.shape[:2], -1)

    def C_B(self) -> PerFactor:
        """Return L_h B_h^-1 L_h' of the levels in R."""
        return tuple(L @ B @ L.T for L, B in zip(self.L, self.inverse_B, strict=True))


def _inverse(B: FloatArray) -> FloatArray:
    """Return the inverses of blocks (G, q, q)."""
    return 1.0 / B if B.shape[1] == 1 else np.asarray(np.linalg.inv(B), float)
