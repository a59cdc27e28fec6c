"""The models behind encodings, and the lookups made of them.

A lookup (G + 1, k) has the k output columns of one encoded column for each of
its G categories.  Its last row is the population's, so that the code -1 of an
unknown category reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sklearn_lmm._engine.design import Block, Design, Factor
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.covariance import Covariance

Lookups = tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that encodings are learnt from.

    y : (n,)
    X : (n, p) covariates; the first ones have slopes that vary by category
    codes : per encoded column (n,), the categories
    sizes : per encoded column, how many categories there are
    """

    y: FloatArray
    X: FloatArray
    codes: tuple[IntArray, ...]
    sizes: tuple[int, ...]

    def take(self, rows: AnyArray) -> Rows:
        """Return some of the rows."""
        codes = tuple(codes[rows] for codes in self.codes)
        return Rows(self.y[rows], self.X[rows], codes, self.sizes)


@dataclass(frozen=True)
class Recipe:
    """What is fitted, and what goes into a lookup.

    models : the encoded columns of each model, by position
    n_slopes : how many columns of X have a slope that varies by category
    structure : the covariance of a category's coefficients
    std, count : whether lookups have these columns
    """

    models: tuple[tuple[int, ...], ...]
    n_slopes: int
    structure: Covariance
    reml: bool
    std: bool
    count: bool

    @property
    def q(self) -> int:
        """The number of coefficients of a category."""
        return 1 + self.n_slopes

    @property
    def width(self) -> int:
        """The number of output columns for each encoded column."""
        return self.q * (1 + self.std) + self.count


@dataclass(frozen=True, eq=False)
class Group:
    """One encoded column in a model.

    column : its position among the encoded ones
    factor : its position among the model's factors; None if it was left out,
        since nothing can be learnt of one category, or of one row for each
    levels : the codes of the categories that have rows
    counts : how many rows each of these has
    """

    column: int
    factor: int | None
    levels: IntArray
    counts: IntArray


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted model of some of the encoded columns."""

    fit: LMMFit
    groups: tuple[Group, ...]
    recipe: Recipe

    def covariance(self, group: Group) -> FloatArray:
        """Return the covariance (q, q) of a category's coefficients."""
        if group.factor is None:
            return np.zeros((self.recipe.q, self.recipe.q))
        return self.fit.covariances[group.factor]

    def lookups(self, sizes: tuple[int, ...]) -> Iterator[tuple[int, FloatArray]]:
        """Yield every encoded column and its lookup."""
        recipe = self.recipe
        spread = self.fit.conditional_covariances() if recipe.std else ()
        for group in self.groups:
            size, levels, factor = sizes[group.column] + 1, group.levels, group.factor
            values = np.tile(self.fit.beta[: recipe.q], (size, 1))
            std = np.tile(_deviations(self.covariance(group)), (size, int(recipe.std)))
            counts = np.zeros((size, int(recipe.count)))
            if factor is not None:
                values[levels] += self.fit.effects[factor]
            if factor is not None and recipe.std:
                std[levels] = _deviations(spread[factor])
            if recipe.count:
                counts[levels, 0] = group.counts
            yield group.column, np.hstack([values, std, counts])


def _deviations(covariance: FloatArray) -> FloatArray:
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    return np.sqrt(np.maximum(variances, 0.0))


def fit_models(rows: Rows, recipe: Recipe) -> list[Model]:
    """Fit every model of a recipe to the same rows."""
    return [_fit_model(rows, columns, recipe) for columns in recipe.models]


def _fit_model(rows: Rows, columns: tuple[int, ...], recipe: Recipe) -> Model:
    factors: list[Factor] = []
    groups = []
    for column in columns:
        codes = rows.codes[column]
        count = np.bincount(codes, minlength=rows.sizes[column])
        levels = np.flatnonzero(count)
        factor = None
        if 1 < len(levels) < len(codes):
            factor = len(factors)
            # The engine wants levels that have rows, numbered without gaps.
            factors.append(Factor((np.cumsum(count > 0) - 1)[codes], levels))
        groups.append(Group(column, factor, levels, count[levels]))
    slopes = tuple(rows.X[:, : recipe.n_slopes].T)
    blocks = (Block(k, recipe.structure, True, slopes) for k in range(len(factors)))
    design = Design(rows.X, rows.y, True, tuple(factors), tuple(blocks))
    return Model(fit(design, reml=recipe.reml), tuple(groups), recipe)


def make_lookups(models: list[Model], sizes: tuple[int, ...]) -> Lookups:
    """Return the lookup of every encoded column."""
    found = dict(pair for model in models for pair in model.lookups(sizes))
    return tuple(found[column] for column in range(len(sizes)))


def look_up(lookups: Lookups, codes: Iterable[IntArray]) -> FloatArray:
    """Return the output columns of rows, those of one encoded column after another."""
    return np.hstack([table[c] for table, c in zip(lookups, codes, strict=True)])


def cross_fit(
    rows: Rows, recipe: Recipe, splits: list[tuple[AnyArray, AnyArray]]
) -> tuple[FloatArray, list[Model]]:
    """Encode every row by models of the rows outside its fold; return these, too.

    splits : (rows to learn from, rows to encode); the latter cover every row once
    """
    encoded = np.empty((len(rows.y), recipe.width * len(rows.sizes)))
    fitted = []
    for outside, inside in splits:
        models = fit_models(rows.take(outside), recipe)
        lookups = make_lookups(models, rows.sizes)
        encoded[inside] = look_up(lookups, (codes[inside] for codes in rows.codes))
        fitted += models
    return encoded, fitted
