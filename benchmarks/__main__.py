"""Run the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys

from benchmarks.cases import CASES, Case
from benchmarks.measure import OURS, installed, measure
from benchmarks.packages import PACKAGES
from benchmarks.report import Result, recorded, report, store


def main() -> int:
    """Return 0 if no package failed and all found the same optima."""
    options = parse()
    cases = [case for case in CASES if options.case in case.name]
    if options.profile:
        for case in cases:
            profile(case)
        return 0
    settings = {"threads": str(options.threads), "load before": load_average()}
    results = []
    for case in cases:
        packages = chosen(case, options.peers, options.missing)
        if packages:
            result = Result(case, *measure(case, packages, options.threads))
            results.append(result if options.dry else store(result, settings))
    print(report(results, settings))
    return 0 if all(result.agrees() for result in results) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time sklearn_lmm and its peers on the same models. After each "
        "case results/latest.json and the table of README.md are brought up to date.",
    )
    parser.add_argument("--case", default="", help="only cases whose name has this")
    parser.add_argument(
        "--peers", nargs="*", help="only these packages beside sklearn_lmm, or none"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only what is not in results/latest.json"
    )
    parser.add_argument(
        "--dry", action="store_true", help="print the table, but store nothing"
    )
    parser.add_argument(
        "--profile", action="store_true", help="only show where sklearn_lmm spends time"
    )
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    options = parser.parse_args()
    if not any(options.case in case.name for case in CASES):
        parser.error("no such case; there are: " + "; ".join(c.name for c in CASES))
    return options


def chosen(case: Case, peers: list[str] | None, missing: bool) -> list[str]:
    """Return the packages to run on a case."""
    wanted = [peer for peer in case.peers if peers is None or peer in peers]
    known = recorded().get(case.name) if missing else None
    done = set() if known is None else known.measured.keys()
    return [p for p in (OURS, *wanted) if p not in done and installed(p)]


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


if __name__ == "__main__":
    sys.exit(main())
