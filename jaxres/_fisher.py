r"""What a state tells about its parameters: Fisher information, of a measurement and of the best one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from ._checks import complex_array
from ._safe import eigh


def classical_fisher(
    rho: Inexact[Array, "N N"],
    drho: Inexact[Array, "P N N"],
    basis: Inexact[Array, "N N"] | None = None,
) -> Float[Array, "P P"]:
    r"""The Fisher information of a projective measurement.

    $$F_{ab} = \sum_i \frac{∂_a p_i\, ∂_b p_i}{p_i}, \qquad p_i = ⟨i|ρ|i⟩$$

    **Arguments:**

    - `rho`: the state, shape (N, N).
    - `drho`: its derivatives ∂_a ρ in P parameters, shape (P, N, N), such as `jax.jacfwd` gives.
    - `basis`: unitary matrix whose column i is the outcome |i⟩; by default the energy eigenbasis.

    **Returns:** shape (P, P). No unbiased estimate from ν measurements has a covariance below $F^{-1}/ν$. Outcomes of
    probability 0 are left out: their term vanishes with them wherever p_i stays non-negative.

    !!! example
        >>> beta, system = 0.7, jr.System([-0.5, 0.5])
        >>> drho = jax.jacfwd(lambda b: jr.gibbs_state(system, b))(beta)
        >>> F = jr.classical_fisher(jr.gibbs_state(system, beta), drho[None])
        >>> print(jnp.round(F[0, 0] * 4 * jnp.cosh(beta / 2) ** 2, 12))  # the energy's variance
        1.0
    """
    rho, drho = complex_array(rho), complex_array(drho)
    if basis is not None:
        basis = complex_array(basis)
        rho, drho = (jnp.conj(basis.T) @ x @ basis for x in (rho, drho))
    p, dp = jnp.real(jnp.diagonal(rho)), jnp.real(jnp.diagonal(drho, axis1=1, axis2=2))
    there = p > jnp.finfo(p.dtype).eps
    weight = jnp.where(there, 1 / jnp.where(there, p, 1), 0)
    return (dp * weight[None]) @ dp.T


def quantum_fisher(
    rho: Inexact[Array, "N N"], drho: Inexact[Array, "P N N"]
) -> Float[Array, "P P"]:
    r"""The quantum Fisher information: the largest that any measurement has.

    $$F_{ab} = \mathrm{Re}\,\mathrm{Tr}[∂_aρ\, L_b], \qquad ρ L_b + L_b ρ = 2 ∂_b ρ$$

    with the symmetric logarithmic derivatives L_b.

    **Arguments:** `rho`, `drho`: as for `classical_fisher`.

    **Returns:** shape (P, P). Right for pure and degenerate states too: on the kernel of ρ, where L_b is open, it is 0,
    and does not count. Differentiable by the equation for L itself, without a derivative of eigenvectors, wherever the
    rank of ρ does not change.

    !!! example
        >>> psi = lambda x: jnp.array([jnp.cos(x / 2), jnp.sin(x / 2) * jnp.exp(0.3j)])
        >>> rho = lambda x: jnp.outer(psi(x), jnp.conj(psi(x)))
        >>> print(jnp.round(jr.quantum_fisher(rho(1.1), jax.jacfwd(rho)(1.1)[None]), 12))
        [[1.]]
    """
    rho, drho = complex_array(rho), complex_array(drho)
    L = jax.vmap(lambda X: logarithmic_derivative(rho, X))(drho)
    return jnp.real(jnp.einsum("aij,bji->ab", drho, L))


def logarithmic_derivative(
    rho: Complex[Array, "N N"], X: Complex[Array, "N N"]
) -> Complex[Array, "N N"]:
    """The Hermitian L with ρ L + L ρ = 2 X, and 0 on the kernel of ρ.

    Its derivatives of any order come from this equation, ρ dL + dL ρ = 2 dX − dρ L − L dρ, and not from those of the
    eigenvectors that solve it.
    """
    values, U = eigh(rho)
    both = values[:, None] + values[None, :]
    room = 8 * values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    there = both > room
    weight = jnp.where(there, 1 / jnp.where(there, both, 1), 0)

    def solve(_, b):
        return U @ (weight * (jnp.conj(U.T) @ b @ U)) @ jnp.conj(U.T)

    def solve_transposed(_, b):  # the same with ρᵀ
        return solve(_, b.T).T

    return jax.lax.custom_linear_solve(
        lambda L: rho @ L + L @ rho, 2 * X, solve, transpose_solve=solve_transposed
    )
