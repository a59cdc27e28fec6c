"""Methods that add rows to a fitted model: partial_fit, fit_batches, adapt."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.cross_products import CrossProducts, cross_products
from sklearn_lmm._engine.fit import fit_statistics
from sklearn_lmm._engine.prediction import predict_effects_from
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._layout import Layout, learn, learn_more
from sklearn_lmm._progress import progress
from sklearn_lmm._residual_fit import refuse_residual
from sklearn_lmm._totals import Totals, while_next_is_made


class UpdatesMixin:
    """Rows that come later, by adding up cross-products.

    The estimator has `fit`, `_options` for the engine, `_keep`, which stores a
    layout and a result, and `_finish`, which also warns.
    """

    fit_: LMMFit
    _layout: Layout
    if TYPE_CHECKING:

        def fit(self, X: Any, y: Any = None, **parameters: Any) -> Self: ...
        def _options(self) -> dict[str, Any]: ...
        def _finish(self, layout: Layout, result: LMMFit) -> Self: ...
        def _keep(self, layout: Layout, result: LMMFit) -> None: ...

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Add rows to those seen so far, and fit the model to all of them.

        The result is that of one fit to all rows: what a model needs of them
        are sums, which it keeps. Levels may be new.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates, with the columns of the first call.
        y : array-like of shape (n_samples,)
            Response, as in `fit`.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors)
            Labels, as in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in `fit`.

        Returns
        -------
        self : MixedEffectsRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If the columns are not those of the first call, or as in `fit`.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedEffectsRegressor("(1 + Days | Subject)")
        >>> for start in range(0, 180, 60):
        ...     rows = slice(start, start + 60)
        ...     model = model.partial_fit(X[rows], y[rows])
        >>> print(f"{model.sigma_:.4f}")
        25.5918
        """
        refuse_residual(self, "partial_fit")
        if not hasattr(self, "fit_"):
            return self.fit(X, y, groups=groups, sample_weight=sample_weight)
        layout, statistics = self._added(X, y, groups, sample_weight)
        return self._finish(layout, fit_statistics(statistics, **self._options()))

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_batches(self, batches: Iterable[tuple[Any, ...]]) -> Self:
        """Fit the model to rows that come in batches, once, at the end.

        At no time is more than one batch in memory, together with sums whose
        size depends on the number of levels and of columns.

        Parameters
        ----------
        batches : iterable of tuples
            (X, y), (X, y, groups) or (X, y, groups, sample_weight) each; (X,) if the
            formula has a left side.

        Returns
        -------
        self : MixedEffectsRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If there is no batch, if the columns change, or as in `fit`.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> batches = ((X[i : i + 50], y[i : i + 50]) for i in range(0, 180, 50))
        >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit_batches(batches)
        >>> print(f"{model.sigma_:.4f}")
        25.5918
        """
        refuse_residual(self, "fit_batches")
        # In a function, so that no batch is kept while the model is fitted.
        layout, statistics = self._totals(batches).finished()
        return self._finish(layout, fit_statistics(statistics, **self._options()))

    def adapt(
        self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Return an estimator with effects of new groups, without a refit.

        The fixed effects and the covariances stay as they are. The random
        effects of new groups are predicted from the new rows, those of known
        groups from old and new rows together: the best linear predictions
        given all rows, in whatever portions they come.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Covariates, with the columns of the fit.
        y : array-like of shape (n_samples,)
            Response, as in `fit`.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors)
            Labels, as in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, as in `fit`.

        Returns
        -------
        MixedEffectsRegressor
            A new estimator; this one is unchanged.

        Raises
        ------
        ValueError
            If the columns are not those of the fit, or as in `fit`.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> new = X["Subject"] == "308"
        >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X[~new], y[~new])
        >>> adapted = model.adapt(X[new][:3], y[new][:3])
        >>> "308" in model.effects_["Subject"].index
        False
        >>> adapted.effects_["Subject"].loc["308"].round(1).to_list()
        [-5.9, -1.2]
        """
        check_is_fitted(self)
        refuse_residual(self, "adapt")
        layout, statistics = self._added(X, y, groups, sample_weight)
        return self._with(layout, predict_effects_from(self.fit_, statistics))

    def _with(self, layout: Layout, result: LMMFit) -> Self:
        """Return another estimator, which has this result."""
        other = copy.copy(self)
        other._keep(layout, result)
        return other

    def _totals(self, batches: Iterable[tuple[Any, ...]]) -> Totals:
        """Return what the model needs to know of rows that come in batches."""
        shown = iter(progress(batches, description="fit_batches"))
        first = next(shown, None)
        if first is None:
            raise ValueError("fit_batches got no batch: there is nothing to fit.")
        layout, design = learn(self, *_four(first))
        totals = Totals(layout.roles)
        totals.add(layout, cross_products(design))
        designs = (totals.read(self, *_four(batch)) for batch in shown)
        while_next_is_made(totals.add_rows, designs)
        return totals

    def _added(
        self, X: Any, y: Any, groups: Any, sample_weight: Any
    ) -> tuple[Layout, CrossProducts]:
        """Return layout and cross-products of the rows so far and new ones."""
        new, design = learn_more(self, self._layout, X, y, groups, sample_weight)
        layout = self._layout.joined(new)
        statistics = self.fit_.effect_statistics + cross_products(design)
        return layout, layout.arrange(statistics)


def _four(batch: tuple[Any, ...]) -> tuple[Any, Any, Any, Any]:
    """Return X, y, groups and weights of a batch; None for what it lacks.

    Raises
    ------
    ValueError
        If it has more entries than these.
    """
    if len(batch) > 4:
        raise ValueError(
            f"A batch has {len(batch)} entries; fit_batches takes (X, y), "
            "(X, y, groups) or (X, y, groups, sample_weight). An offset is a column "
            "of X."
        )
    X, y, groups, sample_weight = (*batch, None, None, None)[:4]
    return X, y, groups, sample_weight
