"""What states tell and give: Fisher information, ergotropy, heat flow, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, unitary

import jaxres as jr

X = jnp.array([[0, 1], [1, 0]], complex)
Y = jnp.array([[0, -1j], [1j, 0]])
Z = jnp.array([[1, 0], [0, -1]], complex)


def qubit(r):
    """The state with Bloch vector r."""
    return (jnp.eye(2) + r[0] * X + r[1] * Y + r[2] * Z) / 2


def bloch_information(r, dr):
    """F = |dr|² + (r·dr)²/(1 − |r|²) of a mixed qubit."""
    return dr @ dr + (r @ dr) ** 2 / (1 - r @ r)


class TestQuantumFisher:
    @pytest.mark.parametrize(
        "r, dr",
        [
            ([0.3, -0.2, 0.5], [0.7, 0.1, -0.4]),
            ([0.0, 0.0, 0.0], [0.7, 0.1, -0.4]),  # degenerate
            ([0.0, 0.0, 0.9], [0.0, 0.0, 1.0]),
        ],
    )
    def test_a_mixed_qubit(self, r, dr):
        r, dr = jnp.array(r), jnp.array(dr)
        drho = (qubit(dr) - qubit(jnp.zeros(3)))[None]
        F = jr.quantum_fisher(qubit(r), drho)
        np.testing.assert_allclose(F, [[bloch_information(r, dr)]], rtol=1e-13)

    @pytest.mark.slow
    @pytest.mark.parametrize("N", [2, 4])
    def test_a_pure_state_has_four_times_its_generator_variance(self, N):
        G, psi = hermitian(1, N), unitary(2, N)[:, 0]
        rho = jnp.outer(psi, psi.conj())
        drho = -1j * (G @ rho - rho @ G)
        variance = jnp.real(psi.conj() @ G @ G @ psi - (psi.conj() @ G @ psi) ** 2)
        F = jr.quantum_fisher(rho, drho[None])
        np.testing.assert_allclose(F[0, 0], 4 * variance, rtol=1e-12)

    def test_a_gibbs_state_tells_its_energy_variance(self):
        system = jr.System([-1.0, 0.2, 0.2, 1.5])  # two levels meet
        gibbs = lambda beta: jr.gibbs_state(system, beta)  # noqa: E731
        p = jr.populations(gibbs(0.7))
        variance = p @ system.levels**2 - (p @ system.levels) ** 2
        drho = jax.jacfwd(gibbs)(0.7)[None]
        for F in (jr.quantum_fisher(gibbs(0.7), drho), jr.classical_fisher(gibbs(0.7), drho)):
            np.testing.assert_allclose(F, [[variance]], rtol=1e-13)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "r", [pytest.param([0.3, -0.2, 0.5], marks=pytest.mark.slow), [0.0, 0.0, 0.0]]
    )
    def test_derivatives_are_those_of_the_closed_form(self, r):
        r, dr = jnp.array(r), jnp.array([0.7, 0.1, -0.4])

        def F(r, dr):
            return jr.quantum_fisher(qubit(r), (qubit(dr) - qubit(jnp.zeros(3)))[None])[0, 0]

        for k in (0, 1):
            exact = jax.grad(bloch_information, k)(r, dr)
            for mode in (jax.jacfwd, jax.jacrev):
                np.testing.assert_allclose(mode(F, k)(r, dr), exact, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(
            jax.hessian(F)(r, dr), jax.hessian(bloch_information)(r, dr), rtol=1e-11, atol=1e-11
        )


class TestClassicalFisher:
    @pytest.mark.slow
    def test_no_measurement_tells_more_and_one_tells_as_much(self):
        rho = jr.gibbs_state(jr.System([-1.0, 0.1, 0.8]), 0.9)
        U, G = unitary(3, 3), hermitian(4, 3)
        rho = U @ rho @ U.conj().T
        drho = jnp.stack(
            [-1j * (G @ rho - rho @ G), U @ jnp.diag(jnp.array([0.1, 0.3, -0.4])) @ U.conj().T]
        )
        most = jr.quantum_fisher(rho, drho)
        for seed in range(5):
            F = jr.classical_fisher(rho, drho, unitary(10 + seed, 3))
            assert np.linalg.eigvalsh(most - F)[0] > -1e-13
        from jaxres._quantum.fisher import logarithmic_derivative

        best = jnp.linalg.eigh(logarithmic_derivative(rho, drho[0]))[1]
        np.testing.assert_allclose(
            jr.classical_fisher(rho, drho, best)[0, 0], most[0, 0], rtol=1e-12
        )

    def test_an_outcome_that_never_comes_is_left_out(self):
        rho, drho = jnp.diag(jnp.array([1.0, 0.0])), jnp.diag(jnp.array([0.0, 0.0])) + 0.3 * X
        assert float(jr.classical_fisher(rho, drho[None])[0, 0]) == 0.0


class TestErgotropy:
    def test_a_passive_state_has_none_and_an_inverted_one_all(self):
        system = jr.System([-1.0, 0.1, 0.8])
        p = jnp.array([0.6, 0.3, 0.1])
        assert abs(float(jr.ergotropy(system, jnp.diag(p)))) < 1e-15
        np.testing.assert_allclose(jr.ergotropy(system, jnp.diag(p[::-1])), 0.5 * 1.8, rtol=1e-14)

    def test_the_coherence_of_a_qubit(self):
        # Bloch vector r, level splitting w, ground state first: W = w (|r| − r_z)/2
        r = jnp.array([0.3, -0.2, 0.5])
        work = jr.ergotropy(jr.System([-0.4, 0.4]), qubit(r))
        np.testing.assert_allclose(work, 0.8 * (jnp.linalg.norm(r) - 0.5) / 2, rtol=1e-13)

    @pytest.mark.slow
    def test_derivatives(self):
        levels = jnp.array([-1.0, 0.1, 0.8])
        start, way = jnp.diag(jnp.array([0.2, 0.5, 0.3])) + 0j, hermitian(5, 3, scale=0.1)
        way = way - jnp.trace(way) / 3 * jnp.eye(3)

        def work(t, shift):
            system = jr.System(levels + shift * jnp.array([0.3, -0.1, 0.2]))
            return jr.ergotropy(system, start + t * way)

        h = 1e-5
        for k, (dt, ds) in enumerate([(h, 0), (0, h)]):
            slope = (work(0.2 + dt, ds) - work(0.2 - dt, -ds)) / (2 * h)
            for mode in (jax.jacfwd, jax.jacrev):
                np.testing.assert_allclose(mode(work, k)(0.2, 0.0), slope, rtol=1e-8)
        flat = jax.grad(lambda t: jr.ergotropy(jr.System(levels), jnp.eye(3) / 3 + t * way))(0.0)
        assert np.isfinite(flat)  # a kink: all eigenvalues meet

    @pytest.mark.slow
    def test_heat_flows_of_two_reservoirs_cancel(self):
        system, hot = jr.letter.model(beta=0.05, rate=2.0)
        _, cold = jr.letter.model(beta=0.3, width=0.5, rate=1.0)
        maps = [jr.scattering_map(system, reservoir) for reservoir in (hot, cold)]
        rho = jr.steady_state(system, jr.Collisions(maps, [hot.rate, cold.rate])).rho
        J = [
            jr.heat_flow(system, S, reservoir.rate, rho)
            for S, reservoir in zip(maps, (hot, cold), strict=True)
        ]
        np.testing.assert_allclose(J[0] + J[1], 0, atol=1e-14)
        assert J[0] > 1e-4
        ready = jr.losses.HeatCurrent()(system, (hot, cold))
        np.testing.assert_allclose(ready, -J[0], rtol=1e-12)
