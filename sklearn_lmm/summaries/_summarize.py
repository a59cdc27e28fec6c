"""The parts of a summary, read off a fitted estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._messages import messages
from sklearn_lmm._residual_fit import has_unequal_errors
from sklearn_lmm._results import weighted
from sklearn_lmm.diagnostics import icc, r_squared, residuals
from sklearn_lmm.exceptions import StochasticFitWarning
from sklearn_lmm.inference import coefficient_table
from sklearn_lmm.summaries._summary import Summary

MOST_CORRELATED = 20
"""Fixed effects, at most, whose correlations are shown; lme4 has the same limit."""

_QUANTILES = {"Min": 0.0, "1Q": 0.25, "Median": 0.5, "3Q": 0.75, "Max": 1.0}
_METHODS = {
    "satterthwaite": "Tests use Satterthwaite's degrees of freedom.",
    "kenward-roger": "Standard errors and tests are Kenward and Roger's.",
    "residual": "Tests use n - p degrees of freedom.",
    "normal": "Tests take the statistic for standard normal.",
}


def summarize(
    est: Any, X: Any, y: Any, groups: Any, sample_weight: Any, df: str
) -> Summary:
    """Return the summary of a fitted estimator.

    Quantiles of the residuals are in it if X is given.

    Raises
    ------
    ValueError
        If `df` is unknown or does not suit the fit, or X has other rows than it.
    """
    check_is_fitted(est)
    quantiles = None
    if X is not None and not est.fit_.perfect:
        rows = {"groups": groups, "sample_weight": sample_weight}
        quantiles = _quantiles(residuals(est, X, y, kind="scaled", **rows))
    return Summary(
        title=_title(est),
        facts=_facts(est),
        criteria=criteria(est),
        residuals=quantiles,
        random=random_table(est),
        errors=est.residual_parameters_,
        fixed=coefficient_table(est, df=df),
        correlation=_correlation(est),
        explained=_explained(est),
        notes=_notes(est, df, X is not None),
    )


def _title(est: Any) -> str:
    model = "Linear mixed model" if est._layout.roles.terms else "Linear model"
    how = "REML" if est.fit_.reml else "maximum likelihood"
    return f"{model} fitted by {how}"


def _facts(est: Any) -> dict[str, str]:
    fit, roles = est.fit_, est._layout.roles
    facts = {}
    if est.formula is not None:
        facts["Formula"] = " ".join(est.formula.split())
    else:
        facts["Fixed part"] = listed(roles.fixed_names, quote=False) or "none"
        facts["Random part"] = repr(est.random)
    levels = zip(roles.groupings, fit.statistics.levels, strict=True)
    groups = "".join(f"; {len(labels)} levels of {g.name}" for g, labels in levels)
    if est.residual is not None:
        facts["Errors"] = repr(est.residual)
    rows = fit.statistics
    facts["Rows"] = f"{rows.n_rows}{groups}"
    if weighted(fit):
        facts["Weights"] = "precision, the residual variance is sigma^2 / weight"
        if fit.weights == "frequency":
            facts["Weights"] = f"frequency, the rows stand for {fit.n_obs:g}"
    if fit.reml:
        facts["REML criterion"] = f"{fit.criterion:.1f}"
    iterations = "iteration" if est.n_iter_ == 1 else "iterations"
    facts["Optimiser"] = f"{fit.solver}, {est.n_iter_} {iterations}"
    if fit.monte_carlo is not None:
        error = fit.monte_carlo
        facts["Monte-Carlo error"] = (
            f"{error.log_likelihood:.2g} of the log-likelihood; of theta at most "
            f"{error.relative:.2%} of its standard error"
        )
    return facts


def criteria(est: Any) -> pd.Series[Any]:
    """Return the REML criterion; for ML fits AIC, BIC, logLik, deviance, df.resid."""
    fit = est.fit_
    if fit.reml:
        return pd.Series({"REMLcrit": fit.criterion})
    return pd.Series(
        {
            "AIC": fit.aic,
            "BIC": fit.bic,
            "logLik": fit.log_likelihood,
            "deviance": fit.criterion,
            "df.resid": fit.n_obs - fit.n_parameters,
        }
    )


def _quantiles(residuals: Any) -> pd.Series[Any]:
    present = residuals[~np.isnan(residuals)]
    return pd.Series(np.quantile(present, [*_QUANTILES.values()]), [*_QUANTILES])


def random_table(est: Any) -> pd.DataFrame:
    """Return variances, standard deviations and correlations, the residual's last.

    Columns group, name, variance, std_dev, and as many for correlations with
    the coefficients before as are needed; NaN where a term has none.
    """
    rows = []
    for term in est._layout.roles.terms:
        covariance = est.fit_.covariances[term.factor][term.columns, term.columns]
        deviation = np.sqrt(np.diag(covariance).clip(0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = covariance / np.outer(deviation, deviation)
        if not np.any(covariance - np.diag(np.diag(covariance))):
            correlation = np.full_like(covariance, np.nan)
        for i, name in enumerate(term.coefficients):
            row = (term.name, name, covariance[i, i], deviation[i], *correlation[i, :i])
            rows.append(row)
    sigma = est.fit_.sigma
    rows.append(("Residual", "", sigma**2, sigma))
    width = max(map(len, rows))
    names = [f"corr_{k}" for k in range(1, width - 3)]
    return pd.DataFrame(
        [(*row, *[np.nan] * (width - len(row))) for row in rows],
        columns=["group", "name", "variance", "std_dev", *names],
    )


def _correlation(est: Any) -> pd.DataFrame | None:
    names = est.fixed_effects_.index
    if not 2 <= len(names) <= MOST_CORRELATED or est.fit_.perfect:
        return None
    kept = est.fit_.kept
    covariance = est.fit_.beta_covariance[np.ix_(kept, kept)]
    deviation = np.sqrt(np.diag(covariance))
    return pd.DataFrame(covariance / np.outer(deviation, deviation), names, names)


def _explained(est: Any) -> pd.Series[Any]:
    roles = est._layout.roles
    # Without any intercept the sums that the fit has kept tell no means; where
    # errors differ there is no one variance to divide by.
    means = roles.intercept or any(term.intercept for term in roles.terms)
    unequal = has_unequal_errors(est)
    if est.fit_.perfect or unequal or not roles.terms or not means:
        return pd.Series(dtype=float)
    r2 = r_squared(est)
    return pd.Series(
        {
            "R2 marginal": r2["marginal"],
            "R2 conditional": r2["conditional"],
            "ICC": icc(est)["adjusted"],
        }
    )


def _notes(est: Any, df: str, with_rows: bool) -> list[str]:
    notes = [_METHODS[df]] if len(est.fixed_effects_) else []
    if len(est.fixed_effects_) > MOST_CORRELATED:
        notes.append(
            f"Correlations of more than {MOST_CORRELATED} fixed effects are not shown."
        )
    if not with_rows and not est.fit_.perfect:
        notes.append(
            "Scaled residuals need the rows, which the fit has not kept: summary(X, y)."
        )
    formula = est._layout.formula
    if formula is not None and formula.n_dropped:
        notes.append(f"{formula.n_dropped} rows with missing values were left out.")
    error = est.fit_.monte_carlo
    if error is not None:
        notes.append(
            f"Fitted with {error.probes} random vectors: theta has a Monte-Carlo error "
            f"of at most {100 * error.relative:.2g}% of its standard error, the "
            f"log-likelihood one of {error.log_likelihood:.2g}."
        )
    found = messages(est._layout.roles, est.fit_, est.solver_)
    said = [text for kind, text in found if kind is not StochasticFitWarning]
    return notes + (said or ["The optimiser converged, and the fit is not singular."])
