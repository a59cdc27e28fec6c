"""The models that are timed, and their data.

To add a model, append a `Case`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from sklearn_lmm.datasets import (
    load_exam,
    load_insteval,
    load_sleepstudy,
    make_mixed_regression,
)


@dataclass(frozen=True)
class Case:
    """One model of one data set; a fixed intercept belongs to every model.

    name : as the table shows it
    data : makes the frame; grouping columns are categoricals or integers
    response, fixed, groups : names of its columns
    random : the random part, in the notation that lme4 and sklearn_lmm share
    peers : the packages beside sklearn_lmm that can fit this very model
    goal : seconds that sklearn_lmm is to need at most
    slope : the column of `random` whose coefficient varies by the first of
        `groups`; needed by packages that take no formula
    solver : of sklearn_lmm
    tolerance : criteria -2 log L that differ by less are the same optimum
    """

    name: str
    data: Callable[[], pd.DataFrame]
    response: str
    fixed: tuple[str, ...]
    groups: tuple[str, ...]
    random: str
    method: Literal["reml", "ml"]
    peers: tuple[str, ...] = ()
    goal: float | None = None
    slope: str | None = None
    solver: str = "auto"
    tolerance: float = 1e-3

    @property
    def formula(self) -> str:
        return f"{self.response} ~ {' + '.join(self.fixed)} + {self.random}"


def insteval() -> pd.DataFrame:
    """Return the ratings with `service` as the number 0 or 1."""
    frame: pd.DataFrame = load_insteval().frame
    return frame.assign(service=frame["service"].astype(np.float64))


def random_data(n_rows: int, n_columns: int, **model: Any) -> pd.DataFrame:
    """Return data that were drawn from a model; see `make_mixed_regression`."""
    sample = make_mixed_regression(
        n_rows, n_columns, as_frame=True, random_state=0, **model
    )
    frame: pd.DataFrame = pd.concat([sample.X, sample.groups, sample.y], axis=1)
    return frame


def columns(n: int) -> tuple[str, ...]:
    return tuple(f"x{j}" for j in range(n))


SLEEP = partial(
    Case,
    data=lambda: load_sleepstudy().frame,
    response="Reaction",
    fixed=("Days",),
    groups=("Subject",),
    slope="Days",
)
EXAM = partial(
    Case,
    data=lambda: load_exam().frame,
    response="normexam",
    fixed=("standLRT",),
    groups=("school",),
    slope="standLRT",
)
SLOPE_1E5 = partial(
    Case,
    data=partial(
        random_data,
        100_000,
        5,
        n_groups=5_000,
        n_slopes=1,
        covariance=np.array([[1.0, 0.2], [0.2, 0.25]]),
    ),
    response="y",
    fixed=columns(5),
    groups=("group",),
    slope="x0",
)
SLOPE_1E6 = partial(
    Case,
    data=partial(random_data, 1_000_000, 5, n_groups=100_000, n_slopes=1),
    response="y",
    fixed=columns(5),
    groups=("group",),
    slope="x0",
)
INSTEVAL = partial(Case, data=insteval, response="y", fixed=("service",), method="ml")

CROSSED = partial(
    Case,
    response="y",
    fixed=columns(5),
    groups=("group0", "group1"),
    random="(1 | group0) + (1 | group1)",
)
STOCHASTIC = partial(CROSSED, method="ml", solver="stochastic", tolerance=5.0)
MAXIMAL = 0.2 * np.eye(4) + 0.05

CASES = [
    SLEEP(
        name="sleep study, slope",
        random="(1 + Days | Subject)",
        method="reml",
        peers=("lme4", "glmmTMB", "statsmodels", "interlace"),
        goal=0.008,
    ),
    EXAM(
        name="exam, slope",
        random="(1 + standLRT | school)",
        method="reml",
        peers=("lme4", "glmmTMB", "statsmodels", "interlace"),
        goal=0.008,
    ),
    EXAM(
        name="exam, independent slope",
        random="(1 + standLRT || school)",
        method="ml",
        peers=("lme4", "gpboost"),
    ),
    SLOPE_1E5(
        name="1e5 rows, 5e3 groups, slope",
        random="(1 + x0 | group)",
        method="reml",
        peers=("lme4", "glmmTMB", "statsmodels", "interlace"),
        goal=0.05,
    ),
    SLOPE_1E5(
        name="1e5 rows, 5e3 groups, independent slope",
        random="(1 + x0 || group)",
        method="ml",
        peers=("lme4", "gpboost"),
    ),
    SLOPE_1E6(
        name="1e6 rows, 1e5 groups, slope",
        random="(1 + x0 | group)",
        method="reml",
        peers=("lme4", "glmmTMB"),
        goal=0.6,
    ),
    SLOPE_1E6(
        name="1e6 rows, 1e5 groups, independent slope",
        random="(1 + x0 || group)",
        method="ml",
        peers=("gpboost",),
    ),
    SLOPE_1E6(
        name="1e6 rows, 1e5 groups, intercept",
        random="(1 | group)",
        method="ml",
        slope=None,
        peers=("lme4", "glmmTMB", "gpboost"),
        goal=0.15,
    ),
    Case(
        name="1e7 rows, 1e5 groups, slope",
        data=partial(random_data, 10_000_000, 5, n_groups=100_000, n_slopes=1),
        response="y",
        fixed=columns(5),
        groups=("group",),
        random="(1 + x0 | group)",
        method="reml",
        peers=("lme4",),
        goal=3.0,
    ),
    INSTEVAL(
        name="InstEval, s + d",
        groups=("s", "d"),
        random="(1 | s) + (1 | d)",
        peers=("lme4", "glmmTMB", "gpboost", "interlace"),
        goal=0.2,
    ),
    INSTEVAL(
        name="InstEval, s + d + dept",
        groups=("s", "d", "dept"),
        random="(1 | s) + (1 | d) + (1 | dept)",
        peers=("lme4", "gpboost"),
        goal=0.3,
    ),
    INSTEVAL(
        name="InstEval, s + d + dept with slope",
        groups=("s", "d", "dept"),
        random="(1 | s) + (1 | d) + (1 + service || dept)",
        peers=("lme4",),
        goal=0.45,
    ),
    CROSSED(
        name="1e5 rows, 2000 x 1000 crossed",
        data=partial(random_data, 100_000, 5, n_groups=[2000, 1000]),
        method="ml",
        peers=("lme4", "glmmTMB", "gpboost"),
        goal=0.15,
    ),
    CROSSED(
        name="1e6 rows, 6000 x 4000 crossed",
        data=partial(random_data, 1_000_000, 5, n_groups=[6000, 4000]),
        method="ml",
        peers=("lme4", "gpboost"),
        goal=8.0,
    ),
    STOCHASTIC(
        name="1e6 rows, 6000 x 4000 crossed, stochastic",
        data=partial(random_data, 1_000_000, 5, n_groups=[6000, 4000]),
        peers=("gpboost",),
        goal=0.9,
    ),
    STOCHASTIC(
        name="1e6 rows, 1e5 x 1e5 crossed, stochastic",
        data=partial(random_data, 1_000_000, 5, n_groups=[100_000, 100_000]),
        peers=("gpboost",),
        goal=2.5,
    ),
    STOCHASTIC(
        name="1e7 rows, 1e5 x 1e5 crossed, stochastic",
        data=partial(random_data, 10_000_000, 5, n_groups=[100_000, 100_000]),
        goal=15.0,
    ),
    CROSSED(
        name="1e6 rows, 1e5 classes in 1e3 schools",
        data=partial(random_data, 1_000_000, 5, n_groups=[1_000, 100_000], nested=True),
        method="ml",
        peers=("lme4", "gpboost"),
        goal=0.8,
    ),
    Case(
        name="3e4 rows, 300 x 100 crossed, maximal slopes",
        data=partial(
            random_data,
            30_000,
            3,
            n_groups=[300, 100],
            n_slopes=[3, 3],
            covariance=[MAXIMAL, MAXIMAL],
        ),
        response="y",
        fixed=columns(3),
        groups=("group0", "group1"),
        random="(1 + x0 + x1 + x2 | group0) + (1 + x0 + x1 + x2 | group1)",
        method="reml",
        peers=("lme4",),
        goal=0.3,
    ),
]


def growing(axis: str, value: int, groups: list[int], **data: Any) -> Case:
    """Return one point of an axis: a single factor with slopes, or several without."""
    one = len(groups) == 1
    n_slopes = data.pop("n_slopes", int(one))
    slopes = "".join(f" + x{j}" for j in range(n_slopes))
    names = ("group",) if one else ("group0", "group1")
    n_columns = data.pop("n_columns", 5)
    return Case(
        name=f"{axis} {value:.0e}",
        data=partial(
            random_data,
            data.pop("n_rows", value),
            n_columns,
            n_groups=groups[0] if one else groups,
            n_slopes=n_slopes,
            **data,
        ),
        response="y",
        fixed=columns(n_columns),
        groups=names,
        random=" + ".join(f"(1{slopes} | {name})" for name in names),
        method="ml",
        solver="stochastic" if axis == STOCHASTIC_ROWS else "auto",
    )


ROWS, NESTED_ROWS, STOCHASTIC_ROWS = "rows", "rows, nested", "rows, stochastic"
N_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)

AXES: dict[str, dict[int, Case]] = {
    ROWS: {n: growing(ROWS, n, [n // 20]) for n in N_ROWS},
    NESTED_ROWS: {
        n: growing(NESTED_ROWS, n, [n // 1000, n // 20], nested=True) for n in N_ROWS
    },
    STOCHASTIC_ROWS: {
        n: growing(STOCHASTIC_ROWS, n, [n // 20, n // 40]) for n in N_ROWS[1:]
    },
    "groups": {
        G: growing("groups", G, [G], n_rows=1_000_000)
        for G in (10, 100, 1_000, 10_000, 100_000)
    },
    "coefficients": {
        q: growing("coefficients", q, [2_000], n_rows=100_000, n_slopes=q - 1)
        for q in (1, 2, 4, 6)
    },
    "columns": {
        p: growing("columns", p, [5_000], n_rows=100_000, n_columns=p)
        for p in (2, 5, 10, 20, 50, 100)
    },
}
"""What grows, by the name of the axis: one case for each value."""


def find_case(name: str) -> Case:
    """Return the case of a name, here or of `benchmarks.scaling`."""
    scaling = [case for axis in AXES.values() for case in axis.values()]
    return next(case for case in CASES + scaling if case.name == name)
