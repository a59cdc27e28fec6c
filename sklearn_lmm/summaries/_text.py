"""Numbers and tables as text, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from sklearn_lmm._types import FloatArray

WIDTH = 80
LONGEST_NAME = 34
SMALL_P = 2e-16


def aligned(values: FloatArray, digits: int = 4) -> list[str]:
    """Return numbers with as many decimals for all as the smallest one needs.

    It gets `digits` significant digits, but none more than eight decimals.
    """
    finite = np.abs(values[np.isfinite(values) & (values != 0.0)])
    if not len(finite):
        return [spoken(value, 1) for value in values]
    exponents = np.floor(np.log10(finite))
    if exponents.max() > 7 or exponents.max() < -6:
        return [f"{value:.{digits - 1}e}" for value in values]
    # The largest shows seven digits at most, unless all have the same size.
    needed = min(digits - 1 - exponents.min(), max(6 - exponents.max(), digits))
    decimals = int(np.clip(needed, 0, 8))
    # What would look like 0 but is not gets an exponent.
    lost = (values != 0.0) & (np.abs(values) < 0.5 * 10.0**-decimals)
    return [
        f"{value:.1e}" if tiny else spoken(value, decimals)
        for value, tiny in zip(values, lost, strict=True)
    ]


def spoken(value: float, decimals: int) -> str:
    """Return a number with so many decimals; "" for NaN."""
    if np.isnan(value):
        return ""
    if not np.isfinite(value):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value:.{decimals}f}"
    return text if text.strip("-0.") else text.lstrip("-")


def p_values(values: FloatArray) -> list[str]:
    """Return p-values with three significant digits, tiny ones as a bound."""
    return [
        "" if np.isnan(p) else f"<{SMALL_P:g}" if p < SMALL_P else f"{p:.3g}"
        for p in values
    ]


def text_table(frame: pd.DataFrame, left: Sequence[str] = ()) -> str:
    """Return a table of strings, the columns in `left` and the index to the left.

    Columns that do not fit follow below, without rows that are empty there; long
    names are cut in the middle.
    """
    names = [shortened(str(name), LONGEST_NAME) for name in frame.index]
    blocks: list[list[list[str]]] = []
    room = 0
    # By position: shortened headings may be the same.
    for k, heading in enumerate(frame.columns):
        cells = _padded(frame.iloc[:, k], heading in left, heading)
        width = len(cells[0]) + 1
        if width > room:
            blocks.append([_padded(names, True, "")])
            room = WIDTH - len(blocks[-1][0][0])
        blocks[-1].append(cells)
        room -= width
    lines = (zip(*block, strict=True) for block in blocks)
    return "\n".join(
        " ".join(cells).rstrip()
        for k, block in enumerate(lines)
        for cells in block
        if k == 0 or "".join(cells[1:]).strip()
    )


def _padded(cells: Iterable[str], left: bool, heading: str) -> list[str]:
    column = [heading, *cells]
    width = max(map(len, column))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in column]


def shortened(name: str, width: int) -> str:
    """Return a name of at most `width` characters, the middle left out."""
    if len(name) <= width:
        return name
    start = (width - 1) // 2
    return f"{name[:start]}…{name[len(name) - (width - 1 - start) :]}"


def paragraph(text: str, indent: str = "") -> str:
    """Return text wrapped to the width."""
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
