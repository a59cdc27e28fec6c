"""The data sets hold what they say they hold; the generator draws from its model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LinearRegression

from sklearn_lmm.datasets import (
    load_cake,
    load_exam,
    load_insteval,
    load_ovary,
    load_pastes,
    load_penicillin,
    load_sleepstudy,
    make_mixed_regression,
)

# loader: rows, target, number of levels of every factor
FACTS = {
    load_exam: (
        4059,
        "normexam",
        {
            "school": 65,
            "schgend": 3,
            "vr": 3,
            "intake": 3,
            "sex": 2,
            "type": 2,
            "student": 650,
        },
    ),
    load_sleepstudy: (180, "Reaction", {"Subject": 18}),
    load_cake: (270, "angle", {"replicate": 15, "recipe": 3}),
    load_ovary: (308, "follicles", {"mare": 11}),
    load_penicillin: (144, "diameter", {"plate": 24, "sample": 6}),
    load_pastes: (60, "strength", {"batch": 10, "cask": 3, "sample": 30}),
    load_insteval: (
        73421,
        "y",
        {"s": 2972, "d": 1128, "studage": 4, "lectage": 6, "service": 2, "dept": 14},
    ),
}
each_dataset = pytest.mark.parametrize("load", FACTS, ids=lambda load: load.__name__)


@each_dataset
def test_rows_target_and_levels(load):
    n, target, n_levels = FACTS[load]
    bunch = load()
    assert len(bunch.frame) == n
    assert bunch.target_name == bunch.target.name == target
    assert bunch.feature_names == list(bunch.data.columns)
    assert set(bunch.frame.columns) == {*bunch.feature_names, target}
    assert not bunch.frame.isna().any(axis=None)
    factors = bunch.frame.select_dtypes("category")
    assert {name: len(factors[name].cat.categories) for name in factors} == n_levels
    assert factors.nunique().to_dict() == n_levels


@each_dataset
def test_return_X_y(load):
    bunch = load()
    X, y = load(return_X_y=True)
    assert X.equals(bunch.data)
    assert y.equals(bunch.target)


@each_dataset
def test_arrays_hold_the_labels_and_numbers_of_the_frame(load):
    bunch, arrays = load(), load(as_frame=False)
    assert arrays.frame is None
    assert arrays.data.dtype == object
    assert arrays.feature_names == bunch.feature_names
    assert_array_equal(arrays.data, bunch.data.astype(object).to_numpy())
    assert_array_equal(arrays.target, bunch.target.to_numpy())
    assert np.issubdtype(arrays.target.dtype, np.number)


@each_dataset
def test_description_names_every_column_and_the_source(load):
    bunch = load()
    assert Path(bunch.filename).is_file()
    table_rows = {line.split()[0] for line in bunch.DESCR.splitlines() if line.strip()}
    assert set(bunch.frame.columns) <= table_rows
    assert f":Rows: {len(bunch.frame)}," in bunch.DESCR
    assert f":Target: ``{bunch.target_name}``" in bunch.DESCR
    assert "Source: the data set" in bunch.DESCR


def test_levels_keep_the_order_of_the_source():
    exam = load_exam().data
    assert list(exam["school"].cat.categories) == [str(i) for i in range(1, 66)]
    assert list(exam["schgend"].cat.categories) == ["mixed", "boys", "girls"]
    assert list(exam["vr"].cat.categories) == ["bottom 25%", "mid 50%", "top 25%"]
    insteval = load_insteval().data
    assert list(insteval["s"].cat.categories) == [str(i) for i in range(1, 2973)]
    assert list(insteval["d"].cat.categories[[0, 1, -1]]) == ["1", "6", "2160"]
    assert list(insteval["dept"].cat.categories[:4]) == ["15", "5", "10", "12"]


def test_ordinary_regression_of_the_exam_scores():
    X, y = load_exam(return_X_y=True)
    X = X[["standLRT"]]
    ols = LinearRegression().fit(X, y)
    rss = np.sum((y - ols.predict(X)) ** 2)
    assert_allclose(ols.intercept_, -0.001191, atol=5e-7)
    assert_allclose(ols.coef_, [0.595057], atol=5e-7)
    assert_allclose(np.sqrt(rss / (len(y) - 2)), 0.8054, atol=5e-5)
    assert_allclose(ols.score(X, y), 0.350, atol=5e-4)


def test_what_the_exam_description_says_of_its_peculiarities():
    exam = load_exam().data
    means = exam.groupby("intake", observed=True)["standLRT"].mean()
    assert_allclose(means[["bottom 25%", "top 25%"]], [0.92, -1.33], atol=0.005)
    twins = exam[exam.duplicated(["school", "student"])]
    assert twins["school"].to_list() == ["43", "50", "52", "52"]


def test_pastes_samples_are_the_casks_of_the_batches():
    pastes = load_pastes().data.astype(str)
    assert (pastes["sample"] == pastes["batch"] + ":" + pastes["cask"]).all()


def test_every_cake_batch_was_baked_at_every_temperature():
    cake = load_cake().data
    cells = cake.groupby(["recipe", "replicate", "temperature"], observed=True).size()
    assert len(cells) == 270
    assert (cells == 1).all()


def test_days_of_a_mare_are_consecutive():
    ovary = load_ovary().data
    for _, rows in ovary.groupby("mare", observed=True):
        assert rows["day"].to_list() == list(range(1, len(rows) + 1))
        assert rows["cycle"].is_monotonic_increasing


def test_parts_of_a_simulation_add_up():
    sample = make_mixed_regression(
        300,
        3,
        n_groups=[20, 7],
        n_slopes=[2, 0],
        intercept=4.0,
        noise=0,
        random_state=1,
    )
    assert_allclose(sample.fixed, 4.0 + sample.X @ sample.coef)
    first, second = sample.random_effects
    by_factor = [
        np.sum(
            np.c_[np.ones(300), sample.X[:, :2]] * first[sample.groups[:, 0]], axis=1
        ),
        second[sample.groups[:, 1], 0],
    ]
    assert_allclose(sample.random.T, by_factor)
    assert_allclose(sample.y, sample.fixed + sum(by_factor))


def test_simulated_effects_and_errors_have_the_true_covariances():
    """Each entry lies within 4 standard errors of its Monte-Carlo distribution.

    The mean of b_i b_j over G levels has variance (S_ii S_jj + S_ij^2) / G, and
    that of e^2 over n rows has variance 2 sigma^4 / n.
    """
    true = np.array([[2.0, -0.6], [-0.6, 0.5]])
    G = n = 20_000
    sample = make_mixed_regression(
        n, 1, n_groups=G, n_slopes=1, covariance=true, noise=0.3, random_state=2
    )
    b = sample.random_effects[0]
    variances = np.diag(true)
    standard_error = np.sqrt((np.outer(variances, variances) + true**2) / G)
    assert np.all(np.abs(b.T @ b / G - true) < 4 * standard_error)
    errors = sample.y - sample.fixed - sample.random[:, 0]
    assert abs(np.mean(errors**2) - 0.09) < 4 * 0.09 * np.sqrt(2 / n)
    assert_array_equal(sample.covariances[0], true)
    assert sample.sigma == 0.3


def test_singular_covariance_confines_the_effects_to_a_line():
    sample = make_mixed_regression(
        100,
        1,
        n_slopes=1,
        covariance=np.array([[4.0, 2.0], [2.0, 1.0]]),
        random_state=0,
    )
    b = sample.random_effects[0]
    assert_allclose(b[:, 0], 2 * b[:, 1], atol=1e-7)
    assert np.std(b[:, 1]) > 0.5


@pytest.mark.parametrize("nested", [False, True])
def test_every_level_occurs_and_nesting_is_as_asked(nested):
    sample = make_mixed_regression(
        60, n_groups=[4, 9, 30], nested=nested, random_state=3
    )
    codes = pd.DataFrame(sample.groups)
    assert codes.nunique().to_list() == [4, 9, 30]
    assert codes.max().to_list() == [3, 8, 29]
    parents = [codes.groupby(f + 1)[f].nunique().max() for f in (0, 1)]
    assert all(p == 1 for p in parents) if nested else all(p > 1 for p in parents)


def test_same_seed_same_data():
    first, again, other = (
        make_mixed_regression(random_state=seed) for seed in (5, 5, 6)
    )
    assert_array_equal(first.y, again.y)
    assert not np.any(first.y == other.y)


def test_frames_hold_the_arrays():
    arrays = make_mixed_regression(50, 2, n_groups=[5, 5], random_state=0)
    frames = make_mixed_regression(
        50, 2, n_groups=[5, 5], as_frame=True, random_state=0
    )
    assert list(frames.X.columns) == ["x0", "x1"]
    assert list(frames.groups.columns) == ["group0", "group1"]
    assert_array_equal(frames.X, arrays.X)
    assert_array_equal(frames.groups, arrays.groups)
    assert_array_equal(frames.y, arrays.y)
    one = make_mixed_regression(50, 2, n_groups=5, as_frame=True, random_state=0)
    assert one.groups.name == "group"


def test_given_coefficients_are_used():
    sample = make_mixed_regression(20, 2, n_groups=3, coef=[2, -1], random_state=0)
    assert_array_equal(sample.coef, [2, -1])
    assert_allclose(sample.fixed, sample.X @ [2, -1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_groups": 21}, r"n_groups=\[21\], but every level needs a row"),
        ({"n_groups": [3, 0]}, r"between 1 and n_samples=20 levels"),
        ({"n_groups": [5, 3], "nested": True}, "outermost to the innermost"),
        ({"n_slopes": 3}, r"n_slopes=\[3\]; expected between 0 and n_features=2"),
        ({"n_slopes": [1, 1]}, "n_slopes is a list of 2 for 1 grouping factor"),
        ({"covariance": [[1, 0], [0, 1]]}, "covariance is a list of 2 for 1"),
        ({"covariance": np.eye(2)}, r"shape \(2, 2\); expected \(1, 1\)"),
        ({"covariance": -1.0}, r"Not a covariance: \[\[-1.0\]\]"),
        (
            {"n_slopes": 1, "covariance": np.array([[1, 0], [1, 1]])},
            "not symmetric",
        ),
        ({"coef": [1.0]}, r"coef has shape \(1,\); expected \(2,\)"),
        ({"noise": -1.0}, "noise=-1.0 is negative"),
    ],
)
def test_impossible_models_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mixed_regression(20, 2, **{"n_groups": 4, **arguments})
