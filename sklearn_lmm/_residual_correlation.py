"""From a correlation structure and the places of rows to the engine's object."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._engine import autoregressive, correlation_families, exchangeable
from sklearn_lmm._engine.correlation import Correlation, Independent
from sklearn_lmm._labels import Levels
from sklearn_lmm._types import FloatArray, IntArray
from sklearn_lmm.residuals import (
    AR1,
    ARMA,
    ContinuousAR1,
    EqualCorrelation,
    Exponential,
    Gaussian,
    Matern,
    UnstructuredErrors,
)
from sklearn_lmm.residuals._base import CorrelationStructure
from sklearn_lmm.residuals._spatial import SpatialStructure


def build_correlation(
    part: CorrelationStructure | None,
    starts: IntArray,
    places: FloatArray,
    occasions: Levels | None,
) -> tuple[Correlation, FloatArray]:
    """Return the correlation, and its unconstrained parameters, NaN where free.

    starts : (G,), the first row of every group
    places : (n, d), where the rows stand, sorted within groups

    Raises
    ------
    ValueError
        If known parameters make no correlation of these rows.
    """
    if part is None:
        return Independent(len(places)), np.zeros(0)
    correlation = _correlation(part, starts, places, occasions)
    known = np.array([np.nan if x is None else x for x in _known(part)], float)
    if len(known) < correlation.size:
        known = np.full(correlation.size, np.nan)
    if np.isnan(known).all():
        return correlation, known
    values = correlation.values(correlation.start())
    given = np.where(np.isnan(known), values, known)
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            u = correlation.unconstrained(given)
    except ValueError:
        u = np.full(len(given), np.nan)
    if not np.isfinite(u).all():
        raise ValueError(f"{part!r} is no correlation of these rows.")
    return correlation, np.where(np.isnan(known), np.nan, u)


def _correlation(
    part: CorrelationStructure,
    starts: IntArray,
    places: FloatArray,
    occasions: Levels | None,
) -> Correlation:
    if isinstance(part, AR1):
        return autoregressive.AR1(_gaps(starts, places))
    if isinstance(part, ContinuousAR1):
        return autoregressive.ContinuousAR1(_gaps(starts, places), decay=True)
    if isinstance(part, ARMA):
        return correlation_families.Arma(starts, places, part.p, part.q)
    if isinstance(part, EqualCorrelation):
        return exchangeable.EqualCorrelation(starts, len(places))
    if isinstance(part, UnstructuredErrors):
        assert occasions is not None
        _check_pairs(part, starts, places, occasions)
        count = len(occasions.labels)
        return correlation_families.Unstructured(starts, places, count)
    assert isinstance(part, SpatialStructure)
    kernel = _kernel(part)
    nugget = part.nugget is not False
    if kernel == "exponential" and places.shape[1] == 1 and not nugget:
        return autoregressive.ContinuousAR1(_gaps(starts, places), decay=False)
    return correlation_families.Spatial(starts, places, kernel, nugget)


def _gaps(starts: IntArray, places: FloatArray) -> FloatArray:
    gaps = np.append(0.0, np.diff(places[:, 0]))
    gaps[starts] = 0.0
    return gaps


def _kernel(part: SpatialStructure) -> str:
    if isinstance(part, Gaussian):
        return "gaussian"
    if isinstance(part, Matern):
        return {0.5: "exponential", 1.5: "matern3", 2.5: "matern5"}[part.nu]
    assert isinstance(part, Exponential)
    return "exponential"


def _check_pairs(
    part: UnstructuredErrors, starts: IntArray, places: FloatArray, occasions: Levels
) -> None:
    """Refuse occasions of which the data have no group with both."""
    count = len(occasions.labels)
    group = np.zeros(len(places), dtype=np.intp)
    group[starts[1:]] = 1
    seen = np.zeros((len(starts), count))
    seen[np.cumsum(group), places[:, 0].astype(np.intp)] = 1.0
    i, j = np.nonzero(seen.T @ seen == 0)
    if len(i):
        names = [repr(occasions.labels.tolist()[k]) for k in (i[0], j[0])]
        raise ValueError(
            f"{part!r}: no group has rows of both {listed(names, quote=False)}, so "
            "that their covariance cannot be estimated."
        )


def _known(part: CorrelationStructure) -> list[Any]:
    """Return the parameters on the user's scale, None where they are estimated."""
    if isinstance(part, AR1 | ContinuousAR1):
        return [part.phi]
    if isinstance(part, ARMA):
        return [*(part.ar or [None] * part.p), *(part.ma or [None] * part.q)]
    if isinstance(part, EqualCorrelation):
        return [part.rho]
    if isinstance(part, SpatialStructure):
        nugget = [] if part.nugget is False else [part.nugget]
        return [part.range, *(None if x is True else x for x in nugget)]
    return []


def parameter_names(
    part: CorrelationStructure | None, occasions: Levels | None
) -> list[str]:
    """Return a name for every parameter of a correlation."""
    if isinstance(part, AR1 | ContinuousAR1):
        return ["phi"]
    if isinstance(part, ARMA):
        ar = [f"ar{i}" for i in range(1, part.p + 1)]
        return ar + [f"ma{j}" for j in range(1, part.q + 1)]
    if isinstance(part, EqualCorrelation):
        return ["rho"]
    if isinstance(part, UnstructuredErrors):
        assert occasions is not None
        labels = occasions.labels.tolist()
        return [
            f"correlation[{a}, {b}]"
            for i, a in enumerate(labels)
            for b in labels[i + 1 :]
        ]
    if isinstance(part, SpatialStructure):
        return ["range", *(["nugget"] if part.nugget is not False else [])]
    return []
