r"""One realisation of the collisions (Eq. 5), and the average over many.

A realisation alternates free flights and collisions,

    ρ_{n+1} = S e^{−iH_S τ_n/ħ} ρ_n e^{iH_S τ_n/ħ}                                           (Eq. 5)

with ρ_n the state right after collision n and waiting times τ_n drawn independently from one
distribution of mean 1/Γ. For the exponential distribution the average over realisations at a fixed
time t solves the master equation (Eq. 8); for any distribution the average after n collisions is
given by the n-th power of `cycle_map`.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, PRNGKeyArray

from .._checks import (
    Checked,
    as_count,
    as_flag,
    as_key,
    as_vector,
    check_instance,
    concrete,
    door,
    or_nan,
    require,
)
from .._quantum.levels import gaps
from .._quantum.states import State, check_state, dephase
from .._quantum.superoperator import check_size
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, or_throw, requested
from .waiting_times import AbstractWaitingTimes, Exponential, check_law

Times = Checked[Float[ArrayLike, " T"] | Sequence[float]]

# --------------------------------------------------------------------------------------------------
# One realisation
# --------------------------------------------------------------------------------------------------


class Trajectory(eqx.Module):
    """One realisation of n collisions.

    - `times`: 0 and the times of the collisions, shape (n + 1,).
    - `states`: the initial state and the state right after each collision, shape (n + 1, N, N); NaN from the first
      collision on, unless `result` is successful.
    - `result`: one of `jaxres.RESULTS`; successful if the scattering map can be used.
    - `map_error`: estimated largest error of an entry of the scattering map.

    Between collisions the state evolves freely: `jaxres.state_at` returns it at any time.
    """

    times: Float[Array, " C"]
    states: Complex[Array, "C N N"]
    result: RESULTS
    map_error: Float[Array, ""]


@door
def trajectory(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    rho0: State,
    *,
    collisions: Checked[int],
    key: Checked[PRNGKeyArray],
    dephase: Checked[bool] = False,
    waiting_times: Checked[AbstractWaitingTimes] = Exponential(),
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> Trajectory:
    r"""One realisation of the collisions (Eq. 5).

    $$ρ_{n+1} = S\, e^{-iH_Sτ_n/ħ} ρ_n e^{iH_Sτ_n/ħ}$$

    **Arguments:**

    - `system`, `reservoir`, `amplitudes`, `quadrature`: as for `scattering_map`. The rate Γ must be
      positive.
    - `rho0`: initial state, shape (N, N), in the energy eigenbasis.
    - `collisions`: the number n of collisions.
    - `key`: a JAX random key. The first collisions do not depend on n.
    - `dephase`: apply the full dephasing D (Eq. 3) after each collision; then, if the map obeys
      detailed balance, the states converge to the Gibbs state (Eq. 4).
    - `waiting_times`: the distribution of the τ_n: `Exponential()` as in the Letter, `Regular()` or
      `GammaDistributed(shape)`.
    - `throw`: raise a `RuntimeError`, inside jit too, if the result is not successful.

    **Returns:** `Trajectory`. `jax.vmap` over keys gives many realisations with one scattering map.
    For a traced rate of 0 the states are NaN.

    **Raises:** `ValueError` for a rate that is not positive and finite, fewer than one collision,
    or a `rho0` that is not a state.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=1.0)
        >>> ground = jnp.diag(jnp.array([1.0, 0.0]))
        >>> key = jax.random.key(0)
        >>> path = jr.trajectory(system, reservoir, ground, collisions=400, key=key, dephase=True)
        >>> print(jnp.round(jr.populations(path.states[-1]), 6))  # the Gibbs state
        [0.514996 0.485004]
    """
    check_law(waiting_times)
    request = requested(system, reservoir, amplitudes, quadrature, positive=True, single=True)
    rho0 = check_state("rho0", rho0, system)
    collisions, key = as_count("collisions", collisions, 1), as_key("key", key)
    dephase = as_flag("dephase", dephase)
    c = request.compute()
    path = _trajectory(system, c, rho0, collisions, key, dephase, waiting_times)
    return or_throw(path, path.result, throw)


def _usable(system, c):
    """The single map, NaN unless it can be used, and the rate."""
    (S,) = c.maps
    good = c.result == RESULTS.successful
    return eqx.tree_at(lambda S: S.tensor, S, or_nan(good, S.tensor, (system, c.inputs))), c.rates[
        0
    ]


@eqx.filter_jit
def _trajectory(system, c, rho0, collisions, key, dephased, law):
    S, rate = _usable(system, c)
    waits = jax.vmap(lambda n: _wait(law, key, n, rate))(jnp.arange(collisions))

    def step(rho, wait):
        rho = _collide(system, S, rho, wait, dephased)
        return rho, rho

    _, states = jax.lax.scan(step, rho0, waits)
    times = jnp.concatenate([jnp.zeros(1, waits.dtype), jnp.cumsum(waits)])
    return Trajectory(times, jnp.concatenate([rho0[None], states]), c.result, c.map_error)


def _wait(law, key, n, rate):
    """The n-th waiting time of the realisation with this key."""
    return law.sample(jax.random.fold_in(key, n)).astype(rate.dtype) / rate


def _collide(system, S, rho, wait, dephased):
    """The state right after a flight and a collision."""
    rho = S(_flight(system, rho, wait))
    return dephase(system, rho) if dephased else rho


def _flight(system, rho, time):
    """Free evolution, e^{−iH_S t} ρ e^{iH_S t}."""
    return jnp.exp(-1j * gaps(system.levels) * time) * rho


@door
def state_at(
    system: Checked[System], path: Checked[Trajectory], times: Times
) -> Complex[Array, "T N N"]:
    """The states along one realisation at the given times; at a collision, the state right after it.

    **Arguments:**

    - `system`: the system of the trajectory.
    - `path`: a `Trajectory`.
    - `times`: shape (T,), in any order, between 0 and the last collision of the path.

    **Returns:** shape (T, N, N). The average over Poissonian realisations is
    `evolve(system, reservoir, rho0, times)`. Inside jit or vmap the states are NaN at times outside the
    path: to avoid this, draw more than Γt collisions, by a few times √Γt.

    **Raises:** `ValueError` for times outside the path.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=1.0)
        >>> ground, times = jnp.diag(jnp.array([1.0, 0.0])), jnp.array([0.5, 1.0])
        >>> def states(key):
        ...     path = jr.trajectory(system, reservoir, ground, collisions=20, key=key)
        ...     return jr.state_at(system, path, times)
        >>> mean = jnp.mean(jax.vmap(states)(jax.random.split(jax.random.key(0), 2000)), 0)
        >>> bool(jnp.max(jnp.abs(mean - jr.evolve(system, reservoir, ground, times))) < 0.02)
        True
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("path", path, Trajectory, "what jaxres.trajectory returns")
    check_size("path", path.states.shape[-1], system)
    instants = as_vector("times", times, shape="(T,)")
    known = (instants >= 0) & (instants <= path.times[-1])
    if concrete(known):
        require(
            known,
            f"Argument `times` must lie between 0 and the last collision at {path.times[-1]:g}, "
            f"but is {instants}. Draw more collisions.",
        )
    return _state_at(system, path, instants, known)


@eqx.filter_jit
def _state_at(system, path, times, known):
    last = jnp.clip(jnp.searchsorted(path.times, times, side="right") - 1, 0)
    fly = jax.vmap(lambda rho, time: _flight(system, rho, time))
    return jnp.where(
        known[:, None, None], fly(path.states[last], times - path.times[last]), jnp.nan
    )


# --------------------------------------------------------------------------------------------------
# Many realisations
# --------------------------------------------------------------------------------------------------


class Ensemble(eqx.Module):
    """The average over many realisations.

    - `times`: shape (T,).
    - `mean`: the average state at these times, shape (T, N, N).
    - `standard_error`: the standard errors of the real part of `mean` (as real part) and of its
      imaginary part (as imaginary part), shape (T, N, N).
    - `realisations`: the number of realisations.
    - `result`, `map_error`: as in `Trajectory`.
    """

    times: Float[Array, " T"]
    mean: Complex[Array, "T N N"]
    standard_error: Complex[Array, "T N N"]
    realisations: int = eqx.field(static=True)
    result: RESULTS
    map_error: Float[Array, ""]


@door
def trajectories(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    rho0: State,
    times: Times,
    *,
    realisations: Checked[int],
    key: Checked[PRNGKeyArray],
    dephase: Checked[bool] = False,
    waiting_times: Checked[AbstractWaitingTimes] = Exponential(),
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    chunk: Checked[int] = 256,
    progress: Checked[bool] = False,
    throw: Checked[bool] = False,
) -> Ensemble:
    """The average over many realisations (Eq. 5) at the given times, for long runs.

    Realisation i is `trajectory(..., key=jax.random.fold_in(key, i))`, with all collisions up to the
    last time. The memory needed is that of the states of `chunk` realisations at the given times; it
    does not depend on the number of realisations and collisions.

    **Arguments:** as for `trajectory`, except `collisions`, and

    - `times`: times t ≥ 0, shape (T,), in any order.
    - `realisations`: their number, at least 2.
    - `chunk`: the number of realisations computed at a time. It changes the result only by rounding.
    - `progress`: show a progress bar (needs tqdm, which comes with the extra `sweep`).

    **Returns:** `Ensemble`.

    **Raises:** `ValueError` as `trajectory`, for times that are negative or not finite, and for traced
    arguments, since this is a loop in Python. Inside jit, grad and vmap use `jax.vmap` over
    `trajectory` and `state_at`.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> ground, key = jnp.diag(jnp.array([1.0, 0.0])), jax.random.key(0)
        >>> many = jr.trajectories(system, reservoir, ground, [0.5, 1.0], realisations=1000, key=key)
        >>> error = jnp.real(many.mean - jr.evolve(system, reservoir, ground, [0.5, 1.0]))
        >>> bool(jnp.all(jnp.abs(error) < 4 * jnp.real(many.standard_error)))
        True
    """
    check_law(waiting_times)
    request = requested(system, reservoir, amplitudes, quadrature, positive=True, single=True)
    rho0, key = check_state("rho0", rho0, system), as_key("key", key)
    instants = as_vector("times", times, shape="(T,)")
    if not concrete(system, reservoir, rho0, instants, key):
        raise ValueError(
            "Arguments of `trajectories` must be concrete, but one is traced. Inside jit, grad and "
            "vmap use jax.vmap over jaxres.trajectory and jaxres.state_at."
        )
    require(
        np.asarray(instants) >= 0,
        f"Argument `times` must be finite and not negative, but is {instants}.",
    )
    realisations, chunk = as_count("realisations", realisations, 2), as_count("chunk", chunk, 1)
    dephase, progress = as_flag("dephase", dephase), as_flag("progress", progress)

    starts = range(0, realisations, chunk)
    if progress:
        from tqdm import tqdm

        starts = tqdm(starts, desc=f"{realisations} realisations", unit="chunk")
    c = request.compute()
    nothing = jnp.zeros((instants.size, *rho0.shape), rho0.dtype)
    moments = jnp.zeros((), c.rates.dtype), nothing, nothing
    for start in starts:
        index = start + jnp.arange(chunk)
        states = _observe(system, c, rho0, instants, key, index, dephase, waiting_times)
        moments = _accumulate(moments, states, index < realisations)
    count, mean, squares = moments
    variance = squares / (count * (count - 1))
    many = Ensemble(instants, mean, _parts(jnp.sqrt, variance), realisations, c.result, c.map_error)
    return or_throw(many, many.result, throw)


@eqx.filter_jit
def _observe(system, c, rho0, times, key, index, dephased, law):
    """The states at the given times, of each realisation in `index`."""
    S, rate = _usable(system, c)
    order = jnp.argsort(times)

    def realisation(i):
        own = jax.random.fold_in(key, i)

        def collide(now):
            n, clock, wait, rho = now
            after = _collide(system, S, rho, wait, dephased)
            return n + 1, clock + wait, _wait(law, own, n + 1, rate), after

        def look(now, time):
            now = jax.lax.while_loop(lambda now: now[1] + now[2] <= time, collide, now)
            _, clock, _, rho = now
            return now, _flight(system, rho, time - clock)

        start = jnp.zeros((), int), jnp.zeros((), rate.dtype), _wait(law, own, 0, rate), rho0
        _, states = jax.lax.scan(look, start, times[order])
        return states[jnp.argsort(order)]

    return jax.vmap(realisation)(index)


@eqx.filter_jit
def _accumulate(moments, states, wanted):
    """Adds one chunk to the number, the mean and the summed squared deviations (Chan et al., 1979)."""
    count, mean, squares = moments
    weight = wanted.astype(count.dtype)
    added = jnp.sum(weight)
    new = jnp.einsum("i,itjk->tjk", weight, states) / added
    spread = jnp.einsum("i,itjk->tjk", weight, _parts(jnp.square, states - new[None]))
    total, shift = count + added, new - mean
    return (
        total,
        mean + shift * (added / total),
        squares + spread + _parts(jnp.square, shift) * (count * added / total),
    )


def _parts(f, z):
    """Applies f to the real part and to the imaginary part of z."""
    return jax.lax.complex(f(jnp.real(z)), f(jnp.imag(z)))
