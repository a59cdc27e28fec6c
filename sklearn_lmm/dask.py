"""Fits to Dask DataFrames and arrays, and predictions for them.

Every partition is reduced to its cross-products where it lies; these are added up
in a tree, and only the sum is brought together to be fitted.  Nothing has to be
shuffled or sorted, and no level be known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.cross_products import CrossProducts, cross_products
from sklearn_lmm._engine.fit import fit_statistics
from sklearn_lmm._layout import Layout, learn_more, learn_roles
from sklearn_lmm._regressor import MixedEffectsRegressor
from sklearn_lmm._roles import Roles
from sklearn_lmm._totals import Totals
from sklearn_lmm._types import FloatArray

__all__ = ["fit", "predict"]

ADDED_AT_ONCE = 4
"""Partial results that one task adds up."""

COLUMNS = ["prediction", "std"]
"""Names of what is predicted for a frame."""

Summary = tuple[Layout, CrossProducts] | None
"""What is known of some rows; None if there are none."""


def fit(
    estimator: MixedEffectsRegressor,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    sample_weight: Any = None,
) -> MixedEffectsRegressor:
    """Fit a model to the rows of Dask collections.

    The result is that of `estimator.fit` on the same rows in memory.  What runs
    on the workers is the pass over the rows; the fit itself, which does not
    depend on their number, runs here.  Uses the current `distributed` client, or
    else Dask's own scheduler; a task that is lost with its worker is done again.

    Parameters
    ----------
    estimator : MixedEffectsRegressor
        The model, which is fitted in place. Not with a formula or a residual
        structure.
    X : dask.dataframe.DataFrame or dask.array.Array
        Covariates, and grouping columns if `random` names any.
    y : dask.dataframe.Series or dask.array.Array
        Response, in the partitions of X.
    groups : dask.dataframe.Series or DataFrame, or dask.array.Array, default=None
        Labels of the rows, as in `MixedEffectsRegressor.fit`.
    sample_weight : dask.dataframe.Series or dask.array.Array, default=None
        Weights of the rows.

    Returns
    -------
    MixedEffectsRegressor
        The estimator, fitted: an ordinary one, without any trace of Dask.

    Raises
    ------
    ValueError
        If something is no Dask collection, if the partitions do not match, or as
        in `MixedEffectsRegressor.fit`.
    ImportError
        If Dask is not installed.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.dask import fit, predict
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> rows = dd.from_pandas(load_sleepstudy().frame, npartitions=3)
    >>> X, y = rows[["Days", "Subject"]], rows["Reaction"]
    >>> model = fit(MixedEffectsRegressor("(1 + Days | Subject)"), X, y)
    >>> print(f"{model.sigma_:.4f}")
    25.5918
    >>> predict(model, X).head(2).round(1).to_list()
    [253.7, 273.3]
    """
    _import_dask()
    remedies = {
        "formula": "name the columns in random, fixed and offset",
        "residual": "leave it out",
    }
    for name, remedy in remedies.items():
        if getattr(estimator, name, None) is not None:
            raise ValueError(
                f"sklearn_lmm.dask does not fit models with {name}=: {remedy}, or use "
                "MixedEffectsRegressor.fit."
            )
    estimator._validate_params()
    collections = _matching(X, y=y, groups=groups, sample_weight=sample_weight)
    # The columns' names are recorded on it, and it has no old fit to carry along.
    reader = clone(estimator)
    roles = learn_roles(reader, *map(_two_rows, collections[:3]))
    summary = _total(_summaries(reader, roles, collections))
    if summary is None or summary[1].n_rows < 2:
        raise ValueError("X has fewer than two rows with a weight that is not 0.")
    layout, statistics = summary
    for attribute in ("n_features_in_", "feature_names_in_"):
        estimator.__dict__.pop(attribute, None)
        if hasattr(reader, attribute):
            setattr(estimator, attribute, getattr(reader, attribute))
    result = fit_statistics(statistics, **estimator._options())
    return estimator._finish(layout, result)


def predict(
    estimator: MixedEffectsRegressor,
    X: Any,
    groups: Any = None,
    *,
    random_effects: bool | Sequence[str] = True,
    return_std: bool = False,
) -> Any:
    """Predict the response of the rows of Dask collections, when it is asked for.

    Parameters
    ----------
    estimator : MixedEffectsRegressor
        Any fitted one.
    X : dask.dataframe.DataFrame or dask.array.Array
        Covariates, with the columns of the fit.
    groups : dask.dataframe.Series or DataFrame, or dask.array.Array, default=None
        Labels, in the partitions of X, as in `MixedEffectsRegressor.predict`.
    random_effects : bool or list of str, default=True
        Whose effects count, as in `MixedEffectsRegressor.predict`.
    return_std : bool, default=False
        Whether to return standard deviations as well.

    Returns
    -------
    prediction : dask.dataframe.Series or dask.array.Array
        Predictions, not yet computed: a series with the index of a frame, an
        array for an array.
    std : dask.dataframe.Series or dask.array.Array
        Standard deviations, if `return_std`.

    Raises
    ------
    ValueError
        If something is no Dask collection or the partitions do not match; while
        computed, as in `MixedEffectsRegressor.predict`.
    ImportError
        If Dask is not installed.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.dask import predict
    >>> X = [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
    >>> model = MixedEffectsRegressor(random=1).fit(X, [1.0, 2.2, 3.1, 3.9, 2.0, 3.3])
    >>> prediction = predict(model, da.from_array(X, chunks=(2, 2)))
    >>> prediction.compute().round(2)
    array([1.07, 2.17, 2.93, 4.03, 2.1 , 3.2 ])
    """
    dask = _import_dask()
    check_is_fitted(estimator)
    X, groups = _matching(X, groups=groups)
    n_columns = 1 + return_std
    # One node of the graph, however many partitions there are.
    arguments = (dask.delayed(estimator, traverse=False), n_columns, random_effects)
    if isinstance(X, dask.array.Array):
        table = dask.array.blockwise(
            _predictions,
            "ik",
            X,
            "ij",
            groups,
            None if groups is None else "il"[: groups.ndim],
            *(part for argument in arguments for part in (argument, None)),
            new_axes={"k": n_columns},
            concatenate=True,
            dtype=np.float64,
            meta=np.empty((0, 0)),
        )
        columns = [table[:, k] for k in range(n_columns)]
    else:
        table = dask.dataframe.map_partitions(
            _frame_of_predictions,
            X,
            groups,
            *arguments,
            meta=pd.DataFrame(columns=COLUMNS[:n_columns], dtype=np.float64),
            align_dataframes=False,
        )
        columns = [table[name] for name in COLUMNS[:n_columns]]
    return tuple(columns) if return_std else columns[0]


def _import_dask() -> Any:
    """Return Dask with its collections imported.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import dask
        import dask.array
        import dask.dataframe
    except ImportError as error:
        raise ImportError(
            'sklearn_lmm.dask needs Dask: pip install "sklearn-lmm[dask]".'
        ) from error
    return dask


def _matching(X: Any, **others: Any) -> list[Any]:
    """Return the collections, cut into rows as X is, or refuse them."""
    dask = _import_dask()
    frames: Any = (dask.dataframe.DataFrame, dask.dataframe.Series)
    is_array = isinstance(X, dask.array.Array)
    if not is_array and not isinstance(X, frames):
        raise ValueError(
            f"X is a {_type_of(X)}, not a Dask DataFrame or Array. "
            "MixedEffectsRegressor itself takes what is in memory."
        )
    X = _whole_rows(X) if is_array else X
    for name, data in others.items():
        if data is None:
            continue
        if not isinstance(data, dask.array.Array if is_array else frames):
            wanted = "Array" if is_array else "DataFrame or Series"
            raise ValueError(
                f"{name} is a {_type_of(data)}, but has to be a Dask {wanted}, as X is."
            )
        if is_array:
            others[name] = data = _cut_like(X, data)
        if data.npartitions != X.npartitions:
            raise ValueError(
                f"{name} has {data.npartitions} partitions and X has "
                f"{X.npartitions}: repartition one of them."
            )
    return [X, *others.values()]


def _whole_rows(X: Any) -> Any:
    """Return an array in blocks of whole rows."""
    return X.rechunk({k: -1 for k in range(1, X.ndim)})


def _cut_like(X: Any, data: Any) -> Any:
    """Return an array in X's blocks of rows, where their sizes are known."""
    known = not np.isnan([*X.chunks[0], *data.chunks[0]]).any()
    if known and len(data) == len(X):
        data = data.rechunk({0: X.chunks[0]})
    return _whole_rows(data)


def _type_of(data: Any) -> str:
    return f"{type(data).__module__}.{type(data).__name__}"


def _two_rows(data: Any) -> Any:
    """Return two rows with the names and types of a collection, made up."""
    if data is None:
        return None
    if hasattr(data, "_meta_nonempty"):
        return data._meta_nonempty
    return np.zeros((2, *data.shape[1:]))


def _summary(
    reader: MixedEffectsRegressor,
    roles: Roles,
    X: Any,
    y: Any,
    groups: Any,
    sample_weight: Any,
) -> Summary:
    """Reduce a partition to its levels and cross-products."""
    weightless = sample_weight is not None and not np.any(np.asarray(sample_weight))
    if not len(X) or weightless:
        return None
    before = Layout(roles, ())
    layout, design = learn_more(reader, before, X, y, groups, sample_weight)
    return layout, cross_products(design)


def _summaries(reader: Any, roles: Roles, collections: Sequence[Any]) -> list[Any]:
    """Return the summaries of all partitions, not yet computed."""
    dask = _import_dask()
    # Bound to it, or Dask would look into the roles for collections.
    summary = partial(_summary, reader, roles)
    if isinstance(collections[0], dask.array.Array):
        blocks = [
            [None] * collections[0].npartitions
            if data is None
            # As it is, so that parts which collections share are made once.
            else data.to_delayed(optimize_graph=False).ravel().tolist()
            for data in collections
        ]
        task = dask.delayed(summary, pure=False)
        return [task(*parts) for parts in zip(*blocks, strict=True)]
    # In one call, for the same reason.
    made = dask.dataframe.map_partitions(
        summary,
        *collections,
        meta=(None, object),
        enforce_metadata=False,
        align_dataframes=False,
    )
    return list(made.to_delayed())


def _added(summaries: Sequence[Summary]) -> Summary:
    """Add up what is known of several sets of rows."""
    there = [summary for summary in summaries if summary is not None]
    if len(there) < 2:
        return there[0] if there else None
    totals = Totals(there[0][0].roles)
    for layout, statistics in there:
        totals.add(layout, statistics)
    return totals.finished()


def _total(summaries: list[Any]) -> Summary:
    """Add up the summaries of all partitions, in a tree, where they are."""
    dask = _import_dask()
    add = dask.delayed(_added, pure=False)
    while len(summaries) > 1:
        summaries = [
            add(summaries[start : start + ADDED_AT_ONCE])
            for start in range(0, len(summaries), ADDED_AT_ONCE)
        ]
    total: Summary = summaries[0].compute()
    return total


def _predictions(
    X: Any,
    groups: Any,
    model: MixedEffectsRegressor,
    n_columns: int,
    random_effects: bool | Sequence[str],
) -> FloatArray:
    """Return predictions of a partition, and perhaps their standard deviations."""
    if not len(X):
        return np.empty((0, n_columns))
    result = model.predict(
        X, groups, random_effects=random_effects, return_std=n_columns == 2
    )
    return np.reshape(result, (n_columns, -1)).T


def _frame_of_predictions(X: pd.DataFrame, *arguments: Any) -> pd.DataFrame:
    values = _predictions(X, *arguments)
    return pd.DataFrame(values, X.index, COLUMNS[: values.shape[1]])
