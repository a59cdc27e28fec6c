"""The estimator: its model, and every way in."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from schools import NUMERIC, SCHOOL, X, Y, assert_same_fit, fit
from scipy.stats import multivariate_normal
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from sklearn_lmm import RandomEffect


def test_log_likelihood_is_that_of_the_marginal_normal():
    model = fit("(1 + x | school)", X.drop(columns="town"), method="ml")
    Z = model.design_matrix(X.drop(columns="town"))[0].toarray()
    psi = np.kron(np.eye(12), model.covariances_["school"])
    V = Z @ psi @ Z.T + model.sigma_**2 * np.eye(len(Y))
    mean = model.predict(X.drop(columns="town"), random_effects=False)
    expected = multivariate_normal(mean, V).logpdf(Y)
    np.testing.assert_allclose(model.log_likelihood_, expected, rtol=1e-9)
    L = np.linalg.cholesky(model.covariances_["school"]) / model.sigma_
    np.testing.assert_allclose(model.theta_, L[[0, 1, 1], [0, 0, 1]], rtol=1e-9)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "em"])
def test_solvers_reach_one_optimum(solver):
    model = fit(["(1 + x | school)", "town"], solver=solver)
    reference = fit(["(1 + x | school)", "town"])
    assert model.solver_ == solver
    assert model.converged_ is True
    assert model.singular_ is False
    assert model.n_iter_ >= 1
    assert abs(model.log_likelihood_ - reference.log_likelihood_) < 1e-7


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_without_random_effects_it_is_least_squares(method):
    model = fit([], NUMERIC, method=method)
    ols = LinearRegression().fit(NUMERIC, Y)
    np.testing.assert_allclose(model.coef_, ols.coef_, rtol=1e-10)
    np.testing.assert_allclose(model.predict(NUMERIC), ols.predict(NUMERIC), rtol=1e-10)
    rss = np.sum((Y - ols.predict(NUMERIC)) ** 2)
    df = len(Y) - 3 * (method == "reml")
    np.testing.assert_allclose(model.sigma_, np.sqrt(rss / df), rtol=1e-10)
    assert model.theta_.shape == (0,)
    assert model.n_iter_ == 1


def test_without_an_intercept():
    model = fit("school", X[["x", "school"]], fit_intercept=False)
    assert model.intercept_ == 0.0
    assert model.fixed_effects_.index.tolist() == ["x"]
    nothing_fixed = fit("school", X[["school"]], fit_intercept=False)
    assert nothing_fixed.fixed_effects_.empty
    effects = nothing_fixed.effects_["school"].loc[SCHOOL, "(Intercept)"]
    np.testing.assert_allclose(nothing_fixed.predict(X[["school"]]), effects)


def test_coefficients_line_up_with_the_columns():
    model = fit(["school", "town"], fixed=["z"])
    assert model.coef_.tolist() == [0.0, model.fixed_effects_["z"], 0.0, 0.0]
    assert model.feature_names_in_.tolist() == list(X.columns)
    assert model.n_features_in_ == 4


def test_a_grouping_column_may_have_a_fixed_effect_too():
    model = fit("town", fixed=["x", "town"])
    assert model.fixed_effects_.index.tolist() == ["(Intercept)", "x", "town"]
    assert model.coef_[3] == model.fixed_effects_["town"]


def test_a_slope_may_be_left_out_of_the_fixed_part():
    model = fit("(1 + x | school)", fixed=["z"])
    assert model.effects_["school"].columns.tolist() == ["(Intercept)", "x"]
    assert model.coef_[0] == 0.0


def test_offset_has_coefficient_one_in_fit_and_predict():
    shifted = X.assign(off=np.linspace(-5, 5, len(X)))
    model = fit(["school", "town"], shifted, Y + shifted["off"], offset="off")
    plain = fit(["school", "town"])
    assert_same_fit(model, plain)
    assert model.coef_[4] == 0.0
    np.testing.assert_allclose(
        model.predict(shifted), plain.predict(X) + shifted["off"], rtol=1e-9
    )


LABELS = {
    "strings": SCHOOL.astype(str),
    "floats": SCHOOL.astype(float),
    "categories": SCHOOL.astype("category"),
    "unused categories": pd.Series(pd.Categorical(SCHOOL, range(290, 320))),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_types_of_labels_do_not_matter(labels):
    model = fit(["(1 + x | school)", "town"], X.assign(school=labels))
    reference = fit(["(1 + x | school)", "town"])
    assert_same_fit(model, reference)
    assert len(model.effects_["school"]) == 12


def test_pandas_polars_and_numpy_give_identical_fits():
    spec = [RandomEffect(2, slopes=[0]), -1]
    reference = fit(spec)
    polars = pl.DataFrame(X.to_dict("list"))
    for frame in (polars, X.to_numpy(), X.to_numpy().tolist(), X.astype(object)):
        model = fit(spec, frame, list(Y))
        assert_same_fit(model, reference, rtol=1e-12)
        np.testing.assert_allclose(model.predict(frame), reference.predict(X), 1e-10)
    assert list(fit(spec, polars, pl.Series(Y)).effects_) == ["school", "town"]
    assert list(fit(spec, X.to_numpy()).effects_) == ["x2", "x3"]


@pytest.mark.parametrize(
    ("random", "groups"),
    [
        (None, SCHOOL),
        (None, SCHOOL.to_numpy()),
        (None, X[["school"]]),
        ("school", SCHOOL),
        ("(1 | groups)", SCHOOL.to_numpy()),
        (RandomEffect(), pl.Series("school", SCHOOL.to_numpy())),
    ],
)
def test_labels_through_groups_equal_labels_in_X(random, groups):
    inside = fit("school", X[["x", "z", "school"]])
    outside = fit(random, NUMERIC, groups=groups)
    assert_same_fit(outside, inside, rtol=1e-12)
    expected = inside.predict(X[["x", "z", "school"]])
    np.testing.assert_array_equal(outside.predict(NUMERIC, groups), expected)
    np.testing.assert_array_equal(outside.predict(NUMERIC, list(SCHOOL)), expected)


@pytest.mark.parametrize(
    "groups", [X[["school", "town"]], X[["school", "town"]].to_numpy()]
)
def test_several_factors_through_groups(groups):
    outside = fit(None, NUMERIC, groups=groups)
    assert_same_fit(outside, fit(["school", "town"]), rtol=1e-12)
    assert len(outside.effects_) == 2


def test_notation_equals_the_terms_spelled_out():
    spelled = [RandomEffect("school", "x", covariance="diagonal"), RandomEffect("town")]
    assert_same_fit(fit("(x || school) + (1 | town)"), fit(spelled), rtol=1e-12)
    split = fit(["school", RandomEffect("school", "x", intercept=False), "town"])
    assert_same_fit(split, fit(spelled), rtol=1e-6)


def test_interaction_is_the_factor_of_pairs():
    pairs = X["school"].astype(str) + "/" + X["town"].astype(str)
    model = fit(("school", "town"))
    by_hand = fit("pair", NUMERIC.assign(pair=pairs))
    assert list(model.effects_) == ["school:town"]
    np.testing.assert_allclose(
        model.predict(X), by_hand.predict(NUMERIC.assign(pair=pairs)), rtol=1e-9
    )


def test_unseen_cell_of_a_nested_factor_keeps_the_outer_effect():
    model = fit("(1 | school/town)")
    new = X[:1].assign(town=99)
    fixed = model.predict(new, random_effects=False)
    outer = model.effects_["school"].loc[new["school"], "(Intercept)"]
    np.testing.assert_allclose(model.predict(new), fixed + outer.to_numpy())


def test_some_covariances_tie_the_variances():
    identity = fit(RandomEffect("school", "x", covariance="identity"))
    covariance = identity.covariances_["school"].to_numpy()
    assert covariance[0, 0] == covariance[1, 1]
    assert covariance[0, 1] == 0
    tied = fit(RandomEffect("school", "x", covariance="compound_symmetry"))
    covariance = tied.covariances_["school"].to_numpy()
    np.testing.assert_allclose(covariance[0, 0], covariance[1, 1])
    assert covariance[0, 1] != 0


def test_rows_of_weight_zero_do_not_count():
    weights = np.ones(len(Y))
    weights[::7] = 0
    spoilt = X.assign(school=np.where(weights > 0, X["school"], 999))
    kept = weights > 0
    model = fit(["school", "town"], spoilt, sample_weight=weights)
    assert_same_fit(model, fit(["school", "town"], X[kept], Y[kept]))
    assert 999 not in model.effects_["school"].index


def test_frequency_weights_are_repeated_rows():
    weights = np.arange(len(Y)) % 3
    repeated = np.repeat(np.arange(len(Y)), weights)
    model = fit(["school", "town"], sample_weight=weights)
    assert_same_fit(model, fit(["school", "town"], X.iloc[repeated], Y[repeated]))


def test_precision_weights_scale_the_residual_variance():
    reference = fit(["school", "town"])
    weights = np.full(len(Y), 4.0)
    model = fit(["school", "town"], sample_weight=weights, weights="precision")
    np.testing.assert_allclose(model.sigma_, 2 * reference.sigma_, rtol=1e-7)
    np.testing.assert_allclose(model.log_likelihood_, reference.log_likelihood_)


def test_effects_of_chosen_factors():
    model = fit(["school", "town"])
    parts = model.decompose(X)
    for chosen, columns in (
        (False, ["fixed"]),
        ([], ["fixed"]),
        (["town"], ["fixed", "town"]),
        ("school", ["fixed", "school"]),
        (["town", "school"], ["fixed", "school", "town"]),
        (True, ["total"]),
    ):
        np.testing.assert_allclose(
            model.predict(X, random_effects=chosen), parts[columns].sum(axis=1)
        )
    with pytest.raises(ValueError, match=r"random_effects names \['city'\]"):
        model.predict(X, random_effects=["city"])


def test_unknown_levels_under_both_policies():
    new = X[:3].assign(school=[300, 1, 2])
    model = fit(["school", "town"])
    parts = model.decompose(new)
    assert parts["school"].tolist()[1:] == [0.0, 0.0]
    assert (parts["town"] != 0).all()
    strict = model.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="Unknown levels of 'school' in 2 rows: 1, 2"):
        strict.predict(new)
    assert strict.predict(new, random_effects=["town"]).shape == (3,)
    np.testing.assert_array_equal(strict.predict(X), fit(["school", "town"]).predict(X))


def test_missing_labels_count_as_unknown_at_predict():
    frame = X.assign(school=SCHOOL.astype("Int64"))
    model = fit(["school", "town"], frame)
    new = frame[:2].copy()
    new.loc[0, "school"] = pd.NA
    parts = model.decompose(new)
    assert parts["school"].iloc[0] == 0
    assert parts["school"].iloc[1] != 0
    with pytest.raises(ValueError, match="labels of 'school' are missing"):
        fit(["school", "town"], frame.assign(school=frame["school"].where(X["x"] > 0)))


def test_labels_of_another_type_are_refused_at_predict():
    model = fit(["school", "town"])
    with pytest.raises(ValueError, match=r"'school' are text \(str\).*numbers \(int64"):
        model.predict(X.assign(school=SCHOOL.astype(str)))
    as_floats = X.assign(school=SCHOOL.astype(float))
    np.testing.assert_array_equal(model.predict(as_floats), model.predict(X))


def test_score_is_r2_of_the_prediction():
    model = fit(None, NUMERIC, groups=SCHOOL)
    weights = np.arange(len(Y))
    assert model.score(NUMERIC, Y, groups=SCHOOL) == r2_score(
        Y, model.predict(NUMERIC, SCHOOL)
    )
    assert model.score(NUMERIC, Y, groups=SCHOOL, sample_weight=weights) == r2_score(
        Y, model.predict(NUMERIC, SCHOOL), sample_weight=weights
    )
