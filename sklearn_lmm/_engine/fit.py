"""From cross-products to a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import (
    CrossProducts,
    cross_products,
    standardized_rows,
)
from sklearn_lmm._engine.design import Design, Standardization
from sklearn_lmm._engine.factor_single import pool_levels
from sklearn_lmm._engine.linalg import residual_norms
from sklearn_lmm._engine.optimize import (
    PERFECT,
    SINGULAR,
    Iteration,
    Optimum,
    minimize,
)
from sklearn_lmm._engine.strategy import choose_strategy
from sklearn_lmm._types import BoolArray, FloatArray

Weights = Literal["frequency", "precision"]

RANK = 1e-7
"""A column is dropped if its residual on earlier ones is below this part of it."""

RANK_SUSPECT = 1e-5
"""The same, where only cross-products are known."""

NEARLY_DEPENDENT = 1e-3
"""Columns that leave less of themselves than this are judged by the rows."""

FLAT = 1e-9
"""Derivatives below this, per level, mean that the criterion does not depend."""


@dataclass(frozen=True, eq=False, repr=False)
class LMMFit:
    """A fitted model, in the user's units.  Arrays are read-only.

    p counts the intercept (first, if there is one) and every column of X.

    theta : relative covariance parameters, block after block
    beta : (p,) fixed effects, 0 where dropped
    beta_covariance : (p, p), 0 where dropped
    kept : (p,) bool, False where a column was dropped as linearly dependent
    sigma : residual standard deviation
    covariances : per factor, Cov(b_g) (q_f, q_f), its blocks in the order of the terms
    effects : per factor, conditional modes of b (G_f, q_f)
    criterion : -2 log-likelihood (ML) or -2 restricted log-likelihood (REML)
    n_obs : rows, or the sum of frequency weights
    n_iter, converged, solver, strategy : how the optimum was found
    gradient_norm, decrement : of the criterion at theta, standardised units
    singular : whether a covariance has lost a direction
    collapsed : (block, direction (q,)) of every lost direction: the combination
        of the block's coefficients, as entered, that has no variance
    unidentified : blocks whose parameters the data cannot tell; theta is 0 there
    perfect : whether y is explained exactly, so that there is no residual variance
    trace : one record an iteration
    statistics : the cross-products of the kept columns
    theta_standardized : theta in the units of `statistics`
    reml, weights : which criterion
    """

    theta: FloatArray
    beta: FloatArray
    beta_covariance: FloatArray
    kept: BoolArray
    sigma: float
    covariances: tuple[FloatArray, ...]
    effects: tuple[FloatArray, ...]
    criterion: float
    n_obs: float
    n_iter: int
    converged: bool
    solver: str
    strategy: str
    gradient_norm: float
    decrement: float
    singular: bool
    collapsed: tuple[tuple[int, FloatArray], ...]
    unidentified: tuple[int, ...]
    perfect: bool
    trace: tuple[Iteration, ...]
    statistics: CrossProducts
    theta_standardized: FloatArray
    reml: bool
    weights: Weights

    def __repr__(self) -> str:
        return (
            f"LMMFit({'REML' if self.reml else 'ML'} criterion {self.criterion:.4f}, "
            f"strategy={self.strategy!r}, solver={self.solver!r}, "
            f"n_iter={self.n_iter}, converged={self.converged})"
        )

    def model(self) -> Criterion:
        """Return the criterion that was minimised, to be evaluated anywhere."""
        return _criterion(self.statistics, self.reml, self.weights)

    def conditional_covariances(self) -> tuple[FloatArray, ...]:
        """Return Cov(b_g | y, beta, theta) (G_f, q_f, q_f) of every factor.

        sigma^2 L M^-1 L', what lme4 calls condVar: beta is taken as known.
        """
        if self.perfect:
            return tuple(np.zeros((*e.shape, e.shape[1])) for e in self.effects)
        state = self.model().at(self.theta_standardized).state
        return tuple(
            self.sigma**2 * (R @ C @ R.T)
            for R, C in zip(
                _factor_maps(self.statistics), state.posterior_blocks(), strict=True
            )
        )


def fit(
    design: Design,
    *,
    reml: bool,
    weights: Weights = "frequency",
    solver: str = "auto",
    max_iter: int | None = None,
    tol: float = 1e-8,
    verbose: int = 0,
) -> LMMFit:
    """Fit a model to rows: their cross-products, then `fit_statistics`."""
    statistics = cross_products(design)
    left = residual_norms(statistics.tt[:-1, :-1], RANK_SUSPECT)
    kept = left > NEARLY_DEPENDENT
    if not kept.all():
        kept, units = _columns_by_rows(design, statistics.columns)
        if units is not None:
            statistics = cross_products(design, units)
    return fit_statistics(
        statistics,
        kept,
        reml=reml,
        weights=weights,
        solver=solver,
        max_iter=max_iter,
        tol=tol,
        verbose=verbose,
    )


def fit_statistics(
    statistics: CrossProducts,
    kept: BoolArray,
    *,
    reml: bool,
    weights: Weights = "frequency",
    solver: str = "auto",
    max_iter: int | None = None,
    tol: float = 1e-8,
    verbose: int = 0,
) -> LMMFit:
    """Fit a model to cross-products, using the fixed-effect columns kept."""
    solver = "newton" if solver == "auto" else solver
    statistics = statistics.select(kept)
    pooled = pool_levels(statistics) if len(statistics.s) == 1 else statistics
    criterion = _criterion(pooled, reml, weights)
    if _explained_by_columns(criterion):
        return _perfect_fit(statistics, kept, reml, weights, solver)
    theta, unidentified = _start(criterion)
    optimum = minimize(
        criterion,
        theta,
        solver=solver,
        max_iter=max_iter,
        tol=tol,
        report=_printer(pooled) if verbose else None,
    )
    if pooled is not statistics:
        full = _criterion(statistics, reml, weights)
        optimum = replace(optimum, point=full.at(optimum.point.theta))
    return _result(optimum, kept, unidentified, solver, weights)


def _criterion(statistics: CrossProducts, reml: bool, weights: Weights) -> Criterion:
    return Criterion(
        statistics,
        choose_strategy(statistics),
        reml=reml,
        frequency=weights == "frequency",
    )


def _columns_by_rows(
    design: Design, units: Standardization
) -> tuple[BoolArray, Standardization | None]:
    """Judge columns that nearly depend on each other by the rows themselves.

    Cross-products square what a column adds to the earlier ones, and lose it
    below 1e-7.  Returned are the columns kept, by a QR decomposition, and units
    in which they are orthogonal (None if those at hand will do).
    """
    X = standardized_rows(design, units, slice(None))[:, :-1]
    if design.weights is not None:
        X *= np.sqrt(design.weights)[:, None]
    norms = np.linalg.norm(X, axis=0)
    left = np.zeros(len(norms))
    left[: len(X)] = np.abs(np.diag(np.linalg.qr(X, mode="r")))
    kept = left > RANK * norms
    if (left[kept] > NEARLY_DEPENDENT * norms[kept]).all():
        return kept, None
    R = np.asarray(np.linalg.qr(X[:, kept], mode="r"))
    R *= np.sign(np.diag(R))[:, None] / np.sqrt(len(X))
    mix = np.eye(len(kept) + 1)
    columns = np.flatnonzero(kept)
    mix[np.ix_(columns, columns)] = np.linalg.inv(R)
    return kept, replace(units, mix=mix)


def _explained_by_columns(criterion: Criterion) -> bool:
    """Say whether the fixed part alone explains y exactly."""
    tt = criterion.statistics.tt
    beta = np.linalg.lstsq(tt[:-1, :-1], tt[:-1, -1])[0]
    residual = np.append(-beta, 1.0)
    r2 = float(residual @ tt @ residual)
    return criterion.N <= 0 or r2 <= PERFECT * criterion.n_obs


def _start(criterion: Criterion) -> tuple[FloatArray, tuple[int, ...]]:
    """Return where to start, and the terms of which the data know nothing.

    With one level, or one row for every level, the criterion does not depend
    on a term's parameters; at zero, where its gradient vanishes, they stay.
    """
    theta = criterion.start()
    if not len(theta):
        return theta, ()
    point = criterion.at(theta)
    statistics = criterion.statistics
    unidentified = []
    for k, (term, _, part) in enumerate(criterion.terms()):
        G = len(statistics.levels[term.factor])
        slope = np.abs(point.gradient[part]).max()
        curvature = np.abs(point.hessian[part, part]).max()
        if G == 1 or max(slope, curvature) < FLAT * G:
            unidentified.append(k)
            theta[part] = 0.0
    return theta, tuple(unidentified)


def _result(
    optimum: Optimum,
    kept: BoolArray,
    unidentified: tuple[int, ...],
    solver: str,
    weights: Weights,
) -> LMMFit:
    """Express the optimum in the user's units."""
    point = optimum.point
    criterion, statistics = point.criterion, point.criterion.statistics
    collapsed = () if optimum.perfect else _collapsed(point, unidentified)
    sigma = 0.0 if optimum.perfect else _sigma(point)
    return _frozen(
        LMMFit(
            theta=user_theta(statistics, point.theta),
            **_fixed_part(point, kept, sigma),
            kept=kept,
            sigma=sigma,
            covariances=_covariances(point, _sigma(point)),
            effects=_effects(point),
            criterion=point.deviance,
            n_obs=criterion.n_obs,
            n_iter=max(1, len(optimum.trace) - 1),
            converged=optimum.converged,
            solver=solver,
            strategy=criterion.strategy.name,
            gradient_norm=optimum.gradient_norm,
            decrement=optimum.decrement,
            singular=bool(collapsed),
            collapsed=collapsed,
            unidentified=unidentified,
            perfect=optimum.perfect,
            trace=tuple(
                replace(line, theta=user_theta(statistics, line.theta))
                for line in optimum.trace
            ),
            statistics=statistics,
            theta_standardized=point.theta,
            reml=criterion.reml,
            weights=weights,
        )
    )


def _perfect_fit(
    statistics: CrossProducts,
    kept: BoolArray,
    reml: bool,
    weights: Weights,
    solver: str,
) -> LMMFit:
    """Return the least-squares fit of a y that the fixed part explains exactly."""
    criterion = _criterion(statistics, False, weights)
    point = criterion.at(np.zeros(criterion.n_parameters))
    optimum = Optimum(
        point,
        converged=True,
        perfect=True,
        gradient_norm=0.0,
        decrement=0.0,
        trace=(),
    )
    result = _result(optimum, kept, (), solver, weights)
    zero = tuple(np.zeros_like(c) for c in result.covariances)
    return _frozen(replace(result, criterion=-np.inf, covariances=zero, reml=reml))


def _sigma(point: Point) -> float:
    scale = float(point.criterion.statistics.columns.scale[-1])
    return scale * float(np.sqrt(point.sigma2))


def _fixed_part(point: Point, kept: BoolArray, sigma: float) -> dict[str, FloatArray]:
    """Return beta and its covariance sigma^2 H^-1 in the user's units."""
    columns = point.criterion.statistics.columns
    R = columns.map()
    beta = np.zeros(len(kept))
    beta[kept] = -(columns.scale[-1] * R @ point.residual)[:-1]
    root = R[:-1, :-1] @ point.inverse_R_X
    covariance = np.zeros((len(kept), len(kept)))
    covariance[np.ix_(kept, kept)] = sigma**2 * (root @ root.T)
    return {"beta": beta, "beta_covariance": covariance}


def _factor_maps(statistics: CrossProducts) -> list[FloatArray]:
    """Return R (q_f, q_f) of every factor: b in the user's units is R b_s."""
    maps = [np.eye(s.shape[1]) for s in statistics.s]
    for term, place, units in zip(
        statistics.terms, statistics.slices, statistics.blocks, strict=True
    ):
        maps[term.factor][place, place] = units.map()
    return maps


def _covariances(point: Point, sigma: float) -> tuple[FloatArray, ...]:
    roots = [
        R @ L
        for R, L in zip(_factor_maps(point.criterion.statistics), point.L, strict=True)
    ]
    return tuple(sigma**2 * (root @ root.T) for root in roots)


def _effects(point: Point) -> tuple[FloatArray, ...]:
    statistics = point.criterion.statistics
    scale = statistics.columns.scale[-1]
    return tuple(
        scale * (U @ point.residual) @ R.T
        for U, R in zip(point.U, _factor_maps(statistics), strict=True)
    )


def user_theta(statistics: CrossProducts, theta: FloatArray) -> FloatArray:
    """Return the parameters of R Psi_s R', Psi_s being that of theta."""
    parts, start = [], 0
    for term, units in zip(statistics.terms, statistics.blocks, strict=True):
        size = term.structure.n_parameters(term.q)
        L = term.structure.factor(theta[start : start + size], term.q)
        parts.append(term.structure.parameters(units.map() @ L))
        start += size
    return np.concatenate(parts) if parts else np.zeros(0)


def _collapsed(
    point: Point, unidentified: tuple[int, ...]
) -> tuple[tuple[int, FloatArray], ...]:
    """Return the combinations of coefficients that have lost their variance.

    The eigenvectors u of Psi_s with no eigenvalue, as c = R^-T u: c'b = u'b_s.
    """
    lost = []
    statistics = point.criterion.statistics
    for k, (term, place, _) in enumerate(point.criterion.terms()):
        if k in unidentified:
            continue
        U, s, _ = np.linalg.svd(point.L[term.factor][place, place])
        directions = np.linalg.solve(statistics.blocks[k].map().T, U)
        small = s**2 < SINGULAR * max(1.0, s[0] ** 2)
        lost += [(k, directions[:, i]) for i in np.flatnonzero(small)]
    return tuple(lost)


def _printer(statistics: CrossProducts) -> Callable[[Iteration], None]:
    """Return a function that prints a line of the trace, in the user's units."""
    print(f"{'criterion':>20} {'|gradient|':>11} {'seconds':>8}  theta")

    def line(iteration: Iteration) -> None:
        theta = user_theta(statistics, iteration.theta)
        print(
            f"{iteration.criterion:20.8f} {iteration.gradient_norm:11.2e} "
            f"{iteration.seconds:8.3f}  {np.array2string(theta, precision=6)}"
        )

    return line


def _frozen(result: LMMFit) -> LMMFit:
    """Make the arrays of a result read-only."""
    for value in vars(result).values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
    return result
