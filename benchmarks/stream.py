"""How long a fit to rows streamed from Parquet takes, beside reading alone.

    python -m benchmarks.stream --rows 1e8

The file, about 64 bytes a row, is written to a temporary directory and deleted
afterwards. Reading and fitting run in a process each, one after the other: reading
means to decode every column and to factorise the keys, batch by batch, which is the
least that a model of these rows needs. A growing number of rows at fixed rows per
group shows that the cost is linear: `--rows 1e6 1e7 1e8`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import THREADS
from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.batches import ParquetBatches

P, ROWS_PER_GROUP, ROW_GROUP = 5, 100, 1_000_000
COVARIANCE = np.array([[1.0, 0.2], [0.2, 0.25]])
FILE = "rows.parquet"


def write(path: Path, n_rows: int, n_groups: int, order: str) -> None:
    """Draw rows from a model with a random slope, a row group at a time."""
    rng = np.random.default_rng(0)
    # Keys as a database has them: large, and in no order that would help.
    keys = np.unique(rng.integers(0, 2**62, n_groups))
    rng.shuffle(keys)
    effects = rng.multivariate_normal(np.zeros(2), COVARIANCE, len(keys))
    names = [*(f"x{j}" for j in range(P)), "key", "y"]
    types = [pa.float64()] * P + [pa.int64(), pa.float64()]
    schema = pa.schema(list(zip(names, types, strict=True)))
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, n_rows, ROW_GROUP):
            size = min(ROW_GROUP, n_rows - start)
            if order == "sorted":
                codes = np.arange(start, start + size) * len(keys) // n_rows
            else:
                codes = rng.integers(0, len(keys), size)
            X = rng.normal(size=(P, size))
            b0, b1 = effects[codes].T
            y = 1.0 + X.sum(axis=0) + b0 + b1 * X[0] + rng.normal(size=size)
            writer.write_table(pa.table([*X, keys[codes], y], schema=schema))


def read(path: Path, batch_size: int) -> dict[str, float]:
    """Decode every column and factorise the keys, batch by batch."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size):
            pd.factorize(batch.column("key").to_numpy())
    return {}


def fit(path: Path, batch_size: int) -> dict[str, float]:
    """Fit the model; return how large it is as a pickle, and what it found."""
    model = MixedEffectsRegressor(RandomEffect("key", slopes=["x0"]))
    model.fit_batches(ParquetBatches(path, y="y", batch_size=batch_size))
    error = np.abs(model.covariances_["key"].to_numpy() - COVARIANCE).max()
    size = len(pickle.dumps(model))
    return {"pickle_bytes": size, "error": float(error), "n_iter": model.n_iter_}


def measured(task: str, path: Path, batch_size: int) -> dict[str, float]:
    """Run a task in this process; return seconds, processor seconds and memory."""
    start, processor = time.perf_counter(), time.process_time()
    found = {"read": read, "fit": fit}[task](path, batch_size)
    # In kilobytes, but for macOS, which counts bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found | {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - processor,
        "peak_bytes": peak,
    }


def apart(task: str, path: Path, batch_size: int) -> dict[str, float]:
    """Run a task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stream", "--task", task]
    process = subprocess.run(
        [*command, "--path", str(path), "--batch-size", str(batch_size)],
        env=os.environ | {name: "1" for name in THREADS},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result


def compare(n_rows: int, n_groups: int, order: str, batch_size: int, runs: int) -> None:
    """Print a line with the faster of several runs of both tasks, in turns."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / FILE
        write(path, n_rows, n_groups, order)
        results: dict[str, list[dict[str, float]]] = {"read": [], "fit": []}
        for _ in range(runs):
            for task, all_runs in results.items():
                all_runs.append(apart(task, path, batch_size))
    reading, fitting = (
        {key: min(run[key] for run in all_runs) for key in ("seconds", "processor")}
        for all_runs in results.values()
    )
    last = results["fit"][-1]
    print(
        f"{n_rows:10.0e} {order:8}"
        f" {reading['seconds']:8.2f} s {fitting['seconds']:8.2f} s"
        f" {fitting['seconds'] / reading['seconds']:6.2f}"
        f" {fitting['processor'] / reading['processor']:8.2f}"
        f" {last['peak_bytes'] / 1e9:8.2f} GB {last['pickle_bytes'] / 1e6:8.1f} MB"
        f" {last['n_iter']:4.0f} {last['error']:8.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e7])
    parser.add_argument("--groups", type=float, help="default: a hundredth of the rows")
    parser.add_argument("--order", choices=["random", "sorted"], default="random")
    parser.add_argument("--batch-size", type=float, default=2e6)
    parser.add_argument("--runs", type=int, default=1, help="the fastest one counts")
    parser.add_argument("--task", choices=["read", "fit"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measured(options.task, options.path, int(options.batch_size))))
        return
    print(
        "      rows keys         read        fit  ratio  of CPU       peak"
        "      pickle iterations error"
    )
    for n_rows in options.rows:
        n_groups = int(options.groups or n_rows / ROWS_PER_GROUP)
        compare(int(n_rows), n_groups, options.order, options.batch_size, options.runs)


if __name__ == "__main__":
    main()
