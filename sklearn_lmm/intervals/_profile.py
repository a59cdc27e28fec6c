"""Profile likelihood of every parameter, from the cross-products alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from sklearn_lmm._engine.criterion import Point
from sklearn_lmm._engine.error_criterion import ErrorCriterion
from sklearn_lmm._engine.held import (
    Held,
    correlation,
    hold_contrast,
    hold_sigma,
    hold_variance_parameter,
)
from sklearn_lmm._engine.held_errors import ErrorCoordinate, along_errors
from sklearn_lmm._engine.profile import Trace, contrast_in_engine, trace_profile
from sklearn_lmm._engine.variance_parameters import values_and_gradient
from sklearn_lmm._progress import progress
from sklearn_lmm._types import FloatArray
from sklearn_lmm._uncertainty import check_coverage
from sklearn_lmm.intervals._likelihood import likelihood_optimum
from sklearn_lmm.intervals._parameters import (
    FLAT,
    PERFECT,
    UNDEFINED,
    Parameter,
    chosen_parameters,
)
from sklearn_lmm.intervals._wald import interval_frame

ENDS = {
    "bound": "at the bound of the parameter",
    "level": (
        "at the bound: a coefficient may have no variance, and then every correlation "
        "does as well"
    ),
    "flat": "missing: the likelihood is too flat to reach this confidence",
    "lower": (
        "missing: the profile found a higher likelihood than the fit has; fit again "
        "with another solver"
    ),
}

ENTANGLED = (
    "its range depends on other parameters of the errors, so that it cannot be held "
    "alone; Wald and bootstrap intervals are there"
)


@dataclass(frozen=True, eq=False)
class Curve:
    """The profile of one parameter.

    trace : zeta by the value that the engine held; None if there is none
    reason : why there is none
    shift, scale : the parameter is g(scale (value - shift)), with g the identity,
        exp for sigma, or the correlation that an angle stands for
    coordinate : what a parameter of the errors is a function of
    """

    parameter: Parameter
    trace: Trace | None
    reason: str = ""
    shift: float = 0.0
    scale: float = 1.0
    structure: Any = None
    q: int = 0
    coordinate: ErrorCoordinate | None = None

    def user(self, values: FloatArray) -> FloatArray:
        """Return the parameter for values that the engine held."""
        if self.coordinate is not None:
            return self.coordinate.values(self.coordinate.sign * values)
        if self.parameter.kind == "cor":
            return correlation(self.structure, self.q, values)
        if self.parameter.kind == "sigma":
            return np.exp(values) * self.scale
        return (values - self.shift) * self.scale


@dataclass(frozen=True, eq=False)
class Profile:
    """Profile likelihood of some parameters of a model; what `profile` returns.

    Attributes
    ----------
    frame : DataFrame
        Columns parameter, value and zeta, the signed root of the likelihood-
        ratio statistic; values increase within a parameter, and zeta is 0 at
        the maximum-likelihood estimate.
    estimates : Series
        Estimates of the fit (REML or ML) by parameter.
    reasons : Series of str
        Why a parameter has no profile, or what ends one early; "" otherwise.
    coverage : float
        How far the profiles were followed.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import profile
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> traced = profile(model, "sd((Intercept) | Subject)")
    >>> len(traced.frame), traced.reasons.to_list()
    (12, [''])
    >>> traced
    <Profile: 'sd((Intercept) | Subject)'; coverage 0.99>
    """

    frame: pd.DataFrame
    estimates: pd.Series[float]
    reasons: pd.Series[str]
    coverage: float
    curves: tuple[Curve, ...] = field(repr=False)

    def __repr__(self) -> str:
        """Return parameters and coverage, not the tables."""
        names = ", ".join(map(repr, self.estimates.index))
        return f"<Profile: {names}; coverage {self.coverage:g}>"

    def intervals(self, coverage: float | None = None) -> pd.DataFrame:
        """Return profile-likelihood intervals.

        Parameters
        ----------
        coverage : float, default=None
            The probability; at most, and by default, that of the profile.

        Returns
        -------
        DataFrame
            Columns estimate, lower, upper, note. A standard deviation that the
            data do not tell from 0 has the lower end 0.

        Raises
        ------
        ValueError
            If the profile was not followed so far.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> from sklearn_lmm.intervals import profile
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
        >>> profile(model, ["Days"]).intervals(0.9).round(2)
              estimate  lower  upper note
        Days     10.47    7.9  13.03
        """
        coverage = self.coverage if coverage is None else coverage
        if not 0.0 < coverage <= self.coverage:
            raise ValueError(
                f"coverage={coverage} is not between 0 and {self.coverage}, as far as "
                "the likelihood was followed: profile(..., coverage=...) goes further."
            )
        furthest = float(stats.norm.ppf(0.5 + coverage / 2.0))
        rows = [
            (float(estimate), *_interval(curve, furthest))
            for curve, estimate in zip(self.curves, self.estimates, strict=True)
        ]
        return interval_frame([curve.parameter for curve in self.curves], rows)


def profile(
    est: Any,
    parameters: str | Sequence[str] | None = None,
    X: Any = None,
    y: Any = None,
    *,
    groups: Any = None,
    sample_weight: Any = None,
    coverage: float = 0.99,
) -> Profile:
    """Follow the profile likelihood of parameters on both sides of the estimate.

    The likelihood is the ordinary one: a model fitted by REML is refitted by ML
    first, as in lme4. Nothing but the cross-products that the fit kept is used,
    unless they depend on parameters of a residual structure in a way that only the
    rows tell: not for equally spaced `AR1`, equal correlations and ratios of
    standard deviations.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    parameters : str or list of str, default=None
        Names as in `confidence_intervals`, "fixed" or "variance"; None for all.
    X, y, groups, sample_weight : array-like, default=None
        The rows of the fit, for a residual structure that needs them.
    coverage : float, default=0.99
        How far to go: to the ends of intervals of this coverage.

    Returns
    -------
    Profile
        The profiles; `intervals()` turns them into confidence intervals.

    Raises
    ------
    ValueError
        If there is no such parameter, or coverage is not between 0 and 1; if rows
        are needed, or are others than those of the fit.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import profile
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> traced = profile(model, "sigma")
    >>> traced.frame.iloc[[0, -1]].round(3)
       parameter   value   zeta
    0      sigma  22.149 -2.576
    12     sigma  30.028  2.576
    """
    chosen = chosen_parameters(est, parameters)
    check_coverage(coverage)
    furthest = float(stats.norm.ppf(0.5 + coverage / 2.0))
    data = (X, y, groups, sample_weight)
    optimum = None if est.fit_.perfect else likelihood_optimum(est, data)
    shown = progress(chosen, description="profiles")
    curves = tuple(_curve(est, optimum, parameter, furthest) for parameter in shown)
    names = [parameter.name for parameter in chosen]
    point = None if est.fit_.perfect else est.fit_.point()
    estimates = [_estimate(est, point, parameter) for parameter in chosen]
    return Profile(
        frame=_frame(curves),
        estimates=pd.Series(estimates, names, float, name="estimate"),
        reasons=pd.Series([_ended(curve) for curve in curves], names, name="reason"),
        coverage=coverage,
        curves=curves,
    )


def _curve(
    est: Any, optimum: Point | None, parameter: Parameter, furthest: float
) -> Curve:
    if optimum is None:
        return Curve(parameter, None, PERFECT)
    scale = float(optimum.criterion.statistics.columns.scale[-1])
    if parameter.kind == "fixed":
        unit = np.eye(len(optimum.beta))[parameter.position]
        contrast, shift = contrast_in_engine(optimum, unit)
        trace = _traced(hold_contrast(optimum, contrast), furthest)
        return Curve(parameter, trace, "", shift, scale)
    if parameter.kind == "sigma":
        trace = _traced(hold_sigma(optimum), furthest)
        return Curve(parameter, trace, scale=scale)
    if parameter.kind == "error":
        return _error_curve(est, optimum, parameter, furthest)
    held_or_reason = _hold_variance(est, optimum, parameter)
    if isinstance(held_or_reason, str):
        return Curve(parameter, None, held_or_reason)
    trace = _traced(held_or_reason, furthest)
    assert parameter.variance is not None
    term = est.fit_.statistics.terms[parameter.variance.term]
    return Curve(parameter, trace, "", 0.0, scale, term.structure, term.q)


def _traced(held: Held, furthest: float) -> Trace:
    return trace_profile(along_errors(held), furthest)


def _error_curve(
    est: Any, optimum: Point, parameter: Parameter, furthest: float
) -> Curve:
    """Return the profile of a parameter of a residual structure."""
    criterion = cast(ErrorCriterion, optimum.criterion)
    u = optimum.theta[criterion.n_parameters :]
    fitted = replace(est.fit_.errors, model=criterion.model, u=u)
    coordinate = ErrorCoordinate.of(fitted, parameter.position)
    if coordinate is None:
        return Curve(parameter, None, ENTANGLED)
    trace = _traced(coordinate.hold(optimum), furthest)
    if coordinate.sign < 0.0:
        trace = trace.reversed()
    return Curve(parameter, trace, coordinate=coordinate)


def _hold_variance(est: Any, optimum: Point, parameter: Parameter) -> Held | str:
    """Return how a standard deviation or a correlation is held, or why it is not."""
    variance = parameter.variance
    assert variance is not None
    if variance.term in est.fit_.unidentified:
        return FLAT
    (value,), _ = values_and_gradient(optimum, [variance])
    if np.isnan(value):
        return f"at maximum likelihood {UNDEFINED}"
    try:
        return hold_variance_parameter(optimum, variance)
    except NotImplementedError:
        structure = type(est.fit_.statistics.terms[variance.term].structure).__name__
        return (
            f"the covariance {structure} cannot be profiled; Wald and bootstrap "
            "intervals are there"
        )


def _estimate(est: Any, point: Point | None, parameter: Parameter) -> float:
    """Return the estimate of the fit, of which `point` is None if it is perfect."""
    if parameter.kind == "fixed":
        return float(est.fixed_effects_.iloc[parameter.position])
    if point is None:
        return 0.0 if parameter.kind == "sigma" else np.nan
    if parameter.kind == "error":
        return float(est.fit_.errors.values[parameter.position])
    assert parameter.variance is not None
    (value,), _ = values_and_gradient(point, [parameter.variance])
    return float(value)


def _frame(curves: Sequence[Curve]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "parameter": curve.parameter.name,
                "value": curve.user(curve.trace.values),
                "zeta": curve.trace.zeta,
            }
        )
        for curve in curves
        if curve.trace is not None
    ]
    if not parts:
        return pd.DataFrame(columns=["parameter", "value", "zeta"])
    return pd.concat(parts, ignore_index=True)


def _ended(curve: Curve) -> str:
    if curve.trace is None:
        return curve.reason
    sides = zip(("lower", "upper"), curve.trace.ends, strict=True)
    return _joined([(side, end) for side, end in sides if end != "reached"])


def _joined(sides: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{side} end {ENDS[end]}" for side, end in sides)


def _interval(curve: Curve, furthest: float) -> tuple[float, float, str]:
    """Return both ends, and what there is to say of them."""
    trace = curve.trace
    if trace is None:
        return np.nan, np.nan, curve.reason
    found, said = [], []
    for side, sign, last, end in (
        ("lower", -1.0, 0, trace.ends[0]),
        ("upper", 1.0, -1, trace.ends[1]),
    ):
        value = trace.value_at(sign * furthest)
        if value is None:
            said.append((side, end))
            value = float(trace.values[last]) if end in ("bound", "level") else np.nan
        found.append(float(curve.user(np.array(value))))
    return found[0], found[1], _joined(said)
