"""How well the variance parameters are known.

Half the Hessian of the deviance that is not profiled over sigma^2, in units
where sigma^2 = 1, with r = d r2 / d theta = -v'A v and H the Hessian of the
profiled deviance:

    [[N, -r'], [-r, H + r r'/N]] / 2.
"""

from __future__ import annotations

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._types import FloatArray

FLAT = 1e-8
"""Directions with eigenvalues below this part of the largest count as flat."""


def parameter_information(point: Point) -> FloatArray:
    """Return the information on (sigma^2, theta), sigma^2 = 1 (m + 1, m + 1)."""
    N, r = point.criterion.N, -point.forms.vAv
    information = np.empty((len(r) + 1, len(r) + 1))
    information[0, 0] = N
    information[0, 1:] = information[1:, 0] = -r
    information[1:, 1:] = point.observed_hessian + np.outer(r, r) / N
    return 0.5 * information


def parameter_covariance(point: Point) -> tuple[FloatArray, FloatArray]:
    """Return Cov(sigma^2, theta), sigma^2 = 1, and the flat directions as columns.

    Where sigma is known its row and column are 0.
    """
    information = parameter_information(point)
    if point.criterion.sigma2 is None:
        return split_inverse(information)
    covariance, flat = split_inverse(0.5 * point.observed_hessian)
    return np.pad(covariance, ((1, 0), (1, 0))), np.pad(flat, ((1, 0), (0, 0)))


def error_parameter_errors(point: Point, jacobian: FloatArray) -> FloatArray:
    """Return standard errors (k,) of the errors' parameters, by the delta method.

    jacobian : (k, m), their derivatives by the last m parameters of the point
    """
    m = jacobian.shape[1]
    covariance, _ = parameter_covariance(point)
    own = covariance[len(covariance) - m :, len(covariance) - m :]
    return np.asarray(np.sqrt(np.sum((jacobian @ own) * jacobian, axis=1)))


def pseudo_inverse(A: FloatArray) -> FloatArray:
    """Return the inverse on the directions that the data say something of."""
    return split_inverse(A)[0]


def split_inverse(A: FloatArray, flat: float = FLAT) -> tuple[FloatArray, FloatArray]:
    """Return the inverse of A off its flat directions, and these as columns."""
    w, U = np.linalg.eigh(A)
    informative = w > flat * max(1.0, float(w.max(initial=0.0)))
    inverse = np.where(informative, 1.0 / np.where(informative, w, 1.0), 0.0)
    return np.asarray((U * inverse) @ U.T), np.asarray(U[:, ~informative])
