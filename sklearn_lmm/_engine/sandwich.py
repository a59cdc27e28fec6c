"""Cluster-robust covariances of the fixed effects, with their degrees of freedom.

With R_X'R_X = H, X_w = X R_X^-1, D = V^-1 X_w, e = y - X beta, all of rows times
sqrt(w), and clusters c of rows, the covariance of R_X (betahat - beta) is

    sum_c s_c s_c',   s_c = D_c'A_c e_c,

in which A_c mends what the estimation of beta takes from e_c, if V_c is right:

    CR0  A_c = I          CR1  A_c = (m / (m - 1))^1/2
    CR2  A_c = B'{B (V_c - X_w X_w') B'}^-1/2 B,  B'B = V_c
    CR3  s_c = R_X (beta - beta_(c)), the jackknife (theta kept); the same as
         A_c = (I - X_w X_w'V_c^-1)^-1 where V has no entries between clusters

(Bell and McCaffrey 2002, Survey Methodology 28: 169-181; Pustejovsky and Tipton
2018, Journal of Business and Economic Statistics 36: 672-683).  A_c is the identity
off the columns of [Z_c X_c], so that all is done in an orthonormal basis of them.

Satterthwaite's degrees of freedom of the variance of a'R_X betahat: with
g_c = A_c D_c a in the rows of c, it is the quadratic form in y whose eigenvalues
are those of

    P_cd = g_c'V_cd g_d - (X_w'g_c)'(X_w'g_d),    df = tr(P)^2 / |P|^2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.deletion import without_clusters
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows
from sklearn_lmm._types import FloatArray, IntArray

NOTHING = 1e-10
"""Relative eigenvalues below this are directions without residuals."""

TINY = np.finfo(float).tiny

ROWS_AT_ONCE = 1 << 13
"""Rows of clusters that are worked on together."""


@dataclass(frozen=True, eq=False)
class Sandwich:
    """The robust covariance of R_X betahat, and degrees of freedom.

    covariance : (p, p)
    df : (k,), of the k combinations asked for
    """

    covariance: FloatArray
    df: FloatArray


def sandwich(
    rows: FittedRows, clusters: Clusters, kind: str, combinations: FloatArray
) -> Sandwich:
    """Return the robust covariance by one partition of the rows.

    combinations : (p, k), columns a of which a'R_X betahat is tested
    NaN where X loses rank without a cluster, under CR3.  Where V has entries
    between clusters CR2 and CR3 know V_c only, and so do their degrees of freedom.
    """
    scores = np.zeros((clusters.m, rows.p))
    form = _Form(rows.independent(clusters))
    for numbers, members in _batches(clusters):
        part = _reduced(_padded(rows, members))
        A = part.adjustment(kind)
        scores[numbers] = np.einsum("crp,crs,cs->cp", part.D, A, part.e)
        form.add(part, A.mT @ (part.D @ combinations))
    if kind == "CR3":
        scores = without_clusters(rows, clusters).beta
    scale = clusters.m / (clusters.m - 1.0) if kind == "CR1" else 1.0
    return Sandwich(scale * scores.T @ scores, form.degrees_of_freedom())


def _batches(clusters: Clusters) -> Iterator[tuple[IntArray, list[IntArray]]]:
    """Yield numbers and rows of clusters of about the same size, some at a time."""
    runs = clusters.runs()
    sizes = np.array([len(run) for run in runs])
    order = np.argsort(sizes, kind="stable")
    start = 0
    while start < len(order):
        first = sizes[order[start]]
        most = max(1, ROWS_AT_ONCE // int(first))
        alike = np.searchsorted(sizes[order], 1.5 * first, side="right")
        numbers = order[start : min(start + most, int(alike))]
        yield numbers, [runs[c] for c in numbers]
        start += len(numbers)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some clusters' rows, filled up with rows and effects of zeros.

    X, D, e : X_w, V^-1 X_w (c, r, p) and y - X beta (c, r)
    ZL : (c, r, t), Z_c L, of the effects that a cluster has
    effects : (c, t), their places among all effects
    """

    X: FloatArray
    D: FloatArray
    e: FloatArray
    ZL: FloatArray
    effects: IntArray

    def adjustment(self, kind: str) -> FloatArray:
        """Return A_c (c, r, r)."""
        m, r = self.e.shape
        one = np.broadcast_to(np.eye(r), (m, r, r))
        V = one + self.ZL @ self.ZL.mT
        if kind == "CR2":
            root = _power(V, 0.5)
            inner = root @ (V - self.X @ self.X.mT) @ root
            return root @ _power(inner, -0.5) @ root
        if kind == "CR3":
            return np.linalg.pinv(one - np.linalg.solve(V, self.X @ self.X.mT).mT)
        return one


def _padded(rows: FittedRows, members: list[IntArray]) -> _Part:
    """Return the rows of clusters, one below the other in arrays of equal size."""
    run = np.concatenate(members)
    sizes = np.array([len(m) for m in members])
    place = (np.repeat(np.arange(len(sizes)), sizes), _positions(sizes))
    shape = (len(sizes), int(sizes.max()))
    some = rows.whitened(run)

    def stacked(values: FloatArray) -> FloatArray:
        full = np.zeros((*shape, *values.shape[1:]))
        full[place] = values
        return full

    parts, effects, start = [], [], 0
    for f, (codes, z) in enumerate(zip(rows.codes, rows.z, strict=True)):
        q, levels = z.shape[1], rows.design.factors[f].n_levels
        used, local = np.unique(place[0] * levels + codes[run], return_inverse=True)
        owner = used // levels
        counts = np.bincount(owner, minlength=len(sizes))
        within = _positions(counts)
        wide = np.zeros((*shape, int(counts.max()), q))
        wide[(*place, within[local])] = z[run] @ rows.point.L[f]
        own = np.zeros((len(sizes), wide.shape[2], q), dtype=np.intp)
        own[owner, within] = start + (used % levels)[:, None] * q + np.arange(q)
        parts.append(wide.reshape(*shape, -1))
        effects.append(own.reshape(len(sizes), -1))
        start += levels * q
    return _Part(
        X=stacked(some.X),
        D=stacked(some.D),
        e=stacked(some.marginal),
        ZL=np.concatenate([*parts, np.zeros((*shape, 0))], axis=2),
        effects=np.concatenate([*effects, np.zeros((len(sizes), 0), int)], axis=1),
    )


def _positions(sizes: IntArray) -> IntArray:
    """Return 0, 1, ... within consecutive runs of the given sizes."""
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.arange(int(sizes.sum())) - np.repeat(starts, sizes))


def _reduced(part: _Part) -> _Part:
    """Express rows in an orthonormal basis of [Z_c X_c], if there are more of them."""
    t, p = part.ZL.shape[2], part.X.shape[2]
    if part.e.shape[1] <= t + p:
        return part
    Q = np.linalg.qr(np.concatenate([part.ZL, part.X], axis=2))[0].mT
    e = np.einsum("crn,cn->cr", Q, part.e)
    return _Part(Q @ part.X, Q @ part.D, e, Q @ part.ZL, part.effects)


class _Form:
    """The quadratic form P of k variances, clusters by clusters.

    P = diag(|g_c|^2) + h'h - E'E with h_c = L'Z'g_c over all effects and
    E_c = X_w'g_c.  Where V has no entries between clusters h'h is diagonal.
    """

    def __init__(self, independent: bool) -> None:
        self.independent = independent
        self.own: list[FloatArray] = []
        self.E: list[FloatArray] = []
        self.h: list[tuple[IntArray, FloatArray]] = []

    def add(self, part: _Part, g: FloatArray) -> None:
        """Add clusters with their g (c, r, k)."""
        h, own = part.ZL.mT @ g, np.sum(g**2, axis=1)
        if self.independent:
            own = own + np.sum(h**2, axis=1)
        else:
            self.h.append((part.effects, h))
        self.own.append(own)
        self.E.append(part.X.mT @ g)

    def degrees_of_freedom(self) -> FloatArray:
        """Return tr(P)^2 / |P|^2 (k,)."""
        own, E = np.concatenate(self.own), np.concatenate(self.E)
        K = own.shape[1]
        return np.array([self._df(k, own[:, k], E[:, :, k]) for k in range(K)])

    def _df(self, k: int, own: FloatArray, E: FloatArray) -> float:
        S = sparse.csr_array(sparse.diags_array(own))
        if not self.independent:
            h = self._all_h(k)
            S = S + h @ h.T
        SE = np.asarray(S @ E)
        trace = S.trace() - np.sum(E**2)
        norm = np.sum(S.data**2) - 2.0 * np.sum(E * SE) + np.sum((E.T @ E) ** 2)
        return float(trace**2 / norm) if norm > 0.0 else np.nan

    def _all_h(self, k: int) -> sparse.csr_array:
        """Return h' (m, effects), a row for each cluster."""
        indices = np.concatenate([effects.ravel() for effects, _ in self.h])
        values = np.concatenate([h[:, :, k].ravel() for _, h in self.h])
        widths = [np.full(len(h), h.shape[1]) for _, h in self.h]
        ends = np.cumsum([0, *np.concatenate(widths)])
        shape = (len(ends) - 1, int(indices.max(initial=-1)) + 1)
        return sparse.csr_array((values, indices, ends), shape)


def _power(A: FloatArray, exponent: float) -> FloatArray:
    """Return powers of positive semi-definite matrices, pseudo-inverses if < 0."""
    w, Q = np.linalg.eigh(0.5 * (A + A.mT))
    some = w > NOTHING * np.maximum(w.max(axis=-1, keepdims=True), TINY)
    powers = np.where(some, np.where(some, w, 1.0) ** exponent, 0.0)
    return np.asarray((Q * powers[:, None, :]) @ Q.mT)
