"""The fit without some rows: theta kept against dense matrices, refits against fits."""

from dataclasses import replace

import numpy as np
import pytest
from dense_rows import dense_fit
from numpy.testing import assert_allclose
from problems import CROSSED, NESTED, PROBLEMS, problem, take

from sklearn_lmm._engine import deletion
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.deletion import without_clusters
from sklearn_lmm._engine.downdating import Downdating, refits
from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.fitted_rows import Clusters, FittedRows

every_problem = pytest.mark.parametrize("name", PROBLEMS)


def partitions(rows):
    """Return clusters of every sort: of a factor, across the factors, of a row."""
    n = len(rows)
    yield from (Clusters(f.codes, f.n_levels) for f in rows.design.factors)
    if len(rows.codes) > 1:
        cells = np.unique(np.array(rows.codes), axis=1, return_inverse=True)[1]
        yield Clusters(cells, int(cells.max()) + 1)
    yield Clusters(np.arange(n) // 7, -(-n // 7))
    yield Clusters(np.random.default_rng(0).permutation(n), n)


def check(rows, dense, clusters):
    """Compare with dense matrices; return how many clusters X cannot do without."""
    result = without_clusters(rows, clusters)
    R_X = np.linalg.inv(rows.point.inverse_R_X)
    beta, r2, logdet = dense.without([])
    lost = 0
    for c, run in enumerate(clusters.runs()):
        assert_allclose(result.n_obs[c], rows.copies[run].sum())
        if not dense.full_rank_without(run):
            lost += 1
            assert np.isnan([result.r2[c], result.logdet[c]]).all()
            assert np.isnan(result.beta[c]).all()
            continue
        left = dense.without(run)
        assert_allclose(result.beta[c], R_X @ (beta - left[0]), atol=1e-10)
        assert_allclose(result.r2[c], r2 - left[1], atol=1e-10)
        assert_allclose(result.logdet[c], logdet - left[2], atol=1e-10)
    return lost


@every_problem
def test_theta_kept(name):
    _, rows, dense = dense_fit(name)
    for clusters in partitions(rows):
        lost = check(rows, dense, clusters)
        assert lost == (clusters.m == 1)


@pytest.mark.parametrize("name", [*NESTED, *CROSSED])
def test_large_clusters(name, monkeypatch):
    """A cluster too large for its block of the hat matrix, beside small ones."""
    _, rows, dense = dense_fit(name)
    monkeypatch.setattr(deletion, "LARGE", 20)
    n = len(rows)
    check(rows, dense, Clusters(np.minimum(np.arange(n) // 4, 5), 6))


@pytest.mark.parametrize("name", ["slope", "crossed_slopes"])
def test_columns_that_one_cluster_alone_tells_apart(name):
    design = problem(name)
    own = design.factors[0].codes == 2
    design = replace(design, X=np.column_stack([design.X, own * 1.0]))
    result = fit(design, reml=True)
    rows = FittedRows.of(result, design)
    factor = design.factors[0]
    deletions = without_clusters(rows, Clusters(factor.codes, factor.n_levels))
    lost = np.isnan(deletions.r2)
    assert lost.nonzero()[0].tolist() == [2]
    combination = rows.point.inverse_R_X @ deletions.direction[2]
    shares = np.abs(combination) / np.abs(combination).max()
    # In standardised units a shift of the intercept goes with it.
    assert_allclose(shares[1:], [*[0.0] * (len(shares) - 2), 1.0], atol=1e-6)


@every_problem
def test_downdated_sums_are_those_of_the_other_rows(name):
    result, rows, _ = dense_fit(name)
    design, whole = problem(name), result.statistics
    downdating = Downdating(whole, design)
    for clusters in list(partitions(rows))[:2]:
        if clusters.m == 1:
            continue
        run = clusters.runs()[1]
        stay = np.setdiff1d(np.arange(len(rows)), run)
        found = downdating.without(run)
        direct = cross_products(take(design, stay), whole.columns)
        for levels, expected in zip(found.levels, direct.levels, strict=True):
            assert levels.tolist() == expected.tolist()
        assert found.n_rows == direct.n_rows
        assert_allclose(found.sum_weights, direct.sum_weights)
        assert_allclose(found.sum_log_weights, direct.sum_log_weights, atol=1e-12)
        assert_allclose(found.tt, direct.tt, atol=1e-10)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weights", ["frequency", "precision"])
@pytest.mark.parametrize(
    "name", ["two_terms", "slope", "nested_slopes", "crossed_three", "crossed_widths"]
)
def test_refits_are_fits_to_the_other_rows(name, weights, reml):
    result, rows, _ = dense_fit(name, weights, reml)
    design = problem(name)
    factor = design.factors[-1]
    runs = Clusters(factor.codes, factor.n_levels).runs()[:3]
    exact = refits(result, design, runs, None)
    some, more = (refits(result, design, runs, steps) for steps in (1, 3))
    for run, *fits in zip(runs, exact, some, more, strict=True):
        stay = np.setdiff1d(np.arange(len(rows)), run)
        direct = fit(take(design, stay), reml=reml, weights=weights)
        refit, one, three = fits
        assert refit.strategy == direct.strategy
        assert_allclose(refit.criterion, direct.criterion, atol=1e-8)
        assert_allclose(refit.beta, direct.beta, atol=1e-4 * direct.sigma)
        assert_allclose(refit.sigma, direct.sigma, rtol=1e-5)
        # One step goes most of the way from where theta was, three further.
        criteria = [one.trace[0].criterion, one.criterion, three.criterion]
        gaps = np.array(criteria) - direct.criterion
        assert gaps[0] + 1e-9 >= gaps[1] >= gaps[2] - 1e-9 >= -1e-8
        assert gaps[2] <= 0.7 * gaps[0] + 1e-8


def test_a_fit_that_needs_the_rows_is_none():
    design = problem("slope")
    own = design.factors[0].codes == 2
    design = replace(design, X=np.column_stack([design.X, own * 1.0]))
    result = fit(design, reml=True)
    runs = [np.flatnonzero(own), np.flatnonzero(~own)[:5]]
    for steps in (None, 2):
        without, other = refits(result, design, runs, steps)
        assert without is None
        assert other is not None
