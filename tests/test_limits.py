"""Corners where the answer is known: nothing there, everything reflected, never or always hit."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import build, hermitian, largest, parameters, solve

import jaxres as jr

TWO = dict(levels=[-0.3, 0.4], couplings=[hermitian(11, 2)], lengths=[1.0])
STACK = dict(levels=[-0.3, 0.4], couplings=[hermitian(1, 2), hermitian(2, 2)], lengths=[1.0, 0.7])
THREE = dict(levels=[-0.5, 0.1, 0.9], couplings=[hermitian(12, 3)], lengths=[1.0])


def identity(N):
    one = np.eye(N)
    return np.einsum("aj,bk->abjk", one, one)


def scaled(numbers, *, coupling=1.0, length=1.0):
    return numbers | dict(
        couplings=[coupling * W for W in numbers["couplings"]],
        lengths=[length * d for d in numbers["lengths"]],
    )


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [TWO, STACK, THREE], ids=["two", "stack", "three"])
def test_no_coupling_no_change(numbers):
    S, _ = solve(parameters(**scaled(numbers, coupling=0.0)))
    assert largest(S.tensor - identity(S.size)) < 1e-12


@pytest.mark.parametrize("numbers", [TWO, STACK, THREE], ids=["two", "stack", "three"])
def test_a_scatterer_without_length_changes_nothing(numbers):
    # a thin slab reflects only particles slower than W L, a fraction of order (W L)² log(W L)
    changes = [
        largest(solve(parameters(**scaled(numbers, length=x)))[0].tensor - identity(len(numbers["levels"])))
        for x in (1e-4, 1e-6, 1e-8)
    ]  # fmt: skip
    # the mean phase of the passing particles is of first order
    assert changes[0] < 1e-3
    np.testing.assert_allclose(np.divide(changes[1:], changes[:-1]), 1e-2, rtol=0.1)


def test_a_weak_coupling_acts_in_first_order_as_a_hamiltonian():
    # 1 − iτ[W, ·]: while particles of speed v pass, for the time L/v, W turns the state. With levels
    # that are equal nothing else happens in first order, and ⟨1/v⟩ is an integral over Eq. (23).
    numbers = parameters(
        levels=[0.2, 0.2], couplings=[1e-6 * hermitian(5, 2)], lengths=[1.0], beta=0.4, mass=0.5
    )
    S, _ = solve(numbers)
    _, reservoir = build(numbers)
    W = np.asarray(reservoir.scatterer.coupling)
    time = 1.0 * np.sqrt(np.pi * 0.4 * 0.5 / 2)  # L ∫ μ(p) m/p dp
    one = np.eye(2)
    turn = -1j * time * (np.einsum("aj,bk->abjk", W, one) - np.einsum("aj,kb->abjk", one, W))
    assert largest(S.tensor - identity(2) - turn) < 1e-4 * largest(turn)


def test_a_high_wall_reflects_and_keeps_the_state():
    W = hermitian(11, 2)
    moved = []
    for height in (1e2, 1e4, 1e6):
        wall = parameters(
            levels=[-0.3, 0.4], couplings=[W + height * jnp.eye(2)], lengths=[50.0]
        )  # fmt: skip
        S, _ = solve(wall)
        assert jnp.all(jnp.isfinite(S.tensor))
        moved.append(largest(S.tensor - identity(2)))
    # the wave sinks in by 1/κ, for a time of order 1/√height · 1/height
    assert moved[0] > 10 * moved[1] > 100 * moved[2]


def test_one_level_has_one_state():
    S, sol = solve(parameters(levels=[0.3], couplings=[jnp.array([[1.0]])], lengths=[1.0]))
    assert abs(S.tensor[0, 0, 0, 0] - 1) < 1e-14
    assert sol.result == jr.RESULTS.successful
    assert sol.rho[0, 0] == 1


@pytest.mark.parametrize("numbers", [TWO, THREE], ids=["two", "three"])
def test_packets_without_end_join_no_different_gaps(numbers):
    levels = np.array(numbers["levels"])
    gap = levels[:, None] - levels[None]
    # energy exchanged by the left and the right index must be equal: Δ_j'j = Δ_k'k
    same = np.isclose(gap[:, None, :, None], gap[None, :, None, :])
    narrow, _ = solve(parameters(**numbers))
    wide, sol = solve(parameters(**numbers, width=1e6))
    assert largest(np.where(same, 0, narrow.tensor)) > 1e-2
    assert largest(np.where(same, 0, wide.tensor)) < 1e-5
    assert largest(np.where(same, wide.tensor - narrow.tensor, 0)) < 1e-8
    # the populations stand alone, and are Gibbs' since a slab is its own mirror image
    assert largest(sol.rho - jr.gibbs_state(build(parameters(**numbers))[0], 0.4)) < 1e-5


def test_rare_collisions_thermalise():
    numbers = dict(TWO, beta=0.4)
    system, _ = build(parameters(**numbers))
    gibbs = jr.gibbs_state(system, 0.4)
    S, never = solve(parameters(**numbers, rate=0.0))
    assert largest(never.rho - gibbs) < 1e-9
    assert jr.coherence(never.rho) == 0
    # Eq. (14): −iΔ_01 ρ_01 + Γ Σ_j S[0, 1, j, j] p_j = 0
    slope = jnp.einsum("jj,j->", S.tensor[0, 1], jr.populations(never.rho)) / (1j * (-0.7))
    for rate in (1e-10, 1e-7, 1e-4):
        _, sol = solve(parameters(**numbers, rate=rate))
        assert abs(sol.rho[0, 1] / rate - slope) < 10 * rate + 1e-13
        assert largest(jr.populations(sol.rho) - jr.populations(gibbs)) < 10 * rate + 1e-9


@pytest.mark.parametrize("numbers", [TWO, THREE], ids=["two", "three"])
def test_collisions_without_pause_reach_the_fixed_point_of_the_map(numbers):
    S, always = solve(parameters(**numbers, rate=jnp.inf))
    assert always.result == jr.RESULTS.successful
    assert largest(S(always.rho) - always.rho) < 1e-14
    _, often = solve(parameters(**numbers, rate=1e8))
    assert largest(often.rho - always.rho) < 1e-7
    assert largest(often.rho - always.rho) > 1e-10


def test_degenerate_levels():
    def state(levels, rate):
        _, sol = solve(parameters(**STACK | dict(levels=levels), rate=rate))
        assert sol.result == jr.RESULTS.successful
        return sol.rho

    equal = [0.2, 0.2]
    at_rate_one = state(equal, 1.0)
    assert jr.coherence(at_rate_one) > 1e-3
    # nothing turns the coherence, so the rate is no matter
    for rate in (0.0, 1e-6, 1e6, jnp.inf):
        assert largest(state(equal, rate) - at_rate_one) < 1e-13
    # and nothing happens at the degeneracy
    assert largest(state([0.2, 0.2 + 1e-12], 1.0) - at_rate_one) < 1e-11
    assert largest(state([0.2, 0.2 + 1e-6], 1.0) - at_rate_one) < 1e-5


def test_degenerate_levels_of_three():
    W = [hermitian(4, 3) + 1.5 * jnp.eye(3)]
    for levels in ([-0.2, 0.5, 0.5], [-0.2, -0.2, 0.5]):
        S, sol = solve(parameters(levels=levels, couplings=W, lengths=[1.0]))
        above = [levels[0], levels[1], levels[2] + 1e-12]
        near, near_sol = solve(parameters(levels=above, couplings=W, lengths=[1.0]))
        assert largest(S.tensor - near.tensor) < 1e-11
        assert sol.result == near_sol.result == jr.RESULTS.successful
        assert largest(sol.rho - near_sol.rho) < 1e-10
