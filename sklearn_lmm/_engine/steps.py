"""Three ways to step towards the optimum: Newton, L-BFGS, EM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.linalg import level_gram
from sklearn_lmm._types import FloatArray

SCORING_FLOOR = 1e-4
"""Least eigenvalue of Psi after a step of scoring, which may overshoot 0."""

NEAR = 0.1
"""Steps that change the criterion by less than this tell of its curvature."""

ARMIJO = 1e-4
"""Part of the decrease promised by the slope that a step has to bring."""

HALVINGS = 30


class Solver(Protocol):
    """A way to step.

    max_iter : default limit of iterations
    """

    max_iter: int

    def step(self, point: Point) -> Point | None:
        """Return a point with a lower criterion, or None if there is none."""

    def nearly_done(self, before: Point, after: Point) -> bool:
        """Say whether it is worth computing the decrement."""


class Curvature:
    """The Hessian for Newton steps.

    Where there is average information only, steps would converge linearly.
    What it lacks is learnt from the gradients on the way, as in the structured
    secant method of Dennis, Gay and Welsch (1981), ACM TOMS 7: 348-368: C with
    (H + C) s = y for the last step s and change y of the gradient, by a
    symmetric rank-one update.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, after a jump to somewhere else."""
        self._lacking = np.zeros((0, 0))
        self._last: Point | None = None
        self._step: tuple[Point, FloatArray] | None = None

    def step(self, point: Point) -> FloatArray:
        """Return -|H|^-1 g, the eigenvalues of H made positive and bounded below."""
        if self._step is None or self._step[0] is not point:
            self._step = point, self._new_step(point)
        return self._step[1]

    def _new_step(self, point: Point) -> FloatArray:
        w, U = np.linalg.eigh(self._hessian(point))
        w = np.abs(w)
        floor = max(1e-8 * w.max(initial=0.0), np.finfo(float).tiny)
        step = -U @ ((U.T @ point.gradient) / np.maximum(w, floor))
        # Rounding in U must not move variances that have been put at zero.
        resting = (point.theta == 0.0) & (point.gradient == 0.0)
        return np.where(resting, 0.0, step)

    def decrement(self, point: Point) -> float:
        """Return g'|H|^-1 g, twice the decrease that a Newton step expects."""
        return float(-point.gradient @ self.step(point))

    def _hessian(self, point: Point) -> FloatArray:
        if len(self._lacking) != len(point.theta):
            self._lacking = np.zeros_like(point.hessian)
        if point.forms.traces is None and point is not self._last:
            if self._last is not None:
                self._learn(self._last, point)
            self._last = point
        return point.hessian + self._lacking

    def _learn(self, before: Point, after: Point) -> None:
        s = after.theta - before.theta
        if ((after.theta == 0.0) & (s != 0.0)).any():
            # On the boundary other parameters do not mix with those at zero.
            self._lacking = np.zeros_like(self._lacking)
            return
        if abs(float(before.gradient @ s)) > NEAR:
            return
        y = after.gradient - before.gradient
        self._lacking = self._lacking * self._sizing(s, y - after.hessian @ s)
        rest = y - (after.hessian + self._lacking) @ s
        self._lacking = self._lacking + secant(rest, s)

    def _sizing(self, s: FloatArray, lacking: FloatArray) -> float:
        """Return a factor that shrinks what was learnt where it no longer holds."""
        learnt = float(s @ self._lacking @ s)
        return min(1.0, abs(float(s @ lacking) / learnt)) if learnt else 1.0


class Newton:
    """Newton steps on the exact Hessian or on average information.

    Where the exact Hessian is at hand, the first step is one of Fisher scoring
    in Psi: far from the optimum it goes further in the right direction than a
    step in theta, of which Psi is a square.
    """

    max_iter = 100

    def __init__(self, curvature: Curvature) -> None:
        self._curvature = curvature
        self._em = EM()
        self._first = True

    def step(self, point: Point) -> Point | None:
        if self._first and point.forms.traces is not None:
            self._first = False
            scored = lower_at(point, scoring_step(point))
            if scored is not None:
                return scored
        step = capped(self._curvature.step(point), point.theta)
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
        step = capped(self._direction(point.gradient), point.theta)
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
    every = 20
    settling = 5
    small = 1e-2

    def __init__(self) -> None:
        self._steps = 0

    def step(self, point: Point) -> Point | None:
        self._steps += 1
        new = self._descend(point)
        if self._steps % self.every == 0:
            new = self._without_small(new or point) or new
        return new

    def _descend(self, point: Point) -> Point | None:
        new = lower_at(point, self._update(point, expand=True))
        return new or lower_at(point, self._update(point, expand=False))

    def _without_small(self, point: Point) -> Point | None:
        """Return a lower point with small variances at zero, if there is one.

        The other parameters are given some steps to settle.
        """
        theta = without_small(point, self.small)
        if np.array_equal(theta, point.theta):
            return None
        new = try_at(point, theta)
        for _ in range(self.settling):
            if new is None or new.deviance < point.deviance:
                return new
            new = self._descend(new)
        return new if new is not None and new.deviance < point.deviance else None

    def nearly_done(self, before: Point, after: Point) -> bool:
        return before.deviance - after.deviance < 1e-4

    def _update(self, point: Point, *, expand: bool) -> FloatArray:
        theta = point.theta.copy()
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


def scoring_step(point: Point) -> FloatArray:
    """Return theta after a step of Fisher scoring in the covariances.

    Psi + sum_m x_m A_m with T x = -gradient, T the expectation of the Hessian
    in the directions A_m: tr(A_m Q A_l Q) - v'A_m v v'A_l v / N.
    """
    forms, criterion = point.forms, point.criterion
    assert forms.traces is not None
    k = criterion.n_parameters
    expected = (forms.traces - point.profiled)[:k, :k]
    x = np.linalg.lstsq(expected, -point.gradient[:k])[0]
    theta = point.theta.copy()
    for term, place, part in criterion.terms():
        L = point.L[term.factor][place, place]
        dL = term.structure.derivative(point.theta[part], term.q)
        change = np.tensordot(x[part], dL, 1) @ L.T
        w, U = np.linalg.eigh(L @ L.T + change + change.T)
        root = U * np.sqrt(np.maximum(w, SCORING_FLOOR))
        theta[part] = term.structure.parameters(root)
    return theta


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


def secant(rest: FloatArray, s: FloatArray) -> FloatArray:
    """Return the symmetric matrix of rank one that maps s to `rest`.

    0 where the two are all but orthogonal, and it would be anything.
    """
    along = float(rest @ s)
    if abs(along) > 1e-8 * np.linalg.norm(rest) * np.linalg.norm(s):
        return np.outer(rest, rest) / along
    return np.zeros((len(s), len(s)))


def capped(step: FloatArray, theta: FloatArray) -> FloatArray:
    """Shorten a step to at most 2 max(1, |theta|)."""
    longest = 2.0 * max(1.0, float(np.linalg.norm(theta)))
    length = float(np.linalg.norm(step))
    return step if length <= longest else step * (longest / length)


def try_at(point: Point, theta: FloatArray) -> Point | None:
    """Return the criterion at theta, or None where it cannot be computed.

    V at the point is given up for V at theta: a large one is held once only.
    """
    point.release()
    try:
        # A step may go where numbers overflow; then it is simply too long.
        with np.errstate(over="ignore", invalid="ignore"):
            new = point.criterion.at(theta)
    except np.linalg.LinAlgError:
        return None
    return new if np.isfinite(new.deviance) else None


def lower_at(point: Point, theta: FloatArray) -> Point | None:
    """Return the criterion at theta if it is lower than at the point."""
    new = try_at(point, theta)
    return new if new is not None and new.deviance < point.deviance else None


def _line_search(point: Point, step: FloatArray) -> Point | None:
    """Halve the step until the criterion decreases enough (Armijo)."""
    slope = float(point.gradient @ step)
    fraction = 1.0
    for _ in range(HALVINGS):
        new = try_at(point, point.theta + fraction * step)
        if new is not None:
            decrease = point.deviance - new.deviance
            if decrease > 0 and decrease >= -ARMIJO * fraction * slope:
                return new
            new.release()
        fraction *= 0.5
    return None


SOLVERS: dict[str, Callable[[Curvature], Solver]] = {
    "newton": Newton,
    "lbfgs": lambda _: LBFGS(),
    "em": lambda _: EM(),
}
