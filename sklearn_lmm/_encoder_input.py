"""What the encoder reads: which columns it is about, their categories, and y."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, column_or_1d

from sklearn_lmm._columns import Table, listed, read_response, read_table
from sklearn_lmm._encoder_models import Recipe, Rows
from sklearn_lmm._labels import (
    Levels,
    as_array,
    encode,
    is_polars,
    kind_of,
    learn_levels,
)
from sklearn_lmm._types import AnyArray, FloatArray, IntArray
from sklearn_lmm.covariance import STRUCTURES
from sklearn_lmm.terms import as_references

EXTRAS = ("std", "count")


@dataclass(frozen=True)
class Columns:
    """The part that columns of X play, by position.

    encoded : those whose labels are encoded
    slopes : those whose coefficient varies by category
    fixed : those with a fixed effect: the slopes, then what is adjusted for
    """

    encoded: tuple[int, ...]
    slopes: tuple[int, ...]
    fixed: tuple[int, ...]

    def coefficients(self, names: Sequence[str]) -> list[str]:
        """Return what the output columns of coefficients are called after."""
        return ["", *(f"_{names[j]}" for j in self.slopes)]

    def output_names(self, names: Sequence[str], recipe: Recipe) -> list[str]:
        """Return the names of the output columns, given those of X."""
        suffixes = self.coefficients(names)
        if recipe.std:
            suffixes += [f"{suffix}_std" for suffix in suffixes]
        if recipe.count:
            suffixes.append("_count")
        return [f"{names[j]}{suffix}" for j in self.encoded for suffix in suffixes]


@dataclass(frozen=True, eq=False)
class Categories:
    """The categories of a column: its labels, then perhaps what is missing.

    missing : whether missing labels were seen; they are the last category
    """

    levels: Levels
    missing: bool

    def __len__(self) -> int:
        return len(self.levels.labels) + self.missing

    @classmethod
    def learn(cls, column: Any, name: str) -> tuple[IntArray, Categories]:
        """Return the codes (n,) of a column's rows, and its categories."""
        codes, labels = encode(column, name)
        rank, levels = learn_levels(labels, name)
        missing = bool((codes < 0).any())
        return np.append(rank, len(labels))[codes], cls(levels, missing)

    def match(self, column: Any) -> IntArray:
        """Return the codes (n,) of new rows, -1 for an unknown category.

        Raises
        ------
        ValueError
            If the labels are text here and were numbers at fit, or the like.
        """
        codes, labels = encode(column, self.levels.name)
        missing = len(self) - 1 if self.missing else -1
        known = np.full(len(labels), -1)
        # Without a label there is no type that new ones could have.
        if len(self.levels.labels):
            known = self.levels.match(labels)
        return np.append(known, missing)[codes]

    def index(self) -> pd.Index:
        """Return the labels in the order of the codes, NaN for missing ones."""
        labels = self.levels.labels.tolist() + [np.nan] * self.missing
        return pd.Index(labels, name=self.levels.name, tupleize_cols=False)


def read(encoder: BaseEstimator, X: Any, y: Any = None, *, fitting: bool) -> Table:
    """Check the form of X; NaN in an array may be a missing label.

    Raises
    ------
    ValueError
        If X is sparse, complex, not 2-D or empty, or has not the columns of
        the fit.
    """
    if not isinstance(X, pd.DataFrame) and not is_polars(X):
        values = as_array(X) if isinstance(X, list | tuple) else X
        # As a frame each column is checked for what it is used as.
        X = pd.DataFrame(
            check_array(values, dtype=None, ensure_all_finite=False, input_name="X")
        )
    return read_table(encoder, X, y, fitting=fitting)


def choose_columns(table: Table, columns: Any, adjust_for: Any, slopes: Any) -> Columns:
    """Resolve the encoder's parameters against the names of X.

    Raises
    ------
    ValueError
        If a name or position is absent or repeated, or nothing is to be encoded.
    """
    sloped = _positions(table, slopes, "slopes")
    adjusted = _positions(table, adjust_for, "adjust_for")
    if columns is None:
        encoded = _labelled(table, {*sloped, *adjusted})
    else:
        encoded = _positions(table, columns, "columns")
    if not encoded:
        raise ValueError(
            f"There is no column to encode: X has {listed(table.names)}, and "
            f"columns={columns!r}."
        )
    return Columns(encoded, sloped, tuple(dict.fromkeys(sloped + adjusted)))


def _positions(table: Table, references: Any, role: str) -> tuple[int, ...]:
    listed_once = as_references(references, role)
    positions = tuple(table.position(reference, role) for reference in listed_once)
    if len(set(positions)) < len(positions):
        raise ValueError(f"{role}={references!r} names a column twice.")
    return positions


def _labelled(table: Table, taken: set[int]) -> tuple[int, ...]:
    """Return the columns that are not numeric, or all if there are none of these."""
    free = [j for j in range(len(table.names)) if j not in taken]
    labels = [j for j in free if not _is_numeric(table.column(j))]
    return tuple(labels or free)


def _is_numeric(column: Any) -> bool:
    if is_polars(column):
        import polars as pl

        return bool(column.dtype.is_numeric() or column.dtype == pl.Boolean)
    return pd.api.types.is_numeric_dtype(column.dtype)


def make_recipe(columns: Columns, joint: bool, extras: Any, method: str) -> Recipe:
    """Say what is fitted.

    Raises
    ------
    ValueError
        If an extra is unknown.
    """
    wanted = (extras,) if isinstance(extras, str) else tuple(extras)
    unknown = [extra for extra in wanted if extra not in EXTRAS]
    if unknown:
        raise ValueError(
            f"extras={extras!r} has {unknown[0]!r}; expected one of {EXTRAS} or both."
        )
    positions = range(len(columns.encoded))
    return Recipe(
        models=(tuple(positions),) if joint else tuple((k,) for k in positions),
        n_slopes=len(columns.slopes),
        structure=STRUCTURES["unstructured"],
        reml=method == "reml",
        std="std" in wanted,
        count="count" in wanted,
    )


def read_rows(
    table: Table, columns: Columns, y: FloatArray
) -> tuple[Rows, tuple[Categories, ...]]:
    """Return the rows of a fit, and the categories of its encoded columns.

    Raises
    ------
    ValueError
        If a covariate is text or infinite, or labels mix text and numbers.
    """
    X = np.empty((len(table), len(columns.fixed)))
    for k, j in enumerate(columns.fixed):
        X[:, k] = _deviations(table.column(j), table.names[j])
    learnt = [
        Categories.learn(table.column(j), table.names[j]) for j in columns.encoded
    ]
    codes, categories = zip(*learnt, strict=True)
    return Rows(y, X, codes, tuple(map(len, categories))), categories


def _deviations(column: Any, name: str) -> FloatArray:
    """Return a covariate (n,) less its mean, 0 where it is missing."""
    if not _is_numeric(column) and kind_of(encode(column, name)[1], name) != "numbers":
        raise ValueError(
            f"{name!r} is named in adjust_for or slopes, but is not numeric "
            f"({column.dtype}). Encode it as well (columns), or leave it out."
        )
    present = ~pd.isna(np.asarray(column))
    deviations = np.zeros(len(column))
    if present.any():
        if is_polars(column):
            # Not every release takes a NumPy array.
            found = column.filter(type(column)(present))
        else:
            found = column[present]
        numbers = Table(found.to_frame(), (name,), True).numbers([0])[:, 0]
        deviations[present] = numbers - numbers.mean()
    return deviations


def read_target(y: Any, n_rows: int) -> tuple[FloatArray, AnyArray | None]:
    """Return y (n,) as numbers and, if it is binary, its two classes.

    Raises
    ------
    ValueError
        If y has missing values, another length than X, or three classes.
    """
    values = column_or_1d(np.asarray(y), warn=True)
    codes, labels = encode(values, "y")
    if kind_of(labels, "y") == "numbers":
        values = read_response(values, n_rows)
        if len(labels) != 2:
            return values, None
    _check_classes(codes, labels, n_rows)
    classes, rank = np.unique(labels, return_inverse=True)
    return rank[codes].astype(np.float64), classes


def _check_classes(codes: IntArray, labels: AnyArray, n_rows: int) -> None:
    if len(codes) != n_rows:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {n_rows} rows, y has {len(codes)}."
        )
    if (codes < 0).any():
        raise ValueError("Input y contains NaN: some of its labels are missing.")
    if len(labels) > 2:
        raise ValueError(
            f"y has {len(labels)} classes ({listed(labels.tolist(), limit=3)}), but "
            "only numbers or two classes can be encoded by. Convert y to numbers if "
            "it stands for such, or encode by one class at a time (y == class)."
        )
