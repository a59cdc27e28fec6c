"""How far the columns of the fixed part say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._terms import tested_terms
from sklearn_lmm.terms import INTERCEPT


def collinearity(est: Any, *, terms: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Return variance inflation factors of the terms of the fixed part.

    How much larger the variance of an estimate is than if its column, weighed by
    V^-1, were uncorrelated with all others but the intercept. Needs no rows. A
    term of several columns has the generalised factor, of the volume of their
    joint confidence region (Fox and Monette 1992, JASA 87: 178-183).

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    terms : dict, default=None
        Which fixed effects belong together: name of the term -> names of its
        effects. None: the terms of a formula, else every column by itself.

    Returns
    -------
    DataFrame
        One row a term. n_columns: its estimated effects. vif: its factor.
        std_error_factor: vif^(1 / (2 n_columns)), by how much a standard error is
        inflated, comparable between terms. tolerance: 1 / vif.

    Raises
    ------
    ValueError
        If `terms` names an effect that there is not, or one twice.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import collinearity
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> X["Days squared"] = X["Days"] ** 2
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> collinearity(model).round(2)
                  n_columns    vif  std_error_factor  tolerance
    Days                  1  13.66               3.7       0.07
    Days squared          1  13.66               3.7       0.07
    """
    check_is_fitted(est)
    names = [*map(str, est.fixed_effects_.index)]
    correlation = _correlation(est.fit_)
    columns = [j for j, name in enumerate(names) if name != INTERCEPT]
    rows = {}
    for term in tested_terms(est, names, terms):
        own = [j for j in term.columns if j in columns]
        others = [j for j in columns if j not in own]
        logdets = [
            np.linalg.slogdet(correlation[np.ix_(part, part)])[1]
            for part in (own, others, columns)
        ]
        vif = float(np.exp(logdets[0] + logdets[1] - logdets[2]))
        rows[term.name] = (len(own), vif, vif ** (0.5 / max(1, len(own))), 1.0 / vif)
    return pd.DataFrame.from_dict(
        rows,
        orient="index",
        columns=["n_columns", "vif", "std_error_factor", "tolerance"],
    )


def condition_numbers(est: Any) -> pd.Series[float]:
    """Return condition numbers of the fixed part, its columns scaled to length 1.

    Above about 30 some combination of the columns, the intercept included, is
    poorly determined (Belsley, Kuh and Welsch 1980). A column far from 0, as a
    calendar year, makes it large by itself, at no harm: center it, or look at
    `collinearity`. Needs no rows.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.

    Returns
    -------
    Series
        columns: of X as entered. whitened: of V^-1/2 X, whose columns determine
        the estimates.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import condition_numbers
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> condition_numbers(model).round(1).to_dict()
    {'columns': 3.4, 'whitened': 1.5}
    """
    check_is_fitted(est)
    fit: LMMFit = est.fit_
    point = fit.point()
    statistics = point.criterion.statistics
    to_user = np.linalg.inv(statistics.columns.map()[:-1, :-1])
    grams = {
        "columns": to_user.T @ statistics.tt[:-1, :-1] @ to_user,
        "whitened": to_user.T @ _gram_of_inverse(point.inverse_R_X) @ to_user,
    }
    numbers = {name: _condition(gram) for name, gram in grams.items()}
    return pd.Series(numbers, name="condition number")


def _correlation(fit: LMMFit) -> FloatArray:
    """Return the correlations of the estimates."""
    covariance = fit.beta_covariance[np.ix_(fit.kept, fit.kept)]
    if fit.perfect:
        root = fit.point().inverse_R_X
        covariance = root @ root.T
    spread = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / np.outer(spread, spread))


def _gram_of_inverse(inverse_R_X: FloatArray) -> FloatArray:
    """Return H = R_X'R_X."""
    R_X = np.asarray(np.linalg.inv(inverse_R_X))
    return np.asarray(R_X.T @ R_X)


def _condition(gram: FloatArray) -> float:
    length = np.sqrt(np.diag(gram))
    w = np.linalg.eigvalsh(gram / np.outer(length, length))
    smallest = float(w.min(initial=1.0))
    return float(np.sqrt(w.max(initial=1.0) / smallest)) if smallest > 0 else np.inf
