"""Cross-products without some of their rows, and refits to the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.cross_products import CrossProducts, moved_entries
from sklearn_lmm._engine.design import Design, Factor
from sklearn_lmm._engine.fit import RANK_SUSPECT, fit_statistics
from sklearn_lmm._engine.linalg import residual_norms
from sklearn_lmm._engine.optimize import minimize
from sklearn_lmm._engine.result import LMMFit, make_criterion, result_of
from sklearn_lmm._engine.row_sums import sum_rows
from sklearn_lmm._types import IntArray


class Downdating:
    """Takes rows out of cross-products.

    Subtracting costs as much as copying them, whatever the number of rows that
    stay.  Sums are in the units of the whole; levels without rows are dropped.
    """

    def __init__(self, statistics: CrossProducts, design: Design) -> None:
        self.statistics, self.design = statistics, design
        self._counts = [
            np.bincount(factor.codes, minlength=factor.n_levels)
            for factor in design.factors
        ]
        self._keys = {}
        for pair, n in statistics.n.items():
            n.sort_indices()
            rows = np.repeat(np.arange(n.shape[0]), np.diff(n.indptr))
            self._keys[pair] = rows * n.shape[1] + n.indices

    def without(self, run: IntArray) -> CrossProducts:
        """Return the cross-products of all rows but those of `run`."""
        whole, part = self.statistics, _rows(self.design, run)
        touched = [factor.levels for factor in part.factors]
        sums = sum_rows(part, whole.columns, whole.blocks)
        s, b, n, staying = [], [], {}, []
        for f, levels in enumerate(touched):
            s_f, b_f = whole.s[f].copy(), whole.b[f].copy()
            s_f[levels] -= sums.s[f]
            b_f[levels] -= sums.b[f]
            s.append(s_f)
            b.append(b_f)
            gone = np.bincount(part.factors[f].codes, minlength=len(levels))
            staying.append(np.ones(len(s_f), dtype=bool))
            staying[f][levels] = self._counts[f][levels] > gone
        for (f, h), n_part in sums.n.items():
            difference = self._between((f, h), n_part, (touched[f], touched[h]))
            wide = [np.repeat(staying[k], s[k].shape[1]) for k in (f, h)]
            n[f, h] = difference[wide[0]][:, wide[1]]
        weights = part.weights
        return replace(
            whole,
            levels=tuple(
                levels[stays]
                for levels, stays in zip(whole.levels, staying, strict=True)
            ),
            n_rows=whole.n_rows - len(run),
            sum_weights=whole.sum_weights
            - float(len(run) if weights is None else weights.sum()),
            sum_log_weights=whole.sum_log_weights
            - float(0.0 if weights is None else np.log(weights).sum()),
            tt=whole.tt - sums.tt,
            s=tuple(s_f[stays] for s_f, stays in zip(s, staying, strict=True)),
            b=tuple(b_f[stays] for b_f, stays in zip(b, staying, strict=True)),
            n=n,
        )

    def _between(
        self,
        pair: tuple[int, int],
        part: sparse.csr_array,
        levels: tuple[IntArray, IntArray],
    ) -> sparse.csr_array:
        """Return Z_f'Z_h less that of the part; what is stored stays stored.

        levels : of f and of h, those that the part has
        """
        whole, s = self.statistics.n[pair], self.statistics.s
        q = s[pair[0]].shape[1], s[pair[1]].shape[1]
        rows, columns, values = moved_entries(part, q, levels)
        places = np.searchsorted(self._keys[pair], rows * whole.shape[1] + columns)
        data = whole.data.copy()
        data[places] -= values
        return sparse.csr_array((data, whole.indices, whole.indptr), whole.shape)


def full_rank(statistics: CrossProducts) -> bool:
    """Say whether the columns of X are linearly independent in these rows."""
    left = residual_norms(statistics.tt[:-1, :-1], RANK_SUSPECT)
    return bool((left > RANK_SUSPECT).all())


def refits(
    fit: LMMFit, design: Design, runs: list[IntArray], steps: int | None
) -> Iterator[LMMFit | None]:
    """Yield the fit without each of some sets of rows, in the user's units.

    steps : Newton steps from the theta of all rows; None for a fit of its own
    None stands for a set without which X loses rank.
    """
    downdating = Downdating(fit.statistics, design)
    for run in runs:
        rest = downdating.without(run)
        if not full_rank(rest.select(fit.kept)):
            yield None
        elif steps is None:
            yield fit_statistics(rest, fit.kept, reml=fit.reml, weights=fit.weights)
        else:
            yield _some_steps(fit, rest, steps)


def _some_steps(fit: LMMFit, rest: CrossProducts, steps: int) -> LMMFit:
    criterion = make_criterion(rest.select(fit.kept), fit.reml, fit.weights)
    start = criterion.at(fit.theta_standardized)
    optimum = minimize(start, max_iter=steps)
    return result_of(optimum, rest, fit.kept, fit.unidentified, fit.solver, fit.weights)


def _rows(design: Design, run: IntArray) -> Design:
    """Return some rows; the labels of their levels are places among all levels."""
    some, factors = design.take(run), []
    for factor in some.factors:
        levels, codes = np.unique(factor.codes, return_inverse=True)
        factors.append(Factor(codes, levels))
    return replace(some, factors=tuple(factors))
