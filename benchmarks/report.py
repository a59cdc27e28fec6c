"""The measurements as a table, and where they are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import scipy
import sklearn

from benchmarks.cases import CASES, Case, find_case
from benchmarks.measure import FAILED, HERE, OURS, Measurement
from benchmarks.tables import markdown

LARGE = 50e6
"""Bytes of input from which the peak of memory is set against it."""

HEADER = "case package median min max runs ratio goal criterion".split()
HEADER.append("peak memory")


@dataclass(frozen=True)
class Result:
    """One case.

    input_bytes : size of the columns that every package was given
    measured : by package; in words, why there is no measurement
    """

    case: Case
    input_bytes: int
    measured: dict[str, Measurement | str]

    @property
    def ours(self) -> Measurement | None:
        ours = self.measured.get(OURS)
        return ours if isinstance(ours, Measurement) else None

    def gap(self, measured: Measurement) -> float | None:
        """Return by how much a package's -2 log L is above ours."""
        if self.ours is None:
            return None
        return 2.0 * (self.ours.log_likelihood - measured.log_likelihood)

    def agrees(self) -> bool:
        """Say whether no package failed, and all found the same optimum."""
        return all(
            self.is_same(measured)
            if isinstance(measured, Measurement)
            else measured != FAILED
            for measured in self.measured.values()
        )

    def is_same(self, measured: Measurement) -> bool:
        return abs(self.gap(measured) or 0.0) < self.case.tolerance


def report(results: list[Result], settings: dict[str, str]) -> str:
    """Return the table, in Markdown, and what its numbers depend on."""
    table = markdown(HEADER, [line for result in results for line in rows(result)])
    facts = (
        f"{name} {value}" for name, value in environment(results, settings).items()
    )
    return f"{table}\n\n{', '.join(facts)}."


def rows(result: Result) -> Iterator[list[str]]:
    """Yield a line of the table for every package."""
    for package, measured in result.measured.items():
        if isinstance(measured, str):
            yield [result.case.name, package, measured] + [""] * (len(HEADER) - 3)
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
    return f"{method} {above:+.0e}" + (
        "" if result.is_same(measured) else " **differs**"
    )


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
            if isinstance(measured, Measurement):
                versions |= measured.versions
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
RECORD = HERE / "results" / "latest.json"


def recorded() -> dict[str, Result]:
    """Return what earlier runs have stored, by case."""
    if not RECORD.exists():
        return {}
    cases = json.loads(RECORD.read_text())["cases"]
    known = {case.name for case in CASES}
    return {
        name: Result(
            find_case(name),
            record["input_bytes"],
            {
                package: found if isinstance(found, str) else Measurement(**found)
                for package, found in record["measured"].items()
            },
        )
        for name, record in cases.items()
        if name in known
    }


def store(new: Result, settings: dict[str, str]) -> Result:
    """Add a case to results/latest.json, and rewrite the table in README.md.

    Return it together with what was there for other packages.
    """
    by_name = recorded()
    if new.case.name in by_name:
        new = replace(new, measured=by_name[new.case.name].measured | new.measured)
    by_name[new.case.name] = new
    results = [by_name[case.name] for case in CASES if case.name in by_name]
    record = {
        "environment": environment(results, settings),
        "cases": {
            result.case.name: {
                "input_bytes": result.input_bytes,
                "measured": {
                    package: found if isinstance(found, str) else asdict(found)
                    for package, found in result.measured.items()
                },
            }
            for result in results
        },
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    readme = HERE / "README.md"
    start, rest = readme.read_text().split(BEGIN)
    end = rest.split(END)[1]
    text = report(results, settings)
    readme.write_text(f"{start}{BEGIN}\n{text}\n\n{END}{end}")
    return new
