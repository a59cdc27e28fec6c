"""The rows of a model: fixed part, response, grouping factors and random terms.

A fit makes `cross_products` of them and needs them no longer, unless errors are
correlated or unequal (`errors`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.covariance import Covariance
from sklearn_lmm.covariance import Standardization as Kind

CONSTANT = 1e-10
"""A column whose deviation is below this part of its mean counts as constant."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor.

    codes : (n,) integers, row -> level, each in 0 .. n_levels - 1
    levels : (n_levels,) their labels, each used by at least one row
    """

    codes: IntArray
    levels: AnyArray

    @property
    def n_levels(self) -> int:
        return len(self.levels)


def nested(inner: IntArray, outer: IntArray) -> bool:
    """Say whether all rows (n,) of a level of `inner` have one level of `outer`."""
    level = np.zeros(int(inner.max(initial=-1)) + 1, dtype=outer.dtype)
    level[inner] = outer
    return bool((level[inner] == outer).all())


def level_columns(z: FloatArray, codes: IntArray, n_levels: int) -> sparse.csr_array:
    """Return Z (n, G q), level-major: z (n, q) in the columns of every row's level.

    A row without a level, of code -1, is empty.
    """
    n, q = z.shape
    known = codes >= 0
    ends = np.append(0, np.cumsum(known) * q)
    if not known.all():
        z, codes = z[known], codes[known]
    columns = codes.astype(np.int64)[:, None] * q + np.arange(q)
    shape = (n, n_levels * q)
    return sparse.csr_array((z.ravel(), columns.ravel(), ends), shape)


@dataclass(frozen=True)
class Term:
    """What a random term is, without its rows.

    factor : position of the grouping factor in `Design.factors`
    structure : the covariance of the q coefficients
    intercept : whether the first coefficient is an intercept
    q : the number of coefficients
    """

    factor: int
    structure: Covariance
    intercept: bool
    q: int

    @property
    def standardization(self) -> Kind:
        """Which change of its columns' units keeps the model."""
        return self.structure.standardization(self.intercept)


@dataclass(frozen=True, eq=False)
class Block:
    """One random term: coefficients that vary between the levels of a factor.

    factor, structure, intercept : as in `Term`
    slopes : a column of n values for each coefficient after the intercept
    """

    factor: int
    structure: Covariance
    intercept: bool
    slopes: tuple[FloatArray, ...] = ()

    @property
    def term(self) -> Term:
        q = self.intercept + len(self.slopes)
        return Term(self.factor, self.structure, self.intercept, q)

    def columns(self, n: int) -> FloatArray:
        """Return z (n, q) of every row, in the user's units."""
        return np.column_stack([np.ones(n)] * self.intercept + list(self.slopes))


@dataclass(frozen=True, eq=False)
class Design:
    """y = X beta + sum over blocks of Z_k b_k + e, all in the user's units.

    X : (n, p) columns of the fixed part, without the intercept, dense or sparse
    y : (n,) response, less any offset
    intercept : whether the fixed part has an intercept, which then comes first
    weights : (n,) positive, or None for ones
    """

    X: FloatArray | sparse.csr_array
    y: FloatArray
    intercept: bool
    factors: tuple[Factor, ...] = ()
    blocks: tuple[Block, ...] = ()
    weights: FloatArray | None = None

    def take(self, rows: IntArray) -> Design:
        """Return some of the rows, each as often as it is given; levels stay."""
        blocks = [
            replace(block, slopes=tuple(z[rows] for z in block.slopes))
            for block in self.blocks
        ]
        return replace(
            self,
            X=self.X[rows],
            y=self.y[rows],
            factors=tuple(Factor(f.codes[rows], f.levels) for f in self.factors),
            blocks=tuple(blocks),
            weights=None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True, eq=False)
class Standardization:
    """Columns in the engine's units: x_s = ((x - center) / scale) mix.

    center : (k,), zero unless the columns start with an intercept, which takes
        up the shift; zero at the intercept
    scale : (k,), positive; one at the intercept
    mix : (k, k), upper triangular, where columns that nearly depend on each
        other had to be made orthogonal; None for I
    """

    center: FloatArray
    scale: FloatArray
    mix: FloatArray | None = None

    def map(self) -> FloatArray:
        """Return R (k, k) with x_s = x R for a row x.

        Coefficients go the other way: x_s c_s = x (R c_s).
        """
        R = self._shifted(-self.center / self.scale, 1.0 / self.scale)
        return R if self.mix is None else R @ self.mix

    def from_(self, other: Standardization) -> FloatArray:
        """Return the map from the units of `other` to these: x_s = x_other C."""
        shift = (other.center - self.center) / self.scale
        C = self._shifted(shift, other.scale / self.scale)
        C = C if other.mix is None else np.asarray(np.linalg.inv(other.mix)) @ C
        return C if self.mix is None else C @ self.mix

    def select(self, columns: AnyArray) -> Standardization:
        """Return the standardisation of some of the columns."""
        mix = None if self.mix is None else self.mix[np.ix_(columns, columns)]
        return Standardization(self.center[columns], self.scale[columns], mix)

    @staticmethod
    def _shifted(first_row: FloatArray, diagonal: FloatArray) -> FloatArray:
        R = np.diag(diagonal)
        if len(R):
            R[0] += first_row
        return R


def deviation(mean_square: FloatArray, center: FloatArray) -> FloatArray:
    """Return the scale of columns from their mean square about `center`.

    A constant column, up to the rounding of its values, gets the scale 1.
    """
    scale = np.sqrt(np.maximum(mean_square, 0.0))
    return np.where(scale > CONSTANT * np.abs(center), scale, 1.0)


def standardize_block(block: Block, weights: FloatArray | None) -> Standardization:
    """Return the standardisation of a block's columns that keeps its model."""
    shifted = block.term.standardization == "affine"
    means = [_mean(z, weights) if shifted else 0.0 for z in block.slopes]
    squares = [
        _mean((z - m) ** 2, weights) for z, m in zip(block.slopes, means, strict=True)
    ]
    return block_units(
        block.term,
        np.array([0.0] * block.intercept + means),
        np.array([1.0] * block.intercept + squares),
    )


def block_units(
    term: Term, center: FloatArray, mean_square: FloatArray
) -> Standardization:
    """Return units from moments: affine, scale or common, as the structure allows.

    mean_square is about the center, which is 0 unless the units are affine.
    """
    if term.standardization == "common":
        mean_square = np.full_like(mean_square, mean_square.mean())
    return Standardization(center, deviation(mean_square, center))


def _mean(x: FloatArray, weights: FloatArray | None) -> float:
    return float(np.average(x, weights=weights))
