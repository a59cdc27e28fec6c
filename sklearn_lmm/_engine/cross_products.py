"""Cross-products: everything the model ever needs to know of the rows.

With T = [1 X y] (the 1 if the fixed part has an intercept), W = diag(weights)
and Z_f the columns of all terms of grouping factor f, side by side,

    tt     = T'WT                      (p + 1, p + 1)
    s[f]   = Z_g'W Z_g  per level g    (G_f, q_f, q_f)
    b[f]   = Z_g'W T    per level g    (G_f, q_f, p + 1)
    n[f,h] = Z_f'W Z_h  for f < h      sparse (G_f q_f, G_h q_h), level-major

and, where correlated errors tie the levels of a factor together (`errors`), n[f,f],
which is Z_f'R^-1 Z_f off its diagonal blocks.

They add up over rows, and are held in standardised units (`design`), because
products of raw columns far from 0 would lose the digits that matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.design import (
    Design,
    Standardization,
    Term,
    block_units,
    deviation,
    standardize_block,
)
from sklearn_lmm._engine.linalg import times_columns, transformed
from sklearn_lmm._engine.row_sums import provisional_units, sum_rows
from sklearn_lmm._types import AnyArray, BoolArray, FloatArray, IntArray

Units = tuple[Standardization, tuple[Standardization, ...]]
"""The units of T, and those of every term's columns."""

ROUNDING = 1e-13
"""Differences of mean squares below this part of them mean nothing."""

FAR = 30.0
"""Units are changed where scales, or centers in deviations, differ by more."""


@dataclass(frozen=True, eq=False)
class CrossProducts:
    """Additive sufficient statistics of a linear mixed model (module docstring).

    columns : standardisation of T
    blocks : standardisation of every term's columns
    terms : the random terms
    levels : labels of every factor's levels, in the order of `s` and `b`
    intercept : whether T starts with a column of ones
    n_rows, sum_weights, sum_log_weights : of the rows; weights as given
    multiplicity : for how many levels each entry of s[0] stands in
        log-determinants and traces, where levels were pooled; None for one
    """

    columns: Standardization
    blocks: tuple[Standardization, ...]
    terms: tuple[Term, ...]
    levels: tuple[AnyArray, ...]
    intercept: bool
    n_rows: int
    sum_weights: float
    sum_log_weights: float
    tt: FloatArray
    s: tuple[FloatArray, ...]
    b: tuple[FloatArray, ...]
    n: dict[tuple[int, int], sparse.csr_array]
    multiplicity: FloatArray | None = None

    @property
    def p(self) -> int:
        """The number of fixed-effect columns, the intercept included."""
        return len(self.tt) - 1

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each term's columns stand among those of its factor."""
        used = [0] * len(self.levels)
        slices = []
        for term in self.terms:
            start = used[term.factor]
            used[term.factor] = start + term.q
            slices.append(slice(start, start + term.q))
        return tuple(slices)

    def ztz(self, w: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
        """Return Z'WZ w for w (G_f, q_f, k) of every factor."""
        products = [s @ w_f for s, w_f in zip(self.s, w, strict=True)]
        for (f, h), n in self.n.items():
            products[f] += (n @ _flat(w[h])).reshape(products[f].shape)
            if f < h:
                products[h] += (n.T @ _flat(w[f])).reshape(products[h].shape)
        return tuple(products)

    def product(self, f: int, h: int) -> sparse.csr_array:
        """Return Z_f'WZ_h (G_f q_f, G_h q_h), for f and h in either order or equal."""
        if f == h:
            own = block_diagonal(self.s[f])
            return own + self.n[f, f] if (f, f) in self.n else own
        return self.n[f, h] if f < h else self.n[h, f].T.tocsr()

    def select(self, kept: BoolArray) -> CrossProducts:
        """Return the cross-products without the fixed-effect columns not kept."""
        if kept.all():
            return self
        columns = np.append(np.flatnonzero(kept), self.p)
        return replace(
            self,
            columns=self.columns.select(columns),
            intercept=self.intercept and bool(kept[0]),
            tt=self.tt[np.ix_(columns, columns)],
            b=tuple(b[:, :, columns] for b in self.b),
        )

    def with_response(
        self, Xy: FloatArray, Zy: Sequence[FloatArray], yy: float
    ) -> CrossProducts:
        """Return the cross-products with another response, in the units of this one.

        Xy (p,), Zy (G_f, q_f, 1) of every factor, and yy are X'Wy, Z'Wy and y'Wy.
        """
        tt = self.tt.copy()
        tt[:-1, -1] = tt[-1, :-1] = Xy
        tt[-1, -1] = yy
        b = [
            np.concatenate([b_f[:, :, :-1], zy], axis=2)
            for b_f, zy in zip(self.b, Zy, strict=True)
        ]
        return replace(self, tt=tt, b=tuple(b))

    def rescaled(self) -> CrossProducts:
        """Return the statistics in units that suit all rows.

        Units come from the first rows, which may be no guide to the others.
        """
        units = own_units(self)
        return self if similar(units_of(self), units) else in_units(self, units)

    def with_levels(
        self, levels: Sequence[AnyArray], index: Sequence[IntArray]
    ) -> CrossProducts:
        """Return the statistics with each level at its place among others.

        index : per factor, where each of the present levels is among `levels`
        """
        same = all(
            len(new) == len(old) and np.array_equal(to, np.arange(len(to)))
            for new, old, to in zip(levels, self.levels, index, strict=True)
        )
        moved = self if same else _spread(self, index, [len(new) for new in levels])
        return replace(moved, levels=tuple(levels))

    def __add__(self, other: CrossProducts) -> CrossProducts:
        """Return the cross-products of both sets of rows together.

        The units are those of the first chunk with at least two rows; the
        levels are the union, in sorted order where labels can be sorted.
        """
        if not isinstance(other, CrossProducts):
            return NotImplemented
        if self.terms != other.terms or len(self.tt) != len(other.tt):
            raise ValueError("cross-products of different models cannot be added")
        if self.n_rows < 2 <= other.n_rows:
            return other + self
        other = in_units(other, units_of(self))
        merged = [
            merge_levels(a, b) for a, b in zip(self.levels, other.levels, strict=True)
        ]
        sizes = [len(levels) for levels, _, _ in merged]
        mine = _spread(self, [index for _, index, _ in merged], sizes)
        theirs = _spread(other, [index for _, _, index in merged], sizes)
        return replace(
            self,
            levels=tuple(levels for levels, _, _ in merged),
            n_rows=self.n_rows + other.n_rows,
            sum_weights=self.sum_weights + other.sum_weights,
            sum_log_weights=self.sum_log_weights + other.sum_log_weights,
            tt=self.tt + other.tt,
            s=tuple(a + b for a, b in zip(mine.s, theirs.s, strict=True)),
            b=tuple(a + b for a, b in zip(mine.b, theirs.b, strict=True)),
            n={pair: mine.n[pair] + theirs.n[pair] for pair in mine.n},
        )


def cross_products(
    design: Design,
    units: Standardization | None = None,
    blocks: tuple[Standardization, ...] | None = None,
    into: Sequence[FloatArray] | None = None,
) -> CrossProducts:
    """Reduce the rows of a design to their cross-products, in one pass.

    `units` are those to hold X and y in, `blocks` those of the terms; None for
    the moments of the rows.  `into` are sums of other rows in these units, as
    `row_sums` holds them, to which those of the design are added in place; s
    and b are there then, and () in what is returned.
    """
    n, weights = len(design.y), design.weights
    if blocks is None:
        blocks = tuple(standardize_block(block, weights) for block in design.blocks)
    columns = provisional_units(design) if units is None else units
    sums = sum_rows(design, columns, blocks, into)
    statistics = CrossProducts(
        columns=columns,
        blocks=blocks,
        terms=tuple(block.term for block in design.blocks),
        levels=tuple(factor.levels for factor in design.factors),
        intercept=design.intercept,
        n_rows=n,
        sum_weights=float(n if weights is None else weights.sum()),
        sum_log_weights=float(0 if weights is None else np.log(weights).sum()),
        tt=sums.tt,
        s=sums.s,
        b=sums.b,
        n=sums.n,
    )
    if units is not None:
        return statistics
    return _change_columns(statistics, _moments(statistics))


def units_of(statistics: CrossProducts) -> Units:
    """Return the units that the statistics are held in."""
    return statistics.columns, statistics.blocks


def own_units(statistics: CrossProducts) -> Units:
    """Return units by the (weighted) moments of all rows."""
    return _moments(statistics), _block_moments(statistics)


def _moments(statistics: CrossProducts) -> Standardization:
    """Return the standardisation by the (weighted) moments of all rows."""
    old, tt = statistics.columns, statistics.tt
    square = np.diag(tt) / statistics.sum_weights
    if not statistics.intercept:
        return Standardization(old.center, old.scale * deviation(square, old.center))
    mean = tt[0] / statistics.sum_weights
    mean[0] = 0.0
    center = old.center + old.scale * mean
    # The difference of a constant that was not centred, of a sparse X, is rounding:
    # it must not be scaled up.
    constant = (old.center == 0.0) & (square - mean**2 < ROUNDING * square)
    spread = np.where(constant, 0.0, square - mean**2)
    # The spread is measured in the user's units, where `deviation` can tell
    # a constant column from one that varies.
    scale = deviation(spread * old.scale**2, center)
    scale = np.where(constant, np.maximum(scale, np.abs(center)), scale)
    scale[0] = 1.0
    return Standardization(center, scale)


def _block_moments(statistics: CrossProducts) -> tuple[Standardization, ...]:
    """Return the standardisation of every term by the moments of all rows."""
    units = []
    for term, place, old in zip(
        statistics.terms, statistics.slices, statistics.blocks, strict=True
    ):
        sums = statistics.s[term.factor][:, place, place].sum(axis=0)
        moments = sums / statistics.sum_weights
        mean = np.zeros(term.q)
        if term.standardization == "affine":
            mean[1:] = moments[0, 1:]
        square = (np.diag(moments) - mean**2) * old.scale**2
        # Of ones, whatever the rounding of their sum.
        square[: term.intercept] = 1.0
        units.append(block_units(term, old.center + old.scale * mean, square))
    return tuple(units)


def similar(old: Units, new: Units) -> bool:
    """Say whether sums in the old units have the digits of those in the new."""
    return all(map(_similar, (old[0], *old[1]), (new[0], *new[1])))


def _similar(old: Standardization, new: Standardization) -> bool:
    ratio = new.scale / old.scale
    shift = np.abs(new.center - old.center) / new.scale
    return bool(((ratio < FAR) & (ratio > 1 / FAR) & (shift < FAR)).all())


def _change_columns(
    statistics: CrossProducts, columns: Standardization
) -> CrossProducts:
    """Express tt and b in other units of X and y, by exact algebra."""
    C = columns.from_(statistics.columns)
    return replace(
        statistics,
        columns=columns,
        tt=C.T @ statistics.tt @ C,
        b=tuple(times_columns(b, C) for b in statistics.b),
    )


def in_units(statistics: CrossProducts, units: Units) -> CrossProducts:
    """Express the statistics in other units, by exact algebra."""
    columns, blocks = units
    statistics = _change_columns(statistics, columns)
    maps = [np.eye(s.shape[1]) for s in statistics.s]
    for place, term, new, old in zip(
        statistics.slices, statistics.terms, blocks, statistics.blocks, strict=True
    ):
        maps[term.factor][place, place] = new.from_(old)
    wide = [
        sparse.kron(sparse.eye_array(len(s)), C, format="csr")
        for s, C in zip(statistics.s, maps, strict=True)
    ]
    return replace(
        statistics,
        blocks=blocks,
        s=tuple(transformed(s, C, C) for s, C in zip(statistics.s, maps, strict=True)),
        b=tuple(
            transformed(b, C, np.eye(b.shape[2]))
            for b, C in zip(statistics.b, maps, strict=True)
        ),
        n={
            (f, h): (wide[f].T @ n @ wide[h]).tocsr()
            for (f, h), n in statistics.n.items()
        },
    )


def _spread(
    statistics: CrossProducts, index: Sequence[IntArray], sizes: Sequence[int]
) -> CrossProducts:
    """Place every level's statistics at its position among more levels."""
    s, b = [], []
    for old_s, old_b, to, size in zip(
        statistics.s, statistics.b, index, sizes, strict=True
    ):
        new_s = np.zeros((size, *old_s.shape[1:]))
        new_b = np.zeros((size, *old_b.shape[1:]))
        new_s[to], new_b[to] = old_s, old_b
        s.append(new_s)
        b.append(new_b)
    n = {}
    for (f, h), old in statistics.n.items():
        q = s[f].shape[1], s[h].shape[1]
        rows, columns, data = moved_entries(old, q, (index[f], index[h]))
        shape = (sizes[f] * q[0], sizes[h] * q[1])
        n[f, h] = sparse.coo_array((data, (rows, columns)), shape).tocsr()
    return replace(statistics, s=tuple(s), b=tuple(b), n=n)


def moved_entries(
    n: sparse.csr_array, q: tuple[int, int], to: tuple[IntArray, IntArray]
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return rows, columns and values of Z_f'Z_h, with its levels at other places.

    q : the numbers of coefficients of f and h
    to : for every level of f, and of h, its new place
    """
    coo = n.tocoo()
    rows, columns = (
        places[index // k] * k + index % k
        for index, k, places in zip((coo.row, coo.col), q, to, strict=True)
    )
    return rows, columns, coo.data


def block_diagonal(blocks: FloatArray) -> sparse.csr_array:
    """Return blocks (G, q, q) as one sparse matrix (G q, G q)."""
    G, q, _ = blocks.shape
    data = np.ascontiguousarray(blocks)
    return sparse.csr_array(
        sparse.bsr_array((data, np.arange(G), np.arange(G + 1)), (G * q, G * q))
    )


def _flat(w: FloatArray) -> FloatArray:
    return w.reshape(-1, w.shape[-1])


def merge_levels(a: AnyArray, b: AnyArray) -> tuple[AnyArray, IntArray, IntArray]:
    """Return the union of two sets of labels and the positions of a and b in it.

    Sorted if the labels can be sorted; else those of a, then the new ones of b
    in their order.
    """
    if a.dtype.kind != b.dtype.kind:
        a, b = a.astype(object), b.astype(object)
    both = np.concatenate([a, b])
    try:
        union, index = np.unique(both, return_inverse=True)
    except TypeError:
        positions: dict[object, int] = {}
        index = np.array([positions.setdefault(x, len(positions)) for x in both])
        union = np.empty(len(positions), dtype=object)
        union[:] = list(positions)
    return union, index[: len(a)], index[len(a) :]
