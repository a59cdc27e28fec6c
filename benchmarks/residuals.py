"""Recovery and error rates where errors are autocorrelated.

    python -m benchmarks.residuals                    # some ten minutes of one core
    python -m benchmarks.residuals --replicates 50    # a glance

Rewrites results/residuals.md. Every replicate draws covariates, effects and
AR(1) errors anew and fits the model by REML: first the true model, for the bias
and the coverage of 95% intervals of all its parameters; then models with and
without the autocorrelation, for the rate at which they reject what is true.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.tables import markdown_frame, software
from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.intervals import confidence_intervals
from sklearn_lmm.residuals import AR1

RESULTS = Path(__file__).parent / "results" / "residuals.md"
N_SERIES, N_TIMES = 30, 12
PHI, SIGMA = 0.6, 1.0
DEVIATIONS, CORRELATION = np.array([1.0, 0.8]), 0.3
OF_ITEMS, OF_INTERCEPTS = 0.7, 0.5
ERRORS = AR1("trial", "series")
COLUMNS = ["time", "x", "between"]

TRUTH = {
    "(Intercept)": 1.0,
    "time": 0.5,
    "x": 0.5,
    "between": -0.5,
    "sd((Intercept) | series)": DEVIATIONS[0],
    "sd(time | series)": DEVIATIONS[1],
    "cor((Intercept), time | series)": CORRELATION,
    "sd((Intercept) | item)": OF_ITEMS,
    "sigma": SIGMA,
    "phi": PHI,
}


def autoregressive(rng: np.random.Generator) -> np.ndarray:
    """Return stationary AR(1) errors with standard deviation 1, series by series."""
    e = rng.normal(size=(N_SERIES, N_TIMES))
    e[:, 1:] *= np.sqrt(1.0 - PHI**2)
    for t in range(1, N_TIMES):
        e[:, t] += PHI * e[:, t - 1]
    return e.ravel()


def draw_rows(rng: np.random.Generator) -> pd.DataFrame:
    """Draw covariates: time runs from -1 to 1, every series has every item once."""
    series = np.repeat(np.arange(N_SERIES), N_TIMES)
    trial = np.tile(np.arange(N_TIMES), N_SERIES)
    return pd.DataFrame(
        {
            "time": np.linspace(-1.0, 1.0, N_TIMES)[trial],
            "x": rng.normal(size=len(series)),
            "between": rng.normal(size=N_SERIES)[series],
            "series": series,
            "trial": trial,
            "item": rng.permuted(trial.reshape(N_SERIES, -1), axis=1).ravel(),
        }
    )


def draw_slopes(rng: np.random.Generator, crossed: bool) -> tuple:
    """Draw rows and responses with random slopes in time."""
    X = draw_rows(rng)
    R = np.array([[1.0, CORRELATION], [CORRELATION, 1.0]])
    root = np.linalg.cholesky(R * np.outer(DEVIATIONS, DEVIATIONS))
    b = (rng.normal(size=(N_SERIES, 2)) @ root.T)[X["series"]]
    beta = np.array([TRUTH[name] for name in COLUMNS])
    y = TRUTH["(Intercept)"] + X[COLUMNS].to_numpy() @ beta
    y += b[:, 0] + b[:, 1] * X["time"].to_numpy() + SIGMA * autoregressive(rng)
    if crossed:
        y += OF_ITEMS * rng.normal(size=N_TIMES)[X["item"]]
    return X, y


def recover(crossed: bool, seed: int) -> Iterator[dict]:
    """Yield a record for every parameter of one drawn data set."""
    X, y = draw_slopes(np.random.default_rng([int(crossed), seed]), crossed)
    random = ["(1 + time | series)", "item"][: 1 + crossed]
    model = MixedEffectsRegressor(random, fixed=COLUMNS, residual=ERRORS).fit(X, y)
    for name, row in confidence_intervals(model, df="satterthwaite").iterrows():
        yield {
            "model": "with crossed items" if crossed else "series only",
            "parameter": name,
            "estimate": row["estimate"],
            # An end that is missing is an interval without an end there.
            "covered": not (row["lower"] > TRUTH[name] or row["upper"] < TRUTH[name]),
            "missing": bool(row[["lower", "upper"]].isna().any()),
            "singular": model.singular_,
        }


@dataclass(frozen=True)
class Analysis:
    """One way to analyse the same data."""

    name: str
    random: tuple[str, ...]
    residual: AR1 | None = None


ANALYSES = {
    False: [
        Analysis("independent rows", ()),
        Analysis("intercepts", ("series",)),
        Analysis("AR1", (), ERRORS),
        Analysis("intercepts and AR1", ("series",), ERRORS),
    ],
    True: [
        Analysis("intercepts", ("series", "item")),
        Analysis("intercepts and AR1", ("series", "item"), ERRORS),
    ],
}


def reject(crossed: bool, seed: int) -> Iterator[dict]:
    """Yield the p-values of effects that are 0, by every analysis."""
    rng = np.random.default_rng([2 + int(crossed), seed])
    X = draw_rows(rng)
    y = OF_INTERCEPTS * rng.normal(size=N_SERIES)[X["series"]] + autoregressive(rng)
    if crossed:
        y += OF_ITEMS * rng.normal(size=N_TIMES)[X["item"]]
    for analysis in ANALYSES[crossed]:
        model = MixedEffectsRegressor(
            list(analysis.random), fixed=COLUMNS, residual=analysis.residual
        ).fit(X, y)
        p_values = coefficient_table(model)["p_value"]
        yield {
            "data": "with crossed items" if crossed else "series only",
            "analysis": analysis.name,
        } | p_values[COLUMNS].to_dict()


def summarize_recovery(records: pd.DataFrame) -> pd.DataFrame:
    """Return bias and coverage, a row a parameter."""
    by = records.groupby(["model", "parameter"], sort=False)
    truth = by["parameter"].first().map(TRUTH)
    mean, spread = by["estimate"].mean(), by["estimate"].std()
    covered, missing = by["covered"].mean() * 100, by["missing"].mean() * 100
    text = covered.map("{:.1f}".format)
    text += missing.map(lambda share: f" ({share:.1f})" if share else "")
    bias = (mean - truth).map("{:+.3f}".format)
    bias += (spread / np.sqrt(by.size())).map(" ± {:.3f}".format)
    table = {"truth": truth, "bias": bias, "sd of estimates": spread.round(3)}
    return pd.DataFrame(table | {"coverage": text}).reset_index()


def summarize_rejections(records: pd.DataFrame) -> pd.DataFrame:
    """Return the rate of p < 0.05 in per cent, a row an analysis."""
    by = records.set_index(["data", "analysis"])[COLUMNS] < 0.05
    rates = by.groupby(["data", "analysis"], sort=False).mean() * 100
    return rates.map("{:.1f}".format).reset_index()


HEADER = """# Models with autocorrelated errors, simulated

{software};
`python -m benchmarks.residuals`, {seconds:.0f} seconds of one core. {series} series of
{times} times with AR(1) errors, phi {phi} and sigma 1, fitted by REML.

## Recovery: random slopes in time

{n} data sets each, from y = 1 + 0.5 time + 0.5 x - 0.5 between + b0 + b1 time + e: time
runs from -1 to 1, x varies from row to row, "between" from series to series; b0 and b1
have standard deviations 1 and 0.8 and the correlation 0.3. "with crossed items" adds an
effect of the item (standard deviation 0.7), of which every series meets each once, in
an order of its own. Bias with its Monte-Carlo standard error; coverage of 95% intervals
in per cent, Monte-Carlo standard error {error:.1f}: Satterthwaite's t for fixed
effects, Wald for the others (log scale, Fisher's z for correlations and phi). In
brackets the per cent of intervals without ends, of fits on the boundary, which count as
covering. On the boundary are {singular}.

{recovery}

## Type I error

Per cent of {m} data sets (a half of that with items) in which p < 0.05 for effects
that are 0, by Satterthwaite's t; Monte-Carlo standard error {error_of_rates:.1f}.
Intercepts of series have standard deviation 0.5, those of items 0.7.

{rejections}
"""


def singular_shares(records: pd.DataFrame) -> str:
    shares = records.groupby("model", sort=False)["singular"].mean() * 100
    return ", ".join(f"{share:.1f}% {model}" for model, share in shares.items())


def report(
    recovery: pd.DataFrame, rejections: pd.DataFrame, seconds: float, n: int, m: int
) -> str:
    """Return the results file."""
    return HEADER.format(
        software=software(),
        seconds=seconds,
        series=N_SERIES,
        times=N_TIMES,
        phi=PHI,
        n=n,
        m=m,
        error=100 * np.sqrt(0.95 * 0.05 / n),
        error_of_rates=100 * np.sqrt(0.95 * 0.05 / m),
        singular=singular_shares(recovery),
        recovery=markdown_frame(summarize_recovery(recovery)),
        rejections=markdown_frame(summarize_rejections(rejections)),
    )


def run(replicates: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the records of both simulations."""
    recovered, rejected = [], []
    with warnings.catch_warnings():
        # Estimates on the boundary are part of what is measured.
        warnings.simplefilter("ignore")
        for seed in range(replicates):
            for crossed in (False, True):
                recovered += recover(crossed, seed)
        for seed in range(2 * replicates):
            for crossed in (False, True)[: 1 + (seed < replicates)]:
                rejected += reject(crossed, seed)
    return pd.DataFrame(recovered), pd.DataFrame(rejected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=600)
    options = parser.parse_args()
    began = time.process_time()
    # The matrices are small.
    with threadpool_limits(1):
        recovery, rejections = run(options.replicates)
    seconds = time.process_time() - began
    n = options.replicates
    text = report(recovery, rejections, seconds, n, 2 * n)
    print(text)
    if n >= parser.get_default("replicates"):
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
