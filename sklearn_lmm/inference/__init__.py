"""Tests of a fitted model: fixed effects, terms, random effects, whole models."""

from sklearn_lmm.inference._anova import anova
from sklearn_lmm.inference._coefficients import coefficient_table
from sklearn_lmm.inference._contrasts import contrast

__all__ = [
    "anova",
    "coefficient_table",
    "contrast",
]
