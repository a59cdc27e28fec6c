"""Warnings of RandomEffectsEncoder: each once, whatever the folds find."""

import numpy as np
import pandas as pd
import pytest
from shops import X, Y

from sklearn_lmm import RandomEffectsEncoder
from sklearn_lmm.exceptions import (
    IdentifiabilityWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
)


def warned(encoder, frame, y):
    with pytest.warns(UserWarning) as record:
        encoded = encoder.fit_transform(frame, y)
    assert np.isfinite(encoded).all()
    assert np.isfinite(encoder.transform(frame)).all()
    assert {warning.filename for warning in record} == {__file__}
    return [(warning.category, str(warning.message)) for warning in record]


def test_columns_without_information_are_named_once():
    frame = pd.DataFrame(
        {"one": "x", "id": np.arange(60).astype(str), "void": list("abcdef") * 10}
    )
    y = np.tile(np.random.default_rng(0).normal(size=10).repeat(3), 2)
    found = dict(warned(RandomEffectsEncoder(extras="std"), frame, y))
    assert list(found) == [IdentifiabilityWarning, SingularFitWarning]
    assert "'one' has one category only" in found[IdentifiabilityWarning]
    assert "every category of 'id' has a single row" in found[IdentifiabilityWarning]
    assert "constant columns of 'void':" in found[SingularFitWarning]


def test_categories_that_follow_from_the_covariates():
    north = X["shop"].isin([f"s{k}" for k in range(15)])
    frame = pd.DataFrame({"half": np.where(north, "n", "s"), "north": 1.0 * north})
    encoder = RandomEffectsEncoder("half", adjust_for="north")
    [(category, message)] = warned(encoder, frame, Y)
    assert category is IdentifiabilityWarning
    assert "categories of 'half' follow from the columns adjusted for" in message
    np.testing.assert_allclose(encoder.transform(frame), Y.mean())


@pytest.mark.parametrize("joint", [True, False])
def test_constant_target(joint):
    encoder = RandomEffectsEncoder(joint=joint, extras="std")
    [(category, message)] = warned(encoder, X[["shop", "item"]], np.full(len(X), 2.5))
    assert category is PerfectFitWarning
    assert "y is constant" in message
    expected = np.tile([2.5, 0.0, 2.5, 0.0], (len(X), 1))
    np.testing.assert_allclose(encoder.transform(X[["shop", "item"]]), expected)


def test_target_explained_exactly():
    y = X["shop"].str[1:].astype(float)
    encoder = RandomEffectsEncoder("shop")
    [(category, message)] = warned(encoder, X, y)
    assert category is PerfectFitWarning
    assert "'shop'" in message
    np.testing.assert_allclose(encoder.transform(X)[:, 0], y, rtol=1e-6, atol=1e-6)


def test_dropped_covariates_are_named():
    frame = X.assign(double=2 * X["price"], same=1.0)
    encoder = RandomEffectsEncoder(
        "shop", slopes="price", adjust_for=["double", "same"]
    )
    [(category, message)] = warned(encoder, frame, Y)
    assert category is RankDeficiencyWarning
    assert "'double', 'same'" in message
    alone = RandomEffectsEncoder("shop", slopes="price").fit(frame, Y)
    np.testing.assert_allclose(encoder.transform(frame), alone.transform(frame))


def test_identical_columns_share_the_effect():
    frame = pd.DataFrame({"a": X["shop"], "b": X["shop"]})
    encoder = RandomEffectsEncoder().fit(frame, Y)
    a, b = encoder.transform(frame).T
    total = a + b - encoder.target_mean_["a"]
    single = RandomEffectsEncoder().fit(frame[["a"]], Y).transform(frame[["a"]])[:, 0]
    np.testing.assert_allclose(total, single, rtol=1e-5)
