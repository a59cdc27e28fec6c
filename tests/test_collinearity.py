"""Variance inflation and condition numbers, against the rows."""

import numpy as np
import pandas as pd
import pytest
from dense_rows import Dense
from models import fitted, model
from numpy.testing import assert_allclose
from schools import NUMERIC, X, Y, fit

from sklearn_lmm import lmer
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm.diagnostics import collinearity, condition_numbers

RNG = np.random.default_rng(0)
DATA = X.assign(
    near=X["x"] + 0.3 * RNG.normal(size=len(X)), kind=RNG.choice(["a", "b", "c"], 120)
)


def test_of_least_squares_it_is_one_over_one_less_R2():
    data = DATA[["x", "z", "near"]]
    table = collinearity(fit([], data))
    for name in data:
        others = np.column_stack([np.ones(len(data)), data.drop(columns=name)])
        column = data[name] - data[name].mean()
        left = column - others @ np.linalg.lstsq(others, column)[0]
        vif = column @ column / (left @ left)
        assert_allclose(table.loc[name, "vif"], vif)
        assert_allclose(table.loc[name, "tolerance"], 1 / vif)
        assert_allclose(table.loc[name, "std_error_factor"], np.sqrt(vif))
    assert collinearity(fit([], NUMERIC))["vif"].max() < 1.1


def test_of_a_mixed_model_it_is_that_of_whitened_columns():
    est = fit(["(1 + x | school)", "town"], DATA.drop(columns="kind"))
    given = rows_of_fit(est, DATA.drop(columns="kind"), Y)
    rows = FittedRows.of(given.fit, given.design)
    dense = Dense(rows)
    w, Q = np.linalg.eigh(dense.V)
    white = Q.T / np.sqrt(w)[:, None]
    ones, columns = white.sum(axis=1), white @ DATA[["x", "z", "near"]].to_numpy()
    columns = columns - np.outer(ones, ones @ columns / (ones @ ones))
    R = np.linalg.inv(correlation(columns))
    assert_allclose(collinearity(est)["vif"], np.diag(R), rtol=1e-8)
    design = np.column_stack([np.ones(len(Y)), DATA[["x", "z", "near"]]])
    numbers = condition_numbers(est)
    assert_allclose(numbers["columns"], condition(design), rtol=1e-8)
    assert_allclose(numbers["whitened"], condition(white @ design), rtol=1e-8)


def correlation(columns):
    gram = columns.T @ columns
    return gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))


def condition(columns):
    return np.linalg.cond(columns / np.linalg.norm(columns, axis=0))


def test_terms_of_several_columns():
    frame = DATA.assign(y=Y)
    est = lmer("y ~ x + near + kind + (1 | school)", frame)
    table = collinearity(est)
    assert table["n_columns"].to_dict() == {"x": 1, "near": 1, "kind": 2}
    R = est.fit_.beta_covariance[1:, 1:]
    R = R / np.sqrt(np.outer(np.diag(R), np.diag(R)))
    names = list(est.fixed_effects_.index[1:])
    own = [names.index(name) for name in names if name.startswith("kind")]
    others = [j for j in range(4) if j not in own]
    vif = np.linalg.det(R[np.ix_(own, own)]) * np.linalg.det(R[np.ix_(others, others)])
    vif /= np.linalg.det(R)
    assert_allclose(table.loc["kind", "vif"], vif)
    assert_allclose(table.loc["kind", "std_error_factor"], vif**0.25)
    given = collinearity(est, terms={"both": ["x", "near"], "z": names[own[0]]})
    assert list(given.index) == ["both", "z"]
    assert given.loc["both", "vif"] < 1.2 < table.loc["x", "vif"]


def test_dropped_columns_and_models_without_any():
    m, (est, _) = model("sleep_rankdef_reml"), fitted("sleep_rankdef_reml")
    assert list(collinearity(est).index) == ["Days"]
    assert_allclose(collinearity(est)["vif"], 1.0)
    assert m.X.shape[1] == 2
    est, _ = fitted("dyestuff_reml")
    assert collinearity(est).empty
    assert_allclose(condition_numbers(est), 1.0)
    est, _ = fitted("sleep_nointercept_reml")
    assert_allclose(
        collinearity(est)["vif"], np.diag(np.linalg.inv(correlated(est))), rtol=1e-9
    )


def correlated(est):
    V = est.fit_.beta_covariance
    return V / np.sqrt(np.outer(np.diag(V), np.diag(V)))


def test_a_perfect_fit_has_them_too():
    y = 2.0 * X["x"].to_numpy()
    with pytest.warns(UserWarning, match="exactly"):
        est = fit("school", y=y)
    frame = collinearity(est)
    assert isinstance(frame, pd.DataFrame)
    assert (frame["vif"] < 1.5).all()


def test_unknown_terms_are_refused():
    with pytest.raises(ValueError, match="'w'"):
        collinearity(fit("school"), terms={"both": ["x", "w"]})
