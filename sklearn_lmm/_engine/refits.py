"""Many fits of one design: other responses, or other numbers of each group.

What a fit needs of a response are X'W y, Z'W y and y'W y.  The rest of the
cross-products, and the strategy that was prepared for them, stay, and the
search starts from the estimate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Design, Factor, nested
from sklearn_lmm._engine.linalg import residual_norms
from sklearn_lmm._engine.optimize import Optimum, minimize
from sklearn_lmm._engine.result import ZERO, LMMFit, factor_maps, make_criterion
from sklearn_lmm._engine.row_sums import rows_of_T, sparse_units, standardized_rows
from sklearn_lmm._engine.simulation import coefficient_matrices
from sklearn_lmm._types import FloatArray, IntArray

NUDGE = 1e-2
"""What replaces the parameters of a covariance at 0, where a search would stay."""

DEPENDENT = 1e-5
"""A column that leaves less than this on earlier ones is gone from a sample."""


@dataclass(frozen=True, eq=False)
class FixedDesign:
    """Refits to other responses of the rows of a fit.

    model : the criterion of the fit
    X : (n, p) columns, dropped ones included; X to_units are those in the engine's
        units, which a sparse X is not made in
    Z : per factor (n, G q), in the user's units
    """

    fit: LMMFit
    model: Criterion
    X: FloatArray | sparse.csr_array
    to_units: FloatArray
    Z: tuple[sparse.csr_array, ...]
    weights: FloatArray | None

    @classmethod
    def of(cls, design: Design, fit: LMMFit) -> FixedDesign:
        units = fit.statistics.columns
        plain = sparse_units(design, units)
        X = rows_of_T(design, plain, slice(None))[:, :-1]
        C = np.eye(len(units.scale)) if plain is units else units.from_(plain)
        Z = tuple(coefficient_matrices(design))
        return cls(fit, fit.model(), X, C[:-1, :-1], Z, design.weights)

    def statistics(self, Y: FloatArray) -> Iterator[CrossProducts]:
        """Yield the cross-products of every column of Y (n, k)."""
        base = self.fit.statistics
        columns = base.columns
        y = (Y - columns.center[-1]) / columns.scale[-1]
        wy = y if self.weights is None else y * self.weights[:, None]
        Xy, yy = self.to_units.T @ (self.X.T @ wy), np.sum(wy * y, axis=0)
        Zy = []
        for Z, R, s in zip(self.Z, factor_maps(base), base.s, strict=True):
            of_levels = (Z.T @ wy).reshape(*s.shape[:2], y.shape[1])
            Zy.append(R.T @ of_levels)
        for k in range(y.shape[1]):
            of_k = [Zy_f[:, :, k, None] for Zy_f in Zy]
            yield base.with_response(Xy[:, k], of_k, yy[k])


@dataclass(frozen=True, eq=False)
class GroupSums:
    """The cross-products of each group apart, of a model with one factor.

    tt : (G, p + 1, p + 1)
    totals : (G, 3), numbers of rows, sums of weights and of their logarithms
    """

    fit: LMMFit
    tt: FloatArray
    totals: FloatArray

    @classmethod
    def of(cls, design: Design, fit: LMMFit) -> GroupSums:
        T = standardized_rows(design, fit.statistics.columns, slice(None))
        codes = design.factors[0].codes
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(design.factors[0].n_levels))
        WT = T if design.weights is None else T * design.weights[:, None]
        products = T[order, :, None] * WT[order, None, :]
        ones = np.ones(len(codes))
        weights = ones if design.weights is None else design.weights
        totals = [np.bincount(codes, w) for w in (ones, weights, np.log(weights))]
        tt = np.add.reduceat(products, starts, axis=0)
        return cls(fit, tt, np.column_stack(totals))

    def statistics(self, groups: IntArray) -> CrossProducts:
        """Return the cross-products of groups, each once for every time given."""
        base = self.fit.statistics
        n_rows, weights, logs = self.totals[groups].sum(axis=0)
        return replace(
            base,
            levels=(np.arange(len(groups)),),
            n_rows=int(n_rows),
            sum_weights=float(weights),
            sum_log_weights=float(logs),
            tt=self.tt[groups].sum(axis=0),
            s=(base.s[0][groups],),
            b=(base.b[0][groups],),
        )


def resampled_rows(
    design: Design, unit: int, groups: IntArray
) -> tuple[Design, list[IntArray]]:
    """Return the rows of groups, each once for every time given.

    Every copy of a group is a group of its own, and so is every level within it;
    levels that are not within one group stay what they are.

    Returns
    -------
    design : the rows
    sources : per factor, which level of the design each new level is a copy of
    """
    codes = design.factors[unit].codes
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(design.factors[unit].n_levels + 1))
    parts = [order[ends[g] : ends[g + 1]] for g in groups]
    rows = np.concatenate(parts)
    copies = np.repeat(np.arange(len(groups)), [len(part) for part in parts])
    factors, sources = [], []
    for factor in design.factors:
        old = factor.codes[rows]
        within = nested(factor.codes, codes)
        key = copies * factor.n_levels + old if within else old
        levels, new = np.unique(key, return_inverse=True)
        factors.append(Factor(new, np.arange(len(levels))))
        sources.append(levels % factor.n_levels)
    again = replace(design.take(rows), factors=tuple(factors))
    return again, sources


def outermost(design: Design) -> list[int]:
    """Return the factors that are within no other."""
    codes = [factor.codes for factor in design.factors]
    n_levels = [factor.n_levels for factor in design.factors]
    return [
        f
        for f in range(len(codes))
        if not any(
            nested(codes[f], codes[h]) and (n_levels[h], h) < (n_levels[f], f)
            for h in range(len(codes))
            if h != f
        )
    ]


def refit(
    statistics: CrossProducts, fit: LMMFit, model: Criterion | None = None
) -> Optimum | None:
    """Fit a model again, to other cross-products in the same units.

    model : the criterion of the fit, if nothing but y is another; the strategy
        that was prepared for it is used again

    Returns None if columns of X depend on each other now.
    """
    selected = statistics.select(fit.kept)
    if model is None:
        if (residual_norms(selected.tt[:-1, :-1], DEPENDENT) <= DEPENDENT).any():
            return None
        return minimize(start(make_criterion(selected, fit.reml, fit.weights), fit))
    criterion = copy.copy(model)
    criterion.statistics = selected
    return minimize(start(criterion, fit))


def start(criterion: Criterion, fit: LMMFit) -> Point:
    """Return the estimate as the start of a search.

    At 0 the gradient by a parameter vanishes, and the search would not leave.
    """
    theta = fit.theta_standardized.copy()
    for k, (term, _, part) in enumerate(criterion.terms()):
        if k not in fit.unidentified and not theta[part].any():
            theta[part] = NUDGE * term.structure.start(term.q)
    return criterion.at(theta)


def lost_a_direction(point: Point) -> bool:
    """Say whether a covariance is singular at an optimum."""
    for term, place, _ in point.criterion.terms():
        s = np.linalg.svd(point.L[term.factor][place, place], compute_uv=False)
        if s[-1] <= ZERO * s[0]:
            return True
    return False
