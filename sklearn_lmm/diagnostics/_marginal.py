"""Covariance and correlation of the responses of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.validation import _num_samples, check_is_fitted

from sklearn_lmm._columns import listed, read_weights
from sklearn_lmm._engine.correlation import correlation_matrix
from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.simulation import coefficient_matrices
from sklearn_lmm._layout import Layout, learn_more
from sklearn_lmm._residual_fit import correlation_of_all, relative_variances
from sklearn_lmm._results import row_index
from sklearn_lmm._types import FloatArray, IntArray


def marginal_covariance(
    est: Any,
    X: Any,
    groups: Any = None,
    *,
    group: Any = None,
    sample_weight: Any = None,
) -> sparse.csr_array | pd.DataFrame:
    """Return Cov(y) = Z Sigma Z' + sigma^2 R of rows, known or new.

    R is I, or what the residual structure of the model makes of these rows.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X : DataFrame or array-like of shape (n_samples, n_features)
        Covariates, with the columns of the fit.
    groups : array-like, default=None
        Labels, as in `fit`.
    group : label or (str, label), default=None
        Only the rows of one group, of the first grouping factor or of the one
        that is named.
    sample_weight : array-like of shape (n_samples,), default=None
        With `weights="precision"`, what the residual variance is divided by.

    Returns
    -------
    sparse array in CSR format of shape (n_samples, n_samples), or DataFrame
        Rows without a group in common have 0. With `group` a frame, with the
        index of X.

    Raises
    ------
    ValueError
        If X cannot be read as in `fit`, or has no rows of the group.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import marginal_covariance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> marginal_covariance(model, X[:3], group="308").round(0)
            0       1       2
    0  1267.0   622.0   631.0
    1   622.0  1321.0   711.0
    2   631.0   711.0  1446.0
    """
    check_is_fitted(est)
    n = _num_samples(X)
    layout, design = learn_more(est, est._layout, X, np.zeros(n), groups, None)
    of_errors = _of_errors(
        est, X, groups, design, read_weights(sample_weight, np.zeros(n))
    )
    if group is None:
        return _covariance(est, design, of_errors)
    rows = _rows_of_group(layout, design, group)
    V = _covariance(est, design.take(rows), of_errors[rows][:, rows]).toarray()
    index = row_index(X)
    labels = pd.RangeIndex(n) if index is None else index
    return pd.DataFrame(V, labels[rows], labels[rows])


def _of_errors(
    est: Any, X: Any, groups: Any, design: Design, weights: FloatArray | None
) -> sparse.csr_array:
    """Return sigma^2 R."""
    codes = [factor.codes for factor in design.factors]
    correlation, u, order, starts = correlation_of_all(est, X, groups, codes)
    variances = relative_variances(est, X, groups)
    if weights is not None and est.weights == "precision":
        variances = variances / weights
    place = np.argsort(order)
    C = correlation_matrix(correlation, u, starts, len(order))[place][:, place]
    D = sparse.diags_array(est.sigma_ * np.sqrt(variances))
    return sparse.csr_array(D @ C @ D)


def _covariance(
    est: Any, design: Design, of_errors: sparse.csr_array
) -> sparse.csr_array:
    V = of_errors
    for Z, covariance in zip(
        coefficient_matrices(design), est.fit_.covariances, strict=True
    ):
        q = len(covariance)
        G = sparse.kron(sparse.eye_array(Z.shape[1] // q), covariance, format="csr")
        V = V + Z @ G @ Z.T
    return sparse.csr_array(V)


def _rows_of_group(layout: Layout, design: Design, group: Any) -> IntArray:
    """Return positions of the rows of one group."""
    names = layout.roles.factor_names
    if not names:
        raise ValueError("This model has no grouping factor, and no group to look at.")
    factor, label = 0, group
    if isinstance(group, tuple) and len(group) == 2 and group[0] in names:
        factor, label = names.index(group[0]), group[1]
    levels = layout.factors[factor].labels.tolist()
    if label not in levels:
        raise ValueError(
            f"{names[factor]!r} has no rows of {label!r} here; a group of another "
            f"factor is written (factor, label), factor one of {listed(names)}."
        )
    return np.flatnonzero(design.factors[factor].codes == levels.index(label))


def marginal_correlation(
    est: Any,
    X: Any,
    groups: Any = None,
    *,
    group: Any = None,
    sample_weight: Any = None,
) -> sparse.csr_array | pd.DataFrame:
    """Return the correlation matrix of the responses of rows.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, groups, group, sample_weight
        As in `marginal_covariance`.

    Returns
    -------
    sparse array in CSR format of shape (n_samples, n_samples), or DataFrame
        As `marginal_covariance` does.

    Raises
    ------
    ValueError
        As `marginal_covariance`.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import marginal_correlation
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> marginal_correlation(model, X[:3], group="308").round(3)
           0      1      2
    0  1.000  0.589  0.589
    1  0.589  1.000  0.589
    2  0.589  0.589  1.000
    """
    V = marginal_covariance(est, X, groups, group=group, sample_weight=sample_weight)
    if isinstance(V, pd.DataFrame):
        scale = 1.0 / np.sqrt(np.diag(V))
        return V * np.outer(scale, scale)
    D = sparse.diags_array(1.0 / np.sqrt(V.diagonal()))
    return sparse.csr_array(D @ V @ D)
