"""The measurements as a table, and where they are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import scipy
import sklearn

from benchmarks.cases import Case
from benchmarks.measure import HERE, OURS, Measurement

SAME = 1e-3
"""Criteria -2 log L that differ by less are the same optimum."""

LARGE = 50e6
"""Bytes of input from which the peak of memory is set against it."""

HEADER = "case package median min max runs ratio goal criterion".split()
HEADER.append("peak memory")


@dataclass(frozen=True)
class Result:
    """One case.

    input_bytes : size of the columns that every package was given
    measured : by package; None where it failed
    """

    case: Case
    input_bytes: int
    measured: dict[str, Measurement | None]

    @property
    def ours(self) -> Measurement | None:
        return self.measured[OURS]

    def gap(self, measured: Measurement) -> float | None:
        """Return by how much a package's -2 log L is above ours."""
        if self.ours is None:
            return None
        return 2.0 * (self.ours.log_likelihood - measured.log_likelihood)

    def agrees(self) -> bool:
        """Say whether every package worked and found the same optimum."""
        return all(
            measured is not None and abs(self.gap(measured) or 0.0) < SAME
            for measured in self.measured.values()
        )


def report(results: list[Result], settings: dict[str, str]) -> str:
    """Return the table, in Markdown, and what its numbers depend on."""
    lines = [HEADER, ["---"] * len(HEADER)]
    lines += [line for result in results for line in rows(result)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    facts = (
        f"{name} {value}" for name, value in environment(results, settings).items()
    )
    return f"{table}\n\n{', '.join(facts)}."


def rows(result: Result) -> Iterator[list[str]]:
    """Yield a line of the table for every package."""
    for package, measured in result.measured.items():
        if measured is None:
            yield [result.case.name, package, "failed"] + [""] * (len(HEADER) - 3)
            continue
        times = measured.seconds
        yield [
            result.case.name,
            package,
            *map(duration, (median(times), min(times), max(times))),
            str(len(times)),
            ratio(measured, result.ours),
            goal(result.case, times) if package == OURS else "",
            criterion(result, measured),
            size(measured.peak_bytes, result.input_bytes),
        ]


def ratio(measured: Measurement, ours: Measurement | None) -> str:
    if ours is None:
        return ""
    return f"{median(measured.seconds) / median(ours.seconds):.3g}"


def goal(case: Case, times: list[float]) -> str:
    if case.goal is None:
        return ""
    return f"{duration(case.goal)}: {'met' if median(times) <= case.goal else 'missed'}"


def criterion(result: Result, measured: Measurement) -> str:
    """Say which criterion, and how far a peer's optimum is above ours."""
    method = result.case.method.upper()
    above = result.gap(measured)
    if above is None or measured is result.ours:
        return method
    return f"{method} {above:+.0e}" + ("" if abs(above) < SAME else " **differs**")


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def size(peak: int | None, input_bytes: int) -> str:
    if peak is None:
        return "unknown"
    text = f"{peak / 1e6:.0f} MB"
    return text if input_bytes < LARGE else f"{text}, {peak / input_bytes:.2g} x input"


def environment(results: list[Result], settings: dict[str, str]) -> dict[str, str]:
    """Return what the numbers depend on: date, machine, settings and versions."""
    versions = {"Python": platform.python_version()}
    versions |= {m.__name__: m.__version__ for m in (np, scipy, pd, sklearn)}
    for result in results:
        for measured in result.measured.values():
            versions |= {} if measured is None else measured.versions
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        **settings,
        **versions,
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"


def store(results: list[Result], settings: dict[str, str], text: str) -> None:
    """Write results/latest.json, and the table into README.md."""
    record = {
        "environment": environment(results, settings),
        "cases": {
            result.case.name: {
                "input_bytes": result.input_bytes,
                "measured": {
                    package: measured and asdict(measured)
                    for package, measured in result.measured.items()
                },
            }
            for result in results
        },
    }
    directory = HERE / "results"
    directory.mkdir(exist_ok=True)
    (directory / "latest.json").write_text(json.dumps(record, indent=1) + "\n")
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}")
