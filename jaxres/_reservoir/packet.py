r"""States of the incoming particle, as density matrices ρ_U(p, q) over incoming momenta p, q > 0."""

import abc
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from .._checks import as_scalar, concrete, known
from .._numerics.elementary import falling_exp, sin_cos


class AbstractPacket(eqx.Module):
    """The state of a particle that comes from the left: a density matrix over momenta p, q > 0, of trace 1."""

    mass: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def density(self, p: Float[Array, "*s"], q: Float[Array, "*s"]) -> Inexact[Array, "*s"]:
        """ρ_U(p, q), elementwise."""

    def correlation(
        self, p: Float[Array, "*s"], q: Float[Array, "*s"], same: Bool[Array, "*#s"]
    ) -> Inexact[Array, "*s"]:
        """ρ_U(p, q), told where p and q are one and the same momentum, not just near: there a diagonal state counts.

        The map asks for ρ_U at the incoming momenta of two transitions j → j' and k → k'. They are the same at every
        energy if the gaps e_j − e_j' and e_k − e_k' are equal.
        """
        del same
        return self.density(p, q)

    def centred(self) -> tuple[Callable[..., Inexact[Array, "*s"]], Float[Array, ""] | None]:
        """A function like `correlation`, of the state moved to the origin, and the x₀ it is moved from.

        What is moved has the phase e^{−i(p−q)x₀}, of which each factor e^{−ipx₀} can be given to an amplitude. Here
        `correlation` itself and None: nothing is known to be moved.
        """
        return self.correlation, None

    def log_envelope(self) -> Callable[..., Float[Array, "*s"]] | None:
        """A function of packet, p and q, elementwise in all three: ln ρ_U(p, q) of the state moved to the origin.

        What does not depend on the packet may be left out. None, as here, where there is no such function. Where there
        is, derivatives with respect to the packet are cheap.
        """
        return None

    @abc.abstractmethod
    def distribution(self, p: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The momentum distribution ρ_U(p, p), elementwise; its integral over p > 0 is 1."""

    @abc.abstractmethod
    def energy_scale(self) -> Float[Array, ""]:
        """The kinetic energy over which the distribution varies: the unit of the last quadrature panel."""

    def decay(self) -> Float[Array, ""]:
        r"""A rate γ such that $|ρ_U(p, q)| ≤ C e^{-γp^2/2m}$ for every q; 0, where nothing is known, by default."""
        return jnp.zeros((), self.mass.dtype)

    def window(self) -> Float[Array, " K"]:
        """Kinetic energies at which the grid is split; none by default.

        Between them the distribution must be smooth on the scale of the panel, above the last on `energy_scale`.
        """
        return jnp.zeros(0, self.mass.dtype)

    @abc.abstractmethod
    def valid(self) -> Bool[Array, ""]:
        """Whether the parameters describe a state, also where they are traced."""


class LocalisedPacket(AbstractPacket):
    """A state about a position x₀: ρ_U(p, q) = envelope(p, q) e^{−i(p−q)x₀}."""

    position: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def envelope(self, p: Float[Array, "*s"], q: Float[Array, "*s"]) -> Inexact[Array, "*s"]:
        """The state about the origin, elementwise; real where it can be."""

    def distribution(self, p):
        return jnp.real(self.envelope(p, p))

    def density(self, p, q):
        envelope = self.envelope(p, q)
        sine, cosine = sin_cos((p - q) * self.position)
        if jnp.iscomplexobj(envelope):
            return envelope * jax.lax.complex(cosine, -sine)
        return jax.lax.complex(envelope * cosine, -envelope * sine)

    def centred(self):
        own = type(self)
        if (own.density, own.correlation) != (LocalisedPacket.density, AbstractPacket.correlation):
            return self.correlation, None
        return lambda p, q, same: self.envelope(p, q), self.position


#: converters of the fields: finite, and positive but for the position
positive = {
    name: partial(as_scalar, name, positive=True) for name in ("beta", "mass", "width", "momentum")
}
anywhere = partial(as_scalar, "position")


def admissible(packet: AbstractPacket, *names: str) -> Bool[Array, ""]:
    """Whether the numbers are what the converters ask for, also where they are traced."""
    numbers = jnp.stack([getattr(packet, name) for name in names])
    positive = jnp.stack([getattr(packet, name) for name in names if name != "position"])
    return jnp.all(jnp.isfinite(numbers)) & jnp.all(positive > 0)


def broad(beta: Any, mass: Any, width: Any, bound: float) -> Bool[Array, ""]:
    """Whether the width is at least `bound` √(β/m), but for rounding."""
    return (width / bound) ** 2 * mass >= beta * (1 - 1e-6)


def check_broad(beta: Any, mass: Any, width: Any, bound: float, symbol: str) -> None:
    """The same where it is known, whatever else is traced."""
    if concrete(beta, mass, width) and not known(lambda: broad(beta, mass, width, bound)):
        least = bound * math.sqrt(float(beta) / float(mass))
        raise ValueError(
            f"Argument `width` must be at least ħ√(β/m)/{symbol} = {least:.6g} for these β and m (the packet is no "
            f"quantum state below), but is {np.asarray(width):.6g}. Widen the packet, or raise the temperature "
            "or the mass."
        )


class EffusionPacket(LocalisedPacket):
    r"""Particles that effuse from a gas at inverse temperature β, each localised in space (Eqs. 22, 23).

    $$ρ_U(p, q) = μ\!\left(\tfrac{p+q}{2}\right)
       \exp\!\left[-\frac{Δx^2 (p-q)^2}{2ħ^2} - \frac{i(p-q)x_0}{ħ}\right],
       \qquad μ(p) = \frac{βp}{m} e^{-βp^2/2m}$$

    **Arguments:** (ħ = 1)

    - `beta`: inverse temperature β > 0 (1/energy).
    - `mass`: particle mass m > 0.
    - `width`: spread in space Δx > 0 (length).
    - `position`: mean position x₀ (length) when the packet starts; the scatterer begins at x = 0.

    It is a state only if it is broader than the thermal wavelength allows, $4πΔx\sqrt{m/β} ≥ ħ$. This is necessary, not
    sufficient: μ vanishes at p = 0, but ρ_U(p, 0) does not, so the form above always has a negative eigenvalue:
    −0.017 at $Δx = ħ\sqrt{β/m}$, the Letter's value, −0.0006 at five times that. `ThermalMixture`, which tends to the
    same state for wide packets, is positive whatever its parameters.

    **Raises:** `ValueError` for a parameter that is not positive, or a packet narrower than this bound.

    !!! example
        >>> packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=1.0, position=-10.0)
        >>> p = jnp.linspace(0, 30, 8001)
        >>> print(jnp.round(jnp.trapezoid(packet.distribution(p), p), 5))
        1.0
    """

    beta: Float[Array, ""] = eqx.field(converter=positive["beta"])
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])
    width: Float[Array, ""] = eqx.field(converter=positive["width"])
    position: Float[Array, ""] = eqx.field(converter=anywhere, default=0.0)

    def __check_init__(self):
        check_broad(self.beta, self.mass, self.width, _NARROWEST, "4π")

    def envelope(self, p, q):
        ratio = self.beta / self.mass
        mean, apart = (p + q) / 2, p - q
        return ratio * mean * falling_exp(-(ratio / 2 * mean**2 + self.width**2 / 2 * apart**2))

    def log_envelope(self):
        return _log_effusion if type(self) is EffusionPacket else None

    def energy_scale(self):
        return 1 / self.beta

    def decay(self):
        # the exponent is least for q = p(4mΔx² − β)/(4mΔx² + β) or 0; never more than half of that for q = p
        least = (self.beta + 4 * self.mass * self.width**2) / 4
        return jnp.minimum(self.beta / 2, least)

    def valid(self):
        return admissible(self, "beta", "mass", "width", "position") & broad(
            self.beta, self.mass, self.width, _NARROWEST
        )


_NARROWEST = 1 / (4 * math.pi)


def _log_effusion(packet, p, q):
    ratio = packet.beta / packet.mass
    mean, apart = (p + q) / 2, p - q
    return jnp.log(ratio) - (ratio / 2 * mean**2 + packet.width**2 / 2 * apart**2)
