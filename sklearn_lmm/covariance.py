"""Covariance structures: the map from parameters to a relative covariance factor.

A random-effects term with q coefficients has Cov(b_g) = sigma^2 Psi with
Psi = L L'.  A structure says how the q x q factor L depends on its parameters
theta; the engine never sees anything else of it.  theta is unconstrained, and
theta = 0 in some direction means that this direction has no variance, so that
a singular covariance is an ordinary point.

To add a structure, subclass `Covariance` (or `LinearCovariance`, if L is
linear in theta), and enter it in `STRUCTURES` if it is to have a short name.

This module imports numpy only; the engine imports it, not the other way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from sklearn_lmm._types import FloatArray, IntArray

Standardization = Literal["affine", "scale", "common"]


class Covariance(ABC):
    """How the factor L (q x q) of a term depends on its parameters theta (m,)."""

    @abstractmethod
    def n_parameters(self, q: int) -> int:
        """Return m, the number of parameters for q coefficients."""

    @abstractmethod
    def start(self, q: int) -> FloatArray:
        """Return the parameters of Psi = I."""

    @abstractmethod
    def factor(self, theta: FloatArray, q: int) -> FloatArray:
        """Return L (q, q), not necessarily triangular, with Psi = L L'."""

    @abstractmethod
    def derivative(self, theta: FloatArray, q: int) -> FloatArray:
        """Return dL / dtheta, shape (m, q, q)."""

    def second_derivative(self, theta: FloatArray, q: int) -> FloatArray | None:
        """Return d2L / dtheta dtheta', shape (m, m, q, q); None where it is zero."""
        return None

    def directions(self, q: int) -> FloatArray | None:
        """Return a basis (m, q, q) of the matrices that Psi runs through.

        None if they do not fill a linear space: such a structure is known by
        its parameters and their derivatives only.
        """
        return None

    @abstractmethod
    def parameters(self, root: FloatArray) -> FloatArray:
        """Return theta of the structured matrix nearest to root @ root.T.

        Nearest in the sense of the EM algorithm: Psi maximises
        -log|Psi| - tr(Psi^-1 root root') among the structured matrices, and
        is root root' itself if that has the structure.
        """

    @abstractmethod
    def names(self, coefficients: Sequence[str]) -> list[str]:
        """Return a name for each parameter, given those of the coefficients."""

    @abstractmethod
    def standardization(self, intercept: bool) -> Standardization:
        """Say which maps A of the coefficients' columns keep the structure.

        With z_s = A z the model is unchanged if A' Psi_s A has the structure
        again: "affine" allows a shift and a scale for every slope (the
        intercept absorbs the shift), "scale" a scale for every column,
        "common" one scale for all.
        """


class LinearCovariance(Covariance):
    """A structure whose factor is linear: L = sum_m theta_m E_m."""

    @abstractmethod
    def basis(self, q: int) -> FloatArray:
        """Return E_1 .. E_m, shape (m, q, q)."""

    def n_parameters(self, q: int) -> int:
        return len(_basis(self, q))

    def factor(self, theta: FloatArray, q: int) -> FloatArray:
        basis = _basis(self, q)
        return (theta @ basis.reshape(len(basis), q * q)).reshape(q, q)

    def derivative(self, theta: FloatArray, q: int) -> FloatArray:
        return _basis(self, q)

    def start(self, q: int) -> FloatArray:
        return self.parameters(np.eye(q))


@lru_cache(maxsize=256)
def _basis(structure: LinearCovariance, q: int) -> FloatArray:
    basis = structure.basis(q)
    basis.flags.writeable = False
    return basis


@dataclass(frozen=True)
class Unstructured(LinearCovariance):
    """Any covariance: theta is the lower triangle of the Cholesky factor L.

    The entries are taken column by column, as lme4 does: for an intercept and
    one slope theta = (L11, L21, L22).
    """

    def basis(self, q: int) -> FloatArray:
        rows, columns = _lower_triangle(q)
        basis = np.zeros((len(rows), q, q))
        basis[np.arange(len(rows)), rows, columns] = 1.0
        return basis

    def directions(self, q: int) -> FloatArray:
        lower = self.basis(q)
        return np.maximum(lower, lower.swapaxes(1, 2))

    def parameters(self, root: FloatArray) -> FloatArray:
        return _lower_factor(root)[_lower_triangle(len(root))]

    def names(self, coefficients: Sequence[str]) -> list[str]:
        rows, columns = _lower_triangle(len(coefficients))
        return [
            coefficients[i] if i == j else f"{coefficients[i]}.{coefficients[j]}"
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def standardization(self, intercept: bool) -> Standardization:
        return "affine" if intercept else "scale"


@dataclass(frozen=True)
class Diagonal(LinearCovariance):
    """Independent coefficients: theta holds their relative standard deviations."""

    def basis(self, q: int) -> FloatArray:
        basis = np.zeros((q, q, q))
        basis[np.arange(q), np.arange(q), np.arange(q)] = 1.0
        return basis

    def directions(self, q: int) -> FloatArray:
        return self.basis(q)

    def parameters(self, root: FloatArray) -> FloatArray:
        return np.asarray(np.linalg.norm(root, axis=1))

    def names(self, coefficients: Sequence[str]) -> list[str]:
        return list(coefficients)

    def standardization(self, intercept: bool) -> Standardization:
        return "scale"


@dataclass(frozen=True)
class Identity(LinearCovariance):
    """Independent coefficients of one variance: theta = relative deviation."""

    def basis(self, q: int) -> FloatArray:
        return np.eye(q)[None]

    def directions(self, q: int) -> FloatArray:
        return self.basis(q)

    def parameters(self, root: FloatArray) -> FloatArray:
        return np.array([np.sqrt(np.sum(root**2) / len(root))])

    def names(self, coefficients: Sequence[str]) -> list[str]:
        return ["common"]

    def standardization(self, intercept: bool) -> Standardization:
        return "common"


@dataclass(frozen=True)
class CompoundSymmetry(LinearCovariance):
    """One variance s^2 and one correlation rho between all coefficients.

    Psi has the eigenvalue alpha^2 = s^2 (1 - rho) on contrasts and
    beta^2 = s^2 (1 + (q - 1) rho) on the mean of the coefficients.  With
    J the q x q matrix of ones, L = alpha (I - J/q) + beta J/q is its symmetric
    root: linear in theta = (alpha, beta), and both bounds of the correlation,
    1 and -1/(q - 1), are zeros of a parameter.
    """

    def basis(self, q: int) -> FloatArray:
        mean = np.full((q, q), 1.0 / q)
        return np.stack([np.eye(q) - mean, mean]) if q > 1 else mean[None]

    def directions(self, q: int) -> FloatArray:
        return self.basis(q)

    def parameters(self, root: FloatArray) -> FloatArray:
        q = len(root)
        mean = root.mean(axis=0)
        beta = np.sqrt(q) * np.linalg.norm(mean)
        if q == 1:
            return np.array([beta])
        return np.array([np.linalg.norm(root - mean) / np.sqrt(q - 1), beta])

    def names(self, coefficients: Sequence[str]) -> list[str]:
        return ["contrasts", "mean"] if len(coefficients) > 1 else ["mean"]

    def standardization(self, intercept: bool) -> Standardization:
        return "common"


STRUCTURES: dict[str, Covariance] = {
    "unstructured": Unstructured(),
    "diagonal": Diagonal(),
    "identity": Identity(),
    "compound_symmetry": CompoundSymmetry(),
}


@lru_cache(maxsize=64)
def _lower_triangle(q: int) -> tuple[IntArray, IntArray]:
    """Return the rows and columns of the lower triangle, column by column."""
    columns, rows = np.triu_indices(q)
    return rows, columns


def _lower_factor(root: FloatArray) -> FloatArray:
    """Return the lower triangular L, diagonal >= 0, with L L' = root root'.

    Gram-Schmidt on the rows of `root`, each direction removed twice.  A row
    that depends on earlier ones gets a column of zeros, so that L is unique
    for a singular product too, which a QR decomposition does not promise.
    """
    q, r = root.shape
    L = np.zeros((q, q))
    directions = np.zeros((q, r))
    for i, row in enumerate(root):
        rest = row
        for _ in range(2):
            along = directions[:i] @ rest
            L[i, :i] += along
            rest = rest - along @ directions[:i]
        norm = np.sqrt(rest @ rest)
        if norm > 1e-14 * np.sqrt(row @ row):
            L[i, i] = norm
            directions[i] = rest / norm
    return L
