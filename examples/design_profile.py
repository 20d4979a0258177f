"""A scatterer's profile: 64 slab heights that bring a qutrit to a given state, or the most ergotropy to it.

    python examples/design_profile.py

The state is the steady state of another profile, which the search does not know: many profiles bring it. For the
ergotropy the gas is thermal, and it is the coherence of its packets that keeps the qutrit from being passive; from a
flat profile the search ends in a lesser optimum, so it has several starts. Last, the evaluations that a search without
gradients takes. The state's search from a file, in this folder: jaxres design profile.toml --trust.
"""

import jax
import jax.numpy as jnp
import numpy as np
from derivative_free import compare

import jaxres as jr

jax.config.update("jax_enable_x64", True)

V = jnp.array([[0.0, 1.0, 0.4], [1.0, 0.0, 0.7], [0.4, 0.7, 0.0]])
SYSTEM = jr.System([-1.0, 0.1, 1.3])
RULE = jr.DoubleExponential(24, 24)


def qutrit(heights=(1.0,) * 64):
    """A qutrit and a gas that meets it through a profile."""
    packet = jr.EffusionPacket(beta=1.0, mass=1.0, width=0.5, position=-3.0)
    profile = jr.Profile(V, jnp.asarray(heights), 2.0)
    return SYSTEM, jr.Reservoir(packet=packet, scatterer=profile, rate=5.0)


def hidden():
    """A random walk between 0 and 2."""
    walk = np.cumsum(np.random.default_rng(0).uniform(-1, 1, 64))
    walk -= walk.mean()
    return 1 + walk / np.max(np.abs(walk))


def state() -> dict:
    """The steady state of a hidden profile, by 64 slab heights."""
    wanted = jr.steady_state(*qutrit(hidden()), quadrature=RULE).rho
    return {
        "loss": jr.losses.TargetState(wanted, quadrature=RULE),
        "start": qutrit(),
        "bounds": {"scatterer.heights": (0.0, 2.0)},
    }


def ergotropy() -> dict:
    """The most steady ergotropy of a qutrit, by 64 slab heights."""
    return {
        "loss": jr.losses.Ergotropy(quadrature=RULE),
        "start": qutrit(),
        "bounds": {"scatterer.heights": (-3.0, 3.0)},
    }


def show(heights) -> None:
    """Every other height as a bar, from 0 to the left and to the right."""
    for height in heights[::2]:
        bar = max(1, round(8 * abs(height)))
        print(f"{height:8.3f} " + " " * (24 - (bar if height < 0 else 0)) + "#" * bar)


def main() -> None:
    """Prints the two designs, on a finer grid, and the evaluations."""
    wanted = jr.steady_state(*qutrit(hidden())).rho
    print("A given state:")
    problem = state()
    print(found := jr.design(**problem, tol=1e-9, target=1e-10), end="\n\n")
    sol = jr.steady_state(*found.model)  # on the default grid
    before = jr.trace_distance(jr.steady_state(*qutrit()).rho, wanted)
    after = jr.trace_distance(sol.rho, wanted)
    print(f"trace distance {after:.2e}, flat profile {before:.2e}, map error {sol.map_error:.1e}")
    heights = found.parameters["scatterer.heights"]
    print(f"largest difference from the hidden profile {np.max(np.abs(heights - hidden())):.2f}")
    show(heights)

    print("\nThe most ergotropy:")
    slopes = jr.SciPy("L-BFGS-B")
    print(found := jr.design(**ergotropy(), optimiser=slopes, starts=4, max_steps=60), end="\n\n")
    sol = jr.steady_state(*found.model)
    flat = jr.ergotropy(SYSTEM, jr.steady_state(*qutrit()).rho)
    work = jr.ergotropy(SYSTEM, sol.rho)
    print(f"ergotropy {work:.6f}, flat profile {flat:.6f}, map error {sol.map_error:.1e}")
    show(found.parameters["scatterer.heights"])

    print("\nEvaluations to the state:")
    compare(problem, {"LBFGS": jr.LBFGS()}, margin=1e-6, times=30)


if __name__ == "__main__":
    main()
