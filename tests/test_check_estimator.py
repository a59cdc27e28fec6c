"""scikit-learn's own checks, on several instances and with no exceptions.

Column 0 of the checks' data is continuous: every row is a level of its own,
which has to end in a warning of ours and finite predictions.
"""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lmm import MixedEffectsRegressor, RandomEffect

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::sklearn_lmm.exceptions.{name}")
    for name in (
        "ConvergenceWarning",
        "IdentifiabilityWarning",
        "MissingGroupsWarning",
        "PerfectFitWarning",
        "RankDeficiencyWarning",
        "SingularFitWarning",
    )
]


@parametrize_with_checks(
    [
        MixedEffectsRegressor([]),
        MixedEffectsRegressor(),
        MixedEffectsRegressor(0),
        MixedEffectsRegressor(RandomEffect(0, slopes=1)),
        MixedEffectsRegressor([0, 1]),
        MixedEffectsRegressor((0, 1)),
        MixedEffectsRegressor(0, solver="em"),
        MixedEffectsRegressor(0, solver="lbfgs"),
        MixedEffectsRegressor(0, method="ml", weights="precision"),
    ]
)
def test_scikit_learn_agrees(estimator, check):
    check(estimator)
