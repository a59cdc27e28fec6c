"""Random vectors for the traces of matrices that are known by their products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sklearn_lmm._types import FloatArray


@dataclass(frozen=True, eq=False)
class Probes:
    """Vectors z_j and weights w_j with E sum_j w_j z_j z_j' = I on some rows.

    z : (m, k) in single precision, the random ones first, of weight 1 / n_random;
        the others are fixed, of weight 1
    n_random : how many of them are random
    """

    z: NDArray[np.float32]
    n_random: int

    @property
    def weights(self) -> FloatArray:
        weights = np.ones(self.z.shape[1])
        weights[: self.n_random] = 1.0 / max(1, self.n_random)
        return weights


def draw_probes(
    bases: Sequence[tuple[slice, FloatArray]], m: int, count: int, seed: int
) -> Probes:
    """Return random signs, and exact vectors where few will do.

    Random signs are those of Hutchinson (1990), Communications in Statistics 19:
    433-450.  Rows of a place with no more of them than `count` get unit vectors
    instead.  Elsewhere the directions of a basis, along which the matrix is
    known to be large, are taken out of the random vectors and become fixed ones
    (Gambhir, Stathopoulos and Orginos 2017, SIAM Journal on Scientific
    Computing 39: A532-A558).  The signs are the same for any count and basis.

    Parameters
    ----------
    bases : disjoint places among the m rows, each with some directions (rows, k)
    """
    signs, fixed = np.zeros((m, count), dtype=np.float32), []
    for place, basis in bases:
        rows = place.stop - place.start
        directions = np.eye(rows) if rows <= count else np.linalg.qr(basis)[0]
        if rows > count:
            _draw_signs(signs, place, seed)
            signs[place] -= directions @ (directions.T @ signs[place])
        vectors = np.zeros((m, directions.shape[1]), dtype=np.float32)
        vectors[place] = directions
        fixed.append(vectors)
    n_random = count if any(p.stop - p.start > count for p, _ in bases) else 0
    return Probes(np.hstack([signs[:, :n_random], *fixed]), n_random)


def _draw_signs(signs: NDArray[np.float32], place: slice, seed: int) -> None:
    """Put random signs, a stream for every place and column, into a place."""
    rows = place.stop - place.start
    for j in range(signs.shape[1]):
        generator = np.random.default_rng([seed, place.start, j])
        signs[place, j] = 2.0 * generator.integers(0, 2, rows, dtype=np.int8) - 1.0
