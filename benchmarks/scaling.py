"""How the time of a fit grows with rows, groups, coefficients and columns.

    python -m benchmarks.scaling

Beside every fit stands the least that it needs: the keys made integers, and one pass
over the columns, in the same run. Writes results/scaling.json after every point, and
then results/scaling.png and results/scaling.md.
"""

from __future__ import annotations

import argparse
import json
from statistics import median

from benchmarks.cases import AXES, NESTED_ROWS, ROWS, STOCHASTIC_ROWS
from benchmarks.measure import HERE, OURS, Measurement, installed, measure
from benchmarks.packages import READING
from benchmarks.report import duration
from benchmarks.tables import markdown

RESULTS = HERE / "results"
RECORD = RESULTS / "scaling.json"

LINEAR = (ROWS, NESTED_ROWS, STOCHASTIC_ROWS)
"""Axes along which the cost is to grow as that of reading does."""

FEW, MANY, MARGIN = 100_000, 10_000_000, 1.3
"""time(MANY) / time(FEW) may be that of reading, times the margin."""

Times = dict[str, dict[str, dict[str, float | None]]]
"""Median seconds by axis, package and value; None where there is no time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--axis", choices=list(AXES), nargs="*", default=list(AXES))
    parser.add_argument("--peers", nargs="*", default=[], help="lme4, gpboost")
    parser.add_argument("--largest", type=float, default=1e8, help="value of an axis")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    packages = [READING, OURS, *filter(installed, options.peers)]
    times: Times = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for axis in options.axis:
        for value in [v for v in AXES[axis] if v <= options.largest]:
            add(times, axis, value, packages, options.threads)
    (RESULTS / "scaling.md").write_text(table(times))
    plot(times)


def add(times: Times, axis: str, value: int, packages: list[str], threads: int) -> None:
    """Measure the packages at one point of an axis, and store what they took."""
    _, measured = measure(AXES[axis][value], packages, threads)
    for package, found in measured.items():
        seconds = median(found.seconds) if isinstance(found, Measurement) else None
        times.setdefault(axis, {}).setdefault(package, {})[str(value)] = seconds
    RESULTS.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(times, indent=1) + "\n")


def table(times: Times) -> str:
    """Return the times, and whether the cost grows as that of reading does."""
    lines = [
        "# How the time grows",
        "",
        "Median times; `python -m benchmarks.scaling`.",
    ]
    for axis, by_package in times.items():
        values = sorted(int(value) for value in next(iter(by_package.values())))
        header = [axis, *(f"{value:.0e}" for value in values)]
        rows = []
        for package, at in by_package.items():
            cells = [at.get(str(value)) for value in values]
            rows.append([package, *("" if s is None else duration(s) for s in cells)])
        lines += ["", markdown(header, rows)]
    lines += ["", *(growth(axis, times[axis]) for axis in LINEAR if axis in times)]
    return "\n".join(lines) + "\n"


def growth(axis: str, by_package: dict[str, dict[str, float | None]]) -> str:
    """Say how much longer a hundred times the rows take, beside reading them."""
    ratios = {}
    for package in (READING, OURS):
        few, many = (by_package[package].get(str(n)) for n in (FEW, MANY))
        if few is None or many is None:
            return f"- {axis}: not measured at {FEW:.0e} and {MANY:.0e} rows"
        ratios[package] = many / few
    beside = ratios[OURS] / ratios[READING]
    verdict = "met" if beside <= MARGIN else "missed"
    return (
        f"- {axis}: {MANY:.0e} rows take {ratios[OURS]:.0f} times as long as "
        f"{FEW:.0e}, reading them {ratios[READING]:.0f} times: {beside:.2f} times that "
        f"(at most {MARGIN}: {verdict})"
    )


def plot(times: Times) -> None:
    """Draw time against what grows, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shape = (2, (len(times) + 1) // 2)
    figure, axes = plt.subplots(*shape, figsize=(12, 7), layout="constrained")
    for ax in axes.flat[len(times) :]:
        ax.remove()
    for ax, (axis, by_package) in zip(axes.flat, times.items(), strict=False):
        for package, at in by_package.items():
            known = sorted((int(v), s) for v, s in at.items() if s is not None)
            style = {"color": "0.5", "linestyle": "--"} if package == READING else {}
            ax.loglog(*zip(*known, strict=True), marker="o", label=package, **style)
        values = [int(value) for value in next(iter(by_package.values()))]
        ax.set_xticks(values, [f"{v:.0e}" if v >= 1000 else str(v) for v in values])
        ax.minorticks_off()
        ax.set(title=axis, ylabel="seconds")
        ax.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(RESULTS / "scaling.png", dpi=120)


if __name__ == "__main__":
    main()
