"""From cross-products to a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts, cross_products
from sklearn_lmm._engine.design import Design, Standardization, Term
from sklearn_lmm._engine.factor_krylov import WORKING, Sampling
from sklearn_lmm._engine.factor_single import pool_levels
from sklearn_lmm._engine.levelwise import levelwise
from sklearn_lmm._engine.linalg import residual_norms
from sklearn_lmm._engine.optimize import PERFECT, Iteration, Optimum, minimize
from sklearn_lmm._engine.result import (
    LMMFit,
    Weights,
    frozen,
    make_criterion,
    result_of,
    user_theta,
)
from sklearn_lmm._engine.row_sums import standardized_rows
from sklearn_lmm._engine.start import least_squares_residual
from sklearn_lmm._engine.stochastic import minimize_stochastic
from sklearn_lmm._types import BoolArray, FloatArray

RANK = 1e-7
"""A column is dropped if its residual on earlier ones is below this part of it."""

NOTHING = 1e-10
"""A column with a mean square below this, standardised, is constant."""

RANK_SUSPECT = 1e-5
"""The same, where only cross-products are known."""

NEARLY_DEPENDENT = 1e-3
"""Columns of a dense X that leave less than this are judged by the rows."""

FLAT = 1e-9
"""Derivatives below this, per level, mean that the criterion does not depend."""

FLAT_ESTIMATED = 5e-4
"""The same, in units of tr sum_g [Q]_gg, where that is known in single precision."""


def fit(
    design: Design,
    *,
    reml: bool,
    weights: Weights = "frequency",
    solver: str = "auto",
    max_iter: int | None = None,
    tol: float = 1e-8,
    draw_seed: Callable[[], int] = lambda: 0,
    verbose: int = 0,
) -> LMMFit:
    """Fit a model to rows: their cross-products, then `fit_statistics`."""
    statistics, kept = reduced(design)
    return fit_statistics(
        statistics,
        kept,
        reml=reml,
        weights=weights,
        solver=solver,
        max_iter=max_iter,
        tol=tol,
        draw_seed=draw_seed,
        verbose=verbose,
    )


def reduced(design: Design) -> tuple[CrossProducts, BoolArray]:
    """Return the cross-products, and which fixed-effect columns to keep."""
    statistics = cross_products(design)
    left = _left_by_earlier(statistics)
    kept = left > RANK_SUSPECT
    if (left <= NEARLY_DEPENDENT).any() and not sparse.issparse(design.X):
        kept, units = _columns_by_rows(design, statistics.columns)
        if units is not None:
            statistics = cross_products(design, units)
    return statistics, kept


def fit_statistics(
    everything: CrossProducts,
    kept: BoolArray | None = None,
    *,
    reml: bool,
    weights: Weights = "frequency",
    solver: str = "auto",
    max_iter: int | None = None,
    tol: float = 1e-8,
    draw_seed: Callable[[], int] = lambda: 0,
    verbose: int = 0,
) -> LMMFit:
    """Fit a model to cross-products.

    kept : (p,), the fixed-effect columns to use; None for all that leave more
        than `RANK_SUSPECT` of themselves, which is as far as cross-products see
    solver : "newton", "lbfgs", "em"; "stochastic" to estimate traces where
        factors are crossed, elsewhere the same as "newton"; "auto" for newton
        where it is affordable, else stochastic
    draw_seed : called for the seed of the random probes, if they are needed
    """
    everything = everything.rescaled()
    if kept is None:
        kept = _left_by_earlier(everything) > RANK_SUSPECT
    statistics = everything.select(kept)
    pooled = pool_levels(statistics) if len(statistics.s) == 1 else statistics
    may_estimate = solver in ("auto", "stochastic")
    criterion = make_criterion(
        pooled,
        reml,
        weights,
        (lambda: Sampling(draw_seed(), tolerance=WORKING)) if may_estimate else None,
        if_needed=solver == "auto",
    )
    if may_estimate:
        solver = "newton" if criterion.strategy.exact else "stochastic"
    if explained_by_columns(criterion):
        return _perfect_fit(everything, kept, reml, weights, solver)
    search = criterion if solver == "em" else levelwise(criterion)
    start, unidentified = identified_start(search)
    report = printer(pooled) if verbose else None
    if solver == "stochastic":
        held = np.zeros(len(start.theta), dtype=bool)
        for k in unidentified:
            held[criterion.parameters[k]] = True
        optimum = minimize_stochastic(start, held, max_iter, tol, report)
    else:
        optimum = minimize(
            start, solver=solver, max_iter=max_iter, tol=tol, report=report
        )
    if pooled is not statistics:
        full = levelwise(make_criterion(statistics, reml, weights))
        optimum = replace(optimum, point=full.at(optimum.point.theta))
    return result_of(optimum, everything, kept, unidentified, solver, weights)


def _left_by_earlier(statistics: CrossProducts) -> FloatArray:
    """Return how much of each column of X earlier ones leave (p,).

    In these units a column that varies has a mean square near 1; much less is
    what rounding leaves of a constant.
    """
    gram = statistics.tt[:-1, :-1].copy()
    nothing = np.diag(gram) < NOTHING * statistics.sum_weights
    gram[nothing, :] = gram[:, nothing] = 0.0
    return residual_norms(gram, RANK_SUSPECT)


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


def explained_by_columns(criterion: Criterion) -> bool:
    """Say whether the fixed part alone explains y exactly."""
    residual = least_squares_residual(criterion.statistics)
    r2 = float(residual @ criterion.statistics.tt @ residual)
    return criterion.N <= 0 or r2 <= PERFECT * criterion.n_obs


def identified_start(criterion: Criterion) -> tuple[Point, tuple[int, ...]]:
    """Return where to start, and the terms of which the data know nothing.

    With one level, or one row for every level, the criterion does not depend
    on a term's parameters; at zero, where its gradient vanishes, they stay.
    """
    point = criterion.at(criterion.start())
    theta = point.theta.copy()
    unidentified = []
    for k, (term, _, part) in enumerate(criterion.terms()):
        slope = np.abs(point.gradient[part]).max()
        curvature = np.abs(point.hessian[part, part]).max()
        flat = max(slope, curvature) < _nothing(point, term.factor)
        if flat or _like_residuals(criterion, term):
            unidentified.append(k)
            theta[part] = 0.0
    return criterion.at(theta) if unidentified else point, tuple(unidentified)


def _nothing(point: Point, factor: int) -> float:
    """Return the derivative by a factor's parameters that cannot be told from 0."""
    if point.criterion.strategy.exact:
        return FLAT * len(point.criterion.statistics.levels[factor])
    return FLAT_ESTIMATED * float(np.trace(point.state.block_sums()[factor]))


def _like_residuals(criterion: Criterion, term: Term) -> bool:
    """Say whether a term's effects cannot be told from the residuals.

    An intercept of which every row has its own, all weighing the same: beside
    another term the criterion is flat in a combination of parameters only.
    """
    statistics = criterion.statistics
    singles = len(statistics.levels[term.factor]) == statistics.n_rows
    if not (singles and term.intercept and term.q == 1):
        return False
    weights = statistics.s[term.factor]
    if criterion.sigma2 is not None:
        return False
    once = criterion.n_obs == statistics.n_rows
    return once and bool(np.ptp(weights) <= FLAT * weights.max())


def _perfect_fit(
    everything: CrossProducts,
    kept: BoolArray,
    reml: bool,
    weights: Weights,
    solver: str,
) -> LMMFit:
    """Return the least-squares fit of a y that the fixed part explains exactly."""
    estimated = (lambda: Sampling(0)) if solver == "stochastic" else None
    criterion = make_criterion(everything.select(kept), False, weights, estimated)
    optimum = Optimum(
        criterion.at(np.zeros(criterion.n_parameters)),
        converged=True,
        perfect=True,
        gradient_norm=0.0,
        decrement=0.0,
        trace=(),
    )
    result = result_of(optimum, everything, kept, (), solver, weights)
    zero = tuple(np.zeros_like(c) for c in result.covariances)
    return frozen(replace(result, criterion=-np.inf, covariances=zero, reml=reml))


def printer(statistics: CrossProducts) -> Callable[[Iteration], None]:
    """Return a function that prints a line of the trace, in the user's units."""
    print(f"{'criterion':>20} {'|gradient|':>11} {'seconds':>8}  theta")

    def line(iteration: Iteration) -> None:
        theta = user_theta(statistics, iteration.theta)
        noise = iteration.noise
        print(
            f"{iteration.criterion:20.8f} {iteration.gradient_norm:11.2e} "
            f"{iteration.seconds:8.3f}  {np.array2string(theta, precision=6)}"
            + ("" if noise is None else f"  (Monte-Carlo error {noise:.2%} of s.e.)")
        )

    return line
