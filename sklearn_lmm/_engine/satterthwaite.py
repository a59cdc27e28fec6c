"""Satterthwaite's degrees of freedom for contrasts of the fixed effects.

With Phi = sigma^2 H^-1 the covariance of betahat, A that of (sigma^2, theta)
from the observed Hessian, and g the gradient of l'Phi l by (sigma^2, theta),

    df = 2 (l'Phi l)^2 / (g'A g)

(Giesbrecht and Burns 1985, Biometrics 41: 477-486; Fai and Cornelius 1996,
J. Statist. Comput. Simul. 54: 363-378, for several contrasts at a time).  All
derivatives are exact: d Phi / d theta_m = sigma^2 H^-1 F'A_m F H^-1.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.information import parameter_covariance
from sklearn_lmm._types import FloatArray

RANK = np.sqrt(np.finfo(float).eps)
"""Eigenvalues of a contrast's covariance below this part of the largest are 0."""

EQUAL = 1e-8
"""Degrees of freedom that agree to this are one number."""

SENSITIVE = 1e-6
"""Least part of a gradient that a flat direction has to take to matter."""


class Satterthwaite:
    """Degrees of freedom at one point.

    Contrasts l (p,) are whitened: of R_X beta / sigma, whose covariance is I.
    """

    def __init__(self, point: Point) -> None:
        p = point.criterion.statistics.p
        self._covariance, self._flat = parameter_covariance(point)
        self._changes = np.concatenate([np.eye(p)[None], point.changes_of_H])

    def one(self, contrast: FloatArray) -> float:
        """Return the degrees of freedom of one contrast.

        NaN if they depend on a parameter of which the data say nothing.
        """
        gradient = self._changes @ contrast @ contrast
        if (np.abs(gradient @ self._flat) > SENSITIVE * np.abs(gradient).max()).any():
            return np.nan
        variance = contrast @ contrast
        spread = gradient @ self._covariance @ gradient
        return float(2.0 * variance**2 / spread) if spread > 0 else np.inf

    def several(self, contrasts: FloatArray) -> float:
        """Return the denominator degrees of freedom of the F test of L (q, p).

        The q uncorrelated contrasts that L comes down to have t_m with nu_m
        degrees of freedom; E = sum nu_m / (nu_m - 2) is the expectation of
        sum t_m^2, and that of an F with 2 E / (E - q).
        """
        w, U = np.linalg.eigh(contrasts @ contrasts.T)
        kept = w > RANK * w.max(initial=0.0)
        df = np.array([self.one(row) for row in U[:, kept].T @ contrasts])
        return fai_cornelius(df)


def fai_cornelius(df: FloatArray) -> float:
    """Return the denominator df of F from those of its uncorrelated contrasts."""
    q = len(df)
    if q == 0 or np.isnan(df).any():
        return np.nan
    if np.isinf(df).all() or df.max() - df.min() < EQUAL:
        return float(df.mean())
    if (df <= 2.0).any():
        return 2.0
    E = float(np.sum(1.0 / (1.0 - 2.0 / df)))
    return 2.0 * E / (E - q) if E > q else np.inf
