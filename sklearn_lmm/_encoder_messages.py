"""What the encoder's models found, told once and in the names that the user typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_lmm._columns import listed
from sklearn_lmm._encoder_input import Columns
from sklearn_lmm._encoder_models import Group, Model, Rows
from sklearn_lmm._messages import NEGLIGIBLE, Message
from sklearn_lmm._types import IntArray
from sklearn_lmm.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    PerfectFitWarning,
    RankDeficiencyWarning,
    SingularFitWarning,
)


@dataclass(frozen=True, eq=False)
class Findings:
    """What there is to say of a fit.

    names : of the columns of X
    models : fitted to all rows
    folds : fitted for cross-fitting; of these only non-convergence counts, since
        all else is either found in all rows as well or the work of chance
    """

    names: Sequence[str]
    columns: Columns
    rows: Rows
    models: Sequence[Model]
    folds: Sequence[Model]

    def messages(self) -> Iterator[Message]:
        """Yield at most one message of each kind."""
        perfect = any(model.fit.perfect for model in self.models)
        dropped = self._dropped()
        if dropped:
            yield RankDeficiencyWarning, _rank_deficient(dropped)
        if perfect:
            yield PerfectFitWarning, self._perfect()
            return
        failed = [m for m in (*self.models, *self.folds) if _failed(m)]
        if failed:
            n_models = len(self.models) + len(self.folds)
            yield ConvergenceWarning, _not_converged(failed[0], len(failed), n_models)
        found = [(model, group) for model in self.models for group in model.groups]
        unidentified = [pair for pair in found if _is_unidentified(*pair)]
        if unidentified:
            reasons = [self._why_unidentified(group) for _, group in unidentified]
            yield IdentifiabilityWarning, _unidentified(reasons)
        others = [pair for pair in found if not _is_unidentified(*pair)]
        constant = [name for pair in others for name in self._constant(*pair)]
        if constant:
            yield SingularFitWarning, _constant_columns(constant)

    def _name(self, column: int) -> str:
        return self.names[self.columns.encoded[column]]

    def _dropped(self) -> list[str]:
        kept = np.all([model.fit.kept[1:] for model in self.models], axis=0)
        return [
            self.names[j]
            for j, is_kept in zip(self.columns.fixed, kept, strict=True)
            if not is_kept
        ]

    def _why_unidentified(self, group: Group) -> str:
        name = repr(self._name(group.column))
        if len(group.levels) == 1:
            return f"{name} has one category only"
        if group.counts.max() == 1:
            return f"every category of {name} has a single row"
        return f"the categories of {name} follow from the columns adjusted for"

    def _constant(self, model: Model, group: Group) -> Iterator[str]:
        """Yield the output columns of effects without variance."""
        slopes = self.rows.X[:, : len(self.columns.slopes)]
        rms = np.append(1.0, np.sqrt(np.mean(slopes**2, axis=0)))
        variances = np.diagonal(model.covariance(group)).clip(0)
        small = np.sqrt(variances) * rms <= NEGLIGIBLE * model.fit.sigma
        # A constant covariate has been told of among those that were dropped.
        constant = small & (rms > 0)
        suffixes = self.columns.coefficients(self.names)
        for suffix, is_constant in zip(suffixes, constant, strict=True):
            if is_constant:
                yield f"{self._name(group.column)}{suffix}"

    def _perfect(self) -> str:
        if np.ptp(self.rows.y) == 0:
            return "y is constant, and every category is encoded as that constant."
        names = listed([self._name(k) for k in range(len(self.columns.encoded))])
        return (
            f"y is explained exactly by {names}"
            f"{' and the columns adjusted for' if self.columns.fixed else ''}. "
            "The encodings are finite, but is one of these a copy of y?"
        )


def _failed(model: Model) -> bool:
    return not (model.fit.converged or model.fit.perfect)


def _is_unidentified(model: Model, group: Group) -> bool:
    return group.factor is None or group.factor in model.fit.unidentified


def _rank_deficient(names: list[str]) -> str:
    return (
        "Columns of slopes and adjust_for that are constant or depend linearly on "
        f"earlier ones were dropped: {listed(names)}. The encodings are adjusted for "
        "the others all the same."
    )


def _not_converged(model: Model, n_failed: int, n_models: int) -> str:
    return (
        f"{n_failed} of {n_models} fits did not converge, one of them with gradient "
        f"norm {model.fit.gradient_norm:.2g} after {model.fit.n_iter} iterations. "
        "joint=False or fewer slopes make a simpler model."
    )


def _unidentified(reasons: list[str]) -> str:
    return (
        f"{listed(reasons, quote=False)}: the data cannot tell what varies between "
        "categories, and each is encoded as the population's mean."
    )


def _constant_columns(names: list[str]) -> str:
    return (
        f"transform makes constant columns of {listed(names)}: the variance between "
        "categories is estimated as 0, since they differ by no more than chance. "
        "That is an ordinary result; such a column tells a model nothing."
    )


def refuse_unknown(name: str, column: Any, codes: IntArray) -> None:
    """Raise a ValueError if a row's category was not there at fit."""
    unknown = np.flatnonzero(codes < 0)
    if not len(unknown):
        return
    labels = np.asarray(column, dtype=object)[unknown].tolist()
    raise ValueError(
        f"Unknown categories of {name!r} in {len(unknown)} rows: "
        f"{listed(list(dict.fromkeys(map(repr, labels))), quote=False)}. "
        "handle_unknown='population' encodes them as the population's mean."
    )
