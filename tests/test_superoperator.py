"""The forms of a map: each says the same of a state, and each tells what a channel is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, slope, unitary

import jaxres as jr
from jaxres._quantum.operators import operator_basis

SIZES = [2, 3, 4]


def channel(seed, N, rank=3):
    """A random channel: Kraus operators are blocks of an isometry."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(rank * N, N)) + 1j * rng.normal(size=(rank * N, N))
    return np.linalg.qr(A)[0].reshape(rank, N, N)


def state(seed, N):
    A = np.random.default_rng(seed).normal(size=(2, N, N))
    A = A[0] + 1j * A[1]
    return jnp.asarray(A @ A.conj().T / np.trace(A @ A.conj().T))


def by_kraus(K, rho):
    return sum(k @ rho @ k.conj().T for k in np.asarray(K))


def decay(probability):
    """Amplitude damping of level 1 into level 0."""
    stay = np.sqrt(1 - probability)
    return np.array([[[1, 0], [0, stay]], [[0, np.sqrt(probability)], [0, 0]]])


def pauli_channel(probabilities):
    K = np.sqrt(np.asarray(probabilities))[:, None, None] * operator_basis(2)
    return jr.Superoperator.from_kraus(jnp.asarray(K))


# strong coupling and narrow packets, where the effusion state's lack of positivity shows
HARD = dict(splitting=6.0, coupling=5.0, width=0.2, position=0.0)


@pytest.fixture(scope="module")
def effusion():
    """The Letter's map where it is not completely positive, and that of the positive mixture."""
    system, reservoir = jr.letter.model(**HARD)
    p = reservoir.packet
    mixture = jr.ThermalMixture(beta=p.beta, mass=p.mass, width=p.width, position=p.position)
    mixed = eqx.tree_at(lambda b: b.packet, reservoir, mixture)
    return jr.scattering_map(system, reservoir), jr.scattering_map(system, mixed)


# --------------------------------------------------------------------------------------------------
# Forms
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("N", SIZES)
def test_every_form_says_the_same(N):
    K, rho = channel(N, N), state(N, N)
    S = jr.Superoperator.from_kraus(jnp.asarray(K))
    expected = by_kraus(K, rho)
    assert largest(S(rho) - expected) < 1e-14
    assert largest((S.matrix @ rho.reshape(-1)).reshape(N, N) - expected) < 1e-14
    assert largest(by_kraus(S.kraus(), rho) - expected) < 1e-14
    weights, A = S.canonical()
    assert largest(np.einsum("n,nab,bc,ndc->ad", weights, A, rho, np.conj(A)) - expected) < 1e-14
    P = operator_basis(N)
    chi = S.chi()
    assert largest(np.einsum("mn,mab,bc,ndc->ad", chi, P, rho, P.conj()) - expected) < 1e-13
    components = np.einsum("nab,ba->n", P, rho).real
    after = np.asarray(S.pauli_transfer_matrix()) @ components
    assert largest(np.einsum("n,nab->ab", after, P) / N - expected) < 1e-14
    assert largest(jr.Superoperator.from_choi(S.choi).tensor - S.tensor) == 0


def test_the_choi_matrix_is_what_becomes_of_half_an_entangled_pair():
    N = 3
    S = jr.Superoperator.from_kraus(jnp.asarray(channel(5, N)))
    pair = np.eye(N).reshape(-1) / np.sqrt(N)
    both = S & jr.Superoperator.identity(N)
    assert largest(both(jnp.asarray(np.outer(pair, pair))) - S.choi / N) < 1e-15


@pytest.mark.parametrize("N", [2, 3, 4, 5, 8])
def test_the_bases_are_orthogonal_hermitian_and_begin_with_one(N):
    P = operator_basis(N)
    assert P.shape == (N * N, N, N)
    assert largest(np.einsum("mab,nba->mn", P, P) - N * np.eye(N * N)) < 1e-14
    assert largest(P - P.conj().transpose(0, 2, 1)) == 0
    np.testing.assert_array_equal(P[0], np.eye(N))


def test_chi_in_a_basis_of_the_users():
    N, K = 3, channel(2, 3)
    S = jr.Superoperator.from_kraus(jnp.asarray(K))
    units = np.sqrt(N) * np.eye(N * N).reshape(N * N, N, N)  # matrix units: χ is then C/N
    assert largest(S.chi(jnp.asarray(units)) - S.choi / N) < 1e-15
    turned = np.einsum("mn,nab->mab", unitary(3, N * N), operator_basis(N))
    chi, rho = S.chi(jnp.asarray(turned)), state(1, N)
    again = np.einsum("mn,mab,bc,ndc->ad", chi, turned, rho, turned.conj())
    assert largest(again - by_kraus(K, rho)) < 1e-14
    with pytest.raises(ValueError, match="Tr P_m†P_n"):
        S.chi(jnp.asarray(2 * units))
    with pytest.raises(ValueError, match="must have shape"):
        S.chi(jnp.asarray(units[:3]))


def test_the_transfer_matrix_of_decay_shrinks_and_moves_the_bloch_vector():
    R = jr.Superoperator.from_kraus(jnp.asarray(decay(0.3))).pauli_transfer_matrix()
    r = np.sqrt(0.7)
    expected = [[1, 0, 0, 0], [0, r, 0, 0], [0, 0, r, 0], [0.3, 0, 0, 0.7]]
    assert largest(R - np.array(expected)) < 1e-15


def test_kraus_operators_are_orthogonal_and_as_many_as_the_rank():
    S = jr.Superoperator.from_kraus(jnp.asarray(channel(4, 3, rank=2)))
    K = np.asarray(S.kraus()).reshape(9, 9)
    gram = K.conj() @ K.T
    assert largest(gram - np.diag(np.diag(gram))) < 1e-13
    assert np.all(np.diff(np.diag(gram).real) <= 0)
    assert largest(K[2:]) < 1e-7  # roots of rounding


def test_the_adjoint_moves_observables():
    S = jr.Superoperator.from_kraus(jnp.asarray(channel(3, 3)))
    A, rho = hermitian(1, 3), state(2, 3)
    assert abs(jnp.trace(A @ S(rho)) - jnp.trace(S.adjoint(A) @ rho)) < 1e-14
    assert largest(S.adjoint.adjoint.tensor - S.tensor) == 0
    T = jr.Superoperator.from_kraus(jnp.asarray(channel(4, 3)))
    assert largest((S @ T).adjoint.tensor - (T.adjoint @ S.adjoint).tensor) < 1e-15


def test_products_act_on_their_own_factors():
    S, T = (jr.Superoperator.from_kraus(jnp.asarray(channel(n, n))) for n in (2, 3))
    rho, sigma = state(1, 2), state(2, 3)
    assert largest((S & T)(jnp.kron(rho, sigma)) - np.kron(S(rho), T(sigma))) < 1e-14
    one = jr.Superoperator.identity
    order = (S & one(3)) @ (one(2) & T)
    assert largest(order.tensor - (S & T).tensor) < 1e-15
    noisy = jr.Superoperator(S.tensor, error=1e-3, trace_defect=1e-4) & jr.Superoperator(
        T.tensor, error=1e-2
    )
    np.testing.assert_allclose([noisy.error, noisy.trace_defect], [1.1e-2, 1e-4])


# --------------------------------------------------------------------------------------------------
# What a collision is
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_letters_packets_are_not_quite_a_state_and_a_mixture_is(effusion):
    letters, mixture = effusion
    assert letters.is_trace_preserving() and letters.is_hermiticity_preserving()
    assert mixture.is_cptp() and not letters.is_cptp()
    weights, A = letters.canonical()
    assert -0.03 < weights[-1] < -0.02
    # far above the map's error: it is the packet's, not the grid's
    assert letters.error < 1e-9
    again = np.einsum("n,naj,nbk->abjk", weights, A, np.conj(A))
    assert largest(again - letters.tensor) < 1e-14
    with pytest.raises(ValueError, match=r"completely positive, but .* is -0\.02"):
        letters.kraus()
    rho = state(1, 2)
    assert largest(by_kraus(mixture.kraus(), rho) - mixture(rho)) < 1e-13
    # on half of a pair the Letter's map makes a "state" with a negative probability
    pair = np.eye(2).reshape(-1) / np.sqrt(2)
    both = (letters & jr.Superoperator.identity(2))(jnp.asarray(np.outer(pair, pair)))
    np.testing.assert_allclose(np.linalg.eigvalsh(both)[0], weights[-1] / 2, rtol=1e-12)


@pytest.mark.slow
def test_a_collision_warms_the_hottest_state_of_all(effusion):
    # S(1) ≠ 1: a reservoir of finite temperature changes the state of infinite temperature
    _, S = effusion
    assert not S.is_unital()
    assert S.adjoint.is_unital() and not S.adjoint.is_trace_preserving()
    dephasing = pauli_channel([0.7, 0, 0, 0.3])
    assert dephasing.is_unital() and dephasing.is_cptp()


@pytest.mark.slow
def test_a_collision_leaves_a_spectator_alone():
    # Particles that meet one qubit of two without interaction: the collision of four levels, computed
    # as such, is that of two levels beside the identity.
    V = hermitian(3, 2)
    slab = dict(length=1.0)
    packet = jr.EffusionPacket(beta=0.4, mass=0.5, width=0.8, position=-2.0)
    one, spectator = np.array([-0.35, 0.35]), np.array([0.0, 0.25])
    joint = (one[:, None] + spectator).reshape(-1)
    order = np.argsort(joint)
    place = np.eye(4)[:, order]
    rule = jr.DoubleExponential(96, 64)
    S = jr.scattering_map(
        jr.System(one),
        jr.Reservoir(packet, jr.Slab(V, **slab), rate=1.0),
        quadrature=rule,
    )
    W = jnp.asarray(place.T @ np.kron(V, np.eye(2)) @ place)
    both = jr.scattering_map(
        jr.System(joint[order]),
        jr.Reservoir(packet, jr.Slab(W, **slab), rate=1.0),
        quadrature=jr.DoubleExponential(40, 40),
    )
    turn = jr.Superoperator.from_unitary(jnp.asarray(place))
    expected = S & jr.Superoperator.identity(2)
    assert largest((turn @ both @ turn.adjoint).tensor - expected.tensor) < 1e-10


# --------------------------------------------------------------------------------------------------
# Properties, errors
# --------------------------------------------------------------------------------------------------


def test_properties_tell_what_is_broken():
    K = jnp.asarray(channel(7, 3))
    S = jr.Superoperator.from_kraus(K)
    assert S.is_cptp()
    assert not jr.Superoperator.from_kraus(0.999 * K).is_trace_preserving()
    assert jr.Superoperator.from_kraus(0.999 * K).is_trace_preserving(tol=0.01)
    transpose = jr.Superoperator(jnp.einsum("ak,bj->abjk", jnp.eye(3), jnp.eye(3)))
    assert transpose.is_trace_preserving() and transpose.is_unital()
    assert not transpose.is_completely_positive()  # positive, but not completely
    rotated = jr.Superoperator(1j * S.tensor)
    assert not rotated.is_hermiticity_preserving() and not rotated.is_completely_positive()
    with pytest.raises(ValueError, match="preserve Hermiticity"):
        rotated.pauli_transfer_matrix()


def test_a_known_error_is_forgiven():
    S = jr.Superoperator.from_kraus(jnp.asarray(channel(8, 2, rank=2)))
    off = jr.Superoperator(S.tensor - 1e-6 * jnp.einsum("aj,bk->abjk", jnp.eye(2), jnp.eye(2)))
    assert not off.is_cptp()
    assert jr.Superoperator(off.tensor, error=1e-6).is_cptp()
    assert off.kraus(tol=1e-5).shape == (4, 2, 2)


def test_refusals_under_jit_happen_at_run_time(effusion):
    letters, mixture = effusion
    kraus = eqx.filter_jit(lambda S: S.kraus())
    assert largest(kraus(mixture) - mixture.kraus()) < 1e-12
    with pytest.raises(eqx.EquinoxRuntimeError, match="completely positive"):
        kraus(letters)


def test_bad_shapes_are_told():
    with pytest.raises(ValueError, match="N² rows"):
        jr.Superoperator.from_choi(jnp.eye(3))
    with pytest.raises(ValueError, match="must act on 2 levels"):
        jr.choi_distance(jr.Superoperator.identity(2), jr.Superoperator.identity(3))


# --------------------------------------------------------------------------------------------------
# Distances
# --------------------------------------------------------------------------------------------------


def test_distances_of_pauli_channels_are_those_of_their_probabilities():
    p, q = np.array([0.6, 0.3, 0.1, 0.0]), np.array([0.5, 0.1, 0.2, 0.2])
    S, T = pauli_channel(p), pauli_channel(q)
    np.testing.assert_allclose(jr.choi_distance(S, T), np.sum(abs(p - q)) / 2, rtol=1e-14)
    np.testing.assert_allclose(jr.process_fidelity(S, T), np.sum(np.sqrt(p * q)) ** 2, rtol=1e-13)
    # the Bures bounds (Fuchs and van de Graaf)
    F = jr.process_fidelity(S, T)
    assert 1 - np.sqrt(F) <= jr.choi_distance(S, T) <= np.sqrt(1 - F)


@pytest.mark.parametrize("N", SIZES)
def test_fidelity_to_a_unitary(N):
    K, U = channel(N, N), unitary(N, N)
    S, T = jr.Superoperator.from_kraus(jnp.asarray(K)), jr.Superoperator.from_unitary(U)
    expected = np.sum(np.abs(np.einsum("nab,ab->n", K, np.conj(U))) ** 2) / N**2
    np.testing.assert_allclose(jr.process_fidelity(S, T), expected, rtol=1e-13)
    # neither depends on what is done before or after to both
    V = jr.Superoperator.from_unitary(unitary(9, N))
    np.testing.assert_allclose(
        jr.choi_distance(V @ S @ T, V @ T @ T), jr.choi_distance(S, T), rtol=1e-12
    )


def diamond(S, T, tol=1e-7):
    bounds = jr.diamond_distance(S, T, tol=tol)
    assert bounds.lower <= bounds.upper + 1e-8
    return bounds


@pytest.mark.slow
def test_diamond_distances_that_are_known():
    one = jr.Superoperator.identity(2)
    # Pauli channels: the total variation; damping: the excited state tells best; unitaries: how far
    # their relative phases lie apart, √(1 − d²) with d the distance of their hull from 0
    p, q = np.array([0.6, 0.3, 0.1, 0.0]), np.array([0.5, 0.1, 0.2, 0.2])
    phases = jr.Superoperator.from_unitary(jnp.diag(jnp.exp(1j * jnp.array([0.0, 0.3, 1.0]))))
    cases = [
        (pauli_channel(p), pauli_channel(q), np.sum(abs(p - q)) / 2),
        (jr.Superoperator.from_kraus(jnp.asarray(decay(0.3))), one, 0.3),
        (phases, jr.Superoperator.identity(3), np.sin(0.5)),
        (one, one, 0.0),
    ]
    for S, T, expected in cases:
        bounds = diamond(S, T)
        np.testing.assert_allclose([bounds.lower, bounds.upper], expected, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_no_experiment_tells_channels_apart_better_than_the_diamond_distance(seed):
    N = 3
    S, T = (jr.Superoperator.from_kraus(jnp.asarray(channel(2 * seed + i, N))) for i in (0, 1))
    bounds = diamond(S, T, tol=1e-6)
    assert bounds.upper - bounds.lower < 1e-5
    rng = np.random.default_rng(seed)
    psi = rng.normal(size=(500, N * N)) + 1j * rng.normal(size=(500, N * N))
    psi /= np.linalg.norm(psi, axis=1)[:, None]
    change = jr.Superoperator(S.tensor - T.tensor) & jr.Superoperator.identity(N)
    states = change(jnp.asarray(np.einsum("na,nb->nab", psi, psi.conj())))
    told = np.sum(np.abs(np.linalg.eigvalsh(states)), axis=1) / 2
    assert told.max() < bounds.upper
    D = jr.choi_distance(S, T)
    assert 0.5 < told.max() / bounds.lower and D <= bounds.lower <= N * D
    # a distance: it shrinks when the same is done afterwards
    R = jr.Superoperator.from_kraus(jnp.asarray(channel(90, N)))
    assert diamond(R @ S, R @ T).lower < bounds.lower


@pytest.mark.slow
def test_the_derivative_of_a_diamond_distance():
    S, T, R = (jr.Superoperator.from_kraus(jnp.asarray(channel(seed, 2))) for seed in (1, 2, 3))

    def distance(x):
        mixed = jr.Superoperator((1 - x) * S.tensor + x * R.tensor)
        return jr.diamond_distance(mixed, T, tol=1e-9, max_steps=3000).lower

    slope, h = jax.grad(distance)(0.3), 1e-3
    difference = (distance(0.3 + h) - distance(0.3 - h)) / (2 * h)
    assert abs(slope) > 0.01
    np.testing.assert_allclose(slope, difference, rtol=1e-4)


@pytest.mark.slow
def test_derivatives_of_distances():
    def channels(x):
        K = [jnp.array([[1.0, 0], [0, 0]]) + jnp.sqrt(1 - x) * jnp.diag(jnp.array([0.0, 1]))]
        K.append(jnp.sqrt(x) * jnp.array([[0.0, 1], [0, 0]]))
        turn = jnp.array([[jnp.cos(x), -jnp.sin(x)], [jnp.sin(x), jnp.cos(x)]])
        mix = jr.Superoperator.from_unitary(turn)
        damp = jr.Superoperator.from_kraus(jnp.stack(K))
        full = jr.Superoperator(0.9 * damp.tensor + 0.1 * pauli_channel([0.25] * 4).tensor)
        return damp, mix, full

    def measures(x):
        damp, mix, full = channels(x)
        other = pauli_channel([0.4, 0.3, 0.2, 0.1])
        one = jr.Superoperator.identity(2)
        return jnp.stack(
            [
                jr.process_fidelity(damp, one),  # rank 2 against rank 1
                jr.process_fidelity(damp, mix),  # both vary
                jr.process_fidelity(full, other),  # full rank
                jr.process_fidelity(other, full),
                jr.choi_distance(damp, mix),
            ]
        )

    x, measures = jnp.asarray(0.3), jax.jit(measures)
    differences = slope(lambda t: measures(x + t), 1e-4)
    forward, reverse = jax.jacfwd(measures)(x), jax.jacrev(measures)(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
    assert largest(forward) > 0.1
    np.testing.assert_allclose(forward, differences, rtol=1e-9)


def test_forms_are_differentiable():
    # what the Kraus operators make of a state does not depend on their choice: nor does its derivative
    K, dK, rho = (jnp.asarray(x) for x in (channel(1, 2, 2), channel(2, 2, 2), state(3, 2)))

    def after(x):
        S = jr.Superoperator.from_kraus(K + x * dK)
        operators = S.kraus()
        again = jnp.einsum("naj,jk,nbk->ab", operators, rho, jnp.conj(operators))
        return jnp.stack([again, S(rho)])

    (one, two) = jax.jvp(after, (0.2,), (1.0,))[1]
    assert largest(one - two) < 1e-7 and largest(two) > 0.1
