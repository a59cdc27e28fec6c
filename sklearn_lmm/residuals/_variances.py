"""Errors of different size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from sklearn_lmm.residuals._base import (
    VarianceStructure,
    check_parameter,
    is_number,
    set_field,
)
from sklearn_lmm.terms import Reference, as_reference


@dataclass(frozen=True, repr=False)
class Heteroscedastic(VarianceStructure):
    """A standard deviation for each category.

    sigma belongs to the first of the sorted categories; the parameters are the
    ratios of the others to it.

    Parameters
    ----------
    column : str or int
        A column of labels.
    ratios : mapping of label to float, default=None
        Ratios that are known; None to estimate all of them.

    Examples
    --------
    >>> from sklearn_lmm.residuals import Heteroscedastic
    >>> Heteroscedastic("laboratory")
    Heteroscedastic(column='laboratory')
    """

    column: Reference
    _: KW_ONLY
    ratios: tuple[tuple[Any, float], ...] | None = None

    def __post_init__(self) -> None:
        set_field(self, "column", as_reference(self.column, "the categories"))
        if isinstance(self.ratios, Mapping):
            set_field(self, "ratios", tuple(self.ratios.items()))
        for label, ratio in self.ratios or ():
            if not (is_number(ratio) and 0.0 < ratio < np.inf):
                raise ValueError(
                    f"The ratio of {label!r} is {ratio!r}: expected a number above 0."
                )


@dataclass(frozen=True, repr=False)
class PowerVariance(VarianceStructure):
    """Standard deviation sigma |v|^power for a covariate v.

    Parameters
    ----------
    column : str or int
        The covariate, nowhere 0.
    power : float, default=None
        None to estimate it.

    Examples
    --------
    >>> from sklearn_lmm.residuals import PowerVariance
    >>> PowerVariance("age")
    PowerVariance(column='age')
    """

    column: Reference
    _: KW_ONLY
    power: float | None = None

    def __post_init__(self) -> None:
        set_field(self, "column", as_reference(self.column, "the covariate"))
        check_parameter(self, "power", -np.inf, np.inf)


@dataclass(frozen=True, repr=False)
class ExponentialVariance(VarianceStructure):
    """Standard deviation sigma exp(rate v) for a covariate v.

    Parameters
    ----------
    column : str or int
        The covariate.
    rate : float, default=None
        None to estimate it.

    Examples
    --------
    >>> from sklearn_lmm.residuals import ExponentialVariance
    >>> ExponentialVariance("age")
    ExponentialVariance(column='age')
    """

    column: Reference
    _: KW_ONLY
    rate: float | None = None

    def __post_init__(self) -> None:
        set_field(self, "column", as_reference(self.column, "the covariate"))
        check_parameter(self, "rate", -np.inf, np.inf)


@dataclass(frozen=True, repr=False)
class KnownVariance(VarianceStructure):
    """Variances that are known for every row, as in meta-analysis.

    Parameters
    ----------
    column : str or int
        A column of variances, all positive.
    sigma : float or None, default=1.0
        The variances are sigma^2 times the column; None to estimate sigma.

    Examples
    --------
    A random-effects meta-analysis of four studies:

    >>> import pandas as pd
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.residuals import KnownVariance
    >>> X = pd.DataFrame({
    ...     "study": ["a", "b", "c", "d"], "variance": [0.1, 0.2, 0.1, 0.3],
    ... })
    >>> effects = [0.2, 1.5, 0.9, 1.9]
    >>> model = MixedEffectsRegressor("study", residual=KnownVariance("variance"))
    >>> print(f"{model.fit(X, effects).intercept_:.3f}")
    1.041
    """

    column: Reference
    _: KW_ONLY
    sigma: float | None = 1.0
    tells_sigma = True

    def __post_init__(self) -> None:
        set_field(self, "column", as_reference(self.column, "the known variances"))
        check_parameter(self, "sigma", 0.0, np.inf)
