"""The encoder: validate, delegate, store."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    process_routing,
)
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from sklearn_lmm._columns import listed
from sklearn_lmm._encoder_input import (
    choose_columns,
    make_recipe,
    read,
    read_rows,
    read_target,
)
from sklearn_lmm._encoder_messages import Findings, refuse_unknown
from sklearn_lmm._encoder_models import (
    Model,
    cross_fit,
    fit_models,
    look_up,
    make_lookups,
)
from sklearn_lmm._types import AnyArray, FloatArray
from sklearn_lmm.terms import INTERCEPT


class RandomEffectsEncoder(TransformerMixin, BaseEstimator):
    """Encode categories by random effects, each shrunken as far as the data say.

    A column of labels becomes a column of numbers on the scale of y.  Category
    g is encoded as mu + b_g, where y = mu + x'beta + b_g + e is a mixed model
    with b_g ~ N(0, psi): the expected y of the category, drawn towards the mean
    mu of all categories the more, the fewer rows it has and the smaller the
    variance psi between categories is beside the residual one.  psi is estimated
    by REML; where categories do not matter it is 0, and the column constant.

    As in `sklearn.preprocessing.TargetEncoder`, `fit_transform` encodes each
    row by a fit to the rows outside its fold and so differs from
    ``fit(X, y).transform(X)``: use it for the rows that a later step learns
    from, as a Pipeline does.  Missing labels are a category like any other.
    The output has the encoded columns only.

    Parameters
    ----------
    columns : str, int or list of them, default=None
        The columns to encode, by name or position.  None: those that are not
        numeric, or all if X is an array or has numeric columns only; never those
        in `adjust_for` or `slopes`.
    joint : bool, default=True
        Whether one model has the effects of all encoded columns (crossed or
        nested), so that each is adjusted for the others.  False: a model each,
        which is the choice for several columns of more than some 5000
        categories: of all columns but the largest, time grows with the cube and
        memory with the square of the number of categories, unless nested.
    adjust_for : str, int or list of them, default=()
        Numeric columns whose linear effect is taken out of the encoding.  They
        count at their mean: mu is the expected y of an average row.  A missing
        value counts as the mean, too.
    slopes : str, int or list of them, default=()
        Numeric columns whose coefficient varies by category, too.  Each adds,
        for every encoded column, an output column with the category's slope;
        the encoding itself is for the mean of these columns.
    extras : {"std", "count"} or list of them, default=()
        More output columns: the conditional standard deviation of every effect
        (for an unknown category that of the effects in general), and the number
        of rows that the encoding rests on (0 for an unknown category).
    method : {"reml", "ml"}, default="reml"
        Restricted or ordinary maximum likelihood.
    handle_unknown : {"population", "error"}, default="population"
        What `transform` does with categories that were not there at fit: encode
        them as mu, or raise a ValueError.
    cv : int, cross-validation generator or iterable of splits, default=5
        The folds of `fit_transform`.  An int (None is 5) means KFold, or
        StratifiedKFold if y is binary.  A splitter that needs `groups` gets them
        by metadata routing.
    shuffle : bool, default=True
        Whether rows are shuffled before they are split, if `cv` is an int.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    Attributes
    ----------
    encodings_ : dict of str to Series
        For every encoded column the encodings by category, of all rows.
    target_mean_ : dict of str to float
        For every encoded column mu, as which an unknown category is encoded.
    covariances_ : dict of str to DataFrame
        For every encoded column the covariance of the effects, intercept first.
    classes_ : ndarray of shape (2,) or None
        The classes of a binary y, which count as 0 and 1; None for numbers.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if it had names.

    See Also
    --------
    MixedEffectsRegressor : The model itself, as a regressor.

    Notes
    -----
    A y of two different values, text or numbers, is binary: in sorted order they
    count as 0 and 1, and encodings are shrunken shares of the second.  This is
    the linear model, not a logistic one.  Text of more classes is refused; numbers
    of more values are taken as they are, whole ones included.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_lmm import RandomEffectsEncoder
    >>> X = pd.DataFrame({"shop": ["a"] * 4 + ["b"] * 4 + ["c"]})
    >>> y = [3.0, 6.0, 5.0, 2.0, 9.0, 6.0, 7.0, 10.0, 2.0]
    >>> encoder = RandomEffectsEncoder(extras="count").set_output(transform="pandas")
    >>> encoder.fit(X, y).transform(pd.DataFrame({"shop": ["b", "c", "unheard of"]}))
           shop  shop_count
    0  7.691066         4.0
    1  2.883372         1.0
    2  4.887510         0.0
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        # The columns' own checks point at the place.
        "columns": "no_validation",
        "joint": ["boolean"],
        "adjust_for": "no_validation",
        "slopes": "no_validation",
        "extras": "no_validation",
        "method": [StrOptions({"reml", "ml"})],
        "handle_unknown": [StrOptions({"population", "error"})],
        "cv": ["cv_object"],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        columns: Any = None,
        *,
        joint: bool = True,
        adjust_for: Any = (),
        slopes: Any = (),
        extras: Any = (),
        method: str = "reml",
        handle_unknown: str = "population",
        cv: Any = 5,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.columns = columns
        self.joint = joint
        self.adjust_for = adjust_for
        self.slopes = slopes
        self.extras = extras
        self.method = method
        self.handle_unknown = handle_unknown
        self.cv = cv
        self.shuffle = shuffle
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> RandomEffectsEncoder:
        """Learn the encodings from all rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The columns to encode, and any that they are adjusted for.
        y : array-like of shape (n_samples,)
            Numbers, or labels of two classes.

        Returns
        -------
        self : RandomEffectsEncoder
            The fitted encoder.

        Raises
        ------
        ValueError
            If the data or a parameter cannot be used; the message has the cure.
        """
        findings = self._learn(X, y)
        _warn(findings, stacklevel=4)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any, **params: Any) -> FloatArray:
        """Learn the encodings, and encode each row without looking at its own y.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The columns to encode, and any that they are adjusted for.
        y : array-like of shape (n_samples,)
            Numbers, or labels of two classes.
        **params : dict
            Metadata for the splitter `cv`, such as `groups`, with metadata
            routing switched on.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            Every row as encoded by a fit to the rows outside its fold.

        Raises
        ------
        ValueError
            If the data or a parameter cannot be used, or if the folds do not
            have every row once.
        """
        _raise_for_params(params, self, "fit_transform")
        findings = self._learn(X, y)
        splits = self._splits(X, findings.rows.y, params)
        encoded, folds = cross_fit(findings.rows, self._recipe, splits)
        _warn(replace(findings, folds=folds), stacklevel=5)
        return encoded

    def transform(self, X: Any) -> FloatArray:
        """Encode rows by what was learnt from all rows of the fit.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows with the columns of the fit.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            The encoded columns, each followed by its slopes and extras.

        Raises
        ------
        ValueError
            If the columns are not those of the fit, or a category is unknown
            and `handle_unknown="error"`.
        """
        check_is_fitted(self)
        table = read(self, X, fitting=False)
        codes = []
        for j, categories in zip(self._columns.encoded, self._categories, strict=True):
            column = table.column(j)
            codes.append(categories.match(column))
            if self.handle_unknown == "error":
                refuse_unknown(table.names[j], column, codes[-1])
        return look_up(self._lookups, codes)

    def get_feature_names_out(self, input_features: Any = None) -> AnyArray:
        """Return the names of the output columns.

        A column "shop" gives "shop"; then "shop_price" for a slope of "price",
        "shop_std" and "shop_price_std", and "shop_count".

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X, those of the fit if it had names.

        Returns
        -------
        ndarray of str
            Names, in the order of the output.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.array(self._columns.output_names(names, self._recipe), dtype=object)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return which metadata goes where: what `cv` asks for, to its splits.

        Returns
        -------
        MetadataRouter
            The routing of `fit_transform`.
        """
        mapping = MethodMapping().add(caller="fit_transform", callee="split")
        return MetadataRouter(owner=self).add(splitter=self.cv, method_mapping=mapping)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags

    def _learn(self, X: Any, y: Any) -> Findings:
        """Fit the models to all rows and keep what `transform` needs of them."""
        table = read(self, X, y, fitting=True)
        columns = choose_columns(table, self.columns, self.adjust_for, self.slopes)
        recipe = make_recipe(columns, self.joint, self.extras, self.method)
        _refuse_repeated(columns.output_names(table.names, recipe))
        response, self.classes_ = read_target(y, len(table))
        rows, self._categories = read_rows(table, columns, response)
        models = fit_models(rows, recipe)
        self._columns, self._recipe = columns, recipe
        self._lookups = make_lookups(models, rows.sizes)
        self._describe(table.names, models)
        return Findings(table.names, columns, rows, models, ())

    def _describe(self, names: Sequence[str], models: Sequence[Model]) -> None:
        """Express what was learnt in the user's names."""
        coefficients = [INTERCEPT, *(names[j] for j in self._columns.slopes)]
        self.encodings_, self.target_mean_, self.covariances_ = {}, {}, {}
        for model, group in ((m, group) for m in models for group in m.groups):
            name = names[self._columns.encoded[group.column]]
            self.encodings_[name] = pd.Series(
                self._lookups[group.column][:-1, 0],
                index=self._categories[group.column].index(),
                name="encoding",
            )
            self.target_mean_[name] = float(model.fit.beta[0])
            self.covariances_[name] = pd.DataFrame(
                model.covariance(group), coefficients, coefficients
            )

    def _splits(
        self, X: Any, y: FloatArray, params: dict[str, Any]
    ) -> list[tuple[AnyArray, AnyArray]]:
        """Return the folds as (rows to learn from, rows to encode)."""
        routed = process_routing(self, "fit_transform", **params)
        cv = self.cv
        if cv is None or isinstance(cv, Integral):
            kind = KFold if self.classes_ is None else StratifiedKFold
            seed = self.random_state if self.shuffle else None
            cv = kind(5 if cv is None else cv, shuffle=self.shuffle, random_state=seed)
        splits = list(check_cv(cv).split(X, y, **routed.splitter.split))
        times = np.zeros(len(y), dtype=np.intp)
        for _, inside in splits:
            times[inside] += 1
        if (times != 1).any():
            raise ValueError(
                f"The folds of cv={self.cv!r} do not encode every row once: "
                f"{np.sum(times == 0)} rows never, {np.sum(times > 1)} more than once. "
                "Use a splitter whose test sets have every row once, such as KFold, "
                "StratifiedKFold or GroupKFold."
            )
        return splits


def _refuse_repeated(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Several output columns would be called {listed(twice)}. Rename the "
            "columns of X."
        )


def _warn(findings: Findings, stacklevel: int) -> None:
    for category, text in findings.messages():
        warnings.warn(text, category, stacklevel=stacklevel)
