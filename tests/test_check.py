"""What `check` finds, in data made to have it, and that it finds nothing else."""

import warnings

import numpy as np
import pandas as pd
import pytest
from models import fitted, model
from schools import NUMERIC, SCHOOL, X, Y, fit

from sklearn_lmm import MixedEffectsRegressor
from sklearn_lmm.diagnostics import Finding, Report, check

CLEAN = ["penicillin_reml", "exam_rs_reml", "dyestuff_ml"]


def quietly(random, X, y, **parameters):
    groups = parameters.pop("groups", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixedEffectsRegressor(random, **parameters).fit(X, y, groups=groups)


def the(report, about):
    """Return the only finding about something."""
    [finding] = [f for f in report.findings if f.about == about]
    return finding


def made(seed=0, groups=20, size=10):
    """Draw rows of a random-intercept model that has nothing wrong."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    data = pd.DataFrame({"x": rng.normal(size=len(g)), "g": g})
    e = rng.normal(size=len(g))
    return data, data["x"].to_numpy() + rng.normal(size=groups)[g] + e, e, rng


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_wrong_with_these(name):
    m, (est, _) = model(name), fitted(name)
    report = check(est, m.X, m.y, **m.fit_params)
    assert report.ok, report
    assert "Nothing found by: convergence" in str(report)
    assert report.to_frame().shape == (0, 5)


def test_false_alarms_are_rare():
    counts = []
    for seed in range(40):
        data, y, _, _ = made(seed)
        report = check(quietly("g", data, y), data, y)
        counts += [finding.about for finding in report.findings]
    assert len(counts) < 12, counts


def test_no_false_alarm_of_many_small_groups():
    data, y, _, _ = made(groups=1500, size=5)
    assert check(quietly("g", data, y), data, y).ok


def test_not_converged():
    with pytest.warns(UserWarning, match="stopped after 1 iterations"):
        est = fit(["(1 + x | school)", "town"], max_iter=1)
    report = check(est)
    finding = the(report, "convergence")
    assert finding.severity == "problem"
    assert "stopped after 1 iterations" in finding.found
    assert "max_iter" in finding.remedy
    assert report.findings[0] is finding


def test_singular_which_direction():
    est, _ = fitted("dyestuff2_singular_reml")
    assert "'Batch' have no variance" in the(check(est), "singularity").found
    est, _ = fitted("synth_crossed_max_reml")
    found = the(check(est), "singularity").found
    assert "(Intercept) and z are perfectly correlated" in found


def test_identifiability_and_levels():
    est = quietly("g", pd.DataFrame({"x": NUMERIC["x"], "g": 1}), Y)
    finding = the(check(est), "identifiability")
    assert finding.severity == "problem"
    assert "'g' has one level only" in finding.found
    few = X.assign(town=X["town"] % 3)
    est = quietly("town", few, Y)
    assert the(check(est), "number of levels").found == "'town' has 3 levels."


def test_a_perfect_fit_needs_no_rows():
    y = SCHOOL.to_numpy() * 1.5
    est = quietly("school", X, y)
    report = check(est, X, y)
    assert the(report, "residual variance").severity == "problem"
    assert report.unchecked == ()
    assert "outliers" not in report.checked


def test_labels_that_were_not_given():
    est = quietly(None, NUMERIC, Y)
    finding = the(check(est), "labels")
    assert finding.severity == "problem"
    assert "groups=" in finding.remedy


def test_columns_that_say_the_same():
    est = quietly("school", X.assign(twice=2 * X["x"], near=X["z"] + 1e-2 * Y), Y)
    report = check(est)
    assert "'twice'" in the(report, "rank of X").found
    finding = the(report, "collinearity")
    assert "'z'" in finding.found and "'near'" in finding.found
    assert "'x'" not in finding.found


def test_a_group_that_decides():
    data, y, _, _ = made()
    own = data["g"].to_numpy() == 7
    y = y + 4.0 * own * data["x"]
    report = check(quietly("g", data, y), data, y)
    finding = the(report, "influential groups")
    assert "7 moves x by" in finding.found
    assert "by='g'" in finding.remedy
    data = data.assign(own=own * 1.0)
    report = check(quietly("g", data, y), data, y)
    assert any("from one level of 'g' alone: 7" in f.found for f in report.findings)


def test_an_outlier_by_the_name_of_its_row():
    data, y, _, _ = made()
    data.index = [f"r{i}" for i in range(len(data))]
    y[33] += 8.0
    found = the(check(quietly("g", data, y), data, y), "outliers").found
    assert "row r33 (" in found
    values = data.to_numpy()
    found = the(check(quietly(1, values, y), values, y), "outliers").found
    assert "row 33 (" in found


def test_tails_and_skewness():
    data, y, e, rng = made()
    heavy = y - e + rng.standard_t(3, len(e))
    finding = the(
        check(quietly("g", data, heavy), data, heavy), "distribution of residuals"
    )
    assert "heavy tails" in finding.found
    skew = y - e + rng.exponential(size=len(e))
    finding = the(
        check(quietly("g", data, skew), data, skew), "distribution of residuals"
    )
    assert "are skew" in finding.found


def test_unequal_variances():
    data, y, e, _ = made()
    mean = y - e
    grows = 10.0 + mean + e * np.exp(0.5 * mean)
    report = check(quietly("g", data, grows), data, grows)
    texts = [f.found for f in report.findings if f.about == "unequal variance"]
    assert any("grows with the predicted value" in text for text in texts)
    own = data["g"].to_numpy() == 3
    wild = mean + e * np.where(own, 6.0, 1.0)
    report = check(quietly("g", data, wild), data, wild)
    texts = [f.found for f in report.findings if f.about == "unequal variance"]
    assert any("those of 3 are" in text for text in texts)


def test_correlated_errors():
    data, y, e, _ = made()
    errors = e.reshape(20, 10).copy()
    for t in range(1, 10):
        errors[:, t] = 0.8 * errors[:, t - 1] + 0.6 * errors[:, t]
    y = y - e + errors.ravel()
    finding = the(check(quietly("g", data, y), data, y), "independence")
    assert "follow each other within a level of 'g'" in finding.found


def test_it_works_for_every_sort_of_model():
    weights = np.linspace(0.0, 2.0, len(Y))
    for random, data in (
        ([], NUMERIC),
        ("school", X),
        (["(1 + x | school)", "town"], X),
        (["school", ("school", "town")], X),
    ):
        for meaning in ("frequency", "precision"):
            est = MixedEffectsRegressor(random, weights=meaning, method="ml")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                est.fit(data, Y, sample_weight=weights)
            report = check(est, data, Y, sample_weight=weights)
            assert "outliers" in report.checked
            assert report.unchecked == ()


def test_other_rows_are_refused():
    with pytest.raises(ValueError, match="not the rows of the fit"):
        check(fit("school"), X[1:], Y[1:])


def test_how_it_is_shown():
    findings = (
        Finding("problem", "this", "It is < that.", "It matters.", "Mend it."),
        Finding("note", "that", "Found & seen.", "Little.", "None."),
    )
    report = Report(findings, ("this", "that", "other"), ("rows",))
    assert str(report) == repr(report)
    assert str(report).splitlines()[:4] == [
        "PROBLEM: this",
        "  It is < that.",
        "  Meaning: It matters.",
        "  Remedy: Mend it.",
    ]
    assert "Nothing found by: other." in str(report)
    assert "structure: rows." in " ".join(str(report).split())
    html = report._repr_html_()
    assert "It is &lt; that." in html and "Found &amp; seen." in html
    assert list(report.to_frame()["severity"]) == ["problem", "note"]
    assert not report.ok
    assert max(map(len, str(report).splitlines())) <= 80
