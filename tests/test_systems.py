"""Ready systems: QuTiP's matrices entry by entry, Gibbs states as where they end, derivatives where levels meet."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip
from helpers import hermitian, jacobian, largest

import jaxres as jr
from jaxres.systems import (  # fmt: skip
    annihilation,
    chain,
    on_site,
    oscillator,
    pauli,
    qubit,
    spin,
    spin_operator,
)

X, Z = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
ASKEW = [0.3, -0.5, 0.7]
PACKET = dict(beta=0.4, mass=0.5, width=0.8, position=-2.0)


def hamiltonian(system):
    """H_S in the basis in which couplings are given."""
    return np.asarray(system.from_eigenbasis(jnp.diag(system.levels)))


def reservoir_of(coupling, **changes):
    packet = jr.EffusionPacket(**(PACKET | changes))
    return jr.Reservoir(packet, jr.Slab(coupling, length=1.0), rate=1.0)


# --------------------------------------------------------------------------------------------------
# Matrices
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("direction", [X, Z, ASKEW, [0, 0, -2], [0, 1, 0]])
@pytest.mark.parametrize("j", [0.5, 1, 2.5])
def test_a_spin_in_a_field_is_qutips(j, direction):
    n = np.array(direction) / np.linalg.norm(direction)
    theirs = 0.7 * sum(x * qutip.jmat(j, axis).full() for x, axis in zip(n, "xyz", strict=True))
    system = spin(j, 0.7, direction)
    assert largest(hamiltonian(system) - theirs) < 1e-14
    np.testing.assert_allclose(np.diff(system.levels), 0.7, rtol=1e-14)
    v = [0.2, 0.3, -0.4]
    V = sum(x * qutip.jmat(j, axis).full() for x, axis in zip(v, "xyz", strict=True))
    assert largest(spin_operator(j, v) - V) < 1e-15
    if j == 0.5:
        assert largest(hamiltonian(qubit(0.7, direction)) - theirs) < 1e-14
        assert largest(pauli(v) - 2 * V) < 1e-15


def test_the_letters_qubit_is_one_of_them():
    system, reservoir = jr.letter.model(splitting=0.6)
    mine = qubit(0.6)
    V = pauli([1.0, 1.0, 0.0])
    np.testing.assert_allclose(mine.levels, system.levels, rtol=1e-15)
    assert largest(mine.to_eigenbasis(V) - reservoir.scatterer.coupling) < 1e-15


def test_an_oscillator_is_qutips_and_has_plancks_energy():
    system = oscillator(60, 0.5)
    assert largest(hamiltonian(system) - 0.5 * (qutip.num(60).full() + np.eye(60) / 2)) < 1e-13
    assert largest(annihilation(60) - qutip.destroy(60).full()) < 1e-14
    energy = jnp.sum(system.levels * jr.populations(jr.gibbs_state(system, 1.3)))
    np.testing.assert_allclose(energy, 0.25 / np.tanh(1.3 * 0.5 / 2), rtol=1e-12)


def xyz(field, exchange):
    """QuTiP's chain, site by site."""
    sites = len(field)
    sigma = [qutip.sigmax(), qutip.sigmay(), qutip.sigmaz()]
    H = 0
    for i, h in enumerate(field):
        for x, s in zip(h, sigma, strict=True):
            H += x / 2 * qutip.tensor([s if k == i else qutip.qeye(2) for k in range(sites)])
    for i, J in enumerate(exchange):
        for x, s in zip(J, sigma, strict=True):
            H += x * qutip.tensor([s if k in (i, i + 1) else qutip.qeye(2) for k in range(sites)])
    return H.full()


@pytest.mark.slow
def test_a_chain_is_qutips():
    rng = np.random.default_rng(0)
    h, J = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    system = chain(3, field=jnp.asarray(h), exchange=jnp.asarray(J))
    # of eight levels, put together again from their eigenvectors
    rounding = 8 * np.finfo(float).eps * largest(system.levels)
    assert largest(hamiltonian(system) - xyz(h, J)) < 2 * rounding
    same = chain(3, field=list(h[0]), exchange=list(J[0]))
    assert largest(hamiltonian(same) - xyz([h[0]] * 3, [J[0]] * 2)) < 2 * rounding
    assert largest(hamiltonian(chain(1, field=ASKEW, exchange=Z)) - xyz([ASKEW], [])) < 1e-15
    for site in range(3):
        one = [qutip.qeye(2)] * 3
        one[site] = qutip.sigmay()
        mine = on_site(pauli([0.0, 1.0, 0.0]), site, 3)
        assert largest(mine - qutip.tensor(one).full()) == 0


def test_the_xx_chain_has_the_bands_of_free_fermions():
    # Jordan–Wigner: levels are sums of modes h + 4J cos(πk/(n+1)) over the vacuum
    n, h, J = 4, 0.9, 0.35
    system = chain(n, field=[0.0, 0.0, h], exchange=[J, J, 0.0])
    modes = h + 4 * J * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    filled = np.array([[(k >> i) & 1 for i in range(n)] for k in range(2**n)])
    expected = np.sort(filled @ modes - n * h / 2)
    np.testing.assert_allclose(system.levels, expected, atol=1e-13)


# --------------------------------------------------------------------------------------------------
# Where they end
# --------------------------------------------------------------------------------------------------


def check_thermalises(system, coupling, quadrature):
    """At low rates the steady state is the Gibbs state, and leaves it in proportion to Γ."""
    S = jr.scattering_map(system, reservoir_of(coupling), quadrature=quadrature)
    assert S.error < 1e-6
    rates = jnp.array([0.0, 1e-4, 2e-4])
    sols = jax.jit(jax.vmap(lambda rate: jr.steady_state(system, jr.Collisions(S, rate))))(rates)
    assert all(jax.vmap(lambda r: r == jr.RESULTS.successful)(sols.result))
    gibbs = jr.gibbs_state(system, PACKET["beta"])
    distance = jax.vmap(jr.trace_distance, (0, None))(sols.rho, gibbs)
    assert distance[0] < 1e-7
    assert 1e-9 < distance[1] < 1e-3
    np.testing.assert_allclose(distance[2] / distance[1], 2, rtol=1e-2)
    # to see that this is no accident of temperature: another one is far off
    assert jr.trace_distance(sols.rho[0], jr.gibbs_state(system, 0.5)) > 1e-3


RULE = jr.DoubleExponential(32, 32)


@pytest.mark.slow
def test_a_spin_thermalises():
    check_thermalises(spin(1, 0.8, ASKEW), spin_operator(1, [1.0, 0.4, 0.0]), RULE)


@pytest.mark.slow
def test_an_oscillator_thermalises():
    a = annihilation(3)
    check_thermalises(oscillator(3, 0.7), a + a.T + 0j, RULE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "exchange",
    [pytest.param([0.15, 0.15, 0.0], marks=pytest.mark.slow), [0.1, 0.2, 0.3]],
    ids=["xx", "xyz"],
)
def test_a_chain_hit_at_one_end_thermalises_as_a_whole(exchange):
    system = chain(2, field=[0.1, 0.0, 0.7], exchange=exchange)
    V = on_site(pauli(X), 0, 2)
    check_thermalises(system, V, RULE)


def test_what_is_turned_as_a_whole_ends_in_the_turned_state():
    # H = (Δ/2) n·σ and V = v·σ: the same state, seen from elsewhere, when n and v are turned together
    angle = 1.1
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])  # fmt: skip
    n, v = np.array(ASKEW), np.array([0.2, 0.9, 0.4])

    def bloch(n, v):
        system = qubit(0.6, jnp.asarray(n))
        sol = jr.steady_state(system, reservoir_of(pauli(jnp.asarray(v))))
        rho = system.from_eigenbasis(sol.rho)
        return np.array([jnp.trace(rho @ pauli(list(e))).real for e in np.eye(3)])

    one, other = bloch(n, v), bloch(turn @ n, turn @ v)
    assert largest(one) > 0.05
    assert largest(turn @ one - other) < 1e-13


# --------------------------------------------------------------------------------------------------
# Derivatives
# --------------------------------------------------------------------------------------------------


def check_gradient(f, x, *, step=1e-3, rtol=1e-8):
    """Forward against reverse against differences of fourth order."""
    f = jax.jit(f)
    forward, reverse = jax.jacfwd(f)(x), jax.jacrev(f)(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10, atol=1e-12)
    differences = jacobian(f, x, step)
    assert largest(differences) > 1e-2
    np.testing.assert_allclose(forward, differences, rtol=rtol, atol=1e-10)


def thermal_bloch(system, observables, beta=0.8):
    """Expectations in the Gibbs state: they depend on levels and basis, and are smooth in H."""
    rho = system.from_eigenbasis(jr.gibbs_state(system, beta))
    return jnp.real(jnp.einsum("nab,ba->n", observables, rho))


@pytest.mark.slow
@pytest.mark.parametrize(
    "x",
    [
        [0.0, 0.0, 1.0, 0.5, 0.5, 0.0],  # |↓↓⟩ and the antisymmetric state meet
        pytest.param(  # singlet and triplet
            [*(0.8 * np.array(ASKEW) / np.linalg.norm(ASKEW)), 0.2, 0.2, 0.2],
            marks=pytest.mark.slow,
        ),
        [0.0, 0.0, 0.7, 0.0, 0.0, 0.3],  # Ising: product states, |↑↓⟩ and |↓↑⟩ meet
    ],
    ids=["xx", "heisenberg", "ising"],
)
def test_a_chain_has_derivatives_where_levels_meet(x):
    # Those in the terms that are there, which commute in each degenerate level. The expectations are
    # of operators that tell the states that meet apart.
    A = jnp.stack([hermitian(seed, 4) for seed in range(3)])
    x = np.array(x)
    present = np.flatnonzero(x)

    def f(y):
        full = jnp.asarray(x).at[present].set(y)
        return thermal_bloch(chain(2, field=full[:3], exchange=full[3:]), A)

    check_gradient(f, jnp.asarray(x[present]))


@pytest.mark.slow
def test_a_chain_has_derivatives_where_none_meet():
    A = jnp.stack([hermitian(seed, 4) for seed in range(3)])
    x = jnp.array([0.1, 0.2, 0.7, 0.3, -0.1, 0.2])
    check_gradient(lambda x: thermal_bloch(chain(2, field=x[:3], exchange=x[3:]), A), x)


@pytest.mark.slow
def test_a_spin_has_derivatives_in_splitting_and_direction():
    A = jnp.stack([hermitian(seed, 3) for seed in range(3)])

    def f(x):
        # so that x[0] may be negative: −Δ along n is Δ along −n
        sign = jnp.where(x[0] >= 0, 1.0, -1.0)
        return thermal_bloch(spin(1, sign * x[0], sign * x[1:]), A)

    check_gradient(f, jnp.array([0.9, *ASKEW]))
    check_gradient(f, jnp.array([0.0, *ASKEW]))


@pytest.mark.slow
def test_resolve_finds_the_derivative_of_a_steady_state_at_a_degenerate_level():
    # H = 0.2 + x σ_x at x = 0, where without `resolve` the derivative would be taken for 0
    W = jnp.array([[0.3, 0.7 - 0.2j], [0.7 + 0.2j, -0.5]])
    scatterer = jr.Stack([jr.Slab(W, 1.0), jr.Slab(jnp.diag(jnp.array([1.6, -0.6])) + 0j, 0.7)])
    reservoir = jr.Reservoir(jr.EffusionPacket(**PACKET), scatterer, rate=1.0)
    flip = pauli(X)

    def bloch(x, resolve):
        system = jr.System.from_hamiltonian(0.2 * jnp.eye(2) + x * flip, resolve=resolve)
        rho = system.from_eigenbasis(jr.steady_state(system, reservoir).rho)
        return jnp.stack([rho[0, 0].real, rho[0, 1].real, rho[0, 1].imag])

    value_and_slope = jax.jit(lambda x, T: jax.jvp(lambda x: bloch(x, T), (x,), (1.0,)))
    slope = value_and_slope(0.0, flip)[1]
    # the second derivative jumps at x = 0 (a threshold opens): differences converge as h
    one, two = (
        (value_and_slope(h, flip)[0] - value_and_slope(-h, flip)[0]) / (2 * h) for h in (1e-4, 2e-4)
    )
    assert largest(slope) > 0.1
    np.testing.assert_allclose(slope, 2 * one - two, rtol=1e-4, atol=1e-5)
    # a matrix that does not tell the right states apart misses it
    assert largest(value_and_slope(0.0, pauli(Z))[1]) < 1e-12


def test_resolve_leaves_simple_levels_alone():
    H, T = hermitian(1, 4), hermitian(2, 4)
    one, two = jr.System.from_hamiltonian(H), jr.System.from_hamiltonian(H, resolve=T)
    assert largest(one.levels - two.levels) == 0
    overlap = jnp.abs(jnp.conj(one.basis.T) @ two.basis)
    assert largest(overlap - jnp.eye(4)) < 1e-14
    flat = jr.System.from_hamiltonian(jnp.eye(4), resolve=T)
    turned = flat.to_eigenbasis(T)
    assert largest(turned - jnp.diag(jnp.diag(turned))) < 1e-14
    np.testing.assert_allclose(jnp.diag(turned).real, jnp.linalg.eigvalsh(T), rtol=1e-13)


def test_builders_can_be_mapped_and_compiled():
    splittings = jnp.array([0.0, 0.5, 1.0])
    levels = jax.jit(jax.vmap(lambda d: spin(1, d, [0.0, d, 1.0]).levels))(splittings)
    np.testing.assert_allclose(levels, np.outer(splittings, [-1, 0, 1]))
    built = eqx.filter_jit(lambda h: chain(2, field=[0.0, 0.0, h], exchange=[0.1, 0.1, 0.0]))(1.0)
    np.testing.assert_allclose(built.levels, [-1, -0.2, 0.2, 1], rtol=1e-13)


# --------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: qubit(-1.0), "`splitting` must not be negative"),
        (lambda: qubit(1.0, [0.0, 0.0, 0.0]), "`direction` must have a direction"),
        (lambda: qubit(1.0, [0.0, 1.0]), r"`direction` must have shape \(3,\)"),
        (lambda: spin(0.7, 1.0), "`j` must be one of"),
        (lambda: spin(0, 1.0), "`j` must be one of"),
        (lambda: oscillator(0, 1.0), "`size` must be a whole number of at least 1"),
        (lambda: oscillator(3, -1.0), "`frequency` must not be negative"),
        (lambda: chain(0, field=Z, exchange=Z), "`sites` must be a whole number of at least 1"),
        (lambda: chain(3, field=[Z] * 2, exchange=Z), r"`field` must have shape \(3,\) or \(3, 3"),
        (lambda: chain(3, field=Z, exchange=[np.nan, 0.0, 0.0]), "`exchange` must be finite"),
        (
            lambda: on_site(pauli(X), 2, 2),
            "`site` must be a whole number of at least 0 and at most 1",
        ),
        (
            lambda: jr.System.from_hamiltonian(jnp.eye(2), resolve=jnp.eye(3)),
            r"`resolve` must have shape \(2, 2\)",
        ),
    ],
)
def test_bad_input_is_told(build, message):
    with pytest.raises(ValueError, match=message):
        build()
