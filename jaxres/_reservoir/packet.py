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
    r"""The state of a particle that comes from the left: a density matrix over momenta p, q > 0, of trace 1.

    A kind of packet is a subclass, an `equinox.Module` with the field `mass`. Five methods make it complete: `density`,
    `distribution`, `energy_scale`, `valid`, and the field itself; the others have defaults that are right for every
    packet and only cost speed or nodes.

    | method | returns | units (ħ = 1) |
    |---|---|---|
    | `density(p, q)` | ρ_U(p, q), elementwise, real or complex, Hermitian, positive semidefinite | 1/momentum |
    | `distribution(p)` | ρ_U(p, p), real, with the integral 1 over p > 0 | 1/momentum |
    | `energy_scale()` | the kinetic energy over which the distribution varies, a scalar | energy |
    | `valid()` | whether the parameters describe a state, a scalar, also where they are traced | |
    | `correlation(p, q, same)` | `density`, with the information where p and q are identical | 1/momentum |
    | `sharp_momentum()` | None, or the momentum of a beam, which has no density | momentum |
    | `window()` | kinetic energies at which the grid is split, shape (K,), none by default | energy |
    | `decay()` | a rate γ with ρ_U(p, q) ≤ C e^{−γp²/2m}, 0 by default | 1/energy |
    | `centred()`, `log_envelope()` | forms of the density that save work, none by default | |

    `p` and `q` are arrays of one shape; every function is made of `jax.numpy`. For the integral over energies to
    converge exponentially ρ_U is analytic in p and q, or else in their square roots.

    !!! example
        A positive relative of `EffusionPacket` with the same distribution,
        $ρ_U = \sqrt{μ(p) μ(q)}\, e^{-Δx^2 (p-q)^2/2}$:

        >>> class PositivePacket(jr.AbstractPacket):
        ...     mass: jax.Array
        ...     beta: jax.Array
        ...     width: jax.Array
        ...
        ...     def distribution(self, p):
        ...         return self.beta * p / self.mass * jnp.exp(-self.beta * p**2 / (2 * self.mass))
        ...
        ...     def density(self, p, q):
        ...         size = jnp.sqrt(self.distribution(p) * self.distribution(q))
        ...         return size * jnp.exp(-((self.width * (p - q)) ** 2) / 2)
        ...
        ...     def energy_scale(self):
        ...         return 1 / self.beta
        ...
        ...     def valid(self):
        ...         return (self.mass > 0) & (self.beta > 0) & (self.width > 0)
        >>> packet = PositivePacket(*map(jnp.asarray, (0.1, 0.1, 1.0)))
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, jr.Reservoir(packet, reservoir.scatterer, rate=5.0))
        >>> bool(S.error < 1e-6), bool(jnp.linalg.eigvalsh(S.choi)[0] > -1e-12)
        (True, True)
    """

    mass: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def density(self, p: Float[Array, "*s"], q: Float[Array, "*s"]) -> Inexact[Array, "*s"]:
        """ρ_U(p, q), elementwise."""

    def correlation(
        self, p: Float[Array, "*s"], q: Float[Array, "*s"], same: Bool[Array, "*#s"]
    ) -> Inexact[Array, "*s"]:
        """ρ_U(p, q); `same` marks where p and q are one and the same momentum, which rounding may hide.

        The map needs ρ_U at the incoming momenta of two transitions j → j' and k → k'. They are the same at every
        energy if the gaps e_j − e_j' and e_k − e_k' are equal. Only a state that is diagonal in the momentum needs
        this information; the default is the density.
        """
        del same
        return self.density(p, q)

    def sharp_momentum(self) -> Float[Array, ""] | None:
        """The one momentum p₀ that all particles have, or None for a packet with a density (the default).

        This chooses how the packet is integrated. With None the map is the integral over energies of the density. A
        beam has ρ_U = δ(p − p₀) δ_pq instead: its map is a single term, and neither its `density` nor its
        `distribution` is ever called.
        """
        return None

    def centred(self) -> tuple[Callable[..., Inexact[Array, "*s"]], Float[Array, ""] | None]:
        """A function like `correlation`, of the state moved to the origin, and the position x₀ it is moved from.

        A state that is moved has the phase e^{−i(p−q)x₀}, of which each factor e^{−ipx₀} can be given to an amplitude.
        The default is `correlation` itself and None: no phase is split off.
        """
        return self.correlation, None

    def log_envelope(self) -> Callable[..., Float[Array, "*s"]] | None:
        """A function of packet, p and q, elementwise in all three: ln ρ_U(p, q) of the state moved to the origin.

        Terms that do not depend on the packet may be left out. With such a function derivatives with respect to the
        packet are cheap for two levels; None, the default, means that there is none.
        """
        return None

    @abc.abstractmethod
    def distribution(self, p: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The momentum distribution ρ_U(p, p), elementwise; its integral over p > 0 is 1."""

    @abc.abstractmethod
    def energy_scale(self) -> Float[Array, ""]:
        """The kinetic energy over which the distribution varies: the unit of the last quadrature panel.

        It places nodes and is not differentiated. Above 36 of these units the packet has no weight.
        """

    def decay(self) -> Float[Array, ""]:
        r"""A rate γ such that $|ρ_U(p, q)| ≤ C e^{-γp^2/2m}$ for every q; 0, which is always right, by default."""
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
    """A state about a position x₀: ρ_U(p, q) = envelope(p, q) e^{−i(p−q)x₀}.

    A subclass that has a `density` or `correlation` of its own gets the `centred` form of `AbstractPacket` back, which
    is right for every density, unless it has a `centred` form of its own too.
    """

    position: eqx.AbstractVar[Float[Array, ""]]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if min(_defined(cls, "density"), _defined(cls, "correlation")) < _defined(cls, "centred"):
            cls.centred = AbstractPacket.centred

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

    def centred(self) -> tuple[Callable, Any]:  # inside `one_loop` the fields are arrays over nodes
        return lambda p, q, same: self.envelope(p, q), self.position


def _defined(cls: type, name: str) -> int:
    """How far up among the classes that `cls` inherits from the attribute is defined: 0 for `cls` itself."""
    return next(place for place, each in enumerate(cls.__mro__) if name in vars(each))


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

    def __init_subclass__(cls, **kwargs):
        # The logarithm is that of this density. A subclass may change the density, so it does not inherit it.
        super().__init_subclass__(**kwargs)
        if "log_envelope" not in vars(cls):
            cls.log_envelope = AbstractPacket.log_envelope

    def log_envelope(self) -> Callable[..., Float[Array, "*s"]] | None:
        return _log_effusion

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
