"""The rows of a fit, given once more."""

import numpy as np
import pandas as pd
import pytest
from models import ORACLES, fitted, model
from numpy.testing import assert_allclose, assert_array_equal
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm._rows import rows_of_fit

BOTH = ["(1 + x | school)", "town"]
SMALL = [name for name, oracle in ORACLES.items() if oracle["n"] < 1000]


@pytest.mark.parametrize("name", SMALL)
def test_every_fit_knows_its_rows_in_any_order(name):
    m, (est, _) = model(name), fitted(name)
    order = np.random.default_rng(0).permutation(len(m.y))
    given = {key: value.iloc[order] for key, value in m.fit_params.items()}
    rows = rows_of_fit(est, m.X.iloc[order], m.y.iloc[order], **given)
    assert rows.n_rows == len(m.y)
    for factor, levels in zip(
        rows.design.factors, est.fit_.statistics.levels, strict=True
    ):
        assert_array_equal(factor.levels, levels)


def test_codes_are_those_of_the_fit():
    """Categories in an order of their own at fit, plain text afterwards."""
    labels = pd.Categorical(["b", "c", "a", "c", "b", "a"] * 5, ["c", "a", "b"])
    x = np.arange(30.0)[:, None]
    y = labels.codes + np.random.default_rng(0).normal(size=30)
    est = MixedEffectsRegressor().fit(x, y, groups=labels)
    rows = rows_of_fit(est, x[::-1], y[::-1], np.array(labels)[::-1])
    (factor,) = rows.design.factors
    assert_array_equal(factor.levels, ["c", "a", "b"])
    assert_array_equal(factor.levels[factor.codes], np.array(labels)[::-1])


def test_partial_fits_and_batches_know_all_their_rows():
    est = MixedEffectsRegressor(BOTH)
    for part in np.array_split(np.arange(len(X)), 3):
        est.partial_fit(X.iloc[part], Y[part])
    assert rows_of_fit(est, X, Y).fit is est.fit_


def test_rows_of_weight_zero_are_no_rows_of_the_fit():
    weights = np.where(X["school"] == 305, 0.0, 1.5)
    est = fit(BOTH, sample_weight=weights)
    rows = rows_of_fit(est, X, Y, None, weights)
    assert_array_equal(rows.positions, np.flatnonzero(weights))
    spread = rows.spread(rows.design.y)
    assert_allclose(spread[weights > 0], Y[weights > 0])
    assert np.isnan(spread[weights == 0]).all()


def test_interactions_and_rank_deficient_columns():
    data = X.assign(twice=2.0 * X["x"] + 1.0)
    with pytest.warns(UserWarning, match="rank deficient"):
        est = fit([RandomEffect(("school", "town")), "school"], data)
    assert rows_of_fit(est, data, Y).factor("school:town") == 0
    with pytest.raises(ValueError, match=r"levels that the fit did not see: \(3"):
        rows_of_fit(est, data.assign(town=data["town"].to_numpy()[::-1]), Y)


def different(change):
    """Return rows that differ from those of the fit in one way."""
    data, y, weights = X.copy(), Y.copy(), np.linspace(0.5, 1.5, len(Y))
    if change == "fewer":
        data, y, weights = data[1:], y[1:], weights[1:]
    elif change == "weights":
        weights = 2.0 * weights
    elif change == "other weights":
        weights = weights[::-1]
    elif change == "x":
        data.loc[7, "x"] += 1e-5
    elif change == "y":
        y[3] -= 1e-5
    elif change == "labels":
        data["school"] = data["school"].to_numpy()[::-1]
    elif change == "unknown":
        data.loc[data["school"] == 304, "school"] = 3040
    elif change == "absent":
        data.loc[data["school"] == 304, "school"] = 305
    return data, y, weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fewer", "there are 119, the fit had 120"),
        ("weights", "weights add up to 240, those of the fit to 120"),
        ("other weights", "the mean of 'x' is"),
        ("x", "the mean of 'x' is"),
        ("y", "the mean of 'y' is"),
        ("labels", "of 'school' has other rows here"),
        ("unknown", "'school' has levels that the fit did not see: 3040"),
        ("absent", "'school' had the levels 304 at fit"),
    ],
)
def test_other_rows_are_refused(change, message):
    data, y, weights = different("none")
    est = fit(BOTH, data, y, sample_weight=weights)
    data, y, weights = different(change)
    with pytest.raises(ValueError, match=message):
        rows_of_fit(est, data, y, None, weights)


def test_responses_of_other_rows_are_noticed():
    swapped = Y.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    with pytest.raises(ValueError, match="the sum of products of 'x' and 'y'"):
        rows_of_fit(fit(BOTH), X, swapped)


def test_weights_left_out_are_noticed():
    est = fit(BOTH, sample_weight=np.full(len(Y), 2.0))
    with pytest.raises(ValueError, match="add up to 120, those of the fit to 240"):
        rows_of_fit(est, X, Y)


def test_labels_left_out_are_asked_for():
    est = fit(None, NUMERIC, groups=SCHOOL)
    with pytest.raises(ValueError, match="no labels of 'school'"):
        rows_of_fit(est, NUMERIC, Y)


def test_an_adapted_model_has_no_rows_of_its_own():
    est = fit("school", X[20:], Y[20:]).adapt(X[:20], Y[:20])
    with pytest.raises(ValueError, match="comes from adapt"):
        rows_of_fit(est, X, Y)
