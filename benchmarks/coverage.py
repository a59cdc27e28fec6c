"""How often intervals of predictions cover what they are meant to cover.

    python -m benchmarks.coverage                    # all, some minutes
    python -m benchmarks.coverage --replicates 200   # a glance

Rewrites results/coverage.md. Every replicate draws groups, rows and effects
anew, fits the model by REML and asks for 95% intervals of further rows.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

from benchmarks.tables import markdown_frame, software
from sklearn_lmm import MixedEffectsRegressor, RandomEffect

RESULTS = Path(__file__).parent / "results" / "coverage.md"
COVERAGE = 0.95
N_NEW = 5
"""Rows of new groups asked for in each replicate."""

UNHEARD_OF = -1
"""The label of groups that the fit has not seen."""


@dataclass(frozen=True)
class Case:
    """One model, with the truth that data are drawn from; sigma is 1.

    roots : per factor L (q, q), with Psi = L L'
    n_groups : levels of every factor
    n_rows : rows of a level of the first factor, on average
    """

    name: str
    roots: tuple[tuple[tuple[float, ...], ...], ...]
    n_groups: int
    n_rows: int

    @property
    def random(self) -> list[RandomEffect]:
        slopes = [["x"] if len(root) == 2 else [] for root in self.roots]
        return [RandomEffect(f"g{f}", slopes=s) for f, s in enumerate(slopes)]

    @property
    def label(self) -> str:
        return f"{self.name}, {self.n_groups} groups"


INTERCEPT, WEAK = ((1.0,),), ((0.4,),)
SLOPE = ((1.0, 0.0), (0.2, 0.6))
MODELS = [
    ("intercept", (INTERCEPT,), 5),
    ("weak intercept", (WEAK,), 5),
    ("slope", (SLOPE,), 8),
    ("crossed", (INTERCEPT, INTERCEPT), 8),
]
CASES = [
    Case(name, roots, n_groups, n_rows)
    for (name, roots, n_rows), n_groups in product(MODELS, [10, 30])
]


def draw(case: Case, rng: np.random.Generator) -> tuple[pd.DataFrame, list]:
    """Draw unbalanced rows (labels and x), and the effects of every factor."""
    sizes = rng.integers(case.n_rows - 2, case.n_rows + 3, case.n_groups)
    labels = {"g0": np.repeat(np.arange(case.n_groups), sizes)}
    for f in range(1, len(case.roots)):
        labels[f"g{f}"] = rng.integers(0, case.n_groups, sizes.sum())
    X = pd.DataFrame({"x": rng.normal(size=sizes.sum())} | labels)
    effects = [
        rng.normal(size=(case.n_groups, len(root))) @ np.transpose(root)
        for root in case.roots
    ]
    return X, effects


def asked(case: Case, X: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows to predict; the column `of` says which groups are known."""
    known = X.groupby("g0").sample(1, random_state=rng).assign(of="known")
    parts = [known]
    for f in reversed(range(len(case.roots))):
        unseen = {f"g{k}": UNHEARD_OF for k in range(f, len(case.roots))}
        new = known.sample(N_NEW, random_state=rng).assign(**unseen)
        parts.append(new.assign(of="new" if f == 0 else "known and new"))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(x=rng.normal(size=len(rows)))


def truth(case: Case, rows: pd.DataFrame, effects: list) -> tuple:
    """Return mean (n,) and variance (n,) of rows, given the effects that exist."""
    mean, variance = rows["x"].to_numpy(copy=True), np.zeros(len(rows))
    for f, (root, b) in enumerate(zip(case.roots, effects, strict=True)):
        z = np.column_stack([np.ones(len(rows)), rows["x"]])[:, : len(root)]
        codes = rows[f"g{f}"].to_numpy()
        unseen = codes == UNHEARD_OF
        mean += np.where(unseen, 0.0, np.sum(z * b[codes], axis=1))
        variance += np.where(unseen, np.sum((z @ np.array(root)) ** 2, axis=1), 0.0)
    return mean, variance


def probability(intervals: np.ndarray, mean: np.ndarray, variance: np.ndarray):
    """Return how probably N(mean, variance) lies in intervals (n, 2)."""
    inside = (intervals[:, 0] <= mean) & (mean <= intervals[:, 1])
    z = (intervals - mean[:, None]) / np.sqrt(np.maximum(variance, 1e-300))[:, None]
    smooth = stats.norm.cdf(z[:, 1]) - stats.norm.cdf(z[:, 0])
    return np.where(variance > 0, smooth, inside)


def replicate(case: Case, seed: np.random.SeedSequence) -> Iterator[dict]:
    """Yield the coverage of every kind of interval in one drawn data set."""
    rng = np.random.default_rng(seed)
    X, effects = draw(case, rng)
    mean, _ = truth(case, X, effects)
    with warnings.catch_warnings():
        # Estimates on the boundary are part of what is measured.
        warnings.simplefilter("ignore")
        model = MixedEffectsRegressor(case.random)
        model.fit(X, mean + rng.normal(size=len(X)))
    rows = asked(case, X, rng)
    mean, variance = truth(case, rows, effects)
    of_rows = rows.pop("of")
    for kind, by_theta in product(["observation", "mean"], [False, True]):
        intervals = model.predict_interval(
            rows,
            coverage=COVERAGE,
            kind=kind,
            theta_uncertainty=by_theta,
        )
        covered = probability(intervals, mean, variance + (kind == "observation"))
        for of in of_rows.unique():
            chosen = (of_rows == of).to_numpy()
            yield {
                "case": case.label,
                "groups": of,
                "interval": kind,
                "theta": "with theta" if by_theta else "theta as known",
                "covered": covered[chosen].mean(),
                "singular": model.singular_,
            }


def measure(case: Case, replicates: int, seed: int) -> list[dict]:
    """Return the records of so many replicates of a case."""
    seeds = np.random.SeedSequence(seed).spawn(replicates)
    return [record for one in seeds for record in replicate(case, one)]


def run(cases: list[Case], replicates: int, n_jobs: int) -> pd.DataFrame:
    """Return all records, drawn in portions of 50 data sets."""
    portions = [
        delayed(measure)(case, 50, 1_000_000 * c + start)
        for c, case in enumerate(cases)
        # More groups have more rows to ask for, so fewer data sets do.
        for start in range(0, 10 * replicates // case.n_groups, 50)
    ]
    found = Parallel(n_jobs=n_jobs)(portions)
    return pd.DataFrame([record for records in found for record in records])


def summarize(records: pd.DataFrame) -> pd.DataFrame:
    """Return coverage in per cent and its Monte-Carlo error, a row an interval."""
    keys = ["case", "groups", "interval"]
    groups = records.groupby([*keys, "theta"], sort=False)
    covered = groups["covered"].agg(["mean", "sem"]) * 100
    text = covered["mean"].map("{:.2f}".format)
    text += " ± " + covered["sem"].map("{:.2f}".format)
    table = text.unstack("theta", sort=False)
    singular = records.groupby(keys, sort=False)["singular"].mean() * 100
    return table.assign(singular=singular.map("{:.1f}%".format)).reset_index()


def report(table: pd.DataFrame, replicates: int) -> str:
    """Return the results file."""
    return HEADER.format(
        software=software(), replicates=replicates, table=markdown_frame(table)
    )


HEADER = """# Coverage of 95% intervals

{software};
`python -m benchmarks.coverage`, {replicates} data sets of 10 groups and a third of that
of 30. Per cent, with the Monte-Carlo standard error; "singular" is the share of fits
with a covariance on the boundary. "with theta" is the default,
"theta as known" is `theta_uncertainty=False`.

The model is y = x + z'b + e with sigma = 1, fitted by REML with intercept; every
replicate draws x, effects and errors anew. "intercept": one factor, standard deviation
1, 3 to 7 rows a group; "weak intercept": 0.4 instead of 1; "slope": standard deviations
1 and 0.63, correlation 0.32, 6 to 10 rows; "crossed": two factors, standard deviations
1 and 1, each row of the first (6 to 10 a level) at a random level of the second. Rows
asked for have x ~ N(0, 1). For "known and new" the first factor's level is known, the
second's not. Where something new is to be covered its probability, given the interval
and the true parameters, is averaged, not its occurrence.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=3200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--case", default="", help="a part of the names of cases")
    options = parser.parse_args()
    # One thread each: the matrices are small.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cases = [case for case in CASES if options.case in case.label]
    table = summarize(run(cases, options.replicates, options.jobs))
    print(table.to_string(index=False))
    if cases == CASES:
        RESULTS.write_text(report(table, options.replicates), encoding="utf-8")


if __name__ == "__main__":
    main()
