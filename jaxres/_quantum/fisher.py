r"""Fisher information: how precisely the parameters of a state can be estimated, by one measurement or the best."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact

from .._checks import Checked, as_matrix, concrete, door, require
from .._numerics.safe import eigh
from .states import State, as_operators, as_rough_state, finite, nan_unless, not_negative, rounding

#: the derivatives of a state in P parameters
Derivatives = Checked[Inexact[ArrayLike, "P N N"]]


@door
def classical_fisher(
    rho: State, drho: Derivatives, basis: Checked[Inexact[ArrayLike, "N N"] | None] = None
) -> Float[Array, "P P"]:
    r"""The Fisher information of a projective measurement.

    $$F_{ab} = \sum_i \frac{∂_a p_i\, ∂_b p_i}{p_i}, \qquad p_i = ⟨i|ρ|i⟩$$

    **Arguments:**

    - `rho`: the state, shape (N, N).
    - `drho`: its derivatives ∂_a ρ in P parameters, shape (P, N, N), parameters first.
    - `basis`: unitary matrix, shape (N, N), whose column i is the outcome |i⟩; by default the energy eigenbasis.

    **Returns:** shape (P, P). No unbiased estimate from ν measurements has a covariance below $F^{-1}/ν$. Outcomes of
    probability 0 are left out: their term vanishes with p_i wherever p_i stays non-negative.

    **Raises:** `ValueError` for a matrix that is not a state, derivatives that are not Hermitian, or a basis that is
    not unitary. Where these are traced, F is NaN instead.

    !!! example
        >>> beta, system = 0.7, jr.System([-0.5, 0.5])
        >>> drho = jax.jacfwd(lambda b: jr.gibbs_state(system, b))(beta)
        >>> F = jr.classical_fisher(jr.gibbs_state(system, beta), drho[None])
        >>> print(jnp.round(F[0, 0] * 4 * jnp.cosh(beta / 2) ** 2, 12))  # the energy's variance
        1.0
    """
    rho, drho = _state_and_derivatives(rho, drho)
    if basis is not None:
        basis = _unitary(basis, rho.shape[0])
        rho, drho = (jnp.conj(basis.T) @ x @ basis for x in (rho, drho))
    # multiply the whole state, so that derivatives in its coherences are NaN too
    rho = jnp.multiply(rho, nan_unless(not_negative(jnp.real(jnp.diagonal(rho)))))
    p, dp = jnp.real(jnp.diagonal(rho)), jnp.real(jnp.diagonal(drho, axis1=1, axis2=2))
    there = p > jnp.finfo(p.dtype).eps
    weight = jnp.where(there, 1 / jnp.where(there, p, 1), 0)
    return (dp * weight[None]) @ dp.T * finite(rho)


def _state_and_derivatives(rho, drho):
    """The checked state and derivatives; these must be Hermitian relative to their size, since they have a unit."""
    rho, tolerance = as_rough_state("rho", rho), rounding(drho) ** 0.5
    N, drho = rho.shape[0], as_operators("drho", drho, rho.shape[0])
    if drho.ndim != 3:
        raise ValueError(
            f"Argument `drho` must have shape (P, {N}, {N}), but has shape {drho.shape}."
        )
    adjoint = jnp.conj(jnp.swapaxes(drho, 1, 2))
    skew, size = (jnp.max(jnp.abs(X), initial=0) for X in (drho - adjoint, drho))
    if concrete(skew):
        require(
            ~(skew > tolerance * size),
            f"Argument `drho` must be Hermitian, but differs from its adjoint by {skew:.2g}.",
        )
    return rho, drho.astype(rho.dtype) * nan_unless(skew <= tolerance * size)


def _unitary(basis, size):
    """The unitary matrix `basis` of `size` columns, checked."""
    tolerance = 1e3 * size * rounding(basis)
    basis = as_matrix("basis", basis, size)
    defect = jnp.max(jnp.abs(jnp.conj(basis.T) @ basis - jnp.eye(size)))
    if concrete(defect):
        require(
            defect <= tolerance,
            f"Argument `basis` must be unitary, but U†U differs from 1 by {defect:.2g}.",
        )
    return basis * nan_unless(defect <= tolerance)


@door
def quantum_fisher(rho: State, drho: Derivatives) -> Float[Array, "P P"]:
    r"""The quantum Fisher information, which bounds the Fisher information of every measurement.

    $$F_{ab} = \mathrm{Re}\,\mathrm{Tr}[∂_aρ\, L_b], \qquad ρ L_b + L_b ρ = 2 ∂_b ρ$$

    with the symmetric logarithmic derivatives L_b. For a single parameter there is a measurement that attains F.

    **Arguments:** `rho`, `drho`: as for `classical_fisher`.

    **Returns:** shape (P, P), right for pure and degenerate states too: on the kernel of ρ the equation does not
    determine L_b, and F does not depend on it. F is differentiable wherever the rank of ρ does not change, by the
    equation for L itself and without a derivative of eigenvectors. It is NaN where an eigenvalue of ρ is below −√ε.

    **Raises:** `ValueError` for a matrix that is not a state, or derivatives that are not Hermitian. Where these are
    traced, F is NaN instead.

    !!! example
        >>> psi = lambda x: jnp.array([jnp.cos(x / 2), jnp.sin(x / 2) * jnp.exp(0.3j)])
        >>> rho = lambda x: jnp.outer(psi(x), jnp.conj(psi(x)))
        >>> print(jnp.round(jr.quantum_fisher(rho(1.1), jax.jacfwd(rho)(1.1)[None]), 12))
        [[1.]]
    """
    rho, drho = _state_and_derivatives(rho, drho)
    L = jax.vmap(lambda X: logarithmic_derivative(rho, X))(drho)
    sound = not_negative(eigh(jax.lax.stop_gradient(rho))[0])
    return jnp.real(jnp.einsum("aij,bji->ab", drho, L)) * nan_unless(sound) * finite(rho)


def logarithmic_derivative(
    rho: Complex[Array, "N N"], X: Complex[Array, "N N"]
) -> Complex[Array, "N N"]:
    """The Hermitian L that solves ρ L + L ρ = 2 X and is 0 on the kernel of ρ.

    Its derivatives of any order come from this equation, ρ dL + dL ρ = 2 dX − dρ L − L dρ, and not from those of the
    eigenvectors that solve it.
    """
    values, U = eigh(rho)
    both = values[:, None] + values[None, :]
    tolerance = 8 * values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    there = both > tolerance
    weight = jnp.where(there, 1 / jnp.where(there, both, 1), 0)

    def solve(_, b):
        return U @ (weight * (jnp.conj(U.T) @ b @ U)) @ jnp.conj(U.T)

    def solve_transposed(_, b):  # the transposed equation is the same one with ρᵀ
        return solve(_, b.T).T

    return jax.lax.custom_linear_solve(
        lambda L: rho @ L + L @ rho, 2 * X, solve, transpose_solve=solve_transposed
    )
