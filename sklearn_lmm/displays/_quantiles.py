"""Normal quantiles of residuals and of random effects."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy import stats
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._types import FloatArray
from sklearn_lmm.diagnostics import residuals
from sklearn_lmm.displays._figure import (
    BLUE,
    GREY,
    chosen_factor,
    grid,
    tidy_axes,
)


class QuantileDisplay:
    """Quantiles of residuals or random effects against those of a normal sample.

    The band holds 95 % of normal samples of the same size at any one point.
    Random effects are divided by the standard deviation of their predictions,
    which are shrunken, and more so for small groups; so they all have variance
    1 if the model is right.

    Parameters
    ----------
    samples : dict of str to ndarray
        Standardised values, by the title of their panel.

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
    >>> from sklearn_lmm.displays import QuantileDisplay
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> display = QuantileDisplay.from_random_effects(model)
    >>> list(display.samples)
    ['Subject: (Intercept)', 'Subject: Days']
    """

    def __init__(self, samples: dict[str, FloatArray]) -> None:
        self.samples = samples

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
        ax: Any = None,
    ) -> Self:
        """Draw the quantiles of the residuals.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        X, y, groups, sample_weight
            The rows of the fit, as they were given to it. Rows that it left out
            are left out.
        kind : {"scaled", "normalized"}, default="scaled"
            Which residuals; see `sklearn_lmm.diagnostics.residuals`.
        ax : Axes, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        QuantileDisplay
            The display, drawn.
        """
        r = residuals(
            estimator, X, y, groups=groups, sample_weight=sample_weight, kind=kind
        )
        return cls({f"{kind} residuals": r[~np.isnan(r)]}).plot(ax)

    @classmethod
    def from_random_effects(
        cls, estimator: Any, *, factor: str | None = None, ax: Any = None
    ) -> Self:
        """Draw the quantiles of the random effects of a factor.

        Parameters
        ----------
        estimator : MixedEffectsRegressor
            A fitted model.
        factor : str, default=None
            Name of the grouping factor; None for the first.
        ax : array of Axes, default=None
            One for each coefficient; None for a new figure.

        Returns
        -------
        QuantileDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        position, name = chosen_factor(estimator, factor)
        effects = estimator.effects_[name]
        within = estimator.fit_.conditional_covariances()[position]
        variance = np.diag(estimator.covariances_[name]) - np.diagonal(
            within, axis1=1, axis2=2
        )
        samples = {}
        for column, (coefficient, values) in enumerate(effects.items()):
            spread = np.sqrt(variance[:, column].clip(0))
            told = spread > 0
            samples[f"{name}: {coefficient}"] = values.to_numpy()[told] / spread[told]
        return cls(samples).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, default=None
            One for each sample; None for a new figure.

        Returns
        -------
        QuantileDisplay
            The display itself.
        """
        self.figure_, self.axes_ = grid(self, ax, len(self.samples), (3.9, 3.8))
        for panel, (title, values) in zip(
            self.axes_, self.samples.items(), strict=True
        ):
            draw_quantiles(panel, values)
            panel.set_title(title, loc="left")
            panel.set_ylabel("standardised value")
        tidy_axes(self.axes_)
        return self


def draw_quantiles(ax: Any, values: FloatArray) -> None:
    """Draw sorted values against normal quantiles, with a pointwise 95 % band."""
    n = len(values)
    if n == 0:
        ax.text(0.5, 0.5, "all values are 0", ha="center", transform=ax.transAxes)
        return
    rank = np.arange(1, n + 1)
    normal = stats.norm.ppf((rank - 0.375) / (n + 0.25))
    # The k-th of n uniform values has the distribution Beta(k, n + 1 - k).
    low, high = (
        stats.norm.ppf(stats.beta.ppf(part, rank, n + 1 - rank))
        for part in (0.025, 0.975)
    )
    ax.fill_between(normal, low, high, color=GREY, alpha=0.3, linewidth=0)
    ax.plot(normal, normal, color="black", linewidth=0.8)
    size = float(np.clip(3000.0 / n, 4.0, 18.0))
    ax.scatter(normal, np.sort(values), s=size, color=BLUE, zorder=3, rasterized=True)
    ax.set_xlabel("normal quantile")
    ax.set_title("Normal quantiles, 95 % band", loc="left")
