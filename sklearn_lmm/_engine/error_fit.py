"""Fitting a model whose errors are correlated or not equal in size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_criterion import (
    ErrorCriterion,
    ErrorPoint,
    FittedErrors,
    standardized_variance,
)
from sklearn_lmm._engine.error_squares import ErrorSquares, error_squares
from sklearn_lmm._engine.errors import ErrorModel, Errors, LocalErrors, RowErrors
from sklearn_lmm._engine.fit import (
    explained_by_columns,
    fit_statistics,
    identified_start,
    printer,
    reduced,
)
from sklearn_lmm._engine.optimize import Optimum, minimize
from sklearn_lmm._engine.result import LMMFit, Weights, frozen, result_of
from sklearn_lmm._engine.row_sums import standardized_coefficients, standardized_rows
from sklearn_lmm._engine.summed_errors import SummedErrors, summed_errors
from sklearn_lmm._types import BoolArray, FloatArray

MOST_ROWS = 500_000
"""Rows up to which Kenward and Roger's method is prepared, by one more pass.

With more of them it would take as long as the fit, for a correction of which the
size falls with the number of rows.
"""


def fit_with_errors(
    design: Design,
    errors: Errors,
    *,
    reml: bool,
    weights: Weights = "frequency",
    solver: str = "auto",
    max_iter: int | None = None,
    tol: float = 1e-8,
    verbose: int = 0,
    exact_tests: bool = True,
) -> LMMFit:
    """Fit a model to rows with Cov(e) = sigma^2 R, R with parameters of its own.

    exact_tests : whether to keep what Kenward and Roger's method needs
    """
    plain, kept = reduced(design)
    design = design.take(errors.order)
    errors = _weighted(errors, design, weights)
    everything = error_model(errors, design, plain)
    model = _searched(everything).select(kept)
    known = standardized_variance(errors.sigma, plain)
    begin = model.at(errors.start())
    criterion = ErrorCriterion(model, begin, reml=reml, sigma2=known)
    if errors.sigma is None and explained_by_columns(criterion):
        return fit_statistics(plain, kept, reml=reml, weights=weights, solver=solver)
    start, unidentified = identified_start(criterion)
    solver = "newton" if solver == "auto" else solver
    optimum = minimize(
        start,
        solver=solver,
        max_iter=max_iter,
        tol=tol,
        report=printer(plain) if verbose else None,
    )
    fitted = _fitted(optimum, errors, everything, plain)
    theta = _as_entered(optimum.point, errors, fitted.delta, everything)
    optimum = replace(optimum, point=fitted.criterion(kept, reml).at(theta))
    if exact_tests:
        squares = _squares(optimum.point, fitted, everything, errors, design)
        fitted = replace(fitted, squares=squares)
    return fit_of(optimum, fitted, kept, unidentified, solver, weights)


def fit_of(
    optimum: Optimum,
    fitted: FittedErrors,
    kept: BoolArray,
    unidentified: tuple[int, ...],
    solver: str,
    weights: Weights,
) -> LMMFit:
    """Return the fit of an optimum, with the errors at it."""
    value = fitted.model.at(fitted.u).value
    result = result_of(optimum, value, kept, unidentified, solver, weights)
    sigma = result.sigma if fitted.sigma is None else fitted.sigma
    return frozen(replace(result, errors=fitted, sigma=sigma))


def _searched(model: RowErrors | SummedErrors) -> RowErrors | SummedErrors:
    """Return the same model in a form that suits the search.

    Levels are pooled, or covariates of the standard deviations centred: else theta,
    which is relative to sigma, would change all the time with delta.
    """
    if isinstance(model, SummedErrors):
        return model.pooled()
    return model if model.errors.sigma is not None else model.centred()


def _as_entered(
    point: Point, errors: Errors, delta: FloatArray, model: ErrorModel
) -> FloatArray:
    """Return theta relative to the sigma of covariates that are not centred."""
    theta = point.theta.copy()
    if isinstance(model, SummedErrors) or errors.sigma is not None:
        return theta
    ratio = np.exp(float(errors.slopes.mean(axis=0) @ delta))
    for term, place, part in point.criterion.terms():
        L = point.L[term.factor][place, place]
        theta[part] = term.structure.parameters(ratio * L)
    return theta


def _fitted(
    optimum: Optimum, errors: Errors, model: ErrorModel, plain: CrossProducts
) -> FittedErrors:
    """Return what is kept of the errors: sums, and no rows."""
    u = optimum.point.theta[optimum.point.criterion.n_parameters :]
    summed = isinstance(model, SummedErrors)
    return FittedErrors(
        model=model if summed else LocalErrors(model.at(u)),
        u=u,
        values=errors.values(u),
        jacobian=errors.jacobian(u),
        limits=errors.limits(),
        estimated=np.isnan(errors.fixed),
        delta=errors.complete(u)[1],
        sigma=errors.sigma,
        plain=plain,
    )


def _squares(
    point: Point,
    fitted: FittedErrors,
    model: RowErrors | SummedErrors,
    errors: Errors,
    design: Design,
) -> ErrorSquares | None:
    """Return what Kenward and Roger's method needs of the rows, if it can be had."""
    assert isinstance(point, ErrorPoint)
    large = len(design.y) > MOST_ROWS
    if large or not point.criterion.reml or not point.traces_of_Z.exact:
        return None
    if isinstance(model, SummedErrors):
        model = row_errors(errors, design, fitted.plain)
    return error_squares(model, fitted.model.at(fitted.u))


def _weighted(errors: Errors, design: Design, weights: Weights) -> Errors:
    """Put the weights of the rows, if there are any, into the errors."""
    if design.weights is None:
        return errors
    if weights == "frequency":
        return replace(errors, counts=design.weights)
    log_deviation = errors.log_deviation - 0.5 * np.log(design.weights)
    return replace(errors, log_deviation=log_deviation)


def model_from_rows(design: Design, errors: Errors, fit: LMMFit) -> FittedErrors:
    """Return the errors of a fit with their model known at any u, from its rows."""
    assert fit.errors is not None
    design = design.take(errors.order)
    errors = _weighted(errors, design, fit.weights)
    return replace(fit.errors, model=error_model(errors, design, fit.errors.plain))


def maximum_likelihood(fit: LMMFit, errors: FittedErrors, tol: float = 1e-8) -> Point:
    """Return the point of maximum likelihood of a fit whose errors' model is known."""
    point = errors.criterion(fit.kept, False).at(fit.theta_standardized)
    return minimize(point, tol=tol).point if fit.reml else point


def error_model(
    errors: Errors, design: Design, plain: CrossProducts
) -> RowErrors | SummedErrors:
    """Return the cross-products as a function of the errors' parameters.

    design : the rows, in the order of `errors`
    """
    model = row_errors(errors, design, plain)
    return summed_errors(model) or model


def row_errors(errors: Errors, design: Design, plain: CrossProducts) -> RowErrors:
    """Return the model that keeps the rows, in standardised units."""
    T = standardized_rows(design, plain.columns, slice(None))
    z = standardized_coefficients(design, plain.blocks)
    codes = tuple(factor.codes for factor in design.factors)
    return RowErrors(errors, plain, np.hstack([T, *z]), codes)
