"""The profiled (restricted) likelihood as a function of theta.

With V, H = X'V^-1X, beta = H^-1 X'V^-1y, r2 = (y - X beta)'V^-1 (y - X beta) and
N = n (ML) or n - p (REML), in lme4's convention,

    -2 log L = log|V| + [REML] log|H| + N (1 + log(2 pi r2 / N)) - sum log w,

the last term for precision weights only.  (With sigma known,
log|V| + [REML] log|H| + N log(2 pi sigma^2) + r2 / sigma^2, and sigma^2 in place
of r2 / N below.)  With v = Z'V^-1 (y - X beta),
F = Z'V^-1 X, Q = Z'V^-1 Z, and for every factor

    D = sum_g [Q]_gg - [REML] sum_g F_g H^-1 F_g' - (N / r2) sum_g v_g v_g',

the gradient is d/dtheta_m = 2 <D L, dL_m>, and the Hessian
h(A_m, A_l) + 2 <D, dL_m dL_l'> + 2 <D L, d2L_ml> with A_m = dL_m L' + L dL_m' and

    h = 2 (N / r2) A_m v' Z'PZ A_l v - N (v'A_m v) (v'A_l v) / r2^2 - t_ml,

t = tr(A_m Q A_l Q), with Z'PZ for Q under REML.  Average information puts
(N / r2) v'A_m Z'PZ A_l v, whose expectation it has, for t.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Term
from sklearn_lmm._engine.factor import (
    Direction,
    Factored,
    Forms,
    PerFactor,
    Strategy,
    changes_of,
    level_product,
)
from sklearn_lmm._engine.linalg import (
    consecutive,
    inverse_lower,
    row_gram,
    symmetrize,
    times_columns,
)
from sklearn_lmm._engine.start import moment_roots
from sklearn_lmm._engine.traces import (
    fixed_part_changes,
    reml_traces,
    trace_products,
)
from sklearn_lmm._types import FloatArray

ROUNDING = 1e-16
"""Least residual variance, in units of y's: nothing below can be told from 0."""

DIFFERENCE = 1e-5
"""Relative step of central differences by theta."""


class Criterion:
    """-2 log L (ML) or -2 log restricted L (REML), in the user's units.

    statistics : cross-products with linearly independent fixed-effect columns
    frequency : whether weights count rows (N is their sum) or scale precisions
    sigma2 : the residual variance in standardised units, None if it is estimated
    """

    def __init__(
        self,
        statistics: CrossProducts,
        strategy: Strategy,
        *,
        reml: bool,
        frequency: bool = True,
        sigma2: float | None = None,
    ) -> None:
        self.statistics, self.strategy, self.reml = statistics, strategy, reml
        self.frequency, self.sigma2 = frequency, sigma2
        self.n_obs = statistics.sum_weights if frequency else float(statistics.n_rows)
        self.N = self.n_obs - statistics.p * reml
        to_units = np.diag(statistics.columns.map())
        self.units = -2.0 * self.N * np.log(to_units[-1])
        if reml:
            self.units -= 2.0 * np.log(to_units[:-1]).sum()
        if not frequency:
            self.units -= statistics.sum_log_weights
        sizes = [term.structure.n_parameters(term.q) for term in statistics.terms]
        self.parameters = consecutive(sizes)

    @property
    def n_parameters(self) -> int:
        return self.parameters[-1].stop if self.parameters else 0

    def start(self) -> FloatArray:
        """Return theta of the covariances that moments suggest."""
        theta = np.zeros(self.n_parameters)
        if len(theta):
            roots = moment_roots(self.statistics)
            for term, place, part in self.terms():
                theta[part] = term.structure.parameters(roots[term.factor][place])
        return theta

    def factors(self, theta: FloatArray) -> PerFactor:
        """Return L_f (q_f, q_f) of every factor, block-diagonal over its terms."""
        statistics = self.statistics
        L = [np.zeros((s.shape[1], s.shape[1])) for s in statistics.s]
        for term, place, part in self.terms():
            L[term.factor][place, place] = term.structure.factor(theta[part], term.q)
        return tuple(L)

    def using(self, strategy: Strategy) -> Criterion:
        """Return the same criterion by another strategy."""
        other = copy.copy(self)
        other.strategy = strategy
        return other

    def at(self, theta: FloatArray) -> Point:
        """Return the criterion at theta; derivatives are computed when asked for."""
        return Point(self, np.array(theta, dtype=np.float64))

    def terms(self) -> Iterator[tuple[Term, slice, slice]]:
        """Yield (term, its columns within its factor, its parameters)."""
        return zip(
            self.statistics.terms,
            self.statistics.slices,
            self.parameters,
            strict=True,
        )


def _size_of_response(statistics: CrossProducts, N: float) -> float:
    """Return what r2 is to be compared with: y'R^-1 y, about N with R = I."""
    return min(N, float(statistics.tt[-1, -1])) or N


class Point:
    """The criterion at one theta, with what else is known there.

    beta : (p,) fixed effects, standardised
    inverse_R_X : (p, p), upper triangular, with H^-1 = R_X^-1 R_X^-T
    logdet_H : log|H|
    r2 : weighted residual sum of squares plus |u|^2
    """

    def __init__(self, criterion: Criterion, theta: FloatArray) -> None:
        self.criterion, self.theta = criterion, theta
        statistics = criterion.statistics
        self.L = criterion.factors(theta)
        gram = symmetrize(statistics.tt - self.explained())
        root = np.asarray(np.linalg.cholesky(gram[:-1, :-1]), float)
        self.logdet_H = 2.0 * float(np.log(np.diag(root)).sum())
        self.inverse_R_X = inverse_lower(root).T
        self.beta = self.inverse_R_X @ (self.inverse_R_X.T @ gram[:-1, -1])
        residual = np.append(-self.beta, 1.0)
        self.r2 = max(
            float(residual @ gram @ residual),
            ROUNDING * _size_of_response(statistics, criterion.N),
        )
        self.residual = residual

    @cached_property
    def state(self) -> Factored:
        """V, as the strategy factorizes it."""
        return self.criterion.strategy.factorize(self.L)

    def release(self) -> None:
        """Give back the memory of V; it is made again if asked for."""
        self.__dict__.pop("state", None)

    @cached_property
    def _solved(self) -> tuple[PerFactor, PerFactor]:
        return self.state.project(self.criterion.statistics.b)

    @property
    def ZVT(self) -> PerFactor:
        """Z'V^-1 T: (G, q, p + 1) of every factor."""
        return self._solved[0]

    @property
    def U(self) -> PerFactor:
        """Psi Z'V^-1 T: (G, q, p + 1) of every factor."""
        return self._solved[1]

    def explained(self) -> FloatArray:
        """Return T'Z Psi Z'V^-1 T (p + 1, p + 1), T'T less which is T'V^-1 T."""
        b = self.criterion.statistics.b
        gram = np.zeros_like(self.criterion.statistics.tt)
        for b_f, U_f in zip(b, self.U, strict=True):
            gram += level_product(b_f, U_f)
        return gram

    def effects(self, residual: FloatArray) -> PerFactor:
        """Return Psi Z'V^-1 T r (G, q) of every factor for r (p + 1,)."""
        return tuple(U @ residual for U in self.U)

    @property
    def sigma2(self) -> float:
        """The residual variance, in standardised units."""
        known = self.criterion.sigma2
        return self.r2 / self.criterion.N if known is None else known

    @cached_property
    def deviance(self) -> float:
        """The criterion."""
        N, sigma2 = self.criterion.N, self.sigma2
        value = self.state.logdet + self.r2 / sigma2
        value += N * np.log(2.0 * np.pi * sigma2)
        if self.criterion.reml:
            value += self.logdet_H
        return float(value + self.criterion.units)

    @cached_property
    def v(self) -> PerFactor:
        """Z'V^-1 (y - X beta) / sigma: (G, q) of every factor."""
        weights = self.residual[:, None] / np.sqrt(self.sigma2)
        return tuple(times_columns(zvt, weights)[:, :, 0] for zvt in self.ZVT)

    @cached_property
    def F(self) -> PerFactor:
        """Z'V^-1 X R_X^-1: (G, q, p) of every factor."""
        return tuple(times_columns(zvt, self.root) for zvt in self.ZVT)

    @property
    def root(self) -> FloatArray:
        """R_X^-1 with a row of zeros for y: T root = X R_X^-1 (p + 1, p)."""
        return np.append(self.inverse_R_X, np.zeros((1, len(self.beta))), axis=0)

    @cached_property
    def D(self) -> PerFactor:
        """The derivative of the criterion by Psi, one (q, q) per factor."""
        blocks = []
        for Q, F, v in zip(self.state.block_sums(), self.F, self.v, strict=True):
            D = Q - v.T @ v
            blocks.append(D - row_gram(F) if self.criterion.reml else D)
        return tuple(blocks)

    @cached_property
    def gradient(self) -> FloatArray:
        """d deviance / d theta."""
        gradient = np.empty(self.criterion.n_parameters)
        for term, place, part in self.criterion.terms():
            D, L = self.D[term.factor], self.L[term.factor]
            dL = term.structure.derivative(self.theta[part], term.q)
            gradient[part] = 2.0 * _inner(dL, (D @ L)[place, place])
        return gradient

    @property
    def gradient_norm(self) -> float:
        return float(np.linalg.norm(self.gradient))

    @cached_property
    def hessian(self) -> FloatArray:
        """d2 deviance / d theta d theta', or average information for its h."""
        return self._hessian(self.forms.traces)

    @property
    def profiled(self) -> FloatArray:
        """What estimating sigma takes from the Hessian: v'A v (v'A v)' / N."""
        vAv = self.forms.vAv
        if self.criterion.sigma2 is not None:
            return np.zeros((len(vAv), len(vAv)))
        return np.outer(vAv, vAv) / self.criterion.N

    @cached_property
    def observed_hessian(self) -> FloatArray:
        """d2 deviance / d theta d theta', exact.

        By central differences of the gradient, right to about 1e-7, if the
        strategy cannot tell the traces; with estimated traces it is the average
        information instead.
        """
        exact = self.forms.traces is not None or not self.criterion.strategy.exact
        if exact or not len(self.theta):
            return self.hessian
        traces = self._traces()
        return self._differences() if traces is None else self._hessian(traces)

    def _hessian(self, traces: FloatArray | None) -> FloatArray:
        """Return the Hessian, with average information in place of no traces."""
        forms = self.forms
        vAPAv = forms.vAQAv - forms.FAv @ forms.FAv.T
        t = vAPAv if traces is None else traces
        h = 2.0 * vAPAv - self.profiled - t
        return h + self._structure_curvature()

    def _traces(self) -> FloatArray | None:
        """Return tr(A_m Q A_l Q), with Z'PZ for Q under REML."""
        directions = self.directions()
        if not self.criterion.reml:
            return trace_products(self.state, directions)
        return reml_traces(self.state, self.criterion.statistics, self.F, directions)

    def _differences(self) -> FloatArray:
        columns = []
        for m, value in enumerate(self.theta):
            step = np.zeros_like(self.theta)
            step[m] = DIFFERENCE * max(1.0, abs(value))
            above = self.criterion.at(self.theta + step).gradient
            below = self.criterion.at(self.theta - step).gradient
            columns.append((above - below) / (2.0 * step[m]))
        return symmetrize(np.array(columns))

    @cached_property
    def forms(self) -> Forms:
        """What the Hessian is made of."""
        return self.state.forms(self.F, self.v, self.directions(), self.criterion.reml)

    @property
    def changes_of_v(self) -> PerFactor:
        """A_m v (G, q, m) of every factor, zero but for the factor of A_m."""
        return changes_of(self.v, self.directions())

    @property
    def changes_of_effects(self) -> PerFactor:
        """(I - C Z'Z) A_m v (G, q, m): db / dtheta_m / sigma, beta kept."""
        Av = self.changes_of_v
        _, CZtZAv = self.state.project(self.criterion.statistics.ztz(Av))
        return tuple(a - c for a, c in zip(Av, CZtZAv, strict=True))

    @property
    def changes_of_H(self) -> FloatArray:
        """F'A_m F (m, p, p): with X whitened, -dH, and what H^-1 changes by."""
        p = len(self.beta)
        return fixed_part_changes(self.F, self.directions()).reshape(-1, p, p)

    def directions(self) -> list[Direction]:
        """Return A_m = dL_m L' + L dL_m' for every parameter."""
        directions = []
        for term, place, part in self.criterion.terms():
            L = self.L[term.factor]
            for dL in term.structure.derivative(self.theta[part], term.q):
                A = np.zeros_like(L)
                A[place, place] = dL @ L[place, place].T
                directions.append(Direction(term.factor, A + A.T))
        return directions

    def _structure_curvature(self) -> FloatArray:
        """Return 2 <D, dL_m dL_l'> + 2 <D L, d2L_ml> within every term."""
        k = self.criterion.n_parameters
        curvature = np.zeros((k, k))
        for term, place, part in self.criterion.terms():
            D, L = self.D[term.factor], self.L[term.factor]
            theta = self.theta[part]
            dL = term.structure.derivative(theta, term.q)
            block = _inner(dL, D[place, place] @ dL)
            second = term.structure.second_derivative(theta, term.q)
            if second is not None:
                block = block + _inner(second, (D @ L)[place, place])
            curvature[part, part] = 2.0 * block
        return curvature


def _inner(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return <a_m, b_l> for matrices a (..., q, q) and b (..., q, q).

    As a product of vectors: for matrices this small `tensordot` is all overhead.
    """
    q = b.shape[-1]
    left = a.reshape(*a.shape[:-2], q * q)
    return np.asarray(left @ b.reshape(*b.shape[:-2], q * q).T)
