"""Findings about a fit, and how they are shown."""

from __future__ import annotations

import html
import textwrap
from dataclasses import asdict, dataclass
from typing import Literal

import pandas as pd

WIDTH = 80

Severity = Literal["problem", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found.

    Attributes
    ----------
    severity : {"problem", "note"}
        Whether results should not be used as they are, or should be read with
        this in mind.
    about : str
        What was checked.
    found : str
        What was found, with names and numbers.
    meaning : str
        What follows from it.
    remedy : str
        What can be done.

    Examples
    --------
    >>> from sklearn_lmm.diagnostics import Finding
    >>> finding = Finding("note", "levels", "3 levels.", "Hard to tell.", "Get more.")
    >>> finding.severity
    'note'
    """

    severity: Severity
    about: str
    found: str
    meaning: str
    remedy: str


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` returns; it prints as text, and as HTML in a notebook.

    Attributes
    ----------
    findings : tuple of Finding
        Problems first.
    checked : tuple of str
        Everything that was checked.
    unchecked : tuple of str
        What needs the rows of the fit, if they were not given, or has to do
        without for a model with a residual structure.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.diagnostics import check
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> report = check(MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y))
    >>> report.findings
    ()
    >>> report.ok
    True
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no finding at all."""
        return not self.findings

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as a table, one row each."""
        columns = list(Finding.__dataclass_fields__)
        return pd.DataFrame([asdict(f) for f in self.findings], columns=columns)

    def __str__(self) -> str:
        parts = []
        for finding in self.findings:
            lines = [f"{finding.severity.upper()}: {finding.about}"]
            for label, text in _said(finding):
                lines.append(_wrapped(f"{label}{text}", "  "))
            parts.append("\n".join(lines))
        parts += [_wrapped(text, "") for text in self._rest()]
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = []
        for finding in self.findings:
            said = "<br>".join(
                f"<i>{html.escape(label)}</i>{html.escape(text)}"
                for label, text in _said(finding)
            )
            heading = f"<b>{finding.severity}: {html.escape(finding.about)}</b>"
            parts.append(f"<p>{heading}<br>{said}</p>")
        parts += [f"<p>{html.escape(text)}</p>" for text in self._rest()]
        return "\n".join(parts)

    def _rest(self) -> list[str]:
        """Say what was checked without a finding, and what was not checked."""
        found = {finding.about for finding in self.findings}
        quiet = [about for about in self.checked if about not in found]
        parts = [f"Nothing found by: {', '.join(quiet)}."] if quiet else []
        if self.unchecked:
            parts.append(
                "Not checked, as this takes X and y, and a model without a residual "
                f"structure: {', '.join(self.unchecked)}."
            )
        return parts


def _said(finding: Finding) -> list[tuple[str, str]]:
    return [
        ("", finding.found),
        ("Meaning: ", finding.meaning),
        ("Remedy: ", finding.remedy),
    ]


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
