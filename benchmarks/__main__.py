"""Run the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cases import CASES, Case
from benchmarks.exchange import save
from benchmarks.measure import OURS, installed, run
from benchmarks.packages import PACKAGES
from benchmarks.report import Result, report, store


def main() -> int:
    """Return 0 if every package worked and all found the same optima."""
    options = parse()
    cases = [case for case in CASES if options.case in case.name]
    if options.profile:
        for case in cases:
            profile(case)
        return 0
    peers = {peer for case in cases for peer in case.peers}
    if options.peers is not None:
        peers &= set(options.peers)
    peers = set(filter(installed, peers))
    settings = {"threads": str(options.threads), "load before": load_average()}
    results = [measure(case, peers, options.threads) for case in cases]
    text = report(results, settings)
    print(text)
    if options.case == "" and options.peers is None:
        store(results, settings, text)
    return 0 if all(result.agrees() for result in results) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time sklearn_lmm and its peers on the same models. A run of "
        "everything rewrites results/latest.json and the table of README.md.",
    )
    parser.add_argument("--case", default="", help="only cases whose name has this")
    parser.add_argument(
        "--peers", nargs="*", help="only these packages beside sklearn_lmm, or none"
    )
    parser.add_argument(
        "--profile", action="store_true", help="only show where sklearn_lmm spends time"
    )
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    options = parser.parse_args()
    if not any(options.case in case.name for case in CASES):
        parser.error("no such case; there are: " + "; ".join(c.name for c in CASES))
    return options


def profile(case: Case) -> None:
    """Print the functions that take most of the time of a warm fit."""
    package = PACKAGES[OURS](case, case.data())
    package.fit()
    with cProfile.Profile() as profiler:
        package.fit()
    print(case.name)
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(15)


def load_average() -> str:
    """Return how busy the machine is with other things."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def measure(case: Case, peers: set[str], threads: int) -> Result:
    """Run every package on the same data."""
    with TemporaryDirectory() as directory:
        frame = case.data()[[*case.fixed, *case.groups, case.response]]
        input_bytes = int(frame.memory_usage(index=False).sum())
        save(frame, Path(directory))
        measured = {}
        for package in (OURS, *(peer for peer in case.peers if peer in peers)):
            print(f"{case.name}: {package}", file=sys.stderr)
            measured[package] = run(package, case, Path(directory), threads)
    return Result(case, input_bytes, measured)


if __name__ == "__main__":
    sys.exit(main())
