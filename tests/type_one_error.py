"""How often tests of true null hypotheses reject, at 6, 10 and 30 groups.

Balanced designs whose exact tests are known: one way with a covariate of the
groups, a split plot, random slopes with a treatment of the groups.  No fixed
effect differs from 0.  All responses of a design are fitted from its
cross-products by REML and tested by Satterthwaite's and by Kenward and Roger's
method, for comparison also with the normal distribution (or chi-squared).

    python -m tests.type_one_error    writes tests/type_one_error_results.txt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.kenward_roger import KenwardRoger
from sklearn_lmm._engine.refits import FixedDesign, lost_a_direction, refit
from sklearn_lmm._engine.satterthwaite import Satterthwaite
from sklearn_lmm.covariance import Unstructured
from tests.boundary import versions

FloatArray = NDArray[np.float64]
Rng = np.random.Generator

N_REPLICATES = 10_000
AT_ONCE = 500
GROUPS = (6, 10, 30)
LEVEL = 0.05
ALLOWED = 1e-6
"""By how much a criterion may be above its optimum, in deviance units."""

RESULTS = Path(__file__).with_name("type_one_error_results.txt")
HEADER = (
    f"{'design':<14}{'groups':>7}  {'test':<22}{'exact df':>9}{'KR':>8}{'Satt.':>8}"
    f"{'normal':>8}{'df KR':>8}{'df Satt.':>9}{'singular':>10}"
)


@dataclass(frozen=True)
class Study:
    """A design, what is tested in it, and how its responses vary.

    tests : name -> (positions of the effects tested, exact denominator df)
    slopes_vary : whether the slopes of the first column vary, too
    """

    X: FloatArray
    group: NDArray[np.int64]
    tests: dict[str, tuple[list[int], int]]
    slopes_vary: bool = False

    def design(self, y: FloatArray) -> Design:
        levels = np.arange(self.group.max() + 1)
        slopes = (self.X[:, 0],) if self.slopes_vary else ()
        block = Block(0, Unstructured(), True, slopes)
        factor = Factor(self.group, levels)
        return Design(self.X, y, True, (factor,), (block,))

    def responses(self, rng: Rng, k: int) -> FloatArray:
        """Draw k responses (n, k); all variances are 1, all effects 0."""
        Y = rng.normal(size=(len(self.group), k))
        Y += rng.normal(size=(self.group.max() + 1, k))[self.group]
        if self.slopes_vary:
            slopes = rng.normal(size=(self.group.max() + 1, k))[self.group]
            Y += self.X[:, 0, None] * slopes
        return Y


def one_way(groups: int) -> Study:
    """Five rows in every group; half of the groups are treated."""
    group = np.repeat(np.arange(groups), 5)
    treated = (group % 2).astype(float)
    return Study(treated[:, None], group, {"treatment": ([1], groups - 2)})


def split_plot(groups: int) -> Study:
    """Every whole plot has one of two varieties and each of three fertilisers."""
    group = np.repeat(np.arange(groups), 3)
    variety = (group % 2).astype(float)
    fertiliser = np.eye(3)[np.arange(len(group)) % 3][:, 1:]
    fertiliser -= 1 / 3
    product = fertiliser * (variety - 0.5)[:, None]
    within = 2 * (groups - 2)
    tests = {
        "variety": ([1], groups - 2),
        "fertiliser": ([2, 3], within),
        "variety:fertiliser": ([4, 5], within),
    }
    return Study(np.column_stack([variety, fertiliser, product]), group, tests)


def random_slope(groups: int) -> Study:
    """Five times in every group, a slope for each; half of the groups are treated."""
    group = np.repeat(np.arange(groups), 5)
    time = np.tile(np.arange(5.0) - 2.0, groups)
    treated = group % 2 - 0.5
    X = np.column_stack([time, treated, treated * time])
    tests = {
        "time": ([1], groups - 2),
        "treatment": ([2], groups - 2),
        "treatment:time": ([3], groups - 2),
    }
    return Study(X, group, tests, slopes_vary=True)


STUDIES: dict[str, Callable[[int], Study]] = {
    "one way": one_way,
    "split plot": split_plot,
    "random slope": random_slope,
}


def p_values(
    point: Point, study: Study
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield every test with its p-values and degrees of freedom.

    By Kenward and Roger, by Satterthwaite, and by the normal distribution.
    """
    units = point.criterion.statistics.columns
    root = units.map()[:-1, :-1] @ point.inverse_R_X
    beta = -(units.map() @ point.residual)[:-1] / np.sqrt(point.sigma2)
    adjusted, satterthwaite = KenwardRoger(point), Satterthwaite(point)
    for name, (effects, _) in study.tests.items():
        L, q = root[effects], len(effects)
        F = [
            beta[effects] @ np.linalg.solve(L @ core @ L.T, beta[effects]) / q
            for core in (adjusted.adjusted, np.eye(len(root)))
        ]
        df, scale = adjusted.test(L)
        df_s = satterthwaite.several(L)
        tails = [
            stats.f.sf(scale * F[0], q, df),
            stats.f.sf(F[1], q, df_s),
            stats.chi2.sf(q * F[1], q),
        ]
        yield name, tails, [df, df_s]


def examine(name: str, groups: int) -> list[str]:
    """Return a line for every test of one design."""
    study = STUDIES[name](groups)
    rng = np.random.default_rng([groups, *map(ord, name)])
    first = regular_fit(study, rng)
    many = FixedDesign.of(*first)
    rejected = {test: np.zeros(3) for test in study.tests}
    df: dict[str, list[list[float]]] = {test: [] for test in study.tests}
    singular = 0
    for _ in range(N_REPLICATES // AT_ONCE):
        for statistics in many.statistics(study.responses(rng, AT_ONCE)):
            optimum = refit(statistics, many.fit, many.model)
            assert optimum is not None and optimum.decrement < ALLOWED
            singular += lost_a_direction(optimum.point)
            for test, tails, dfs in p_values(optimum.point, study):
                rejected[test] += np.array(tails) < LEVEL
                df[test].append(dfs)
    lines = []
    for test, (_, exact) in study.tests.items():
        rates = 100 * rejected[test] / N_REPLICATES
        medians = np.median(df[test], axis=0)
        lines.append(
            f"{name:<14}{groups:>7}  {test:<22}{exact:>9}"
            + "".join(f"{rate:8.2f}" for rate in rates)
            + f"{medians[0]:8.1f}{medians[1]:9.1f}"
            + f"{100 * singular / N_REPLICATES:9.1f}%"
        )
    return lines


def regular_fit(study: Study, rng: Rng):
    """Return rows, and a fit to them that is a good place to start others from."""
    while True:
        design = study.design(study.responses(rng, 1)[:, 0])
        result = fit(design, reml=True)
        if not result.singular:
            return design, result


def report() -> Iterator[str]:
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / N_REPLICATES)
    yield f"{date.today()}, {versions()}"
    yield (
        f"Percent of {N_REPLICATES} tests rejected at {100 * LEVEL:.0f} % "
        f"(Monte Carlo standard error {error:.2f}), median degrees of freedom, and "
        "how many fits were singular."
    )
    yield ""
    yield HEADER
    for name in STUDIES:
        for groups in GROUPS:
            yield from examine(name, groups)


def main() -> None:
    with threadpool_limits(1):
        lines = list(report())
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
