"""Errors of new rows, as far as those of earlier rows of their groups tell them.

For the rows h of a group that were observed and a new row n, with the errors'
covariance sigma^2 R and w = R_hh^-1 R_hn, the best linear prediction of y_n is

    x'beta + z'b + w'(y_h - X_h beta - Z_h b),

and it is off by the error of (x - X_h'w)'betahat + (z - Z_h'w)'bhat and by an
independent error of variance sigma^2 (R_nn - R_nh w) (Goldberger 1962, J. Amer.
Statist. Assoc. 57: 369-375).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.correlation import Correlation, blocks_of
from sklearn_lmm._engine.factor import PerFactor, level_product
from sklearn_lmm._engine.prediction import NewRows, PredictionError
from sklearn_lmm._engine.result import LMMFit, factor_maps
from sklearn_lmm._types import FloatArray, IntArray

ENTRIES_AT_ONCE = 1 << 24
"""Entries of dense columns of Z' made at a time."""


@dataclass(frozen=True, eq=False)
class CarriedErrors:
    """What the errors of earlier rows say of those of new ones.

    weights : w of every new row, sparse (n_new, n_old)
    variances : what is left, (n_new,), relative to sigma^2
    """

    weights: sparse.csr_array
    variances: FloatArray


def carry_errors(
    correlation: Correlation,
    u: FloatArray,
    order: IntArray,
    starts: IntArray,
    deviations: FloatArray,
    n_old: int,
) -> CarriedErrors:
    """Return what n_old earlier rows say of the new rows that follow them.

    order (n,), starts (G,) : all rows sorted by group, and where groups start
    deviations : (n,), sqrt(R_ii) of the rows, not sorted
    """
    n = len(order)
    ends = np.append(starts[1:], n)
    has_new = np.add.reduceat(order >= n_old, starts) > 0
    blocks = blocks_of(correlation, u, starts[has_new], ends[has_new], n)
    variances = np.empty(n - n_old)
    rows, columns, values = [], [], []
    for start, end, C in zip(starts[has_new], ends[has_new], blocks, strict=True):
        here = order[start:end]
        old, new = np.flatnonzero(here < n_old), np.flatnonzero(here >= n_old)
        w = np.linalg.solve(C[np.ix_(old, old)], C[np.ix_(old, new)])
        left = np.diag(C)[new] - np.sum(C[np.ix_(old, new)] * w, axis=0)
        variances[here[new] - n_old] = deviations[here[new]] ** 2 * left.clip(0.0)
        w *= deviations[here[new]] / deviations[here[old]][:, None]
        rows.append(np.tile(here[new] - n_old, len(old)))
        columns.append(np.repeat(here[old], len(new)))
        values.append(w.ravel())
    place = (np.concatenate(rows), np.concatenate(columns))
    weights = sparse.coo_array((np.concatenate(values), place), (n - n_old, n_old))
    return CarriedErrors(weights.tocsr(), variances)


def combined_variance(
    fit: LMMFit, X: FloatArray, Z: tuple[sparse.csr_array, ...]
) -> FloatArray:
    """Return Var(x'(betahat - beta) + z'(bhat - b)) (n,), theta taken as known.

    X : (n, p), the intercept included
    Z : per factor (n, G q), level by level; a row may touch any number of levels
    """
    widths = [effects.shape[1] for effects in fit.effects]
    single = [_one_level(Z_f, q) for Z_f, q in zip(Z, widths, strict=True)]
    lone = [pair for pair in single if pair is not None]
    if len(lone) == len(Z):
        rows = NewRows(X, tuple(c for c, _ in lone), tuple(z for _, z in lone))
        return PredictionError(fit).variance(rows, np.zeros(len(Z), dtype=bool))
    return _by_projection(fit, X, Z)


def _one_level(Z: sparse.csr_array, q: int) -> tuple[IntArray, FloatArray] | None:
    """Return level (-1 for none) and z (n, q) of rows; None if one has several."""
    n = Z.shape[0]
    row = np.repeat(np.arange(n), np.diff(Z.indptr))
    level = Z.indices // q
    codes = np.full(n, -1, dtype=np.intp)
    codes[row] = level
    if (codes[row] != level).any():
        return None
    z = np.zeros((n, q))
    z[row, Z.indices % q] = Z.data
    return codes, z


def _by_projection(
    fit: LMMFit, X: FloatArray, Z: tuple[sparse.csr_array, ...]
) -> FloatArray:
    point = fit.point()
    statistics = point.criterion.statistics
    R = statistics.columns.map()[:-1, :-1]
    maps = factor_maps(statistics)
    n, size = len(X), sum(Z_f.shape[1] for Z_f in Z)
    at_once = max(1, ENTRIES_AT_ONCE // size)
    variance = np.empty(n)
    for start in range(0, n, at_once):
        part = slice(start, start + at_once)
        b = _columns(tuple(Z_f[part] for Z_f in Z), maps)
        d = X[part][:, fit.kept] @ R
        for b_f, U in zip(b, point.U, strict=True):
            d = d - level_product(b_f, U[:, :, :-1])
        variance[part] = np.sum((d @ point.inverse_R_X) ** 2, axis=1)
        for b_f, C_b in zip(b, point.state.project(b)[1], strict=True):
            variance[part] += np.sum(b_f * C_b, axis=(0, 1))
    return fit.sigma**2 * variance


def _columns(Z: tuple[sparse.csr_array, ...], maps: list[FloatArray]) -> PerFactor:
    """Return rows of Z as columns (G, q, c), in the engine's units."""
    columns = []
    for Z_f, R_f in zip(Z, maps, strict=True):
        rows = Z_f.toarray().reshape(Z_f.shape[0], -1, len(R_f)) @ R_f
        columns.append(np.ascontiguousarray(rows.transpose(1, 2, 0)))
    return tuple(columns)
