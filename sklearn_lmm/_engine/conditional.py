"""The likelihood given the random effects, and what fitting them costs.

The fitted values are y - P y.  With theta known their derivative by y has the
trace

    rho = n - tr(P) = p + tr(Psi Z'PZ).

theta is a function of y, too: with g_m = P Z A_m Z'P y, d yhat / d theta_m = g_m,
and from the equation that makes the gradient of the deviance 0

    d theta / dy = 2 (N / r2) H^-1 (g_l - (v'A_l v / r2) P y),

H the Hessian of the deviance.  The sum of both traces is the exact bias
correction of the conditional AIC (Greven and Kneib 2010, Biometrika 97: 773-789).
All products are of the size of the random effects: P P = P - P Z Psi Z'P, as
P V P = P.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.description import effective_parameters
from sklearn_lmm._engine.factor import total_product
from sklearn_lmm._engine.information import pseudo_inverse


def trace_by_response(point: Point) -> float:
    """Return the trace of d yhat / dy: rho, and what theta adds as a function of y."""
    return effective_parameters(point) + _by_theta(point)


def _by_theta(point: Point) -> float:
    """Return sum_m g_m' d theta_m / dy, in units where sigma = 1."""
    if not len(point.theta):
        return 0.0
    Av = point.changes_of_v
    QAv, _ = point.state.project(point.criterion.statistics.ztz(Av))
    FAv = point.forms.FAv
    C = tuple(q - F @ FAv.T for q, F in zip(QAv, point.F, strict=True))
    Psi = [L @ L.T for L in point.L]
    PsiC = tuple(S @ c for S, c in zip(Psi, C, strict=True))
    gg = total_product(Av, C) - total_product(C, PsiC)
    v = tuple(v_f[:, :, None] for v_f in point.v)
    gPy = (total_product(Av, v) - total_product(PsiC, v))[:, 0]
    slope = gg - np.outer(gPy, point.forms.vAv) / point.criterion.N
    return float(2.0 * np.sum(pseudo_inverse(point.observed_hessian) * slope))


def conditional_deviance(point: Point, frequency: bool) -> float:
    """Return -2 log f(y | betahat, bhat, sigmahat), in the user's units.

    frequency : whether weights count rows
    """
    criterion = point.criterion
    scale = criterion.statistics.columns.scale[-1]
    sigma2 = point.sigma2 * scale**2
    # |y - yhat|^2 = y'PPy = r2 - v'Psi v, relative to sigma^2.
    squares = criterion.N
    for L, v in zip(point.L, point.v, strict=True):
        squares -= float(np.sum((v @ L) ** 2))
    value = criterion.n_obs * np.log(2.0 * np.pi * sigma2) + squares
    if not frequency:
        value -= criterion.statistics.sum_log_weights
    return float(value)
