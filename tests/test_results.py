"""A fitted model in the user's names, and applied to rows."""

import numpy as np
import pandas as pd
import pytest

from sklearn_lmm import MixedEffectsRegressor, RandomEffect


def data(seed=0):
    """Return X and y with crossed, nested and sloping random effects."""
    rng = np.random.default_rng(seed)
    n = 240
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "batch": rng.choice(list("ABCDEFGHIJ"), n),
            "cask": rng.integers(0, 4, n),
            "off": rng.normal(size=n),
        },
        index=np.arange(n) * 2,
    )
    b = pd.DataFrame(rng.normal(size=(10, 2)), list("ABCDEFGHIJ"), ["one", "x"])
    effect = b.loc[X["batch"]].to_numpy()
    cells = rng.normal(loc=[-3, 1, 2, 5], size=(10, 4))
    y = 2 + X["x"] + 2 * rng.normal(size=10)[X["batch"].map(ord) - ord("A")] * X["z"]
    y += effect[:, 0] + effect[:, 1] * X["x"] + X["off"]
    y += cells[X["batch"].map(ord) - ord("A"), X["cask"]]
    return X, y.to_numpy() + rng.normal(scale=0.5, size=n)


X, Y = data()
RANDOM = [
    "(1 + x | batch) + (0 + z | batch)",
    ("batch", "cask"),
    RandomEffect("cask", covariance="diagonal"),
]


@pytest.fixture(scope="module")
def model():
    return MixedEffectsRegressor(RANDOM, offset="off").fit(X, Y)


def test_effects_and_covariances_by_factor(model):
    assert list(model.effects_) == ["batch", "batch:cask", "cask"]
    batch = model.effects_["batch"]
    assert list(batch.columns) == ["(Intercept)", "x", "z"]
    assert batch.index.tolist() == list("ABCDEFGHIJ")
    assert batch.index.name == "batch"
    cells = model.effects_["batch:cask"]
    assert cells.index.names == ["batch", "cask"]
    assert cells.index.tolist() == sorted(set(zip(X["batch"], X["cask"], strict=True)))
    covariance = model.covariances_["batch"]
    assert covariance.index.tolist() == covariance.columns.tolist()
    assert covariance.loc["x", "(Intercept)"] != 0
    # Terms of one factor are independent.
    assert (covariance.loc["z", ["(Intercept)", "x"]] == 0).all()
    assert model.covariances_["cask"].shape == (1, 1)


def test_fixed_effects(model):
    assert model.fixed_effects_.index.tolist() == ["(Intercept)", "x", "z"]
    assert model.intercept_ == model.fixed_effects_["(Intercept)"]
    assert model.coef_.tolist() == [*model.fixed_effects_[["x", "z"]], 0.0, 0.0, 0.0]


def test_decomposition_adds_up(model):
    parts = model.decompose(X)
    assert parts.columns.tolist() == [
        "fixed",
        "batch",
        "batch.1",
        "batch:cask",
        "cask",
        "total",
    ]
    assert parts.index.equals(X.index)
    np.testing.assert_allclose(
        parts.drop(columns="total").sum(axis=1), parts["total"], rtol=1e-12
    )
    np.testing.assert_allclose(parts["total"], model.predict(X), rtol=1e-12)
    fixed = model.intercept_ + X.to_numpy(object)[:, :2] @ model.coef_[:2] + X["off"]
    np.testing.assert_allclose(parts["fixed"], fixed.astype(float), rtol=1e-12)
    effects = model.effects_["batch"].loc[X["batch"]]
    by_hand = effects["(Intercept)"].to_numpy() + effects["x"].to_numpy() * X["x"]
    np.testing.assert_allclose(parts["batch"], by_hand, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(parts["batch.1"], effects["z"].to_numpy() * X["z"])


def term_after_term(model):
    """Return all random effects in the order of the columns of Z."""
    batch = model.effects_["batch"]
    return np.concatenate(
        [
            batch[["(Intercept)", "x"]].to_numpy().ravel(),
            batch["z"],
            model.effects_["batch:cask"].to_numpy().ravel(),
            model.effects_["cask"].to_numpy().ravel(),
        ]
    )


def test_design_matrix_times_effects_is_the_random_part(model):
    Z, names = model.design_matrix(X)
    assert Z.format == "csr"
    assert Z.has_sorted_indices
    assert Z.shape == (len(X), len(names))
    assert names[:3] == [
        "(Intercept) | batch[A]",
        "x | batch[A]",
        "(Intercept) | batch[B]",
    ]
    assert "z | batch[J]" in names
    assert "(Intercept) | batch:cask[A:0]" in names
    random_part = model.predict(X) - model.predict(X, random_effects=False)
    np.testing.assert_allclose(Z @ term_after_term(model), random_part, atol=1e-12)


def test_design_matrix_of_unknown_levels_is_empty_there(model):
    new = X[:3].assign(batch=["A", "unknown", "B"], cask=[0, 0, 9])
    Z, names = model.design_matrix(new)
    filled = [{names[j] for j in Z[[i]].indices} for i in range(3)]
    assert filled == [
        {
            "(Intercept) | batch[A]",
            "x | batch[A]",
            "z | batch[A]",
            "(Intercept) | batch:cask[A:0]",
            "(Intercept) | cask[0]",
        },
        {"(Intercept) | cask[0]"},
        {"(Intercept) | batch[B]", "x | batch[B]", "z | batch[B]"},
    ]


def test_design_matrix_without_random_effects():
    Z, names = MixedEffectsRegressor([], fixed="x").fit(X, Y).design_matrix(X)
    assert Z.shape == (len(X), 0)
    assert names == []


def test_tidy_effects(model):
    tidy = model.random_effects()
    assert tidy.columns.tolist() == ["factor", "level", "coefficient", "value"]
    assert len(tidy) == sum(frame.size for frame in model.effects_.values())
    batch = tidy[tidy["factor"] == "batch"].pivot(
        index="level", columns="coefficient", values="value"
    )
    expected = model.effects_["batch"]
    assert (batch[expected.columns] == expected).all(axis=None)
    assert tidy.loc[tidy["factor"] == "batch:cask", "level"].iloc[0] == ("A", 0)


def test_standard_deviations_of_a_random_intercept():
    """Given beta and theta, Var(b_i | y) = sigma^2 lambda^2 / (n_i lambda^2 + 1)."""
    model = MixedEffectsRegressor("batch", fixed="x").fit(X, Y)
    tidy = model.random_effects(return_std=True)
    counts = X["batch"].value_counts().loc[tidy["level"]].to_numpy()
    relative = model.theta_[0] ** 2
    expected = model.sigma_ * np.sqrt(relative / (counts * relative + 1))
    np.testing.assert_allclose(tidy["std"], expected, rtol=1e-9)


def test_standard_deviations_line_up_with_their_effects(model):
    tidy = model.random_effects(return_std=True)
    assert tidy["std"].gt(0).sum() > len(tidy) / 2
    [one] = model.fit_.conditional_covariances()[0][[3]]
    of_level = tidy[(tidy["factor"] == "batch") & (tidy["level"] == "D")]
    np.testing.assert_allclose(of_level["std"], np.sqrt(np.diag(one)))


def test_no_random_effects_make_an_empty_table():
    model = MixedEffectsRegressor([], fixed="x").fit(X, Y)
    assert model.random_effects().columns.tolist() == [
        "factor",
        "level",
        "coefficient",
        "value",
    ]
    assert model.random_effects(return_std=True).shape == (0, 5)
    assert model.effects_ == model.covariances_ == {}
    assert model.decompose(X).columns.tolist() == ["fixed", "total"]
