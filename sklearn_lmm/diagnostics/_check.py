"""A fit looked over, and told in plain words."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm.diagnostics._check_fit import FIT_CHECKS
from sklearn_lmm.diagnostics._check_rows import ROW_CHECKS, Evidence
from sklearn_lmm.diagnostics._report import Finding, Report


def check(
    est: Any,
    X: Any = None,
    y: Any = None,
    *,
    groups: Any = None,
    sample_weight: Any = None,
) -> Report:
    """Look for what may be wrong with a fit, and say what can be done.

    Without rows: convergence, singular covariances (and which direction has
    collapsed), terms that the data cannot tell, columns that were dropped or
    nearly are, factors with few levels. With the rows of the fit, if errors are
    independent, also groups that decide on the fixed effects, outliers, heavy
    tails, unequal variances and correlations that the model does not account for.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in an order that means something if there is one,
        such as time.

    Returns
    -------
    Report
        Its `findings`, problems first; printed it is a text. A finding is a
        place to look at, no verdict: with many checks some find something by
        chance, and with many rows the least deviation is certain.

    Raises
    ------
    ValueError
        If these are not the rows of the fit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import check
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> report = check(model, X, y)
    >>> print(report)  # doctest: +ELLIPSIS
    NOTE: outliers
      Responses far from their prediction, in standard deviations: row 56 (6.1), ...
    NOTE: distribution of residuals
      Residuals have heavy tails (excess kurtosis 7.6).
      Meaning: Estimates of fixed effects stand it well; intervals for new
      observations and for variances do not.
      Remedy: If y is positive try its logarithm. For intervals use the bootstrap of
      residuals or of groups; look at a quantile plot.
    ...
    >>> [finding.about for finding in report.findings]
    ['outliers', 'distribution of residuals', 'unequal variance', 'independence']
    """
    check_is_fitted(est)
    roles, fit = est._layout.roles, est.fit_
    findings: list[Finding] = []
    for look in FIT_CHECKS.values():
        findings += look(est, roles, fit)
    if X is None or fit.perfect or fit.errors is not None:
        unchecked = () if fit.perfect else tuple(ROW_CHECKS)
        return _report(findings, tuple(FIT_CHECKS), unchecked)
    given = rows_of_fit(est, X, y, groups, sample_weight)
    evidence = Evidence(given)
    for inspect in ROW_CHECKS.values():
        findings += inspect(evidence)
    return _report(findings, (*FIT_CHECKS, *ROW_CHECKS), ())


def _report(
    findings: list[Finding], checked: tuple[str, ...], unchecked: tuple[str, ...]
) -> Report:
    problems = [finding for finding in findings if finding.severity == "problem"]
    notes = [finding for finding in findings if finding.severity == "note"]
    return Report((*problems, *notes), checked, unchecked)
