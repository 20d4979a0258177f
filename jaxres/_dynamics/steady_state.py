r"""The steady state (Eq. 9) of the master equation (Eq. 8).

    dρ/dt = −(i/ħ)[H_S, ρ] + Σ_r Γ_r (S_r − 1) ρ = 0

with one term for each reservoir r. This is a linear system in the real coordinates of ρ.

The row of the coherence (j, k) is divided by |Δ_jk| + Γ. Then all rows are of order one, from Γ = 0, where they
require that the coherence vanishes, to Γ = ∞, where they require S ρ = ρ. The rows of populations and of coherences
within a degenerate level are those of S − 1 at every Γ. Tr ρ = 1 eliminates one population. The scale of a row does not
change the solution, and is held fixed under differentiation. The derivative of the solution x of A x = b is
A⁻¹(db − dA x), also at Γ = 0, where it is the first order of perturbation theory (Eq. 14).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import Checked, Scalar, door, or_nan
from .._numerics.batched import UNROLLED, inverse, matmul
from .._quantum.levels import equal_levels, splittings
from .._quantum.system import System
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, Reservoirs, or_throw, requested
from .real_coordinates import (
    eliminate_ground_population,
    from_coordinates,
    row_sum_norm,
    to_real_matrix,
)

#: largest accepted error of an entry of a steady state
POOR_STATE = 1e-2
#: error of an amplitude, and of a sum in the linear solve, in units of the distance from 1 to the next number
ROUNDINGS = 4.0
#: The errors of the coordinates are compared entry by entry, or with a part of the largest of them: the first is
#: sharper where a weak coupling makes them differ by orders of magnitude, the last where some are exactly 0.
PARTS = (0.0, 1e-6, 1.0)


class SteadyState(eqx.Module):
    """A steady state and its error estimates.

    - `rho`: the state, shape (N, N), in the energy eigenbasis; NaN unless `result` is successful or not_positive.
    - `result`: one of `jaxres.RESULTS`; `result == jr.RESULTS.successful` can be used under jit and vmap.
    - `map_error`: estimated largest error of an entry of the scattering maps of all reservoirs.
    - `condition`: the condition number of the linear system.
    - `error`: estimated largest error of an entry of `rho`: the errors of all entries of the maps and of rounding,
      propagated through the linear system. It is a bound, in order of magnitude.
    """

    rho: Complex[Array, "N N"]
    result: RESULTS
    map_error: Float[Array, ""]
    condition: Float[Array, ""]
    error: Float[Array, ""]


@door
def steady_state(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    tol: Scalar | None = None,
    throw: Checked[bool] = False,
) -> SteadyState:
    r"""The state with dρ/dt = 0 under one reservoir, or several at once (Eq. 9).

    **Arguments:**

    - `system`: N levels.
    - `reservoirs`: a `Reservoir`, a sequence of them, or `Collisions` with maps computed already.
    - `amplitudes`, `quadrature`, `tol`: as for `scattering_map`.
    - `throw`: raise a `RuntimeError`, inside jit too, if the result is not successful.

    **Returns:** `SteadyState`, differentiable in all numbers, in forward and reverse mode, and right for every rate
    from 0 to ∞: at Γ = 0 it is the limit Γ → 0, Eq. (13). Its `result` gives the reason if the computation failed.

    **Raises:** `ValueError` for arguments of the wrong kind, or if `tol` is not reached.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> sol = jr.steady_state(system, reservoir)
        >>> print(jnp.round(jr.coherence(sol.rho), 7))
        0.0992995
        >>> grad = jax.grad(lambda b: jr.coherence(jr.steady_state(system, b).rho))(reservoir)
        >>> print(jnp.round(grad.packet.width, 8))
        -0.00364331
    """
    c = requested(system, reservoirs, amplitudes, quadrature, tol).compute()
    sol = solve_steady_state(system, c)
    return or_throw(sol, sol.result, throw)


@eqx.filter_jit
def solve_steady_state(system: System, c: Collisions) -> SteadyState:
    """Computes `steady_state` without checks, for use inside other pure functions."""
    solved = _stationary(system, c.maps, c.rates)
    rho = from_coordinates(solved.x, system.size)
    # the error of an eigenvalue is at most N times that of an entry
    positive = _positive(rho, system.size * solved.error)
    result = c.result
    for ok, otherwise in (
        (solved.rounding < POOR_STATE, RESULTS.not_unique),
        (solved.error < POOR_STATE, RESULTS.not_determined),
        (positive, RESULTS.not_positive),
    ):
        result = RESULTS.where(ok | (result != RESULTS.successful), result, otherwise)
    solvable = (result == RESULTS.successful) | (result == RESULTS.not_positive)
    rho = or_nan(solvable, rho, (system, c.inputs))
    return SteadyState(rho, result, c.map_error, solved.condition, solved.error)


def _positive(rho, tolerance):
    """Whether no eigenvalue of ρ is below −tolerance, by the signs of the pivots of ρ + tolerance (Sylvester)."""
    N = rho.shape[-1]
    X = jax.lax.stop_gradient(rho) + jax.lax.stop_gradient(tolerance) * jnp.eye(N, dtype=rho.dtype)

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


class _Stationary(NamedTuple):
    """The coordinates of the steady state, the condition number of their linear system, and two error bounds.

    `error` bounds the largest error of an entry, `rounding` the part of it that more accurate maps would not reduce.
    """

    x: Float[Array, " M"]
    condition: Float[Array, ""]
    error: Float[Array, ""]
    rounding: Float[Array, ""]


def _stationary(system, maps, rates) -> _Stationary:
    R, weight, shares = _rows(system, maps, rates)
    A, b = eliminate_ground_population(R)
    B = inverse(A)
    x = -matmul(B, b[:, None])[:, 0]
    ground = 1 - jnp.sum(x[: system.size - 1], keepdims=True)
    x = jnp.concatenate([ground, x])
    fixed = jax.lax.stop_gradient((R, B, x, weight, shares, maps))
    return _Stationary(x, row_sum_norm(A) * row_sum_norm(B), *_errors(*fixed))


def _errors(R, B, x, weight, shares, maps):
    r"""Bounds on the largest error of an entry of x: from the maps and rounding together, and from rounding alone.

    An error δR of the rows changes x by δx with |δx| ≤ |B| |δR| (|x| + |δx|), entry by entry, where B is the inverse.
    Each entry of a map has its own error. So where a weak coupling changes populations at second order, these are right
    to the relative error of the entries that change them.

    Where levels nearly meet, every quadrature rule nearly conserves the populations of the coupling's eigenstates: then
    |B| is huge, but B δR is not, and the first bound is useless. There a second, coarser bound takes δR, with its
    signs, from the maps by half the nodes.
    """
    eps, N = ROUNDINGS * jnp.finfo(x.dtype).eps, maps[0].size
    roundings, sizes, rest = eps * jnp.abs(R), 0, 0
    first, gain = jnp.zeros_like(x), jnp.zeros_like(x[0])
    for S, share in zip(maps, shares, strict=True):
        scale = share * weight
        roundings = roundings + scale * _real_errors(_of_amplitudes(S.tensor, eps))
        if S.evidence is None:
            error = scale * _real_errors(jnp.broadcast_to(S.error, S.tensor.shape))
            sizes, rest = sizes + error, rest + error
            continue
        inexact = scale * _real_errors(_of_amplitudes(S.tensor, S.evidence.inexact))
        off = scale[None] * (jax.vmap(_change)(S.evidence.others) - _change(S.tensor)[None])
        sizes = sizes + inexact + _from_coarser(off, S.evidence.analytic)
        rest = rest + inexact
        solved = jnp.einsum("ij,njk->nik", B, off[:, 1:])
        once = _with_ground(solved @ x, N)
        twice = _with_ground(jnp.einsum("nij,nj->ni", solved, once), N)
        norms = jnp.max(jnp.abs(jnp.stack([once, twice])), axis=2)
        norms = jnp.stack([norms[0], norms[1] / jnp.where(norms[0] > 0, norms[0], 1)], axis=1)
        first, gain = (
            first + 2 * norms[0, 0] + 4 * norms[2, 0],
            gain + 2 * norms[0, 1] + 4 * norms[2, 1],
        )

    def bound(sizes, first, gain):
        F = jnp.abs(B) @ sizes[1:]
        F = jnp.concatenate([jnp.sum(F[: N - 1], axis=0, keepdims=True), F])
        first = first + F @ jnp.abs(x)
        # If F v ≤ gain v for a v ≥ first, the series first + F first + F² first + … is below first + gain v/(1 − gain).
        # No v here has a larger entry than first, so that is max(first)/(1 − gain) at most.
        gain = gain + _growth(F, first)
        return jnp.where(gain < 1, jnp.max(first) / jnp.where(gain < 1, 1 - gain, 1), jnp.inf)

    none = jnp.zeros_like(first), jnp.zeros_like(gain)
    by_size, by_sign = bound(sizes + roundings, *none), bound(rest + roundings, first, gain)
    return jnp.where(by_size < POOR_STATE, by_size, by_sign), bound(roundings, *none)


def _growth(F, first):
    """The least number with F v ≤ number·v, for the best v of `first` raised to one of PARTS of its largest entry."""
    v = jnp.maximum(first[:, None], jnp.max(first) * jnp.asarray(PARTS, first.dtype)[None])
    grown = F @ v
    ratio = grown / jnp.where(v > 0, v, 1)
    return jnp.min(jnp.max(jnp.where(v > 0, ratio, jnp.where(grown > 0, jnp.inf, 0)), axis=0))


def _with_ground(y, N):
    """Prepends the change of the ground population, which is minus that of the others."""
    return jnp.concatenate([-jnp.sum(y[..., : N - 1], axis=-1, keepdims=True), y], axis=-1)


def _from_coarser(away: Float[Array, "3 *s"], analytic: bool) -> Float[Array, " *s"]:
    """The error of a rule, from its differences d₁, d₂ to the rules with a half and a quarter of the nodes.

    A rule that converges exponentially has the error d₁(d₁/d₂)² (see `AbstractQuadrature.error`). Single entries
    converge less regularly, and a difference may vanish by accident: hence the power 3/2 and the factor 10. The third
    difference is the contribution from beyond the outermost nodes, which no rule includes and where integrands of a
    weak coupling still grow: hence the factor 4. Power and factors were found by trial on random models with 8 to 48
    nodes.
    """
    d1, d2, ends = jnp.abs(away)
    if analytic:
        ratio = jnp.where(d2 > 0, d1 / jnp.where(d2 > 0, d2, 1), 1)
        d1 = 10 * d1 * jnp.minimum(ratio, 1) ** 1.5
    return d1 + 4 * ends


def _of_amplitudes(tensor, error):
    """The error of each entry ∫ a b* of a map if every amplitude has the given error: (|a| + |b|) times that error.

    By the Cauchy–Schwarz inequality, S[j', j', j, j] stands for |a|².
    """
    size = jnp.sqrt(jnp.abs(jnp.einsum("aajj->aj", tensor))) + error
    return error * (size[:, None, :, None] + size[None, :, None, :])


def _real_errors(errors):
    """Converts errors of the entries of a map to errors of the entries of its real matrix."""
    N = errors.shape[0]
    rows, columns = np.triu_indices(N, 1)
    ground, above, below = np.arange(N) * (N + 1), rows * N + columns, columns * N + rows
    E = errors.reshape(N * N, N * N)
    # the probability to stay is 1 − those to leave, as in `_change`, so its error is the sum of theirs
    stays = E[np.ix_(ground, ground)] * (1 - np.eye(N))
    E = E.at[ground, ground].set(jnp.sum(stays, axis=0))
    both = E[:, above] + E[:, below]
    return jnp.concatenate([E[:, ground], both, both], axis=1)[
        np.concatenate([ground, above, above])
    ]


def _rows(system, maps, rates):
    """The scaled rows of dρ/dt = 0 in real coordinates, shape (N², N²), and the factors of the maps in them."""
    N = system.size
    splitting = splittings(system.levels)  # |Δ_jk| for j < k
    pairs = splitting.shape[0]
    # the coherence of levels equal to rounding does not rotate, as in `dephase`; the distance keeps its derivative
    equal = equal_levels(system.levels)[np.triu_indices(N, 1)]
    splitting = jnp.where(equal, splitting - jax.lax.stop_gradient(splitting), splitting)
    total = jnp.sum(rates)
    # Γ = ∞: a common factor of the rates drops out
    infinite = jnp.isinf(total)
    rates = [jnp.where(infinite, jnp.where(jnp.isinf(rate), 1.0, 0.0), rate) for rate in rates]
    total = jnp.where(infinite, len(rates) * 1.0, total)
    splitting = jnp.where(infinite, 0, splitting)

    scale = jax.lax.stop_gradient(1 / jnp.where(splitting + total > 0, splitting + total, 1))
    stopped = total == 0  # the limit Γ → 0 of equal rates
    share = [
        jnp.where(stopped, 1.0 / len(rates), rate) / jnp.where(stopped, 1.0, total)
        for rate in rates
    ]
    share = [jax.lax.stop_gradient(s) if len(rates) == 1 else s for s in share]

    changes = [_change(S.tensor) for S in maps]
    collisions = sum(s * R for s, R in zip(share, changes, strict=True))
    degenerate = splitting == 0
    weight = jnp.where(degenerate, 1.0, total * scale)
    weight = jnp.concatenate([jnp.ones(N, weight.dtype), weight, weight])[:, None]
    # d/dt of Re ρ_jk and Im ρ_jk under −iΔ_jk with Δ_jk = e_j − e_k = −splitting
    turn = jnp.diag(splitting * scale)
    zero = jnp.zeros((pairs, pairs), turn.dtype)
    rotation = jnp.pad(jnp.block([[zero, -turn], [turn, zero]]), ((N, 0), (N, 0)))
    return weight * collisions + rotation, weight, share


def _change(tensor):
    """S − 1 in real coordinates. Where S preserves the trace, S_jj − 1 is computed as −Σ_{k≠j} S_kj.

    For a weak coupling S_jj − 1 is a difference of nearly equal numbers and loses digits, which the sum does not.
    """
    change = to_real_matrix(tensor)
    change = change - jnp.eye(change.shape[0], dtype=change.dtype)
    N = tensor.shape[0]
    own = np.eye(N)
    arriving = jnp.sum(change[:N, :N] * (1 - own), axis=0)
    defect = jnp.abs(jnp.diagonal(change)[:N] + arriving)
    kept = defect <= 64 * N * jnp.finfo(change.dtype).eps
    populations = jnp.where((own > 0) & kept[None], -arriving[None], change[:N, :N])
    return change.at[:N, :N].set(populations)
