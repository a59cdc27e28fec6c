"""Random problems whose optimum is often on the boundary, and what is found there.

True variances are 0 or true correlations are +-1, and groups are few.  The fit
by Newton's method is held against the best of ten random starts of a bounded
L-BFGS-B (scipy) on the criterion over dense algebra; no start of our own helps
the reference.  The first problems are fitted by the other solvers, too.

    python -m tests.boundary          writes tests/boundary_results.txt
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import minimize

import sklearn_lmm
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import CrossProducts, cross_products
from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.fit import LMMFit, fit
from sklearn_lmm.covariance import (
    CompoundSymmetry,
    Covariance,
    Diagonal,
    Identity,
    Unstructured,
)

FloatArray = NDArray[np.float64]
Rng = np.random.Generator

N_PROBLEMS = 200
N_PROBLEMS_OF_OTHERS = 40
N_STARTS = 10
ALLOWED = 1e-7
"""By how much a fit's criterion may exceed the best known, in deviance units."""

ON_BOUNDARY = 1e-6
"""Psi with an eigenvalue below this part of max(1, largest) is on the boundary."""

RESULTS = Path(__file__).with_name("boundary_results.txt")


@dataclass(frozen=True)
class Term:
    """A random term: its factor, structure, slopes, and the rank of its true Psi."""

    factor: int
    slopes: int
    rank: int
    structure: Covariance


@dataclass(frozen=True)
class Outcome:
    """What two optimisers made of one problem.

    excess : our criterion less the best of the reference's
    reached : how many of the reference's starts came within 1e-6 of the best
    smallest : the least eigenvalue of any Psi at our optimum
    """

    seed: int
    kind: str
    reml: bool
    excess: float
    reached: int
    smallest: float
    result: LMMFit

    @property
    def on_boundary(self) -> bool:
        return self.smallest < ON_BOUNDARY

    def __str__(self) -> str:
        return (
            f"{self.seed:4d} {self.kind:17s} {'REML' if self.reml else 'ML':4s} "
            f"{self.result.criterion:18.9f} {self.excess:10.1e} {self.reached:5d} "
            f"{self.smallest:9.1e} {self.result.n_iter:5d} "
            f"{self.result.decrement:9.1e}  "
            f"{'singular' if self.result.singular else 'interior'}"
            f"{'' if self.result.converged else ', not converged'}"
        )


HEADER = (
    "seed kind              crit          criterion     excess  best  smallest"
    "  iter decrement"
)


def draw_rank(rng: Rng, q: int) -> int:
    """Return a rank below q, most of the time."""
    return int(rng.integers(0, q)) if rng.random() < 0.8 else q


def one_factor(slopes: int, structure: Covariance) -> Callable[[Rng], list[Term]]:
    return lambda rng: [Term(0, slopes, draw_rank(rng, slopes + 1), structure)]


def intercepts(factors: int) -> Callable[[Rng], list[Term]]:
    return lambda rng: [
        Term(f, 0, draw_rank(rng, 1), Unstructured()) for f in range(factors)
    ]


def slopes_on_both(rng: Rng) -> list[Term]:
    return [Term(f, 1, draw_rank(rng, 2), Unstructured()) for f in range(2)]


def slopes_and_intercepts(rng: Rng) -> list[Term]:
    first = Term(0, 1, draw_rank(rng, 2), Unstructured())
    return [first, Term(1, 0, draw_rank(rng, 1), Unstructured())]


def two_terms(rng: Rng) -> list[Term]:
    first = Term(0, 1, draw_rank(rng, 2), Diagonal())
    return [first, Term(1, 1, draw_rank(rng, 2), Unstructured())]


KINDS: dict[str, Callable[[Rng], list[Term]]] = {
    "intercept": one_factor(0, Unstructured()),
    "slope": one_factor(1, Unstructured()),
    "two slopes": one_factor(2, Unstructured()),
    "diagonal": one_factor(2, Diagonal()),
    "symmetric": one_factor(2, CompoundSymmetry()),
    "one variance": one_factor(1, Identity()),
    "crossed": intercepts(2),
    "crossed, 3": intercepts(3),
    "crossed slope": slopes_and_intercepts,
    "crossed slopes": slopes_on_both,
    "crossed diagonal": two_terms,
    "nested": intercepts(2),
    "nested, 3": intercepts(3),
    "nested slopes": slopes_on_both,
}


def draw_labels(rng: Rng, kind: str, factors: int) -> list[NDArray[np.integer]]:
    """Draw the labels of few, unbalanced groups; nested ones leaves first."""
    n = int(rng.integers(25, 90))
    if kind.startswith("nested"):
        children = rng.integers(2, 5, factors - 1)
        leaf = rng.integers(0, int(rng.integers(3, 7) * np.prod(children)), n)
        return [leaf // int(np.prod(children[:f])) for f in range(factors)]
    return [rng.integers(0, rng.integers(4, 12), n) for _ in range(factors)]


def draw_problem(seed: int) -> tuple[str, Design, bool]:
    """Return a kind of problem, its rows, and whether to take REML."""
    rng = np.random.default_rng(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    terms = KINDS[kind](rng)
    labels = draw_labels(rng, kind, 1 + max(term.factor for term in terms))
    n = len(labels[0])
    x = rng.normal(rng.choice([0.0, 2.0]), 1.0, n)
    y = 1.0 + 0.5 * x + rng.normal(size=n)
    factors, blocks = [], []
    for codes in labels:
        levels, codes = np.unique(codes, return_inverse=True)
        factors.append(Factor(codes, levels))
    for term in terms:
        slopes = [x, rng.normal(size=n)][: term.slopes]
        q = 1 + term.slopes
        root = rng.uniform(0.3, 1.5) * rng.normal(size=(q, term.rank))
        b = rng.normal(size=(factors[term.factor].n_levels, term.rank)) @ root.T
        z = np.column_stack([np.ones(n), *slopes])
        y = y + np.sum(z * b[factors[term.factor].codes], axis=1)
        blocks.append(Block(term.factor, term.structure, True, tuple(slopes)))
    design = Design(x[:, None], y, True, tuple(factors), tuple(blocks))
    return kind, design, bool(rng.random() < 0.5)


def bounds(criterion: Criterion) -> list[tuple[float | None, None]]:
    """Return theta >= 0 for standard deviations, no bound for other parameters."""
    limits: list[tuple[float | None, None]] = []
    for term in criterion.statistics.terms:
        deviations = term.structure.start(term.q) > 0
        limits += [(0.0 if deviation else None, None) for deviation in deviations]
    return limits


def reference(statistics: CrossProducts, reml: bool, seed: int) -> FloatArray:
    """Return the criterion reached from each random start, best first."""
    rng = np.random.default_rng([seed, 1])
    criterion = Criterion(statistics, DenseStrategy(statistics), reml=reml)
    limits = bounds(criterion)

    def value_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        try:
            point = criterion.at(theta)
        except np.linalg.LinAlgError:
            # A long first step may end where rounding leaves no H: go back.
            return 1e10, np.zeros_like(theta)
        return point.deviance, point.gradient

    reached = []
    for _ in range(N_STARTS):
        start = rng.normal(size=len(limits)) * rng.choice([0.2, 1.0, 3.0])
        for i, (lower, _) in enumerate(limits):
            start[i] = start[i] if lower is None else abs(start[i])
        search = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=limits,
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000, "maxcor": 20},
        )
        reached.append(search.fun)
    return np.sort(reached)


def smallest_eigenvalue(result: LMMFit) -> float:
    """Return the least eigenvalue of any Psi, relative to max(1, the largest)."""
    criterion, theta, smallest = result.model(), result.theta_standardized, np.inf
    for term, _, part in criterion.terms():
        L = term.structure.factor(theta[part], term.q)
        s = np.linalg.svd(L, compute_uv=False) ** 2
        smallest = min(smallest, s[-1] / max(1.0, s[0]))
    return float(smallest)


def examine(seed: int, solver: str = "newton") -> Outcome:
    """Fit one problem and hold it against the reference."""
    kind, design, reml = draw_problem(seed)
    result = fit(design, reml=reml, solver=solver)
    best = reference(cross_products(design), reml, seed)
    return Outcome(
        seed=seed,
        kind=kind,
        reml=reml,
        excess=float(result.criterion - best[0]),
        reached=int(np.sum(best < best[0] + 1e-6)),
        smallest=smallest_eigenvalue(result),
        result=result,
    )


def versions() -> str:
    parts = {
        "sklearn_lmm": sklearn_lmm.__version__,
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def summary(solver: str, outcomes: list[Outcome]) -> str:
    excess = np.array([outcome.excess for outcome in outcomes])
    return (
        f"{solver}: {len(outcomes)} problems, "
        f"{sum(o.on_boundary for o in outcomes)} with the optimum on the boundary "
        f"({sum(o.result.singular for o in outcomes)} reported singular), "
        f"{sum(not o.result.converged for o in outcomes)} not converged; excess over "
        f"the best of {N_STARTS} starts from {excess.min():.1e} to {excess.max():.1e}, "
        f"{np.sum(excess > ALLOWED)} above {ALLOWED:.0e}"
    )


def report(by_solver: dict[str, list[Outcome]]) -> Iterator[str]:
    """Yield the lines of the report, the summaries first."""
    yield f"{date.today()}, {versions()}"
    for solver, outcomes in by_solver.items():
        yield summary(solver, outcomes)
    for solver, outcomes in by_solver.items():
        yield from ("", solver, HEADER, *map(str, outcomes))


def main() -> None:
    counts = {"newton": N_PROBLEMS} | dict.fromkeys(
        ["lbfgs", "em"], N_PROBLEMS_OF_OTHERS
    )
    lines = list(
        report(
            {
                solver: [examine(seed, solver) for seed in range(count)]
                for solver, count in counts.items()
            }
        )
    )
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines[: 1 + len(counts)], sep="\n")


if __name__ == "__main__":
    main()
