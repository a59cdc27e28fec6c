"""The pass over the rows: sums of products, made chunk by chunk of rows.

What a factor's levels need is one array Z_g'W [T V] (G, q, p + 1 + k), V the k
columns of Z that are not in T: rows in no order of levels reach for memory all over
it, and should do so once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse._sparsetools import csc_matvecs

from sklearn_lmm._engine.design import (
    Block,
    Design,
    Factor,
    Standardization,
    Term,
    deviation,
)
from sklearn_lmm._engine.linalg import times_columns
from sklearn_lmm._types import AnyArray, FloatArray, IntArray

ROWS_AT_ONCE = 1 << 15
"""Rows of T made at a time: small enough for the processor's cache."""

Columns = list[tuple[Block, Standardization]]
"""The terms of one factor, with the units of their columns."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where Z_g'W T and Z_g'W Z_g are within Z_g'W [T V].

    width : the columns of T
    of_z : (q,), per column of Z that of [T V] which it is
    """

    width: int
    of_z: IntArray

    @classmethod
    def of_terms(
        cls, width: int, ones_first: bool, terms: Iterable[tuple[Term, Standardization]]
    ) -> Places:
        """Return the places for one factor's terms, with the units of their columns.

        ones_first : whether the first column of T is 1
        """
        of_z, last = [], width - 1
        for term, units in terms:
            for j in range(term.q):
                one = j < term.intercept and units.scale[0] == 1.0
                shared = one and ones_first
                last += not shared
                of_z.append(0 if shared else last)
        return cls(width, np.array(of_z, dtype=np.int64))

    @property
    def total(self) -> int:
        """The number of columns of [T V]."""
        return max(self.width, int(self.of_z.max(initial=0)) + 1)

    def s(self, values: FloatArray) -> FloatArray:
        """Return Z_g'W Z_g (G, q, q)."""
        return values[:, :, self.of_z]

    def b(self, values: FloatArray) -> FloatArray:
        """Return Z_g'W T (G, q, p + 1), a view."""
        return values[:, :, : self.width]

    def joined(self, s: FloatArray, b: FloatArray) -> FloatArray:
        """Return Z_g'W [T V] from its parts."""
        values = np.empty((*b.shape[:2], self.total))
        values[:, :, : self.width] = b
        values[:, :, self.of_z] = s
        return values


@dataclass(frozen=True, eq=False)
class RowSums:
    """tt, s, b and n as `cross_products` names them."""

    tt: FloatArray
    s: tuple[FloatArray, ...]
    b: tuple[FloatArray, ...]
    n: dict[tuple[int, int], sparse.csr_array]


def sum_rows(
    design: Design,
    units: Standardization,
    blocks: tuple[Standardization, ...],
    into: Sequence[FloatArray] | None = None,
) -> RowSums:
    """Return the sums, with T and the columns of every term in the given units.

    into : Z_g'W [T V] of other rows, per factor, contiguous and added to in place,
        in which case s and b are there and () in what is returned; for a sparse X
        only where its columns are not shifted
    """
    plain = sparse_units(design, units)
    if plain is not units:
        assert into is None
        unmixed = sum_rows(design, plain, blocks)
        C = units.from_(plain)
        b_s = tuple(times_columns(b, C) for b in unmixed.b)
        return RowSums(C.T @ unmixed.tt @ C, unmixed.s, b_s, unmixed.n)
    by_factor: list[Columns] = [[] for _ in design.factors]
    for block, block_units in zip(design.blocks, blocks, strict=True):
        by_factor[block.factor].append((block, block_units))
    terms = [block.term for block in design.blocks]
    places = places_of(terms, blocks, units, design.intercept, len(by_factor))
    width = len(units.scale)
    tt = np.zeros((width, width))
    if into is None:
        sums = [
            np.zeros((factor.n_levels, len(at.of_z), at.total))
            for factor, at in zip(design.factors, places, strict=True)
        ]
    else:
        sums = list(into)
    for rows in _chunks(design):
        T = rows_of_T(design, units, rows)
        weights = None if design.weights is None else design.weights[rows]
        tt += _dense(T.T @ _weighted(T, weights))
        for f, columns in enumerate(by_factor):
            z = _coefficient_columns(columns, rows)
            codes = design.factors[f].codes[rows]
            _add_level_sums(codes, z, weights, _with_v(T, z, places[f]), sums[f])
    # To take s out of the sums of all rows would cost as much as all their levels.
    pairs = list(zip(places, sums, strict=True)) if into is None else []
    return RowSums(
        tt,
        tuple(at.s(values) for at, values in pairs),
        tuple(at.b(values) for at, values in pairs),
        _between_factors(design, by_factor),
    )


def places_of(
    terms: Sequence[Term],
    blocks: Sequence[Standardization],
    units: Standardization,
    intercept: bool,
    n_factors: int,
) -> list[Places]:
    """Return the places of every factor, for T and terms in the given units."""
    ones_first = intercept and units.mix is None
    pairs = list(zip(terms, blocks, strict=True))
    return [
        Places.of_terms(
            len(units.scale),
            ones_first,
            (pair for pair in pairs if pair[0].factor == f),
        )
        for f in range(n_factors)
    ]


def sparse_units(design: Design, units: Standardization) -> Standardization:
    """Return units in which the rows can be made: those given, if X is dense.

    Columns of a sparse X are scaled as they are there, but would be sparse no
    longer if they were shifted or mixed.  What is linear in the rows can be:
    with C = units.from_(sparse_units), T_s = T C.
    """
    if not sparse.issparse(design.X):
        return units
    if units.mix is None and not units.center[:-1].any():
        return units
    center = np.append(np.zeros(len(units.center) - 1), units.center[-1])
    return Standardization(center, units.scale)


def provisional_units(design: Design) -> Standardization:
    """Return the moments of the first rows: near enough to work in.

    Sparse columns are not shifted, or they would be sparse no longer.
    """
    head = slice(0, ROWS_AT_ONCE)
    y = design.y[head]
    if sparse.issparse(design.X):
        squares = design.X[head].power(2).mean(axis=0)
        center = np.append(np.zeros(design.X.shape[1]), y.mean())
        square = np.append(squares, np.mean((y - y.mean()) ** 2))
    else:
        columns = np.column_stack([design.X[head], y])
        center = columns.mean(axis=0)
        square = np.mean((columns - center) ** 2, axis=0)
    if not design.intercept:
        square += center**2 * (center != 0.0)
        center = np.zeros_like(center)
        return Standardization(center, deviation(square, center))
    scale = deviation(square, center)
    return Standardization(np.append(0.0, center), np.append(1.0, scale))


def standardized_rows(
    design: Design, units: Standardization, rows: slice | AnyArray
) -> FloatArray:
    """Return rows of T = [1 X y] (m, p + 1) in the given units, dense whatever X is."""
    first = int(design.intercept)
    X, y = design.X[rows], design.y[rows]
    X = X.toarray() if sparse.issparse(X) else X
    T = np.empty((len(y), len(units.scale)))
    center, factor = units.center, 1.0 / units.scale
    # Columns of few rows at a time: subtracting from whole rows is many times
    # slower, and writing whole columns of T misses the cache.
    for start in range(0, len(y), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        T[part, :first] = 1.0
        for j in range(first, T.shape[1] - 1):
            T[part, j] = (X[part, j - first] - center[j]) * factor[j]
        T[part, -1] = (y[part] - center[-1]) * factor[-1]
    return T if units.mix is None else T @ units.mix


def standardized_coefficients(
    design: Design, blocks: tuple[Standardization, ...]
) -> tuple[FloatArray, ...]:
    """Return z (n, q_f) of every factor in the given units, its terms together."""
    n = len(design.y)
    z: list[list[FloatArray]] = [[] for _ in design.factors]
    for block, units in zip(design.blocks, blocks, strict=True):
        z[block.factor].append((block.columns(n) - units.center) / units.scale)
    return tuple(np.hstack(z_f) for z_f in z)


def rows_of_T(
    design: Design, units: Standardization, rows: slice
) -> FloatArray | sparse.csr_array:
    """Return rows of T (m, p + 1), sparse if X is: then in its `sparse_units`."""
    if not sparse.issparse(design.X):
        return standardized_rows(design, units, rows)
    X, y = design.X[rows], design.y[rows]
    ones = np.ones((len(y), int(design.intercept)))
    y_s = (y - units.center[-1]) / units.scale[-1]
    columns = slice(int(design.intercept), -1)
    X_s = X @ sparse.diags_array(1.0 / units.scale[columns])
    parts = [sparse.csr_array(ones), X_s, sparse.csr_array(y_s[:, None])]
    return sparse.csr_array(sparse.hstack(parts, format="csr"))


def _chunks(design: Design) -> Iterator[slice]:
    n = len(design.y)
    # Sums over levels of a sparse T are made apart and cost as many as there are.
    size = n if sparse.issparse(design.X) else ROWS_AT_ONCE
    for start in range(0, n, size):
        yield slice(start, start + size)


def _coefficient_columns(terms: Columns, rows: slice) -> list[FloatArray | None]:
    """Return a factor's standardised z columns; None stands for ones."""
    columns: list[FloatArray | None] = []
    for block, units in terms:
        first = int(block.intercept)
        if block.intercept and units.scale[0] == 1.0:
            columns.append(None)
        elif block.intercept:
            n = len(block.slopes[0][rows])
            columns.append(np.full(n, 1.0 / units.scale[0]))
        for j, z in enumerate(block.slopes, start=first):
            columns.append((z[rows] - units.center[j]) / units.scale[j])
    return columns


def _with_v(
    T: FloatArray | sparse.csr_array, z: list[FloatArray | None], places: Places
) -> FloatArray | sparse.csr_array:
    """Return rows of [T V]."""
    if places.total == places.width:
        return T
    m = T.shape[0]
    V = np.ones((m, places.total - places.width))
    for column, place in zip(z, places.of_z, strict=True):
        if column is not None and place >= places.width:
            V[:, place - places.width] = column
    if sparse.issparse(T):
        return sparse.csr_array(sparse.hstack([T, sparse.csr_array(V)], format="csr"))
    return np.concatenate([T, V], axis=1)


def _add_level_sums(
    codes: IntArray,
    z: list[FloatArray | None],
    weights: FloatArray | None,
    TV: FloatArray | sparse.csr_array,
    sums: FloatArray,
) -> None:
    """Add a chunk's Z_g'W [T V] to the sums of every level g.

    They are Z'W [T V] for the (rows x levels q) matrix Z, whose transpose in
    columns by row reads T once, in order.  SciPy's own kernel adds to what is
    there; its product would make, and clear, an array of all levels for every
    chunk.
    """
    m, q = len(codes), len(z)
    size = len(sums) * q
    small = max(size, m * q) < 2**31
    dtype: type[np.int32 | np.int64] = np.int32 if small else np.int64
    values, index = np.empty((m, q)), np.empty((m, q), dtype)
    for i, z_i in enumerate(z):
        wz = _product(z_i, weights)
        values[:, i] = 1.0 if wz is None else wz
        index[:, i] = codes * q + i
    indptr: Any = np.arange(0, m * q + 1, q, dtype=dtype)
    entries = (indptr, index.ravel(), values.ravel())
    if sparse.issparse(TV):
        by_level = sparse.csc_array(entries[::-1], (size, m))
        sums += _dense(by_level @ TV).reshape(sums.shape)
    else:
        csc_matvecs(size, m, TV.shape[1], *entries, TV.ravel(), sums.reshape(-1))


def _weighted(
    T: FloatArray | sparse.csr_array, weights: FloatArray | None
) -> FloatArray | sparse.csr_array:
    if weights is None:
        return T
    return (
        sparse.diags_array(weights) @ T if sparse.issparse(T) else T * weights[:, None]
    )


def _dense(product: Any) -> FloatArray:
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product)


def _product(a: FloatArray | None, b: FloatArray | None) -> FloatArray | None:
    """Return a * b, where None stands for ones."""
    if a is None or b is None:
        return b if a is None else a
    return a * b


def _between_factors(
    design: Design, by_factor: list[Columns]
) -> dict[tuple[int, int], sparse.csr_array]:
    """Return Z_f'W Z_h for every pair of factors f < h.

    Every pair of levels that occurs together has its whole q_f x q_h block
    stored, zeros included, so that the pattern is that of the levels.
    """
    everything = slice(0, len(design.y))
    z = [_coefficient_columns(terms, everything) for terms in by_factor]
    products = {}
    for f, h in combinations(range(len(z)), 2):
        rows, columns, values = [], [], []
        for i, z_i in enumerate(z[f]):
            wz = _product(z_i, design.weights)
            for j, z_j in enumerate(z[h]):
                value = _product(wz, z_j)
                rows.append(_positions(design.factors[f], len(z[f]), i))
                columns.append(_positions(design.factors[h], len(z[h]), j))
                values.append(np.ones(len(design.y)) if value is None else value)
        shape = tuple(design.factors[k].n_levels * len(z[k]) for k in (f, h))
        entries = (np.concatenate(rows), np.concatenate(columns))
        products[f, h] = sparse.coo_array(
            (np.concatenate(values), entries), shape
        ).tocsr()
    return products


def _positions(factor: Factor, q: int, i: int) -> IntArray:
    """Return every row's position of coefficient i in the level-major order."""
    small = factor.n_levels * q < 2**31
    positions: IntArray = factor.codes.astype(np.int32 if small else np.int64)
    positions *= q
    positions += i
    return positions
