"""How much each part of a model varies, and how many parameters it uses up.

Over the rows of the fit, with Sigma_k the covariance of term k and z_ki its
columns in row i (Nakagawa, Johnson and Schielzeth 2017, J. R. Soc. Interface 14:
20170213; Johnson 2014, Methods Ecol. Evol. 5: 944-946, for slopes):

    var_fixed  = sum_i (x_i'beta - mean)^2 / (n - 1),
    var_k      = mean_i z_ki' Sigma_k z_ki = tr(Sigma_k Z_k'Z_k) / n.

The fitted values are yhat = H y with H = I - P, so that

    tr H = p + sum_f tr(Psi_f sum_g ([Q]_gg - F_g H_X^-1 F_g')),   H_X = X'V^-1X.

n is the sum of the weights: sums are weighted as the fit's are.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.linalg import row_gram
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._types import FloatArray


def fixed_variance(fit: LMMFit) -> float | None:
    """Return var_fixed; None if the sums do not tell the mean of X beta.

    They do where the fixed part, or a random term, has an intercept.
    """
    statistics = fit.row_statistics.select(fit.kept)
    columns, n = statistics.columns, statistics.sum_weights
    sums = _column_sums(statistics)
    if sums is None:
        return None
    # X beta in the engine's units, but for a constant.
    R = columns.map()[:-1, :-1]
    beta = np.linalg.solve(R, fit.beta[fit.kept])
    squares = float(beta @ statistics.tt[:-1, :-1] @ beta)
    total = float(sums @ beta)
    return max(squares - total**2 / n, 0.0) / (n - 1.0)


def _column_sums(statistics: CrossProducts) -> FloatArray | None:
    """Return 1'W X (p,), from a column of ones wherever there is one."""
    if statistics.intercept:
        return statistics.tt[0, :-1]
    pairs = zip(statistics.terms, statistics.slices, statistics.blocks, strict=True)
    for term, place, units in pairs:
        if term.intercept:
            b = statistics.b[term.factor][:, place.start, :-1]
            return np.asarray(b.sum(axis=0) * units.scale[0])
    return None


def term_variances(fit: LMMFit) -> FloatArray:
    """Return var_k of every random term (k,)."""
    statistics = fit.row_statistics
    variances = []
    for term, place, units in zip(
        statistics.terms, statistics.slices, statistics.blocks, strict=True
    ):
        R = np.linalg.inv(units.map())
        covariance = R @ fit.covariances[term.factor][place, place] @ R.T
        ZtZ = statistics.s[term.factor][:, place, place].sum(axis=0)
        variances.append(np.sum(covariance * ZtZ) / statistics.sum_weights)
    return np.array(variances)


def effective_parameters(point: Point) -> float:
    """Return tr H, the effective number of parameters of the fitted values."""
    total = float(point.criterion.statistics.p)
    for L, Q, F in zip(point.L, point.state.block_sums(), point.F, strict=True):
        total += float(np.sum((L @ L.T) * (Q - row_gram(F))))
    return total
