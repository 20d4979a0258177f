"""The energy that one collision brings to the system, and where it comes from."""

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
    r"""The mean energy that the system gains in one collision, by its two sources.

    - `kinetic`: what the particle loses of its kinetic energy.
    - `internal`: what the unit loses of its internal energy $\mathrm{Tr}[H_U σ]$; 0 for particles without levels.
    - `map_error`: estimated largest error of an entry of the scattering map. Where it is too large for a steady state,
      the heats are NaN.

    Far from the scatterer nothing is stored in the coupling, so `total`, their sum, is the system's gain
    $\mathrm{Tr}[H_S (S(ρ) - ρ)]$. Times the rate Γ these are currents.
    """

    kinetic: Float[Array, "*b"]
    internal: Float[Array, "*b"]
    map_error: Float[Array, "*b"]

    @property
    @door
    def total(self) -> Float[Array, "*b"]:
        """The system's gain."""
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
    r"""The heat that a collision brings to the system in state ρ, from motion and from internal levels (Ref. 12).

    Scattering conserves kinetic plus internal energies, for any state: $S_{SU}$ takes place at fixed total energy, and
    coherences between different energies have no part in its mean. So, with $Δ = S_{SU}(ρ⊗σ) - ρ⊗σ$,

    $$Q_\mathrm{internal} = -\mathrm{Tr}[H_U Δ], \qquad Q_\mathrm{kinetic} = \mathrm{Tr}[(H_S + H_U) Δ].$$

    **Arguments:** as for `scattering_map`, and `rho`, the state of the system, in the energy eigenbasis.

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
