"""A thermostat: the fastest relaxation to the Gibbs state that a gas at β = 0.1 allows, and what exactness costs.

    python examples/design_thermostat.py

Free are the rate Γ, the packets' width Δx, the coupling λ and the length L. The relaxation time τ is made least, with a
trace distance to the Gibbs state of at most D; the curve τ(D) is the trade-off between the two.
"""

import jax
import jax.numpy as jnp

import jaxres as jr

jax.config.update("jax_enable_x64", True)

BETA = 0.1
BOUNDS = {"rate": (0.1, 100.0), "width": (0.1, 30.0), "coupling": (0.1, 5.0), "length": (0.1, 3.0)}
START = {"rate": 5.0, "width": 5.0, "coupling": 1.0, "length": 1.0}


def fastest(distance: float, starts: int = 6) -> jr.Design:
    """The least log τ within a distance of the Gibbs state."""
    loss = jr.losses.Letter(jr.losses.FastThermostat(BETA, distance), {"beta": BETA})
    return jr.design(loss, START, bounds=BOUNDS, optimiser=jr.SciPy("SLSQP"), starts=starts)


def main() -> None:
    """Prints the design for D = 1e-4 and the trade-off."""
    print(found := fastest(1e-4), end="\n\n")
    system, bath = jr.letter.model(beta=BETA, **found.model)
    rho = jr.steady_state(system, bath).rho
    print(f"distance {jr.trace_distance(rho, jr.gibbs_state(system, BETA)):.6e}", end=", ")
    print(f"relaxation time {jr.relaxation_time(system, bath):.4f}\n")
    print(
        f"{'D at most':>10} {'tau':>12} {'rate':>9} {'width':>9} {'coupling':>9} {'length':>9}  outcome"
    )
    for distance in jnp.geomspace(1e-5, 1e-1, 9):
        each = fastest(float(distance))
        p = each.parameters
        print(
            f"{distance:10.1e} {jnp.exp(each.loss):12.5g} {p['rate']:9.4g} {p['width']:9.4g} {p['coupling']:9.4g} "
            f"{p['length']:9.4g}  {each.outcome}"
        )


if __name__ == "__main__":
    main()
