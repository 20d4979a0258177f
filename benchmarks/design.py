"""Solves to the same loss from the same start: by gradients, and without them.

`python -m benchmarks.design` prints a table for designs with 4 and with 64 parameters. The loss to be reached is what
jaxres' search by gradients came to, plus a small margin. Ratios are to the fewest solves by gradients; the others may
use `--limit` times as many.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import jaxres as jr
from benchmarks._derivative_free import compare
from jaxres._design._drive import drive, prepare

FOUR = {"rate": (0.1, 100.0), "width": (0.1, 30.0), "coupling": (0.1, 5.0), "length": (0.1, 3.0)}
START = {"rate": 5.0, "width": 5.0, "coupling": 1.0, "length": 1.0}


def thermostat():
    """Fastest relaxation with a trace distance of 1e-4 to the Gibbs state, as a penalty. Four parameters."""
    fast = jr.losses.Penalised(jr.losses.FastThermostat(0.1, 1e-4), 30.0)
    return {"loss": jr.losses.Letter(fast, {"beta": 0.1}), "start": START, "bounds": FOUR}


def coherence():
    """|rho01| = 0.05 at the least rate, as a penalty. Four parameters."""
    least = jr.losses.Penalised(jr.losses.CoherenceAt(0.05, least_rate=True), 30.0)
    start = START | {"width": 1.0}
    return {"loss": jr.losses.Letter(least, {"beta": 0.1}), "start": start, "bounds": FOUR}


def profile():
    """The most steady ergotropy of a qutrit, by 64 slab heights."""
    V = jnp.array([[0.0, 1.0, 0.4], [1.0, 0.0, 0.7], [0.4, 0.7, 0.0]])
    packet = jr.EffusionPacket(beta=1.0, mass=1.0, width=0.5, position=-3.0)
    bath = jr.Reservoir(packet=packet, scatterer=jr.Profile(V, jnp.ones(64), 2.0), rate=5.0)
    return {
        "loss": jr.losses.Ergotropy(quadrature=jr.DoubleExponential(24, 24)),
        "start": (jr.System([-1.0, 0.1, 1.3]), bath),
        "bounds": {"scatterer.heights": (-3.0, 3.0)},
    }


PROBLEMS = {  # problem, steps of the gradient, margin of the loss to be reached
    "thermostat, 4": (thermostat, 200, 1e-3),
    "coherence at the least rate, 4": (coherence, 200, 1e-3),
    "profile for ergotropy, 64": (profile, 15, 0.0),
}


def row(name, limit):
    """One line for each method."""
    problem, steps, margin = PROBLEMS[name]
    ready = prepare(**problem(), steps=steps)
    found = drive(ready, progress=False)
    target = found.loss + margin
    begins = float(found.history["loss"][0][0])
    print(f"\n{name} parameters: loss from {begins:.6g} to {target:.6g}")
    solves = _until(found, target)
    print(f"  {'gradients: L-BFGS':24} {solves:8} solves")
    for method in ("SLSQP", "L-BFGS-B"):
        other = drive(
            prepare(
                **problem(),
                steps=steps if margin == 0 else 4 * steps,
                optimiser=jr.SciPy(method),
                target=target,
            ),
            progress=False,
        )
        count = _until(other, target)
        print(
            f"  {'gradients: SciPy ' + method:24} {count or other.solves:8} solves"
            + ("" if count else f", not reached: it came to {other.loss:.6g}")
        )
        solves = min(solves, count or solves)
    for method, (count, best) in compare(ready, target, limit * solves).items():
        reached = best <= target
        print(
            f"  {method:24} {count:8} solves, {'' if reached else 'more than '}{count / solves:.0f} times as many"
            + ("" if reached else f"; it came to {best:.6g}"),
            flush=True,
        )


def _until(found, target):
    """Solves until the loss was reached; 0 if it was not."""
    below = found.history["loss"][0] <= target
    return 1 + int(np.argmax(below)) if np.any(below) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*PROBLEMS], help="one problem")
    parser.add_argument("--limit", type=int, default=200, help="solves of the others, in times")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in PROBLEMS if arguments.only is None else [arguments.only]:
        row(name, arguments.limit)


if __name__ == "__main__":
    main()
