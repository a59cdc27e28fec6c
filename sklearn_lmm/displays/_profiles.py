"""Profiles of the likelihood."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from scipy import stats
from scipy.interpolate import CubicSpline

from sklearn_lmm._types import FloatArray
from sklearn_lmm.displays._figure import BLUE, GREY, grid, tidy_axes
from sklearn_lmm.intervals import Profile, profile

POINTS = 200
"""Points of a curve."""

FAR = (-np.inf, np.inf)
"""Where an interval ends that has no end."""


class ProfileDisplay:
    """Profile likelihoods: how firmly the data hold every parameter.

    zeta is the signed root of twice the loss of log-likelihood. If it is a
    straight line, the usual intervals of estimate and standard error are right;
    a bend is an asymmetric interval. Dashed lines mark the intervals. As a
    density the same is shown as the normal density of zeta, in the parameter's
    units.

    Parameters
    ----------
    profile : Profile
        What `sklearn_lmm.intervals.profile` returns.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One for each parameter that has a profile.
    figure_ : Figure
        The figure they are in.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.displays import ProfileDisplay
    >>> from sklearn_lmm.intervals import profile
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = ProfileDisplay(profile(model, "variance")).plot(kind="density")
    >>> [ax.get_title(loc="left") for ax in display.axes_[:2]]
    ['sd((Intercept) | Subject)', 'sd(Days | Subject)']
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        parameters: Any = None,
        *,
        kind: Literal["zeta", "density"] = "zeta",
        coverage: float = 0.95,
        ax: Any = None,
    ) -> Self:
        """Follow the profile likelihood of a fitted model, and draw it.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        parameters : str or list of str, default=None
            Which ones; see `sklearn_lmm.intervals.profile`. None for all.
        kind : {"zeta", "density"}, default="zeta"
            What to draw.
        coverage : float, default=0.95
            That of the intervals marked.
        ax : array of Axes, default=None
            One for each parameter; None for a new figure.

        Returns
        -------
        ProfileDisplay
            The display, drawn.
        """
        traced = profile(estimator, parameters, coverage=max(0.99, coverage))
        return cls(traced).plot(ax, kind=kind, coverage=coverage)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: Literal["zeta", "density"] = "zeta",
        coverage: float = 0.95,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, default=None
            One for each parameter that has a profile; None for a new figure.
        kind : {"zeta", "density"}, default="zeta"
            What to draw.
        coverage : float, default=0.95
            That of the intervals marked.

        Returns
        -------
        ProfileDisplay
            The display itself.

        Raises
        ------
        ValueError
            If no parameter has a profile, or `kind` is neither.
        """
        if kind not in ("zeta", "density"):
            raise ValueError(f"kind={kind!r} is neither 'zeta' nor 'density'.")
        traces = _traces(self.profile)
        if not traces:
            reasons = "; ".join(sorted(set(self.profile.reasons)))
            raise ValueError(f"No parameter has a profile: {reasons}.")
        self.figure_, self.axes_ = grid(self, ax, len(traces), (3.6, 2.7))
        intervals = self.profile.intervals(coverage)
        for panel, (name, trace) in zip(self.axes_, traces.items(), strict=True):
            ends = intervals.loc[name, ["lower", "upper"]].to_numpy(float)
            draw = _draw_zeta if kind == "zeta" else _draw_density
            draw(panel, *trace, ends, coverage)
            panel.axvline(intervals.loc[name, "estimate"], color=GREY, linewidth=0.8)
            panel.set_title(name, loc="left", fontsize=10)
        self.axes_[0].legend(frameon=False, fontsize=8, loc="upper left")
        tidy_axes(self.axes_)
        return self


def _traces(traced: Profile) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return value and zeta of every parameter with a profile."""
    traces = {}
    for name, rows in traced.frame.groupby("parameter", sort=False):
        distinct = rows.drop_duplicates("value")
        if len(distinct) > 2:
            traces[str(name)] = (
                distinct["value"].to_numpy(),
                distinct["zeta"].to_numpy(),
            )
    return traces


def _draw_zeta(
    ax: Any, value: FloatArray, zeta: FloatArray, ends: FloatArray, coverage: float
) -> None:
    """Draw zeta by the parameter, with its interval."""
    fine = np.linspace(value[0], value[-1], POINTS)
    curve = CubicSpline(value, zeta)
    ax.plot(fine, curve(fine), color=BLUE)
    ax.axhline(0.0, color="black", linewidth=0.8)
    for k, end in enumerate(ends[np.isfinite(ends)]):
        label = f"{coverage:.0%} interval" if k == 0 else None
        ax.vlines(end, 0.0, curve(end), "black", "dashed", linewidth=1, label=label)
    ax.set_ylabel("ζ")


def _draw_density(
    ax: Any, value: FloatArray, zeta: FloatArray, ends: FloatArray, coverage: float
) -> None:
    """Draw the density of a parameter of which zeta is standard normal."""
    fine = np.linspace(value[0], value[-1], POINTS)
    curve = CubicSpline(value, zeta)
    density = stats.norm.pdf(curve(fine)) * curve(fine, 1).clip(0.0)
    ax.plot(fine, density, color=BLUE)
    low, high = (
        np.nan_to_num(end, nan=far) for end, far in zip(ends, FAR, strict=True)
    )
    inside = (fine >= low) & (fine <= high)
    label = f"{coverage:.0%} interval"
    ax.fill_between(
        fine, density, where=inside, color=BLUE, alpha=0.2, linewidth=0, label=label
    )
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("density")
