"""Which strategy is taken, exact ones wherever they are affordable."""

import numpy as np
import pytest
from points import statistics_of
from problems import CROSSED, Effects, disconnected, make_design

from sklearn_lmm._engine import memory, strategy
from sklearn_lmm._engine.cross_products import cross_products
from sklearn_lmm._engine.factor_krylov import Sampling
from sklearn_lmm._engine.strategy import choose_strategy, exact_is_affordable


def sampling():
    return Sampling(0)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("slope", "single"),
        ("nested_slopes", "nested"),
        ("crossed_slopes", "krylov"),
        ("crossed_and_nested", "krylov"),
    ],
)
def test_only_crossed_factors_are_estimated(name, expected):
    assert choose_strategy(statistics_of(name), sampling).name == expected


@pytest.mark.parametrize("name", CROSSED)
def test_exact_wherever_it_is_affordable(name):
    statistics = statistics_of(name)
    assert choose_strategy(statistics).name == "crossed"
    assert choose_strategy(statistics, sampling, if_needed=True).name == "crossed"


@pytest.mark.parametrize("limit", ["memory", "MOST_FLOPS"])
def test_estimated_where_it_is_not(monkeypatch, limit):
    monkeypatch.setattr(strategy, limit, (lambda: 1e3) if limit == "memory" else 1e3)
    statistics = statistics_of("crossed_slopes")
    assert choose_strategy(statistics, sampling, if_needed=True).name == "krylov"


def test_components_count_by_themselves(monkeypatch):
    rng = np.random.default_rng(0)
    labels = disconnected(rng, 400, 20, (4, 6))
    statistics = cross_products(make_design(rng, labels, [Effects(0), Effects(1)]))
    # Twenty blocks of at most 4 rows, not one of 79.
    monkeypatch.setattr(strategy, "MOST_FLOPS", 6.0 * 20 * 4**3)
    assert exact_is_affordable(statistics)
    monkeypatch.setattr(strategy, "MOST_FLOPS", 3.0 * 20 * 4**3)
    assert not exact_is_affordable(statistics)


def test_memory_is_guessed_where_the_system_does_not_tell(monkeypatch):
    statistics = statistics_of("crossed_slopes")
    assert memory.memory() > 2**20
    monkeypatch.delattr(memory.os, "sysconf", raising=False)
    assert memory.memory() is None
    assert exact_is_affordable(statistics)
    monkeypatch.setattr(strategy, "UNKNOWN_MEMORY", 1e3)
    assert not exact_is_affordable(statistics)
