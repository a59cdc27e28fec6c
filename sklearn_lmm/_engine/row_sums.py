"""The pass over the rows: sums of products, made chunk by chunk of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse._sparsetools import csc_matvecs

from sklearn_lmm._engine.design import (
    Block,
    Design,
    Factor,
    Standardization,
    deviation,
)
from sklearn_lmm._types import FloatArray, IntArray

ROWS_AT_ONCE = 1 << 15
"""Rows of T made at a time: small enough for the processor's cache."""

Columns = list[tuple[Block, Standardization]]
"""The terms of one factor, with the units of their columns."""


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
    into: tuple[Sequence[FloatArray], Sequence[FloatArray]] | None = None,
) -> RowSums:
    """Return the sums, with T and the columns of every term in the given units.

    into : s and b of other rows, contiguous, that are added to in place
    """
    by_factor: list[Columns] = [[] for _ in design.factors]
    for block, block_units in zip(design.blocks, blocks, strict=True):
        by_factor[block.factor].append((block, block_units))
    width = len(units.scale)
    tt = np.zeros((width, width))
    if into is None:
        q = [sum(block.term.q for block, _ in terms) for terms in by_factor]
        sizes = [(f.n_levels, k) for f, k in zip(design.factors, q, strict=True)]
        s: Sequence[FloatArray] = [np.zeros((G, k, k)) for G, k in sizes]
        b: Sequence[FloatArray] = [np.zeros((G, k, width)) for G, k in sizes]
    else:
        s, b = into
    for rows in _chunks(design):
        T = rows_of_T(design, units, rows)
        weights = None if design.weights is None else design.weights[rows]
        tt += _dense(T.T @ _weighted(T, weights))
        for f, terms in enumerate(by_factor):
            z = _coefficient_columns(terms, rows)
            _add_group_sums(design.factors[f], rows, z, weights, T, s[f], b[f])
    return RowSums(tt, tuple(s), tuple(b), _between_factors(design, by_factor))


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
    design: Design, units: Standardization, rows: slice
) -> FloatArray:
    """Return rows of T = [1 X y] in the given units, for a dense X."""
    first = int(design.intercept)
    X, y = design.X[rows], design.y[rows]
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


def rows_of_T(
    design: Design, units: Standardization, rows: slice
) -> FloatArray | sparse.csr_array:
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


def _add_group_sums(
    factor: Factor,
    rows: slice,
    z: list[FloatArray | None],
    weights: FloatArray | None,
    T: FloatArray | sparse.csr_array,
    s: FloatArray,
    b: FloatArray,
) -> None:
    """Add a chunk's Z_g'W Z_g to s and Z_g'W T to b, for every level g.

    b is Z'W T for the (rows x levels q) matrix Z, whose transpose in columns by
    row reads T once, in order.  SciPy's own kernel adds to what is there; its
    product would make, and clear, an array of all levels for every chunk.
    """
    codes, q = factor.codes[rows], len(z)
    m, size = len(codes), len(s) * q
    small = max(size, m * q) < 2**31
    dtype: type[np.int32 | np.int64] = np.int32 if small else np.int64
    values, index = np.empty((m, q)), np.empty((m, q), dtype)
    wz = [_product(z_i, weights) for z_i in z]
    for i, wz_i in enumerate(wz):
        values[:, i] = 1.0 if wz_i is None else wz_i
        index[:, i] = codes * q + i
    indptr: Any = np.arange(0, m * q + 1, q, dtype=dtype)
    entries = (indptr, index.ravel(), values.ravel())
    if sparse.issparse(T):
        by_level = sparse.csc_array(entries[::-1], (size, m))
        b += _dense(by_level @ T).reshape(b.shape)
    else:
        width = T.shape[1]
        csc_matvecs(size, m, width, *entries, T.ravel(), b.reshape(-1))
    flat, first = s.reshape(-1), codes * q**2
    for i, j in product(range(q), repeat=2):
        zz = _product(wz[i], z[j])
        np.add.at(flat, first + (i * q + j), np.ones(m) if zz is None else zz)


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
