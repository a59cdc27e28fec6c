"""Warnings of a fit that is usable all the same, each a class to filter by."""

from sklearn.exceptions import ConvergenceWarning

__all__ = [
    "ConvergenceWarning",
    "IdentifiabilityWarning",
    "MissingGroupsWarning",
    "PerfectFitWarning",
    "RankDeficiencyWarning",
    "SingularFitWarning",
    "StochasticFitWarning",
]


class MissingGroupsWarning(UserWarning):
    """There are no labels to group by.

    At fit nothing is left but ordinary least squares; at predict every row
    counts as one of an unknown group.
    """


class SingularFitWarning(UserWarning):
    """A covariance of random effects is singular at the optimum.

    A coefficient has no variance, or some are perfectly correlated.  The fit
    is an ordinary optimum on the boundary of the parameter space.
    """


class StochasticFitWarning(UserWarning):
    """Crossed factors are too large for an exact fit, and were fitted otherwise.

    `solver="auto"` has taken "stochastic": traces are estimated with random
    vectors, and what they leave uncertain is in `fit_.monte_carlo`.  Or the
    error of a stochastic fit is not as small as it should be.
    """


class IdentifiabilityWarning(UserWarning):
    """The criterion is flat in the parameters of a term, which are set to 0.

    The factor has one level only, or every level has a single row.
    """


class RankDeficiencyWarning(UserWarning):
    """Columns of the fixed part depend linearly on earlier ones: dropped."""


class PerfectFitWarning(UserWarning):
    """The response is explained exactly, so that no residual variance is left."""
