"""What all displays share: colours, axes and the choice of a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_lmm._types import FloatArray

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"

MANY_POINTS = 20_000
"""Points beyond which a scatter plot becomes a map of their density."""


def panels(
    display: object,
    ax: Any,
    shape: tuple[int, int],
    size: tuple[float, float],
    **sharing: Any,
) -> tuple[Any, Any]:
    """Return a figure and an array of axes of the given shape.

    ax : None for a new figure of `size` inches, or as many axes as are needed
    """
    check_matplotlib_support(f"{type(display).__name__}.plot")
    if ax is None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(
            *shape, figsize=size, squeeze=False, layout="constrained", **sharing
        )
        return figure, axes
    axes = np.array(ax, dtype=object).ravel()
    needed = shape[0] * shape[1]
    if len(axes) != needed:
        raise ValueError(
            f"ax has {len(axes)} axes, but {type(display).__name__} draws {needed} "
            f"panels here: pass {needed} axes, or None for a new figure."
        )
    return axes[0].figure, axes.reshape(shape)


def one_panel(display: object, ax: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure and its only panel, or that of `ax`."""
    figure, axes = panels(display, ax, (1, 1), size)
    return figure, axes[0, 0]


def grid(
    display: object,
    ax: Any,
    n: int,
    size: tuple[float, float],
    *,
    most: int = 3,
    margin: tuple[float, float] = (0.0, 0.0),
    **sharing: Any,
) -> tuple[Any, Any]:
    """Return a figure and its n panels (n,), at most so many in a row.

    ax : None for a new figure, or n axes
    size : of a panel in inches; margin is added once
    """
    columns = min(most, n)
    rows = -(-n // columns)
    whole = (margin[0] + columns * size[0], margin[1] + rows * size[1])
    shape = (rows, columns) if ax is None else (1, n)
    figure, axes = panels(display, ax, shape, whole, **sharing)
    for spare in axes.ravel()[n:]:
        spare.remove()
    return figure, axes.ravel()[:n]


def tidy_axes(axes: Any) -> None:
    """Take the frame off that a reader does not need."""
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)


def chosen_factor(estimator: Any, factor: str | None) -> tuple[int, str]:
    """Return position and name of a grouping factor, the first by default.

    Raises
    ------
    ValueError
        If the model has no random effects, or no factor of that name.
    """
    names: list[str] = estimator._layout.roles.factor_names
    if not names:
        raise ValueError(
            "The model has no random effects: there is nothing to show by group."
        )
    if factor is None:
        return 0, names[0]
    if factor not in names:
        raise ValueError(
            f"There is no grouping factor {factor!r}: the model has "
            f"{', '.join(map(repr, names))}."
        )
    return names.index(factor), factor


def level_texts(estimator: Any, factor: int) -> list[str]:
    """Return the labels of a factor's levels as text."""
    texts: list[str] = estimator._layout.factors[factor].texts()
    return texts


def row_labels(estimator: Any, X: Any, groups: Any, factor: int) -> Any:
    """Return the label of every row as text, "" for an unknown one."""
    name = estimator._layout.roles.groupings[factor].name
    codes = estimator._read(X, groups, [name]).codes[factor]
    return np.array([*level_texts(estimator, factor), ""], dtype=object)[codes]


def cloud(ax: Any, x: FloatArray, y: FloatArray) -> None:
    """Draw points; a map of their density where there are very many."""
    if len(x) > MANY_POINTS:
        ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
        return
    alpha = float(np.clip(60.0 / np.sqrt(len(x)) / 4.0, 0.15, 0.8))
    size = float(np.clip(6000.0 / len(x), 4.0, 22.0))
    ax.scatter(x, y, s=size, color=BLUE, alpha=alpha, linewidths=0, rasterized=True)


def running_median(
    x: FloatArray, y: FloatArray, bins: int = 20
) -> tuple[FloatArray, FloatArray]:
    """Return the medians of x and y in bins of equally many points."""
    order = np.argsort(x, kind="stable")
    parts = np.array_split(order, max(1, min(bins, len(x) // 20)))
    return (
        np.array([np.median(x[part]) for part in parts]),
        np.array([np.median(y[part]) for part in parts]),
    )
