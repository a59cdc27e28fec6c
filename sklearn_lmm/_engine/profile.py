"""Profile likelihood: the likelihood with one parameter held, at its best.

For a value v of the parameter f(v) is the least -2 log L, and

    zeta(v) = sign(v - vhat) sqrt(f(v) - f(vhat)),

the signed root of the likelihood-ratio statistic: a straight line where Wald
intervals are right (Bates and Watts 1988, Nonlinear Regression Analysis, 6.1).
By the envelope theorem d f / d v is the partial derivative at the minimum, so
that a handful of minimisations trace zeta, and Newton steps find its ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.held import Held, HeldPoint
from sklearn_lmm._engine.steps import HALVINGS, capped, secant
from sklearn_lmm._types import FloatArray, IntArray

STEP = 0.5
"""Distance of the points that are traced, in zeta."""

BEYOND = 0.03
"""How far to aim beyond the end, in zeta."""

FIRST = 0.1
"""First step where the likelihood is flat at the optimum, in units of x."""

GROWTH = 4.0
"""A step is at most so many times the one before."""

MOST_STEPS = 60

CLOSE = 1e-9
"""How near to the end in zeta."""

MINIMIZED = 1e-12
"""Decrement at which a minimum is reached, in deviance units."""

ESCAPED = 1e-9
"""How much lower a point must be that leads away from a saddle."""

LOWER = 1e-5
"""The optimum was none if the profile falls below it by more than this."""

LEVEL = 1e-6
"""Differences of zeta below this mean that the profile has become level."""

End = Literal["reached", "bound", "level", "flat", "lower"]


@dataclass(frozen=True, eq=False)
class Trace:
    """zeta by value, outwards from the estimate on both sides.

    values, zeta, slopes : (k,), values increasing; slopes are d zeta / d value
    ends : what ended the lower and the upper side: zeta was "reached"; the
        value is at its "bound", with a smaller zeta; zeta is "level" from here
        to the bound, as of a correlation with a coefficient of no variance; the
        likelihood is too "flat" to get there; a better optimum lies "lower" than
        the one started from
    """

    values: FloatArray
    zeta: FloatArray
    slopes: FloatArray
    ends: tuple[End, End]

    def reversed(self) -> Trace:
        """Return the profile by -value."""
        return Trace(
            -self.values[::-1],
            -self.zeta[::-1],
            self.slopes[::-1],
            (self.ends[1], self.ends[0]),
        )

    def value_at(self, zeta: float) -> float | None:
        """Return the outermost value where the profile has this zeta.

        Between the points zeta is the cubic with the right values and slopes.
        None if there is no such value, or if zeta is smaller again at the end.
        """
        if abs(zeta) <= CLOSE:
            return float(self.values[np.argmin(np.abs(self.zeta))])
        sign = np.sign(zeta)
        on_side = np.flatnonzero(sign * self.zeta >= 0.0)
        outwards = on_side if sign > 0 else on_side[::-1]
        height = sign * self.zeta[outwards]
        if height[-1] < abs(zeta) - CLOSE:
            return None
        below = np.flatnonzero(height < abs(zeta) - CLOSE)
        if below[-1] == len(outwards) - 1 or height[below[-1] + 1] <= abs(zeta) + CLOSE:
            return float(self.values[outwards[below[-1] + 1]])
        low, high = sorted(self.values[outwards[below[-1] : below[-1] + 2]])
        curve = CubicHermiteSpline(self.values, self.zeta, self.slopes)
        return float(brentq(lambda value: float(curve(value)) - zeta, low, high))


def trace_profile(held: Held, furthest: float) -> Trace:
    """Follow the profile to |zeta| = furthest on both sides, where it gets there."""
    best = _Place.of(held.at(held.value, held.x), held.value, None)
    low, ends_low = _follow(held, best, -1.0, furthest)
    high, ends_high = _follow(held, best, 1.0, furthest)
    places = [*low[::-1], best, *high]
    return Trace(
        values=np.array([place.value for place in places]),
        zeta=np.array([place.zeta for place in places]),
        slopes=np.array([place.rate for place in places]),
        ends=(ends_low, ends_high),
    )


@dataclass(frozen=True, eq=False)
class _Place:
    """A point of the profile; rate = d zeta / d value, change = d x / d value."""

    value: float
    x: FloatArray
    deviance: float
    zeta: float
    rate: float
    change: FloatArray

    @classmethod
    def of(cls, point: HeldPoint, value: float, best: _Place | None) -> _Place:
        g, H = point.slope_and_curvature()
        i = point.held.index
        free = np.arange(len(g)) != i
        change = np.zeros(len(g))
        change[free] = _newton(H[np.ix_(free, free)], H[free, i])
        if best is None:
            curvature = H[i, i] + H[i] @ change
            rate = float(np.sqrt(max(curvature, 0.0) / 2.0))
            return cls(value, point.x, point.deviance, 0.0, rate, change)
        rise = point.deviance - best.deviance
        zeta = float(np.sqrt(max(rise, 0.0)) * np.sign(value - best.value))
        rate = float(g[i] / (2.0 * zeta)) if zeta else best.rate
        return cls(value, point.x, point.deviance, zeta, rate, change)


def _follow(
    held: Held, best: _Place, sign: float, furthest: float
) -> tuple[list[_Place], End]:
    """Return the places on one side, outwards, and what ended them."""
    bound = held.bounds[int(sign > 0)]
    places: list[_Place] = []
    place, longest = best, np.inf
    for _ in range(MOST_STEPS):
        if abs(place.value - bound) <= 1e-14:
            return places, "bound"
        # A little too far is better: the end lies between two places then.
        ahead = min(STEP, furthest - abs(place.zeta) + BEYOND)
        step = ahead / place.rate if place.rate * FIRST > 1e-3 * STEP else FIRST
        step = sign * min(step, longest)
        new = _next(held, best, place, _bounded(place.value + step, bound, sign))
        if new is None:
            return places, "flat"
        if abs(new.zeta) >= furthest - CLOSE:
            new = _end(held, best, place, new, sign, furthest)
            lower = _elsewhere(held, best, new)
            if lower is None:
                return [*places, new], "reached"
            new = lower
        if new.deviance < best.deviance - LOWER:
            return places, "lower"
        gain = abs(new.zeta) - abs(place.zeta)
        if abs(gain) < LEVEL and np.isfinite(bound):
            return [*places, replace(new, value=bound, rate=0.0)], "level"
        if gain < 0.0:
            places = _relaid(held, best, places, new)
        longest = GROWTH * abs(new.value - place.value)
        place = new
        places.append(place)
    return places, "flat"


def _elsewhere(held: Held, best: _Place, place: _Place) -> _Place | None:
    """Return a lower point of the likelihood at the same value, if there is one.

    In small data there may be a second minimum, with covariances of another sign.
    """
    for m in range(held.criterion.n_parameters):
        if m == held.index or m in held.nonnegative or not place.x[m]:
            continue
        x = place.x.copy()
        x[m] = -x[m]
        point = minimum(held, place.value, x)
        if point is not None and point.deviance < place.deviance - LOWER:
            return _Place.of(point, place.value, best)
    return None


def _relaid(
    held: Held, best: _Place, places: list[_Place], lower: _Place
) -> list[_Place]:
    """Return places, the last ones moved to the lower minimum that was found."""
    kept = list(places)
    for k in range(len(kept) - 1, -1, -1):
        old = kept[k]
        point = minimum(held, old.value, lower.x)
        if point is None or point.deviance > old.deviance - LOWER:
            break
        kept[k] = lower = _Place.of(point, old.value, best)
    return kept


def _bounded(value: float, bound: float, sign: float) -> float:
    return min(value, bound) if sign > 0 else max(value, bound)


def _next(held: Held, best: _Place, place: _Place, value: float) -> _Place | None:
    """Return the profile at a value near a place; nearer if that is too far."""
    for _ in range(8):
        point = _minimum_near(held, value, place)
        if point is not None:
            new = _Place.of(point, value, best)
            if abs(new.zeta - place.zeta) <= 3.0 * STEP:
                return new
        value = place.value + 0.4 * (value - place.value)
    return None


def _end(
    held: Held,
    best: _Place,
    inside: _Place,
    outside: _Place,
    sign: float,
    furthest: float,
) -> _Place:
    """Return where |zeta| = furthest between two places: Newton, within bounds.

    Where zeta jumps, from one minimum to another, it is the first place outside.
    """
    place = outside
    for _ in range(MOST_STEPS):
        excess = abs(place.zeta) - furthest
        if abs(excess) <= CLOSE:
            return place
        if excess > 0:
            outside = place
        else:
            inside = place
        low, high = sorted((inside.value, outside.value))
        if high - low <= CLOSE * max(abs(low), abs(high)):
            break
        value = place.value - sign * excess / place.rate if place.rate > 0 else np.nan
        if not low < value < high:
            value = 0.5 * (low + high)
        near = min(inside, outside, key=lambda p: abs(p.value - value))
        point = _minimum_near(held, value, near)
        if point is None:
            break
        place = _Place.of(point, value, best)
    return outside


def _minimum_near(held: Held, value: float, place: _Place) -> HeldPoint | None:
    """Minimise the likelihood at a value, starting from a place of the profile.

    From where the minimum should have moved to, if that is not far: where a
    variance is 0 the likelihood is flat, and tells nothing of how x changes.
    """
    step = place.change * (value - place.value)
    if _norm(step) <= max(1.0, _norm(place.x)):
        point = minimum(held, value, place.x + step)
        if point is not None:
            return point
    return minimum(held, value, place.x)


def minimum(held: Held, value: float, x: FloatArray) -> HeldPoint | None:
    """Minimise the likelihood over all but the held parameter, from x.

    Newton steps on the eigenvalues' absolute values, halved until they descend;
    None if there is no such point to be found.
    """
    point = _at(held, value, x)
    if point is None:
        return None
    g, H = point.slope_and_curvature()
    lacking = np.zeros_like(H)
    for _ in range(MOST_STEPS):
        free = _free(held, point, g)
        step = np.zeros(len(x))
        step[free] = _newton((H + lacking)[np.ix_(free, free)], g[free])
        decrement = float(-g @ step)
        if decrement < MINIMIZED:
            lower = _escape(held, value, point, H + lacking, free)
            if lower is None:
                return point
        else:
            lower = _descend(held, value, point, step)
        if lower is None:
            # Rounding hides any further decrease.
            return point if decrement < 1e-6 else None
        before, moved = g, lower.x - point.x
        moved[held.index] = 0.0
        point = lower
        g, H = point.slope_and_curvature()
        if point.forms.traces is None:
            # Learnt as `steps.Curvature` does.
            lacking = lacking + secant(g - before - (H + lacking) @ moved, moved)
    return None


def _escape(
    held: Held, value: float, point: HeldPoint, H: FloatArray, free: IntArray
) -> HeldPoint | None:
    """Return a lower point if this one is a saddle, as where a variance is 0."""
    if not len(free):
        return None
    w, U = np.linalg.eigh(H[np.ix_(free, free)])
    if w[0] > -1e-8 * max(1.0, float(np.abs(w).max())):
        return None
    direction = np.zeros(len(H))
    direction[free] = U[:, 0]
    for length in 0.5 ** np.arange(12):
        for sign in (1.0, -1.0):
            new = _at(held, value, point.x + sign * length * direction)
            if new is not None and new.deviance < point.deviance - ESCAPED:
                return new
    return None


def _free(held: Held, point: HeldPoint, g: FloatArray) -> IntArray:
    """Return the entries of x to move: not those that push against 0."""
    free = np.ones(len(g), dtype=bool)
    free[held.index] = False
    for m in held.nonnegative:
        free[m] = point.x[m] > 0.0 or g[m] < 0.0
    return np.flatnonzero(free)


def _descend(
    held: Held, value: float, point: HeldPoint, step: FloatArray
) -> HeldPoint | None:
    step, fraction = capped(step, point.x), 1.0
    for _ in range(HALVINGS):
        new = _at(held, value, point.x + fraction * step)
        if new is not None and new.deviance < point.deviance:
            return new
        fraction *= 0.5
    return None


def _at(held: Held, value: float, x: FloatArray) -> HeldPoint | None:
    x = x.copy()
    x[list(held.nonnegative)] = np.maximum(x[list(held.nonnegative)], 0.0)
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            point = held.at(value, x)
    except np.linalg.LinAlgError:
        return None
    return point if np.isfinite(point.deviance) else None


def _newton(H: FloatArray, g: FloatArray) -> FloatArray:
    """Return -|H|^-1 g, eigenvalues bounded below."""
    if not len(g):
        return g
    w, U = np.linalg.eigh(H)
    w = np.maximum(np.abs(w), 1e-9 * np.abs(w).max())
    return np.asarray(-U @ ((U.T @ g) / w))


def _norm(x: FloatArray) -> float:
    return float(np.linalg.norm(x))


def contrast_in_engine(
    optimum: Point, contrast: FloatArray
) -> tuple[FloatArray, float]:
    """Return l and a shift such that (l'beta_s - shift) scale_y is a contrast.

    contrast : (p,) in the user's units; beta_s the engine's coefficients
    """
    R = optimum.criterion.statistics.columns.map()
    return R[:-1, :-1].T @ contrast, float(contrast @ R[:-1, -1])
