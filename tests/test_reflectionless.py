"""The two reflectionless models: closed forms, the rate at which they become exact, trace, thermalisation."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import hermitian, jacobian, largest

import jaxres as jr
from jaxres._scattering.reflectionless import polar_factor

MODELS = [jr.WaveVectorOperator(), jr.RandomInteractionTime()]
RAW = [jr.WaveVectorOperator(unitary=False), jr.RandomInteractionTime(unitary=False)]
LEVELS = np.array([-0.5, 0.1, 0.9])
W1, W2 = hermitian(1, 3), hermitian(2, 3)
MASS = 0.7
STACK = jr.Stack([jr.Slab(W1, 0.6), jr.Slab(W2, 0.8)])


@eqx.filter_jit
def transmissions(levels, scatterer, mass, energies, model):
    def one(E):
        system = jr.System(levels)
        return jr.amplitudes(system, scatterer, mass=mass, energy=E, amplitudes=model)

    return jax.vmap(one)(energies)


def by_hand(E, slabs, model, levels=LEVELS, mass=MASS):
    """The same from SciPy's matrix functions, one energy at a time."""
    s, L = np.eye(len(levels)), sum(d for _, d in slabs)
    above = E - np.mean(levels)
    slowness = np.sqrt(mass / (2 * above)) if above > 0 else 0
    for W, d in slabs:
        H = np.diag(levels) + np.asarray(W)
        if isinstance(model, jr.WaveVectorOperator):
            v, U = np.linalg.eigh(H)
            Q = U @ np.diag(np.sqrt((2 * mass * (E - v)).astype(complex))) @ U.conj().T
            s = scipy.linalg.expm(1j * Q * d) @ s
        else:
            s = scipy.linalg.expm(-1j * H * d * slowness) @ s
    if isinstance(model, jr.WaveVectorOperator):
        k = np.sqrt((2 * mass * (E - levels)).astype(complex))
        s = np.diag(np.exp(-1j * k * L)) @ s
    else:
        s = np.diag(np.exp(1j * levels * L * slowness)) @ s
    open_ = levels < E
    block = s[np.ix_(open_, open_)]
    if model.unitary:
        block = scipy.linalg.polar(block)[0]
    s = np.zeros_like(s, dtype=complex)
    s[np.ix_(open_, open_)] = block
    return s


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS + RAW, ids=str)
def test_the_matrix_functions_as_written(model):
    # below, between and above the levels and the eigenvalues inside
    energies = np.array([-0.35, -0.1, 0.05, 0.2, 0.7, 1.0, 1.6, 2.5, 9.0])
    slabs = [(W1, 0.6), (W2, 0.8)]
    amps = transmissions(
        jnp.asarray(LEVELS), STACK, jnp.asarray(MASS), jnp.asarray(energies), model
    )
    expected = np.array([by_hand(E, slabs, model) for E in energies])
    assert largest(amps.transmission - expected) < 1e-12
    assert largest(amps.reflection) == 0
    one = np.where(LEVELS[None] < energies[:, None], 1.0, 0.0)
    flux = np.einsum("eab,eac->ebc", amps.transmission.conj(), amps.transmission)
    unitarity = largest(flux - one[:, :, None] * np.eye(3))
    assert unitarity < 1e-13 if model.unitary else unitarity > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "scatterer",
    [jr.Slab(W1, 1.1), pytest.param(STACK, marks=pytest.mark.slow)],
    ids=["slab", "stack"],
)
def test_they_become_exact_at_the_expected_rate(scatterer):
    energies = jnp.asarray(50.0 * 4.0 ** np.arange(5))
    arguments = jnp.asarray(LEVELS), scatterer, jnp.asarray(MASS), energies

    exact = transmissions(*arguments, jr.Exact())

    def fall(difference):
        size = np.max(np.abs(np.asarray(difference)), axis=(1, 2))
        return size[0], size[:-1] / size[1:]

    first, ratios = fall(exact.reflection)  # ∝ 1/E, up to a factor of interference
    assert first < 0.02 and 2 < np.exp(np.mean(np.log(ratios))) < 8
    for model, rate in zip(MODELS + RAW, (16, 8, 16, 8), strict=True):
        first, ratios = fall(exact.transmission - transmissions(*arguments, model).transmission)
        assert 1e-7 < first < 0.02
        assert rate / 1.5 < np.exp(np.mean(np.log(ratios))) < 1.5 * rate
    # the leading error of the interaction time: the phase L√(m/2E) [(H+W)² − H²]/4E, slab by slab
    E = float(energies[-1])
    phase = 0
    slabs = scatterer.slabs if isinstance(scatterer, jr.Stack) else [scatterer]
    for slab in slabs:
        H = np.diag(LEVELS - np.mean(LEVELS))
        inner = H + np.asarray(slab.coupling)
        phase = phase + float(slab.length) * np.sqrt(MASS / 2 / E) * (inner @ inner - H @ H) / (
            4 * E
        )
    model = transmissions(*arguments, MODELS[1]).transmission[-1]
    assert largest(exact.transmission[-1] - model + 1j * phase) < 0.1 * largest(phase)


@pytest.mark.slow
def test_a_slab_cut_in_two_is_the_slab():
    energies = jnp.array([-0.2, 0.4, 3.0])
    for model in MODELS:
        whole, halves = (
            transmissions(jnp.asarray(LEVELS), s, jnp.asarray(MASS), energies, model).transmission
            for s in (jr.Slab(W1, 1.2), jr.Stack([jr.Slab(W1, 0.6), jr.Slab(W1, 0.6)]))
        )
        assert largest(whole - halves) < 1e-13


@pytest.mark.slow
def test_an_opaque_wall_leaves_finite_unitary_amplitudes():
    wall = jnp.diag(jnp.array([40.0, 4e6])) + hermitian(3, 2)
    energies = jnp.array([0.1, 0.5, 1.0, 50.0])
    for model in MODELS:
        s = transmissions(
            jnp.array([-0.3, 0.3]), jr.Slab(wall, 5.0), jnp.asarray(1.0), energies, model
        ).transmission
        assert bool(jnp.all(jnp.isfinite(s)))
        flux = jnp.einsum("eab,eac->ebc", s.conj(), s)[1:] - jnp.eye(2)[None]
        assert largest(flux) < 1e-12


class TestPolarFactor:
    def matrices(self, N, seed=0):
        rng = np.random.default_rng(seed)
        B = rng.normal(size=(N, N, 6)) + 1j * rng.normal(size=(N, N, 6))
        Q = np.linalg.qr(B[:, :, 0])[0]
        P = np.linalg.qr(B[:, :, 1])[0]
        B[:, :, 1] = 0.3 * Q  # all singular values coincide
        B[:, :, 2] = Q @ np.diag(np.geomspace(1, 1e-6, N)) @ P
        B[:, :, 3] = Q @ np.diag([0.7, 0.7, 2, 2, 2][:N]) @ P
        B[:, :, 4] *= 1e-200
        B[:, :, 4] *= 1e100
        return B

    @pytest.mark.slow
    @pytest.mark.parametrize("N", [1, 2, 3, 5])
    def test_it_is_the_nearest_unitary(self, N):
        B = self.matrices(N)
        U = np.asarray(polar_factor(jnp.asarray(B)))
        for i in range(B.shape[-1]):
            V, _, Wh = np.linalg.svd(B[:, :, i])
            room = 1e-9 if i == 2 else 1e-13  # it is known no better than rounding × condition
            assert largest(U[:, :, i] - V @ Wh) < room
            assert largest(U[:, :, i].conj().T @ U[:, :, i] - np.eye(N)) < 1e-13

    def test_a_symmetric_matrix_has_a_symmetric_one(self):
        B = self.matrices(3)[:, :, :1]
        U = polar_factor(jnp.asarray(B + B.swapaxes(0, 1)))
        assert largest(U - U.swapaxes(0, 1)) < 1e-14

    def test_its_derivative_where_singular_values_coincide(self):
        # dB = (Ω + …)UH: U†dU = Ω with ΩH + HΩ = U†dB − (U†dB)†
        B = jnp.asarray(self.matrices(3)[:, :, [0, 1, 3]])
        dB = jnp.asarray(self.matrices(3, seed=1)[:, :, [0, 0, 0]])
        U, dU = jax.jvp(polar_factor, (B,), (dB,))
        for i in range(3):
            u, b, db = (np.asarray(x)[:, :, i] for x in (U, B, dB))
            H = u.conj().T @ b
            K = u.conj().T @ db
            omega = scipy.linalg.solve_sylvester(H, H, K - K.conj().T)
            assert largest(np.asarray(dU)[:, :, i] - u @ omega) < 1e-12
        # and backwards: Re⟨Y, dU⟩ = Re⟨vjp(Y), dB⟩
        Y = jnp.asarray(self.matrices(3, seed=2)[:, :, [0, 0, 0]])
        (back,) = jax.vjp(polar_factor, B)[1](jnp.conj(Y))
        forward = float(jnp.sum(jnp.real(jnp.conj(Y) * dU)))
        np.testing.assert_allclose(float(jnp.sum(jnp.real(back * dB))), forward, rtol=1e-12)


def with_packet(levels, W, **numbers):
    numbers = dict(beta=0.4, mass=0.5, width=0.8, position=-2.0) | numbers
    return jr.System(levels), jr.Reservoir(
        packet=jr.EffusionPacket(**numbers), scatterer=jr.Slab(W, 1.0), rate=1.0
    )


FINE = jr.DoubleExponential(96, 48)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_map_is_the_integral_of_eq_17(model):
    # with amplitudes and an integral from elsewhere: Gauss-Legendre, in a variable whose fourth power is the
    # distance to the end of a panel, since s does not vanish with √p
    levels, W = np.array([-0.4, 0.5]), np.asarray(hermitian(6, 2))
    system, reservoir = with_packet(levels, W)
    mass = 0.5
    S = jr.scattering_map(system, reservoir, amplitudes=model, quadrature=FINE)

    kinks = np.linalg.eigvalsh(np.diag(levels) + W)
    if isinstance(model, jr.RandomInteractionTime):
        kinks = np.array([np.mean(levels)])
    points = np.subtract.outer(kinks, levels).ravel()
    points = np.unique(np.clip([0, 0.9, *points], 0, None))
    u, w = np.polynomial.legendre.leggauss(80)
    u, w = (u + 1) / 2, w / 2
    down = (1 - u) ** 4
    share = u**4 / (u**4 + down)
    slope = 4 * u**3 * (1 - u) ** 3 / (u**4 + down) ** 2
    eps = [a + (b - a) * share for a, b in pairwise(points)]
    deps = [(b - a) * slope * w for a, b in pairwise(points)]
    eps = np.concatenate([*eps, points[-1] + (3.2 * u) ** 4])
    deps = np.concatenate([*deps, 4 * 3.2**4 * u**3 * w])
    s = np.array(
        [[by_hand(e + level, [(W, 1.0)], model, levels, mass) for e in eps] for level in levels]
    )

    def entry(out, out2, in_, in2):
        p2, q2 = eps + levels[out] - levels[in_], eps + levels[out2] - levels[in2]
        open_ = (p2 > 0) & (q2 > 0)
        p, q = np.sqrt(2 * mass * p2[open_]), np.sqrt(2 * mass * q2[open_])
        rho = np.asarray(reservoir.packet.density(jnp.asarray(p), jnp.asarray(q)))
        # the outgoing momenta of both factors are one, so what s⁺ is referenced to is no matter
        pair = s[out, :, out, in_] * s[out2, :, out2, in2].conj()
        return np.sum(mass / np.sqrt(p * q) * rho * (pair * deps)[open_])

    # neither grid can follow how the interaction time grows towards the mean level
    room = 1e-9 if isinstance(model, jr.WaveVectorOperator) else 2e-4
    expected = np.array(
        [[[[entry(a, b, j, k) for k in (0, 1)] for j in (0, 1)] for b in (0, 1)] for a in (0, 1)]
    )
    assert largest(S.tensor - expected) < room


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_they_keep_the_trace_and_thermalise(model):
    # two open channels share the fast turning just above the mean level, each on nodes of its own: then the trace is
    # kept by the repair alone
    for levels, W in [([-0.4, 0.5], hermitian(6, 2)), (LEVELS, W1)]:
        system, reservoir = with_packet(levels, W)
        S = jr.scattering_map(system, reservoir, amplitudes=model, quadrature=FINE)
        # before the repair, which makes it exact
        wild = isinstance(model, jr.RandomInteractionTime) and system.size > 2
        assert S.trace_defect < (1e-4 if wild else 1e-9)
        assert largest(jnp.einsum("aajk->jk", S.tensor) - jnp.eye(system.size)) < 1e-13
        # Σ_j S[j',j',j,j] e^{−βe_j} = e^{−βe_j'} follows from s s† = 1; it is no part of the repair
        p = jr.populations(jr.gibbs_state(system, 0.4))
        stationary = jnp.real(jnp.einsum("aajj,j->a", S.tensor, p)) - p
        assert largest(stationary) < 1e-9 + float(S.error)
        sol = jr.steady_state(system, jr.Collisions(S, 1e-8))
        assert largest(sol.rho - jr.gibbs_state(system, 0.4)) < 1e-7 + 5 * float(S.error)


@pytest.mark.slow
def test_the_raw_forms_lose_the_trace():
    losses = []
    for model in RAW:
        S = jr.scattering_map(*jr.letter.model(), amplitudes=model)
        losses.append(1 - np.real(np.einsum("aajj->j", S.tensor)))
    # in the wave-vector operator waves decay too
    assert 0.038 < np.max(losses[0]) < 0.039 and np.min(losses[0]) > 0.03
    # above the mean level, the excited system finds all channels open that it can see
    assert 0.015 < losses[1][0] < 0.016 and abs(losses[1][1]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [pytest.param(MODELS[0], marks=pytest.mark.slow), RAW[1]], ids=str
)
def test_the_error_estimate_is_honest(model):
    system, reservoir = jr.letter.model(beta=0.3)
    reference = jr.scattering_map(
        system, reservoir, amplitudes=model, quadrature=jr.DoubleExponential(600, 64)
    )
    for n in (24, 48):
        S = jr.scattering_map(
            system, reservoir, amplitudes=model, quadrature=jr.DoubleExponential(n, n)
        )
        true = largest(S.tensor - reference.tensor)
        assert 1e-13 < true < 1e-3
        assert true / 10 <= float(S.error) < 1e4 * true


class Splitting(jr.AbstractAmplitudes):
    """The exact amplitudes, on a grid that is split at energies of no meaning."""

    at: jax.Array
    exact = jr.Exact()

    def kinks(self, layers, levels, mass):
        return self.at

    def matrices(self, *arguments):
        return self.exact.matrices(*arguments)

    def outgoing(self, *arguments):
        return self.exact.outgoing(*arguments)


@pytest.mark.slow
def test_more_panels_change_nothing():
    system, reservoir = with_packet([-0.4, 0.5], hermitian(6, 2))
    S = jr.scattering_map(system, reservoir, quadrature=jr.DoubleExponential(96, 64))
    # below everything, on a threshold, on it but for rounding, in between, very far away, nowhere
    for at in ([-3.0, 0.5, 1.7], [0.5 * (1 + 1e-15), 1.4, 1e9], [jnp.nan, -0.4, 0.500001]):
        more = jr.scattering_map(
            system,
            reservoir,
            amplitudes=Splitting(jnp.array(at)),
            quadrature=jr.DoubleExponential(96, 64),
        )
        assert largest(more.tensor - S.tensor) < 1e-13


@pytest.mark.slow
def test_gradients():
    W = hermitian(6, 2)
    names = ("levels", "re", "im", "beta", "mass", "width", "length")
    numbers = dict(levels=[-0.4, 0.5], re=0.6, im=-0.4, beta=0.4, mass=0.5, width=0.8, length=1.1)
    x0 = jnp.concatenate([jnp.atleast_1d(jnp.asarray(numbers[n], float)) for n in names])

    def coherence(x):
        coupling = jnp.diag(jnp.diag(W).real) + jnp.array([[0, 1.0], [0, 0]]) * (x[2] + 1j * x[3])
        coupling = coupling + jnp.array([[0, 0], [1.0, 0]]) * (x[2] - 1j * x[3])
        packet = jr.EffusionPacket(beta=x[4], mass=x[5], width=x[6], position=-2.0)
        reservoir = jr.Reservoir(packet=packet, scatterer=jr.Slab(coupling, x[7]), rate=2.0)
        S = jr.scattering_map(
            jr.System(x[:2]),
            reservoir,
            amplitudes=jr.WaveVectorOperator(),
            quadrature=jr.DoubleExponential(96, 64),
        )
        sol = jr.steady_state(jr.System(x[:2]), jr.Collisions(S, reservoir.rate))
        return jr.coherence(sol.rho) + sol.rho[0, 0].real

    backward = jax.jit(jax.grad(coherence))(x0)
    direction = jnp.array([0.3, -0.5, 0.7, 0.2, 0.4, -0.6, 0.1, 0.8])
    forward = jax.jit(lambda x: jax.jvp(coherence, (x,), (direction,))[1])(x0)
    np.testing.assert_allclose(forward, backward @ direction, rtol=1e-11)
    differences = jacobian(jax.jit(coherence), x0, 1e-4)
    np.testing.assert_allclose(backward, differences, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_amplitudes_have_the_same_derivative_in_both_modes():
    def transmitted(x):
        slab = jr.Slab(x[2] * W1, x[1])
        system, energies = jr.System(jnp.asarray(LEVELS)), jnp.array([0.7, 2.0])
        amps = jax.vmap(
            lambda energy: jr.amplitudes(
                system, slab, mass=x[0], energy=energy, amplitudes=jr.WaveVectorOperator()
            )
        )(energies)
        weights = jnp.array([[1.0, 2.0, 4.0], [3.0, 1.0, 5.0], [2.0, 6.0, 1.0]])
        return jnp.sum(weights[None] * jnp.abs(amps.transmission) ** 2)

    x = jnp.array([0.5, 1.1, 0.9])
    forward, backward = jax.jacfwd(transmitted)(x), jax.jacrev(transmitted)(x)
    assert largest(forward) > 1e-2
    assert largest(forward - backward) < 1e-12
