"""Four views of the residuals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._stacking import take
from sklearn_lmm.diagnostics import residuals
from sklearn_lmm.displays._figure import (
    BLUE,
    GREY,
    ORANGE,
    chosen_factor,
    cloud,
    panels,
    row_labels,
    running_median,
    tidy_axes,
)
from sklearn_lmm.displays._quantiles import draw_quantiles

MOST_LABELS = 30
"""Levels beyond which their names would run into each other."""

NORMAL_MEDIAN = float(np.sqrt(stats.norm.ppf(0.75)))
"""Median of the root of |e|, e standard normal."""


class ResidualsDisplay:
    """Residuals against predictions, their spread, their quantiles, by group.

    A line of medians runs through the first two panels: it should be level.
    The third compares the residuals with a normal distribution, within a band
    that 95 % of normal samples would not leave at any one point. The fourth
    has the middle half of every group's residuals, in order of their medians.

    Parameters
    ----------
    prediction : ndarray of shape (n_rows,)
        Predictions, random effects included.
    residuals : ndarray of shape (n_rows,)
        Residuals divided by their estimated standard deviation.
    labels : ndarray of shape (n_rows,) or None
        Group of every row.
    factor : str or None
        Name of the grouping factor.

    Attributes
    ----------
    axes_ : ndarray of Axes
        The panels.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.displays import ResidualsDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = ResidualsDisplay.from_estimator(model, X, y)
    >>> float(abs(display.residuals).max().round(2))
    5.18
    """

    def __init__(
        self,
        prediction: Any,
        residuals: Any,
        *,
        labels: Any = None,
        factor: str | None = None,
    ) -> None:
        self.prediction = prediction
        self.residuals = residuals
        self.labels = labels
        self.factor = factor

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        kind: str = "scaled",
        factor: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the residuals of the rows of the fit.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        X, y, groups, sample_weight
            The rows of the fit, as they were given to it. Rows that it left out
            are left out.
        kind : {"scaled", "normalized"}, default="scaled"
            Which residuals; see `sklearn_lmm.diagnostics.residuals`.
        factor : str, default=None
            The grouping factor of the last panel; None for the first.
        ax : array of 4 Axes, default=None
            Where to draw; 3 for a model without random effects. None for a new
            figure.

        Returns
        -------
        ResidualsDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        r = residuals(
            estimator, X, y, groups=groups, sample_weight=sample_weight, kind=kind
        )
        kept = np.flatnonzero(~np.isnan(r))
        X, groups, r = take(X, kept), take(groups, kept), r[kept]
        prediction = estimator.predict(X, groups)
        if not estimator._layout.roles.groupings:
            return cls(prediction, r).plot(ax)
        position, name = chosen_factor(estimator, factor)
        labels = row_labels(estimator, X, groups, position)
        return cls(prediction, r, labels=labels, factor=name).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, default=None
            One for each panel; None for a new figure.

        Returns
        -------
        ResidualsDisplay
            The display itself.
        """
        if self.labels is None:
            self.figure_, axes = panels(self, ax, (1, 3), (11.5, 3.6))
        else:
            self.figure_, axes = panels(self, ax, (2, 2), (9.0, 7.0))
        self.axes_ = axes
        flat = axes.ravel()
        self._draw_level(flat[0])
        self._draw_spread(flat[1])
        draw_quantiles(flat[2], self.residuals)
        flat[2].set_ylabel("residual / standard deviation")
        if self.labels is not None:
            self._draw_groups(flat[3])
        tidy_axes(axes)
        return self

    def _draw_level(self, ax: Any) -> None:
        cloud(ax, self.prediction, self.residuals)
        ax.axhline(0.0, color="black", linewidth=0.8)
        ax.plot(*running_median(self.prediction, self.residuals), color=ORANGE)
        ax.set(xlabel="prediction", ylabel="residual / standard deviation")
        ax.set_title("Is anything left to explain?", loc="left")

    def _draw_spread(self, ax: Any) -> None:
        size = np.sqrt(np.abs(self.residuals))
        cloud(ax, self.prediction, size)
        ax.axhline(NORMAL_MEDIAN, color="black", linewidth=0.8)
        ax.plot(*running_median(self.prediction, size), color=ORANGE)
        ax.set(xlabel="prediction", ylabel="√|residual / standard deviation|")
        ax.set_title("Is the spread the same everywhere?", loc="left")

    def _draw_groups(self, ax: Any) -> None:
        by_group = pd.Series(self.residuals).groupby(np.asarray(self.labels))
        quartiles = pd.DataFrame(
            {
                "low": by_group.quantile(0.25),
                "median": by_group.median(),
                "high": by_group.quantile(0.75),
            }
        ).sort_values("median")
        place = np.arange(len(quartiles))
        few = len(quartiles) <= MOST_LABELS
        ax.axhline(0.0, color="black", linewidth=0.8)
        width, size = (3, 16) if few else (0.7, 3)
        ax.vlines(place, quartiles["low"], quartiles["high"], GREY, linewidth=width)
        ax.scatter(place, quartiles["median"], s=size, color=BLUE, zorder=3)
        ax.set_ylabel("residual / standard deviation")
        ax.set_title("Median and middle half by group", loc="left")
        if few:
            ax.set_xticks(place, quartiles.index, rotation=90, fontsize=8)
            ax.set_xlabel(self.factor)
        else:
            ax.set_xticks([])
            ax.set_xlabel(f"{len(quartiles)} levels of {self.factor}, in order")
