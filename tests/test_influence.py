"""Groups left out: against refits in R, our own fits, and hand-made labels."""

import json

import numpy as np
import pandas as pd
import pytest
from models import ORACLES_DIR, fitted, model
from numpy.testing import assert_allclose
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.diagnostics import cooks_distance, influence

ORACLE = json.loads((ORACLES_DIR / "diagnostics.json").read_text())
BOTH = ["(1 + x | school)", "town"]


def without(m, est, chosen):
    """Fit the rows that are not chosen, as the oracle's model was fitted."""
    params = {key: value[~chosen] for key, value in m.fit_params.items()}
    return MixedEffectsRegressor(**est.get_params()).fit(
        m.X[~chosen], m.y[~chosen], **params
    )


@pytest.mark.parametrize("refit", [None, "newton", "exact"])
def test_the_sleep_study_without_each_subject(refit):
    """Full refits in R; balanced with X = Z, where beta does not depend on theta."""
    m, (est, _) = model("sleep_rs_reml"), fitted("sleep_rs_reml")
    table = influence(est, m.X, m.y, refit=refit, steps=3)
    assert list(table.index) == [d["left_out"] for d in ORACLE["without"]]
    assert_allclose(table["cooks_distance"], ORACLE["cook"], rtol=1e-7)
    left = est.fixed_effects_.to_numpy() - table.filter(like="dbeta_")
    assert_allclose(left, [d["fixef"] for d in ORACLE["without"]], rtol=1e-9)
    if refit == "exact":
        sigma = est.sigma_ - table["dsigma"]
        assert_allclose(sigma, [d["sigma"] for d in ORACLE["without"]], rtol=1e-7)
        theta = np.array([d["theta"] for d in ORACLE["without"]])
        sd = np.sqrt(np.diag(est.covariances_["Subject"]))
        sd = sd - table[["dsd_Subject_(Intercept)", "dsd_Subject_Days"]]
        assert_allclose(sd.iloc[:, 0], sigma * theta[:, 0], rtol=1e-5)
        assert_allclose(sd.iloc[:, 1], sigma * np.hypot(theta[:, 1], theta[:, 2]), 1e-5)


# The largest errors of beta, in standard errors, after 0, 1, 2 and 3 Newton steps.
ERRORS = {
    ("sleep_na_reml", "Subject"): [7e-3, 5e-4, 2e-5, 1e-8],
    ("chick_rs_reml", "Chick"): [9e-3, 2e-4, 5e-6, 1e-8],
    ("synth_crossed_zerocorr_reml", "item"): [8e-2, 2e-2, 2e-3, 1e-3],
}


@pytest.mark.parametrize(("name", "by"), ERRORS)
def test_unbalanced_data_tell_theta_kept_from_refits(name, by):
    m, (est, _) = model(name), fitted(name)
    se = np.sqrt(np.diag(est.fit_.beta_covariance))

    def dbeta(**options):
        return influence(est, m.X, m.y, by=by, **options).filter(like="dbeta_") / se

    exact = dbeta(refit="exact")
    assert np.abs(exact).to_numpy().max() > 0.4
    options = [{}, *({"refit": "newton", "steps": k} for k in (1, 2, 3))]
    errors = [np.abs(dbeta(**o) - exact).to_numpy().max() for o in options]
    assert (np.array(errors) < ERRORS[name, by]).all(), errors
    assert errors[0] > 0.5 * ERRORS[name, by][0]


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("sleep_na_reml", "Subject"),
        ("chick_rs_ml", "Chick"),
        ("pastes_nested_reml", "batch"),
        ("pastes_nested_ml", "batch:cask"),
        ("penicillin_reml", "plate"),
    ],
)
def test_exact_refits_are_fits_to_the_other_rows(name, by):
    m, (est, _) = model(name), fitted(name)
    table = influence(est, m.X, m.y, by=by, refit="exact").drop(columns="note")
    p = len(est.fixed_effects_)
    for level in table.index[[0, 3, -1]]:
        parts = by.split(":")
        labels = level if len(parts) > 1 else [level]
        chosen = (m.X[parts] == list(labels)).all(axis=1).to_numpy()
        other = without(m, est, chosen)
        row = table.loc[level]
        d = (est.fixed_effects_ - other.fixed_effects_).to_numpy()
        assert_allclose(row.filter(like="dbeta_"), d, atol=1e-5 * est.sigma_)
        assert_allclose(row["dsigma"], est.sigma_ - other.sigma_, atol=1e-5)
        V = est.fit_.beta_covariance
        cook = d @ np.linalg.solve(V, d) / p
        assert_allclose(row["cooks_distance"], cook, rtol=1e-4)
        ratio = np.linalg.det(other.fit_.beta_covariance) / np.linalg.det(V)
        assert_allclose(row["covratio"], ratio, rtol=1e-4)
        sd = [
            np.sqrt(one.covariances_[f].iloc[0, 0])
            for one in (est, other)
            for f in est.covariances_
        ]
        k = len(sd) // 2
        d_sd = np.subtract(sd[:k], sd[k:])
        names = [f"dsd_{f}_(Intercept)" for f in est.covariances_]
        assert_allclose(row[names], d_sd, atol=1e-4 * est.sigma_)


@pytest.mark.parametrize("weights", ["frequency", "precision"])
@pytest.mark.parametrize("by", ["school", "town"])
def test_weights_and_offsets(weights, by):
    """Theta kept, against the fit of the other rows at its own theta."""
    w = np.linspace(0.3, 2.0, len(Y))
    est = fit(BOTH, offset="z", sample_weight=w, weights=weights)
    exact = influence(est, X, Y, by=by, refit="exact", sample_weight=w)
    kept = influence(est, X, Y, by=by, sample_weight=w)
    exact, kept = exact.drop(columns="note"), kept.drop(columns="note")
    level = kept.index[2]
    stay = (X[by] != level).to_numpy()
    other = fit(
        BOTH, X[stay], Y[stay], offset="z", sample_weight=w[stay], weights=weights
    )
    d = est.fixed_effects_ - other.fixed_effects_
    assert_allclose(exact.loc[level].filter(like="dbeta_"), d, atol=1e-6)
    assert_allclose(kept.loc[level].filter(like="dbeta_"), d, atol=0.02)
    count = w[~stay].sum() if weights == "frequency" else (~stay).sum()
    assert_allclose(kept.loc[level, "n_obs"], count)


def test_labels_of_any_kind():
    est = fit("school")
    by_name = influence(est, X, Y, by="school")
    labels = "s" + X["school"].astype(str)
    by_label = influence(est, X, Y, by=labels.to_numpy())
    assert_allclose(by_name["cooks_distance"], by_label["cooks_distance"])
    assert list(by_label.index) == sorted(labels.unique())
    # A column of X that is no grouping factor, and every row by itself.
    assert influence(est, X, Y, by="town").index.name == "town"
    rows = influence(est, X, Y, by=np.arange(len(Y)))
    town = influence(est, X, Y, by=pd.Series(np.arange(len(Y)) // 2, name="pair"))
    assert (len(rows), len(town)) == (len(Y), len(Y) // 2)
    assert town.index.name == "pair"
    assert_allclose(cooks_distance(est, X, Y, by="school"), by_name["cooks_distance"])


def test_rows_of_weight_zero_belong_to_no_group():
    weights = np.where(X["school"] == 305, 0.0, 1.5)
    est = fit("school", sample_weight=weights)
    labels = X["school"].to_numpy()
    table = influence(est, X, Y, by=labels, sample_weight=weights)
    assert 305 not in table.index
    expected = influence(est, X, Y, sample_weight=weights)
    assert_allclose(table["covratio"], expected["covratio"])


@pytest.mark.parametrize("refit", [None, "newton", "exact"])
@pytest.mark.parametrize("random", ["school", ["school", "town"]])
def test_groups_that_X_cannot_do_without(refit, random):
    own = (X["school"] == 303) * 1.0
    data = X.assign(own=own, half=np.where(own, X["x"], 0.0))
    est = fit(random, data)
    table = influence(est, data, Y, by="school", refit=refit)
    lost = table.loc[303]
    assert lost["note"].startswith("X loses rank without these rows: they alone tell ")
    assert "'own'" in lost["note"] or "'half'" in lost["note"]
    assert "'x'" not in lost["note"]
    assert lost.drop(["note", "n_obs"]).isna().all()
    others = table.drop(303)
    assert (others["note"] == "").all()
    assert others.notna().all(axis=None)


def test_a_singular_fit_has_influences():
    m, (est, warned) = (
        model("dyestuff2_singular_reml"),
        fitted("dyestuff2_singular_reml"),
    )
    assert warned == ("SingularFitWarning",)
    for refit in (None, "newton", "exact"):
        table = influence(est, m.X, m.y, refit=refit)
        assert table.notna().all(axis=None)


def test_what_cannot_be_grouped_is_refused():
    crossed = fit(["school", "town"])
    with pytest.raises(ValueError, match="'school', 'town' are crossed"):
        influence(crossed, X, Y)
    with pytest.raises(ValueError, match=r"neither a grouping factor .* nor a column"):
        influence(crossed, X, Y, by="village")
    with pytest.raises(ValueError, match="by has 2 columns: give one label for each"):
        influence(crossed, X, Y, by=X[["school", "town"]])
    with pytest.raises(ValueError, match="it has no factor"):
        influence(fit([], NUMERIC), NUMERIC, Y)
    with pytest.raises(ValueError, match="by has 3 rows"):
        influence(crossed, X, Y, by=[1, 2, 3])
    with pytest.raises(ValueError, match="for groups of rows"):
        cooks_distance(crossed, X, Y, refit="exact")
    with pytest.raises(ValueError, match="'steps'"):
        influence(crossed, X, Y, by="town", refit="newton", steps=0)
    y = SCHOOL.to_numpy() * 1.5
    with pytest.warns(UserWarning, match="exactly"):
        perfect = fit("school", y=y)
    with pytest.raises(ValueError, match="explained exactly"):
        influence(perfect, X, y)
