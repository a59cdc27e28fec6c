"""Semivariogram of residuals, by distance."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd

from sklearn_lmm._types import FloatArray
from sklearn_lmm.diagnostics import semivariogram
from sklearn_lmm.displays._autocorrelation import unit_of
from sklearn_lmm.displays._figure import BLUE, GREY, ORANGE, one_panel, tidy_axes

SPAN = 0.6
"""Part of the bins that the smooth rests on at a place."""


class SemivariogramDisplay:
    """How unlike residuals become with their distance in time or space.

    Points are means over bins of pairs of rows, a smooth runs through them, and
    the orange line is what the model says of its errors: level at 1 if they are
    independent. Where the points lie below it, rows are more alike than the model
    has it. Predicted random effects take a part of the variance with them, so that
    points of conditional residuals lie a little low everywhere.

    Parameters
    ----------
    bins : DataFrame
        As `sklearn_lmm.diagnostics.semivariogram` returns it.
    kind : str, default="scaled"
        Which residuals they are of.
    unit : str, default="rows"
        What distances are in.

    Attributes
    ----------
    smooth : ndarray of shape (n_bins,)
        The smooth at the bins: local lines, weighted by numbers of pairs.
    ax_ : Axes
        The panel.
    figure_ : Figure
        The figure it is in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_ovary
    >>> from sklearn_lmm.displays import SemivariogramDisplay
    >>> X, y = load_ovary(return_X_y=True)
    >>> model = MixedEffectsRegressor("mare", fixed=["cycle"]).fit(X, y)
    >>> display = SemivariogramDisplay.from_estimator(model, X, y, time="cycle")
    >>> display.bins["semivariogram"].iloc[[0, -1]].round(2).tolist()
    [0.34, 1.36]
    """

    def __init__(
        self, bins: pd.DataFrame, *, kind: str = "scaled", unit: str = "rows"
    ) -> None:
        self.bins = bins
        self.kind = kind
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        time: Any = None,
        series: Any = None,
        kind: str = "scaled",
        random_effects: Any = True,
        n_bins: int = 20,
        max_distance: float | None = None,
        groups: Any = None,
        sample_weight: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw the semivariogram of the residuals of the rows of the fit.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        X, y, groups, sample_weight
            The rows of the fit, as they were given to it.
        time, series, kind, random_effects, n_bins, max_distance
            See `sklearn_lmm.diagnostics.semivariogram`.
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        SemivariogramDisplay
            The display, drawn.
        """
        bins = semivariogram(
            estimator,
            X,
            y,
            time=time,
            series=series,
            kind=kind,
            random_effects=random_effects,
            n_bins=n_bins,
            max_distance=max_distance,
            groups=groups,
            sample_weight=sample_weight,
        )
        return cls(bins, kind=kind, unit=unit_of(estimator, time)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        SemivariogramDisplay
            The display itself.
        """
        self.figure_, self.ax_ = one_panel(self, ax, (5.6, 3.6))
        ax = self.ax_
        distance = self.bins["distance"].to_numpy()
        value, pairs = self.bins["semivariogram"], self.bins["n_pairs"].to_numpy()
        self.smooth = local_lines(distance, value.to_numpy(), pairs)
        size = 40.0 * pairs / pairs.max()
        ax.plot(distance, self.smooth, color=GREY, label="smooth")
        ax.plot(distance, self.bins["model"], color=ORANGE, label="model")
        ax.scatter(distance, value, s=size.clip(6.0), color=BLUE, zorder=3)
        top = max(1.1, float(value.max()) * 1.05)
        ax.set(xlabel=f"distance ({self.unit})", ylabel="semivariogram", ylim=(0, top))
        ax.set_title(f"{self.kind.capitalize()} residuals", loc="left")
        ax.legend(frameon=False, loc="lower right")
        tidy_axes(ax)
        return self


def local_lines(x: FloatArray, y: FloatArray, weights: Any) -> FloatArray:
    """Return lines through the nearest points, with tricube weights, at every x."""
    near = max(4, int(np.ceil(SPAN * len(x))))
    if len(x) < near:
        return y
    smooth = np.empty_like(y)
    for k, place in enumerate(x):
        apart = np.abs(x - place)
        # A little beyond the last of them, so that it counts.
        reach = 1.001 * np.sort(apart)[near - 1]
        w = weights * (1.0 - (apart / reach).clip(max=1.0) ** 3) ** 3
        A = np.sqrt(w)[:, None] * np.column_stack([np.ones_like(x), x - place])
        smooth[k] = np.linalg.lstsq(A, np.sqrt(w) * y, rcond=None)[0][0]
    return smooth
