"""A scatterer's profile: 64 slab heights that bring the most ergotropy to a qutrit.

    python examples/design_profile.py

The gas is thermal; it is the coherence of its packets that keeps the qutrit from being passive.
"""

import jax
import jax.numpy as jnp

import jaxres as jr

jax.config.update("jax_enable_x64", True)

V = jnp.array([[0.0, 1.0, 0.4], [1.0, 0.0, 0.7], [0.4, 0.7, 0.0]])


def main() -> None:
    """Prints what 40 steps make of a flat profile, and how it looks."""
    system = jr.System([-1.0, 0.1, 1.3])
    packet = jr.EffusionPacket(beta=1.0, mass=1.0, width=0.5, position=-3.0)
    bath = jr.Reservoir(packet=packet, scatterer=jr.Profile(V, jnp.ones(64), 2.0), rate=5.0)
    loss = jr.losses.Ergotropy(quadrature=jr.DoubleExponential(24, 24))
    found = jr.design(loss, (system, bath), bounds={"scatterer.heights": (-3.0, 3.0)}, steps=40)
    print(found)
    sol = jr.steady_state(*found.model)  # on the default grid
    print(f"ergotropy {jr.ergotropy(system, sol.rho):.6f} (flat profile ", end="")
    flat = jr.steady_state(system, bath).rho
    print(f"{jr.ergotropy(system, flat):.6f}), map error {sol.map_error:.1e}")
    for height in found.parameters["scatterer.heights"][::2]:
        print(
            f"{height:8.3f} "
            + " " * round(6 * (min(height, 0) + 3))
            + "#" * max(1, round(6 * abs(height)))
        )


if __name__ == "__main__":
    main()
