"""Finding the optimum of the criterion: one loop, three ways to step.

theta is unconstrained: the criterion is even in every column of L, and a
covariance that has lost a direction is an ordinary stationary point.  Such a
point may be a saddle, which the Hessian tells: along a column of zeros in L it
is 2 D, so that an optimum on the boundary has D >= 0 there (the Karush-Kuhn-
Tucker condition), and a negative eigenvalue shows the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.linalg import level_gram
from sklearn_lmm._types import FloatArray

PERFECT = 1e-14
"""A residual variance below this part of y's variance counts as none."""

SINGULAR = 1e-7
"""Eigenvalues of Psi below this part of max(1, largest) count as zero."""

NOISE = 1e-9
"""Differences of the criterion that mean nothing, in deviance units."""

ARMIJO = 1e-4
HALVINGS = 30
POLISHING_STEPS = 3

POLISHED = 1e-14
"""Decrement below which theta is within 1e-7 standard errors of the optimum."""

ESCAPES = 10


@dataclass(frozen=True, eq=False)
class Iteration:
    """One line of the trace; seconds since the start of the search."""

    theta: FloatArray
    criterion: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the search ended.

    gradient_norm, decrement : at the point
    perfect : whether it stopped because nothing is left to explain
    """

    point: Point
    converged: bool
    perfect: bool
    gradient_norm: float
    decrement: float
    trace: tuple[Iteration, ...]


class Solver(Protocol):
    """A way to step.

    max_iter : default limit of iterations
    """

    max_iter: int

    def step(self, point: Point) -> Point | None:
        """Return a point with a lower criterion, or None if there is none."""

    def nearly_done(self, before: Point, after: Point) -> bool:
        """Say whether it is worth computing the decrement."""


class Newton:
    """Newton steps on the exact Hessian or on average information."""

    max_iter = 100

    def __init__(self) -> None:
        self._em = EM()

    def step(self, point: Point) -> Point | None:
        step = _capped(point.newton_step, point.theta)
        return _line_search(point, step) or self._em.step(point)

    def nearly_done(self, before: Point, after: Point) -> bool:
        return True


class LBFGS:
    """Limited-memory quasi-Newton steps on the exact gradient.

    The two-loop recursion of Nocedal (1980), Math. Comp. 35: 773-782.
    """

    max_iter = 1000
    memory = 10

    def __init__(self) -> None:
        self._pairs: list[tuple[FloatArray, FloatArray]] = []

    def step(self, point: Point) -> Point | None:
        step = _capped(self._direction(point.gradient), point.theta)
        new = _line_search(point, step)
        if new is None and self._pairs:
            self._pairs = []
            return self.step(point)
        if new is not None:
            s, y = new.theta - point.theta, new.gradient - point.gradient
            if s @ y > 1e-10 * (s @ s):
                self._pairs = [*self._pairs[1 - self.memory :], (s, y)]
        return new

    def nearly_done(self, before: Point, after: Point) -> bool:
        return before.deviance - after.deviance < 1e-3

    def _direction(self, gradient: FloatArray) -> FloatArray:
        direction = -gradient
        weights = []
        for s, y in reversed(self._pairs):
            weight = (s @ direction) / (s @ y)
            direction = direction - weight * y
            weights.append(weight)
        if not self._pairs:
            return direction / max(1.0, float(np.linalg.norm(direction)))
        s, y = self._pairs[-1]
        direction = direction * (s @ y) / (y @ y)
        for (s, y), weight in zip(self._pairs, reversed(weights), strict=True):
            direction = direction + (weight - (y @ direction) / (s @ y)) * s
        return direction


class EM:
    """Expectation-maximisation, with parameter expansion while that helps.

    With PEV_g = Cov(b_g - bhat_g) / sigma^2 and Ebb_g = b_g b_g' / sigma^2 +
    PEV_g, the EM step is Psi <- mean_g Ebb_g = Psi - Psi D Psi / G.  Expansion
    (PX-EM; Liu, Rubin and Wu 1998, Biometrika 85: 755-770) regresses the
    residuals on alpha b_g and takes alpha Psi alpha'; alpha runs over
    I + sum_m x_m dL_m, which keeps the structure, and solves

        sum_l <dL_m, sum_g S_g dL_l Ebb_g> x_l = -<dL_m, D Psi>.

    sigma^2 is profiled out, which can only help.  Variances that go to zero do
    so ever more slowly: from time to time small ones are tried at zero.
    """

    max_iter = 5000
    every = 10
    small = 1e-2

    def __init__(self) -> None:
        self._steps = 0

    def step(self, point: Point) -> Point | None:
        self._steps += 1
        new = _lower(point, self._update(point, expand=True))
        if new is None:
            new = _lower(point, self._update(point, expand=False))
        if self._steps % self.every == 0:
            reached = new or point
            new = _lower(reached, without_small(reached, self.small)) or new
        return new

    def nearly_done(self, before: Point, after: Point) -> bool:
        return before.deviance - after.deviance < 1e-4

    def _update(self, point: Point, *, expand: bool) -> FloatArray:
        theta = np.empty_like(point.theta)
        statistics = point.criterion.statistics
        counts = statistics.multiplicity
        if expand:
            Ebb = second_moments(point)
        for term, place, part in point.criterion.terms():
            L = point.L[term.factor][place, place]
            D = point.D[term.factor][place, place]
            S = statistics.s[term.factor]
            G = len(S) if counts is None else counts.sum()
            w, U = np.linalg.eigh(np.eye(term.q) - L.T @ D @ L / G)
            root = L @ (U * np.sqrt(np.maximum(w, 0.0)))
            if expand:
                dL = term.structure.derivative(point.theta[part], term.q)
                Ebb_k = Ebb[term.factor][:, place, place]
                S_Ebb = level_gram(S[:, place, place], Ebb_k)
                lhs = np.einsum("mij,ikpj,nkp->mn", dL, S_Ebb, dL)
                rhs = -np.tensordot(dL, D @ L @ L.T, 2)
                x = np.linalg.lstsq(lhs, rhs)[0]
                root = root + np.tensordot(x, dL, 1) @ root
            theta[part] = term.structure.parameters(root)
        return theta


def second_moments(point: Point) -> tuple[FloatArray, ...]:
    """Return Ebb_g = E[b_g b_g' | y] / sigma^2 (G, q, q) of every factor.

    Under REML it includes the uncertainty of beta.  Pooled levels stand for
    the sum over their members.
    """
    statistics = point.criterion.statistics
    counts = statistics.multiplicity
    moments = []
    for PEV, U in zip(point.state.posterior_blocks(), point.U, strict=True):
        b = U @ (point.residual / np.sqrt(point.sigma2))
        Ebb = PEV if counts is None else PEV * counts[:, None, None]
        Ebb = Ebb + b[:, :, None] * b[:, None, :]
        if point.criterion.reml:
            of_beta = U[:, :, :-1] @ point.inverse_R_X
            Ebb = Ebb + of_beta @ of_beta.swapaxes(1, 2)
        moments.append(Ebb)
    return tuple(moments)


def without_small(point: Point, threshold: float) -> FloatArray:
    """Return theta without the directions of Psi that have hardly any variance.

    Hardly any: an eigenvalue below `threshold` times max(1, the largest).
    """
    theta = point.theta.copy()
    for term, place, part in point.criterion.terms():
        U, s, _ = np.linalg.svd(point.L[term.factor][place, place])
        small = s**2 < threshold * max(1.0, s[0] ** 2)
        if small.any():
            theta[part] = term.structure.parameters(U * np.where(small, 0.0, s))
    return theta


def minimize(
    criterion: Criterion,
    theta: FloatArray,
    *,
    solver: str = "newton",
    max_iter: int | None = None,
    tol: float = 1e-8,
    report: Callable[[Iteration], None] | None = None,
) -> Optimum:
    """Minimise the criterion from theta.

    Descend until the Newton decrement is below `tol` deviance units; put
    vanished variances at zero; polish; and go on wherever the Hessian shows
    that the point is a saddle.

    Parameters
    ----------
    solver : one of `SOLVERS`
    max_iter : limit of all iterations together; None for that of the solver
    report : called with every iteration
    """
    search = _Search(criterion, SOLVERS[solver](), max_iter, tol, report)
    point = search.record(criterion.at(theta))
    for _ in range(ESCAPES):
        point, converged = search.descend(point)
        if not converged or search.perfect:
            break
        point = search.settle(point)
        escape = _escape(point)
        if escape is None:
            break
        point = search.record(escape)
    return Optimum(
        point=point,
        converged=converged and not search.perfect,
        perfect=search.perfect,
        gradient_norm=point.gradient_norm,
        decrement=point.decrement,
        trace=tuple(search.trace),
    )


class _Search:
    """The moving state of one minimisation."""

    def __init__(
        self,
        criterion: Criterion,
        solver: Solver,
        max_iter: int | None,
        tol: float,
        report: Callable[[Iteration], None] | None,
    ) -> None:
        self.solver, self.tol, self.report = solver, tol, report
        self.max_iter = solver.max_iter if max_iter is None else max_iter
        self.trace: list[Iteration] = []
        self.perfect = False
        self._began = perf_counter()

    def record(self, point: Point) -> Point:
        """Append a line to the trace."""
        seconds = perf_counter() - self._began
        line = Iteration(point.theta, point.deviance, point.gradient_norm, seconds)
        self.trace.append(line)
        if self.report is not None:
            self.report(line)
        return point

    def descend(self, point: Point) -> tuple[Point, bool]:
        """Step until the decrement is small; return where, and whether it is."""
        nearly = True
        while True:
            self.perfect = point.sigma2 < PERFECT
            if self.perfect:
                return point, False
            if nearly and point.decrement < self.tol:
                return point, True
            if len(self.trace) > self.max_iter:
                return point, False
            new = self.solver.step(point)
            if new is None:
                # Rounding hides any further decrease: the gradient decides.
                return point, point.decrement < max(self.tol, _noise(point))
            nearly = self.solver.nearly_done(point, new)
            point = self.record(new)

    def settle(self, point: Point) -> Point:
        """Put vanished variances at zero, then take the last steps.

        They are judged by the gradient norm: the criterion cannot see them.
        """
        zeroed = without_small(point, SINGULAR)
        if not np.array_equal(zeroed, point.theta):
            candidate = point.criterion.at(zeroed)
            if candidate.deviance <= point.deviance + _noise(point):
                point = self.record(candidate)
        for _ in range(1 + POLISHING_STEPS):
            if point.decrement < POLISHED:
                break
            new = _try(point, point.theta + point.newton_step)
            if new is None or not new.gradient_norm < 0.5 * point.gradient_norm:
                break
            point = self.record(new)
        return point


def _noise(point: Point) -> float:
    """Return what rounding may do to the criterion at least."""
    return max(NOISE, 10.0 * np.finfo(float).eps * abs(point.deviance))


def _capped(step: FloatArray, theta: FloatArray) -> FloatArray:
    """Shorten a step to at most 2 max(1, |theta|)."""
    longest = 2.0 * max(1.0, float(np.linalg.norm(theta)))
    length = float(np.linalg.norm(step))
    return step if length <= longest else step * (longest / length)


def _try(point: Point, theta: FloatArray) -> Point | None:
    """Return the criterion at theta, or None where it cannot be computed."""
    try:
        new = point.criterion.at(theta)
    except np.linalg.LinAlgError:
        return None
    return new if np.isfinite(new.deviance) else None


def _lower(point: Point, theta: FloatArray) -> Point | None:
    """Return the criterion at theta if it is lower than at the point."""
    new = _try(point, theta)
    return new if new is not None and new.deviance < point.deviance else None


def _line_search(point: Point, step: FloatArray) -> Point | None:
    """Halve the step until the criterion decreases enough (Armijo)."""
    slope = float(point.gradient @ step)
    fraction = 1.0
    for _ in range(HALVINGS):
        new = _try(point, point.theta + fraction * step)
        if new is not None:
            decrease = point.deviance - new.deviance
            if decrease > 0 and decrease >= -ARMIJO * fraction * slope:
                return new
        fraction *= 0.5
    return None


def _escape(point: Point) -> Point | None:
    """Return a lower point along a direction of negative curvature, if any."""
    w, U = np.linalg.eigh(point.hessian)
    for curvature, direction in zip(w, U.T, strict=True):
        if curvature > -1e-8 * max(1.0, float(np.abs(w).max())):
            break
        for length in 0.5 ** np.arange(16):
            new = _try(point, point.theta + length * direction)
            if new is not None and new.deviance < point.deviance - _noise(point):
                return new
    return None


SOLVERS: dict[str, Callable[[], Solver]] = {
    "newton": Newton,
    "lbfgs": LBFGS,
    "em": EM,
}
