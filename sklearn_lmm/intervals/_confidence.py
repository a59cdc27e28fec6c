"""Confidence intervals of all parameters, by one of three methods."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import pandas as pd
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sklearn_lmm.intervals._bootstrap import bootstrap
from sklearn_lmm.intervals._parameters import chosen_parameters
from sklearn_lmm.intervals._profile import profile
from sklearn_lmm.intervals._wald import wald_intervals

_TAKEN = {"wald": set[str](), "profile": {"X", "y", "groups", "sample_weight"}}
"""What the methods take of the rows and further options; else anything."""


@validate_params(
    {
        "method": [StrOptions({"wald", "profile", "bootstrap"})],
        "coverage": [Interval(Real, 0, 1, closed="neither")],
        "df": [StrOptions({"normal", "satterthwaite"})],
    },
    prefer_skip_nested_validation=True,
)
def confidence_intervals(
    est: Any,
    X: Any = None,
    y: Any = None,
    *,
    method: str = "wald",
    coverage: float = 0.95,
    parameters: str | Sequence[str] | None = None,
    df: str = "normal",
    **options: Any,
) -> pd.DataFrame:
    """Return confidence intervals of fixed effects, sd, correlations and sigma.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y : array-like, default=None
        The rows of the fit, for `method="bootstrap"`, and for "profile" where a
        residual structure needs them.
    method : {"wald", "profile", "bootstrap"}, default="wald"
        "wald": estimate and standard error times a quantile; on the log scale
        for standard deviations, on Fisher's z for correlations. "profile":
        likelihood-ratio, right also where the likelihood is skewed or ends at a
        bound. "bootstrap": percentiles of refits to simulated data.
    coverage : float, default=0.95
        The probability.
    parameters : str or list of str, default=None
        Names as in the index of the result; "fixed" or "variance" for all of a
        kind; None for all.
    df : {"normal", "satterthwaite"}, default="normal"
        For "wald": quantiles of fixed effects, normal ones as in lme4 or those of
        Student's t, which are right with few groups too.
    **options
        Passed on to `bootstrap`, or `profile`, as are X and y.

    Returns
    -------
    DataFrame
        Columns estimate, lower, upper, and note, which says why an end is
        missing or lies at a bound.

    Raises
    ------
    ValueError
        If there is no such parameter, or options that the method does not have.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import confidence_intervals
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> table = confidence_intervals(model, method="profile")
    >>> table[["estimate", "lower", "upper"]].round(2)
                                      estimate   lower   upper
    (Intercept)                         251.41  237.68  265.13
    Days                                 10.47    7.36   13.58
    sd((Intercept) | Subject)            24.74   14.38   37.72
    sd(Days | Subject)                    5.92    3.80    8.75
    cor((Intercept), Days | Subject)      0.07   -0.48    0.69
    sigma                                25.59   22.90   28.86
    """
    chosen = chosen_parameters(est, parameters)
    given = set(options) | {k for k, v in (("X", X), ("y", y)) if v is not None}
    others = sorted(given - _TAKEN.get(method, given))
    if others:
        raise ValueError(
            f"method={method!r} does not take {', '.join(others)}: leave out what is "
            "for method='bootstrap'."
        )
    if method == "bootstrap" and X is None:
        raise ValueError("method='bootstrap' needs the rows of the fit: give X and y.")
    if method == "wald":
        return wald_intervals(est, chosen, coverage, df)
    if method == "profile":
        return profile(est, parameters, X, y, coverage=coverage, **options).intervals()
    table = bootstrap(est, X, y, **options).intervals(coverage)
    return table.loc[[parameter.name for parameter in chosen]]
