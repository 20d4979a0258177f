r"""The second law of collisions: energy, entropy and entropy production, per collision and per unit time.

**One collision.** If all of the energy ΔE that the system gains is counted as heat from a reservoir at β, the entropy
production is

    Σ = ΔS − β ΔE = D(ρ‖τ) − D(Sρ‖τ),         τ = e^{−βH_S}/Z,

the loss of free energy, since β F = β Tr[Hρ] − S(ρ). A map with Sτ = τ cannot increase D, so for such a map Σ ≥ 0. The
particles of an effusing gas without coherence between momenta give such a map (Ref. 6). Other particles may supply free
energy: at ρ = τ, Σ = −D(Sτ‖τ) is never positive. This naive bookkeeping misses the order in the particle's motion: a
packet that is well localised in time acts as a clock, or as a field that does work (Ref. 17).

**The contribution of coherence.** Average the time of the collision over all times,

    S̄ = lim_T (1/T) ∫_0^T dt  U_t⁻¹ ∘ S ∘ U_t,     S̄[j',k',j,k] = S[j',k',j,k] where e_j − e_j' = e_k − e_k', else 0,

with U_t the free evolution. S̄ is the map of the same particles without their coherence (`DiagonalPacket`, with any
internal levels in a diagonal state), and the energy that they supply is heat. The rest of D(Sρ‖τ) is free energy that
only coherence can supply,

    C = D(Sρ‖τ) − D(S̄ρ‖τ),      Σ = Σ̄ − C,     Σ̄ = D(ρ‖τ) − D(S̄ρ‖τ) ≥ 0.

If ρ has no coherence, S̄ρ is the dephased Sρ, and C is the relative entropy of coherence of Sρ.

**Per unit time.** Collisions with rate Γ mix ρ with Sρ. An observer who does not record them loses free energy at the
rate

    σ = −d/dt D(ρ‖τ) = Γ Tr[(S − 1)ρ (ln τ − ln ρ)] = Γ [Σ + D(Sρ‖ρ)]

(Spohn, J. Math. Phys. 19, 1227 (1978)). This exceeds Γ Σ by the information in the times of the collisions.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._checks import Checked, Scalar, as_scalar, as_vector, check_instance, door, or_nan
from .._dynamics.collisions import RESULTS, Collisions, Request, Reservoirs, or_throw, requested
from .._dynamics.steady_state import solve_steady_state
from .._quantum.information import entropy_of, free_energy_of, logarithm
from .._quantum.states import State, check_state, populations
from .._quantum.superoperator import Superoperator, check_map, covariant
from .._quantum.system import System
from .._reservoir.packet import AbstractPacket
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential


class CollisionThermodynamics(eqx.Module):
    """Energy and entropies of one collision; entropies in nats.

    - `energy`: ΔE, the energy that the system gains and the particle loses; `collision_heat` divides it by its two
      sources.
    - `entropy`: ΔS, the change of the system's entropy.
    - `entropy_production`: the naive Σ = ΔS − β ΔE, which counts all of ΔE as heat.
    - `coherent`: C, the free energy, in units of temperature, that the particle's coherence supplies and Σ misses.
      Σ + C is the entropy production of the same particles without coherence; Σ + C ≥ 0 if these thermalise at β.
    """

    energy: Float[Array, ""]
    entropy: Float[Array, ""]
    entropy_production: Float[Array, ""]
    coherent: Float[Array, ""]


@door
def collision_thermodynamics(
    system: Checked[System], S: Checked[Superoperator], rho: State, beta: Checked[Scalar]
) -> CollisionThermodynamics:
    r"""Energy, entropy and entropy production of one collision with map S, for a system in state ρ.

    $$Σ = ΔS - βΔE = D(ρ‖τ) - D(Sρ‖τ), \qquad C = D(Sρ‖τ) - D(\bar Sρ‖τ)$$

    with the Gibbs state τ at β and $\bar S$, the average of S over the time of the collision (see the head of this
    file). For an effusing gas at β, Σ + C ≥ 0 for any packets if the scatterer obeys detailed balance, and C = 0 if the
    packets, and the state of their internal levels, are diagonal.

    If the particles have internal levels at another temperature, 1/β_U, than the gas, the two heats of `collision_heat`
    must be counted separately: without coherence $ΔS - βQ_\mathrm{kinetic} - β_U Q_\mathrm{internal} ≥ 0$.

    **Arguments:** `S` as `scattering_map` returns it; `rho`, a state in the energy eigenbasis, shape (N, N); `beta`,
    the inverse temperature of the particles.

    **Returns:** `CollisionThermodynamics`, differentiable.

    **Raises:** `ValueError` for a map of another size than the system's, a matrix that is not a state, or a β that is
    not finite.

    Source: Jacob et al., PRX Quantum 2, 020312 (2021) and Quantum 6, 750 (2022) (Refs. 6 and 17).

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> S = jr.scattering_map(system, reservoir)
        >>> one = jr.collision_thermodynamics(system, S, jr.gibbs_state(system, 0.1), beta=0.1)
        >>> print(jnp.round(one.entropy_production, 6))  # out of equilibrium by itself: naively impossible
        -0.000174
        >>> bool(jnp.abs(one.entropy_production + one.coherent) < 1e-9)
        True
    """
    check_map("S", S, system)
    rho, beta = check_state("rho", rho, system), as_scalar("beta", beta)
    return _collision_thermodynamics(system, S, rho, beta)


@eqx.filter_jit
def _collision_thermodynamics(system, S, rho, beta):
    after = S(rho)
    energy = jnp.sum(system.levels * populations(after - rho))
    entropy = entropy_of(after) - entropy_of(rho)
    heated = covariant(system, S)(rho)
    coherent = free_energy_of(after, system.levels, beta)
    coherent = coherent - free_energy_of(heated, system.levels, beta)
    return CollisionThermodynamics(energy, entropy, entropy - beta * energy, coherent)


class Currents(eqx.Module):
    """Energy and entropy that each of B reservoirs brings to the system per unit time, in arrays of shape (B,).

    - `energy`: the energy currents J_r.
    - `entropy`: the contribution of each reservoir to dS/dt, in nats per unit time.
    - `entropy_production`: the naive σ_r = dS/dt|_r − β_r J_r. The sum over r is Spohn's entropy production; in a
      steady state it is −Σ_r β_r J_r.
    - `coherent`: C_r, the part that σ_r misses, as in `CollisionThermodynamics`: σ_r + C_r ≥ 0 for particles that
      thermalise at β_r without coherence. For internal levels at another temperature see `collision_heat`.
    - `rho`: the state, shape (N, N).
    - `result`: one of `jaxres.RESULTS`, that of the steady state, or that of the maps if the state was given. If it is
      not_positive, the entropies are NaN; if it is anything else but successful, everything is.
    - `map_error`: estimated largest error of an entry of the scattering maps.
    """

    energy: Float[Array, " B"]
    entropy: Float[Array, " B"]
    entropy_production: Float[Array, " B"]
    coherent: Float[Array, " B"]
    rho: Complex[Array, "N N"]
    result: RESULTS
    map_error: Float[Array, ""]


@door
def currents(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    rho: State | None = None,
    *,
    betas: Checked[Sequence[Scalar] | Float[ArrayLike, " B"] | None] = None,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> Currents:
    r"""Energy, entropy and entropy production per unit time, reservoir by reservoir.

    $$J_r = Γ_r \mathrm{Tr}[H_S (S_r - 1)ρ], \qquad
      \frac{dS}{dt}\Big|_r = -Γ_r \mathrm{Tr}[(S_r - 1)ρ \ln ρ], \qquad
      σ_r = \frac{dS}{dt}\Big|_r - β_r J_r$$

    In the steady state Σ_r J_r = 0 and Σ_r dS/dt|_r = 0 (the trace of Eq. 8 with H_S and with ln ρ).

    **Arguments:**

    - `system`, `reservoirs`, `amplitudes`, `quadrature`: as for `steady_state`; rates finite.
    - `rho`: the state, shape (N, N), by default the steady state of all reservoirs together. At a state with a kernel
      dS/dt is infinite; the value returned is finite, with the slope ln 1/ε that `von_neumann_entropy` has there.
    - `betas`: inverse temperatures, one for each reservoir; by default those of the packets.
    - `throw`: raise a `RuntimeError`, inside jit too, if the result is not successful.

    **Returns:** `Currents`, differentiable.

    **Raises:** `ValueError` for an infinite rate, a matrix that is not a state, another number of `betas` than of
    reservoirs, or if `betas` is left out and a packet has no temperature.

    Source: Spohn, J. Math. Phys. 19, 1227 (1978); for the contribution of coherence, Refs. 6 and 17.

    !!! example
        >>> system, hot = jr.letter.model(beta=0.05, rate=2.0)
        >>> _, cold = jr.letter.model(beta=0.3, rate=1.0)
        >>> flow = jr.currents(system, [hot, cold])
        >>> bool(flow.energy[0] > 1e-4), bool(jnp.abs(jnp.sum(flow.energy)) < 1e-14)
        (True, True)
    """
    request = requested(system, reservoirs, amplitudes, quadrature, finite=True)
    if rho is not None:
        rho = check_state("rho", rho, system)
    if betas is None:
        betas = _temperatures(request)
    if isinstance(betas, list | tuple) and betas:
        betas = jnp.stack([as_scalar("betas", beta) for beta in betas])
    betas = as_vector("betas", betas, shape="(B,)")
    if betas.shape[0] != request.count:
        raise ValueError(
            f"Argument `betas` must have one value for each of {request.count} reservoirs, but has {betas.shape[0]}."
        )
    flow = _currents(system, request.compute(), betas, rho)
    return or_throw(flow, flow.result, throw)


def _temperatures(request: Request):
    """The inverse temperatures of all packets."""
    given = request.reservoirs
    reservoirs = given.reservoirs if isinstance(given, Collisions) else given
    if reservoirs is None:
        raise ValueError(
            "Argument `betas` must be given for maps of unknown reservoirs, but is None."
        )
    return [_temperature(reservoir.packet) for reservoir in reservoirs]


def _temperature(packet: AbstractPacket):
    """The packet's own β, also where the packet is wrapped in another."""
    check_instance("packet", packet, AbstractPacket, "a particle state")
    wrapped = getattr(packet, "packet", None)
    beta = getattr(packet, "beta", None) if wrapped is None else _temperature(wrapped)
    if beta is None:
        raise ValueError(
            f"Argument `betas` must be given for packets without a temperature, but is None for {packet!r}."
        )
    return beta


@eqx.filter_jit
def _currents(system, c, betas, rho):
    if rho is None:
        sol = solve_steady_state(system, c)
        rho, result = sol.rho, sol.result
    else:
        result = c.result
        rho = or_nan(result == RESULTS.successful, rho, (system, c.inputs))
    log_rho = logarithm(rho)

    def parts(S, rate, beta):
        change = rate * (S(rho) - rho)
        coherent = rate * (S(rho) - covariant(system, S)(rho))
        energy, extra = (jnp.sum(system.levels * populations(x)) for x in (change, coherent))
        entropy, order = (-jnp.real(jnp.sum(x.T * log_rho)) for x in (change, coherent))
        return energy, entropy, entropy - beta * energy, beta * extra - order

    each = [parts(*reservoir) for reservoir in zip(c.maps, c.rates, betas, strict=True)]
    energy, entropy, production, coherent = map(jnp.stack, zip(*each, strict=True))
    return Currents(energy, entropy, production, coherent, rho, result, c.map_error)
