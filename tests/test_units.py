"""Numbers in SI against numbers of the model: constants by hand, round trips, and the Letter's estimate."""

import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

import jaxres as jr
from jaxres.units import UNITS, Units

# CODATA 2022, by hand (h, e and k are exact)
H, E, K, M_P = 6.62607015e-34, 1.602176634e-19, 1.380649e-23, 1.67262192595e-27
HBAR = H / (2 * math.pi)

THERMAL = Units((300, "K"), (1000, "m_p"))


def test_frequencies_are_no_angular_frequencies():
    units = Units((1e9, "rad/s"), (1, "nm"))
    np.testing.assert_allclose(units.to_model(1.0, "GHz"), 2 * np.pi, rtol=1e-14)
    np.testing.assert_allclose(units.to_model(1e9, "rad/s"), 1, rtol=1e-15)
    # an event a nanosecond, and that nanosecond
    np.testing.assert_allclose(units.to_model(1e9, "1/s"), 1, rtol=1e-15)
    np.testing.assert_allclose(units.to_model(1.0, "ns"), 1, rtol=1e-15)


def test_constants_against_numbers_by_hand():
    joule = Units((1, "J"), (1, "m"))
    sizes = {"eV": E, "K": K, "GHz": 1e9 * H, "THz": 1e12 * H, "rad/s": HBAR, "1/s": HBAR}
    sizes |= {"s": 1 / HBAR, "m_p": M_P / HBAR**2, "u": 1.66053906892e-27 / HBAR**2}
    sizes |= {"m/s": HBAR, "kg m/s": 1 / HBAR, "nm": 1e-9, "kg": 1 / HBAR**2}
    for unit, size in sizes.items():
        np.testing.assert_allclose(joule.to_model(1.0, unit), size, rtol=2e-9, err_msg=unit)


@pytest.mark.parametrize(
    "scales",
    [
        ((300, "K"), (1000, "m_p")),
        ((5.0, "GHz"), (50, "nm")),
        ((2, "ns"), (3, "kg m/s")),
        ((40, "u"), (500, "m/s")),
        ((1, "m_p"), (1, "nm")),
        ((1, "um"), (1, "us")),
    ],
    ids=str,
)
def test_any_two_quantities_fix_the_units(scales):
    units = Units(*scales)
    for value, unit in scales:
        np.testing.assert_allclose(units.to_model(value, unit), 1, rtol=1e-13)
    for unit in UNITS:
        np.testing.assert_allclose(units.from_model(units.to_model(7.3, unit), unit), 7.3)
    # ħ = k = 1: energy times time, momentum times length, m v², kT
    to = units.to_model
    np.testing.assert_allclose(to(1.0, "J") * to(HBAR, "s"), 1, rtol=1e-9)
    np.testing.assert_allclose(to(HBAR, "kg m/s") * to(1.0, "m"), 1, rtol=1e-9)
    np.testing.assert_allclose(to(2.0, "kg") * to(3.0, "m/s") ** 2, to(18.0, "J"), rtol=1e-12)
    np.testing.assert_allclose(to(2.0, "kg") * to(3.0, "m/s"), to(6.0, "kg m/s"), rtol=1e-12)
    np.testing.assert_allclose(to(6.0, "m") / to(3.0, "s"), to(2.0, "m/s"), rtol=1e-12)
    np.testing.assert_allclose(to(1.0, "K"), to(K, "J"), rtol=1e-12)


def test_conversions_take_arrays_and_derivatives():
    widths = jnp.array([1.0, 2.0, 5.0])
    converted = jax.jit(jax.vmap(lambda x: THERMAL.to_model(x, "nm")))(widths)
    np.testing.assert_allclose(THERMAL.from_model(converted, "pm"), 1e3 * widths)
    slope = jax.grad(lambda x: THERMAL.to_model(x, "nm"))(1.0)
    np.testing.assert_allclose(slope, THERMAL.to_model(1.0, "nm"), rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Units((1, "GHz"), (1, "ns")), "must be independent"),
        (lambda: Units((1, "nm"), (1, "kg m/s")), "must be independent"),
        (lambda: Units((-1, "K"), (1, "nm")), "must be positive"),
        (lambda: Units((1, "Kelvin"), (1, "nm")), "must be one of"),
        (lambda: THERMAL.to_model(1.0, "nanometres"), "must be one of"),
    ],
)
def test_bad_units_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'unit'"):
        jr.unit  # noqa: B018


# --------------------------------------------------------------------------------------------------
# Physics
# --------------------------------------------------------------------------------------------------


def gas(units):
    """A cold qubit of 20 GHz and light particles, the model in these units."""
    kT = units.to_model(0.5, "K")
    width = units.to_model(1.0, "nm")
    return jr.letter.model(
        splitting=units.to_model(20.0, "GHz"),
        coupling=units.to_model(0.03, "meV"),
        beta=1 / kT,
        mass=units.to_model(1.0, "u"),
        length=units.to_model(2.0, "nm"),
        width=width,
        position=-3 * width,
        rate=units.to_model(1e10, "1/s"),
    )


@pytest.mark.slow
def test_the_physics_does_not_depend_on_the_units():
    def states(system, reservoir):
        S = jr.scattering_map(system, reservoir)
        return S.tensor, jr.steady_state(system, jr.Collisions(S, reservoir.rate)).rho

    choices = [((20, "GHz"), (1, "nm")), ((1, "K"), (5, "u")), ((1, "ps"), (100, "m/s"))]
    tensors, rhos = zip(*(states(*gas(Units(*scales))) for scales in choices), strict=True)
    assert jr.coherence(rhos[0]) > 1e-3
    for tensor, rho in zip(tensors[1:], rhos[1:], strict=True):
        assert largest(tensor - tensors[0]) < 1e-11
        assert largest(rho - rhos[0]) < 1e-11
    # and in SI: the Gibbs ratio of 20 GHz at 0.5 K
    units = Units(*choices[2])
    p = jr.populations(jr.gibbs_state(gas(units)[0], 1 / units.to_model(0.5, "K")))
    np.testing.assert_allclose(p[1] / p[0], math.exp(-H * 20e9 / (K * 0.5)), rtol=1e-9)


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(Path(__file__).parents[1] / "examples" / "si_units.py"))


def test_the_letters_estimate(example):
    numbers = example["estimate"](length=1.0, rate=1e9)
    mass = 1000 * M_P
    exponent = mass * (50e-9 * 1e9) ** 2 / (2 * K * 300)
    np.testing.assert_allclose(numbers["exponent"], exponent, rtol=1e-8)
    assert 0.45 < exponent < 0.55
    assert 1e9 < numbers["needed_rate"] < 2e9
    # one collision at a time, ΓL ≪ √(kT/m), asks for scatterers much shorter than the packets
    assert numbers["rate_times_length"] < 0.03 * numbers["speed"]
    np.testing.assert_allclose(numbers["speed"], math.sqrt(K * 300 / mass), rtol=1e-8)
    # the model says the same, in whatever units
    for units in (example["UNITS"], Units((1e9, "rad/s"), (1, "nm"))):
        system, reservoir = example["model"](1.0, 0.1, 50.0, 1e9, units)
        p = reservoir.packet
        omega = system.levels[1] - system.levels[0]
        inside = p.beta * p.mass * (p.width * omega) ** 2 / 2
        np.testing.assert_allclose(inside, exponent, rtol=1e-8)
        speed = jnp.sqrt(1 / (p.beta * p.mass))
        np.testing.assert_allclose(units.from_model(speed, "m/s"), numbers["speed"], rtol=1e-12)
        np.testing.assert_allclose(reservoir.rate / omega, 1, rtol=1e-12)


@pytest.mark.slow
def test_at_room_temperature_the_coherence_is_of_the_order_of_the_quantum_over_kT(example, capsys):
    example["main"]()
    printed = capsys.readouterr().out
    assert "0.5048" in printed and "1.66e+09 /s" in printed
    sol, S = example["solve"](0.1, 1.0, 50.0, 1e9)
    assert sol.result == jr.RESULTS.successful and S.error < 1e-8
    small = HBAR * 1e9 / (K * 300)
    # populations of the Gibbs state at that temperature, ½ ± ħω/4kT, up to a quarter of it at this rate
    assert abs((sol.rho[0, 0].real - 0.5) / (small / 4) - 1) < 0.25
    # Eq. (24) is 0.6 here; the coherence is smaller by ħω/kT, as is what a collision adds to 1
    one = jnp.eye(2)
    assert 0.1 * small < largest(S(one) - one) < small
    assert 0.1 * small < jr.coherence(sol.rho) < small
    # it is large for narrow packets and Γ ≫ ω, where particles are no longer alone in the scatterer
    assert jr.coherence(example["solve"](0.1, 1.0, 0.1, 1e12)[0].rho) > 100 * small
    assert example["estimate"](0.1, 1e12)["rate_times_length"] > 49
