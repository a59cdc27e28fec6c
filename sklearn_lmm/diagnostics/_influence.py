"""What single rows and whole groups do to a fit."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from sklearn_lmm._clusters import NamedClusters, clusters_of
from sklearn_lmm._columns import listed
from sklearn_lmm._engine.deletion import Deletions, without_clusters
from sklearn_lmm._engine.downdating import refits
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._rows import FitRows, rows_of_fit
from sklearn_lmm._types import AnyArray, FloatArray

REFIT: dict[str, Any] = {
    "refit": [StrOptions({"newton", "exact"}), None],
    "steps": [Interval(Integral, 1, None, closed="left")],
}

INVOLVED = 1e-6
"""Least share of a coefficient in a combination that X does not determine."""


@validate_params(REFIT, prefer_skip_nested_validation=True)
def influence(
    est: Any,
    X: Any,
    y: Any,
    *,
    by: Any = None,
    refit: str | None = None,
    steps: int = 2,
    groups: Any = None,
    sample_weight: Any = None,
) -> pd.DataFrame:
    """Return how the fit changes when all rows of a group are left out.

    Without a refit theta is kept, and the rest is exact: beta, its covariance and
    sigma of the rows that stay (Christensen, Pearson and Johnson 1992,
    Technometrics 34: 38-45).

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    by : str or array-like of shape (n_samples,), default=None
        Which rows to leave out together: the levels of a grouping factor, of a
        column of X, or any labels of the rows. None is the factor that contains
        all others.
    refit : {"newton", "exact"}, default=None
        Whether theta is estimated again: by some Newton steps from its present
        value, or by a fit of its own for every group.
    steps : int, default=2
        How many Newton steps.

    Returns
    -------
    DataFrame
        One row a group. n_obs: its observations. cooks_distance:
        d' Cov(beta)^-1 d / p with d = beta - beta_(g). covratio:
        |Cov(beta_(g))| / |Cov(beta)|, below 1 if estimates are better known
        without the group. dbeta_<coefficient>: d. dsigma and
        dsd_<factor>_<coefficient>: the same for standard deviations; with theta
        kept those of the effects change in proportion to sigma. note: why a
        row is NaN; else "".

    Raises
    ------
    ValueError
        If these are not the rows of the fit, if there is nothing to group by, or
        if y is explained exactly.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import influence
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> without = influence(model, X, y)
    >>> without["cooks_distance"].nlargest(2).round(3).to_dict()
    {'309': 0.149, '335': 0.129}
    >>> print(f"{without.loc['335', 'dbeta_Days']:.2f}")
    -0.79
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="influence")
    named = clusters_of(given, by, X, "by")
    return changes_without(given, named, refit, steps)


@validate_params(REFIT, prefer_skip_nested_validation=True)
def cooks_distance(
    est: Any,
    X: Any,
    y: Any,
    *,
    by: Any = None,
    refit: str | None = None,
    steps: int = 2,
    groups: Any = None,
    sample_weight: Any = None,
) -> FloatArray | pd.Series[float]:
    """Return Cook's distance of every row, or of groups of rows.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight
        The rows of the fit, in any order.
    by : str or array-like of shape (n_samples,), default=None
        None: every row by itself. Else as in `influence`.
    refit, steps
        As in `influence`; of groups only.

    Returns
    -------
    ndarray of shape (n_samples,)
        Of rows: e^2 h / ((1 - h)^2 p sigma^2) with the conditional residual e and
        its leverage h, the distance that the fixed *and* the random effects move
        (lme4's definition). NaN for rows of weight 0 and where h is 1.
    Series
        Of groups: the distance that the fixed effects move, as in `influence`.

    Raises
    ------
    ValueError
        As `influence`, or if refits are wanted for rows.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import cooks_distance
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> cooks_distance(model, X, y)[:3].round(2)
    array([0.  , 0.04, 0.23])
    >>> cooks_distance(model, X, y, by="Subject").head(2).round(3).to_dict()
    {'308': 0.092, '309': 0.149}
    """
    given = rows_of_fit(est, X, y, groups, sample_weight, plain="cooks_distance")
    if by is not None:
        named = clusters_of(given, by, X, "by")
        return changes_without(given, named, refit, steps)["cooks_distance"]
    if refit is not None:
        raise ValueError(
            f"refit={refit!r} exists for groups of rows: say by what with `by`."
        )
    refuse_perfect(given)
    return given.spread(distances_of_rows(given.beside_fit))


def distances_of_rows(rows: FittedRows) -> FloatArray:
    """Return Cook's distance of every row (n,), NaN where its leverage is 1."""
    h, left = rows.leverage / rows.copies, rows.conditional_variance
    left = np.where(left > 1e-10, left, np.nan)
    e2 = rows.conditional**2 / rows.copies
    return np.asarray(e2 * h / left**2 / (rows.p * rows.point.sigma2))


def refuse_perfect(given: FitRows) -> None:
    """Raise a ValueError if the fit has no residuals."""
    if given.fit.perfect:
        raise ValueError(
            "y is explained exactly: with sigma = 0 there is no distance between "
            "estimates to speak of."
        )


@dataclass(frozen=True, eq=False)
class _Changes:
    """The fit less the fit without each of m groups, in the user's units.

    sd : (m, k), of the standard deviations of all random coefficients
    """

    cook: FloatArray
    covratio: FloatArray
    beta: FloatArray
    sigma: FloatArray
    sd: FloatArray


def changes_without(
    given: FitRows, named: NamedClusters, refit: str | None = None, steps: int = 2
) -> pd.DataFrame:
    """Return the changes of a fit without each of the groups."""
    refuse_perfect(given)
    rows = given.beside_fit
    deletions = without_clusters(rows, named.clusters)
    units = rows.statistics.columns
    # Cov(beta) = root root' in the user's units.
    root = given.fit.sigma * units.map()[:-1, :-1] @ rows.point.inverse_R_X
    if refit is None:
        changes = _with_theta_kept(rows, given.fit, deletions, root)
    else:
        runs, most = named.clusters.runs(), steps if refit == "newton" else None
        others = list(refits(given.fit, given.design, runs, most))
        changes = _between_fits(given.fit, others, root)
    roles = given.layout.roles
    beta_names = np.array(roles.fixed_names, dtype=object)[given.fit.kept]
    dbeta = [f"dbeta_{name}" for name in beta_names]
    dsd = [
        f"dsd_{grouping.name}_{coefficient}"
        for f, grouping in enumerate(roles.groupings)
        for coefficient in roles.coefficients(f)
    ]
    columns = {
        "n_obs": deletions.n_obs,
        "cooks_distance": changes.cook,
        "covratio": changes.covratio,
        **dict(zip(dbeta, changes.beta.T, strict=True)),
        "dsigma": changes.sigma,
        **dict(zip(dsd, changes.sd.T, strict=True)),
        "note": _notes(deletions, changes, root, beta_names),
    }
    return pd.DataFrame(columns, index=named.labels)


def _with_theta_kept(
    rows: FittedRows, fit: LMMFit, deletions: Deletions, root: FloatArray
) -> _Changes:
    point = rows.point
    N = point.criterion.N - deletions.n_obs
    sigma2 = (point.r2 - deletions.r2) / np.where(N > 0, N, np.nan)
    ratio = sigma2.clip(0.0) / point.sigma2
    shrunken = 1.0 - np.sqrt(ratio)
    beta = deletions.beta / np.sqrt(point.sigma2)
    return _Changes(
        cook=np.sum(beta**2, axis=1) / rows.p,
        covratio=np.exp(deletions.logdet) * ratio**rows.p,
        beta=beta @ root.T,
        sigma=fit.sigma * shrunken,
        sd=np.outer(shrunken, _standard_deviations(fit)),
    )


def _between_fits(
    fit: LMMFit, others: list[LMMFit | None], root: FloatArray
) -> _Changes:
    m, p, sd = len(others), len(root), _standard_deviations(fit)
    changes = _Changes(*(np.full(k, np.nan) for k in (m, m, (m, p), m, (m, len(sd)))))
    whiten, kept = np.linalg.inv(root), fit.kept
    for g, other in enumerate(others):
        if other is None:
            continue
        d = (fit.beta - other.beta)[kept]
        covariance = other.beta_covariance[np.ix_(kept, kept)]
        changes.beta[g] = d
        changes.cook[g] = np.sum((whiten @ d) ** 2) / p
        changes.covratio[g] = np.linalg.det(whiten @ covariance @ whiten.T)
        changes.sigma[g] = fit.sigma - other.sigma
        changes.sd[g] = sd - _standard_deviations(other)
    return changes


def _notes(
    deletions: Deletions, changes: _Changes, root: FloatArray, names: AnyArray
) -> list[str]:
    """Say why there is no fit without a group, if there is none."""
    notes = [""] * len(changes.cook)
    size = np.sqrt(np.sum(root**2, axis=1))
    for g in np.flatnonzero(np.isnan(changes.sigma)):
        if not np.isnan(changes.cook[g]):
            notes[g] = "too few rows are left to estimate sigma"
            continue
        share = np.abs(root @ deletions.direction[g]) / size
        involved = names[share > INVOLVED * share.max(initial=0.0)].tolist()
        notes[g] = "X loses rank without these rows"
        if involved:
            notes[g] += f": they alone tell {listed(involved)}"
            notes[g] += " apart" * (len(involved) > 1)
    return notes


def _standard_deviations(fit: LMMFit) -> FloatArray:
    """Return those of all random coefficients, factor after factor."""
    variances = [np.diag(covariance) for covariance in fit.covariances]
    return np.asarray(np.sqrt(np.concatenate([*variances, np.zeros(0)]).clip(0.0)))
