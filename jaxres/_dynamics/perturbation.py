r"""Rare collisions: the steady state in powers of the rate, Eqs. (10) to (15), and Eq. (24).

With ρ = Σ_n Γⁿ ρ^(n) the steady state of Eq. (9) obeys, order by order,

    (i/ħ) Δ_jk ρ^(n)_jk = [(S − 1) ρ^(n−1)]_jk                                 for j ≠ k,
    Σ_j'k' (S − 1)_{jj,j'k'} ρ^(n)_j'k' = 0,      Tr ρ^(n) = δ_n0.

The first line gives the coherences of order n from order n − 1, the second line the populations of
order n from its coherences. At order 0 the coherences vanish, and the populations are the stationary
ones of S_{jj,j'j'} (Eq. 13): those of the Gibbs state, if detailed balance holds.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import (
    Checked,
    as_count,
    as_index,
    as_real,
    check_instance,
    concrete,
    door,
    or_nan,
    require,
)
from .._numerics.batched import inverse, matmul
from .._quantum.levels import equal_levels, gaps
from .._quantum.system import System
from .._reservoir.packet import EffusionPacket
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, requested


@door
def perturbation_series(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    order: Checked[int],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> Complex[Array, "n N N"]:
    r"""The coefficients of the steady state in powers of the rate, Eqs. (10) to (15).

    $$ρ = \sum_{n} Γ^n ρ^{(n)}, \qquad
      ρ^{(n)}_{jk} = \frac{ħ}{iΔ_{jk}} [(S - 1)ρ^{(n-1)}]_{jk} \quad (j ≠ k)$$

    The populations follow from $\sum_{j'k'} (S - 1)_{jj,j'k'} ρ^{(n)}_{j'k'} = 0$ and
    $\mathrm{Tr} ρ^{(n)} = δ_{n0}$: for n > 0 the coherences of the same order determine them.

    **Arguments:**

    - `system`, `reservoir`, `amplitudes`, `quadrature`: as for `scattering_map`. The rate is not used.
    - `order`: the highest n ≥ 0. Every order costs one product with S.

    **Returns:** $ρ^{(0)}$ to $ρ^{(order)}$, shape (order + 1, N, N), differentiable. The coefficients are NaN where the
    populations at order 0 are not unique (uncoupled levels), where two traced levels are equal, and where the map
    cannot be used (`jaxres.collisions(…).result` gives the reason).

    **Raises:** `ValueError` for equal levels, for which the expansion does not exist: coherences within a degenerate
    level do not vanish as Γ → 0. Use `steady_state`, which is right at every rate.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> series = jr.perturbation_series(system, reservoir, order=1)
        >>> print(jnp.round(jr.populations(series[0]), 6))  # the Gibbs state
        [0.514996 0.485004]
        >>> print(round(float(jr.coherence(series[1])), 6))  # |ρ_01|/Γ as Γ → 0
        0.015546
    """
    check_instance("system", system, System, "a jaxres.System")
    request = requested(system, reservoir, amplitudes, quadrature, single=True)
    order = as_count("order", order, 0)
    equal = _equal_neighbours(system)
    if concrete(equal):
        require(
            ~equal,
            "Argument `system` must have distinct levels for an expansion in the rate, but has "
            f"{system.levels}. Use jaxres.steady_state, which is right for equal ones too.",
        )
    return _series(system, request.compute(), order)


@door
def perturbative_state(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    order: Checked[int],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> Complex[Array, "N N"]:
    r"""The steady state to a given order in the rate, $\sum_{n ≤ order} Γ^n ρ^{(n)}$ (Eq. 10).

    Its error falls as Γ^(order + 1) as Γ → 0. The series converges for rates well below the smallest distance of two
    levels, Γ ≪ |Δ_jk|/ħ. Far above, its sum is not a state, since it is not positive.

    **Arguments:** as for `perturbation_series`; the rate is that of the reservoir.

    **Returns:** shape (N, N), differentiable; NaN as `perturbation_series`.

    **Raises:** `ValueError` as `perturbation_series`.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=0.01)
        >>> rho = jr.perturbative_state(system, reservoir, order=3)
        >>> bool(jr.trace_distance(rho, jr.steady_state(system, reservoir).rho) < 1e-8)
        True
    """
    c = requested(system, reservoir, amplitudes, quadrature, single=True).compute()
    series = perturbation_series(system, c, order)
    rho = series[-1]
    for coefficient in series[-2::-1]:
        rho = c.rates[0] * rho + coefficient
    return rho


def _equal_neighbours(system):
    return jnp.any(jnp.diagonal(equal_levels(system.levels), 1))


@eqx.filter_jit
def _series(system, c, order):
    N, (S,) = system.size, c.maps
    other = ~jnp.eye(N, dtype=bool)
    gap = jnp.where(other, gaps(system.levels), 1)

    # P − 1 is singular; for populations of a given trace, p_0 = trace − Σ_{j>0} p_j is eliminated
    P = jnp.real(jnp.einsum("aajj->aj", S.tensor)) - jnp.eye(N, dtype=system.levels.dtype)
    A = P[1:, 1:] - P[1:, :1]
    B = inverse(A) if N > 1 else A
    # the entries of P are probabilities with an error of ε; a solution is unique if ε |B| is small
    unique = jnp.linalg.norm(B) * (64 * jnp.finfo(A.dtype).eps) < 1
    expands = unique & ~_equal_neighbours(system) & (c.result == RESULTS.successful)

    def populations(source, trace):
        p = matmul(B, (source[1:] - P[1:, 0] * trace)[:, None])[:, 0]
        return jnp.diag(jnp.concatenate([trace - jnp.sum(p, keepdims=True), p]))

    rho = populations(jnp.zeros(N, P.dtype), 1.0).astype(S.tensor.dtype)
    series = [rho]
    for _ in range(order):
        coherences = jnp.where(other, (S(rho) - rho) / (1j * gap), 0)
        source = -jnp.real(jnp.diagonal(S(coherences)))
        rho = coherences + populations(source, 0.0)
        series.append(rho)
    return or_nan(expands, jnp.stack(series), (system, c.inputs))


@door
def coherence_estimate(
    system: Checked[System], reservoir: Checked[Reservoir], j: Checked[int] = 0, k: Checked[int] = 1
) -> Float[Array, ""]:
    r"""The Letter's estimate of the steady coherence |ρ_jk|, up to a factor of order one (Eq. 24).

    $$|ρ_{jk}| ∼ \frac{Γ}{ω} \exp\!\left(-\frac{β m Δx^2 ω^2}{2ħ^2}\right),
      \qquad ω = |Δ_{jk}|/ħ$$

    A packet of one momentum p reduces the coherence by the factor e^{−(Δx (p − q))²/2ħ²} with p − q ≈ mħω/p. The
    estimate is this factor at the thermal momentum p = √(m/β), times Γ/ω of first order in Γ (Eq. 14).

    **Arguments:** a `reservoir` of `EffusionPacket`s; the levels `j` and `k`, by default 0 and 1.

    **Returns:** the estimate.

    **Validity.** The estimate holds for Γ ≪ ω (it grows with Γ without bound, and diverges at ω = 0) and for
    z = √(βm) Δx ω of order one or less, and only as a scaling law: at the Letter's parameters (Δ = 0.6, Δx = 1) the
    exact coherence at low rates is 0.0093 times the estimate. For z ≫ 1 the estimate falls too fast: there the fast
    particles of the gas preserve coherence, and the mean of the same factor over all momenta is z K₁(z) ∼ e^{−z}, as
    found with exact amplitudes.

    **Raises:** `ValueError` for a packet that is not an `EffusionPacket`, and for a `j` or a `k` that is not the index
    of a level.

    !!! example
        >>> system, reservoir = jr.letter.model(splitting=0.6, rate=0.01)
        >>> estimate = jr.coherence_estimate(system, reservoir)
        >>> print(jnp.round(estimate, 6))
        0.016637
        >>> print(jnp.round(jr.coherence(jr.steady_state(system, reservoir).rho) / estimate, 4))
        0.0094
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("reservoir", reservoir, Reservoir, "a jaxres.Reservoir")
    packet = reservoir.packet
    if not isinstance(packet, EffusionPacket):
        raise ValueError(
            f"Argument `reservoir` must have a jaxres.EffusionPacket, but its packet is {packet!r}."
        )
    j, k = as_index("j", j, system.size), as_index("k", k, system.size)
    omega = jnp.abs(gaps(system.levels)[j, k])
    return coherence_law(reservoir.rate, omega, packet.width, packet.beta, packet.mass)


def coherence_law(
    rate: Any, splitting: Any, width: Any, beta: Any = 0.1, mass: Any = 0.1
) -> Float[Array, "..."]:
    r"""The Letter's qualitative law for the steady coherence, with ω = Δ/ħ (Eq. 24).

    $$|ρ_{01}| ∼ \frac{Γ}{ω} e^{-βmΔx^2ω^2/2}$$

    The law describes where coherence is lost, not its size: it leaves the prefactor open.

    **Arguments:** `rate` Γ, `splitting` Δ, `width` Δx, `beta` β, `mass` m; arrays broadcast.

    **Returns:** the right-hand side, in the shape to which the arguments broadcast.

    !!! example
        >>> print(jr.letter.coherence_law(0.01, 10.0, 1.0))
        0.000606...
    """
    named = {"rate": rate, "splitting": splitting, "width": width, "beta": beta, "mass": mass}
    arrays = jnp.broadcast_arrays(*(as_real(name, x) for name, x in named.items()))
    rate, splitting, width, beta, mass = arrays
    return rate / splitting * jnp.exp(-beta * mass * (width * splitting) ** 2 / 2)
