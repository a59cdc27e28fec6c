"""Standard errors of variance parameters, and Wald intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from sklearn_lmm._engine.information import error_parameter_errors
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._fixed_part import fixed_part
from sklearn_lmm.intervals._parameters import (
    PERFECT,
    Parameter,
    all_parameters,
    estimates,
    reasons,
)

NO_DF = "the data tell nothing of a variance that its degrees of freedom depend on"


def variance_parameters(est: Any) -> pd.DataFrame:
    """Return standard deviations, correlations and sigma, with standard errors.

    By the delta method from the observed information, the exact Hessian of the
    criterion that was minimised (REML or ML).

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.

    Returns
    -------
    DataFrame
        One row a parameter, named as in "sd(Days | Subject)". Columns: factor
        ("Residual" for sigma and what a residual structure has, which comes
        last); parameter ("sd", "cor", "sigma" or a name of it); coefficient
        (two names for a correlation, "all" if all of a term share the
        parameter); estimate; std_error; note, which says why a standard error
        is missing, and that the fit is singular where it is.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import variance_parameters
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> variance_parameters(model)[["estimate", "std_error"]].round(3)
                                      estimate  std_error
    sd((Intercept) | Subject)           24.740      5.836
    sd(Days | Subject)                   5.922      1.248
    cor((Intercept), Days | Subject)     0.066      0.325
    sigma                               25.592      1.508
    """
    parameters = [p for p in all_parameters(est) if p.variance is not None]
    found = estimates(est)
    why = reasons(est, found)
    if est.singular_:
        why = [reason or "the fit is singular" for reason in why]
    scale = {
        "sd": found.values,
        "cor": 1.0 - found.values**2,
        "sigma": found.values,
    }
    errors = [
        scale[parameter.kind][row] * found.errors[row]
        for row, parameter in enumerate(parameters)
    ]
    table = pd.DataFrame(
        {
            "factor": [parameter.factor for parameter in parameters],
            "parameter": [parameter.kind for parameter in parameters],
            "coefficient": [parameter.coefficient for parameter in parameters],
            "estimate": found.values,
            "std_error": np.array(errors, dtype=float),
            "note": why,
        },
        index=[parameter.name for parameter in parameters],
    )
    return pd.concat([table, _of_errors(est)]) if est.fit_.errors else table


def _of_errors(est: Any) -> pd.DataFrame:
    """Return the rows of the parameters of a residual structure."""
    fit, names = est.fit_, est.residual_parameters_.index
    errors, estimated = _errors_of_errors(est), fit.errors.estimated
    return pd.DataFrame(
        {
            "factor": "Residual",
            "parameter": names,
            "coefficient": "",
            "estimate": fit.errors.values,
            "std_error": np.where(estimated, errors, np.nan),
            "note": np.where(estimated, "", "given, not estimated"),
        },
        index=names,
    )


def _errors_of_errors(est: Any) -> FloatArray:
    """Return standard errors of the parameters of a residual structure."""
    fit = est.fit_
    point = fit.point()
    return error_parameter_errors(point, fit.errors.jacobian)


def wald_intervals(
    est: Any, parameters: Sequence[Parameter], coverage: float, df: str
) -> pd.DataFrame:
    """Return Wald intervals: on the log scale for sd, on Fisher's z for cor.

    Parameters of a residual structure are put on a scale without ends: the
    logarithm, or that of (x - low) / (high - x) where both ends are finite.

    df : "normal" or "satterthwaite", for fixed effects
    """
    quantile = float(stats.norm.ppf(0.5 + coverage / 2.0))
    dfs = _satterthwaite(est) if df == "satterthwaite" else None
    found = estimates(est)
    why = reasons(est, found)
    everything = [p for p in all_parameters(est) if p.variance is not None]
    of_errors = _errors_of_errors(est) if est.fit_.errors else np.zeros(0)
    rows = []
    for parameter in parameters:
        if parameter.kind == "fixed":
            t = quantile
            if dfs is not None:
                t = float(stats.t.ppf(0.5 + coverage / 2.0, dfs[parameter.position]))
            rows.append(_fixed_row(est, parameter, t))
            continue
        if parameter.kind == "error":
            half = quantile * float(of_errors[parameter.position])
            rows.append(_error_row(est, parameter.position, half))
            continue
        k = everything.index(parameter)
        value, half = found.values[k], quantile * found.errors[k]
        lower, upper = _ends(parameter.kind, value, half)
        rows.append((value, lower, upper, why[k]))
    return interval_frame(parameters, rows)


def _fixed_row(
    est: Any, parameter: Parameter, quantile: float
) -> tuple[float, float, float, str]:
    fit = est.fit_
    value = float(est.fixed_effects_.iloc[parameter.position])
    if fit.perfect:
        return value, np.nan, np.nan, PERFECT
    place = np.flatnonzero(fit.kept)[parameter.position]
    half = quantile * float(np.sqrt(fit.beta_covariance[place, place]))
    return value, value - half, value + half, "" if np.isfinite(half) else NO_DF


def _error_row(est: Any, j: int, half: float) -> tuple[float, float, float, str]:
    """Return the interval of a parameter of the errors; half of it on its own scale.

    With g the scale without ends, that of g(x) is g(x) -+ g'(x) half.
    """
    value = float(est.fit_.errors.values[j])
    low, high = est.fit_.errors.limits[j].tolist()
    if np.isinf(low):
        return value, value - half, value + half, ""
    if np.isinf(high):
        factor = np.exp(half / (value - low))
        return value, low + (value - low) / factor, low + (value - low) * factor, ""
    span = high - low
    scaled = half * span / ((value - low) * (high - value))
    lower, upper = expit(logit((value - low) / span) + scaled * np.array([-1.0, 1.0]))
    return value, low + span * float(lower), low + span * float(upper), ""


def _satterthwaite(est: Any) -> FloatArray:
    """Return the degrees of freedom of every fixed effect."""
    part = fixed_part(est, "satterthwaite")
    return np.array([part.df(row, "satterthwaite") for row in np.eye(len(part.names))])


def _ends(kind: str, value: float, half: float) -> tuple[float, float]:
    if not np.isfinite(half):
        return np.nan, np.nan
    if kind == "cor":
        z = np.arctanh(value)
        return float(np.tanh(z - half)), float(np.tanh(z + half))
    return float(value * np.exp(-half)), float(value * np.exp(half))


def interval_frame(
    parameters: Sequence[Parameter], rows: Sequence[tuple[float, float, float, str]]
) -> pd.DataFrame:
    """Return estimate, lower, upper and note, one row a parameter."""
    frame = pd.DataFrame(
        list(rows),
        index=[parameter.name for parameter in parameters],
        columns=["estimate", "lower", "upper", "note"],
    )
    numbers: list[str] = ["estimate", "lower", "upper"]
    return frame.astype(dict.fromkeys(numbers, float))


def quantiles(coverage: float) -> FloatArray:
    """Return the two probabilities that an interval lies between."""
    return np.array([0.5 - coverage / 2.0, 0.5 + coverage / 2.0])
