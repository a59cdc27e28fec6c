"""Correlations of residuals that a model has not accounted for."""

import warnings

import numpy as np
import pandas as pd
import pytest
from dense_rows import Dense
from models import fitted, model
from numpy.testing import assert_allclose
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._rows import rows_of_fit
from sklearn_lmm.diagnostics import cluster_independence

ORDER = np.random.default_rng(3).permutation(len(Y))


def products(est, weights=None):
    """Return r_i r_j + h_ij of all pairs of rows, by n x n matrices."""
    given = rows_of_fit(est, X, Y, None, weights)
    rows = FittedRows.of(given.fit, given.design)
    dense = Dense(rows)
    w, Q = np.linalg.eigh(dense.V)
    root = Q / np.sqrt(w) @ Q.T
    r = root @ dense.marginal / np.sqrt(rows.point.sigma2)
    A = root @ dense.X
    return r, np.outer(r, r) + A @ np.linalg.solve(dense.H, A.T)


def test_means_of_products_over_pairs():
    weights = np.linspace(0.5, 2.0, len(Y))
    est = fit(["(1 + x | school)", "town"], sample_weight=weights)
    r, pairs = products(est, weights)
    table = cluster_independence(
        est,
        X,
        Y,
        cluster="school",
        across="town",
        order=ORDER,
        sample_weight=weights,
    )
    school, town = X["school"].to_numpy(), X["town"].to_numpy()
    same = school[:, None] == school
    off = ~np.eye(len(Y), dtype=bool)
    clusters = list(dict.fromkeys(school[np.argsort(ORDER)]))
    place = np.array([clusters.index(s) for s in school])
    masks = {
        "within clusters": same & off,
        "within, next row": np.zeros_like(same),
        "between, next cluster": place[:, None] + 1 == place,
        "between, same town": ~same & (town[:, None] == town),
    }
    for s in clusters:
        own = np.flatnonzero(school == s)
        own = own[np.argsort(ORDER[own])]
        masks["within, next row"][own[:-1], own[1:]] = True
    assert list(table.index) == list(masks)
    for name, mask in masks.items():
        assert table.loc[name, "n_pairs"] == mask.sum()
        assert_allclose(table.loc[name, "correlation"], pairs[mask].mean())
    n = masks["within clusters"].sum()
    assert_allclose(table.loc["within clusters", "std_error"], np.sqrt(2 / n))
    S = np.array([r[school == s].sum() for s in clusters])
    expected = np.sqrt(np.sum((S[1:] * S[:-1]) ** 2))
    expected /= masks["between, next cluster"].sum()
    assert_allclose(table.loc["between, next cluster", "std_error"], expected)
    B = np.array(
        [[r[(school == s) & (town == t)].sum() for t in range(7)] for s in clusters]
    )
    P = np.triu(2.0 * B @ B.T, 1)
    expected = np.sqrt(np.sum(P**2)) / masks["between, same town"].sum()
    assert_allclose(table.loc["between, same town", "std_error"], expected)
    assert_allclose(table["statistic"], table["correlation"] / table["std_error"])


def test_it_finds_what_is_left_out():
    """A shared effect of towns, and an autoregressive error, not in the model."""
    rng = np.random.default_rng(0)
    g, day = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    e = rng.normal(size=(30, 10))
    for t in range(1, 10):
        e[:, t] = 0.6 * e[:, t - 1] + 0.8 * e[:, t]
    shared = 0.6 * rng.normal(size=8)
    label = rng.integers(0, 8, 300)
    y = rng.normal(size=30)[g] + e.ravel() + shared[label]
    data = pd.DataFrame({"x": rng.normal(size=300), "g": g, "label": label})
    est = MixedEffectsRegressor("g", fixed=["x"]).fit(data, y)
    table = cluster_independence(est, data, y, across="label")
    assert table.loc["between, same label", "p_value"] < 1e-6
    assert table.loc["between, same label", "correlation"] > 0.1
    assert table.loc["within, next row", "p_value"] < 1e-3
    # The next row is not the next day if rows are shuffled; `order` says so.
    shuffled = rng.permutation(300)
    table = cluster_independence(
        est, data.iloc[shuffled], y[shuffled], order=day[shuffled]
    )
    assert table.loc["within, next row", "p_value"] < 1e-3
    both = MixedEffectsRegressor(["g", "label"], fixed=["x"]).fit(data, y)
    table = cluster_independence(both, data, y, cluster="g", across="label")
    assert table.loc["between, same label", "p_value"] > 0.01


def test_it_finds_nothing_where_there_is_nothing():
    """The share of p-values below 0.05, in 60 models with rows as they assume."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 6)
    found = []
    for _ in range(60):
        data = pd.DataFrame({"x": rng.normal(size=120), "g": g})
        y = rng.normal(size=20)[g] + rng.normal(size=120)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est = MixedEffectsRegressor("g", fixed=["x"]).fit(data, y)
        label = rng.integers(0, 10, 120)
        found.append(cluster_independence(est, data, y, across=label)["p_value"] < 0.05)
    share = np.mean(found, axis=0)
    # Three standard errors above 5 %; the first is 0 by the choice of theta.
    assert (share < 0.135).all(), share
    assert share[0] == 0.0


def test_default_clusters_and_order():
    m, (est, _) = model("pastes_nested_reml"), fitted("pastes_nested_reml")
    table = cluster_independence(est, m.X, m.y)
    by_name = cluster_independence(est, m.X, m.y, cluster="batch")
    pd.testing.assert_frame_equal(table, by_name)
    assert table.shape == (3, 5)


def test_every_row_a_cluster():
    table = cluster_independence(
        fit([], NUMERIC), NUMERIC, Y, cluster=np.arange(len(Y)), order="x"
    )
    assert table.loc["within clusters", "n_pairs"] == 0
    assert np.isnan(table.loc["within clusters", "p_value"])
    assert table.loc["between, next cluster", "n_pairs"] == len(Y) - 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="are crossed"):
        cluster_independence(fit(["school", "town"]), X, Y)
    with pytest.raises(ValueError, match="order names 'day', but X has"):
        cluster_independence(fit("school"), X, Y, order="day")
    with pytest.raises(ValueError, match="order needs a value for each of the 120"):
        cluster_independence(fit("school"), X, Y, order=[1, 2])
    with pytest.raises(ValueError, match="neither a grouping factor"):
        cluster_independence(fit("school"), X, Y, across="village")
    y = SCHOOL.to_numpy() * 1.5
    with pytest.warns(UserWarning, match="exactly"):
        perfect = fit("school", y=y)
    with pytest.raises(ValueError, match="explained exactly"):
        cluster_independence(perfect, X, y)
