"""Correlations that fall with distance."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np

from sklearn_lmm.residuals._base import (
    CorrelationStructure,
    Groups,
    as_groups,
    check_parameter,
    set_field,
)
from sklearn_lmm.terms import Reference, as_references


@dataclass(frozen=True, repr=False)
class SpatialStructure(CorrelationStructure):
    """A correlation that falls with the distance d between rows of a group."""

    coordinates: tuple[Reference, ...]
    groups: Groups = None
    _: KW_ONLY
    range: float | None = None
    nugget: bool | float = False

    def __post_init__(self) -> None:
        set_field(self, "coordinates", as_references(self.coordinates, "coordinates"))
        set_field(self, "groups", as_groups(self.groups))
        check_parameter(self, "range", 0.0, np.inf)
        if not isinstance(self.nugget, bool):
            check_parameter(self, "nugget", 0.0, 1.0)

    @property
    def places(self) -> tuple[Reference, ...]:
        return self.coordinates


@dataclass(frozen=True, repr=False)
class Exponential(SpatialStructure):
    """Correlation exp(-d / range) at distance d.

    Parameters
    ----------
    coordinates : str, int or sequence of them
        One column, such as a time, or several: positions in a plane.
    groups : str, int or tuple of them, default=None
        Rows of different groups are independent, as in `AR1`.
    range : float, default=None
        The distance at which the correlation is 1/e; None to estimate it.
    nugget : bool or float, default=False
        Whether a part of the variance is not shared even at distance 0, so that
        correlations are (1 - nugget) exp(-d / range); a number is its size.

    Examples
    --------
    >>> from sklearn_lmm.residuals import Exponential
    >>> Exponential(["east", "north"], "field", nugget=True)
    Exponential(coordinates=('east', 'north'), groups='field', nugget=True)
    """


@dataclass(frozen=True, repr=False)
class Gaussian(SpatialStructure):
    """Correlation exp(-(d / range)^2) at distance d.

    Parameters
    ----------
    coordinates, groups, range, nugget
        As in `Exponential`.

    Examples
    --------
    >>> from sklearn_lmm.residuals import Gaussian
    >>> Gaussian(["east", "north"])
    Gaussian(coordinates=('east', 'north'))
    """


@dataclass(frozen=True, repr=False)
class Matern(SpatialStructure):
    """Matern's correlation, smoother than `Exponential`.

    With s = sqrt(2 nu) d / range: exp(-s), (1 + s) exp(-s), and
    (1 + s + s^2 / 3) exp(-s) for nu = 0.5, 1.5 and 2.5.

    Parameters
    ----------
    coordinates, groups, range, nugget
        As in `Exponential`.
    nu : {0.5, 1.5, 2.5}, default=1.5
        The smoothness.

    Examples
    --------
    >>> from sklearn_lmm.residuals import Matern
    >>> Matern(["east", "north"], nu=2.5)
    Matern(coordinates=('east', 'north'), nu=2.5)
    """

    _: KW_ONLY
    nu: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"nu={self.nu!r}: expected 0.5, 1.5 or 2.5.")
