"""Particle states beside effusion: what they are, what they do to the system, and the limits where that is known."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from helpers import hermitian, jacobian, largest

import jaxres as jr

LEVELS = np.array([-0.4, 0.5])
W = hermitian(6, 2)
SLAB = jr.Slab(W, 1.0)
SYSTEM = jr.System(LEVELS)
DEFAULT = jr.DoubleExponential()
FINE = jr.DoubleExponential(96, 64)
GAUSS = dict(momentum=7.0, mass=0.5, width=0.9, position=-2.0)
THERMAL = dict(beta=0.4, mass=0.5, width=1.1, position=-2.0)


def scattering(packet, quadrature=FINE, system=SYSTEM, slab=SLAB):
    return jr.scattering_map(system, jr.Reservoir(packet, slab, 1.0), quadrature=quadrature)


def kernel(packet, low, high, count=160):
    """The state on Gauss-Legendre nodes, as a matrix whose eigenvalues are its own."""
    u, w = np.polynomial.legendre.leggauss(count)
    p = low + (high - low) * (u + 1) / 2
    root = np.sqrt((high - low) * w / 2)
    rho = packet.density(*map(jnp.asarray, np.meshgrid(p, p, indexing="ij")))
    return np.asarray(rho) * root[:, None] * root


PACKETS = {
    "gaussian": (jr.GaussianPacket(**GAUSS), 2.0, 12.0),
    "slow": (jr.GaussianPacket(momentum=0.6, mass=0.5, width=0.9, position=-2.0), 0.0, 6.0),
    "mixture": (jr.ThermalMixture(**THERMAL), 0.0, 11.0),
    "narrow mixture": (jr.ThermalMixture(**THERMAL | dict(width=0.1)), 0.0, 50.0),
    "maxwell": (jr.MaxwellPacket(**THERMAL), 0.0, 10.0),
    "narrowest maxwell": (jr.MaxwellPacket(**THERMAL | dict(width=0.5 * 0.8**0.5)), 0.0, 10.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKETS)
def test_they_are_states(name):
    packet, low, high = PACKETS[name]
    rho = kernel(packet, low, high)
    values = np.linalg.eigvalsh(rho)
    assert abs(np.trace(rho) - 1) < 1e-10
    assert largest(rho - rho.conj().T) < 1e-15
    assert values[0] > -1e-14
    # at its bound the Maxwell packet is a Gaussian about p = 0
    pure = isinstance(packet, jr.GaussianPacket) or name == "narrowest maxwell"
    assert abs(values[-1] - 1) < 1e-10 if pure else values[-1] < 0.999
    p = jnp.linspace(low + 0.1, high, 7)
    np.testing.assert_allclose(packet.distribution(p), packet.density(p, p).real, rtol=1e-14)


def test_below_its_bound_the_maxwell_packet_would_be_no_state():
    short = 0.48 * np.sqrt(0.4 / 0.5)
    with pytest.raises(ValueError, match=r"`width` must be at least .* = 0.447214 for these β"):
        jr.MaxwellPacket(beta=0.4, mass=0.5, width=short)
    packet = eqx.tree_at(lambda x: x.width, PACKETS["maxwell"][0], jnp.asarray(short))
    assert np.linalg.eigvalsh(kernel(packet, 0.0, 10.0))[0] < -1e-4
    assert not packet.valid()


def test_the_effusion_packet_is_not_quite_a_state():
    least = []
    for width in (1.0, 5.0):
        packet = jr.EffusionPacket(beta=0.1, mass=0.1, width=width)
        rho = kernel(packet, 0.0, 9.0)
        least.append(np.linalg.eigvalsh(rho)[0])
        assert abs(np.trace(rho) - 1) < 1e-10
    np.testing.assert_allclose(least, [-0.01744, -0.00061], rtol=1e-2)


def test_the_mixture_is_the_integral_over_packets():
    packet = jr.ThermalMixture(**THERMAL)
    a, x0, dx = 0.4 / (2 * 0.5), -2.0, 1.1
    at = [(0.3, 0.5), (1.2, 1.2), (2.0, 0.4)]

    def phi(p, p0):
        return (2 * dx**2 / np.pi) ** 0.25 * np.exp(-(dx**2) * (p - p0) ** 2 - 1j * p * x0)

    def mixed(p, q):
        def part(p0, take):
            return take(2 * a * p0 * np.exp(-a * p0**2) * phi(p, p0) * np.conj(phi(q, p0)))

        return [
            scipy.integrate.quad(part, 0, 12, args=(f,), epsabs=1e-13)[0]
            for f in (np.real, np.imag)
        ]

    # the part that has p > 0
    arrives = scipy.integrate.quad(lambda p: mixed(p, p)[0], 0, 12, epsabs=1e-11)[0]
    assert arrives < 0.99
    for p, q in at:
        real, imag = mixed(p, q)
        value = packet.density(jnp.asarray(p), jnp.asarray(q))
        assert abs(complex(value) - (real + 1j * imag) / arrives) < 1e-10


@pytest.mark.slow
def test_one_state_in_five_ways():
    packet = jr.GaussianPacket(**GAUSS)
    p0, mass, dx = GAUSS["momentum"], GAUSS["mass"], GAUSS["width"]
    low, high = p0 - 4.75, p0 + 4.75  # 8.5 standard deviations

    def phi(p):
        return (2 * dx**2 / jnp.pi) ** 0.25 * jnp.exp(-(dx**2) * (p - p0) ** 2)

    def wigner(p, x):
        return jnp.exp(-(x**2) / (2 * dx**2) - 2 * dx**2 * (p - p0) ** 2) / jnp.pi

    # a table is as good as what it leaves out at its ends
    p, x = jnp.linspace(low - 1.2, high + 1.2, 101), jnp.linspace(-8, 8, 81)
    rest = dict(mass=mass, position=-2.0)
    ways = [
        jr.CustomPacket(lambda p, q: phi(p) * phi(q), momenta=(low, high), **rest),
        jr.CustomPacket.pure(phi, momenta=(low, high), **rest),
        jr.CustomPacket.from_table(p, phi(p)[:, None] * phi(p)[None], **rest),
        jr.CustomPacket.from_wigner(wigner, momenta=(low, high), positions=x, **rest),
        jr.CustomPacket.from_wigner_table(p, x, wigner(p[:, None], x[None]), **rest),
    ]
    u, v = jnp.meshgrid(jnp.linspace(4, 10, 9), jnp.linspace(4, 10, 9))
    assert ways[2].valid()
    for way in ways:
        assert largest(way.density(u, v) - packet.density(u, v)) < 1e-12
    S = scattering(packet)
    assert S.error < 1e-11
    assert largest(scattering(ways[2]).tensor - S.tensor) < 1e-11


@pytest.mark.slow
def test_states_are_checked():
    def rho(p, q):
        return jnp.exp(-((p - 9) ** 2) - (q - 9) ** 2) * jnp.sqrt(2 / jnp.pi)

    arguments = dict(mass=0.5, momenta=(5.0, 13.0))
    with pytest.raises(ValueError, match=r"`function` must have trace 1 .* has 2.*Divide"):
        jr.CustomPacket(lambda p, q: 2 * rho(p, q), **arguments)
    with pytest.raises(ValueError, match=r"`function` must have trace 1 .* has 0.5.*widen"):
        jr.CustomPacket(rho, mass=0.5, momenta=(9.0, 13.0))
    with pytest.raises(ValueError, match="`function` must be Hermitian"):
        jr.CustomPacket(lambda p, q: rho(p, q) * (1 + 0.01 * (p - q)), **arguments)
    with pytest.raises(ValueError, match="`function` must be positive semidefinite, but has the"):
        jr.CustomPacket(lambda p, q: rho(p, q) * (1 + 0.1 * (p - q) ** 2), **arguments)
    with pytest.raises(ValueError, match="`momenta` must satisfy"):
        jr.CustomPacket(rho, mass=0.5, momenta=(13.0, 5.0))
    p = jnp.linspace(5, 13, 33)
    table = rho(p[:, None], p[None])
    with pytest.raises(ValueError, match="`momenta` must be evenly spaced"):
        jr.CustomPacket.from_table(p**2, table, mass=0.5)
    with pytest.raises(ValueError, match=r"`values` must have shape \(33, 33\)"):
        jr.CustomPacket.from_table(p, table[1:], mass=0.5)
    with pytest.raises(ValueError, match="`values` must have trace 1"):
        jr.CustomPacket.from_table(p, 1.1 * table, mass=0.5)
    with pytest.raises(ValueError, match="`momentum` must be positive"):
        jr.GaussianPacket(momentum=-1.0, mass=0.5, width=1.0)
    with pytest.raises(ValueError, match="`packet` must have a momentum distribution"):
        jr.DiagonalPacket(jr.MonochromaticBeam(momentum=1.0, mass=1.0))
    # what is traced has a named result
    bad = jax.jit(lambda x: jr.CustomPacket.from_table(p, x * table, mass=0.5).valid())
    assert bad(1.0) and not bad(1.1)


@pytest.mark.parametrize("packet", [jr.EffusionPacket, jr.MaxwellPacket])
def test_known_numbers_are_checked_while_something_else_is_traced(packet):
    """Arrays that a jitted function closes over are known, and so is whether they describe a state."""
    numbers = {
        k: jnp.asarray(np.float64(x)) for k, x in {"beta": 0.4, "mass": 0.5, "width": 0.8}.items()
    }

    def weight(p, width):
        return packet(**numbers | {"width": width}).distribution(p)

    p = jnp.asarray(1.0)
    expected = weight(p, numbers["width"])
    assert jax.jit(partial(weight, width=numbers["width"]))(p) == pytest.approx(expected)
    with pytest.raises(ValueError, match="`width` must be at least"):
        jax.jit(partial(weight, width=jnp.asarray(np.float64(1e-3))))(p)


DECAYS = {
    "effusion": jr.EffusionPacket(**THERMAL),
    "narrow effusion": jr.EffusionPacket(**THERMAL | dict(width=0.1)),
    "mixture": PACKETS["mixture"][0],
    "narrow mixture": PACKETS["narrow mixture"][0],
    "maxwell": PACKETS["maxwell"][0],
    "narrowest maxwell": PACKETS["narrowest maxwell"][0],
    "diagonal": jr.DiagonalPacket(jr.EffusionPacket(**THERMAL)),
}


@pytest.mark.parametrize("name", DECAYS)
def test_packets_know_how_fast_they_decay(name):
    """By e^{−γp²/2m} for the worst q, and no slower than the root of the distribution, which is how γ is used."""
    packet = DECAYS[name]
    energy = packet.energy_scale() * jnp.array([60.0, 240.0])
    p = jnp.sqrt(2 * packet.mass * energy)
    size = jnp.sqrt(packet.distribution(p))
    if name != "diagonal":
        q = jnp.linspace(0, 1, 2001)[:, None] * p[-1]
        size = jnp.maximum(size, jnp.max(jnp.abs(packet.density(*jnp.broadcast_arrays(p, q))), 0))
    rate = -jnp.diff(jnp.log(size))[0] / jnp.diff(energy)[0]
    # powers of p beside the exponential change a logarithm little
    assert 0.98 < float(rate / packet.decay()) < 1.02


@pytest.mark.slow
@pytest.mark.parametrize("levels", [LEVELS, [-0.7, 0.1, 0.9], [0.2, 0.2, 0.9]], ids=str)
def test_a_diagonal_state_is_the_limit_of_wide_packets(levels):
    levels = np.array(levels)
    N = len(levels)
    system, slab = jr.System(levels), jr.Slab(hermitian(4, N), 1.0)
    wide = jr.EffusionPacket(**THERMAL | dict(width=1e7, position=0.0))
    S = scattering(jr.DiagonalPacket(wide), DEFAULT, system, slab)
    limit = scattering(wide, DEFAULT, system, slab)
    assert largest(S.tensor - limit.tensor) < 1e-6
    gap = levels[:, None] - levels[None]
    same = np.isclose(gap[:, None, :, None], gap[None, :, None, :])
    assert largest(np.where(same, 0, S.tensor)) == 0
    # and nothing else is missing: of the ladder, coherences still pass from step to step
    assert np.all((np.abs(S.tensor) > 1e-6) | ~same)
    assert np.linalg.eigvalsh(S.choi)[0] > -1e-13


@pytest.mark.slow
def test_a_beam_is_the_limit_of_packets_of_one_momentum():
    levels = np.array([-0.7, 0.1, 0.9])  # a ladder but for rounding
    system, slab = jr.System(levels), jr.Slab(hermitian(4, 3), 1.0)
    p0, mass = 2.0, 1.5
    S = scattering(jr.MonochromaticBeam(p0, mass), system=system, slab=slab)
    assert S.trace_defect < 1e-13
    assert np.linalg.eigvalsh(S.choi)[0] > -1e-14
    away = []
    for width in (200.0, 400.0):
        packet = jr.GaussianPacket(momentum=p0, mass=mass, width=width, position=0.0)
        narrow = scattering(packet, DEFAULT, system, slab)
        assert narrow.error < 1e-8
        away.append(largest(S.tensor - narrow.tensor))
    assert away[0] < 1e-3
    assert 3.5 < away[0] / away[1] < 4.5  # like the square of the spread in momentum
    # the excited levels that a slow beam cannot reach
    slow = scattering(jr.MonochromaticBeam(0.9, mass), system=system, slab=slab)
    assert largest(slow.tensor[1, 1, 0, 0]) == 0
    assert slow.tensor[0, 0, 1, 1].real > 0.01
    assert slow.trace_defect < 1e-13


@pytest.mark.slow
def test_only_effusion_thermalises():
    gibbs = jr.gibbs_state(SYSTEM, 0.4)

    def away(packet):
        S = scattering(packet)
        return largest(jr.steady_state(SYSTEM, jr.Collisions(S, jnp.asarray(1e-7))).rho - gibbs)

    assert away(jr.EffusionPacket(**THERMAL)) < 1e-6
    assert away(jr.MaxwellPacket(**THERMAL)) > 1e-2
    # so do packets of little spread in momentum, drawn from the flux of a gas; others heat
    distances = [away(jr.ThermalMixture(**THERMAL | dict(width=w))) for w in (1.1, 4.4, 200.0)]
    assert distances[0] > 10 * distances[1] > 1e-3
    assert distances[2] < 1e-6


def test_packets_of_little_spread_in_momentum_decohere():
    # at a rate where the Letter's packets leave a coherence
    coherences = []
    for width in (1.1, 5.0, 200.0):
        S = scattering(jr.ThermalMixture(**THERMAL | dict(width=width)))
        coherences.append(
            float(jr.coherence(jr.steady_state(SYSTEM, jr.Collisions(S, jnp.asarray(3.0))).rho))
        )
    assert 0.1 > coherences[0] > 2.5 * coherences[1] > 1e-2
    assert coherences[2] < 1e-30
    S = scattering(jr.ThermalMixture(**THERMAL | dict(width=200.0)))
    steady = jr.steady_state(SYSTEM, jr.Collisions(S, jnp.asarray(3.0))).rho
    assert largest(steady - jr.gibbs_state(SYSTEM, 0.4)) < 1e-6


def fast(scale):
    """A packet of unit speed that starts at x₀, heavier and narrower in space with the scale."""
    mass = 200.0 * scale**2
    return jr.GaussianPacket(momentum=mass, mass=mass, width=0.08 / scale, position=-1.5)


def test_a_broad_fast_packet_is_a_clock():
    # U = e^{iH_S t₁} e^{−i(H_S + W)τ} e^{−iH_S t₀}: from t₀ = −x₀/v, for τ = L/v
    H = np.diag(LEVELS)
    t0, tau = 1.5, 1.0
    U = (
        scipy.linalg.expm(1j * H * (t0 + tau))
        @ scipy.linalg.expm(-1j * (H + np.asarray(W)) * tau)
        @ scipy.linalg.expm(-1j * H * t0)
    )
    expected = np.einsum("aj,bk->abjk", U, U.conj())
    psi = np.array([0.6, 0.8j])
    rho = np.outer(psi, psi.conj())
    away, mixed = [], []
    for scale in (1.0, 2.0):
        S = scattering(fast(scale))
        assert (
            S.error < 1e-6
        )  # waves between the two ends of the slab, of amplitude W/4E and many turns
        away.append(largest(S.tensor - expected))
        after = np.asarray(S(jnp.asarray(rho)))
        mixed.append(1 - np.trace(after @ after).real)
    assert away[0] < 1e-2
    assert 3 < away[0] / away[1] < 5.5  # like (Δx Δ/v)² and the spread of speeds squared
    # the entropy of a pure state stays 0
    assert mixed[0] < 1e-2 and 3 < mixed[0] / mixed[1] < 5.5
    assert 1e-7 < mixed[1]


def test_what_the_particle_loses_is_the_work():
    # the particle's kinetic energy after the collision, from amplitudes and its state alone
    packet, mass = fast(2.0), float(fast(2.0).mass)
    psi = np.array([0.6, 0.8j])
    rho = np.outer(psi, psi.conj())
    u, w = np.polynomial.legendre.leggauss(400)
    low, _, high = np.asarray(packet.window())
    eps = low - 1 + (high - low + 2) * (u + 1) / 2
    weights = (high - low + 2) / 2 * w
    out = []
    for level in LEVELS:
        amps = jax.vmap(lambda E: jr.amplitudes(SYSTEM, SLAB, mass=mass, energy=E))(
            jnp.asarray(eps + level)
        )
        out.append((amps.transmission, amps.reflection))
    lost = total = 0
    for a, (_level, exits) in enumerate(zip(LEVELS, out, strict=True)):
        for s in exits:
            s = np.asarray(s)
            for j in (0, 1):
                for k in (0, 1):
                    p = np.sqrt(2 * mass * (eps + LEVELS[a] - LEVELS[j]))
                    q = np.sqrt(2 * mass * (eps + LEVELS[a] - LEVELS[k]))
                    f = (
                        mass
                        / np.sqrt(p * q)
                        * np.asarray(packet.density(jnp.asarray(p), jnp.asarray(q)))
                    )
                    term = f * s[:, a, j] * s[:, a, k].conj() * rho[j, k] * weights
                    total += np.sum(term)
                    lost -= np.sum(term * eps)
    p0, dx = float(packet.momentum), float(packet.width)
    lost += (p0**2 + 1 / (4 * dx**2)) / (2 * mass)  # ⟨p²⟩/2m before
    assert abs(total - 1) < 1e-10
    after = np.asarray(scattering(packet)(jnp.asarray(rho)))
    gained = np.sum(LEVELS * np.diag(after - rho).real)
    assert abs(lost - gained) < 1e-9
    # which is what the time-dependent interaction puts in
    H = np.diag(LEVELS)
    U = scipy.linalg.expm(-1j * (H + np.asarray(W))) @ scipy.linalg.expm(-1.5j * H)
    work = np.trace(H @ (U @ rho @ U.conj().T - rho)).real
    assert abs(work) > 0.1
    assert abs(lost - work) < 1e-3


@pytest.mark.parametrize(
    "packet",
    [jr.GaussianPacket(**GAUSS), PACKETS["slow"][0], fast(1.0), PACKETS["mixture"][0]],
    ids=["gaussian", "slow", "fast", "mixture"],
)
def test_the_error_estimate_is_honest(packet):
    reference, S = scattering(packet), scattering(packet, DEFAULT)
    true = largest(S.tensor - reference.tensor)
    assert 0.5 * true <= 1e-6
    assert true / 10 <= float(S.error) <= 1e4 * true
    assert np.linalg.eigvalsh(reference.choi)[0] > -1e-13


def observed(packet, levels):
    start = jnp.array([[0.4, 0.3j], [-0.3j, 0.6]])
    after = scattering(packet, DEFAULT, jr.System(levels))(start)
    return jr.coherence(after) + after[0, 0].real


X0 = jnp.array([4.0, 0.5, 0.9, -2.0, *LEVELS])  # momentum, mass, width, position, levels


DIRECTION = jnp.array([0.3, 0.1, -0.2, 0.5, -0.4, 0.7])


def written(x):
    return observed(jr.GaussianPacket(x[0], x[1], x[2], x[3]), x[4:6])


@pytest.fixture(scope="module")
def forward():
    return jax.jit(lambda x: jax.jvp(written, (x,), (DIRECTION,)))(X0)


def differences(f, x):
    return jacobian(jax.jit(f), x, 1e-4)


@pytest.mark.slow
def test_gradients(forward):
    backward = jax.jit(jax.grad(written))(X0)
    np.testing.assert_allclose(forward[1], backward @ DIRECTION, rtol=1e-12)
    np.testing.assert_allclose(backward, differences(written, X0), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_gradients_of_a_beam():
    def f(x):
        return observed(jr.MonochromaticBeam(x[0], x[1]), x[2:])

    x = jnp.array([1.3, 0.5, *LEVELS])
    backward = jax.jit(jax.grad(f))(x)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(f))(x), backward, rtol=1e-12)
    np.testing.assert_allclose(backward, differences(f, x), rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_a_table_has_the_gradient_of_what_it_tabulates(forward):
    p = jnp.linspace(0.1, 8.5, 64)

    def tabulated(x):
        phi = jnp.exp(-(x[2] ** 2) * (p - x[0]) ** 2)
        rho = phi[:, None] * phi[None] / (jnp.sum(phi**2) * (p[1] - p[0]))
        return observed(jr.CustomPacket.from_table(p, rho, x[1], position=x[3]), x[4:6])

    mine = jax.jit(lambda x: jax.jvp(tabulated, (x,), (DIRECTION,)))(X0)
    np.testing.assert_allclose(mine, forward, rtol=1e-6)


class Direct(jr.EffusionPacket):
    """The effusion packet with a density of its own, so that its phase is not given to the amplitudes."""

    def density(self, p, q):
        phase = jnp.exp(-1j * (p - q) * self.position)
        return phase * self.envelope(p, q)


@pytest.mark.slow
def test_the_phase_of_the_position_may_be_given_to_the_amplitudes():
    numbers = dict(beta=0.5, mass=0.5, width=0.8, position=-7.0)
    system = jr.System([-0.5, 0.1, 0.1, 0.9])
    slab = jr.Slab(hermitian(5, 4) + 2 * jnp.eye(4), 1.0)
    given, direct = (
        jr.scattering_map(system, jr.Reservoir(kind(**numbers), slab, 1.0)).tensor
        for kind in (jr.EffusionPacket, Direct)
    )
    assert largest(given - direct) < 1e-13
