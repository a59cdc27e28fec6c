"""How much memory there is."""

from __future__ import annotations

import os


def memory() -> float | None:
    """Return the bytes of memory that the machine has, None if it does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
