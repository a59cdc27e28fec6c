"""Tests of the terms of the fixed part, each left out in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._engine.smaller import fit_again
from sklearn_lmm.inference._anova import anova
from sklearn_lmm.inference._fixed_part import fixed_part
from sklearn_lmm.inference._random_terms import FULL
from sklearn_lmm.inference._ratio import row
from sklearn_lmm.inference._terms import tested_terms


def drop1(
    est: Any,
    *,
    test: str = "f",
    df: str = "satterthwaite",
    terms: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Test every term that no other term contains, by leaving it out.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    test : {"f", "chi2"}, default="f"
        "f": F tests in the fitted model. "chi2": likelihood-ratio tests; they
        are by maximum likelihood, with models refitted from the cross-products
        of the fit whatever its method.
    df : {"satterthwaite", "kenward-roger", "residual", "normal"}, default=\
"satterthwaite"
        Denominator degrees of freedom of the F tests.
    terms : dict of str to list of str, default=None
        Effects by term, as in `anova`.

    Returns
    -------
    DataFrame
        F tests: as `anova`. Likelihood-ratio tests: the first row is the model
        itself, by maximum likelihood; columns n_parameters, log_likelihood, aic,
        statistic, df, p_value, method ("ml" or "ml, refitted").

    Raises
    ------
    ValueError
        If an option is unknown or does not suit the fit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import drop1
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> drop1(model, test="chi2")[["aic", "statistic", "df", "method"]].round(2)
                aic  statistic  df        method
    <none>  1763.94        NaN   0  ml, refitted
    Days    1785.48      23.54   1  ml, refitted
    """
    if test not in {"f", "chi2"}:
        raise ValueError(f"test={test!r} is unknown: expected 'f' or 'chi2'.")
    part = fixed_part(est, df if test == "f" else "normal")
    tested = tested_terms(est, part.names, terms)
    outer = [
        t for t in tested if not any(t.factors < other.factors for other in tested)
    ]
    if test == "f":
        return anova(est, type=2, df=df, terms=terms).loc[[t.name for t in outer]]
    fit = est.fit_
    fit.require_exact("A likelihood-ratio test")
    full = fit_again(fit, reml=False) if fit.reml else fit
    rows = {FULL: row(full)}
    estimated = np.flatnonzero(fit.kept)
    for term in outer:
        kept = fit.kept.copy()
        kept[estimated[list(term.columns)]] = False
        rows[term.name] = row(fit_again(fit, kept=kept, reml=False), full)
    table = pd.DataFrame(rows.values(), index=pd.Index(list(rows), dtype=object))
    again = fit.reml | (np.arange(len(table)) > 0)
    return table.assign(method=np.where(again, "ml, refitted", "ml"))
