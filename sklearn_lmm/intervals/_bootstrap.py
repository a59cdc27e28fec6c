"""Bootstrap: refits to responses drawn from the model, or to groups drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_lmm._engine.optimize import Optimum
from sklearn_lmm._engine.refits import lost_a_direction, refit
from sklearn_lmm._engine.result import fixed_effects, result_of
from sklearn_lmm._engine.variance_parameters import values_and_gradient
from sklearn_lmm._progress import progress
from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm._types import FloatArray
from sklearn_lmm._uncertainty import check_coverage
from sklearn_lmm.intervals._draws import seeds
from sklearn_lmm.intervals._error_refits import error_refits
from sklearn_lmm.intervals._parameters import Parameter, all_parameters, estimates
from sklearn_lmm.intervals._samplers import Replicate, Sample, Sampler, sampler_of
from sklearn_lmm.intervals._wald import interval_frame, quantiles

AT_ONCE = 50
"""Replicates of one task; small enough to share work and to show progress."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Replicates of the estimates of a model; what `bootstrap` returns.

    Attributes
    ----------
    replicates : DataFrame of shape (n_resamples, n_parameters)
        Estimates of every refit, by parameter; NaN where a resample does not
        determine a fixed effect, or a coefficient of no variance has no
        correlation.
    fits : DataFrame
        Columns criterion, singular, converged of every refit.
    estimates : Series
        Estimates of the fit itself.
    statistics : DataFrame or None
        What `statistic` returned, one row a refit.
    kind : str
        How the replicates were drawn.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import bootstrap
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("Subject").fit(X, y)
    >>> result = bootstrap(model, X, y, n_resamples=20, random_state=0)
    >>> result.replicates.shape, result.n_singular, result.n_unconverged
    ((20, 4), 0, 0)
    >>> result
    <Bootstrap: parametric, 20 replicates of 4 parameters, 0 singular>
    """

    replicates: pd.DataFrame
    fits: pd.DataFrame
    estimates: pd.Series[float]
    statistics: pd.DataFrame | None
    kind: str
    parameters: tuple[Parameter, ...] = field(repr=False)

    def __repr__(self) -> str:
        """Return kind and size, not the tables."""
        n, p = self.replicates.shape
        return (
            f"<Bootstrap: {self.kind}, {n} replicates of {p} parameters, "
            f"{self.n_singular} singular>"
        )

    @property
    def n_singular(self) -> int:
        """How many refits lie on the boundary."""
        return int(self.fits["singular"].sum())

    @property
    def n_unconverged(self) -> int:
        """How many refits did not converge, or had no full set of columns."""
        return int((~self.fits["converged"]).sum())

    @property
    def std_errors(self) -> pd.Series[float]:
        """Standard deviation of the replicates by parameter."""
        return self.replicates.std()

    @property
    def bias(self) -> pd.Series[float]:
        """Mean of the replicates less the estimate, by parameter."""
        return self.replicates.mean() - self.estimates

    def intervals(
        self, coverage: float = 0.95, *, kind: str = "percentile"
    ) -> pd.DataFrame:
        """Return bootstrap intervals.

        Parameters
        ----------
        coverage : float, default=0.95
            The probability.
        kind : {"percentile", "basic"}, default="percentile"
            Quantiles of the replicates, or the same reflected at the estimate.

        Returns
        -------
        DataFrame
            Columns estimate, lower, upper, note.

        Raises
        ------
        ValueError
            If coverage is not between 0 and 1, or kind is unknown.

        Examples
        --------
        >>> from sklearn_lmm import MixedEffectsRegressor
        >>> from sklearn_lmm.datasets import load_sleepstudy
        >>> from sklearn_lmm.intervals import bootstrap
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedEffectsRegressor("Subject").fit(X, y)
        >>> result = bootstrap(model, X, y, n_resamples=200, random_state=0)
        >>> result.intervals(0.9)[["lower", "upper"]].round(1).loc["Days"].to_list()
        [9.3, 11.7]
        """
        if kind not in ("percentile", "basic"):
            raise ValueError(f"kind={kind!r} is neither 'percentile' nor 'basic'.")
        check_coverage(coverage)
        rows = []
        for parameter in self.parameters:
            estimate = float(self.estimates[parameter.name])
            drawn = self.replicates[parameter.name].dropna().to_numpy()
            lower, upper = _ends(drawn, estimate, coverage, kind)
            note = _note(len(drawn), len(self.replicates))
            rows.append((estimate, lower, upper, note))
        return interval_frame(self.parameters, rows)


def _ends(
    drawn: FloatArray, estimate: float, coverage: float, kind: str
) -> tuple[float, float]:
    if not len(drawn):
        return np.nan, np.nan
    lower, upper = np.quantile(drawn, quantiles(coverage)).tolist()
    if kind == "basic":
        return 2.0 * estimate - upper, 2.0 * estimate - lower
    return lower, upper


def _note(found: int, n: int) -> str:
    if found == n:
        return ""
    return f"{n - found} of {n} replicates have no value and are left out"


@validate_params(
    {
        "kind": [StrOptions({"parametric", "residual", "case"})],
        "n_resamples": [Interval(Integral, 1, None, closed="left")],
        "unit": [str, None],
        "statistic": [callable, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def bootstrap(
    est: Any,
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    sample_weight: Any = None,
    kind: str = "parametric",
    n_resamples: int = 1000,
    unit: str | None = None,
    statistic: Callable[[Any], Any] | None = None,
    n_jobs: int | None = None,
    random_state: Any = None,
) -> Bootstrap:
    """Refit the model to data drawn from it, or to resampled groups.

    Parameters
    ----------
    est : MixedEffectsRegressor
        A fitted estimator.
    X, y, groups, sample_weight : array-like
        The rows of the fit; any others are refused.
    kind : {"parametric", "residual", "case"}, default="parametric"
        "parametric": new random effects and errors from normal distributions.
        "residual": drawn from the predicted effects and the residuals, centred
        and scaled up to the variances of the model (Carpenter, Goldstein and
        Rasbash 2003). "case": whole groups, as they are, drawn with
        replacement; assumes nothing of variances or distributions, but that
        groups are alike. A model with a residual structure has the first only.
    n_resamples : int, default=1000
        How many refits.
    unit : str, default=None
        For "case": the grouping factor whose levels are drawn; by default the
        one that contains all others.
    statistic : callable, default=None
        Called with every refitted estimator; its numbers (a number, an array or
        a Series) are collected.
    n_jobs : int, default=None
        Processes, as joblib counts them. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seed of the draws.

    Returns
    -------
    Bootstrap
        The replicates; `intervals()` turns them into confidence intervals.

    Raises
    ------
    ValueError
        If these are not the rows of the fit, or there is nothing to draw from.

    Examples
    --------
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> from sklearn_lmm.datasets import load_sleepstudy
    >>> from sklearn_lmm.intervals import bootstrap
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> model = MixedEffectsRegressor("(1 + Days | Subject)").fit(X, y)
    >>> result = bootstrap(model, X, y, kind="case", n_resamples=100, random_state=0)
    >>> result.std_errors[["(Intercept)", "Days"]].round(1).to_list()
    [6.9, 1.6]
    """
    check_is_fitted(est)
    data = (X, y, groups, sample_weight)
    design = rows_of_fit(est, *data, plain=None).design
    if est.fit_.perfect:
        raise ValueError(
            "The response is explained exactly: there is no residual variance, and "
            "nothing to draw from."
        )
    if est.fit_.errors is None:
        sampler = sampler_of(est, design, kind, unit)
        replicates = partial(_replicates, est, sampler, statistic)
    else:
        refits = error_refits(est, design, data, kind)
        replicates = partial(refits.replicates, statistic)
    chunks = np.array_split(
        np.array(seeds(random_state, n_resamples), dtype=object),
        max(1, n_resamples // AT_ONCE),
    )
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    tasks = (delayed(replicates)(chunk) for chunk in chunks)
    parts = progress(parallel(tasks), total=len(chunks), description="bootstrap")
    return _collected(est, [one for part in parts for one in part], kind)


def _replicates(
    est: Any,
    sampler: Sampler,
    statistic: Callable[[Any], Any] | None,
    chunk: Sequence[np.random.SeedSequence],
) -> list[Replicate]:
    """Return a chunk of replicates; each has a random generator of its own."""
    parameters = all_parameters(est)
    rngs = [np.random.default_rng(seed) for seed in chunk]
    found = []
    for sample in sampler.samples(rngs):
        optimum = refit(sample.statistics, est.fit_, sample.model)
        if optimum is None:
            nothing = np.full(len(parameters), np.nan)
            found.append(Replicate(nothing, np.nan, False, False))
            continue
        extra = None
        if statistic is not None:
            extra = statistic(_refitted(est, sample, optimum))
        found.append(_replicate(optimum, parameters, extra))
    return found


def _replicate(
    optimum: Optimum, parameters: Sequence[Parameter], statistic: Any
) -> Replicate:
    point = optimum.point
    others = [p.variance for p in parameters if p.variance is not None]
    values, _ = values_and_gradient(point, others)
    return Replicate(
        np.concatenate([fixed_effects(point), values]),
        point.deviance,
        lost_a_direction(point),
        optimum.converged,
        statistic,
    )


def _refitted(est: Any, sample: Sample, optimum: Optimum) -> Any:
    """Return an estimator with the refit's results."""
    fit, layout = est.fit_, est._layout
    result = result_of(
        optimum,
        sample.statistics,
        fit.kept,
        fit.unidentified,
        fit.solver,
        fit.weights,
    )
    if sample.sources is not None:
        pairs = zip(layout.factors, sample.sources, strict=True)
        factors = tuple(
            replace(factor, labels=factor.labels[source]) for factor, source in pairs
        )
        layout = replace(layout, factors=factors)
    return est._with(layout, result)


def _collected(est: Any, found: Sequence[Replicate], kind: str) -> Bootstrap:
    parameters = all_parameters(est)
    names = [parameter.name for parameter in parameters]
    fits = {
        "criterion": [one.criterion for one in found],
        "singular": [one.singular for one in found],
        "converged": [one.converged for one in found],
    }
    statistics = None
    if any(one.statistic is not None for one in found):
        rows = [
            pd.Series(np.nan if s is None else s)
            for s in (one.statistic for one in found)
        ]
        statistics = pd.DataFrame(rows).reset_index(drop=True)
    of_errors = est.residual_parameters_[
        [p.name for p in parameters if p.kind == "error"]
    ]
    values = np.concatenate([est.fixed_effects_, estimates(est).values, of_errors])
    return Bootstrap(
        replicates=pd.DataFrame([one.values for one in found], columns=names),
        fits=pd.DataFrame(fits),
        estimates=pd.Series(values, names, name="estimate"),
        statistics=statistics,
        kind=kind,
        parameters=tuple(parameters),
    )
