"""The estimator: validate, delegate, store."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_lmm._engine.design import Design
from sklearn_lmm._engine.error_fit import fit_with_errors
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.result import LMMFit
from sklearn_lmm._formula import has_response, needs_groups
from sklearn_lmm._layout import Layout, learn
from sklearn_lmm._messages import no_groups, warn_about
from sklearn_lmm._predicting import PredictsMixin
from sklearn_lmm._residual_columns import ErrorColumns
from sklearn_lmm._residual_fit import read_errors, residual_parameters
from sklearn_lmm._results import (
    column_coefficients,
    factor_frames,
    fixed_effects,
)
from sklearn_lmm._updating import UpdatesMixin
from sklearn_lmm.residuals._base import ResidualStructure


class MixedEffectsRegressor(PredictsMixin, UpdatesMixin, RegressorMixin, BaseEstimator):
    """Linear regression with coefficients that vary between groups of rows.

    The model is y = X beta + Z b + e with b ~ N(0, Psi), one covariance for
    each grouping factor, and e ~ N(0, sigma^2 I): what is known as a linear
    mixed-effects, multilevel or hierarchical model.

    Parameters
    ----------
    random : None, str, int, tuple, RandomEffect or list of them, default=None
        What varies by group. None: an intercept for every factor in `groups`;
        []: nothing; "school" or 3: an intercept for that column of X; a tuple:
        for the interaction of its factors; a list: several terms; a string with
        a bar: lme4's notation, as in "(1 + standLRT | school) + (1 | student)".
    fixed : list of str or int, default=None
        Columns of X with fixed effects. None: every column that is neither a
        grouping column nor the offset.
    offset : str or int, default=None
        A column of X whose coefficient is 1, in fit and predict.
    residual : ResidualStructure, default=None
        Errors that are correlated or not equal in size, from
        `sklearn_lmm.residuals`, as in ``AR1("week") * PowerVariance("age")``.
        None: independent errors of one variance.
    formula : str, default=None
        The whole model in lme4's notation, in place of random, fixed and offset:
        "score ~ Machine + offset(o) + (1 | Worker/Machine)". X is a DataFrame, of
        which columns that are not named are ignored. The left side is the
        response if `fit` gets no y (then cross-validation has its default scorer
        only, since those with a name need y). What formulaic understands may be
        used: categories (coded with treatment contrasts, ordered ones with
        polynomials), interactions, poly, bs, cs, scale, C, I, also before a bar,
        as in "(0 + Machine | Worker)". What is learnt of the rows of the fit
        holds for later rows. A double bar makes all columns before it
        independent, those of a category, too. Columns have R's names:
        "MachineB". Needs the package formulaic.
    na_action : {"raise", "drop"}, default="raise"
        What fit and score do with rows that lack a value which the formula
        reads: refuse them, or leave them out, of y, groups and weights alike.
    fit_intercept : bool, default=True
        Whether the fixed part has an intercept.
    method : {"reml", "ml"}, default="reml"
        Restricted or ordinary maximum likelihood.
    solver : {"auto", "newton", "lbfgs", "em", "stochastic"}, default="auto"
        The optimiser. The first three after "auto" reach the same optimum.
        "stochastic" is for crossed factors with so many levels that a matrix of
        the smaller ones would not fit into memory: it solves by conjugate
        gradients and estimates traces with random vectors, more of them until
        theta is right to 1 % of its standard error. What error is left stands
        in `fit_.monte_carlo`. Elsewhere it is the same as "newton". "auto" is
        "newton", or "stochastic" with a `StochasticFitWarning` where newton
        would need a quarter of the memory or many minutes.
    handle_unknown : {"population", "error"}, default="population"
        What predict does with rows of an unknown level or without a label:
        leave that factor's effect out, or raise a ValueError. "error" also
        refuses to fit without the labels that a term takes from `groups`.
    weights : {"frequency", "precision"}, default="frequency"
        What `sample_weight` means: so many equal rows each, or a residual
        variance of sigma^2 / weight.
    max_iter : int, default=None
        Most iterations; None is 100 for newton, 1000 for lbfgs, 5000 for em.
    tol : float, default=1e-8
        Newton decrement, in units of the deviance, that counts as converged.
    random_state : int, RandomState instance or None, default=None
        Seed of the random vectors of "stochastic"; an integer makes fits
        reproducible.
    verbose : int, default=0
        1 prints a line each iteration.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features_in_,)
        Fixed effect of each column of X; 0.0 for grouping, offset, unused and
        dropped columns. With a formula: of each column that it makes.
    intercept_ : float
        Fixed intercept.
    fixed_effects_ : Series
        The fixed effects that were estimated, the intercept included.
    effects_ : dict of str to DataFrame
        Per grouping factor the predicted random effects, one row a level.
    covariances_ : dict of str to DataFrame
        Per grouping factor the covariance of its random effects.
    sigma_ : float
        Residual standard deviation.
    residual_parameters_ : Series
        Parameters of the residual structure, those that were given included.
    theta_ : ndarray
        Relative covariance parameters, term after term.
    log_likelihood_ : float
        Logarithm of the maximised (restricted) likelihood.
    n_iter_ : int
        Iterations, at least 1.
    converged_, singular_ : bool
        Whether the optimum was reached; whether it lies on the boundary, with
        a covariance that is singular.
    solver_ : str
        The optimiser that was used.
    n_features_in_ : int
        Number of columns of X; with a formula, of those that it reads.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if it had names.
    fit_ : LMMFit
        The engine's result.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_lmm import MixedEffectsRegressor
    >>> X = pd.DataFrame({
    ...     "dose": [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0],
    ...     "clinic": ["a", "a", "a", "b", "b", "b", "c", "c", "c"],
    ... })
    >>> y = [1.1, 2.0, 3.2, 4.0, 5.3, 5.9, 2.3, 2.9, 4.1]
    >>> model = MixedEffectsRegressor("clinic").fit(X, y)
    >>> model.coef_.round(3)
    array([0.967, 0.   ])
    >>> new = pd.DataFrame({"dose": [1.0, 1.0], "clinic": ["b", "unheard of"]})
    >>> model.predict(new).round(2)
    array([5.06, 3.42])
    """

    _errors: ErrorColumns | None = None
    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        # parse_random and the columns' own checks point at the place.
        "random": "no_validation",
        "fixed": "no_validation",
        "offset": "no_validation",
        "residual": "no_validation",
        "formula": [str, None],
        "na_action": [StrOptions({"raise", "drop"})],
        "fit_intercept": ["boolean"],
        "method": [StrOptions({"reml", "ml"})],
        "solver": [StrOptions({"auto", "newton", "lbfgs", "em", "stochastic"})],
        "handle_unknown": [StrOptions({"population", "error"})],
        "weights": [StrOptions({"frequency", "precision"})],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        random: Any = None,
        *,
        fixed: Any = None,
        offset: Any = None,
        residual: ResidualStructure | None = None,
        formula: str | None = None,
        na_action: str = "raise",
        fit_intercept: bool = True,
        method: str = "reml",
        solver: str = "auto",
        handle_unknown: str = "population",
        weights: Literal["frequency", "precision"] = "frequency",
        max_iter: int | None = None,
        tol: float = 1e-8,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.random = random
        self.fixed = fixed
        self.offset = offset
        self.residual = residual
        self.formula = formula
        self.na_action = na_action
        self.fit_intercept = fit_intercept
        self.method = method
        self.solver = solver
        self.handle_unknown = handle_unknown
        self.weights = weights
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any = None, *, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Fit the model by (restricted) maximum likelihood.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix of shape (n_samples, n_features)
            Covariates, and grouping columns if `random` names any. A sparse
            matrix, whose columns have positions but no names, is never made
            dense, here or later; up to 5000 of its columns can be fixed effects.
        y : array-like of shape (n_samples,)
            Response; None takes it from the left side of the formula.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors)
            Labels of the rows: an array, a Series or a DataFrame with one
            column a factor.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, in the meaning that the parameter `weights` gives them.
            Rows of weight 0 do not count at all.

        Returns
        -------
        self : MixedEffectsRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data or a parameter cannot be used; the message has the cure.
        """
        layout, design = learn(self, X, y, groups, sample_weight)
        data = (X, y, groups, sample_weight)
        return self._finish(layout, self._fit_design(layout, design, *data))

    def _fit_design(self, layout: Layout, design: Design, *data: Any) -> LMMFit:
        """Fit a design that was read from data: X, y, groups and sample_weight."""
        if self.residual is None:
            self._errors = None
            return fit(design, **self._options())
        self._errors, errors = read_errors(self, layout, design, *data)
        return fit_with_errors(design, errors, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """Return the options of a fit that draws nothing."""
        options = self._options()
        del options["draw_seed"]
        return options

    def _options(self) -> dict[str, Any]:
        """Return what the engine wants to know of the parameters."""
        return {
            "reml": self.method == "reml",
            "weights": self.weights,
            "solver": self.solver,
            "max_iter": self.max_iter,
            "tol": self.tol,
            "draw_seed": self._draw_seed,
            "verbose": self.verbose,
        }

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _finish(self, layout: Layout, result: LMMFit) -> Self:
        if layout.roles.no_groups and self.handle_unknown == "error":
            raise ValueError(no_groups(layout.roles))
        self._keep(layout, result)
        warn_about(layout, result, solver=self.solver)
        return self

    def _keep(self, layout: Layout, result: LMMFit) -> None:
        """Store a result, and express it in the user's names."""
        self._layout = layout
        self.fit_ = result
        self.coef_ = column_coefficients(layout, result)
        self.intercept_ = float(result.beta[0]) if layout.roles.intercept else 0.0
        self.fixed_effects_ = fixed_effects(layout, result)
        self.effects_, self.covariances_ = factor_frames(layout, result)
        self.sigma_ = result.sigma
        self.residual_parameters_ = residual_parameters(self._errors, result)
        self.theta_ = result.theta
        self.log_likelihood_ = result.log_likelihood
        self.n_iter_ = max(1, result.n_iter)
        self.converged_ = result.converged
        self.singular_ = result.singular
        self.solver_ = result.solver

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.formula is None
        tags.target_tags.required = not has_response(self)
        return tags

    def get_metadata_routing(self) -> Any:
        """Return which metadata this estimator asks for.

        Unless set by `set_fit_request`, `groups` is requested by fit if a random
        effect takes its labels from there (`random=None`, `RandomEffect(None)`, the
        name "groups"), else not. The other methods request what fit does, unless
        they are set themselves.

        Returns
        -------
        MetadataRequest
            The requests of every method.
        """
        routing = super().get_metadata_routing()
        wanted: Any = needs_groups(self)
        for method in ("fit", "partial_fit", "predict", "score"):
            request = getattr(routing, method)
            # None is "not set": what the user has set stays.
            if request.requests.get("groups") is None:
                request.add_request(param="groups", alias=wanted)
            if method == "fit":
                # Labels of another name belong to other groups.
                wanted = request.requests["groups"]
        return routing
