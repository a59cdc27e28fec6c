"""Encoders of categories against known effects, and below a boosted model.

`python -m benchmarks.encoder --help`.  Three tables: how far encodings are from
the true effects of simulated categories; the R2 of a HistGradientBoostingRegressor
on top of each encoder, on simulated and real rows that it has not seen; and how
long `fit_transform` takes.  Every encoder is used as it comes, with its defaults.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from benchmarks.tables import markdown
from sklearn_lmm import RandomEffectsEncoder
from sklearn_lmm.datasets import load_insteval

RESULTS = Path(__file__).parent / "results" / "encoder.md"
PACKAGES = [
    "numpy",
    "pandas",
    "scikit-learn",
    "sklearn-lmm",
    "category-encoders",
    "statsmodels",
]
OURS = "RandomEffectsEncoder"
EXTRAS = f"{OURS}, std and count"
WITHOUT = "(columns left out)"
SLOW = "GLMMEncoder"
KNOWN = "(variances known)"

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Row = list[str]


def encoders() -> dict[str, Callable[[], Any]]:
    """Return what makes each encoder, ours first."""
    found: dict[str, Callable[[], Any]] = {
        OURS: partial(RandomEffectsEncoder, random_state=0),
        "TargetEncoder": partial(
            TargetEncoder,
            target_type="continuous",
            cv=KFold(5, shuffle=True, random_state=0),
        ),
    }
    if importlib.util.find_spec("category_encoders"):
        from category_encoders import GLMMEncoder, MEstimateEncoder

        found["MEstimateEncoder"] = MEstimateEncoder
        found[SLOW] = partial(GLMMEncoder, binomial_target=False)
    return found


# 1. Known effects

RATIOS = (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)
CLAIMED = (0.01, 0.1, 1.0)
"""Ratios of between to within variance where ours is meant to be better."""

SAME = 1e-4
"""Encodings by one model with RMSEs that differ by less count as the same."""


def zipf(n_levels: int, n: int) -> IntArray:
    """Return sizes of levels that are proportional to 1 / rank, at least 1."""
    share = 1.0 / np.arange(1, n_levels + 1)
    return np.maximum(1, np.round(n * share / share.sum())).astype(np.int64)


SIZES: dict[str, IntArray] = {
    "300 x 10": np.full(300, 10),
    "60 x 100": np.full(60, 100),
    "300, sizes 1/rank": zipf(300, 3000),
    "900 x 1, 2 or 3": np.tile([1, 2, 3], 300),
}


@dataclass(frozen=True)
class Cell:
    """Errors in one setting.

    errors : by encoder, the RMSE of its encodings in every replicate
    """

    sizes: str
    ratio: float
    errors: dict[str, FloatArray]

    def line(self, names: list[str]) -> Row:
        """Return the line of the table: ours, then by how much others are above."""
        line = [self.sizes, f"{self.ratio:g}", f"{self.errors[OURS].mean():.4f}"]
        excess = (self.excess(name) for name in names[1:])
        return line + [f"{mean:+.2g} ± {error:.1g}" for mean, error in excess]

    def excess(self, name: str) -> tuple[float, float]:
        """Return by how much a peer's RMSE is above ours, and its standard error."""
        differences = paired(self.errors[name], self.errors[OURS])
        if name == SLOW:
            # The same optimum, found with another tolerance, is the same encoding.
            differences[np.abs(differences) < SAME] = 0.0
        return mean_and_error(differences)

    def is_worse(self, name: str) -> bool:
        """Say whether ours is worse by more than two Monte-Carlo errors."""
        mean, error = self.excess(name)
        return mean < -2 * error

    def is_better(self, name: str) -> bool:
        """Say whether ours is better by more than two Monte-Carlo errors."""
        mean, error = self.excess(name)
        return mean > 2 * error


def paired(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return differences in the replicates that both have."""
    n = min(len(one), len(other))
    return one[:n] - other[:n]


def mean_and_error(values: FloatArray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def recover(sizes: str, ratio: float, replicates: int, slow: int) -> Cell:
    """Encode simulated categories, whose effects are known, by every encoder."""
    makers = encoders()
    errors: dict[str, list[float]] = {name: [] for name in [*makers, KNOWN]}
    counts = SIZES[sizes]
    code = np.repeat(np.arange(len(counts)), counts)
    levels = pd.DataFrame({"c": [f"level {g}" for g in range(len(counts))]})
    frame = levels.iloc[code].reset_index(drop=True)
    for seed in range(replicates):
        rng = np.random.default_rng([seed, len(counts), round(1000 * ratio)])
        truth = 3.0 + np.sqrt(ratio) * rng.normal(size=len(counts))
        y = pd.Series(truth[code] + rng.normal(size=len(code)))
        for name, make in makers.items():
            if name != SLOW or seed < slow:
                encoder = make().fit(frame, y)
                encoded = np.asarray(encoder.transform(levels))[:, 0]
                if name == OURS:
                    intercept = encoder.target_mean_["c"]
                if name == SLOW:
                    # It gives deviations from this, but not the intercept itself.
                    encoded = encoded + intercept
                errors[name].append(rmse(encoded, truth))
        errors[KNOWN].append(rmse(best_linear(y.to_numpy(), code, ratio), truth))
    return Cell(sizes, ratio, {name: np.array(e) for name, e in errors.items()})


def rmse(encoded: FloatArray, truth: FloatArray) -> float:
    return float(np.sqrt(np.mean((encoded - truth) ** 2)))


def best_linear(y: FloatArray, code: IntArray, ratio: float) -> FloatArray:
    """Return the best linear unbiased predictions if the ratio is known."""
    n = np.bincount(code)
    means = np.bincount(code, y) / n
    mu = np.average(means, weights=1.0 / (ratio + 1.0 / n))
    return np.asarray(mu + ratio / (ratio + 1.0 / n) * (means - mu))


def verdicts(cells: list[Cell], names: list[str]) -> Iterator[str]:
    """Yield sentences on where ours is worse, and where it is not better."""
    for name in names[1:]:
        worse = [cell for cell in cells if cell.is_worse(name)]
        claimed = [cell for cell in cells if cell.ratio in CLAIMED]
        level = [cell for cell in claimed if not cell.is_better(name)]
        yield (
            f"Against {name}: worse by more than two Monte-Carlo errors in "
            f"{named(worse)}; at ratios of 0.01 to 1 better by as much in "
            f"{len(claimed) - len(level)} of {len(claimed)} settings"
            + (f", not in {named(level)}." if level else ".")
        )


def named(cells: list[Cell]) -> str:
    return "; ".join(f"{c.sizes} at {c.ratio:g}" for c in cells) or "no setting"


# 2. Below a boosted model


@dataclass(frozen=True)
class Task:
    """Rows for a model of encoded and numeric columns.

    repeats : (X, y, rows to learn from, rows to predict), as often as wanted
    """

    name: str
    encoded: list[str]
    repeats: Callable[[], Iterator[tuple[pd.DataFrame, pd.Series, Any, Any]]]


def simulated(between: float, n_repeats: int) -> Iterator[Any]:
    """Yield rows of two crossed factors of 600 and 150 levels, and two covariates."""
    for seed in range(n_repeats):
        rng = np.random.default_rng(seed)
        n = 12_000
        user = rng.permutation(np.repeat(np.arange(600), zipf(600, n))[:n])
        user = np.resize(user, n)
        item = rng.integers(0, 150, n)
        a, b = rng.normal(size=(2, n))
        effects = rng.normal(size=600)[user] + rng.normal(size=150)[item]
        y = np.sin(2 * a) + a * b + np.sqrt(between) * effects + rng.normal(size=n)
        X = pd.DataFrame({"user": user, "item": item}).astype(str)
        order = rng.permutation(n)
        yield X.assign(a=a, b=b), pd.Series(y), order[: n // 2], order[n // 2 :]


def insteval() -> Iterator[Any]:
    """Yield three folds of the ratings of lecturers by students."""
    X, y = load_insteval(return_X_y=True)
    labels = X[["s", "d", "dept"]].astype(str).astype(object)
    numbers = X[["studage", "lectage", "service"]].astype(str).astype(float)
    data = pd.concat([labels, numbers], axis=1)
    y = y.astype(float)
    for learn, predict in KFold(3, shuffle=True, random_state=0).split(data):
        yield data, y, learn, predict


def boosted_scores(task: Task, slow: int) -> dict[str, FloatArray]:
    """Return by encoder the R2 of the model on top, in every repeat."""
    makers = {WITHOUT: lambda: "drop", **encoders()}
    makers[EXTRAS] = partial(
        RandomEffectsEncoder, extras=("std", "count"), random_state=0
    )
    scores: dict[str, list[float]] = {name: [] for name in makers}
    for repeat, (X, y, learn, predict) in enumerate(task.repeats()):
        for name, make in makers.items():
            if name == SLOW and repeat >= slow:
                continue
            columns = ColumnTransformer(
                [("encoded", make(), task.encoded)], remainder="passthrough"
            )
            model = make_pipeline(columns, HistGradientBoostingRegressor())
            model.fit(X.iloc[learn], y.iloc[learn])
            scores[name].append(model.score(X.iloc[predict], y.iloc[predict]))
    return {name: np.array(values) for name, values in scores.items()}


def boosted_lines(task: Task, slow: int) -> Iterator[Row]:
    scores = boosted_scores(task, slow)
    for name, values in scores.items():
        ahead, error = mean_and_error(paired(scores[OURS], values))
        gain = "" if name == OURS else f"{ahead:+.4f} ± {error:.4f}"
        yield [task.name, name, f"{values.mean():.4f}", str(len(values)), gain]


# 3. Time


def time_lines() -> Iterator[Row]:
    """Yield the best of three times that fit_transform takes."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 10_000, 100_000)
    y = pd.Series(0.5 * rng.normal(size=10_000)[code] + rng.normal(size=len(code)))
    frame = pd.DataFrame({"c": code}).astype(str)
    for name, make in encoders().items():
        if name == SLOW:
            continue
        times = []
        for _ in range(3):
            start = time.perf_counter()
            make().fit_transform(frame, y)
            times.append(time.perf_counter() - start)
        yield [name, f"{1000 * min(times):.0f} ms"]


def report(options: argparse.Namespace) -> str:
    """Run everything and return the report, in Markdown."""
    names = list(encoders())
    cells = [
        recover(sizes, ratio, options.replicates, options.slow)
        for sizes in SIZES
        for ratio in RATIOS
    ]
    header = ["levels x rows", "between / within", names[0]]
    header += [*names[1:], KNOWN]
    tasks = [
        Task(
            f"simulated, between / within {between:g}",
            ["user", "item"],
            partial(simulated, between, options.repeats),
        )
        for between in (0.0, 0.1, 1.0)
    ]
    tasks.append(Task("InstEval: s, d, dept", ["s", "d", "dept"], insteval))
    boosted = [line for task in tasks for line in boosted_lines(task, options.slow)]
    parts = [
        "# Encoders",
        "Made by `python -m benchmarks.encoder`.",
        "## Known effects",
        "RMSE of the encodings against the true effects of the categories "
        "(`transform`; within variance 1), and by how much those of other encoders "
        f"are above it, ± one Monte-Carlo error of the paired difference: "
        f"{options.replicates} replicates, {options.slow} of {SLOW}. That one fits the "
        "same REML model by statsmodels, so that a difference means that one of the "
        "two has missed the optimum. The last column is the best that there is, with "
        "both variances known. At a ratio of 1 the default m = 1 of MEstimateEncoder "
        "happens to be just this shrinkage, which ours has to estimate.",
        markdown(header, [cell.line([*names, KNOWN]) for cell in cells]),
        *verdicts(cells, names),
        "## Below HistGradientBoostingRegressor",
        "R2 on rows left out, and how far ours is ahead in the same repeats (± one "
        "standard error). The encoders of category_encoders are not cross-fitted.",
        markdown(["data", "encoder", "R2", "repeats", "ours ahead by"], boosted),
        "## Time",
        "`fit_transform` of 1e5 rows with 1e4 categories (text), best of three.",
        markdown(["encoder", "time"], list(time_lines())),
        environment(),
    ]
    return "\n\n".join(parts) + "\n"


def environment() -> str:
    installed = (f"{name} {version(name)}" for name in PACKAGES if is_installed(name))
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{date}, Python {platform.python_version()}, {', '.join(installed)}."


def is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoder",
        description=f"Compare encoders; a run rewrites {RESULTS.name}.",
    )
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=10, help="of boosted models")
    parser.add_argument("--slow", type=int, default=10, help=f"replicates of {SLOW}")
    options = parser.parse_args()
    # Singular fits are the rule where there is no effect.
    warnings.simplefilter("ignore")
    text = report(options)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
