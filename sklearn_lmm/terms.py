"""What varies by group: `RandomEffect`, and lme4's notation for it.

A spec says nothing about data.  `parse_random` turns every form that the
parameter `random` may take into a tuple of `RandomEffect`; columns and labels
are looked up later, when there are any.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral
from typing import Any

from sklearn_lmm._notation import parse_notation
from sklearn_lmm.covariance import STRUCTURES, Covariance

Reference = str | int

INTERCEPT = "(Intercept)"
"""The name of intercepts, fixed and random, which is R's."""


@dataclass(frozen=True, repr=False)
class RandomEffect:
    """Coefficients that vary between the levels of a grouping factor.

    Parameters
    ----------
    group : str, int, tuple of them or None, default=None
        The grouping factor: a name, verbatim (looked up in `groups`, then among
        the columns of X), or the position of a column of X.  A tuple is the
        interaction of its factors, named in the order given, as in
        "batch:cask".  None is one term for each factor in `groups`.
    slopes : str, int or sequence of them, default=()
        Columns of X whose coefficients vary, by name or position.
    intercept : bool, default=True
        Whether an intercept varies too; it is the first coefficient.
    covariance : str or Covariance, default="unstructured"
        "unstructured", "diagonal", "identity" (one variance),
        "compound_symmetry", or an instance from `sklearn_lmm.covariance`.

    Raises
    ------
    ValueError
        If a part is not of these forms, or if no coefficient is left to vary.

    Examples
    --------
    >>> from sklearn_lmm import RandomEffect
    >>> RandomEffect("school", slopes="standLRT")
    RandomEffect('school', slopes=('standLRT',))
    >>> RandomEffect(("batch", "cask")).name
    'batch:cask'
    """

    group: Reference | tuple[Reference, ...] | None = None
    slopes: tuple[Reference, ...] = ()
    _: KW_ONLY
    intercept: bool = True
    covariance: str | Covariance = "unstructured"

    def __post_init__(self) -> None:
        _set(self, "group", _group(self.group))
        _set(self, "slopes", _slopes(self.slopes))
        if not isinstance(self.intercept, bool):
            raise ValueError(
                f"intercept must be True or False, got {self.intercept!r}."
            )
        if not (self.slopes or self.intercept):
            raise ValueError(
                f"The random effect of {self.name} has no coefficient: "
                "give slopes, or leave intercept=True."
            )
        _check_covariance(self.covariance)

    def __repr__(self) -> str:
        named = [
            f"{field.name}={value!r}"
            for field in fields(self)[1:]
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"RandomEffect({', '.join([repr(self.group), *named])})"

    @property
    def parts(self) -> tuple[Reference, ...]:
        """The factors whose interaction groups the rows; () for group=None."""
        if self.group is None:
            return ()
        return self.group if isinstance(self.group, tuple) else (self.group,)

    @property
    def name(self) -> str:
        """The grouping factor in words."""
        return ":".join(map(str, self.parts)) or "groups"

    @property
    def structure(self) -> Covariance:
        """The covariance structure itself."""
        if isinstance(self.covariance, Covariance):
            return self.covariance
        return STRUCTURES[self.covariance]

    @property
    def needs_groups(self) -> bool:
        """Whether the labels are asked for in the argument `groups`."""
        return self.group is None or "groups" in self.parts


def parse_random(random: Any) -> tuple[RandomEffect, ...]:
    """Return the random-effects terms of a spec, in the order written.

    Parameters
    ----------
    random : None, str, int, tuple, RandomEffect, or list of them
        None: an intercept for each factor in `groups`.  A string with a bar is
        lme4's notation, any other string a name; an int is a position, a tuple
        an interaction of factors.  A list mixes any of these; [] is no term.

    Returns
    -------
    tuple of RandomEffect

    Raises
    ------
    ValueError
        If the spec is not of these forms; for notation, with a caret under
        the place.

    Examples
    --------
    >>> from sklearn_lmm.terms import parse_random
    >>> parse_random("(1 + x || school) + (1 | batch/cask)")  # doctest: +ELLIPSIS
    (RandomEffect('school', slopes=('x',), covariance='diagonal'), ...)
    >>> parse_random(["school", 3, ("batch", "cask")])
    (RandomEffect('school'), RandomEffect(3), RandomEffect(('batch', 'cask')))
    """
    if not isinstance(random, list):
        return _parse_one(random)
    if any(isinstance(spec, list) for spec in random):
        raise ValueError(
            f"random={random!r} has a list inside a list. For an interaction of "
            "factors use a tuple, as in [('batch', 'cask')]."
        )
    return tuple(term for spec in random for term in _parse_one(spec))


def _parse_one(spec: Any) -> tuple[RandomEffect, ...]:
    if isinstance(spec, RandomEffect):
        return (spec,)
    if isinstance(spec, str) and "|" in spec:
        return tuple(
            RandomEffect(
                noted.group,
                noted.slopes,
                intercept=noted.intercept,
                covariance="diagonal" if noted.independent else "unstructured",
            )
            for noted in parse_notation(spec)
        )
    return (RandomEffect(spec),)


def _set(term: RandomEffect, name: str, value: object) -> None:
    object.__setattr__(term, name, value)


def _group(group: Any) -> Reference | tuple[Reference, ...] | None:
    if group is None:
        return None
    if not isinstance(group, tuple):
        return as_reference(group, "a grouping factor")
    if not group:
        raise ValueError("An interaction of no factors, (), groups nothing.")
    parts = tuple(as_reference(part, "a factor of an interaction") for part in group)
    if len(set(parts)) < len(parts):
        raise ValueError(f"The interaction {group!r} names a factor twice.")
    return parts if len(parts) > 1 else parts[0]


def _slopes(slopes: Any) -> tuple[Reference, ...]:
    names = as_references(slopes, "slopes")
    if len(set(names)) < len(names):
        raise ValueError(f"slopes={slopes!r} names a column twice.")
    return names


def as_references(columns: Any, role: str) -> tuple[Reference, ...]:
    """Return names and positions as a tuple; a lone one is a tuple of one."""
    if isinstance(columns, str | Integral):
        columns = (columns,)
    try:
        listed = tuple(columns)
    except TypeError:
        listed = (columns,)
    return tuple(as_reference(column, f"an entry of {role}") for column in listed)


def as_reference(column: Any, role: str) -> Reference:
    """Return the name or position of a column; `role` is for the error."""
    if isinstance(column, str):
        return str(column)
    # A bool is an Integral, but True as "column 1" can only be a mistake.
    if isinstance(column, Integral) and not isinstance(column, bool):
        return int(column)
    raise ValueError(
        f"Expected the name (str) or position (int) of a column as {role}, "
        f"got {column!r} of type {type(column).__name__}."
    )


def _check_covariance(covariance: object) -> None:
    known = isinstance(covariance, str) and covariance in STRUCTURES
    if not known and not isinstance(covariance, Covariance):
        raise ValueError(
            f"Unknown covariance {covariance!r}: expected one of "
            f"{', '.join(map(repr, STRUCTURES))}, or an instance of "
            "sklearn_lmm.covariance.Covariance."
        )
