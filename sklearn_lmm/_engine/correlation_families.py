"""Families of correlations given by their matrices."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import special

from sklearn_lmm._engine.block_correlation import BlockCorrelation
from sklearn_lmm._engine.correlation import complex_step, symmetric_stencil
from sklearn_lmm._types import AnyArray, FloatArray, IntArray


class Arma(BlockCorrelation):
    """Autoregressive and moving-average errors, at integer times.

    e_t = sum_i ar_i e_(t-i) + a_t + sum_j ma_j a_(t-j), stationary and
    invertible: u are the inverse hyperbolic tangents of the partial
    autocorrelations of 1 - sum ar_i B^i and of 1 + sum ma_j B^j (Monahan 1984,
    Biometrika 71: 403-404).

    positions : (n, 1), the times
    """

    def __init__(self, starts: IntArray, positions: FloatArray, p: int, q: int) -> None:
        super().__init__(starts, positions)
        self.p, self.q, self.size = p, q, p + q
        spans = [np.ptp(part.positions, axis=(1, 2)).max() for part in self.patterns]
        self.longest = int(max(spans))

    def start(self) -> FloatArray:
        return np.full(self.size, 0.2)

    def values(self, u: AnyArray) -> AnyArray:
        partial = np.tanh(u)
        ar = polynomial_of(partial[: self.p])
        return np.concatenate([ar, -polynomial_of(partial[self.p :])])

    def limits(self) -> FloatArray:
        # Coefficients of a polynomial with all roots outside the unit circle.
        largest = [
            float(special.comb(order, k))
            for order in (self.p, self.q)
            for k in range(1, order + 1)
        ]
        return np.array([[-bound, bound] for bound in largest])

    def unconstrained(self, values: FloatArray) -> FloatArray:
        partial = [partial_of(values[: self.p]), partial_of(-values[self.p :])]
        return np.arctanh(np.concatenate(partial))

    def matrix(self, u: AnyArray, positions: FloatArray) -> AnyArray:
        values = self.values(u)
        rho = autocorrelations(values[: self.p], values[self.p :], self.longest)
        times = positions[:, :, 0].astype(np.int64)
        return np.asarray(rho[np.abs(times[:, :, None] - times[:, None, :])])


def polynomial_of(partial: AnyArray) -> AnyArray:
    """Return c of 1 - sum c_i B^i, given partial autocorrelations (Durbin-Levinson)."""
    c = partial[:0]
    for last in partial:
        c = np.append(c - last * c[::-1], last)
    return c


def partial_of(c: FloatArray) -> FloatArray:
    """Return the partial autocorrelations of 1 - sum c_i B^i: the way back.

    Raises
    ------
    ValueError
        If the polynomial has roots inside the unit circle.
    """
    partial = np.zeros(len(c))
    for k in reversed(range(len(c))):
        partial[k] = c[k]
        if not abs(partial[k]) < 1.0:
            raise ValueError("the coefficients are not those of a stationary process")
        c = (c[:k] + partial[k] * c[:k][::-1]) / (1.0 - partial[k] ** 2)
    return partial


def autocorrelations(ar: AnyArray, ma: AnyArray, longest: int) -> AnyArray:
    """Return the correlations at lags 0 .. longest of an ARMA process.

    Brockwell and Davis (1991), Time Series, section 3.3: for lags k <= p,
    gamma_k - sum_i ar_i gamma_|k-i| = sum_(j>=k) ma_j psi_(j-k), with ma_0 = 1.
    """
    p, q = len(ar), len(ma)
    theta = np.append(np.ones(1, ma.dtype), ma)
    psi = np.zeros(q + 1, theta.dtype)
    for j in range(q + 1):
        psi[j] = theta[j] + sum(ar[i] * psi[j - 1 - i] for i in range(min(p, j)))
    size = max(p, q) + 1
    right = np.array([theta[k:] @ psi[: max(0, q + 1 - k)] for k in range(size)])
    left = np.eye(size, dtype=theta.dtype)
    for k in range(size):
        for i in range(p):
            left[k, abs(k - 1 - i)] -= ar[i]
    gamma = list(np.linalg.solve(left, right))
    for k in range(size, longest + 1):
        gamma.append(sum((ar[i] * gamma[k - 1 - i] for i in range(p)), 0.0))
    rho = np.array(gamma[: max(longest, 0) + 1])
    return np.asarray(rho / gamma[0])


class Unstructured(BlockCorrelation):
    """Any correlation between the errors of K occasions.

    C = V V' with rows v_i = (x_i1, .., x_i,i-1, 1, 0, ..), each divided by its
    length; u are the x.

    positions : (n, 1), the number of the occasion, 0 .. K - 1
    """

    def __init__(self, starts: IntArray, positions: FloatArray, occasions: int) -> None:
        super().__init__(starts, positions)
        self.occasions = occasions
        self._last: tuple[FloatArray, tuple[FloatArray, ...]] | None = None
        self.size = occasions * (occasions - 1) // 2

    def start(self) -> FloatArray:
        return np.full(self.size, 0.1)

    def values(self, u: AnyArray) -> AnyArray:
        """Return the correlations (1, 2), (1, 3), .., (2, 3), .."""
        return np.asarray(self._whole(u)[np.triu_indices(self.occasions, 1)])

    def limits(self) -> FloatArray:
        return np.tile([-1.0, 1.0], (self.size, 1))

    def unconstrained(self, values: FloatArray) -> FloatArray:
        C = np.eye(self.occasions)
        C[np.triu_indices(self.occasions, 1)] = values
        root = np.linalg.cholesky(np.triu(C) + np.triu(C, 1).T)
        scaled = root / np.diag(root)[:, None]
        return np.asarray(scaled[np.tril_indices(self.occasions, -1)])

    def derivatives(
        self, u: FloatArray, positions: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        if self._last is None or not np.array_equal(u, self._last[0]):
            # The same for all patterns, which pick their occasions from it.
            first = partial(complex_step, self._whole)
            self._last = u, (self._whole(u), first(u), symmetric_stencil(first, u))
        which = positions[:, :, 0].astype(np.int64)
        rows, columns = which[:, :, None], which[:, None, :]
        C, dC, d2C = self._last[1]
        return C[rows, columns], dC[:, rows, columns], d2C[:, :, rows, columns]

    def matrix(self, u: AnyArray, positions: FloatArray) -> AnyArray:
        which = positions[:, :, 0].astype(np.int64)
        return np.asarray(self._whole(u)[which[:, :, None], which[:, None, :]])

    def _whole(self, u: AnyArray) -> AnyArray:
        V = np.eye(self.occasions, dtype=u.dtype)
        V[np.tril_indices(self.occasions, -1)] = u
        V = V / np.sqrt(np.sum(V**2, axis=1, keepdims=True))
        return np.asarray(V @ V.T)


class Spatial(BlockCorrelation):
    """A correlation that falls with distance: (1 - nugget) k(distance / range).

    range = unit exp(u_1), nugget = 1 / (1 + exp(-u_2)) if there is one.

    positions : (n, d), the coordinates
    kernel : "exponential", exp(-x); "gaussian", exp(-x^2); "matern3", (1 + s)
        exp(-s) with s = sqrt(3) x; "matern5", (1 + s + s^2/3) exp(-s) with
        s = sqrt(5) x
    """

    def __init__(
        self, starts: IntArray, positions: FloatArray, kernel: str, nugget: bool
    ) -> None:
        super().__init__(starts, positions)
        self.kernel = KERNELS[kernel]
        self.size = 1 + nugget
        between = [distances(part.positions).ravel() for part in self.patterns]
        positive = np.concatenate(between)
        positive = positive[positive > 0]
        self.unit = float(np.median(positive)) if len(positive) else 1.0

    def start(self) -> FloatArray:
        return np.array([-0.7, -2.0][: self.size])

    def values(self, u: AnyArray) -> AnyArray:
        reach = self.unit * np.exp(u[:1])
        return np.append(reach, 1.0 / (1.0 + np.exp(-u[1:])))

    def limits(self) -> FloatArray:
        return np.array([[0.0, np.inf], [0.0, 1.0]])[: self.size]

    def unconstrained(self, values: FloatArray) -> FloatArray:
        nugget = values[1:]
        return np.append(np.log(values[:1] / self.unit), np.log(nugget / (1 - nugget)))

    def derivatives(
        self, u: FloatArray, positions: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        x = distances(positions) / (self.unit * np.exp(u[0]))
        k, dk, d2k = self.kernel(x)
        if self.size == 1:
            return k, dk[None], d2k[None, None]
        own = np.eye(x.shape[1])
        nugget = 1.0 / (1.0 + np.exp(-u[1]))
        d1 = nugget * (1.0 - nugget)
        d2 = d1 * (1.0 - 2.0 * nugget)
        k = k - own
        mixed = -d1 * dk
        second = np.stack([np.stack([(1 - nugget) * d2k, mixed]), [mixed, -d2 * k]])
        return own + (1 - nugget) * k, np.stack([(1 - nugget) * dk, -d1 * k]), second

    def matrix(self, u: AnyArray, positions: FloatArray) -> AnyArray:
        return np.asarray(self.derivatives(u, positions)[0])


def distances(positions: FloatArray) -> FloatArray:
    """Return Euclidean distances (P, m, m) between positions (P, m, d)."""
    apart = positions[:, :, None, :] - positions[:, None, :, :]
    return np.asarray(np.sqrt(np.sum(apart**2, axis=-1)))


Kernel = tuple[FloatArray, FloatArray, FloatArray]
"""k(x), and its first and second derivative by the logarithm of the range."""


def exponential(x: FloatArray) -> Kernel:
    k = np.exp(-x)
    return k, x * k, (x**2 - x) * k


def gaussian(x: FloatArray) -> Kernel:
    k = np.exp(-(x**2))
    return k, 2.0 * x**2 * k, 4.0 * (x**4 - x**2) * k


def matern3(x: FloatArray) -> Kernel:
    s = np.sqrt(3.0) * x
    k = np.exp(-s)
    return (1.0 + s) * k, s**2 * k, (s**3 - 2.0 * s**2) * k


def matern5(x: FloatArray) -> Kernel:
    s = np.sqrt(5.0) * x
    k = np.exp(-s) / 3.0
    return (
        (3.0 + 3.0 * s + s**2) * k,
        (s**2 + s**3) * k,
        (s**4 - 2.0 * s**3 - 2.0 * s**2) * k,
    )


KERNELS = {
    "exponential": exponential,
    "gaussian": gaussian,
    "matern3": matern3,
    "matern5": matern5,
}
