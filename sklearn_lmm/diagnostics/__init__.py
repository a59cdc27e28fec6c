"""What a fitted model looks like beside its rows.

Functions that take `(est, X, y, *, groups=None, sample_weight=None)` need the rows
of the fit once more, in any order, and refuse others.
"""

from sklearn_lmm.diagnostics._autocorrelation import autocorrelation
from sklearn_lmm.diagnostics._check import check
from sklearn_lmm.diagnostics._collinearity import collinearity, condition_numbers
from sklearn_lmm.diagnostics._description import (
    effective_df,
    icc,
    r_squared,
    variance_explained,
    variance_function,
)
from sklearn_lmm.diagnostics._independence import cluster_independence
from sklearn_lmm.diagnostics._influence import cooks_distance, influence
from sklearn_lmm.diagnostics._leverage import leverage
from sklearn_lmm.diagnostics._marginal import (
    marginal_correlation,
    marginal_covariance,
)
from sklearn_lmm.diagnostics._report import Finding, Report
from sklearn_lmm.diagnostics._residuals import residuals
from sklearn_lmm.diagnostics._semivariogram import semivariogram

__all__ = [
    "Finding",
    "Report",
    "autocorrelation",
    "check",
    "cluster_independence",
    "collinearity",
    "condition_numbers",
    "cooks_distance",
    "effective_df",
    "icc",
    "influence",
    "leverage",
    "marginal_correlation",
    "marginal_covariance",
    "r_squared",
    "residuals",
    "semivariogram",
    "variance_explained",
    "variance_function",
]
