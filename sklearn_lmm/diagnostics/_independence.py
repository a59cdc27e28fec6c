"""Whether rows are uncorrelated where the model says that they are.

For whitened residuals r = V^-1/2 (y - X betahat) / sigma the model has
E r_i r_j = -h_ij for i != j, h = A A' with A = V^-1/2 X R_X^-1, so that the mean
of r_i r_j + h_ij over any pairs of rows estimates a correlation that should be 0.
With S_c the sum of r over cluster c,

    within clusters:     sum_c (S_c^2 - sum_i r_i^2), variance 2 sum_c n_c (n_c - 1)
    between c and d:     sum over pairs of S_c S_d,   variance sum (S_c S_d)^2

the second whatever goes on within clusters, as long as they are independent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, stats

from sklearn_lmm._clusters import NamedClusters, clusters_of
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows
from sklearn_lmm._engine.whitening import SymmetricRoot
from sklearn_lmm._residual_fit import row_columns
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._types import AnyArray, FloatArray, IntArray


class Pairs(NamedTuple):
    """A sum of products over pairs of rows, less its expectation.

    variance : of the sum, if the pairs are uncorrelated
    """

    total: float
    n_pairs: float
    variance: float


def cluster_independence(
    est: Any,
    X: Any,
    y: Any,
    *,
    cluster: Any = None,
    across: Any = None,
    order: Any = None,
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return the correlation of residuals that the model has not accounted for.

    Of marginal residuals made uncorrelated by the model's V and free of what the
    estimation of the fixed effects does to them. All correlations are 0 if the
    model is right, up to sampling error. Some pairs are hard to see: theta has
    been chosen such that rows of one level correlate on average as they should.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit.
    cluster : str or array-like of shape (n_samples,), default=None
        The clusters that should be independent: a grouping factor, a column of
        X, or labels. None is the factor that contains all others.
    across : str or array-like of shape (n_samples,), default=None
        Labels that rows of different clusters share: an interviewer, a day.
    order : str or array-like of shape (n_samples,), default=None
        A column of X or values, such as times, that say which rows, and which
        clusters, are neighbours; None is the order of the rows.

    Returns
    -------
    DataFrame
        One row for the pairs within a cluster, those of neighbouring rows in a
        cluster, those of rows in neighbouring clusters and, if `across` is
        given, those of rows that share its label but not the cluster. Columns
        n_pairs, correlation, std_error (if there is none), statistic (z) and
        p_value (two-sided, from the normal distribution).

    Raises
    ------
    ValueError
        If these are not the rows of the fit, if there is nothing to cluster by
        or no such column to order by, or if y is explained exactly.

    Examples
    --------
    Whoever slept little on one day may have been slow on the next as well:

    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import cluster_independence
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> table = cluster_independence(model, X, y)
    >>> list(table.index)
    ['within clusters', 'within, next row', 'between, next cluster']
    >>> table.loc["within, next row", ["correlation", "std_error"]].round(2).to_dict()
    {'correlation': 0.44, 'std_error': 0.08}
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="cluster_independence")
    if given.fit.perfect:
        raise ValueError("y is explained exactly: there are no residuals to compare.")
    named = clusters_of(given, cluster, X, "cluster")
    other = None
    if across is not None:
        other = clusters_of(given, across, X, "across")
    rows = given.beside_fit
    if isinstance(order, str):
        columns = row_columns(est, given.layout, X, y, groups, sample_weight)
        values = np.asarray(columns.find(order, "order"))
    else:
        values = _order(given, order)
    neighbours = np.argsort(values, kind="stable")
    return Unexplained(rows).table(named, neighbours, other)


class Unexplained:
    """Whitened residuals of the rows of a fit, to be compared pair by pair."""

    def __init__(self, rows: FittedRows) -> None:
        T = SymmetricRoot(rows, range(len(rows.codes))).T()
        self.r = T @ rows.point.residual / np.sqrt(rows.point.sigma2)
        self.A = T[:, :-1] @ rows.point.inverse_R_X

    def table(
        self, named: NamedClusters, neighbours: IntArray, other: NamedClusters | None
    ) -> pd.DataFrame:
        """Return what `cluster_independence` returns.

        neighbours : the rows in the order that makes them neighbours
        """
        r, A, clusters = self.r, self.A, named.clusters
        found = {
            "within clusters": _within(r, A, clusters),
            "within, next row": _next_rows(r, A, clusters.codes, neighbours),
            "between, next cluster": _next_clusters(r, A, clusters, neighbours),
        }
        if other is not None:
            name = f"between, same {other.name}"
            found[name] = _across(r, A, clusters, other.clusters)
        return _table(found)


def _within(r: FloatArray, A: FloatArray, clusters: Clusters) -> Pairs:
    """Return all pairs of rows of one cluster."""
    S, A_c = _by_cluster(r, clusters), _by_cluster(A, clusters)
    total = np.sum(S**2) - np.sum(r**2) + np.sum(A_c**2) - np.sum(A**2)
    n = np.bincount(clusters.codes)
    n_pairs = float(np.sum(n * (n - 1)))
    return Pairs(float(total), n_pairs, 2.0 * n_pairs)


def _next_rows(
    r: FloatArray, A: FloatArray, codes: IntArray, neighbours: IntArray
) -> Pairs:
    order = neighbours[np.argsort(codes[neighbours], kind="stable")]
    same = codes[order[1:]] == codes[order[:-1]]
    i, j = order[:-1][same], order[1:][same]
    total = r[i] @ r[j] + np.sum(A[i] * A[j])
    return Pairs(float(total), float(len(i)), float(len(i)))


def _next_clusters(
    r: FloatArray, A: FloatArray, clusters: Clusters, neighbours: IntArray
) -> Pairs:
    first = np.unique(clusters.codes[neighbours], return_index=True)[1]
    order = np.argsort(first)
    i, j = order[:-1], order[1:]
    S, A_c = _by_cluster(r, clusters), _by_cluster(A, clusters)
    n = np.bincount(clusters.codes).astype(float)
    total = S[i] @ S[j] + np.sum(A_c[i] * A_c[j])
    return Pairs(float(total), float(n[i] @ n[j]), float(np.sum((S[i] * S[j]) ** 2)))


def _across(
    r: FloatArray, A: FloatArray, clusters: Clusters, labels: Clusters
) -> Pairs:
    """Return the pairs of rows with one label in different clusters."""
    key, cell = np.unique(clusters.codes * labels.m + labels.codes, return_inverse=True)
    cells = Clusters(cell, len(key))
    n, S, A_c = (_by_cluster(x, cells) for x in (np.ones(len(r)), r, A))
    label = Clusters(key % labels.m, labels.m)
    n_a, S_a, A_a = (_by_cluster(x, label) for x in (n, S, A_c))
    total = np.sum(S_a**2) - np.sum(S**2) + np.sum(A_a**2) - np.sum(A_c**2)
    # Sums by cluster (rows) and label (columns): P_cd = 2 (B B')_cd, c < d.
    shape = (clusters.m, labels.m)
    B = sparse.csr_array((S, (key // labels.m, key % labels.m)), shape)
    gram = B @ B.T if shape[0] <= shape[1] else B.T @ B
    own = np.bincount(key // labels.m, S**2, clusters.m)
    variance = 2.0 * (np.sum(gram.data**2) - np.sum(own**2))
    return Pairs(float(total), float(np.sum(n_a**2) - np.sum(n**2)), float(variance))


def _by_cluster(x: FloatArray, clusters: Clusters) -> FloatArray:
    """Return the sums (m, ...) of x (n, ...) by cluster."""
    n = len(x)
    matrix = sparse.csc_array(
        (np.ones(n), clusters.codes, np.arange(n + 1)), (clusters.m, n)
    )
    return np.asarray(matrix @ x)


def _order(given: FitRows, order: Any) -> AnyArray:
    """Return a value for each row that counts, to sort by."""
    if order is None:
        return given.positions
    values = np.asarray(order)
    if values.shape != (given.n_rows,):
        raise ValueError(
            f"order needs a value for each of the {given.n_rows} rows of X, got the "
            f"shape {values.shape}."
        )
    return np.asarray(values[given.positions])


def _table(found: dict[str, Pairs]) -> pd.DataFrame:
    pairs = pd.DataFrame.from_dict(found, orient="index", columns=Pairs._fields)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = pairs["total"] / np.sqrt(pairs["variance"])
        columns = {
            "n_pairs": pairs["n_pairs"].astype(int),
            "correlation": pairs["total"] / pairs["n_pairs"],
            "std_error": np.sqrt(pairs["variance"]) / pairs["n_pairs"],
            "statistic": z,
            "p_value": 2.0 * stats.norm.sf(np.abs(z)),
        }
    return pd.DataFrame(columns)
