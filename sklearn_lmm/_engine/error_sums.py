"""The cross-products of correlated rows: sums of U'Omega U over levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.correlation import Precision
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import level_columns
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import FloatArray, IntArray

Operation = Callable[[Any], Any]
"""Multiplies rows (n, k), dense or sparse, by a symmetric matrix (n, n)."""


class Omega:
    """The derivatives of R^-1 between D^-1, as functions of rows U (n, k).

    Parameters 0 .. k - 1 are those of C, then comes delta.
    """

    def __init__(self, precision: Precision, slopes: FloatArray) -> None:
        self.precision, self.slopes = precision, slopes
        self.k = len(precision.first)

    def inverse(self, U: Any) -> Any:
        return times(self.precision.inverse, U)

    def first(self, i: int) -> Operation:
        if i < self.k:
            return lambda U: times(self.precision.first[i], U)
        return self._with_slope(self.inverse, i)

    def second(self, i: int, j: int) -> Operation:
        """Return the derivative by parameters i >= j."""
        if i < self.k:
            return lambda U: times(self.precision.second[i][j], U)
        return self._with_slope(self.first(j), i)

    def _with_slope(self, operator: Operation, i: int) -> Operation:
        """Return U -> -(Lambda_i Omega + Omega Lambda_i) U."""
        slope = self.slopes[:, i - self.k]

        def product(U: Any) -> Any:
            return -1.0 * (_scaled(slope, operator(U)) + operator(_scaled(slope, U)))

        return product


def times(operator: Any, U: Any) -> Any:
    """Return the product of an operator and rows, dense or sparse."""
    return operator.sparse() @ U if sparse.issparse(U) else operator @ U


def _scaled(factors: FloatArray, U: Any) -> Any:
    scale: Any = sparse.diags_array(factors)
    return scale @ U if sparse.issparse(U) else factors[:, None] * U


class Sums:
    """U'Omega U, cut into tt, s, b and n.

    Where all rows of every group have the same level of a factor, its columns of
    Omega Z are as narrow as those of Z; else they spread over the levels.
    """

    def __init__(
        self,
        plain: CrossProducts,
        U: FloatArray,
        codes: tuple[IntArray, ...],
        starts: IntArray,
    ) -> None:
        self.plain, self.U, self.codes = plain, U, codes
        width = len(plain.tt)
        self.T = slice(0, width)
        self.places = [
            slice(width + place.start, width + place.stop)
            for place in consecutive(s.shape[1] for s in plain.s)
        ]
        self.narrow = [constant(code, starts) for code in codes]
        spread = not all(self.narrow)
        self.wide: list[Any] = [
            level_columns(U[:, place], code, len(s)) if spread else None
            for place, code, s in zip(self.places, codes, plain.s, strict=True)
        ]

    def of(self, omega: Operation) -> CrossProducts:
        """Return U'Omega U for a function that multiplies rows by Omega."""
        right = omega(self.U)
        wide: list[Any] = [
            None if narrow else omega(Z)
            for narrow, Z in zip(self.narrow, self.wide, strict=True)
        ]
        s, b, n = [], [], {}
        for f, (code, old) in enumerate(zip(self.codes, self.plain.s, strict=True)):
            z, G = self.U[:, self.places[f]], len(old)
            b.append(level_sums(code, G, z, right[:, self.T]))
            if self.narrow[f]:
                s.append(level_sums(code, G, z, right[:, self.places[f]]))
                continue
            own, n[f, f] = _split_diagonal(self.wide[f].T @ wide[f], *old.shape[:2])
            s.append(own)
        for f, h in combinations(range(len(self.codes)), 2):
            n[f, h] = self._between(f, h, right, wide)
        tt = self.U[:, self.T].T @ right[:, self.T]
        return replace(self.plain, tt=tt, s=tuple(s), b=tuple(b), n=n)

    def _between(
        self, f: int, h: int, right: FloatArray, wide: list[Any]
    ) -> sparse.csr_array:
        """Return Z_f'Omega Z_h."""
        if not self.narrow[h]:
            return sparse.csr_array(self.wide[f].T @ wide[h])
        if not self.narrow[f]:
            return sparse.csr_array(wide[f].T @ self.wide[h])
        Z, OmegaZ = self.U[:, self.places[f]], right[:, self.places[h]]
        # Zeros are stored too, so that the pattern is that of the levels.
        values = Z[:, :, None] * OmegaZ[:, None, :]
        rows = self._positions(f)[:, :, None]
        columns = self._positions(h)[:, None, :]
        shape = tuple(len(self.plain.s[k]) * self.plain.s[k].shape[1] for k in (f, h))
        places = [np.broadcast_to(x, values.shape).ravel() for x in (rows, columns)]
        return sparse.coo_array((values.ravel(), places), shape).tocsr()

    def _positions(self, f: int) -> IntArray:
        """Return every row's columns (n, q) in Z_f."""
        q = self.plain.s[f].shape[1]
        return np.asarray(self.codes[f][:, None].astype(np.int64) * q + np.arange(q))


def constant(codes: IntArray, starts: IntArray) -> bool:
    """Say whether all rows of every group have the same code."""
    change = np.flatnonzero(np.diff(codes)) + 1
    return bool(np.isin(change, starts).all())


def level_sums(
    codes: IntArray, levels: int, left: FloatArray, right: FloatArray
) -> FloatArray:
    """Return sum over the rows of every level of left_i right_j (G, q, k)."""
    n = len(codes)
    indptr = np.arange(n + 1)
    sums = np.empty((levels, left.shape[1], right.shape[1]))
    for i in range(left.shape[1]):
        by_level = sparse.csc_array((left[:, i], codes, indptr), (levels, n))
        sums[:, i] = np.asarray(by_level @ right)
    return sums


def _split_diagonal(
    product: sparse.csr_array, G: int, q: int
) -> tuple[FloatArray, sparse.csr_array]:
    """Return the diagonal blocks (G, q, q), and the matrix without them."""
    coo = product.tocoo()
    own = coo.row // q == coo.col // q
    blocks = np.zeros((G, q, q))
    blocks[coo.row[own] // q, coo.row[own] % q, coo.col[own] % q] = coo.data[own]
    entries = (coo.data[~own], (coo.row[~own], coo.col[~own]))
    return blocks, sparse.coo_array(entries, product.shape).tocsr()
