"""The numbers of nlme and glmmTMB: every fit with a residual structure."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from residual_models import NLME, SPECS, fitted

from sklearn_lmm.intervals import confidence_intervals, variance_parameters

each_fit = pytest.mark.parametrize("name", NLME)
each_exact_fit = pytest.mark.parametrize(
    "name", [name for name, oracle in NLME.items() if oracle["exact"]]
)


def test_every_oracle_has_a_model():
    assert {name.rpartition("_")[0] for name in NLME} == set(SPECS)


@each_fit
def test_the_criterion_is_nlmes_or_lower(name):
    model, oracle = fitted(name), NLME[name]
    assert model.converged_
    excess = -2.0 * model.log_likelihood_ - oracle["criterion"]
    assert excess < 1e-8
    if oracle["exact"]:
        assert abs(excess) < 1e-8


@each_fit
def test_fixed_effects_and_their_errors(name):
    model, oracle = fitted(name), NLME[name]
    # Nine digits where the reference is at its optimum; glmmTMB is close to it.
    rtol = 1e-6 if oracle["exact"] else 2e-4
    beta = np.array(list(oracle["beta"].values()))
    se = np.array(list(oracle["se"].values()))
    assert_allclose(model.fixed_effects_, beta, rtol=rtol, atol=rtol * se.max())
    # glmmTMB's errors are of another kind: they count the uncertainty of theta.
    if not name.startswith("tmb"):
        own = np.sqrt(np.diag(model.fit_.beta_covariance)[model.fit_.kept])
        assert_allclose(own, se, rtol=10 * rtol)


@each_exact_fit
def test_covariances_of_the_random_effects(name):
    model, oracle = fitted(name), NLME[name]
    if model.singular_:
        return
    # nlme lists the innermost factor last.
    blocks = list(oracle["covariances"].values())[::-1]
    for own, expected in zip(
        model.covariances_.values(), map(np.array, blocks), strict=True
    ):
        size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert_allclose(own / size, expected / size, rtol=0, atol=1e-5)


@each_exact_fit
def test_parameters_of_the_errors(name):
    model, oracle = fitted(name), NLME[name]
    found = model.residual_parameters_
    correlation = oracle["correlation"] or []
    if isinstance(correlation, dict):
        correlation = list(correlation.values())
    k = len(correlation)
    assert_allclose(found[:k], correlation, rtol=1e-5, atol=1e-7)
    deviations = oracle["deviations"] or {}
    if "expon" in deviations:
        assert_allclose(found[k:], deviations["expon"], rtol=1e-5)
        deviations = {}
    # nlme gives a ratio for every category, 1 for the first of its order.
    ratios = np.array(list(deviations.values()) or [1.0])
    own = np.append(1.0, found[k:]) if deviations else ratios
    assert_allclose(own, ratios / ratios[0], rtol=1e-5)
    assert_allclose(model.sigma_, oracle["sigma"], rtol=1e-6)


# nlme's intervals(): Wald, of log((1 + phi) / (1 - phi)) and of the rate itself, from
# a Hessian by differences.
INTERVALS = {
    "lme_ovary_ar1_reml": ("phi", 0.430526228037526, 0.686334722269943),
    "lme_sleep_ri_ar1_reml": ("phi", 0.434141359553146, 0.799237752600095),
    "gls_ovary_ar1_ml": ("phi", 0.659954946499186, 0.809351339922262),
    "lme_sleep_varexp_reml": ("rate[Days]", 0.0369145684232536, 0.133137097877084),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_standard_errors_of_the_parameters_of_the_errors(name):
    parameter, *limits = INTERVALS[name]
    found = variance_parameters(fitted(name)).loc[parameter]
    value, error = found["estimate"], found["std_error"]
    if parameter == "phi":
        limits, error = np.arctanh(limits), error / (1.0 - value**2)
    assert_allclose(2.0 * 1.959964 * error, limits[1] - limits[0], rtol=1e-2)


# Further limits of intervals(): on the scale of log(x), log((x - low) / (high - x)).
LIMITS = [
    *((name, *interval) for name, interval in INTERVALS.items()),
    ("gls_sleep_cs_reml", "rho", 0.396077647060929, 0.751061674867935),
    ("gls_orthodont_cs_ml", "rho", 0.431259689294544, 0.762231357410862),
    ("gls_ovary_corexp_nugget_ml", "range", 4.33866078219729, 16.5946909641279),
    ("gls_ovary_corexp_nugget_ml", "nugget", 0.0947426699066671, 0.297135894928266),
    ("lme_ovary_car1_ml", "phi", 3.76348780838144e-07, 0.000759484358740477),
    ("lme_ovary_arma11_ml", "ar1", 0.573943770668906, 0.906301226714615),
    ("lme_ovary_arma11_ml", "ma1", -0.474001441282616, -0.0526194612854694),
    (
        "lme_orthodont_varident_reml",
        "ratio[Female]",
        0.287745644967644,
        0.580913998368987,
    ),
]


@pytest.mark.parametrize(("name", "parameter", "lower", "upper"), LIMITS)
def test_wald_intervals_of_the_parameters_of_the_errors(name, parameter, lower, upper):
    found = confidence_intervals(fitted(name), parameters=parameter).loc[parameter]
    assert found["estimate"] == fitted(name).residual_parameters_[parameter]
    assert_allclose(found[["lower", "upper"]].astype(float), [lower, upper], rtol=2e-2)
