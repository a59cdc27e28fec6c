"""Huge crossed factors: nothing that grows with the square of the levels.

Formulas are those of `factor_crossed`.  Systems with the Schur complement S are
solved by conjugate gradients (`implicit_schur`), traces and log|V| are
estimated with random vectors (`krylov_traces`).  The same vectors at every
theta make all this a smooth function of theta.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from sklearn_lmm._engine.conjugate_gradients import column_products
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.crossing import Crossing
from sklearn_lmm._engine.factor import (
    Codes,
    Direction,
    Forms,
    PerFactor,
    average_information,
)
from sklearn_lmm._engine.implicit_schur import ImplicitSchur
from sklearn_lmm._engine.krylov_traces import TraceEstimator, Traces, log_forms
from sklearn_lmm._engine.probes import Probes, draw_probes
from sklearn_lmm._types import AnyArray, FloatArray

PROBING = 1e-2
"""Tolerance for the probes, divided by the root of the number of levels.

A trace over that many levels is uncertain by its root to begin with.
"""

LEAST_LEVELS = 10_000
"""Fewer count as so many."""

WORKING, FINE = 1e-7, 1e-10
"""Tolerance for fixed and random effects, on the way and at the end."""

ENTRIES_AT_ONCE = 1 << 24
"""Entries of right-hand sides, at most, where every row to predict has one."""

MOST_AT_ONCE = 32
"""Rows to predict worked out at a time."""

MOST_ROWS = 10_000
"""Distinct rows of which prediction variances are worked out."""


@dataclass(frozen=True)
class Sampling:
    """How traces are estimated.

    seed : of the random vectors
    probes : their number
    tolerance : for fixed and random effects
    """

    seed: int
    probes: int = 8
    tolerance: float = FINE


class KrylovStrategy:
    """Conjugate gradients and random probes.

    It remembers solutions, from which those at the next theta start.
    """

    name = "krylov"
    exact = False

    def __init__(self, statistics: CrossProducts, sampling: Sampling) -> None:
        self.statistics, self.sampling = statistics, sampling
        self.crossing = Crossing(statistics)
        self._solutions: dict[str, AnyArray] = {}
        self._probes: dict[int | None, Probes] = {}

    def factorize(self, L: PerFactor) -> KrylovFactored:
        return KrylovFactored(self, L)

    def with_sampling(self, sampling: Sampling) -> Self:
        """Return the strategy with more probes or another tolerance."""
        other = copy.copy(self)
        other.sampling = sampling
        if sampling.probes != self.sampling.probes:
            other._probes = {}
        return other

    def probes(self, k: int | None) -> Probes:
        """Return probes for the k-th factor of R, or for all (None).

        What all levels of a factor have in common is hard to tell from what
        those of another have: S^-1 is large along constants.
        """
        if k not in self._probes:
            shapes = [self.statistics.s[f].shape[:2] for f in self.crossing.rest]
            constants = tuple(np.tile(np.eye(q), (G, 1)) for G, q in shapes)
            self._probes[k] = self.probes_along(constants, k)
        return self._probes[k]

    def probes_along(self, bases: PerFactor, k: int | None = None) -> Probes:
        """Return probes with directions (G_k q_k, m) that are taken exactly."""
        pairs = list(zip(self.crossing.places, bases, strict=True))
        return draw_probes(
            pairs if k is None else pairs[k : k + 1],
            self.crossing.size,
            self.sampling.probes,
            self.sampling.seed,
        )

    def solve(
        self, schur: ImplicitSchur, b: AnyArray, name: str, tolerance: float
    ) -> AnyArray:
        """Return S^-1 b, from the last solution of that name."""
        start = self._solutions.get(name)
        if start is not None:
            start = start.copy() if start.shape == b.shape else None
        x = self._solutions[name] = schur.solve(b, tolerance, start)
        return x


class KrylovFactored:
    """V at one theta."""

    def __init__(self, strategy: KrylovStrategy, L: PerFactor) -> None:
        self.strategy, self.crossing = strategy, strategy.crossing
        self.tolerance = strategy.sampling.tolerance
        self.schur = ImplicitSchur(strategy.crossing, L)

    @cached_property
    def logdet(self) -> float:
        """log|V|: what is exact, and the sum of `log_forms`."""
        forms, probes = self.log_forms
        return self.schur.logdet + float(forms @ probes.weights)

    @cached_property
    def log_forms(self) -> tuple[FloatArray, Probes]:
        """What every probe adds to log|V|, and the probes.

        Constants, changed to the coordinates of S~, are taken exactly.
        """
        roots = tuple(
            np.asarray(np.linalg.cholesky(inverse), float)
            for inverse in self.schur.inverse_B
        )
        constants = [np.linalg.inv(root).reshape(-1, len(root[0])) for root in roots]
        probes = self.strategy.probes_along(tuple(constants))
        return log_forms(self.schur, roots, probes), probes

    def project(self, b: PerFactor) -> tuple[PerFactor, PerFactor]:
        crossing, double = self.crossing, self.schur.in_(np.float64)
        b_1 = b[crossing.first]
        Kb = double.K.times(b_1.reshape(-1, b_1.shape[-1]))
        c = crossing.stack(b) - double.products.N @ Kb
        rest = double.Lt.times(c)
        if b is self.strategy.statistics.b:
            x = self.strategy.solve(self.schur, rest, "columns", self.tolerance)
        else:
            x = self.schur.solve(rest, self.tolerance)
        u = double.L.times(x)
        first = b_1 - (double.products.Nt @ u).reshape(b_1.shape)
        F_R = crossing.projected(self.schur.L, u, lambda: c - double.times_A(u))
        F = crossing.in_user_order(self.schur.IS @ first, F_R)
        return F, crossing.in_user_order(self.schur.K @ first, crossing.split(u))

    def forms(
        self, F: PerFactor, v: PerFactor, directions: list[Direction], reml: bool
    ) -> Forms:
        # Average information is an approximation itself: half the digits will do.
        roughly = copy.copy(self)
        roughly.tolerance = np.sqrt(self.tolerance)
        return average_information(roughly, self.strategy.statistics, F, v, directions)

    def block_sums(self) -> PerFactor:
        return self.traces.sums

    @cached_property
    def traces(self) -> Traces:
        """The sums of [Q]_gg, and how they scatter."""
        return self._estimator().traces()

    def take_traces(self, other: KrylovFactored) -> None:
        """Take the traces from V at nearly the same theta, with the same probes."""
        self.traces = other.traces

    def posterior_blocks(self) -> PerFactor:
        return self._estimator().posterior_blocks()

    def _estimator(self) -> TraceEstimator:
        tolerance = PROBING / np.sqrt(max(self.crossing.size, LEAST_LEVELS))

        def solve(b: AnyArray, name: str) -> AnyArray:
            return self.strategy.solve(self.schur, b, name, tolerance)

        return TraceEstimator(self.schur, solve, self.strategy.probes)

    def posterior_variances(self, codes: Codes, z: PerFactor) -> FloatArray:
        """Return z'Cz = z_1'K z_1 + b'S^-1 b, b = L'(z_R - N K z_1).

        One system has to be solved for every distinct row.

        Raises
        ------
        ValueError
            If there are more distinct rows than can be solved for.
        """
        rows = np.column_stack([*codes, *z])
        rows[(np.column_stack(z) == 0.0).all(axis=1)] = 0.0
        distinct, back = np.unique(rows, axis=0, return_inverse=True)
        if len(distinct) > MOST_ROWS:
            raise ValueError(
                "After a stochastic fit the variance of a prediction takes a linear "
                f"system for every distinct row, and {len(distinct)} are too many. "
                f"Ask for at most {MOST_ROWS} at a time, or leave the random effects "
                "out with random_effects=False."
            )
        entries = sum(s.shape[0] * s.shape[1] for s in self.strategy.statistics.s)
        at_once = int(np.clip(ENTRIES_AT_ONCE // entries, 1, MOST_AT_ONCE))
        parts = [
            self._variances_of(distinct[start : start + at_once])
            for start in range(0, len(distinct), at_once)
        ]
        return np.concatenate(parts)[back.ravel()]

    def _variances_of(self, rows: FloatArray) -> FloatArray:
        """Return z'Cz for rows of codes and z, side by side."""
        shapes = [s.shape[:2] for s in self.strategy.statistics.s]
        b = tuple(np.zeros((G, q, len(rows))) for G, q in shapes)
        columns, start = np.arange(len(rows)), len(b)
        for f, (_, q) in enumerate(shapes):
            b[f][rows[:, f].astype(int), :, columns] = rows[:, start : start + q]
            start += q
        double = self.schur.in_(np.float64)
        z_1 = b[self.crossing.first].reshape(-1, len(rows))
        Kz = double.K.times(z_1)
        rest = double.Lt.times(self.crossing.stack(b) - double.products.N @ Kz)
        x = self.schur.solve(rest, self.tolerance)
        return column_products(z_1, Kz) + column_products(rest, x)
