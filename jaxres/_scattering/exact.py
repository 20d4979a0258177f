r"""Exact amplitudes (Eq. 16), stable for opaque scatterers, closed channels and any number of slabs.

All formulas are for one total energy E. Lead wavenumbers are k_j = √(2m(E − e_j))/ħ, +iκ_j where the channel is
closed, K = diag(k_j). Inside a slab A = 2m(E − H_S − W)/ħ².

**What is computed.** Not s itself but the matrices g with

    s⁺ = i √K g⁺ √K,      s⁻ = −1 + i √K g⁻ √K          (g⁺ referenced to the right edge of the scatterer),

the wave that a point source at one edge makes at the edges, up to a factor. They have no 1/√k anywhere, so nothing is
singular at a threshold, and they are meaningful for closed channels.

**One slab** is mirror symmetric: the solutions even and odd about its middle scatter independently. With
C = cos(√A d/2) and S = sin(√A d/2)/√A, matching ψ and ψ' at the edge gives

    g⁻ = g_e + g_o,   g_e = (i C K + A S)⁻¹ C,   g_o = −S (C − i K S)⁻¹,   g⁺ = (i C K + A S)⁻¹ (C − i K S)⁻¹,

a product for the transmission, never the difference g_e − g_o. C and S grow like e^{κd/2}, differently in each
eigenchannel of A; but the same matrix function of A may be divided out of C and S wherever they stand side by side, and
that growth is (`slab_waves`). In the sum over exits that makes the map, s⁺ and s⁻ may be replaced by the even and odd
amplitudes (s⁻ ± s⁺)/√2 = (−1 + 2i √K g_{e,o} √K)/√2, which need no transmission at all.

**A stack** is a chain of slabs between half-lines of one and the same real wavenumber k₀ in every channel. There each
slab's scattering matrix is a function of its own A alone, with t = 1/[C − (i/2)(k₀S + AS/k₀)], r = (i/2)(A/k₀ − k₀)S t
(C, S over the full thickness); slabs are chained with the Redheffer star product, and the leads joined as interfaces
k_j | k₀ at the two ends. Nothing depends on k₀, which is held fixed under differentiation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._numerics.batched import inverse, matmul
from .._numerics.safe import safe_sqrt, slab_waves
from .._numerics.spectral import spectral_functions
from .._reservoir.scatterer import Layers


def lead_wavenumbers(kinetic: Float[Array, "N n"], mass: Float[Array, ""]) -> Complex[Array, "N n"]:
    """k_j = √(2m(E − e_j)), and i√(2m(e_j − E)) where the channel is closed (ħ = 1)."""
    return safe_sqrt(2 * mass * kinetic) + 1j * safe_sqrt(-2 * mass * kinetic)


def green_functions(
    kinetic: Float[Array, "N n"],
    energy: Float[Array, " n"],
    layers: Layers,
    levels: Float[Array, " N"],
    mass: Float[Array, ""],
    out: Float[Array, "K N"],
) -> tuple[Complex[Array, "K N n"], Complex[Array, "K N n"]]:
    """The matrices g⁺, g⁻ of this module's docstring, or some of their rows, at n energies.

    - `kinetic`: E − e_j for every channel j (given apart from `energy` because near a threshold the difference
      would lose its digits).
    - `energy`: E, measured from the same zero as `levels`.
    - `out`: the rows wanted: the identity, or a part of it.
    """
    if layers.thicknesses.shape[0] > 1:
        return _stack(kinetic, energy, layers, levels, mass, out)
    even, odd, (C, _, S, T) = _parities(_half_slab, kinetic, energy, layers, levels, mass)
    out = out[:, :, None] * (layers.thicknesses[0] / 2)
    row = matmul(out, even)
    transmitted = matmul(matmul(row, T), odd)
    return transmitted, matmul(row, C) - matmul(matmul(out, S), odd)


def parity_rows(kinetic, energy, layers, levels, mass, out):
    """g_e and g_o of a single slab, rows `out`; arguments as for `green_functions`."""
    even, odd, (C, _, S) = _parities(_waves, kinetic, energy, layers, levels, mass)
    out = out[:, :, None] * (layers.thicknesses[0] / 2)
    return matmul(matmul(out, even), C), -matmul(matmul(out, S), odd)


def _parities(waves, kinetic, energy, layers, levels, mass):
    """(i C K + A S)⁻¹, (C − i K S)⁻¹ and the matrices of `waves`, lengths in units of half the slab's thickness h."""
    h = layers.thicknesses[0] / 2
    ik = 1j * h * lead_wavenumbers(kinetic, mass)
    inner, energy = in_units_of_slab(layers.couplings[0], energy, levels, mass, h)
    C, AS, S, *_ = functions = spectral_functions(waves, inner, energy)
    return inverse(C * ik[None] + AS), inverse(C - ik[:, None] * S), functions


def in_units_of_slab(coupling, energy, levels, mass, h):
    """H_S + W and the energy in units of ħ²/2mh², those in which waves in a slab of thickness h change."""
    unit = 2 * mass * h**2
    return unit * (coupling + jnp.diag(levels)), unit * energy


def _waves(v, energy):
    """C, A S and S over half a slab, divided by their growth."""
    return _half_slab(v, energy)[:3]


def _half_slab(v, energy):
    """The same, and 1 divided by the growth of two halves."""
    C, S, AS, decay = slab_waves(energy[None] - v[:, None])
    return jnp.stack([C, AS, S, decay**2])


def _reference_wavenumber(kinetic, layers, mass):
    """A wavenumber of the size of those present, one for each energy; of no influence on the result.

    What is thin reflects like a δ of the same area, waves of κ²L rather than of the κ inside.
    """
    length = jnp.sum(layers.thicknesses)
    coupling = jnp.mean(jnp.sum(jnp.abs(layers.couplings) ** 2, axis=(1, 2))) ** 0.5
    inside = 2 * mass * coupling * jnp.minimum(1, 2 * mass * coupling * length**2)
    least = (jnp.finfo(kinetic.dtype).eps / length) ** 2  # lest it is 0
    size = 2 * mass * jnp.mean(jnp.abs(kinetic), axis=0) + (inside + least)
    return jax.lax.stop_gradient(jnp.sqrt(size))


def _stack(kinetic, energy, layers, levels, mass, out):
    k = lead_wavenumbers(kinetic, mass)
    k0 = _reference_wavenumber(kinetic, layers, mass)

    def slab(coupling, d):
        inner, E = in_units_of_slab(coupling, energy, levels, mass, d)
        return spectral_functions(_whole_slab, inner, (E, k0 * d))

    r, t = jax.vmap(slab)(*layers).swapaxes(0, 1)
    r_left, t_right, t_left, r_right = chain((r, t, t, r))

    one = _identity(k.shape[0], k.ndim - 1)
    mirror = ((k0[None] - k) / (k0[None] + k))[
        :, None
    ]  # of an interface, seen from the reference medium
    through = matmul(inverse(one - r_right * mirror.swapaxes(0, 1)), t_right)
    r_whole = r_left + matmul(t_left, mirror * through)
    enter = inverse(one - mirror * r_whole)
    leave = out[:, :, None] * (2 * k0[None] / (k0[None] + k))[None]
    join = 2 / (k0[None] + k)[None]
    transmitted = matmul(matmul(leave, through), enter) * join
    # s⁻ is −mirror on the diagonal plus what comes back from inside, and 1 − mirror = 2k/(k₀ + k)
    reflected = matmul(matmul(leave, r_whole), enter) * join + out[:, :, None] * join
    return -1j * transmitted, -1j * reflected


def _whole_slab(v, parameters):
    """The amplitudes r and t of a slab between half-lines of wavenumber k₀, lengths in units of its thickness."""
    energy, k0 = parameters
    k0 = k0[None]
    C, S, AS, decay = slab_waves(energy[None] - v[:, None])
    u = 1 / (C - 0.5j * (k0 * S + AS / k0))
    return jnp.stack([0.5j * (AS / k0 - k0 * S) * u, decay * u])


def _identity(size, batch_axes):
    return jnp.eye(size).reshape((size, size) + (1,) * batch_axes)


def star(first, second):
    """The Redheffer star product of two scattering matrices (r_left, t_right, t_left, r_right)."""
    r1, f1, b1, q1 = first
    r2, f2, b2, q2 = second
    one = _identity(r1.shape[0], r1.ndim - 2)
    loop = inverse(one - matmul(q1, r2))  # (1 − q₁r₂)⁻¹
    forward = matmul(loop, f1)
    turned = matmul(loop, matmul(q1, b2))
    return (
        r1 + matmul(b1, matmul(r2, forward)),
        matmul(f2, forward),
        matmul(b1, b2 + matmul(r2, turned)),
        q2 + matmul(f2, turned),
    )


def chain(slabs):
    """The star product of M scattering matrices (leading axis M), in a tree of depth log₂ M."""
    count = slabs[0].shape[0]
    while count > 1:
        pairs = count // 2
        joined = jax.vmap(star)(
            tuple(x[0 : 2 * pairs : 2] for x in slabs), tuple(x[1 : 2 * pairs : 2] for x in slabs)
        )
        slabs = tuple(
            jnp.concatenate([new, old[2 * pairs :]]) for new, old in zip(joined, slabs, strict=True)
        )
        count = slabs[0].shape[0]
    return tuple(x[0] for x in slabs)
