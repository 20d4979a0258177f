"""A thermostat: the fastest relaxation to the Gibbs state that a gas at β = 0.1 allows, and what exactness costs.

    python examples/design_thermostat.py

Free are the rate Γ, the packets' width Δx, the coupling λ and the length L. The relaxation time τ is made least, with a
trace distance to the Gibbs state of at most D; the curve τ(D) is the trade-off between the two. Last, the evaluations
that the search takes, by gradients and without them.
"""

import jax
import jax.numpy as jnp
from derivative_free import OPTIMISERS, compare

import jaxres as jr

jax.config.update("jax_enable_x64", True)

BETA = 0.1
BOUNDS = {"rate": (0.1, 100.0), "width": (0.1, 30.0), "coupling": (0.1, 5.0), "length": (0.1, 3.0)}
START = {"rate": 5.0, "width": 5.0, "coupling": 1.0, "length": 1.0}


def fast(distance: float) -> jr.losses.Letter:
    """The loss: log τ, and the constraint that the state comes within a distance of the Gibbs state."""
    return jr.losses.Letter(jr.losses.FastThermostat(BETA, distance), {"beta": BETA})


def fastest(distance: float, start: dict = START, starts: int = 16) -> jr.Design:
    """The least log τ within a distance of the Gibbs state."""
    slsqp = jr.SciPy("SLSQP")
    return jr.design(fast(distance), start, bounds=BOUNDS, optimiser=slsqp, starts=starts)


def problem() -> dict:
    """The design for D = 1e-4 as one number, for methods that know no constraints."""
    loss = jr.losses.Penalised(fast(1e-4), weight=30.0)
    return {"loss": loss, "start": START, "bounds": BOUNDS}


def main() -> None:
    """Prints the design for D = 1e-4, the trade-off, and the evaluations."""
    print(found := fastest(1e-4), end="\n\n")
    system, reservoir = jr.letter.model(beta=BETA, **found.model)
    rho = jr.steady_state(system, reservoir).rho
    print(f"distance {jr.trace_distance(rho, jr.gibbs_state(system, BETA)):.6e}", end=", ")
    print(f"relaxation time {jr.relaxation_time(system, reservoir):.4f}\n")
    heads = ("D at most", "tau", *BOUNDS)
    print(("{:>10} " * len(heads)).format(*heads) + "  map error  result")
    best = START
    for distance in jnp.geomspace(1e-5, 1e-1, 13):
        # what was found for a smaller distance keeps a larger one too: the curve can only fall
        found = fastest(float(distance), best)
        best = found.model
        numbers = distance, jnp.exp(found.loss), *(best[name] for name in BOUNDS)
        error = jr.steady_state(*jr.letter.model(beta=BETA, **best)).map_error
        print(("{:10.4g} " * len(heads)).format(*map(float, numbers)), end="")
        print(f"  {error:9.0e}  {found.result}")
    print("\nEvaluations for D = 1e-4 as a penalty, from the first start:")
    compare(problem(), {"SLSQP": OPTIMISERS["SLSQP"]}, margin=1e-6)


if __name__ == "__main__":
    main()
