r"""The master equation (Eq. 8), its steady state (Eq. 9) and its solution in time.

    dρ/dt = −(i/ħ)[H_S, ρ] + Σ_r Γ_r (S_r − 1) ρ

with one term for each reservoir r.

**Real coordinates.** A Hermitian ρ has N² real coordinates, its populations and the real and imaginary parts of the
coherences above the diagonal; a Hermiticity-preserving map is a real N² × N² matrix on them.

**Steady state.** The row of the coherence (j, k) is divided by |Δ_jk| + Γ. Then all rows are of order one from Γ = 0,
where they say that the coherence vanishes, to Γ = ∞, where they say that S ρ = ρ; the rows of populations and of
coherences within a degenerate level are those of S − 1 at every Γ. One population is eliminated by Tr ρ = 1. A row's
scale does not change the solution and is held fixed under differentiation. The derivative of the solution x of
A x = b is A⁻¹(db − dA x), at Γ = 0 too, where it is the first order of perturbation theory (Eq. 14).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

from ._amplitudes import AbstractAmplitudes, Exact
from ._batched import UNROLLED, inverse, linear, matmul
from ._checks import (
    check_instance,
    check_shape,
    concrete,
    door,
    real_array,
    require,
    warn_of_single_precision,
)
from ._levels import equal_levels, gaps, splittings
from ._quadrature import AbstractQuadrature, DoubleExponential
from ._reservoir import Reservoir
from ._scattering_map import collision_map, scattering_map
from ._states import check_state
from ._superoperator import Superoperator
from ._system import System

Baths = Reservoir | Sequence[Reservoir]


class RESULTS(eqx.Enumeration):
    """What became of a steady-state solve."""

    successful = "The steady state was found."
    not_positive = (
        "The equation was solved, but the solution is not a state: it has a negative eigenvalue, since the scattering "
        "map is not completely positive. Eqs. (22), (23) are not quite a state of the particle; "
        "jaxres.ThermalMixture is."
    )
    not_unique = (
        "The steady state is not unique: the collisions leave more than one state unchanged (no coupling between some "
        "levels?). Couple all levels, or evolve a given initial state with jaxres.evolve."
    )
    map_not_converged = (
        "The scattering map is too inaccurate: its estimated error is above jaxres' limit of 1e-3. Use more quadrature "
        "nodes, or `tol=`."
    )
    invalid_parameters = (
        "A parameter is not admissible: levels must ascend, couplings be Hermitian, lengths, masses, β and Δx be "
        "positive, rates not be negative, and the packet satisfy 4πΔx√(m/β) ≥ ħ."
    )


#: a steady state is refused when an entry of its map is less certain than this
POOR_MAP = 1e-3


class SteadyState(eqx.Module):
    """A steady state and how far to trust it.

    - `rho`: the state, shape (N, N), in the energy eigenbasis; NaN unless `result` is successful or not_positive.
    - `result`: one of `jaxres.RESULTS`; `result == jr.RESULTS.successful` can be used under jit and vmap.
    - `map_error`: estimated largest error of an entry of the scattering map (the worst of all baths).
    - `condition`: the condition number of the linear system: the error of `rho` is about `map_error` times this.
    """

    rho: Complex[Array, "N N"]
    result: RESULTS
    map_error: Float[Array, ""]
    condition: Float[Array, ""]


@door
def steady_state(
    system: System,
    baths: Baths,
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    quadrature: AbstractQuadrature = DoubleExponential(),
    tol: float | None = None,
) -> SteadyState:
    r"""The state with dρ/dt = 0 under one reservoir, or several at once (Eq. 9).

    **Arguments:**

    - `system`: N levels.
    - `baths`: a `Reservoir`, or a sequence of them.
    - `amplitudes`, `quadrature`, `tol`: as for `scattering_map`.

    **Returns:** `SteadyState`. Differentiable in everything numeric, in forward and reverse mode, and right for every
    rate from 0 to ∞: at Γ = 0 it is the limit Γ → 0, Eq. (13).

    **Raises:** `ValueError` for arguments of the wrong kind. What can only be seen in the numbers is in `.result`.

    !!! example
        >>> system, bath = jr.letter.model(rate=5.0)
        >>> sol = jr.steady_state(system, bath)
        >>> print(jnp.round(jr.coherence(sol.rho), 7))
        0.0992995
        >>> grad = jax.grad(lambda b: jr.coherence(jr.steady_state(system, b).rho))(bath)
        >>> print(jnp.round(grad.packet.width, 8))
        -0.00364331
    """
    baths = _as_baths(system, baths)
    if tol is None:
        check_instance(
            "amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()"
        )
        check_instance(
            "quadrature",
            quadrature,
            AbstractQuadrature,
            "a rule such as jaxres.DoubleExponential()",
        )
        return _steady_state(system, baths, amplitudes, quadrature)
    maps = [
        scattering_map(system, bath, amplitudes=amplitudes, quadrature=quadrature, tol=tol)
        for bath in baths
    ]
    return eqx.filter_jit(steady_state_of)(
        system, maps, [bath.rate for bath in baths], admissible(system, baths)
    )


def _as_baths(system: Any, baths: Any) -> tuple[Reservoir, ...]:
    check_instance("system", system, System, "a jaxres.System")
    warn_of_single_precision(system.levels.dtype)
    sequence = (baths,) if isinstance(baths, Reservoir) else baths
    if not isinstance(sequence, list | tuple) or not sequence:
        raise ValueError(
            f"Argument `baths` must be a jaxres.Reservoir or a sequence of them, but is {baths!r}."
        )
    for bath in sequence:
        check_instance("baths", bath, Reservoir, "a jaxres.Reservoir or a sequence of them")
    return tuple(sequence)


def _with_finite_rates(baths):
    for bath in baths:
        if concrete(bath.rate):
            require(
                np.isfinite(bath.rate),
                "Argument `bath.rate` must be finite here, but is infinite. Only the steady state has that limit.",
            )
    return baths


@eqx.filter_jit
def _steady_state(system, baths, amplitudes, quadrature):
    maps = [collision_map(system, bath, amplitudes, quadrature) for bath in baths]
    return steady_state_of(system, maps, [bath.rate for bath in baths], admissible(system, baths))


def admissible(system: System, baths: Sequence[Reservoir]) -> Bool[Array, ""]:
    """The conditions that are checked on concrete values when objects are made, for traced ones."""
    return jnp.all(jnp.stack([system.valid(), *(bath.valid(system) for bath in baths)]))


@door
def steady_state_of(
    system: System,
    maps: Sequence[Superoperator],
    rates: Sequence[Float[Array, ""]],
    valid: Bool[Array, ""] | bool = True,
) -> SteadyState:
    """The steady state under collisions with the given maps and rates: the last room of the pipeline, alone.

    Of use where one map serves many rates: `jax.vmap(lambda rate: jr.steady_state_of(system, [S], [rate]))(rates)`.

    !!! example
        >>> system, bath = jr.letter.model()
        >>> S = jr.scattering_map(system, bath)
        >>> rates = jnp.array([1.0, 5.0, 10.0])
        >>> sols = jax.vmap(lambda rate: jr.steady_state_of(system, [S], [rate]))(rates)
        >>> print(jnp.round(jr.coherence(sols.rho), 6))
        [0.020749 0.099299 0.126131]
    """
    x, condition = _stationary(system, maps, rates)
    dtype = x.dtype
    map_error = jnp.max(jnp.stack([jnp.asarray(S.error, dtype) for S in maps]))
    eps = jnp.finfo(dtype).eps
    unique = condition * (64 * eps) < 1  # false for NaN too
    converged = map_error < POOR_MAP
    rho = from_coordinates(x, system.size)
    positive = _positive(rho, map_error * condition + jnp.sqrt(eps))
    result = RESULTS.where(
        jnp.asarray(valid),
        RESULTS.where(
            converged,
            RESULTS.where(
                unique,
                RESULTS.where(positive, RESULTS.successful, RESULTS.not_positive),
                RESULTS.not_unique,
            ),
            RESULTS.map_not_converged,
        ),
        RESULTS.invalid_parameters,
    )
    rho = jnp.where(jnp.asarray(valid) & converged & unique, rho, jnp.nan)
    return SteadyState(rho, result, map_error, condition)


def _positive(rho, room):
    """Whether no eigenvalue of ρ is below −room: whether all pivots of ρ + room are positive (Sylvester)."""
    N = rho.shape[-1]
    X = jax.lax.stop_gradient(rho) + jax.lax.stop_gradient(room) * jnp.eye(N, dtype=rho.dtype)

    def eliminate(k, state):
        X, positive = state
        pivot = jnp.real(X[k, k])
        positive &= pivot > 0
        column = X[:, k]
        return X - column[:, None] * jnp.conj(column)[None] / jnp.where(
            positive, pivot, 1
        ), positive

    state = X, jnp.asarray(True)
    if N > UNROLLED:
        return jax.lax.fori_loop(0, N, eliminate, state)[1]
    for k in range(N):
        state = eliminate(k, state)
    return state[1]


def _stationary(system, maps, rates):
    """The coordinates of the steady state, and the condition number of the system solved for them."""
    A, b = eliminate_ground_population(_rows(system, maps, rates))
    B = inverse(A)
    x = -matmul(B, b[:, None])[:, 0]
    ground = 1 - jnp.sum(x[: system.size - 1], keepdims=True)
    return jnp.concatenate([ground, x]), _norm(A) * _norm(B)


def eliminate_ground_population(
    R: Float[Array, "M M"],
) -> tuple[Float[Array, " M-1 M-1"], Float[Array, " M-1"]]:
    """A and b with (R x)[1:] = A x[1:] + b for every x of trace 1.

    The row left out follows from the others wherever R preserves the trace.
    """
    N = math.isqrt(R.shape[0])
    b, A = R[1:, 0], R[1:, 1:]
    return A - b[:, None] * (np.arange(1, N * N) < N).astype(R.dtype)[None], b


def _norm(A):
    """The largest row sum of |A|."""
    return jnp.max(jnp.sum(jnp.abs(A), axis=1), initial=0.0) if A.size else jnp.ones((), A.dtype)


def _rows(system, maps, rates):
    """The scaled rows of dρ/dt = 0 in real coordinates, shape (N², N²)."""
    N = system.size
    splitting = splittings(system.levels)  # |Δ_jk| for j < k
    pairs = splitting.shape[0]
    # levels that are equal to rounding do not turn, here as in `dephase`; their distance keeps its derivative
    equal = equal_levels(system.levels)[np.triu_indices(N, 1)]
    splitting = jnp.where(equal, splitting - jax.lax.stop_gradient(splitting), splitting)
    total = sum(rates)
    # Γ = ∞: a common factor of the rates drops out
    infinite = jnp.isinf(total)
    rates = [jnp.where(infinite, jnp.where(jnp.isinf(rate), 1.0, 0.0), rate) for rate in rates]
    total = jnp.where(infinite, len(rates) * 1.0, total)
    splitting = jnp.where(infinite, 0, splitting)

    scale = jax.lax.stop_gradient(1 / jnp.where(splitting + total > 0, splitting + total, 1))
    stopped = (
        total == 0
    )  # the limit Γ → 0: all rates go to 0 in proportion; alone among themselves they are equal
    share = [
        jnp.where(stopped, 1.0 / len(rates), rate) / jnp.where(stopped, 1.0, total)
        for rate in rates
    ]
    share = [jax.lax.stop_gradient(s) if len(rates) == 1 else s for s in share]

    one = jnp.eye(N * N, dtype=system.levels.dtype)
    changes = [to_real_matrix(S.tensor) - one for S in maps]
    # rows of populations, and of coherences where nothing else turns them
    collisions = sum(s * R for s, R in zip(share, changes, strict=True))
    degenerate = splitting == 0
    weight = jnp.where(degenerate, 1.0, total * scale)
    weight = jnp.concatenate([jnp.ones(N, weight.dtype), weight, weight])[:, None]
    # d/dt of Re ρ_jk and Im ρ_jk under −iΔ_jk with Δ_jk = e_j − e_k = −splitting
    turn = jnp.diag(splitting * scale)
    zero = jnp.zeros((pairs, pairs), turn.dtype)
    rotation = jnp.pad(jnp.block([[zero, -turn], [turn, zero]]), ((N, 0), (N, 0)))
    return weight * collisions + rotation


# --------------------------------------------------------------------------------------------------------------
# Real coordinates
# --------------------------------------------------------------------------------------------------------------


def to_coordinates(rho: Inexact[Array, "N N"]) -> Float[Array, " M"]:
    """Populations, then Re ρ_jk, then Im ρ_jk for j < k."""
    rows, columns = np.triu_indices(rho.shape[-1], 1)
    upper = rho[rows, columns]
    return jnp.concatenate([jnp.real(jnp.diagonal(rho)), jnp.real(upper), jnp.imag(upper)])


@lru_cache(maxsize=16)
def _basis(N: int) -> np.ndarray:
    """The Hermitian matrices of the coordinates, real and imaginary part, shape (N², N, N, 2)."""
    rows, columns = np.triu_indices(N, 1)
    pairs = len(rows)
    B = np.zeros((N * N, N, N, 2))
    B[np.arange(N), np.arange(N), np.arange(N), 0] = 1
    real, imag = N + np.arange(pairs), N + pairs + np.arange(pairs)
    B[real, rows, columns, 0] = B[real, columns, rows, 0] = 1
    B[imag, rows, columns, 1], B[imag, columns, rows, 1] = 1, -1
    return B


def from_coordinates(x: Float[Array, " M"], N: int) -> Complex[Array, "N N"]:
    """The Hermitian matrix with these coordinates."""
    if N > UNROLLED:
        rows, columns = np.triu_indices(N, 1)
        pairs = len(rows)
        upper = jax.lax.complex(x[N : N + pairs], x[N + pairs :])
        rho = jnp.diag(x[:N]).astype(upper.dtype).at[rows, columns].set(upper)
        return rho.at[columns, rows].set(jnp.conj(upper))
    parts = linear(x, _basis(N).reshape(N * N, -1).T).reshape(N, N, 2)
    return jax.lax.complex(parts[..., 0], parts[..., 1])


def to_real_matrix(tensor: Complex[Array, "N N N N"]) -> Float[Array, "M M"]:
    """A Hermiticity-preserving map on the real coordinates."""
    N = tensor.shape[0]
    rows, cols = np.triu_indices(N, 1)
    columns = tensor.reshape(N * N, N * N)
    if N > UNROLLED:
        ground, above, below = np.arange(N) * (N + 1), rows * N + cols, cols * N + rows
        even, odd = columns[:, above] + columns[:, below], columns[:, above] - columns[:, below]
        columns = jnp.concatenate([columns[:, ground], even, 1j * odd], axis=1)
        real, imag = jnp.real(columns), jnp.imag(columns)
        return jnp.concatenate([real[ground], real[above], imag[above]])
    # The columns are S applied to each basis matrix; of the result only the upper half is needed.
    B = _basis(N)
    onto_real = B[..., 0].reshape(N * N, -1)
    onto_imag = B[..., 1].reshape(N * N, -1)
    real = linear(jnp.real(columns), onto_real) - linear(jnp.imag(columns), onto_imag)
    imag = linear(jnp.imag(columns), onto_real) + linear(jnp.real(columns), onto_imag)
    one = np.eye(N * N)
    populations, upper = one[np.arange(N) * (N + 1)], one[rows * N + cols]
    return jnp.concatenate(
        [linear(real.T, populations), linear(real.T, upper), linear(imag.T, upper)], axis=1
    ).T


# --------------------------------------------------------------------------------------------------------------
# Time
# --------------------------------------------------------------------------------------------------------------


@door
def generator(
    system: System,
    baths: Baths,
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    quadrature: AbstractQuadrature = DoubleExponential(),
) -> Superoperator:
    r"""The generator L of the master equation, dρ/dt = L ρ (Eq. 8), as a superoperator.

    $$L = -\frac{i}{ħ}[H_S, ·] + \sum_r Γ_r (S_r - 1)$$

    **Arguments:** as for `steady_state`; rates finite. **Returns:** `Superoperator`.

    **Raises:** `ValueError` for an infinite rate, or arguments of the wrong kind.

    !!! example
        >>> system, bath = jr.letter.model(rate=5.0)
        >>> L = jr.generator(system, bath)
        >>> rho = jr.steady_state(system, bath).rho
        >>> bool(jnp.max(jnp.abs(L(rho))) < 1e-13)
        True
    """
    baths = _with_finite_rates(_as_baths(system, baths))
    return _generator(system, baths, amplitudes, quadrature)


@eqx.filter_jit
def _generator(system, baths, amplitudes, quadrature):
    maps = [collision_map(system, bath, amplitudes, quadrature) for bath in baths]
    return generator_of(system, maps, [bath.rate for bath in baths])


def generator_of(
    system: System, maps: Sequence[Superoperator], rates: Sequence[Float[Array, ""]]
) -> Superoperator:
    """`generator` from maps that are at hand."""
    one = jnp.eye(system.size, dtype=system.levels.dtype)
    identity = jnp.einsum("aj,bk->abjk", one, one)
    gap = gaps(system.levels)
    tensor = -1j * gap[:, :, None, None] * identity
    error = jnp.zeros((), system.levels.dtype)
    for S, rate in zip(maps, rates, strict=True):
        tensor = tensor + rate * (S.tensor - identity)
        error = error + rate * S.error
    return Superoperator(tensor, error)


@door
def evolve(
    system: System,
    baths: Baths,
    rho0: Inexact[Array, "N N"],
    times: Float[Array, " T"] | Sequence[float],
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    quadrature: AbstractQuadrature = DoubleExponential(),
) -> Complex[Array, "T N N"]:
    r"""The solution ρ(t) = e^{Lt} ρ(0) of the master equation (Eq. 8) at the given times.

    **Arguments:**

    - `system`, `baths`: as for `steady_state`.
    - `rho0`: initial state, Hermitian of trace 1, in the energy eigenbasis.
    - `times`: times t, shape (T,), in any order (1/energy).

    **Returns:** states, shape (T, N, N). What deviates from the steady state is propagated by a matrix exponential
    (scaling and squaring), so there is no step size and no error that accumulates: as t grows, the state tends to
    that of `steady_state` and stays there. Where the steady state is not unique, the relative error grows as
    10⁻¹⁶ |L| t. NaN where the parameters, being traced, are not admissible.

    **Raises:** `ValueError` for a state that is none, times or rates that are not finite, or arguments of the wrong
    kind.

    !!! example
        >>> system, bath = jr.letter.model(rate=5.0)
        >>> rhos = jr.evolve(system, bath, jnp.diag(jnp.array([1.0, 0.0])), [0.0, 1.0, 1e3])
        >>> print(jnp.round(jr.populations(rhos)[:, 0], 6))
        [1.       0.633294 0.53048 ]
    """
    baths = _with_finite_rates(_as_baths(system, baths))
    rho0, times = check_state("rho0", rho0, system), real_array(times)
    check_shape("times", times, 1, "(T,)")
    if concrete(times):
        require(np.isfinite(times), f"Argument `times` must be finite, but is {times}.")
    return _evolve(system, baths, rho0, times, amplitudes, quadrature)


@eqx.filter_jit
def _evolve(system, baths, rho0, times, amplitudes, quadrature):
    maps = [collision_map(system, bath, amplitudes, quadrature) for bath in baths]
    rates = [bath.rate for bath in baths]
    L = to_real_matrix(generator_of(system, maps, rates).tensor)
    A, b = eliminate_ground_population(L)
    # y = x − x* obeys dy/dt = A y + (A x* + b). Any fixed x* will do. With the steady state the last term is 0, and
    # is set to 0 exactly (its derivative is not): then nothing grows with time but what relaxes to zero. Where the
    # steady state is not unique, x* = 0.
    times = jnp.where(admissible(system, baths), times, jnp.nan)
    x, condition = jax.lax.stop_gradient(_stationary(system, maps, rates))
    unique = condition * (64 * jnp.finfo(x.dtype).eps) < 1
    origin = jnp.where(unique, x[1:], 0)
    drive = A @ origin + b
    drive = jnp.where(unique, drive - jax.lax.stop_gradient(drive), drive)
    augmented = jnp.pad(jnp.concatenate([drive[:, None], A], axis=1), ((1, 0), (0, 0)))
    start = jnp.concatenate([jnp.ones(1, x.dtype), to_coordinates(rho0)[1:] - origin])

    def state(t):
        y = jax.scipy.linalg.expm(augmented * t, max_squarings=48) @ start
        x = origin + y[1:]
        ground = 1 - jnp.sum(x[: system.size - 1], keepdims=True)
        return from_coordinates(jnp.concatenate([ground, x]), system.size)

    return jax.vmap(state)(times)
