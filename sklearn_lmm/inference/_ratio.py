"""Likelihood-ratio statistics, on and off the boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from sklearn_lmm._engine.result import LMMFit

BOUNDARY = ("mixture", "ignore")
"""What may be done about a variance that the null hypothesis puts at 0."""


def check_boundary(boundary: Any) -> None:
    """Refuse what is no option.

    Raises
    ------
    ValueError
        Naming the options.
    """
    if boundary not in BOUNDARY:
        raise ValueError(
            f"boundary={boundary!r} is unknown: expected 'mixture' or 'ignore'."
        )


def ratio(small: LMMFit, large: LMMFit) -> tuple[float, int]:
    """Return the likelihood-ratio statistic, and the difference in parameters."""
    # Below 0 by rounding only, or where a search ended too early.
    statistic = max(small.criterion - large.criterion, 0.0)
    return statistic, large.n_parameters - small.n_parameters


def tail(statistic: float, df: int, one_variance: bool) -> float:
    """Return the p-value of a likelihood-ratio statistic.

    With one variance among the parameters that are 0 under the null hypothesis
    it is chi-squared with df - 1 or df degrees of freedom, half and half (Self
    and Liang 1987, JASA 82: 605-610; Stram and Lee 1994, Biometrics 50:
    1171-1177).
    """
    if df <= 0 or np.isnan(statistic):
        return np.nan
    whole = float(stats.chi2.sf(statistic, df))
    if not one_variance:
        return whole
    # With 0 degrees of freedom all is at 0.
    rest = float(stats.chi2.sf(statistic, df - 1)) if df > 1 else statistic <= 0.0
    return 0.5 * (whole + rest)


def row(
    fit: LMMFit, full: LMMFit | None = None, mixture: bool = False
) -> dict[str, Any]:
    """Return a line of a table of models, compared with a larger one if given."""
    statistic, df = (np.nan, 0) if full is None else ratio(fit, full)
    return {
        "n_parameters": fit.n_parameters,
        "log_likelihood": fit.log_likelihood,
        "aic": fit.aic,
        "statistic": statistic,
        "df": df,
        "p_value": tail(statistic, df, mixture),
    }
