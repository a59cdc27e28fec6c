"""Run a package on a case in a process of its own, and keep what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cases import Case
from benchmarks.exchange import save
from benchmarks.packages import PACKAGES, READING

HERE = Path(__file__).parent
OURS = "sklearn_lmm"
FAILED = "failed"

LIMIT = 300.0
"""Seconds that a package has for a case, all its runs together."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that limit the threads of numerical libraries."""


@dataclass(frozen=True)
class Measurement:
    """What one package needed for one case.

    seconds : of every run
    log_likelihood : at the package's optimum; restricted under REML
    peak_bytes : growth of resident memory during the first fit, where known
    versions : of the package and of what it stands on
    """

    seconds: list[float]
    log_likelihood: float
    peak_bytes: int | None
    versions: dict[str, str]


@cache
def installed(package: str) -> bool:
    """Say whether a package can be run here."""
    if package == READING:
        return True
    if package in PACKAGES:
        return find_spec(package) is not None
    if shutil.which("Rscript") is None:
        return False
    check = ["Rscript", "-e", f"library({package})"]
    return subprocess.run(check, capture_output=True).returncode == 0


def measure(
    case: Case, packages: list[str], threads: int
) -> tuple[int, dict[str, Measurement | str]]:
    """Run packages on the same data; return its bytes and what each needed."""
    with TemporaryDirectory() as directory:
        frame = case.data()[[*case.fixed, *case.groups, case.response]]
        input_bytes = int(frame.memory_usage(index=False).sum())
        save(frame, Path(directory))
        del frame
        measured = {}
        for package in packages:
            print(f"{case.name}: {package}", file=sys.stderr)
            measured[package] = run(package, case, Path(directory), threads)
    return input_bytes, measured


def run(package: str, case: Case, directory: Path, threads: int) -> Measurement | str:
    """Measure a package on the data in the directory; say why that is not possible."""
    if package in PACKAGES:
        command = [sys.executable, "-m", "benchmarks.worker", package, case.name]
    else:
        command = ["Rscript", str(HERE / "lmm.R"), package, case.formula, case.method]
    try:
        process = subprocess.run(
            [*command, str(directory)],
            env=os.environ | {name: str(threads) for name in THREADS},
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"over {LIMIT:.0f} s"
    if process.returncode:
        return FAILED
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))
