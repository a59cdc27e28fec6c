"""The rows of a fit beside the fitted model: residuals and leverage.

Everything is in standardised units, and rows are multiplied by sqrt(w).  With
T = [X y], U = Psi Z'V^-1 T and r = (-beta, 1),

    V^-1 T = T - Z U,      e = V^-1 T r = y - X beta - Z b,

so that conditional residuals need no inverse.  The hat matrix of the
conditional fit is I - P = D H^-1 D' + Z C Z', with D = V^-1 X and
C = L M^-1 L', and that of the fixed part X H^-1 D' (Demidenko and Stukel 2005,
Statistics in Medicine 24: 893-909).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Design, nested
from sklearn_lmm._engine.factor import Codes, PerFactor
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.row_sums import standardized_coefficients, standardized_rows
from sklearn_lmm._types import AnyArray, FloatArray, IntArray

ENTRIES_AT_ONCE = 1 << 20
"""Entries of T made at a time: the rows may be far more, and X sparse."""


@dataclass(frozen=True, eq=False)
class WhitenedRows:
    """Rows of X R_X^-1 and V^-1 X R_X^-1 (m, p), of e~ = y - X beta and V^-1 e~ (m,).

    R_X'R_X = H, so that H^-1 does not appear.
    """

    X: FloatArray
    D: FloatArray
    marginal: FloatArray
    conditional: FloatArray


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of the rows.

    codes : (n,) integers 0 .. m - 1, each used
    m : the number of clusters
    """

    codes: IntArray
    m: int

    def runs(self) -> list[IntArray]:
        """Return the rows of every cluster."""
        order = np.argsort(self.codes, kind="stable")
        ends = np.cumsum(np.bincount(self.codes, minlength=self.m))
        return np.split(order, ends[:-1])

    def contain(self, codes: IntArray) -> bool:
        """Say whether every level of a factor (n,) lies within one cluster."""
        return nested(codes, self.codes)


@dataclass(frozen=True, eq=False)
class FittedRows:
    """Rows of a fit, in the engine's units.

    design : the rows; its columns of X are those with a fixed effect
    statistics : their cross-products
    point : the model at the estimate
    frequency : whether a weight says how many rows one stands for
    """

    design: Design
    statistics: CrossProducts
    point: Point
    frequency: bool

    @classmethod
    def of(cls, fit: LMMFit, design: Design) -> FittedRows:
        """Put the rows of a fit beside it."""
        point = fit.point()
        columns = np.flatnonzero(fit.kept[int(design.intercept) :])
        if len(columns) < design.X.shape[1]:
            design = replace(
                design,
                X=design.X[:, columns],
                intercept=design.intercept and bool(fit.kept[0]),
            )
        frequency = fit.weights == "frequency"
        return cls(design, point.criterion.statistics, point, frequency)

    def __len__(self) -> int:
        return len(self.design.y)

    @property
    def p(self) -> int:
        return self.statistics.p

    @property
    def codes(self) -> Codes:
        return tuple(factor.codes for factor in self.design.factors)

    @cached_property
    def root_weights(self) -> FloatArray:
        """sqrt(w) (n,)."""
        weights = self.design.weights
        return np.ones(len(self)) if weights is None else np.sqrt(weights)

    @cached_property
    def copies(self) -> FloatArray:
        """How many rows each stands for (n,): its weight, or 1 for precisions."""
        return self.root_weights**2 if self.frequency else np.ones(len(self))

    def independent(self, clusters: Clusters) -> bool:
        """Say whether V has no entries between clusters."""
        return all(map(clusters.contain, self.codes))

    @cached_property
    def z(self) -> PerFactor:
        """sqrt(w) z (n, q_f) of every factor, the columns of its terms together."""
        z = standardized_coefficients(self.design, self.statistics.blocks)
        return tuple(z_f * self.root_weights[:, None] for z_f in z)

    def chunks(self, least: int = 1) -> Iterator[slice]:
        """Cut the rows so that a chunk of T stays small, but has `least` rows."""
        size = max(least, ENTRIES_AT_ONCE // (self.p + 1))
        for start in range(0, len(self), size):
            yield slice(start, start + size)

    def T(self, rows: slice | AnyArray) -> FloatArray:
        """Return sqrt(w) [X y] (m, p + 1) of some rows."""
        T = standardized_rows(self.design, self.statistics.columns, rows)
        return np.asarray(T * self.root_weights[rows, None])

    def less_effects(
        self, T: FloatArray, rows: slice | AnyArray, U: PerFactor
    ) -> FloatArray:
        """Return T - Z U (m, k) of some rows, for U (G, q, k) of every factor."""
        rest = T.copy()
        for codes, z, U_f in zip(self.codes, self.z, U, strict=True):
            rest -= np.einsum("ni,nik->nk", z[rows], U_f[codes[rows]])
        return rest

    def solved(self, rows: slice | AnyArray) -> FloatArray:
        """Return the rows of V^-1 T (m, p + 1)."""
        return self.less_effects(self.T(rows), rows, self.point.U)

    def whitened(self, rows: slice | AnyArray) -> WhitenedRows:
        """Return some rows of X and of the residuals, before and after V^-1."""
        T, r = self.T(rows), self.point.residual
        solved = self.less_effects(T, rows, self.point.U)
        R = self.point.inverse_R_X
        return WhitenedRows(T[:, :-1] @ R, solved[:, :-1] @ R, T @ r, solved @ r)

    @cached_property
    def marginal(self) -> FloatArray:
        """sqrt(w) (y - X beta) (n,)."""
        parts = [self.T(rows) @ self.point.residual for rows in self.chunks()]
        return np.concatenate(parts)

    def effects(self, factor: int) -> FloatArray:
        """Return sqrt(w) z'b (n,) of one factor."""
        b = self.point.U[factor] @ self.point.residual
        return np.asarray(np.sum(self.z[factor] * b[self.codes[factor]], axis=1))

    def less(self, factors: Iterable[int]) -> FloatArray:
        """Return sqrt(w) (y - X beta - Z b) (n,), b the effects of some factors."""
        return np.asarray(self.marginal - sum(map(self.effects, factors)))

    @cached_property
    def conditional(self) -> FloatArray:
        """sqrt(w) (y - X beta - Z b) (n,)."""
        return self.less(range(len(self.codes)))

    @cached_property
    def leverage(self) -> FloatArray:
        """The diagonal of I - P (n,), of all copies of a row together."""
        of_beta = np.concatenate(
            [np.sum(self.whitened(rows).D ** 2, axis=1) for rows in self.chunks()]
        )
        return of_beta + self.point.state.posterior_variances(self.codes, self.z)

    @cached_property
    def leverage_of_fixed_part(self) -> FloatArray:
        """The diagonal of X H^-1 X'V^-1 (n,), of all copies of a row together."""
        parts = [self.whitened(rows) for rows in self.chunks()]
        return np.concatenate([np.sum(part.X * part.D, axis=1) for part in parts])

    @cached_property
    def conditional_variance(self) -> FloatArray:
        """Var(y - X beta - Z b) / sigma^2 (n,), w times, of one copy of a row."""
        return np.asarray(1.0 - self.leverage / self.copies)

    @cached_property
    def marginal_variance(self) -> FloatArray:
        """Var(y - X beta) / sigma^2 (n,), w times, of one copy of a row."""
        R = self.point.inverse_R_X
        of_beta = [
            np.sum((self.T(rows)[:, :-1] @ R) ** 2, axis=1) for rows in self.chunks()
        ]
        excess = -np.concatenate(of_beta)
        for z, L in zip(self.z, self.point.L, strict=True):
            excess += np.sum((z @ L) ** 2, axis=1)
        return np.asarray(1.0 + excess / self.copies)
