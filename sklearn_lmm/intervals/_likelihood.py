"""The likelihood of a fit, where it is to be had away from the optimum."""

from __future__ import annotations

from typing import Any

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.error_criterion import FittedErrors
from sklearn_lmm._engine.error_fit import maximum_likelihood, model_from_rows
from sklearn_lmm._engine.errors import LocalErrors
from sklearn_lmm._engine.fit import fit_statistics
from sklearn_lmm._residual_fit import read_errors
from sklearn_lmm._rows import rows_of_fit


def likelihood_optimum(est: Any, data: tuple[Any, ...]) -> Point:
    """Return the point of maximum likelihood, of the rows that theta is from.

    data : X, y, groups and sample_weight of the fit, or None each

    Raises
    ------
    ValueError
        If the fit does not follow from what it kept, and there are no rows.
    """
    fit = est.fit_
    fit.require_exact("A profile of the likelihood")
    if fit.errors is not None:
        return maximum_likelihood(fit, _errors_anywhere(est, data), est.tol)
    if fit.reml:
        fit = fit_statistics(
            fit.statistics, fit.kept, reml=False, weights=fit.weights, tol=est.tol
        )
    return fit.point()


def _errors_anywhere(est: Any, data: tuple[Any, ...]) -> FittedErrors:
    """Return the errors, their cross-products known for any parameters."""
    errors: FittedErrors = est.fit_.errors
    if errors.sigma is not None:
        raise ValueError(
            f"residual={est.residual!r} gives sigma, and a profile lets it vary: use "
            "method='wald' or the bootstrap."
        )
    if data[0] is not None:
        design = rows_of_fit(est, *data, plain=None).design
        _, known = read_errors(est, est._layout, design, *data)
        return model_from_rows(design, known, est.fit_)
    if isinstance(errors.model, LocalErrors):
        raise ValueError(
            f"The likelihood with residual={est.residual!r} needs the rows away from "
            "the optimum: give profile the X and y of the fit, and groups and "
            "sample_weight if fit had them."
        )
    return errors
