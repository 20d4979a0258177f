"""Entry by entry what QuTiP's own conversions give; column stacking and bases included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip
from helpers import hermitian, largest, unitary

import jaxres as jr
from jaxres._quantum.operators import annihilation_matrix, spin_matrices

FACTORS = [[2], [3], [2, 2], [2, 3]]


def channel(dims, rank=3, seed=0):
    """A random channel as QuTiP's Kraus operators."""
    N = int(np.prod(dims))
    rng = np.random.default_rng([seed, *dims])
    A = rng.normal(size=(rank * N, N)) + 1j * rng.normal(size=(rank * N, N))
    K = np.linalg.qr(A)[0].reshape(rank, N, N)
    return [qutip.Qobj(k, dims=[dims, dims]) for k in K]


@pytest.fixture(params=FACTORS, ids=str)
def kraus(request):
    return channel(request.param)


def ours(kraus):
    return jr.Superoperator.from_kraus(jnp.asarray([k.full() for k in kraus]))


def test_maps_are_qutips_entry_by_entry(kraus):
    S, Q = ours(kraus), qutip.kraus_to_super(kraus)
    converted = jr.to_qutip(S, dims=kraus[0].dims[0])
    assert converted.dims == Q.dims and converted.superrep == Q.superrep == "super"
    assert largest(converted.full() - Q.full()) < 1e-15
    each = [qutip.sprepost(k, k.dag()).full() for k in kraus]
    assert largest(converted.full() - sum(each)) < 1e-15
    rho = qutip.rand_dm(kraus[0].dims[0], seed=1)
    after = qutip.vector_to_operator(converted * qutip.operator_to_vector(rho))
    assert largest(after.full() - S(jr.from_qutip(rho))) < 1e-15


def test_maps_come_back_from_every_form(kraus):
    S, Q = ours(kraus), qutip.kraus_to_super(kraus)
    forms = [Q, qutip.to_choi(Q), kraus, tuple(kraus), qutip.to_kraus(Q)]
    if set(kraus[0].dims[0]) == {2}:
        forms += [qutip.to_chi(Q), qutip.to_superpauli(Q)]
    for form in forms:
        assert largest(jr.from_qutip(form).tensor - S.tensor) < 1e-14
    turn = qutip.Qobj(np.asarray(unitary(4, S.size)), dims=kraus[0].dims)
    mine = jr.Superoperator.from_unitary(jr.from_qutip(turn))
    assert largest(jr.from_qutip(qutip.to_super(turn)).tensor - mine.tensor) < 1e-15


def test_choi_matrices_differ_by_the_order_of_indices_only(kraus):
    # QuTiP's C = Σ |j⟩⟨k| ⊗ S(|j⟩⟨k|) has the incoming index first
    S, C = ours(kraus), qutip.to_choi(qutip.kraus_to_super(kraus)).full()
    N = S.size
    swapped = C.reshape((N,) * 4).transpose(1, 0, 3, 2).reshape(N * N, N * N)
    assert largest(S.choi - swapped) < 1e-15


@pytest.mark.parametrize("dims", [[2], [2, 2]], ids=str)
def test_chi_and_pauli_transfer_matrix(dims):
    # QuTiP's χ has trace N², ours 1; and QuTiP's σ_y is −σ_y here (its issue 1873), at least to 5.3
    kraus = channel(dims)
    S, Q = ours(kraus), qutip.kraus_to_super(kraus)
    about_x = qutip.to_super((-0.5j * qutip.sigmax()).expm())  # turns y towards z
    y = np.sign(qutip.to_superpauli(about_x).full()[3, 2].real)
    sign = [1, 1, y, 1] if len(dims) == 1 else np.kron([1, 1, y, 1], [1, 1, y, 1])
    signs = np.multiply.outer(sign, sign)
    assert largest(S.chi() * S.size**2 - signs * qutip.to_chi(Q).full()) < 1e-13
    assert largest(S.pauli_transfer_matrix() - signs * qutip.to_superpauli(Q).full()) < 1e-14


def test_kraus_operators_are_qutips_up_to_order_and_phase():
    Q = qutip.kraus_to_super(channel([3]))
    mine = np.asarray(jr.from_qutip(Q).kraus())[:3].reshape(3, 9)
    theirs = np.stack([k.full() for k in qutip.to_kraus(Q)]).reshape(-1, 9)
    theirs = theirs[np.argsort(-np.linalg.norm(theirs, axis=1))]
    assert theirs.shape == (3, 9)
    overlap = np.abs(np.sum(mine.conj() * theirs, axis=1))
    np.testing.assert_allclose(overlap, np.linalg.norm(mine, axis=1) ** 2, rtol=1e-12)


@pytest.mark.slow
def test_verdicts_and_operations_are_qutips(kraus):
    S, Q = ours(kraus), qutip.kraus_to_super(kraus)
    assert S.is_cptp() == Q.iscptp and S.is_completely_positive() == Q.iscp
    other = jr.Superoperator.from_choi(S.choi - 0.2 * jnp.eye(S.size**2))
    back = jr.to_qutip(other, dims=kraus[0].dims[0])
    assert other.is_cptp() == back.iscptp and other.is_completely_positive() == back.iscp
    assert other.is_hermiticity_preserving() and back.ishp
    then = channel(kraus[0].dims[0], seed=1)
    both = Q * qutip.kraus_to_super(then)
    assert largest((S @ ours(then)).tensor - jr.from_qutip(both).tensor) < 1e-15
    adjoint = S.adjoint(jnp.asarray(hermitian(0, S.size)))
    A = qutip.Qobj(np.asarray(hermitian(0, S.size)), dims=kraus[0].dims)
    theirs = sum((k.dag() * A * k for k in kraus[1:]), kraus[0].dag() * A * kraus[0])
    assert largest(adjoint - theirs.full()) < 1e-14


def test_a_spectator_is_qutips_tensor_product():
    kraus = channel([2])
    with_one = [qutip.tensor(k, qutip.qeye(3)) for k in kraus]
    S = ours(kraus) & jr.Superoperator.identity(3)
    assert largest(S.tensor - jr.from_qutip(with_one).tensor) < 1e-15


@pytest.mark.slow
def test_distances_are_qutips(kraus):
    dims = kraus[0].dims[0]
    S, T = ours(kraus), ours(channel(dims, rank=2, seed=5))
    theirs = [qutip.kraus_to_super(kraus), qutip.kraus_to_super(channel(dims, rank=2, seed=5))]
    fidelity = qutip.process_fidelity(*theirs)
    np.testing.assert_allclose(jr.process_fidelity(S, T), fidelity, rtol=1e-6)
    C, D = (qutip.to_choi(Q) / S.size for Q in theirs)
    distance = jr.choi_distance(S, T)
    np.testing.assert_allclose(distance, qutip.tracedist(C, D), rtol=1e-6)  # good to √eps
    np.testing.assert_allclose(distance, np.sum(abs((C - D).eigenenergies())) / 2, rtol=1e-12)


# --------------------------------------------------------------------------------------------------
# Bases
# --------------------------------------------------------------------------------------------------


def test_hamiltonians_go_and_come_back():
    H = qutip.rand_herm([2, 2], density=1, seed=3)
    system = jr.System.from_hamiltonian(jr.from_qutip(H))
    np.testing.assert_allclose(system.levels, H.eigenenergies(), rtol=1e-12)
    again = jr.to_qutip(system, dims=[2, 2])
    assert again.dims == H.dims and largest((again - H).full()) < 1e-14
    eigenbasis = jr.to_qutip(jr.System([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(eigenbasis.full(), np.diag([0.0, 1.0, 2.0]))


def test_states_are_turned_into_the_basis_of_the_hamiltonian():
    H = qutip.rand_herm(3, density=1, seed=4)
    system = jr.System.from_hamiltonian(jr.from_qutip(H))
    gibbs = jr.to_qutip(jr.gibbs_state(system, 0.7), system=system)
    assert largest((gibbs - (-0.7 * H).expm().unit()).full()) < 1e-14
    psi = qutip.rand_ket(3, seed=5)
    rho = jr.from_qutip(psi, system=system)
    energy = jnp.sum(system.levels * jr.populations(rho))
    np.testing.assert_allclose(energy, qutip.expect(H, psi), rtol=1e-12)
    assert largest((jr.to_qutip(rho, system=system) - psi.proj()).full()) < 1e-14
    assert largest(jr.from_qutip(psi) - psi.proj().full()) == 0


def test_maps_are_turned_with_their_states():
    H = qutip.rand_herm(3, density=1, seed=6)
    system = jr.System.from_hamiltonian(jr.from_qutip(H))
    kraus = channel([3])
    Q, rho = qutip.kraus_to_super(kraus), qutip.rand_dm(3, seed=7)
    S = jr.from_qutip(Q, system=system)
    theirs = qutip.vector_to_operator(Q * qutip.operator_to_vector(rho))
    mine = jr.to_qutip(S(jr.from_qutip(rho, system=system)), system=system)
    assert largest((mine - theirs).full()) < 1e-14
    assert largest((jr.to_qutip(S, system=system) - Q).full()) < 1e-14
    assert largest((jr.to_qutip(S) - Q).full()) > 0.1


@pytest.mark.slow
def test_qutip_solves_the_same_master_equation():
    # the steady state that QuTiP finds for our generator, in the basis of the Hamiltonian
    H = qutip.Qobj([[0.25, 0.1 - 0.2j], [0.1 + 0.2j, -0.25]])
    system = jr.System.from_hamiltonian(jr.from_qutip(H))
    reservoir = jr.letter.model()[1]
    L = jr.to_qutip(jr.generator(system, reservoir), system=system)
    rho = jr.to_qutip(jr.steady_state(system, reservoir).rho, system=system)
    assert largest((qutip.steadystate(L) - rho).full()) < 1e-12
    # L = −i[H, ·] + Γ(S − 1)
    S = jr.to_qutip(jr.scattering_map(system, reservoir), system=system)
    again = qutip.liouvillian(H) + float(reservoir.rate) * (S - qutip.to_super(qutip.qeye(2)))
    assert largest((L - again).full()) < 1e-13


# --------------------------------------------------------------------------------------------------
# Tables, errors
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [2, 3, 4, 7])
def test_operators_are_qutips_entry_by_entry(N):
    theirs = np.stack([qutip.jmat((N - 1) / 2, axis).full() for axis in "xyz"])
    assert largest(spin_matrices(N) - theirs) < 1e-15
    assert largest(annihilation_matrix(N) - qutip.destroy(N).full()) < 1e-15


def test_what_cannot_be_converted_is_told():
    with pytest.raises(ValueError, match="must multiply to 4"):
        jr.to_qutip(jnp.eye(4), dims=[2, 3])
    with pytest.raises(ValueError, match="must have 2 levels"):
        jr.to_qutip(jnp.eye(2), system=jr.System([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="is a bra"):
        jr.from_qutip(qutip.basis(2, 0).dag())
    with pytest.raises(ValueError, match="of a system onto itself"):
        jr.from_qutip(qutip.Qobj(np.ones((2, 3))))


def test_products_of_maps_are_told_from_maps_of_products():
    # qutip.tensor of maps has the indices (k, j) of each factor side by side: no map of ρ stacked in columns
    one, two = (qutip.kraus_to_super(channel([2], seed=seed)) for seed in (0, 1))
    S = jr.from_qutip(qutip.super_tensor(one, two))
    assert largest(S.tensor - (jr.from_qutip(one) & jr.from_qutip(two)).tensor) < 1e-14
    wrong = qutip.tensor(one, two)
    assert largest(wrong.full() - qutip.super_tensor(one, two).full()) > 0.1
    choi = qutip.tensor(qutip.to_choi(one), qutip.to_choi(two))
    for Q in (wrong, choi, qutip.tensor(one, one, two)):
        with pytest.raises(ValueError, match=r"`Q` must be a map .* Use qutip.super_tensor"):
            jr.from_qutip(Q)


@pytest.mark.parametrize(
    ("Q", "message"),
    [
        (3.0, "must be a qutip.Qobj"),
        ([], "must be Kraus operators of one system"),
        ([qutip.qeye(2), qutip.qeye(3)], "must be Kraus operators of one system"),
        ([qutip.qeye(4), qutip.qeye([2, 2])], "must be Kraus operators of one system"),
        ([qutip.qeye(2), 1.0], "must be a qutip.Qobj, or a list"),
        ([qutip.basis(2, 0)], "must be a ket, a square operator"),
    ],
)
def test_what_is_no_map_and_no_operator_is_refused_by_name(Q, message):
    with pytest.raises(ValueError, match=f"Argument `Q` {message}"):
        jr.from_qutip(Q)


def test_what_is_traced_cannot_go_to_qutip():
    with pytest.raises(ValueError, match="`x` must be known numbers, but is traced"):
        jax.jit(lambda x: jr.to_qutip(x).full())(jnp.eye(2))
