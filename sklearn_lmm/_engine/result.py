"""A fitted model, in the user's units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_criterion import FittedErrors
from sklearn_lmm._engine.factor_krylov import KrylovStrategy, Sampling
from sklearn_lmm._engine.monte_carlo import (
    MonteCarlo,
    beta_noise,
    logdet_noise,
    relative_noise,
    theta_noise,
)
from sklearn_lmm._engine.optimize import Iteration, Optimum
from sklearn_lmm._engine.strategy import choose_strategy
from sklearn_lmm._types import BoolArray, FloatArray

ZERO = 1e-12
"""Singular values of L below this part of the largest are rounding."""

Weights = Literal["frequency", "precision"]


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
    monte_carlo : what random probes leave uncertain; None for an exact fit
    perfect : whether y is explained exactly, so that there is no residual variance
    search : one record an iteration, standardised units
    statistics : the cross-products that theta and beta were estimated from
    effect_statistics : those that the effects are predicted from; the same
        unless rows were added later with theta and beta kept
    theta_standardized : theta in the units of `statistics`, followed by the
        unconstrained parameters of the errors that were estimated
    reml, weights : which criterion
    errors : the structure of the errors, None if they are independent and equal
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
    monte_carlo: MonteCarlo | None
    perfect: bool
    search: tuple[Iteration, ...]
    statistics: CrossProducts
    effect_statistics: CrossProducts
    theta_standardized: FloatArray
    reml: bool
    weights: Weights
    errors: FittedErrors | None = None

    def __repr__(self) -> str:
        return (
            f"LMMFit({'REML' if self.reml else 'ML'} criterion {self.criterion:.4f}, "
            f"strategy={self.strategy!r}, solver={self.solver!r}, "
            f"n_iter={self.n_iter}, converged={self.converged})"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays come out of a pickle writeable.
        self.__dict__.update(state)
        frozen(self)

    @property
    def trace(self) -> tuple[Iteration, ...]:
        """One record an iteration."""
        return tuple(
            replace(line, theta=user_theta(self.statistics, line.theta))
            for line in self.search
        )

    @property
    def n_parameters(self) -> int:
        """Fixed effects, parameters of covariances and errors, sigma."""
        known_sigma = self.errors is not None and self.errors.sigma is not None
        of_variances = len(self.theta_standardized) + (not known_sigma)
        return int(self.kept.sum()) + of_variances

    @property
    def log_likelihood(self) -> float:
        """The logarithm of the maximised likelihood, restricted under REML."""
        return -0.5 * self.criterion

    @property
    def aic(self) -> float:
        """Akaike's information criterion, of the likelihood that was maximised."""
        return self.criterion + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, with the number of rows for n."""
        return self.criterion + float(np.log(self.n_obs)) * self.n_parameters

    @property
    def row_statistics(self) -> CrossProducts:
        """The cross-products of the rows as they are, whatever their errors."""
        return self.statistics if self.errors is None else self.errors.plain

    def model(self) -> Criterion:
        """Return the criterion that was minimised, to be evaluated anywhere."""
        if self.errors is not None:
            return self.errors.criterion(self.kept, self.reml)
        selected = self.statistics.select(self.kept)
        return make_criterion(selected, self.reml, self.weights, self._sampling)

    def point(self) -> Point:
        """Return the model at its optimum."""
        return self.model().at(self.theta_standardized)

    def fixed_part(self, X: FloatArray | sparse.csr_array) -> FloatArray:
        """Return X beta (n,) of rows, to whose columns the intercept is added."""
        first = int(self.row_statistics.intercept)
        fixed = np.asarray(X @ self.beta[first:])
        return fixed + self.beta[0] if first else fixed

    def effects_model(self) -> Criterion:
        """Return the criterion of the rows that the effects are predicted from."""
        if self.errors is not None:
            return self.model()
        selected = self.effect_statistics.select(self.kept)
        return make_criterion(selected, self.reml, self.weights, self._sampling)

    def effects_point(self) -> Point:
        """Return that model at the optimum of the fit."""
        return self.effects_model().at(self.theta_standardized)

    @property
    def _sampling(self) -> Callable[[], Sampling] | None:
        known = self.monte_carlo
        return None if known is None else lambda: known.sampling

    def require_exact(self, what: str) -> None:
        """Refuse what needs more of the likelihood than a stochastic fit has.

        Raises
        ------
        ValueError
            If traces were estimated.
        """
        if self.monte_carlo is not None:
            raise ValueError(
                f"{what} cannot be had from a stochastic fit, which knows the "
                "likelihood up to a Monte-Carlo error only. Fit again with "
                "solver='newton', if memory allows."
            )

    def conditional_covariances(self) -> tuple[FloatArray, ...]:
        """Return Cov(b_g | y, beta, theta) (G_f, q_f, q_f) of every factor.

        sigma^2 L M^-1 L', what lme4 calls condVar: beta is taken as known.
        """
        if self.perfect:
            return tuple(np.zeros((*e.shape, e.shape[1])) for e in self.effects)
        state = self.effects_point().state
        return tuple(
            self.sigma**2 * (R @ C @ R.T)
            for R, C in zip(
                factor_maps(self.statistics), state.posterior_blocks(), strict=True
            )
        )


def make_criterion(
    statistics: CrossProducts,
    reml: bool,
    weights: Weights,
    sampling: Callable[[], Sampling] | None = None,
    *,
    if_needed: bool = False,
) -> Criterion:
    """Return the criterion, with the strategy that suits the data.

    sampling, if_needed : whether and when traces are estimated, as for
        `choose_strategy`
    """
    return Criterion(
        statistics,
        choose_strategy(statistics, sampling, if_needed=if_needed),
        reml=reml,
        frequency=weights == "frequency",
    )


def result_of(
    optimum: Optimum,
    everything: CrossProducts,
    kept: BoolArray,
    unidentified: tuple[int, ...],
    solver: str,
    weights: Weights,
) -> LMMFit:
    """Express the optimum in the user's units.

    `everything` are the cross-products with the columns that were dropped.
    """
    point = optimum.point
    criterion, statistics = point.criterion, point.criterion.statistics
    collapsed = () if optimum.perfect else _collapsed(point, unidentified)
    sigma = 0.0 if optimum.perfect else _sigma(point)
    return frozen(
        LMMFit(
            theta=user_theta(statistics, point.theta),
            **_fixed_part(point, kept, sigma),
            kept=kept,
            sigma=sigma,
            covariances=_covariances(point, _sigma(point)),
            effects=predicted_effects(point, point.residual),
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
            monte_carlo=_monte_carlo(optimum, kept),
            perfect=optimum.perfect,
            search=optimum.trace,
            statistics=everything,
            effect_statistics=everything,
            theta_standardized=point.theta,
            reml=criterion.reml,
            weights=weights,
        )
    )


def _sigma(point: Point) -> float:
    scale = float(point.criterion.statistics.columns.scale[-1])
    return scale * float(np.sqrt(point.sigma2))


def _fixed_part(point: Point, kept: BoolArray, sigma: float) -> dict[str, Any]:
    """Return beta and its covariance sigma^2 H^-1 in the user's units."""
    beta = np.zeros(len(kept))
    beta[kept] = fixed_effects(point)
    R = point.criterion.statistics.columns.map()
    root = R[:-1, :-1] @ point.inverse_R_X
    covariance = np.zeros((len(kept), len(kept)))
    covariance[np.ix_(kept, kept)] = sigma**2 * (root @ root.T)
    return {"beta": beta, "beta_covariance": covariance}


def fixed_effects(point: Point) -> FloatArray:
    """Return beta (p,) of a point, of the columns kept, in the user's units."""
    columns = point.criterion.statistics.columns
    return np.asarray(-(columns.scale[-1] * columns.map() @ point.residual)[:-1])


def factor_maps(statistics: CrossProducts) -> list[FloatArray]:
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
        for R, L in zip(factor_maps(point.criterion.statistics), point.L, strict=True)
    ]
    return tuple(sigma**2 * (root @ root.T) for root in roots)


def predicted_effects(point: Point, residual: FloatArray) -> tuple[FloatArray, ...]:
    """Return b (G_f, q_f) for fixed effects -residual[:-1], user's units."""
    statistics = point.criterion.statistics
    scale = statistics.columns.scale[-1]
    return tuple(
        scale * effects @ R.T
        for effects, R in zip(
            point.effects(residual), factor_maps(statistics), strict=True
        )
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

    The eigenvectors u of Psi_s with eigenvalue 0, as c = R^-T u: c'b = u'b_s.
    The search has put variances at 0 wherever the criterion allows it.
    """
    lost = []
    statistics = point.criterion.statistics
    for k, (term, place, _) in enumerate(point.criterion.terms()):
        if k in unidentified:
            continue
        U, s, _ = np.linalg.svd(point.L[term.factor][place, place])
        directions = np.linalg.solve(statistics.blocks[k].map().T, U)
        small = s <= ZERO * s[0]
        lost += [(k, directions[:, i]) for i in np.flatnonzero(small)]
    return tuple(lost)


def _monte_carlo(optimum: Optimum, kept: BoolArray) -> MonteCarlo | None:
    """Return what random probes leave uncertain, in the user's units."""
    point = optimum.point
    strategy, statistics = point.criterion.strategy, point.criterion.statistics
    if not isinstance(strategy, KrylovStrategy):
        return None
    beta = np.zeros(len(kept))
    if optimum.perfect:
        zero = np.zeros(len(point.theta))
        return MonteCarlo(zero, beta, 0.0, 0.0, strategy.sampling)
    J = _user_theta_derivative(statistics, point.theta)
    theta_covariance = J @ theta_noise(point) @ J.T
    columns = statistics.columns
    root = columns.scale[-1] * columns.map()[:-1, :-1] @ beta_noise(point)
    beta[kept] = np.sqrt(np.sum(root**2, axis=1))
    return MonteCarlo(
        theta=np.sqrt(np.diag(theta_covariance).clip(0.0)),
        beta=beta,
        log_likelihood=0.5 * logdet_noise(point),
        relative=relative_noise(point),
        sampling=strategy.sampling,
    )


def _user_theta_derivative(statistics: CrossProducts, theta: FloatArray) -> FloatArray:
    """Return d user_theta / d theta (m, m), by central differences."""
    step = 1e-6 * np.maximum(1.0, np.abs(theta))
    columns = [
        user_theta(statistics, theta + e) - user_theta(statistics, theta - e)
        for e in np.diag(step)
    ]
    return np.transpose(columns) / (2.0 * step)


def frozen(result: LMMFit) -> LMMFit:
    """Make the arrays of a result read-only."""
    for value in vars(result).values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
    return result
