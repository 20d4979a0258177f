"""Evaluations to the same loss from the same start: by gradients, and without them.

`python -m benchmarks.design` prints a table for each design of `examples/design_*.py`, three with 4 and two with 64
parameters. The loss to be reached is the least that the searches by gradients found, plus a margin; the others may use
`--limit` times as many evaluations as the best of those. Of the random methods the median of three runs is told.
"""

import argparse
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

PROBLEMS = {  # module, problem, margin, evaluations allowed to the searches by gradients from each start, starts
    "thermostat": ("design_thermostat", "problem", 1e-6, 300, 1),
    "coherence": ("design_coherence", "problem", 1e-6, 300, 1),
    "thermometry": ("design_thermometry", "problem", 1e-6, 300, 1),
    "state": ("design_profile", "state", 1e-6, 150, 1),
    "ergotropy": ("design_profile", "ergotropy", 1e-4, 100, 1),
    "ergotropy, 8 starts": ("design_profile", "ergotropy", 4e-2, 40, 8),
}


def row(name, times, seeds):
    """One design."""
    from importlib import import_module

    from derivative_free import OPTIMISERS, compare, cost_of_gradient

    module, function, margin, steps, starts = PROBLEMS[name]
    make = getattr(import_module(module), function)
    print(f"\n{name}: {make.__doc__}")
    problem = make()
    compare(problem, OPTIMISERS, margin, max_steps=steps, starts=starts, times=times, seeds=seeds)
    print(f"  (a loss with its gradient takes the time of {cost_of_gradient(problem):.1f} losses)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*PROBLEMS], help="one design")
    parser.add_argument(
        "--limit", type=int, default=200, help="evaluations of the others, in times"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of the random methods")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in PROBLEMS if arguments.only is None else [arguments.only]:
        row(name, arguments.limit, arguments.seeds)


if __name__ == "__main__":
    main()
