"""Full counting statistics: against eigenvalues of the tilted generator, a telegraph process, and symmetries."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, slope

import jaxres as jr

BETAS = (0.1, 0.6)
FINE = jr.DoubleExponential(96, 64)


@pytest.fixture(scope="module")
def coherent():
    """The Letter's qubit between two gases of coherent packets."""
    system, hot = jr.letter.model(beta=BETAS[0], rate=2.0)
    _, cold = jr.letter.model(beta=BETAS[1], rate=1.5, position=-4.0)
    return system, [hot, cold], [jr.scattering_map(system, reservoir) for reservoir in (hot, cold)]


@pytest.fixture(scope="module")
def diagonal(coherent):
    """The same without coherence of the particles."""
    system, reservoirs, _ = coherent
    reservoirs = [
        eqx.tree_at(lambda b: b.packet, b, jr.DiagonalPacket(b.packet)) for b in reservoirs
    ]
    return system, reservoirs, [jr.scattering_map(system, b, quadrature=FINE) for b in reservoirs]


@pytest.fixture(scope="module")
def qutrit():
    """A qutrit of three reservoirs with unlike scatterers."""
    system = jr.System([-0.5, 0.1, 0.9])

    def reservoir(seed, beta, rate):
        packet = jr.EffusionPacket(beta=beta, mass=0.5, width=0.8, position=-2.0)
        repulsive = hermitian(seed, 3) + 2 * jnp.eye(3)  # no narrow resonances
        return jr.Reservoir(packet, jr.Slab(repulsive, 1.0), rate)

    reservoirs = [reservoir(2, 0.2, 1.0), reservoir(3, 0.5, 0.6), reservoir(4, 1.0, 1.4)]
    return system, reservoirs, [jr.scattering_map(system, b) for b in reservoirs]


@pytest.fixture(scope="module")
def counted(coherent, qutrit):
    """Both with coherence: system, maps, rates and their statistics to sixth order."""
    return [
        (system, maps, rates, jr.counting_statistics(system, jr.Collisions(maps, rates), 6))
        for system, reservoirs, maps in (coherent, qutrit)
        for rates in [[reservoir.rate for reservoir in reservoirs]]
    ]


def tilted(system, maps, rates, fields):
    """L(s) as a matrix, by its definition: S between exponentials of H, in NumPy."""
    e, N = np.asarray(system.levels), system.size
    one = np.eye(N * N)
    L = np.diag(-1j * (e[:, None] - e[None]).reshape(-1))
    for S, rate, s in zip(maps, rates, fields, strict=True):
        half = np.exp(s * e / 2)
        factor = np.kron(half, half)  # e^{sH/2} · e^{sH/2}
        L = L + float(rate) * (factor[:, None] * np.asarray(S.matrix) / factor[None] - one)
    return L


def top(matrix):
    """The eigenvalue that is 0 without a tilt."""
    values = np.linalg.eigvals(matrix)
    return values[np.argmax(values.real)]


def derivatives(f, orders, radius=0.6, n=32):
    """Of an analytic function at 0, by Cauchy's integral on a circle."""
    circle = radius * np.exp(2j * np.pi * np.arange(n) / n)
    values = np.array([f(s) for s in circle])
    return [
        np.mean(values * circle ** (-float(k))).real * np.prod(np.arange(1.0, k + 1))
        for k in orders
    ]


class TestCumulants:
    @pytest.mark.slow
    def test_they_are_derivatives_of_the_largest_eigenvalue(self, counted):
        for system, maps, rates, counts in counted:
            B = len(rates)
            for r in range(B):
                exact = derivatives(
                    lambda s: top(tilted(system, maps, rates, s * np.eye(B)[r])),  # noqa: B023
                    range(1, 7),
                )
                np.testing.assert_allclose(counts.cumulants[:, r], exact, rtol=1e-8, atol=1e-10)
                for q in range(r):  # D_rq = (∂²/∂s² of s_r = s_q = s, less the two own)/2
                    both = derivatives(
                        lambda s: top(tilted(system, maps, rates, s * np.eye(B)[[r, q]].sum(0))),  # noqa: B023
                        [2],
                    )[0]
                    mixed = (both - counts.cumulants[1, r] - counts.cumulants[1, q]) / 2
                    np.testing.assert_allclose(counts.noise[r, q], mixed, rtol=1e-9)

    def test_the_tilted_generator_is_its_definition(self, coherent):
        system, reservoirs, maps = coherent
        for fields in ([0.3, -0.7], [0.4j, 0.1j]):
            L = jr.tilted_generator(system, reservoirs, jnp.array(fields))
            expected = tilted(system, maps, [b.rate for b in reservoirs], fields)
            assert largest(L.matrix - expected) < 1e-13

    def test_the_mean_is_the_energy_current(self, counted):
        for system, maps, rates, counts in counted:
            J = [
                jr.heat_flow(system, S, rate, counts.rho)
                for S, rate in zip(maps, rates, strict=True)
            ]
            assert jr.coherence(counts.rho) > 0.01  # coherence takes part
            np.testing.assert_allclose(counts.mean, J, rtol=1e-11)

    def test_energy_is_conserved(self, counted):
        for _, _, _, counts in counted:
            assert abs(jnp.sum(counts.mean)) < 1e-14
            assert largest(jnp.sum(counts.noise, axis=1)) < 1e-14
            assert largest(counts.noise - counts.noise.T) < 1e-15
            assert np.linalg.eigvalsh(counts.noise)[1] > 1e-3  # there is noise
        two = counted[0][-1].cumulants
        signs = np.array([-1, 1, -1, 1, -1, 1])
        np.testing.assert_allclose(two[:, 1], two[:, 0] * signs, rtol=1e-10)

    def test_a_single_reservoir_brings_nothing_in_the_long_run(self, coherent):
        system, reservoirs, _ = coherent
        assert largest(jr.counting_statistics(system, reservoirs[0]).cumulants) < 1e-13

    def test_the_same_reservoir_in_two_halves(self, counted):
        # each half's currents are correlated; together they are one reservoir
        system, (S, T), _, whole = counted[0]
        split = jr.counting_statistics(
            system, jr.Collisions([S, S, T], [*jnp.array([0.7, 1.3, 1.5])]), 2
        )
        np.testing.assert_allclose(split.mean[0] + split.mean[1], whole.mean[0], rtol=1e-11)
        np.testing.assert_allclose(jnp.sum(split.noise[:2, :2]), whole.noise[0, 0], rtol=1e-11)
        np.testing.assert_allclose(split.mean[0] / split.mean[1], 0.7 / 1.3, rtol=1e-11)

    @pytest.mark.slow
    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_rare_and_frequent_collisions(self, diagonal, scale):
        # without coherence, the rate is but the unit of time
        system, reservoirs, maps = diagonal
        rates = [b.rate for b in reservoirs]
        once = jr.counting_statistics(system, jr.Collisions(maps, rates), 4).cumulants
        scaled = jr.counting_statistics(
            system, jr.Collisions(maps, [scale * r for r in rates]), 4
        ).cumulants
        np.testing.assert_allclose(scaled / scale, once, rtol=1e-9)


def telegraph(system, maps, rates):
    """Rates up and down by each of two reservoirs, and the splitting."""
    up = [float(r * S.tensor[1, 1, 0, 0].real) for S, r in zip(maps, rates, strict=True)]
    down = [float(r * S.tensor[0, 0, 1, 1].real) for S, r in zip(maps, rates, strict=True)]
    return *up, *down, float(system.levels[1] - system.levels[0])


class TestWithoutCoherence:
    def test_a_qubit_is_a_telegraph_process(self, diagonal):
        # quanta Δ in from h and out to c, with rates u_h, u_c up and d_h, d_c down
        system, reservoirs, maps = diagonal
        rates = [b.rate for b in reservoirs]
        uh, uc, dh, dc, gap = telegraph(system, maps, rates)
        K, forth, back = uh + uc + dh + dc, uh * dc, uc * dh
        mean = (forth - back) / K
        noise = (forth + back - 2 * mean**2) / K
        counts = jr.counting_statistics(system, jr.Collisions(maps, rates), 4)
        np.testing.assert_allclose(counts.mean[0], gap * mean, rtol=1e-11)
        np.testing.assert_allclose(counts.noise[0, 0], gap**2 * noise, rtol=1e-11)

        def cgf(s):  # the larger root of λ² + Kλ = f(s)
            f = forth * (np.exp(s * gap) - 1) + back * (np.exp(-s * gap) - 1)
            return (-K + np.sqrt(K**2 + 4 * f)) / 2

        exact = derivatives(cgf, range(1, 5))
        np.testing.assert_allclose(counts.cumulants[:, 0], exact, rtol=1e-9)

    @pytest.mark.parametrize("s", [-0.9, 0.2, 0.35j, 0.1 + 0.7j])
    def test_the_fluctuation_symmetry_of_two_gases(self, diagonal, s):
        # λ(s) = λ(−s − (β_c − β_h)) for the heat from the hot one (Gallavotti and Cohen)
        system, reservoirs, maps = diagonal
        rates = [b.rate for b in reservoirs]
        one, other = (
            top(tilted(system, maps, rates, [field, 0.0]))
            for field in (s, -s - BETAS[1] + BETAS[0])
        )
        assert abs(one - other) < 1e-9 < 1e-3 < abs(one)

    def test_coherent_packets_break_it(self, coherent):
        system, reservoirs, maps = coherent
        rates = [b.rate for b in reservoirs]
        full = top(tilted(system, maps, rates, [BETAS[0] - BETAS[1], 0.0]))
        assert abs(full) > 1e-3  # λ(0) = 0

    @pytest.mark.slow
    def test_noise_in_equilibrium_is_the_response(self):
        # D = 2 ∂J_h/∂(β_c − β_h) at equal β
        system, reservoir = jr.letter.model(beta=0.4, rate=1.0)
        plain = eqx.tree_at(lambda b: b.packet, reservoir, jr.DiagonalPacket(reservoir.packet))

        def counts(beta):
            hot = eqx.tree_at(lambda b: b.packet.packet.beta, plain, jnp.asarray(beta))
            maps = [jr.scattering_map(system, b, quadrature=FINE) for b in (hot, plain)]
            return jr.counting_statistics(
                system, jr.Collisions(maps, [jnp.array(1.0), jnp.array(2.0)]), 4
            )

        response = -slope(lambda t: counts(0.4 + t).mean[0], 1e-3)
        still = counts(0.4)
        assert abs(still.mean[0]) < 1e-10
        np.testing.assert_allclose(still.noise[0, 0], 2 * response, rtol=1e-7)


class TestDerivatives:
    @pytest.mark.slow
    def test_in_both_modes(self, coherent):
        system, _, maps = coherent
        way = jnp.array([0.3, 0.7, 0.2, 0.5])  # of a map, the rates and the splitting
        weights = jnp.array([1.0, -0.7, 2.0, 1.5])

        @jax.jit
        def f(x):
            first = jr.Superoperator((1 - x[0]) * maps[0].tensor + x[0] * maps[1].tensor)
            scaled = jr.System((1 + x[3]) * system.levels)
            rates = [2.0 + x[1], 1.5 + x[2]]
            counts = jr.counting_statistics(scaled, jr.Collisions([first, maps[1]], rates), 4)
            return weights @ counts.cumulants[:, 0] + counts.noise[0, 1]

        expected, zero = slope(lambda t: f(t * way), 1e-3), jnp.zeros(4)
        np.testing.assert_allclose(jax.jvp(f, (zero,), (way,))[1], expected, rtol=1e-8)
        np.testing.assert_allclose(jax.grad(f)(zero) @ way, expected, rtol=1e-8)


class TestArguments:
    def test_a_failure_is_named(self, coherent):
        system, reservoirs, _ = coherent
        idle = eqx.tree_at(lambda b: b.scatterer.coupling, reservoirs[0], 0 * hermitian(0, 2))
        counts = jr.counting_statistics(system, [idle, idle])
        assert counts.result == jr.RESULTS.not_unique
        assert np.all(np.isnan(counts.cumulants)) and np.all(np.isnan(counts.noise))

    def test_what_must_be_given(self, coherent):
        system, reservoirs, _ = coherent
        with pytest.raises(ValueError, match=r"`order` must be .*at least 2"):
            jr.counting_statistics(system, reservoirs, 1)
        with pytest.raises(ValueError, match="`fields` must have one value for each of 2"):
            jr.tilted_generator(system, reservoirs, jnp.zeros(3))
        endless = eqx.tree_at(lambda b: b.rate, reservoirs[0], jnp.asarray(jnp.inf))
        with pytest.raises(ValueError, match="finite"):
            jr.counting_statistics(system, [endless, reservoirs[1]])


@pytest.mark.slow
def test_without_collisions_nothing_is_counted_and_rare_ones_count_in_proportion(coherent):
    system, _, maps = coherent

    def cumulants(rate):
        return jr.counting_statistics(system, jr.Collisions(maps, [rate, rate]), 3).cumulants

    still, slope = cumulants(jnp.asarray(0.0)), jax.jacfwd(cumulants)(jnp.asarray(0.0))
    assert largest(still) == 0
    np.testing.assert_allclose(slope, cumulants(jnp.asarray(1e-7)) / 1e-7, rtol=1e-5)


@pytest.mark.slow
def test_high_orders_and_the_error_of_a_tilted_map(coherent):
    system, reservoirs, maps = coherent
    many = jr.counting_statistics(system, reservoirs, 22)
    assert np.isfinite(many.cumulants).all() and many.cumulants.shape == (22, 2)
    tilted_ = jr.tilted_generator(system, reservoirs, jnp.array([20.0, 0.0]))
    worst = sum(rate * S.error for rate, S in zip((2.0, 1.5), maps, strict=True))
    assert tilted_.error > 1e4 * worst  # e^{sw} with w up to Δ = 0.6
