"""Eq. 9: the solution solves it, and a solve that fails says so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import build, hermitian, largest, parameters, solve

import jaxres as jr
from jaxres._dynamics.steady_state import _positive

TWO = dict(levels=[-0.3, 0.4], couplings=[hermitian(11, 2)], lengths=[1.0])
THREE = dict(levels=[-0.5, 0.1, 0.9], couplings=[hermitian(12, 3)], lengths=[1.0])


def residual(system, maps, rates, rho):
    """dρ/dt of Eq. 8, each entry divided by the rates at work in it."""
    gap = system.levels[:, None] - system.levels[None]
    change = -1j * gap * rho
    for S, rate in zip(maps, rates, strict=True):
        change = change + rate * (S(rho) - rho)
    return change / (jnp.abs(gap) + sum(rates))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-8, 1e-3, 1.0, 50.0, 1e8])
@pytest.mark.parametrize("numbers", [TWO, THREE], ids=["two", "three"])
def test_it_is_stationary_and_a_state(numbers, rate):
    numbers = parameters(**numbers, rate=rate)
    S, sol = solve(numbers)
    system, _ = build(numbers)
    assert sol.result == jr.RESULTS.successful
    assert largest(residual(system, [S], [rate], sol.rho)) < 1e-14
    assert abs(jnp.trace(sol.rho) - 1) < 1e-15
    assert largest(sol.rho - jnp.conj(sol.rho.T)) == 0
    assert np.min(np.linalg.eigvalsh(sol.rho)) > 0
    # the coherence itself is right, however small: it obeys its own row
    off = residual(system, [S], [rate], sol.rho)[0, 1]
    assert abs(off) < 1e-10 * jr.coherence(sol.rho)


@pytest.mark.slow
def test_several_reservoirs():
    system, hot = build(parameters(**TWO, beta=0.2, rate=2.0))
    _, cold = build(parameters(**TWO, beta=1.5, rate=2.0))
    maps = [jr.scattering_map(system, reservoir) for reservoir in (hot, cold)]

    def state(rates):
        return jr.steady_state(
            system, jr.Collisions(maps, [jnp.asarray(rate) for rate in rates])
        ).rho

    alone = [jr.steady_state(system, jr.Collisions(S, jnp.asarray(2.0))).rho for S in maps]
    both = state([1.5, 0.5])
    assert largest(residual(system, maps, [1.5, 0.5], both)) < 1e-14
    assert alone[1][0, 0].real > both[0, 0].real > alone[0][0, 0].real
    # a reservoir that never hits is not there; one that always hits is the only one
    assert largest(state([2.0, 0.0]) - alone[0]) < 1e-14
    fixed = jr.steady_state(system, jr.Collisions(maps[1], jnp.asarray(jnp.inf))).rho
    assert largest(state([2.0, jnp.inf]) - fixed) < 1e-14
    # the same reservoir twice is one reservoir of twice the rate
    twice = jr.steady_state(
        system, jr.Collisions([maps[0], maps[0]], [jnp.asarray(1.0), jnp.asarray(1.0)])
    ).rho
    assert largest(twice - alone[0]) < 1e-14

    through_the_front_door = jr.steady_state(system, [hot, cold])
    assert through_the_front_door.result == jr.RESULTS.successful
    assert largest(through_the_front_door.rho - state([2.0, 2.0])) < 1e-12
    L = jr.generator(system, [hot, cold])
    assert largest(L(through_the_front_door.rho)) < 1e-14


def assert_no_number(sol):
    """A failed solve must not look like a result, whatever is read off it."""
    assert jnp.all(jnp.isnan(sol.rho))
    assert jnp.all(jnp.isnan(jr.populations(sol.rho)))
    assert jnp.isnan(jr.coherence(sol.rho))


@pytest.mark.parametrize(
    "coupling", [jnp.zeros((2, 2)), jnp.eye(2), jnp.diag(jnp.array([0.5, -1.0]))]
)
def test_not_unique_without_transitions(coupling):
    _, sol = solve(parameters(levels=[-0.3, 0.4], couplings=[coupling], lengths=[1.0]))
    assert sol.result == jr.RESULTS.not_unique
    assert_no_number(sol)


def test_not_unique_where_a_level_is_left_out():
    W = hermitian(3, 3).at[2, :2].set(0).at[:2, 2].set(0)
    _, sol = solve(parameters(levels=[-0.5, 0.1, 0.9], couplings=[W], lengths=[1.0]))
    assert sol.result == jr.RESULTS.not_unique
    assert_no_number(sol)


@pytest.mark.slow
def test_not_unique_at_degenerate_levels_with_one_coupling():
    # H_S is a number there, so W is conserved by every collision; two that do not commute are not
    same = dict(levels=[0.2, 0.2], lengths=[1.0])
    _, sol = solve(parameters(**same, couplings=[hermitian(1, 2)]))
    assert sol.result == jr.RESULTS.not_unique
    same = dict(levels=[0.2, 0.2], lengths=[1.0, 0.7])
    _, sol = solve(parameters(**same, couplings=[hermitian(1, 2), hermitian(2, 2)]))
    assert sol.result == jr.RESULTS.successful


def name_of(result):
    return next(k for k in jr.RESULTS._name_to_item if bool(result == getattr(jr.RESULTS, k)))


@pytest.mark.slow
@pytest.mark.parametrize("N", [2, 4])
def test_one_coupling_of_equal_levels_is_never_called_successful(N):
    # whatever its size: what is diagonal in its eigenbasis stays
    rng, (_, reservoir) = np.random.default_rng(N), jr.letter.model(rate=5.0)
    seen = [
        jr.Slab(10 ** rng.uniform(-6, 1) * hermitian(seed, N), 10 ** rng.uniform(-3, 1))
        for seed in range(16)
    ]
    if N == 2:
        seen.append(jr.Slab(0.01 * jnp.array([[0.3, 1 + 0.2j], [1 - 0.2j, -0.7]]), 0.1))
    system = jr.System(jnp.zeros(N))
    solve = jax.jit(lambda slab: jr.steady_state(system, jr.Reservoir(reservoir.packet, slab, 5.0)))
    for slab in seen:
        sol = solve(slab)
        assert name_of(sol.result) in ("not_unique", "map_not_converged")
        assert sol.error == jnp.inf
        assert_no_number(sol)


@pytest.mark.parametrize("coupling", [1.0, 1e-2, 1e-4, 1e-6])
def test_a_weak_coupling_is_solved_to_its_error_bar(coupling):
    # S − 1 is of second order in it, down to 1e-13 here
    never, rarely = jr.letter.model(coupling=coupling, rate=0.0), jr.letter.model(coupling=coupling)
    gibbs = jr.gibbs_state(never[0], 0.1)  # exact at Γ = 0
    sol = jr.steady_state(*never)
    assert sol.result == jr.RESULTS.successful
    assert largest(sol.rho - gibbs) < 10 * sol.error < 1e-4
    sol = jr.steady_state(*rarely)
    assert sol.result == jr.RESULTS.successful
    if coupling < 1e-2:
        # a coherence of first order
        assert abs(jr.coherence(sol.rho) / (0.0293624 * coupling) - 1) < 1e-4


@pytest.mark.slow
def test_levels_that_nearly_meet_are_solved_to_their_error_bar():
    fine = jr.DoubleExponential(nodes_between=200, nodes_above=160)
    for splitting in (1e-6, 1e-3):
        for rate in (1e-8, 5.0, jnp.inf):
            model = jr.letter.model(splitting=jnp.asarray(splitting), rate=jnp.asarray(rate))
            sol, exact = jr.steady_state(*model), jr.steady_state(*model, quadrature=fine)
            assert sol.result == exact.result == jr.RESULTS.successful
            assert largest(sol.rho - exact.rho) < 10 * sol.error + 10 * exact.error
    sol = jr.steady_state(*jr.letter.model(splitting=jnp.asarray(1e-12), rate=jnp.asarray(5.0)))
    assert sol.result == jr.RESULTS.not_unique


@pytest.mark.slow
def test_errors_are_no_smaller_than_a_tenth_of_the_truth():
    rng, fine, compared = (
        np.random.default_rng(7),
        jr.DoubleExponential(nodes_between=200, nodes_above=160),
        0,
    )

    def states(numbers, quadrature):
        return jr.steady_state(*build(numbers), quadrature=quadrature)

    solve = eqx.filter_jit(states)
    for seed in range(30):
        numbers = parameters(
            levels=np.sort(rng.uniform(-1, 1, 2)),
            couplings=[hermitian(seed, 2, scale=10 ** rng.uniform(-4, 0.5))],
            lengths=[10 ** rng.uniform(-1, 0.5)],
            beta=10 ** rng.uniform(-1.3, 0.7), mass=10 ** rng.uniform(-1, 0.5),
            width=1 + rng.uniform(0, 2), position=-rng.uniform(0, 10), rate=10 ** rng.uniform(-4, 3),
        )  # fmt: skip
        exact = solve(numbers, fine)
        for nodes in (16, 24, 32, 48):
            sol = solve(numbers, jr.DoubleExponential(nodes_between=nodes, nodes_above=nodes))
            if not jnp.isnan(sol.error + jnp.sum(sol.rho) + jnp.sum(exact.rho)):
                assert largest(sol.rho - exact.rho) < 10 * (sol.error + exact.error)
                compared += 1
    assert compared > 60


def failing():
    """A model for each way in which a solve can fail, with the name of the result."""
    system, reservoir = jr.letter.model(rate=5.0)

    def at(field, value):
        return eqx.tree_at(field, reservoir, jnp.asarray(value))

    same = jr.System(jnp.zeros(2))
    return {
        "invalid_parameters": (system, at(lambda b: b.rate, -1.0)),
        "not_unique": (system, at(lambda b: b.scatterer.coupling, jnp.zeros((2, 2), complex))),
        "not_unique, at any rate": (same, reservoir),
        "map_not_converged": jr.letter.model(mass=30.0, rate=5.0, position=-100.0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_the_gradient_of_a_failed_solve_is_no_number(mode):
    W0 = jr.letter.model()[1].scatterer.coupling

    def coherence(levels, packet, scale, rate):
        reservoir = jr.Reservoir(jr.EffusionPacket(**packet), jr.Slab(scale * W0, 1.0), rate)
        return jnp.real(jr.steady_state(jr.System(levels), reservoir).rho[0, 1])

    slopes = jax.jit(mode(coherence, argnums=(0, 1, 2, 3)))  # one program for all
    for name, (system, reservoir) in failing().items():
        fields = ("beta", "mass", "width", "position")
        packet = {field: getattr(reservoir.packet, field) for field in fields}
        scale = jnp.max(jnp.abs(reservoir.scatterer.coupling)) / jnp.max(jnp.abs(W0))
        leaves = jax.tree.leaves(slopes(system.levels, packet, scale, reservoir.rate))
        assert len(leaves) == 7, name
        assert all(bool(jnp.all(jnp.isnan(leaf))) for leaf in leaves), name


@pytest.mark.slow
def test_only_the_element_that_fails_has_no_gradient():
    system, reservoir = jr.letter.model(rate=5.0)

    def coherence(rate):
        at = eqx.tree_at(lambda b: b.rate, reservoir, rate)
        return jr.coherence(jr.steady_state(system, at).rho)

    rates = jnp.array([1.0, -1.0, 5.0])
    slopes = jax.jit(jax.vmap(jax.grad(coherence)))(rates)
    bends = jax.jit(jax.vmap(jax.grad(jax.grad(coherence))))(rates)
    for values in (slopes, bends):
        assert jnp.isnan(values).tolist() == [False, True, False]
    assert abs(slopes[2] - 1.082034e-2) < 1e-7


def test_a_poor_map_is_refused():
    system, reservoir = jr.letter.model(mass=10.0, length=2.0)
    sol = jr.steady_state(system, reservoir)
    assert sol.result == jr.RESULTS.map_not_converged
    assert sol.map_error > 1e-3
    assert_no_number(sol)


def test_what_is_not_a_state_is_said_to_be_none():
    # frequent collisions with packets that start at the scatterer: ρ_U of Eqs. (22), (23) is not quite positive
    system, reservoir = jr.letter.model(rate=100.0, position=0.0)
    sol = jr.steady_state(system, reservoir)
    assert sol.result == jr.RESULTS.not_positive
    assert jnp.linalg.eigvalsh(sol.rho)[0] < -0.005 and sol.map_error < 1e-9
    S = jr.scattering_map(system, reservoir)
    assert (
        largest(residual(system, [S], [reservoir.rate], sol.rho)) < 1e-11
    )  # it does solve Eq. (9)


@pytest.mark.parametrize("N", [2, 5, 9])
def test_positivity_is_that_of_the_eigenvalues(N):
    rng = np.random.default_rng(N)
    U = np.linalg.qr(rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N)))[0]
    for least, expected in ((1e-3, True), (-1e-7, True), (-2e-6, False), (-0.3, False)):
        weights = np.concatenate([[least], rng.uniform(0, 1, N - 1)])
        rho = jnp.asarray((U * weights) @ U.conj().T)
        assert bool(_positive(rho, jnp.asarray(1e-6))) == expected


@pytest.mark.slow
def test_traced_parameters_that_are_not_admissible():
    """One program for all of them: each spoils one number of an admissible set."""
    good = dict(splitting=0.6, length=1.0, beta=0.1, mass=0.1, width=1.0, position=-1.0, rate=5.0)
    bad = [
        dict(mass=-0.1), dict(mass=0.0), dict(mass=np.nan), dict(beta=0.0), dict(beta=-1.0),
        dict(beta=np.inf), dict(width=0.0), dict(width=0.07), dict(width=np.nan), dict(rate=-1.0),
        dict(rate=np.nan), dict(length=0.0), dict(length=-1.0), dict(length=np.inf),
        dict(splitting=-0.1), dict(splitting=np.nan), dict(position=np.nan), dict(position=np.inf),
    ]  # fmt: skip
    rows = [good | change for change in [{}, *bad]]
    columns = {name: jnp.array([row[name] for row in rows]) for name in good}

    @jax.jit
    @jax.vmap
    def states(numbers):
        splitting = numbers.pop("splitting")
        system, reservoir = jr.letter.model(**numbers)
        system = jr.System(jnp.stack([-splitting / 2, splitting / 2]))
        sol = jr.steady_state(system, reservoir)
        return sol.rho, sol.result == jr.RESULTS.successful, (
            sol.result == jr.RESULTS.invalid_parameters
        )  # fmt: skip

    rho, successful, invalid = states(columns)
    assert successful.tolist() == [True] + [False] * len(bad)
    assert dict(zip(map(str, bad), invalid[1:].tolist(), strict=True)) == {
        str(b): True for b in bad
    }
    assert jnp.all(jnp.isfinite(rho[0]))
    assert jnp.all(jnp.isnan(rho[1:]))


@pytest.mark.slow
def test_traced_coupling_that_is_not_hermitian():
    system, reservoir = jr.letter.model()

    @jax.jit
    def result(W):
        stirred = jr.Reservoir(reservoir.packet, jr.Slab(W, 1.0), reservoir.rate)
        sol = jr.steady_state(system, stirred)
        return sol.result == jr.RESULTS.invalid_parameters, sol.rho

    W = reservoir.scatterer.coupling
    assert not result(W)[0]
    for spoiled in (W.at[0, 1].add(0.1), W.at[0, 0].set(0.1j), W.at[0, 0].set(jnp.nan)):
        invalid, rho = result(spoiled)
        assert invalid
        assert jnp.all(jnp.isnan(rho))


@pytest.mark.slow
def test_tol_is_passed_on():
    system, reservoir = jr.letter.model(rate=5.0)
    sol = jr.steady_state(system, reservoir, tol=1e-13)
    assert sol.result == jr.RESULTS.successful
    assert sol.map_error <= 1e-13
    np.testing.assert_allclose(jr.coherence(sol.rho), 0.0992995, atol=5e-8)


@pytest.mark.slow
def test_states_and_what_is_read_off_them():
    system = jr.System([-0.3, 0.1, 0.6])
    rho = jr.gibbs_state(system, 2.0)
    weights = np.exp(-2 * np.array([-0.3, 0.1, 0.6]))
    np.testing.assert_allclose(jr.populations(rho), weights / weights.sum(), rtol=1e-14)
    assert jr.coherence(rho) == 0
    sigma = jnp.full((3, 3), 0.1j).at[jnp.diag_indices(3)].set(1 / 3)
    sigma = (sigma + jnp.conj(sigma.T)) / 2
    sigma = sigma.at[1, 2].set(0.1 - 0.2j).at[2, 1].set(0.1 + 0.2j)
    np.testing.assert_allclose(jr.coherence(sigma, 1, 2), np.hypot(0.1, 0.2), rtol=1e-14)
    by_values = np.sum(np.abs(np.linalg.eigvalsh(rho - sigma))) / 2
    np.testing.assert_allclose(jr.trace_distance(rho, sigma), by_values, rtol=1e-13)
    assert jr.trace_distance(rho, rho) == 0
    batch = jnp.stack([rho, sigma])
    assert jr.populations(batch).shape == (2, 3)
    assert jr.coherence(batch).shape == (2,)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 2.0, np.inf])
def test_the_ground_state_of_a_cold_bath_is_found(rate):
    # amplitude damping: nothing moves the populations of the steady state, not even an error of the map
    damping = jr.Superoperator.from_kraus([[[1.0, 0.0], [0.0, 0.6]], [[0.0, 0.8], [0.0, 0.0]]])
    for levels in ([0.0, 1.0], [0.0, 0.0]):
        sol = jr.steady_state(jr.System(levels), jr.Collisions(damping, rate))
        assert sol.result == jr.RESULTS.successful
        assert largest(sol.rho - np.diag([1.0, 0.0])) <= sol.error < 1e-13
