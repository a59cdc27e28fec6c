"""Tables in Markdown, and what the results of simulations depend on."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy

import sklearn_lmm


def markdown(header: Sequence[object], lines: Iterable[Sequence[object]]) -> str:
    """Return a table of lines below a header."""
    return "\n".join(map(_line, [header, ["---"] * len(header), *lines]))


def markdown_frame(frame: pd.DataFrame) -> str:
    """Return the columns of a frame, without its index."""
    return markdown(list(frame.columns), frame.to_numpy().tolist())


def _line(cells: Sequence[object]) -> str:
    escaped = (str(cell).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def software() -> str:
    """Return the date and the versions of all that has a part in the numbers."""
    return (
        f"{datetime.date.today()}, sklearn_lmm {sklearn_lmm.__version__}, "
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"SciPy {scipy.__version__}"
    )
