"""A fitted model in the user's names, and applied to rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sklearn_lmm._engine.design import level_columns
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._layout import Layout, Rows
from sklearn_lmm._roles import Term
from sklearn_lmm._types import FloatArray, IntArray


def fixed_effects(layout: Layout, fit: LMMFit) -> pd.Series[float]:
    """Return the fixed effects that were estimated, by name."""
    names = np.array(layout.roles.fixed_names, dtype=object)
    return pd.Series(fit.beta[fit.kept], index=names[fit.kept], name="fixed effect")


def column_coefficients(layout: Layout, fit: LMMFit) -> FloatArray:
    """Return one fixed effect for each column of X, 0 where it has none.

    With a formula, for each column that it makes for the fixed part.
    """
    roles = layout.roles
    if layout.formula is not None:
        return fit.beta[int(roles.intercept) :].copy()
    coefficients = np.zeros(len(roles.names))
    coefficients[list(roles.fixed)] = fit.beta[int(roles.intercept) :]
    return coefficients


def factor_frames(
    layout: Layout, fit: LMMFit
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Return the random effects and the covariance of each grouping factor.

    Effects have one row a level; the columns of both are the coefficients, one
    term of the factor after another.
    """
    effects, covariances = {}, {}
    for factor, grouping in enumerate(layout.roles.groupings):
        names = pd.Index(layout.roles.coefficients(factor))
        effects[grouping.name] = pd.DataFrame(
            fit.effects[factor], level_index(layout, factor), names, copy=False
        )
        covariances[grouping.name] = pd.DataFrame(
            fit.covariances[factor], names, names, copy=False
        )
    return effects, covariances


def level_index(layout: Layout, factor: int) -> pd.Index:
    """Return the levels of a factor; for an interaction with a column for each part."""
    grouping = layout.roles.groupings[factor]
    labels = layout.factors[factor].labels
    if len(grouping.parts) == 1:
        return pd.Index(labels, name=grouping.name, tupleize_cols=False)
    names = [layout.roles.sources[part].name for part in grouping.parts]
    return pd.MultiIndex.from_tuples(labels.tolist(), names=names)


def tidy_effects(layout: Layout, fit: LMMFit, return_std: bool) -> pd.DataFrame:
    """Return one row for each random effect: factor, level, coefficient, value."""
    covariances = fit.conditional_covariances() if return_std else ()
    parts = []
    for factor, grouping in enumerate(layout.roles.groupings):
        names = layout.roles.coefficients(factor)
        levels = layout.factors[factor].labels
        columns = {
            "factor": grouping.name,
            "level": np.repeat(levels.astype(object), len(names)),
            "coefficient": np.tile(np.array(names, dtype=object), len(levels)),
            "value": fit.effects[factor].ravel(),
        }
        if return_std:
            variances = np.diagonal(covariances[factor], axis1=1, axis2=2)
            columns["std"] = np.sqrt(variances.clip(0)).ravel()
        parts.append(pd.DataFrame(columns))
    if not parts:
        names = ["factor", "level", "coefficient", "value", "std"]
        return pd.DataFrame(columns=names[: 4 + return_std])
    return pd.concat(parts, ignore_index=True)


def fixed_part(fit: LMMFit, rows: Rows) -> FloatArray:
    """Return X beta + offset of rows, without any random effect."""
    return fit.fixed_part(rows.X) + rows.offset


def predicted(layout: Layout, fit: LMMFit, rows: Rows) -> FloatArray:
    """Return the prediction of rows, with the effects whose labels were read."""
    parts = contributions(layout, fit, rows)
    return _total(fixed_part(fit, rows), parts)


def _total(fixed: FloatArray, parts: dict[str, FloatArray]) -> FloatArray:
    """Return the sum; `fixed` is used up."""
    for effect in parts.values():
        fixed += effect
    return fixed


def decomposed(
    layout: Layout, fit: LMMFit, rows: Rows, index: pd.Index | None
) -> pd.DataFrame:
    """Return the parts of predictions, one column each, and their total.

    Raises
    ------
    ValueError
        If a grouping factor has the name of another column.
    """
    parts = contributions(layout, fit, rows)
    taken = parts.keys() & {"fixed", "total"}
    if taken:
        raise ValueError(
            f"decompose has columns 'fixed' and 'total' of its own, but there is a "
            f"grouping factor named {min(taken)!r}: rename that column and fit again."
        )
    fixed = fixed_part(fit, rows)
    total = _total(fixed.copy(), parts)
    return pd.DataFrame({"fixed": fixed, **parts, "total": total}, index=index)


def contributions(layout: Layout, fit: LMMFit, rows: Rows) -> dict[str, FloatArray]:
    """Return z'b of each term whose labels were read; 0 for an unknown level."""
    found = {}
    for term, slopes in zip(layout.roles.terms, rows.slopes, strict=True):
        codes = rows.codes[term.factor]
        if codes is not None:
            found[term.name] = _contribution(fit, term, slopes, codes)
    return found


def _contribution(
    fit: LMMFit, term: Term, slopes: Sequence[FloatArray], codes: IntArray
) -> FloatArray:
    effects = fit.effects[term.factor][:, term.columns]
    # Code -1, an unknown level, reads the row of zeros at the end.
    effects = np.vstack([effects, np.zeros(effects.shape[1])])
    total = np.zeros(len(codes))
    for z, effect in zip(_z(term, slopes), effects.T, strict=True):
        total += effect[codes] if z is None else effect[codes] * z
    return total


def _z(term: Term, slopes: Sequence[FloatArray]) -> list[FloatArray | None]:
    return [None] * term.intercept + list(slopes)


def sparse_design(layout: Layout, rows: Rows) -> tuple[sparse.csr_array, list[str]]:
    """Return Z (n, sum G q), term by term and level by level, with column names."""
    blocks, names = [], []
    for term, slopes in zip(layout.roles.terms, rows.slopes, strict=True):
        levels = layout.factors[term.factor].texts()
        codes = rows.codes[term.factor]
        assert codes is not None
        blocks.append(_sparse_block(term, slopes, codes, len(levels)))
        grouping = layout.roles.groupings[term.factor].name
        names += [
            f"{coefficient} | {grouping}[{level}]"
            for level in levels
            for coefficient in term.coefficients
        ]
    if not blocks:
        return sparse.csr_array((rows.X.shape[0], 0)), names
    return sparse.csr_array(sparse.hstack(blocks, format="csr")), names


def _sparse_block(
    term: Term, slopes: Sequence[FloatArray], codes: IntArray, n_levels: int
) -> sparse.csr_array:
    n = len(codes)
    z = np.column_stack([np.ones(n) if c is None else c for c in _z(term, slopes)])
    return level_columns(z, codes, n_levels)


def factor_designs(layout: Layout, rows: Rows) -> tuple[sparse.csr_array, ...]:
    """Return Z (n, G q) of every factor, its terms side by side in each level."""
    designs = []
    for factor, z in enumerate(factor_columns(layout, rows)):
        codes = rows.codes[factor]
        assert codes is not None
        designs.append(level_columns(z, codes, len(layout.factors[factor].labels)))
    return tuple(designs)


def factor_columns(layout: Layout, rows: Rows) -> tuple[FloatArray, ...]:
    """Return z (n, q) of every factor, one term after another."""
    n = rows.X.shape[0]
    columns: list[list[FloatArray]] = [[] for _ in layout.roles.groupings]
    for term, slopes in zip(layout.roles.terms, rows.slopes, strict=True):
        columns[term.factor] += [np.ones(n)] * term.intercept + list(slopes)
    return tuple(np.column_stack(z) for z in columns)


def with_intercept(layout: Layout, rows: Rows) -> FloatArray | sparse.csr_array:
    """Return the columns of the fixed part, the intercept first if there is one."""
    if not layout.roles.intercept:
        return rows.X
    ones = np.ones((rows.X.shape[0], 1))
    if sparse.issparse(rows.X):
        parts = [sparse.csr_array(ones), rows.X]
        return sparse.csr_array(sparse.hstack(parts, format="csr"))
    return np.hstack([ones, rows.X])


def weighted(fit: LMMFit) -> bool:
    """Say whether a row of the fit has another weight than 1."""
    rows = fit.statistics
    # No others have the arithmetic and the geometric mean 1.
    return rows.sum_weights != rows.n_rows or rows.sum_log_weights != 0.0


def row_index(X: Any) -> pd.Index | None:
    """Return the index of X's rows, for results with a row each."""
    return X.index if isinstance(X, pd.DataFrame) else None
