"""How a formula's columns are made of indicators of all levels.

Every column is a product of what its factors contribute: coded categories and
numbers.  The relation between these columns and those in which every category
has an indicator for each level holds row by row, whatever the rows: it is read
off some rows that are drawn for the purpose.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from sklearn_lmm._types import BoolArray, FloatArray

ROWS_PER_COLUMN = 4
"""Rows drawn for every column: enough for full rank."""


def indicator_basis(fixed: Any, gram: FloatArray, kept: BoolArray) -> FloatArray:
    """Return B (d, p) with D = X B' for all indicators D (n, d), X (n, p) kept.

    Parameters
    ----------
    fixed : the expansion of the formula's fixed part
    gram : X'WX of all columns, from which those not kept are found in the others
    kept : which columns were estimated
    """
    structure = fixed.spec.structure
    n_columns = sum(len(term.columns) for term in structure)
    rows = _Rows(fixed.spec, ROWS_PER_COLUMN * n_columns)
    X = np.hstack([_columns_of(term, rows, full=False) for term in structure])
    D = np.hstack([_columns_of(term, rows, full=True) for term in structure])
    in_all = np.linalg.lstsq(X, D)[0]
    inside = gram[np.ix_(kept, kept)]
    in_kept = np.linalg.solve(inside, gram[kept])
    return np.asarray((in_kept @ in_all).T)


def _columns_of(structure: Any, rows: _Rows, full: bool) -> FloatArray:
    """Return the columns of a term, or (full) its indicators of all levels."""
    if full:
        return rows.product([(f.expr, False) for f in structure.term.factors], full)
    blocks = []
    for scoped in structure.scoped_terms:
        factors = [(f.factor.expr, f.reduced) for f in scoped.factors]
        blocks.append(rows.product(factors, full))
    return np.hstack(blocks)


class _Rows:
    """Rows drawn for the factors of a formula.

    codes : per categorical expression, the level of every row
    numbers : per numeric expression, its columns (n, k)
    """

    def __init__(self, spec: Any, n: int) -> None:
        rng = np.random.default_rng(0)
        self.n = n
        self._state = spec.encoder_state
        levels = _levels(spec)
        self.codes = {e: rng.integers(0, len(v), n) for e, v in levels.items()}
        self.numbers = {
            e: rng.normal(size=(n, k)) for e, k in _widths(spec, levels).items()
        }

    def product(self, factors: list[tuple[str, bool]], full: bool) -> FloatArray:
        """Return the products of the factors' columns, the first varying fastest."""
        parts = [self._factor(e, reduced, full) for e, reduced in factors if e != "1"]
        return reduce(_row_products, parts, np.ones((self.n, 1)))

    def _factor(self, expression: str, reduced: bool, full: bool) -> FloatArray:
        if expression in self.numbers:
            return self.numbers[expression]
        state = self._state[expression][1]
        if full:
            return np.eye(len(state["categories"]))[self.codes[expression]]
        coding = state["contrasts"].get_coding_matrix(reduced_rank=reduced)
        return np.asarray(coding, dtype=float)[self.codes[expression]]


def _row_products(a: FloatArray, b: FloatArray) -> FloatArray:
    return (b[:, :, None] * a[:, None, :]).reshape(len(a), -1)


def _levels(spec: Any) -> dict[str, list[Any]]:
    """Return the levels of every categorical expression."""
    return {
        expression: list(state["categories"])
        for expression, (_, state) in spec.encoder_state.items()
        if "categories" in state
    }


def _widths(spec: Any, levels: dict[str, list[Any]]) -> dict[str, int]:
    """Return how many columns every numeric expression has.

    Raises
    ------
    ValueError
        If that cannot be told from the columns of the terms it is in.
    """
    widths: dict[str, int] = {}
    terms = [
        ([f.expr for f in s.term.factors if f.expr != "1"], s) for s in spec.structure
    ]
    for expressions, structure in sorted(terms, key=lambda term: len(term[0])):
        unknown = [e for e in expressions if e not in levels and e not in widths]
        if not unknown:
            continue
        share = len(structure.columns) // _n_columns(structure, spec, widths)
        if share > 1 and len(unknown) > 1:
            raise ValueError(
                f"Tests of type III: how many columns {unknown} have cannot be told "
                "from their product. Put their main effects into the formula, or "
                "take type=2."
            )
        widths |= dict.fromkeys(unknown, share)
    return widths


def _n_columns(structure: Any, spec: Any, widths: dict[str, int]) -> int:
    """Return how many columns a term would have, were all unknown widths 1."""
    total = 0
    for scoped in structure.scoped_terms:
        count = 1
        for factor in scoped.factors:
            expression = factor.factor.expr
            state = spec.encoder_state.get(expression, (None, {}))[1]
            if "categories" in state:
                coding = state["contrasts"].get_coding_matrix(
                    reduced_rank=factor.reduced
                )
                count *= np.shape(coding)[1]
            else:
                count *= widths.get(expression, 1)
        total += count
    return total
