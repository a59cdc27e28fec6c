"""Linear mixed-effects models with scikit-learn's interface."""

from sklearn_lmm._encoder import RandomEffectsEncoder
from sklearn_lmm._lmer import lmer
from sklearn_lmm._regressor import MixedEffectsRegressor
from sklearn_lmm.terms import RandomEffect

__version__ = "0.1.0.dev0"

__all__ = [
    "MixedEffectsRegressor",
    "RandomEffect",
    "RandomEffectsEncoder",
    "__version__",
    "lmer",
]
