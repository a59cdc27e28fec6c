"""Standard deviations and correlations as functions of theta and log sigma.

With Psi = L L' the relative covariance of a term in the user's units,

    sd_i = sigma sqrt(Psi_ii),     cor_ij = Psi_ij / sqrt(Psi_ii Psi_jj),

and with A_m = d Psi / d theta_m

    d log sd_i / d theta_m = A_m,ii / (2 Psi_ii),     d log sd_i / d log sigma = 1,
    d cor_ij = A_m,ij / sqrt(Psi_ii Psi_jj)
               - cor_ij (A_m,ii / Psi_ii + A_m,jj / Psi_jj) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.design import Term
from sklearn_lmm._engine.information import parameter_covariance
from sklearn_lmm._types import BoolArray, FloatArray
from sklearn_lmm.covariance import CompoundSymmetry, Diagonal, Identity

FLAT = 1e-8
"""A parameter that moves more than this along a flat direction is not known."""


@dataclass(frozen=True)
class VarianceParameter:
    """A standard deviation, a correlation, or sigma.

    term : position of the random term; -1 for sigma
    coefficients : positions within the term: (i,) of a standard deviation,
        (i, j) of a correlation; all of them where they share the parameter
    """

    kind: Literal["sd", "cor", "sigma"]
    term: int = -1
    coefficients: tuple[int, ...] = ()


def parameters_of(terms: Sequence[Term]) -> list[VarianceParameter]:
    """Return what there is to report of every term, and sigma at the end."""
    found = []
    for k, term in enumerate(terms):
        q = term.q
        shared = isinstance(term.structure, Identity | CompoundSymmetry)
        everything = tuple(range(q))
        sds: list[tuple[int, ...]] = [(i,) for i in everything]
        cors: list[tuple[int, ...]] = [
            (i, j) for i in range(q) for j in range(i + 1, q)
        ]
        if shared:
            sds, cors = [everything], [everything]
        if isinstance(term.structure, Diagonal | Identity) or q == 1:
            cors = []
        found += [VarianceParameter("sd", k, c) for c in sds]
        found += [VarianceParameter("cor", k, c) for c in cors]
    return [*found, VarianceParameter("sigma")]


@dataclass(frozen=True, eq=False)
class VarianceEstimates:
    """Variance parameters at a point, in the user's units.

    values : (k,); NaN for a correlation with a coefficient of no variance
    errors : (k,) standard errors of log sd, atanh cor and log sigma; NaN at a
        bound, and where the criterion is flat
    flat : (k,) bool, whether the criterion tells nothing of the parameter
    """

    values: FloatArray
    errors: FloatArray
    flat: BoolArray


def variance_estimates(
    point: Point, parameters: Sequence[VarianceParameter]
) -> VarianceEstimates:
    """Return the parameters at an optimum, with standard errors."""
    values, gradient = values_and_gradient(point, parameters)
    inverse, flat_directions = parameter_covariance(point)
    # The information is on sigma^2, in units where it is 1: log sigma changes half
    # as much.
    J = np.column_stack([0.5 * gradient[:, -1], gradient[:, :-1]])
    flat = np.asarray((np.abs(J @ flat_directions) > FLAT).any(axis=1))
    errors = np.sqrt(np.sum((J @ inverse) * J, axis=1))
    return VarianceEstimates(values, np.where(flat, np.nan, errors), flat)


def values_and_gradient(
    point: Point, parameters: Sequence[VarianceParameter]
) -> tuple[FloatArray, FloatArray]:
    """Return values (k,) and d(log sd, atanh cor, log sigma)/d(theta, log sigma)."""
    criterion = point.criterion
    statistics = criterion.statistics
    sigma = float(np.sqrt(point.sigma2) * statistics.columns.scale[-1])
    values = np.full(len(parameters), np.nan)
    gradient = np.full((len(parameters), len(point.theta) + 1), np.nan)
    terms = list(criterion.terms())
    for row, parameter in enumerate(parameters):
        if parameter.kind == "sigma":
            values[row], gradient[row] = sigma, 0.0
            gradient[row, -1] = 1.0
            continue
        term, place, part = terms[parameter.term]
        R = statistics.blocks[parameter.term].map()
        L = R @ point.L[term.factor][place, place]
        dL = R @ term.structure.derivative(point.theta[part], term.q)
        A = dL @ L.T
        A = A + A.swapaxes(1, 2)
        i, j = parameter.coefficients[0], parameter.coefficients[-1]
        gradient[row] = 0.0
        if parameter.kind == "sd":
            relative, gradient[row, part] = _deviation(L, A, i)
            values[row], gradient[row, -1] = sigma * relative, 1.0
        else:
            values[row], gradient[row, part] = _correlation(L, A, i, j)
    return values, gradient


def _deviation(L: FloatArray, A: FloatArray, i: int) -> tuple[float, FloatArray]:
    variance = float(L[i] @ L[i])
    if variance == 0.0:
        return 0.0, np.full(len(A), np.nan)
    return float(np.sqrt(variance)), A[:, i, i] / (2.0 * variance)


def _correlation(
    L: FloatArray, A: FloatArray, i: int, j: int
) -> tuple[float, FloatArray]:
    """Return the correlation and the gradient of its atanh; NaN at a bound."""
    a, b = np.linalg.norm(L[i]), np.linalg.norm(L[j])
    if a * b == 0.0:
        return np.nan, np.full(len(A), np.nan)
    correlation = float(np.clip(L[i] @ L[j] / (a * b), -1.0, 1.0))
    slope = A[:, i, j] / (a * b) - 0.5 * correlation * (
        A[:, i, i] / a**2 + A[:, j, j] / b**2
    )
    # 1 - cor^2 from the angle between the rows, without cancellation.
    across = L[i] / a - correlation * L[j] / b
    rest = float(across @ across)
    if rest < 1e-14:
        return float(np.sign(correlation)), np.full(len(A), np.nan)
    return correlation, slope / rest
