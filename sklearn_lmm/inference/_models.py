"""Comparison of whole models by their likelihoods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.reduced import refitted
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm.inference._criteria import n_parameters
from sklearn_lmm.inference._nesting import check_same_rows, nesting
from sklearn_lmm.inference._ratio import check_boundary, row, tail


def likelihood_ratio_test(
    *ests: Any,
    refit: bool = True,
    boundary: str = "mixture",
    assume_nested: bool = False,
) -> pd.DataFrame:
    """Compare nested models by likelihood-ratio tests.

    Parameters
    ----------
    *ests : MixedEffectsRegressor
        Two or more estimators fitted to the same rows, in any order.
    refit : bool, default=True
        Whether models that were fitted by REML are refitted by maximum
        likelihood first, from the cross-products of their fits; restricted
        likelihoods of models with different fixed parts cannot be compared. The
        column method says which were. False takes the fits as they are.
    boundary : {"mixture", "ignore"}, default="mixture"
        What to do about variances, which are 0, the end of their range, in the
        smaller model. "mixture": if there is one such variance, chi-squared with
        df - 1 or df degrees of freedom, half and half; with more the
        distribution is not known, and the p-value is that of "ignore".
        "ignore": chi-squared with df degrees of freedom, as in lme4, which is
        conservative.
    assume_nested : bool, default=False
        Whether to take it that every model is a special case of the next larger
        one, where the names of effects and factors do not tell.

    Returns
    -------
    DataFrame
        One row a model, from the smallest, each compared with the one before.
        Columns: n_parameters, log_likelihood, aic, bic, statistic, df, p_value,
        method ("ml", "reml", "ml, refitted") and distribution, of the statistic.

    Raises
    ------
    ValueError
        If there are less than two models, they are not of the same data or not
        nested, or restricted likelihoods cannot be compared.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import likelihood_ratio_test
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> small = MixedEffectsRegressor("Subject", method="ml").fit(X, y)
    >>> large = MixedEffectsRegressor("(1 + Days | Subject)", method="ml").fit(X, y)
    >>> table = likelihood_ratio_test(small, large)
    >>> table[["n_parameters", "aic", "statistic", "df", "distribution"]].round(2)
       n_parameters      aic  statistic  df     distribution
    0             4  1802.08        NaN   0
    1             6  1763.94      42.14   2  chi2(1), chi2(2)
    """
    if len(ests) < 2:
        raise ValueError("A likelihood-ratio test compares two models or more.")
    check_boundary(boundary)
    for est in ests:
        check_is_fitted(est)
        check_same_rows(ests[0], est)
    if not refit:
        _check_comparable(ests)
    fits = [_by_ml(est.fit_) if refit else est.fit_ for est in ests]
    order = np.argsort([n_parameters(fit) for fit in fits], kind="stable")
    rows = []
    for place, k in enumerate(order):
        before = order[place - 1] if place else None
        rows.append(_compared(ests, fits, k, before, boundary, assume_nested))
    return pd.DataFrame(rows, index=order if len(set(order)) else None)


def _check_comparable(ests: tuple[Any, ...]) -> None:
    """Refuse restricted likelihoods of different fixed parts, or beside others."""
    methods = {est.fit_.reml for est in ests}
    if methods == {False}:
        return
    if len(methods) > 1:
        raise ValueError(
            "Some models were fitted by REML, others by maximum likelihood: give "
            "refit=True, or fit all by one method."
        )
    parts = {tuple(sorted(map(str, est.fixed_effects_.index))) for est in ests}
    if len(parts) > 1:
        shown = "; ".join(listed(part) for part in sorted(parts))
        raise ValueError(
            f"Restricted likelihoods of models with different fixed effects ({shown}) "
            "cannot be compared: give refit=True, which refits by maximum likelihood."
        )


def _by_ml(fit: LMMFit) -> LMMFit:
    return refitted(fit, reml=False) if fit.reml else fit


def _compared(
    ests: tuple[Any, ...],
    fits: list[LMMFit],
    k: int,
    before: int | None,
    boundary: str,
    assume_nested: bool,
) -> dict[str, Any]:
    """Return the row of model k, compared with the one before."""
    fit = fits[k]
    line = row(fit)
    df, variances = 0, 0
    if before is not None:
        df = line["n_parameters"] - n_parameters(fits[before])
        if not assume_nested:
            variances = nesting(ests[before], ests[k]).boundary
        statistic = max(fits[before].criterion - fit.criterion, 0.0)
        mixture = boundary == "mixture" and variances == 1
        line |= {
            "statistic": statistic,
            "df": df,
            "p_value": tail(statistic, df, mixture),
        }
    method = "reml" if fit.reml else "ml"
    return {
        **{name: line[name] for name in ("n_parameters", "log_likelihood", "aic")},
        "bic": fit.criterion + line["n_parameters"] * np.log(fit.n_obs),
        **{name: line[name] for name in ("statistic", "df", "p_value")},
        "method": method if fit is ests[k].fit_ else f"{method}, refitted",
        "distribution": _distribution(df, variances, boundary),
    }


def _distribution(df: int, variances: int, boundary: str) -> str:
    """Say what the statistic is compared with."""
    if not df:
        return ""
    if boundary == "mixture" and variances == 1:
        return f"chi2({df - 1}), chi2({df})"
    note = ", conservative" if variances else ""
    return f"chi2({df}){note}"
