"""Residuals of a model whose errors have a structure of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_lmm._engine.error_rows import relative_deviations, uncorrelated
from sklearn_lmm._residual_fit import read_errors
from sklearn_lmm._rows import FitRows
from sklearn_lmm._types import FloatArray

KINDS = ("response", "pearson", "scaled", "normalized")


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
    every = set(range(len(given.design.factors)))
    if kind not in KINDS or (kind == "normalized" and subtracted != every):
        raise ValueError(
            f"kind={kind!r} is not available here for a model with residual="
            f"{est.residual!r}: there are {', '.join(map(repr, KINDS))}, the last "
            "with all random effects subtracted (random_effects=True)."
        )
    fit = given.fit
    assert fit.errors is not None
    u, e = fit.errors.u, _errors(given, subtracted)
    if kind == "response":
        return e
    _, errors = read_errors(est, given.layout, given.design, *data)
    deviations = relative_deviations(errors, u)
    if given.design.weights is not None and fit.weights == "precision":
        deviations = deviations / np.sqrt(given.design.weights)
    e = e / deviations
    if kind == "normalized":
        e = uncorrelated(errors, u, e)
    return e if kind == "pearson" else e / fit.sigma


def _errors(given: FitRows, subtracted: set[int]) -> FloatArray:
    """Return y less the fixed part and some factors' effects (n,)."""
    fit, design = given.fit, given.design
    first = int(design.intercept)
    e = design.y - design.X @ fit.beta[first:] - first * fit.beta[:1].sum()
    blocks = zip(design.blocks, fit.statistics.slices, strict=True)
    for block, columns in blocks:
        if block.factor not in subtracted:
            continue
        codes = design.factors[block.factor].codes
        b = fit.effects[block.factor][codes, columns]
        ones = [np.ones(len(e))] * block.intercept
        e = e - np.sum(np.column_stack([*ones, *block.slopes]) * b, axis=1)
    return np.asarray(e)
