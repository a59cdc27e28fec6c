"""What estimated traces leave uncertain: errors of Monte Carlo, at given data.

With g_j what probe j adds to the gradient g, H the Hessian of the criterion and
J the derivatives of beta by theta,

    Cov(theta | data) = H^-1 Cov(g_j) H^-1 / s,  Cov(beta | data) = J Cov(theta) J'.

2 H^-1 is the covariance of the estimate itself, to be compared with the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.factor_krylov import KrylovFactored, Sampling
from sklearn_lmm._engine.information import pseudo_inverse
from sklearn_lmm._types import FloatArray

SMALL_ERROR = 0.01
"""Monte-Carlo error of theta, in its standard errors, that is small enough."""


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """Standard errors that the random probes leave, in the user's units.

    theta : of the covariance parameters
    beta : (p,) of the fixed effects, 0 where dropped
    log_likelihood : of the (restricted) log-likelihood
    relative : the largest of theta's, in standard errors of the estimate
    sampling : the probes
    """

    theta: FloatArray
    beta: FloatArray
    log_likelihood: float
    relative: float
    sampling: Sampling

    @property
    def probes(self) -> int:
        """The number of random vectors."""
        return self.sampling.probes

    @property
    def small(self) -> bool:
        """Whether theta is as good as exact for any statistical purpose."""
        return self.relative <= SMALL_ERROR


def theta_noise(point: Point) -> FloatArray:
    """Return the covariance of theta's Monte-Carlo error, standardised."""
    samples = _gradient_samples(point)
    if len(samples) < 2:
        return np.zeros_like(point.hessian)
    inverse = pseudo_inverse(point.hessian)
    return np.asarray(
        inverse @ np.atleast_2d(np.cov(samples.T)) @ inverse / len(samples)
    )


def beta_noise(point: Point) -> FloatArray:
    """Return the root covariance (p, m) of beta's Monte-Carlo error, standardised.

    d beta / d theta_m = -H^-1 F'A_m v, v as it is without the scale 1 / sigma.
    """
    J = -np.sqrt(point.sigma2) * point.inverse_R_X @ point.forms.FAv.T
    w, U = np.linalg.eigh(theta_noise(point))
    return np.asarray(J @ (U * np.sqrt(np.maximum(w, 0.0))))


def logdet_noise(point: Point) -> float:
    """Return the standard error of log|V|."""
    forms, probes = state_of(point).log_forms
    samples = forms[: probes.n_random]
    return float(samples.std(ddof=1) / np.sqrt(len(samples))) if len(samples) else 0.0


def relative_noise(point: Point) -> float:
    """Return the largest Monte-Carlo error of theta in standard errors of theta."""
    noise = np.sqrt(np.diag(theta_noise(point)))
    scale = np.sqrt(2.0 * np.diag(pseudo_inverse(point.hessian)))
    there = scale > 0
    return float(np.max(noise[there] / scale[there], initial=0.0))


def _gradient_samples(point: Point) -> FloatArray:
    """Return what every random probe contributes to the gradient (s, m)."""
    samples = state_of(point).traces.samples
    parts = []
    for term, place, part in point.criterion.terms():
        L = point.L[term.factor]
        dL = term.structure.derivative(point.theta[part], term.q)
        QL = (samples[term.factor] @ L)[:, place, place]
        parts.append(2.0 * np.einsum("mij,sij->sm", dL, QL))
    return np.concatenate(parts, axis=1)


def state_of(point: Point) -> KrylovFactored:
    """Return V of a point whose traces are estimated."""
    assert isinstance(point.state, KrylovFactored)
    return point.state
