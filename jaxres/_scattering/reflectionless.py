r"""Reflectionless amplitudes (Ref. 12 of the Letter): fast particles pass, and turn the system meanwhile.

Both models neglect reflection, s⁻ = 0, and are right to leading order in (levels and couplings)/E:

    wave-vector operator       s⁺ = e^{−iKL} e^{iQL},         K = √(2m(E − H_S))/ħ,  Q = √(2m(E − H_S − W))/ħ,
    random interaction time    s⁺ = e^{iH_Sτ/ħ} e^{−i(H_S+W)τ/ħ},     τ(E) = L √(m/2(E − ē)),  ē the mean level.

The second follows from the first with √(E − H) ≈ √(E − ē) − (H − ē)/2√(E − ē). For a stack the factors e^{iQ_n d_n}, or
e^{−i(H_S+W_n)τ_n} with τ_n the share of slab n, follow each other in the order in which the particle meets the slabs.

**Errors.** Write Z = (H_S + W)/4E and Z₀ = H_S/4E. Matching ψ and ψ' at both edges of a slab without what bounces
inside, and with the flux normalisation, gives e^{−iKL} (1 + Z) e^{iQL} (1 − Z) to first order in 1/E. Since Q is a
function of H_S + W, it commutes with Z, and the first order vanishes: s⁺ is right to O(W²/E²), the probability of two
reflections, each of amplitude |s⁻| = O(W/4E). The interaction time drops the phase L√(m/2E) [(H_S+W)² − H_S²]/4E
besides, and is right to O(E^{−3/2}).

**Closed channels.** Below a level, or below an eigenvalue of H_S + W, what is left is not unitary: the open channels
lose flux to closed ones, or the wave decays, and nothing is reflected to make up for it. The map then loses trace. The
nearest unitary to the block B of open channels is its polar factor B(B†B)^{−1/2}; with it the map preserves the trace,
and is micro-reversible where B is symmetric, since the polar factor of a complex symmetric matrix is symmetric.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from .._numerics.batched import inverse, matmul
from .._numerics.elementary import sin_cos
from .._numerics.safe import rounding, safe_sqrt, with_derivative
from .._numerics.spectral import spectral_functions
from .exact import in_units_of_slab


def wave_vector_transmission(kinetic, energy, beyond, layers, levels, mass, unitary):
    """s⁺[out, in] referenced to the right edge, before closed channels are cut off; (N, N, n).

    `beyond` has the distances of E from every eigenvalue of every H_S + W.
    """
    del kinetic
    length = jnp.sum(layers.thicknesses)
    nearest = jnp.argmin(jnp.abs(jax.lax.stop_gradient(beyond)), axis=0)[None]
    nearest = jnp.take_along_axis(beyond, nearest, axis=0)[0]

    def waves(v, parameters):  # lengths in units of the slab's thickness
        energy, nearest, most = parameters
        A = _above(energy[None], v[:, None], nearest[None])
        q, kappa = safe_sqrt(A), safe_sqrt(-A)
        if unitary:
            # A polar factor does not change with the size of its matrix: what decays in all channels alike may be
            # divided out. What then decays below rounding would leave a matrix that is singular to rounding.
            kappa = kappa - jax.lax.stop_gradient(jnp.min(kappa, axis=0))[None]
            kappa = jnp.minimum(kappa, most)
        sine, cosine = sin_cos(q)
        size = jnp.exp(-kappa)
        return jax.lax.complex(size * cosine, size * sine)[None]

    def factor(coupling, d):
        most = -math.log(64 * jnp.finfo(levels.dtype).eps) * (d / length)
        inner, E = in_units_of_slab(coupling, energy, levels, mass, d)
        return spectral_functions(waves, inner, (E, 2 * mass * d**2 * nearest, most))[0]

    return _ordered_product(jax.vmap(factor)(*layers))


def _above(energy, v, nearest):
    """E − v, free of cancellation where v is the eigenvalue that E is `nearest` to, up to rounding."""
    apart = v - (energy - nearest)
    same = jnp.abs(apart) <= rounding(v[:, 0])
    apart = jax.lax.select(same, jnp.zeros_like(apart), apart)
    return with_derivative(nearest - apart, energy - v)


def interaction_time_transmission(kinetic, energy, beyond, layers, levels, mass, unitary):
    """s⁺[out, in] referenced to the right edge, before closed channels are cut off; (N, N, n).

    `beyond[0]` is the distance of E from the mean level.
    """
    del energy, unitary
    above = beyond[0]
    timeless = above <= 0
    slowness = jnp.sqrt(mass / (2 * jnp.where(timeless, 1, above)))
    slowness = jnp.where(timeless, 0, slowness)  # time per length
    total = jnp.sum(layers.thicknesses)
    # A typical slowness; energies are measured in the inverse of the time that it takes to pass a slab.
    usual = jnp.mean(jnp.abs(above)) + 1 / (2 * mass * total**2)
    usual = jax.lax.stop_gradient(jnp.sqrt(mass / (2 * usual)))

    def turn(v, time):
        sine, cosine = sin_cos(v[:, None] * time[None])
        return jax.lax.complex(cosine, -sine)[None]

    def factor(coupling, d):
        inner = usual * d * (coupling + jnp.diag(levels))
        return spectral_functions(turn, inner, slowness / usual)[0]

    passed = _ordered_product(jax.vmap(factor)(*layers))
    # e^{iH_Sτ}, and e^{ikL} from x = 0 to the right edge
    phase = total * (levels[:, None] * slowness[None] + safe_sqrt(2 * mass * kinetic))
    sine, cosine = sin_cos(phase)
    return jax.lax.complex(cosine, sine)[:, None] * passed


def fast_turning(layers, levels, mass):
    """Energies above the mean level at which the interaction time turns the system by about 8, 16, 32, 64 radians.

    Split there, the grid has a panel for a few turns; what turns faster is an energy range of little weight.
    """
    turns = jnp.asarray([8.0, 16.0, 32.0, 64.0], levels.dtype)
    inner = layers.couplings + jnp.diag(levels - jnp.mean(levels))[None]
    spread = jnp.sqrt(jnp.max(jnp.sum(jnp.abs(inner) ** 2, axis=(1, 2))))
    return mass / 2 * (spread * jnp.sum(layers.thicknesses) / turns) ** 2


def _ordered_product(factors):
    """… F_2 F_1 of matrices (M, N, N, n)."""
    if factors.shape[0] == 1:
        return factors[0]
    return jax.lax.scan(lambda P, F: (matmul(F, P), None), factors[0], factors[1:])[0]


#: With the scaling below, nine steps reach rounding for every condition number up to 1/rounding (N. J. Higham,
#: Functions of Matrices, SIAM 2008, section 8.6); a matrix of two rows takes two or three.
STEPS = 11


def polar_factor(B: Complex[Array, "N N n"]) -> Complex[Array, "N N n"]:
    r"""The unitary matrix nearest to each of n invertible ones, $U = B (B^†B)^{-1/2}$.

    Newton's iteration $X → (μX + X^{-†}/μ)/2$. It sees singular values only through smooth functions of the matrix, so
    nothing happens where they coincide, to the value or to derivatives. The scaling μ only makes it fast: whatever it
    is, the limit is the polar factor, so it is held fixed under differentiation.
    """

    def step(X, _):
        Y = jnp.conj(inverse(X).swapaxes(0, 1))
        x, y = jax.lax.stop_gradient((_square(X), _square(Y)))
        scale = jnp.sqrt(jnp.sqrt(y / x))[None, None]
        return (scale * X + Y / scale) / 2, None

    B = B / jax.lax.stop_gradient(jnp.sqrt(_square(B)))[None, None]
    if B.shape[0] == 1:
        return B / jnp.sqrt(_square(B))[None, None]
    return jax.lax.scan(step, B, None, length=STEPS)[0]


def _square(X):
    return jnp.sum(jnp.real(X) ** 2 + jnp.imag(X) ** 2, axis=(0, 1))
