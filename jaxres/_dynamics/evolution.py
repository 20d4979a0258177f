r"""The generator of the master equation (Eq. 8) and its solution in time.

    dρ/dt = L ρ = −(i/ħ)[H_S, ρ] + Σ_r Γ_r (S_r − 1) ρ

The solution is computed as x* + e^{At}(x(0) − x*) in real coordinates, with the steady state x*. So the solution and
its derivatives tend to those of the steady state as t grows.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from .._checks import (
    Checked,
    Numbers,
    as_real,
    check_shape,
    concrete,
    door,
    or_nan,
    require,
)
from .._numerics.batched import inverse
from .._quantum.levels import gaps
from .._quantum.states import State, check_state
from .._quantum.superoperator import Superoperator
from .._quantum.system import System
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, Reservoirs, or_throw, requested
from .real_coordinates import (
    eliminate_ground_population,
    from_coordinates,
    row_sum_norm,
    to_coordinates,
    to_real_matrix,
)
from .steady_state import POOR_STATE, _rows, _stationary


@door
def generator(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> Superoperator:
    r"""The generator L of the master equation, dρ/dt = L ρ (Eq. 8), as a superoperator.

    $$L = -\frac{i}{ħ}[H_S, ·] + \sum_r Γ_r (S_r - 1)$$

    **Arguments:** as for `steady_state`; the rates must be finite.

    **Returns:** `Superoperator`.

    **Raises:** `ValueError` for an infinite rate, or arguments of the wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> L = jr.generator(system, reservoir)
        >>> rho = jr.steady_state(system, reservoir).rho
        >>> bool(jnp.max(jnp.abs(L(rho))) < 1e-13)
        True
    """
    c = requested(system, reservoirs, amplitudes, quadrature, finite=True).compute()
    return make_generator(system, c)


@eqx.filter_jit
def make_generator(system: System, c: Collisions) -> Superoperator:
    """Computes `generator` without checks, for use inside other pure functions."""
    one = jnp.eye(system.size, dtype=system.levels.dtype)
    identity = jnp.einsum("aj,bk->abjk", one, one)
    gap = gaps(system.levels)
    tensor = -1j * gap[:, :, None, None] * identity
    error = jnp.zeros((), system.levels.dtype)
    for S, rate in zip(c.maps, c.rates, strict=True):
        tensor = tensor + rate * (S.tensor - identity)
        error = error + rate * S.error
    return Superoperator(tensor, error)


@door
def evolve(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    rho0: State,
    times: Numbers,
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> Complex[Array, "T N N"]:
    r"""The solution ρ(t) = e^{Lt} ρ(0) of the master equation (Eq. 8) at the given times.

    **Arguments:**

    - `system`, `reservoirs`, `amplitudes`, `quadrature`: as for `steady_state`; the rates must be finite.
    - `rho0`: initial state, shape (N, N), in the energy eigenbasis.
    - `times`: times t (1/energy), shape (T,), in any order; they may be infinite.
    - `throw`: raise a `RuntimeError`, inside jit too, if the result is not successful.

    **Returns:** states, shape (T, N, N), differentiable. A matrix exponential (scaling and squaring) propagates the
    deviation from the steady state, so there is no step size. As t grows, the state and its derivatives tend to those
    of `steady_state`, which they reach at t = ∞. Parts that do not relax have a relative error of 10⁻¹⁶ |L| t.

    The states and all their derivatives are NaN where that error is above 0.1, where the error of a map is above 1e-3,
    or where traced parameters are not admissible. In the last two cases `jaxres.collisions(…).result` gives the reason.

    **Raises:** `ValueError` for a `rho0` that is not a state, an infinite rate, a time that is NaN, or arguments of the
    wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> rhos = jr.evolve(system, reservoir, jnp.diag(jnp.array([1.0, 0.0])), [0.0, 1.0, 1e3])
        >>> print(jnp.round(jr.populations(rhos)[:, 0], 6))
        [1.       0.633294 0.53048 ]
    """
    request = requested(system, reservoirs, amplitudes, quadrature, finite=True)
    rho0, times = check_state("rho0", rho0, system), as_real("times", times)
    check_shape("times", times, 1, "(T,)")
    if concrete(times):
        require(~np.isnan(times), f"Argument `times` must be numbers, but is {times}.")
    return or_throw(*_evolve(system, request.compute(), rho0, times), throw)


@eqx.filter_jit
def _evolve(system, c, rho0, times):
    L = to_real_matrix(make_generator(system, c).tensor)
    A, b = eliminate_ground_population(L)
    # ρ(t) = x* + e^{At}(ρ(0) − x*) with the steady state x* and its derivatives. Where x* is not determined, x* = 0 is
    # used, and one more coordinate, which stays 1, carries the inhomogeneity b.
    determined = jax.lax.stop_gradient(_stationary(system, c.maps, c.rates).error) < POOR_STATE
    rows, known = eliminate_ground_population(_rows(system, c.maps, c.rates)[0])
    one = jnp.eye(known.size, dtype=known.dtype)
    steady = -inverse(jnp.where(determined, rows, one)) @ jnp.where(determined, known, 0)
    drive = jnp.where(determined, 0, b)
    driven = jnp.pad(jnp.concatenate([drive[:, None], A], axis=1), ((1, 0), (0, 0)))
    start = jnp.concatenate([jnp.ones(1, steady.dtype), to_coordinates(rho0)[1:] - steady])

    def state(t):
        change, reached = _exponential_less_one(driven, t)
        x = steady + (start + change @ start)[1:]
        ground = 1 - jnp.sum(x[: system.size - 1], keepdims=True)
        return from_coordinates(jnp.concatenate([ground, x]), system.size), reached

    rhos, reached = jax.vmap(state)(times)
    good = (c.result == RESULTS.successful) & reached
    rhos = or_nan(good[:, None, None], rhos, (system, c.inputs, rho0, times))
    known = jnp.all(reached) | (c.result != RESULTS.successful)
    return rhos, RESULTS.where(known, c.result, RESULTS.not_resolved)


#: number of squarings of an exponential: enough for |A| t up to 2^80, and for more if it has decayed by then
SQUARINGS = 80
#: largest number of squarings that double the error: 2^49 times the rounding 2e-16 is about 0.1
DOUBLINGS = 49


def _exponential_less_one(
    A: Float[Array, "M M"], t: Float[Array, ""]
) -> tuple[Float[Array, "M M"], Bool[Array, ""]]:
    r"""Returns e^{At} − 1 for a matrix whose first row is 0, and whether it is accurate.

    The iteration Q → 2Q + Q² leads from Q = e^{Ah} − 1 to that of 2h. It keeps the relative accuracy of small changes
    and a first row of zeros. A squaring doubles the error of parts that do not decay; after all parts of e^{At} have
    decayed, squarings change nothing. So the accuracy is judged by the computed Q, not by t.
    """
    size = jax.lax.stop_gradient(row_sum_norm(A))
    length = jax.lax.stop_gradient(jnp.abs(t))
    halvings = jnp.ceil(jnp.maximum(jnp.log2(size) + jnp.log2(length) + 1, 0))
    endless = jnp.isinf(length)
    count = jnp.where(endless | jnp.isnan(halvings), 0, halvings).astype(int)
    # 2^−count in two factors, since it may be smaller than the smallest floating-point number
    unit = jnp.ones_like(size)
    h = (
        jnp.where(endless, 0, t)
        * jnp.ldexp(unit, -(count // 2))
        * jnp.ldexp(unit, count // 2 - count)
    )
    h = jnp.where(endless, 0.5 / jnp.where(size > 0, size, 1), h)
    needed = jnp.where(endless, SQUARINGS + 1, count)
    X, one = A * h, jnp.eye(A.shape[0], dtype=A.dtype)
    series = one
    for n in range(16, 1, -1):  # |X| ≤ 1/2: 2^−17/17! is below rounding
        series = one + X @ series / n

    def remains(Q):
        return jnp.max(jnp.abs((Q + one)[1:, 1:]), initial=0.0)

    def square(carry, k):
        Q, doublings = carry
        more = k < needed
        doublings = doublings + (more & (remains(jax.lax.stop_gradient(Q)) > 0.1))
        return (jnp.where(more, 2 * Q + Q @ Q, Q), doublings), None

    (Q, doublings), _ = jax.lax.scan(square, (X @ series, jnp.zeros((), int)), np.arange(SQUARINGS))
    gone = remains(jax.lax.stop_gradient(Q)) <= 1e3 * A.shape[0] * jnp.finfo(A.dtype).eps
    few = doublings <= DOUBLINGS + jnp.log2(np.finfo(float).eps / jnp.finfo(A.dtype).eps)
    backwards = endless & (t < 0)
    return Q, few & (gone | (needed <= SQUARINGS)) & ~backwards & jnp.isfinite(h)
