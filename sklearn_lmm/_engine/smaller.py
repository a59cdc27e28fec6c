"""Fits of smaller models, or by the other criterion, without the rows."""

from __future__ import annotations

from dataclasses import replace

from sklearn_lmm._engine.correlation import complex_step
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.error_criterion import (
    ErrorCriterion,
    FittedErrors,
    standardized_variance,
)
from sklearn_lmm._engine.error_fit import fit_of
from sklearn_lmm._engine.fit import identified_start
from sklearn_lmm._engine.optimize import minimize
from sklearn_lmm._engine.reduced import (
    Kept,
    refitted,
    select_coefficients,
    without_mix,
)
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._engine.summed_errors import SummedErrors
from sklearn_lmm._types import BoolArray


def fit_again(
    fit: LMMFit,
    *,
    random: Kept | None = None,
    kept: BoolArray | None = None,
    reml: bool | None = None,
) -> LMMFit:
    """Fit with fewer coefficients, random or fixed, or by the other criterion.

    Raises
    ------
    ValueError
        If the fit does not follow from what it kept of the rows.
    """
    if fit.errors is not None:
        reml = fit.reml if reml is None else reml
        return _with_errors(fit, fit.errors, random, kept, reml)
    statistics = fit.statistics
    if random is not None:
        statistics = select_coefficients(statistics, random)
    return refitted(fit, statistics=statistics, kept=kept, reml=reml)


def _with_errors(
    fit: LMMFit,
    errors: FittedErrors,
    random: Kept | None,
    kept: BoolArray | None,
    reml: bool,
) -> LMMFit:
    """Fit again from the sums that the cross-products are mixtures of."""
    model = errors.model
    if not isinstance(model, SummedErrors):
        raise ValueError(
            "A model with this residual structure cannot be fitted again without its "
            "rows: fit the models to compare, with method='ml', and compare those."
        )

    def chosen(part: CrossProducts) -> CrossProducts:
        if kept is not None and part.columns.mix is not None:
            part = without_mix(part)
        return part if random is None else select_coefficients(part, random)

    model = replace(model, parts=tuple(map(chosen, model.parts)))
    plain = chosen(errors.plain)
    kept = fit.kept if kept is None else kept
    known = standardized_variance(errors.sigma, plain)
    search = model.pooled().select(kept)
    criterion = ErrorCriterion(search, search.at(errors.u), reml=reml, sigma2=known)
    start, unidentified = identified_start(criterion)
    optimum = minimize(start)
    u = optimum.point.theta[criterion.n_parameters :]
    fitted = replace(
        errors,
        model=model,
        u=u,
        values=model.values(u),
        jacobian=complex_step(model.values, u).reshape(len(u), -1).T,
        delta=model.law.delta(u),
        plain=plain,
        squares=None,
    )
    point = fitted.criterion(kept, reml).at(optimum.point.theta)
    optimum = replace(optimum, point=point)
    return fit_of(optimum, fitted, kept, unidentified, "newton", fit.weights)
