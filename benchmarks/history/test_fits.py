"""Our own history: the time of fits that are quick enough to repeat at every change.

pytest benchmarks/history --benchmark-save=head --benchmark-storage=.benchmarks
"""

import numpy as np
import pytest

from benchmarks.cases import CASES, find_case
from benchmarks.packages import SklearnLMM

QUICK = 0.5
"""Seconds: cases with a higher goal, or none, are left to `python -m benchmarks`."""


@pytest.mark.parametrize(
    "name", [case.name for case in CASES if (case.goal or np.inf) <= QUICK]
)
def test_fit(benchmark, name):
    case = find_case(name)
    package = SklearnLMM(case, case.data())
    fitted = benchmark.pedantic(package.fit, rounds=15, warmup_rounds=1)
    assert fitted.converged_
