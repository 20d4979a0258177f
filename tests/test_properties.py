"""What every scattering map obeys, for random systems, stacks and packets."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    build,
    hermitian,
    largest,
    parameters,
    reservoir_of,
    system_of,
    unitary,
)
from hypothesis import given, settings, strategies as st

import jaxres as jr

SEEDS = st.integers(0, 10**6)
FINE = jr.DoubleExponential().refined()
examples = settings(max_examples=10)


class PositivePacket(jr.EffusionPacket):
    """√μ(p)√μ(q) in the place of μ((p+q)/2): positive semidefinite, as the effusion packet is not quite."""

    def density(self, p, q):
        size = jnp.sqrt(self.distribution(p) * self.distribution(q))
        apart = p - q
        return size * jnp.exp(-((self.width * apart) ** 2) / 2 - 1j * apart * self.position)


def draw(seed, N, M, *, real=False, incidence="left", packet=jr.EffusionPacket, widen=1.0):
    """A random system and reservoir: N levels, M slabs."""
    rng = np.random.default_rng(seed)
    numbers = parameters(
        levels=np.sort(rng.uniform(-1, 1, N)),
        couplings=[hermitian(rng.integers(10**6), N, real=real) for _ in range(M)],
        lengths=rng.uniform(0.2, 1.2, M) / M,
        beta=rng.uniform(0.1, 1.0),
        mass=rng.uniform(0.1, 1.0),
        width=rng.uniform(0.5, 2.0),
        position=rng.uniform(-4, 0),
        rate=10.0 ** rng.uniform(-2, 2),
    )
    system, reservoir = with_incidence(*build(numbers), incidence)
    state = reservoir.packet
    state = packet(state.beta, state.mass, widen * state.width, state.position)
    return system, jr.Reservoir(state, reservoir.scatterer, reservoir.rate, reservoir.incidence)


def with_incidence(system, reservoir, incidence):
    return system, jr.Reservoir(reservoir.packet, reservoir.scatterer, reservoir.rate, incidence)


def boltzmann(system, reservoir):
    return np.real(np.diagonal(jr.gibbs_state(system, reservoir.packet.beta)))


def transitions(S):
    """Probabilities [out, in] to go from level to level."""
    return np.real(np.einsum("aajj->aj", np.asarray(S.tensor)))


def unbalanced(system, reservoir, S):
    """The largest net flow between two levels in the Gibbs state."""
    flow = transitions(S) * boltzmann(system, reservoir)[None]
    return largest(flow - flow.T)


def unstationary(system, reservoir, S):
    """How far collisions move the Gibbs populations."""
    p = boltzmann(system, reservoir)
    return largest(transitions(S) @ p - p)


def lowest(S):
    """The lowest eigenvalue of the Choi matrix: not negative for a completely positive map."""
    return np.linalg.eigvalsh(np.asarray(S.choi)).min()


def assert_keeps_trace_and_hermiticity(S):
    assert largest(S.tensor - np.conj(np.transpose(S.tensor, (1, 0, 3, 2)))) <= 1e-15
    choi = np.asarray(S.choi)
    assert largest(choi - choi.conj().T) <= 1e-15
    trace = np.einsum("aajk->jk", np.asarray(S.tensor))
    assert largest(trace - np.eye(S.size)) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "M"),
    [
        (2, 1),
        (3, 1),
        pytest.param(2, 3, marks=pytest.mark.slow),
        pytest.param(3, 2, marks=pytest.mark.slow),
    ],
)
@examples
@given(seed=SEEDS)
def test_a_completely_positive_trace_preserving_map(N, M, seed):
    assert_keeps_trace_and_hermiticity(jr.scattering_map(*draw(seed, N, M), quadrature=FINE))
    # a state of the particle that is one makes a map that is completely positive
    S = jr.scattering_map(*draw(seed, N, M, packet=PositivePacket), quadrature=FINE)
    assert_keeps_trace_and_hermiticity(S)
    assert lowest(S) >= -1e-13


@pytest.mark.slow
@pytest.mark.parametrize(("N", "M"), [(2, 1), (3, 2)])
@examples
@given(seed=SEEDS)
def test_on_a_coarse_grid_too(N, M, seed):
    coarse = jr.DoubleExponential(10, 12)
    S = jr.scattering_map(*draw(seed, N, M, packet=PositivePacket), quadrature=coarse)
    assert S.trace_defect > 1e-6  # the grid is coarse
    assert_keeps_trace_and_hermiticity(S)
    assert lowest(S) >= -1e-13


def test_the_effusion_packet_is_positive_up_to_its_slowest_particles():
    # μ((p+q)/2) ~ p + q for small momenta is not positive, whatever the width; but of momenta below
    # 1/Δx there are few, (β/m)/Δx² of all
    narrow, broad = (
        jr.scattering_map(*draw(2, 3, 1, widen=widen), quadrature=FINE) for widen in (1.0, 4.0)
    )
    assert narrow.error < 1e-12
    assert lowest(narrow) < -1e-3
    assert lowest(broad) > lowest(narrow) / 10


@examples
@given(seed=SEEDS)
def test_detailed_balance_of_two_levels(seed):
    # any coupling of two levels can be made real by a diagonal unitary
    system, reservoir = draw(seed, 2, 1)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert unbalanced(system, reservoir, S) <= 1e-13 + S.error


@pytest.mark.slow
@examples
@given(seed=SEEDS)
def test_detailed_balance_of_real_couplings(seed):
    system, reservoir = draw(seed, 3, 1, real=True)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert unbalanced(system, reservoir, S) <= 1e-13 + S.error

    system, reservoir = draw(seed, 3, 2, real=True, incidence="both")
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert unbalanced(system, reservoir, S) <= 1e-13 + S.error


def test_detailed_balance_to_rounding(golden):
    for name in ("paper", "cold_qubit"):
        system, reservoir = system_of(golden[name]), reservoir_of(golden[name])
        S = jr.scattering_map(system, reservoir, quadrature=FINE)
        assert unbalanced(system, reservoir, S) < 1e-13


@examples
@given(seed=SEEDS)
def test_unitarity_alone_keeps_the_gibbs_populations(seed):
    # complex couplings of three levels break time reversal, and detailed balance with it
    system, reservoir = draw(seed, 3, 1)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert unstationary(system, reservoir, S) <= 1e-13 + S.error

    system, reservoir = draw(seed, 3, 2, incidence="both")
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert unstationary(system, reservoir, S) <= 1e-13 + S.error


def test_without_time_reversal_there_is_no_detailed_balance():
    system, reservoir = draw(6, 3, 1)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert S.error < 1e-6
    assert unbalanced(system, reservoir, S) > 1e-4

    system, reservoir = draw(6, 3, 2, incidence="both")
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert S.error < 1e-6
    assert unbalanced(system, reservoir, S) > 1e-4


@pytest.mark.slow
def test_a_stack_hit_from_one_side_does_not_keep_the_gibbs_populations():
    system, reservoir = draw(6, 3, 2)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert S.error < 1e-6
    assert unstationary(system, reservoir, S) > 1e-4


@pytest.mark.slow
def test_incidence():
    system, reservoir = draw(6, 3, 2)
    left = jr.scattering_map(system, reservoir, quadrature=FINE).tensor
    right, both = (
        jr.scattering_map(*with_incidence(system, reservoir, side), quadrature=FINE).tensor
        for side in ("right", "both")
    )
    mirrored = jr.Reservoir(
        reservoir.packet, jr.Stack(reservoir.scatterer.slabs[::-1]), reservoir.rate
    )
    assert largest(right - jr.scattering_map(system, mirrored, quadrature=FINE).tensor) < 1e-14
    assert largest(both - (left + right) / 2) < 1e-14
    assert largest(left - right) > 1e-2


@examples
@given(seed=SEEDS)
def test_a_constant_added_to_all_levels_changes_nothing(seed):
    system, reservoir = draw(seed, 3, 1)
    shifted = jr.System(system.levels + 4.0)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    assert largest(S.tensor - jr.scattering_map(shifted, reservoir, quadrature=FINE).tensor) < 1e-12


@pytest.mark.slow
@examples
@given(seed=SEEDS)
def test_a_change_of_basis_changes_nothing(seed):
    system, reservoir = draw(seed, 3, 1)
    U, W = unitary(seed, 3), reservoir.scatterer.coupling
    H = U @ jnp.diag(system.levels).astype(complex) @ jnp.conj(U.T)
    rotated = jr.System.from_hamiltonian((H + jnp.conj(H.T)) / 2)
    turned = jr.Slab(U @ W @ jnp.conj(U.T), reservoir.scatterer.length)
    turned = jr.Slab((turned.coupling + jnp.conj(turned.coupling.T)) / 2, turned.length)
    moved = jr.Reservoir(reservoir.packet, turned, reservoir.rate)

    def state(system, reservoir):
        S = jr.scattering_map(system, reservoir, quadrature=FINE)
        return jr.steady_state(system, jr.Collisions(S, reservoir.rate))

    expected, got = state(system, reservoir), state(rotated, moved)
    assert got.result == expected.result
    if expected.result == jr.RESULTS.successful:
        # eigenvectors are known up to phases, so are coherences
        np.testing.assert_allclose(
            np.abs(got.rho), np.abs(expected.rho), rtol=0, atol=1e-13 * float(expected.condition)
        )


@examples
@given(seed=SEEDS)
def test_collisions_bring_states_together(seed):
    system, reservoir = draw(seed, 3, 2)
    S = jr.scattering_map(system, reservoir, quadrature=FINE)
    rng = np.random.default_rng(seed)
    states = []
    for _ in range(2):
        A = rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
        states.append(jnp.asarray(A @ A.conj().T / np.trace(A @ A.conj().T)))
    before = jr.trace_distance(*states)
    assert jr.trace_distance(S(states[0]), S(states[1])) <= before + 1e-13
