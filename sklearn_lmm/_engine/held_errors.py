"""The likelihood with a parameter held, where the errors have parameters u.

Its coordinates (`held`) are (theta, u, lam), or (theta, u, lam, c): u are entries
like theta, along which the cross-products change too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.error_criterion import (
    ErrorCriterion,
    ErrorPoint,
    FittedErrors,
)
from sklearn_lmm._engine.held import Held, HeldPoint, hold_coordinate
from sklearn_lmm._types import FloatArray


class HeldErrorPoint(HeldPoint, ErrorPoint):
    """The likelihood at x, with the cross-products at the u that is part of it."""

    criterion: ErrorCriterion


class HeldErrors(Held):
    """A likelihood with a parameter to hold, the errors' parameters among others."""

    def _point(self, x: FloatArray, lam: float) -> HeldErrorPoint:
        criterion = self.criterion
        assert isinstance(criterion, ErrorCriterion)
        u = x[criterion.n_parameters : self._sigma]
        if not np.array_equal(u, criterion.expansion.u):
            # Terms may have been written anew, in the coordinates of what is held.
            terms = criterion.statistics.terms
            criterion = copy.copy(criterion.moved(u))
            criterion.statistics = replace(criterion.statistics, terms=terms)
        return HeldErrorPoint(self, criterion, x, lam)


def along_errors(held: Held) -> Held:
    """Return what is held with u among the coordinates, if the errors have any."""
    if not isinstance(held.criterion, ErrorCriterion):
        return held
    return HeldErrors(**vars(held))


@dataclass(frozen=True, eq=False)
class ErrorCoordinate:
    """The entry of u that one parameter of the errors is a monotone function of.

    fitted : the errors, their model known at any u
    parameter : among all parameters; entry : of u
    sign : -1 if the parameter decreases with u
    """

    fitted: FittedErrors
    parameter: int
    entry: int
    sign: float

    @classmethod
    def of(cls, fitted: FittedErrors, parameter: int) -> ErrorCoordinate | None:
        """Return the entry, None if the parameter depends on several."""
        slopes = fitted.jacobian[parameter]
        entries = np.flatnonzero(slopes)
        if len(entries) != 1:
            return None
        entry = int(entries[0])
        return cls(fitted, parameter, entry, float(np.sign(slopes[entry])))

    def hold(self, optimum: Point) -> Held:
        """Hold the entry of u."""
        return hold_coordinate(optimum, optimum.criterion.n_parameters + self.entry)

    def values(self, entries: FloatArray) -> FloatArray:
        """Return the parameter, given values of the entry."""
        found = []
        for entry in np.ravel(entries):
            u = self.fitted.u.copy()
            u[self.entry] = entry
            found.append(self.fitted.model.values(u)[self.parameter])
        return np.reshape(found, np.shape(entries))
