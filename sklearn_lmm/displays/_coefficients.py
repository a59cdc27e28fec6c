"""Fixed effects with their intervals."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._uncertainty import check_coverage
from sklearn_lmm.displays._figure import BLUE, GREY, ORANGE, one_panel, tidy_axes
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.terms import INTERCEPT

COLORS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", GREY]
"""Colours of the models."""


class CoefficientDisplay:
    """Fixed effects of one or several models, with their intervals.

    Parameters
    ----------
    coefficients : DataFrame
        Columns model, name, estimate, lower and upper.

    Attributes
    ----------
    ax_ : Axes
        The axes.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.displays import CoefficientDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> models = {
    ...     "intercepts": MixedEffectsRegressor("Subject").fit(X, y),
    ...     "slopes": MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y),
    ... }
    >>> display = CoefficientDisplay.from_estimator(models)
    >>> display.coefficients.round(2)
            model  name  estimate  lower  upper
    0  intercepts  Days     10.47   8.88  12.06
    1      slopes  Days     10.47   7.21  13.73
    """

    def __init__(self, coefficients: pd.DataFrame) -> None:
        self.coefficients = coefficients

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        coverage: float = 0.95,
        df: str = "satterthwaite",
        intercept: bool = False,
        ax: Any = None,
    ) -> Self:
        """Draw the fixed effects of fitted models.

        Parameters
        ----------
        estimator : MixedEffectsRegressor or dict of str to MixedEffectsRegressor
            A fitted model, or several by name.
        coverage : float, default=0.95
            Probability that an interval covers its coefficient.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}
            Degrees of freedom; see `sklearn_lmm.inference.coefficient_table`.
        intercept : bool, default=False
            Whether to show the intercept, too.
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        CoefficientDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is nothing to show, or the coverage is not between 0 and 1.
        """
        check_coverage(coverage)
        models = estimator if isinstance(estimator, dict) else {"": estimator}
        tables = []
        for name, model in models.items():
            check_is_fitted(model)
            table = coefficient_table(model, df=df)
            half = stats.t.ppf(0.5 + coverage / 2.0, table["df"]) * table["std_error"]
            tables.append(
                pd.DataFrame(
                    {
                        "model": name,
                        "name": table.index,
                        "estimate": table["estimate"].to_numpy(),
                        "lower": (table["estimate"] - half).to_numpy(),
                        "upper": (table["estimate"] + half).to_numpy(),
                    }
                )
            )
        everything = pd.concat(tables, ignore_index=True)
        if not intercept:
            everything = everything[everything["name"] != INTERCEPT]
        if everything.empty:
            raise ValueError(
                "There are no fixed effects to show. The intercept is shown with "
                "intercept=True."
            )
        return cls(everything.reset_index(drop=True)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        CoefficientDisplay
            The display itself.
        """
        names = self.coefficients["name"].unique()[::-1]
        models = self.coefficients["model"].unique()
        height = 1.2 + 0.3 * len(names) * max(1.0, 0.6 * len(models))
        self.figure_, self.ax_ = one_panel(self, ax, (6.4, height))
        self.ax_.axvline(0.0, color="black", linewidth=0.8)
        places = pd.Series(np.arange(len(names)), index=names)
        shifts = np.linspace(0.18, -0.18, len(models)) if len(models) > 1 else [0.0]
        for k, (model, shift) in enumerate(zip(models, shifts, strict=True)):
            part = self.coefficients[self.coefficients["model"] == model]
            place = places[part["name"]].to_numpy() + shift
            color = COLORS[k % len(COLORS)]
            self.ax_.hlines(place, part["lower"], part["upper"], color, linewidth=1.8)
            self.ax_.scatter(
                part["estimate"], place, s=26, color=color, zorder=3, label=model
            )
        self.ax_.set_yticks(range(len(names)), names)
        self.ax_.set_ylim(-0.6, len(names) - 0.4)
        self.ax_.set_xlabel("coefficient, in units of y per unit of the column")
        if len(models) > 1:
            self.ax_.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        tidy_axes(self.ax_)
        return self
