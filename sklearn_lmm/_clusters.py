"""Clusters of the rows of a fit: by a grouping factor, a column, or any labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._columns import listed
from sklearn_lmm._engine import refits
from sklearn_lmm._engine.fitted_rows import Clusters
from sklearn_lmm._groups import read_groups
from sklearn_lmm._labels import learn_levels
from sklearn_lmm._results import level_index
from sklearn_lmm._rows import FitRows


@dataclass(frozen=True, eq=False)
class NamedClusters:
    """Clusters of the rows that count.

    name : of what the rows are clustered by
    labels : (m,) of the clusters
    clusters : the engine's codes
    """

    name: str
    labels: pd.Index
    clusters: Clusters


def clusters_of(given: FitRows, by: Any, X: Any, argument: str) -> NamedClusters:
    """Return the clusters of rows by a factor's name, a column's name, or labels.

    by : None stands for the grouping factor within whose levels all others lie
    argument : what the user knows `by` by

    Raises
    ------
    ValueError
        If there is no such factor, or the labels are not one for each row.
    """
    if by is None:
        return of_factor(given, _top_factor(given))
    if isinstance(by, str):
        factor = given.factor(by)
        if factor is not None:
            return of_factor(given, factor)
        if not isinstance(X, pd.DataFrame) or by not in X.columns:
            names = given.layout.roles.factor_names
            raise ValueError(
                f"{argument}={by!r} is neither a grouping factor of the model "
                f"({listed(names) or 'it has none'}) nor a column of X; give one of "
                "these, or one label for each row."
            )
        by = X[by]
    return _of_labels(given, by, argument)


def of_factor(given: FitRows, factor: int) -> NamedClusters:
    """Return the levels of a grouping factor as clusters."""
    grouping = given.layout.roles.groupings[factor]
    own = given.design.factors[factor]
    clusters = Clusters(own.codes, own.n_levels)
    return NamedClusters(grouping.name, level_index(given.layout, factor), clusters)


def outermost(given: FitRows) -> list[int]:
    """Return the grouping factors that lie within no other, largest first.

    One for a single factor or a chain of nested ones, several for crossed ones.
    """
    factors = given.design.factors
    return sorted(refits.outermost(given.design), key=lambda f: -factors[f].n_levels)


def _top_factor(given: FitRows) -> int:
    top = outermost(given)
    if len(top) == 1:
        return top[0]
    names = [given.layout.roles.factor_names[f] for f in top]
    found = f"its factors {listed(names)} are crossed" if names else "it has no factor"
    raise ValueError(
        f"The model has no grouping factor that contains all others: {found}. Say "
        "by what to cluster the rows: a factor's name, or one label for each row."
    )


def _of_labels(given: FitRows, by: Any, argument: str) -> NamedClusters:
    columns = read_groups(by, given.n_rows, argument)
    if columns is None or len(columns.columns) != 1:
        raise ValueError(
            f"{argument} has {0 if columns is None else len(columns.columns)} columns: "
            "give one label for each row."
        )
    name = columns.names[0] or "cluster"
    codes, levels = learn_levels(columns.columns[0], name)
    used, codes = np.unique(codes[given.positions], return_inverse=True)
    labels = pd.Index(levels.labels[used], name=name, tupleize_cols=False)
    return NamedClusters(name, labels, Clusters(codes, len(used)))
