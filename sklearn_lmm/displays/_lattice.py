"""Fitted lines, a panel for each group."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm.displays._figure import (
    BLUE,
    GREY,
    ORANGE,
    chosen_factor,
    grid,
    level_texts,
    row_labels,
    tidy_axes,
)

POINTS = 50
"""Points of a line."""


class LatticeDisplay:
    """The data of each group, its own fitted line, and the population's.

    Along the lines all other covariates stay at the group's mean (numbers) or
    most frequent value (anything else).

    Parameters
    ----------
    data : DataFrame
        Columns level, x and y: the rows.
    lines : DataFrame
        Columns level, x, group and population: the lines.
    factor, x, y : str
        Names of the grouping factor and of the axes.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One for each level.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.displays import LatticeDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = LatticeDisplay.from_estimator(model, X, y, x="Days")
    >>> len(display.axes_)
    18
    """

    def __init__(
        self,
        data: pd.DataFrame,
        lines: pd.DataFrame,
        *,
        factor: str,
        x: str,
        y: str = "y",
    ) -> None:
        self.data = data
        self.lines = lines
        self.factor = factor
        self.x = x
        self.y = y

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        x: Any,
        groups: Any = None,
        factor: str | None = None,
        levels: Any = 20,
        ax: Any = None,
    ) -> Self:
        """Draw rows and fitted lines by group.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        X, y, groups
            Rows, of the fit or others.
        x : str or int
            The column of X along which the lines run.
        factor : str, default=None
            Name of the grouping factor; None for the first.
        levels : int or list, default=20
            How many levels to show, evenly spread in the order of their first
            effect with the extremes included; or which.
        ax : array of Axes, default=None
            One for each level shown; None for a new figure.

        Returns
        -------
        LatticeDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no such factor, level or column.
        """
        check_is_fitted(estimator)
        position, name = chosen_factor(estimator, factor)
        frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
        if x not in frame.columns:
            raise ValueError(
                f"X has no column {x!r}: it has {', '.join(map(repr, frame.columns))}."
            )
        frame = frame.reset_index(drop=True)
        labels = row_labels(estimator, X, groups, position)
        shown = _shown_levels(estimator, position, labels, levels)
        y_name = str(y.name) if isinstance(y, pd.Series) and y.name else "y"
        data = pd.DataFrame({"level": labels, "x": frame[x], "y": np.asarray(y)})
        lines = []
        for level in shown:
            rows = np.flatnonzero(labels == level)
            grid, same = _grid(frame, groups, rows, x)
            lines.append(
                pd.DataFrame(
                    {
                        "level": level,
                        "x": grid[x],
                        "group": estimator.predict(
                            _like(grid, X), same, random_effects=[name]
                        ),
                        "population": estimator.predict(
                            _like(grid, X), same, random_effects=False
                        ),
                    }
                )
            )
        return cls(
            data[data["level"].isin(shown)].reset_index(drop=True),
            pd.concat(lines, ignore_index=True),
            factor=name,
            x=str(x),
            y=y_name,
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, default=None
            One for each level; None for a new figure.

        Returns
        -------
        LatticeDisplay
            The display itself.
        """
        levels = list(self.lines["level"].unique())
        most = 5 if len(levels) > 6 else 3
        self.figure_, self.axes_ = grid(
            self,
            ax,
            len(levels),
            (2.0, 1.8),
            most=most,
            margin=(1.0, 0.9),
            sharex=True,
            sharey=True,
        )
        for panel, level in zip(self.axes_, levels, strict=True):
            self._draw(panel, level)
        for panel in self.axes_[-most:]:
            panel.tick_params(labelbottom=True)
        if ax is None:
            self.figure_.supxlabel(self.x)
            self.figure_.supylabel(self.y)
            self.figure_.legend(
                *self.axes_[0].get_legend_handles_labels(),
                loc="outside upper left",
                ncols=3,
                frameon=False,
            )
        tidy_axes(self.axes_)
        return self

    def _draw(self, ax: Any, level: str) -> None:
        rows = self.data[self.data["level"] == level]
        line = self.lines[self.lines["level"] == level]
        ax.scatter(
            rows["x"], rows["y"], s=12, color=GREY, label="rows", rasterized=True
        )
        ax.plot(line["x"], line["population"], "--", color=ORANGE, label="population")
        ax.plot(line["x"], line["group"], color=BLUE, label=f"this {self.factor}")
        ax.set_title(str(level), loc="left", fontsize=9)


def _shown_levels(
    estimator: Any, factor: int, labels: Any, levels: int | list[Any]
) -> list[str]:
    """Return the levels to show, in the order of their first effect."""
    names = np.array(level_texts(estimator, factor), dtype=object)
    present = np.isin(names, labels)
    if not isinstance(levels, int):
        wanted = [str(level) for level in levels]
        absent = [level for level in wanted if level not in names[present]]
        if absent:
            raise ValueError(
                f"There are no rows of level {absent[0]!r}: levels may be, for "
                f"instance, {', '.join(map(repr, names[present][:5]))}."
            )
        return wanted
    effects = estimator.fit_.effects[factor][:, 0]
    order = np.flatnonzero(present)[np.argsort(effects[present], kind="stable")]
    place = np.linspace(0, len(order) - 1, min(levels, len(order))).round().astype(int)
    return list(names[order[place]])


def _grid(
    frame: pd.DataFrame, groups: Any, rows: Any, x: Any
) -> tuple[pd.DataFrame, Any]:
    """Return a typical row of a group, repeated along x, and its labels."""
    own = frame.iloc[rows]
    typical = own.iloc[[0] * POINTS].reset_index(drop=True)
    for column in frame.columns:
        if pd.api.types.is_float_dtype(own[column]):
            typical[column] = own[column].mean()
        else:
            typical[column] = own[column].mode().iloc[[0] * POINTS].to_numpy()
            typical[column] = typical[column].astype(own[column].dtype)
    typical[x] = np.linspace(frame[x].min(), frame[x].max(), POINTS)
    if groups is None:
        return typical, None
    if isinstance(groups, pd.Series | pd.DataFrame):
        return typical, groups.iloc[[rows[0]] * POINTS]
    return typical, np.asarray(groups)[[rows[0]] * POINTS]


def _like(grid: pd.DataFrame, X: Any) -> Any:
    return grid if isinstance(X, pd.DataFrame) else grid.to_numpy()
