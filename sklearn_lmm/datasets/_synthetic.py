"""Random data from a linear mixed model whose parameters are known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state

from sklearn_lmm._types import FloatArray, IntArray


def make_mixed_regression(
    n_samples: int = 1000,
    n_features: int = 5,
    *,
    n_groups: int | Sequence[int] = 50,
    n_slopes: int | Sequence[int] = 0,
    nested: bool = False,
    covariance: ArrayLike | Sequence[ArrayLike] = 1.0,
    coef: ArrayLike | None = None,
    intercept: float = 0.0,
    noise: float = 1.0,
    as_frame: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate data from a linear mixed model with Gaussian columns.

    For row i, in level g_f(i) of grouping factor f::

        y_i = intercept + x_i' coef + sum_f (1, x_i1 .. x_is_f)' b_f,g_f(i) + e_i

    with b_fg ~ N(0, covariance_f), e_i ~ N(0, noise^2) and x_ij ~ N(0, 1), all
    independent.  Every level has at least one row; the other rows fall on the
    levels at random.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=5
        Number of columns of X.
    n_groups : int or sequence of int, default=50
        Number of levels; a sequence gives one grouping factor for each entry.
    n_slopes : int or sequence of int, default=0
        How many of the first columns of X have, beside the intercept, a random
        slope; a sequence gives one number for each factor.
    nested : bool, default=False
        Whether each factor is nested in the one before it; otherwise they are
        crossed.
    covariance : float, array of shape (q, q) or a list of these, default=1.0
        Covariance of the q = 1 + n_slopes coefficients of a level; a float is
        that multiple of the identity.  A list has one entry for each factor.
    coef : array of shape (n_features,), default=None
        Fixed effects; by default drawn from N(0, 1).
    intercept : float, default=0.0
        Fixed intercept.
    noise : float, default=1.0
        Standard deviation of the errors.
    as_frame : bool, default=False
        Return X, y and groups as pandas objects: columns ``x0``, ``x1``, ...,
        response ``y``, and groups named ``group`` (one factor) or ``group0``,
        ``group1``, ....
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is drawn.

    Returns
    -------
    Bunch
        With the attributes

        X : (n_samples, n_features)
        y : (n_samples,)
        groups : (n_samples,) integers 0 .. n_groups - 1 for one factor,
            (n_samples, n_factors) for several
        coef : (n_features,)
        intercept : float
        covariances : tuple with an array (q, q) for each factor
        random_effects : tuple with an array (n_groups, q) for each factor
        sigma : float, the noise
        fixed : (n_samples,), the fixed part of y
        random : (n_samples, n_factors), the random part of y by factor

    Raises
    ------
    ValueError
        If a factor has more levels than there are rows, or fewer than the one
        it is nested in; if there are more slopes than columns; if a
        covariance is not symmetric and non-negative definite; if an argument
        has a wrong length or shape.

    Examples
    --------
    >>> from sklearn_lmm.datasets import make_mixed_regression
    >>> sample = make_mixed_regression(
    ...     200, 2, n_groups=[10, 40], n_slopes=[1, 0], random_state=0
    ... )
    >>> sample.X.shape, sample.groups.shape
    ((200, 2), (200, 2))
    >>> [effects.shape for effects in sample.random_effects]
    [(10, 2), (40, 1)]
    """
    sizes = np.atleast_1d(n_groups).tolist()
    slopes = _per_factor(n_slopes, len(sizes), "n_slopes")
    _check_sizes(n_samples, n_features, sizes, slopes, nested)
    if noise < 0:
        raise ValueError(f"noise={noise} is negative; it is a standard deviation.")
    entries = _per_factor(covariance, len(sizes), "covariance")
    covariances = tuple(map(_covariance_matrix, entries, slopes))
    rng = check_random_state(random_state)
    X = rng.standard_normal((n_samples, n_features))
    beta = rng.standard_normal(n_features) if coef is None else np.asarray(coef, float)
    if beta.shape != (n_features,):
        raise ValueError(f"coef has shape {beta.shape}; expected ({n_features},).")
    codes = _draw_codes(rng, n_samples, sizes, nested)
    effects = tuple(map(partial(_draw_effects, rng), sizes, covariances))
    fixed = intercept + X @ beta
    random = _random_part(X, codes, effects)
    y = fixed + random.sum(axis=1) + noise * rng.standard_normal(n_samples)
    groups = codes[:, 0] if len(sizes) == 1 else codes
    tables = _as_frames(X, y, groups) if as_frame else (X, y, groups)
    return Bunch(
        **dict(zip(("X", "y", "groups"), tables, strict=True)),
        coef=beta,
        intercept=intercept,
        covariances=covariances,
        random_effects=effects,
        sigma=noise,
        fixed=fixed,
        random=random,
    )


def _per_factor(value: Any, n_factors: int, name: str) -> list[Any]:
    """Return one value for each factor; a value that is no list serves them all."""
    if not isinstance(value, list | tuple):
        return [value] * n_factors
    if len(value) != n_factors:
        raise ValueError(
            f"{name} is a list of {len(value)} for {n_factors} grouping factor(s); "
            "give one entry for each factor, or one value (a matrix as an array)."
        )
    return list(value)


def _check_sizes(
    n_samples: int, n_features: int, sizes: list[int], slopes: list[int], nested: bool
) -> None:
    if not 1 <= min(sizes) <= max(sizes) <= n_samples:
        raise ValueError(
            f"n_groups={sizes}, but every level needs a row of its own: expected "
            f"between 1 and n_samples={n_samples} levels in each factor."
        )
    if nested and sizes != sorted(sizes):
        raise ValueError(
            f"n_groups={sizes} with nested=True: a nested factor cannot have fewer "
            "levels than the one it is nested in; list the factors from the "
            "outermost to the innermost."
        )
    if not 0 <= min(slopes) <= max(slopes) <= n_features:
        raise ValueError(
            f"n_slopes={slopes}; expected between 0 and n_features={n_features}."
        )


def _covariance_matrix(value: ArrayLike, n_slopes: int) -> FloatArray:
    q = 1 + n_slopes
    matrix = np.asarray(value, float)
    if matrix.ndim == 0:
        matrix = matrix * np.eye(q)
    if matrix.shape != (q, q):
        raise ValueError(
            f"A covariance has shape {matrix.shape}; expected {(q, q)}, for an "
            f"intercept and {n_slopes} slope(s)."
        )
    rounding = 1e-12 * np.abs(matrix).max()
    if (
        not np.allclose(matrix, matrix.T, rtol=0, atol=rounding)
        or np.linalg.eigvalsh(matrix)[0] < -rounding
    ):
        raise ValueError(
            f"Not a covariance: {matrix.tolist()} is not symmetric and "
            "non-negative definite."
        )
    return matrix


def _draw_codes(
    rng: np.random.RandomState, n_samples: int, sizes: list[int], nested: bool
) -> IntArray:
    """Draw the level of every row in every factor, shape (n_samples, n_factors)."""
    if not nested:
        return np.column_stack([_draw_levels(rng, n_samples, size) for size in sizes])
    columns = [_draw_levels(rng, n_samples, sizes[-1])]
    for outer, inner in zip(sizes[-2::-1], sizes[:0:-1], strict=True):
        columns.insert(0, columns[0] * outer // inner)
    return np.column_stack(columns)


def _draw_levels(rng: np.random.RandomState, n_samples: int, size: int) -> IntArray:
    more = rng.randint(size, size=n_samples - size, dtype=np.int64)
    return rng.permutation(np.concatenate([np.arange(size), more]))


def _draw_effects(
    rng: np.random.RandomState, size: int, covariance: FloatArray
) -> FloatArray:
    # Not by Cholesky, which fails on singular covariances.
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    return rng.standard_normal((size, len(covariance))) @ root.T


def _random_part(
    X: FloatArray, codes: IntArray, effects: tuple[FloatArray, ...]
) -> FloatArray:
    """Return z_i' b_f,g_f(i) for every row and factor, shape (n, n_factors)."""
    Z = np.column_stack([np.ones(len(X)), X])
    parts = [
        np.einsum("ij,ij->i", Z[:, : b.shape[1]], b[levels])
        for b, levels in zip(effects, codes.T, strict=True)
    ]
    return np.column_stack(parts)


def _as_frames(
    X: FloatArray, y: FloatArray, groups: IntArray
) -> tuple[pd.DataFrame, pd.Series, pd.Series | pd.DataFrame]:
    columns = [f"x{j}" for j in range(X.shape[1])]
    labels = (
        pd.Series(groups, name="group")
        if groups.ndim == 1
        else pd.DataFrame(groups).add_prefix("group")
    )
    return pd.DataFrame(X, columns=columns), pd.Series(y, name="y"), labels
