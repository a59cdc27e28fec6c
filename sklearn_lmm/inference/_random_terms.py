"""Tests of random effects, each left out in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.smaller import fit_again
from sklearn_lmm._roles import Term
from sklearn_lmm.covariance import Diagonal, Unstructured
from sklearn_lmm.inference._ratio import check_boundary, row
from sklearn_lmm.terms import INTERCEPT

FULL = "<none>"
"""The row of the model with nothing left out."""


@dataclass(frozen=True)
class Reduction:
    """A random effect that is left out.

    label : of its row
    kept : for every term, the coefficients that stay
    one_variance : whether just one variance goes, with its covariances
    """

    label: str
    kept: tuple[tuple[int, ...], ...]
    one_variance: bool


def ranova(est: Any, *, boundary: str = "mixture") -> pd.DataFrame:
    """Test every random effect by leaving it out: likelihood-ratio tests.

    A slope is left out of its term together with its correlations (the slopes of
    all levels of a category, if a formula says that they belong together); a term
    with nothing but an intercept, or with one common variance, as a whole. Models
    are refitted from the cross-products of the fit, by the method of the fit.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    boundary : {"mixture", "ignore"}, default="mixture"
        A variance of 0 lies at the end of its range. "mixture": where one
        variance is left out with j covariances, chi-squared with j or j + 1
        degrees of freedom, half and half. "ignore": chi-squared with df degrees
        of freedom, as lmerTest has it, which is conservative.

    Returns
    -------
    DataFrame
        The first row is the model itself; every other one a model with an effect
        left out. Columns: n_parameters, log_likelihood (restricted under REML),
        aic, statistic, df, p_value.

    Raises
    ------
    ValueError
        If there is no random effect, or an option is unknown; if a residual
        structure needs the rows for a refit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import ranova
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> ranova(model)[["log_likelihood", "statistic", "df"]].round(2)
                                 log_likelihood  statistic  df
    <none>                              -871.81        NaN   0
    Days in (1 + Days | Subject)        -893.23      42.84   2
    """
    check_is_fitted(est)
    check_boundary(boundary)
    est.fit_.require_exact("A likelihood-ratio test")
    n_terms = len(est._layout.roles.terms)
    if not n_terms:
        raise ValueError("ranova tests random effects, and the model has none.")
    fit = est.fit_
    rows = {FULL: row(fit)}
    for k in range(n_terms):
        for reduction in _reductions(est, k):
            mixture = reduction.one_variance and boundary == "mixture"
            smaller = fit_again(fit, random=reduction.kept)
            rows[reduction.label] = row(smaller, fit, mixture)
    return pd.DataFrame(rows.values(), index=pd.Index(list(rows), dtype=object))


def _reductions(est: Any, k: int) -> list[Reduction]:
    """Return the ways to leave a part of term k out."""
    roles = est._layout.roles
    term = roles.terms[k]
    everything = [tuple(range(len(t.coefficients))) for t in roles.terms]
    notation = _notation(term, roles.groupings[term.factor].name)

    def without(gone: tuple[int, ...], label: str, one_variance: bool) -> Reduction:
        kept = list(everything)
        kept[k] = tuple(i for i in everything[k] if i not in gone)
        return Reduction(label, tuple(kept), one_variance)

    parts = _parts(est, k)
    if not isinstance(term.structure, Unstructured | Diagonal) or len(parts) == 1:
        single = term.structure.n_parameters(len(everything[k])) == 1
        return [without(everything[k], notation, single)]
    # An intercept stays where slopes depend on where it is put.
    independent = isinstance(term.structure, Diagonal)
    return [
        without(part, f"{name} in {notation}", len(part) == 1)
        for name, part in parts.items()
        if independent or name != INTERCEPT
    ]


def _parts(est: Any, k: int) -> dict[str, tuple[int, ...]]:
    """Return which coefficients of term k go together, by name.

    Those of one term of a formula, such as the levels of a category; else every
    coefficient goes alone.
    """
    roles = est._layout.roles
    coefficients = roles.terms[k].coefficients
    if roles.formula is None:
        return {name: (i,) for i, name in enumerate(coefficients)}
    return {
        part.name: tuple(coefficients.index(column) for column in part.columns)
        for part in roles.formula.bars[k].terms
    }


def _notation(term: Term, group: str) -> str:
    """Return the term in lme4's notation."""
    names = ["1" if name == INTERCEPT else name for name in term.coefficients]
    names = names if term.intercept else ["0", *names]
    bar = "||" if isinstance(term.structure, Diagonal) and len(names) > 1 else "|"
    return f"({' + '.join(names)} {bar} {group})"
