"""The criterion as a function of theta and of the errors' parameters u.

With J the inverse of the mixed-model equations, J_bb = C + E_b E_b' and so on
for E = [-U_X; I] R_X^-1, C the posterior covariance of b given beta, relative
to sigma^2, and e = [-b; -beta; 1] / sigma, a change dG of the cross-products
[Z X y]'R^-1[Z X y] and of log|R| changes the criterion by

    d log|R| + <C, dG_ZZ> + [REML] tr(E'dG E) + e'dG e.

In the notation of `criterion` the directions of u have v'A v = -e'dG e,
F'A v = -E'dG e and F'A F = -E'dG E; with x_i = [dG_i e]_Z, X_i = [dG_i E]_Z
the Hessian needs beside them

    v'AQA v: -x_i'C x_j for (i, j) in u, -v'A_m (Z'V^-1) x_j for m in theta,
    traces: tr(C dG_i C dG_j) + [REML] 2 <X_i, C X_j> + [REML] <E'dG_i E, E'dG_j E>,
        -tr(A_m E_L'dG_j E_L) + [REML] 2 <A_m F, (Z'V^-1) X_j> + [REML]
        <F'A_m F, -E'dG_j E>, where E_L = I - C Z'Z,
    curvature: d2 log|R| + <C, d2G_ZZ> + [REML] tr(E'd2G E) + e'd2G e.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_squares import ErrorSquares
from sklearn_lmm._engine.error_traces import Traces, traces_of
from sklearn_lmm._engine.errors import ErrorModel, Expansion
from sklearn_lmm._engine.factor import Forms, PerFactor, level_product
from sklearn_lmm._engine.strategy import choose_strategy
from sklearn_lmm._types import BoolArray, FloatArray


class ErrorCriterion(Criterion):
    """The criterion where the errors have parameters, close to some of them.

    model : the cross-products at other parameters
    expansion : those at hand, with linearly independent fixed-effect columns
    """

    def __init__(
        self, model: ErrorModel, expansion: Expansion, **settings: Any
    ) -> None:
        statistics = expansion.value
        super().__init__(statistics, choose_strategy(statistics), **settings)
        self.settings = settings
        self.model, self.expansion = model, expansion
        self.units += expansion.logdet

    def start(self) -> FloatArray:
        """Return theta from moments, followed by u."""
        return np.append(super().start(), self.expansion.u)

    def at(self, theta: FloatArray) -> Point:
        """Return the criterion at theta, followed by u."""
        theta = np.array(theta, dtype=np.float64)
        u = theta[self.n_parameters :]
        here = np.array_equal(u, self.expansion.u)
        return ErrorPoint(self if here else self.moved(u), theta)

    def moved(self, u: FloatArray) -> ErrorCriterion:
        """Return the criterion for other parameters of the errors."""
        return ErrorCriterion(self.model, self.model.at(u), **self.settings)


@dataclass(frozen=True, eq=False)
class FittedErrors:
    """What is known of the errors after a fit; the rows are not needed for it.

    model : the cross-products with all columns, at the optimum or anywhere
    u : (m,), the free parameters at the optimum
    values : all parameters on the user's scale, fixed ones included
    jacobian : (values, m), their derivatives by u
    limits : (values, 2), the ends of their ranges
    estimated : which of the values were estimated
    delta : (m,), the last parameters, those of the standard deviations
    sigma : the residual standard deviation if it is known, None if estimated
    plain : the cross-products of the rows as they are
    squares : what Kenward and Roger's method needs beside the model; None for a fit
        by maximum likelihood, and where it would be too large
    """

    model: ErrorModel
    u: FloatArray
    values: FloatArray
    jacobian: FloatArray
    limits: FloatArray
    estimated: BoolArray
    delta: FloatArray
    sigma: float | None
    plain: CrossProducts
    squares: ErrorSquares | None = None

    def criterion(self, kept: BoolArray, reml: bool) -> ErrorCriterion:
        """Return the criterion, at the optimum or very close to it."""
        model = self.model.select(kept)
        expansion = model.at(self.u)
        known = standardized_variance(self.sigma, expansion.value)
        return ErrorCriterion(model, expansion, reml=reml, sigma2=known)


@dataclass(frozen=True, eq=False)
class ErrorSizes:
    """The variances of the errors of new rows, relative to sigma^2.

    known : (n,), l_0; slopes : (n, m), W; the variance is exp(2 (l_0 + W delta))
    """

    errors: FittedErrors
    known: FloatArray
    slopes: FloatArray

    def estimated(self) -> FloatArray:
        """Return the variances (n,) at the optimum."""
        return self.at(self.errors.u)

    def at(self, u: FloatArray) -> FloatArray:
        """Return the variances (n,) at given free parameters."""
        delta = self.errors.delta.copy()
        of_C = len(self.errors.values) - len(delta)
        free = np.flatnonzero(self.errors.estimated) - of_C
        delta[free[free >= 0]] = u[free >= 0]
        return np.asarray(np.exp(2.0 * (self.known + self.slopes @ delta)))


def standardized_variance(
    sigma: float | None, statistics: CrossProducts
) -> float | None:
    """Return sigma^2 in standardised units."""
    return None if sigma is None else (sigma / float(statistics.columns.scale[-1])) ** 2


class ErrorPoint(Point):
    """The criterion at one (theta, u)."""

    criterion: ErrorCriterion

    @cached_property
    def gradient(self) -> FloatArray:
        """d deviance / d (theta, u)."""
        expansion = self.criterion.expansion
        of_u = [
            d + self._change(dG, gram)
            for d, dG, gram in zip(
                expansion.dlogdet, expansion.first, self.grams, strict=True
            )
        ]
        return np.append(super().gradient, of_u)

    @cached_property
    def forms(self) -> Forms:
        """What the Hessian is made of, for the directions of theta, then of u."""
        forms, p = super().forms, len(self.beta)
        grams = np.array(self.grams).reshape(-1, p + 1, p + 1)
        return Forms(
            vAv=np.append(forms.vAv, -grams[:, p, p]),
            FAv=np.concatenate([forms.FAv.reshape(-1, p), -grams[:, :p, p]]),
            vAQAv=self._blocks(forms.vAQAv, *self._vAQAv()),
            traces=self._with_errors(forms.traces) if self.traces_of_Z.exact else None,
        )

    @cached_property
    def hessian(self) -> FloatArray:
        """d2 deviance / d(theta, u) d(theta, u)', exact up to differences.

        Without the traces, which need C as one matrix, by central differences of
        the gradient.
        """
        known = self.forms.traces
        return self._differences() if known is None else self._hessian(known)

    @property
    def changes_of_effects(self) -> PerFactor:
        """db / d(theta, u) / sigma for a beta that is kept: C [dG_j e]_Z for u."""
        of_errors = [_last(Cx) for _, Cx in self.projected]
        return tuple(
            np.concatenate([change, *(Cx[f] for Cx in of_errors)], axis=2)
            for f, change in enumerate(super().changes_of_effects)
        )

    @property
    def changes_of_H(self) -> FloatArray:
        """-dH (m, p, p) for X whitened: F'A_m F, and -E'dG_j E for u."""
        p = len(self.beta)
        of_errors = -np.array(self.grams).reshape(-1, p + 1, p + 1)[:, :p, :p]
        return np.concatenate([super().changes_of_H, of_errors])

    def _structure_curvature(self) -> FloatArray:
        expansion, k = self.criterion.expansion, self.criterion.n_parameters
        curvature = np.zeros((len(self.theta), len(self.theta)))
        curvature[:k, :k] = super()._structure_curvature()
        for i, row in enumerate(expansion.second):
            for j, d2G in enumerate(row[: i + 1]):
                value = self._change(d2G, self.gram(d2G))
                value += expansion.d2logdet[i, j]
                curvature[k + i, k + j] = curvature[k + j, k + i] = value
        return curvature

    @cached_property
    def _E(self) -> tuple[FloatArray, PerFactor]:
        """[E e]: its rows for T (p + 1, p + 1), and for b (G, q, p + 1)."""
        p = len(self.beta)
        top = np.zeros((p + 1, p + 1))
        top[:p, :p] = self.inverse_R_X
        top[:, p] = self.residual / np.sqrt(self.sigma2)
        return top, tuple(-(U @ top) for U in self.U)

    def _image(self, dG: CrossProducts) -> tuple[FloatArray, PerFactor]:
        """Return dG [E e], in the rows of T and in those of b."""
        top, below = self._E
        of_T = dG.tt @ top
        for b, E in zip(dG.b, below, strict=True):
            of_T = of_T + level_product(b, E)
        of_b = tuple(
            b @ top + rest for b, rest in zip(dG.b, dG.ztz(below), strict=True)
        )
        return of_T, of_b

    def _gram(self, of_T: FloatArray, of_b: PerFactor) -> FloatArray:
        """Return [E e]'dG [E e] from dG [E e]."""
        top, below = self._E
        gram = top.T @ of_T
        for E, image in zip(below, of_b, strict=True):
            gram = gram + level_product(E, image)
        return gram

    def gram(self, dG: CrossProducts) -> FloatArray:
        """Return [E e]'dG [E e] (p + 1, p + 1)."""
        return self._gram(*self._image(dG))

    @cached_property
    def images(self) -> list[tuple[FloatArray, PerFactor]]:
        """dG_j [E e] for every parameter, in the rows of T and in those of b."""
        return [self._image(dG) for dG in self.criterion.expansion.first]

    @cached_property
    def grams(self) -> list[FloatArray]:
        """[E e]'dG_j [E e] (p + 1, p + 1) for every parameter of the errors."""
        return [self._gram(*image) for image in self.images]

    def _change(self, dG: CrossProducts, gram: FloatArray) -> float:
        """Return <C, dG_ZZ> + [REML] tr(E'dG E) + e'dG e."""
        change = self.traces_of_Z.inner(dG) + gram[-1, -1]
        if self.criterion.reml:
            change += float(np.trace(gram[:-1, :-1]))
        return float(change)

    @cached_property
    def traces_of_Z(self) -> Traces:
        """Traces with C and dG_ZZ."""
        return traces_of(self.state, self.criterion.statistics)

    @cached_property
    def projected(self) -> list[tuple[PerFactor, PerFactor]]:
        """Z'V^-1 x and C x for x = [dG_j (E e)]_Z."""
        return [self.state.project(of_b) for _, of_b in self.images]

    def _vAQAv(self) -> tuple[FloatArray, FloatArray]:
        """Return the blocks (theta, u) and (u, u) of v'AQA v."""
        Av = self.changes_of_v
        mixed = [
            -_inner(Av, tuple(x[:, :, -1:] for x in ZVx)) for ZVx, _ in self.projected
        ]
        own = [
            [-_inner(_last(x), _last(Cy))[0] for _, Cy in self.projected]
            for _, x in self.images
        ]
        return _columns(mixed, self.criterion.n_parameters), _square(own)

    def _traces(self) -> FloatArray | None:
        """Return None: where there are traces `forms` has them."""
        return None

    def _with_errors(self, of_theta: FloatArray | None) -> FloatArray | None:
        """Return the traces of all directions, given those of theta if known."""
        of_theta = super()._traces() if of_theta is None else of_theta
        if of_theta is None:
            return None
        first = self.criterion.expansion.first
        mixed = -self.traces_of_Z.mixed(self.directions(), first)
        own = self.traces_of_Z.pairs(first)
        if self.criterion.reml:
            mixed = mixed + self._mixed_by_beta()
            own = own + self._own_by_beta()
        return self._blocks(of_theta, mixed, own)

    def _mixed_by_beta(self) -> FloatArray:
        p = len(self.beta)
        mixed = np.zeros((self.criterion.n_parameters, len(self.grams)))
        for m, direction in enumerate(self.directions()):
            F = self.F[direction.factor]
            AF = direction.A @ F
            FAF = level_product(F, AF)
            for j, (ZVx, _) in enumerate(self.projected):
                x = ZVx[direction.factor][:, :, :p]
                mixed[m, j] = 2.0 * np.vdot(AF, x) - np.vdot(FAF, self.grams[j][:p, :p])
        return mixed

    def _own_by_beta(self) -> FloatArray:
        p = len(self.beta)
        own = [
            [
                np.vdot(gram[:p, :p], other[:p, :p]) + 2.0 * _product(x, Cy, p)
                for other, (_, Cy) in zip(self.grams, self.projected, strict=True)
            ]
            for gram, (_, x) in zip(self.grams, self.images, strict=True)
        ]
        return _square(own)

    def _blocks(
        self, of_theta: FloatArray, mixed: FloatArray, own: FloatArray
    ) -> FloatArray:
        k = self.criterion.n_parameters
        return np.block([[of_theta.reshape(k, k), mixed], [mixed.T, own]])


def _product(a: PerFactor, b: PerFactor, p: int) -> float:
    """Return the sum of products of the first p columns."""
    pairs = zip(a, b, strict=True)
    return float(sum(np.vdot(x[:, :, :p], y[:, :, :p]) for x, y in pairs))


def _last(x: PerFactor) -> PerFactor:
    return tuple(x_f[:, :, -1:] for x_f in x)


def _inner(a: PerFactor, b: PerFactor) -> FloatArray:
    """Return sum over factors and levels of a_m'b (m,) for a (G, q, m), b (G, q, 1)."""
    total = np.zeros(a[0].shape[2] if a else 1)
    for a_f, b_f in zip(a, b, strict=True):
        total = total + level_product(a_f, b_f)[:, 0]
    return total


def _columns(columns: list[FloatArray], height: int) -> FloatArray:
    if not height:
        return np.zeros((0, len(columns)))
    return np.array(columns).reshape(len(columns), height).T


def _square(rows: list[list[Any]]) -> FloatArray:
    square = np.array(rows, float).reshape(len(rows), len(rows))
    return np.asarray(0.5 * (square + square.T))
