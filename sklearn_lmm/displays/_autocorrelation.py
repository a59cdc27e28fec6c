"""Autocorrelation of residuals, by lag."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd

from sklearn_lmm.diagnostics import autocorrelation
from sklearn_lmm.displays._figure import BLUE, GREY, ORANGE, one_panel, tidy_axes
from sklearn_lmm.residuals._base import correlation_of


class AutocorrelationDisplay:
    """The autocorrelation of residuals within series, one stem a lag.

    The band holds 95 % of the autocorrelations of uncorrelated residuals at any
    one lag; stems that leave it are orange. It is wider where fewer pairs of rows
    are so far apart.

    Parameters
    ----------
    autocorrelations : DataFrame
        As `sklearn_lmm.diagnostics.autocorrelation` returns it.
    kind : str, default="scaled"
        Which residuals they are of.
    unit : str, default="rows"
        What lags are in.

    Attributes
    ----------
    ax_ : Axes
        The panel.
    figure_ : Figure
        The figure it is in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_ovary
    >>> from sklearn_lmm.displays import AutocorrelationDisplay
    >>> X, y = load_ovary(return_X_y=True)
    >>> model = MixedEffectsRegressor("mare", fixed=["cycle"]).fit(X, y)
    >>> display = AutocorrelationDisplay.from_estimator(model, X, y, time="day")
    >>> print(f"{display.autocorrelations['autocorrelation'].iloc[0]:.3f}")
    0.645
    """

    def __init__(
        self,
        autocorrelations: pd.DataFrame,
        *,
        kind: str = "scaled",
        unit: str = "rows",
    ) -> None:
        self.autocorrelations = autocorrelations
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
        max_lag: int | None = None,
        groups: Any = None,
        sample_weight: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw the autocorrelation of the residuals of the rows of the fit.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        X, y, groups, sample_weight
            The rows of the fit, as they were given to it.
        time, series, kind, random_effects, max_lag
            See `sklearn_lmm.diagnostics.autocorrelation`.
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        AutocorrelationDisplay
            The display, drawn.
        """
        found = autocorrelation(
            estimator,
            X,
            y,
            time=time,
            series=series,
            kind=kind,
            random_effects=random_effects,
            max_lag=max_lag,
            groups=groups,
            sample_weight=sample_weight,
        )
        return cls(found, kind=kind, unit=unit_of(estimator, time)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        AutocorrelationDisplay
            The display itself.
        """
        self.figure_, self.ax_ = one_panel(self, ax, (5.6, 3.6))
        ax = self.ax_
        table = self.autocorrelations
        lag, value = table["lag"].to_numpy(), table["autocorrelation"].to_numpy()
        ax.fill_between(
            lag,
            table["lower"],
            table["upper"],
            color=GREY,
            alpha=0.3,
            linewidth=0,
            step="mid",
        )
        ax.axhline(0.0, color="black", linewidth=0.8)
        outside = (value < table["lower"]) | (value > table["upper"])
        colours = np.where(outside, ORANGE, BLUE)
        ax.vlines(lag, 0.0, value, colours, linewidth=1.6)
        ax.scatter(lag, value, s=18, color=colours, zorder=3)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel=f"lag ({self.unit})", ylabel="autocorrelation")
        ax.set_title(f"{self.kind.capitalize()} residuals, 95 % band", loc="left")
        tidy_axes(ax)
        return self


def unit_of(estimator: Any, time: Any) -> str:
    """Say what distances are in, as an axis has it."""
    if isinstance(time, str | int):
        return str(time)
    if time is not None:
        if all(isinstance(part, str) for part in time):
            return ", ".join(time)
        return "time"
    structure = correlation_of(estimator.residual)
    places = () if structure is None else structure.places
    return ", ".join(map(str, places)) or "rows"
