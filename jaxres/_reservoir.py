"""The reservoir: which particles come, what they meet, how often."""

from typing import Literal

import equinox as eqx
from jaxtyping import Array, Float

from ._checks import check_instance, check_scalar, check_shape, real_array
from ._packet import AbstractPacket
from ._scatterer import AbstractScatterer

Incidence = Literal["left", "right", "both"]


class Reservoir(eqx.Module):
    r"""Particles in state `packet` that hit `scatterer` at random times, `rate` of them per unit time.

    **Arguments:**

    - `packet`: the particle's state, e.g. `EffusionPacket`.
    - `scatterer`: `Slab`, `Stack` or `Profile`.
    - `rate`: Γ ≥ 0, collisions per unit time.
    - `incidence`: "left"; "right", which is the mirror image (the stack reversed, the packet unchanged); or
      "both", where each collision comes from either side with probability 1/2.

    **Raises:** `ValueError` for a negative rate or an object of the wrong kind.

    !!! example
        >>> packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=1.0, position=-10.0)
        >>> slab = jr.Slab(coupling=jnp.array([[0.0, 1.0], [1.0, 0.0]]), length=1.0)
        >>> jr.Reservoir(packet=packet, scatterer=slab, rate=5.0).incidence
        'left'
    """

    packet: AbstractPacket
    scatterer: AbstractScatterer
    rate: Float[Array, ""] = eqx.field(converter=real_array)
    incidence: Incidence = eqx.field(static=True, default="left")

    def __check_init__(self):
        check_instance(
            "packet", self.packet, AbstractPacket, "a particle state such as jaxres.EffusionPacket"
        )
        check_instance(
            "scatterer", self.scatterer, AbstractScatterer, "a jaxres.Slab, Stack or Profile"
        )
        check_shape("rate", self.rate, 0, "()")
        check_scalar("rate", self.rate, nonnegative=True)
        if self.incidence not in ("left", "right", "both"):
            raise ValueError(
                f"Argument `incidence` must be 'left', 'right' or 'both', but is {self.incidence!r}."
            )
