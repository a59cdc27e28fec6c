"""How much of its own prediction every row determines."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._param_validation import validate_params

from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm._types import FloatArray


@validate_params({"random_effects": ["boolean"]}, prefer_skip_nested_validation=True)
def leverage(
    est: Any,
    X: Any,
    y: Any,
    *,
    random_effects: bool = True,
    groups: Any = None,
    sample_weight: Any = None,
) -> FloatArray:
    """Return the leverage of the rows of the fit, given theta.

    The derivative of a row's prediction by its own response: the diagonal of H
    in y_hat = H y. With random effects the predictions are the conditional ones,
    and the leverages add up to the effective degrees of freedom; without, they
    are X beta, H = X (X'V^-1 X)^-1 X'V^-1, and the sum is the number of fixed
    effects.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    random_effects : bool, default=True
        Whether predictions have the random effects.

    Returns
    -------
    ndarray of shape (n_samples,)
        NaN for rows of weight 0. A row of frequency weight w has the leverage of
        one of its w copies.

    Raises
    ------
    ValueError
        If these are not the rows of the fit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import leverage
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> h = leverage(model, X, y)
    >>> h[:3].round(3)
    array([0.229, 0.17 , 0.127])
    >>> print(round(h.sum(), 1))
    29.0
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="leverage")
    rows = given.beside_fit
    of_copies = rows.leverage if random_effects else rows.leverage_of_fixed_part
    return given.spread(np.asarray(of_copies / rows.copies))
