"""Index order, signs and phases, pinned by a non-reciprocal case and an independent solver.

The solver below matches plane waves at every edge by one large linear system; the map is the literal
integral of Eq. (17) over the incoming momentum, by SciPy's adaptive quadrature. Neither shares a
formula with the package.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest
from scipy.integrate import quad

import jaxres as jr

LEVELS = np.array([-0.4, 0.1, 0.9])
COUPLINGS = [np.asarray(hermitian(21, 3)), np.asarray(hermitian(22, 3, scale=1.5))]
LENGTHS = [0.7, 0.5]
MASS, BETA, WIDTH, POSITION = 0.6, 0.8, 0.7, -1.5


def reference_amplitudes(energy, levels=LEVELS, couplings=COUPLINGS, lengths=LENGTHS, mass=MASS):
    """s⁺[out, in] and s⁻[out, in]: continuity of ψ and ψ' at every edge, solved at once."""
    N, M = len(levels), len(couplings)
    k = np.sqrt(2 * mass * (energy - levels) + 0j)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    # unknowns: reflected waves, (right, left)-moving waves in each slab, transmitted waves
    size = 2 * N * (M + 1)
    matrix, source = np.zeros((size, size), complex), np.zeros((size, N), complex)
    inside = []
    for W in couplings:
        values, vectors = np.linalg.eigh(np.diag(levels) + W)
        inside.append((np.sqrt(2 * mass * (energy - values) + 0j), vectors))

    def slab_waves(n, x):
        """ψ and ψ' at x of the 2N waves of slab n."""
        q, U = inside[n]
        right, left = np.exp(1j * q * (x - edges[n])), np.exp(-1j * q * (x - edges[n]))
        return (
            np.hstack([U * right, U * left]),
            np.hstack([U * (1j * q * right), U * (-1j * q * left)]),
        )

    one, ik = np.eye(N), np.diag(1j * k)
    for edge, x in enumerate(edges):
        rows = slice(2 * N * edge, 2 * N * (edge + 1))
        if edge == 0:
            matrix[rows, :N] = np.vstack([-one, ik])
            source[rows] = np.vstack([one, ik])
        else:
            before = slice(N + 2 * N * (edge - 1), N + 2 * N * edge)
            matrix[rows, before] = -np.vstack(slab_waves(edge - 1, x))
        if edge == M:
            outgoing = np.diag(np.exp(1j * k * x))
            matrix[rows, -N:] = np.vstack([outgoing, ik @ outgoing])
        else:
            after = slice(N + 2 * N * edge, N + 2 * N * (edge + 1))
            matrix[rows, after] = np.vstack(slab_waves(edge, x))
    waves = np.linalg.solve(matrix, source)
    is_open = energy > levels
    root = np.sqrt(np.where(is_open, np.abs(k), 1))
    flux = np.outer(is_open * root, is_open / root)
    return flux * waves[-N:], flux * waves[:N]


def scatterer():
    return jr.Stack([jr.Slab(W, d) for W, d in zip(COUPLINGS, LENGTHS, strict=True)])


@pytest.mark.parametrize("energy", [-0.1, 0.5, 1.3, 6.0])
def test_amplitudes_are_indexed_out_in(energy):
    s = jr.amplitudes(jr.System(LEVELS), scatterer(), mass=MASS, energy=energy)
    transmission, reflection = reference_amplitudes(energy)
    assert largest(s.transmission - transmission) < 1e-12
    assert largest(s.reflection - reflection) < 1e-12
    if energy > 0:  # a transposed matrix would not pass
        assert largest(abs(transmission) - abs(transmission).T) > 0.01
        assert largest(abs(reflection) - abs(reflection).T) > 0.01


def density(p, q):
    """The effusion packet, Eqs. (22, 23)."""
    mean = (p + q) / 2
    return (
        BETA * mean / MASS
        * np.exp(-BETA * mean**2 / (2 * MASS) - (WIDTH * (p - q)) ** 2 / 2 - 1j * (p - q) * POSITION)
    )  # fmt: skip


def literal_entry(j_out, k_out, j, k):
    """S^{jk}_{j'k'} of Eq. (17) as an integral over the momentum p of the particle that meets level j."""
    shift = LEVELS[j] - LEVELS[j_out] - LEVELS[k] + LEVELS[k_out]  # q²/2m = p²/2m + shift

    def integrand(kinetic):
        energy_p, energy_q = kinetic + LEVELS[j], kinetic + shift + LEVELS[k]
        p, q = np.sqrt(2 * MASS * kinetic), np.sqrt(2 * MASS * (kinetic + shift))
        s, z = reference_amplitudes(energy_p), reference_amplitudes(energy_q)
        overlap = sum(a[j_out, j] * np.conj(b[k_out, k]) for a, b in zip(s, z, strict=True))
        return np.sqrt(p / q) * density(p, q) * overlap

    # both incoming and both outgoing channels open; kinks where any other channel opens
    start = max(0.0, -shift, LEVELS[j_out] - LEVELS[j])
    kinks = [*(LEVELS - LEVELS[j]), *(LEVELS - LEVELS[k] - shift)]
    edges = sorted({start, *(x for x in kinks if x > start), start + 60 / BETA})
    total = 0.0
    for a, b in itertools.pairwise(edges):

        def smooth(u, a=a, b=b):
            # √-singular at both ends: ε = a + (b − a) sin²(πu/2), dε = dp p/m
            kinetic = a + (b - a) * np.sin(np.pi * u / 2) ** 2
            slope = (b - a) * np.pi / 2 * np.sin(np.pi * u)
            return integrand(kinetic) * slope * np.sqrt(MASS / (2 * kinetic))

        for part, factor in ((np.real, 1), (np.imag, 1j)):
            value, _ = quad(lambda u, f=smooth, g=part: g(f(u)), 0, 1, epsabs=1e-10, limit=200)
            total += factor * value
    return total


@pytest.mark.slow
@pytest.mark.parametrize("indices", [(2, 0, 1, 0), (0, 1, 0, 2), (1, 1, 0, 0), (0, 0, 2, 1)])
def test_the_map_is_indexed_out_out_in_in(indices):
    packet = jr.EffusionPacket(beta=BETA, mass=MASS, width=WIDTH, position=POSITION)
    reservoir = jr.Reservoir(packet=packet, scatterer=scatterer(), rate=1.0)
    S = jr.scattering_map(jr.System(LEVELS), reservoir)
    expected = literal_entry(*indices)
    assert S.error < 1e-6
    assert abs(S.tensor[indices] - expected) < 1e-8
    j_out, k_out, j, k = indices
    if (j_out, k_out) != (j, k):
        assert abs(S.tensor[j, k, j_out, k_out] - expected) > 1e-3


def test_a_superoperator_acts_on_row_major_states():
    system, reservoir = jr.letter.model()
    S = jr.scattering_map(system, reservoir)
    rho = jnp.array([[0.7, 0.1 + 0.2j], [0.1 - 0.2j, 0.3]])
    by_hand = sum(S.tensor[:, :, j, k] * rho[j, k] for j in range(2) for k in range(2))
    assert largest(S(rho) - by_hand) < 1e-15
    assert largest((S.matrix @ rho.reshape(-1)).reshape(2, 2) - by_hand) < 1e-15
    assert largest((S @ S)(rho) - S(S(rho))) < 1e-15


def test_the_letters_coupling_in_the_ascending_basis():
    # H_S = (Δ/2) σ_z and V = λ(σ_x + σ_y) in the basis of σ_z, where spin up comes first
    system, reservoir = jr.letter.model(splitting=0.6, coupling=0.7)
    assert largest(system.levels - jnp.array([-0.3, 0.3])) == 0
    assert (
        largest(reservoir.scatterer.coupling - 0.7 * jnp.array([[0, 1 + 1j], [1 - 1j, 0]])) < 1e-16
    )

    sigma_x, sigma_y = jnp.array([[0, 1], [1, 0]]), jnp.array([[0, -1j], [1j, 0]])
    spin = jr.System.from_hamiltonian(0.3 * jnp.diag(jnp.array([1.0, -1.0])))
    in_eigenbasis = spin.to_eigenbasis(0.7 * (sigma_x + sigma_y))
    assert largest(in_eigenbasis - reservoir.scatterer.coupling) < 1e-16


@pytest.mark.slow
def test_the_first_slab_is_hit_first():
    # an opaque wall that leaves the system alone, before or behind a slab that stirs it
    wall, stir = jr.Slab(40 * jnp.eye(2) + 0j, 3.0), jr.Slab(hermitian(2, 2, scale=2.0), 1.0)
    system, free = jr.letter.model()

    def populations_moved(slabs, incidence):
        reservoir = jr.Reservoir(free.packet, jr.Stack(slabs), rate=1.0, incidence=incidence)
        # a coarse grid is enough, the difference is not subtle
        S = jr.scattering_map(system, reservoir, quadrature=jr.DoubleExponential(20, 40))
        return float(jnp.real(S.tensor[1, 1, 0, 0]))

    sheltered, exposed = ([wall, stir], "left"), ([stir, wall], "left")
    assert populations_moved(*sheltered) < 0.3 * populations_moved(*exposed)
    assert populations_moved([wall, stir], "right") == populations_moved([stir, wall], "left")
