"""`lmer`: a model from a formula and a frame, as in lme4."""

from __future__ import annotations

from typing import Any

from sklearn_lmm._columns import without_arrow
from sklearn_lmm._formula_rows import check_present
from sklearn_lmm._regressor import MixedEffectsRegressor


def lmer(
    formula: str,
    data: Any,
    *,
    REML: bool = True,
    weights: Any = None,
    na_action: str = "raise",
    **parameters: Any,
) -> MixedEffectsRegressor:
    """Fit a linear mixed model as lme4's function of this name does.

    Short for `MixedEffectsRegressor(formula=formula, weights="precision",
    ...).fit(data)`.

    Parameters
    ----------
    formula : str
        Such as "Reaction ~ Days + (Days | Subject)"; offsets are written into it.
    data : DataFrame
        The columns that the formula names (pandas or polars).
    REML : bool, default=True
        Whether to maximise the restricted likelihood.
    weights : str or array-like of shape (n_samples,), default=None
        Precision weights, an array or the name of a column: a row's residual
        variance is sigma^2 / weight.
    na_action : {"raise", "drop"}, default="raise"
        What to do with rows that have missing values. (lme4 drops them.)
    **parameters
        Further parameters of `MixedEffectsRegressor`, such as solver.

    Returns
    -------
    MixedEffectsRegressor
        The fitted estimator; `summary()` prints what lme4's summary does.

    Raises
    ------
    ValueError
        If the formula or the data cannot be used.

    Examples
    --------
    >>> from sklearn_lmm import lmer
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> sleepstudy = load_sleepstudy(as_frame=True).frame
    >>> model = lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> model.fixed_effects_.round(3).to_dict()
    {'(Intercept)': 251.405, 'Days': 10.467}
    """
    if isinstance(weights, str):
        data = without_arrow(data)
        check_present([weights], data, f"weights={weights!r}")
        weights = data[weights]
    model = MixedEffectsRegressor(
        formula=formula,
        method="reml" if REML else "ml",
        weights="precision",
        na_action=na_action,
        **parameters,
    )
    return model.fit(data, sample_weight=weights)
