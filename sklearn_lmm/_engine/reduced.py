"""Smaller models of the same rows, from the cross-products of a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts, in_units
from sklearn_lmm._engine.design import Standardization, Term
from sklearn_lmm._engine.fit import fit_statistics
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._types import BoolArray, IntArray

Kept = Sequence[Sequence[int]]
"""For every term, the coefficients that stay; none of a term that goes."""


def refitted(
    fit: LMMFit,
    *,
    statistics: CrossProducts | None = None,
    kept: BoolArray | None = None,
    reml: bool | None = None,
) -> LMMFit:
    """Fit again with other cross-products, fewer columns or the other criterion.

    Errors are independent.
    """
    statistics = fit.statistics if statistics is None else statistics
    if kept is not None and statistics.columns.mix is not None:
        statistics = without_mix(statistics)
    return fit_statistics(
        statistics,
        fit.kept if kept is None else kept,
        reml=fit.reml if reml is None else reml,
        weights=fit.weights,
    )


def without_mix(statistics: CrossProducts) -> CrossProducts:
    """Return the statistics with every column of T made of one column of X."""
    columns = replace(statistics.columns, mix=None)
    return in_units(statistics, (columns, statistics.blocks))


def select_coefficients(statistics: CrossProducts, kept: Kept) -> CrossProducts:
    """Return the statistics of the model with some random coefficients only.

    The intercept of a term may go only with all slopes that were shifted by it.
    """
    chosen = _Chosen.of(statistics, kept)
    factors = chosen.factors
    s, b = [], []
    for f in factors:
        columns = chosen.columns[f]
        s.append(statistics.s[f][:, columns][:, :, columns])
        b.append(statistics.b[f][:, columns])
    n = {}
    for i, f in enumerate(factors):
        for j, h in enumerate(factors[i + 1 :], start=i + 1):
            rows = chosen.positions(f, len(statistics.s[f]))
            places = chosen.positions(h, len(statistics.s[h]))
            n[i, j] = sparse.csr_array(statistics.n[f, h][rows][:, places])
    return replace(
        statistics,
        blocks=tuple(chosen.units),
        terms=tuple(chosen.terms),
        levels=tuple(statistics.levels[f] for f in factors),
        s=tuple(s),
        b=tuple(b),
        n=n,
    )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """What is left of the terms.

    factors : positions of the factors that still have a term
    columns : per factor, the coefficients that stay
    q : per factor, how many there were
    """

    factors: list[int]
    columns: dict[int, list[int]]
    q: dict[int, int]
    terms: list[Term]
    units: list[Standardization]

    @classmethod
    def of(cls, statistics: CrossProducts, kept: Kept) -> _Chosen:
        left = [k for k, coefficients in enumerate(kept) if len(coefficients)]
        factors = sorted({statistics.terms[k].factor for k in left})
        columns: dict[int, list[int]] = {f: [] for f in factors}
        terms, units = [], []
        for k in left:
            term, old, stay = statistics.terms[k], statistics.blocks[k], list(kept[k])
            place = statistics.slices[k]
            columns[term.factor] += [place.start + i for i in stay]
            intercept = term.intercept and 0 in stay
            if not intercept and np.any(old.center[stay]):
                raise ValueError("a shifted slope needs the intercept of its term")
            terms.append(
                Term(factors.index(term.factor), term.structure, intercept, len(stay))
            )
            units.append(old.select(np.array(stay)))
        q = {f: statistics.s[f].shape[1] for f in factors}
        return cls(factors, columns, q, terms, units)

    def positions(self, f: int, n_levels: int) -> IntArray:
        """Return the level-major positions of what stays of a factor."""
        starts = np.arange(n_levels)[:, None] * self.q[f]
        return np.asarray((starts + np.array(self.columns[f])).ravel())
