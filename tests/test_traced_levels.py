"""Levels that are computed inside `jit` give what the same levels give as known numbers.

A compiler may compute w·e_j − e_k in one operation with one rounding, differently wherever it is used. Differences
of levels then have wrong signs, equal ones are not 0, and one threshold stands at two places.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, slope

import jaxres as jr
from jaxres._quantum.levels import ascending, equal_levels, gaps, same_gap, splittings

FACTORS = np.linspace(0.31, 0.93, 9)


def reservoir_for(N, seed=0):
    packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=1.0, position=-3.0)
    return jr.Reservoir(packet, jr.Slab(hermitian(seed, N, scale=0.25), 0.8), 3.0)


def levels_of(seed, N):
    return np.sort(np.random.default_rng(seed).uniform(-1, 1, N))


def scaled(levels):
    return lambda w: jr.System(w * levels)


def shifted(levels):
    return lambda w: jr.System(w * levels + 0.3 * w**2)


def summed(levels):
    """Every level a sum of others."""
    return lambda w: jr.System(w * levels[0] + jnp.cumsum(w * np.diff(levels, prepend=levels[0])))


def replaced(levels):
    """Not made by the constructor."""
    system = jr.System(levels)
    return lambda w: eqx.tree_at(lambda s: s.levels, system, w * system.levels)


def turned(levels):
    H = hermitian(5, len(levels))
    return lambda w: jr.System.from_hamiltonian(w * H)


DEGENERATE = np.array([0.0, 0.31, 0.31]), np.array([-0.4, -0.4, 0.2, 0.2, 0.2])
LADDER = np.arange(4) * 0.37

UP, ALIKE = np.array([0.0, 0.0, 1.0]), np.full(3, 0.3)

CASES = {
    "2 scaled": (2, scaled(levels_of(0, 2))),
    "2 degenerate": (2, scaled(np.array([0.7, 0.7]))),
    "3 scaled": (3, scaled(levels_of(2, 3))),
    "3 degenerate": (3, scaled(DEGENERATE[0])),
    "4 shifted": (4, shifted(levels_of(2, 4))),
    "4 ladder": (4, shifted(LADDER)),
    "4 replaced": (4, replaced(levels_of(2, 4))),
    "5 scaled": (5, scaled(levels_of(12, 5))),
    "5 degenerate": (5, scaled(DEGENERATE[1])),
    "5 summed": (5, summed(levels_of(11, 5))),
    "3 Hamiltonian": (3, turned(np.zeros(3))),
    "3 oscillator": (3, lambda w: jr.systems.oscillator(3, w)),
    "4 spin": (4, lambda w: jr.systems.spin(1.5, w)),
    "4 chain": (4, lambda w: jr.systems.chain(2, field=w * UP, exchange=w * ALIKE)),
    "8 scaled": (8, scaled(levels_of(3, 8))),
}
EVERY_DAY = {"3 degenerate"}
SLOW = {"2 scaled", "4 shifted", "5 scaled", "5 degenerate", "3 oscillator", "4 ladder"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[]
            if name in EVERY_DAY
            else pytest.mark.slow
            if name in SLOW
            else pytest.mark.campaign,
        )
        for name in CASES
    ],
)
def test_levels_computed_in_a_compiled_program(name):
    N, system = CASES[name]
    reservoir = reservoir_for(N)

    def solve(w):  # the map, for it is also there where it is too poor for a state
        return jr.scattering_map(system(w), reservoir).tensor, jr.steady_state(system(w), reservoir)

    inside, batch = jax.jit(solve), jax.jit(jax.vmap(solve))(jnp.asarray(FACTORS))
    found = []
    for i, w in enumerate(FACTORS):
        # what compiles once for known numbers, too: the levels are an argument, and computed outside
        tensor, outside = solve(jnp.asarray(w))
        found.append(bool(outside.result == jr.RESULTS.successful))
        for S, sol in (inside(w), jax.tree.map(lambda x, i=i: x[i], batch)):
            assert largest(S - tensor) < 1e-10
            assert sol.result == outside.result
            np.testing.assert_allclose(sol.rho, outside.rho, rtol=0, atol=1e-10)
            assert abs(sol.map_error - outside.map_error) < 1e-10 + 1e-3 * outside.map_error
    # one coupling of levels of one energy leaves all states unchanged that it commutes with
    # The default grid, and the table's cautious estimate, leave none of five levels and more.
    assert not any(found) if name == "2 degenerate" else any(found) or N >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3 degenerate", "3 scaled"])
def test_gradients_by_levels_computed_in_a_compiled_program(name):
    N, system = CASES[name]
    reservoir = reservoir_for(N)

    fine = jr.DoubleExponential(
        nodes_between=192, nodes_above=64
    )  # the differences are those of the integral

    def entropy(w):
        rho = jr.steady_state(system(w), reservoir, quadrature=fine).rho
        return jr.von_neumann_entropy(rho)

    gradient, value = jax.jit(jax.grad(entropy)), jax.jit(entropy)
    for w in FACTORS[::4]:
        difference = slope(lambda t, w=w: value(w + t), 2e-4)
        assert abs(gradient(w) - difference) < 1e-6 * abs(difference)


@pytest.mark.slow
@pytest.mark.parametrize("function", [scaled, shifted, summed, replaced])
@pytest.mark.parametrize(
    "levels", [levels_of(1, 6), *DEGENERATE, LADDER], ids=["six", "three", "five", "ladder"]
)
def test_differences_of_levels_computed_in_a_compiled_program(function, levels):
    """Zeros, signs and equality are those of numbers that are known."""

    @jax.jit
    def inside(w):
        e = function(levels)(w).levels
        return gaps(e), splittings(e), same_gap(e), equal_levels(e), ascending(e)

    rows, columns = np.triu_indices(len(levels), 1)
    for w in np.linspace(0.2, 1.7, 50):
        gap, splitting, same, equal, in_order = inside(w)
        assert in_order
        assert np.all(np.diagonal(gap) == 0) and np.all(gap == -gap.T)
        assert np.all(splitting == gap[columns, rows]) and np.all(splitting >= 0)
        if function is not summed:  # where equal levels are not equal numbers
            assert np.all((splitting == 0) == (levels[rows] == levels[columns]))
        assert np.all(equal == equal_levels(jnp.asarray(levels)))
        assert np.all(same == same_gap(jnp.asarray(levels)))


@pytest.mark.slow
def test_a_sweep_over_levels_loses_no_point():
    reservoir = reservoir_for(4)
    levels = levels_of(2, 4)

    def coherence(w):
        return jr.coherence(jr.steady_state(jr.System(w * levels), reservoir).rho)

    data = jr.sweep(coherence, {"w": FACTORS})
    known = [jr.coherence(jr.steady_state(jr.System(w * levels), reservoir).rho) for w in FACTORS]
    assert not np.any(data.failed)
    assert largest(np.asarray(data.value) - np.array(known)) < 1e-10
