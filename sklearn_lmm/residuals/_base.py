"""What all residual structures have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import numpy as np

from sklearn_lmm.terms import Reference, as_reference

Groups = Reference | tuple[Reference, ...] | None


class ResidualStructure:
    """A structure of the errors, or several joined by `*`."""

    tells_sigma = False
    """Whether the structure says what sigma is, or that it is to be estimated."""

    @property
    def parts(self) -> tuple[ResidualStructure, ...]:
        """The structures that are joined."""
        return (self,)

    def __mul__(self, other: object) -> ResidualStructure:
        if not isinstance(other, ResidualStructure):
            return NotImplemented
        return JoinedStructure((*self.parts, *other.parts))

    def __repr__(self) -> str:
        # What is not at its default, so that it evaluates to an equal object.
        given = [
            f"{field.name}={value!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class JoinedStructure(ResidualStructure):
    """Several structures: at most one correlation, any functions of size.

    Raises
    ------
    ValueError
        If there are two correlations, or sigma is known twice.
    """

    joined: tuple[ResidualStructure, ...]

    def __post_init__(self) -> None:
        for same, what in (
            (
                [isinstance(p, CorrelationStructure) for p in self.joined],
                "correlations",
            ),
            ([p.tells_sigma for p in self.joined], "statements of what sigma is"),
        ):
            if sum(same) > 1:
                raise ValueError(
                    f"residual={self!r} has {sum(same)} {what}; one is possible."
                )

    @property
    def parts(self) -> tuple[ResidualStructure, ...]:
        return self.joined

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.joined))


class CorrelationStructure(ResidualStructure):
    """Errors that are correlated within groups of rows.

    groups : what groups the rows, None for the model's own grouping factor
    """

    groups: Groups
    whole = False
    """Whether times have to be whole numbers."""

    @property
    @abstractmethod
    def places(self) -> tuple[Reference, ...]:
        """The columns that say where a row stands within its group."""


def correlation_of(
    structure: ResidualStructure | None,
) -> CorrelationStructure | None:
    """Return the correlation among the parts of a structure, None without one."""
    parts = () if structure is None else structure.parts
    return next((p for p in parts if isinstance(p, CorrelationStructure)), None)


class VarianceStructure(ResidualStructure):
    """Errors of different size.

    column : the column that their size depends on
    """

    column: Reference


@dataclass(frozen=True, repr=False)
class KnownSigma(ResidualStructure):
    """A residual standard deviation that is known.

    Parameters
    ----------
    sigma : float
        Its value.

    Examples
    --------
    >>> from sklearn_lmm.residuals import AR1, KnownSigma
    >>> AR1("day") * KnownSigma(2.0)
    AR1(time='day') * KnownSigma(sigma=2.0)
    """

    sigma: float
    tells_sigma = True

    def __post_init__(self) -> None:
        check_parameter(self, "sigma", 0.0, np.inf)


def set_field(structure: object, name: str, value: object) -> None:
    object.__setattr__(structure, name, value)


def as_groups(groups: Any) -> Groups:
    if groups is None:
        return None
    if isinstance(groups, Sequence) and not isinstance(groups, str):
        return tuple(as_reference(part, "a part of groups") for part in groups)
    return as_reference(groups, "the groups of a residual structure")


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_parameter(structure: Any, name: str, low: float, high: float) -> None:
    """Refuse a known parameter that is not a number between its bounds."""
    value = getattr(structure, name)
    if value is None:
        return
    if not (is_number(value) and low < float(value) < high):
        raise ValueError(
            f"{name}={value!r} of {type(structure).__name__}: expected None, to "
            f"estimate it, or a number between {low:g} and {high:g}."
        )
