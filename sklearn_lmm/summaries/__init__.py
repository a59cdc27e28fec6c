"""What a fit has found: a summary, and tables in the manner of broom."""

from sklearn_lmm.summaries._summary import Summary
from sklearn_lmm.summaries._tidy import augment, glance, tidy

__all__ = [
    "Summary",
    "augment",
    "glance",
    "tidy",
]
