"""The Letter's model and parameters."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._checks import check_scalar, real_array
from ._packet import EffusionPacket
from ._reservoir import Incidence, Reservoir
from ._scatterer import Slab
from ._system import System

Scalar = Float[Array, ""] | float


def model(
    *,
    splitting: Scalar = 0.6,
    coupling: Scalar = 1.0,
    length: Scalar = 1.0,
    beta: Scalar = 0.1,
    mass: Scalar = 0.1,
    width: Scalar = 1.0,
    position: Scalar = -10.0,
    rate: Scalar = 5.0,
    incidence: Incidence = "left",
) -> tuple[System, Reservoir]:
    r"""The Letter's qubit and its reservoir.

    $H_S = \frac{Δ}{2} σ_z$, $V = λ(σ_x + σ_y)$ on $0 < x < L$, effusion packets. Defaults are the Letter's parameters
    with Γ = 5 and Δ = 0.6 (ħ = 1).

    **Arguments:** `splitting` Δ ≥ 0, `coupling` λ, `length` L, `beta` β, `mass` m, `width` Δx, `position` x₀, `rate` Γ.

    In the energy eigenbasis, ground state (spin down) first, V_01 = λ(1 + i).

    !!! example
        >>> system, bath = jr.letter.model(rate=1.0)
        >>> print(jnp.round(jr.coherence(jr.steady_state(system, bath).rho), 6))
        0.020749
    """
    splitting, coupling = real_array(splitting), real_array(coupling)
    check_scalar("splitting", splitting, nonnegative=True)
    check_scalar("coupling", coupling)
    system = System(levels=jnp.stack([-splitting / 2, splitting / 2]))
    V = coupling * jnp.array([[0, 1 + 1j], [1 - 1j, 0]])
    packet = EffusionPacket(beta=beta, mass=mass, width=width, position=position)
    return system, Reservoir(
        packet=packet, scatterer=Slab(coupling=V, length=length), rate=rate, incidence=incidence
    )
