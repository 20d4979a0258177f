"""The steady state in powers of the rate, Eqs. (10) to (15), and the estimate of Eq. (24)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import largest, reservoir_of, system_of

import jaxres as jr

ORDER = 4


@pytest.fixture(scope="module", params=["paper", "qutrit"])
def case(request, golden):
    data = golden[request.param]
    system, reservoir = system_of(data), reservoir_of(data, rate=1e-2)
    series = jr.perturbation_series(system, reservoir, ORDER)
    return system, reservoir, jr.scattering_map(system, reservoir), series


@jax.jit
def steady(system, S, rate):
    return jr.steady_state(system, jr.Collisions(S, rate)).rho


@pytest.mark.slow
def test_the_error_of_order_n_falls_as_the_power_n_plus_1(case):
    system, reservoir, S, _ = case
    rates = float(jnp.min(jnp.diff(system.levels))) * np.array([0.004, 0.04])
    for n in range(ORDER):
        errors = []
        for rate in map(jnp.asarray, rates):
            at = eqx.tree_at(lambda b: b.rate, reservoir, rate)
            rho = jr.perturbative_state(system, at, n)
            errors.append(largest(rho - steady(system, S, rate)))
        slope = np.diff(np.log(errors)) / np.diff(np.log(rates))
        assert abs(slope[0] - (n + 1)) < 0.1, (n, errors)


@pytest.mark.slow
def test_the_series_solves_the_stationary_equation_order_by_order(case):
    system, _, S, series = case
    e = np.asarray(system.levels)
    gap = np.subtract.outer(e, e)
    for n in range(ORDER):
        collisions = np.asarray(S(series[n]) - series[n])
        turning = -1j * gap * np.asarray(series[n + 1])
        scale = largest(series[n])
        assert largest(turning + collisions) < 1e-14 * max(scale, 1)  # populations included
    assert largest(jnp.trace(series, axis1=1, axis2=2) - np.eye(ORDER + 1)[0]) < 1e-13
    assert largest(series - jnp.conj(jnp.swapaxes(series, 1, 2))) < 1e-13 * largest(series)


@pytest.mark.slow
def test_the_first_coefficients_are_the_limit_and_its_slope(case):
    system, _, S, series = case
    zero, one = jnp.zeros(()), jnp.ones(())
    rho, slope = jax.jvp(lambda rate: steady(system, S, rate), (zero,), (one,))
    assert largest(series[0] - rho) < 1e-13
    assert largest(series[1] - slope) < 1e-12 * largest(slope)


def test_order_zero_is_the_gibbs_state_where_detailed_balance_holds(case):
    system, reservoir, _, series = case
    assert largest(series[0] - jr.gibbs_state(system, reservoir.packet.beta)) < 1e-8


@pytest.mark.slow
def test_the_derivative_of_the_series_equals_differences():
    @jax.jit
    def last(splitting):
        def f(splitting):
            return jr.perturbation_series(*jr.letter.model(splitting=splitting), 3)[3, 0, 1].real

        return jax.jvp(f, (splitting,), (jnp.ones(()),))

    h = 1e-4
    difference = (last(jnp.asarray(0.6 + h))[0] - last(jnp.asarray(0.6 - h))[0]) / (2 * h)
    assert abs(last(jnp.asarray(0.6))[1] / difference - 1) < 1e-6


def test_levels_that_meet_are_refused(case):
    system, reservoir, _, _ = case
    together = eqx.tree_at(lambda s: s.levels, system, 0 * system.levels)
    with pytest.raises(ValueError, match="distinct levels"):
        jr.perturbation_series(together, reservoir, 1)

    if system.size == 2:

        @jax.jit
        def series(levels):
            return jr.perturbation_series(jr.System(levels), reservoir, 1)

        assert np.all(np.isnan(series(together.levels)))
        assert np.all(np.isfinite(series(system.levels)))


@pytest.mark.slow
def test_uncoupled_levels_have_no_series(golden):
    system, reservoir = system_of(golden["paper"]), reservoir_of(golden["paper"])
    idle = eqx.tree_at(lambda b: b.scatterer.coupling, reservoir, 0 * reservoir.scatterer.coupling)
    assert np.all(np.isnan(jr.perturbation_series(system, idle, 1)))
    with pytest.raises(ValueError, match="order"):
        jr.perturbation_series(system, reservoir, -1)


@pytest.mark.slow
def test_the_estimate_and_where_it_holds():
    """Eq. (24) follows the exact coherence up to z = √(βm) Δx ω of order 1, and z K₁(z) beyond."""
    splitting, widths = 1.2, jnp.array([4.0, 8.0, 16.0, 32.0])

    @jax.jit
    @jax.vmap
    def both(width):
        system, reservoir = jr.letter.model(splitting=splitting, width=width, rate=1e-3)
        exact = reservoir.rate * jr.coherence(jr.perturbation_series(system, reservoir, 1)[1])
        return exact, jr.coherence_estimate(system, reservoir)

    exact, estimate = both(widths)
    z = 0.1 * np.asarray(widths) * splitting
    assert largest(estimate / (1e-3 / splitting * np.exp(-(z**2) / 2)) - 1) < 1e-14
    of_all_momenta = 1e-3 / splitting * z * scipy.special.k1(z)
    assert 0.5 < (exact / estimate)[1] / (exact / estimate)[0] < 2  # z = 0.48 and 0.96
    assert (exact / estimate)[3] / (exact / estimate)[1] > 30  # z = 3.84
    assert np.all(np.abs(np.log(np.diff(np.log(exact / of_all_momenta)) + 1)) < 0.4)
    system, reservoir = jr.letter.model()
    with pytest.raises(ValueError, match="EffusionPacket"):
        jr.coherence_estimate(
            system, eqx.tree_at(lambda b: b.packet, reservoir, Beam(reservoir.packet.mass))
        )


class Beam(jr.AbstractPacket):
    """A packet with no temperature."""

    mass: jax.Array

    def density(self, p, q):
        raise NotImplementedError

    def distribution(self, p):
        raise NotImplementedError

    def energy_scale(self):
        raise NotImplementedError

    def valid(self):
        raise NotImplementedError
