"""What is left of a fit without some of its rows, theta as it is.

For a cluster c of rows (multiplied by sqrt(w)), R_X'R_X = H, and

    D = V^-1 X R_X^-1,   Hat = D D' + Z C Z',   e = y - X beta - Z b,

K = (I - Hat_cc)^-1 gives (Woodbury; for one row, Cook 1977, Technometrics 19: 15-18)

    R_X (beta - beta_(c)) = D_c'K e_c,   r2_(c) = r2 - e_c'K e_c,
    log|H| - log|H_(c)| = log|I + D_c'K D_c|.

Where V has no entries between clusters, with X_w = X R_X^-1 and the p x p sums
G = X_w,c'D_c and g = D_c'e~_c, e~ = y - X beta, the same is found without K:

    R_X (beta - beta_(c)) = (I - G)^-1 g,
    r2_(c) = r2 - (e~_c'V_c^-1 e~_c + g'(I - G)^-1 g),
    log|H| - log|H_(c)| = -log|I - G|.

Either matrix is singular where X loses rank without c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.design import nested
from sklearn_lmm._engine.downdating import Downdating, full_rank
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows
from sklearn_lmm._engine.linalg import consecutive, symmetrize
from sklearn_lmm._engine.result import Weights, make_criterion
from sklearn_lmm._types import FloatArray, IntArray

DETERMINED = 1e-9
"""Eigenvalues of I - G or I - Hat below this mean that X loses rank."""

LARGE = 500
"""Rows of a cluster from which on its block of the hat matrix is not made."""

RUNS_AT_ONCE = 256
"""Clusters whose rows are paired at a time."""

MOST_ENTRIES = 1 << 23
"""Entries of the arrays that are made for several clusters at a time."""


Blocks = Iterator[tuple[tuple[int, IntArray], FloatArray]]
"""Clusters, numbered, with Z C Z' of their rows."""


@dataclass(frozen=True, eq=False)
class Deletions:
    """The fit without each of m clusters; NaN where X loses rank.

    beta : (m, p), R_X (beta - beta_(c)), standardised
    r2 : (m,), r2 - r2_(c)
    logdet : (m,), log|H| - log|H_(c)|
    direction : (m, p), where X loses rank, coefficients whose combination is lost
    n_obs : (m,), the number of observations in the cluster
    """

    beta: FloatArray
    r2: FloatArray
    logdet: FloatArray
    direction: FloatArray
    n_obs: FloatArray

    @classmethod
    def empty(cls, m: int, p: int) -> Deletions:
        nothing = [np.full(shape, np.nan) for shape in ((m, p), m, m, (m, p), m)]
        return cls(*nothing)


def without_clusters(rows: FittedRows, clusters: Clusters) -> Deletions:
    """Return the fit without all rows of each cluster."""
    result = Deletions.empty(clusters.m, rows.p)
    result.n_obs[:] = np.bincount(clusters.codes, rows.copies, clusters.m)
    if rows.independent(clusters):
        _by_sums(rows, clusters, result)
    elif clusters.m == len(rows):
        _by_rows(rows, clusters, result)
    else:
        _by_hat_matrices(rows, clusters, result)
    return result


def _by_sums(rows: FittedRows, clusters: Clusters, result: Deletions) -> None:
    m, p = clusters.m, rows.p
    G, g, q = np.zeros((m, p, p)), np.zeros((m, p)), np.zeros(m)
    for part in rows.chunks(least=2 * m):
        some, codes = rows.whitened(part), clusters.codes[part]
        for i in range(p):
            G[:, i] += _sums(codes, some.X[:, i], m) @ some.D
        g += _sums(codes, some.conditional, m) @ some.X
        q += np.bincount(codes, some.marginal * some.conditional, m)
    w, Q = np.linalg.eigh(np.eye(p) - symmetrize(G))
    singular = (w < DETERMINED).any(axis=1)
    Qg = np.einsum("mij,mi->mj", Q, g)
    w[singular] = np.nan
    result.beta[:] = np.einsum("mij,mj->mi", Q, Qg / w)
    result.r2[:] = q + np.sum(Qg**2 / w, axis=1)
    result.logdet[:] = -np.log(w).sum(axis=1)
    result.direction[singular] = Q[singular, :, 0]


def _sums(codes: IntArray, values: FloatArray, m: int) -> sparse.csc_array:
    """Return the matrix (m, n) whose product with rows sums them by cluster."""
    n = len(codes)
    return sparse.csc_array((values, codes, np.arange(n + 1)), (m, n))


def _by_rows(rows: FittedRows, clusters: Clusters, result: Deletions) -> None:
    left = 1.0 - rows.leverage
    singular = left < DETERMINED
    left[singular] = np.nan
    for part in rows.chunks():
        c, some = clusters.codes[part], rows.whitened(part)
        D, e, k = some.D, some.conditional, left[part]
        result.beta[c] = D * (e / k)[:, None]
        result.r2[c] = e**2 / k
        result.logdet[c] = np.log1p(np.sum(D**2, axis=1) / k)
        result.direction[c[singular[part]]] = D[singular[part]]


def _by_hat_matrices(rows: FittedRows, clusters: Clusters, result: Deletions) -> None:
    runs = list(enumerate(clusters.runs()))
    small = [(c, run) for c, run in runs if len(run) <= LARGE]
    if len(small) < len(runs):
        _by_sums_of_the_rest(rows, runs, result)
    blocks: Blocks = _blocks_by_columns(rows, small)
    if _within_levels(rows, clusters):
        of_levels = _blocks_of_levels(rows, [run for _, run in small])
        blocks = zip(small, of_levels, strict=True)
    for (c, run), ZCZ in blocks:
        some = rows.whitened(run)
        Hat = some.D @ some.D.T + ZCZ
        _delete(result, c, Hat, some.D, some.conditional)


def _within_levels(rows: FittedRows, clusters: Clusters) -> bool:
    """Say whether all rows of a cluster have the same level of every factor."""
    return all(nested(clusters.codes, codes) for codes in rows.codes)


def _blocks_of_levels(rows: FittedRows, runs: list[IntArray]) -> Iterator[FloatArray]:
    """Yield Z C Z' of sets of rows, those of a set having the same levels.

    4 a'C b = (a + b)'C(a + b) - (a - b)'C(a - b), from variances of single rows.
    """
    for start in range(0, len(runs), RUNS_AT_ONCE):
        some = runs[start : start + RUNS_AT_ONCE]
        pairs = [np.meshgrid(run, run, indexing="ij") for run in some]
        i = np.concatenate([first.ravel() for first, _ in pairs])
        j = np.concatenate([second.ravel() for _, second in pairs])
        codes = tuple(c[i] for c in rows.codes)
        sums, differences = (
            rows.point.state.posterior_variances(
                codes, tuple(z[i] + sign * z[j] for z in rows.z)
            )
            for sign in (1.0, -1.0)
        )
        ends = np.cumsum([len(run) ** 2 for run in some])
        for run, entries in zip(
            some, np.split((sums - differences) / 4.0, ends[:-1]), strict=True
        ):
            yield entries.reshape(len(run), len(run))


def _blocks_by_columns(
    rows: FittedRows, clusters: list[tuple[int, IntArray]]
) -> Blocks:
    """Yield clusters with Z C Z' of their rows, by columns of C."""
    for batch in _batches(rows, clusters):
        posterior = _Posterior(rows, np.concatenate([run for _, run in batch]))
        for c, run in batch:
            yield (c, run), posterior.between(run)


def _delete(
    result: Deletions, c: int, Hat: FloatArray, D: FloatArray, e: FloatArray
) -> None:
    """Enter the fit without cluster c, from its block of the hat matrix."""
    w, Q = np.linalg.eigh(np.eye(len(e)) - symmetrize(Hat))
    QD, Qe = Q.T @ D, Q.T @ e
    if w[0] < DETERMINED:
        result.direction[c] = QD[0]
        return
    result.beta[c] = QD.T @ (Qe / w)
    result.r2[c] = np.sum(Qe**2 / w)
    gain = np.eye(len(result.beta[c])) + QD.T @ (QD / w[:, None])
    result.logdet[c] = np.linalg.slogdet(gain)[1]


def _by_sums_of_the_rest(
    rows: FittedRows, runs: list[tuple[int, IntArray]], result: Deletions
) -> None:
    """Enter the fit without each large cluster, from the sums of all other rows."""
    point, downdating = rows.point, Downdating(rows.statistics, rows.design)
    R_X = np.linalg.inv(point.inverse_R_X)
    weights: Weights = "frequency" if rows.frequency else "precision"
    for c, run in runs:
        if len(run) <= LARGE:
            continue
        rest = downdating.without(run)
        if not full_rank(rest):
            continue
        left = make_criterion(rest, point.criterion.reml, weights).at(point.theta)
        result.beta[c] = R_X @ (point.beta - left.beta)
        result.r2[c] = point.r2 - left.r2
        result.logdet[c] = point.logdet_H - left.logdet_H


def _batches(
    rows: FittedRows, clusters: list[tuple[int, IntArray]]
) -> Iterator[list[tuple[int, IntArray]]]:
    """Yield clusters with their rows, as many as `_Posterior` has memory for."""
    width = sum(s.shape[0] * s.shape[1] for s in rows.statistics.s)
    most = MOST_ENTRIES // max(1, width)
    batch: list[tuple[int, IntArray]] = []
    touched = [np.zeros(len(s), dtype=bool) for s in rows.statistics.s]
    for c, run in clusters:
        for seen, codes in zip(touched, rows.codes, strict=True):
            seen[codes[run]] = True
        columns = sum(
            int(seen.sum()) * s.shape[1]
            for seen, s in zip(touched, rows.statistics.s, strict=True)
        )
        batch.append((c, run))
        if columns > most:
            yield batch
            batch = []
            touched = [np.zeros_like(seen) for seen in touched]
    if batch:
        yield batch


class _Posterior:
    """C = L M^-1 L' for the levels that some rows have: one column an effect."""

    def __init__(self, rows: FittedRows, members: IntArray) -> None:
        self.rows = rows
        shapes = [s.shape[:2] for s in rows.statistics.s]
        levels = [np.unique(codes[members]) for codes in rows.codes]
        places = consecutive(
            len(own) * q for own, (_, q) in zip(levels, shapes, strict=True)
        )
        K = places[-1].stop
        self.column, b = [], []
        for own, place, (G, q) in zip(levels, places, shapes, strict=True):
            column = np.zeros((G, q), dtype=np.intp)
            column[own] = np.arange(place.start, place.stop).reshape(-1, q)
            unit = np.zeros((G, q, K))
            unit[own[:, None], np.arange(q), column[own]] = 1.0
            self.column.append(column)
            b.append(unit)
        self.C = rows.point.state.project(tuple(b))[1]

    def between(self, run: IntArray) -> FloatArray:
        """Return Z C Z' (n, n) of some of the rows."""
        rows, n = self.rows, len(run)
        columns = [
            column[codes[run]]
            for column, codes in zip(self.column, rows.codes, strict=True)
        ]
        used, local = np.unique(np.hstack(columns), return_inverse=True)
        ZC = np.zeros((n, len(used)))
        for C, codes, z in zip(self.C, rows.codes, rows.z, strict=True):
            for i in range(z.shape[1]):
                ZC += z[run, i, None] * C[codes[run, None], i, used]
        wide = np.zeros((n, len(used)))
        wide[np.arange(n)[:, None], local.reshape(n, -1)] = np.hstack(
            [z[run] for z in rows.z]
        )
        return np.asarray(ZC @ wide.T)
