"""Semivariogram of residuals: how unlike rows become with distance."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_lmm._engine.error_rows import correlations
from sklearn_lmm._residual_fit import read_errors
from sklearn_lmm._rows import FitRows
from sklearn_lmm._types import FloatArray, IntArray
from sklearn_lmm.diagnostics._series import Place, Series, residual_series

MOST_PAIRS = 1_000_000
"""Pairs beyond which a sample of them is taken."""

KINDS = ("scaled", "normalized", "whitened")


@validate_params(
    {"n_bins": [Interval(Integral, 1, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def semivariogram(
    est: Any,
    X: Any,
    y: Any,
    *,
    time: Place = None,
    series: Place = None,
    kind: str = "scaled",
    random_effects: Any = True,
    n_bins: int = 20,
    max_distance: float | None = None,
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return the mean of (r_i - r_j)^2 / 2 of residuals by their distance.

    It rises from the part of the variance that no two rows share to 1, where rows
    are too far apart to be alike; it is level at 1 if residuals are uncorrelated.
    Unlike the autocorrelation it takes any times, and positions in a plane.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order if there is a time.
    time : str, int, list of str or array-like, default=None
        A column of numbers or dates, several (coordinates, whose Euclidean
        distance counts), or their values (n_samples,) or (n_samples, n_columns).
        None: those of the residual structure if there is one, else the order of
        the rows.
    series : str, int, tuple of them or array-like, default=None
        Which rows to compare with each other, as in `autocorrelation`.
    kind : {"scaled", "normalized", "whitened"}, default="scaled"
        Which residuals, see `residuals`.
    random_effects : bool or list of str, default=True
        Which predicted effects to subtract, see `residuals`. An intercept of the
        series cancels in the differences, so that False is of use, too.
    n_bins : int, default=20
        How many bins of equally many pairs; if there are no more distances, one
        for each.
    max_distance : float, default=None
        The largest distance that counts.

    Returns
    -------
    DataFrame
        One row a bin: distance (the mean), semivariogram, n_pairs, and model, the
        mean of 1 - c_ij with the correlations c_ij that the model has for the
        errors of the pairs: 1 without a residual structure. If there are more
        than a million pairs, so many are drawn, always the same.

    Raises
    ------
    ValueError
        If these are not the rows of the fit, or it is not clear what the series
        or the times are.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_ovary
    >>> from sklearn_lmm.diagnostics import semivariogram
    >>> from sklearn_lmm.residuals import AR1
    >>> X, y = load_ovary(return_X_y=True)
    >>> structure = AR1("day", "mare")
    >>> model = MixedEffectsRegressor("mare", fixed=["cycle"], residual=structure)
    >>> semivariogram(model.fit(X, y), X, y, max_distance=3).round(2)
       distance  semivariogram  n_pairs  model
    0       1.0           0.27      297   0.27
    1       2.0           0.41      286   0.47
    2       3.0           0.55      275   0.61
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected {', '.join(map(repr, KINDS))}.")
    data = (X, y, groups, sample_weight)
    given, r, found = residual_series(est, data, kind, random_effects, time, series)
    i, j = _pairs(found)
    apart = np.linalg.norm(found.places[i] - found.places[j], axis=1)
    if max_distance is not None:
        near = apart <= max_distance
        i, j, apart = i[near], j[near], apart[near]
        if not len(apart):
            raise ValueError(f"No two rows of a series are {max_distance:g} apart.")
    i, j = found.order[i], found.order[j]
    correlation = np.zeros(len(i))
    if kind == "scaled":
        correlation = _correlations(est, given, data, i, j)
    pairs = pd.DataFrame(
        {
            "distance": apart,
            "semivariogram": 0.5 * (r[i] - r[j]) ** 2,
            "model": 1.0 - correlation,
        }
    )
    binned = pairs.groupby(_bins(apart, n_bins))
    means = binned.mean()
    means.insert(2, "n_pairs", binned.size())
    return means.reset_index(drop=True)


def _pairs(found: Series) -> tuple[IntArray, IntArray]:
    """Return the places of all pairs of rows of one series, or of a sample."""
    lengths = found.lengths
    ends = np.repeat(np.cumsum(lengths), lengths)
    later = ends - np.arange(len(ends)) - 1
    before = np.append(0, np.cumsum(later))
    flat: IntArray = np.arange(before[-1])
    if len(flat) > MOST_PAIRS:
        flat = np.sort(np.random.default_rng(0).choice(before[-1], MOST_PAIRS))
    i = np.searchsorted(before, flat, side="right") - 1
    return i, i + 1 + (flat - before[i])


def _bins(apart: FloatArray, n_bins: int) -> IntArray:
    """Number the pairs by distance: bins of equally many, or one a distance."""
    # Equal distances differ by rounding.
    distinct, which = np.unique(apart.round(9), return_inverse=True)
    if len(distinct) <= n_bins:
        return np.asarray(which)
    edges = np.quantile(apart, np.linspace(0.0, 1.0, n_bins + 1)[1:-1])
    return np.asarray(np.searchsorted(np.unique(edges), apart, side="right"))


def _correlations(
    est: Any, given: FitRows, data: tuple[Any, ...], i: IntArray, j: IntArray
) -> FloatArray:
    """Return the correlations of the errors of pairs of rows that count."""
    fit = given.fit
    if fit.errors is None:
        return np.zeros(len(i))
    _, errors = read_errors(est, given.layout, given.design, *data)
    return correlations(errors, fit.errors.u, i, j)
