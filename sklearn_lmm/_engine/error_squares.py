"""Products of two first derivatives of R, for Kenward and Roger's method.

With dR_i the derivatives of R by the errors' parameters u, and Omega_i those of
R^-1 between D^-1 (`error_sums`),

    T'R^-1 dR_i R^-1 dR_j R^-1 T = U'Omega_i C Omega_j U,  U = D^-1 T,
    tr(R^-1 dR_i R^-1 dR_j)      = tr(Omega_i C Omega_j C)
                                 = d2 log|R| + tr(C Omega_ij),

with second derivatives Omega_ij.  Where R is diagonal, the first is the second
derivative of T'R^-1 T.  All of them need the rows, and are made where a fit ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_lmm._engine.correlation import (
    Independent,
    correlation_matrix,
    symmetric_stencil,
)
from sklearn_lmm._engine.correlation_families import Unstructured
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_sums import Omega, Operation, Sums, times
from sklearn_lmm._engine.errors import Errors, Expansion, RowErrors, symmetric_table
from sklearn_lmm._engine.exchangeable import EqualCorrelation
from sklearn_lmm._types import BoolArray, FloatArray, IntArray

MOST_ENTRIES = 5e6
"""Entries of C, at most, that are written out."""


@dataclass(frozen=True, eq=False)
class ErrorSquares:
    """The products at the optimum, for m free parameters.

    products : (m, m) of T'R^-1 dR_i R^-1 dR_j R^-1 T, made symmetric in i and j
    traces : (m, m), tr(R^-1 dR_i R^-1 dR_j)
    bend : (m, m, m), c_kij with d2R / du_i du_j - sum_k c_kij dR / du_k the second
        derivative by the parameters as users know them; None for parameters
        that Cov(e) is linear in
    """

    products: tuple[tuple[CrossProducts, ...], ...]
    traces: FloatArray
    bend: FloatArray | None

    def select(self, kept: BoolArray) -> ErrorSquares:
        """Return the products without the fixed-effect columns not kept."""
        products = tuple(tuple(G.select(kept) for G in row) for row in self.products)
        return replace(self, products=products)


def error_squares(model: RowErrors, expansion: Expansion) -> ErrorSquares | None:
    """Return the products, None where C would take too much room.

    expansion : that of the model at the optimum
    """
    errors, u = model.errors, expansion.u
    bend = None if is_linear(errors) else curvature(errors, u)
    if isinstance(errors.correlation, Independent):
        slopes = errors.slopes[:, errors.free]
        traces = 4.0 * slopes.T @ (model.counts[:, None] * slopes)
        return ErrorSquares(expansion.second, traces, bend)
    of_C, delta = errors.complete(u)
    sums = model.sums(errors.log_deviations(delta))
    square = None if errors.slopes.size else errors.correlation.squared(of_C)
    if square is not None and len(u):
        product = sums.of(partial(times, square[0]))
        return ErrorSquares(((product,),), np.array([[square[1]]]), bend)
    within = Within(errors, of_C)
    if not within.fits(sums):
        return None
    free = errors.free
    return ErrorSquares(
        products=symmetric_table(
            len(free), lambda i, j: sums.of(within.squared(free[i], free[j]))
        ),
        traces=within.traces(free, expansion.d2logdet),
        bend=bend,
    )


class Within:
    """C, and the derivatives of its inverse between D^-1, at some u."""

    def __init__(self, errors: Errors, u: FloatArray) -> None:
        self.correlation, self.u = errors.correlation, u
        self.omega = Omega(errors.correlation.at(u), errors.slopes)
        self.starts, self.sizes = errors.starts, errors.sizes

    def fits(self, sums: Sums) -> bool:
        """Say whether C is small enough, if it has to be written out."""
        needed = self.correlation.near(self.u) is None or not all(sums.narrow)
        return not needed or self.sizes.sum() * self.sizes.max() <= MOST_ENTRIES

    def squared(self, i: int, j: int) -> Operation:
        """Return half of Omega_i C Omega_j + Omega_j C Omega_i."""
        first, second = self.omega.first(i), self.omega.first(j)
        if i == j:
            return lambda U: first(self._times(first(U)))
        return lambda U: (
            0.5 * (first(self._times(second(U))) + second(self._times(first(U))))
        )

    def traces(self, free: IntArray, d2logdet: FloatArray) -> FloatArray:
        """Return tr(R^-1 dR_i R^-1 dR_j) (m, m) = tr(Omega_i C Omega_j C).

        From the second derivatives where these, and C there, have few entries.
        """
        m = len(free)
        near: Any = self.correlation.near(self.u)
        if near is None:
            B = [self.omega.first(i)(self.matrix) for i in free]
            turned = [b.T.tocsr() for b in B]
            traces = symmetric_table(m, lambda i, j: B[i].multiply(turned[j]).sum())
            return np.array(traces).reshape(m, m)
        unit = sparse.eye_array(near.shape[0], format="csr")

        def curved(i: int, j: int) -> float:
            return float(near.multiply(self.omega.second(free[i], free[j])(unit)).sum())

        return np.asarray(d2logdet + np.array(symmetric_table(m, curved)).reshape(m, m))

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """C (n, n), written out."""
        n = int(self.sizes.sum())
        return correlation_matrix(self.correlation, self.u, self.starts, n)

    def _times(self, U: Any) -> Any:
        if sparse.issparse(U):
            wide: Any = self.matrix
            return wide @ U
        return self.correlation.times(self.u, U)


def is_linear(errors: Errors) -> bool:
    """Say whether Cov(e) is linear in its own entries, if these are free.

    So with a variance for each of some strata, equal correlations and equal
    variances, and any correlations of occasions whose variances are equal or all
    differ.
    """
    slopes, free = errors.slopes, np.isnan(errors.fixed)
    if isinstance(errors.correlation, Independent):
        return errors.in_strata and bool(errors.ratio.all())
    if isinstance(errors.correlation, EqualCorrelation):
        return not slopes.size
    if not isinstance(errors.correlation, Unstructured) or not free.all():
        return False
    return not slopes.size or (errors.in_strata and _of_occasions(errors, slopes))


def _of_occasions(errors: Errors, strata: FloatArray) -> bool:
    """Say whether the strata are the occasions of an unstructured correlation."""
    assert isinstance(errors.correlation, Unstructured)
    occasion = np.empty(len(strata))
    for part in errors.correlation.patterns:
        occasion[part.rows] = part.positions[part.pattern, :, 0]
    both = np.column_stack([occasion, strata])
    found = [len(np.unique(x, axis=0)) for x in (occasion, strata, both)]
    return len(set(found)) == 1


def curvature(errors: Errors, u: FloatArray) -> FloatArray:
    """Return the c_kij of `ErrorSquares` (m, m, m).

    With the parameters v(u) of users, c_kij = sum_l (dv / du)^-1_kl d2v_l/du_i du_j.
    """
    free = errors.free
    if not len(free):
        return np.zeros((0, 0, 0))
    second = symmetric_stencil(lambda x: errors.jacobian(x)[free].T, u)
    slope = errors.jacobian(u)[free]
    m = len(free)
    c = np.linalg.solve(slope, second.reshape(m * m, m).T)
    return np.asarray(c.reshape(m, m, m))
