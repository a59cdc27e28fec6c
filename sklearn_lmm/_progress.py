"""A bar for passes that may take long, where somebody is watching."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

SILENT_SECONDS = 1.0
"""A pass that ends before shows nothing."""


def progress(
    iterable: Iterable[T], total: int | None = None, description: str | None = None
) -> Iterable[T]:
    """Return the items, shown as they are taken where a terminal is watched.

    The bar is tqdm's and goes to the standard error, never to the standard
    output.  There is none if the standard error is not a terminal, if tqdm is
    not installed, or if TQDM_DISABLE=1 is in the environment.

    total : how many items there are, if `iterable` has no length; None if unknown
    description : what stands before the bar
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return iterable
    try:
        from tqdm import tqdm
    except ImportError:
        return iterable
    shown: Iterable[T] = tqdm(
        iterable,
        desc=description,
        total=total,
        delay=SILENT_SECONDS,
        dynamic_ncols=True,
    )
    return shown
