"""Errors that are correlated, or not equal in size: Cov(e) = sigma^2 R.

R = D C D with D = diag(exp(l)), l = l_0 + W delta for known l_0 (n,) and
W (n, m), and C a correlation within groups of rows (`correlation`).  The model
is that of independent errors for the cross-products

    G = T'R^-1 T  for  T = [Z 1 X y],  with -2 log L += log|R|.

With Lambda_j = diag(column j of W), for U = D^-1 T and a change of delta_j

    dG = -U'(Lambda_j C^-1 + C^-1 Lambda_j) U,  d log|R| = 2 sum of W_j,

for a change of C's parameters dG = U'(dC^-1) U, and so on for second
derivatives: all of them are U'Omega U with a symmetric Omega.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from sklearn_lmm._engine.correlation import Correlation, Precision
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_sums import Omega, Sums
from sklearn_lmm._types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Errors:
    """What is known of the errors of n rows, beside sigma.

    order : (n,), the rows sorted by group; everything else is in this order
    starts : (G,), the first row of every group
    correlation : C, with parameters u (k,)
    log_deviation : (n,), l_0
    slopes : (n, m), W
    ratio : (m,), whether the user is told exp(delta) and not delta
    fixed : (k + m,), the values of u and delta, NaN where they are estimated
    sigma : the residual standard deviation, None if it is estimated
    counts : (n,), how many equal rows each stands for, None for one
    """

    order: IntArray
    starts: IntArray
    correlation: Correlation
    log_deviation: FloatArray
    slopes: FloatArray
    ratio: BoolArray
    fixed: FloatArray
    sigma: float | None = None
    counts: FloatArray | None = None

    @property
    def free(self) -> IntArray:
        """The positions of the parameters that are estimated."""
        return np.flatnonzero(np.isnan(self.fixed))

    @property
    def in_strata(self) -> bool:
        """Whether W only says which stratum a row is of, if any but the first."""
        W = self.slopes
        return bool(((W == 0) | (W == 1)).all() and (W.sum(axis=1) <= 1).all())

    @property
    def sizes(self) -> IntArray:
        """How many rows every group has (G,)."""
        return np.diff(np.append(self.starts, len(self.order)))

    def start(self) -> FloatArray:
        """Return the free parameters to start from."""
        start = np.append(self.correlation.start(), np.zeros(len(self.ratio)))
        return start[self.free]

    def complete(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the parameters of C and delta, given the free ones."""
        full = self.fixed.copy()
        full[self.free] = u
        return full[: self.correlation.size], full[self.correlation.size :]

    def log_deviations(self, delta: FloatArray) -> FloatArray:
        """Return l = l_0 + W delta (n,)."""
        return self.log_deviation + self.slopes @ delta

    def deviations(self, u: FloatArray) -> FloatArray:
        """Return the diagonal of D (n,), for the rows as they were before `order`."""
        deviations = np.empty(len(self.order))
        deviations[self.order] = np.exp(self.log_deviations(self.complete(u)[1]))
        return deviations

    def values(self, u: FloatArray) -> FloatArray:
        """Return all parameters on the user's scale, fixed ones included."""
        of_C, delta = self.complete(u)
        sizes = np.where(self.ratio, np.exp(delta), delta)
        return np.append(self.correlation.values(of_C), sizes)

    def limits(self) -> FloatArray:
        """Return the ends of the range of every parameter (k + m, 2)."""
        above = np.where(self.ratio, 0.0, -np.inf)
        of_sizes = np.column_stack([above, np.full(len(above), np.inf)])
        return np.concatenate([self.correlation.limits(), of_sizes])

    def jacobian(self, u: FloatArray) -> FloatArray:
        """Return d values / du (k + m, free)."""
        of_C, delta = self.complete(u)
        k = len(of_C)
        full = np.zeros((len(self.fixed), len(self.fixed)))
        full[:k, :k] = self.correlation.jacobian(of_C)
        full[k:, k:] = np.diag(np.where(self.ratio, np.exp(delta), 1.0))
        return full[:, self.free]


@dataclass(frozen=True, eq=False)
class Expansion:
    """The cross-products at some u (m,), with their derivatives.

    value : G
    first : m of dG; second : m x m of d2G
    logdet, dlogdet, d2logdet : log|R|, (m,) and (m, m)
    """

    u: FloatArray
    value: CrossProducts
    first: tuple[CrossProducts, ...]
    second: tuple[tuple[CrossProducts, ...], ...]
    logdet: float
    dlogdet: FloatArray
    d2logdet: FloatArray

    def select(self, kept: BoolArray) -> Expansion:
        """Return the expansion without the fixed-effect columns not kept."""
        if kept.all():
            return self
        return replace(
            self,
            value=self.value.select(kept),
            first=tuple(d.select(kept) for d in self.first),
            second=tuple(tuple(d.select(kept) for d in row) for row in self.second),
        )


class ErrorModel(Protocol):
    """The cross-products as a function of u."""

    def at(self, u: FloatArray) -> Expansion:
        """Return the cross-products at u."""

    def values(self, u: FloatArray) -> FloatArray:
        """Return all parameters on the user's scale."""

    def select(self, kept: BoolArray) -> ErrorModel:
        """Return the model without the fixed-effect columns not kept."""


@dataclass(frozen=True, eq=False)
class LocalErrors:
    """The cross-products close to one u, where the rows are no longer at hand.

    Second-order Taylor expansion, for differences around the optimum.

    reach : how far from u it may be used
    """

    expansion: Expansion
    reach: float = 1e-3

    def values(self, u: FloatArray) -> FloatArray:
        """Raise: the parameters as functions of u are not kept.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(f"The parameters at u={u} need the rows again.")

    def select(self, kept: BoolArray) -> LocalErrors:
        """Return the model without the fixed-effect columns not kept."""
        return replace(self, expansion=self.expansion.select(kept))

    def at(self, u: FloatArray) -> Expansion:
        """Return the cross-products at u.

        Raises
        ------
        ValueError
            If u is further away than the expansion holds.
        """
        here = self.expansion
        h = u - here.u
        if not h.any():
            return here
        if np.abs(h).max() > self.reach:
            raise ValueError(
                "The cross-products of correlated errors are known at the optimum "
                "only: other parameters need the rows again."
            )
        changes = [combine(h, row) for row in here.second]
        first = tuple(
            add(d, change) for d, change in zip(here.first, changes, strict=True)
        )
        value = add(here.value, combine(h, here.first))
        return replace(
            here,
            u=u,
            value=add(value, combine(0.5 * h, changes)),
            first=first,
            logdet=here.logdet + float(h @ (here.dlogdet + 0.5 * here.d2logdet @ h)),
            dlogdet=here.dlogdet + here.d2logdet @ h,
        )


def combine(coefficients: FloatArray, parts: Sequence[CrossProducts]) -> CrossProducts:
    """Return a linear combination of cross-products in the same units."""
    first = parts[0]
    pairs = list(zip(coefficients, parts, strict=True))

    def total(get: Any) -> Any:
        return sum(c * get(part) for c, part in pairs)

    return replace(
        first,
        tt=total(lambda x: x.tt),
        s=tuple(total(lambda x, f=f: x.s[f]) for f in range(len(first.s))),
        b=tuple(total(lambda x, f=f: x.b[f]) for f in range(len(first.b))),
        n={pair: total(lambda x, pair=pair: x.n[pair]) for pair in first.n},
    )


def add(a: CrossProducts, b: CrossProducts) -> CrossProducts:
    """Return the sum of cross-products in the same units."""
    return combine(np.ones(2), (a, b))


def symmetric_table(
    m: int, entry: Callable[[int, int], Any]
) -> tuple[tuple[Any, ...], ...]:
    """Return the m x m values of a symmetric function, asked for i >= j only."""
    lower = [[entry(i, j) for j in range(i + 1)] for i in range(m)]
    return tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(m)) for i in range(m))


class RowErrors:
    """The cross-products from rows that are kept, at every u anew.

    errors : R
    plain : the cross-products of the rows with R = I, for units and terms
    rows : (n, w + sum q_f), T and the columns of every factor's terms, in the
        order of `errors` and the units of `plain`
    codes : per factor (n,), the levels
    """

    def __init__(
        self,
        errors: Errors,
        plain: CrossProducts,
        rows: FloatArray,
        codes: tuple[IntArray, ...],
    ) -> None:
        self.errors = errors
        self.rows, self.codes = rows, codes
        n = float(plain.n_rows if errors.counts is None else errors.counts.sum())
        self.plain = replace(plain, sum_weights=n, sum_log_weights=0.0)

    def select(self, kept: BoolArray) -> RowErrors:
        """Return the model without the fixed-effect columns not kept."""
        if kept.all():
            return self
        others = np.ones(self.rows.shape[1] - len(kept), dtype=bool)
        rows = self.rows[:, np.append(kept, others)]
        return RowErrors(self.errors, self.plain.select(kept), rows, self.codes)

    def centred(self) -> RowErrors:
        """Return the model with every column of W centred, so with another sigma."""
        slopes = self.errors.slopes
        errors = replace(self.errors, slopes=slopes - slopes.mean(axis=0))
        return RowErrors(errors, self.plain, self.rows, self.codes)

    def values(self, u: FloatArray) -> FloatArray:
        """Return all parameters on the user's scale."""
        return self.errors.values(u)

    @property
    def counts(self) -> FloatArray:
        """How many equal rows each stands for (n,)."""
        counts = self.errors.counts
        return np.ones(len(self.rows)) if counts is None else counts

    def sums(self, log_deviation: FloatArray) -> Sums:
        """Return the sums over rows divided by their standard deviation."""
        scale = np.exp(-log_deviation) * np.sqrt(self.counts)
        U = self.rows * scale[:, None]
        return Sums(self.plain, U, self.codes, self.errors.starts)

    def at(self, u: FloatArray) -> Expansion:
        """Return the cross-products at u."""
        errors = self.errors
        of_C, delta = errors.complete(u)
        log_sd = errors.log_deviations(delta)
        precision = errors.correlation.at(of_C)
        sums = self.sums(log_sd)
        omega = Omega(precision, errors.slopes)
        free = errors.free
        logdet, dlogdet, d2logdet = self._logdet(precision, log_sd)
        return Expansion(
            u=u,
            value=sums.of(omega.inverse),
            first=tuple(sums.of(omega.first(i)) for i in free),
            second=symmetric_table(
                len(free), lambda i, j: sums.of(omega.second(free[i], free[j]))
            ),
            logdet=logdet,
            dlogdet=dlogdet[free],
            d2logdet=d2logdet[np.ix_(free, free)],
        )

    def _logdet(
        self, precision: Precision, log_sd: FloatArray
    ) -> tuple[float, FloatArray, FloatArray]:
        counts, k = self.counts, len(precision.dlogdet)
        by_delta = 2.0 * counts @ self.errors.slopes
        second = np.zeros((k + len(by_delta), k + len(by_delta)))
        second[:k, :k] = precision.d2logdet
        return (
            precision.logdet + 2.0 * float(counts @ log_sd),
            np.append(precision.dlogdet, by_delta),
            second,
        )
