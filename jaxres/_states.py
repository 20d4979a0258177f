"""States of the system, in its energy eigenbasis, and what is read off them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from ._checks import Scalar, check_scalar, complex_array, concrete, real_array, require
from ._safe import eigh, modulus
from ._system import System


def gibbs_state(system: System, beta: Scalar) -> Complex[Array, "N N"]:
    r"""The thermal state $e^{-βH_S}/Z$ at inverse temperature β (energy⁻¹; β may be 0 or negative).

    !!! example
        >>> rho = jr.gibbs_state(jr.System([-0.3, 0.3]), beta=0.1)
        >>> print(jnp.round(jr.populations(rho), 6))
        [0.514996 0.485004]
    """
    beta = real_array(beta)
    check_scalar("beta", beta)
    populations = jax.nn.softmax(-beta * system.levels)
    return jnp.diag(populations).astype(jnp.result_type(populations.dtype, jnp.complex64))


def populations(rho: Inexact[Array, "*b N N"]) -> Float[Array, "*b N"]:
    """ρ_jj, the probabilities of the energy levels."""
    return jnp.real(jnp.diagonal(rho, axis1=-2, axis2=-1))


def coherence(rho: Inexact[Array, "*b N N"], j: int = 0, k: int = 1) -> Float[Array, "*b"]:
    """|ρ_jk|, by default |ρ_01|. Its derivative where it vanishes is 0, the mean over directions.

    !!! example
        >>> print(jr.coherence(jnp.array([[0.5, 0.3j], [-0.3j, 0.5]])))
        0.3
    """
    return modulus(rho[..., j, k])


def trace_distance(
    rho: Inexact[Array, "*b N N"], sigma: Inexact[Array, "*b N N"]
) -> Float[Array, "*b"]:
    r"""$\tfrac12 \|ρ - σ\|_1$, half the sum of the moduli of the eigenvalues of ρ − σ.

    Between 0 (equal) and 1 (orthogonal). Its derivative where an eigenvalue vanishes is 0 in that eigenvalue.

    !!! example
        >>> up, down = jnp.diag(jnp.array([1.0, 0.0])), jnp.diag(jnp.array([0.0, 1.0]))
        >>> print(jr.trace_distance(up, down))
        1.0
    """
    return _trace_norm(rho - sigma) / 2


@jax.custom_jvp
def _trace_norm(X):
    return jnp.sum(jnp.abs(eigh(X)[0]), axis=-1)


@_trace_norm.defjvp
def _trace_norm_jvp(primals, tangents):
    # d‖X‖₁ = Tr[sign(X) dX]: a function of X that needs no derivative of an eigenvector
    (X,), (dX,) = primals, tangents
    values, U = eigh(X)
    sign = jnp.einsum("...ab,...b,...cb->...ac", U, jnp.sign(values), jnp.conj(U))
    out = jnp.sum(jnp.abs(values), axis=-1)
    return out, jnp.real(jnp.einsum("...ab,...ba->...", sign, dX))


# --------------------------------------------------------------------------------------------------
# What a state has to be
# --------------------------------------------------------------------------------------------------


def of_each(function: Callable, *states: Inexact[Array, "*#b N N"]) -> Float[Array, "*b"]:
    """A number that belongs to a state (or to several), over the leading axes of the arrays."""
    batch = jnp.broadcast_shapes(*(X.shape[:-2] for X in states))
    states = tuple(jnp.broadcast_to(X, batch + X.shape[-2:]) for X in states)
    signature = ",".join(["(n,n)"] * len(states)) + "->()"
    return jnp.vectorize(function, signature=signature)(*states)


def check_operator(name: str, X: Inexact[Array, "N N"], system: System) -> Complex[Array, "N N"]:
    """A matrix on the levels of the system."""
    X, N = complex_array(X), system.size
    if X.shape != (N, N):
        raise ValueError(
            f"Argument `{name}` must have shape {(N, N)}, but has shape {X.shape}."
            + (" Use jax.vmap to batch over values." if X.ndim > 2 else "")
        )
    return X


def check_state(name: str, rho: Inexact[Array, "N N"], system: System) -> Complex[Array, "N N"]:
    """A density matrix of the system: shape, Hermiticity, trace."""
    rho = check_operator(name, rho, system)
    if concrete(rho):
        value = np.asarray(rho)
        require(np.isfinite(value), f"Argument `{name}` must be finite, but is\n{value}")
        room = 1e3 * np.finfo(value.dtype).eps
        skew = np.max(np.abs(value - value.conj().T))
        require(
            skew <= room,
            f"Argument `{name}` must be Hermitian, but differs from its adjoint by {skew:.2g}.",
        )
        trace = np.trace(value).real
        require(
            abs(trace - 1) <= room,
            f"Argument `{name}` must have trace 1, but has trace {trace:g}. Divide it by that.",
        )
    return rho
