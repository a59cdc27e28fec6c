"""Correlations between the errors of a group of rows."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from sklearn_lmm.residuals._base import (
    CorrelationStructure,
    Groups,
    ResidualStructure,
    as_groups,
    check_parameter,
    set_field,
)
from sklearn_lmm.residuals._variances import Heteroscedastic
from sklearn_lmm.terms import Reference, as_reference


@dataclass(frozen=True, repr=False)
class AR1(CorrelationStructure):
    """Errors that follow each other in time: correlation phi^d at distance d.

    Parameters
    ----------
    time : str or int, default=None
        A column of whole numbers, each once in a group; gaps are allowed. None:
        the order of the rows.
    groups : str, int or tuple of them, default=None
        What the series belong to, as in `RandomEffect`. None: the grouping
        factor of the random effects (of several the innermost), else `groups`
        as given to fit, else all rows are one series.
    phi : float, default=None
        The correlation of neighbours, between -1 and 1; None to estimate it.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.residuals import AR1
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject", residual=AR1("Days")).fit(X, y)
    >>> print(model.residual_parameters_.round(3).to_dict())
    {'phi': 0.653}
    """

    time: Reference | None = None
    groups: Groups = None
    _: KW_ONLY
    phi: float | None = None
    whole = True

    def __post_init__(self) -> None:
        _set_places(self, "time")
        check_parameter(self, "phi", -1.0, 1.0)

    @property
    def places(self) -> tuple[Reference, ...]:
        return () if self.time is None else (self.time,)


@dataclass(frozen=True, repr=False)
class ContinuousAR1(CorrelationStructure):
    """Correlation phi^d at any distance d in time, 0 < phi < 1.

    Parameters
    ----------
    time : str or int
        A column of numbers or dates (which count in days), each once in a group.
    groups : str, int or tuple of them, default=None
        What the series belong to, as in `AR1`.
    phi : float, default=None
        The correlation at distance 1; None to estimate it.

    Examples
    --------
    >>> from sklearn_lmm.residuals import ContinuousAR1
    >>> ContinuousAR1("day", "patient")
    ContinuousAR1(time='day', groups='patient')
    """

    time: Reference
    groups: Groups = None
    _: KW_ONLY
    phi: float | None = None

    def __post_init__(self) -> None:
        _set_places(self, "time")
        check_parameter(self, "phi", 0.0, 1.0)

    @property
    def places(self) -> tuple[Reference, ...]:
        return (self.time,)


@dataclass(frozen=True, repr=False)
class ARMA(CorrelationStructure):
    """An autoregressive and moving-average process at whole times.

    e_t = ar_1 e_(t-1) + .. + ar_p e_(t-p) + a_t + ma_1 a_(t-1) + .. + ma_q a_(t-q),
    stationary and invertible.

    Parameters
    ----------
    p, q : int
        How many autoregressive and moving-average coefficients.
    time : str or int, default=None
        A column of whole numbers, as in `AR1`.
    groups : str, int or tuple of them, default=None
        What the series belong to, as in `AR1`.
    ar, ma : sequence of float, default=None
        Coefficients that are known; None to estimate them.

    Examples
    --------
    >>> from sklearn_lmm.residuals import ARMA
    >>> ARMA(1, 1, time="week", ma=[0.3])
    ARMA(p=1, q=1, time='week', ma=(0.3,))
    """

    p: int
    q: int
    time: Reference | None = None
    groups: Groups = None
    _: KW_ONLY
    ar: tuple[float, ...] | None = None
    ma: tuple[float, ...] | None = None
    whole = True

    def __post_init__(self) -> None:
        _set_places(self, "time")
        for name, order in (("ar", self.p), ("ma", self.q)):
            if not isinstance(order, int) or order < 0:
                raise ValueError(f"The order of {name} is {order!r}, not 0, 1, 2, ….")
            known = getattr(self, name)
            if known is not None:
                set_field(self, name, tuple(map(float, known)))
                if len(known) != order:
                    raise ValueError(f"{name} has {len(known)} values, not {order}.")
        if self.p + self.q == 0:
            raise ValueError("ARMA(0, 0) is no correlation: leave it out.")

    @property
    def places(self) -> tuple[Reference, ...]:
        return () if self.time is None else (self.time,)


@dataclass(frozen=True, repr=False)
class EqualCorrelation(CorrelationStructure):
    """One correlation rho between any two errors of a group (compound symmetry).

    Without random effects this is the model of a random intercept, of which
    rho may also be negative.

    Parameters
    ----------
    groups : str, int or tuple of them, default=None
        What groups the rows, as in `AR1`.
    rho : float, default=None
        The correlation; None to estimate it.

    Examples
    --------
    >>> from sklearn_lmm.residuals import EqualCorrelation
    >>> EqualCorrelation("litter")
    EqualCorrelation(groups='litter')
    """

    groups: Groups = None
    _: KW_ONLY
    rho: float | None = None

    def __post_init__(self) -> None:
        set_field(self, "groups", as_groups(self.groups))
        check_parameter(self, "rho", -1.0, 1.0)

    @property
    def places(self) -> tuple[Reference, ...]:
        return ()


@dataclass(frozen=True, repr=False)
class UnstructuredErrors(CorrelationStructure):
    """Any covariance between the errors of a few occasions.

    Without random effects this is the model known as MMRM.

    Parameters
    ----------
    time : str or int
        A column of labels: which occasion it was, each once in a group.
    groups : str, int or tuple of them, default=None
        What the occasions belong to, as in `AR1`.
    variances : bool, default=True
        Whether every occasion has a variance of its own.

    Examples
    --------
    >>> from sklearn_lmm.residuals import UnstructuredErrors
    >>> UnstructuredErrors("visit", "patient")
    UnstructuredErrors(time='visit', groups='patient')
    """

    time: Reference
    groups: Groups = None
    _: KW_ONLY
    variances: bool = True

    def __post_init__(self) -> None:
        _set_places(self, "time")

    @property
    def parts(self) -> tuple[ResidualStructure, ...]:
        return (self, Heteroscedastic(self.time)) if self.variances else (self,)

    @property
    def places(self) -> tuple[Reference, ...]:
        return (self.time,)


def _set_places(structure: Any, name: str) -> None:
    value = getattr(structure, name)
    if value is not None:
        set_field(
            structure, name, as_reference(value, "the time of a residual structure")
        )
    set_field(structure, "groups", as_groups(structure.groups))
