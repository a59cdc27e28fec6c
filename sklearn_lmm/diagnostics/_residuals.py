"""Residuals of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.whitening import SymmetricRoot, cholesky_residuals
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._types import FloatArray
from sklearn_lmm.diagnostics._structured import structured_residuals

RAW = ("response", "pearson")
STUDENTIZED = ("studentized", "deleted")
UNCORRELATED = ("normalized", "whitened")
NO_VARIANCE = 1e-10
"""A residual with less than this part of sigma^2 is 0 whatever y is."""

KINDS = (*RAW, "scaled", *STUDENTIZED, *UNCORRELATED)


@validate_params({"kind": [StrOptions(set(KINDS))]}, prefer_skip_nested_validation=True)
def residuals(
    est: Any,
    X: Any,
    y: Any,
    *,
    kind: str = "response",
    random_effects: bool | Sequence[str] = True,
    groups: Any = None,
    sample_weight: Any = None,
) -> FloatArray:
    """Return the residuals of the rows of the fit.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    kind : str, default="response"
        - "response": e = y less the prediction, in the units of y;
        - "pearson": sqrt(w) e for precision weights w, else e;
        - "scaled": the same over sigma, as in lme4's summary;
        - "studentized": over its own standard deviation, sigma sqrt(1 - h) for
          leverage h (lme4's `rstudent`); for marginal residuals sigma times the
          root of the diagonal of V - X H^-1 X', H = X'V^-1 X;
        - "deleted": conditional residuals studentised by the sigma that the
          other rows give, with theta as it is;
        - "normalized": decorrelated by the Cholesky factor of V, so that each
          is the error of predicting a row from the rows before it. For nested
          factors;
        - "whitened": decorrelated by the symmetric root V^-1/2, whatever the
          factors and the order of the rows.

        With a residual structure Cov(e) = sigma^2 D C D there are "response";
        "pearson", e over the diagonal of D; "scaled", that over sigma;
        "normalized", where V = D C D + Z Psi Z' and the rows come in the order of
        the structure, as in nlme; and "whitened", by the Cholesky factor of D C D
        and then by the symmetric root of what the random effects add.
    random_effects : bool or list of str, default=True
        Which predicted effects to subtract, as in `predict`: True gives
        conditional residuals, False marginal ones. V is the covariance,
        relative to sigma^2, of what is not subtracted.

    Returns
    -------
    ndarray of shape (n_samples,)
        NaN for rows of weight 0, which are no rows of the fit, and where a row
        that is fitted exactly whatever y is has no studentised residual. A row of
        frequency weight w counts as one of its w copies, and where residuals are
        decorrelated as the mean of them.

    Raises
    ------
    ValueError
        If these are not the rows of the fit, if a kind does not exist for the
        effects or factors at hand, or if y is explained exactly, so that there
        is no sigma to divide by.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import residuals
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> residuals(model, X, y)[:3].round(2)
    array([ -4.1 , -14.63, -42.2 ])
    >>> residuals(model, X, y, random_effects=False)[:3].round(2)
    array([ -1.85,  -3.17, -21.54])

    Uncorrelated, if the model is right:

    >>> r = residuals(model, X, y, kind="normalized", random_effects=False)
    >>> print(f"{r.std():.2f}")
    0.99
    """
    data = (X, y, groups, sample_weight)
    given = rows_of_fit(est, *data, plain=None)
    return given.spread(residuals_of_rows(est, given, data, kind, random_effects))


def residuals_of_rows(
    est: Any,
    given: FitRows,
    data: tuple[Any, ...],
    kind: str,
    random_effects: bool | Sequence[str],
) -> FloatArray:
    """Return the residuals of the rows that count.

    data : X, y, groups and sample_weight, which the rows were read from

    Raises
    ------
    ValueError
        As `residuals`, but that the rows are those of the fit.
    """
    if kind not in RAW and given.fit.perfect:
        raise ValueError(
            f"y is explained exactly, so that there is no sigma: kind={kind!r} does "
            f"not exist, only {' and '.join(map(repr, RAW))}."
        )
    subtracted = given.layout.roles.wanted(random_effects)
    if given.fit.errors is not None:
        return structured_residuals(est, given, data, kind, subtracted)
    rows = given.beside_fit
    return _of_kind(rows, given, kind, subtracted)


def _of_kind(
    rows: FittedRows, given: FitRows, kind: str, subtracted: set[int]
) -> FloatArray:
    if kind in UNCORRELATED:
        left = [f for f in range(len(rows.codes)) if f not in subtracted]
        return _uncorrelated(rows, given, kind, left) / _sigma(rows)
    if kind in STUDENTIZED:
        return studentized(rows, kind, subtracted)
    e = rows.less(sorted(subtracted)) / np.sqrt(rows.copies)
    if kind == "scaled":
        return e / _sigma(rows)
    e = e * rows.statistics.columns.scale[-1]
    if kind == "response" and not rows.frequency:
        e = e / rows.root_weights
    return np.asarray(e)


def _sigma(rows: FittedRows) -> float:
    return float(np.sqrt(rows.point.sigma2))


def _uncorrelated(
    rows: FittedRows, given: FitRows, kind: str, factors: list[int]
) -> FloatArray:
    if kind == "whitened":
        return SymmetricRoot(rows, factors).residuals()
    e = cholesky_residuals(rows, factors)
    if e is None:
        names = [given.layout.roles.groupings[f].name for f in factors]
        raise ValueError(
            f"The factors {names} are not nested in each other, and "
            "kind='normalized' exists for nested factors only. kind='whitened' "
            "decorrelates residuals of crossed factors too."
        )
    return e


def studentized(rows: FittedRows, kind: str, subtracted: set[int]) -> FloatArray:
    """Return residuals over their own standard deviation."""
    every = set(range(len(rows.codes)))
    allowed = (every,) if kind == "deleted" else (every, set())
    if subtracted not in allowed:
        effects = "True" if kind == "deleted" else "True or False"
        raise ValueError(
            f"kind={kind!r} exists for random_effects={effects} only: others have no "
            "leverage of their own."
        )
    if subtracted == every:
        e, variance = rows.conditional, rows.conditional_variance
    else:
        e, variance = rows.marginal, rows.marginal_variance
    e = e / np.sqrt(np.where(variance > NO_VARIANCE, variance, np.nan) * rows.copies)
    if kind == "studentized":
        return np.asarray(e / _sigma(rows))
    point = rows.point
    sigma2 = (point.r2 - e**2) / (point.criterion.N - 1.0)
    return np.asarray(e / np.sqrt(np.where(sigma2 > 0.0, sigma2, np.nan)))
