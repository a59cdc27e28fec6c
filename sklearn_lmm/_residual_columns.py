"""The columns that a residual structure names, read for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sklearn_lmm._columns import Table, is_numeric, listed
from sklearn_lmm._engine.correlation import Correlation, places_within
from sklearn_lmm._engine.design import nested
from sklearn_lmm._engine.errors import Errors
from sklearn_lmm._grouping import learn_factor
from sklearn_lmm._groups import GroupColumns
from sklearn_lmm._labels import Levels
from sklearn_lmm._residual_correlation import build_correlation, parameter_names
from sklearn_lmm._residual_data import Columns
from sklearn_lmm._residual_variances import (
    known_slopes,
    n_slopes,
    read_levels,
    read_variances,
    slope_names,
)
from sklearn_lmm._types import FloatArray, IntArray
from sklearn_lmm.residuals import (
    Heteroscedastic,
    KnownSigma,
    KnownVariance,
    UnstructuredErrors,
)
from sklearn_lmm.residuals._base import (
    CorrelationStructure,
    ResidualStructure,
    VarianceStructure,
    correlation_of,
)
from sklearn_lmm.terms import Reference


def residual_label_columns(
    structure: Any, table: Table, groups: GroupColumns | None
) -> set[int]:
    """Return the positions in X of columns that leave the fixed part.

    Those of groups and of known variances, and whatever is not numeric.

    Raises
    ------
    ValueError
        If `residual` is no structure, or names a column that X does not have.
    """
    if structure is None:
        return set()
    if not isinstance(structure, ResidualStructure):
        raise ValueError(
            f"residual={structure!r} of type {type(structure).__name__}: expected "
            "None or a structure of sklearn_lmm.residuals, such as AR1('week')."
        )
    columns = Columns(table, groups)
    taken = set()
    for part in structure.parts:
        for reference, always in _references(part):
            if columns.in_groups(reference) is not None and (
                reference not in table.names
            ):
                continue
            position = table.position(reference, "residual")
            if always or not is_numeric(table.column(position)):
                taken.add(position)
    return taken


def _references(part: ResidualStructure) -> list[tuple[Reference, bool]]:
    """Return the columns of a structure, and whether they always hold labels."""
    if isinstance(part, CorrelationStructure):
        groups = part.groups
        parts = groups if isinstance(groups, tuple) else (groups,)
        labels = [(group, True) for group in parts if group is not None]
        return labels + [(place, False) for place in part.places]
    if isinstance(part, VarianceStructure):
        return [(part.column, isinstance(part, KnownVariance))]
    return []


@dataclass(frozen=True, eq=False)
class ErrorColumns:
    """What was learnt of a residual structure at fit.

    names : of all parameters, as `LMMFit.errors.values` has them
    variances : the structures of the standard deviations, each with the levels
        of its column if that holds labels
    """

    names: tuple[str, ...]
    variances: tuple[tuple[VarianceStructure, Levels | None], ...]

    def deviations(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """Return log deviations of new rows: the known part (n,), and W (n, m)."""
        return read_variances(self.variances, columns, len(columns.table))


def learn_errors(
    structure: ResidualStructure, columns: Columns, codes: Sequence[IntArray], n: int
) -> tuple[ErrorColumns, Errors]:
    """Read the columns of a structure.

    codes : the levels of the rows of every grouping factor of the model
    n : how many rows there are, those of weight 0 left out

    Raises
    ------
    ValueError
        If a column is absent or unfit for its role; if rows of a group share a
        time; if groups cannot be told.
    """
    variances = tuple(
        (part, read_levels(part, columns))
        for part in structure.parts
        if isinstance(part, VarianceStructure)
    )
    log_deviation, slopes = read_variances(variances, columns, n)
    placed = place_rows(structure, columns, codes, n)
    ratio = [
        isinstance(part, Heteroscedastic)
        for part, levels in variances
        for _ in range(n_slopes(part, levels))
    ]
    errors = Errors(
        order=placed.order,
        starts=placed.starts,
        correlation=placed.correlation,
        log_deviation=log_deviation[placed.order],
        slopes=slopes[placed.order],
        ratio=np.array(ratio, dtype=bool),
        fixed=np.concatenate(
            [placed.known, *(known_slopes(p, v) for p, v in variances)]
        ),
        sigma=_sigma(structure),
    )
    names = placed.names + [
        name for part, levels in variances for name in slope_names(part, levels)
    ]
    return ErrorColumns(tuple(names), variances), errors


class PlacedRows(NamedTuple):
    """Rows in their groups.

    order : (n,), the rows sorted by group; starts : (G,), the first of every group
    correlation : of the rows in that order
    known : (m,), its unconstrained parameters, NaN where they are estimated
    names : of its parameters
    """

    order: IntArray
    starts: IntArray
    correlation: Correlation
    known: FloatArray
    names: list[str]


def place_rows(
    structure: ResidualStructure, columns: Columns, codes: Sequence[IntArray], n: int
) -> PlacedRows:
    """Return where n rows stand, and the correlation of their errors.

    Raises
    ------
    ValueError
        As `learn_errors`.
    """
    part = correlation_of(structure)
    order, starts, places, labels = _places(part, columns, codes, n)
    correlation, known = build_correlation(part, starts, places, labels)
    return PlacedRows(order, starts, correlation, known, parameter_names(part, labels))


def _sigma(structure: ResidualStructure) -> float | None:
    known = [
        part.sigma
        for part in structure.parts
        if isinstance(part, KnownSigma | KnownVariance)
    ]
    return None if not known or known[0] is None else float(known[0])


def _places(
    part: CorrelationStructure | None,
    columns: Columns,
    codes: Sequence[IntArray],
    n: int,
) -> tuple[IntArray, IntArray, FloatArray, Levels | None]:
    """Return the order of rows by groups, and where they stand in them.

    order (n,), starts (G,), places (n, d) in that order, levels of occasions
    """
    if part is None:
        return np.arange(n), np.arange(n), np.zeros((n, 0)), None
    group = _group_codes(part, columns, codes, n)
    levels = None
    if isinstance(part, UnstructuredErrors):
        occasions, levels = columns.labels(part.time, "residual")
        places = occasions[:, None].astype(np.float64)
    else:
        found = [columns.places(place, "residual") for place in part.places]
        places = np.column_stack(found) if found else np.zeros((n, 0))
    order = np.lexsort((*places.T[::-1], group))
    starts = np.flatnonzero(np.append(True, np.diff(group[order]) != 0))
    places = places[order]
    if len(starts) == n:
        raise ValueError(
            f"{part!r}: every group has a single row, so that there is nothing to "
            "correlate."
        )
    _check_places(part, columns, places, order, starts)
    if not part.places:
        sizes = np.diff(np.append(starts, n))
        places = places_within(sizes)[:, None].astype(np.float64)
    return order, starts, places, levels


def _check_places(
    part: CorrelationStructure,
    columns: Columns,
    places: FloatArray,
    order: IntArray,
    starts: IntArray,
) -> None:
    """Refuse two rows of a group at one place, and times that are not whole."""
    if part.whole and places.size and (places % 1 != 0).any():
        raise ValueError(
            f"{part!r}: times are whole numbers, but {part.places[0]!r} has "
            f"{places[places % 1 != 0][0]:g}. Use ContinuousAR1 for any times."
        )
    if not part.places or getattr(part, "nugget", False):
        return
    same = (np.diff(places, axis=0) == 0).all(axis=1)
    same[starts[1:] - 1] = False
    if same.any():
        k = int(np.argmax(same))
        rows = order[[k, k + 1]]
        if columns.rows is not None:
            rows = columns.rows[rows]
        cure = "Is a grouping column missing in groups?"
        if hasattr(part, "nugget"):
            cure += " With nugget=True rows may share a place."
        raise ValueError(
            f"{part!r}: {int(same.sum())} rows have the time or place of another row "
            f"of their group, such as rows {rows.min()} and {rows.max()}. {cure}"
        )


def _group_codes(
    part: CorrelationStructure,
    columns: Columns,
    codes: Sequence[IntArray],
    n: int,
) -> IntArray:
    if part.groups is None:
        unsaid = f"{part!r} does not say what groups the rows"
        return default_groups(codes, columns, n, unsaid, "give groups=...")
    return codes_of_groups(part.groups, columns)


def codes_of_groups(
    groups: Reference | tuple[Reference, ...], columns: Columns
) -> IntArray:
    """Return the group of every row, by a column or several."""
    references = groups if isinstance(groups, tuple) else (groups,)
    learnt = [columns.labels(reference, "residual") for reference in references]
    return learn_factor([c for c, _ in learnt], [levels for _, levels in learnt])[0]


def default_groups(
    codes: Sequence[IntArray], columns: Columns, n: int, unsaid: str, cure: str
) -> IntArray:
    """Return the innermost grouping factor, else `groups`, else one group.

    codes : the levels of n rows of every grouping factor of the model
    unsaid, cure : what nobody says, and how to say it

    Raises
    ------
    ValueError
        If no factor is nested in all others, or `groups` has several columns.
    """
    for own in codes:
        if all(nested(own, other) for other in codes):
            return own
    if codes:
        raise ValueError(
            f"{unsaid}, and none of the grouping factors of the model is nested in all "
            f"others: {cure}"
        )
    if columns.groups is None:
        return np.zeros(n, dtype=np.intp)
    names = columns.groups.factor_names
    if len(names) > 1:
        raise ValueError(f"{unsaid}, and groups has {listed(names)}: {cure}")
    return columns.labels(names[0], "residual")[0]
