"""The energy that the system gains in one collision, divided by its two sources."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import Checked, check_instance, door
from .._dynamics.collisions import POOR_MAP
from .._quantum.states import State, as_rough_state
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .._scattering.scattering_map import check_numerics, collision_map, joint_map


class CollisionHeat(eqx.Module):
    r"""The mean energy that the system gains in one collision, divided by its two sources.

    - `kinetic`: the kinetic energy that the particle loses.
    - `internal`: the internal energy $\mathrm{Tr}[H_U σ]$ that the particle loses; 0 for particles without levels.
    - `map_error`: estimated largest error of an entry of the scattering map. The heats are NaN unless it is below 1e-3,
      as a steady state would be.

    Far from the scatterer the coupling holds no energy, so `total`, the sum of the two heats, is the system's gain
    $\mathrm{Tr}[H_S (S(ρ) - ρ)]$. Multiplied by the rate Γ, the heats are currents.
    """

    kinetic: Float[Array, "*b"]
    internal: Float[Array, "*b"]
    map_error: Float[Array, "*b"]

    @property
    @door
    def total(self) -> Float[Array, "*b"]:
        """The energy that the system gains, from both sources."""
        return self.kinetic + self.internal


@door
def collision_heat(
    system: Checked[System],
    reservoir: Checked[Reservoir],
    rho: State,
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> CollisionHeat:
    r"""The heat that the system in state ρ gains in a collision, from the particle's motion and levels (Ref. 12).

    Scattering conserves the sum of kinetic and internal energies for any state: $S_{SU}$ conserves the total energy,
    and coherences between different energies do not contribute to its mean. So, with $Δ = S_{SU}(ρ⊗σ) - ρ⊗σ$,

    $$Q_\mathrm{internal} = -\mathrm{Tr}[H_U Δ], \qquad Q_\mathrm{kinetic} = \mathrm{Tr}[(H_S + H_U) Δ].$$

    **Arguments:** as for `scattering_map`, and `rho`, the state of the system in the energy eigenbasis, shape (N, N).

    **Returns:** `CollisionHeat`.

    **Raises:** `ValueError` for a matrix that is not a state of the system, or arguments of the wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=1e-6)
        >>> hot = jr.gibbs_state(system, 0.01)
        >>> print(jnp.round(jr.collision_heat(system, reservoir, hot).kinetic, 6))  # the gas is colder
        -0.00078
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("reservoir", reservoir, Reservoir, "a jaxres.Reservoir")
    check_numerics(amplitudes, quadrature)
    rho = as_rough_state("rho", rho, system.size)
    return _collision_heat(system, reservoir, rho, amplitudes, quadrature)


@eqx.filter_jit
def _collision_heat(system, reservoir, rho, amplitudes, quadrature):
    if reservoir.internal is None:
        S = collision_map(system, reservoir, amplitudes, quadrature)
        gain = jnp.sum(system.levels * jnp.real(jnp.diagonal(S(rho) - rho)))
        return _heat(gain, jnp.zeros_like(gain), S.error)
    before = jnp.kron(rho, reservoir.internal.state)
    S = joint_map(system, reservoir, amplitudes, quadrature)
    change = S(before) - before
    moved = jnp.real(jnp.diagonal(change)).reshape(system.size, -1)
    gain = jnp.sum(system.levels[:, None] * moved)
    lost = -jnp.sum(reservoir.internal.levels.levels[None] * moved)
    return _heat(gain - lost, lost, S.error)


def _heat(kinetic, internal, error):
    kinetic, internal = (jnp.where(error < POOR_MAP, x, jnp.nan) for x in (kinetic, internal))
    return CollisionHeat(kinetic, internal, error)
