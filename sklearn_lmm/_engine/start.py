"""Where to start the search: covariances from moments.

With r the residuals of ordinary least squares, and for coefficient i of factor
f, level g, the sums t_g = z_i'r and s_g = z_i'z_i over its rows, the sums of
squares Q_i = sum_g t_g^2 / s_g and Q_T = r'r have expectations linear in the
variances of all coefficients j and of the residuals,

    E Q_i = sum_j psi_j sum_g sum_h (z_gi'z_hj)^2 / s_g + sigma^2 G_f,
    E Q_T = sum_j psi_j sum_h z_hj'z_hj + sigma^2 n,

(Henderson's method; the degrees of freedom of beta are left out, and so are
covariances).  Solving them costs one look at the cross-products.

Given the variances, the correlations of a factor's coefficients are those of the
Psi that solves, for all its entries together,

    sum_g w_g^2 S_g Psi S_g = sum_g w_g^2 (t_g t_g' - rest S_g),

`rest` being the variance of a row that does not come from this factor, and
1 / w_g = 1 + the mean of its variances and of the diagonal of S_g, multiplied.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.linalg import consecutive, level_gram, times_columns
from sklearn_lmm._types import FloatArray

SMALLEST, LARGEST = 2e-3, 1e4
"""Bounds of the relative variances to start from."""

DISTINCT = 0.1
"""Least eigenvalue of the correlations to start from."""


def moment_roots(statistics: CrossProducts) -> list[FloatArray]:
    """Return a root (q_f, q_f) of the relative covariance of every factor."""
    variances = moment_variances(statistics)
    residual, n = least_squares_residual(statistics), statistics.sum_weights
    # What each factor adds to the variance of a row, in units of sigma^2.
    shares = [
        psi @ np.einsum("g,gii->i", _counts(statistics, f), s) / n
        for f, (psi, s) in enumerate(zip(variances, statistics.s, strict=True))
    ]
    total = 1.0 + sum(shares)
    sigma2 = float(residual @ statistics.tt @ residual) / (n * total)
    roots = []
    for f, (psi, share) in enumerate(zip(variances, shares, strict=True)):
        rest = sigma2 * (total - share)
        Psi = _moment_covariance(statistics, f, residual, rest, psi.mean())
        least = np.maximum(np.diag(Psi), sigma2 * psi)
        R = Psi / np.sqrt(np.outer(least, least))
        np.fill_diagonal(R, 1.0)
        w, U = np.linalg.eigh(R)
        root = U * np.sqrt(np.maximum(w, DISTINCT))
        sds = np.sqrt(psi / np.sum(root**2, axis=1))
        roots.append(sds[:, None] * root)
    return roots


def _moment_covariance(
    statistics: CrossProducts, f: int, residual: FloatArray, rest: float, psi: float
) -> FloatArray:
    """Return the Psi (q, q) that solves the equations for one factor."""
    S, t = statistics.s[f], times_columns(statistics.b[f], residual[:, None])[:, :, 0]
    q = S.shape[1]
    w = 1.0 / (1.0 + psi * np.einsum("gii->g", S) / q)
    counts = w**2 * _counts(statistics, f)
    SS = level_gram(S * counts[:, None, None], S).transpose(0, 2, 1, 3)
    right = (t.T * w**2) @ t - rest * np.tensordot(counts, S, 1)
    Psi = np.linalg.lstsq(SS.reshape(q * q, q * q), right.ravel())[0]
    return np.asarray(Psi.reshape(q, q))


def moment_variances(statistics: CrossProducts) -> list[FloatArray]:
    """Return the variance of every coefficient relative to sigma^2, per factor.

    Each is (q_f,), within fixed bounds; 1 where the moments say nothing.
    """
    tt, residual = statistics.tt, least_squares_residual(statistics)
    sums = [times_columns(b, residual[:, None])[:, :, 0] for b in statistics.b]
    squares = [np.maximum(np.einsum("gii->gi", s), 0.0) for s in statistics.s]
    counts = [_counts(statistics, f) for f in range(len(squares))]
    inverse = [np.where(s > 0, 1.0 / np.where(s > 0, s, 1.0), 0.0) for s in squares]
    observed = [np.sum(t**2 * w, axis=0) for t, w in zip(sums, inverse, strict=True)]
    total = np.concatenate(
        [(c[:, None] * s).sum(axis=0) for c, s in zip(counts, squares, strict=True)]
    )
    size = len(total)
    A = np.empty((size + 1, size + 1))
    A[:size, :size] = _overlaps(statistics, inverse, counts)
    A[:size, size] = np.concatenate(
        [np.full(s.shape[1], c.sum()) for s, c in zip(squares, counts, strict=True)]
    )
    A[size] = np.append(total, statistics.sum_weights)
    Q = np.append(np.concatenate(observed), residual @ tt @ residual)
    variances = np.linalg.lstsq(A, Q)[0]
    sigma2 = variances[-1]
    if not sigma2 > 0:
        return [np.ones(s.shape[1]) for s in squares]
    psi = np.clip(variances[:-1] / sigma2, SMALLEST, LARGEST)
    return np.split(psi, np.cumsum([s.shape[1] for s in squares])[:-1])


def least_squares_residual(statistics: CrossProducts) -> FloatArray:
    """Return c (p + 1,) with T c the residuals of ordinary least squares."""
    tt = statistics.tt
    return np.append(-np.linalg.solve(tt[:-1, :-1], tt[:-1, -1]), 1.0)


def _counts(statistics: CrossProducts, f: int) -> FloatArray:
    """Return how many levels each entry of s[f] stands for."""
    if statistics.multiplicity is not None:
        return statistics.multiplicity
    return np.ones(len(statistics.s[f]))


def _overlaps(
    statistics: CrossProducts, inverse: list[FloatArray], counts: list[FloatArray]
) -> FloatArray:
    """Return sum_g sum_h (z_gi'z_hj)^2 / s_g for all pairs of coefficients."""
    places = consecutive(w.shape[1] for w in inverse)
    overlaps = np.empty((places[-1].stop, places[-1].stop))
    for f, (w, c) in enumerate(zip(inverse, counts, strict=True)):
        weighted = w * c[:, None]
        overlaps[places[f], places[f]] = np.einsum(
            "gi,gij->ij", weighted, statistics.s[f] ** 2
        )
    for (f, h), n in statistics.n.items():
        if f == h:
            # Levels of one factor that correlated errors tie together: the little
            # that they add does not matter to a start.
            continue
        squared = n.power(2)
        q_f, q_h = inverse[f].shape[1], inverse[h].shape[1]
        by_column = np.zeros((inverse[f].size, q_h))
        for j in range(q_h):
            by_column[:, j] = squared[:, j::q_h].sum(axis=1)
        by_row = np.zeros((inverse[h].size, q_f))
        for i in range(q_f):
            by_row[:, i] = squared[i::q_f].sum(axis=0)
        overlaps[places[f], places[h]] = np.einsum(
            "gi,gij->ij", inverse[f], by_column.reshape(-1, q_f, q_h)
        )
        overlaps[places[h], places[f]] = np.einsum(
            "gj,gji->ji", inverse[h], by_row.reshape(-1, q_h, q_f)
        )
    return overlaps
