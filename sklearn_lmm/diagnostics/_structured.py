"""Residuals of a model whose errors have a structure of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sklearn_lmm._engine.error_rows import narrow, uncorrelated
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.whitening import SymmetricRoot, cholesky_residuals
from sklearn_lmm._residual_fit import read_errors
from sklearn_lmm._rows import FitRows
from sklearn_lmm._types import FloatArray

KINDS = ("response", "pearson", "scaled", "normalized", "whitened")


def structured_residuals(
    est: Any, given: FitRows, data: tuple[Any, ...], kind: str, subtracted: set[int]
) -> FloatArray:
    """Return residuals of the rows that count.

    data : X, y, groups and sample_weight as the user gave them

    Raises
    ------
    ValueError
        If the kind does not exist for these errors and effects.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind={kind!r} is not available for a model with residual="
            f"{est.residual!r}: there are {', '.join(map(repr, KINDS))}."
        )
    fit = given.fit
    assert fit.errors is not None
    if kind == "response":
        return _response(given, subtracted)
    _, errors = read_errors(est, given.layout, given.design, *data)
    left = [f for f in range(len(given.design.factors)) if f not in subtracted]
    if kind == "whitened" or (left and kind == "normalized"):
        return _uncorrelated(est, given, errors, kind, left)
    deviations = errors.deviations(fit.errors.u)
    if given.design.weights is not None and fit.weights == "precision":
        deviations = deviations / np.sqrt(given.design.weights)
    e = _response(given, subtracted) / deviations
    if kind == "normalized":
        e = uncorrelated(errors, fit.errors.u, e[:, None])[:, 0]
    return e if kind == "pearson" else e / fit.sigma


def _uncorrelated(
    est: Any, given: FitRows, errors: Errors, kind: str, left: list[int]
) -> FloatArray:
    """Return residuals over sigma without the correlation that factors make."""
    fit = given.fit
    assert fit.errors is not None
    u, order = fit.errors.u, errors.order
    rows = FittedRows.of(fit, given.design.take(order))
    errors = replace(errors, order=np.arange(len(order)))
    deviations = errors.deviations(u)

    def white(columns: FloatArray) -> FloatArray:
        return uncorrelated(errors, u, columns / deviations[:, None])

    if kind == "whitened":
        e = white(SymmetricRoot(rows, left).residuals()[:, None])[:, 0]
    else:
        e = _sequential(est, given, errors, rows, left, white)
    back: FloatArray = np.empty_like(e)
    back[order] = e / np.sqrt(rows.point.sigma2)
    return back


def _sequential(
    est: Any,
    given: FitRows,
    errors: Errors,
    rows: FittedRows,
    left: list[int],
    white: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    within = all(narrow(errors, rows.codes[f]) for f in left)
    e = cholesky_residuals(rows, left, white) if within else None
    if e is None:
        names = [given.layout.roles.groupings[f].name for f in left]
        raise ValueError(
            f"kind='normalized' takes away the correlation by {names} row by row, for "
            f"which the series of {est.residual!r} have to lie within their levels, "
            "and these within each other. kind='whitened' knows no such condition."
        )
    return e


def _response(given: FitRows, subtracted: set[int]) -> FloatArray:
    """Return y less the fixed part and some factors' effects (n,)."""
    rows = given.beside_fit
    e = rows.less(sorted(subtracted)) / rows.root_weights
    return np.asarray(e * rows.statistics.columns.scale[-1])
