"""Collisions with several reservoirs in turn: the limit cycle, what each stroke brings, and the sum of reservoirs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, slope

import jaxres as jr
from jaxres.waiting_times import Exponential, GammaDistributed, Regular

SYSTEM, HOT = jr.letter.model(beta=0.05, rate=4.0)
_, COLD = jr.letter.model(beta=0.6, rate=2.5, position=-4.0)
RESERVOIRS = [HOT, COLD, COLD]


@pytest.fixture(scope="module")
def maps():
    return [jr.scattering_map(SYSTEM, reservoir) for reservoir in RESERVOIRS]


def flight(rho, time):
    U = np.diag(np.exp(-1j * np.asarray(SYSTEM.levels) * time))
    return U @ rho @ U.conj().T


@pytest.mark.slow
def test_iteration_goes_to_it_from_any_state(maps):
    cycle = jr.limit_cycle(SYSTEM, RESERVOIRS)
    assert cycle.result == jr.RESULTS.successful
    rho = np.diag([0.0, 1.0]).astype(complex)
    for _ in range(400):
        rho = rho / np.trace(rho)  # 1e-16 per collision
        before, after = [], []
        for S, reservoir in zip(maps, RESERVOIRS, strict=True):
            before.append(flight(rho, 1 / float(reservoir.rate)))
            rho = np.asarray(S(jnp.asarray(before[-1])))
            after.append(rho)
    assert largest(cycle.before - np.stack(before)) < 1e-14
    assert largest(cycle.after - np.stack(after)) < 1e-14
    heat = np.diagonal(np.stack(after) - np.stack(before), axis1=1, axis2=2).real @ SYSTEM.levels
    np.testing.assert_allclose(cycle.heat, heat, atol=1e-14)
    assert abs(jnp.sum(cycle.heat)) < 1e-15 and np.min(np.abs(cycle.heat)) > 1e-4
    np.testing.assert_allclose(cycle.period, 1 / 4 + 2 / 2.5, rtol=1e-15)
    # at a random instant: the mean over the flights of one cycle
    seen, starts = 0, [cycle.after[-1], *cycle.after[:-1]]
    for start, reservoir in zip(starts, RESERVOIRS, strict=True):
        wait = 1 / float(reservoir.rate)
        instants = (np.arange(4000) + 0.5) / 4000 * wait
        seen = seen + sum(flight(np.asarray(start), t) for t in instants) / 4000 * wait
    assert largest(cycle.average - seen / float(cycle.period)) < 1e-8


def test_the_order_of_strokes_counts(maps):
    # C B A is no C A B; where the cycle starts is only a matter of counting
    cycle = jr.limit_cycle(SYSTEM, RESERVOIRS)
    moved = jr.limit_cycle(SYSTEM, [COLD, COLD, HOT])
    assert largest(moved.after - cycle.after[jnp.array([1, 2, 0])]) < 1e-14
    assert largest(cycle.after[0] - cycle.after[2]) > 1e-2
    np.testing.assert_allclose(moved.heat, cycle.heat[jnp.array([1, 2, 0])], atol=1e-14)


@pytest.mark.slow
def test_the_same_reservoir_in_turn_with_itself_is_that_reservoir():
    for law in (Regular(), Exponential()):
        alone, twice = jr.cycle_state(SYSTEM, HOT, law), jr.limit_cycle(SYSTEM, [HOT, HOT], law)
        assert largest(twice.after - alone.after[None]) < 1e-13
        assert largest(twice.average - alone.average) < 1e-13
        assert largest(twice.heat) < 1e-14


@pytest.mark.slow
def test_where_a_stroke_changes_little_the_product_is_the_sum(maps):
    # collisions that take place with probability ε, each after a flight of ε/2: Eq. (8) with both rates 1, as ε → 0
    one = jnp.einsum("aj,bk->abjk", jnp.eye(2), jnp.eye(2))
    both = jr.steady_state(SYSTEM, jr.Collisions(maps[:2], [jnp.array(1.0)] * 2)).rho
    L = jr.Superoperator(sum(S.tensor - one for S in maps[:2]))

    def distance(epsilon):
        thin = [jr.Superoperator((1 - epsilon) * one + epsilon * S.tensor) for S in maps[:2]]
        cycle = jr.limit_cycle(
            SYSTEM, jr.Collisions(thin, [jnp.asarray(2 / epsilon)] * 2), Regular()
        )
        return largest(cycle.average - both), cycle.heat / epsilon

    (far, _), (half, _), (near, heat) = (distance(epsilon) for epsilon in (0.2, 0.1, 1e-4))
    assert far > 1e-3 and abs(far / half - 2) < 0.3 and near < 1e-3 * far  # of first order in ε
    J = [jr.heat_flow(SYSTEM, S, 1.0, both) for S in maps[:2]]
    np.testing.assert_allclose(heat, J, rtol=1e-3)
    assert largest(L(both) - 1j * (SYSTEM.levels[:, None] - SYSTEM.levels[None]) * both) < 1e-14


@pytest.mark.slow
def test_random_waiting_times_are_averaged_over(maps):
    # Γτ of Gamma(3): the average over many independent cycles, collision by collision, from the limit cycle
    law, n = GammaDistributed(3.0), 20000
    cycle = jr.limit_cycle(SYSTEM, RESERVOIRS[:2], law)
    keys = jax.random.split(jax.random.key(0), 2 * n).reshape(2, n)
    theta = np.asarray(jax.vmap(jax.vmap(law.sample))(keys))
    gap = float(SYSTEM.levels[0] - SYSTEM.levels[1])
    rho = np.broadcast_to(np.asarray(cycle.after[-1]), (n, 2, 2))
    for k, (S, reservoir) in enumerate(zip(maps[:2], RESERVOIRS[:2], strict=True)):
        phase = np.exp(-1j * gap * theta[k] / float(reservoir.rate))
        turn = np.stack([np.stack([np.ones(n), phase]), np.stack([phase.conj(), np.ones(n)])])
        rho = np.einsum("abjk,njk->nab", np.asarray(S.tensor), rho * turn.transpose(2, 0, 1))
        error = np.std(rho, axis=0) / np.sqrt(n)
        assert np.max(np.abs(np.mean(rho, axis=0) - cycle.after[k]) / error) < 4.5
    assert largest(error) < 1e-3


@pytest.mark.slow
def test_derivatives(maps):
    way = jnp.array([0.2, 0.7, 0.3, 0.4])  # of a map, the rates and the splitting

    @jax.jit
    def f(x):
        first = jr.Superoperator((1 - x[0]) * maps[0].tensor + x[0] * maps[1].tensor)
        scaled = jr.System((1 + x[3]) * SYSTEM.levels)
        cycle = jr.limit_cycle(
            scaled, jr.Collisions([first, maps[1]], [4.0 + x[1], 2.5 + x[2]]), GammaDistributed(3.0)
        )
        return cycle.heat[0] + jr.coherence(cycle.average) + jr.coherence(cycle.before[1])

    expected, zero = slope(lambda t: f(t * way), 1e-3), jnp.zeros(4)
    np.testing.assert_allclose(jax.jvp(f, (zero,), (way,))[1], expected, rtol=1e-9)
    np.testing.assert_allclose(jax.grad(f)(zero) @ way, expected, rtol=1e-9)


@pytest.mark.slow
def test_it_says_what_is_wrong():
    still = eqx.tree_at(lambda b: b.rate, COLD, jnp.asarray(0.0))
    with pytest.raises(ValueError, match="rate"):
        jr.limit_cycle(SYSTEM, [HOT, still])
    idle = eqx.tree_at(lambda b: b.scatterer.coupling, HOT, 0 * HOT.scatterer.coupling)
    cycle = jr.limit_cycle(SYSTEM, [idle, idle])
    assert cycle.result == jr.RESULTS.not_unique and jnp.all(jnp.isnan(cycle.heat))
    traced = jax.jit(lambda r: jr.limit_cycle(SYSTEM, [eqx.tree_at(lambda b: b.rate, HOT, r)]))
    assert traced(-1.0).result == jr.RESULTS.invalid_parameters
