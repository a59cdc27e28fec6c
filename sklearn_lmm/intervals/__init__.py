"""Confidence intervals: Wald, profile likelihood, bootstrap; simulation, refits."""

from sklearn_lmm.intervals._bootstrap import Bootstrap, bootstrap
from sklearn_lmm.intervals._confidence import confidence_intervals
from sklearn_lmm.intervals._profile import Profile, profile
from sklearn_lmm.intervals._simulate import refit, simulate
from sklearn_lmm.intervals._wald import variance_parameters

__all__ = [
    "Bootstrap",
    "Profile",
    "bootstrap",
    "confidence_intervals",
    "profile",
    "refit",
    "simulate",
    "variance_parameters",
]
