"""The fixed part of a fitted model, ready to be tested."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.error_squares import ErrorSquares
from sklearn_lmm._engine.kenward_roger import KenwardRoger
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.satterthwaite import Satterthwaite
from sklearn_lmm._types import FloatArray

METHODS = ("satterthwaite", "kenward-roger", "residual", "normal")
"""Where degrees of freedom may come from."""

DEPENDENT = 1e-8
"""Rows of a contrast that add less than this, relative to others, add nothing."""


class FTest(NamedTuple):
    """An F test.

    statistic : F times the scale that Kenward and Roger compare it with
    unscaled : F itself
    """

    statistic: float
    num_df: int
    den_df: float
    unscaled: float

    @property
    def p_value(self) -> float:
        """The upper tail; chi-squared where den_df is infinite."""
        if np.isinf(self.den_df):
            return float(stats.chi2.sf(self.statistic * self.num_df, self.num_df))
        return float(stats.f.sf(self.statistic, self.num_df, self.den_df))


class FixedPart:
    """Fixed effects with their covariance and degrees of freedom.

    names : of the effects that were estimated
    beta : (p,)
    sigma : residual standard deviation
    residual_df : n - p
    perfect : whether the response is explained exactly: nothing can be tested
    """

    def __init__(self, names: list[str], fit: LMMFit) -> None:
        # The fit is the key that this object is kept under: a strong reference
        # would keep both for ever.
        self._fit = ref(fit)
        self.perfect = fit.perfect
        exact = fit.errors is None and fit.monte_carlo is None
        self._unidentified = bool(fit.unidentified) and exact
        self.names = names
        self.beta = fit.beta[fit.kept]
        self.sigma = fit.sigma
        self.residual_df = fit.n_obs - len(self.beta)

    @cached_property
    def root(self) -> FloatArray:
        """R (p, p) with Cov(betahat) = sigma^2 R R'; l'R is l, whitened."""
        point = self._point()
        units = point.criterion.statistics.columns.map()[:-1, :-1]
        return np.asarray(units @ point.inverse_R_X)

    @cached_property
    def _satterthwaite(self) -> Satterthwaite:
        return Satterthwaite(self._point())

    @cached_property
    def _kenward_roger(self) -> KenwardRoger:
        squares = self._squares()
        return KenwardRoger(self._point(), squares)

    def covariance(self, method: str) -> FloatArray:
        """Return Cov(betahat), adjusted by Kenward and Roger if that is the method."""
        core = np.eye(len(self.beta))
        if method == "kenward-roger":
            core = self._kenward_roger.adjusted
        return np.asarray(self.sigma**2 * self.root @ core @ self.root.T)

    def df(self, contrast: FloatArray, method: str) -> float:
        """Return the degrees of freedom of the t test of one contrast l (p,)."""
        if self.perfect:
            return np.nan
        if method == "satterthwaite":
            whitened = contrast @ self.root
            known = self._is_known(whitened[None])
            return self._satterthwaite.one(whitened) if known else np.nan
        if method == "kenward-roger":
            return self._kenward_roger.test(contrast[None] @ self.root)[0]
        return self.residual_df if method == "residual" else np.inf

    def f_test(self, L: FloatArray, rhs: FloatArray, method: str) -> FTest:
        """Return the F test of L beta = rhs, rows (q, p) that may depend.

        Raises
        ------
        ValueError
            If rows that depend on each other contradict each other.
        """
        L, rhs = self._independent(L, rhs)
        q = len(L)
        if self.perfect or not q:
            return FTest(np.nan, q, np.nan, np.nan)
        off = L @ self.beta - rhs
        covariance = L @ self.covariance(method) @ L.T
        F = float(off @ np.linalg.solve(covariance, off)) / q
        whitened, scale = L @ self.root, 1.0
        if method == "kenward-roger":
            den_df, scale = self._kenward_roger.test(whitened)
        elif method == "satterthwaite":
            known = self._is_known(whitened)
            den_df = self._satterthwaite.several(whitened) if known else np.nan
        else:
            den_df = self.residual_df if method == "residual" else np.inf
        return FTest(scale * F, q, den_df, F)

    def _is_known(self, whitened: FloatArray) -> bool:
        """Say whether no variance matters of which the data tell nothing.

        Its parameter was set to 0, where no derivative by it would show.
        """
        return not self._unidentified or self._kenward_roger.is_known(whitened)

    def _independent(
        self, L: FloatArray, rhs: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return as many combinations of the rows as are independent."""
        U, s, _ = np.linalg.svd(L @ self.root, full_matrices=False)
        kept = s > DEPENDENT * s.max(initial=0.0)
        against = rhs - U[:, kept] @ (U[:, kept].T @ rhs)
        if np.abs(against).max(initial=0.0) > DEPENDENT * np.abs(rhs).max(initial=0.0):
            raise ValueError(
                "The rows of the contrast depend linearly on each other, and rhs gives "
                "them values that contradict each other."
            )
        return U[:, kept].T @ L, U[:, kept].T @ rhs

    def _squares(self) -> ErrorSquares | None:
        fit = self._fit()
        assert fit is not None
        if fit.errors is None or fit.errors.squares is None:
            return None
        return fit.errors.squares.select(fit.kept)

    def _point(self) -> Point:
        fit = self._fit()
        assert fit is not None
        return fit.point()


_KNOWN: WeakKeyDictionary[LMMFit, FixedPart] = WeakKeyDictionary()
"""What has been worked out, for as long as the fit is there."""


def fixed_part(est: Any, method: str) -> FixedPart:
    """Return the fixed part of an estimator, to be tested by a method.

    Raises
    ------
    ValueError
        If there is no such method, or it does not suit the fit.
    """
    check_is_fitted(est)
    if method not in METHODS:
        raise ValueError(
            f"df={method!r} is unknown: expected one of {listed(METHODS)}."
        )
    if est.fit_ not in _KNOWN:
        _KNOWN[est.fit_] = FixedPart([*map(str, est.fixed_effects_.index)], est.fit_)
    if method == "kenward-roger" and not est.fit_.reml:
        raise ValueError(
            "Kenward and Roger's tests are for REML fits, and this one is by maximum "
            "likelihood: fit with method='reml', or take df='satterthwaite'."
        )
    if method == "kenward-roger":
        est.fit_.require_exact("Kenward and Roger's test")
    return _KNOWN[est.fit_]
