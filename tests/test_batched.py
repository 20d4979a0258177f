"""Linear algebra of many small matrices, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

from jaxres._numerics.batched import hermitian_eigh, inverse
from jaxres._numerics.safe import eigh

BATCH = 20


def random_hermitian(kind, n, seed=0):
    """Matrices that are hard in different ways, shape (BATCH, n, n)."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(BATCH, n, n))
    if kind != "real":
        A = A + 1j * rng.normal(size=(BATCH, n, n))
    A = (A + np.conj(np.swapaxes(A, 1, 2))) / 2
    if kind == "degenerate":
        U = np.linalg.qr(A)[0]
        values = np.repeat([1.0, 2.0], [n // 2, n - n // 2])
        return (U * values) @ np.conj(np.swapaxes(U, 1, 2))
    if kind == "graded":
        scale = 10.0 ** -np.arange(n)
        return A * scale[:, None] * scale
    if kind == "diagonal":
        return np.stack([np.diag(rng.integers(0, 3, n)) for _ in range(BATCH)]).astype(complex)
    return A


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16])
def test_eigenvectors(n):
    for kind in ("real", "complex", "degenerate", "graded", "diagonal"):
        A = random_hermitian(kind, n)
        values, V = map(np.asarray, jax.jit(hermitian_eigh)(A))
        adjoint = np.conj(np.swapaxes(V, 1, 2))
        size = np.max(np.abs(values))
        assert np.all(np.diff(values, axis=1) >= 0), kind
        assert largest(values - np.linalg.eigvalsh(A)) < 3e-15 * n * size, kind
        assert largest(A @ V - V * values[:, None, :]) < 3e-15 * n * size, kind
        assert largest(adjoint @ V - np.eye(n)) < 3e-15 * n, kind


def test_eigenvectors_of_what_is_no_matrix_are_not_numbers():
    values, _ = hermitian_eigh(jnp.full((3, 3), jnp.nan))
    assert bool(jnp.all(jnp.isnan(values)))


@pytest.mark.slow
def test_derivative_of_eigenvectors():
    """First and second derivatives of a function of the eigenvectors, against differences."""
    A = jnp.asarray(random_hermitian("complex", 4)[0])
    B = jnp.asarray(random_hermitian("complex", 4, seed=1)[0])

    @jax.jit
    def f(x):
        values, V = eigh(A + x * B)
        return jnp.sum(jnp.sin(values)) + jnp.real(V[0, 1] * jnp.conj(V[2, 1])) + V[3, 2].imag

    first, second = jax.grad(f), jax.grad(jax.grad(f))
    h = 1e-5
    np.testing.assert_allclose(first(0.3), (f(0.3 + h) - f(0.3 - h)) / (2 * h), rtol=1e-8)
    np.testing.assert_allclose(second(0.3), (first(0.3 + h) - first(0.3 - h)) / (2 * h), rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 16, 40])
def test_inverses(n):
    """Each way of inverting, real and complex, is as good as LAPACK's, pivots that vanish included."""
    rng = np.random.default_rng(n)
    for complex_ in (False, True):
        A = rng.normal(size=(n, n, BATCH)) + 1j * complex_ * rng.normal(size=(n, n, BATCH))
        A = A if complex_ else A.real
        A[:, :, 0] = np.roll(np.diag(np.arange(1.0, n + 1)), 1, axis=0)  # nothing on the diagonal
        B = np.asarray(jax.jit(inverse)(A))
        reference = np.moveaxis(np.linalg.inv(np.moveaxis(A, 2, 0)), 0, 2)
        size = np.max(np.abs(reference), axis=(0, 1)) * np.max(np.abs(A), axis=(0, 1))
        error = np.max(np.abs(B - reference), axis=(0, 1)) / np.max(np.abs(reference), axis=(0, 1))
        assert np.all(error < 1e-15 * n * size)
        if n == 7:
            dA = jnp.asarray(rng.normal(size=A.shape) + 0 * A)
            _, tangent = jax.jvp(inverse, (jnp.asarray(A),), (dA,))
            expected = -np.einsum("ijb,jkb,klb->ilb", B, dA, B)
            np.testing.assert_allclose(
                tangent, expected, rtol=1e-12, atol=1e-12 * largest(expected)
            )
