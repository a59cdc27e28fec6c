"""The optimum where traces are estimated: Newton on equations with random parts.

With the same probes at every theta, D and so the gradient are smooth functions
of theta, and their zero is found as if they were exact, but for the criterion
itself: log|V| is too dear on the way, and steps are judged by the gradient
along them.  Probes are doubled until the error they leave is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.factor_krylov import FINE, KrylovStrategy
from sklearn_lmm._engine.monte_carlo import SMALL_ERROR, relative_noise, state_of
from sklearn_lmm._engine.optimize import PERFECT, SINGULAR, Iteration, Optimum
from sklearn_lmm._engine.steps import HALVINGS, Curvature, capped, without_small
from sklearn_lmm._types import BoolArray, FloatArray

MAX_ITER = 100

MOST_PROBES = 1024

MOST_ENTRIES = 1 << 28
"""Entries of all probes together, of four bytes each."""

MARGIN = 1.2
"""More probes than seem needed, as the error of few is not known well."""

SEEN, UNSEEN = 1e-4, 1e-6
"""Decrements at which theta is within 1e-2 and 1e-3 standard errors of the optimum."""

OVERSHOOT = 0.9
"""Part of the slope along a step that may be left, with either sign, at its end."""


def minimize_stochastic(
    start: Point,
    held: BoolArray,
    max_iter: int | None = None,
    tol: float = 1e-8,
    report: Callable[[Iteration], None] | None = None,
) -> Optimum:
    """Minimise a criterion whose strategy is `KrylovStrategy`.

    Parameters are those of `optimize.minimize`; held (m,) are the parameters of
    which the data know nothing, to be left at 0.  The last step is not followed
    by an evaluation; so no decrement is asked for, whatever `tol`, that a
    standard error would not show, or that is lost in the Monte-Carlo error.
    """
    search = _Search(held, max_iter or MAX_ITER, tol, report)
    point = start
    while True:
        point, converged = search.descend(point)
        probes = _enough_probes(point)
        if search.perfect or not converged or probes == _probes(point):
            break
        point = _with(point, point.theta, probes=probes)
    return Optimum(
        point=_refined(point, converged),
        converged=converged,
        perfect=search.perfect,
        gradient_norm=np.nan if search.perfect else point.gradient_norm,
        decrement=np.nan if search.perfect else Curvature().decrement(point),
        trace=tuple(search.trace),
    )


class _Search:
    """The moving state of one minimisation."""

    def __init__(
        self,
        held: BoolArray,
        max_iter: int,
        tol: float,
        report: Callable[[Iteration], None] | None,
    ) -> None:
        self.held = held
        self.max_iter, self.tol, self.report = max_iter, tol, report
        self.trace: list[Iteration] = []
        self.perfect = False
        self._began = perf_counter()

    def record(self, point: Point) -> None:
        """Append a line to the trace."""
        line = Iteration(
            point.theta,
            np.nan,
            point.gradient_norm,
            perf_counter() - self._began,
            relative_noise(point),
        )
        self.trace.append(line)
        if self.report is not None:
            self.report(line)

    def descend(self, point: Point) -> tuple[Point, bool]:
        """Step until the decrement is small; return where, and whether it is."""
        curvature = Curvature()
        while True:
            self.perfect = point.sigma2 < PERFECT
            if self.perfect:
                return point, False
            self.record(point)
            if curvature.decrement(point) < self._enough(point):
                settled = self._without_small(point) or _off_saddle(point, self.held)
                if settled is None:
                    return point, True
                point = settled
                curvature.forget()
                continue
            if len(self.trace) > self.max_iter:
                return point, False
            new = _step(point, capped(curvature.step(point), point.theta))
            if new is None:
                # What conjugate gradients leave undone hides any further progress.
                return point, curvature.decrement(point) < SEEN
            point = new

    def _enough(self, point: Point) -> float:
        """Return the decrement that counts as converged."""
        in_noise = 2.0 * relative_noise(point) ** 2
        return max(self.tol, min(SEEN, max(UNSEEN, in_noise)))

    def _without_small(self, point: Point) -> Point | None:
        """Return the point with vanished variances at zero, if there are any."""
        theta = without_small(point, SINGULAR)
        same = np.allclose(theta, point.theta, rtol=1e-12, atol=0.0)
        return None if same else point.criterion.at(theta)


def _step(point: Point, step: FloatArray) -> Point | None:
    """Return a point along a step where the slope is not steep the other way."""
    slope = float(point.gradient @ step)
    for _ in range(HALVINGS):
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                new = point.criterion.at(point.theta + step)
                at_end = float(new.gradient @ step)
        except np.linalg.LinAlgError:
            at_end = np.nan
        if at_end <= -OVERSHOOT * slope:
            return new
        step = 0.5 * step
        slope *= 0.5
    return None


def _off_saddle(point: Point, held: BoolArray) -> Point | None:
    """Return a point with a falling slope along a negative curvature, if any."""
    free = np.eye(len(held))[:, ~held]
    w, U = np.linalg.eigh(free.T @ point.hessian @ free)
    if not len(w) or w[0] > -1e-6 * max(1.0, float(np.abs(w).max())):
        return None
    for sign in (1.0, -1.0):
        for length in 0.5 ** np.arange(1, 8):
            step = sign * length * free @ U[:, 0]
            new = point.criterion.at(point.theta + step)
            if new.gradient @ step < 0.0:
                return new
    return None


def _enough_probes(point: Point) -> int:
    """Return how many probes make the error small, doubled as often as need be."""
    probes, noise = _probes(point), relative_noise(point)
    if noise <= SMALL_ERROR:
        return probes
    most = min(MOST_PROBES, MOST_ENTRIES // _strategy(point).crossing.size)
    wanted = MARGIN * probes * (noise / SMALL_ERROR) ** 2 if SMALL_ERROR else np.inf
    more = 2 * probes
    while more < wanted and 2 * more <= most:
        more *= 2
    return more if more <= most else probes


def _probes(point: Point) -> int:
    return _strategy(point).sampling.probes


def _with(point: Point, theta: FloatArray, **changes: Any) -> Point:
    """Return the criterion at theta with another sampling."""
    strategy = _strategy(point)
    other = strategy.with_sampling(replace(strategy.sampling, **changes))
    return point.criterion.using(other).at(theta)


def _refined(point: Point, converged: bool) -> Point:
    """Return the end of one more Newton step, with exact beta and effects.

    The step is too small to be worth new traces, but Monte-Carlo errors can be
    smaller still.
    """
    theta = point.theta + Curvature().step(point) if converged else point.theta
    fine = _with(point, theta, tolerance=FINE)
    state_of(fine).take_traces(state_of(point))
    fine.forms = point.forms
    return fine


def _strategy(point: Point) -> KrylovStrategy:
    strategy = point.criterion.strategy
    assert isinstance(strategy, KrylovStrategy)
    return strategy
