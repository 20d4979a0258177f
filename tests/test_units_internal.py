"""Particles with internal levels: what the trace over them must give, two temperatures, where the heat comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, unitary

import jaxres as jr

BETA = 0.4
PACKET = jr.EffusionPacket(beta=BETA, mass=0.5, width=0.8, position=-2.0)
SYSTEM = jr.System([-0.4, 0.5])
LEVELS = jr.System([0.1, 0.8])
W = hermitian(3, 4)


def reservoir_with(unit, coupling=W):
    return jr.Reservoir(PACKET, jr.Slab(coupling, 1.0), 1.0, internal=unit)


def given_state(seed=0):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2))
    return A @ A.conj().T / np.trace(A @ A.conj().T).real


@pytest.mark.slow
def test_a_unit_that_is_not_coupled_does_nothing():
    alone = jr.scattering_map(
        SYSTEM,
        jr.Reservoir(PACKET, jr.Slab(hermitian(6, 2), 1.0), 1.0),
        quadrature=jr.DoubleExponential().refined(),
    )
    coupling = jnp.kron(hermitian(6, 2), jnp.eye(2))
    S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState(LEVELS, given_state()), coupling))
    assert largest(S.tensor - alone.tensor) < 1e-9 + 10 * float(S.error)
    assert float(S.error) < 1e-7


@pytest.mark.slow
def test_a_unit_that_keeps_its_level_is_a_switch():
    # W = Σ_a W_a ⊗ |a⟩⟨a|: with probability σ_aa the system meets W_a, whatever coherence σ has
    parts = hermitian(6, 2), hermitian(7, 2) + 2.5 * jnp.eye(2)  # repulsive: no narrow resonances
    coupling = sum(jnp.kron(part, jnp.diag(jnp.eye(2)[a])) for a, part in enumerate(parts))
    sigma = given_state(1)
    S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState(LEVELS, sigma), coupling))
    alone = [
        jr.scattering_map(
            SYSTEM,
            jr.Reservoir(PACKET, jr.Slab(part, 1.0), 1.0),
            quadrature=jr.DoubleExponential(96, 64),
        )
        for part in parts
    ]
    assert float(S.error) < 1e-6 and all(float(one.error) < 1e-8 for one in alone)
    expected = sum(sigma[a, a].real * one.tensor for a, one in enumerate(alone))
    assert largest(S.tensor - expected) < 2e-7
    heat = jr.collision_heat(
        SYSTEM, reservoir_with(jr.InternalState(LEVELS, sigma), coupling), jnp.eye(2) / 2
    )
    assert abs(heat.internal) < 1e-9 < abs(heat.kinetic)


@pytest.mark.slow
def test_the_map_of_a_given_state():
    # entries of the joint map, traced by hand; the levels of system and unit interleave
    sigma = given_state(2)
    S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState(LEVELS, sigma)))
    energies = np.add.outer([-0.4, 0.5], [0.1, 0.8]).ravel()
    order = np.argsort(energies)
    assert order.tolist() == [0, 1, 2, 3]
    joint = jr.scattering_map(jr.System(energies), reservoir_with(None)).tensor
    joint = np.asarray(joint).reshape((2,) * 8)
    expected = np.einsum("jxkxlamb,ab->jklm", joint, sigma)
    assert largest(S.tensor - expected) < 1e-12
    assert largest(jnp.einsum("aajk->jk", S.tensor) - jnp.eye(2)) < 1e-13
    # a unit of larger splitting, so that the joint levels have another order: the same up to the swap
    wide = jr.System([0.1, 1.6])
    S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState(wide, sigma)))
    swap = np.eye(4)[[0, 2, 1, 3]]
    energies = np.add.outer([-0.4, 0.5], [0.1, 1.6]).ravel()[[0, 2, 1, 3]]
    joint = jr.scattering_map(jr.System(energies), reservoir_with(None, swap @ W @ swap)).tensor
    joint = np.einsum("pa,qb,abcd,rc,sd->pqrs", swap, swap, joint, swap, swap).reshape((2,) * 8)
    assert largest(S.tensor - np.einsum("jxkxlamb,ab->jklm", joint, sigma)) < 1e-12


@pytest.mark.slow
def test_bases_of_the_users_choice():
    U, V = unitary(1, 2), unitary(2, 2)
    system = jr.System.from_hamiltonian(U @ jnp.diag(SYSTEM.levels) @ U.conj().T)
    levels = jr.System.from_hamiltonian(V @ jnp.diag(LEVELS.levels) @ V.conj().T)
    turn = jnp.kron(system.basis, levels.basis)
    sigma = given_state(3)
    S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState(LEVELS, sigma)))
    turned = jr.scattering_map(
        system, reservoir_with(jr.InternalState(levels, sigma), turn @ W @ turn.conj().T)
    )
    assert largest(S.tensor - turned.tensor) < 1e-12


def thermal(beta, levels=LEVELS):
    return jr.InternalState.thermal(levels, beta)


def test_both_at_one_temperature_thermalise():
    gibbs = jr.gibbs_state(SYSTEM, BETA)
    S = jr.scattering_map(SYSTEM, reservoir_with(thermal(BETA)))
    never = jr.steady_state(SYSTEM, jr.Collisions(S, jnp.asarray(1e-9))).rho
    assert largest(never - gibbs) < 1e-7 + 10 * float(S.error)
    heat = jr.collision_heat(SYSTEM, reservoir_with(thermal(BETA)), gibbs)
    assert abs(heat.kinetic) + abs(heat.internal) < 1e-7 + 10 * float(S.error)


@pytest.mark.parametrize("beta", [0.1, 1.5])
def test_units_of_their_own_temperature_drive_a_current(beta):
    reservoir = reservoir_with(thermal(beta))
    S = jr.scattering_map(SYSTEM, reservoir)
    rho = jr.steady_state(SYSTEM, jr.Collisions(S, jnp.asarray(1e-9))).rho
    # the system settles between the two temperatures
    effective = float(jnp.log(rho[0, 0].real / rho[1, 1].real)) / 0.9
    assert min(beta, BETA) + 0.01 < effective < max(beta, BETA) - 0.01
    heat = jr.collision_heat(SYSTEM, reservoir, rho)
    assert abs(heat.total) < 1e-8
    # heat flows from what is hotter, through the system, to what is colder
    assert (heat.internal > 1e-3) if beta < BETA else (heat.internal < -1e-3)


def test_the_heat_is_what_the_system_gains():
    rho = jnp.asarray(given_state(4))
    for reservoir in (
        reservoir_with(thermal(1.5)),
        jr.Reservoir(PACKET, jr.Slab(hermitian(6, 2), 1.0), 1.0),
    ):
        heat = jr.collision_heat(SYSTEM, reservoir, rho)
        after = jr.scattering_map(SYSTEM, reservoir)(rho)
        gain = jnp.sum(SYSTEM.levels * jnp.real(jnp.diagonal(after - rho)))
        np.testing.assert_allclose(heat.total, gain, rtol=1e-10)
        assert abs(gain) > 1e-3


@pytest.mark.slow
def test_the_gradient_at_resonance():
    # levels e_0 + u_1 = e_1 + u_0 that cross, where the order of the joint levels changes. A threshold moves through
    # 0 there, and entries of the map are f(0) + f'(0) δ + c |δ|^{3/2}
    def observed(x):
        levels = jr.System(jnp.stack([jnp.zeros_like(x), x]))
        S = jr.scattering_map(SYSTEM, reservoir_with(jr.InternalState.thermal(levels, BETA)))
        return S.tensor[0, 1, 0, 0].real

    at, h = jnp.asarray(0.9), np.array([1e-4, 1e-5])
    f = jax.jit(lambda x: jax.lax.map(observed, x))(at + jnp.asarray([*-h, *h]))
    central = np.asarray(f[2:] - f[:2]) / (2 * h)
    limit = central[1] - (central[0] - central[1]) / (np.sqrt(10) - 1)
    for mode in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(mode(observed))(at), limit, rtol=3e-4)
    assert abs(central[1] - limit) > 1e-3 * abs(limit)


@pytest.mark.slow
def test_bad_units():
    with pytest.raises(ValueError, match="`state` must have trace 1"):
        jr.InternalState(LEVELS, jnp.eye(2))
    with pytest.raises(ValueError, match="`state` must be Hermitian"):
        jr.InternalState(LEVELS, jnp.array([[0.5, 0.1], [0.2, 0.5]]))
    with pytest.raises(ValueError, match=r"`state` must be positive semidefinite, .* -0\.2"):
        jr.InternalState(LEVELS, jnp.diag(jnp.array([1.2, -0.2])))
    with pytest.raises(ValueError, match=r"`state` must have shape \(2, 2\)"):
        jr.InternalState(LEVELS, jnp.eye(3) / 3)
    with pytest.raises(ValueError, match="`coupling` must be a 4×4 matrix"):
        jr.scattering_map(SYSTEM, reservoir_with(thermal(BETA), hermitian(1, 2)))
    with pytest.raises(ValueError, match="`rho` must have shape"):
        jr.collision_heat(SYSTEM, reservoir_with(thermal(BETA)), jnp.eye(3) / 3)

    # what is traced has a named result
    def result(p):
        unit = jr.InternalState(LEVELS, jnp.diag(jnp.stack([p, 1 - p])))
        return jr.steady_state(SYSTEM, reservoir_with(unit)).result

    results = jax.jit(lambda x: jax.lax.map(result, x))(jnp.array([0.3, 1.2]))
    assert (results == jr.RESULTS.successful).tolist() == [True, False]
    assert (results == jr.RESULTS.invalid_parameters).tolist() == [False, True]
