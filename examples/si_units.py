"""The Letter's estimate in SI units: which rate, and which scatterer, would a molecular gas need at room temperature?

    python examples/si_units.py

A qubit of ω = 10⁹ rad/s is hit by particles of 1000 proton masses at 300 K, localised to Δx = 50 nm. First the numbers
of Eq. (24), then the steady states themselves, with exact amplitudes.
"""

import math

import jax
import jax.numpy as jnp
from scipy import constants

import jaxres as jr

jax.config.update("jax_enable_x64", True)

OMEGA = 1e9  # rad/s
TEMPERATURE = 300.0  # K
MASS = 1000.0  # m_p
WIDTH = 50.0  # nm

#: length L (nm), phase λL/ħv that a particle of thermal speed v brings, width Δx (nm), rate Γ (1/s)
CASES = (
    (1.0, 0.1, WIDTH, OMEGA),
    (0.1, 1.0, WIDTH, OMEGA),
    (0.1, 1.0, WIDTH, 1000 * OMEGA),
    (0.1, 1.0, 0.1, OMEGA),
    (0.1, 1.0, 0.1, 1000 * OMEGA),
)

#: scatterers are a hundred times longer than the thermal wavelength: narrow resonances need a fine grid
GRID = jr.DoubleExponential(6144, 6144)

#: energies in kT, masses in those of the particles: then β = m = v = 1
UNITS = jr.units.Units((TEMPERATURE, "K"), (MASS, "m_p"))


def estimate(length: float, rate: float) -> dict[str, float]:
    """The numbers of Eq. (24), straight from SI: exponent, needed rate (1/s), v = √(kT/m) and ΓL (m/s), ħω/kT."""
    mass, kT = MASS * constants.m_p, constants.k * TEMPERATURE
    exponent = mass * (WIDTH * 1e-9 * OMEGA) ** 2 / (2 * kT)
    return {
        "exponent": exponent,
        "needed_rate": OMEGA * math.exp(exponent),
        "speed": math.sqrt(kT / mass),
        "rate_times_length": rate * length * 1e-9,
        "quantum_over_thermal": constants.hbar * OMEGA / kT,
    }


def model(length: float, phase: float, width: float, rate: float, units: jr.units.Units = UNITS):
    """The Letter's qubit and its gas: lengths in nm, the rate in 1/s."""
    speed = math.sqrt(constants.k * TEMPERATURE / (MASS * constants.m_p))
    L, dx = units.to_model(length, "nm"), units.to_model(width, "nm")
    return jr.letter.model(
        splitting=units.to_model(OMEGA, "rad/s"),
        beta=1 / units.to_model(TEMPERATURE, "K"),
        mass=units.to_model(MASS, "m_p"),
        width=dx,
        position=-3 * dx,
        length=L,
        coupling=phase * units.to_model(speed, "m/s") / L,
        rate=units.to_model(rate, "1/s"),
    )


def solve(length: float, phase: float, width: float, rate: float):
    """The steady state, and the map of one collision."""
    system, reservoir = model(length, phase, width, rate)
    S = jr.scattering_map(system, reservoir, quadrature=GRID)
    return jr.steady_state(system, jr.Collisions(S, reservoir.rate)), S


def main() -> None:
    """Prints the estimate, and what becomes of it."""
    numbers = estimate(length=1.0, rate=OMEGA)
    print(f"exponent beta m dx^2 omega^2/2  {numbers['exponent']:.4f}")
    print(f"needed rate omega e^exponent    {numbers['needed_rate']:.3g} /s")
    print(f"thermal speed sqrt(kT/m)        {numbers['speed']:.3g} m/s")
    print(f"rate x length, 1e9/s and 1 nm   {numbers['rate_times_length']:.3g} m/s")
    print(f"hbar omega/kT                   {numbers['quantum_over_thermal']:.3g}\n")
    print(
        "L (nm)  phase  dx (nm)  rate (1/s)  rate L/v  Eq. (24)  |rho01| exactly  error of map  S(1) - 1"
    )
    for case in CASES:
        length, phase, width, rate = case
        sol, S = solve(*case)
        crowd = estimate(length, rate)["rate_times_length"] / numbers["speed"]
        law, one = jr.coherence_estimate(*model(*case)), jnp.eye(2)
        print(
            f"{length:6.1f} {phase:6.1f} {width:8.1f} {rate:11.0e} {crowd:9.3f} {law:9.2g} "
            f"{jr.coherence(sol.rho):16.3e} {S.error:13.1e} {jnp.max(jnp.abs(S(one) - one)):9.1e}"
        )
    print(
        "\nEq. (24) is a law up to a factor. Here the factor is small: a gas this hot hardly tells the levels apart,\n"
        "and what a collision makes of the state of infinite temperature, S(1) - 1, is of the order of hbar omega/kT.\n"
        "Large coherences need narrower packets and rates far above omega; then rate L << v no longer holds."
    )


if __name__ == "__main__":
    main()
