"""Who plays what: references by name and position, resolved against the data.

`assign_roles` looks at names only, never at values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn_lmm._columns import Table, listed
from sklearn_lmm._formula import Formula
from sklearn_lmm._groups import GroupColumns
from sklearn_lmm._types import BoolArray
from sklearn_lmm.covariance import Covariance
from sklearn_lmm.terms import (
    INTERCEPT,
    RandomEffect,
    Reference,
    as_reference,
    as_references,
    parse_random,
)


@dataclass(frozen=True)
class Source:
    """Where the labels of one factor are found.

    name : of the factor
    column : its position in X, None if X has no such column
    group : its position in the `groups` of the fit, None if not there
    any_name : whether the spec leaves the name open, as None and "groups" do
    """

    name: str
    column: int | None
    group: int | None
    any_name: bool = False

    def joined(self, other: Source) -> Source:
        """Return the places of both, which are said to hold the same labels."""
        return Source(
            self.name,
            other.column if self.column is None else self.column,
            other.group if self.group is None else self.group,
            self.any_name or other.any_name,
        )


@dataclass(frozen=True)
class Grouping:
    """A grouping factor of the model: one source, or the interaction of several.

    name : as typed, "batch:cask" for an interaction
    parts : positions in `Roles.sources`
    """

    name: str
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """A random-effects term, with every name resolved.

    name : the grouping factor's, with .1, .2, … for further terms on it
    factor : position in `Roles.groupings`
    slopes : positions of columns of X
    coefficients : names, the intercept first
    columns : the term's place among all coefficients of its factor
    """

    name: str
    factor: int
    structure: Covariance
    intercept: bool
    slopes: tuple[int, ...]
    coefficients: tuple[str, ...]
    columns: slice


@dataclass(frozen=True)
class Roles:
    """The part that every column of X, and every column of groups, plays.

    names : of the columns of X
    fixed : positions of the columns of the fixed part
    intercept : whether the fixed part has one
    offset : position of the offset, or None
    n_group_columns : how many columns of labels `groups` had
    no_groups : whether a term asks for `groups` and there is none
    formula : what makes the columns, if they are not X's own
    """

    names: tuple[str, ...]
    fixed: tuple[int, ...]
    intercept: bool
    offset: int | None
    sources: tuple[Source, ...]
    groupings: tuple[Grouping, ...]
    terms: tuple[Term, ...]
    n_group_columns: int
    no_groups: bool
    formula: Formula | None = None

    @property
    def fixed_names(self) -> list[str]:
        """Names of the fixed effects, intercept first."""
        return [INTERCEPT] * self.intercept + [self.names[j] for j in self.fixed]

    def fixed_where(self, which: BoolArray) -> list[str]:
        """Names of some fixed effects, such as those that were kept."""
        return [name for name, yes in zip(self.fixed_names, which, strict=True) if yes]

    @property
    def factor_names(self) -> list[str]:
        """Names of the grouping factors."""
        return [grouping.name for grouping in self.groupings]

    def coefficients(self, factor: int) -> list[str]:
        """Names of all coefficients that vary by a factor, term after term."""
        return [
            name
            for term in self.terms
            if term.factor == factor
            for name in term.coefficients
        ]

    def wanted(self, random_effects: bool | str | Sequence[str]) -> set[int]:
        """Return positions of the grouping factors that are asked for.

        Raises
        ------
        ValueError
            If a name is not that of a grouping factor.
        """
        names = self.factor_names
        if isinstance(random_effects, bool):
            return set(range(len(names))) if random_effects else set()
        asked = [random_effects] if isinstance(random_effects, str) else random_effects
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ValueError(
                f"random_effects names {unknown}, but the grouping factors of this "
                f"model are {names}; give True, False or a list of these."
            )
        return {names.index(name) for name in asked}


def assign_roles(
    random: Any,
    fixed: Any,
    offset: Any,
    intercept: bool,
    table: Table,
    groups: GroupColumns | None,
    not_fixed: Collection[int] = (),
) -> Roles:
    """Resolve the parameters of an estimator against the names of the data.

    not_fixed : further columns of X that are no fixed effects unless `fixed`
        lists them

    Raises
    ------
    ValueError
        If a name or position is absent, a column is listed twice, or a
        coefficient varies twice by one factor.
    """
    terms = parse_random(random)
    resolver = _Resolver(table, groups)
    for term in terms:
        resolver.add(term)
    offset_column = None if offset is None else _offset(offset, table)
    # Also a column that `groups` repeats: it holds labels, whoever gives them.
    labels = {source.column for source in resolver.sources}
    return Roles(
        names=table.names,
        fixed=_fixed(fixed, table, labels | {offset_column, *not_fixed}),
        intercept=intercept,
        offset=offset_column,
        sources=tuple(resolver.sources),
        groupings=tuple(resolver.groupings),
        terms=tuple(resolver.terms),
        n_group_columns=0 if groups is None else len(groups.names),
        no_groups=groups is None and any(term.group is None for term in terms),
    )


def _offset(offset: Any, table: Table) -> int:
    return table.position(as_reference(offset, "the offset"), "offset")


def _fixed(fixed: Any, table: Table, taken: set[int | None]) -> tuple[int, ...]:
    if fixed is None:
        return tuple(j for j in range(len(table.names)) if j not in taken)
    references = as_references(fixed, "fixed")
    positions = tuple(table.position(reference, "fixed") for reference in references)
    _refuse_repeated(positions, table, "fixed lists")
    return positions


def _refuse_repeated(positions: Sequence[int], table: Table, who: str) -> None:
    twice = sorted({j for j in positions if positions.count(j) > 1})
    if twice:
        names = listed([table.names[j] for j in twice])
        raise ValueError(f"{who} a column twice: {names}.")


class _Resolver:
    """Collects sources, groupings and terms, each once."""

    def __init__(self, table: Table, groups: GroupColumns | None) -> None:
        self.table = table
        self.groups = groups
        self.sources: list[Source] = []
        self.groupings: list[Grouping] = []
        self.terms: list[Term] = []

    def add(self, term: RandomEffect) -> None:
        slopes = tuple(
            self.table.position(slope, f"A slope of {term.name!r}")
            for slope in term.slopes
        )
        _refuse_repeated(slopes, self.table, f"The slopes of {term.name!r} list")
        for parts in self._groupings_of(term):
            self._add_term(term, slopes, self._grouping(parts))

    def _groupings_of(self, term: RandomEffect) -> list[tuple[int, ...]]:
        if term.group is not None:
            return [tuple(self._source(part) for part in term.parts)]
        if self.groups is None:
            return []
        names = self.groups.factor_names
        return [(self._source(name, any_name=True),) for name in names]

    def _source(self, reference: Reference, any_name: bool = False) -> int:
        if isinstance(reference, str):
            source = self._named_source(reference, any_name)
        else:
            column = self.table.position(reference, "random")
            source = Source(self.table.names[column], column, None)
        for position, known in enumerate(self.sources):
            if known.name == source.name:
                self.sources[position] = known.joined(source)
                return position
        self.sources.append(source)
        return len(self.sources) - 1

    def _named_source(self, name: str, any_name: bool) -> Source:
        group = None if self.groups is None else self.groups.position(name)
        in_table = name in self.table.names
        column = self.table.position(name, "random") if in_table else None
        if self.groups is not None and group is not None:
            any_name = any_name or name == "groups"
            name = self.groups.factor_names[group]
            return Source(name, column, group, any_name)
        if column is None:
            raise ValueError(self._absent(name))
        return Source(name, column, None)

    def _absent(self, name: str) -> str:
        where = "there is no argument groups"
        if self.groups is not None:
            where = f"groups has {listed(self.groups.factor_names)}"
        absent = self.table.without(name)
        return f"random names the factor {name!r}, but {where}, and {absent}"

    def _grouping(self, parts: tuple[int, ...]) -> int:
        # a:b and b:a are one partition of the rows, under the name typed first.
        for position, known in enumerate(self.groupings):
            if set(known.parts) == set(parts):
                return position
        name = ":".join(self.sources[part].name for part in parts)
        if any(known.name == name for known in self.groupings):
            raise ValueError(f"Two different grouping factors are called {name!r}.")
        self.groupings.append(Grouping(name, parts))
        return len(self.groupings) - 1

    def _add_term(self, term: RandomEffect, slopes: Sequence[int], factor: int) -> None:
        grouping = self.groupings[factor].name
        before = [other for other in self.terms if other.factor == factor]
        names = [INTERCEPT] * term.intercept + [self.table.names[j] for j in slopes]
        known = {name for other in before for name in other.coefficients}
        twice = [name for name in names if name in known]
        if twice:
            raise ValueError(
                f"{listed(twice)} varies twice by {grouping!r}: a coefficient may be "
                "in one term of a factor only."
            )
        start = len(known)
        self.terms.append(
            Term(
                name=f"{grouping}.{len(before)}" if before else grouping,
                factor=factor,
                structure=term.structure,
                intercept=term.intercept,
                slopes=tuple(slopes),
                coefficients=tuple(names),
                columns=slice(start, start + len(names)),
            )
        )
