"""Computed collisions in the place of reservoirs: the same numbers, one judgement of the maps, named refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

import jaxres as jr

SYSTEM, HOT = jr.letter.model(beta=0.05, rate=2.0)
_, COLD = jr.letter.model(beta=0.3, rate=1.0)
GROUND = jnp.diag(jnp.array([1.0, 0.0]))
KEY = jax.random.key(0)

#: everything that takes computed collisions in the place of the reservoirs: several, or a single one
SEVERAL = {
    "steady_state": lambda c: jr.steady_state(SYSTEM, c).rho,
    "generator": lambda c: jr.generator(SYSTEM, c).tensor,
    "evolve": lambda c: jr.evolve(SYSTEM, c, GROUND, [0.5, 2.0]),
    "spectrum": lambda c: jr.spectrum(SYSTEM, c),
    "relaxation_time": lambda c: jr.relaxation_time(SYSTEM, c),
    "limit_cycle": lambda c: jr.limit_cycle(SYSTEM, c).average,
    "currents": lambda c: jr.currents(SYSTEM, c).entropy_production,
    "counting_statistics": lambda c: jr.counting_statistics(SYSTEM, c, 2).cumulants,
    "tilted_generator": lambda c: jr.tilted_generator(SYSTEM, c, [0.1, 0.2]).tensor,
    "loss": lambda c: jr.losses.HeatCurrent(0)(SYSTEM, c),
}
SINGLE = {
    "trajectory": lambda c: jr.trajectory(SYSTEM, c, GROUND, collisions=4, key=KEY).states,
    "trajectories": lambda c: (
        jr.trajectories(SYSTEM, c, GROUND, [0.5], realisations=4, key=KEY).mean
    ),
    "cycle_map": lambda c: jr.cycle_map(SYSTEM, c).tensor,
    "cycle_state": lambda c: jr.cycle_state(SYSTEM, c).average,
    "perturbation_series": lambda c: jr.perturbation_series(SYSTEM, c, 2),
    "perturbative_state": lambda c: jr.perturbative_state(SYSTEM, c, 2),
}
#: what it returns says by itself how accurate it is, and is not replaced by NaN
CARRIES_ITS_ERROR = ("generator", "tilted_generator", "cycle_map")


@pytest.fixture(scope="module")
def both():
    return jr.collisions(SYSTEM, [HOT, COLD])


@pytest.fixture(scope="module")
def one():
    return jr.collisions(SYSTEM, HOT)


@pytest.mark.parametrize("name", SEVERAL)
def test_computed_collisions_of_several_reservoirs_give_the_same(name, both):
    assert largest(SEVERAL[name](both) - SEVERAL[name]([HOT, COLD])) < 1e-14


@pytest.mark.parametrize("name", SINGLE)
def test_computed_collisions_of_one_reservoir_give_the_same(name, one):
    assert largest(SINGLE[name](one) - SINGLE[name](HOT)) < 1e-14


def test_one_set_of_maps_serves_every_rate(one):
    rates = jnp.array([0.0, 0.3, 5.0, jnp.inf])
    curve = jax.vmap(lambda rate: jr.steady_state(SYSTEM, one.with_rates(rate)).rho)(rates)
    for rate, rho in zip(rates, curve, strict=True):
        reservoir = jr.Reservoir(HOT.packet, HOT.scatterer, rate)
        assert largest(rho - jr.steady_state(SYSTEM, reservoir).rho) < 1e-14


@pytest.mark.slow
def test_gradients_pass_through_computed_collisions():
    def coherence(reservoirs, computed):
        c = jr.collisions(SYSTEM, reservoirs) if computed else reservoirs
        return jr.coherence(jr.steady_state(SYSTEM, c).rho)

    through, direct = (
        jax.jit(jax.grad(coherence), static_argnums=1)([HOT, COLD], x) for x in (True, False)
    )
    for x, y in zip(jax.tree.leaves(through), jax.tree.leaves(direct), strict=True):
        assert largest(x - y) <= 1e-12 * largest(y)


def poor(S):
    """A map of the same entries, known to 2e-3 only."""
    return jr.Superoperator(S.tensor, 2e-3)


@pytest.mark.parametrize("name", [*SEVERAL, *SINGLE])
def test_what_one_function_refuses_all_refuse(name, both, one):
    good, call = (both, SEVERAL[name]) if name in SEVERAL else (one, SINGLE[name])
    bad = jr.Collisions([poor(S) for S in good.maps], good.rates, reservoirs=good.reservoirs)
    assert bad.result == jr.RESULTS.map_not_converged
    value = np.asarray(call(bad))
    if name in CARRIES_ITS_ERROR:
        assert largest(value - call(good)) == 0
        return
    # an eigenvalue 0 has every generator, and a trajectory starts where it is told to
    unknown = value[1:] if name in ("spectrum", "trajectory") else value
    assert np.all(np.isnan(unknown))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEVERAL, *SINGLE])
def test_a_refusal_has_no_derivative_that_is_a_number(name, both, one):
    good, call = (both, SEVERAL[name]) if name in SEVERAL else (one, SINGLE[name])
    if name in (
        *CARRIES_ITS_ERROR,
        "trajectories",
    ):  # the last one is a loop outside of derivatives
        return
    maps = [poor(S) for S in good.maps]

    def real(rates):
        value = call(jr.Collisions(maps, rates, reservoirs=good.reservoirs))
        return jnp.real(value.reshape(-1)[-1])

    assert np.all(np.isnan(jax.grad(real)(good.rates)))


@pytest.mark.slow
def test_the_reason_is_named_and_can_be_raised(one):
    bad = jr.Collisions(poor(one.maps[0]), one.rates)
    several = (jr.steady_state, jr.currents, jr.counting_statistics)
    for function in several:
        extra = {"betas": [0.1]} if function is jr.currents else {}
        assert function(SYSTEM, bad, **extra).result == jr.RESULTS.map_not_converged
        with pytest.raises(RuntimeError, match="scattering map is too inaccurate"):
            function(SYSTEM, bad, throw=True, **extra)
        assert function(SYSTEM, one, throw=True).result == jr.RESULTS.successful
    path = jr.trajectory(SYSTEM, bad, GROUND, collisions=2, key=KEY)
    assert path.result == jr.RESULTS.map_not_converged and path.map_error == 2e-3
    for call in (
        lambda c: jr.evolve(SYSTEM, c, GROUND, [1.0], throw=True),
        lambda c: jr.spectrum(SYSTEM, c, throw=True),
        lambda c: jr.relaxation_time(SYSTEM, c, throw=True),
        lambda c: jr.trajectory(SYSTEM, c, GROUND, collisions=2, key=KEY, throw=True),
        jax.jit(lambda c: jr.steady_state(SYSTEM, c, throw=True).rho),
    ):
        call(one)
        with pytest.raises(RuntimeError, match="scattering map is too inaccurate"):
            jax.block_until_ready(call(bad))


def test_times_too_long_for_a_phase_are_named():
    # no collisions: the coherence turns for ever, and its phase at 1e17 periods is unknown
    idle = jr.Collisions(jr.Superoperator.identity(2), 0.0)
    rho = jnp.full((2, 2), 0.5)
    assert largest(jr.evolve(SYSTEM, idle, rho, [10.0], throw=True)[0, 0, 0] - 0.5) < 1e-14
    with pytest.raises(RuntimeError, match="too long for what does not relax"):
        jr.evolve(SYSTEM, idle, rho, [1e17], throw=True)


def test_parameters_that_are_not_admissible_are_named_when_traced():
    def result(width):
        c = jr.collisions(*jr.letter.model(width=width))
        return c.result, jr.steady_state(SYSTEM, c).result

    for found in jax.jit(result)(1e-9):
        assert found == jr.RESULTS.invalid_parameters


@pytest.mark.slow
def test_eight_strong_levels_are_refused_by_all():
    M = jax.random.normal(jax.random.key(8), (8, 8))
    system = jr.System(np.linspace(-1, 1, 8))
    slab = jr.Slab((M + M.T) / 2 / np.sqrt(8), 1.0)
    rough = jr.DoubleExponential(nodes_between=8, nodes_above=16)
    c = jr.collisions(system, jr.Reservoir(HOT.packet, slab, 5.0), quadrature=rough)
    assert c.map_error > 1e-3
    assert jr.steady_state(system, c).result == c.result == jr.RESULTS.map_not_converged
    assert np.all(np.isnan(jr.evolve(system, c, np.eye(8) / 8, [1.0])))
    assert np.isnan(jr.relaxation_time(system, c))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda c: jr.Collisions(c.maps, [1.0, 2.0, 3.0]),
            "`rates` must have one rate for each of 2 maps",
        ),
        (lambda c: jr.Collisions(c.maps, [1.0, -2.0]), "`rates` must not be negative"),
        (lambda c: jr.Collisions([], []), "`maps` must be a jaxres.Superoperator"),
        (lambda c: jr.Collisions([1.0], [1.0]), "`maps` must be a jaxres.Superoperator"),
        (lambda c: c.with_rates([1.0]), "`rates` must have one rate"),
        (
            lambda c: jr.steady_state(jr.System([0.0, 1.0, 2.0]), c),
            "`reservoirs.maps` must be of 3 levels",
        ),
        (
            lambda c: jr.steady_state(SYSTEM, c, amplitudes=jr.TransferMatrix()),
            "`amplitudes` must be left out",
        ),
        (
            lambda c: jr.evolve(SYSTEM, c.with_rates([1.0, jnp.inf]), GROUND, [1.0]),
            "`reservoirs.rates` must be finite",
        ),
        (lambda c: jr.cycle_state(SYSTEM, c), "`reservoir` must be a single one, but is 2"),
        (
            lambda c: jr.limit_cycle(SYSTEM, c.with_rates([1.0, 0.0])),
            "`reservoirs.rates` must be positive",
        ),
        (
            lambda c: jr.currents(SYSTEM, jr.Collisions(c.maps, c.rates)),
            "`betas` must be given for maps",
        ),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message, both):
    with pytest.raises(ValueError, match=message):
        wrong(both)
