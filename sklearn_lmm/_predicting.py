"""Methods of a fitted model that look at rows, or at its effects."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._layout import Layout, Rows
from sklearn_lmm._messages import no_labels
from sklearn_lmm._residual_fit import error_sizes
from sklearn_lmm._results import (
    decomposed,
    predicted,
    row_index,
    sparse_design,
    tidy_effects,
)
from sklearn_lmm._types import FloatArray
from sklearn_lmm._uncertainty import Uncertainty
from sklearn_lmm.exceptions import MissingGroupsWarning

if TYPE_CHECKING:
    from sklearn_lmm.summaries import Summary


class PredictsMixin:
    """Predictions, their uncertainty and their parts.

    The estimator has the parameter `handle_unknown`, and `fit_` and `_layout`
    once it is fitted.
    """

    handle_unknown: str
    fit_: LMMFit
    _layout: Layout

    def predict(
        self,
        X: Any,
        groups: Any = None,
        *,
        random_effects: bool | Sequence[str] = True,
        return_std: bool = False,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Predict the response, with the random effects of known levels.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates, with the columns of the fit.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors)
            Labels, if the fit took them from `groups`. A bare array serves a
            model with one such factor whatever its name was.
        random_effects : bool or list of str, default=True
            Whose effects count: all, none (the population's mean), or those of
            the named grouping factors. A row of an unknown level has none of
            that factor, or is refused (`handle_unknown`).
        return_std : bool, default=False
            Whether to return standard deviations as well: of a new observation
            about its prediction, from the residual variance, effects that are
            not predicted, and the uncertainty of those that are.

        Returns
        -------
        prediction : ndarray of shape (n_samples,)
            Predictions.
        std : ndarray of shape (n_samples,)
            Standard deviations, if `return_std`.

        Raises
        ------
        ValueError
            If columns, labels or (`handle_unknown="error"`) a level are refused.
        """
        check_is_fitted(self)
        rows = self._read(X, groups, random_effects)
        prediction = predicted(self._layout, self.fit_, rows)
        if return_std:
            sizes = error_sizes(self, X, groups)
            std = Uncertainty(self._layout, self.fit_, rows, sizes).std()
            return prediction, std
        return prediction

    @validate_params(
        {
            "coverage": [Interval(Real, 0, 1, closed="neither")],
            "kind": [StrOptions({"observation", "mean"})],
        },
        prefer_skip_nested_validation=True,
    )
    def predict_interval(
        self,
        X: Any,
        groups: Any = None,
        *,
        coverage: float = 0.95,
        kind: str = "observation",
        random_effects: bool | Sequence[str] = True,
        theta_uncertainty: bool = True,
    ) -> FloatArray:
        """Return intervals that cover the response with a given probability.

        Student's t, with Satterthwaite's degrees of freedom of the variance of
        the prediction error.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates, with the columns of the fit.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors)
            Labels, as in `predict`.
        coverage : float, default=0.95
            The probability.
        kind : {"observation", "mean"}, default="observation"
            Whether to cover a new observation, or the mean of the row's group;
            of an unknown group: the mean of one that is drawn at random.
        random_effects : bool or list of str, default=True
            Whose effects are predicted, as in `predict`. A mean is over the
            population of the factors left out.
        theta_uncertainty : bool, default=True
            Whether to add what the uncertainty of the covariances contributes
            to that of the predicted effects, by the delta method.  Without it
            intervals for the means of known groups are too short when there
            are few groups.

        Returns
        -------
        ndarray of shape (n_samples, 2)
            Lower and upper bounds.

        Raises
        ------
        ValueError
            As in `predict`.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
        >>> new = X.head(1).assign(Subject="unheard of")
        >>> model.predict_interval(new).round(0)
        array([[178., 325.]])
        """
        check_is_fitted(self)
        rows = self._read(X, groups, random_effects)
        prediction = predicted(self._layout, self.fit_, rows)
        sizes = error_sizes(self, X, groups) if kind == "observation" else None
        uncertainty = Uncertainty(self._layout, self.fit_, rows, sizes)
        half = uncertainty.half_width(coverage, kind, theta_uncertainty)
        return np.column_stack([prediction - half, prediction + half])

    def score(
        self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None
    ) -> float:
        """Return R2, the coefficient of determination, of `predict(X, groups)`.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates.
        y : array-like of shape (n_samples,)
            True response; None takes it from the left side of the formula.
        groups : array-like, default=None
            Labels, as in `predict`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            1 for a perfect prediction, 0 for one no better than the mean.
        """
        check_is_fitted(self)
        formula = self._layout.formula
        if formula is not None:
            rows = formula.rows(X, y, groups, sample_weight)
            X, y, groups, sample_weight = rows.data
        prediction = self.predict(X, groups)
        return float(r2_score(y, prediction, sample_weight=sample_weight))

    def decompose(self, X: Any, groups: Any = None) -> pd.DataFrame:
        """Split predictions into the fixed part and each term's share.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates.
        groups : array-like, default=None
            Labels, as in `predict`.

        Returns
        -------
        DataFrame of shape (n_samples, 2 + n_terms)
            Columns fixed (offset included), one for each random-effects term,
            and their sum, total, which is what `predict` returns.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> X = [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
        >>> y = [1.0, 2.2, 3.1, 3.9, 2.0, 3.3]
        >>> model = MixedEffectsRegressor(random=1).fit(X, y)
        >>> list(model.decompose(X).columns)
        ['fixed', 'x1', 'total']
        """
        check_is_fitted(self)
        rows = self._read(X, groups, True)
        return decomposed(self._layout, self.fit_, rows, row_index(X))

    def random_effects(self, return_std: bool = False) -> pd.DataFrame:
        """Return the predicted random effects as a tidy table.

        Parameters
        ----------
        return_std : bool, default=False
            Whether to add the column std: the conditional standard deviation
            of an effect given y, with the fixed effects and the covariances
            taken as known (lme4's condVar).

        Returns
        -------
        DataFrame
            Columns factor, level, coefficient, value and perhaps std. The
            levels of an interaction are tuples.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> X = [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
        >>> y = [1.0, 2.2, 3.1, 3.9, 2.0, 3.3]
        >>> model = MixedEffectsRegressor(random=1).fit(X, y)
        >>> model.random_effects()[["factor", "level", "coefficient"]].iloc[0].tolist()
        ['x1', 0, '(Intercept)']
        """
        check_is_fitted(self)
        return tidy_effects(self._layout, self.fit_, return_std)

    def design_matrix(
        self, X: Any, groups: Any = None
    ) -> tuple[sparse.csr_array, list[str]]:
        """Return the random-effects design matrix Z of rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates.
        groups : array-like, default=None
            Labels, as in `predict`.

        Returns
        -------
        Z : sparse array in CSR format of shape (n_samples, n_random_effects)
            One column for each random effect: term by term, level by level,
            coefficient by coefficient. Rows of unknown levels are empty there.
        names : list of str
            Names of the columns, as in "standLRT | school[17]".
        """
        check_is_fitted(self)
        rows = self._read(X, groups, True)
        return sparse_design(self._layout, rows)

    def summary(
        self,
        X: Any = None,
        y: Any = None,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        df: str = "satterthwaite",
    ) -> Summary:
        """Return what the fit has found, to be printed or shown in a notebook.

        The blocks are those of lme4's summary, with tests of the fixed effects,
        and what to know of the fit in words.

        Parameters
        ----------
        X, y, groups, sample_weight : array-like, default=None
            The rows of the fit, which are not kept; only for the quantiles of the
            scaled residuals. y may be left out if the formula has a left side.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, default=\
"satterthwaite"
            Degrees of freedom of the tests, as in `inference.coefficient_table`.

        Returns
        -------
        Summary
            Its attributes, such as `fixed` and `random`, are the tables.

        Raises
        ------
        ValueError
            If `df` does not suit the fit, or X has other rows than the fit.

        Examples
        --------
        >>> from sklearn_lmm import lmer
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> sleepstudy = load_sleepstudy(as_frame=True).frame
        >>> model = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
        >>> print(model.summary(sleepstudy))
        Linear mixed model fitted by REML
        Formula: Reaction ~ Days + (Days | Subject)
        Rows: 180; 18 levels of Subject
        REML criterion: 1743.6
        Optimiser: newton, 3 iterations
        <BLANKLINE>
        Scaled residuals:
             Min      1Q Median     3Q    Max
         -3.9536 -0.4634 0.0231 0.4634 5.1793
        <BLANKLINE>
        Random effects:
         Groups   Name        Variance Std.Dev. Corr
         Subject  (Intercept)   612.09   24.740
                  Days           35.07    5.922 0.07
         Residual               654.94   25.592
        <BLANKLINE>
        Fixed effects:
                    Estimate Std. Error   df t value Pr(>|t|)
        (Intercept)  251.405      6.825 17.0  36.838   <2e-16
        Days          10.467      1.546 17.0   6.771 3.26e-06
        <BLANKLINE>
        Correlation of fixed effects:
             (Intr)
        Days  -0.14
        <BLANKLINE>
        Variance explained:
         R2 marginal R2 conditional   ICC
               0.279          0.799 0.722
        <BLANKLINE>
        Tests use Satterthwaite's degrees of freedom.
        The optimiser converged, and the fit is not singular.
        """
        # Tests and intervals take a while to import, and few fits need them.
        from sklearn_lmm.summaries._summarize import summarize

        return summarize(self, X, y, groups, sample_weight, df)

    def _read(self, X: Any, groups: Any, random_effects: bool | Sequence[str]) -> Rows:
        strict = self.handle_unknown == "error"
        rows = self._layout.read(self, X, groups, random_effects, strict)
        if rows.without_labels:
            message = no_labels(rows.without_labels)
            if strict:
                raise ValueError(message)
            warnings.warn(message, MissingGroupsWarning, stacklevel=3)
        return rows
