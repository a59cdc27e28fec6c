"""Tables under the column names of R's broom and broom.mixed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm._stacking import take
from sklearn_lmm._types import FloatArray
from sklearn_lmm.diagnostics._influence import distances_of_rows, refuse_perfect
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.intervals import confidence_intervals, variance_parameters

EFFECTS = ("fixed", "ran_pars", "ran_vals")
"""Kinds of rows that `tidy` knows."""

_LEADING = ["effect", "group", "level", "term"]


@validate_params(
    {
        "conf_int": ["boolean"],
        "conf_level": [Interval(Real, 0, 1, closed="neither")],
        "conf_method": [StrOptions({"wald", "profile"})],
    },
    prefer_skip_nested_validation=True,
)
def tidy(
    est: Any,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = False,
    conf_level: float = 0.95,
    conf_method: str = "wald",
    df: str = "satterthwaite",
) -> pd.DataFrame:
    """Return one row for each parameter, in the manner of broom.mixed.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    effects : str or list of str, default=("fixed", "ran_pars")
        "fixed": fixed effects; "ran_pars": standard deviations and correlations,
        as in "sd__Days", "cor__(Intercept).Days" and "sd__Observation";
        "ran_vals": predicted random effects, with conditional standard
        deviations as standard errors.
    conf_int : bool, default=False
        Whether to add conf.low and conf.high.
    conf_level : float, default=0.95
        Their coverage.
    conf_method : {"wald", "profile"}, default="wald"
        "wald": t quantiles for fixed effects; normal ones for the others, on the
        log scale for standard deviations, on Fisher's z for correlations.
    df : str, default="satterthwaite"
        Degrees of freedom, as in `inference.coefficient_table`.

    Returns
    -------
    DataFrame
        Columns effect, group, level (with "ran_vals"), term, estimate, std.error,
        statistic, df, p.value and perhaps conf.low, conf.high.

    Raises
    ------
    ValueError
        If a kind of effects is unknown.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.summaries import tidy
    >>> sleepstudy = load_sleepstudy(as_frame=True).frame
    >>> model = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> tidy(model)[["effect", "group", "term", "estimate"]].round(3)
         effect     group                   term  estimate
    0     fixed      None            (Intercept)   251.405
    1     fixed      None                   Days    10.467
    2  ran_pars   Subject        sd__(Intercept)    24.740
    3  ran_pars   Subject               sd__Days     5.922
    4  ran_pars   Subject  cor__(Intercept).Days     0.066
    5  ran_pars  Residual        sd__Observation    25.592
    """
    check_is_fitted(est)
    kinds = [effects] if isinstance(effects, str) else list(effects)
    unknown = [kind for kind in kinds if kind not in EFFECTS]
    if unknown or not kinds:
        raise ValueError(
            f"effects={effects!r} has {unknown or 'nothing'}, but may have "
            f"{list(EFFECTS)} only."
        )
    limits = (conf_level, conf_method) if conf_int else None
    parts = {
        "fixed": lambda: _fixed(est, df, limits),
        "ran_pars": lambda: _variances(est, limits),
        "ran_vals": lambda: _values(est, limits),
    }
    table = pd.concat([parts[kind]() for kind in kinds], ignore_index=True)
    leading = [name for name in _LEADING if name in table]
    return table[[*leading, *table.columns.drop(leading)]]


def _fixed(est: Any, df: str, limits: tuple[float, str] | None) -> pd.DataFrame:
    table = coefficient_table(est, df=df)
    columns = {
        "effect": "fixed",
        "group": None,
        "term": table.index,
        "estimate": table["estimate"].to_numpy(),
        "std.error": table["std_error"].to_numpy(),
        "statistic": table["statistic"].to_numpy(),
        "df": table["df"].to_numpy(),
        "p.value": table["p_value"].to_numpy(),
    }
    found = pd.DataFrame(columns)
    if limits is None:
        return found
    level, method = limits
    if method == "profile":
        return _with_intervals(found, _intervals(est, "fixed", limits))
    quantile = stats.t.ppf(0.5 + level / 2.0, table["df"])
    return _with_half(found, quantile)


def _variances(est: Any, limits: tuple[float, str] | None) -> pd.DataFrame:
    table = variance_parameters(est)
    pairs = zip(table["parameter"], table["coefficient"], strict=True)
    names = [
        f"{kind}__{name.replace(', ', '.')}" if name else kind for kind, name in pairs
    ]
    names = ["sd__Observation" if name == "sigma" else name for name in names]
    found = pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": table["factor"].to_numpy(),
            "term": names,
            "estimate": table["estimate"].to_numpy(),
            "std.error": table["std_error"].to_numpy(),
        }
    )
    if limits is None:
        return found
    # A parameter of a residual structure that was given has no interval.
    intervals = _intervals(est, "variance", limits).reindex(table.index)
    return _with_intervals(found, intervals)


def _intervals(est: Any, parameters: str, limits: tuple[float, str]) -> pd.DataFrame:
    level, method = limits
    return confidence_intervals(
        est, method=method, coverage=level, parameters=parameters
    )


def _with_intervals(found: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    return _with_limits(found, intervals["lower"], intervals["upper"])


def _with_half(found: pd.DataFrame, quantile: FloatArray | float) -> pd.DataFrame:
    """Return the table with limits so many standard errors from the estimates."""
    half = quantile * found["std.error"]
    return _with_limits(found, found["estimate"] - half, found["estimate"] + half)


def _with_limits(found: pd.DataFrame, lower: Any, upper: Any) -> pd.DataFrame:
    return found.assign(
        **{"conf.low": np.asarray(lower), "conf.high": np.asarray(upper)}
    )


def _values(est: Any, limits: tuple[float, str] | None) -> pd.DataFrame:
    table = est.random_effects(return_std=True)
    found = pd.DataFrame(
        {
            "effect": "ran_vals",
            "group": table["factor"],
            "level": table["level"],
            "term": table["coefficient"],
            "estimate": table["value"],
            "std.error": table["std"],
        }
    )
    if limits is None:
        return found
    return _with_half(found, float(stats.norm.ppf(0.5 + limits[0] / 2.0)))


def glance(est: Any) -> pd.DataFrame:
    """Return one row that describes the fit, in the manner of broom.mixed.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.

    Returns
    -------
    DataFrame
        Columns nobs, sigma, logLik, AIC, BIC, REMLcrit or (maximum likelihood)
        deviance, and df.residual. AIC and BIC are of the criterion that was
        optimised: of REML fits they compare only models with the same fixed part.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.summaries import glance
    >>> sleepstudy = load_sleepstudy(as_frame=True).frame
    >>> model = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> glance(model)[["nobs", "sigma", "AIC", "REMLcrit"]].round(2)
       nobs  sigma      AIC  REMLcrit
    0   180  25.59  1755.63   1743.63
    """
    check_is_fitted(est)
    fit = est.fit_
    whole = float(fit.n_obs).is_integer()
    columns = {
        "nobs": int(fit.n_obs) if whole else fit.n_obs,
        "sigma": fit.sigma,
        "logLik": fit.log_likelihood,
        "AIC": fit.aic,
        "BIC": fit.bic,
        "REMLcrit" if fit.reml else "deviance": fit.criterion,
        "df.residual": fit.n_obs - fit.n_parameters,
    }
    return pd.DataFrame(columns, index=[0])


def augment(
    est: Any, X: Any, y: Any = None, groups: Any = None, sample_weight: Any = None
) -> pd.DataFrame:
    """Return the rows of the fit with what the model says of each, as broom.mixed.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit; y may be left out if the formula has a left side.

    Returns
    -------
    DataFrame
        The columns of X if it is a frame, then .fitted, .resid, .hat (leverage),
        .cooksd (Cook's distance), .fixed (prediction without random effects), .mu
        (the same as .fitted), .offset and .weights. Rows that the fit left out
        are left out.

    Raises
    ------
    ValueError
        If these are not the rows of the fit.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.summaries import augment
    >>> sleepstudy = load_sleepstudy(as_frame=True).frame
    >>> model = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> table = augment(model, sleepstudy)
    >>> table[["Reaction", ".fitted", ".resid", ".hat"]].head(2).round(3)
       Reaction  .fitted  .resid   .hat
    0   249.560  253.664  -4.104  0.229
    1   258.705  273.330 -14.625  0.170
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="augment")
    refuse_perfect(given)
    fitted_rows = given.beside_fit
    kept = given.positions
    if y is None:
        y = est._layout.formula.rows(X, y, groups, sample_weight).y
    else:
        y = np.asarray(y, dtype=float)[kept]
    rows = take(X, kept)
    parts = est.decompose(rows, take(groups, kept))
    fitted = parts["total"].to_numpy()
    table = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame(index=kept)
    return table.assign(
        **{
            ".fitted": fitted,
            ".resid": np.asarray(y, dtype=float) - fitted,
            ".hat": fitted_rows.leverage / fitted_rows.copies,
            ".cooksd": distances_of_rows(fitted_rows),
            ".fixed": parts["fixed"].to_numpy(),
            ".mu": fitted,
            ".offset": np.asarray(y, dtype=float) - given.design.y,
            ".weights": 1.0 if given.design.weights is None else given.design.weights,
        }
    )
