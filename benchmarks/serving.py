"""How long predictions take, beside the merge that looks up the same effects.

    python -m benchmarks.serving

Rows with two crossed factors. The peer is what one would write by hand: merge the
rows with a table of effects for each factor, and add up. Both get the same frame;
the median of the runs counts, in turns, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor

N_LEVELS = {"user": 5000, "item": 1000}
N_FIT = 100_000


def draw(
    n: int, labels: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw rows with labels of a type: "integers", "text" or "categories"."""
    codes = {name: rng.integers(0, size, n) for name, size in N_LEVELS.items()}
    X = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    y = X["x"].to_numpy() + rng.normal(size=n)
    for name, size in N_LEVELS.items():
        effects = np.random.default_rng(size).normal(size=size)
        y = y + effects[codes[name]]
        names = pd.Index([f"{name} {k:05d}" for k in range(size)])
        if labels == "integers":
            X[name] = codes[name]
        elif labels == "text":
            X[name] = names[codes[name]]
        else:
            X[name] = pd.Categorical.from_codes(codes[name], names)
    return X, y


def merged(model: MixedEffectsRegressor, X: pd.DataFrame) -> np.ndarray:
    """Return the predictions by one left join for each factor."""
    frame = X
    total = X["x"] * model.coef_[0] + X["z"] * model.coef_[1] + model.intercept_
    for name, effects in model.effects_.items():
        table = effects["(Intercept)"].rename("effect").reset_index()
        table[name] = table[name].astype(X[name].dtype)
        frame = X[[name]].merge(table, on=name, how="left")
        total = total + frame["effect"].fillna(0.0).to_numpy()
    return total.to_numpy()


def seconds(*functions: Callable[[], object], runs: int = 7) -> list[float]:
    """Return the median time of each function, called in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{options.rows} rows      predict    merge    ratio   model")
    for labels in ("integers", "text", "categories"):
        model = MixedEffectsRegressor(["user", "item"])
        model.fit(*draw(N_FIT, labels, rng))
        X, _ = draw(options.rows, labels, rng)
        np.testing.assert_allclose(model.predict(X), merged(model, X))
        ours, theirs = seconds(
            lambda model=model, X=X: model.predict(X),
            lambda model=model, X=X: merged(model, X),
        )
        size = len(pickle.dumps(model)) / 1e6
        print(
            f"{labels:12} {ours:8.3f} s {theirs:7.3f} s {ours / theirs:6.2f} "
            f"{size:6.1f} MB"
        )


if __name__ == "__main__":
    main()
