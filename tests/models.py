"""The models of the oracles: data, columns and random part of each, fitted once.

Every entry of `oracles/lmer.json` is a formula of lme4.  `SPECS` says by hand
what the formula means: the numeric columns of X with R's coding and names, and
the random part in one of the forms that `MixedEffectsRegressor` takes.  The
forms differ on purpose from model to model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor, RandomEffect, datasets

ORACLES_DIR = Path(__file__).parent / "oracles"
ORACLES: dict[str, dict[str, Any]] = json.loads((ORACLES_DIR / "lmer.json").read_text())
LOADERS = {
    "Exam": datasets.load_exam,
    "Penicillin": datasets.load_penicillin,
    "Pastes": datasets.load_pastes,
    "InstEval": datasets.load_insteval,
}


@cache
def frame(dataset: str) -> pd.DataFrame:
    """Return a data set, complete rows only, factors with R's order of levels."""
    if dataset in LOADERS:
        return LOADERS[dataset](as_frame=True).frame
    levels = pd.read_csv(ORACLES_DIR / "levels.csv", dtype=str)
    levels = levels[levels["dataset"] == dataset].groupby("column")["level"].agg(list)
    data = pd.read_csv(
        ORACLES_DIR / "data" / f"{dataset}.csv", dtype=dict.fromkeys(levels.index, str)
    )
    for column, categories in levels.items():
        data[column] = pd.Categorical(data[column], categories)
    return data.dropna()


def indicators(factor: pd.Series) -> pd.DataFrame:
    """Return one 0/1 column a level, as `0 + f` codes a factor in R."""
    columns = np.eye(len(factor.cat.categories))[factor.cat.codes]
    names = [f"{factor.name}{level}" for level in factor.cat.categories]
    return pd.DataFrame(columns, factor.index, names)


def treatment(factor: pd.Series) -> pd.DataFrame:
    """Return the indicators of all levels but the first (contr.treatment)."""
    return indicators(factor).iloc[:, 1:]


def polynomial(factor: pd.Series) -> pd.DataFrame:
    """Return orthonormal polynomials in the number of the level (contr.poly)."""
    k = len(factor.cat.categories)
    Q, R = np.linalg.qr(np.vander(np.arange(k) - (k - 1) / 2, increasing=True))
    columns = (Q * np.sign(np.diag(R)))[:, 1:][factor.cat.codes]
    suffixes = [".L", ".Q", ".C", *(f"^{power}" for power in range(4, k))]
    names = [f"{factor.name}{suffix}" for suffix in suffixes[: k - 1]]
    return pd.DataFrame(columns, factor.index, names)


def crossed(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return `first * second` as in R: both, then products, `first` fastest."""
    products = {
        f"{a}:{b}": first[a] * second[b] for b in second.columns for a in first.columns
    }
    return pd.concat([first, second, pd.DataFrame(products)], axis=1)


def no_columns(data: pd.DataFrame) -> pd.DataFrame:
    return data[[]]


@dataclass(frozen=True)
class Spec:
    """One model, as it is given to the estimator.

    columns : the data -> the numeric columns of X
    random, fixed, offset : the parameters of the estimator
    blocks : lme4's names of the blocks of theta, in the order of our terms
    labels : the grouping columns, in X unless `groups` says how else they come
    groups : "series" or "frame", for labels that come through the fit parameter
    """

    columns: Callable[[pd.DataFrame], pd.DataFrame]
    random: Any
    blocks: tuple[str, ...]
    labels: tuple[str, ...]
    groups: str | None = None
    fixed: list[str] | None = None
    offset: str | None = None
    fit_intercept: bool = True


def named(*names: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda data: data[list(names)]


SUBJECT = {"blocks": ("Subject",), "labels": ("Subject",)}
SUBJ_ITEM = {
    "columns": lambda data: crossed(data[["x"]], data[["z"]]),
    "labels": ("subj", "item"),
}
WORKER = {"labels": ("Worker",), "blocks": ("Worker",)}

SPECS = {
    "sleep_ri": Spec(named("Days"), "Subject", **SUBJECT),
    "sleep_rs": Spec(named("Days"), "(Days | Subject)", **SUBJECT),
    "sleep_indep": Spec(
        named("Days"),
        "(Days || Subject)",
        blocks=("Subject", "Subject.1"),
        labels=("Subject",),
    ),
    "sleep_weights": Spec(
        named("Days"), RandomEffect("Subject", slopes="Days"), **SUBJECT
    ),
    "sleep_offset": Spec(
        named("Days", "off"),
        RandomEffect(slopes=["Days"]),
        groups="series",
        offset="off",
        **SUBJECT,
    ),
    "sleep_rankdef": Spec(
        named("Days", "Days2"), "(1 + Days | Subject)", groups="frame", **SUBJECT
    ),
    "sleep_nointercept": Spec(
        lambda data: indicators(data["cond"]),
        None,
        groups="series",
        fit_intercept=False,
        **SUBJECT,
    ),
    "sleep_slope_only": Spec(named("Days"), "(0 + Days | Subject)", **SUBJECT),
    "sleep_factor_x": Spec(
        lambda data: crossed(treatment(data["cond"]), data[["Days"]]), -1, **SUBJECT
    ),
    "sleep_na": Spec(named("Days"), RandomEffect(1, slopes=[0]), **SUBJECT),
    "dyestuff": Spec(no_columns, "(1 | Batch)", blocks=("Batch",), labels=("Batch",)),
    "dyestuff2_singular": Spec(
        no_columns, RandomEffect("Batch"), blocks=("Batch",), labels=("Batch",)
    ),
    "penicillin": Spec(
        no_columns,
        ["sample", "plate"],
        blocks=("sample", "plate"),
        labels=("plate", "sample"),
    ),
    "pastes_nested": Spec(
        no_columns,
        "(1 | batch/cask)",
        blocks=("batch", "cask:batch"),
        labels=("batch", "cask"),
    ),
    "pastes_sample_batch": Spec(
        no_columns,
        [RandomEffect("sample"), "batch"],
        blocks=("sample", "batch"),
        labels=("sample", "batch"),
    ),
    "cake_factor": Spec(
        lambda data: crossed(
            treatment(data["recipe"]), polynomial(data["temperature"])
        ),
        RandomEffect(("recipe", "replicate")),
        blocks=("recipe:replicate",),
        labels=("recipe", "replicate"),
    ),
    "cake_numeric": Spec(
        lambda data: treatment(data["recipe"]).join(data["temp"]),
        "(1 | recipe:replicate)",
        blocks=("recipe:replicate",),
        labels=("recipe", "replicate"),
        groups="frame",
    ),
    "exam_ri": Spec(
        named("standLRT"),
        "school",
        blocks=("school",),
        labels=("school",),
        groups="series",
    ),
    "exam_rs": Spec(
        lambda data: data[["standLRT"]].join(
            [treatment(data["sex"]), treatment(data["schgend"])]
        ),
        "(standLRT | school)",
        blocks=("school",),
        labels=("school",),
    ),
    "machines_ri": Spec(
        lambda data: treatment(data["Machine"]), ["Worker"], groups="frame", **WORKER
    ),
    "machines_nested": Spec(
        lambda data: treatment(data["Machine"]),
        ["Worker", RandomEffect(("Worker", "Machine"))],
        blocks=("Worker", "Machine:Worker"),
        labels=("Worker", "Machine"),
    ),
    "machines_slope": Spec(
        lambda data: treatment(data["Machine"]),
        "(1 + MachineB + MachineC | Worker)",
        **WORKER,
    ),
    "machines_cellslopes": Spec(
        lambda data: indicators(data["Machine"]),
        RandomEffect(
            "Worker", slopes=["MachineA", "MachineB", "MachineC"], intercept=False
        ),
        fixed=["MachineB", "MachineC"],
        **WORKER,
    ),
    "orthodont_rs": Spec(
        lambda data: crossed(data[["age"]], treatment(data["Sex"])),
        "(1 + age | Subject)",
        groups="series",
        **SUBJECT,
    ),
    "orthodont_ri": Spec(
        lambda data: data[["age"]].join(treatment(data["Sex"])), 2, **SUBJECT
    ),
    "chick_rs": Spec(
        lambda data: crossed(data[["Time"]], treatment(data["Diet"])),
        [RandomEffect("Chick", slopes=("Time",))],
        blocks=("Chick",),
        labels=("Chick",),
    ),
    # The labels come twice, in X and in groups.
    "rail": Spec(
        named("Rail"), None, blocks=("Rail",), labels=("Rail",), groups="series"
    ),
    "synth_crossed_max": Spec(
        random=[RandomEffect("item", slopes=["z"]), RandomEffect("subj", slopes=["x"])],
        blocks=("item", "subj"),
        **SUBJ_ITEM,
    ),
    "synth_crossed_zerocorr": Spec(
        random=[
            "(1 + x || subj)",
            RandomEffect("item", slopes=["z"], covariance="diagonal"),
        ],
        blocks=("subj", "subj.1", "item", "item.1"),
        **SUBJ_ITEM,
    ),
    "synth_blockdiag": Spec(
        random="(1 + x | subj) + (0 + z | subj) + (1 | item)",
        blocks=("subj", "subj.1", "item"),
        groups="frame",
        **SUBJ_ITEM,
    ),
    "insteval_2": Spec(
        lambda data: crossed(treatment(data["service"]), treatment(data["dept"])),
        "(1 | s) + (1 | d)",
        blocks=("s", "d"),
        labels=("s", "d"),
    ),
    "insteval_3": Spec(
        lambda data: treatment(data["service"]),
        ["s", "d", "dept"],
        blocks=("s", "d", "dept"),
        labels=("s", "d", "dept"),
        groups="frame",
    ),
}


@dataclass(frozen=True)
class Model:
    """An oracle, its spec and its data, ready for the estimator."""

    oracle: dict[str, Any]
    spec: Spec
    X: pd.DataFrame
    y: pd.Series
    fit_params: dict[str, Any]


def inputs(spec: Spec, data: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """Return X and what goes into `groups` (None if the labels are in X)."""
    columns, labels = spec.columns(data), data[list(spec.labels)]
    if spec.groups is None:
        return pd.concat([columns, labels], axis=1), None
    return columns, labels.iloc[:, 0] if spec.groups == "series" else labels


@cache
def model(oracle_id: str) -> Model:
    oracle = ORACLES[oracle_id]
    spec = SPECS[oracle_id.rpartition("_")[0]]
    data = frame(oracle["dataset"])
    X, groups = inputs(spec, data)
    fit_params = {} if groups is None else {"groups": groups}
    if oracle["weights"]:
        fit_params["sample_weight"] = data[oracle["weights"]]
    return Model(oracle, spec, X, data[oracle["formula"].split(" ~ ")[0]], fit_params)


@cache
def fitted(
    oracle_id: str, solver: str = "auto"
) -> tuple[MixedEffectsRegressor, tuple[str, ...]]:
    """Return the fitted estimator, and the names of the warnings fit gave."""
    m = model(oracle_id)
    estimator = MixedEffectsRegressor(
        m.spec.random,
        fixed=m.spec.fixed,
        offset=m.spec.offset,
        fit_intercept=m.spec.fit_intercept,
        method=m.oracle["method"].lower(),
        weights="precision",
        solver=solver,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(m.X, m.y, **m.fit_params)
    return estimator, tuple(w.category.__name__ for w in caught)
