"""Tests of a fitted model: fixed effects, terms, random effects, whole models."""

from sklearn_lmm.inference._anova import anova
from sklearn_lmm.inference._coefficients import coefficient_table
from sklearn_lmm.inference._contrasts import contrast
from sklearn_lmm.inference._criteria import information_criteria
from sklearn_lmm.inference._marginal_means import (
    MarginalMeans,
    marginal_means,
    marginal_trends,
    pairwise,
)
from sklearn_lmm.inference._models import likelihood_ratio_test
from sklearn_lmm.inference._random_terms import ranova
from sklearn_lmm.inference._robust import cluster_robust_covariance, robust_table
from sklearn_lmm.inference._single_terms import drop1

__all__ = [
    "MarginalMeans",
    "anova",
    "cluster_robust_covariance",
    "coefficient_table",
    "contrast",
    "drop1",
    "information_criteria",
    "likelihood_ratio_test",
    "marginal_means",
    "marginal_trends",
    "pairwise",
    "ranova",
    "robust_table",
]
