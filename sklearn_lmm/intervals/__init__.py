"""Confidence intervals: Wald, profile likelihood, bootstrap; simulation, refits."""

from sklearn_lmm.intervals._confidence import confidence_intervals
from sklearn_lmm.intervals._profile import Profile, profile
from sklearn_lmm.intervals._wald import variance_parameters

__all__ = [
    "Profile",
    "confidence_intervals",
    "profile",
    "variance_parameters",
]
