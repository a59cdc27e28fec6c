"""Fitting a model whose errors are correlated or not equal in size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.design import Block, Design, Factor, Standardization
from sklearn_lmm._engine.error_criterion import (
    ErrorCriterion,
    FittedErrors,
    standardized_variance,
)
from sklearn_lmm._engine.errors import Errors, RowErrors
from sklearn_lmm._engine.fit import (
    explained_by_columns,
    fit_statistics,
    identified_start,
    printer,
    reduced,
)
from sklearn_lmm._engine.optimize import Optimum, minimize
from sklearn_lmm._engine.result import LMMFit, Weights, frozen, result_of
from sklearn_lmm._engine.row_sums import standardized_rows
from sklearn_lmm._types import BoolArray, FloatArray, IntArray


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
) -> LMMFit:
    """Fit a model to rows with Cov(e) = sigma^2 R, R with parameters of its own."""
    plain, kept = reduced(design)
    design = reordered(design, errors.order)
    errors = _weighted(errors, design, weights)
    rows = StandardizedRows(design, plain)
    model = rows.model(errors, kept)
    criterion = ErrorCriterion(
        model,
        model.at(errors.start()),
        reml=reml,
        sigma2=standardized_variance(errors.sigma, plain),
    )
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
    everything = rows.model(errors, np.ones_like(kept))
    fitted = _fitted(optimum, errors, everything, plain)
    result = result_of(
        optimum, fitted.expansion.value, kept, unidentified, solver, weights
    )
    sigma = result.sigma if errors.sigma is None else errors.sigma
    return frozen(replace(result, errors=fitted, sigma=sigma))


def _fitted(
    optimum: Optimum, errors: Errors, model: RowErrors, plain: CrossProducts
) -> FittedErrors:
    u = optimum.point.theta[optimum.point.criterion.n_parameters :]
    return FittedErrors(
        expansion=model.at(u),
        values=errors.values(u),
        jacobian=errors.jacobian(u),
        estimated=np.isnan(errors.fixed),
        delta=errors.complete(u)[1],
        sigma=errors.sigma,
        plain=plain,
    )


def reordered(design: Design, order: IntArray) -> Design:
    """Return a design with its rows in another order."""
    return replace(
        design,
        X=design.X[order],
        y=design.y[order],
        factors=tuple(Factor(f.codes[order], f.levels) for f in design.factors),
        blocks=tuple(
            replace(block, slopes=tuple(z[order] for z in block.slopes))
            for block in design.blocks
        ),
        weights=None if design.weights is None else design.weights[order],
    )


def _weighted(errors: Errors, design: Design, weights: Weights) -> Errors:
    """Put the weights of the rows, if there are any, into the errors."""
    if design.weights is None:
        return errors
    if weights == "frequency":
        return replace(errors, counts=design.weights)
    log_deviation = errors.log_deviation - 0.5 * np.log(design.weights)
    return replace(errors, log_deviation=log_deviation)


class StandardizedRows:
    """T and the columns of every factor's terms, in standardised units."""

    def __init__(self, design: Design, plain: CrossProducts) -> None:
        self.plain = plain
        self.codes = tuple(factor.codes for factor in design.factors)
        parts = [standardized_rows(design, plain.columns, slice(None))]
        for f in range(len(design.factors)):
            for block, units in zip(design.blocks, plain.blocks, strict=True):
                if block.factor == f:
                    parts.append(_coefficients(block, units, len(design.y)))
        self.columns = np.hstack(parts)

    def model(self, errors: Errors, kept: BoolArray) -> RowErrors:
        """Return the cross-products of these rows, some of X left out."""
        width = self.columns.shape[1]
        chosen = np.concatenate([kept, np.ones(width - len(kept), bool)])
        rows = self.columns if chosen.all() else self.columns[:, chosen]
        return RowErrors(errors, self.plain.select(kept), rows, self.codes)


def _coefficients(block: Block, units: Standardization, n: int) -> FloatArray:
    columns = [np.ones(n)] * block.intercept + list(block.slopes)
    return (np.column_stack(columns) - units.center) / units.scale
