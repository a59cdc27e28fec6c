"""Cross-products of responses drawn from a model, without its rows.

Of y = X beta + Z b + e a fit needs X'y, Z'y and y'y, and these need (X'e, Z'e)
and e'e only: normal with covariance sigma^2 [Z X]'[Z X], and, independent of
them, what is left of e'e, sigma^2 times a chi-squared with n - rank degrees of
freedom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.factor import PerFactor, level_product, total_product
from sklearn_lmm._engine.factor_dense import DenseStrategy
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._engine.result import LMMFit, factor_maps
from sklearn_lmm._types import FloatArray

RANK = 1e-10
"""Eigenvalues of cross-products below this part of the largest are rounding."""

MOST_COEFFICIENTS = 3000
"""Random effects of several factors whose joint products are decomposed at most."""

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class NullModel:
    """What responses are drawn from, in the units of some cross-products.

    beta : (p,)
    roots : per factor (q, q), root root' the covariance of its effects
    sigma : residual standard deviation
    n_obs : number of rows, or sum of frequency weights
    """

    beta: FloatArray
    roots: PerFactor
    sigma: float
    n_obs: float


class ResponseDraws:
    """Draws of y for given X and Z.

    statistics : whose fixed-effect columns are linearly independent
    """

    def __init__(self, statistics: CrossProducts, model: NullModel) -> None:
        self.statistics, self.model = statistics, model
        S, B = _joint(statistics)
        w, U = np.linalg.eigh(S)
        kept = w > RANK * w.max(initial=0.0)
        self._scale = np.where(kept, np.sqrt(w.clip(0.0)), 0.0)
        self._U = U
        inverse = np.where(kept, 1.0 / np.where(kept, w, 1.0), 0.0)
        # B'S^+ takes Z'e to its part of X'e.
        self._to_X = (U * inverse[:, None, :]) @ U.swapaxes(1, 2) @ B
        rest = statistics.tt[:-1, :-1] - level_product(B, self._to_X)
        w_X, self._U_X = np.linalg.eigh(rest)
        least = RANK * w_X.max(initial=0.0)
        self._scale_X = np.sqrt(np.where(w_X > least, w_X, 0.0))
        self._left = model.n_obs - kept.sum() - np.count_nonzero(self._scale_X)

    def draw(self, rng: Rng) -> CrossProducts:
        """Return the cross-products with a new response."""
        statistics, model = self.statistics, self.model
        Ze, Xe, ee = self._errors(rng)
        b = [
            rng.normal(size=(len(s), 1, len(root))) @ root.T
            for s, root in zip(statistics.s, model.roots, strict=True)
        ]
        effects = tuple(b_f.swapaxes(1, 2) for b_f in b)
        ZZb = statistics.ztz(effects)
        XX, beta = statistics.tt[:-1, :-1], model.beta[:, None]
        ZX = tuple(b_f[:, :, :-1] for b_f in statistics.b)
        Xy = XX @ beta + total_product(ZX, effects) + Xe
        Zy = [zx @ beta + zzb + ze for zx, zzb, ze in zip(ZX, ZZb, Ze, strict=True)]
        # y'y = y'(X beta + Z b) + e'(X beta + Z b) + e'e
        yy = float(beta[:, 0] @ (Xy + Xe)[:, 0]) + ee
        for effect, zy, ze in zip(effects, Zy, Ze, strict=True):
            yy += float(np.sum(effect * (zy + ze)))
        return statistics.with_response(Xy[:, 0], Zy, yy)

    def _errors(self, rng: Rng) -> tuple[PerFactor, FloatArray, float]:
        """Return Z'e of every factor, X'e (p, 1) and e'e."""
        sigma = self.model.sigma
        x = rng.normal(size=(*self._scale.shape, 1))
        x_X = rng.normal(size=(len(self._scale_X), 1))
        Ze = self._U @ (self._scale[:, :, None] * x)
        Xe = level_product(self._to_X, Ze) + self._U_X @ (self._scale_X[:, None] * x_X)
        ee = np.sum(x[self._scale > 0] ** 2) + np.sum(x_X[self._scale_X > 0] ** 2)
        if self._left > 0:
            ee += 2.0 * rng.gamma(0.5 * self._left)
        return self._split(sigma * Ze), sigma * Xe, float(sigma**2 * ee)

    def _split(self, Ze: FloatArray) -> PerFactor:
        """Return one array (G, q, 1) for each factor."""
        shapes = [s.shape[:2] for s in self.statistics.s]
        if len(shapes) == 1:
            return (Ze,)
        places = consecutive(G * q for G, q in shapes)
        return tuple(
            Ze[0, place].reshape(*shape, 1)
            for place, shape in zip(places, shapes, strict=True)
        )


def _joint(statistics: CrossProducts) -> tuple[FloatArray, FloatArray]:
    """Return Z'Z and Z'X in independent blocks (G, q, q) and (G, q, p).

    Those of the levels of one factor; of several factors a single one.

    Raises
    ------
    ValueError
        If that is too large.
    """
    if len(statistics.s) == 1:
        return statistics.s[0], statistics.b[0][:, :, :-1]
    size = sum(s.shape[0] * s.shape[1] for s in statistics.s)
    if size > MOST_COEFFICIENTS:
        raise ValueError(
            f"a bootstrap without rows is for {MOST_COEFFICIENTS} random effects of "
            f"several factors at most, and there are {size}"
        )
    if not size:
        return np.zeros((1, 0, 0)), np.zeros((1, 0, statistics.p))
    dense = DenseStrategy(statistics)
    return dense.ZtZ[None], dense.stack(statistics.b)[None, :, :-1]


@dataclass(frozen=True, eq=False)
class Restriction:
    """Where the parts of a smaller model are in a larger one.

    columns : of its fixed effects, among those that the larger estimated
    factors : of its grouping factors
    coefficients : per factor of the smaller, of its coefficients
    """

    columns: list[int]
    factors: list[int]
    coefficients: list[list[int]]

    def null_model(self, small: LMMFit, large: LMMFit) -> NullModel:
        """Return the smaller model in the units of the larger one's statistics."""
        statistics = large.statistics.select(large.kept)
        units, scale = statistics.columns, statistics.columns.scale[-1]
        beta = np.zeros(statistics.p)
        beta[self.columns] = small.beta[small.kept]
        residual = np.linalg.solve(units.map(), np.append(-beta, 1.0) / scale)
        roots = [np.zeros((s.shape[1],) * 2) for s in statistics.s]
        for f, place, covariance in zip(
            self.factors, self.coefficients, small.covariances, strict=True
        ):
            roots[f][np.ix_(place, place)] = _root(covariance / scale**2)
        maps = factor_maps(statistics)
        standardized = [
            np.asarray(np.linalg.solve(R, root), float)
            for R, root in zip(maps, roots, strict=True)
        ]
        return NullModel(
            beta=-residual[:-1] / residual[-1],
            roots=tuple(standardized),
            sigma=small.sigma / scale,
            n_obs=large.n_obs,
        )

    def statistics(self, drawn: CrossProducts, small: CrossProducts) -> CrossProducts:
        """Return what the smaller model knows of a response of the larger one.

        drawn : of the larger model; small : of the smaller, some other response
        """
        chosen = drawn.columns.select(np.array([*self.columns, drawn.p]))
        C = small.columns.from_(chosen)
        columns = [*self.columns, drawn.p]
        tt = C.T @ drawn.tt[np.ix_(columns, columns)] @ C
        mine, theirs = factor_maps(small), factor_maps(drawn)
        b = []
        for R, f, place in zip(mine, self.factors, self.coefficients, strict=True):
            M = np.linalg.inv(theirs[f])[:, place] @ R
            b.append(M.T @ drawn.b[f][:, :, columns] @ C)
        return replace(small, tt=tt, b=tuple(b))


def _root(covariance: FloatArray) -> FloatArray:
    w, U = np.linalg.eigh(covariance)
    return np.asarray(U * np.sqrt(w.clip(0.0)))
