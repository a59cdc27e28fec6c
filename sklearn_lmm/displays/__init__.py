"""Pictures of a fitted model, as scikit-learn Display classes."""

from sklearn_lmm.displays._autocorrelation import AutocorrelationDisplay
from sklearn_lmm.displays._caterpillar import CaterpillarDisplay
from sklearn_lmm.displays._coefficients import CoefficientDisplay
from sklearn_lmm.displays._lattice import LatticeDisplay
from sklearn_lmm.displays._profiles import ProfileDisplay
from sklearn_lmm.displays._quantiles import QuantileDisplay
from sklearn_lmm.displays._residuals import ResidualsDisplay
from sklearn_lmm.displays._semivariogram import SemivariogramDisplay
from sklearn_lmm.displays._shrinkage import ShrinkageDisplay

__all__ = [
    "AutocorrelationDisplay",
    "CaterpillarDisplay",
    "CoefficientDisplay",
    "LatticeDisplay",
    "ProfileDisplay",
    "QuantileDisplay",
    "ResidualsDisplay",
    "SemivariogramDisplay",
    "ShrinkageDisplay",
]
