"""Tests of linear combinations of the fixed effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sklearn_lmm._columns import listed
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._fixed_part import FixedPart, fixed_part
from sklearn_lmm.inference._unknown import warn_unknown_df


def contrast(
    est: Any, L: Any, rhs: Any = 0.0, *, df: str = "satterthwaite", joint: bool = True
) -> pd.DataFrame:
    """Test linear combinations of the fixed effects, L beta = rhs.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    L : array-like, dict, Series, DataFrame, str or list of str
        One combination: weights in the order of `fixed_effects_`, weights by
        name (those left out are 0), or the name of one effect. Several: a
        matrix or a DataFrame with a row for each, or a list of names.
    rhs : float or array-like, default=0.0
        What the combinations are under the null hypothesis.
    df : {"satterthwaite", "kenward-roger", "residual", "normal"}, default=\
"satterthwaite"
        Degrees of freedom: Satterthwaite's; Kenward and Roger's with their
        adjusted covariance (REML fits only); n - p; infinite.
    joint : bool, default=True
        Whether several combinations are tested together, by an F test, or one
        by one.

    Returns
    -------
    DataFrame
        t tests: columns estimate, std_error, df, statistic, p_value, one row a
        combination. F test: one row with num_df, den_df, statistic, p_value;
        combinations that the others imply do not count in num_df.

    Raises
    ------
    ValueError
        If an effect is unknown, a combination is empty, or `df` does not suit
        the fit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import contrast
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> contrast(model, {"(Intercept)": 1, "Days": 9}).round(3)
       estimate  std_error    df  statistic  p_value
    0   345.611     14.629  17.0     23.625      0.0
    >>> contrast(model, ["(Intercept)", "Days"], [250, 10]).round(3)
       num_df  den_df  statistic  p_value
    0       2    17.0      0.077    0.926
    """
    part = fixed_part(est, df)
    rows, single = read_contrasts(L, part.names, dropped_names(est))
    values = _right_side(rhs, len(rows))
    if single or not joint:
        return t_tests(part, rows, values, df)
    test = part.f_test(rows.to_numpy(), values, df)
    if np.isnan(test.den_df) and not part.perfect:
        warn_unknown_df(["the F test"])
    columns = {
        "num_df": test.num_df,
        "den_df": test.den_df,
        "statistic": test.statistic,
        "p_value": test.p_value,
    }
    return pd.DataFrame(columns, index=[0])


def t_tests(
    part: FixedPart, rows: pd.DataFrame, rhs: FloatArray, method: str
) -> pd.DataFrame:
    """Return the t test of every row of weights."""
    L = rows.to_numpy()
    df = np.array([part.df(row, method) for row in L])
    covariance = part.covariance(method)
    std_error = np.sqrt(np.einsum("ri,ij,rj->r", L, covariance, L).clip(0.0))
    if not part.perfect:
        warn_unknown_df(rows.index[np.isnan(df)].tolist())
    return t_table(rows.index, L @ part.beta, std_error, df, rhs)


def t_table(
    index: pd.Index,
    estimate: FloatArray,
    std_error: FloatArray,
    df: FloatArray,
    rhs: FloatArray,
) -> pd.DataFrame:
    """Return columns estimate, std_error, df, statistic and p_value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - rhs) / std_error
    tail = np.where(
        np.isinf(df),
        stats.norm.sf(np.abs(statistic)),
        stats.t.sf(np.abs(statistic), np.where(np.isinf(df), 1.0, df)),
    )
    columns = {
        "estimate": estimate,
        "std_error": std_error,
        "df": df,
        "statistic": statistic,
        "p_value": np.where(np.isnan(df), np.nan, 2.0 * tail),
    }
    return pd.DataFrame(columns, index=index)


def read_contrasts(
    L: Any, names: list[str], dropped: list[str]
) -> tuple[pd.DataFrame, bool]:
    """Return weights, one row a combination, and whether L was a single one.

    Raises
    ------
    ValueError
        If a name is unknown, the width is wrong, or a row has no weight.
    """
    single = isinstance(L, str | Mapping | pd.Series)
    if isinstance(L, str):
        L = {L: 1.0}
    if isinstance(L, list) and L and all(isinstance(name, str) for name in L):
        L = pd.DataFrame(np.eye(len(L)), index=L, columns=L)
    if isinstance(L, Mapping | pd.Series):
        L = pd.DataFrame([dict(L)])
    if isinstance(L, pd.DataFrame):
        _refuse_unknown(L.columns, names, dropped)
        rows = L.reindex(columns=names, fill_value=0.0).astype(float).fillna(0.0)
    else:
        weights = np.asarray(L, dtype=float)
        single = weights.ndim == 1
        rows = pd.DataFrame(_of_width(np.atleast_2d(weights), names), columns=names)
    if not np.isfinite(rows.to_numpy()).all() or not rows.any(axis=1).all():
        raise ValueError(
            "Every combination needs finite weights, not all of them 0; got "
            f"{rows.to_numpy().tolist()}."
        )
    return rows, single


def _of_width(weights: FloatArray, names: list[str]) -> FloatArray:
    if weights.ndim != 2 or weights.shape[1] != len(names):
        raise ValueError(
            f"L has the shape {weights.shape}, but needs {len(names)} weights for each "
            f"combination, one for every entry of fixed_effects_: {listed(names)}."
        )
    return weights


def _refuse_unknown(given: Any, names: list[str], dropped: list[str]) -> None:
    unknown = [str(name) for name in given if name not in names]
    if not unknown:
        return
    gone = [name for name in unknown if name in dropped]
    if gone:
        raise ValueError(
            f"{listed(gone)} depends linearly on earlier columns, and was dropped: "
            "its effect cannot be told from theirs. Test an effect that is in "
            f"fixed_effects_: {listed(names)}."
        )
    raise ValueError(
        f"L names {listed(unknown)}, but the fixed effects are {listed(names)}."
    )


def dropped_names(est: Any) -> list[str]:
    """Return the names of the fixed effects that X does not determine."""
    names: list[str] = est._layout.roles.fixed_where(~est.fit_.kept)
    return names


def _right_side(rhs: Any, q: int) -> FloatArray:
    values = np.asarray(rhs, dtype=float)
    if values.ndim > 1 or values.size not in {1, q} or not np.isfinite(values).all():
        raise ValueError(
            f"rhs needs one finite number, or one for each of the {q} combinations; "
            f"got {rhs!r}."
        )
    return np.broadcast_to(values, (q,))
