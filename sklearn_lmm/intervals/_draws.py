"""What replicates of a fitted model are drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_draws import ErrorDraws, root_of
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.simulation import (
    NormalDraws,
    ResampledDraws,
    coefficient_matrices,
    reflated,
    square_root,
)
from sklearn_lmm._types import FloatArray


def seeds(random_state: Any, n: int) -> list[np.random.SeedSequence]:
    """Return an independent seed for each replicate, whoever computes it."""
    state = check_random_state(random_state)
    entropy = state.randint(np.iinfo(np.int32).max, size=4).tolist()
    return np.random.SeedSequence(entropy).spawn(n)


def error_scale(design: Design, fit: LMMFit) -> FloatArray:
    """Return the standard deviation (n,) of every row's error."""
    precisions = design.weights if fit.weights == "precision" else None
    if precisions is None:
        return np.full(len(design.y), fit.sigma)
    return fit.sigma / np.sqrt(precisions)


def normal_draws(design: Design, fit: LMMFit) -> NormalDraws:
    """Return draws of y with new effects of every level."""
    return NormalDraws(
        mean=fit.fixed_part(design.X),
        Z=coefficient_matrices(design),
        error_scale=error_scale(design, fit),
        roots=[square_root(covariance) for covariance in fit.covariances],
        n_levels=[factor.n_levels for factor in design.factors],
    )


def error_draws(design: Design, fit: LMMFit, errors: Errors) -> ErrorDraws:
    """Return draws of y with new effects of every level and errors with a structure.

    errors : of the rows of the design, which are those of the fit
    """
    plain = normal_draws(design, fit)
    assert fit.errors is not None
    u = fit.errors.u
    return ErrorDraws(
        mean=plain.mean,
        Z=plain.Z,
        error_scale=plain.error_scale * errors.deviations(u),
        roots=plain.roots,
        n_levels=plain.n_levels,
        root=root_of(errors, u),
    )


def resampled_draws(design: Design, fit: LMMFit) -> ResampledDraws:
    """Return draws of y from the fit's own residuals and predicted effects."""
    mean, Z = fit.fixed_part(design.X), coefficient_matrices(design)
    residuals = design.y - mean
    for Z_f, effects in zip(Z, fit.effects, strict=True):
        residuals = residuals - Z_f @ effects.ravel()
    scale = error_scale(design, fit)
    errors = reflated((residuals / scale)[:, None], np.eye(1))[:, 0]
    pairs = zip(fit.effects, fit.covariances, strict=True)
    pools = [reflated(effects, covariance) for effects, covariance in pairs]
    return ResampledDraws(mean, Z, scale, errors, pools)


def one_row_each(design: Design, fit: LMMFit) -> Design:
    """Return a design in which frequency weights are rows.

    Raises
    ------
    ValueError
        If a weight is not a whole number.
    """
    if design.weights is None or fit.weights == "precision":
        return design
    copies = np.rint(design.weights).astype(int)
    if not np.array_equal(copies, design.weights):
        raise ValueError(
            "Frequency weights say how many rows a row stands for; to draw rows from "
            "the model they must be whole numbers. weights='precision' gives the "
            "weights the meaning of a smaller residual variance."
        )
    rows = np.repeat(np.arange(len(copies)), copies)
    return replace(design.take(rows), weights=None)
