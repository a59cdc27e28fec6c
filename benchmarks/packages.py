"""How each Python package fits a case.

A package is constructed with the data in the form that suits it; `fit` is what
is timed, `log_likelihood` is asked of its result.
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
import pandas as pd

from benchmarks.cases import Case

READING = "reading"


class Package(Protocol):
    """A package with the data of a case."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None: ...

    def fit(self) -> Any:
        """Fit the model from scratch."""

    def log_likelihood(self, fitted: Any) -> float:
        """Return log L, or log restricted L, with all constants."""


class SklearnLMM:
    """One call of fit, labels given through `groups`."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None:
        from sklearn_lmm import MixedEffectsRegressor

        self.model = MixedEffectsRegressor(
            case.random, method=case.method, solver=case.solver, random_state=0
        )
        self.X, self.y = frame[list(case.fixed)], frame[case.response]
        self.groups = frame[list(case.groups)]

    def fit(self) -> Any:
        return self.model.fit(self.X, self.y, groups=self.groups)

    def log_likelihood(self, fitted: Any) -> float:
        return float(fitted.log_likelihood_)


class GPBoost:
    """Construction and fit of a GPModel: ML, independent coefficients."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None:
        self.X = with_intercept(frame, case.fixed)
        self.y = frame[case.response].to_numpy(np.float64)
        self.exact = case.solver != "stochastic"
        self.groups = np.column_stack([pd.factorize(frame[g])[0] for g in case.groups])
        self.slopes: dict[str, Any] = {}
        if case.slope is not None:
            self.slopes = {
                "group_rand_coef_data": frame[[case.slope]].to_numpy(np.float64),
                "ind_effect_group_rand_coef": [1],
            }

    def fit(self) -> Any:
        model = self._model()
        model.fit(y=self.y, X=self.X)
        return model

    def log_likelihood(self, fitted: Any) -> float:
        """Evaluate GPBoost's own criterion exactly at the estimates.

        What a fit reports contains a stochastic log-determinant; for cases that
        are too large for anything else it has to do.
        """
        if not self.exact:
            return -float(fitted.get_current_neg_log_likelihood())
        parameters = fitted.get_cov_pars(format_pandas=False).ravel()
        residuals = self.y - self.X @ fitted.get_coef(format_pandas=False).ravel()
        exact = self._model(matrix_inversion_method="cholesky")
        return -float(exact.neg_log_likelihood(cov_pars=parameters, y=residuals))

    def _model(self, **options: Any) -> Any:
        import gpboost

        return gpboost.GPModel(group_data=self.groups, **self.slopes, **options)


class Statsmodels:
    """Construction and fit of a MixedLM: one grouping factor."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None:
        self.X = with_intercept(frame, case.fixed)
        self.y = frame[case.response].to_numpy(np.float64)
        self.Z = with_intercept(frame, (case.slope,) if case.slope else ())
        self.groups = frame[case.groups[0]].to_numpy()
        self.reml = case.method == "reml"

    def fit(self) -> Any:
        from statsmodels.regression.mixed_linear_model import MixedLM

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MixedLM(self.y, self.X, self.groups, self.Z)
            return model.fit(reml=self.reml)

    def log_likelihood(self, fitted: Any) -> float:
        return float(fitted.llf)


class Interlace:
    """One call of fit, from a formula and a frame."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None:
        # Its formulas take neither integers nor categoricals as groups.
        self.frame = frame.astype({group: str for group in case.groups})
        self.formula = f"{case.response} ~ {' + '.join(case.fixed)}"
        self.random = [f"({term})" for term in case.random.strip("()").split(") + (")]
        self.method = case.method.upper()

    def fit(self) -> Any:
        import interlace

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return interlace.fit(
                self.formula, self.frame, random=self.random, method=self.method
            )

    def log_likelihood(self, fitted: Any) -> float:
        return float(fitted.llf)


def with_intercept(frame: pd.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
    ones = np.ones((len(frame), 1))
    return np.hstack([ones, frame[list(columns)].to_numpy(np.float64)])


class Reading:
    """The floor: the keys made integers, and one pass over the columns."""

    def __init__(self, case: Case, frame: pd.DataFrame) -> None:
        self.groups = [frame[group] for group in case.groups]
        self.columns = frame[[*case.fixed, case.response]]

    def fit(self) -> Any:
        for labels in self.groups:
            pd.factorize(labels)
        return self.columns.to_numpy().sum(axis=0)

    def log_likelihood(self, fitted: Any) -> float:
        return 0.0


PACKAGES: dict[str, type[Package]] = {
    "sklearn_lmm": SklearnLMM,
    "gpboost": GPBoost,
    "interlace": Interlace,
    "statsmodels": Statsmodels,
    READING: Reading,
}
