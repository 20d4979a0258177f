"""Eq. 16 against its algebra: unitarity, reciprocity, invariances, closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, unitary

import jaxres as jr

MASS = jnp.asarray(0.7)
LEVELS = jnp.array([-0.5, 0.2, 1.1])
# below, at 1e-9 from, between and above the thresholds
ENERGIES = jnp.array([-0.3, 0.2 - 1e-9, 0.2 + 1e-9, 0.6, 1.1 + 1e-6, 2.0, 7.0, 60.0])
# where a last digit more or less in an energy does not open or close a channel
APART = jnp.array([-0.3, 0.1, 0.3, 0.6, 1.0, 2.0, 7.0, 60.0])


@eqx.filter_jit
def solve(system, scatterer, energies, model=jr.Exact(), mass=MASS):
    """Transmission and reflection at many energies, shapes (n, out, in)."""

    def one(E):
        return jr.amplitudes(system, scatterer, mass=mass, energy=E, amplitudes=model)

    s = jax.vmap(one)(energies)
    return s.transmission, s.reflection


def stack(couplings, lengths):
    return jr.Stack([jr.Slab(W, d) for W, d in zip(couplings, lengths, strict=True)])


def s_matrix(levels, couplings, lengths, energies, mass=MASS):
    """The whole S matrix, left and right incidence, every wave referenced to the edge it is at."""
    system = jr.System(levels)
    t, r = solve(system, stack(couplings, lengths), energies, mass=mass)
    t_back, r_back = solve(system, stack(couplings[::-1], lengths[::-1]), energies, mass=mass)
    k = jnp.sqrt(2 * mass * jnp.maximum(energies[:, None] - levels[None], 0))
    to_edge = jnp.exp(1j * k * sum(lengths))[:, :, None]
    return np.block([[np.asarray(r), to_edge * t_back], [to_edge * t, np.asarray(r_back)]])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_s_matrix_is_unitary_over_open_channels(seed):
    couplings = [hermitian(10 * seed + n, 3, scale=2.0) for n in range(2)]
    S = s_matrix(LEVELS, couplings, [0.8, 1.3], ENERGIES)
    is_open = np.tile(ENERGIES[:, None] > LEVELS[None], 2)
    for one, projector in zip(S, is_open, strict=True):
        np.testing.assert_allclose(one.conj().T @ one, np.diag(projector), rtol=0, atol=1e-12)
        np.testing.assert_allclose(one @ one.conj().T, np.diag(projector), rtol=0, atol=1e-12)


def test_real_couplings_are_reciprocal():
    couplings = [hermitian(n, 3, real=True) + 0j for n in range(2)]
    S = s_matrix(LEVELS, couplings, [0.8, 1.3], ENERGIES)
    np.testing.assert_allclose(S, S.swapaxes(1, 2), rtol=0, atol=1e-12)


def test_complex_couplings_of_three_levels_are_not():
    S = np.abs(s_matrix(LEVELS, [hermitian(n, 3) for n in range(2)], [0.8, 1.3], ENERGIES))
    assert np.all(np.max(np.abs(S - S.swapaxes(1, 2)), axis=(1, 2))[4:7] > 0.05)


@pytest.mark.slow
def test_the_letters_qubit_is_reciprocal_in_modulus_only():
    # V_01 = λ(1 + i): a diagonal unitary makes V real, which leaves |s| symmetric and gives the
    # off-diagonal amplitudes the phase of V, so s_01 = i s_10 where Eq. 19 would have s_01 = s_10
    system, reservoir = jr.letter.model()
    t, r = solve(system, reservoir.scatterer, ENERGIES, mass=jnp.asarray(0.1))
    k = jnp.sqrt(0.2 * jnp.maximum(ENERGIES[:, None] - system.levels[None], 0))
    for s in (r, jnp.exp(1j * k)[:, :, None] * t):  # both referenced to an edge of the slab
        assert largest(s[:, 0, 1] - 1j * s[:, 1, 0]) < 1e-13
        assert np.all(np.abs(s[3:, 0, 1]) > 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "length"), [(2, 1.5), pytest.param(3, 1.5, marks=pytest.mark.slow), (2, 25.0)]
)
def test_a_slab_cut_in_pieces_is_the_same_slab(N, length):
    # the last one is opaque: 1e-20 is transmitted
    system = jr.System(LEVELS[:N])
    W = hermitian(3, N) + (0.0 if length < 2 else 3.0) * jnp.eye(N)
    t, r = solve(system, jr.Slab(W, length), APART)
    for cuts in ([0.5, 0.5], [0.2, 0.1, 0.45, 0.25]):
        t_cut, r_cut = solve(system, stack([W] * len(cuts), [c * length for c in cuts]), APART)
        size = jnp.max(jnp.abs(t), axis=(1, 2), keepdims=True)
        assert largest((t_cut - t) / size) < 1e-12
        assert largest(r_cut - r) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("length", [1e-14, 1e-10, 1e-5, 1e-2])
def test_a_thin_stack_is_a_thin_slab(length):
    """Transparent, of finite height, and a δ of finite area; slow particles and fast ones."""
    W = hermitian(4, 3)
    pieces = length * np.array([0.5, 0.2, 0.3])
    for height in (0.0, 1e-9, 1.0, 1 / length):
        one = jr.Slab(height * W, length)
        many = jr.Stack([jr.Slab(height * W, piece) for piece in pieces])
        for energy in (LEVELS[-1] + 1e-6, 2.0, 1e4):
            a, b = (
                jr.amplitudes(jr.System(LEVELS), x, mass=0.1, energy=energy) for x in (one, many)
            )
            assert largest(a.transmission - b.transmission) < 1e-12
            assert largest(a.reflection - b.reflection) < 1e-12


@pytest.mark.slow
def test_a_constant_added_to_all_energies_changes_nothing():
    W = hermitian(1, 3)
    for scatterer in (jr.Slab(W, 1.0), stack([W, 2 * W], [0.4, 0.8])):
        before = solve(jr.System(LEVELS), scatterer, APART)
        after = solve(jr.System(LEVELS + 8.0), scatterer, APART + 8.0)
        assert largest(before[0] - after[0]) < 1e-12
        assert largest(before[1] - after[1]) < 1e-12


def test_a_change_of_basis_changes_nothing():
    W, U = hermitian(1, 3), unitary(2, 3)
    H = U @ jnp.diag(LEVELS).astype(complex) @ jnp.conj(U.T)
    rotated = jr.System.from_hamiltonian(H)
    assert largest(rotated.levels - LEVELS) < 1e-14
    # eigenvectors are known up to their phases
    phases = jnp.conj(U.T) @ rotated.basis
    assert largest(phases - jnp.diag(jnp.diagonal(phases))) < 1e-13
    expected = solve(jr.System(LEVELS), jr.Slab(W, 1.0), APART)
    got = solve(rotated, jr.Slab(U @ W @ jnp.conj(U.T), 1.0), APART)
    for s, ref in zip(got, expected, strict=True):
        assert largest(phases[None] @ s @ jnp.conj(phases.T)[None] - ref) < 1e-12


@pytest.mark.parametrize("height", [-2.0, 0.0, 1.3, 5.0])
def test_one_level_is_the_square_barrier_of_the_textbooks(height):
    E, m, L = np.array([0.1, 1.0, 1.3, 4.0, 30.0]), MASS, 1.7
    t, r = solve(jr.System([0.0]), jr.Slab([[height]], L), jnp.asarray(E))
    k, q = np.sqrt(2 * m * E), np.sqrt(2 * m * (E - height) + 0j)
    sine = np.where(q == 0, L, np.sin(q * L) / np.where(q == 0, 1, q))  # sin(qL)/q
    denominator = np.cos(q * L) - 0.5j * (k**2 + q**2) / k * sine
    np.testing.assert_allclose(t[:, 0, 0], np.exp(-1j * k * L) / denominator, rtol=0, atol=1e-13)
    expected = 0.5j * (q**2 - k**2) / k * sine / denominator
    np.testing.assert_allclose(r[:, 0, 0], expected, rtol=0, atol=1e-13)


def test_diagonal_couplings_do_not_mix_levels():
    W = jnp.diag(jnp.array([0.3, -1.0, 0.8])) + 0j
    t, r = solve(jr.System(LEVELS), jr.Slab(W, 1.1), ENERGIES)
    for level, height in enumerate([0.3, -1.0, 0.8]):
        above = ENERGIES > LEVELS[level]
        energies = jnp.where(above, ENERGIES - LEVELS[level], 1.0)
        t1, r1 = solve(jr.System([0.0]), jr.Slab([[height]], 1.1), energies)
        assert largest(jnp.where(above, t[:, level, level] - t1[:, 0, 0], 0)) < 1e-12
        assert largest(jnp.where(above, r[:, level, level] - r1[:, 0, 0], 0)) < 1e-12
    off = 1 - np.eye(3)
    assert largest(t * off[None]) == largest(r * off[None]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("slabs", [1, 2])
def test_transfer_matrices_agree_where_nothing_is_opaque(slabs):
    couplings = [hermitian(7 + n, 3, scale=0.5) for n in range(slabs)]
    system, scatterer = jr.System(LEVELS), stack(couplings, [0.3, 0.2][:slabs])
    if slabs == 1:
        scatterer = scatterer.slabs[0]
    for a, b in zip(
        solve(system, scatterer, ENERGIES),
        solve(system, scatterer, ENERGIES, jr.TransferMatrix()),
        strict=True,
    ):
        assert largest(a - b) < 1e-11


@pytest.mark.slow
def test_a_profile_is_a_stack_and_converges():
    system, V, L = jr.System(LEVELS[:2]), hermitian(4, 2), 1.2

    def smooth(count):
        x = (jnp.arange(count) + 0.5) / count
        return jnp.sin(jnp.pi * x) ** 2

    few = jr.Profile(V, smooth(4), L)
    same = stack([f * V for f in few.heights], [L / 4] * 4)
    for a, b in zip(solve(system, few, APART), solve(system, same, APART), strict=True):
        assert largest(a - b) < 1e-13

    # always as 16 slabs, so that there is one program to compile
    profiles = [jr.Profile(V, jnp.repeat(smooth(M), 16 // M), L) for M in (4, 8, 16)]
    t = [solve(system, profile, APART)[0] for profile in profiles]
    ratio = largest(t[0] - t[1]) / largest(t[1] - t[2])
    assert 3.7 < ratio < 4.5  # the error falls as 1/M²


@pytest.mark.parametrize("traced", ["mass", "energy", "levels", "coupling", "length"])
def test_each_argument_may_be_traced_alone(traced):
    # the others are known then, and are checked while the call is traced
    known = dict(
        mass=0.1, energy=1.0, levels=[-0.3, 0.3], coupling=[[0.0, 1.0], [1.0, 0.0]], length=1.0
    )

    def transmission(x):
        given = known | {traced: x}
        slab = jr.Slab(given["coupling"], given["length"])
        amplitudes = jr.amplitudes(
            jr.System(given["levels"]), slab, mass=given["mass"], energy=given["energy"]
        )
        return amplitudes.transmission

    expected, value = transmission(known[traced]), jnp.asarray(known[traced])
    assert largest(jax.jit(transmission)(value) - expected) < 1e-14
    assert largest(jax.vmap(transmission)(value[None])[0] - expected) < 1e-14
    assert bool(jnp.all(jnp.isfinite(jax.jacfwd(transmission)(value))))
