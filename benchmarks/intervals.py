"""How often intervals of parameters cover the truth: Wald, profile, bootstrap.

    python -m benchmarks.intervals                    # some minutes of one core
    python -m benchmarks.intervals --replicates 50    # a glance

Rewrites results/intervals.md. Every replicate draws groups, effects and errors
anew, fits the model by REML and asks for 95% intervals of all its parameters.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.tables import markdown_frame, software
from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.intervals import bootstrap, confidence_intervals

RESULTS = Path(__file__).parent / "results" / "intervals.md"
N_ROWS = 8
DEVIATIONS, CORRELATION, SIGMA = np.array([1.0, 0.6]), 0.3, 1.0
SAMPLES = 199
"""Bootstrap samples: enough for the coverage, if not for one interval's ends."""

TRUTH = {
    "(Intercept)": 1.0,
    "x": 0.5,
    "w": -0.5,
    "sd((Intercept) | group)": DEVIATIONS[0],
    "sd(x | group)": DEVIATIONS[1],
    "cor((Intercept), x | group)": CORRELATION,
    "sigma": SIGMA,
}


def draw(n_groups: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw rows: x varies within groups, and its effect between them; w does not."""
    group = np.repeat(np.arange(n_groups), N_ROWS)
    x, w = rng.normal(size=len(group)), rng.normal(size=n_groups)[group]
    R = np.array([[1.0, CORRELATION], [CORRELATION, 1.0]])
    covariance = R * np.outer(DEVIATIONS, DEVIATIONS)
    b = rng.normal(size=(n_groups, 2)) @ np.linalg.cholesky(covariance).T
    fixed = TRUTH["(Intercept)"] + TRUTH["x"] * x + TRUTH["w"] * w
    y = fixed + b[group, 0] + b[group, 1] * x + SIGMA * rng.normal(size=len(group))
    return pd.DataFrame({"x": x, "w": w, "group": group}), y


def tables(
    model: MixedEffectsRegressor, X: pd.DataFrame, y: np.ndarray, seed: int | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the intervals of every method; of the bootstrap if there is a seed."""
    yield "Wald, normal", confidence_intervals(model)
    yield "Wald, t", confidence_intervals(model, parameters="fixed", df="satterthwaite")
    yield "profile", confidence_intervals(model, method="profile")
    if seed is not None:
        drawn = bootstrap(model, X, y, n_resamples=SAMPLES, random_state=seed)
        yield "bootstrap, percentile", drawn.intervals()
        yield "bootstrap, basic", drawn.intervals(kind="basic")


def replicate(n_groups: int, seed: int, with_bootstrap: bool) -> Iterator[dict]:
    """Yield one record for every method and parameter of one drawn data set."""
    X, y = draw(n_groups, np.random.default_rng([n_groups, seed]))
    with warnings.catch_warnings():
        # Estimates on the boundary are part of what is measured.
        warnings.simplefilter("ignore")
        model = MixedEffectsRegressor("(1 + x | group)").fit(X, y)
        for method, table in tables(model, X, y, seed if with_bootstrap else None):
            for name, row in table.iterrows():
                # An end that is missing is an interval without an end there.
                lower, upper = row["lower"], row["upper"]
                yield {
                    "groups": n_groups,
                    "method": method,
                    "parameter": name,
                    "covered": not (lower > TRUTH[name] or upper < TRUTH[name]),
                    "missing": np.isnan([lower, upper]).any(),
                    "singular": model.singular_,
                }


def run(replicates: int, bootstrapped: int) -> pd.DataFrame:
    records = []
    for n_groups in (10, 30):
        for seed in range(replicates):
            records += replicate(n_groups, seed, seed < bootstrapped)
    return pd.DataFrame(records)


def summarize(records: pd.DataFrame) -> pd.DataFrame:
    """Return coverage in per cent, a row a parameter, a column a method."""
    keys = ["groups", "parameter", "method"]
    found = records.groupby(keys, sort=False)[["covered", "missing"]].mean() * 100
    text = found["covered"].map("{:.1f}".format)
    open_ended = found["missing"].map(lambda share: f" ({share:.0f})" if share else "")
    return (text + open_ended).unstack("method", sort=False).fillna("").reset_index()


HEADER = """# Coverage of 95% intervals of parameters

{software};
`python -m benchmarks.intervals`, {seconds:.0f} seconds of one core.

Per cent of {n} data sets, of the first {m} for the bootstrap ({samples} parametric
samples each). The Monte-Carlo standard error is {error:.1f} and {error_bootstrap:.1f}
where 95 is right. In brackets the per cent of intervals with an end missing, which
count as going on for ever.

The model is y = 1 + 0.5 x - 0.5 w + b_0 + b_1 x + e with {rows} rows a group, x varying
within groups and w between them, standard deviations 1 and 0.6 of b_0 and b_1, their
correlation 0.3, sigma 1, fitted by REML. Of the fits with 10 groups {singular_10:.1f}%
lie on the boundary, of those with 30 groups {singular_30:.1f}%.

{table}
"""


def report(records: pd.DataFrame, seconds: float, n: int, m: int) -> str:
    """Return the results file."""
    singular = records.groupby("groups")["singular"].mean() * 100
    return HEADER.format(
        software=software(),
        seconds=seconds,
        n=n,
        m=m,
        samples=SAMPLES,
        rows=N_ROWS,
        error=100 * np.sqrt(0.95 * 0.05 / n),
        error_bootstrap=100 * np.sqrt(0.95 * 0.05 / m),
        singular_10=singular[10],
        singular_30=singular[30],
        table=markdown_frame(summarize(records)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=250)
    parser.add_argument("--bootstrapped", type=int, default=80)
    options = parser.parse_args()
    began = time.process_time()
    bootstrapped = min(options.bootstrapped, options.replicates)
    # The matrices are small.
    with threadpool_limits(1):
        records = run(options.replicates, bootstrapped)
    seconds = time.process_time() - began
    text = report(records, seconds, options.replicates, bootstrapped)
    print(text)
    if options.replicates >= parser.get_default("replicates"):
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
