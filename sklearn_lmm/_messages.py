"""What the engine found, told as warnings in the names that the user typed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.design import Standardization
from sklearn_lmm._engine.monte_carlo import MonteCarlo
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._layout import Layout
from sklearn_lmm._roles import Roles, Term
from sklearn_lmm._types import BoolArray, FloatArray
from sklearn_lmm.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    MissingGroupsWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
    StochasticFitWarning,
)

Message = tuple[type[Warning], str]

NEGLIGIBLE = 1e-6
"""A part of the response's variation, in its units, that counts as none."""


PERFECT = (
    "y is constant or explained exactly, so that there is no residual variance and "
    "the likelihood has no maximum. Predictions are finite; sigma_, covariances_ and "
    "the log-likelihood mean little. Is a column of X a copy of y, or has every row "
    "a level of its own?"
)


def warn_about(layout: Layout, fit: LMMFit, *, solver: str = "auto") -> None:
    """Issue every warning that a finished fit calls for.

    solver : the one that was asked for
    """
    for category, text in messages(layout.roles, fit, solver):
        # Through the estimator's _finish, fit and its parameter check to the
        # caller's line.
        warnings.warn(text, category, stacklevel=5)


def no_labels(names: tuple[str, ...]) -> str:
    """Say that rows to predict come without labels of these factors."""
    return (
        f"There are no labels of {listed(names)}: every row counts as one of an "
        "unknown level, without its random effects. Pass groups=..., or choose "
        "random_effects=False if that is what you want."
    )


def no_groups(roles: Roles) -> str:
    """Say that labels are missing from the argument groups."""
    rest = (
        "only the other terms are fitted"
        if roles.terms
        else "this is an ordinary least-squares fit"
    )
    return (
        "A random effect takes its labels from the argument groups, and there is "
        f"none: {rest}. Pass groups=..., name a column of X in random, or give "
        "random=[] if no random effect is meant."
    )


def messages(roles: Roles, fit: LMMFit, solver: str = "auto") -> Iterator[Message]:
    """Yield what is to be said of a finished fit, each under its class.

    solver : the one that was asked for
    """
    if roles.no_groups:
        yield MissingGroupsWarning, no_groups(roles)
    if not fit.kept.all():
        yield RankDeficiencyWarning, _dropped(roles, fit)
    for block in fit.unidentified:
        yield IdentifiabilityWarning, _unidentified(roles, fit, block)
    if fit.perfect:
        yield PerfectFitWarning, PERFECT
    elif not fit.converged:
        yield ConvergenceWarning, _not_converged(fit)
    if fit.monte_carlo is not None:
        if solver == "auto" or not fit.monte_carlo.small:
            yield StochasticFitWarning, _stochastic(fit.monte_carlo)
    for block in sorted({block for block, _ in fit.collapsed}):
        if block not in fit.unidentified:
            yield SingularFitWarning, _collapsed(roles, fit, block)


def _dropped(roles: Roles, fit: LMMFit) -> str:
    names = roles.fixed_where(~fit.kept)
    depend, were = ("depends", "was") if len(names) == 1 else ("depend", "were")
    return (
        f"The fixed part is rank deficient: {listed(names)} {depend} linearly on "
        f"earlier columns and {were} dropped (coefficient 0)."
    )


def _unidentified(roles: Roles, fit: LMMFit, block: int) -> str:
    return (
        f"The criterion is flat in the covariance of {_effects(roles.terms[block])}: "
        f"{why_unidentified(roles, fit, block)}. The covariance was set to 0."
    )


def why_unidentified(roles: Roles, fit: LMMFit, block: int) -> str:
    """Say why the data tell nothing of a term's covariance."""
    term = roles.terms[block]
    n_levels = len(fit.statistics.levels[term.factor])
    if n_levels == 1:
        return f"{term.name!r} has one level only"
    if n_levels == fit.statistics.n_rows:
        return f"every level of {term.name!r} has a single row"
    return f"the data cannot tell what varies between the levels of {term.name!r}"


def _not_converged(fit: LMMFit) -> str:
    return (
        f"The optimiser ({fit.solver}) stopped after {fit.n_iter} iterations with "
        f"gradient norm {fit.gradient_norm:.2g} (Newton decrement "
        f"{fit.decrement:.2g}). Raise max_iter, try another solver, or a simpler "
        "covariance (covariance='diagonal', fewer slopes); verbose=1 shows the way "
        "it took."
    )


def _stochastic(error: MonteCarlo) -> str:
    return (
        "The crossed factors were fitted by solver='stochastic' ('auto' takes it where "
        "an exact fit would not fit into memory or take many minutes). With "
        f"{error.probes} random vectors theta has a Monte-Carlo error of at most "
        f"{error.relative:.2%} of its standard error, the log-likelihood one of "
        f"{error.log_likelihood:.2g}: see fit_.monte_carlo. Ask for "
        "solver='stochastic' by name to be told only of an error above 1 %."
    )


def _collapsed(roles: Roles, fit: LMMFit, block: int) -> str:
    return (
        f"The fit is singular: {what_collapsed(roles, fit, block)}. It is the optimum "
        "all the same, and predictions are valid, but the data support a simpler "
        "model: leave out what does not vary, or use covariance='diagonal' where a "
        "correlation is at its bound."
    )


def what_collapsed(roles: Roles, fit: LMMFit, block: int) -> str:
    """Name the effects of a term that have no variance, or depend on each other."""
    term = roles.terms[block]
    covariance = fit.covariances[term.factor][term.columns, term.columns]
    sizes = np.sqrt(np.diag(covariance).clip(0)) * _rms(fit.statistics.blocks[block])
    varies = sizes > NEGLIGIBLE * max(sizes.max(), fit.sigma)
    directions = np.array([d for of, d in fit.collapsed if of == block])
    parts = _constant_part(term, varies)
    parts += _dependent_part(term, np.where(varies, directions, 0.0), covariance)
    return " and ".join(parts) or f"{_effects(term)} have lost a direction"


def _rms(units: Standardization) -> FloatArray:
    """Return the root mean square of a term's columns: response per coefficient."""
    return np.hypot(units.center, units.scale)


def _constant_part(term: Term, varies: BoolArray) -> list[str]:
    if not varies.any():
        return [f"{_effects(term)} have no variance"]
    constant = _chosen(term, ~varies)
    if not constant:
        return []
    has = "has" if len(constant) == 1 else "have"
    return [f"{_spoken(constant)} of {term.name!r} {has} no variance"]


def _dependent_part(
    term: Term, directions: FloatArray, covariance: FloatArray
) -> list[str]:
    """Name the coefficients that vary, but not independently."""
    deviations = np.sqrt(np.diag(covariance).clip(0))
    # In units of its deviation an entry says whether its coefficient takes part.
    shares = np.abs(directions) * deviations
    largest = shares.max(axis=1, keepdims=True)
    involved = (shares > NEGLIGIBLE * largest).any(axis=0)
    names = _chosen(term, involved)
    if len(names) < 2:
        return []
    spread = np.outer(deviations[involved], deviations[involved])
    correlations = np.abs(covariance[np.ix_(involved, involved)]) / spread
    perfect = correlations.min() > 1 - NEGLIGIBLE
    how = "perfectly correlated" if perfect else "linearly dependent"
    return [f"{_effects(term)}: {_spoken(names)} are {how}"]


def _chosen(term: Term, which: BoolArray) -> list[str]:
    return [name for name, yes in zip(term.coefficients, which, strict=True) if yes]


def _spoken(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _effects(term: Term) -> str:
    return f"the random effects of {term.name!r}"
