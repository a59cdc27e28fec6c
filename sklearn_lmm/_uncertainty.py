"""Standard deviations and intervals of predictions, for rows of a layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sklearn_lmm._engine.error_criterion import ErrorSizes
from sklearn_lmm._engine.prediction import NewRows, PredictionError
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._layout import Layout, Rows
from sklearn_lmm._results import factor_columns, with_intercept
from sklearn_lmm._types import BoolArray, FloatArray


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that is no probability, such as 95 for 95 per cent.

    Raises
    ------
    ValueError
        If it is not between 0 and 1.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage={coverage} must be between 0 and 1.")


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How far predictions for some rows may be off.

    For an observation every effect that is not predicted adds its variance.
    For a mean only unseen levels do: a factor that was left out on purpose is
    averaged over, not unknown.

    sizes : of the rows' own errors, None if they are those of the fit
    """

    layout: Layout
    fit: LMMFit
    rows: Rows
    sizes: ErrorSizes | None = None

    def std(self) -> FloatArray:
        """Return the standard deviation of a new observation (n,)."""
        if self.fit.perfect:
            return np.zeros(self.rows.X.shape[0])
        error = PredictionError(self.fit)
        variance = error.variance(self._new_rows(), self._counts_unseen("observation"))
        return np.sqrt(variance + self._own())

    def half_width(
        self, coverage: float, kind: str, theta_uncertainty: bool
    ) -> FloatArray:
        """Return half the width of intervals (n,) of the given coverage.

        Student's t with Satterthwaite's degrees of freedom of the variance.
        """
        if self.fit.perfect:
            return np.zeros(self.rows.X.shape[0])
        rows, counts = self._new_rows(), self._counts_unseen(kind)
        error = PredictionError(self.fit)
        variance = error.variance(rows, counts)
        observation = kind == "observation"
        if observation:
            variance = variance + self._own()
        df = error.degrees_of_freedom(
            rows, counts, observation=observation, sizes=self.sizes
        )
        if theta_uncertainty:
            variance = variance + error.variance_by_theta(rows)
        quantile = stats.t.ppf(0.5 + coverage / 2.0, np.maximum(df, 1.0))
        return np.asarray(quantile * np.sqrt(variance))

    def _own(self) -> FloatArray | float:
        """Return the variance of the rows' own errors."""
        sigma2 = self.fit.sigma**2
        return sigma2 if self.sizes is None else sigma2 * self.sizes.estimated()

    def _counts_unseen(self, kind: str) -> BoolArray:
        wanted = [codes is not None for codes in self.rows.codes]
        return np.array([kind == "observation" or asked for asked in wanted], bool)

    def _new_rows(self) -> NewRows:
        n = self.rows.X.shape[0]
        return NewRows(
            X=with_intercept(self.layout, self.rows),
            codes=tuple(np.full(n, -1) if c is None else c for c in self.rows.codes),
            z=factor_columns(self.layout, self.rows),
        )
