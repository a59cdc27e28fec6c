"""Comparison of whole models by their likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.smaller import fit_again
from sklearn_lmm.inference._bootstrap import bootstrap_statistics
from sklearn_lmm.inference._nesting import check_same_rows, variances_at_zero
from sklearn_lmm.inference._ratio import check_boundary, ratio, tail

ROUNDING = 1e-7
"""Likelihood-ratio statistics closer than this are equal."""


def likelihood_ratio_test(
    *ests: Any,
    refit: bool = True,
    boundary: str = "mixture",
    bootstrap: int = 0,
    random_state: Any = None,
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
    bootstrap : int, default=0
        How many responses are drawn from the smaller model to find the
        distribution of the statistic instead, which needs no theory; the
        p-value is (1 + number not below the statistic) / (1 + bootstrap).
        Without the rows, from cross-products: for any number of levels of one
        factor, for 3000 random effects of several.
    random_state : int, RandomState instance or None, default=None
        Seed of the bootstrap.
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
        raise ValueError(
            f"A likelihood-ratio test compares two models or more; got {len(ests)}."
        )
    check_boundary(boundary)
    for est in ests:
        check_is_fitted(est)
        est.fit_.require_exact("A likelihood-ratio test")
        check_same_rows(ests[0], est)
    if not refit:
        _check_comparable(ests)
    fits = [_by_ml(est) if refit else est.fit_ for est in ests]
    order = np.argsort([fit.n_parameters for fit in fits], kind="stable").tolist()
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    rows = [_line(ests[order[0]], fits[order[0]])]
    for before, k in pairwise(order):
        pair = _Pair((ests[before], ests[k]), (fits[before], fits[k]))
        variances = 0 if assume_nested else variances_at_zero(*pair.ests)
        compared = pair.compared(variances, boundary, bootstrap, rng)
        rows.append(_line(ests[k], fits[k]) | compared)
    return pd.DataFrame(rows, index=order)


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


def _by_ml(est: Any) -> LMMFit:
    if not est.fit_.reml:
        return est.fit_
    try:
        return fit_again(est.fit_, reml=False)
    except ValueError as error:
        raise ValueError(f"{error} refit=False takes the fits as they are.") from error


def _line(est: Any, fit: LMMFit) -> dict[str, Any]:
    """Return what a row says of a model alone."""
    method = "reml" if fit.reml else "ml"
    return {
        "n_parameters": fit.n_parameters,
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "bic": fit.bic,
        "statistic": np.nan,
        "df": 0,
        "p_value": np.nan,
        "method": method if fit is est.fit_ else f"{method}, refitted",
        "distribution": "",
    }


@dataclass(frozen=True, eq=False)
class _Pair:
    """A model and a larger one, with the fits that are compared."""

    ests: tuple[Any, Any]
    fits: tuple[LMMFit, LMMFit]

    def compared(
        self, variances: int, boundary: str, bootstrap: int, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the test of the smaller model, and what it rests on."""
        statistic, df = ratio(*self.fits)
        test = {"statistic": statistic, "df": df}
        if bootstrap:
            drawn = bootstrap_statistics(*self.ests, self.fits, bootstrap, rng)
            above = np.count_nonzero(drawn >= statistic - ROUNDING)
            p_value = (1 + above) / (1 + bootstrap)
            return test | {
                "p_value": p_value,
                "distribution": f"bootstrap({bootstrap})",
            }
        mixture = boundary == "mixture" and variances == 1
        return test | {
            "p_value": tail(statistic, df, mixture),
            "distribution": _distribution(df, variances, mixture),
        }


def _distribution(df: int, variances: int, mixture: bool) -> str:
    """Say what the statistic is compared with."""
    if not df:
        return "none"
    if mixture:
        return f"chi2({df - 1}), chi2({df})"
    return f"chi2({df})" + ", conservative" * bool(variances)
