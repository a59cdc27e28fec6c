"""Responses drawn from a model: y = X beta + Z b + e, for rows of a design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.design import Design, level_columns
from sklearn_lmm._types import FloatArray

Rng = np.random.Generator

TINY = 1e-12
"""Eigenvalues of a covariance below this part of the largest are rounding."""


def coefficient_matrices(design: Design) -> list[sparse.csr_array]:
    """Return Z (n, G q) of every factor, level-major, in the user's units."""
    n = len(design.y)
    matrices = []
    for f, factor in enumerate(design.factors):
        z = np.hstack([b.columns(n) for b in design.blocks if b.factor == f])
        matrices.append(level_columns(z, factor.codes, factor.n_levels))
    return matrices


def square_root(covariance: FloatArray) -> FloatArray:
    """Return the symmetric square root; covariances may be singular."""
    w, U = np.linalg.eigh(covariance)
    return np.asarray((U * np.sqrt(np.maximum(w, 0.0))) @ U.T)


@dataclass(frozen=True, eq=False)
class Draws:
    """A way to draw responses of the rows of a design.

    mean : (n,) what does not vary
    Z : per factor (n, G q)
    error_scale : (n,), what the errors are multiplied by
    """

    mean: FloatArray
    Z: Sequence[sparse.csr_array]
    error_scale: FloatArray

    def draw(self, rng: Rng) -> FloatArray:
        """Return a response (n,)."""
        y = self.mean + self.error_scale * self._errors(rng)
        for f, Z in enumerate(self.Z):
            y += Z @ self._effects(f, rng).ravel()
        return y

    def _errors(self, rng: Rng) -> FloatArray:
        raise NotImplementedError

    def _effects(self, factor: int, rng: Rng) -> FloatArray:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class NormalDraws(Draws):
    """Effects and errors from normal distributions.

    roots : per factor (q, q), root root' the covariance of the effects
    n_levels : per factor
    """

    roots: Sequence[FloatArray]
    n_levels: Sequence[int]

    def _errors(self, rng: Rng) -> FloatArray:
        return rng.normal(size=len(self.mean))

    def _effects(self, factor: int, rng: Rng) -> FloatArray:
        root = self.roots[factor]
        drawn = rng.normal(size=(self.n_levels[factor], len(root))) @ root.T
        return np.asarray(drawn)


@dataclass(frozen=True, eq=False)
class ResampledDraws(Draws):
    """Effects and errors drawn, with replacement, from those that were predicted.

    errors : (n,), of variance 1
    effects : per factor (G, q), with the covariance of the model
    """

    errors: FloatArray
    effects: Sequence[FloatArray]

    def _errors(self, rng: Rng) -> FloatArray:
        return rng.choice(self.errors, len(self.mean))

    def _effects(self, factor: int, rng: Rng) -> FloatArray:
        effects = self.effects[factor]
        return effects[rng.integers(len(effects), size=len(effects))]


def reflated(values: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return values (G, q), centred, and mapped to have the given covariance.

    Predicted effects vary less than the effects do, and so do residuals.  They
    are centred and multiplied by A with A'SA = covariance, S their own second
    moment: bootstrap samples have the right variances then (Carpenter, Goldstein
    and Rasbash 2003, Applied Statistics 52: 431-443).  A is the symmetric one,
    S^-1/2 (S^1/2 covariance S^1/2)^1/2 S^-1/2, which changes values least; where
    S has no variance there is nothing to multiply.
    """
    centred = values - values.mean(axis=0)
    S = centred.T @ centred / len(values)
    w, U = np.linalg.eigh(S)
    present = w > TINY * max(float(w.max(initial=0.0)), np.finfo(float).tiny)
    inverse = np.where(present, 1.0 / np.sqrt(np.where(present, w, 1.0)), 0.0)
    root, inverse_root = square_root(S), (U * inverse) @ U.T
    middle = square_root(root @ covariance @ root)
    return np.asarray(centred @ (inverse_root @ middle @ inverse_root))
