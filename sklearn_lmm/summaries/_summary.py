"""What a fit has found, as text and as HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm.summaries._text import (
    aligned,
    p_values,
    paragraph,
    shortened,
    spoken,
    text_table,
)
from sklearn_lmm.terms import INTERCEPT

LONGEST_HEADING = 12
"""Columns of correlations have numbers if a name is longer than this."""


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """What `MixedEffectsRegressor.summary` returns; it prints as text or HTML.

    Attributes
    ----------
    title : str
        What was maximised.
    facts : dict of str to str
        The model, the rows, the weights and the optimiser, in words.
    criteria : Series
        REMLcrit; or AIC, BIC, logLik, deviance and df.resid.
    residuals : Series or None
        Quantiles of the scaled residuals, if `summary` was given the rows.
    random : DataFrame
        A row for each coefficient that varies, and one for the residual: columns
        group, name, variance, std_dev, and the correlations with those before.
    errors : Series
        Parameters of the residual structure; empty without one.
    fixed : DataFrame
        The table of `sklearn_lmm.inference.coefficient_table`.
    correlation : DataFrame or None
        Of the fixed effects, if there are 2 to 20 of them.
    explained : Series
        R2, marginal and conditional, and the adjusted ICC, as in
        `sklearn_lmm.diagnostics`; empty without random effects.
    notes : list of str
        How degrees of freedom were found, and what to know of the fit.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_penicillin
    >>> penicillin = load_penicillin(as_frame=True).frame
    >>> summary = lmer("diameter ~ (1 | plate) + (1 | sample)", penicillin).summary()
    >>> summary.random[["group", "variance"]].round(3)
          group  variance
    0     plate     0.717
    1    sample     3.731
    2  Residual     0.302
    """

    title: str
    facts: dict[str, str]
    criteria: pd.Series[Any]
    residuals: pd.Series[Any] | None
    random: pd.DataFrame
    errors: pd.Series[Any]
    fixed: pd.DataFrame
    correlation: pd.DataFrame | None
    explained: pd.Series[Any]
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Return the table of fixed effects."""
        return self.fixed.copy()

    def __str__(self) -> str:
        facts = [
            paragraph(f"{name}: {said}", "  ") for name, said in self.facts.items()
        ]
        parts = ["\n".join([self.title, *facts])]
        for title, cells in self._tables():
            parts.append(f"{title}:\n{text_table(cells, ('Groups', 'Name'))}")
        parts.append("\n".join(map(paragraph, self.notes)))
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "<br>".join(
            f"<b>{html.escape(name)}</b>: {html.escape(fact)}"
            for name, fact in self.facts.items()
        )
        parts = [f"<h4>{html.escape(self.title)}</h4>", f"<p>{said}</p>"]
        for title, cells in self._tables():
            parts += [f"<h5>{html.escape(title)}</h5>", cells.to_html(border=0)]
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)

    def _tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Return titles, and tables of strings."""
        tables = []
        if len(self.criteria) > 1:
            tables.append(("Criteria", _one_row(self.criteria, 1)))
        if self.residuals is not None:
            tables.append(("Scaled residuals", _one_row(self.residuals, 4)))
        tables.append(("Random effects", _random_cells(self.random)))
        if len(self.errors):
            tables.append(("Errors", _one_row(self.errors, 3)))
        if len(self.fixed):
            tables.append(("Fixed effects", _fixed_cells(self.fixed)))
        if self.correlation is not None:
            tables.append(("Correlation of fixed effects", _lower(self.correlation)))
        if len(self.explained):
            tables.append(("Variance explained", _one_row(self.explained, 3)))
        return tables


def _one_row(values: pd.Series[Any], decimals: int) -> pd.DataFrame:
    cells = {str(name): spoken(value, decimals) for name, value in values.items()}
    return pd.DataFrame(cells, index=[""])


def _random_cells(random: pd.DataFrame) -> pd.DataFrame:
    group = random["group"].where(~random["group"].duplicated(), "")
    cells = {
        "Groups": [shortened(str(name), 24) for name in group],
        "Name": [shortened(str(name), 24) for name in random["name"]],
        "Variance": aligned(random["variance"].to_numpy()),
        "Std.Dev.": aligned(random["std_dev"].to_numpy()),
    }
    correlations = random.columns[4:]
    for k, column in enumerate(correlations):
        heading = "Corr" if k == 0 else " " * k
        cells[heading] = [spoken(value, 2) for value in random[column]]
    return pd.DataFrame(cells, index=[""] * len(random))


def _fixed_cells(fixed: pd.DataFrame) -> pd.DataFrame:
    cells = {
        "Estimate": aligned(fixed["estimate"].to_numpy(), 5),
        "Std. Error": aligned(fixed["std_error"].to_numpy()),
        "df": [spoken(value, 1) for value in fixed["df"]],
        "t value": [spoken(value, 3) for value in fixed["statistic"]],
        "Pr(>|t|)": p_values(fixed["p_value"].to_numpy()),
    }
    return pd.DataFrame(cells, index=fixed.index)


def _lower(correlation: pd.DataFrame) -> pd.DataFrame:
    """Return the entries below the diagonal."""
    values = np.where(np.tri(len(correlation), k=-1), correlation, np.nan)
    cells = pd.DataFrame(values).map(lambda value: spoken(value, 2))
    names = ["(Intr)" if c == INTERCEPT else str(c) for c in correlation]
    cells.index, cells.columns = pd.Index(names), pd.Index(names)
    if max(map(len, names)) > LONGEST_HEADING:
        numbers = [f"[{k}]" for k in range(1, len(names) + 1)]
        cells.columns = pd.Index(numbers)
        cells.index = pd.Index(
            [f"{k} {n}" for k, n in zip(numbers, names, strict=True)]
        )
    return cells.iloc[1:, :-1]
