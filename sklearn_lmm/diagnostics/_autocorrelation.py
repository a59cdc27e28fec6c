"""Autocorrelation of residuals."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sklearn_lmm._types import FloatArray, IntArray
from sklearn_lmm._uncertainty import check_coverage
from sklearn_lmm.diagnostics._residuals import KINDS
from sklearn_lmm.diagnostics._series import Place, Series, residual_series


@validate_params(
    {
        "kind": [StrOptions(set(KINDS))],
        "max_lag": [Interval(Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def autocorrelation(
    est: Any,
    X: Any,
    y: Any,
    *,
    time: Place = None,
    series: Place = None,
    kind: str = "scaled",
    random_effects: Any = True,
    max_lag: int | None = None,
    coverage: float = 0.95,
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return the autocorrelation of residuals within series, by lag.

    With r_i the residuals, and sums over the N_l pairs of rows of one series that
    are l apart,

        (sum r_i r_j / N_l) / (sum r_i^2 / n),

    as in nlme's `ACF`; no mean is subtracted.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order if there is a time.
    time : str, int or array-like of shape (n_samples,), default=None
        A column of whole numbers, or their values; lags are in its units. None:
        that of the residual structure if there is one, else the order of the
        rows, and lags count rows.
    series : str, int, tuple of them or array-like, default=None
        A column of labels, or the labels. None: what the residual structure is
        grouped by, else the grouping factor that is nested in all others.
    kind : str, default="scaled"
        Which residuals, see `residuals`. "scaled" ones show what correlation
        there is, "normalized" ones what a residual structure leaves of it.
    random_effects : bool or list of str, default=True
        Which predicted effects to subtract, see `residuals`.
    max_lag : int, default=None
        The longest lag; None for 10 log10(n), or the longest that there is.
    coverage : float, default=0.95
        Probability that an autocorrelation stays within its band, if residuals
        are uncorrelated. Each has a band of its own: of twenty one leaves it.

    Returns
    -------
    DataFrame
        One row a lag from 1. Columns lag, autocorrelation (NaN without pairs),
        n_pairs, lower and upper, the band -+ z / sqrt(N_l).

    Raises
    ------
    ValueError
        If these are not the rows of the fit; if times are not whole or two rows
        of a series have the same; if it is not clear what the series are.

    Notes
    -----
    Predicted effects take away a part of the correlation, as a mean does, so that
    conditional residuals of short series are negatively correlated even if errors
    are independent: by -1 / (m - 1) for series of m rows and an intercept each.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_ovary
    >>> from sklearn_lmm.diagnostics import autocorrelation
    >>> X, y = load_ovary(return_X_y=True)
    >>> model = MixedEffectsRegressor("mare", fixed=["cycle"]).fit(X, y)
    >>> autocorrelation(model, X, y, time="day", max_lag=2).round(3)
       lag  autocorrelation  n_pairs  lower  upper
    0    1            0.645      297 -0.114  0.114
    1    2            0.452      286 -0.116  0.116
    """
    check_coverage(coverage)
    data = (X, y, groups, sample_weight)
    _, r, found = residual_series(est, data, kind, random_effects, time, series)
    times = _whole_times(found)
    longest = int(max(1, _span(found.codes, times)))
    if max_lag is None:
        max_lag = int(10.0 * np.log10(len(r)))
    lags = np.arange(1, min(max_lag, longest) + 1)
    sums, counts = _products(found.codes, times, r[found.order], lags)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = sums / counts / np.mean(r**2)
        half = stats.norm.ppf(0.5 + coverage / 2.0) / np.sqrt(counts)
    return pd.DataFrame(
        {
            "lag": lags,
            "autocorrelation": values,
            "n_pairs": counts,
            "lower": -half,
            "upper": half,
        }
    )


def _whole_times(found: Series) -> IntArray:
    """Return the times of sorted rows, whole and distinct within series."""
    if found.places.shape[1] != 1:
        raise ValueError("Lags are in one time: give one column as time.")
    times = found.places[:, 0]
    if (times % 1.0 != 0.0).any():
        raise ValueError(
            f"Lags need whole times, but there is {times[times % 1.0 != 0.0][0]:g}: "
            "round them, count rows without times, or use semivariogram."
        )
    same = (np.diff(times) == 0.0) & (np.diff(found.codes) == 0)
    if same.any():
        raise ValueError(
            f"{int(same.sum())} rows have the time of another row of their series: "
            "is a column missing in series?"
        )
    return times.astype(np.int64)


def _span(codes: IntArray, times: IntArray) -> int:
    """Return the longest distance in time within a series."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes)) - 1
    return int((times[ends] - times[starts]).max())


def _products(
    codes: IntArray, times: IntArray, r: FloatArray, lags: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the sums of r_i r_j over pairs so far apart, and their numbers."""
    # One ascending number for series and time, no lag reaching the next series.
    first = times.min()
    key = codes * (times.max() - first + lags.max() + 1) + (times - first)
    sums, counts = np.zeros(len(lags)), np.zeros(len(lags), dtype=np.int64)
    for k, lag in enumerate(lags):
        place = np.searchsorted(key, key + lag).clip(max=len(key) - 1)
        here = np.flatnonzero(key[place] == key + lag)
        sums[k], counts[k] = r[here] @ r[place[here]], len(here)
    return sums, counts
