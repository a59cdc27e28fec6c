"""Finding the optimum of the criterion: one loop around the ways to step.

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

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.steps import (
    SOLVERS,
    Curvature,
    Newton,
    Solver,
    try_at,
    without_small,
)
from sklearn_lmm._types import FloatArray

PERFECT = 1e-14
"""A residual variance below this part of y's variance counts as none."""

NEARLY_PERFECT = 1e-11
"""Residual variance at which a perfect fit is described: as theta grows, what
rounding does to effects grows as theta^2, and what is left to explain falls so."""

SINGULAR = 1e-7
"""Eigenvalues of Psi below this part of max(1, largest) count as zero."""

NOISE = 1e-9
"""Differences of the criterion that mean nothing, in deviance units."""

SLOW = 10
"""Iterations after which, and again after as many, small variances are tried at 0."""

VANISHING = 1e-4
"""A direction of Psi is small below this part of max(1, largest eigenvalue)."""

POLISHING_STEPS = 10

LESSONS = 2
"""Steps of the polishing that may fail, where curvature is learnt from steps."""

POLISHED = 1e-14
"""Decrement below which theta is within 1e-7 standard errors of the optimum."""

SURE = 1e-16
"""Expected decrement below which derivatives are not computed once more."""

ESCAPES = 10

FEW_ROWS = 10_000
"""Up to here it is cheap to look for a second minimum, and at the last gradient."""


@dataclass(frozen=True, eq=False)
class Iteration:
    """One line of the trace.

    criterion : NaN where it is too dear to be known on the way
    seconds : since the start of the search
    noise : the largest Monte-Carlo error of theta, in its standard errors, where
        traces are estimated
    """

    theta: FloatArray
    criterion: float
    gradient_norm: float
    seconds: float
    noise: float | None = None


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the search ended.

    gradient_norm, decrement : at the point; what convergence so far lets expect,
        where the last step was too sure to compute them once more
    perfect : whether it stopped because nothing is left to explain
    """

    point: Point
    converged: bool
    perfect: bool
    gradient_norm: float
    decrement: float
    trace: tuple[Iteration, ...]


def minimize(
    start: Point,
    *,
    solver: str = "newton",
    max_iter: int | None = None,
    tol: float = 1e-8,
    report: Callable[[Iteration], None] | None = None,
) -> Optimum:
    """Minimise the criterion from a point.

    Descend until the Newton decrement is below `tol` deviance units; put
    vanished variances at zero; polish; and go on wherever the Hessian shows
    that the point is a saddle.

    Parameters
    ----------
    solver : one of `SOLVERS`
    max_iter : limit of all iterations together; None for that of the solver
    report : called with every iteration
    """
    curvature = Curvature()
    search = _Search(SOLVERS[solver](curvature), curvature, max_iter, tol, report)
    point = search.record(start)
    for _ in range(ESCAPES):
        point, converged = search.descend(point)
        if search.perfect:
            point = search.retreat(point)
        if not converged:
            break
        point = search.settle(point)
        escape = _escape(search.curved) or _without_a_term(point)
        if escape is None:
            break
        curvature.forget()
        point = search.record(escape)
    return Optimum(
        point=point,
        converged=converged and not search.perfect,
        perfect=search.perfect,
        gradient_norm=search.trace[-1].gradient_norm,
        decrement=np.nan if search.perfect else search.measure(point),
        trace=tuple(search.trace),
    )


class _Search:
    """The moving state of one minimisation.

    measured : the last point whose decrement is known, or as good as known
    decrement, before : there, and at the one before it
    curved : the last point whose derivatives are known
    """

    def __init__(
        self,
        solver: Solver,
        curvature: Curvature,
        max_iter: int | None,
        tol: float,
        report: Callable[[Iteration], None] | None,
    ) -> None:
        self.solver, self.curvature = solver, curvature
        self.tol, self.report = tol, report
        self.max_iter = solver.max_iter if max_iter is None else max_iter
        self.trace: list[Iteration] = []
        self.perfect = False
        self.measured: Point | None = None
        self.curved: Point
        self.decrement = self.before = np.nan
        self._began = perf_counter()

    def record(self, point: Point, norm: float | None = None) -> Point:
        """Append a line to the trace."""
        norm = _gradient_norm(point) if norm is None else norm
        seconds = perf_counter() - self._began
        line = Iteration(point.theta, point.deviance, norm, seconds)
        self.trace.append(line)
        if self.report is not None:
            self.report(line)
        return point

    def measure(self, point: Point) -> float:
        """Return the decrement at a point."""
        if point is not self.measured:
            self.before = self.decrement
            self.decrement = self.curvature.decrement(point)
            self.measured = self.curved = point
        return self.decrement

    def descend(self, point: Point) -> tuple[Point, bool]:
        """Step until the decrement is small; return where, and whether it is."""
        nearly = True
        while True:
            self.perfect = _is_perfect(point)
            if self.perfect:
                return point, False
            if nearly and self.measure(point) < self.tol:
                return point, True
            if len(self.trace) > self.max_iter:
                return point, False
            new = self.solver.step(point)
            if new is None:
                # Rounding hides any further decrease: the gradient decides.
                return point, self.measure(point) < max(self.tol, _noise(point))
            nearly = self.solver.nearly_done(point, new)
            point = self.record(new)
            if len(self.trace) % SLOW == 0:
                point = self._without_vanishing(point)

    def _without_vanishing(self, point: Point) -> Point:
        """Put directions of hardly any variance at zero, if that is lower.

        Where the first coefficient's variance vanishes, the Cholesky factor of
        the others can be turned at no cost: steps follow that ridge for ever.
        """
        candidate = try_at(point, without_small(point, VANISHING))
        if candidate is None or not candidate.deviance < point.deviance:
            return point
        self.curvature.forget()
        return self.record(candidate)

    def retreat(self, point: Point) -> Point:
        """Return a point of the same ratios of variances with sharper effects."""
        shorter = point.theta * np.sqrt(point.sigma2 / NEARLY_PERFECT)
        candidate = try_at(point, shorter) if point.sigma2 > 0.0 else None
        if candidate is None or candidate.sigma2 > 10.0 * NEARLY_PERFECT:
            return point
        return self.record(candidate, np.nan)

    def settle(self, point: Point) -> Point:
        """Put vanished variances at zero, then take the last steps.

        They are judged by the gradient norm: the criterion cannot see them.
        A step along curvature that is only partly known may fail, and tells more
        of it: the next one starts from the same point.
        """
        zeroed = without_small(point, SINGULAR)
        if not np.array_equal(zeroed, point.theta):
            candidate = point.criterion.at(zeroed)
            if candidate.deviance <= point.deviance + _noise(point):
                point = self.record(candidate)
                self.curvature.forget()
        lessons = LESSONS if point.forms.traces is None else 0
        for _ in range(POLISHING_STEPS):
            if self.measure(point) < POLISHED:
                break
            new = try_at(point, point.theta + self.curvature.step(point))
            if new is None:
                break
            if self._is_surely_last(point, new):
                return self._end(point, new)
            if new.gradient_norm < point.gradient_norm:
                point = self.record(new)
            elif lessons:
                lessons -= 1
                self.curvature.step(new)
                new.release()
                self.measured = None
            else:
                break
        return point

    def _is_surely_last(self, point: Point, new: Point) -> bool:
        """Say whether derivatives at the new point would only cost time."""
        many = point.criterion.statistics.n_rows > FEW_ROWS
        no_higher = new.deviance <= point.deviance + _noise(point)
        return many and no_higher and self._expected() < SURE

    def _expected(self) -> float:
        """Return the decrement to expect after a step of Newton.

        Decrements fall faster with every step, so the last ratio is a bound.
        """
        newton = isinstance(self.solver, Newton)
        return self.decrement**2 / self.before if newton else np.nan

    def _end(self, point: Point, new: Point) -> Point:
        """Record a new point with the derivatives that are to be expected there."""
        expected = self._expected()
        norm = point.gradient_norm * np.sqrt(expected / self.decrement)
        self.measured, self.decrement = new, expected
        return self.record(new, norm)


def _is_perfect(point: Point) -> bool:
    return point.sigma2 < PERFECT


def _gradient_norm(point: Point) -> float:
    """Return |gradient|; NaN where nothing is left to explain, as it may overflow."""
    return np.nan if _is_perfect(point) else point.gradient_norm


def _without_a_term(point: Point) -> Point | None:
    """Return a lower point with one term at zero, if there is one.

    In small data the criterion may have a second, lower minimum there.
    """
    if point.criterion.statistics.n_rows > FEW_ROWS:
        return None
    for _, _, part in point.criterion.terms():
        theta = point.theta.copy()
        theta[part] = 0.0
        new = try_at(point, theta) if point.theta[part].any() else None
        if new is not None and new.deviance < point.deviance - _noise(point):
            return new
    return None


def _escape(point: Point) -> Point | None:
    """Return a lower point along a direction of negative curvature, if any."""
    w, U = np.linalg.eigh(point.hessian)
    for curvature, direction in zip(w, U.T, strict=True):
        if curvature > -1e-8 * max(1.0, float(np.abs(w).max())):
            break
        for length in 0.5 ** np.arange(16):
            new = try_at(point, point.theta + length * direction)
            if new is not None and new.deviance < point.deviance - _noise(point):
                return new
    return None


def _noise(point: Point) -> float:
    """Return what rounding may do to the criterion at least."""
    return max(NOISE, 10.0 * np.finfo(float).eps * abs(point.deviance))
