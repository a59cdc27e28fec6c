"""Findings that need the rows of the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from sklearn_lmm._clusters import NamedClusters, of_factor, outermost
from sklearn_lmm._columns import listed
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._rows import FitRows
from sklearn_lmm._types import FloatArray
from sklearn_lmm.diagnostics._independence import Unexplained
from sklearn_lmm.diagnostics._influence import changes_without
from sklearn_lmm.diagnostics._report import Finding
from sklearn_lmm.diagnostics._residuals import studentized

RARE = 1e-3
"""Probability, if the model is right, below which something is a finding."""

UNLIKELY = 1e-2
"""The same for correlations, of which there are but three for each factor."""

SHOWN = 3
"""Rows or groups named at most."""

MOVED, DECISIVE = 0.5, 1.0
"""Standard errors that any group may move an effect by, and that none may."""

CORRELATED = 0.1
"""Least correlation, of residuals or of their size with the mean, to speak of."""

KURTOSIS = 1.0
SKEWNESS = 0.5
"""Least excess kurtosis, and skewness, to speak of."""

SPREAD = 1.5
"""Least ratio of a group's residuals to those of the others to speak of."""

MEMBERS = 5
"""Rows that a group needs to have residuals of its own size."""

TINY = np.finfo(float).tiny


@dataclass(frozen=True, eq=False)
class Evidence:
    """The rows of a fit, and what the checks share."""

    given: FitRows

    @property
    def rows(self) -> FittedRows:
        """The rows beside the fit."""
        return self.given.beside_fit

    @cached_property
    def groups(self) -> list[NamedClusters]:
        """The outermost grouping factors."""
        return [of_factor(self.given, factor) for factor in outermost(self.given)]

    @cached_property
    def studentized(self) -> FloatArray:
        """Conditional residuals over their own deviation; 0 where that is 0."""
        r = studentized(self.rows, "studentized", {*range(len(self.rows.codes))})
        return np.nan_to_num(r)

    @cached_property
    def fitted(self) -> FloatArray:
        """Conditional means, less the offset."""
        scale = self.rows.statistics.columns.scale[-1]
        e = scale * self.rows.conditional / self.rows.root_weights
        return np.asarray(self.given.design.y - e)

    def label(self, row: int) -> str:
        """Return how the user calls a row."""
        position = int(self.given.positions[row])
        index = self.given.index
        return str(position if index is None else index[position])


def _influential_groups(evidence: Evidence) -> Iterator[Finding]:
    fit = evidence.given.fit
    se = np.sqrt(np.diag(fit.beta_covariance)[fit.kept])
    for named in evidence.groups:
        table = changes_without(evidence.given, named)
        dbeta = table.filter(like="dbeta_")
        shifts = pd.DataFrame(np.abs(dbeta.to_numpy()) / se, dbeta.index, dbeta.columns)
        table = table.assign(shift=shifts.max(axis=1))
        rest = table[table["note"].str.startswith("X loses rank")]
        if len(rest):
            yield _indispensable(named, rest)
        moving = table[table["shift"] > _more_than_chance(shifts.size, len(table))]
        if len(moving):
            yield _influential(named, moving, shifts)


def _more_than_chance(n_shifts: int, m: int) -> float:
    """Return a shift, in standard errors, that is worth a word.

    One of m equal groups moves an effect by about 1 / sqrt(m), times a standard
    normal variable; one of some hundred such moves is large by chance.
    """
    by_chance = stats.norm.isf(UNLIKELY / (2.0 * n_shifts)) / np.sqrt(m)
    return float(np.clip(by_chance, MOVED, DECISIVE))


def _influential(
    named: NamedClusters, moving: pd.DataFrame, shifts: pd.DataFrame
) -> Finding:
    worst = moving.sort_values("cooks_distance", ascending=False).head(SHOWN)
    moved = shifts.loc[worst.index].idxmax(axis=1).astype(str)
    said = [
        f"{level!r} moves {effect.removeprefix('dbeta_')} by {shift:.2f} standard "
        f"errors (Cook's distance {cook:.2f})"
        for level, effect, shift, cook in zip(
            worst.index, moved, worst["shift"], worst["cooks_distance"], strict=True
        )
    ]
    more = f", and {len(moving) - SHOWN} more" if len(moving) > SHOWN else ""
    return Finding(
        "problem" if worst["cooks_distance"].iloc[0] > 1.0 else "note",
        "influential groups",
        f"Single levels of {named.name!r} decide on fixed effects: "
        f"{'; '.join(said)}{more}.",
        "Conclusions about these effects rest on a few groups.",
        "Look at these groups for errors and for what sets them apart, and report "
        f"the fit without them: influence(est, X, y, by={named.name!r}, "
        "refit='exact').",
    )


def _indispensable(named: NamedClusters, rest: pd.DataFrame) -> Finding:
    levels = [repr(level) for level in rest.index[:SHOWN]]
    return Finding(
        "note",
        "influential groups",
        f"Some fixed effects come from one level of {named.name!r} alone: "
        f"{listed(levels, quote=False)}.",
        "Such an effect cannot be told from what is special about that one group.",
        "Leave the column out, or take its estimate as a description of that group.",
    )


def _outliers(evidence: Evidence) -> Iterator[Finding]:
    rows = evidence.rows
    r = studentized(rows, "deleted", {*range(len(rows.codes))})
    df = max(1.0, rows.point.criterion.N - 1.0)
    p = np.asarray(2.0 * stats.t.sf(np.abs(np.nan_to_num(r)), df) * len(rows))
    far = np.flatnonzero(p < 0.05)
    if not len(far):
        return
    worst = far[np.argsort(p[far])]
    said = [f"row {evidence.label(i)} ({r[i]:.1f})" for i in worst]
    yield Finding(
        "note",
        "outliers",
        f"Responses far from their prediction, in standard deviations: "
        f"{listed(said, quote=False, limit=SHOWN)}.",
        f"Among {len(rows)} rows with normal errors there would hardly be one. Such "
        "rows inflate sigma, and may move estimates.",
        "Check these rows for errors of measurement or entry; report the fit without "
        "them; cooks_distance(est, X, y) says what each does to the fit.",
    )


def _tails(evidence: Evidence) -> Iterator[Finding]:
    r, n = evidence.studentized, len(evidence.rows)
    if n < 30:
        return
    kurtosis, skewness = float(stats.kurtosis(r)), float(stats.skew(r))
    z = float(stats.norm.isf(RARE / 2.0))
    found = []
    if kurtosis > max(KURTOSIS, z * np.sqrt(24.0 / n)):
        found.append(f"have heavy tails (excess kurtosis {kurtosis:.1f})")
    if abs(skewness) > max(SKEWNESS, z * np.sqrt(6.0 / n)):
        found.append(f"are skew (skewness {skewness:.1f})")
    if found:
        yield Finding(
            "note",
            "distribution of residuals",
            f"Residuals {' and '.join(found)}.",
            "Estimates of fixed effects stand it well; intervals for new observations "
            "and for variances do not.",
            "If y is positive try its logarithm. For intervals use the bootstrap of "
            "residuals or of groups; look at a quantile plot.",
        )


def _unequal_variance(evidence: Evidence) -> Iterator[Finding]:
    size = np.abs(evidence.studentized)
    if np.ptp(evidence.fitted) > 0.0:
        rho, p = (float(value) for value in stats.spearmanr(size, evidence.fitted))
        if p < RARE and abs(rho) > CORRELATED:
            grows = "grows" if rho > 0.0 else "shrinks"
            yield _spread(
                f"The size of residuals {grows} with the predicted value (rank "
                f"correlation {rho:.2f})",
                "the logarithm or the root of y, if it is positive"
                if rho > 0.0
                else "a model for a response with an upper bound, if y is one",
            )
    for named in evidence.groups:
        text = _spread_of_groups(evidence.studentized, named)
        if text:
            yield _spread(text, "a covariate that explains it, as a weight")


def _spread_of_groups(r: FloatArray, named: NamedClusters) -> str:
    """Compare the mean squares of groups with that of all rows.

    n times that of n rows with kurtosis k is about chi-squared with 2 n / (k - 1)
    degrees of freedom (Box 1953, Biometrika 40: 318-335).
    """
    codes = named.clusters.codes
    n = np.bincount(codes)
    square = np.bincount(codes, r**2) / n
    shape = r**2 / np.maximum(square[codes], TINY)
    df = 2.0 * n / (max(3.0, float(np.mean(shape**2))) - 1.0)
    p = stats.chi2.sf(df * square / np.mean(r**2), df)
    wild = (n >= MEMBERS) & (len(n) * p < RARE)
    times = np.sqrt(square / np.median(square))
    wild &= times > SPREAD
    if not wild.any():
        return ""
    worst = int(np.argmax(np.where(wild, times, 0.0)))
    level = named.labels.tolist()[worst]
    return (
        f"Residuals differ in size between the levels of {named.name!r}: those of "
        f"{level!r} are {times[worst]:.1f} times as large as usual"
    )


def _spread(found: str, remedy: str) -> Finding:
    return Finding(
        "note",
        "unequal variance",
        f"{found}.",
        "Standard errors and intervals are too short where the variance is large, "
        "and too long elsewhere.",
        f"Try {remedy}; weights='precision' if the variances are known up to a "
        "factor; or standard errors that do not rely on the model's covariance: "
        "inference.robust_table.",
    )


def _correlated(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.groups:
        return
    unexplained = Unexplained(evidence.rows)
    neighbours = np.arange(len(evidence.rows))
    for named in evidence.groups:
        table = unexplained.table(named, neighbours, None)
        seen = table["correlation"][table["p_value"] < UNLIKELY]
        for pairs, correlation in seen[seen.abs() > CORRELATED].items():
            yield _correlation(str(pairs), named.name, correlation)


def _correlation(pairs: str, name: str, correlation: float) -> Finding:
    where = {
        "within clusters": f"of one level of {name!r}",
        "within, next row": f"that follow each other within a level of {name!r}",
        "between, next cluster": f"of levels of {name!r} that follow each other",
    }[pairs]
    return Finding(
        "note",
        "independence",
        f"Residuals of rows {where} have a correlation of {correlation:.2f} that "
        "the model does not account for (rows in the order given).",
        "Rows say less, or more, than the model thinks: standard errors are wrong.",
        "If the order means something, as time does, add a slope of it to the random "
        "effects, or a correlation of the errors; or use "
        "inference.robust_table with clusters that are independent.",
    )


ROW_CHECKS: dict[str, Callable[[Evidence], Iterator[Finding]]] = {
    "influential groups": _influential_groups,
    "outliers": _outliers,
    "distribution of residuals": _tails,
    "unequal variance": _unequal_variance,
    "independence": _correlated,
}
