"""How far a prediction may be off, and effects from rows that came later.

For a row (x, z) with z over the known levels and z_new over unseen ones, and
with C = L M^-1 L' the posterior covariance of b given beta, relative to sigma^2,

    d = x - (Psi Z'V^-1 X)'z,
    Var(x'(betahat - beta) + z'(bhat - b)) = sigma^2 (d'H^-1 d + z'C z),

and the effects of unseen levels add sigma^2 z_new'Psi z_new (Henderson 1975,
Biometrics 31: 423-447).  Nothing here needs an inverse of Psi.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.criterion import Criterion, Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_criterion import ErrorSizes
from sklearn_lmm._engine.factor import Codes, PerFactor
from sklearn_lmm._engine.information import parameter_covariance, pseudo_inverse
from sklearn_lmm._engine.result import (
    LMMFit,
    factor_maps,
    frozen,
    predicted_effects,
)
from sklearn_lmm._types import BoolArray, FloatArray

TINY = np.finfo(float).tiny

STEP = 1e-5
"""Relative step of central differences by theta."""

ENTRIES_AT_ONCE = 1 << 18
"""Entries of d made at a time: no array as large as a dense X is needed."""


@dataclass(frozen=True, eq=False)
class NewRows:
    """Rows to predict, in the user's units.

    X : (n, p), the intercept included, dense or sparse
    codes : per factor (n,), the level; -1 if unseen
    z : per factor (n, q_f), the columns of its coefficients
    """

    X: FloatArray | sparse.csr_array
    codes: Codes
    z: PerFactor


class PredictionError:
    """Prediction variances of a fitted model."""

    def __init__(self, fit: LMMFit) -> None:
        self.fit = fit
        self._models = (fit.model(), fit.effects_model())
        self._at = _Solution.of(self._models, fit.theta_standardized)

    def variance(self, rows: NewRows, counts_unseen: BoolArray) -> FloatArray:
        """Return the variance of the predicted mean (n,), theta taken as known.

        counts_unseen : per factor, whether an unseen level adds its variance
        """
        known = self._standardized(rows)
        return self.fit.sigma**2 * self._at.relative_variance(known, counts_unseen)

    def variance_by_theta(self, rows: NewRows) -> FloatArray:
        """Return what the uncertainty of theta adds (n,), by the delta method.

        J Cov(theta) J' with J_m = d(x'betahat + z'bhat) / d theta_m
        = z'(I - C Z'Z) A_m v - d'H^-1 F'A_m v, and Cov(theta) = 2 (d2 dev)^-1.
        """
        if not len(self.fit.theta_standardized):
            return np.zeros(rows.X.shape[0])
        known = self._standardized(rows)
        J = self._at.sensitivity(known)
        covariance = 2.0 * pseudo_inverse(self._at.of_beta.observed_hessian)
        relative = np.asarray(np.sum((J @ covariance) * J, axis=1))
        return self.fit.sigma**2 * relative

    def degrees_of_freedom(
        self,
        rows: NewRows,
        counts_unseen: BoolArray,
        *,
        observation: bool,
        sizes: ErrorSizes | None = None,
    ) -> FloatArray:
        """Return Satterthwaite's degrees of freedom (n,) of the variance.

        2 Var^2 / (g'Cov g), g the gradient of Var by (theta, sigma^2), Cov the
        inverse of half the Hessian of the deviance in these parameters.
        `sizes` are those of the rows' own errors, None for sigma^2.
        """
        known = self._standardized(rows)
        theta = self.fit.theta_standardized

        def relative_variance(theta: FloatArray) -> FloatArray:
            solution = _Solution.of(self._models, theta)
            variance = solution.relative_variance(known, counts_unseen)
            if not observation:
                return variance
            of_errors = theta[self._models[0].n_parameters :]
            return variance + (1.0 if sizes is None else sizes.at(of_errors))

        relative = relative_variance(theta)
        gradient = [relative]
        for m, value in enumerate(theta):
            step = np.zeros_like(theta)
            step[m] = STEP * max(1.0, abs(value))
            above, below = (relative_variance(theta + h) for h in (step, -step))
            gradient.append((above - below) / (2.0 * step[m]))
        g = np.stack(gradient, axis=1)
        spread = np.sum((g @ self._parameter_covariance) * g, axis=1)
        return np.asarray(2.0 * relative**2 / np.maximum(spread, TINY))

    @cached_property
    def _parameter_covariance(self) -> FloatArray:
        """Cov(sigma^2, theta), with sigma^2 = 1."""
        return parameter_covariance(self._at.of_beta)[0]

    def _standardized(self, rows: NewRows) -> _Known:
        """Return rows with z in the engine's units, unseen levels split off."""
        statistics = self._models[0].statistics
        maps = factor_maps(statistics)
        z = [z_f @ R_f for z_f, R_f in zip(rows.z, maps, strict=True)]
        unseen = [code < 0 for code in rows.codes]
        zeroed = [
            np.where(new[:, None], 0.0, z_f) for new, z_f in zip(unseen, z, strict=True)
        ]
        return _Known(
            X=rows.X[:, self.fit.kept],
            R=statistics.columns.map()[:-1, :-1],
            codes=tuple(np.maximum(code, 0) for code in rows.codes),
            z=tuple(zeroed),
            z_new=tuple(z_f - known for z_f, known in zip(z, zeroed, strict=True)),
        )


@dataclass(frozen=True, eq=False)
class _Known:
    """Rows of which z is zero at unseen levels, z_new elsewhere.

    X is in the user's units, so that it may be sparse; X R is in the engine's.
    """

    X: FloatArray | sparse.csr_array
    R: FloatArray
    codes: Codes
    z: PerFactor
    z_new: PerFactor


@dataclass(frozen=True, eq=False)
class _Solution:
    """The model at one theta: of the rows that beta is from, and the effects'."""

    of_beta: Point
    of_effects: Point

    @classmethod
    def of(cls, models: tuple[Criterion, Criterion], theta: FloatArray) -> _Solution:
        of_beta = models[0].at(theta)
        same = models[1].statistics is models[0].statistics
        return cls(of_beta, of_beta if same else models[1].at(theta))

    def relative_variance(self, rows: _Known, counts_unseen: BoolArray) -> FloatArray:
        """Return d'H^-1 d + z'C z + z_new'Psi z_new (n,)."""
        variance = np.concatenate([np.sum(d**2, axis=1) for d in self._whitened(rows)])
        variance += self.of_effects.state.posterior_variances(rows.codes, rows.z)
        for L, z_new, counts in zip(
            self.of_effects.L, rows.z_new, counts_unseen, strict=True
        ):
            if counts:
                variance += np.sum((z_new @ L) ** 2, axis=1)
        return variance

    def sensitivity(self, rows: _Known) -> FloatArray:
        """Return J / sigma (n, m), the derivative of the prediction by theta."""
        point = self.of_effects
        FAv = self.of_beta.forms.FAv
        J = -np.concatenate([d @ FAv.T for d in self._whitened(rows)])
        changes = point.changes_of_effects
        for change, code, z in zip(changes, rows.codes, rows.z, strict=True):
            J += np.einsum("ni,nim->nm", z, change[code])
        return J

    def _whitened(self, rows: _Known) -> Iterator[FloatArray]:
        """Yield d'R_X^-1 (m, p), d = x - (Psi Z'V^-1 X)'z, some rows at a time."""
        n, p = rows.X.shape
        size = max(1, ENTRIES_AT_ONCE // max(1, p))
        for start in range(0, n, size):
            part = slice(start, start + size)
            d = np.asarray(rows.X[part] @ rows.R)
            for U, code, z in zip(self.of_effects.U, rows.codes, rows.z, strict=True):
                d -= np.einsum("ni,nip->np", z[part], U[code[part], :, :-1])
            yield d @ self.of_beta.inverse_R_X


def predict_effects_from(fit: LMMFit, statistics: CrossProducts) -> LMMFit:
    """Return the model with effects predicted from other rows, all else kept.

    theta, sigma and beta stay; the effects are their best linear predictions
    b = Psi Z'V^-1 (y - X beta) from the rows of the given statistics.
    """
    result = replace(fit, effect_statistics=statistics)
    point = result.effects_point()
    columns = point.criterion.statistics.columns
    coefficients = np.append(-fit.beta[fit.kept], 1.0) / columns.scale[-1]
    residual = np.linalg.solve(columns.map(), coefficients)
    return frozen(replace(result, effects=predicted_effects(point, residual)))
