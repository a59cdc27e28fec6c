"""Estimated marginal means, slopes by group, and comparisons between them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._types import FloatArray
from sklearn_lmm.exceptions import RankDeficiencyWarning
from sklearn_lmm.inference._contrasts import contrast
from sklearn_lmm.inference._reference_grid import ReferenceGrid

STEP = 1e-3
"""Half the step of a difference quotient, as part of the range of a variable."""

_COLUMNS = ["estimate", "std_error", "df", "statistic", "p_value"]
_COVERAGE = {"coverage": [Interval(Real, 0, 1, closed="neither")]}


@dataclass(frozen=True, eq=False, repr=False)
class MarginalMeans:
    """Means or slopes with their intervals; it prints as `frame`.

    Attributes
    ----------
    frame : DataFrame
        The variables in `by`, then estimate, std_error, df, lower and upper.
    weights : DataFrame
        Each row's combination of the fixed effects.
    by : list of str
        The variables that tell rows apart.
    df : str
        How degrees of freedom were found.
    estimator : MixedEffectsRegressor
        The fitted model.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_cake
    >>> from sklearn_lmm.inference import marginal_means
    >>> cake = load_cake(as_frame=True).frame
    >>> model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    >>> means = marginal_means(model, "recipe", at={"temperature": 200})
    >>> means.weights.loc[0].to_list()
    [1.0, 0.0, 0.0, 200.0, 0.0, 0.0]
    """

    frame: pd.DataFrame
    weights: pd.DataFrame
    by: list[str]
    df: str
    estimator: Any

    def __repr__(self) -> str:
        return repr(self.frame)

    def _repr_html_(self) -> str:
        return self.frame.to_html()


@validate_params(_COVERAGE, prefer_skip_nested_validation=True)
def marginal_means(
    est: Any,
    by: str | Sequence[str],
    *,
    at: Mapping[str, Any] | None = None,
    data: Any = None,
    df: str = "satterthwaite",
    coverage: float = 0.95,
) -> MarginalMeans:
    """Return estimated marginal means: predictions over a balanced grid.

    For every combination of the variables in `by` the fixed part is predicted
    at all levels of the other categories, with other numbers at their mean, and
    averaged with equal weights (Searle, Speed and Milliken, 1980, The American
    Statistician 34: 216-221; what R's emmeans does).

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator. Categories need a formula; without one every column
        is a number.
    by : str or list of str
        The variables whose means are asked for.
    at : dict, default=None
        Values of variables, in place of their levels or their mean.
    data : DataFrame, default=None
        Rows to take means of numbers from, in place of those of the fit.
    df : {"satterthwaite", "kenward-roger", "residual", "normal"}, default=\
"satterthwaite"
        Degrees of freedom, as in `contrast`.
    coverage : float, default=0.95
        Of the intervals lower to upper.

    Returns
    -------
    MarginalMeans
        Its `frame` is the table; `pairwise` compares the means.

    Raises
    ------
    ValueError
        If a variable is unknown or its value is, or `df` does not suit the fit.

    Warns
    -----
    RankDeficiencyWarning
        If a mean needs a coefficient that was dropped, as that of an empty
        cell: it is NaN.

    Notes
    -----
    The offset of a formula counts at the mean of its variables; that of the
    parameter `offset` does not. The package marginaleffects has its own models
    only, with one number for the degrees of freedom of all rows; this needs one
    for each.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_cake
    >>> from sklearn_lmm.inference import marginal_means
    >>> cake = load_cake(as_frame=True).frame
    >>> model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    >>> marginal_means(model, "recipe").frame[["recipe", "estimate", "df"]].round(2)
      recipe  estimate    df
    0      A     33.12  42.0
    1      B     31.64  42.0
    2      C     31.60  42.0
    """
    check_is_fitted(est)
    names, grid = _names(by), ReferenceGrid(est, data)
    values = grid.values(names, at or {})
    X, offset = grid.rows(values)
    return _averaged(grid, values, names, X, offset, df, coverage)


@validate_params(_COVERAGE, prefer_skip_nested_validation=True)
def marginal_trends(
    est: Any,
    variable: str,
    by: str | Sequence[str] = (),
    *,
    at: Mapping[str, Any] | None = None,
    data: Any = None,
    df: str = "satterthwaite",
    coverage: float = 0.95,
) -> MarginalMeans:
    """Return slopes of a number, for combinations of other variables.

    The derivative of the fixed part by the variable at its mean, as a central
    difference quotient, averaged as in `marginal_means`.

    Parameters
    ----------
    est : MixedEffectsRegressor
        An estimator that was fitted with a formula.
    variable : str
        The number whose slope is asked for.
    by : str or list of str, default=()
        Variables whose values the slope is given for.
    at : dict, default=None
        Values of variables; for `variable` one number, where to take the slope.
    data, df, coverage
        As in `marginal_means`.

    Returns
    -------
    MarginalMeans
        Its `frame` is the table; `pairwise` compares the slopes.

    Raises
    ------
    ValueError
        If there is no formula, the variable is a category, or as in
        `marginal_means`.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_cake
    >>> from sklearn_lmm.inference import marginal_trends
    >>> cake = load_cake(as_frame=True).frame
    >>> model = lmer("angle ~ recipe*temperature + (1 | recipe:replicate)", cake)
    >>> trends = marginal_trends(model, "temperature", "recipe")
    >>> trends.frame[["recipe", "estimate", "std_error"]].round(3)
      recipe  estimate  std_error
    0      A     0.154      0.028
    1      B     0.165      0.028
    2      C     0.156      0.028
    """
    check_is_fitted(est)
    if est._layout.formula is None:
        raise ValueError(
            "Without a formula products of columns are columns like any other, so "
            "that slopes by group are not known; fit the model with a formula."
        )
    names, grid = _names(by), ReferenceGrid(est, data)
    values = grid.values([variable, *names], {variable: np.nan, **(at or {})})
    if grid.variables[variable].levels is not None or variable in names:
        raise ValueError(
            f"{variable!r} is not a number outside by={names}: marginal_trends takes "
            "the slope of one, for values of the others."
        )
    center, half = _around(grid, variable, values.pop(variable))
    ends = [grid.rows({**values, variable: [center + h]}) for h in (half, -half)]
    X, offset = ((up - down) / (2.0 * half) for up, down in zip(*ends, strict=True))
    return _averaged(grid, values, names, X, offset, df, coverage)


def _around(
    grid: ReferenceGrid, variable: str, given: list[Any]
) -> tuple[float, float]:
    """Return where to take a slope, and half the step."""
    known = grid.variables[variable]
    center = known.mean if np.isnan(given[0]) else float(given[0])
    if len(given) > 1 or np.isnan(center):
        raise ValueError(f"Say where to take the slope: at={{{variable!r}: value}}.")
    width = known.high - known.low
    return center, STEP * (width if width > 0 else max(abs(center), 1.0))


def _names(by: str | Sequence[str]) -> list[str]:
    return [by] if isinstance(by, str) else list(by)


def _averaged(
    grid: ReferenceGrid,
    values: Mapping[str, list[Any]],
    by: list[str],
    X: FloatArray,
    offset: FloatArray,
    df: str,
    coverage: float,
) -> MarginalMeans:
    """Average the rows of a grid over the variables that are not in `by`."""
    est, names = grid.est, np.array(grid.layout.roles.fixed_names, dtype=object)
    cells = pd.MultiIndex.from_product([values[name] for name in by]) if by else [()]
    L = X.reshape(len(cells), -1, X.shape[1]).mean(axis=1)
    offset = offset.reshape(len(cells), -1).mean(axis=1)
    known = grid.estimable(L)
    if not known.all():
        warnings.warn(
            f"{(~known).sum()} of {len(known)} means need coefficients that were "
            "dropped from the fit, as of combinations without rows; they are NaN.",
            RankDeficiencyWarning,
            stacklevel=4,
        )
    kept = est.fit_.kept
    weights = pd.DataFrame(
        np.where(known[:, None], L, np.nan)[:, kept], None, names[kept]
    )
    table = _tests(est, weights, df)
    estimate = table["estimate"] + offset
    half = stats.t.ppf(0.5 + coverage / 2.0, table["df"]) * table["std_error"]
    columns: dict[str, Any] = {n: [c[k] for c in cells] for k, n in enumerate(by)}
    columns |= {
        "estimate": estimate,
        "std_error": table["std_error"],
        "df": table["df"],
    }
    columns |= {"lower": estimate - half, "upper": estimate + half}
    return MarginalMeans(pd.DataFrame(columns), weights, by, df, est)


def _tests(est: Any, weights: pd.DataFrame, df: str) -> pd.DataFrame:
    """Return the t test of each row of weights, NaN where these are."""
    known = weights.notna().all(axis=1)
    table = pd.DataFrame(np.nan, index=weights.index, columns=_COLUMNS)
    if known.any():
        found = contrast(est, weights[known], df=df, joint=False)
        table.loc[known] = found[_COLUMNS].to_numpy()
    return table


@validate_params(
    {"adjust": [StrOptions({"tukey", "holm", "bonferroni", "none"})]},
    prefer_skip_nested_validation=True,
)
def pairwise(
    means: MarginalMeans, *, adjust: str = "tukey", by: str | Sequence[str] = ()
) -> pd.DataFrame:
    """Compare marginal means, or slopes, with each other.

    Parameters
    ----------
    means : MarginalMeans
        Of `marginal_means` or `marginal_trends`.
    adjust : {"tukey", "holm", "bonferroni", "none"}, default="tukey"
        How p-values account for the number of comparisons. "tukey": the
        studentised range of all means (Tukey, 1953; Kramer, 1956); "holm": one
        after the other (Holm, 1979, Scand. J. Statist. 6: 65-70).
    by : str or list of str, default=()
        Variables of `means`: only means that agree in them are compared, and each
        of their combinations is a family of its own.

    Returns
    -------
    DataFrame
        Columns contrast, those of `by`, estimate, std_error, df, statistic and
        p_value; one row a pair.

    Raises
    ------
    ValueError
        If a variable is unknown, or there are not two means to compare.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_cake
    >>> from sklearn_lmm.inference import marginal_means, pairwise
    >>> cake = load_cake(as_frame=True).frame
    >>> model = lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
    >>> table = pairwise(marginal_means(model, "recipe"))
    >>> table[["contrast", "estimate", "p_value"]].round(3)
      contrast  estimate  p_value
    0    A - B     1.478     0.82
    1    A - C     1.522     0.81
    2    B - C     0.044     1.00
    """
    families = _names(by)
    unknown = [name for name in families if name not in means.by]
    if unknown:
        raise ValueError(
            f"The means do not differ in {unknown[0]!r}, only in {means.by}."
        )
    groups = [means.frame]
    if families:
        groups = [rows for _, rows in means.frame.groupby(families, sort=False)]
    tables = [_pairs(means, rows, families, adjust) for rows in groups if len(rows) > 1]
    if not tables:
        raise ValueError("There are no two means to compare.")
    return pd.concat(tables, ignore_index=True)


def _pairs(
    means: MarginalMeans, rows: pd.DataFrame, families: list[str], adjust: str
) -> pd.DataFrame:
    others = [name for name in means.by if name not in families]
    text = rows[others].astype(str).agg(" ".join, axis=1)
    pairs = list(combinations(rows.index, 2))
    L = means.weights
    weights = pd.DataFrame([L.loc[i] - L.loc[j] for i, j in pairs], range(len(pairs)))
    table = _tests(means.estimator, weights, means.df)
    table["p_value"] = _adjusted(table, adjust, len(rows))
    table.insert(0, "contrast", [f"{text[i]} - {text[j]}" for i, j in pairs])
    for k, name in enumerate(families, start=1):
        table.insert(k, name, rows[name].iloc[0])
    return table


def _adjusted(table: pd.DataFrame, adjust: str, n_means: int) -> FloatArray:
    """Return p-values for a family of comparisons; NaN counts as none."""
    p = table["p_value"].to_numpy()
    m = int(np.isfinite(p).sum())
    if adjust == "tukey":
        q = np.sqrt(2.0) * table["statistic"].abs().to_numpy()
        return np.asarray(stats.studentized_range.sf(q, n_means, table["df"]))
    if adjust == "bonferroni":
        return np.minimum(m * p, 1.0)
    if adjust == "holm":
        order = np.argsort(p)
        steps = np.maximum.accumulate((m - np.arange(len(p))) * p[order])
        adjusted = np.empty(len(p))
        adjusted[order] = np.minimum(steps, 1.0)
        return adjusted
    return p
