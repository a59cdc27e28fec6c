"""How far the model draws the groups' own estimates towards the population."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.group_estimates import group_least_squares
from sklearn_lmm.displays._figure import (
    BLUE,
    GREY,
    ORANGE,
    chosen_factor,
    level_texts,
    one_panel,
    tidy_axes,
)

MOST_LABELS = 30
"""Groups beyond which their names would cover the picture."""

FAR = 4.0
"""Standard deviations from the population beyond which own estimates are cut off."""


class ShrinkageDisplay:
    """Each group's own least-squares estimate and what the model makes of it.

    With two coefficients an arrow leads from the estimate of the group's rows
    alone to the model's prediction, and ellipses show where 50 % and 95 % of
    groups lie by the estimated covariance. With one coefficient the prediction
    is drawn against the group's own estimate.

    Parameters
    ----------
    effects : DataFrame
        One row a group: the model's effects, as differences from the population.
    own : DataFrame
        The same by least squares, NaN where a group's rows do not tell.
    covariance : DataFrame
        The estimated covariance of the coefficients.
    factor : str
        Name of the grouping factor.

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
    >>> from sklearn_lmm.displays import ShrinkageDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = ShrinkageDisplay.from_estimator(model)
    >>> display.own.loc["308"].round(2).tolist()
    [-7.21, 11.3]
    """

    def __init__(
        self,
        effects: pd.DataFrame,
        own: pd.DataFrame,
        covariance: pd.DataFrame,
        *,
        factor: str,
    ) -> None:
        self.effects = effects
        self.own = own
        self.covariance = covariance
        self.factor = factor

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        factor: str | None = None,
        coefficients: tuple[str, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the shrinkage of a fitted model; no rows are needed.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        factor : str, default=None
            Name of the grouping factor; None for the first.
        coefficients : tuple of one or two str, default=None
            The coefficients to show; None for the first two.
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        ShrinkageDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no such factor or coefficient.
        """
        check_is_fitted(estimator)
        position, name = chosen_factor(estimator, factor)
        everything = estimator.effects_[name]
        names = list(everything.columns)
        shown = names[:2] if coefficients is None else list(coefficients)
        if not 1 <= len(shown) <= 2 or not set(shown) <= set(names):
            raise ValueError(
                f"coefficients={coefficients!r}: give one or two of those of {name!r}, "
                f"{', '.join(map(repr, names))}."
            )
        index = pd.Index(level_texts(estimator, position), name=name)
        own = pd.DataFrame(group_least_squares(estimator.fit_, position), index, names)
        return cls(
            everything[shown].set_axis(index),
            own[shown],
            estimator.covariances_[name].loc[shown, shown],
            factor=name,
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        ShrinkageDisplay
            The display itself.
        """
        self.figure_, self.ax_ = one_panel(self, ax, (6.4, 5.2))
        known = self.own.notna().all(axis=1).to_numpy()
        if self.effects.shape[1] == 2:
            self._draw_plane(known)
        else:
            self._draw_line(known)
        self._tell_left_out(known)
        self.ax_.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        tidy_axes(self.ax_)
        return self

    def _tell_left_out(self, known: Any) -> None:
        missing = int((~known).sum())
        own = self.own[known].to_numpy()
        limits = (self.ax_.get_xlim(), self.ax_.get_ylim())[: own.shape[1]]
        beyond = np.zeros(len(own), dtype=bool)
        for (low, high), values in zip(limits, own.T, strict=True):
            beyond |= (values < low) | (values > high)
        told = [f"{missing} with too few rows of their own"] * (missing > 0)
        told += [f"{int(beyond.sum())} beyond the picture"] * bool(beyond.any())
        if told:
            text = f"{len(known)} groups; " + ", ".join(told)
            self.ax_.set_title(text, loc="left", fontsize=9, color=GREY)

    def _draw_plane(self, known: Any) -> None:
        ax, few = self.ax_, len(self.effects) <= MOST_LABELS
        own, shrunken = self.own[known].to_numpy(), self.effects[known].to_numpy()
        size = 26 if few else 8
        for share, style in ((0.5, "-"), (0.95, "--")):
            x, y = _ellipse(self.covariance.to_numpy(), share)
            ax.plot(
                x, y, style, color=GREY, linewidth=1, label=f"{share:.0%} of groups"
            )
        ax.quiver(
            *own.T,
            *(shrunken - own).T,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003 if few else 0.0015,
            color=GREY,
            alpha=0.7,
        )
        ax.scatter(
            *own.T, s=size, facecolors="none", edgecolors=ORANGE, label="own rows"
        )
        ax.scatter(*self.effects.to_numpy().T, s=size, color=BLUE, label="model")
        ax.scatter(0, 0, marker="+", s=120, color="black", label="population")
        if few:
            for label, place in zip(self.own.index[known], own, strict=True):
                ax.annotate(
                    label,
                    place,
                    (4, 4),
                    textcoords="offset points",
                    fontsize=8,
                    annotation_clip=True,
                )
        self._set_limits(own)

    def _set_limits(self, own: Any) -> None:
        """Cut off estimates that are too far out to leave room for the others."""
        deviations = np.sqrt(np.diag(self.covariance.to_numpy()))
        for axis, name, deviation, mine in zip(
            "xy", self.effects.columns, deviations, own.T, strict=True
        ):
            predicted = float(self.effects[name].abs().max())
            room = max(FAR * deviation, 1.1 * predicted)
            wanted = max(1.1 * np.abs(mine).max(initial=0.0), 0.7 * room)
            reach = min(room, wanted)
            label = f"{name}, difference from the population"
            self.ax_.set(**{f"{axis}label": label, f"{axis}lim": (-reach, reach)})

    def _draw_line(self, known: Any) -> None:
        ax = self.ax_
        own = self.own[known].to_numpy()[:, 0]
        shrunken = self.effects[known].to_numpy()[:, 0]
        ends = np.array([own.min(), own.max()])
        ax.plot(ends, ends, "--", color=GREY, linewidth=1, label="no shrinkage")
        ax.axhline(0.0, color="black", linewidth=0.8, label="population")
        size = 26 if len(own) <= MOST_LABELS else 8
        ax.scatter(own, shrunken, s=size, color=BLUE, label=self.factor)
        name = self.effects.columns[0]
        ax.set_xlabel(f"{name} from a group's own rows, difference from the population")
        ax.set_ylabel(f"{name} by the model")


def _ellipse(covariance: Any, share: float) -> tuple[Any, Any]:
    """Return the points of the ellipse that holds a share of a normal plane."""
    w, U = np.linalg.eigh(covariance)
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.sqrt(-2.0 * np.log(1.0 - share)) * np.array(
        [np.cos(angle), np.sin(angle)]
    )
    x, y = (U * np.sqrt(w.clip(0))) @ circle
    return x, y
