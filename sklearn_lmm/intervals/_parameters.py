"""The parameters of a fitted model, by name.

Fixed effects have the names of `fixed_effects_`; the others are called
"sd(Days | Subject)", "cor((Intercept), Days | Subject)" and "sigma"; those of a
residual structure that were estimated have the names of `residual_parameters_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.variance_parameters import (
    VarianceEstimates,
    VarianceParameter,
    parameters_of,
    variance_estimates,
)
from sklearn_lmm._layout import Layout

FLAT = "the data tell nothing of it: the criterion does not depend on it"
NO_VARIANCE = "estimated at its bound 0, where there is no standard error"
UNDEFINED = "a coefficient has no variance, so that there is no correlation"
AT_BOUND = "estimated at its bound, where there is no standard error"
PERFECT = "the response is explained exactly: nothing is left to estimate it from"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a fitted model.

    kind : "fixed", "sd", "cor", "sigma", or "error" of a residual structure
    factor : of the random effect; "Residual" of sigma and the structure, "" of a
        fixed effect
    coefficient : its name, two of them for a correlation
    position : among the fixed effects that were estimated, or among all parameters
        of the residual structure; -1 of the others
    variance : what it is to the engine, None of a fixed effect or a structure
    """

    name: str
    kind: str
    factor: str
    coefficient: str
    position: int = -1
    variance: VarianceParameter | None = None


def all_parameters(est: Any) -> list[Parameter]:
    """Return fixed effects, sd and cor term by term, sigma, those of the errors."""
    check_is_fitted(est)
    fixed = [
        Parameter(str(name), "fixed", "", str(name), position)
        for position, name in enumerate(est.fixed_effects_.index)
    ]
    others = parameters_of(est.fit_.statistics.terms)
    variances = [_named(est._layout, parameter) for parameter in others]
    return fixed + variances + _of_errors(est)


def _of_errors(est: Any) -> list[Parameter]:
    """Return the parameters of a residual structure that were estimated."""
    if est.fit_.errors is None:
        return []
    names, estimated = est.residual_parameters_.index, est.fit_.errors.estimated
    return [
        Parameter(str(names[j]), "error", "Residual", "", int(j))
        for j in np.flatnonzero(estimated)
    ]


def _named(layout: Layout, parameter: VarianceParameter) -> Parameter:
    if parameter.kind == "sigma":
        return Parameter("sigma", "sigma", "Residual", "", variance=parameter)
    term = layout.roles.terms[parameter.term]
    factor = layout.roles.groupings[term.factor].name
    names = [term.coefficients[i] for i in parameter.coefficients]
    # One variance, or one correlation, that all coefficients of a term share.
    shared = len(names) > (1 if parameter.kind == "sd" else 2)
    coefficient = "all" if shared else ", ".join(names)
    name = f"{parameter.kind}({coefficient} | {factor})"
    return Parameter(name, parameter.kind, factor, coefficient, variance=parameter)


def chosen_parameters(est: Any, parameters: Sequence[str] | None) -> list[Parameter]:
    """Return the parameters asked for: names, or "fixed" and "variance".

    Raises
    ------
    ValueError
        If a name is not that of a parameter.
    """
    known = all_parameters(est)
    if parameters is None:
        return known
    asked = [parameters] if isinstance(parameters, str) else list(parameters)
    names = {parameter.name for parameter in known}
    wanted = set()
    for name in asked:
        if name in names:
            wanted.add(name)
        elif name in ("fixed", "variance"):
            wanted |= {
                p.name for p in known if (p.kind == "fixed") == (name == "fixed")
            }
        else:
            raise ValueError(
                f"There is no parameter {name!r}. This model has "
                f"{listed([p.name for p in known])}; 'fixed' and 'variance' stand for "
                "all of a kind."
            )
    return [parameter for parameter in known if parameter.name in wanted]


def estimates(est: Any) -> VarianceEstimates:
    """Return the variance parameters of the fit, with standard errors."""
    fit = est.fit_
    parameters = parameters_of(fit.statistics.terms)
    if fit.perfect:
        k = len(parameters)
        values = np.append(np.full(k - 1, np.nan), 0.0)
        return VarianceEstimates(values, np.full(k, np.nan), np.zeros(k, dtype=bool))
    return variance_estimates(fit.point(), parameters)


def reasons(est: Any, found: VarianceEstimates) -> list[str]:
    """Say for each variance parameter why it has no standard error, "" if it has."""
    parameters = parameters_of(est.fit_.statistics.terms)
    unidentified = est.fit_.unidentified
    said = []
    for parameter, value, error, flat in zip(
        parameters, found.values, found.errors, found.flat, strict=True
    ):
        if est.fit_.perfect:
            said.append(PERFECT)
        elif parameter.term in unidentified or flat:
            said.append(FLAT)
        elif np.isfinite(error):
            said.append("")
        elif parameter.kind == "sd":
            said.append(NO_VARIANCE)
        else:
            said.append(UNDEFINED if np.isnan(value) else AT_BOUND)
    return said
