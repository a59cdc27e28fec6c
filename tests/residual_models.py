"""The models of `oracles/nlme.json`, in the estimator's terms, fitted once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from models import ORACLES_DIR, crossed, frame, indicators, named, treatment

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.datasets import load_ovary
from sklearn_lmm.residuals import (
    AR1,
    ARMA,
    ContinuousAR1,
    EqualCorrelation,
    Exponential,
    ExponentialVariance,
    Heteroscedastic,
    UnstructuredErrors,
)
from sklearn_lmm.residuals._base import ResidualStructure

NLME: dict[str, dict[str, Any]] = json.loads((ORACLES_DIR / "nlme.json").read_text())


@dataclass(frozen=True)
class Spec:
    """One model: columns of X, labels beside them, parameters of the estimator."""

    columns: Callable[[pd.DataFrame], pd.DataFrame]
    random: Any
    residual: ResidualStructure | None = None
    labels: tuple[str, ...] = ("Subject",)
    fixed: list[str] | None = None


def waves(data: pd.DataFrame) -> pd.DataFrame:
    turn = 2.0 * np.pi * data["cycle"]
    parts = {"sin": np.sin(turn), "cos": np.cos(turn)}
    return pd.DataFrame(parts).join(data[["cycle", "day"]])


def by_diet(data: pd.DataFrame) -> pd.DataFrame:
    return crossed(data[["Time"]], treatment(data["Diet"]))


def by_sex(data: pd.DataFrame) -> pd.DataFrame:
    return crossed(data[["age"]], treatment(data["Sex"]))


def by_age(data: pd.DataFrame) -> pd.DataFrame:
    return crossed(treatment(data["Sex"]), treatment(data["agef"]))


def machines(data: pd.DataFrame) -> pd.DataFrame:
    return treatment(data["Machine"])


MARE = {"labels": ("mare",), "fixed": ["sin", "cos"]}
DIAGONAL = RandomEffect("mare", slopes="sin", covariance="diagonal")
SLOPE = "(age | Subject)"
SEX = Heteroscedastic("Sex")
NUGGET = Exponential("day", "mare", nugget=True)
SEXES = {"labels": ("Subject", "Sex")}
SPECS = {
    "lme_orthodont_rs": Spec(named("age"), SLOPE),
    "lme_orthodont_varident": Spec(by_sex, SLOPE, SEX, **SEXES),
    "lme_orthodont_ri_varident": Spec(
        lambda data: data[["age"]].join(treatment(data["Sex"])),
        "Subject",
        SEX,
        **SEXES,
    ),
    "gls_orthodont_cs": Spec(by_sex, [], EqualCorrelation("Subject")),
    "gls_orthodont_un": Spec(
        by_age, [], UnstructuredErrors("agef", "Subject"), ("Subject", "agef")
    ),
    "gls_orthodont_ar1": Spec(by_sex, [], AR1(groups="Subject")),
    "lme_ovary_diag": Spec(waves, DIAGONAL, **MARE),
    "lme_ovary_ar1": Spec(waves, DIAGONAL, AR1(), **MARE),
    "lme_ovary_ri_ar1": Spec(waves, "mare", AR1("day"), **MARE),
    "lme_ovary_car1": Spec(waves, "mare", ContinuousAR1("cycle"), **MARE),
    "lme_ovary_arma11": Spec(waves, "mare", ARMA(1, 1, "day"), **MARE),
    "gls_ovary_ar1": Spec(waves, [], AR1("day", "mare"), **MARE),
    "gls_ovary_corexp_nugget": Spec(waves, [], NUGGET, **MARE),
    "gls_ovary_corexp_time": Spec(waves, [], Exponential("cycle", "mare"), **MARE),
    "lme_machines_pdsymm": Spec(
        lambda data: indicators(data["Machine"]),
        RandomEffect(
            "Worker", slopes=["MachineA", "MachineB", "MachineC"], intercept=False
        ),
        labels=("Worker",),
        fixed=["MachineB", "MachineC"],
    ),
    "lme_chick_car1": Spec(by_diet, "Chick", ContinuousAR1("Time"), ("Chick",)),
    "lme_chick_varexp": Spec(
        by_diet, "(Time | Chick)", ExponentialVariance("Time"), ("Chick",)
    ),
    "lme_sleep_rs": Spec(named("Days"), "(Days | Subject)"),
    "lme_sleep_ar1": Spec(named("Days"), "(Days | Subject)", AR1("Days")),
    "lme_sleep_ri_ar1": Spec(named("Days"), "Subject", AR1("Days", "Subject")),
    "lme_sleep_varexp": Spec(
        named("Days"), "(Days | Subject)", ExponentialVariance("Days")
    ),
    "gls_sleep_cs": Spec(named("Days"), [], EqualCorrelation("Subject")),
    "lme_machines_nested": Spec(
        machines, "(1 | Worker/Machine)", labels=("Worker", "Machine")
    ),
    # An autoregressive effect beside independent errors is an exponential
    # correlation with a nugget.
    "tmb_ovary_ar1": Spec(waves, [], NUGGET, **MARE),
    "tmb_sleep_disp": Spec(
        named("Days"), "(Days | Subject)", ExponentialVariance("Days")
    ),
}
RESPONSES = {
    "Orthodont": "distance",
    "Ovary": "follicles",
    "Machines": "score",
    "ChickWeight": "weight",
    "sleepstudy": "Reaction",
}


@cache
def data(dataset: str) -> pd.DataFrame:
    if dataset == "Ovary":
        return load_ovary(as_frame=True).frame
    return frame(dataset)


def inputs(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return X and y of an oracle."""
    oracle, spec = NLME[name], SPECS[name.rpartition("_")[0]]
    rows = data(oracle["dataset"])
    X = spec.columns(rows).join(rows[list(spec.labels)])
    return X, rows[RESPONSES[oracle["dataset"]]]


@cache
def fitted(name: str) -> MixedEffectsRegressor:
    """Return the fitted estimator."""
    spec = SPECS[name.rpartition("_")[0]]
    model = MixedEffectsRegressor(
        spec.random,
        fixed=spec.fixed,
        residual=spec.residual,
        method=NLME[name]["method"].lower(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*inputs(name))
