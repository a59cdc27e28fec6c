"""Covariances of the fixed effects that are robust to a wrong covariance of y."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import StrOptions, validate_params

from sklearn_lmm._clusters import NamedClusters, clusters_of, of_factor, outermost
from sklearn_lmm._columns import listed
from sklearn_lmm._engine.fitted_rows import Clusters
from sklearn_lmm._engine.sandwich import sandwich
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._contrasts import dropped_names, read_contrasts, t_table

KINDS = {"kind": [StrOptions({"CR0", "CR1", "CR2", "CR3"})]}


@validate_params(KINDS, prefer_skip_nested_validation=True)
def cluster_robust_covariance(
    est: Any,
    X: Any,
    y: Any,
    *,
    cluster: Any = None,
    kind: str = "CR2",
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return a covariance of the fixed effects that does not rely on V.

    It needs independent clusters, and the more of them the better; within a
    cluster the rows may have any covariance. The estimates stay those of the
    model, whose V then serves as a guess only.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    cluster : str, list of str or array-like of shape (n_samples,), default=None
        What the rows are clustered by: a grouping factor, a column of X, or any
        labels. Several names mean that rows are independent only if they share
        none: the covariances by each less that by their combinations, or, where
        that is not positive definite, by each, which is on the safe side. None
        is the factor that contains all others, or all such factors, if they
        cross.
    kind : {"CR0", "CR1", "CR2", "CR3"}, default="CR2"
        "CR0" is the plain sandwich, too small with few clusters. "CR1" is m / (m - 1)
        times that for m clusters. "CR2" is unbiased if the model's V is right.
        "CR3" is the jackknife over clusters, theta kept, and errs on the large side.

    Returns
    -------
    DataFrame of shape (p, p)
        Index and columns: names of `fixed_effects_`.

    Raises
    ------
    ValueError
        If these are not the rows of the fit, if there is nothing to cluster by
        or one cluster only, if y is explained exactly, or, for "CR3", if X loses
        rank without a cluster.

    Notes
    -----
    With weights all is done for rows times sqrt(w). CR0, CR1 and CR3 do not
    depend on that; CR2 does, as another square root of the covariance of a
    cluster's residuals gives another matrix. Frequency weights are the same as
    repeated rows. With crossed factors CR2 mends the bias within clusters only.

    References
    ----------
    Pustejovsky and Tipton (2018), Journal of Business and Economic Statistics 36:
    672-683. Several clusterings: Cameron, Gelbach and Miller (2011), the same
    journal 29: 238-249; MacKinnon, Nielsen and Webb (2023), Journal of Econometrics
    232: 272-299.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import cluster_robust_covariance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)  # no random slope
    >>> robust = cluster_robust_covariance(model, X, y)
    >>> print(f"{robust.loc['Days', 'Days'] ** 0.5:.3f}")
    1.546
    """
    given = rows_of_fit(
        est, X, y, groups, sample_weight, plain="cluster_robust_covariance"
    )
    return _Robust(given, _clusterings(given, cluster, X), kind).covariance


@validate_params(KINDS, prefer_skip_nested_validation=True)
def robust_table(
    est: Any,
    X: Any,
    y: Any,
    *,
    cluster: Any = None,
    kind: str = "CR2",
    L: Any = None,
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return t tests of the fixed effects by a cluster-robust covariance.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    cluster, kind
        As in `cluster_robust_covariance`.
    L : array-like, dict, Series, DataFrame, str or list of str, default=None
        Linear combinations of the fixed effects, as in `contrast`; None is
        every fixed effect.

    Returns
    -------
    DataFrame
        Index: names of `fixed_effects_`, or the rows of `L`. Columns: estimate,
        std_error, df, statistic (t) and p_value (two-sided). df is
        Satterthwaite's, for the robust variance under the model's V; of several
        clusterings the least.

    Raises
    ------
    ValueError
        As `cluster_robust_covariance` and `contrast`.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import robust_table
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)  # no random slope
    >>> robust_table(model, X, y).round(3)
                 estimate  std_error    df  statistic  p_value
    (Intercept)   251.405      6.825  17.0     36.838      0.0
    Days           10.467      1.546  17.0      6.771      0.0
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="robust_table")
    names = [*map(str, est.fixed_effects_.index)]
    tests = pd.DataFrame(np.eye(len(names)), names, names)
    if L is not None:
        tests, _ = read_contrasts(L, names, dropped_names(est))
    weights = tests.to_numpy()
    robust = _Robust(given, _clusterings(given, cluster, X), kind, weights)
    variances = np.sum((weights @ robust.covariance.to_numpy()) * weights, axis=1)
    return t_table(
        tests.index,
        weights @ est.fixed_effects_.to_numpy(),
        np.sqrt(variances),
        robust.df,
        np.zeros(len(tests)),
    )


class _Robust:
    """The covariance by one or several clusterings.

    df : (k,), degrees of freedom of tests (k, p)
    """

    def __init__(
        self,
        given: FitRows,
        clusterings: list[NamedClusters],
        kind: str,
        tests: FloatArray | None = None,
    ) -> None:
        if given.fit.perfect:
            raise ValueError(
                "y is explained exactly: there are no residuals to learn from."
            )
        rows = given.beside_fit
        units = rows.statistics.columns
        R = units.scale[-1] * units.map()[:-1, :-1] @ rows.point.inverse_R_X
        total, single = np.zeros_like(R), np.zeros_like(R)
        asked = R.T[:, :0] if tests is None else R.T @ tests.T
        self.df = np.full(asked.shape[1], np.inf)
        for size in range(1, len(clusterings) + 1):
            for some in combinations(clusterings, size):
                clusters = _intersection(some)
                result = sandwich(rows, clusters, kind, asked)
                _check(some, clusters, result.covariance)
                total -= (-1) ** size * result.covariance
                if size == 1:
                    single += result.covariance
                    self.df = np.fmin(self.df, result.df)
        if len(clusterings) > 1 and np.linalg.eigvalsh(total).min() <= 0.0:
            total = single
        names = np.array(given.layout.roles.fixed_names, dtype=object)[given.fit.kept]
        self.covariance = pd.DataFrame(R @ total @ R.T, names, names)


def _clusterings(given: FitRows, cluster: Any, X: Any) -> list[NamedClusters]:
    """Return one clustering of the rows, or several."""
    if cluster is None:
        factors = outermost(given)
        if not factors:
            raise ValueError(
                "The model has no grouping factor: say by what to cluster the rows, "
                "by a column of X or one label for each row."
            )
        return [of_factor(given, factor) for factor in factors]
    names = isinstance(cluster, list | tuple) and _all_names(given, cluster, X)
    chosen = cluster if names else [cluster]
    return [clusters_of(given, c, X, "cluster") for c in chosen]


def _all_names(given: FitRows, cluster: Any, X: Any) -> bool:
    columns = X.columns if isinstance(X, pd.DataFrame) else ()
    return all(
        isinstance(c, str) and (given.factor(c) is not None or c in columns)
        for c in cluster
    )


def _intersection(clusterings: tuple[NamedClusters, ...]) -> Clusters:
    """Return the combinations of clusters that have rows."""
    first, *others = (named.clusters for named in clusterings)
    for other in others:
        pairs = first.codes * other.m + other.codes
        used, codes = np.unique(pairs, return_inverse=True)
        first = Clusters(codes, len(used))
    return first


def _check(
    clusterings: tuple[NamedClusters, ...], clusters: Clusters, covariance: FloatArray
) -> None:
    names = listed([named.name for named in clusterings])
    if clusters.m < 2:
        raise ValueError(
            f"There is one cluster only by {names}; two are needed at the least."
        )
    if np.isnan(covariance).any():
        raise ValueError(
            f"kind='CR3' leaves out the clusters of {names} one by one, and X loses "
            "rank without some of them; influence() tells which. Take kind='CR2'."
        )
