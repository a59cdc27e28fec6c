"""Likelihood-ratio statistics of responses drawn from the smaller model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from sklearn_lmm._engine.criterion import Criterion
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.null_draws import ResponseDraws, Restriction
from sklearn_lmm._engine.optimize import minimize
from sklearn_lmm._engine.refits import start
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._residual_fit import refuse_errors
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._nesting import groupings_of


def bootstrap_statistics(
    small: Any, large: Any, fits: tuple[LMMFit, LMMFit], n: int, rng: Any
) -> FloatArray:
    """Return n likelihood-ratio statistics under the smaller model.

    fits : of both, as they are compared

    Raises
    ------
    ValueError
        If the smaller model's effects are not found in the larger by name, or
        there are too many.
    """
    for est in (small, large):
        refuse_errors(est, "likelihood_ratio_test(bootstrap=...)")
    small_fit, large_fit = fits
    restriction = _restriction(small, large)
    try:
        draws = ResponseDraws(
            large_fit.statistics.select(large_fit.kept),
            restriction.null_model(small_fit, large_fit),
        )
    except ValueError as error:
        raise ValueError(
            f"bootstrap={n}: {error}. intervals.simulate and refits of both models "
            "do the same from the rows."
        ) from error
    models = [fit.model() for fit in fits]
    ratios = np.empty(n)
    for i in range(n):
        drawn = draws.draw(rng)
        mine = restriction.statistics(drawn, models[0].statistics)
        ratios[i] = _deviance(models[0], mine, small_fit) - _deviance(
            models[1], drawn, large_fit
        )
    return ratios


def _deviance(model: Criterion, statistics: CrossProducts, fit: LMMFit) -> float:
    """Return the least deviance with another response."""
    again = copy.copy(model)
    again.statistics = statistics
    return minimize(start(again, fit)).point.deviance


def _restriction(small: Any, large: Any) -> Restriction:
    """Find the smaller model's effects in the larger one, by name.

    Raises
    ------
    ValueError
        If one is not there.
    """
    inside, outside = small._layout.roles, large._layout.roles
    names = [*map(str, large.fixed_effects_.index)]
    wanted = [*map(str, small.fixed_effects_.index)]
    groupings = list(groupings_of(outside))
    factors, coefficients = [], []
    for f, grouping in enumerate(groupings_of(inside)):
        if grouping not in groupings or inside.intercept != outside.intercept:
            break
        factors.append(groupings.index(grouping))
        there = outside.coefficients(factors[-1])
        coefficients.append([there.index(c) for c in inside.coefficients(f)])
    else:
        if set(wanted) <= set(names):
            columns = [names.index(name) for name in wanted]
            return Restriction(columns, factors, coefficients)
    raise ValueError(
        "bootstrap draws from the smaller model in terms of the larger: its effects "
        "and factors have to be among those of the larger, under the same names."
    )
