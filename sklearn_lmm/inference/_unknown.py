"""What is said where the data tell nothing of a variance parameter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from sklearn_lmm._columns import listed
from sklearn_lmm.exceptions import IdentifiabilityWarning


def warn_unknown_df(tests: Sequence[object]) -> None:
    """Warn of tests without degrees of freedom, if there are any."""
    if not tests:
        return
    warnings.warn(
        f"No degrees of freedom for {listed(tests, quote=False)}: they "
        "depend on a variance of which the data tell nothing, as that of a factor "
        "with one level. Leave that term out, or take df='normal'.",
        IdentifiabilityWarning,
        stacklevel=4,
    )
