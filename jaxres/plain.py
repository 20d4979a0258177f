r"""The Letter's equations as they stand: the slow reference that every fast path of this package is tested against.

This module shares with the fast paths only the objects that describe a model and the inverse of a small matrix
(`jaxres._numerics.batched`, where the reason against LAPACK stands). ħ = 1; states and maps are in the energy
eigenbasis, levels ascending. It is meant for double precision.

**Amplitudes** (Eq. 16) are products of transfer matrices. In slab n the wave obeys ψ'' = −A ψ with
A = 2m(E − H_S − W_n). The slab of thickness d multiplies the vector (ψ, ψ') by M_n, and the stack by M:

$$M_n = \exp\left[d \begin{pmatrix} 0 & 1 \\ -A & 0 \end{pmatrix}\right], \qquad M = M_{n_{max}} \cdots M_2 M_1.$$

The incoming and the reflected wave are to the left of the stack, the transmitted wave to its right. With K = diag(k_j),
k_j = √(2m(E − e_j)), which is +iκ_j for a closed channel,

$$\begin{pmatrix} 1 \\ iK \end{pmatrix} t = M \left[\begin{pmatrix} 1 \\ iK \end{pmatrix}
  + \begin{pmatrix} 1 \\ -iK \end{pmatrix} r\right], \qquad
  s^{(+)}_{j'j} = e^{-ik_{j'}L} \sqrt{k_{j'}/k_j}\; t_{j'j}, \quad s^{(-)}_{j'j} = \sqrt{k_{j'}/k_j}\; r_{j'j}.$$

**The map** (Eq. 17) is an integral over the outgoing kinetic energy ε, a variable that all entries share:

$$S^{jk}_{j'k'} = \sum_α ∫_0^∞ dε\, \frac{m}{\sqrt{pq}}\, ρ_U(p, q)\,
  s^{(α)}_{j'j}(ε + e_{j'})\, s^{(α)*}_{k'k}(ε + e_{k'}),
  \qquad p = \sqrt{2m(ε + e_{j'} - e_j)}, \quad q = \sqrt{2m(ε + e_{k'} - e_k)},$$

where both incoming channels are open, and 0 elsewhere. The integrand has square-root kinks at ε = 0 and at the
thresholds ε = e_j − e_j'. On a panel of length ℓ between two of them the substitution is ε = ℓ/(1 + e^{−π sinh t}), and
above the last one ε = exp(t − (π/2) e^{−t}) in units of the packet's energy scale: the trapezoidal rule in t then
converges exponentially. The distance of a node to each threshold comes from the substitution, never from a difference
of nearly equal energies.

**The steady state** (Eq. 9) of the master equation (Eq. 8) solves N² linear equations, one of which is Tr ρ = 1:

$$0 = -i(e_j - e_k) ρ_{jk} + \sum_r Γ_r \left[(S_r - 1) ρ\right]_{jk}.$$

**Limits.** A product of transfer matrices loses e^{2κd} in precision where a scatterer is opaque. Resonances must be
broader than the distance of the nodes. The linear system is singular at Γ = 0. Particles with internal levels and beams
of one momentum are not covered. `jaxres.scattering_map` and `jaxres.steady_state` cover all of these, and report their
errors.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ._checks import Checked, Count, as_count, door
from ._numerics.batched import inverse
from ._quantum.levels import same_gap
from ._quantum.system import System
from ._reservoir.reservoir import Reservoir
from ._reservoir.scatterer import Layers

#: a slab is 2^HALVINGS equal slices, for each of which the exponential series has so many TERMS
HALVINGS, TERMS = 6, 16
#: t runs from −REACH to REACH: the outermost nodes are e^{−70} from a threshold, or 40 energy scales above the last one
REACH = 3.8
#: length of an empty panel (equal thresholds) in units of the energy scale: no momentum is exactly 0
EMPTY = 1e-20


def amplitudes(
    kinetic: Float[Array, " N"], layers: Layers, mass: Float[Array, ""]
) -> Complex[Array, "2 N N"]:
    r"""Eq. (16): s^(+) and s^(−) at one total energy E, [α, out, in], referenced to x = 0, 0 for closed channels.

    **Arguments:** (ħ = 1)

    - `kinetic`: E − e_j for every level j, shape (N,): negative where the channel is closed.
    - `layers`: couplings in the energy eigenbasis and thicknesses, `scatterer.layers(system)`.
    - `mass`: the particle's mass m.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> layers, mass = reservoir.scatterer.layers(system), reservoir.packet.mass
        >>> transmission, reflection = jr.plain.amplitudes(2.0 - system.levels, layers, mass)
        >>> amps = jr.amplitudes(system, reservoir.scatterer, mass=mass, energy=2.0)
        >>> bool(jnp.allclose(transmission, amps.transmission, atol=1e-13))
        True
    """
    one = jnp.eye(kinetic.size)
    M = jnp.eye(2 * kinetic.size)
    for W, d in zip(*layers, strict=True):
        A = 2 * mass * (jnp.diag(kinetic) - W)
        X = d / 2**HALVINGS * jnp.block([[0 * one, one], [-A, 0 * one]])
        slab = jnp.eye(2 * kinetic.size)
        for n in range(TERMS, 0, -1):
            slab = jnp.eye(2 * kinetic.size) + X @ slab / n
        for _ in range(HALVINGS):
            slab = slab @ slab
        M = slab @ M
    k = jnp.sqrt(2 * mass * kinetic + 0j)
    right, left = (jnp.concatenate([one, sign * jnp.diag(k)]) for sign in (1j, -1j))
    t, r = jnp.split(inverse(jnp.concatenate([right, -M @ left], axis=1)) @ (M @ right), 2)
    t = jnp.exp(-1j * k * jnp.sum(layers.thicknesses))[:, None] * t
    open_ = (kinetic > 0)[:, None] & (kinetic > 0)[None]
    flux = jnp.where(open_, jnp.sqrt(k[:, None] / k[None]), 0)
    return jnp.stack([flux * t, flux * r])


@door
def scattering_map(
    system: Checked[System], reservoir: Checked[Reservoir], *, nodes: Count = 256
) -> Complex[Array, "N N N N"]:
    r"""Eq. (17): S[j', k', j, k] by the trapezoidal rule with so many `nodes` on each panel between two thresholds.

    **Arguments:**

    - `system`: N levels.
    - `reservoir`: a packet with a density ρ_U(p, q), any stack of slabs, from the left, the right or both sides.
    - `nodes`: on each of the N(N − 1)/2 + 1 panels, or more if the packet has a `window`.

    **Returns:** the array, shape (N, N, N, N): ρ'_{j'k'} = Σ_jk S[j', k', j, k] ρ_jk. The
    function is pure, differentiable in forward and reverse mode, and slow unless it is under `jax.jit`.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> S = jax.jit(jr.plain.scattering_map)(system, reservoir)
        >>> fast = jr.scattering_map(system, reservoir, tol=1e-12)
        >>> bool(jnp.max(jnp.abs(S - fast.tensor)) < 1e-11)
        True
    """
    if reservoir.internal is not None or reservoir.packet.sharp_momentum() is not None:
        raise ValueError(
            "Argument `reservoir` must have particles without internal levels and a packet with a density; use "
            "jaxres.scattering_map for others."
        )
    levels, packet, mass = system.levels, reservoir.packet, reservoir.packet.mass
    N, n = system.size, as_count("nodes", nodes, 5, 10**6)
    layers = reservoir.scatterer.layers(system)
    sides = dict(left=[layers], right=[layers.reversed()], both=[layers, layers.reversed()])
    sides = jax.tree.map(lambda *x: jnp.stack(x), *sides[reservoir.incidence])
    gap = levels[None] - levels[:, None]  # [j', j]: j → j' opens at ε = e_j − e_j'
    same = same_gap(levels).reshape((N,) * 4).transpose(0, 2, 1, 3)  # e_j − e_j' = e_k − e_k'
    outgoing = jax.vmap(jax.vmap(amplitudes, (0, None, None)), (None, 0, None))

    def integrand(kinetic):
        """At one ε: `kinetic[j', j]` is ε + e_j' − e_j."""
        p = jnp.sqrt(2 * mass * jnp.where(kinetic > 0, kinetic, 1))
        p, q = jnp.broadcast_arrays(p[:, None, :, None], p[None, :, None])
        s = jnp.einsum("djxjk->dxjk", outgoing(kinetic, sides, mass))  # side, α, out, in
        joined = jnp.einsum("dxaj,dxbk->abjk", s, jnp.conj(s)) / s.shape[0]
        return mass / jnp.sqrt(p * q) * packet.correlation(p, q, same) * joined

    def panel(lower, upper, length, from_lower, from_upper, slope):
        above = (lower - gap)[None] + length * from_lower[:, None, None]
        below = (upper - gap)[None] - length * from_upper[:, None, None]
        values = jax.vmap(integrand)(jnp.where(gap[None] <= lower, above, below))
        values = values * (length * slope)[:, None, None, None, None]
        return jnp.trapezoid(values, dx=t[1] - t[0], axis=0)

    # on each panel the nodes ε(t) as distances from both ends and dε/dt, in units of its length
    t = np.linspace(-REACH, REACH, n)
    y, x = np.pi * np.sinh(t), np.exp(t - np.pi / 2 * np.exp(-t))
    between = 1 / (1 + np.exp(-y)), 1 / (1 + np.exp(y)), np.pi * np.cosh(t) / (2 + 2 * np.cosh(y))
    last = x, 0 * x, x * (1 + np.pi / 2 * np.exp(-t))
    scale = jax.lax.stop_gradient(packet.energy_scale())
    window = jax.lax.stop_gradient(packet.window())[:, None, None] + gap[None]
    edges = jnp.append(gap[np.triu_indices(N, 1)], jnp.maximum(window, 0))
    edges = jnp.append(0, jnp.sort(edges))
    uppers = jnp.append(edges[1:], jnp.inf)
    lengths = jnp.append(jnp.diff(edges) + EMPTY * scale, scale)
    tables = [jnp.stack([u] * (edges.size - 1) + [v]) for u, v in zip(between, last, strict=True)]
    return jnp.sum(jax.vmap(panel)(edges, uppers, lengths, *tables), axis=0)


@door
def steady_state(
    system: Checked[System],
    reservoirs: Checked[Reservoir | Sequence[Reservoir]],
    *,
    nodes: Count = 256,
) -> Complex[Array, "N N"]:
    r"""Eq. (9): the state with dρ/dt = 0 under one reservoir or several, by one linear solve.

    **Arguments:** as for `scattering_map`; `reservoirs` is one `Reservoir`, or a sequence of them.

    **Returns:** ρ, shape (N, N), in the energy eigenbasis.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> rho = jax.jit(jr.plain.steady_state)(system, reservoir)
        >>> print(jnp.round(jr.coherence(rho), 7))
        0.0992995
    """
    reservoirs = [reservoirs] if isinstance(reservoirs, Reservoir) else list(reservoirs)
    maps = [scattering_map(system, reservoir, nodes=nodes) for reservoir in reservoirs]
    return stationary_state(system, maps, [reservoir.rate for reservoir in reservoirs])


def stationary_state(
    system: System, maps: Sequence[Complex[Array, "N N N N"]], rates: Sequence[Float[Array, ""]]
) -> Complex[Array, "N N"]:
    """Eq. (9) for maps S[j', k', j, k] and rates Γ: N² equations, the first of which is replaced by Tr ρ = 1."""
    N, levels = system.size, system.levels
    L = -1j * jnp.diag((levels[:, None] - levels[None]).reshape(-1))
    for S, rate in zip(maps, rates, strict=True):
        L += rate * (S.reshape(N**2, N**2) - jnp.eye(N**2))
    L = L.at[0].set(jnp.eye(N).reshape(-1))
    return jnp.linalg.solve(L, jnp.eye(N**2)[0]).reshape(N, N)
