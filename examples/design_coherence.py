"""Coherence on demand: |ρ01| = 0.05 in a gas at β = 0.1, with as few collisions as possible.

    python examples/design_coherence.py

The same search from a file: jaxres design examples/coherence.toml. Last, the evaluations that it takes, by gradients
and without them.
"""

import jax
from derivative_free import OPTIMISERS, compare

import jaxres as jr

jax.config.update("jax_enable_x64", True)

BOUNDS = {"rate": (0.01, 100.0), "width": (0.1, 10.0), "coupling": (0.1, 5.0), "length": (0.1, 3.0)}
START = {"rate": 5.0, "width": 1.0, "coupling": 1.0, "length": 1.0}


LEAST = jr.losses.Letter(jr.losses.CoherenceAt(0.05, least_rate=True), {"beta": 0.1})


def problem() -> dict:
    """The design as one number, for methods that know no constraints."""
    return {"loss": jr.losses.Penalised(LEAST, weight=30.0), "start": START, "bounds": BOUNDS}


def main() -> None:
    """Prints any reservoir that has the coherence, the slowest one, and the evaluations."""
    wanted = jr.losses.Letter(jr.losses.CoherenceAt(0.05), {"beta": 0.1})
    print("Any rate:")
    print(jr.design(wanted, START, bounds=BOUNDS), end="\n\n")
    print("Least rate:")
    found = jr.design(LEAST, START, bounds=BOUNDS, optimiser=jr.SciPy("SLSQP"), starts=8)
    print(found)
    rho = jr.steady_state(*jr.letter.model(beta=0.1, **found.model)).rho
    print(f"|rho01| = {jr.coherence(rho):.8f} at rate {found.parameters['rate']:.6f}")
    print("\nEvaluations for the least rate with a penalty, from the first start:")
    compare(problem(), {"SLSQP": OPTIMISERS["SLSQP"]}, margin=1e-6)


if __name__ == "__main__":
    main()
