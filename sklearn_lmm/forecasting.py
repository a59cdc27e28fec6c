"""Predictions that carry residuals forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.carried import (
    CarriedErrors,
    carry_errors,
    combined_variance,
)
from sklearn_lmm._residual_fit import correlation_of_all, relative_variances
from sklearn_lmm._results import (
    factor_columns,
    factor_designs,
    predicted,
    row_index,
    with_intercept,
)
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._stacking import stacked, take
from sklearn_lmm._types import FloatArray
from sklearn_lmm._uncertainty import check_coverage

__all__ = ["forecast"]


def forecast(
    est: Any,
    X_new: Any,
    X: Any,
    y: Any,
    *,
    groups_new: Any = None,
    groups: Any = None,
    sample_weight: Any = None,
    coverage: float = 0.95,
) -> pd.DataFrame:
    """Predict new rows of known series, with what their residuals tell.

    `predict` adds the fixed part and the random effects. If errors of a group
    are correlated, the residuals of its earlier rows say something of the error
    of a new one, too: with AR(1) errors the last residual, times phi^h for a row
    h steps ahead. This is the best linear prediction from all rows of the fit;
    as an interval widens with the horizon, it reaches that of `predict_interval`
    (`theta_uncertainty=False`). Rows between earlier ones are interpolated.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator, usually with `residual=`; without it, or for series
        without earlier rows, the prediction is that of `predict`.
    X_new : DataFrame or array-like of shape (n_new, n_features)
        The rows to predict, with the columns that the structure names.
    X, y : DataFrame or array-like, array-like
        The rows of the fit, which are not kept. To count rows that were observed
        since, fit again with them.
    groups_new, groups : array-like, default=None
        Labels of the new rows and of those of the fit, if fit took `groups`.
    sample_weight : array-like, default=None
        Weights of the rows of the fit. New rows weigh 1.
    coverage : float, default=0.95
        Probability that an interval covers its observation. The covariances
        and the parameters of the errors are taken as known, apart from
        Student's t with N degrees of freedom in place of the normal
        distribution, N the rows, less the fixed effects under REML.

    Returns
    -------
    DataFrame of shape (n_new, 4)
        Columns prediction, std (of a new observation about it), lower, upper.

    Raises
    ------
    ValueError
        If X and y are not the rows of the fit, or a new row has the time of
        another row of its series.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.forecasting import forecast
    >>> from sklearn_lmm.residuals import AR1
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject", residual=AR1("Days")).fit(X, y)
    >>> ahead = X[X["Subject"] == "308"].tail(1)[["Days", "Subject"]]
    >>> ahead = ahead.loc[ahead.index.repeat(3)].assign(Days=[10, 11, 14])
    >>> forecast(model, ahead, X, y).round(1).to_numpy()
    array([[446.3,  29.4, 388.2, 504.3],
           [436.8,  36.2, 365.4, 508.2],
           [441.1,  42.5, 357.3, 524.9]])
    """
    check_is_fitted(est)
    check_coverage(coverage)
    past = rows_of_fit(est, X, y, groups, sample_weight, plain=None)
    carried = _carried(est, past, X, X_new, groups, groups_new)
    known = est._read(take(X, past.positions), take(groups, past.positions), True)
    new = est._read(X_new, groups_new, True)
    layout, fit = est._layout, est.fit_
    residual = past.design.y + known.offset - predicted(layout, fit, known)
    prediction = predicted(layout, fit, new) + carried.weights @ residual
    std = np.sqrt(_variance(est, known, new, carried))
    df = fit.n_obs - fit.reml * fit.kept.sum()
    half = stats.t.ppf(0.5 + coverage / 2.0, df) * std
    return pd.DataFrame(
        {
            "prediction": prediction,
            "std": std,
            "lower": prediction - half,
            "upper": prediction + half,
        },
        index=row_index(X_new),
    )


def _carried(
    est: Any, past: FitRows, X: Any, X_new: Any, groups: Any, groups_new: Any
) -> CarriedErrors:
    """Return what the earlier rows say of the errors of the new ones."""
    X_all = stacked(take(X, past.positions), X_new)
    groups_all = stacked(take(groups, past.positions), groups_new)
    n = len(past.positions)
    variances = relative_variances(est, X_all, groups_all)
    if past.design.weights is not None and past.fit.weights == "precision":
        variances[:n] /= past.design.weights
    correlation, u, order, starts = correlation_of_all(est, X_all, groups_all)
    return carry_errors(correlation, u, order, starts, np.sqrt(variances), n)


def _variance(est: Any, known: Any, new: Any, carried: CarriedErrors) -> FloatArray:
    """Return the variance of new observations about their predictions (n,)."""
    layout, fit = est._layout, est.fit_
    w = carried.weights
    X = with_intercept(layout, new) - w @ with_intercept(layout, known)
    designs = zip(
        factor_designs(layout, new), factor_designs(layout, known), strict=True
    )
    # Entries that cancel would make a row touch levels that it does not.
    Z = tuple(_without_zeros(of_new - w @ of_known) for of_new, of_known in designs)
    variance = combined_variance(fit, np.asarray(X), Z)
    for z, codes, Psi in zip(
        factor_columns(layout, new), new.codes, fit.covariances, strict=True
    ):
        variance += np.where(codes < 0, np.einsum("ni,ij,nj->n", z, Psi, z), 0.0)
    return variance + fit.sigma**2 * carried.variances


def _without_zeros(Z: Any) -> Any:
    Z.eliminate_zeros()
    return Z
