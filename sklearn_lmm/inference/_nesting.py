"""Whether one model is a special case of another, and how it comes from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._results import weighted
from sklearn_lmm._roles import Roles
from sklearn_lmm._types import FloatArray
from sklearn_lmm.covariance import Covariance

SAME = 1e-8
"""Totals that differ by less than this, relative to their size, are the same."""

Grouping = frozenset[str]
"""The factors whose interaction groups the rows."""


def check_same_rows(first: Any, other: Any) -> None:
    """Refuse models of different rows, by the totals that they keep.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    fits = [est.fit_ for est in (first, other)]
    matters = any(weighted(fit) or fit.errors is not None for fit in fits)
    if fits[0].weights != fits[1].weights and matters:
        raise ValueError(
            f"One model takes weights as {fits[0].weights!r}, the other as "
            f"{fits[1].weights!r}: their likelihoods cannot be compared. Fit both with "
            "the same parameter weights."
        )
    a, b = (fit.row_statistics for fit in fits)
    pairs = {
        "numbers of rows": (a.n_rows, b.n_rows),
        "sums of weights": (a.sum_weights, b.sum_weights),
        "sums of squares of the response, less any offset,": (_squares(a), _squares(b)),
    }
    for what, (mine, theirs) in pairs.items():
        if abs(mine - theirs) > SAME * abs(mine):
            raise ValueError(
                f"The models are not of the same data: their {what} are {mine:.10g} "
                f"and {theirs:.10g}. Fit both to the same rows."
            )


def _squares(statistics: CrossProducts) -> float:
    """Return y'Wy in the user's units."""
    center, scale = (
        u[-1] for u in (statistics.columns.center, statistics.columns.scale)
    )
    total = scale**2 * statistics.tt[-1, -1]
    if statistics.intercept:
        total += 2.0 * center * scale * statistics.tt[0, -1]
        total += center**2 * statistics.tt[0, 0]
    return float(total)


def variances_at_zero(small: Any, large: Any) -> int:
    """Return how many variances are 0 in the smaller model, and not in the larger.

    Raises
    ------
    ValueError
        If it is no special case of it, as far as names tell.
    """
    names = [*map(str, large.fixed_effects_.index)]
    extra = [str(name) for name in small.fixed_effects_.index if name not in names]
    if extra:
        raise _not_nested(f"the fixed effects {listed(extra)} are in the smaller only")
    if small.residual is not None and small.residual != large.residual:
        raise _not_nested(f"residual={small.residual!r} is in the smaller only")
    boundary = 0
    inside, outside = _covariances(small), _covariances(large)
    for grouping in inside.keys() | outside.keys():
        boundary += _nested_covariance(
            inside.get(grouping, []), outside.get(grouping, []), grouping
        )
    return boundary


def _not_nested(why: str) -> ValueError:
    return ValueError(
        f"The model with fewer parameters is no special case of the other: {why}. "
        "Compare them by information_criteria; or, should one be a special case of "
        "the other under other names, set assume_nested=True."
    )


Terms = list[tuple[Covariance, tuple[str, ...]]]
"""The structure and the coefficients of each term of one grouping."""


def groupings_of(roles: Roles) -> list[Grouping]:
    """Return the grouping factors; a:b and b:a are the same."""
    return [
        frozenset(roles.sources[part].name for part in grouping.parts)
        for grouping in roles.groupings
    ]


def _covariances(est: Any) -> dict[Grouping, Terms]:
    roles = est._layout.roles
    groupings = groupings_of(roles)
    found: dict[Grouping, Terms] = {}
    for term in roles.terms:
        here = found.setdefault(groupings[term.factor], [])
        here.append((term.structure, term.coefficients))
    return found


def _nested_covariance(small: Terms, large: Terms, grouping: Grouping) -> int:
    """Return how many variances on the boundary lie between two covariances."""
    name = ":".join(sorted(grouping))
    coefficients = sorted({c for _, names in small + large for c in names})
    curved = [t for t in small + large if t[0].directions(len(t[1])) is None]
    if curved:
        # Not linear in Psi: such a term has to be the same in both.
        if any(t not in large for t in small if t in curved):
            raise _not_nested(f"the covariance of {name!r} is another")
        small, large = ([t for t in part if t not in curved] for part in (small, large))
    inside, outside = (_span(part, coefficients) for part in (small, large))
    both = np.concatenate([inside, outside])
    if _rank(both) > _rank(outside):
        raise _not_nested(f"its covariance of {name!r} is no special case")
    return _rank(_beyond(inside, outside, len(coefficients)))


def _span(terms: Terms, coefficients: list[str]) -> FloatArray:
    """Return matrices (m, c^2) that span what Psi can be, over all coefficients."""
    c = len(coefficients)
    matrices = [np.zeros((0, c, c))]
    for structure, names in terms:
        basis = structure.directions(len(names))
        assert basis is not None
        place = [coefficients.index(name) for name in names]
        wide = np.zeros((len(basis), c, c))
        wide[np.ix_(range(len(basis)), place, place)] = basis
        matrices.append(wide)
    return np.concatenate(matrices).reshape(-1, c * c)


def _beyond(inside: FloatArray, outside: FloatArray, c: int) -> FloatArray:
    """Return what the larger span adds where the smaller has no variance at all."""
    together = inside.reshape(-1, c, c)
    U, s, _ = np.linalg.svd(np.sum(together @ together, axis=0))
    null = U[:, s <= 1e-9 * max(1.0, float(s.max(initial=0.0)))]
    added = null.T @ outside.reshape(-1, c, c) @ null
    return np.asarray(added.reshape(len(outside), -1))


def _rank(rows: FloatArray) -> int:
    return int(np.linalg.matrix_rank(rows)) if rows.size else 0
