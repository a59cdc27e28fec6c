"""New responses from a fitted model, and the model fitted to them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklearn_lmm._columns import read_weights
from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_draws import ErrorRoot
from sklearn_lmm._engine.simulation import coefficient_matrices, square_root
from sklearn_lmm._layout import Layout, learn_more
from sklearn_lmm._residual_fit import correlation_of_all, relative_variances
from sklearn_lmm._stacking import take
from sklearn_lmm._types import FloatArray, IntArray


@validate_params(
    {
        "n": [Interval(Integral, 1, None, closed="left")],
        "random_effects": [StrOptions({"new", "fitted", "none"})],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def simulate(
    est: Any,
    X: Any,
    groups: Any = None,
    *,
    n: int = 1,
    random_effects: str = "new",
    sample_weight: Any = None,
    random_state: Any = None,
) -> FloatArray:
    """Draw responses of rows, known or new, from a fitted model.

    With a residual structure errors are as large, and as correlated within the
    groups of these rows, as the fit has them.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X : DataFrame or array-like of shape (n_samples, n_features)
        Covariates, with the columns of the fit.
    groups : array-like, default=None
        Labels, as in `fit`.
    n : int, default=1
        How many responses of every row.
    random_effects : {"new", "fitted", "none"}, default="new"
        "new": drawn anew for every level, in every response. "fitted": those
        predicted by the fit; drawn for levels that it does not know. "none":
        rows scatter about the fixed part by their errors alone.
    sample_weight : array-like of shape (n_samples,), default=None
        With `weights="precision"`, what the residual variance is divided by.
    random_state : int, RandomState or None, default=None
        Seed.

    Returns
    -------
    ndarray of shape (n_samples, n)
        The responses; NaN in rows that `na_action="drop"` leaves out, or whose
        precision is 0.

    Raises
    ------
    ValueError
        If columns or labels cannot be read as in `fit`, or rows have no place in
        the correlation of the errors.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import simulate
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> simulate(model, X, n=3, random_state=0).shape
    (180, 3)
    """
    check_is_fitted(est)
    nothing = np.zeros(_num_samples(X))
    layout, design = learn_more(est, est._layout, X, nothing, groups, None)
    state = check_random_state(random_state)
    complete = _complete(est, X, nothing, groups)
    scale = _error_scale(est, sample_weight, nothing)[complete]
    errors = _unscaled_errors(est, design, X, groups, complete)
    # The response less the offset is what was read: minus the offset.
    mean = est.fit_.fixed_part(design.X) - design.y
    Y = mean[:, None] + scale[:, None] * errors(state.normal(size=(len(mean), n)))
    if random_effects != "none":
        known = random_effects == "fitted"
        for f, Z in enumerate(coefficient_matrices(design)):
            Y += Z @ _effects(est, layout, f, n, known, state).reshape(-1, n)
    everywhere = np.full((len(nothing), n), np.nan)
    everywhere[complete] = Y
    return everywhere


def _unscaled_errors(
    est: Any, design: Design, X: Any, groups: Any, complete: IntArray
) -> Callable[[FloatArray], FloatArray]:
    """Return the map from independent numbers (n, k) to errors, sigma = 1."""
    if est.fit_.errors is None:
        return lambda z: z
    if len(complete) < _num_samples(X):
        X, groups = take(X, complete), take(groups, complete)
    codes = [factor.codes for factor in design.factors]
    root = ErrorRoot.of(*correlation_of_all(est, X, groups, codes))
    deviations = np.sqrt(relative_variances(est, X, groups))
    return lambda z: deviations[:, None] * root.times(z)


def _complete(est: Any, X: Any, y: FloatArray, groups: Any) -> IntArray:
    """Return the positions of the rows that a formula does not leave out."""
    formula = est._layout.roles.formula
    if formula is None:
        return np.arange(len(y))
    return np.asarray(formula.rows(X, y, groups, None).positions)


def _error_scale(est: Any, sample_weight: Any, y: FloatArray) -> FloatArray:
    """Return the standard deviation (n,) of every row's error."""
    scale = np.full(len(y), est.sigma_)
    weights = read_weights(sample_weight, y)
    if weights is None or est.weights != "precision":
        return scale
    return scale / np.sqrt(np.where(weights > 0.0, weights, np.nan))


def _effects(
    est: Any, layout: Layout, f: int, n: int, known: bool, state: Any
) -> FloatArray:
    """Return the effects (G, q, n) of a factor's levels in some rows."""
    labels = layout.factors[f].labels
    covariance = est.fit_.covariances[f]
    drawn = state.normal(size=(len(labels), n, len(covariance)))
    effects = np.swapaxes(drawn @ square_root(covariance), 1, 2)
    if known:
        place: IntArray = est._layout.factors[f].positions(labels)
        effects[place >= 0] = est.fit_.effects[f][place[place >= 0], :, None]
    return np.asarray(effects)


def refit(
    est: Any, X: Any, y: Any, *, groups: Any = None, sample_weight: Any = None
) -> Any:
    """Return a new estimator: the same model, fitted to another response.

    Whatever was learnt of the form of the data, the coding of columns and the
    levels' order, stays.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator; it is left as it is.
    X : DataFrame or array-like of shape (n_samples, n_features)
        Covariates, with the columns of the fit.
    y : array-like of shape (n_samples,)
        The response.
    groups, sample_weight : array-like, default=None
        As in `fit`.

    Returns
    -------
    MixedEffectsRegressor
        The fitted model.

    Raises
    ------
    ValueError
        If the columns are not those of the fit, or as in `fit`.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import refit, simulate
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> again = refit(model, X, simulate(model, X, random_state=0)[:, 0])
    >>> again.fixed_effects_.round(1).to_dict()
    {'(Intercept)': 257.0, 'Days': 8.8}
    """
    check_is_fitted(est)
    layout, design = learn_more(est, est._layout, X, y, groups, sample_weight)
    again = copy.copy(est)
    result = again._fit_design(layout, design, X, y, groups, sample_weight)
    return again._finish(layout, result)
