"""Ways to resample: what a bootstrap refits the model to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import (
    CrossProducts,
    cross_products,
    in_units,
    units_of,
)
from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.refits import (
    FixedDesign,
    GroupSums,
    outermost,
    resampled_rows,
)
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.simulation import Draws
from sklearn_lmm._layout import Layout
from sklearn_lmm._types import FloatArray, IntArray
from sklearn_lmm.intervals._draws import normal_draws, one_row_each, resampled_draws


@dataclass(frozen=True, eq=False)
class Sample:
    """Cross-products of a resample.

    model : criterion of the fit if only y is another, else None
    sources : per factor, the old level that each new one is a copy of
    """

    statistics: CrossProducts
    model: Criterion | None = None
    sources: Sequence[IntArray] | None = None


@dataclass(frozen=True, eq=False)
class Replicate:
    """What is kept of a refit: the parameters' values, in their order, and more."""

    values: FloatArray
    criterion: float
    singular: bool
    converged: bool
    statistic: Any = None


class Sampler(Protocol):
    """A way to resample."""

    def samples(self, rngs: Sequence[np.random.Generator]) -> Iterator[Sample]:
        """Yield one sample for each random generator."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Other responses of the same rows."""

    design: FixedDesign
    draws: Draws

    def samples(self, rngs: Sequence[np.random.Generator]) -> Iterator[Sample]:
        Y = np.column_stack([self.draws.draw(rng) for rng in rngs])
        for statistics in self.design.statistics(Y):
            yield Sample(statistics, self.design.model)


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of a model with one factor, through their cross-products."""

    sums: GroupSums

    def samples(self, rngs: Sequence[np.random.Generator]) -> Iterator[Sample]:
        n = len(self.sums.tt)
        for rng in rngs:
            groups = rng.integers(n, size=n)
            yield Sample(self.sums.statistics(groups), sources=[groups])


@dataclass(frozen=True, eq=False)
class RowsOfGroups:
    """Groups of any model, through their rows."""

    design: Design
    fit: LMMFit
    unit: int

    def samples(self, rngs: Sequence[np.random.Generator]) -> Iterator[Sample]:
        n = self.design.factors[self.unit].n_levels
        units = units_of(self.fit.statistics)
        for rng in rngs:
            groups = rng.integers(n, size=n)
            design, sources = resampled_rows(self.design, self.unit, groups)
            statistics = in_units(cross_products(design), units)
            yield Sample(statistics, sources=sources)


def sampler_of(est: Any, design: Design, kind: str, unit: str | None) -> Sampler:
    """Return the sampler of a kind, for the rows of the fit.

    Raises
    ------
    ValueError
        If it does not say which groups are to be drawn, or there are none.
    """
    fit = est.fit_
    if kind == "case":
        place = _unit(est._layout, design, unit)
        if len(design.factors) == 1:
            return Groups(GroupSums.of(design, fit))
        return RowsOfGroups(design, fit, place)
    if unit is not None:
        raise ValueError(f"unit={unit!r} is for kind='case'; {kind!r} draws no groups.")
    design = one_row_each(design, fit)
    draws = normal_draws if kind == "parametric" else resampled_draws
    return Responses(FixedDesign.of(design, fit), draws(design, fit))


def _unit(layout: Layout, design: Design, unit: str | None) -> int:
    """Return the position of the factor whose levels are drawn."""
    names = layout.roles.factor_names
    if unit is not None:
        if unit not in names:
            raise ValueError(
                f"unit={unit!r} is no grouping factor of this model, which has "
                f"{listed(names) or 'none'}."
            )
        return names.index(unit)
    candidates = outermost(design)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise ValueError("kind='case' draws groups, and this model has none.")
    raise ValueError(
        f"{listed([names[f] for f in candidates])} are crossed: say with unit= which "
        "of them to draw. The levels of the others stay what they are, so that their "
        "variance is not resampled."
    )
