"""Scorers that hand the labels of rows to `predict`.

A scorer of scikit-learn calls `predict(X)`: labels that reached the fit through
`groups` are lost when it scores, and every row counts as one of an unknown group.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from sklearn import get_config
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    UNCHANGED,
    MetadataRequest,
    get_routing_for_object,
)

__all__ = ["make_group_scorer"]

Request = bool | str | None


def make_group_scorer(
    scoring: str | Callable[..., Any], *, greater_is_better: bool | None = None
) -> GroupScorer:
    """Make a scorer that asks for `groups` and hands them to `predict`.

    It goes wherever scikit-learn takes `scoring` and routes metadata, alone or in a
    dictionary of several. Models that do not ask for `groups` in predict, such as
    a baseline without groups, are scored as usual.

    Parameters
    ----------
    scoring : str or callable
        The name of a scorer, a scorer (called with estimator, X and y) or a metric
        (called with y_true and y_pred).
    greater_is_better : bool, default=None
        For a metric, and there required: whether large values are good.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y, *, groups=None, sample_weight=None)`, a float of
        which larger values are better. `set_score_request` gives either argument
        another name, as it does for an estimator.

    Raises
    ------
    RuntimeError
        If metadata routing is off: no labels would ever reach the scorer.
    ValueError
        If `greater_is_better` is missing with a metric or given without one.

    Examples
    --------
    >>> import sklearn
    >>> from sklearn.model_selection import KFold, cross_validate
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.metrics import make_group_scorer
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     scores = cross_validate(
    ...         MixedEffectsRegressor(),
    ...         X[["Days"]],
    ...         y,
    ...         cv=KFold(5, shuffle=True, random_state=0),
    ...         scoring=make_group_scorer("neg_root_mean_squared_error"),
    ...         params={"groups": X["Subject"]},
    ...     )
    >>> print(round(scores["test_score"].mean()))
    -32
    """
    if not get_config()["enable_metadata_routing"]:
        raise RuntimeError(
            "make_group_scorer needs metadata routing, which is off: no labels would "
            "reach the scorer. Call sklearn.set_config(enable_metadata_routing=True) "
            "first. Labels that are a column of X (as in random='school') need "
            "neither routing nor this scorer."
        )
    return GroupScorer(scoring, greater_is_better)


class GroupScorer:
    """What `make_group_scorer` returns; it can be called with or without routing."""

    def __init__(
        self, scoring: str | Callable[..., Any], greater_is_better: bool | None = None
    ) -> None:
        self._scorer = _as_scorer(scoring, greater_is_better)
        self._told = repr(scoring if isinstance(scoring, str) else self._scorer)
        self._requests: dict[str, Request] = {"groups": True, "sample_weight": None}

    def __call__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Score a fitted estimator on rows with these labels."""
        # A search predicts with its best estimator, but takes no groups itself.
        while hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        if groups is not None:
            alias = self._requests["groups"]
            name = alias if isinstance(alias, str) else "groups"
            arguments = label_arguments(estimator, "predict", groups, name)
            estimator = _Bound(estimator, arguments)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self._scorer(estimator, X, y, **weights)

    def __repr__(self) -> str:
        return f"make_group_scorer({self._told})"

    def get_metadata_routing(self) -> MetadataRequest:
        """Return what the scorer asks for: `groups`, unless told otherwise."""
        routing = MetadataRequest(owner=self)
        for param, alias in self._requests.items():
            routing.score.add_request(param=param, alias=alias)
        return routing

    def set_score_request(
        self, *, groups: Request = UNCHANGED, sample_weight: Request = UNCHANGED
    ) -> GroupScorer:
        """Set what is asked for, and by which name, as estimators do."""
        asked = {"groups": groups, "sample_weight": sample_weight}
        self._requests |= {k: v for k, v in asked.items() if v != UNCHANGED}
        return self


class _Bound:
    """A fitted estimator whose `predict(X)` has its other arguments already."""

    def __init__(self, estimator: Any, arguments: dict[str, Any]) -> None:
        self._estimator = estimator
        self._arguments = arguments

    def __sklearn_tags__(self) -> Any:
        return get_tags(self._estimator)

    def predict(self, X: Any) -> Any:
        return self._estimator.predict(X, **self._arguments)


def label_arguments(
    estimator: Any, method: str, groups: Any, name: str = "groups"
) -> dict[str, Any]:
    """Return groups as an argument of a method; nothing if it does not want them.

    name : under which labels are routed to the steps of a pipeline and the like
    """
    routing = get_routing_for_object(estimator)
    if isinstance(routing, MetadataRequest):
        wanted = getattr(routing, method).requests.get("groups", False) is not False
        return {"groups": groups} if wanted else {}
    return {name: groups} if routing.consumes(method, [name]) else {}


def _as_scorer(
    scoring: str | Callable[..., Any], greater_is_better: bool | None
) -> Callable[..., Any]:
    is_metric = not isinstance(scoring, str) and _n_required(scoring) == 2
    if is_metric and greater_is_better is None:
        raise ValueError(
            f"{_told(scoring)} is a metric: say whether large values are good, as in "
            f"make_group_scorer({_told(scoring)}, greater_is_better=False)."
        )
    if not is_metric and greater_is_better is not None:
        raise ValueError(
            f"greater_is_better={greater_is_better} is for metrics, but "
            f"{_told(scoring)} is a scorer: larger values are better already."
        )
    if is_metric:
        return make_scorer(scoring, greater_is_better=greater_is_better)
    return get_scorer(scoring)


def _n_required(function: Callable[..., Any]) -> int:
    """Return how many arguments a call must give by position."""
    kinds = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    return sum(
        parameter.kind in kinds and parameter.default is Parameter.empty
        for parameter in signature(function).parameters.values()
    )


def _told(scoring: str | Callable[..., Any]) -> str:
    return getattr(scoring, "__name__", repr(scoring))
