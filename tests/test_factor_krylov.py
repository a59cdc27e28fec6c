"""Conjugate gradients and probes against dense algebra, on random problems."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from points import assert_close, dense_point, fast_point, statistics_of
from problems import CROSSED, THETAS

from sklearn_lmm._engine import factor_krylov, implicit_schur, krylov_traces
from sklearn_lmm._engine.factor_krylov import KrylovStrategy, Sampling

EVERYTHING = 1024
"""More probes than rows: nothing is random."""

each_problem = pytest.mark.parametrize("name", CROSSED)
each_theta = pytest.mark.parametrize("kind", THETAS)


def krylov_point(name, kind, probes=EVERYTHING, seed=0, reml=True):
    sampling = Sampling(seed, probes)
    return fast_point(name, kind, reml, lambda s: KrylovStrategy(s, sampling))


@each_theta
@each_problem
def test_projection_equals_dense(name, kind):
    dense, point = dense_point(name, kind), krylov_point(name, kind)
    tolerance = 1e-5 if kind == "large" else 1e-8
    assert_close(point.U, dense.U, tolerance)
    assert_close(point.ZVT, dense.ZVT, tolerance)
    assert_allclose(point.beta, dense.beta, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["interior", "zero", "singular", "small"])
@each_problem
def test_with_all_units_as_probes_traces_are_exact(name, kind):
    dense, point = dense_point(name, kind), krylov_point(name, kind)
    assert_close(point.state.block_sums(), dense.state.block_sums(), 1e-4)
    assert_close(point.state.posterior_blocks(), dense.state.posterior_blocks(), 1e-4)
    assert_allclose(point.state.logdet, dense.state.logdet, rtol=1e-6, atol=1e-6)
    assert point.state.traces.samples[0].shape[0] == 0


@pytest.mark.parametrize("kind", ["interior", "singular"])
@pytest.mark.parametrize("name", ["crossed_slopes", "crossed_three", "crossed_four"])
def test_estimates_scatter_around_dense_as_they_say(name, kind):
    state = dense_point(name, kind).state
    sums, errors, logs, log_errors = [], [], [], []
    for seed in range(60):
        estimate = krylov_point(name, kind, probes=4, seed=seed).state
        sums.append(np.concatenate([Q.ravel() for Q in estimate.block_sums()]))
        samples = [s.reshape(len(s), -1) for s in estimate.traces.samples]
        errors.append(np.concatenate(samples, axis=1).var(axis=0, ddof=1) / 4)
        logs.append(estimate.logdet)
        forms, probes = estimate.log_forms
        log_errors.append(forms[: probes.n_random].var(ddof=1) / 4)
    exact = np.concatenate([Q.ravel() for Q in state.block_sums()])
    scatter = np.sqrt(np.mean(errors, axis=0)) + 1e-5 * np.abs(exact).max()
    z = (np.mean(sums, axis=0) - exact) / (scatter / np.sqrt(60))
    assert np.abs(z).max() < 4.5
    observed = np.sqrt(np.mean((np.array(sums) - exact) ** 2, axis=0))
    assert (observed < 1.6 * scatter + 1e-9).all()
    assert (scatter < 2.5 * observed + 2e-5 * np.abs(exact).max()).all()
    log_scatter = np.sqrt(np.mean(log_errors)) + 1e-6
    assert abs(np.mean(logs) - state.logdet) < 4.5 * log_scatter / np.sqrt(60)


@pytest.mark.parametrize("kind", ["interior", "singular", "zero", "large"])
@each_problem
def test_variances_of_predictions_equal_dense(name, kind, monkeypatch):
    monkeypatch.setattr(factor_krylov, "MOST_AT_ONCE", 4)
    rng = np.random.default_rng(6)
    shapes = [s.shape[:2] for s in statistics_of(name).s]
    codes = tuple(rng.integers(0, G, 15) for G, _ in shapes)
    z = tuple(rng.normal(size=(15, q)) for _, q in shapes)
    for rows in (*codes, *z):
        rows[7] = rows[2]
    for z_f in z:
        z_f[4] = 0.0
    got = krylov_point(name, kind, 4).state.posterior_variances(codes, z)
    expected = dense_point(name, kind).state.posterior_variances(codes, z)
    assert_allclose(got, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert got[4] == 0.0


def test_variances_of_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(factor_krylov, "MOST_ROWS", 3)
    state = krylov_point("crossed_intercepts", "interior", 4).state
    codes, z = (np.arange(5), np.arange(5)), (np.ones((5, 1)), np.ones((5, 1)))
    with pytest.raises(ValueError, match=r"5 are too many. Ask for at most 3"):
        state.posterior_variances(codes, z)
    # Rows without random effects need no system.
    none = tuple(np.zeros_like(z_f) for z_f in z)
    assert_allclose(state.posterior_variances(codes, none), 0.0)


@pytest.mark.parametrize("name", ["crossed_intercepts", "crossed_three"])
def test_derivatives_equal_dense(name):
    dense = dense_point(name, "interior")
    point = krylov_point(name, "interior")
    assert_allclose(point.gradient, dense.gradient, rtol=0, atol=1e-3)
    assert_allclose(point.hessian, _average_information(dense), rtol=0, atol=2e-3)
    # There are no traces for anything better.
    assert point.observed_hessian is point.hessian


def _average_information(dense):
    forms = dense.state.forms(dense.F, dense.v, dense.directions(), True)
    vAPAv = forms.vAQAv - forms.FAv @ forms.FAv.T
    return (
        vAPAv
        - np.outer(forms.vAv, forms.vAv) / dense.criterion.N
        + dense._structure_curvature()
    )


def test_probes_are_few_at_a_time(monkeypatch):
    point = krylov_point("crossed_slopes", "interior")
    monkeypatch.setattr(krylov_traces, "COLUMNS_AT_ONCE", 5)
    other = krylov_point("crossed_slopes", "interior")
    assert_close(other.state.block_sums(), point.state.block_sums(), 1e-5)
    assert_close(other.state.posterior_blocks(), point.state.posterior_blocks(), 1e-4)


def test_what_single_precision_cannot_solve_is_solved_in_double(monkeypatch):
    expected = krylov_point("crossed_slopes", "interior").state.block_sums()
    monkeypatch.setitem(implicit_schur.MOST_STEPS, np.float32, 1)
    got = krylov_point("crossed_slopes", "interior").state.block_sums()
    assert_close(got, expected, 1e-4)


def test_no_convergence_is_an_error(monkeypatch):
    monkeypatch.setitem(implicit_schur.MOST_STEPS, np.float64, 1)
    with pytest.raises(np.linalg.LinAlgError, match="nearly confounded"):
        krylov_point("crossed_slopes", "interior")
