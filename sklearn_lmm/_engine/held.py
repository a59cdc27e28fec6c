"""Coordinates of the likelihood in which one parameter can be held fixed.

The likelihood is a function of x = (theta, lam = log sigma), or (theta, lam, c)
where a combination c = l'beta of fixed effects is held too:

    f(x) = log|V| + N (log 2 pi + 2 lam) + exp(-2 lam) r2,
    r2 = min over beta of (y - X beta)'V^-1 (y - X beta), subject to l'beta = c,

which is r2_min + (c - l'betahat)^2 / l'H^-1 l (Lagrange), at
beta = betahat + H^-1 l (c - l'betahat) / l'H^-1 l.

sigma, and l'beta, are entries of x.  For a standard deviation or a correlation
the term's factor is written anew, as

    L = t (cos(w) M_1 + sin(w) M_2) + sum_m x_m E_m,

so that t is the standard deviation relative to sigma, or w the angle that the
correlation is the sine of.  Any value of x is allowed: t = 0 and w = +-pi/2,
where a covariance becomes singular, are ordinary points.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.variance_parameters import VarianceParameter
from sklearn_lmm._types import FloatArray
from sklearn_lmm.covariance import (
    CompoundSymmetry,
    Covariance,
    Diagonal,
    Identity,
    Unstructured,
)


@dataclass(frozen=True, eq=False)
class PolarFactor:
    """L = t (cos(w) M_1 + sin(w) M_2) + sum_m x_m E_m as a function of (t, w, x).

    plane : (2, q, q), or (1, q, q) without w: L = t M_1 + ...
    rest : (m, q, q)
    """

    plane: FloatArray
    rest: FloatArray

    @property
    def n_leading(self) -> int:
        return len(self.plane)

    def n_parameters(self, q: int) -> int:
        return len(self.plane) + len(self.rest)

    def factor(self, theta: FloatArray, q: int) -> FloatArray:
        direction, _ = self._direction(theta)
        rest = np.tensordot(theta[self.n_leading :], self.rest, 1)
        return np.asarray(theta[0] * direction + rest)

    def derivative(self, theta: FloatArray, q: int) -> FloatArray:
        direction, turned = self._direction(theta)
        leading = [direction, theta[0] * turned][: self.n_leading]
        return np.concatenate([np.array(leading), self.rest])

    def second_derivative(self, theta: FloatArray, q: int) -> FloatArray:
        direction, turned = self._direction(theta)
        m = self.n_parameters(q)
        second = np.zeros((m, m, q, q))
        if self.n_leading == 2:
            second[0, 1] = second[1, 0] = turned
            second[1, 1] = -theta[0] * direction
        return second

    def _direction(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return cos(w) M_1 + sin(w) M_2 and its derivative by w."""
        if self.n_leading == 1:
            return self.plane[0], np.zeros_like(self.plane[0])
        c, s = np.cos(theta[1]), np.sin(theta[1])
        M_1, M_2 = self.plane
        return c * M_1 + s * M_2, c * M_2 - s * M_1


@dataclass(frozen=True, eq=False)
class Held:
    """A likelihood with a parameter to hold, and the optimum in its coordinates.

    x : coordinates of the optimum
    index : the entry of x that is held
    times_sigma : whether a standard deviation is held, which is x[index] sigma
    bounds : of what is held
    contrast : l of l'beta, standardised, if the last entry of x is l'beta
    nonnegative : entries of x that must not be negative: with the sign of one of
        the two deviations that an angle belongs to, its correlation would turn
    """

    criterion: Criterion
    x: FloatArray
    index: int
    times_sigma: bool = False
    bounds: tuple[float, float] = (-np.inf, np.inf)
    contrast: FloatArray | None = None
    nonnegative: tuple[int, ...] = ()

    @property
    def value(self) -> float:
        """What is held, at the optimum."""
        x = self.x[self.index]
        return float(x * np.exp(self.x[self._sigma]) if self.times_sigma else x)

    @property
    def _sigma(self) -> int:
        return -1 if self.contrast is None else -2

    def at(self, value: float, x: FloatArray) -> HeldPoint:
        """Return the likelihood at x, with the parameter held at a value."""
        x = x.copy()
        lam = float(x[self._sigma])
        x[self.index] = value * np.exp(-lam) if self.times_sigma else value
        if self.index == len(x) + self._sigma:
            lam = value
        return self._point(x, lam)

    def _point(self, x: FloatArray, lam: float) -> HeldPoint:
        return HeldPoint(self, self.criterion, x, lam)


class HeldPoint(Point):
    """The likelihood f at x (module docstring), a `Point` with sigma of its own.

    value_slope, slope : derivatives by what is held, and by the other entries
    """

    def __init__(
        self, held: Held, criterion: Criterion, x: FloatArray, log_sigma: float
    ) -> None:
        self.held, self.x, self.log_sigma = held, x, log_sigma
        super().__init__(criterion, x[: held._sigma])
        self._pull = 0.0
        if held.contrast is not None:
            self._hold(held.contrast, x[-1])
        N = self.criterion.N
        self.deviance = float(
            self.state.logdet
            + N * (np.log(2.0 * np.pi) + 2.0 * log_sigma)
            + self.r2 / self.sigma2
            + self.criterion.units
        )

    @property
    def sigma2(self) -> float:
        return float(np.exp(2.0 * self.log_sigma))

    def _hold(self, contrast: FloatArray, value: float) -> None:
        """Move beta to l'beta = value.

        The first column of inverse_R_X becomes the direction that is held, so
        that the first of F tells how V^-1-products change with the value.
        """
        a = self.inverse_R_X.T @ contrast
        Q, R = np.linalg.qr(a[:, None], mode="complete")
        self._length = float(R[0, 0])
        self._pull = float(value - contrast @ self.beta) / self._length**2
        self.beta = self.beta + self.inverse_R_X @ a * self._pull
        self.r2 += (self._pull * self._length) ** 2
        self.inverse_R_X = self.inverse_R_X @ Q
        self.residual = np.append(-self.beta, 1.0)

    def slope_and_curvature(self) -> tuple[FloatArray, FloatArray]:
        """Return gradient and Hessian of f by the entries of x.

        A held standard deviation s stands in place of x[index] = s exp(-lam).
        """
        m, N = len(self.theta), self.criterion.N
        forms, scaled = self.forms, self.r2 / self.sigma2
        free = forms.FAv if self.held.contrast is None else forms.FAv[:, 1:]
        vAPAv = forms.vAQAv - free @ free.T
        traces = vAPAv if forms.traces is None else forms.traces
        size = len(self.x)
        g, H = np.zeros(size), np.zeros((size, size))
        g[:m], g[m] = self.gradient, 2.0 * (N - scaled)
        H[:m, :m] = 2.0 * vAPAv - traces + self._structure_curvature()
        H[:m, m] = H[m, :m] = 2.0 * forms.vAv
        H[m, m] = 4.0 * scaled
        if self.held.contrast is not None:
            g[-1] = 2.0 * self._pull / self.sigma2
            # F is that of V^-1 X alone, v is divided by sigma.
            along = forms.FAv[:, :1].sum(axis=1)
            change = 2.0 * along / (self._length * np.sqrt(self.sigma2))
            H[:m, -1] = H[-1, :m] = change
            H[m, -1] = H[-1, m] = -2.0 * g[-1]
            H[-1, -1] = 2.0 / (self._length**2 * self.sigma2)
        return self._in_units_of_y(g, H) if self.held.times_sigma else (g, H)

    def _in_units_of_y(
        self, g: FloatArray, H: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Change from (t, lam) to (s, lam), s = t exp(lam)."""
        i, m = self.held.index, len(self.theta)
        shrink, t, by_t = np.exp(-self.log_sigma), self.x[i], g[i]
        J = np.eye(len(g))
        J[i, i], J[i, m] = shrink, -t
        H = J.T @ H @ J
        H[i, m] -= by_t * shrink
        H[m, i] -= by_t * shrink
        H[m, m] += by_t * t
        return J.T @ g, H


def hold_sigma(optimum: Point) -> Held:
    """Hold log sigma."""
    return Held(optimum.criterion, _coordinates(optimum), len(optimum.theta))


def hold_coordinate(optimum: Point, index: int) -> Held:
    """Hold an entry of theta itself."""
    return Held(optimum.criterion, _coordinates(optimum), index)


def hold_contrast(optimum: Point, contrast: FloatArray) -> Held:
    """Hold l'beta, for l (p,) and beta in standardised units."""
    x = np.append(_coordinates(optimum), contrast @ optimum.beta)
    return Held(optimum.criterion, x, len(x) - 1, contrast=contrast)


def hold_variance_parameter(optimum: Point, parameter: VarianceParameter) -> Held:
    """Hold a standard deviation, or the angle of a correlation, of a term.

    Raises
    ------
    NotImplementedError
        If the term's structure is not one of those known here.
    """
    criterion = optimum.criterion
    k = parameter.term
    term, place, part = list(criterion.terms())[k]
    R = criterion.statistics.blocks[k].map()
    L = R @ optimum.L[term.factor][place, place]
    polar, theta, bounds = _polar(term.structure, L, parameter)
    inverse = np.linalg.inv(R)
    polar = replace(polar, plane=inverse @ polar.plane, rest=inverse @ polar.rest)
    # The criterion asks a structure for these verbs only.
    terms = list(criterion.statistics.terms)
    terms[k] = replace(term, structure=cast(Covariance, polar))
    rewritten = copy.copy(criterion)
    rewritten.statistics = replace(criterion.statistics, terms=tuple(terms))
    x = _coordinates(optimum)
    x = np.concatenate([x[: part.start], theta, x[part.stop :]])
    if parameter.kind == "sd":
        return Held(rewritten, x, part.start, times_sigma=True, bounds=(0.0, np.inf))
    signed = (part.start, part.start + 2) if len(bounds) and bounds[0] < 0 else ()
    return Held(rewritten, x, part.start + 1, bounds=bounds, nonnegative=signed)


def correlation(structure: Covariance, q: int, angle: FloatArray) -> FloatArray:
    """Return the correlation of which an angle is held."""
    if isinstance(structure, CompoundSymmetry):
        return np.asarray(1.0 - q / (q - 1.0) * np.cos(angle) ** 2)
    return np.asarray(np.sin(angle))


def _coordinates(optimum: Point) -> FloatArray:
    return np.append(optimum.theta, 0.5 * np.log(optimum.sigma2))


def _polar(
    structure: Covariance, L: FloatArray, parameter: VarianceParameter
) -> tuple[PolarFactor, FloatArray, tuple[float, float]]:
    """Return the factor, its parameters, and the bounds of the angle."""
    kind, q = type(structure), len(L)
    deviations = np.linalg.norm(L, axis=1)
    if kind is Unstructured:
        return _polar_unstructured(L, parameter)
    if kind is Diagonal:
        basis = Diagonal().basis(q)
        (i,) = parameter.coefficients
        rest = np.delete(np.arange(q), i)
        theta = np.append(deviations[i], deviations[rest])
        return PolarFactor(basis[[i]], basis[rest]), theta, (0.0, 0.0)
    none = np.zeros((0, q, q))
    if kind is Identity or (kind is CompoundSymmetry and q == 1):
        return PolarFactor(np.eye(q)[None], none), deviations[:1], (0.0, 0.0)
    if kind is CompoundSymmetry:
        lengths = np.array([np.sqrt(q / (q - 1.0)), np.sqrt(q)])
        contrasts, mean = CompoundSymmetry().parameters(L) / lengths
        theta = np.array([deviations[0], np.arctan2(mean, contrasts)])
        plane = CompoundSymmetry().basis(q) * lengths[:, None, None]
        return PolarFactor(plane, none), theta, (0.0, 0.5 * np.pi)
    raise NotImplementedError(f"{kind.__name__} cannot be profiled")


def _polar_unstructured(
    L: FloatArray, parameter: VarianceParameter
) -> tuple[PolarFactor, FloatArray, tuple[float, float]]:
    """Take the coefficients concerned first: L is triangular in that order."""
    q, first = len(L), list(parameter.coefficients)
    order = [*first, *(i for i in range(q) if i not in first)]
    columns, rows = np.triu_indices(q)
    triangle = Unstructured().parameters(L[order])
    entries = np.zeros((len(rows), q, q))
    entries[np.arange(len(rows)), np.array(order)[rows], columns] = 1.0
    places = list(zip(rows.tolist(), columns.tolist(), strict=True))
    if parameter.kind == "sd":
        leading = [places.index((0, 0))]
        polar = triangle[leading]
    else:
        leading = [places.index((1, 1)), places.index((1, 0))]
        across, along = triangle[leading]
        polar = np.array([np.hypot(across, along), np.arctan2(along, across)])
    rest = [m for m in range(len(places)) if m not in leading]
    factor = PolarFactor(entries[leading], entries[rest])
    half_turn = (-0.5 * np.pi, 0.5 * np.pi)
    return factor, np.concatenate([polar, triangle[rest]]), half_turn
