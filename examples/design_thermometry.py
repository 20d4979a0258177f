"""Which parameter does the coherence tell about? Fisher information of β, Δx and Γ in the qubit's steady state.

    python examples/design_thermometry.py

The quantum Fisher information is what the best measurement can tell, the classical one what a measurement of the
energy tells. The best operating point for thermometry is searched with the first one's gradient. Last, the evaluations
that this takes, by gradients and without them.
"""

import jax
import jax.numpy as jnp
from derivative_free import OPTIMISERS, compare

import jaxres as jr

jax.config.update("jax_enable_x64", True)

NAMES = ("beta", "width", "rate")
BOUNDS = {"rate": (0.1, 100.0), "width": (0.1, 10.0), "coupling": (0.1, 5.0), "length": (0.1, 3.0)}
START = {"rate": 5.0, "width": 1.0, "coupling": 1.0, "length": 1.0}


def state(told, rest):
    """The steady state, as a function of the parameters that it is to tell about."""
    names = dict(zip(NAMES, told, strict=True)) | rest
    return jr.steady_state(*jr.letter.model(**names)).rho


@jax.jit
def both(told, rest):
    """Quantum and classical Fisher information, shape (3, 3) each."""
    rho, drho = state(told, rest), jnp.moveaxis(jax.jacfwd(state)(told, rest), -1, 0)
    return jr.quantum_fisher(rho, drho), jr.classical_fisher(rho, drho)


def thermometry(p):
    """−log of the quantum Fisher information of β, per β²: the relative precision of one measurement."""

    def at(beta):
        return jr.steady_state(*jr.letter.model(beta=beta, **p)).rho

    rho, drho = jax.jvp(at, (0.1,), (1.0,))
    return -jnp.log(0.01 * jr.quantum_fisher(rho, drho[None])[0, 0])


def problem() -> dict:
    """The best operating point for thermometry."""
    return {"loss": thermometry, "start": START, "bounds": BOUNDS}


def main() -> None:
    """Prints the information at the Letter's parameters, over rates, and the best point for a thermometer."""
    print("x² F_xx of one measurement: quantum (energy alone)")
    for rate in (0.1, 1.0, 5.0, 20.0, 100.0):
        told = jnp.array([0.1, 1.0, rate])
        quantum, energy = both(told, {"splitting": 0.6})
        each = [
            f"{name} {told[i] ** 2 * quantum[i, i]:.3e} ({told[i] ** 2 * energy[i, i]:.3e})"
            for i, name in enumerate(NAMES)
        ]
        print(f"  rate {rate:6g}: " + ", ".join(each))
    found = jr.design(**problem(), optimiser=jr.SciPy("SLSQP"), starts=8)
    print(f"\nbest thermometer: β² F = {jnp.exp(-found.loss):.6g}, Gibbs state ", end="")
    system, _ = jr.letter.model()
    gibbs = jax.jacfwd(lambda beta: jr.gibbs_state(system, beta))(0.1)
    print(f"{0.01 * jr.classical_fisher(jr.gibbs_state(system, 0.1), gibbs[None])[0, 0]:.6g}")
    print(found)
    print("\nEvaluations, from the first start:")
    compare(problem(), {"SLSQP": OPTIMISERS["SLSQP"]}, margin=1e-6)


if __name__ == "__main__":
    main()
