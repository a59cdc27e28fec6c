"""What a fitted model says of the response: variance explained, correlations, df."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.description import (
    effective_parameters,
    fixed_variance,
    term_variances,
)
from sklearn_lmm._residual_fit import refuse_errors, refuse_unequal_errors
from sklearn_lmm._types import FloatArray


def variance_explained(est: Any, X: Any = None) -> pd.DataFrame:
    """Split the variance of the response into its parts.

    That of the fixed part is the sample variance of X beta over the rows of the
    fit; that of a grouping factor the mean over these rows of z' Sigma z, which
    counts slopes at the values that they are multiplied by.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X : DataFrame or array-like, default=None
        Rows to average over; those of the fit by default, for which the sums
        that the fit kept are enough. They are weighted as the fit was.

    Returns
    -------
    DataFrame
        Rows "fixed", one for each random term, "residual"; columns variance and
        proportion.

    Raises
    ------
    ValueError
        If neither the fixed part nor a random term has an intercept, and X is
        not given: the sums do not tell the mean of X beta then. If the residual
        variances differ (`residual=`).

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import variance_explained
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> variance_explained(model).round(3)
              variance  proportion
    fixed      908.953       0.279
    Subject   1698.071       0.521
    residual   654.941       0.201
    """
    check_is_fitted(est)
    refuse_unequal_errors(est, "The variance explained")
    fixed, random = _parts(est) if X is None else _parts_of_rows(est, X)
    names = ["fixed", *(term.name for term in est._layout.roles.terms), "residual"]
    variances = np.array([fixed, *random, est.sigma_**2])
    return pd.DataFrame(
        {"variance": variances, "proportion": variances / variances.sum()}, names
    )


def _parts(est: Any) -> tuple[float, FloatArray]:
    fixed = fixed_variance(est.fit_)
    if fixed is None:
        raise ValueError(
            "Neither the fixed part nor a random term has an intercept, so that what "
            "the fit kept does not tell the mean of its rows: give them as X."
        )
    return fixed, term_variances(est.fit_)


def _parts_of_rows(est: Any, X: Any) -> tuple[float, FloatArray]:
    rows = est._layout.read(est, X, None, False, False)
    fixed = rows.X @ est.fit_.beta[int(est._layout.roles.intercept) :]
    variances = []
    for term, slopes in zip(est._layout.roles.terms, rows.slopes, strict=True):
        ones = [np.ones(len(fixed))] * term.intercept
        z = np.column_stack([*ones, *slopes])
        covariance = est.fit_.covariances[term.factor][term.columns, term.columns]
        variances.append(np.mean(np.sum((z @ covariance) * z, axis=1)))
    return float(np.var(fixed, ddof=1)), np.array(variances)


def r_squared(est: Any, X: Any = None) -> pd.Series[float]:
    """Return the variance explained, without and with the random effects.

    Nakagawa's R2 in Johnson's form, right for slopes and several terms. The
    offset does not count as explained.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X : DataFrame or array-like, default=None
        Rows to average over, as in `variance_explained`.

    Returns
    -------
    Series
        marginal: the fixed part's share of the total variance; conditional:
        that of the fixed part and the random effects together.

    Raises
    ------
    ValueError
        As in `variance_explained`.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import r_squared
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> r_squared(model).round(4).to_dict()
    {'marginal': 0.2787, 'conditional': 0.7992}
    """
    share = variance_explained(est, X)["proportion"].to_numpy()
    return pd.Series({"marginal": share[0], "conditional": share[:-1].sum()}, name="r2")


def icc(est: Any, X: Any = None) -> pd.Series[float]:
    """Return the intraclass correlation: the share of variance between groups.

    With slopes the variance between groups is the mean of that of the rows.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X : DataFrame or array-like, default=None
        Rows to average over, as in `variance_explained`.

    Returns
    -------
    Series
        adjusted: of the variance that the fixed part leaves; unadjusted: of all.

    Raises
    ------
    ValueError
        As in `variance_explained`.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import icc
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> icc(model).round(4).to_dict()
    {'adjusted': 0.5893, 'unadjusted': 0.4244}
    """
    variances = variance_explained(est, X)["variance"].to_numpy()
    between = variances[1:-1].sum()
    parts = {
        "adjusted": between / (between + variances[-1]),
        "unadjusted": between / variances.sum(),
    }
    return pd.Series(parts, name="icc")


def effective_df(est: Any) -> float:
    """Return the effective number of parameters that the fitted values use.

    The trace of the hat matrix H in yhat = H y, random effects included: between
    the number of fixed effects and that of fixed and random effects together.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.

    Returns
    -------
    float
        The trace, with sigma and the covariances taken as known.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import effective_df
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)", method="ml").fit(X, y)
    >>> round(effective_df(model), 4)
    28.6116
    """
    check_is_fitted(est)
    return effective_parameters(est.fit_.point())


def variance_function(
    est: Any,
    variable: str,
    values: Sequence[float],
    *,
    at: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return the variance of the response as a function of a slope's variable.

    A random slope makes the variance between groups a parabola in its variable:
    z' Sigma z with z = (1, value).

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    variable : str
        The column, one that has a random slope.
    values : array-like of shape (n_values,)
        Where to evaluate.
    at : dict of str to float, default=None
        Values of the other columns with random slopes; 0 where not given.

    Returns
    -------
    DataFrame of shape (n_values, n_factors + 2)
        Index the values; columns the grouping factors, residual, total.

    Raises
    ------
    ValueError
        If a name is not that of a column with a random slope, or the model has a
        residual structure.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import variance_function
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> variance_function(model, "Days", [0, 9]).round(0)
          Subject  residual   total
    Days
    0       612.0     655.0  1267.0
    9      3626.0     655.0  4281.0
    """
    check_is_fitted(est)
    refuse_errors(est, "variance_function")
    slopes = {
        name
        for term in est._layout.roles.terms
        for name in term.coefficients[int(term.intercept) :]
    }
    given = dict(at or {})
    for name in (variable, *given):
        if name not in slopes:
            there = f"columns that have one are {listed(sorted(slopes))}"
            raise ValueError(
                f"{name!r} has no random slope in this model: "
                f"{there if slopes else 'no column has one'}."
            )
    points = np.asarray(values, dtype=float)
    frame = pd.DataFrame(index=pd.Index(values, name=variable))
    for name, covariance in est.covariances_.items():
        z = np.zeros((len(points), len(covariance)))
        for j, coefficient in enumerate(covariance.columns):
            other = float(coefficient not in slopes)
            z[:, j] = (
                points if coefficient == variable else given.get(coefficient, other)
            )
        frame[name] = np.sum((z @ covariance.to_numpy()) * z, axis=1)
    frame["residual"] = est.sigma_**2
    frame["total"] = frame.sum(axis=1)
    return frame
