"""Run a package on a case in a process of its own, and keep what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.packages import PACKAGES

HERE = Path(__file__).parent
OURS = "sklearn_lmm"
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


def installed(package: str) -> bool:
    """Say whether a package can be run here."""
    if package in PACKAGES:
        return find_spec(package) is not None
    if shutil.which("Rscript") is None:
        return False
    check = ["Rscript", "-e", f"library({package})"]
    return subprocess.run(check, capture_output=True).returncode == 0


def run(package: str, case: Case, directory: Path, threads: int) -> Measurement | None:
    """Measure a package on the data in the directory; None if it fails."""
    if package in PACKAGES:
        command = [sys.executable, "-m", "benchmarks.worker", package, case.name]
    else:
        script = str(HERE / f"{package}.R")
        command = ["Rscript", script, case.formula, case.method]
    process = subprocess.run(
        [*command, str(directory)],
        env=os.environ | {name: str(threads) for name in THREADS},
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        return None
    return Measurement(**json.loads(process.stdout.splitlines()[-1]))
