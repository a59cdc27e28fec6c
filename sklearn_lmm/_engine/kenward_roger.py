"""Kenward and Roger's tests of the fixed effects, from small matrices.

Let G_r be the derivatives of Cov(y) = sigma^2 V by its parameters, all in units
where sigma^2 = 1, and X whitened so that X'V^-1X = I.  The parameters are the
entries of each Psi in a basis A_r of its structure, which Cov(y) is linear in,
and the direction of V itself, that stands for sigma^2 (Z A_r Z' and V span what
Z A_r Z' and I do).  With F = Z'V^-1 X and Q = Z'V^-1 Z,

    P_r  = -X'V^-1 G_r V^-1 X              = -F'A_r F;         -I for V
    Q_rs =  X'V^-1 G_r V^-1 G_s V^-1 X     =  F'A_r Q A_s F;   F'A_r F, I
    T_rs =  tr(V^-1 G_r V^-1 G_s)          =  tr(A_r Q A_s Q); tr(A_r Q), n
    R_rs =  X'V^-1 (d2 Cov / dr ds) V^-1 X =  0 for linear structures,

    W = 2 I^-1,  I_rs = T_rs - 2 tr(Q_rs) + tr(P_r P_s),
    Lambda = sum W_rs (Q_rs - P_r P_s - R_rs / 4),  Cov(betahat) = I + 2 Lambda

(Kenward and Roger 1997, Biometrics 53: 983-997).  Structures that are not
linear in Psi are taken in their own parameters theta, with
R_rs = F'(d2 Psi / dr ds) F, and F'(d Psi / dr) F between theta and V.  Errors with
a residual structure have parameters too (`kenward_roger_errors`), which stand
between those of the random effects and V; there is no V where sigma is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.error_criterion import ErrorPoint
from sklearn_lmm._engine.error_squares import ErrorSquares
from sklearn_lmm._engine.factor import Direction
from sklearn_lmm._engine.information import split_inverse
from sklearn_lmm._engine.kenward_roger_errors import ErrorMatrices
from sklearn_lmm._engine.linalg import symmetrize
from sklearn_lmm._engine.traces import (
    fixed_part_changes,
    fixed_part_curvature,
    trace_products,
)
from sklearn_lmm._types import FloatArray

SINGULAR = 1e-10
"""Eigenvalues of the equilibrated information below this count as 0."""

SENSITIVE = 1e-6
"""Least part of P_r along a flat direction that matters."""

CLOSE_TO_2 = 1e-2
"""F is not scaled where its denominator degrees of freedom are this near 2."""


class KenwardRoger:
    """The adjusted covariance, degrees of freedom and scales at one point.

    Contrasts l (p,) are whitened: of R_X beta / sigma, whose covariance is I
    before the adjustment.

    squares : what else is needed of errors with a residual structure

    adjusted : (p, p), the adjusted covariance of R_X betahat / sigma

    Raises
    ------
    ValueError
        If traces are needed that the fit does not know, or a parameter of the errors
        lies at the end of its range.
    """

    def __init__(self, point: Point, squares: ErrorSquares | None = None) -> None:
        parameters = _parameters(point)
        errors = _of_errors(point, squares)
        P, Q = _fixed_part(point, parameters.directions, errors)
        T = _traces(point, parameters.directions, errors)
        if point.criterion.sigma2 is not None:
            P, Q, T = P[:-1], Q[:-1, :-1], T[:-1, :-1]
        information = (
            T - 2.0 * np.einsum("rsii->rs", Q) + np.einsum("rij,sji->rs", P, P)
        )
        inverse, self._flat = _equilibrated_inverse(symmetrize(information), np.diag(T))
        W = 2.0 * inverse
        Lambda = np.tensordot(W, Q, 2)
        Lambda -= np.einsum("rs,rij,sjk->ik", W, P, P, optimize=True)
        Lambda -= 0.25 * _curvature(point, parameters, errors, P, W)
        self.adjusted = np.eye(len(Lambda)) + 2.0 * symmetrize(Lambda)
        if errors is not None:
            _require_positive(self.adjusted)
        self._P, self._W = P, W

    def test(self, contrasts: FloatArray) -> tuple[float, float]:
        """Return (denominator df, scale) of F for independent contrasts L (q, p).

        scale F is compared with the F distribution, F = b'(L Adj L')^-1 b / q
        with b = L beta.  The moments of F are matched, exactly so where an exact
        test exists.  NaN if a parameter matters of which the data say nothing.
        """
        q = len(contrasts)
        p = self._within(contrasts)
        if self._unknown(p):
            return np.nan, np.nan
        traces = np.einsum("rii->r", p)
        A1 = float(traces @ self._W @ traces)
        A2 = float(np.einsum("rs,rij,sji->", self._W, p, p, optimize=True))
        return _matched(A1, A2, q)

    def is_known(self, contrasts: FloatArray) -> bool:
        """Say whether the data tell of all that the variance of L beta depends on."""
        return not self._unknown(self._within(contrasts))

    def _within(self, contrasts: FloatArray) -> FloatArray:
        """Return P_r on the space of the contrasts (m + 1, q, q)."""
        U = np.linalg.qr(contrasts.T)[0]
        return np.asarray(U.T @ self._P @ U)

    def _unknown(self, p: FloatArray) -> bool:
        along = np.tensordot(self._flat, p, (0, 0))
        return bool((np.abs(along) > SENSITIVE).any())


def _of_errors(point: Point, squares: ErrorSquares | None) -> ErrorMatrices | None:
    """Return the matrices of the errors' parameters, if there are any."""
    if not isinstance(point, ErrorPoint) or not point.grams:
        return None
    if squares is None:
        raise ValueError(
            "Kenward and Roger's degrees of freedom need traces that this fit does not "
            "know: its residual structure goes with too many random effects of several "
            "grouping factors, with too large groups of correlated rows, or with more "
            "rows than it was prepared for (500 000). Choose Satterthwaite's."
        )
    return ErrorMatrices(point, squares)


def _matched(A1: float, A2: float, q: int) -> tuple[float, float]:
    """Return (df, scale) from Kenward and Roger's A1 and A2, in their notation."""
    if A2 <= 0.0:
        return np.inf, 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    denominator = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = (x / denominator for x in (g, q - g, q + 2.0 - g))
    V0, V1, V2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    V0 = 0.0 if abs(V0) < 1e-10 else V0
    rho = _ratio(1.0 - A2 / q, V1) ** 2 * _ratio(V0, V2) / q
    df = 4.0 + (q + 2.0) / (q * rho - 1.0)
    scale = df * (1.0 - A2 / q) / (df - 2.0) if abs(df - 2.0) >= CLOSE_TO_2 else 1.0
    return float(df), float(scale)


def _ratio(a: float, b: float) -> float:
    """Return a / b, 1 where both vanish; at 4 degrees of freedom V0 / 0 occurs."""
    if abs(b) < 1e-14:
        return 1.0 if abs(a) < 1e-14 else float(np.copysign(np.inf, a))
    return a / b


@dataclass(frozen=True, eq=False)
class _Parameters:
    """The parameters of the covariances, sigma^2 apart.

    directions : dPsi by every one of them
    curved : positions of those that Psi is not linear in
    second : (r, s, d2 Psi / dr ds) of these
    """

    directions: list[Direction]
    curved: list[int]
    second: list[tuple[int, int, Direction]]


def _parameters(point: Point) -> _Parameters:
    """Return a basis of every linear structure, theta of the others."""
    directions: list[Direction] = []
    curved: list[int] = []
    second: list[tuple[int, int, Direction]] = []
    by_theta = point.directions()
    for k, (term, _, part) in enumerate(point.criterion.terms()):
        basis = term.structure.directions(term.q)
        first = len(directions)
        if basis is None:
            directions += by_theta[part]
            places = range(first, len(directions))
            curved += places
            for (i, r), (j, s) in product(enumerate(places), repeat=2):
                second.append((r, s, _embedded(point, k, _d2Psi(point, k)[i, j])))
        else:
            directions += [_embedded(point, k, A) for A in basis]
    return _Parameters(directions, curved, second)


def _embedded(point: Point, k: int, A: FloatArray) -> Direction:
    """Return a change A of one term's Psi as one of its factor's."""
    statistics = point.criterion.statistics
    factor, place = statistics.terms[k].factor, statistics.slices[k]
    wide = np.zeros_like(point.L[factor])
    wide[place, place] = A
    return Direction(factor, wide)


def _d2Psi(point: Point, k: int) -> FloatArray:
    """Return d2 Psi / d theta d theta' (m, m, q, q) of one term."""
    statistics = point.criterion.statistics
    term, place = statistics.terms[k], statistics.slices[k]
    theta = point.theta[point.criterion.parameters[k]]
    dL = term.structure.derivative(theta, term.q)
    half = np.einsum("rik,sjk->rsij", dL, dL)
    second = term.structure.second_derivative(theta, term.q)
    if second is not None:
        half = half + second @ point.L[term.factor][place, place].T
    return np.asarray(half + half.swapaxes(2, 3))


def _require_positive(adjusted: FloatArray) -> None:
    """Refuse a covariance with variances that are negative, or unknown."""
    if np.isnan(adjusted).any() or np.linalg.eigvalsh(adjusted).min(initial=1.0) <= 0:
        raise ValueError(
            "Kenward and Roger's expansion does not hold here: the data hardly tell of "
            "a parameter of the residual structure, or it is at the end of its range. "
            "Choose Satterthwaite's degrees of freedom, or a simpler structure."
        )


def _fixed_part(
    point: Point, directions: list[Direction], errors: ErrorMatrices | None
) -> tuple[FloatArray, FloatArray]:
    """Return P_r (m + k + 1, p, p) and Q_rs (m + k + 1, m + k + 1, p, p), V last."""
    statistics = point.criterion.statistics
    m, p = len(directions), statistics.p
    k = 0 if errors is None else len(errors.P)
    P, Q = np.empty((m + k + 1, p, p)), np.empty((m + k + 1, m + k + 1, p, p))
    P[:m] = -fixed_part_changes(point.F, directions).reshape(m, p, p)
    P[-1] = -np.eye(p)
    Q[:m, :m] = fixed_part_curvature(point.state, statistics, point.F, directions)
    if errors is not None:
        P[m:-1] = errors.P
        mixed = errors.Q_mixed(directions)
        Q[:m, m:-1] = mixed
        Q[m:-1, :m] = mixed.transpose(1, 0, 3, 2)
        Q[m:-1, m:-1] = errors.Q
    Q[-1, :] = Q[:, -1] = -P
    return P, Q


def _traces(
    point: Point, directions: list[Direction], errors: ErrorMatrices | None
) -> FloatArray:
    """Return T_rs (m + k + 1, m + k + 1), V last."""
    m, k = len(directions), 0 if errors is None else len(errors.P)
    T = np.empty((m + k + 1, m + k + 1))
    products = trace_products(point.state, directions)
    if products is None:
        raise ValueError(
            "Kenward and Roger's degrees of freedom need traces that a stochastic fit "
            "does not know: choose Satterthwaite's, or fit with solver='newton'."
        )
    T[:m, :m] = products
    sums = point.state.block_sums()
    T[-1, :m] = T[:m, -1] = [np.sum(sums[d.factor] * d.A) for d in directions]
    if errors is not None:
        mixed = errors.T_mixed(directions)
        T[:m, m:-1], T[m:-1, :m] = mixed, mixed.T
        T[m:-1, m:-1] = errors.T
        T[-1, m:-1] = T[m:-1, -1] = errors.T_V
    T[-1, -1] = point.criterion.n_obs
    return T


def _curvature(
    point: Point,
    parameters: _Parameters,
    errors: ErrorMatrices | None,
    P: FloatArray,
    W: FloatArray,
) -> FloatArray:
    """Return sum W_rs R_rs (p, p)."""
    by_V = W[:, -1] if point.criterion.sigma2 is None else np.zeros(len(W))
    total: FloatArray = np.zeros((point.criterion.statistics.p,) * 2)
    for r, s, direction in parameters.second:
        total += W[r, s] * fixed_part_changes(point.F, [direction])[0]
    for r in parameters.curved:
        total -= 2.0 * by_V[r] * P[r]
    if errors is not None:
        m = len(parameters.directions)
        own = slice(m, m + len(errors.P))
        total += errors.curvature(W[own, own], by_V[own])
    return total


def _equilibrated_inverse(
    A: FloatArray, before: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return A^-1 and the flat directions of A (k columns).

    Scaled to a unit diagonal first, so that units of measurement do not decide
    what is singular.  `before` (m,) is what the diagonal is a difference from.
    """
    left = np.diag(A) > SINGULAR * before
    A = A * np.outer(left, left)
    scale = 1.0 / np.sqrt(np.where(left, np.diag(A), 1.0))
    inverse, flat = split_inverse(A * np.outer(scale, scale), SINGULAR)
    return inverse * np.outer(scale, scale), scale[:, None] * flat
