r"""The change of the system's state in one collision (Eq. 17).

With the outgoing kinetic energy ε = k²/2m as variable,

    S[j',k',j,k] = Σ_α ∫_0^∞ dk  ρ_U(p, q)  a^α_{j'j} conj(a^α_{k'k}),
    p = √(2m(ε + e_j' − e_j)),   q = √(2m(ε + e_k' − e_k)),   a^α_{j'j} = s^α_{j'j}(ε + e_j') √(k/p),

where both incoming channels are open, and 0 elsewhere. This is Eq. (17) with its 1/√(pq) absorbed in the amplitudes,
which makes the integrand finite everywhere. Every node of the grid is a completely positive map: so is their sum.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import (
    Checked,
    Count,
    Scalar,
    as_count,
    as_float,
    check_instance,
    concrete,
    door,
    or_nan,
    require,
    warn_of_single_precision,
)
from .._numerics.batched import UNROLLED
from .._quantum.levels import gaps, pinned, same_gap
from .._quantum.superoperator import Evidence, Superoperator
from .._quantum.system import System
from .._reservoir.internal_state import joint_system, trace_out
from .._reservoir.reservoir import Reservoir
from .amplitudes import AbstractAmplitudes, Exact
from .energy_grid import AbstractQuadrature, DoubleExponential, outgoing_grid
from .energy_integral import integrals_of

#: largest |S†(1) − 1| that is taken for a quadrature error and repaired
REPAIRABLE = 0.5


@door
def scattering_map(
    system: Checked[System],
    reservoir: Checked[Reservoir],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    tol: Scalar | None = None,
    max_refinements: Count = 5,
) -> Superoperator:
    r"""The scattering map S of one collision (Eq. 17): ρ after = S(ρ before).

    **Arguments:**

    - `system`, `reservoir`: what collides with what.
    - `amplitudes`: model of the collision, `Exact()` by default.
    - `quadrature`: rule for the energy integral, `DoubleExponential()` by default.
    - `tol`: refine the grid (doubling it at most `max_refinements` times) until the estimated error of every entry
      is below; outside jit only.

    **Returns:** `Superoperator`; `.error` is the estimated largest error of an entry of `.tensor`. NaN where the
    parameters, being traced, are not admissible. The map is completely
    positive if the packet's ρ_U is positive. For a model that conserves flux it preserves the trace to rounding on any
    grid: with M = S†(1), which differs from 1 by the quadrature error, the map returned is
    ρ → S(M^(−1/2) ρ M^(−1/2)).

    **Raises:** `ValueError` for arguments of the wrong kind, and, with `tol`, if the error estimate is still above it
    on the finest grid.

    !!! example
        >>> system, reservoir = jr.letter.model(splitting=0.6)
        >>> S = jr.scattering_map(system, reservoir)
        >>> S.tensor.shape
        (2, 2, 2, 2)
        >>> print(jnp.round(S.tensor[0, 0, 0, 0].real, 8), bool(S.error < 1e-8))
        0.95329197 True
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("reservoir", reservoir, Reservoir, "a jaxres.Reservoir")
    check_numerics(amplitudes, quadrature)
    warn_of_single_precision(system.levels.dtype)
    if tol is not None:
        tol = as_float("tol", tol)
        require(tol > 0, f"Argument `tol` must be positive, but is {tol:g}.")
    max_refinements = as_count("max_refinements", max_refinements, 0, 20)
    S = _scattering_map(system, reservoir, amplitudes, quadrature)
    if tol is None:
        return S
    if not concrete(S):
        raise ValueError(
            "Argument `tol` must be None inside jit, grad or vmap: the number of nodes is static there."
        )
    for _ in range(max_refinements):
        if S.error <= tol:
            return S
        quadrature = quadrature.refined()
        S = _scattering_map(system, reservoir, amplitudes, quadrature)
    if S.error <= tol:
        return S
    raise ValueError(
        f"Argument `tol` must be reachable, but the estimated error is still {float(S.error):.2g} > {tol:g} with "
        f"{quadrature}. Raise `tol` or `max_refinements`, or look for a narrow resonance."
    )


def check_numerics(amplitudes: Any, quadrature: Any) -> None:
    """How a map is computed: by which model and with which rule."""
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    check_instance(
        "quadrature", quadrature, AbstractQuadrature, "a rule such as jaxres.DoubleExponential()"
    )


@eqx.filter_jit
def _scattering_map(system, reservoir, amplitudes, quadrature):
    return collision_map(system, reservoir, amplitudes, quadrature)


def collision_map(
    system: System,
    reservoir: Reservoir,
    amplitudes: AbstractAmplitudes,
    quadrature: AbstractQuadrature,
) -> Superoperator:
    """`scattering_map` without its checks, for use inside other pure functions: NaN where they would fail."""
    S = _collision_map(system, reservoir, amplitudes, quadrature)
    return or_nan(system.valid() & reservoir.valid(system), S)


def _collision_map(system, reservoir, amplitudes, quadrature):
    system = eqx.tree_at(lambda s: s.levels, system, pinned(system.levels))
    if reservoir.internal is not None:
        return trace_out(
            system, reservoir.internal, joint_map(system, reservoir, amplitudes, quadrature)
        )
    packet = reservoir.packet
    layers = reservoir.scatterer.layers(system)
    sides = {"left": [layers], "right": [layers.reversed()], "both": [layers, layers.reversed()]}[
        reservoir.incidence
    ]
    if layers.thicknesses.shape[0] == 1:  # its own mirror image
        sides = [layers]
    momentum = packet.sharp_momentum()
    if momentum is not None:
        maps = [_beam_map(amplitudes, side, system.levels, momentum, packet.mass) for side in sides]
        tensor = jnp.mean(jnp.stack(maps), axis=0)
        dtype = system.levels.dtype
        error = jnp.asarray(jnp.finfo(dtype).eps * system.size**2, dtype)
        others, inexact = jnp.stack([tensor] * 3), error
    else:
        tensor, error, others, inexact = _integrated_map(
            amplitudes, quadrature, sides, system, packet
        )
    defect = jnp.zeros_like(error)
    if amplitudes.conserves_flux:
        tensor, defect = restore_trace(tensor)
        others, _ = jax.vmap(restore_trace)(jax.lax.stop_gradient(others))
    others, inexact = jax.lax.stop_gradient((others, jnp.asarray(inexact, error.dtype)))
    evidence = Evidence(others, inexact, amplitudes.analytic)
    return Superoperator(tensor, jnp.maximum(error, defect), defect, evidence)


def joint_map(
    system: System,
    reservoir: Reservoir,
    amplitudes: AbstractAmplitudes,
    quadrature: AbstractQuadrature,
) -> Superoperator:
    """The map on system ⊗ unit, in the product of their energy eigenbases, the system's index first."""
    if reservoir.internal is None:
        raise ValueError("Argument `reservoir` must have an `internal` state, but has None.")
    joint, place = joint_system(system, reservoir.internal)
    alone = eqx.tree_at(lambda r: r.internal, reservoir, None)
    S = collision_map(joint, alone, amplitudes, quadrature)

    def placed(tensor):
        return jnp.einsum("ap,bq,pqrs,cr,ds->abcd", *(place,) * 2, tensor, *(place,) * 2)

    return S.linearly(placed)


def _beam_map(amplitudes, layers, levels, momentum, mass):
    """Σ_α s_{j'j}(κ + e_j) conj(s_{k'k}(κ + e_k)) where the gaps are equal, κ = p₀²/2m; an integral over δ(p − p₀)."""
    kinetic = momentum**2 / (2 * mass)
    below = kinetic + gaps(levels).T  # [j', j]: κ + e_j − e_j', outgoing
    energy = kinetic + levels
    beyond = energy[None] - amplitudes.kinks(layers, levels, mass)[:, None]
    exits = amplitudes.matrices(below, energy, beyond, layers, levels, mass)
    own = np.arange(levels.shape[0])
    # for equal gaps the outgoing momenta are equal, so that the reference point of s⁺ does not matter
    s = jnp.stack([exit_[:, own, own] for exit_ in exits])
    tensor = jnp.einsum("xaj,xbk->abjk", s, jnp.conj(s))
    N = levels.shape[0]
    same = same_gap(levels).reshape(N, N, N, N).transpose(0, 2, 1, 3)
    return jnp.where(same, tensor, 0)


def _integrated_map(amplitudes, quadrature, sides, system, packet):
    layers = sides[0]
    kinks = amplitudes.kinks(layers, system.levels, packet.mass)
    grid = outgoing_grid(system.levels, packet.energy_scale(), quadrature, kinks, packet.window())
    moments, tensor = integrals_of(system.size)
    sums = [moments(grid, amplitudes, side, system.levels, packet) for side in sides]
    values, inexact = (sum(x[1:], start=x[0]) / len(sides) for x in zip(*sums, strict=True))
    fine, half, quarter, left_out = jnp.moveaxis(values, -1, 0)
    if amplitudes.analytic:
        error = quadrature.error(fine, half, quarter)
    else:  # nothing can be counted on but that twice the nodes are better
        error = jnp.max(jnp.abs(fine - half))
    error = error + jnp.max(jnp.abs(left_out)) + inexact
    others = jnp.stack([tensor(x) for x in (half, quarter, fine + left_out)])
    return tensor(fine), error, others, inexact


def restore_trace(
    tensor: Complex[Array, "N N N N"],
) -> tuple[Complex[Array, "N N N N"], Float[Array, ""]]:
    """S(X · X) with X = M^(−1/2), M = S†(1), and the largest entry of |M − 1|.

    A map whose M is far from 1 is returned as it is: that is no quadrature error to be mended.
    """
    N = tensor.shape[0]
    one = jnp.eye(N, dtype=tensor.dtype)
    # Tr S(ρ) = Σ_jk M_kj ρ_jk
    M = jnp.sum(jnp.stack([tensor[a, a] for a in range(N)]), axis=0).T
    defect = jnp.max(jnp.abs(M - one))
    X = _inverse_root(jnp.where(defect < REPAIRABLE / N, M, one))
    # Σ_j S[a, b, j, k] X[j, c], then Σ_k … X[d, k]
    if N > UNROLLED:
        return jnp.einsum("abjk,jc,dk->abcd", tensor, X, X), defect
    terms = [tensor[:, :, j, None, :] * X[j][None, None, :, None] for j in range(N)]
    tensor = sum(terms[1:], start=terms[0])
    terms = [tensor[:, :, :, k, None] * X[:, k][None, None, None, :] for k in range(N)]
    tensor = sum(terms[1:], start=terms[0])
    return tensor, defect


def _inverse_root(M):
    """M^(−1/2) of a Hermitian matrix near 1, without its eigenvectors."""
    if M.shape[0] == 2:  # √M = (M + √det M)/√(tr M + 2 √det M)
        (a, b), (c, d) = M
        root = jnp.sqrt(jnp.real(a * d - b * c))
        adjugate = jnp.stack([jnp.stack([d + root, -b]), jnp.stack([-c, a + root])])
        return adjugate / (root * jnp.sqrt(jnp.real(a + d) + 2 * root))
    one = jnp.eye(M.shape[0], dtype=M.dtype)
    Y, X = M, one
    for _ in range(6):  # coupled Newton–Schulz: Y → M^(1/2), X → M^(−1/2)
        T = (3 * one - X @ Y) / 2
        Y, X = Y @ T, T @ X
    return X
