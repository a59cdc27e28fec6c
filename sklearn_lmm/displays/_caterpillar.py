"""Random effects in order of size, with their intervals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._uncertainty import check_coverage
from sklearn_lmm.displays._figure import (
    BLUE,
    GREY,
    chosen_factor,
    level_texts,
    panels,
    tidy_axes,
)

MOST_LABELS = 70
"""Levels beyond which their names would run into each other."""


class CaterpillarDisplay:
    """Predicted random effects of a grouping factor, in order, with intervals.

    One panel for each coefficient and one line for each level. Intervals that
    leave out 0, the population's value, are blue, the others grey.

    Parameters
    ----------
    effects : DataFrame
        Columns level, coefficient, value, lower and upper, level by level in
        the order to be drawn from bottom to top.
    factor : str
        Name of the grouping factor.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One for each coefficient.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.displays import CaterpillarDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = CaterpillarDisplay.from_estimator(model)
    >>> display.effects["level"].iloc[-1], display.axes_.shape
    ('337', (2,))
    """

    def __init__(self, effects: pd.DataFrame, *, factor: str) -> None:
        self.effects = effects
        self.factor = factor

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        factor: str | None = None,
        coverage: float = 0.95,
        order_by: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the random effects of a fitted model.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        factor : str, default=None
            Name of the grouping factor; None for the first.
        coverage : float, default=0.95
            Probability that an interval covers an effect, given y, with the
            fixed effects and the covariances taken as known.
        order_by : str, default=None
            The coefficient to order the levels by; None for the first.
        ax : array of Axes, default=None
            Where to draw, one for each coefficient; None for a new figure.

        Returns
        -------
        CaterpillarDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no such factor or coefficient, or the coverage is not
            between 0 and 1.
        """
        check_is_fitted(estimator)
        check_coverage(coverage)
        position, name = chosen_factor(estimator, factor)
        effects = estimator.random_effects(return_std=True)
        effects = effects[effects["factor"] == name].drop(columns="factor")
        coefficients = list(effects["coefficient"].unique())
        effects["level"] = np.repeat(
            level_texts(estimator, position), len(coefficients)
        )
        half = stats.norm.ppf(0.5 + coverage / 2.0) * effects["std"]
        effects = effects.assign(
            lower=effects["value"] - half, upper=effects["value"] + half
        )
        order_by = coefficients[0] if order_by is None else order_by
        if order_by not in coefficients:
            raise ValueError(
                f"There is no coefficient {order_by!r} of {name!r} to order by: "
                f"it has {', '.join(map(repr, coefficients))}."
            )
        key = effects.loc[effects["coefficient"] == order_by, "value"].to_numpy()
        rows = np.arange(len(effects)).reshape(-1, len(coefficients))
        ordered = rows[np.argsort(key, kind="stable")].ravel()
        return cls(effects.iloc[ordered].reset_index(drop=True), factor=name).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, default=None
            One for each coefficient; None for a new figure.

        Returns
        -------
        CaterpillarDisplay
            The display itself.
        """
        parts = dict(list(self.effects.groupby("coefficient", sort=False)))
        levels = len(self.effects) // len(parts)
        height = 1.0 + 0.17 * min(max(levels, 8), MOST_LABELS)
        size = (1.2 + 3.2 * len(parts), height)
        self.figure_, axes = panels(self, ax, (1, len(parts)), size, sharey=True)
        self.axes_ = axes[0]
        for panel, (coefficient, part) in zip(self.axes_, parts.items(), strict=True):
            _draw(panel, part)
            panel.set_title(coefficient, loc="left")
            panel.set_xlabel("difference from the population")
        self._label_levels(levels)
        tidy_axes(self.axes_)
        return self

    def _label_levels(self, levels: int) -> None:
        first = self.axes_[0]
        first.set_ylim(-1, levels)
        if levels <= MOST_LABELS:
            names = self.effects["level"].drop_duplicates().tolist()
            first.set_yticks(range(levels), names, fontsize=8)
            first.set_ylabel(self.factor)
        else:
            first.set_yticks([])
            first.set_ylabel(f"{levels} levels of {self.factor}, in order")


def _draw(ax: Any, part: pd.DataFrame) -> None:
    place = np.arange(len(part))
    apart = ((part["lower"] > 0) | (part["upper"] < 0)).to_numpy()
    width, size = (1.6, 14) if len(part) <= MOST_LABELS else (0.6, 3)
    ax.axvline(0.0, color="black", linewidth=0.8)
    for which, color in ((~apart, GREY), (apart, BLUE)):
        shown = part[which]
        ax.hlines(place[which], shown["lower"], shown["upper"], color, linewidth=width)
        ax.scatter(shown["value"], place[which], s=size, color=color, zorder=3)
