r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic.

The formulas are those of `exact.parity_rows`; this file only makes them fast. Lengths are measured in half the slab's
thickness h, energies in ħ²/2mh², so that neither mass nor thickness stands in a formula.

| letter | meaning | in the code |
|---|---|---|
| K = diag(K₁, K₂) | lead wavenumbers √(E − e_j), iκ where the channel is closed | `k`, `lead` = (q, κ) |
| H = H_S + W | Hamiltonian inside the slab, with eigenvalues μ ± δ | `middle`, `distance[0]` |
| w = H_01 | the coupling of the two levels | `w`, a pair (real, imaginary) |
| A = E − H | square of the wavenumber inside | `A`, at the two eigenvalues |
| C, S | cos √A and sin(√A)/√A, over half the slab | `C`, `S`; `AS` is A S |
| g | the wave that a source at one edge makes there, of one parity | |
| F, G | (C, A S) for the even wave, (S, −C) for the odd one | `F`, `G` |
| N | the matrix F₁F₂ G/F | `N1`, `N2`, `slope` (N') |
| D | the determinant | `real` + i `imag` |

Two facts help. A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

without eigenvectors. And with H_01 = w every such matrix, every product of them with K, and every inverse has the form
[[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K, and w is a factor of
the amplitudes that change the level.

In each row of amplitudes the outgoing level is called "own" (index 1 below) and the other one "other" (index 2); arrays
run over the nodes. The indices of F and G number the two eigenvalues.

The even wave is g = (i C K + A S)⁻¹ C and the odd one the transpose of (i S K − C)⁻¹ S, which has the same form,

    g = (i F K + G)⁻¹ F,

and in a row of this form a transpose only exchanges w and w*. N = F₁F₂ G/F is the straight line through G₁F₂ and G₂F₁.
Its determinant is F₁F₂G₁G₂, so F₁F₂ cancels in

    g = (i F₁F₂ K + N)⁻¹ F₁F₂ = adj(i F₁F₂ K + N)/D,      D = G₁G₂ + i K₁N₂₂ + i K₂N₁₁ − K₁K₂ F₁F₂.

The amplitudes are a = (−1 + 2i k g)/√2. With k = K₁ real, K₂ = q + iκ (one of them 0), N₁₂ = w N', and

    X = G₁G₂ − κN₁₁,   Y = kq F₁F₂,   U = k (N₂₂ − κ F₁F₂),   V = q N₁₁,

they are

    D = X − Y + i(U + V),    √2 D a_stay = −X − Y + i(U − V),    √2 D a_flip = −2i k w N'.

All of this is unchanged if F and G of an eigenvalue get a common factor: the growth of a closed one is divided out.
"""

import jax
import jax.numpy as jnp

from .._numerics.elementary import times
from .._numerics.one_loop import one_loop
from .._numerics.safe import reciprocal, safe_sqrt, slab_roots, slab_slope, unit_waves


def two_level_exits(kinetic, layers, levels, mass):
    """The amplitudes that keep the level and those that change it; `kinetic` are ε, ε + e₀ − e₁ and ε + e₁ − e₀.

    Two lists indexed by the outgoing level. Each entry lists the amplitudes into the even and the odd exit, which are
    pairs (real, imaginary) of arrays over the nodes.
    """
    unit = 2 * mass * (layers.thicknesses[0] / 2) ** 2
    W, gap = unit * layers.couplings[0], unit * (levels[1] - levels[0])
    energy = unit * kinetic[0]
    # on what scale the waves inside change: on that of the energies, the last one the largest, if the slab is thin
    typical = jnp.minimum(jax.lax.stop_gradient(energy[-1]) / 32, 1)
    k, *leads = [safe_sqrt(2 * mass * jnp.abs(x)) * (layers.thicknesses[0] / 2) for x in kinetic]
    stays, flips = [], []
    for j in (0, 1):
        own, other = jnp.real(W[j, j]), jnp.real(W[1 - j, 1 - j]) + (gap, -gap)[j]
        w = jnp.real(W[j, 1 - j]), jnp.imag(W[j, 1 - j])
        middle, half = (own + other) / 2, (own - other) / 2
        distance = _half_distance(typical, middle, half, w)
        delta = distance[0]
        A = energy - (middle + delta), energy - (middle - delta)
        is_open = kinetic[1 + j] > 0
        lead = jnp.where(is_open, leads[j], 0), jnp.where(is_open, 0, leads[j])
        waves = one_loop(_row, half, w, distance, A, tuple(map(slab_roots, A)), k, lead)
        exits = [(stay, flip, (1 / norm,)) for stay, flip, norm in waves]
        stays.append([times(stay, size) for stay, _, size in exits])
        flips.append([times(flip, size) for _, flip, size in exits])
    return stays, flips


def _half_distance(typical, middle, half, w):
    """δ, 1/2δ, and up to where δ is small; at an exact degeneracy the line is drawn through two points nearby."""
    radius2 = half**2 + (w[0] ** 2 + w[1] ** 2)
    size = typical + jnp.abs(middle)
    # functions of δ are even, so that derivatives by δ² are those of the points that are not moved apart
    moved = jax.lax.stop_gradient(jnp.maximum((1e-7 * size) ** 2 - radius2, 0))
    delta = jnp.sqrt(radius2 + moved)
    return delta, jax.lax.stop_gradient(1 / (2 * delta)), 1e-5 * size


def _row(half, w, distance, A, roots, k, lead):
    """|D|² a_stay, |D|² a_flip and |D|², for the even and the odd wave; elementwise."""
    q, kappa = lead  # of the other channel, open or closed
    C, S, AS, decay, f = zip(*map(unit_waves, A, roots), strict=True)

    def wave(F, G, M, scales):
        P, Q = G[0] * F[1], G[1] * F[0]
        slope = _divided(P, Q, *distance, -(M[0] + M[1]) / 2, scales)
        N1, N2 = (P + Q) / 2 + slope * half, (P + Q) / 2 - slope * half
        FF = k * F[0] * F[1]
        X, Y, U, V = G[0] * G[1] - kappa * N1, q * FF, k * N2 - kappa * FF, q * N1
        real, imag = X - Y, U + V
        stay = 0.5**0.5 * ((U - V) * imag - (X + Y) * real), 2**0.5 * (X * U + Y * V)
        flip = -(2**0.5) * k * slope
        return stay, times(w, (flip * imag, flip * real)), real**2 + imag**2

    # M = F ∂G/∂A − G ∂F/∂A, with the square of the factor of F and G
    inverse = [y for _, y in roots]
    even = [(s * c * y + d**2) / 2 for c, s, d, y in zip(C, S, decay, inverse, strict=True)]
    odd = [
        s**2 / 2 + y**2 * c * slab_slope(a, c, s * z[1], z)
        for a, c, s, y, z in zip(A, C, S, f, roots, strict=True)
    ]
    fC = [c * y for c, y in zip(C, f, strict=True)]
    scales = [d * y for d, y in zip(decay, f, strict=True)]
    return wave(C, AS, even, decay), wave(S, [-c for c in fC], odd, scales)


@jax.custom_jvp
def _divided(P, Q, delta, inverse, close, limit, scales):
    """(P − Q)/2δ; where eigenvalues nearly meet that is noise, which derivatives would see, and up to δ² `limit`."""
    return (P - Q) * inverse


@_divided.defjvp
def _divided_jvp(primals, tangents):
    P, Q, delta, inverse, close, limit, (scale, other) = primals
    dP, dQ, d_delta, *_ = tangents
    inverse = reciprocal(2 * delta, inverse)
    # but for eigenvalues so near on both sides of where `unit_waves` begins to divide factors out
    near = (delta < close) & (jnp.abs(scale - other) < 0.1 * scale)
    value = jnp.where(near, limit, (P - Q) * inverse)
    return value, (dP - dQ - 2 * value * d_delta) * inverse
