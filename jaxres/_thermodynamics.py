"""Energies of steady states: the heat that each reservoir brings, and the work that a state could give."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from ._checks import Scalar, complex_array, real_array
from ._superoperator import Superoperator
from ._system import System


def heat_flow(
    system: System, S: Superoperator, rate: Scalar, rho: Inexact[Array, "N N"]
) -> Float[Array, ""]:
    r"""The energy per unit time that collisions with map S at rate Γ bring to the system in state ρ.

    $$J = Γ\, \mathrm{Tr}[H_S (S - 1) ρ]$$

    In a steady state the J of all reservoirs add up to 0 (from the trace of H_S with Eq. 8), so that of a single one
    vanishes. It is the whole energy that passes, of which `collision_heat` tells the two sources.

    !!! example
        >>> system, bath = jr.letter.model(rate=5.0)
        >>> S = jr.scattering_map(system, bath)
        >>> hot, cold = jr.gibbs_state(system, 0.01), jr.gibbs_state(system, 1.0)
        >>> bool(jr.heat_flow(system, S, 5.0, hot) < 0 < jr.heat_flow(system, S, 5.0, cold))
        True
    """
    change = S(rho) - rho
    return real_array(rate) * jnp.sum(system.levels * jnp.real(jnp.diagonal(change)))


def ergotropy(system: System, rho: Inexact[Array, "N N"]) -> Float[Array, ""]:
    r"""The most work that a unitary operation can draw from ρ.

    $$W = \mathrm{Tr}[ρ H_S] - \sum_k r_k e_k, \qquad r_0 ≥ r_1 ≥ …$$

    with the eigenvalues r of ρ against the levels e, ascending: what is left is the passive state (Allahverdyan, Balian
    and Nieuwenhuizen, Europhys. Lett. 67, 565 (2004)). Differentiable where the eigenvalues are simple; where some
    meet, and their levels differ, W has a kink, and the derivative is one of those beside it.

    !!! example
        >>> system = jr.System([-0.3, 0.3])
        >>> print(jnp.round(jr.ergotropy(system, jnp.diag(jnp.array([0.25, 0.75]))), 12))
        0.3
    """
    rho = complex_array(rho)
    energy = jnp.sum(system.levels * jnp.real(jnp.diagonal(rho)))
    return energy - _passive_energy(rho, system.levels)


@jax.custom_jvp
def _passive_energy(rho: Complex[Array, "N N"], levels: Float[Array, " N"]) -> Float[Array, ""]:
    return jnp.sum(jnp.linalg.eigvalsh(rho)[::-1] * levels)


@_passive_energy.defjvp
def _passive_energy_jvp(primals, tangents):
    # dE = Tr[dρ A] + Σ_k r_k de_k with A = Σ_k e_k |r_k⟩⟨r_k|: the derivatives of the eigenvectors drop out
    (rho, levels), (drho, dlevels) = primals, tangents
    values, U = jnp.linalg.eigh(rho)
    values, U = values[::-1], U[:, ::-1]
    A = (U * levels[None]) @ jnp.conj(U.T)
    slope = jnp.real(jnp.sum(A.T * drho)) + jnp.sum(values * dlevels)
    return jnp.sum(values * levels), slope
