"""Forecasts are the best linear predictions of universal kriging, done densely."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.linalg import block_diag

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.datasets import load_ovary
from sklearn_lmm.forecasting import forecast
from sklearn_lmm.residuals import (
    AR1,
    EqualCorrelation,
    Exponential,
    PowerVariance,
    UnstructuredErrors,
)


def series(seed=0, n_series=12, length=12, n_items=4):
    """Return rows of series with gaps, in random order, and new rows of some."""
    rng = np.random.default_rng(seed)
    days = np.tile(np.arange(length + 3), n_series)
    data = pd.DataFrame(
        {
            "day": days,
            "who": np.repeat([f"w{i}" for i in range(n_series)], length + 3),
            "item": rng.choice([f"i{i}" for i in range(n_items)], len(days)),
            "x": rng.normal(size=len(days)),
            "size": rng.uniform(1.0, 3.0, len(days)),
        }
    )
    errors = np.empty(len(data))
    for i in range(len(data)):
        shock = rng.normal()
        first = days[i] == 0
        errors[i] = shock if first else 0.4 * errors[i - 1] + 0.9 * shock
    who = data["who"].str[1:].astype(int).to_numpy()
    slopes = 0.5 * rng.normal(size=n_series)
    item = data["item"].str[1:].astype(int).to_numpy()
    data["y"] = (
        2.0
        + data["x"] * (1.0 + slopes[who])
        + rng.normal(size=n_series)[who]
        + rng.normal(size=n_items)[item]
        + errors * data["size"]
    )
    later = (data["day"] >= length) | (rng.uniform(size=len(data)) < 0.1)
    return data[~later].sample(frac=1, random_state=seed), data[later]


def ar1(data, phi):
    who, day = data["who"].to_numpy(), data["day"].to_numpy()
    return (who[:, None] == who) * phi ** np.abs(day[:, None] - day)


def kriged(model, past, new, correlation):
    """Return prediction and variance from the covariance of all rows."""
    both = pd.concat([past, new])
    n = len(past)
    Z, _ = model.design_matrix(both[list(model.feature_names_in_)])
    blocks = [np.zeros((0, 0))]
    for term in model._layout.roles.terms:
        name = model._layout.roles.groupings[term.factor].name
        covariance = model.covariances_[name].iloc[term.columns, term.columns]
        levels = len(model.effects_[name])
        blocks.append(np.kron(np.eye(levels), covariance))
    G = block_diag(*blocks)
    Z = Z.toarray()
    V = Z @ G @ Z.T + model.sigma_**2 * correlation(both)
    X = np.column_stack([np.ones(len(both)), both["x"]])
    inverse = np.linalg.inv(V[:n, :n])
    H = np.linalg.inv(X[:n].T @ inverse @ X[:n])
    y = past["y"].to_numpy()
    beta = H @ X[:n].T @ inverse @ y
    w = inverse @ V[:n, n:]
    d = X[n:] - w.T @ X[:n]
    variance = np.diag(V[n:, n:] - V[n:, :n] @ w + d @ H @ d.T)
    return X[n:] @ beta + w.T @ (y - X[:n] @ beta), variance


MODELS = {
    "slopes": ("(1 + x | who)", AR1("day", "who")),
    "crossed": (["who", "item"], AR1("day", "who")),
    "sizes": ("who", AR1("day", "who") * PowerVariance("size")),
    "no random effects": ([], AR1("day", "who")),
}
COLUMNS = ["x", "day", "who", "item", "size"]


def deviations(model, data):
    return data["size"].to_numpy() ** model.residual_parameters_.get("power[size]", 0.0)


@pytest.mark.filterwarnings("ignore::sklearn_lmm.exceptions.SingularFitWarning")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_forecasts_are_those_of_kriging(name, method):
    random, residual = MODELS[name]
    past, new = series()
    model = MixedEffectsRegressor(
        random, fixed=["x"], residual=residual, method=method
    ).fit(past[COLUMNS], past["y"])
    phi = model.residual_parameters_["phi"]

    def correlation(data):
        size = deviations(model, data)
        return ar1(data, phi) * np.outer(size, size)

    result = forecast(model, new[COLUMNS], past[COLUMNS], past["y"])
    prediction, variance = kriged(model, past, new, correlation)
    assert_allclose(result["prediction"], prediction, rtol=1e-7)
    assert_allclose(result["std"], np.sqrt(variance), rtol=1e-7)
    assert result.index.equals(new.index)
    half = stats.t.ppf(0.975, len(past) - 2 * (method == "reml")) * result["std"]
    assert_allclose(result["upper"] - result["prediction"], half)


def test_the_last_residual_dies_away_with_the_horizon():
    X, y = load_ovary(return_X_y=True)
    X = X.assign(sin=np.sin(2 * np.pi * X["cycle"]), cos=np.cos(2 * np.pi * X["cycle"]))
    model = MixedEffectsRegressor(
        "mare", fixed=["sin", "cos"], residual=AR1("day")
    ).fit(X, y)
    last = X.groupby("mare", observed=True).tail(1).iloc[[2]]
    ahead = last.loc[last.index.repeat(4)]
    steps = np.array([1, 2, 5, 60])
    ahead = ahead.assign(day=ahead["day"] + steps)
    result = forecast(model, ahead, X, y)
    plain, std = model.predict(ahead, return_std=True)
    residual = (y - model.predict(X))[last.index[0]]
    phi = model.residual_parameters_["phi"]
    assert_allclose(result["prediction"] - plain, residual * phi**steps, atol=1e-10)
    assert (np.diff(result["std"]) > 0).all()
    assert_allclose(result["std"].iloc[-1], std[-1], rtol=1e-6)


def test_independent_errors_and_unknown_series_are_predicted_as_ever():
    past, new = series()
    plain = MixedEffectsRegressor("who", fixed=["x"]).fit(past[COLUMNS], past["y"])
    result = forecast(plain, new[COLUMNS], past[COLUMNS], past["y"])
    prediction, std = plain.predict(new[COLUMNS], return_std=True)
    assert_allclose(result["prediction"], prediction)
    assert_allclose(result["std"], std)
    model = MixedEffectsRegressor("who", fixed=["x"], residual=AR1("day")).fit(
        past[COLUMNS], past["y"]
    )
    stranger = new[COLUMNS].assign(who="unheard of", day=np.arange(len(new)))
    result = forecast(model, stranger, past[COLUMNS], past["y"])
    prediction, std = model.predict(stranger, return_std=True)
    assert_allclose(result["prediction"], prediction)
    assert_allclose(result["std"], std)


def test_precision_weights_of_the_past_count():
    past, new = series(3)
    weights = past["size"].to_numpy() ** -2.0
    by_weight = MixedEffectsRegressor(
        "who", fixed=["x"], residual=AR1("day"), weights="precision"
    ).fit(past[COLUMNS], past["y"], sample_weight=weights)
    phi = by_weight.residual_parameters_["phi"]

    def correlation(data):
        size = np.append(past["size"], np.ones(len(new)))
        return ar1(data, phi) * np.outer(size, size)

    result = forecast(
        by_weight, new[COLUMNS], past[COLUMNS], past["y"], sample_weight=weights
    )
    prediction, variance = kriged(by_weight, past, new, correlation)
    assert_allclose(result["prediction"], prediction, rtol=1e-7)
    assert_allclose(result["std"], np.sqrt(variance), rtol=1e-7)


@pytest.mark.parametrize(
    "residual", [EqualCorrelation("who"), Exponential("day", groups="who", nugget=True)]
)
def test_other_correlations(residual):
    past, new = series(5)
    model = MixedEffectsRegressor([], fixed=["x"], residual=residual).fit(
        past[COLUMNS], past["y"]
    )
    values = model.residual_parameters_

    def correlation(data):
        same = data["who"].to_numpy()[:, None] == data["who"].to_numpy()
        apart = np.abs(data["day"].to_numpy()[:, None] - data["day"].to_numpy())
        if isinstance(residual, EqualCorrelation):
            C = np.full(same.shape, values.iloc[0])
        else:
            C = (1 - values["nugget"]) * np.exp(-apart / values["range"])
        C[np.diag_indices_from(C)] = 1.0
        return same * C

    result = forecast(model, new[COLUMNS], past[COLUMNS], past["y"])
    prediction, variance = kriged(model, past, new, correlation)
    assert_allclose(result["prediction"], prediction, rtol=1e-6)
    assert_allclose(result["std"], np.sqrt(variance), rtol=1e-6)


def test_labels_in_groups_and_arrays():
    past, new = series()
    columns = ["x", "day", "who"]
    framed = MixedEffectsRegressor("who", residual=AR1("day")).fit(
        past[columns], past["y"]
    )
    X, X_new = past[["x", "day"]].to_numpy(), new[["x", "day"]].to_numpy()
    model = MixedEffectsRegressor(residual=AR1(1)).fit(
        X, past["y"], groups=past["who"].to_numpy()
    )
    result = forecast(
        model,
        X_new,
        X,
        past["y"],
        groups_new=new["who"].to_numpy(),
        groups=past["who"].to_numpy(),
    )
    expected = forecast(framed, new[columns], past[columns], past["y"])
    assert_allclose(result.to_numpy(), expected.to_numpy(), rtol=1e-9)


def test_frames_of_polars_keep_their_names():
    polars = pytest.importorskip("polars")
    past, new = series()
    columns = ["x", "day", "who"]
    structure = AR1("day", "who")
    model = MixedEffectsRegressor("who", fixed=["x"], residual=structure)
    expected = forecast(
        model.fit(past[columns], past["y"]), new[columns], past[columns], past["y"]
    )
    of_fit, ahead = (
        polars.from_pandas(rows[columns].reset_index(drop=True)) for rows in (past, new)
    )
    y = past["y"].to_numpy()
    ahead = ahead.with_columns(polars.col("day").cast(polars.Int16))
    result = forecast(model.fit(of_fit, y), ahead, of_fit, y)
    assert_allclose(result.to_numpy(), expected.to_numpy(), rtol=1e-9)
    grouped = MixedEffectsRegressor(residual=AR1("day"))
    numbers, labels = of_fit.drop("who"), of_fit["who"]
    grouped.set_params(fixed=["x"]).fit(numbers, y, groups=labels)
    result = forecast(
        grouped, ahead[["x", "day"]], numbers, y, groups_new=ahead["who"], groups=labels
    )
    assert_allclose(result.to_numpy(), expected.to_numpy(), rtol=1e-9)


def test_a_formula_forecasts_too():
    past, new = series()
    model = MixedEffectsRegressor(
        formula="y ~ x + (1 | who)", residual=AR1("day", "who")
    ).fit(past)
    columns = ["x", "day", "who"]
    plain = MixedEffectsRegressor("who", fixed=["x"], residual=AR1("day", "who")).fit(
        past[columns], past["y"]
    )
    result = forecast(model, new.drop(columns="y"), past, past["y"])
    expected = forecast(plain, new[columns], past[columns], past["y"])
    assert_allclose(result.to_numpy(), expected.to_numpy(), rtol=1e-7)


def test_what_is_refused():
    past, new = series()
    columns = ["x", "day", "who"]
    model = MixedEffectsRegressor("who", residual=AR1("day")).fit(
        past[columns], past["y"]
    )
    with pytest.raises(ValueError, match="not the rows of the fit"):
        forecast(model, new[columns], past[columns][1:], past["y"][1:])
    with pytest.raises(ValueError, match="the time or place of another row"):
        forecast(model, past[columns], past[columns], past["y"])
    with pytest.raises(ValueError, match="give both alike"):
        forecast(model, new[columns].to_numpy(), past[columns], past["y"])
    with pytest.raises(ValueError, match="coverage=1"):
        forecast(model, new[columns], past[columns], past["y"], coverage=1)


def test_occasions_are_those_of_the_fit():
    rng = np.random.default_rng(0)
    visits = pd.DataFrame(
        {"who": np.repeat(np.arange(30), 3), "visit": np.tile(["a", "b", "c"], 30)}
    )
    visits["x"] = rng.normal(size=90)
    y = visits["x"] + rng.normal(size=90) + rng.normal(size=30)[visits["who"]]
    structure = UnstructuredErrors("visit", "who", variances=False)
    past = visits.index % 3 < 2
    model = MixedEffectsRegressor([], fixed=["x"], residual=structure)
    model.fit(visits[past], y[past])
    with pytest.raises(ValueError, match=r"fitted with correlation\[a, b\]; these"):
        forecast(model, visits[~past], visits[past], y[past])
    model.fit(visits[:-1], y[:-1])
    result = forecast(model, visits[-1:], visits[:-1], y[:-1])
    plain, std = model.predict(visits[-1:], return_std=True)
    assert result["std"].item() < std.item()
    assert result["prediction"].item() != pytest.approx(plain.item())
