"""Textbook matrices of size n x n for the rows of a fit."""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from problems import problem, wide_columns
from scipy import linalg

from sklearn_lmm._engine.fit import fit
from sklearn_lmm._engine.fitted_rows import FittedRows
from sklearn_lmm._engine.result import LMMFit


class Dense:
    """X, y and V of rows, in the engine's units and times sqrt(w)."""

    def __init__(self, rows: FittedRows) -> None:
        design = rows.design
        Z = wide_columns(design, rows.statistics) * rows.root_weights[:, None]
        blocks = [
            np.kron(np.eye(factor.n_levels), L @ L.T)
            for factor, L in zip(design.factors, rows.point.L, strict=True)
        ]
        self.ZPsiZ = [
            part @ block @ part.T
            for part, block in zip(
                np.split(Z, np.cumsum([len(b) for b in blocks])[:-1], axis=1),
                blocks,
                strict=True,
            )
        ]
        self.Z, self.Psi = Z, linalg.block_diag(*blocks)
        self.V = np.eye(len(Z)) + sum(self.ZPsiZ)
        T = rows.T(slice(None))
        self.X, self.y = T[:, :-1], T[:, -1]
        self.H = self.X.T @ self.solve(self.X)
        self.beta = np.linalg.solve(self.H, self.X.T @ self.solve(self.y))
        self.marginal = self.y - self.X @ self.beta

    def solve(self, x):
        return np.linalg.solve(self.V, x)

    @cached_property
    def P(self):
        VX = self.solve(self.X)
        return np.linalg.inv(self.V) - VX @ np.linalg.solve(self.H, VX.T)

    def without(self, run):
        """Return beta, r2 and log|H| of the rows that are not in `run`."""
        stay = np.setdiff1d(np.arange(len(self.y)), run)
        X, y, V = self.X[stay], self.y[stay], self.V[np.ix_(stay, stay)]
        VX = np.linalg.solve(V, X)
        H = X.T @ VX
        beta = np.linalg.solve(H, VX.T @ y)
        e = y - X @ beta
        return beta, e @ np.linalg.solve(V, e), np.linalg.slogdet(H)[1]

    def full_rank_without(self, run):
        stay = np.setdiff1d(np.arange(len(self.y)), run)
        return len(stay) and np.linalg.matrix_rank(self.X[stay]) == self.X.shape[1]


@cache
def dense_fit(
    name: str, weights: str = "frequency", reml: bool = True
) -> tuple[LMMFit, FittedRows, Dense]:
    """Fit a problem; return the fit, its rows and their dense matrices."""
    design = problem(name)
    result = fit(design, reml=reml, weights=weights)
    rows = FittedRows.of(result, design)
    return result, rows, Dense(rows)
