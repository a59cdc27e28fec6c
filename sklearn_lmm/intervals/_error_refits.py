"""Refits to responses drawn from a model with a residual structure, from its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_draws import ErrorDraws
from sklearn_lmm._engine.error_fit import fit_with_errors
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._engine.result import LMMFit, fixed_effects
from sklearn_lmm._engine.variance_parameters import values_and_gradient
from sklearn_lmm._residual_fit import read_errors
from sklearn_lmm._types import FloatArray
from sklearn_lmm.intervals._draws import error_draws
from sklearn_lmm.intervals._parameters import all_parameters
from sklearn_lmm.intervals._samplers import Replicate

NO_OTHER = {
    "residual": (
        "draws residuals as if they could be exchanged, and those of "
        "correlated or unequal errors cannot"
    ),
    "case": (
        "draws a group several times, and the residual structure would take its "
        "copies for one group"
    ),
}


@dataclass(frozen=True, eq=False)
class ErrorRefits:
    """Responses drawn for the rows of a fit, and the same model fitted to them."""

    est: Any
    design: Design
    errors: Errors
    draws: ErrorDraws

    def replicates(
        self,
        statistic: Callable[[Any], Any] | None,
        chunk: Sequence[np.random.SeedSequence],
    ) -> list[Replicate]:
        """Return a replicate for every seed."""
        return [self._one(np.random.default_rng(seed), statistic) for seed in chunk]

    def _one(
        self, rng: np.random.Generator, statistic: Callable[[Any], Any] | None
    ) -> Replicate:
        design = replace(self.design, y=self.draws.draw(rng))
        options = self.est._settings() | {"verbose": 0}
        result = fit_with_errors(
            design, self.errors, exact_tests=statistic is not None, **options
        )
        extra = None
        if statistic is not None:
            extra = statistic(self.est._with(self.est._layout, result))
        return Replicate(
            self._values(result),
            result.criterion,
            result.singular,
            result.converged,
            extra,
        )

    def _values(self, result: LMMFit) -> FloatArray:
        assert result.errors is not None
        point = result.point()
        others = [p.variance for p in all_parameters(self.est) if p.variance]
        values, _ = values_and_gradient(point, others)
        own = result.errors.values[result.errors.estimated]
        return np.concatenate([fixed_effects(point), values, own])


def error_refits(
    est: Any, design: Design, data: tuple[Any, Any, Any, Any], kind: str
) -> ErrorRefits:
    """Return the refits of a model to responses drawn for its rows.

    data : X, y, groups and sample_weight, which the design was read from

    Raises
    ------
    ValueError
        If it is another kind than "parametric", or rows stand for several.
    """
    if kind in NO_OTHER:
        raise ValueError(
            f"kind={kind!r} {NO_OTHER[kind]}: with residual={est.residual!r} use "
            "kind='parametric'."
        )
    weights = design.weights
    if est.weights == "frequency" and weights is not None and (weights != 1.0).any():
        raise ValueError(
            f"residual={est.residual!r} with frequency weights: a response is drawn "
            "for each row. Give every row on its own."
        )
    _, errors = read_errors(est, est._layout, design, *data)
    return ErrorRefits(est, design, errors, error_draws(design, est.fit_, errors))
