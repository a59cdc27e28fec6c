"""Sums over the rows of a model that are never in memory all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from sklearn_lmm._engine.accumulator import Accumulator
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Design
from sklearn_lmm._layout import Layout, number_more
from sklearn_lmm._numbering import Numbering
from sklearn_lmm._roles import Roles

T = TypeVar("T")


class Totals:
    """Cross-products of rows that come in portions, and the levels in them.

    `read` and `add_rows` share nothing that changes, so that one portion can be
    read while the one before is added.
    """

    def __init__(self, roles: Roles) -> None:
        self.roles = roles
        self._numbering = Numbering(roles)
        self._sums = Accumulator()

    def read(
        self, estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any
    ) -> Design:
        """Return rows in the form that `add_rows` takes.

        Raises
        ------
        ValueError
            If the rows cannot be used, or are not of this model.
        """
        return number_more(
            estimator, self.roles, self._numbering, X, y, groups, sample_weight
        )

    def add_rows(self, design: Design) -> None:
        """Add rows that `read` has returned."""
        self._sums.add_rows(design)

    def add(self, layout: Layout, statistics: CrossProducts) -> None:
        """Add what is known of other rows.

        Raises
        ------
        ValueError
            If their labels are of another kind than those before.
        """
        levels = self._numbering.of(layout.factors)
        self._sums.add(replace(statistics, levels=levels))

    def finished(self) -> tuple[Layout, CrossProducts]:
        """Return the form and the cross-products of all rows, and forget them."""
        ordered = self._numbering.levels()
        layout = Layout(self.roles, tuple(factor for factor, _ in ordered))
        labels = [factor.labels for factor in layout.factors]
        places = [place for _, place in ordered]
        statistics = self._sums.total()
        # They are large, and there would be a third of them.
        self._sums = Accumulator()
        return layout, statistics.with_levels(labels, places)


def while_next_is_made(use: Callable[[T], None], items: Iterable[T]) -> None:
    """Call `use` with every item in turn, in a thread, while the next is made."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        last: Future[None] | None = None
        for item in items:
            if last is not None:
                last.result()
            last = pool.submit(use, item)
        if last is not None:
            last.result()
