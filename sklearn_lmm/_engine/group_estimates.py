"""Least squares group by group, beside which shrinkage can be seen."""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.result import LMMFit, factor_maps
from sklearn_lmm._types import FloatArray

RANK = 1e-8
"""Eigenvalues of a group's Z'Z below this part of the largest are zeros."""


def group_least_squares(fit: LMMFit, factor: int) -> FloatArray:
    """Return each group's effects by least squares (G, q), the user's units.

    (Z_g'Z_g)^-1 Z_g'(y - X beta - Z_h b_h), h the other factors: what the
    group's own rows say, without any shrinkage towards the population.  NaN for
    groups whose rows do not determine all q coefficients.
    """
    point = fit.effects_point()
    statistics = point.criterion.statistics
    others = [U @ point.residual[:, None] for U in point.U]
    others[factor] = np.zeros_like(others[factor])
    explained = statistics.ztz(tuple(others))[factor]
    left = statistics.b[factor] @ point.residual[:, None] - explained
    effects = _solved(statistics.s[factor], left)[:, :, 0]
    scale = statistics.columns.scale[-1]
    return np.asarray(scale * effects @ factor_maps(statistics)[factor].T)


def _solved(S: FloatArray, b: FloatArray) -> FloatArray:
    """Return S^-1 b (G, q, k), NaN where S (G, q, q) is singular."""
    values, vectors = np.linalg.eigh(S)
    determined = values[:, 0] > RANK * values[:, -1]
    inverse = np.full_like(values, np.nan)
    inverse[determined] = 1.0 / values[determined]
    return np.asarray(vectors @ (inverse[:, :, None] * (vectors.mT @ b)))
