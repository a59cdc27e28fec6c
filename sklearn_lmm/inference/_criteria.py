"""Information criteria."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.conditional import conditional_deviance, trace_by_response
from sklearn_lmm._engine.result import LMMFit


def information_criteria(est: Any) -> pd.Series:
    """Return the log-likelihood, AIC, AICc, BIC and conditional AIC.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.

    Returns
    -------
    Series
        log_likelihood (restricted if the fit is by REML: to be compared only
        between models with the same fixed part); n_parameters k: fixed effects,
        parameters of covariances and errors, sigma; aic = 2 k - 2 log L; aicc = aic +
        2 k (k + 1) / (n - k - 1), NaN unless n > k + 1; bic = k log n - 2 log L,
        n the number of rows or the sum of frequency weights; conditional_aic =
        -2 log f(y | b) + 2 (rho + 1), with the effective degrees of freedom rho
        = trace of d yhat / dy, in which the variances are functions of y, too
        (Greven and Kneib 2010, Biometrika 97: 773-789). For comparisons of
        random effects the conditional AIC is the one that is unbiased. It is NaN
        for models with a residual structure.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import information_criteria
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)", method="ml").fit(X, y)
    >>> information_criteria(model).round(2)
    log_likelihood     -875.97
    n_parameters          6.00
    aic                1763.94
    aicc               1764.42
    bic                1783.10
    conditional_aic    1711.69
    dtype: float64
    """
    check_is_fitted(est)
    fit, k = est.fit_, est.fit_.n_parameters
    room = fit.n_obs - k - 1
    values = {
        "log_likelihood": fit.log_likelihood,
        "n_parameters": float(k),
        "aic": fit.aic,
        "aicc": fit.aic + 2.0 * k * (k + 1) / room if room > 0 else np.nan,
        "bic": fit.bic,
        "conditional_aic": _conditional_aic(fit),
    }
    return pd.Series(values)


def _conditional_aic(fit: LMMFit) -> float:
    if fit.perfect:
        return -np.inf
    if fit.errors is not None:
        return np.nan
    point = fit.point()
    rho = trace_by_response(point)
    return conditional_deviance(point, fit.weights == "frequency") + 2.0 * (rho + 1.0)
