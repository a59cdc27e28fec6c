"""Labels of grouping factors: from a column of anything to integer codes.

A code is the position of a row's label among the levels; -1 says that the
label is missing or not among them.  Labels match by value (308 == 308.0), and
text never matches numbers.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from itertools import pairwise
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._types import AnyArray, BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of a factor, each used by at least one row at fit.

    name : of the factor
    labels : (n_levels,) in the order of the categories, if they were categorical;
        else sorted if they can be, else in order of appearance
    """

    name: str
    labels: AnyArray

    def match(self, column: Any) -> IntArray:
        """Return the codes (n,) of new rows, -1 for unknown and missing labels.

        Raises
        ------
        ValueError
            If the labels are text here and were numbers at fit, or the like.
        """
        codes, labels = encode(column, self.name)
        return np.append(self.positions(labels), -1)[codes]

    def positions(self, labels: AnyArray) -> IntArray:
        """Return where each label is among the levels, -1 if it is not.

        Raises
        ------
        ValueError
            As `match` does.
        """
        if not len(labels):
            return np.empty(0, dtype=np.intp)
        check_kind(labels, self.labels, self.name)
        return _positions(labels, self.labels)

    def joined(self, other: Levels) -> Levels:
        """Return these levels and the new ones of another set of rows.

        In sorted order if these are; else the new ones come last.
        """
        new = other.labels[self.positions(other.labels) < 0]
        if not len(new):
            return self
        if self.labels.dtype.kind != new.dtype.kind:
            labels = np.concatenate([self.labels.astype(object), new.astype(object)])
        else:
            labels = np.concatenate([self.labels, new])
        if is_sorted(self.labels):
            labels = labels[order_of(np.arange(len(labels)), labels)]
        return Levels(self.name, labels)


def learn_levels(
    column: Any, name: str, rows: IntArray | None = None
) -> tuple[IntArray, Levels]:
    """Return the codes (n,) of a factor's rows and its levels.

    `rows` are the rows' numbers as the user counts them, None if 0 .. n - 1.

    Raises
    ------
    ValueError
        If a label is missing or infinite, or if text and numbers are mixed.
    """
    codes, labels = encode(column, name)
    _check_complete(codes, name, rows)
    kind_of(labels, name)
    if _has_own_order(column):
        return codes, Levels(name, labels)
    order = order_of(codes, labels)
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    return rank[codes], Levels(name, labels[order])


def encode(column: Any, name: str) -> tuple[IntArray, AnyArray]:
    """Return codes (n,), -1 for missing, and the labels that they point to.

    Small integers and categoricals are counted, in O(n); anything else is
    hashed.  Every label is used.  `name` is for the error.
    """
    try:
        if isinstance(column, pd.Series):
            codes, labels = _encode_pandas(column)
        elif is_polars(column):
            codes, labels = _encode_polars(column)
        else:
            codes, labels = _encode_array(np.asarray(column))
    except TypeError as error:
        raise TypeError(
            f"The labels of {name!r} cannot be compared: the argument must be of "
            f"strings or of numbers ({error})."
        ) from error
    if labels.dtype.kind == "f" and np.isinf(labels).any():
        raise ValueError(f"The labels of {name!r} contain infinity (inf).")
    return codes, labels


def first_difference(one: Any, other: Any, name: str) -> int | None:
    """Return the first row where two columns of labels differ, if there is one."""
    codes, labels = encode(one, name)
    other_codes, other_labels = encode(other, name)
    if len(labels) and len(other_labels):
        if kind_of(labels, name) != kind_of(other_labels, name):
            return 0
        known = _positions(other_labels, labels)
        # A label that the first lacks must not pass for a missing one, -1.
        other_codes = np.append(np.where(known < 0, -2, known), -1)[other_codes]
    different = np.flatnonzero(codes != other_codes)
    return int(different[0]) if len(different) else None


def is_polars(data: Any) -> bool:
    """Whether data is a frame or series of polars, without importing it."""
    return type(data).__module__.partition(".")[0] == "polars"


def as_array(data: Any) -> AnyArray:
    """Return data as an array, whose entries have kept their types."""
    values = np.asarray(data)
    # From a list NumPy would make text of everything as soon as one entry is.
    if values.dtype.kind in "US" and not hasattr(data, "dtype"):
        return np.asarray(data, dtype=object)
    return values


def kind_of(labels: AnyArray, name: str) -> str:
    """Return "numbers", "text", "times" or "objects"; refuse text with numbers."""
    if labels.dtype.kind in "biuf":
        return "numbers"
    if labels.dtype.kind in "mM":
        return "times"
    types = set(map(type, labels.tolist()))
    text = {t for t in types if issubclass(t, str)}
    numbers = {t for t in types if issubclass(t, Number)}
    if text and numbers:
        raise ValueError(
            f"The labels of {name!r} mix text and numbers "
            f"({', '.join(sorted(t.__name__ for t in types))}): 308 and '308' are "
            "different labels. Convert the column to one type."
        )
    if types == text:
        return "text"
    if types == numbers:
        return "numbers"
    times = all(issubclass(t, datetime.date) for t in types)
    return "times" if times else "objects"


def check_kind(labels: AnyArray, known: AnyArray, name: str) -> None:
    """Refuse labels that are text where the known ones are numbers, or the like."""
    now, then = kind_of(labels, name), kind_of(known, name)
    if now != then:
        raise ValueError(
            f"The labels of {name!r} are {now} ({_type_of(labels)}), but were "
            f"{then} ({_type_of(known)}) at fit. Labels of different types "
            "never match; convert one of them."
        )


def _type_of(labels: AnyArray) -> str:
    return type(labels[0]).__name__ if labels.dtype == object else str(labels.dtype)


def _encode_pandas(column: pd.Series) -> tuple[IntArray, AnyArray]:
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories.to_numpy()
        codes, used = compact(np.asarray(column.cat.codes, np.intp), len(categories))
        return codes, _plain(categories[used])
    if isinstance(dtype, np.dtype):
        return _encode_array(column.to_numpy())
    if dtype.kind in "iu" and not column.hasnans:
        return _encode_array(column.to_numpy(dtype.numpy_dtype))
    codes, labels = pd.factorize(column)
    return codes, _plain(labels.to_numpy())


def _encode_polars(column: Any) -> tuple[IntArray, AnyArray]:
    import polars as pl

    if column.dtype == pl.String:
        column = column.cast(pl.Categorical)
    if column.dtype not in (pl.Categorical, pl.Enum):
        return _encode_array(column.to_numpy())
    codes = column.to_physical().fill_null(0).to_numpy().astype(np.intp)
    codes[column.is_null().to_numpy()] = -1
    codes, used = compact(codes, int(codes.max(initial=-1)) + 1)
    # Categories may be numbered across columns, so the labels are read from rows.
    example = np.empty(len(used) + 1, dtype=np.intp)
    example[codes] = np.arange(len(codes))
    return codes, column.gather(example[:-1]).cast(pl.String).to_numpy()


def _encode_array(values: AnyArray) -> tuple[IntArray, AnyArray]:
    if values.dtype.kind in "biu":
        counted = _count(values)
    elif values.dtype.kind == "f":
        counted = _count(values, np.isnan(values))
    else:
        counted = None
        values = values if values.dtype.kind in "mM" else values.astype(object)
    if counted is not None:
        return counted
    codes, labels = pd.factorize(values)
    return codes, _plain(np.asarray(labels))


def _count(
    values: AnyArray, missing: BoolArray | None = None
) -> tuple[IntArray, AnyArray] | None:
    """Encode whole numbers of a small range by counting; None for any others."""
    present = values if missing is None else values[~missing]
    if not len(present):
        return np.full(len(values), -1), values[:0]
    low, high = present.min().item(), present.max().item()
    # Twice the rows bound the table; the constant is for few rows.
    if not high - low <= 2 * len(values) + 1000:
        return None
    # Differences of narrow types overflow or round.
    wide = values
    if values.dtype.itemsize < 8:
        wide = values.astype(np.int64 if missing is None else np.float64)
    offsets = wide - wide.dtype.type(low)
    if missing is not None:
        if (present != np.floor(present)).any():
            return None
        offsets[missing] = -1
    codes, used = compact(offsets.astype(np.intp), int(high - low) + 1)
    labels = used.astype(wide.dtype) + wide.dtype.type(low)
    return codes, labels.astype(values.dtype)


def compact(codes: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Renumber codes below `size` without gaps; return the codes in use, too.

    In increasing order; -1 stays -1.
    """
    present = np.zeros(size + 1, dtype=bool)
    present[codes] = True
    used = np.flatnonzero(present[:-1])
    # -1 points at the last entry of the table and so stays -1.
    renumbered = np.full(size + 1, -1)
    renumbered[used] = np.arange(len(used))
    return renumbered[codes], used


def _plain(labels: AnyArray) -> AnyArray:
    """Return labels that are Python numbers as an array of numbers."""
    if labels.dtype == object and len(labels):
        types = set(map(type, labels.tolist()))
        if all(issubclass(t, int | float | np.number | np.bool_) for t in types):
            return np.array(labels.tolist())
    return labels


def _check_complete(codes: IntArray, name: str, rows: IntArray | None) -> None:
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        first = missing[0] if rows is None else rows[missing[0]]
        raise ValueError(
            f"The labels of {name!r} are missing (NaN) in {len(missing)} of "
            f"{len(codes)} rows, first in row {first}. Drop these rows, or give "
            "them a label of their own."
        )


def _has_own_order(column: Any) -> bool:
    """Say whether the levels come in an order that the user gave them."""
    dtype = getattr(column, "dtype", None)
    polars_enum = is_polars(column) and type(dtype).__name__ == "Enum"
    return polars_enum or isinstance(dtype, pd.CategoricalDtype)


def order_of(codes: IntArray, labels: AnyArray) -> IntArray:
    """Return the order of labels: sorted, else that of their first rows."""
    if labels.dtype != object:
        return np.argsort(labels, kind="stable")
    values = labels.tolist()
    try:
        return np.array(sorted(range(len(values)), key=values.__getitem__), np.intp)
    except TypeError:
        first_row = np.empty(len(values), dtype=np.intp)
        first_row[codes[::-1]] = np.arange(len(codes))[::-1]
        return np.argsort(first_row)


def is_sorted(labels: AnyArray) -> bool:
    """Say whether labels can be sorted, and are."""
    if labels.dtype != object:
        return bool((labels[:-1] <= labels[1:]).all())
    try:
        return all(a <= b for a, b in pairwise(labels.tolist()))
    except TypeError:
        return False


def _positions(labels: AnyArray, levels: AnyArray) -> IntArray:
    """Return where each label is among the levels, -1 for those that are not."""
    if labels.dtype.kind in "biuf" and levels.dtype.kind in "biuf":
        return _number_positions(whole(labels), whole(levels))
    if levels.dtype.kind in "mM":
        return pd.Index(levels).get_indexer(pd.Index(labels))
    codes = dict(zip(levels.tolist(), range(len(levels)), strict=True))
    return np.array([codes.get(label, -1) for label in labels.tolist()], dtype=np.intp)


def _number_positions(labels: AnyArray, levels: AnyArray) -> IntArray:
    order = np.argsort(levels, kind="stable")
    levels = levels[order]
    position = np.minimum(np.searchsorted(levels, labels), len(levels) - 1)
    return np.where(levels[position] == labels, order[position], -1)


def whole(numbers: AnyArray) -> AnyArray:
    """Return integers where all are whole, so that large ones compare exactly."""
    if numbers.dtype.kind == "f":
        exact = (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
        return numbers.astype(np.int64) if exact.all() else numbers
    large = numbers.dtype.kind == "u" and numbers.max(initial=0) >= 2**63
    return numbers if large else numbers.astype(np.int64)
