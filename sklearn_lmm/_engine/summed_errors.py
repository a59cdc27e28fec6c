"""Correlated errors without the rows: R^-1 as a mixture of fixed matrices.

Where R^-1 = sum_k c_k(u) Omega_k with fixed Omega_k, the cross-products are

    G(u) = sum_k c_k(u) A_k,  A_k = T'Omega_k T,

and so are their derivatives: after one pass over the rows for the A_k, a fit costs
what it would with independent errors.  Autoregressive errors with few distinct
gaps in time are of this kind, equal correlation in groups of few distinct sizes,
and a standard deviation for each of some categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sklearn_lmm._engine.correlation import Correlation, Independent
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_sums import Operation
from sklearn_lmm._engine.errors import Expansion, RowErrors, combine, symmetric_table
from sklearn_lmm._engine.factor_single import pool_levels
from sklearn_lmm._types import AnyArray, BoolArray, FloatArray

MOST_PARTS = 12
"""Cross-products kept, at most, instead of the rows."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """The coefficients c (K,) at some free parameters u (m,), and log|R|.

    first (m, K), second (m, m, K) : dc and d2c
    logdet, dlogdet (m,), d2logdet (m, m) : log|R| and its derivatives
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray
    logdet: float
    dlogdet: FloatArray
    d2logdet: FloatArray


class Law(Protocol):
    """The coefficients as functions of the free parameters."""

    def at(self, u: FloatArray) -> Mixture:
        """Return the coefficients at u."""

    def values(self, u: AnyArray) -> AnyArray:
        """Return all parameters on the user's scale, fixed ones included.

        Analytic in u.
        """

    def delta(self, u: FloatArray) -> FloatArray:
        """Return the parameters of the standard deviations."""


@dataclass(frozen=True, eq=False)
class CorrelationLaw:
    """The law of a correlation with one parameter.

    correlation : the correlation, without its rows
    fixed : (1,), its parameter, NaN if it is free
    logdet : the known part of log|R|
    """

    correlation: Correlation
    fixed: FloatArray
    logdet: float

    def at(self, u: FloatArray) -> Mixture:
        free = np.isnan(self.fixed)
        weights, logs = self.correlation.mixture(self._complete(u))
        m = int(free.sum())
        return Mixture(
            value=weights[0],
            first=weights[1:2][:m],
            second=weights[2:3][None][:m, :m],
            logdet=self.logdet + float(logs[0]),
            dlogdet=logs[1:2][:m],
            d2logdet=logs[2:3][None][:m, :m],
        )

    def values(self, u: AnyArray) -> AnyArray:
        """Return the parameter of the correlation."""
        return self.correlation.values(self._complete(u))

    def delta(self, u: FloatArray) -> FloatArray:
        """Return nothing: standard deviations are equal, or known."""
        return np.zeros(0)

    def _complete(self, u: AnyArray) -> AnyArray:
        return np.where(np.isnan(self.fixed), u.sum(), self.fixed)


@dataclass(frozen=True, eq=False)
class StrataLaw:
    """Standard deviations exp(delta_s) for strata of rows; 1 for the first.

    fixed : (m,), delta, NaN where free
    counts : (m,), the rows of every stratum but the first
    ratio : (m,), whether the user is told exp(delta) and not delta
    """

    fixed: FloatArray
    counts: FloatArray
    logdet: float
    ratio: BoolArray

    def at(self, u: FloatArray) -> Mixture:
        free = np.flatnonzero(np.isnan(self.fixed))
        delta = self.delta(u)
        c = np.append(1.0, np.exp(-2.0 * delta))
        m = len(free)
        first, second = np.zeros((m, len(c))), np.zeros((m, m, len(c)))
        first[np.arange(m), free + 1] = -2.0 * c[free + 1]
        second[np.arange(m), np.arange(m), free + 1] = 4.0 * c[free + 1]
        return Mixture(
            value=c,
            first=first,
            second=second,
            logdet=self.logdet + 2.0 * float(self.counts @ delta),
            dlogdet=2.0 * self.counts[free],
            d2logdet=np.zeros((m, m)),
        )

    def values(self, u: AnyArray) -> AnyArray:
        """Return the ratios, or their logarithms."""
        delta = self.delta(u)
        return np.where(self.ratio, np.exp(delta), delta)

    def delta(self, u: AnyArray) -> AnyArray:
        """Return delta, given the free ones."""
        delta = self.fixed.astype(u.dtype)
        delta[np.isnan(self.fixed)] = u
        return delta


@dataclass(frozen=True, eq=False)
class SummedErrors:
    """G(u) = sum_k c_k(u) A_k.

    parts : the A_k; law : c_k
    """

    parts: tuple[CrossProducts, ...]
    law: Law

    def at(self, u: FloatArray) -> Expansion:
        """Return the cross-products at u."""
        mixture = self.law.at(u)
        second = mixture.second
        return Expansion(
            u=u,
            value=combine(mixture.value, self.parts),
            first=tuple(combine(c, self.parts) for c in mixture.first),
            second=symmetric_table(
                len(second), lambda i, j: combine(second[i, j], self.parts)
            ),
            logdet=mixture.logdet,
            dlogdet=mixture.dlogdet,
            d2logdet=mixture.d2logdet,
        )

    def values(self, u: AnyArray) -> AnyArray:
        """Return all parameters on the user's scale."""
        return self.law.values(u)

    def select(self, kept: BoolArray) -> SummedErrors:
        """Return the model without the fixed-effect columns not kept."""
        return replace(self, parts=tuple(part.select(kept) for part in self.parts))

    def pooled(self) -> SummedErrors:
        """Pool levels of a single factor that have all Z_g'Omega_k Z_g in common."""
        if len(self.parts[0].s) != 1:
            return self
        together = _side_by_side(self.parts)
        pooled = pool_levels(together)
        if pooled is together:
            return self
        return replace(self, parts=tuple(_cut(pooled, self.parts)))


def _side_by_side(parts: Sequence[CrossProducts]) -> CrossProducts:
    """Return cross-products with the Z_g'Omega_k Z_g of a level as one block."""
    G, q, _ = parts[0].s[0].shape
    K = len(parts)
    s = np.zeros((G, K * q, K * q))
    for k, part in enumerate(parts):
        place = slice(k * q, (k + 1) * q)
        s[:, place, place] = part.s[0]
    b = np.concatenate([part.b[0] for part in parts], axis=1)
    return replace(parts[0], s=(s,), b=(b,))


def _cut(pooled: CrossProducts, parts: Sequence[CrossProducts]) -> list[CrossProducts]:
    """Return the parts again, pooled."""
    q = parts[0].s[0].shape[1]
    cut = []
    for k, part in enumerate(parts):
        place = slice(k * q, (k + 1) * q)
        cut.append(
            replace(
                part,
                s=(pooled.s[0][:, place, place],),
                b=(pooled.b[0][:, place],),
                multiplicity=pooled.multiplicity,
            )
        )
    return cut


def summed_errors(model: RowErrors) -> SummedErrors | None:
    """Return the model without rows, None if the structure is not of that kind."""
    errors, counts, strata = model.errors, model.counts, model.errors.slopes
    logdet = 2.0 * float(counts @ errors.log_deviation)
    if isinstance(errors.correlation, Independent):
        if not errors.in_strata or strata.shape[1] >= MOST_PARTS:
            return None
        operations = [_rows_of(1.0 - strata.sum(axis=1))]
        operations += [_rows_of(column) for column in strata.T]
        law: Law = StrataLaw(errors.fixed, counts @ strata, logdet, errors.ratio)
    else:
        operators = None if strata.size else errors.correlation.operators()
        if operators is None or len(operators) > MOST_PARTS:
            return None
        operations = [operator.__matmul__ for operator in operators]
        law = CorrelationLaw(errors.correlation.without_rows(), errors.fixed, logdet)
    sums = model.sums(errors.log_deviation)
    if not all(sums.narrow):
        return None
    return SummedErrors(tuple(map(sums.of, operations)), law)


def _rows_of(stratum: FloatArray) -> Operation:
    return lambda U: stratum[:, None] * U
