"""The terms of the fixed part: which effects belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn_lmm._columns import listed
from sklearn_lmm.terms import INTERCEPT


@dataclass(frozen=True)
class TestedTerm:
    """A term of the fixed part.

    columns : positions of its effects among `fixed_effects_`
    factors : what it is the product of
    numeric : those of the factors that are numbers
    """

    __test__ = False

    name: str
    columns: tuple[int, ...]
    factors: frozenset[str]
    numeric: frozenset[str]

    def is_in(self, other: TestedTerm) -> bool:
        """Say whether the other has more categories, and all else in common.

        x and f are in f:x if f is a category and x a number, but only x in the
        sense that counts here: with f alone the slopes are not averaged.
        """
        return self.factors < other.factors and self.numeric == other.numeric


def tested_terms(
    est: Any, names: Sequence[str], groups: Mapping[str, Any] | None
) -> list[TestedTerm]:
    """Return the terms of a fitted model with effects of these names.

    `groups`, term -> names of its effects, takes precedence; then a formula's
    terms; else every effect but the intercept is a term.  Terms of which no
    effect could be estimated are left out.

    Raises
    ------
    ValueError
        If `groups` names an effect that there is not, or one twice.
    """
    if groups is not None:
        found = _given(groups, list(names), est._layout.roles.fixed_names)
    elif (fixed := formula_part(est)) is not None:
        found = _of_formula(fixed, list(names))
    else:
        found = [
            TestedTerm(name, (i,), frozenset([name]), frozenset())
            for i, name in enumerate(names)
            if name != INTERCEPT
        ]
    return [term for term in found if term.columns]


def formula_part(est: Any) -> Any:
    """Return what a formula's fixed part was expanded to, None without a formula."""
    formula = est._layout.formula
    return None if formula is None else formula.fixed


def _given(
    groups: Mapping[str, Any], names: list[str], everything: list[str]
) -> list[TestedTerm]:
    terms, used = [], list[str]()
    for name, columns in groups.items():
        members = [columns] if isinstance(columns, str) else [*columns]
        unknown = [str(column) for column in members if column not in everything]
        if unknown:
            raise ValueError(
                f"terms: {name!r} lists {listed(unknown)}, but the fixed effects are "
                f"{listed(names)}."
            )
        used += members
        places = tuple(names.index(c) for c in members if c in names)
        terms.append(TestedTerm(name, places, frozenset(name.split(":")), frozenset()))
    twice = sorted({column for column in used if used.count(column) > 1})
    if twice:
        raise ValueError(f"terms lists {listed(twice)} more than once.")
    return terms


def _of_formula(fixed: Any, names: list[str]) -> list[TestedTerm]:
    categories = set(fixed.levels)
    return [
        TestedTerm(
            term.name,
            tuple(names.index(column) for column in term.columns if column in names),
            frozenset(term.factors),
            frozenset(term.factors) - categories,
        )
        for term in fixed.terms
        if term.factors
    ]
