"""Settings of the whole test suite."""

import os

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

os.environ.setdefault("MPLBACKEND", "Agg")

# The same examples in every run, however slow the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread_per_worker():
    """Keep the workers of pytest-xdist from competing for the same cores."""
    with threadpool_limits(1 if "PYTEST_XDIST_WORKER" in os.environ else None):
        yield
