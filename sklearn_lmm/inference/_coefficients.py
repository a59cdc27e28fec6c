"""The table of fixed effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._contrasts import t_table, t_tests
from sklearn_lmm.inference._fixed_part import FixedPart, fixed_part

WITHOUT_MODEL = ("residual", "normal")
"""Degrees of freedom that do not come from the model's own covariance."""


def coefficient_table(
    est: Any, *, df: Any = "satterthwaite", covariance: Any = None
) -> pd.DataFrame:
    """Return estimates, standard errors and t tests of the fixed effects.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    df : {"satterthwaite", "kenward-roger", "residual", "normal"}, float or \
array-like, default="satterthwaite"
        Degrees of freedom: Satterthwaite's, from the exact Hessian; Kenward and
        Roger's, with standard errors from their adjusted covariance (REML fits
        only); n - p; infinite. Or numbers, one for all or one for each.
    covariance : DataFrame or array of shape (p, p), default=None
        A covariance of the estimates to use instead of the model's, such as one
        that is robust to dependence within clusters; then `df` has to be
        "residual", "normal" or numbers.

    Returns
    -------
    DataFrame
        Index: names of the fixed effects. Columns: estimate, std_error, df,
        statistic (t) and p_value (two-sided). Its `attrs` hold df, the method,
        and singular: whether the fit lies on the boundary, where degrees of
        freedom are from the Hessian in parameters that have no bounds.

    Raises
    ------
    ValueError
        If `df` is unknown or does not suit the fit, or `covariance` has the
        wrong shape or names.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.inference import coefficient_table
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> coefficient_table(model, df="kenward-roger").round(3)
                 estimate  std_error    df  statistic  p_value
    (Intercept)   251.405      6.825  17.0     36.838      0.0
    Days           10.467      1.546  17.0      6.771      0.0
    """
    method = df if isinstance(df, str) else "normal"
    part = fixed_part(est, method)
    if covariance is None and isinstance(df, str):
        rows = pd.DataFrame(np.eye(len(part.names)), part.names, part.names)
        table = t_tests(part, rows, np.zeros(len(rows)), method)
    else:
        table = _by_covariance(part, df, covariance)
    table.attrs = {
        "df": df if isinstance(df, str) else "given",
        "singular": est.fit_.singular,
    }
    return table


def _by_covariance(part: FixedPart, df: Any, covariance: Any) -> pd.DataFrame:
    if isinstance(df, str) and df not in WITHOUT_MODEL:
        raise ValueError(
            f"df={df!r} belongs to the model's own covariance, and another one is "
            "given: take df='residual', df='normal' or numbers."
        )
    matrix = part.covariance("normal")
    if covariance is not None:
        matrix = read_covariance(covariance, part.names)
    given = {"residual": part.residual_df, "normal": np.inf}
    values = np.asarray(given[df] if isinstance(df, str) else df, dtype=float)
    p = len(part.names)
    if values.ndim > 1 or values.size not in {1, p} or not (values > 0).all():
        raise ValueError(
            f"df needs one positive number, or one for each of the {p} fixed effects; "
            f"got {df!r}."
        )
    std_error = np.sqrt(np.diag(matrix))
    index = pd.Index(part.names)
    spread = np.broadcast_to(values, (p,))
    return t_table(index, part.beta, std_error, spread, np.zeros(p))


def read_covariance(covariance: Any, names: list[str]) -> FloatArray:
    """Return a covariance of the estimates in the order of `names`.

    Raises
    ------
    ValueError
        If the shape is wrong, or a frame's names are others.
    """
    if isinstance(covariance, pd.DataFrame):
        if {*covariance.index} != {*names} or {*covariance.columns} != {*names}:
            raise ValueError(
                "covariance needs the names of fixed_effects_ as index and columns; "
                f"got {covariance.index.tolist()} and {covariance.columns.tolist()}."
            )
        covariance = covariance.loc[names, names]
    matrix = np.asarray(covariance, dtype=float)
    if matrix.shape != (len(names), len(names)):
        raise ValueError(
            f"covariance has the shape {matrix.shape}, but there are {len(names)} "
            "fixed effects."
        )
    return matrix
