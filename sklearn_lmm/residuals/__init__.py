"""Errors that are not independent or not equal: what `residual=` takes.

The errors of a model have Cov(e) = sigma^2 R.  A structure says what R looks
like; a correlation and functions for the standard deviations are joined by
`*`, as in ``AR1("week", "patient") * PowerVariance("age")``.  A structure says
nothing about data: columns are looked up at fit.  Whatever of it is not given
is estimated.

Columns of X that name the groups of a structure, or known variances, leave the
fixed part of the model; times, coordinates and covariates stay in it if they
are numbers, unless `fixed` says otherwise.
"""

from sklearn_lmm.residuals._base import KnownSigma
from sklearn_lmm.residuals._correlations import (
    AR1,
    ARMA,
    ContinuousAR1,
    EqualCorrelation,
    UnstructuredErrors,
)
from sklearn_lmm.residuals._spatial import Exponential, Gaussian, Matern
from sklearn_lmm.residuals._variances import (
    ExponentialVariance,
    Heteroscedastic,
    KnownVariance,
    PowerVariance,
)

__all__ = [
    "AR1",
    "ARMA",
    "ContinuousAR1",
    "EqualCorrelation",
    "Exponential",
    "ExponentialVariance",
    "Gaussian",
    "Heteroscedastic",
    "KnownSigma",
    "KnownVariance",
    "Matern",
    "PowerVariance",
    "UnstructuredErrors",
]
