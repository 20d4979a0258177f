"""Entropies, distances and temperatures of states: closed forms, algebra, and derivatives where they are delicate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, jacobian, largest, unitary

import jaxres as jr

X = jnp.array([[0, 1], [1, 0]], complex)
Y = jnp.array([[0, -1j], [1j, 0]])
Z = jnp.array([[1, 0], [0, -1]], complex)

entropy, relative = jax.jit(jr.von_neumann_entropy), jax.jit(jr.relative_entropy)
fidelity = jax.jit(jr.fidelity)


def qubit(r):
    """The state with Bloch vector r."""
    return (jnp.eye(2) + r[0] * X + r[1] * Y + r[2] * Z) / 2


def state(seed, N, weights=None):
    """A random state, with given eigenvalues if any."""
    U = unitary(seed, N)
    p = np.random.default_rng(seed).dirichlet(np.ones(N)) if weights is None else weights
    return (U * jnp.asarray(p)[None]) @ U.conj().T


def log(rho):
    """The logarithm of a state of full rank, in NumPy."""
    values, U = np.linalg.eigh(np.asarray(rho))
    return (U * np.log(values)) @ U.conj().T


def root(rho):
    values, U = np.linalg.eigh(np.asarray(rho))
    return (U * np.sqrt(np.maximum(values, 0))) @ U.conj().T


def check_derivative(f, t, expected, rtol=1e-11, atol=1e-12):
    """In forward and in reverse mode."""
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(mode(f))(t), expected, rtol=rtol, atol=atol)


class TestValues:
    def test_a_qubit(self):
        r, s = jnp.array([0.3, -0.2, 0.5]), jnp.array([-0.1, 0.6, 0.2])
        rho, sigma = qubit(r), qubit(s)
        p = (1 + np.array([1, -1]) * np.linalg.norm(r)) / 2
        np.testing.assert_allclose(jr.purity(rho), (1 + r @ r) / 2, rtol=1e-15)
        np.testing.assert_allclose(entropy(rho), -np.sum(p * np.log(p)), rtol=1e-14)
        np.testing.assert_allclose(jr.l1_coherence(rho), np.hypot(0.3, 0.2), rtol=1e-15)
        q = (1 + np.array([1, -1]) * 0.5) / 2
        coherence = -np.sum(q * np.log(q)) + np.sum(p * np.log(p))
        np.testing.assert_allclose(jr.relative_entropy_of_coherence(rho), coherence, rtol=1e-13)
        F = (1 + r @ s + np.sqrt((1 - r @ r) * (1 - s @ s))) / 2
        np.testing.assert_allclose(fidelity(rho, sigma), F, rtol=1e-14)

    def test_more_levels_against_numpy(self):
        for seed in range(5):
            rho, sigma = state(seed, 3), state(10 + seed, 3)
            D = np.trace(np.asarray(rho) @ (log(rho) - log(sigma))).real
            np.testing.assert_allclose(entropy(rho), -np.trace(rho @ log(rho)).real, rtol=1e-13)
            np.testing.assert_allclose(relative(rho, sigma), D, rtol=1e-12)
            singular = np.linalg.svd(root(rho) @ root(sigma), compute_uv=False)
            np.testing.assert_allclose(fidelity(rho, sigma), np.sum(singular) ** 2, rtol=1e-13)

    @pytest.mark.slow
    def test_independent_systems_add_up(self):
        a, b, c, d = (state(seed, 2) for seed in range(4))
        ab, cd = jnp.kron(a, b), jnp.kron(c, d)
        np.testing.assert_allclose(entropy(ab), entropy(a) + entropy(b), rtol=1e-13)
        np.testing.assert_allclose(relative(ab, cd), relative(a, c) + relative(b, d), rtol=1e-12)
        np.testing.assert_allclose(fidelity(ab, cd), fidelity(a, c) * fidelity(b, d), rtol=1e-13)
        np.testing.assert_allclose(jr.purity(ab), jr.purity(a) * jr.purity(b), rtol=1e-13)

    def test_pure_states(self):
        psi, phi = unitary(1, 3)[:, 0], unitary(2, 3)[:, 1]
        rho, sigma = jnp.outer(psi, psi.conj()), jnp.outer(phi, phi.conj())
        assert abs(entropy(rho)) < 1e-13
        np.testing.assert_allclose(fidelity(rho, sigma), abs(psi.conj() @ phi) ** 2, rtol=1e-12)
        mixed = state(3, 3)
        np.testing.assert_allclose(
            fidelity(rho, mixed), (psi.conj() @ mixed @ psi).real, rtol=1e-12
        )
        np.testing.assert_allclose(
            relative(rho, mixed), -(psi.conj() @ log(mixed) @ psi).real, rtol=1e-12
        )
        assert relative(mixed, rho) == jnp.inf and relative(rho, sigma) == jnp.inf
        assert abs(relative(rho, rho)) < 1e-13
        p = np.abs(np.asarray(psi)) ** 2
        np.testing.assert_allclose(
            jr.relative_entropy_of_coherence(rho), -np.sum(p * np.log(p)), rtol=1e-12
        )

    def test_what_is_no_state_has_no_entropy(self):
        assert jnp.isnan(entropy(jnp.diag(jnp.array([1.1, -0.1]))))

    def test_free_energy_of_a_cold_system(self):
        system, beta = jr.System([-1.0, 0.2, 1.4]), 300.0  # populations down to 1e-312
        rho = state(4, 3)
        Z = np.sum(np.exp(-beta * (np.asarray(system.levels) + 1.0)))
        energy = np.sum(np.diagonal(rho).real * (np.asarray(system.levels) + 1.0))
        expected = beta * energy + np.log(Z) - float(entropy(rho))
        np.testing.assert_allclose(
            jr.relative_entropy_to_gibbs(system, rho, beta), expected, rtol=1e-14
        )
        for beta in (-0.7, 0.0, 1.3):
            D = jr.relative_entropy_to_gibbs(system, rho, beta)
            np.testing.assert_allclose(D, relative(rho, jr.gibbs_state(system, beta)), rtol=1e-12)

    @pytest.mark.slow
    def test_no_channel_raises_a_relative_entropy_or_lowers_a_fidelity(self):
        system, reservoir = jr.letter.model()
        S = jr.scattering_map(
            system,
            jr.Reservoir(
                jr.ThermalMixture(beta=0.1, mass=0.1, width=1.0), reservoir.scatterer, 1.0
            ),
        )

        @jax.jit
        @jax.vmap
        def both(r, s):
            before, after = (qubit(r), qubit(s)), (S(qubit(r)), S(qubit(s)))
            return (
                jr.relative_entropy(*before) - jr.relative_entropy(*after),
                jr.fidelity(*after) - jr.fidelity(*before),
            )

        vectors = np.random.default_rng(0).normal(size=(2, 100, 3))
        vectors *= 0.95 / np.maximum(0.95, np.linalg.norm(vectors, axis=-1, keepdims=True))
        lost, gained = both(*vectors)
        assert np.min(lost) > 0 and np.max(lost) > 0.01
        assert np.min(gained) > 0 and np.max(gained) > 0.01


@pytest.mark.slow
def test_batches_of_states_are_taken_one_by_one():
    system = jr.System([-0.4, 0.1, 0.5])
    many = jnp.stack([jnp.stack([state(3 * i + j, 3) for j in range(3)]) for i in range(2)])
    other = state(99, 3)
    functions = {
        "entropy": jr.von_neumann_entropy,
        "free energy": lambda r: jr.relative_entropy_to_gibbs(system, r, 0.7),
        "coherence": jr.relative_entropy_of_coherence,
        "relative": lambda r: jr.relative_entropy(r, other),
        "relative, from": lambda r: jr.relative_entropy(other, r),
        "fidelity": lambda r: jr.fidelity(r, other),
        "ergotropy": lambda r: jr.ergotropy(system, r),
        "beta": lambda r: jr.effective_beta(system, r),
        "heat": lambda r: jr.heat_flow(system, jr.Superoperator.from_unitary(other), 2.0, r),
    }
    for name, f in functions.items():
        batch = f(many)
        assert batch.shape == (2, 3), name
        each = np.array([[f(rho) for rho in row] for row in many])
        assert largest(batch - each) < 1e-13, name


class TestDerivatives:
    START, WAY, SECOND = state(1, 3), hermitian(5, 3, scale=0.1), hermitian(6, 3, scale=0.1)

    @pytest.mark.slow
    def test_at_full_rank(self):
        way = self.WAY - jnp.trace(self.WAY) / 3 * jnp.eye(3)
        sigma = state(2, 3)

        def f(t):
            rho, other = self.START + t[0] * way, sigma + t[1] * way
            return jnp.stack(
                [
                    jr.von_neumann_entropy(rho),
                    jr.relative_entropy(rho, other),
                    jr.fidelity(rho, other),
                    jr.relative_entropy_of_coherence(rho),
                    jr.l1_coherence(rho),
                    jr.purity(rho),
                ]
            )

        t = jnp.array([0.02, -0.03])
        check_derivative(f, t, jacobian(jax.jit(f), t, 1e-4), rtol=1e-8, atol=1e-10)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "p",
        [[0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.25, 0.25, 0.5], [0.25, 0.2503, 0.4997]],
    )
    def test_second_derivatives_where_eigenvalues_meet(self, p):
        # d²S = −Σ_ab |X_ab|² ln[p_a, p_b] along a straight line, with divided differences of ln
        p, U = np.array(p), np.asarray(unitary(3, 3))
        rho = (U * p) @ U.conj().T
        gap = p[:, None] - p[None]
        slope = np.where(
            gap == 0, 1 / p[:, None], np.log(p[:, None] / p[None]) / np.where(gap == 0, 1, gap)
        )
        form = lambda A, B: -np.sum((U.conj().T @ A @ U) * (U.conj().T @ B @ U).T * slope).real  # noqa: E731
        ways = [np.asarray(self.WAY), np.asarray(self.SECOND)]
        expected = np.array([[form(A, B) for B in ways] for A in ways])
        hessian = jax.jit(
            jax.hessian(
                lambda t: jr.von_neumann_entropy(rho + t[0] * self.WAY + t[1] * self.SECOND)
            )
        )(jnp.zeros(2))
        np.testing.assert_allclose(hessian, expected, rtol=1e-11, atol=1e-13)

    @pytest.mark.slow
    @pytest.mark.parametrize("small", [1e-3, 1e-7, 1e-11])
    def test_the_logarithm_of_small_close_probabilities(self, small):
        p = np.array([1 - 1.7 * small, small, 0.7 * small])
        other = state(7, 3)
        U = jnp.asarray(unitary(8, 3))
        way = jnp.zeros((3, 3)).at[1, 2].set(small).at[2, 1].set(small)

        def f(t):  # σ's two small eigenvectors are mixed
            return jr.relative_entropy(other, U @ (jnp.diag(p) + t * way) @ U.conj().T)

        turned = U.conj().T @ other @ U
        slope = np.log(p[1] / p[2]) / (p[1] - p[2])
        expected = -2 * small * slope * turned[1, 2].real
        # σ itself is only known to 1e-16
        check_derivative(f, 0.0, expected, rtol=1e-14 / small + 1e-11)

    @pytest.mark.slow
    def test_at_a_pure_state_along_states(self):
        psi, G = np.asarray(unitary(1, 3)[:, 0]), np.asarray(hermitian(2, 3))
        mixed = state(3, 3)
        values, V = np.linalg.eigh(G)

        def turned(t):
            return (V * jnp.exp(-1j * values * t)[None]) @ (V.conj().T @ psi)

        def pure(t):
            return jnp.outer(turned(t), jnp.conj(turned(t)))

        def loses_rank(t):  # on both sides of t = 0, other eigenvalues grow as t²
            rho = pure(t)
            return (1 - t**2) * rho + t**2 * mixed

        def closed(t):
            """Of ψ(t): entropy, C, D to σ, and the fidelity with σ."""
            phi = turned(t)
            p = jnp.abs(phi) ** 2
            C, D = -jnp.sum(p * jnp.log(p)), -jnp.real(jnp.conj(phi) @ (log(mixed) @ phi))
            return jnp.stack([0.0, C, D, jnp.real(jnp.conj(phi) @ mixed @ phi)])

        def f(states):
            def values(t):
                rho = states(t)
                return jnp.stack(
                    [
                        jr.von_neumann_entropy(rho),
                        jr.relative_entropy_of_coherence(rho),
                        jr.relative_entropy(rho, mixed),
                        jr.fidelity(rho, mixed),
                    ]
                )

            return values

        slope = jax.jacfwd(closed)(0.0)
        assert np.min(np.abs(slope[1:])) > 0.05  # there is something to get right
        check_derivative(f(pure), 0.0, slope, rtol=1e-10, atol=1e-10)
        check_derivative(f(loses_rank), 0.0, slope, rtol=1e-10, atol=1e-10)
        curvature = jax.jit(jax.grad(jax.grad(lambda t: jr.relative_entropy(pure(t), mixed))))
        expected = jax.grad(jax.grad(lambda t: closed(t)[2]))(0.0)
        np.testing.assert_allclose(curvature(0.0), expected, rtol=1e-9)

    @pytest.mark.slow
    def test_of_two_states_with_one_kernel_that_turns(self):
        G = hermitian(2, 3)
        values, V = jnp.linalg.eigh(G)

        def both(t):
            U = (V * jnp.exp(-1j * values * t)[None]) @ V.conj().T
            p, q = (
                jnp.array([0.3, 0.7, 0.0]),
                jnp.array([0.6, 0.4, 0.0]) + t * jnp.array([1, -1, 0]),
            )
            rho, sigma = ((U * x[None]) @ jnp.conj(U.T) for x in (p, q))
            return jnp.stack([jr.relative_entropy(rho, sigma), jr.fidelity(rho, sigma)])

        root = np.sqrt(0.3 * 0.6) + np.sqrt(0.7 * 0.4)
        slope = [-0.3 / 0.6 + 0.7 / 0.4, root * (np.sqrt(0.3 / 0.6) - np.sqrt(0.7 / 0.4))]
        check_derivative(both, 0.0, slope, rtol=1e-12)

    @pytest.mark.slow
    def test_at_a_pure_state_towards_mixed_ones_they_are_finite_and_point_inwards(self):
        rho, mixed = jnp.diag(jnp.array([1.0, 0.0])), jnp.eye(2) / 2
        slope = jax.grad(lambda t: jr.von_neumann_entropy((1 - t) * rho + t * mixed))(0.0)
        assert 10 < slope < 20
        for f in (jr.fidelity, jr.relative_entropy):
            assert jnp.isfinite(jax.grad(lambda t: f((1 - t) * rho + t * mixed, mixed))(0.0))  # noqa: B023

    def test_ergotropy_of_a_pure_state(self):
        # the passive state is the ground state, along the whole curve
        system, psi = jr.System([-1.0, 0.1, 0.8]), unitary(1, 3)[:, 0]
        values, V = jnp.linalg.eigh(hermitian(2, 3))

        def turned(t):
            return (V * jnp.exp(-1j * values * t)[None]) @ (V.conj().T @ psi)

        def energy(t):
            return jnp.sum(jnp.abs(turned(t)) ** 2 * system.levels)

        check_derivative(
            lambda t: jr.ergotropy(system, jnp.outer(turned(t), jnp.conj(turned(t)))),
            0.0,
            jax.grad(energy)(0.0),
        )


class TestEffectiveBeta:
    LEVELS = (-1.0, 0.1, 0.1, 2.0)
    beta_of = staticmethod(jax.jit(jr.effective_beta))

    @pytest.mark.parametrize("beta", [-60.0, -1.3, -1e-9, 0.0, 1e-3, 0.7, 8.0, 300.0])
    def test_of_a_gibbs_state(self, beta):
        system = jr.System(self.LEVELS)
        found = self.beta_of(system, jr.gibbs_state(system, beta))
        np.testing.assert_allclose(found, beta, rtol=1e-13, atol=1e-15)

    def test_of_a_qubit_it_is_that_of_the_populations(self):
        rho = qubit(jnp.array([0.6, 0.1, 0.35]))
        found = jr.effective_beta(jr.System([0.2, 1.0]), rho)
        np.testing.assert_allclose(found, np.log(0.675 / 0.325) / 0.8, rtol=1e-14)

    def test_it_has_the_energy_of_the_state(self):
        system = jr.System(self.LEVELS)
        for seed in range(20):
            rho = state(seed, 4)
            p = jr.populations(jr.gibbs_state(system, self.beta_of(system, rho)))
            np.testing.assert_allclose(
                p @ system.levels, jr.populations(rho) @ system.levels, atol=1e-14
            )

    def test_derivatives_by_the_equation(self):
        rho, way = state(1, 4), np.asarray(hermitian(2, 4))
        levels, shift = np.array(self.LEVELS), np.array([0.3, -0.1, -0.1, 0.2])

        def f(t):
            return jr.effective_beta(jr.System(levels + t[1] * shift), rho + t[0] * way)

        beta = float(f(jnp.zeros(2)))
        p = np.asarray(jr.populations(jr.gibbs_state(jr.System(levels), beta)))
        weight = np.trace(np.asarray(rho) + 0 * way).real
        mean = p @ levels / weight
        variance = p @ (levels - mean) ** 2
        # E(ρ, e) − Tr ρ E_β(e) = 0, with dE_β = −Var dβ + Σ p_j [1 − β (e_j − E)] de_j
        of_state = -np.sum(np.diagonal(way).real * (levels - mean)) / variance
        q = np.diagonal(np.asarray(rho)).real
        of_levels = (p @ (shift * (1 - beta * (levels - mean))) - q @ shift) / variance
        check_derivative(f, jnp.zeros(2), [of_state, of_levels], rtol=1e-11)

    def test_the_ends(self):
        system = jr.System(self.LEVELS)
        assert self.beta_of(system, jnp.diag(jnp.array([1.0, 0, 0, 0]))) == jnp.inf
        assert self.beta_of(system, jnp.diag(jnp.array([0.0, 0, 0, 1]))) == -jnp.inf
        assert jnp.isnan(self.beta_of(jr.System([0.3] * 4), jnp.eye(4) / 4))
