"""Hermitian matrices as real vectors, and Hermiticity-preserving maps as real matrices.

A Hermitian ρ has N² real coordinates: its populations, then the real and then the imaginary parts of the coherences
above the diagonal. A map that preserves Hermiticity is a real N² × N² matrix on them.
"""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from .._numerics.batched import UNROLLED, linear


def to_coordinates(rho: Inexact[Array, "N N"]) -> Float[Array, " M"]:
    """The N² real coordinates of ρ: populations, then Re ρ_jk, then Im ρ_jk for j < k."""
    rows, columns = np.triu_indices(rho.shape[-1], 1)
    upper = rho[rows, columns]
    return jnp.concatenate([jnp.real(jnp.diagonal(rho)), jnp.real(upper), jnp.imag(upper)])


@lru_cache(maxsize=16)
def _basis(N: int) -> np.ndarray:
    """The Hermitian matrices of the coordinates, real and imaginary part, shape (N², N, N, 2)."""
    rows, columns = np.triu_indices(N, 1)
    pairs = len(rows)
    B = np.zeros((N * N, N, N, 2))
    B[np.arange(N), np.arange(N), np.arange(N), 0] = 1
    real, imag = N + np.arange(pairs), N + pairs + np.arange(pairs)
    B[real, rows, columns, 0] = B[real, columns, rows, 0] = 1
    B[imag, rows, columns, 1], B[imag, columns, rows, 1] = 1, -1
    return B


def from_coordinates(x: Float[Array, " M"], N: int) -> Complex[Array, "N N"]:
    """The Hermitian matrix with these coordinates."""
    if N > UNROLLED:
        rows, columns = np.triu_indices(N, 1)
        pairs = len(rows)
        upper = jax.lax.complex(x[N : N + pairs], x[N + pairs :])
        rho = jnp.diag(x[:N]).astype(upper.dtype).at[rows, columns].set(upper)
        return rho.at[columns, rows].set(jnp.conj(upper))
    parts = linear(x, _basis(N).reshape(N * N, -1).T).reshape(N, N, 2)
    return jax.lax.complex(parts[..., 0], parts[..., 1])


def to_real_matrix(tensor: Complex[Array, "N N N N"]) -> Float[Array, "M M"]:
    """The real matrix of a Hermiticity-preserving map, which acts on the real coordinates."""
    N = tensor.shape[0]
    rows, cols = np.triu_indices(N, 1)
    columns = tensor.reshape(N * N, N * N)
    if N > UNROLLED:
        ground, above, below = np.arange(N) * (N + 1), rows * N + cols, cols * N + rows
        even, odd = columns[:, above] + columns[:, below], columns[:, above] - columns[:, below]
        columns = jnp.concatenate([columns[:, ground], even, 1j * odd], axis=1)
        real, imag = jnp.real(columns), jnp.imag(columns)
        return jnp.concatenate([real[ground], real[above], imag[above]])
    # The columns are S applied to each basis matrix; of the result only the upper half is needed.
    B = _basis(N)
    onto_real = B[..., 0].reshape(N * N, -1)
    onto_imag = B[..., 1].reshape(N * N, -1)
    real = linear(jnp.real(columns), onto_real) - linear(jnp.imag(columns), onto_imag)
    imag = linear(jnp.imag(columns), onto_real) + linear(jnp.real(columns), onto_imag)
    one = np.eye(N * N)
    populations, upper = one[np.arange(N) * (N + 1)], one[rows * N + cols]
    return jnp.concatenate(
        [linear(real.T, populations), linear(real.T, upper), linear(imag.T, upper)], axis=1
    ).T


def eliminate_ground_population(
    R: Float[Array, "M M"],
) -> tuple[Float[Array, " M-1 M-1"], Float[Array, " M-1"]]:
    """Returns A and b such that (R x)[1:] = A x[1:] + b for every x of trace 1.

    The omitted row follows from the others if R preserves the trace.
    """
    N = math.isqrt(R.shape[0])
    b, A = R[1:, 0], R[1:, 1:]
    return A - b[:, None] * (np.arange(1, N * N) < N).astype(R.dtype)[None], b


def row_sum_norm(A):
    """The largest row sum of |A|."""
    return jnp.max(jnp.sum(jnp.abs(A), axis=1), initial=0.0) if A.size else jnp.ones((), A.dtype)
