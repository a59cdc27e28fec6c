"""Findings that need nothing but the fitted model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._messages import no_groups, what_collapsed, why_unidentified
from sklearn_lmm._roles import Roles
from sklearn_lmm.diagnostics._collinearity import collinearity
from sklearn_lmm.diagnostics._report import Finding

FEW = 5
"""Fewer levels than this leave a variance between them all but unknown."""

INFLATED = 10.0
"""Variance inflation that is worth a word."""


def _convergence(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    if fit.converged or fit.perfect:
        return
    yield Finding(
        "problem",
        "convergence",
        f"The optimiser ({fit.solver}) stopped after {fit.n_iter} iterations with "
        f"gradient norm {fit.gradient_norm:.2g}, Newton decrement {fit.decrement:.2g}.",
        "The estimates are not those of maximum likelihood; how far they are off is "
        "unknown, and so are standard errors and tests.",
        "Raise max_iter, try another solver (solver='newton', 'lbfgs' or 'em'), or "
        "fit a simpler covariance (covariance='diagonal', fewer slopes); verbose=1 "
        "shows the way it took.",
    )


def _perfect_fit(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    if not fit.perfect:
        return
    yield Finding(
        "problem",
        "residual variance",
        "y is constant, or explained exactly.",
        "There is no residual variance and the likelihood has no maximum: standard "
        "deviations, the log-likelihood and all tests mean nothing.",
        "Look for a column of X that is a copy of y, or a factor with a level for "
        "every row.",
    )


def _singularity(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    for block in sorted({block for block, _ in fit.collapsed} - {*fit.unidentified}):
        what = what_collapsed(roles, fit, block)
        yield Finding(
            "note",
            "singularity",
            f"A covariance is singular: {what}.",
            "The estimate is on the boundary of what is possible. It is the optimum, "
            "and predictions are valid, but the data support a simpler model, and "
            "tests of this variance need care.",
            "Leave out what does not vary; where effects are perfectly correlated use "
            "covariance='diagonal', or one slope less. Or keep the model, if the "
            "design asks for it: the fixed effects hardly change.",
        )


def _identifiability(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    for block in fit.unidentified:
        why = why_unidentified(roles, fit, block)
        yield Finding(
            "problem",
            "identifiability",
            f"The likelihood does not depend on the covariance of the random effects "
            f"of {roles.terms[block].name!r}: {why}.",
            "That covariance was set to 0; it says nothing of the truth.",
            "Leave the term out of `random`, or check that its labels are the right "
            "ones.",
        )


def _labels(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    if roles.no_groups:
        yield Finding(
            "problem",
            "labels",
            "A random effect takes its labels from the argument groups, and fit got "
            "none.",
            "The rows count as independent: standard errors are too small if they "
            "are grouped.",
            no_groups(roles).partition(". ")[2],
        )


def _rank(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    names = roles.fixed_where(~fit.kept)
    if names:
        yield Finding(
            "note",
            "rank of X",
            f"Columns that depend linearly on earlier ones: {listed(names)}.",
            "They were dropped: their coefficients are 0, and what they say is in "
            "those of the columns before. Predictions do not depend on the choice.",
            "Leave them out, or code categories with a column less.",
        )


def _levels(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    for factor, grouping in enumerate(roles.groupings):
        n = len(fit.statistics.levels[factor])
        if 1 < n < FEW:
            yield Finding(
                "note",
                "number of levels",
                f"{grouping.name!r} has {n} levels.",
                "The variance between so few is all but unknown; intervals and tests "
                "that rely on it are rough.",
                "Make it a fixed effect if only these levels matter. Else use "
                "Kenward and Roger's degrees of freedom, and look at a profile of "
                "the standard deviation.",
            )


def _collinearity(est: Any, roles: Roles, fit: LMMFit) -> Iterator[Finding]:
    table = collinearity(est)
    inflated = table[table["std_error_factor"] > np.sqrt(INFLATED)]
    if len(inflated):
        factors = [
            f"{name!r} ({factor:.3g} times)"
            for name, factor in inflated["std_error_factor"].items()
        ]
        yield Finding(
            "note",
            "collinearity",
            "Standard errors are inflated by what columns of X have in common: "
            f"{listed(factors, quote=False)}.",
            "The effects of these columns can hardly be told apart: each may be far "
            "off, although their sum, and predictions within the data, are not.",
            "Center a column before taking its square or product, use orthogonal "
            "polynomials, or leave out one of the columns that say the same.",
        )


FIT_CHECKS: dict[str, Callable[[Any, Roles, LMMFit], Iterator[Finding]]] = {
    "convergence": _convergence,
    "residual variance": _perfect_fit,
    "singularity": _singularity,
    "identifiability": _identifiability,
    "labels": _labels,
    "rank of X": _rank,
    "number of levels": _levels,
    "collinearity": _collinearity,
}
