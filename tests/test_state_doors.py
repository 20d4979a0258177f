"""What comes to functions of states: indices, kinds and precisions of arguments, matrices that are not states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip
from helpers import hermitian, unitary

import jaxres as jr

SYSTEM = jr.System([-0.3, 0.3])
RHO = np.array([[0.6, 0.1 - 0.2j], [0.1 + 0.2j, 0.4]])
OTHER = np.array([[0.3, 0.1], [0.1, 0.7]])
WAY = np.array([[[0.1, 0.2j], [-0.2j, -0.1]]])
MAP = jr.Superoperator.from_kraus([[[1, 0], [0, 0.6]], [[0, 0.8], [0, 0]]])
#: numbers that belong to a state, which is to be Hermitian and of trace 1
OF_STATES = {
    "trace_distance": lambda rho: jr.trace_distance(rho, OTHER),
    "trace_distance, second": lambda rho: jr.trace_distance(OTHER, rho),
    "purity": jr.purity,
    "von_neumann_entropy": jr.von_neumann_entropy,
    "relative_entropy": lambda rho: jr.relative_entropy(rho, OTHER),
    "relative_entropy, second": lambda rho: jr.relative_entropy(OTHER, rho),
    "relative_entropy_to_gibbs": lambda rho: jr.relative_entropy_to_gibbs(SYSTEM, rho, 0.4),
    "relative_entropy_of_coherence": jr.relative_entropy_of_coherence,
    "fidelity": lambda rho: jr.fidelity(rho, OTHER),
    "fidelity, second": lambda rho: jr.fidelity(OTHER, rho),
    "ergotropy": lambda rho: jr.ergotropy(SYSTEM, rho),
    "effective_beta": lambda rho: jr.effective_beta(SYSTEM, rho),
    "classical_fisher": lambda rho: jr.classical_fisher(rho, WAY)[0, 0],
    "quantum_fisher": lambda rho: jr.quantum_fisher(rho, WAY)[0, 0],
    "energy_distribution": lambda rho: jr.energy_distribution(SYSTEM, MAP, rho).mean,
}
#: and those of any matrix
OF_MATRICES = {
    "populations": lambda rho: jr.populations(rho)[..., 0],
    "coherence": jr.coherence,
    "l1_coherence": jr.l1_coherence,
    "heat_flow": lambda rho: jr.heat_flow(SYSTEM, MAP, 2, rho),
}
ALL = OF_STATES | OF_MATRICES
#: those that need a positive matrix
POSITIVE = [
    "von_neumann_entropy",
    "relative_entropy",
    "relative_entropy, second",
    "relative_entropy_to_gibbs",
    "relative_entropy_of_coherence",
    "fidelity",
    "fidelity, second",
    "ergotropy",
    "effective_beta",
    "classical_fisher",
    "quantum_fisher",
]


def refuses(match, function, *args, **kwargs):
    with pytest.raises(ValueError, match=rf"^Argument {match}"):
        function(*args, **kwargs)


class TestIndices:
    """JAX takes what lies outside an array from its end, silently."""

    @pytest.mark.parametrize("bad", [2, 5, -1, -5, None, 0.0, 1.0, True, "0", np.int64(2)])
    def test_of_a_coherence(self, bad):
        refuses("`j` must be", jr.coherence, RHO, bad, 1)
        refuses("`k` must be", jr.coherence, RHO, 0, bad)
        reservoir = jr.letter.model()[1]
        refuses("`j` must be", jr.coherence_estimate, SYSTEM, reservoir, bad, 1)
        refuses("`k` must be", jr.coherence_estimate, SYSTEM, reservoir, 0, bad)

    def test_of_one_level(self):
        refuses("`k` must be the index of a level, from 0 to 0, but is 1", jr.coherence, [[1.0]])
        assert jr.coherence([[1.0]], 0, 0) == 1

    def test_of_batches(self):
        many = np.zeros((5, 7, 3, 3))
        refuses("`k` must be the index of a level, from 0 to 2", jr.coherence, many, 0, 3)
        assert jr.coherence(many, 0, 2).shape == (5, 7)

    @pytest.mark.parametrize("good", [1, np.int64(1), np.uint8(1), np.array(1), jnp.array(1)])
    def test_whole_numbers_of_any_kind_are_taken(self, good):
        np.testing.assert_allclose(jr.coherence(RHO, 0, good), np.hypot(0.1, 0.2), rtol=1e-15)

    def test_that_are_traced_are_refused(self):
        refuses("`k` must be .* known outside jit", jax.jit(lambda k: jr.coherence(RHO, 0, k)), 1)

    def test_of_losses(self):
        system, reservoir = jr.letter.model()
        for bad in (-1, None, 0.5, True, "1", 10**400):
            refuses("`j` must be", jr.losses.CoherenceAt, 0.1, j=bad)
            refuses("`k` must be", jr.losses.CoherenceAt, 0.1, k=bad)
            refuses("`index` must be", jr.losses.HeatCurrent, bad)
        refuses("`k` must be the index", jr.losses.CoherenceAt(0.1, 0, 2), system, reservoir)
        refuses("`j` must be the index", jr.losses.CoherenceAt(0.1, 2, 0), system, reservoir)
        refuses("`index` must be the place", jr.losses.HeatCurrent(1), system, reservoir)
        assert jr.losses.CoherenceAt(0.1, np.int64(0), np.int64(1)).k == 1


class TestKinds:
    """Lists, whole numbers, NumPy's and QuTiP's objects, any precision: all are the same state."""

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ALL)
    def test_of_states(self, name):
        f = ALL[name]
        pure = np.array([[1, 0], [0, 0]])
        expected = f(jnp.asarray(pure, complex))
        kinds = [pure, pure.tolist(), pure.astype(bool), pure.astype(np.float16), np.int8(pure)]
        kinds += [
            jnp.asarray(pure, jnp.float32),
            jnp.asarray(pure, jnp.bfloat16),
            qutip.ket2dm(qutip.basis(2)),
        ]
        for kind in kinds:
            np.testing.assert_array_equal(f(kind), expected)
        np.testing.assert_array_equal(f(qutip.Qobj(RHO)), f(RHO))
        assert f(RHO.astype(np.complex64)).dtype == jnp.float64

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ALL)
    def test_a_state_in_single_precision_is_a_state(self, name):
        f, single = ALL[name], jnp.asarray(RHO, jnp.complex64)  # its trace is 1 to 1e-7 only
        np.testing.assert_allclose(f(single), f(RHO), rtol=2e-6)
        np.testing.assert_allclose(jax.jit(f)(single), f(RHO), rtol=2e-6)
        slope = jax.jit(jax.grad(lambda t: f(RHO + t * WAY[0])))
        np.testing.assert_allclose(slope(jnp.float32(0)), slope(0.0), rtol=1e-6, atol=1e-7)

    def test_of_maps(self):
        swap = [[0, 1], [1, 0]]
        S = jr.Superoperator.from_unitary(swap)
        for same in (
            jr.Superoperator.from_kraus([swap]),
            jr.Superoperator.from_choi(S.choi.real.astype(int).tolist()),
            jr.Superoperator(S.tensor.real.astype(int).tolist(), 0, np.float32(0)),
            jr.Superoperator.from_unitary(qutip.sigmax()),
            S @ jr.Superoperator.identity(np.int64(2)),
        ):
            np.testing.assert_array_equal(same.tensor, S.tensor)
        np.testing.assert_array_equal(S([[1, 0], [0, 0]]), [[0, 0], [0, 1]])

    def test_of_counts(self):
        system, reservoir = jr.letter.model(rate=2.0)
        law, key = jr.waiting_times.GammaDistributed(2), jax.random.key(0)
        path = jr.trajectory(
            system, reservoir, [[1, 0], [0, 0]], collisions=np.int64(3), key=key,
            dephase=np.bool_(True), waiting_times=law,
        )  # fmt: skip
        same = jr.trajectory(
            system,
            reservoir,
            np.diag([1.0, 0.0]),
            collisions=3,
            key=key,
            dephase=True,
            waiting_times=law,
        )
        np.testing.assert_array_equal(path.states, same.states)
        old = jr.trajectory(
            system, reservoir, [[1, 0], [0, 0]], collisions=3, key=jax.random.PRNGKey(0)
        )
        assert old.states.shape == (4, 2, 2)
        series = jr.perturbation_series(system, reservoir, np.int64(1))
        np.testing.assert_array_equal(series, jr.perturbation_series(system, reservoir, 1))
        for bad in (2.5, 2.0, 0, -1, None, True, "3", 10**400, np.nan):
            refuses(
                "`collisions` must be",
                jr.trajectory,
                system,
                reservoir,
                RHO,
                collisions=bad,
                key=key,
            )
        for bad in (None, 0, np.zeros(2), jax.random.split(key)):
            refuses("`key` must be", jr.trajectory, system, reservoir, RHO, collisions=3, key=bad)
        refuses(
            "`dephase` must be",
            jr.trajectory,
            system,
            reservoir,
            RHO,
            collisions=3,
            key=key,
            dephase=1,
        )
        refuses("`collisions` must be .* known outside jit", jax.jit(
            lambda n: jr.trajectory(system, reservoir, RHO, collisions=n, key=key).times), 3)  # fmt: skip

    def test_a_trajectory_in_mixed_precision(self):
        system, reservoir = jr.letter.model(rate=jnp.float32(2.0), beta=jnp.float32(0.1))
        start, key = jnp.asarray(RHO, jnp.complex64), jax.random.key(1)
        law = jr.waiting_times.GammaDistributed(jnp.float32(2.0))
        path = jr.trajectory(system, reservoir, start, collisions=4, key=key, waiting_times=law)
        assert path.states.dtype == jnp.complex128
        states = jr.state_at(system, path, jnp.asarray([0.0, 0.01], jnp.float32))
        np.testing.assert_allclose(states[0], start, rtol=1e-7)

    def test_temperatures(self):
        expected = jr.gibbs_state(SYSTEM, 1.0)
        for beta in (1, True, np.int8(1), np.float32(1), jnp.float16(1), np.array(1)):
            np.testing.assert_array_equal(jr.gibbs_state(SYSTEM, beta), expected)


class TestNoStates:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ALL)
    def test_nan_is_nan(self, name):
        f = ALL[name]
        compiled, hole = jax.jit(f), np.array([[0, np.nan], [np.nan, 0]])
        for bad in (
            np.full((2, 2), np.nan + 0j),
            RHO + np.diag([np.nan, 0]),
            RHO + hole,
            RHO + np.diag([np.inf, 0]),
        ):
            assert np.isnan(f(bad)) and np.isnan(compiled(bad))
        if "fisher" not in name and "energy" not in name:
            both = f(np.stack([RHO + hole, RHO]))  # one that failed does not spoil the others
            assert np.isnan(both[0])
            np.testing.assert_allclose(both[1], f(RHO), rtol=1e-14)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", OF_STATES)
    def test_what_is_no_state_is_refused_or_nan(self, name):
        f = OF_STATES[name]
        argument = "`sigma`" if "second" in name else "`rho`"
        reverse = jax.jit(jax.value_and_grad(f))
        forward = jax.jit(lambda r: jax.jvp(f, (r,), (jnp.asarray(WAY[0]),)))
        for rho, word in (
            (2 * RHO, "trace 1, but has trace 2"),
            ((1 + 1e-6) * RHO, "trace 1"),
            (RHO + np.triu(np.full((2, 2), 1e-6), 1), "Hermitian"),
            (1j * RHO, "Hermitian"),
        ):
            refuses(f"{argument} must (be|have) {word}", f, rho)
            value, slopes = reverse(rho)
            assert np.isnan(value) and np.all(np.isnan(slopes))
            assert np.all(np.isnan(forward(rho)))
        if name in POSITIVE:
            value, slopes = reverse(np.diag([1.2, -0.2]) + 0j)
            assert np.isnan(value) and np.all(np.isnan(slopes))

    @pytest.mark.parametrize("name", ["fidelity", "trace_distance", "ergotropy", "quantum_fisher"])
    def test_twice_a_state_is_none(self, name):
        f = OF_STATES[name]
        refuses("`rho` must have trace 1, but has trace 2", f, 2 * RHO)
        assert np.isnan(jax.jit(f)(2 * RHO))

    @pytest.mark.parametrize("name", POSITIVE)
    def test_negative_probabilities_are_nan_and_roundings_are_not(self, name):
        f = OF_STATES[name]
        assert np.isnan(f(np.diag([1.2, -0.2])))
        pure, nearly = np.diag([1.0, 0.0]), np.diag([1 + 1e-16, -1e-17])
        np.testing.assert_allclose(f(nearly), f(pure), rtol=1e-14, atol=1e-15)

    @pytest.mark.slow
    def test_starts(self):
        system, reservoir = jr.letter.model()
        key = jax.random.key(0)

        def last(rho):
            return jr.trajectory(system, reservoir, rho, collisions=2, key=key).states[-1]

        refuses("`rho0` must have trace 1", last, 2 * RHO)
        refuses("`rho0` must be finite", last, np.nan * RHO)
        assert np.all(np.isnan(jax.jit(last)(2 * RHO)))
        slopes = jax.jit(jax.jacfwd(lambda x: jnp.abs(last(x * RHO))))(2.0)
        assert np.all(np.isnan(slopes))

    def test_derivatives_of_a_state(self):
        for f in (jr.classical_fisher, jr.quantum_fisher):
            refuses("`drho` must be Hermitian", f, RHO, 1j * WAY)
            refuses("`drho` must have shape", f, RHO, WAY[0])
            refuses("`drho` must have shape", f, RHO, np.zeros((1, 3, 3)))
            assert np.isnan(jax.jit(f)(RHO, 1j * WAY))
            assert np.isnan(f(RHO, np.nan * WAY))
            # of any size: they have a dimension
            for scale in (1e-60, 1e60):
                np.testing.assert_allclose(f(RHO, scale * WAY), scale**2 * f(RHO, WAY), rtol=1e-13)
        refuses("`basis` must be unitary", jr.classical_fisher, RHO, WAY, 2 * np.eye(2))
        assert np.isnan(jax.jit(jr.classical_fisher)(RHO, WAY, 2 * np.eye(2)))

    def test_arguments_of_different_sizes(self):
        three = np.eye(3) / 3
        for f in (jr.trace_distance, jr.fidelity, jr.relative_entropy):
            refuses(r"`sigma` must have shape \(…, 2, 2\)", f, RHO, three)
            refuses("`sigma` must have leading axes", f, np.stack([RHO] * 2), np.stack([RHO] * 3))
        for f in (jr.ergotropy, jr.effective_beta):
            refuses(r"`rho` must have shape \(…, 2, 2\)", f, SYSTEM, three)
            refuses("`system` must be a jaxres.System", f, RHO, RHO)
        wrong = jr.Superoperator.identity(3)
        refuses("`S` must be of 2 levels", jr.heat_flow, SYSTEM, wrong, 1.0, RHO)
        refuses("`S` must be of 2 levels", jr.energy_distribution, SYSTEM, wrong, RHO)
        refuses("`S` must be a map", jr.collision_thermodynamics, SYSTEM, None, RHO, 0.1)


class TestMaps:
    @pytest.mark.slow
    def test_a_map_that_does_not_preserve_hermiticity_has_no_canonical_form(self):
        K = np.array([[1.0, 2.0], [0.0, 1j]])
        S = jr.Superoperator(np.einsum("aj,bk->abjk", K, K.T))  # ρ → K ρ K*
        refuses("`self` of canonical must preserve Hermiticity", S.canonical)
        refuses("`S` of|`self` of choi_distance must", jr.choi_distance, S, S)
        refuses("`self` of diamond_distance must", jr.diamond_distance, S, S)
        with pytest.raises(eqx.EquinoxRuntimeError, match="preserve Hermiticity"):
            eqx.filter_jit(lambda S: S.canonical()[0])(S)
        weights, A = S.canonical(tol=10)  # as the caller wishes
        assert weights.shape == (4,) and A.shape == (4, 2, 2)

    @pytest.mark.slow
    def test_nan_maps_are_nan(self):
        S = jr.Superoperator(MAP.tensor.at[0, 0, 0, 0].set(jnp.nan), jnp.nan)
        for array in (*S.canonical(), S.kraus()):
            assert np.all(np.isnan(array))
        one = jr.Superoperator.identity(2)
        assert np.isnan(jr.choi_distance(S, one)) and np.isnan(jr.process_fidelity(one, S))
        bounds = jr.diamond_distance(one, S)
        assert np.isnan(bounds.lower) and np.isnan(bounds.upper)
        assert not S.is_cptp() and not S.is_unital()
        assert np.all(np.isnan(S.adjoint.adjoint.error))


class TestEnergies:
    """No scale of energy is better than another, and where energies begin does not matter."""

    @pytest.mark.slow
    @pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
    def test_scales(self, scale):
        levels, U = jnp.array([-0.5, 0.1, 0.1, 0.8]), unitary(3, 4)
        rho = (U * jnp.array([0.4, 0.3, 0.2, 0.1])[None]) @ U.conj().T
        S = jr.Superoperator.from_unitary(unitary(4, 4))

        def all_of(x):
            system = jr.System(x * levels)
            gain = jr.energy_distribution(system, S, rho)
            thermal = jr.gibbs_state(system, -0.7 / x)
            second = jr.collision_thermodynamics(system, S, rho, 0.7 / x)
            return {
                "beta": jr.effective_beta(system, rho) * x,
                "negative": jr.effective_beta(system, thermal) * x,
                "work": jr.ergotropy(system, rho) / x,
                "heat": jr.heat_flow(system, S, 2.0, rho) / x,
                "gain": gain.mean / x,
                "variance": gain.variance / x**2,
                "relative": jr.relative_entropy_to_gibbs(system, rho, 0.7 / x),
                "production": second.entropy_production,
                "coherent": second.coherent,
                "dephased": jnp.abs(jr.dephase(system, rho)),
                "slope of work": jax.grad(lambda e: jr.ergotropy(jr.System(e), rho))(x * levels),
                "slope of beta": x**2
                * jax.grad(lambda e: jr.effective_beta(jr.System(e), rho))(x * levels),
            }

        there = all_of(scale)
        for name, value in all_of(1.0).items():
            np.testing.assert_allclose(there[name], value, rtol=1e-12, atol=1e-15, err_msg=name)

    @pytest.mark.slow
    def test_where_energies_begin(self):
        rho = (unitary(3, 3) * jnp.array([0.5, 0.3, 0.2])[None]) @ unitary(3, 3).conj().T
        near, far = (jr.System(x + jnp.array([0.0, 0.5, 1.25])) for x in (0.0, 2.0**20))
        assert jr.ergotropy(near, rho) == jr.ergotropy(far, rho)
        assert jr.effective_beta(near, rho) == jr.effective_beta(far, rho)

    @pytest.mark.parametrize("beta", [1e-12, 0.3, 40.0, 600.0, -600.0])
    def test_temperatures_of_eight_levels(self, beta):
        system = jr.System(np.linspace(0.0, 1.0, 8) ** 2)
        rho = jr.gibbs_state(system, beta)
        np.testing.assert_allclose(jr.effective_beta(system, rho), beta, rtol=1e-13, atol=1e-15)

    def test_one_level(self):
        system, rho = jr.System([0.3]), [[1]]
        assert jr.ergotropy(system, rho) == 0 and jr.purity(rho) == 1
        assert jr.von_neumann_entropy(rho) == 0 and jr.fidelity(rho, rho) == 1
        assert np.isnan(jr.effective_beta(system, rho))
        assert jr.relative_entropy_to_gibbs(system, rho, 3.0) == 0


@pytest.mark.slow
def test_an_infinite_relative_entropy_has_a_slope():
    """An optimiser that sees the slope alone must not believe that it has converged."""
    up = jnp.diag(jnp.array([1.0, 0.0])) + 0j
    value, slope = jax.value_and_grad(
        lambda p: jr.relative_entropy(jnp.diag(jnp.array([1 - p, p])), up)
    )(0.3)
    assert np.isinf(value) and slope > 1


@pytest.mark.slow
def test_random_states_of_eight_levels_agree_with_numpy():
    rng = np.random.default_rng(5)
    rho, sigma = (
        (U * rng.dirichlet(np.ones(8))) @ U.conj().T
        for U in (np.asarray(unitary(s, 8)) for s in (1, 2))
    )
    p, U = np.linalg.eigh(rho)
    H = np.sort(rng.normal(size=8))
    system = jr.System(H)
    np.testing.assert_allclose(
        jr.ergotropy(system, rho), np.diag(rho).real @ H - p[::-1] @ H, rtol=1e-12
    )
    root = (U * np.sqrt(p)) @ U.conj().T
    F = np.sum(np.sqrt(np.linalg.eigvalsh(root @ sigma @ root))) ** 2
    np.testing.assert_allclose(jr.fidelity(rho, sigma), F, rtol=1e-10)
    gap = np.linalg.eigvalsh(rho - sigma)
    np.testing.assert_allclose(jr.trace_distance(rho, sigma), np.sum(np.abs(gap)) / 2, rtol=1e-12)
    X = np.asarray(hermitian(9, 8))
    dX = -1j * (X @ rho - rho @ X)
    moved = U.conj().T @ dX @ U
    expected = np.sum(2 * np.abs(moved) ** 2 / (p[:, None] + p[None, :]))
    np.testing.assert_allclose(jr.quantum_fisher(rho, dX[None])[0, 0], expected, rtol=1e-10)
