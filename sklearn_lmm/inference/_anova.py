"""The table of tests of every term of the fixed part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._codings import indicator_basis
from sklearn_lmm.inference._fixed_part import FTest, fixed_part
from sklearn_lmm.inference._hypotheses import (
    centred_gram,
    marginal,
    orthogonal,
    sequential,
)
from sklearn_lmm.inference._terms import TestedTerm, formula_part, tested_terms
from sklearn_lmm.inference._unknown import warn_unknown_df

TYPES = {1: 1, 2: 2, 3: 3, "I": 1, "II": 2, "III": 3}


def anova(
    est: Any,
    *,
    type: Any = 3,
    df: str = "satterthwaite",
    terms: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return F tests of the terms of the fixed part.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    type : {3, 2, 1, "III", "II", "I"}, default=3
        3: every term, effects of categories averaged over the levels of the
        others, each counting alike. 2: every term after all others that do not
        contain it. 1: every term after those before it.
    df : {"satterthwaite", "kenward-roger", "residual", "normal"}, default=\
"satterthwaite"
        Denominator degrees of freedom, as in `contrast`.
    terms : dict of str to list of str, default=None
        Effects by term, for models without a formula, of which otherwise every
        column is a term. A name with colons is a product, and contains the
        terms of its parts. As nothing is known of how categories were coded,
        type 3 tests that a term's effects are 0 as they stand.

    Returns
    -------
    DataFrame
        Index: the terms. Columns: sum_sq, mean_sq (F, unscaled, times
        the residual variance), num_df, den_df, statistic (F), p_value. Its
        `attrs` hold type and df.

    Raises
    ------
    ValueError
        If an option is unknown, or `df` does not suit the fit.

    Notes
    -----
    As lmerTest defines them (Kuznetsova, Brockhoff and Christensen 2017,
    J. Stat. Softw. 82: 13). Types 1 and 2 adjust by weighted cross-products if
    the fit was weighted.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_exam
    >>> from sklearn_lmm.inference import anova
    >>> X, y = load_exam(return_X_y=True)
    >>> X = X[["school", "standLRT"]].assign(girl=X["sex"].eq("F").astype(int))
    >>> model = MixedEffectsRegressor("school").fit(X, y)
    >>> anova(model).round(1)
              sum_sq  mean_sq  num_df  den_df  statistic  p_value
    standLRT  1135.6   1135.6       1  4049.9     2018.7      0.0
    girl        15.4     15.4       1  3043.6       27.3      0.0
    """
    if type not in TYPES:
        raise ValueError(f"type={type!r} is unknown: expected 1, 2 or 3.")
    part = fixed_part(est, df)
    tested = tested_terms(est, part.names, terms)
    rows = {}
    for term, L in zip(
        tested, _contrasts(est, TYPES[type], tested, terms), strict=True
    ):
        rows[term.name] = part.f_test(L, np.zeros(len(L)), df)
    if not part.perfect:
        warn_unknown_df([name for name, test in rows.items() if np.isnan(test.den_df)])
    return _table(rows, part.sigma**2, {"type": TYPES[type], "df": df})


def _contrasts(
    est: Any, kind: int, tested: list[TestedTerm], given: Mapping[str, Any] | None
) -> list[FloatArray]:
    """Return the hypotheses on the effects that were estimated, term by term."""
    gram, kept = centred_gram(est.fit_.row_statistics), est.fit_.kept
    if kind < 3:
        adjust = sequential if kind == 1 else marginal
        return adjust(gram[np.ix_(kept, kept)], tested)
    fixed = formula_part(est) if given is None else None
    if fixed is None:
        p = int(kept.sum())
        return [np.eye(p)[list(term.columns)] for term in tested]
    return orthogonal(indicator_basis(fixed, gram, kept), tested)


def _table(
    rows: dict[str, FTest], sigma2: float, attrs: dict[str, Any]
) -> pd.DataFrame:
    tests = list(rows.values())
    columns = {
        "sum_sq": [sigma2 * test.unscaled * test.num_df for test in tests],
        "mean_sq": [sigma2 * test.unscaled for test in tests],
        "num_df": [test.num_df for test in tests],
        "den_df": [test.den_df for test in tests],
        "statistic": [test.statistic for test in tests],
        "p_value": [test.p_value for test in tests],
    }
    table = pd.DataFrame(columns, index=pd.Index(list(rows), dtype=object))
    table.attrs.update(attrs)
    return table
