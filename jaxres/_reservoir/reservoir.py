"""The reservoir: which particles come, what they meet, how often."""

from functools import partial
from types import NoneType
from typing import Literal

import equinox as eqx
from jaxtyping import Array, Bool, Float

from .._checks import as_choice, as_instance, as_scalar
from .._quantum.system import System
from .internal_state import InternalState, joint_system
from .packet import AbstractPacket
from .scatterer import AbstractScatterer

Incidence = Literal["left", "right", "both"]


class Reservoir(eqx.Module):
    r"""Particles in state `packet` that hit `scatterer` at random times, `rate` of them per unit time.

    **Arguments:**

    - `packet`: the particle's state, e.g. `EffusionPacket`.
    - `scatterer`: `Slab`, `Stack` or `Profile`.
    - `rate`: Γ ≥ 0, collisions per unit time.
    - `internal`: internal levels of the particle and their state, an `InternalState`, or None. The scatterer's
      couplings are then matrices on system ⊗ unit, the system's index first: `jnp.kron(on_system, on_unit)`.
    - `incidence`: "left"; "right", which is the mirror image (the stack reversed, the packet unchanged); or
      "both", where each collision comes from either side with probability 1/2.

    **Raises:** `ValueError` for a negative rate or an object of the wrong kind.

    !!! example
        >>> packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=1.0, position=-10.0)
        >>> slab = jr.Slab(coupling=jnp.array([[0.0, 1.0], [1.0, 0.0]]), length=1.0)
        >>> jr.Reservoir(packet=packet, scatterer=slab, rate=5.0).incidence
        'left'
    """

    packet: AbstractPacket = eqx.field(
        converter=lambda x: as_instance(
            "packet", x, AbstractPacket, "a particle state such as jaxres.EffusionPacket"
        )
    )
    scatterer: AbstractScatterer = eqx.field(
        converter=lambda x: as_instance(
            "scatterer", x, AbstractScatterer, "a jaxres.Slab, Stack or Profile"
        )
    )
    rate: Float[Array, ""] = eqx.field(converter=partial(as_scalar, "rate", nonnegative=True))
    incidence: Incidence = eqx.field(
        static=True,
        default="left",
        converter=lambda x: as_choice("incidence", x, ("left", "right", "both")),
    )
    internal: InternalState | None = eqx.field(
        converter=lambda x: as_instance(
            "internal", x, (InternalState, NoneType), "a jaxres.InternalState or None"
        ),
        default=None,
    )

    def valid(self, system: System) -> Bool[Array, ""]:
        """Whether everything is what the constructors ask for, also where it is traced; it collides with `system`."""
        layers = self.scatterer.layers(self.colliding(system))
        valid = self.packet.valid() & (self.rate >= 0) & layers.valid()
        return valid if self.internal is None else valid & self.internal.valid()

    def colliding(self, system: System) -> System:
        """What scatters the particle: the system, or system ⊗ unit."""
        return system if self.internal is None else joint_system(system, self.internal)[0]
