r"""Stationary states of repeated collisions, with one reservoir at any waiting times or with several in a fixed order.

A stroke is a flight and a collision; its average is the map C_r = S_r ∘ χ_r of `cycle_map`. Strokes with several
reservoirs in a fixed order form the cycle

    C = C_B ∘ … ∘ C_2 ∘ C_1.

Its repetition drives every state to the fixed point of C, if that is unique. In `steady_state`, by contrast, particles
of all reservoirs arrive at random and independently, and the maps enter in a sum, not in a product. Both give the same
state if a single stroke changes little: for C_r = 1 + ε K_r, the state solves Σ_r K_r ρ = 0 up to order ε.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import Checked, door
from .._quantum.levels import gaps
from .._quantum.states import populations
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, Reservoirs, requested
from .steady_state import solve_steady_state
from .waiting_times import AbstractWaitingTimes, Exponential, Regular, check_law, make_cycle_map


class LimitCycle(eqx.Module):
    """The limit cycle of collisions with B reservoirs in turn.

    - `before`, `after`: the states right before and right after each collision, shape (B, N, N).
    - `average`: the state at a random instant of time, shape (N, N).
    - `heat`: the energy that the system gains in each collision, shape (B,); the heats add up to 0.
    - `period`: the mean duration of a cycle.
    - `result`, `map_error`, `condition`: as in `SteadyState`, for the map of the whole cycle; the states are NaN unless
      `result` is successful or not_positive.
    """

    before: Complex[Array, "B N N"]
    after: Complex[Array, "B N N"]
    average: Complex[Array, "N N"]
    heat: Float[Array, " B"]
    period: Float[Array, ""]
    result: RESULTS
    map_error: Float[Array, ""]
    condition: Float[Array, ""]


@door
def limit_cycle(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    waiting_times: Checked[AbstractWaitingTimes] = Regular(),
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> LimitCycle:
    r"""The limit cycle of collisions with several reservoirs in turn.

    $$ρ_r^- = χ_r ρ_{r-1}^+, \qquad ρ_r^+ = S_r ρ_r^-, \qquad ρ_0^+ = ρ_B^+,
      \qquad Q_r = \mathrm{Tr}[H_S (ρ_r^+ - ρ_r^-)]$$

    Before the collision with reservoir r the system evolves freely for a time of mean $1/Γ_r$. This multiplies the
    coherences by the $χ_r$ of `cycle_map`, which rotates them and, for a random time, damps them. Free evolution
    conserves the energy, so the heats add up to 0.

    **Arguments:**

    - `system`, `amplitudes`, `quadrature`: as for `steady_state`.
    - `reservoirs`: the reservoirs in the order of their collisions; one may occur several times. Here the `rate` of
      each is the inverse mean duration of the flight before its collision, and must be positive and finite.
    - `waiting_times`: the distribution of the flights' durations, by default `Regular()`.

    **Returns:** `LimitCycle`, differentiable. For a single reservoir its states are those of `cycle_state`.

    **Raises:** `ValueError` for a rate that is not positive and finite, or arguments of the wrong kind.

    !!! example
        >>> system, hot = jr.letter.model(beta=0.05, rate=4.0)
        >>> _, cold = jr.letter.model(beta=0.3, rate=2.0)
        >>> cycle = jr.limit_cycle(system, [hot, cold])
        >>> bool(cycle.heat[0] > 1e-4), bool(jnp.abs(jnp.sum(cycle.heat)) < 1e-14)
        (True, True)
        >>> print(cycle.period)
        0.75
    """
    check_law(waiting_times)
    c = requested(system, reservoirs, amplitudes, quadrature, positive=True).compute()
    return _limit_cycle(system, c, waiting_times)


@eqx.filter_jit
def _limit_cycle(system, c, law):
    strokes = [
        make_cycle_map(system, S, rate, law) for S, rate in zip(c.maps, c.rates, strict=True)
    ]
    whole = strokes[0]
    for stroke in strokes[1:]:
        whole = stroke @ whole
    # the steady state at an infinite rate is the fixed point of the map
    valid = c.valid & jnp.all((c.rates > 0) & jnp.isfinite(c.rates))
    endless = Collisions(whole, jnp.inf, valid=valid, reservoirs=c.reservoirs)
    fixed = solve_steady_state(system, endless)

    turns = gaps(system.levels)[None] / c.rates[:, None, None]
    flights, means = law.characteristic_function(turns), law.residual_characteristic_function(turns)
    before, after, average = [], [fixed.rho], jnp.zeros_like(fixed.rho)
    for S, flight, mean, rate in zip(c.maps, flights, means, c.rates, strict=True):
        average = average + mean * after[-1] / rate
        before.append(flight * after[-1])
        after.append(S(before[-1]))
    after[-1] = fixed.rho  # equal up to the residual of the solution; this closes the cycle exactly
    before, after = jnp.stack(before), jnp.stack(after[1:])
    period = jnp.sum(1 / c.rates)
    return LimitCycle(
        before=before,
        after=after,
        average=average / period,
        heat=populations(after - before) @ system.levels,
        period=period,
        result=fixed.result,
        map_error=fixed.map_error,
        condition=fixed.condition,
    )


class CycleState(eqx.Module):
    """The stationary state under collisions with any waiting times, at three moments.

    - `after`: the state right after a collision, the fixed point of `cycle_map`; shape (N, N).
    - `before`: the state right before a collision; shape (N, N).
    - `average`: the state at a random instant of time; shape (N, N).
    - `result`, `map_error`, `condition`: as in `SteadyState`; the states are NaN unless `result` is successful or
      not_positive.
    """

    after: Complex[Array, "N N"]
    before: Complex[Array, "N N"]
    average: Complex[Array, "N N"]
    result: RESULTS
    map_error: Float[Array, ""]
    condition: Float[Array, ""]


@door
def cycle_state(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    waiting_times: Checked[AbstractWaitingTimes] = Exponential(),
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> CycleState:
    r"""The stationary state under collisions with any distribution of waiting times.

    $$ρ^+ = S χ ρ^+, \qquad ρ^- = χ ρ^+, \qquad
      \barρ_{jk} = Γ \int_0^∞ dt\, P(τ > t)\, e^{-iΔ_{jk}t/ħ}\, ρ^+_{jk}
                 = \frac{1 - χ_{jk}}{iΔ_{jk}/ħΓ}\, ρ^+_{jk}$$

    are the states right after a collision, right before a collision and at a random instant, with the χ of
    `cycle_map`. Free evolution does not change populations, so they are the same in all three.

    **Relation to the steady state ρ of the master equation.** Eq. (9),
    $-iΔ_{jk}ρ_{jk}/ħ + Γ[(S - 1)ρ]_{jk} = 0$, is equivalent to $χ S ρ = ρ$ with the χ of `Exponential()`. So for
    Poissonian collisions ρ is the state before a collision and also the average over time, ρ = ρ⁻ = ρ̄, while the state
    right after a collision is ρ⁺ = Sρ. For any other distribution ρ⁻ and ρ̄ differ.

    **Arguments:** as for `cycle_map`.

    **Returns:** `CycleState`, differentiable.

    **Raises:** `ValueError` as `cycle_map`.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> from jaxres.waiting_times import Exponential, GammaDistributed, Regular
        >>> for law in (Exponential(), GammaDistributed(4.0), Regular()):
        ...     print(jnp.round(jr.coherence(jr.cycle_state(system, reservoir, law).average), 6))
        0.099299
        0.107778
        0.110912
    """
    check_law(waiting_times)
    c = requested(system, reservoir, amplitudes, quadrature, positive=True, single=True).compute()
    cycle = _limit_cycle(system, c, waiting_times)
    return CycleState(
        after=cycle.after[0],
        before=cycle.before[0],
        average=cycle.average,
        result=cycle.result,
        map_error=cycle.map_error,
        condition=cycle.condition,
    )
