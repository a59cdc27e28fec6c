"""What the tests of types I, II and III say of the fixed effects.

Type I tests every term after those before it, type II after all that do not
contain it, type III the contrasts that are orthogonal to those of the terms
that contain it, so that effects of categories are averaged over the others'
levels, each level counting alike (Goodnight 1980, SAS Technical Report R-101).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._types import FloatArray
from sklearn_lmm.inference._terms import TestedTerm


def sequential(gram: FloatArray, terms: Sequence[TestedTerm]) -> list[FloatArray]:
    """Return the contrasts of type I, from X'WX (`centred_gram`)."""
    before = [j for j in range(len(gram)) if not any(j in t.columns for t in terms)]
    contrasts = []
    for k, term in enumerate(terms):
        after = [j for later in terms[k + 1 :] for j in later.columns]
        contrasts.append(_adjusted(gram, before, term, after))
        before = before + list(term.columns)
    return contrasts


def marginal(gram: FloatArray, terms: Sequence[TestedTerm]) -> list[FloatArray]:
    """Return the contrasts of type II, from X'WX (`centred_gram`)."""
    contrasts = []
    for term in terms:
        after = [j for t in terms if term.is_in(t) for j in t.columns]
        before = sorted(set(range(len(gram))) - {*after, *term.columns})
        own = np.eye(len(gram))[list(term.columns)]
        contrasts.append(_adjusted(gram, before, term, after) if after else own)
    return contrasts


def orthogonal(basis: FloatArray, terms: Sequence[TestedTerm]) -> list[FloatArray]:
    """Return the contrasts of type III.

    basis : (d, p), with X = D basis' for the columns D (n, d) of indicators of
        all levels, none left out, so that its columns are estimable functions
    """
    basis = basis.copy()
    weights = np.eye(basis.shape[1])
    for term in sorted(terms, key=lambda term: -len(term.factors)):
        own = list(term.columns)
        larger = [j for other in terms if term.is_in(other) for j in other.columns]
        if larger:
            share = np.linalg.lstsq(basis[:, larger], basis[:, own])[0]
            basis[:, own] -= basis[:, larger] @ share
            weights[:, own] -= weights[:, larger] @ share
    return [weights[:, list(term.columns)].T for term in terms]


def _adjusted(
    gram: FloatArray, before: list[int], term: TestedTerm, after: list[int]
) -> FloatArray:
    """Return the hypothesis on a term's effects after those `before`.

    Where the effects `after` are not in the model: what these columns explain
    of them is added to the term's own effects.  The rows are those of the unit
    triangular factor of X'WX with its columns in this order: on their basis,
    not on what they span alone, depend Satterthwaite's degrees of freedom.
    """
    own = list(term.columns)
    q, order = len(own), own + after
    rest = gram[np.ix_(own, order)]
    if before:
        inner, cross = gram[np.ix_(before, before)], gram[np.ix_(before, order)]
        rest = rest - cross[:, :q].T @ linalg.solve(inner, cross, assume_a="pos")
    root = linalg.cholesky(rest[:, :q])
    contrast = np.zeros((q, len(gram)))
    contrast[:, order] = linalg.solve_triangular(root, rest, trans="T")
    return contrast / np.diag(root)[:, None]


def centred_gram(statistics: CrossProducts) -> FloatArray:
    """Return X'WX (p, p) of all columns, less their means if there is an intercept.

    The mean of a column is the intercept's affair: contrasts adjusted for the
    intercept are the same with it, and digits are not lost to it.
    """
    R = statistics.columns.map()[:-1, :-1].copy()
    if statistics.intercept:
        R[0, 1:] = 0.0
    inverse = np.linalg.inv(R)
    return np.asarray(inverse.T @ statistics.tt[:-1, :-1] @ inverse)
