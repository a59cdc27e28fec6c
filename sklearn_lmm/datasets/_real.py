"""Loaders of the real data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

HERE = Path(__file__).parent
# Levels of a factor in their order; None: sorted, as numbers if they are numbers.
Levels = Mapping[str, list[str] | None]
BANDS = ["bottom 25%", "mid 50%", "top 25%"]


def load_exam(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load examination scores of 4059 students of 65 inner London schools.

    The target is ``normexam``, the score at the age of 16; ``standLRT`` is the
    reading test at 11 and ``school`` the grouping factor.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_exam
    >>> exam = load_exam()
    >>> exam.data.shape, exam.data["school"].nunique(), exam.target_name
    ((4059, 9), 65, 'normexam')
    """
    factors: Levels = {
        "school": None,
        "schgend": ["mixed", "boys", "girls"],
        "vr": BANDS,
        "intake": BANDS,
        "sex": None,
        "type": None,
        "student": None,
    }
    return _load("exam.csv", "normexam", factors, return_X_y, as_frame)


def load_sleepstudy(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load reaction times of 18 subjects on 10 days of little sleep.

    The target is ``Reaction``, in milliseconds; ``Days`` counts the days and
    ``Subject`` is the grouping factor.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> list(X.columns), y.name, len(y)
    (['Days', 'Subject'], 'Reaction', 180)
    """
    return _load("sleepstudy.csv", "Reaction", {"Subject": None}, return_X_y, as_frame)


def load_penicillin(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load an assay of 6 penicillin samples on 24 plates: two crossed factors.

    The target is ``diameter``, that of the clear zone in millimetres.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_penicillin
    >>> load_penicillin().data.nunique().to_dict()
    {'plate': 24, 'sample': 6}
    """
    factors: Levels = {"plate": None, "sample": None}
    return _load("penicillin.csv", "diameter", factors, return_X_y, as_frame)


def load_pastes(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load strengths of a paste: tests in casks in batches, nested factors.

    The target is ``strength``; ``cask`` numbers the casks within their batch,
    ``sample`` names each cask.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_pastes
    >>> load_pastes().data.nunique().to_dict()
    {'batch': 10, 'cask': 3, 'sample': 30}
    """
    factors: Levels = {"batch": None, "cask": None, "sample": None}
    return _load("pastes.csv", "strength", factors, return_X_y, as_frame)


def load_insteval(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load 73421 ratings of 1128 lecturers by 2972 students: partly crossed.

    The target is ``y``, the rating from 1 to 5; ``s`` is the student, ``d`` the
    lecturer and ``dept`` the department.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_insteval
    >>> load_insteval().data[["s", "d", "dept"]].nunique().to_dict()
    {'s': 2972, 'd': 1128, 'dept': 14}
    """
    factors: Levels = {
        "s": None,
        "d": None,
        "studage": None,
        "lectage": None,
        "service": None,
        "dept": "15 5 10 12 6 7 4 8 9 14 1 3 11 2".split(),
    }
    return _load("insteval.csv.gz", "y", factors, return_X_y, as_frame)


def load_cake(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load breakage angles of 270 cakes: a split-plot experiment.

    The target is ``angle``, in degrees; ``recipe`` was set for whole batches of
    mix, which recipe and ``replicate`` name together, and ``temperature`` within
    them.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_cake
    >>> load_cake().data.nunique().to_dict()
    {'replicate': 15, 'recipe': 3, 'temperature': 6}
    """
    factors: Levels = {"replicate": None, "recipe": None}
    return _load("cake.csv", "angle", factors, return_X_y, as_frame)


def load_ovary(*, return_X_y: bool = False, as_frame: bool = True) -> Any:
    """Load daily counts of ovarian follicles of 11 mares: a series each.

    The target is ``follicles``; ``cycle`` is the time between two ovulations, at
    0 and 1, ``day`` numbers a mare's observations and ``mare`` is the grouping
    factor.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the Bunch.
    as_frame : bool, default=True
        Return pandas objects, with factors as categoricals; else arrays.

    Returns
    -------
    Bunch or tuple
        See `sklearn_lmm.datasets`.

    Examples
    --------
    >>> from sklearn_lmm.datasets import load_ovary
    >>> X, y = load_ovary(return_X_y=True)
    >>> list(X.columns), y.name, len(y)
    (['mare', 'cycle', 'day'], 'follicles', 308)
    """
    factors: Levels = {"mare": None}
    return _load("ovary.csv", "follicles", factors, return_X_y, as_frame)


def _load(
    file: str, target: str, factors: Levels, return_X_y: bool, as_frame: bool
) -> Any:
    path = HERE / "data" / file
    frame = _read(path, factors)
    features = frame.drop(columns=target)
    data, y = (
        (features, frame[target])
        if as_frame
        else (features.to_numpy(dtype=object), frame[target].to_numpy())
    )
    if return_X_y:
        return data, y
    description = HERE / "descr" / f"{file.split('.')[0]}.rst"
    return Bunch(
        data=data,
        target=y,
        frame=frame if as_frame else None,
        feature_names=features.columns.to_list(),
        target_name=target,
        DESCR=description.read_text(encoding="utf-8"),
        filename=str(path),
    )


def _read(path: Path, factors: Levels) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype=dict.fromkeys(factors, "str"))
    for name, levels in factors.items():
        found = frame[name].unique()
        numbers = all(label.isdecimal() for label in found)
        order = levels or sorted(found, key=int if numbers else None)
        frame[name] = frame[name].astype(pd.CategoricalDtype(order))
    return frame
