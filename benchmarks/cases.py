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
INSTEVAL = partial(Case, data=insteval, response="y", fixed=("service",), method="ml")

CASES = [
    SLEEP(
        name="sleep study, slope",
        random="(1 + Days | Subject)",
        method="reml",
        peers=("lme4", "statsmodels"),
    ),
    EXAM(
        name="exam, slope",
        random="(1 + standLRT | school)",
        method="reml",
        peers=("lme4", "statsmodels"),
        goal=0.010,
    ),
    EXAM(
        name="exam, independent slope",
        random="(1 + standLRT || school)",
        method="ml",
        peers=("lme4", "gpboost"),
    ),
    SLOPE_1E5(
        name="1e5 rows, 5000 groups, slope",
        random="(1 + x0 | group)",
        method="reml",
        peers=("lme4", "statsmodels"),
        goal=0.08,
    ),
    SLOPE_1E5(
        name="1e5 rows, 5000 groups, independent slope",
        random="(1 + x0 || group)",
        method="ml",
        peers=("lme4", "gpboost"),
    ),
    INSTEVAL(
        name="InstEval, s + d",
        groups=("s", "d"),
        random="(1 | s) + (1 | d)",
        peers=("lme4", "gpboost"),
        goal=0.3,
    ),
    INSTEVAL(
        name="InstEval, s + d + dept",
        groups=("s", "d", "dept"),
        random="(1 | s) + (1 | d) + (1 | dept)",
        peers=("lme4", "gpboost"),
        goal=0.5,
    ),
    Case(
        name="1e6 rows, 8 columns, 1e5 groups, slope",
        data=partial(random_data, 1_000_000, 8, n_groups=100_000, n_slopes=1),
        response="y",
        fixed=columns(8),
        groups=("group",),
        random="(1 + x0 | group)",
        method="reml",
    ),
    Case(
        name="1e6 rows, 8 columns, 3000 x 2000 crossed",
        data=partial(random_data, 1_000_000, 8, n_groups=[3000, 2000]),
        response="y",
        fixed=columns(8),
        groups=("group0", "group1"),
        random="(1 | group0) + (1 | group1)",
        method="reml",
    ),
]


def find_case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)
