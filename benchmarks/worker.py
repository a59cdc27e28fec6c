"""Time one package on one case, in a process of its own.

`python -m benchmarks.worker PACKAGE CASE DIRECTORY`, with the data in the
directory, prints a `Measurement` as JSON; lmm.R does the same for packages of R.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from benchmarks.cases import find_case
from benchmarks.exchange import load
from benchmarks.packages import PACKAGES, READING, Package

SLOW, VERY_SLOW = 20.0, 60.0
"""Fits of more seconds are run three times, and once; the first one counts."""

MIN_RUNS, MAX_RUNS, ENOUGH_SECONDS = 5, 50, 2.0


def measure(package: Package) -> dict[str, object]:
    """Fit again and again; the peak of memory is that of the first fit."""
    before = restart_peak()
    seconds, fitted = time(package)
    peak = memory("VmHWM")
    # The first fit of a process loads code as well, which a quick one would show.
    runs = [seconds] if seconds > SLOW else []
    wanted = 1 if seconds > VERY_SLOW else 3 if seconds > SLOW else MIN_RUNS
    while len(runs) < wanted or (sum(runs) < ENOUGH_SECONDS and len(runs) < MAX_RUNS):
        runs.append(time(package)[0])
    return {
        "seconds": runs,
        "log_likelihood": package.log_likelihood(fitted),
        "peak_bytes": None if before is None else peak - before,
    }


def time(package: Package) -> tuple[float, object]:
    began = perf_counter()
    fitted = package.fit()
    return perf_counter() - began, fitted


def restart_peak() -> int | None:
    """Let the record of the peak start from here; return the memory in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None  # not Linux
    return memory("VmRSS")


def memory(entry: str) -> int:
    """Return bytes of resident memory, now (VmRSS) or at the peak (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return 1024 * int(status.read_text().split(f"{entry}:")[1].split()[0])


def main() -> None:
    name, case, directory = sys.argv[1:]
    package = PACKAGES[name](find_case(case), load(Path(directory)))
    module = import_module("numpy" if name == READING else name)
    # interlace says its version nowhere but where it is installed.
    number = getattr(module, "__version__", None) or version("interlace-lme")
    print(json.dumps({**measure(package), "versions": {name: number}}))


if __name__ == "__main__":
    main()
