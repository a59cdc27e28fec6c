"""Validation for groups of which a few labelled rows are known.

Three questions, three ways to leave rows out.  Known groups: `KFold`.  New groups:
`GroupKFold`.  New groups with k labelled rows each: `GroupAdaptSplit`, and
`cross_val_adapt` where the model is adapted to them rather than fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import BaseCrossValidator, GroupKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state, indexable

from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.metrics import GroupScorer, label_arguments

__all__ = ["GroupAdaptSplit", "cross_val_adapt"]


class GroupAdaptSplit(BaseCrossValidator):
    """Leave groups out as GroupKFold does, but for a few rows of each.

    The groups are dealt to `n_splits` folds.  Of every group of a fold `n_adapt` rows
    stay in the training set, the others are the test set::

        train  rows of all other groups, and n_adapt rows of each group of the fold
        test   the other rows of the groups of the fold

    Groups of `n_adapt` rows or fewer have nothing to test: they are always in the
    training set.  With `n_adapt=0` no row stays, as in GroupKFold.

    With `cross_validate` the model is fitted to all training rows; `cross_val_adapt`
    fits it to the other groups only, and then adapts it to the new ones.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    n_adapt : int, default=1
        How many rows of each group stay in the training set.
    shuffle : bool, default=True
        Whether groups are dealt, and the rows that stay are drawn, at random.
        Otherwise groups are dealt so that folds have nearly the same size, and the
        first rows of each group stay: the past, where rows are in order of time.
    random_state : int, RandomState instance or None, default=None
        Seed of both draws. With the same seed the rows that stay for a smaller
        `n_adapt` are among those of a larger one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_lmm.model_selection import GroupAdaptSplit
    >>> groups = np.array(["a", "a", "a", "b", "b", "b", "c", "c", "c"])
    >>> cv = GroupAdaptSplit(3, n_adapt=1, shuffle=False)
    >>> for train, test in cv.split(groups, groups=groups):
    ...     print(groups[train], groups[test])
    ['a' 'a' 'a' 'b' 'b' 'b' 'c'] ['c' 'c']
    ['a' 'a' 'a' 'b' 'c' 'c' 'c'] ['b' 'b']
    ['a' 'b' 'b' 'b' 'c' 'c' 'c'] ['a' 'a']
    """

    # Labels are routed to it, as to GroupKFold, without a request.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(
        self,
        n_splits: int = 5,
        *,
        n_adapt: int = 1,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        for name, value, least in (("n_splits", n_splits, 2), ("n_adapt", n_adapt, 0)):
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}: {value}.")
        if random_state is not None and not shuffle:
            raise ValueError(
                "random_state has no effect with shuffle=False: leave one of them out."
            )
        self.n_splits = n_splits
        self.n_adapt = n_adapt
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds; the arguments do not matter."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the training and the test rows of every fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its length matters.
        y : object
            Ignored.
        groups : array-like of shape (n_samples,)
            The group of each row.

        Yields
        ------
        train, test : ndarray of int
            Positions of rows.

        Raises
        ------
        ValueError
            If groups is missing, has missing labels or several columns, or if fewer
            than `n_splits` groups have more than `n_adapt` rows.
        """
        yield from super().split(X, y, groups)

    def _iter_test_indices(self, X: Any, y: Any, groups: Any) -> Iterator[IntArray]:
        codes = _codes(groups)
        rng = check_random_state(self.random_state) if self.shuffle else None
        rows = np.flatnonzero(_place_in_group(codes, rng) >= self.n_adapt)
        n_testable = len(np.unique(codes[rows]))
        if n_testable < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits}, but only {n_testable} of "
                f"{codes.max() + 1} groups have more than n_adapt={self.n_adapt} rows "
                "and so something to test. Take fewer folds or a smaller n_adapt."
            )
        seed = None if rng is None else rng.randint(np.iinfo(np.int32).max)
        folds = GroupKFold(self.n_splits, shuffle=self.shuffle, random_state=seed)
        for _, test in folds.split(rows, groups=codes[rows]):
            yield rows[test]


def cross_val_adapt(
    estimator: Any,
    X: Any,
    y: Any,
    groups: Any,
    *,
    cv: BaseCrossValidator | Iterable[tuple[IntArray, IntArray]] | None = None,
    scoring: str | Callable[..., Any] = "r2",
) -> FloatArray:
    """Score a model on new groups after it has been adapted to a few rows of each.

    In every fold: fit to the training rows of groups that are not tested; `adapt`
    to the training rows of those that are, without another fit; score on the test
    rows.  Where there is nothing to adapt to (GroupKFold), the model is scored as it
    was fitted.

    Parameters
    ----------
    estimator : estimator with fit, predict and adapt, or a Pipeline that ends in one
        It is cloned, and gets labels where it asks for them: a model that reads them
        from a column of X gets none.
    X : DataFrame or array-like of shape (n_samples, n_features)
        Covariates, and perhaps labels.
    y : array-like of shape (n_samples,)
        Response.
    groups : array-like of shape (n_samples,)
        The group of each row.
    cv : splitter or iterable of (train, test), default=None
        None is `GroupAdaptSplit()`: five folds, one row of each new group.
    scoring : str or callable, default="r2"
        A scorer or its name; predictions are made with the labels.

    Returns
    -------
    ndarray of shape (n_splits,)
        A score for each fold.

    Raises
    ------
    TypeError
        If there are rows to adapt to and the estimator has no `adapt`.
    ValueError
        If a fold keeps no group out, or groups are not one label for each row.

    See Also
    --------
    sklearn.model_selection.cross_val_score : Fits to all training rows instead.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.model_selection import GroupAdaptSplit, cross_val_adapt
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(Days | Subject)")
    >>> for k in (0, 2, 5):
    ...     scores = cross_val_adapt(
    ...         model,
    ...         X,
    ...         y,
    ...         X["Subject"],
    ...         cv=GroupAdaptSplit(6, n_adapt=k, random_state=0),
    ...         scoring="neg_root_mean_squared_error",
    ...     )
    ...     print(f"{k} days known of a new subject: error {-scores.mean():.0f} ms")
    0 days known of a new subject: error 49 ms
    2 days known of a new subject: error 38 ms
    5 days known of a new subject: error 25 ms
    """
    X, y, groups = indexable(X, y, groups)
    codes = _codes(groups)
    splitter = GroupAdaptSplit() if cv is None else check_cv(cv)
    scorer = GroupScorer(scoring)
    scores = []
    for train, test in splitter.split(X, y, codes):
        new = np.isin(codes[train], codes[test])
        if new.all():
            raise ValueError(
                "A fold tests every group it is trained on, so that none is new. Use "
                "a splitter that keeps groups out: GroupAdaptSplit or GroupKFold."
            )
        model = _fit(clone(estimator), *_rows(train[~new], X, y, groups))
        if new.any():
            model = _adapt(model, *_rows(train[new], X, y, groups))
        *tested, labels = _rows(test, X, y, groups)
        scores.append(scorer(model, *tested, groups=labels))
    return np.array(scores)


def _codes(groups: Any) -> IntArray:
    """Return the group of each row as a number from 0."""
    if groups is None:
        raise ValueError(
            "groups is missing, but the splits are made by group: give one label for "
            "each row."
        )
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise ValueError(
            f"groups has shape {labels.shape}; expected one label for each row. With "
            "several factors, give the one that is to be new."
        )
    codes, _ = pd.factorize(labels)
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        raise ValueError(
            f"The group of {len(missing)} rows is missing: {missing[:8]}. Leave these "
            "rows out, or give them a label of their own."
        )
    return codes


def _place_in_group(codes: IntArray, rng: np.random.RandomState | None) -> IntArray:
    """Number the rows of every group from 0, in their order or at random."""
    order = np.arange(len(codes)) if rng is None else rng.permutation(len(codes))
    place = np.empty(len(codes), dtype=np.intp)
    place[order] = pd.Series(codes[order]).groupby(codes[order]).cumcount()
    return place


def _rows(rows: IntArray, *arrays: Any) -> list[Any]:
    return [_safe_indexing(array, rows) for array in arrays]


def _fit(model: Any, X: Any, y: Any, groups: AnyArray) -> Any:
    labels = label_arguments(model, "fit", groups)
    if isinstance(model, Pipeline) and not get_config()["enable_metadata_routing"]:
        last = model.steps[-1][0]
        labels = {f"{last}__{name}": value for name, value in labels.items()}
    return model.fit(X, y, **labels)


def _adapt(model: Any, X: Any, y: Any, groups: AnyArray) -> Any:
    if isinstance(model, Pipeline):
        *transformers, (name, last) = model.steps
        if transformers:
            X = model[:-1].transform(X)
        return Pipeline([*transformers, (name, _adapt(last, X, y, groups))])
    if not hasattr(model, "adapt"):
        raise TypeError(
            f"{type(model).__name__} has no method adapt, which takes rows of new "
            "groups without another fit. cross_val_score fits to all training rows."
        )
    # What fit asks for: adapt is not among the methods that routing knows.
    return model.adapt(X, y, **label_arguments(model, "fit", groups))
