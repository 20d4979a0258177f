r"""Particle states beside effusion: other velocity laws, packets, mixtures of them, and states without coherence."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_instance
from .packet import (
    AbstractPacket,
    LocalisedPacket,
    admissible,
    anywhere,
    broad,
    check_broad,
    positive,
)


class MaxwellPacket(LocalisedPacket):
    r"""Particles with Maxwell's velocities instead of effusion's, each localised in space.

    $$ρ_U(p, q) = μ\!\left(\tfrac{p+q}{2}\right) e^{-Δx^2(p-q)^2/2ħ^2 - i(p-q)x_0/ħ},
       \qquad μ(p) = \sqrt{\frac{2β}{πm}}\, e^{-βp^2/2m}$$

    The law of the particles *in* a gas; those that arrive at a place are as many more as they are faster, and only
    that flux, `EffusionPacket`, thermalises.

    **Arguments:** as for `EffusionPacket`. It is a state for $2Δx\sqrt{m/β} ≥ ħ$: a Gaussian
    $e^{-a(p+q)^2 - b(p-q)^2}$ has no negative eigenvalue exactly for b ≥ a.

    **Raises:** `ValueError` for a parameter that is not positive, or a packet narrower than this bound.

    !!! example
        >>> packet = jr.MaxwellPacket(beta=0.1, mass=0.1, width=1.0, position=-10.0)
        >>> print(jnp.round(packet.distribution(jnp.array(0.0)), 6))
        0.797885
    """

    beta: Float[Array, ""] = eqx.field(converter=positive["beta"])
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])
    width: Float[Array, ""] = eqx.field(converter=positive["width"])
    position: Float[Array, ""] = eqx.field(converter=anywhere, default=0.0)

    def __check_init__(self):
        check_broad(self.beta, self.mass, self.width, 0.5, "2")

    def envelope(self, p, q):
        mean, apart = (p + q) / 2, p - q
        decay = self.beta * mean**2 / (2 * self.mass) + (self.width * apart) ** 2 / 2
        return jnp.sqrt(2 * self.beta / (jnp.pi * self.mass)) * jnp.exp(-decay)

    def energy_scale(self):
        return 1 / self.beta

    def decay(self):
        return self.beta / 2

    def valid(self):
        wide = broad(self.beta, self.mass, self.width, 0.5)
        return admissible(self, "beta", "mass", "width", "position") & wide


class GaussianPacket(LocalisedPacket):
    r"""One Gaussian wave packet, a pure state (Refs. 6, 17).

    $$ρ_U(p, q) = φ(p) φ^*(q), \qquad φ(p) ∝ e^{-Δx^2(p-p_0)^2/ħ^2 - ipx_0/ħ} \quad (p > 0)$$

    Normalised over p > 0: the part that moves away from the scatterer is not counted.

    **Arguments:** (ħ = 1)

    - `momentum`: mean momentum p₀ > 0 of the whole Gaussian.
    - `mass`: particle mass m > 0.
    - `width`: spread in space Δx > 0, the standard deviation of |ψ(x)|²; that of the momentum is ħ/2Δx.
    - `position`: mean position x₀.

    **Raises:** `ValueError` for a parameter that is not positive.

    !!! example
        >>> packet = jr.GaussianPacket(momentum=20.0, mass=0.5, width=0.7, position=-5.0)
        >>> p = jnp.linspace(10, 30, 2001)
        >>> print(jnp.round(jnp.trapezoid(packet.distribution(p), p), 12))
        1.0
    """

    momentum: Float[Array, ""] = eqx.field(converter=positive["momentum"])
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])
    width: Float[Array, ""] = eqx.field(converter=positive["width"])
    position: Float[Array, ""] = eqx.field(converter=anywhere, default=0.0)

    def envelope(self, p, q):
        arrives = jax.scipy.special.erfc(-math.sqrt(2) * self.width * self.momentum) / 2
        # 2 [(p+q)/2 − p₀]² + (p−q)²/2 = (p − p₀)² + (q − p₀)²
        decay = (self.width * (p - self.momentum)) ** 2 + (self.width * (q - self.momentum)) ** 2
        return self.width * math.sqrt(2 / math.pi) / arrives * jnp.exp(-decay)

    def window(self):
        # beyond 8.5 standard deviations the distribution is below rounding
        reach = 8.5 / (2 * self.width)
        low = jnp.maximum(self.momentum - reach, 0)
        return jnp.stack([low, self.momentum, self.momentum + reach]) ** 2 / (2 * self.mass)

    def energy_scale(self):
        spread = 1 / (2 * self.width)
        return (self.momentum + spread) * spread / self.mass

    def valid(self):
        return admissible(self, "momentum", "mass", "width", "position")


class ThermalMixture(LocalisedPacket):
    r"""Gaussian packets whose mean momenta are distributed as in an effusing gas (Ref. 6).

    $$ρ_U(p, q) ∝ ∫_0^∞ dp_0\, μ(p_0)\, φ_{p_0}(p) φ_{p_0}^*(q), \qquad μ(p) = \frac{βp}{m} e^{-βp^2/2m}$$

    with the φ of `GaussianPacket`. A mixture of packets is a state whatever its parameters. With
    φφ* = √(b/π) exp[−b(P−p₀)² − Δx²(p−q)²/2 − i(p−q)x₀], P = (p+q)/2, b = 2Δx², and a = β/2m, c = a + b, completing
    the square in p₀ gives

    $$∫_0^∞ dp_0\, 2a p_0 e^{-ap_0^2 - b(P-p_0)^2}
      = \frac ac \left[e^{-bP^2} + \sqrt{πc}\, \bar p\, e^{-abP^2/c}\, \mathrm{erfc}(-\sqrt c\, \bar p)\right],
      \qquad \bar p = bP/c,$$

    of which the part ½(1 + √(b/c)) has p > 0 and arrives; the state is normalised to it. For broad packets (narrow in
    momentum, $Δx\sqrt{m/β} ≫ ħ$) the distribution is that of effusion, and the reservoir thermalises at low rates;
    for others the packets' own spread in momentum heats the system besides.

    **Arguments:** `beta`, `mass`, `width`, `position`: as for `EffusionPacket`.

    **Raises:** `ValueError` for a parameter that is not positive.

    Source: Jacob et al., PRX Quantum 2, 020312 (2021).

    !!! example
        >>> mixture = jr.ThermalMixture(beta=0.1, mass=0.1, width=30.0)
        >>> packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=30.0)
        >>> p = jnp.linspace(0, 4, 9)
        >>> bool(jnp.max(jnp.abs(mixture.distribution(p) - packet.distribution(p))) < 0.02)
        True
    """

    beta: Float[Array, ""] = eqx.field(converter=positive["beta"])
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])
    width: Float[Array, ""] = eqx.field(converter=positive["width"])
    position: Float[Array, ""] = eqx.field(converter=anywhere, default=0.0)

    def distribution(self, p):
        a, b = self.beta / (2 * self.mass), 2 * self.width**2
        c = a + b
        mean = b * p / c
        error = jax.scipy.special.erfc(-jnp.sqrt(c) * mean)
        bulk = jnp.sqrt(jnp.pi * c) * mean * jnp.exp(-a * mean * p) * error
        arrives = (1 + jnp.sqrt(b / c)) / 2
        return jnp.sqrt(b / jnp.pi) / arrives * (a / c) * (jnp.exp(-b * p**2) + bulk)

    def envelope(self, p, q):
        return self.distribution((p + q) / 2) * jnp.exp(-((self.width * (p - q)) ** 2) / 2)

    def energy_scale(self):
        return 1 / self.beta + 1 / (4 * self.mass * self.width**2)

    def decay(self):
        return 1 / (2 * self.energy_scale())

    def valid(self):
        return admissible(self, "beta", "mass", "width", "position")


class DiagonalPacket(AbstractPacket):
    r"""A state without coherence between momenta, ρ_U(p, q) = μ(p) δ_pq: the limit Δx → ∞ of `packet`.

    Coherences of the system then join each other, and populations, only between transitions of one energy:
    S[j', k', j, k] = 0 unless $e_j - e_{j'} = e_k - e_{k'}$, to 64 roundings of the largest level. Entries with equal
    gaps stay: those of populations, of one coherence with itself, and of the steps of a ladder.

    **Arguments:**

    - `packet`: the state whose momentum distribution is taken.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> diagonal = jr.DiagonalPacket(reservoir.packet)
        >>> S = jr.scattering_map(system, jr.Reservoir(diagonal, reservoir.scatterer, reservoir.rate))
        >>> print(jnp.abs(S.tensor[0, 1, 0, 0]), bool(jnp.abs(S.tensor[0, 1, 0, 1]) > 0.5))
        0.0 True
    """

    packet: AbstractPacket = eqx.field(
        converter=lambda x: as_instance(
            "packet", x, AbstractPacket, "a state such as jaxres.EffusionPacket"
        )
    )

    def __check_init__(self):
        if self.packet.sharp_momentum() is not None:
            raise ValueError(
                "Argument `packet` must have a momentum distribution, but is a MonochromaticBeam, which is diagonal "
                "already. Use it as it is."
            )

    @property
    def mass(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The particle's mass m."""
        return self.packet.mass

    def density(self, p, q):
        return jnp.where(p == q, self.distribution(p), 0)

    def correlation(self, p, q, same):
        return jnp.where(same, self.distribution((p + q) / 2), 0)

    def distribution(self, p):
        return self.packet.distribution(p)

    def window(self):
        return self.packet.window()

    def energy_scale(self):
        return self.packet.energy_scale()

    def decay(self):
        return self.packet.decay()

    def valid(self):
        return self.packet.valid()


class MonochromaticBeam(AbstractPacket):
    r"""Particles of one momentum, ρ_U(p, q) = δ(p − p₀) δ_pq.

    The energy integral is a single term, and the map is exact to rounding without any grid:

    $$S[j',k',j,k] = \sum_α s^{(α)}_{j'j}(κ + e_j)\, s^{(α)*}_{k'k}(κ + e_k), \qquad κ = p_0^2/2m,$$

    where $e_j - e_{j'} = e_k - e_{k'}$ (compared as in `DiagonalPacket`), and 0 elsewhere.

    **Arguments:**

    - `momentum`: p₀ > 0.
    - `mass`: m > 0.

    **Raises:** `ValueError` for a parameter that is not positive.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> beam = jr.MonochromaticBeam(momentum=1.5, mass=0.1)
        >>> S = jr.scattering_map(system, jr.Reservoir(beam, reservoir.scatterer, reservoir.rate))
        >>> amps = jr.amplitudes(system, reservoir.scatterer, mass=0.1, energy=1.5**2 / 0.2 - 0.3)
        >>> flip = jnp.abs(amps.transmission[1, 0]) ** 2 + jnp.abs(amps.reflection[1, 0]) ** 2
        >>> bool(jnp.abs(S.tensor[1, 1, 0, 0] - flip) < 1e-14)
        True
    """

    momentum: Float[Array, ""] = eqx.field(converter=positive["momentum"])
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])

    def sharp_momentum(self):
        return self.momentum

    def density(self, p, q):
        raise NotImplementedError("A monochromatic beam has a delta for a density.")

    def distribution(self, p):
        raise NotImplementedError("A monochromatic beam has a delta for a distribution.")

    def energy_scale(self):
        return self.momentum**2 / (2 * self.mass)

    def valid(self):
        return admissible(self, "momentum", "mass")
