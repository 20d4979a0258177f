"""The second law of collisions, what coherent packets add to it, and fluctuation relations of one collision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest, slope, unitary

import jaxres as jr

FINE = jr.DoubleExponential(96, 64)
BETA = 0.3
HOT, COLD = (
    jr.letter.model(beta=0.1, rate=2.0)[1],
    jr.letter.model(beta=0.6, rate=1.5, position=-4.0)[1],
)


@pytest.fixture(scope="module")
def letter():
    """The Letter's qubit, its gas, and the maps of its packets and of the same without coherence."""
    system, reservoir = jr.letter.model(beta=BETA, rate=5.0)
    diagonal = eqx.tree_at(lambda b: b.packet, reservoir, jr.DiagonalPacket(reservoir.packet))
    return (
        system,
        reservoir,
        diagonal,
        *(jr.scattering_map(system, b) for b in (reservoir, diagonal)),
    )


@pytest.fixture(scope="module")
def qutrit():
    """A qutrit with a real coupling, so that detailed balance holds; its levels are no ladder."""
    system = jr.System([-0.5, 0.1, 0.9])
    packet = jr.EffusionPacket(beta=BETA, mass=0.5, width=1.0, position=-3.0)
    reservoir = jr.Reservoir(packet, jr.Slab(hermitian(2, 3, real=True), 1.0), 1.0)
    return system, jr.scattering_map(system, reservoir, quadrature=FINE)


def states(seed, N, count):
    """Random states, some nearly pure."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(count, N, N)) + 1j * rng.normal(size=(count, N, N))
    A = A * rng.dirichlet(np.full(N, 0.5), size=count)[:, None]
    rho = A @ A.conj().transpose(0, 2, 1)
    return jnp.asarray(rho / np.trace(rho, axis1=1, axis2=2)[:, None, None])


def entropy(rho):
    p = np.linalg.eigvalsh(np.asarray(rho))
    p = np.where(p > 1e-15, p, 1)
    return -np.sum(p * np.log(p), axis=-1)


def free_energy(system, rho, beta):
    """β F."""
    energy = np.diagonal(rho, axis1=-2, axis2=-1).real @ np.asarray(system.levels)
    return beta * energy - entropy(rho)


balance = jax.jit(jax.vmap(jr.collision_thermodynamics, (None, None, 0, None)))


class TestOneCollision:
    @pytest.mark.slow
    def test_it_is_the_change_of_the_state(self, letter):
        system, reservoir, _, S, _ = letter
        rho = states(0, 2, 50)
        one = balance(system, S, rho, 0.7)
        after = S(rho)
        np.testing.assert_allclose(one.entropy, entropy(after) - entropy(rho), atol=1e-13)
        lost = free_energy(system, rho, 0.7) - free_energy(system, after, 0.7)
        np.testing.assert_allclose(one.entropy_production, lost, atol=1e-13)
        heat = jr.collision_heat(system, reservoir, rho[0])
        np.testing.assert_allclose(one.energy[0], heat.total, rtol=1e-12)

    def test_particles_without_coherence_obey_the_second_law(self, letter):
        system, _, _, _, S = letter
        one = balance(system, S, states(1, 2, 500), BETA)
        assert np.min(one.entropy_production) > -1e-9 and np.max(one.entropy_production) > 0.01
        assert largest(one.coherent) < 1e-14
        # with another β it is another reservoir's heat, and no law
        assert np.min(balance(system, S, states(1, 2, 500), 20.0).entropy_production) < -0.01

    def test_those_with_coherence_break_the_naive_one(self, letter):
        system, _, _, S, diagonal = letter
        gibbs = jr.gibbs_state(system, BETA)
        one = jr.collision_thermodynamics(system, S, gibbs, BETA)
        # in equilibrium with the gas, and yet the collision makes order: that of the coherence
        assert one.entropy_production < -1e-4
        order = jr.relative_entropy_of_coherence(S(gibbs))
        np.testing.assert_allclose(one.entropy_production, -order, atol=1e-9)
        np.testing.assert_allclose(one.coherent, order, rtol=1e-6)
        # what is missing is the free energy that the coherence of the packets brought
        rho = states(2, 2, 500)
        some = balance(system, S, rho, BETA)
        without = balance(system, diagonal, rho, BETA)
        assert np.min(some.entropy_production) < -1e-4
        np.testing.assert_allclose(
            some.entropy_production + some.coherent, without.entropy_production, atol=1e-8
        )
        missing = free_energy(system, S(rho), BETA) - free_energy(system, diagonal(rho), BETA)
        np.testing.assert_allclose(some.coherent, missing, atol=1e-8)
        assert np.min(some.coherent) < -1e-4 < 1e-4 < np.max(some.coherent)

    def test_wide_packets_bring_less_and_less_order(self):
        def order(width):
            system, reservoir = jr.letter.model(beta=BETA, width=width)
            S = jr.scattering_map(system, reservoir)
            gibbs = jr.gibbs_state(system, BETA)
            return float(jr.collision_thermodynamics(system, S, gibbs, BETA).coherent)

        orders = np.array([order(width) for width in (1.0, 4.0, 16.0, 64.0)])
        assert np.all(np.diff(orders) < 0) and orders[-1] < 1e-4 * orders[0]


@pytest.mark.slow
def test_particles_of_two_temperatures():
    # the heat of the motion counts at the gas' temperature, that of internal levels at their own
    system, levels = jr.System([-0.4, 0.5]), jr.System([0.1, 0.8])
    packet = jr.EffusionPacket(beta=BETA, mass=0.5, width=1.0, position=-3.0)
    slab = jr.Slab(hermitian(3, 4) + 2 * jnp.eye(4), 1.0)
    cold = 3.0
    unit = jr.InternalState.thermal(levels, cold)
    reservoir = jr.Reservoir(jr.DiagonalPacket(packet), slab, 1.0, internal=unit)
    S = jr.scattering_map(system, reservoir)
    thermal = [jr.gibbs_state(system, beta)[None] for beta in (BETA, cold)]
    rho = jnp.concatenate([*thermal, states(7, 2, 300)])
    heat = jax.jit(jax.vmap(lambda rho: jr.collision_heat(system, reservoir, rho)))(rho)
    gained = entropy(S(rho)) - entropy(rho)
    production = gained - BETA * heat.kinetic - cold * heat.internal
    assert np.min(production) > 1e-4  # never reversible: heat passes between gas and units
    # with all heat at one of them, the system would lose entropy where it has that temperature
    for k, beta in enumerate((BETA, cold)):
        lost = jr.relative_entropy(S(rho[k]), rho[k])
        one_heat = (gained - beta * (heat.kinetic + heat.internal))[k]
        np.testing.assert_allclose(one_heat, -lost, atol=1e-13)
        assert lost > 1e-4


class TestCurrents:
    @pytest.mark.slow
    def test_of_two_reservoirs_in_the_steady_state(self, letter):
        system = letter[0]
        flow = jr.currents(system, [HOT, COLD])
        maps = [jr.scattering_map(system, reservoir) for reservoir in (HOT, COLD)]
        sol = jr.steady_state(system, jr.Collisions(maps, [HOT.rate, COLD.rate]))
        assert flow.result == jr.RESULTS.successful and largest(flow.rho - sol.rho) < 1e-14
        assert abs(jnp.sum(flow.energy)) < 1e-15 and abs(jnp.sum(flow.entropy)) < 1e-14
        J = [jr.heat_flow(system, *one, sol.rho) for one in zip(maps, (2.0, 1.5), strict=True)]
        np.testing.assert_allclose(flow.energy, J, rtol=1e-12)
        carried = -(0.1 * flow.energy[0] + 0.6 * flow.energy[1])
        np.testing.assert_allclose(jnp.sum(flow.entropy_production), carried, rtol=1e-11)

    def test_coherent_packets_can_drive_heat_uphill(self, letter):
        system = letter[0]
        flow = jr.currents(system, [HOT, COLD])
        assert flow.energy[0] < -1e-3  # from cold to hot, at the expense of the packets' order
        assert jnp.sum(flow.entropy_production) < -1e-3
        assert np.all(flow.entropy_production + flow.coherent > 1e-3)
        plain = [
            eqx.tree_at(lambda b: b.packet, reservoir, jr.DiagonalPacket(reservoir.packet))
            for reservoir in (HOT, COLD)
        ]
        flow = jr.currents(system, plain)
        assert flow.energy[0] > 1e-3 and np.all(flow.entropy_production > 0)
        assert largest(flow.coherent) < 1e-13

    def test_production_is_the_loss_of_free_energy_in_time(self, letter):
        # −dD/dt along Eq. (8), by differences
        system, reservoir, diagonal, *maps = letter
        rho = states(3, 2, 1)[0]
        gibbs = jr.gibbs_state(system, BETA)
        gap = system.levels[:, None] - system.levels[None]
        for one, S in zip((reservoir, diagonal), maps, strict=True):
            change = -1j * gap * rho + one.rate * (S(rho) - rho)
            gain = slope(lambda t, x=change: jr.relative_entropy(rho + t * x, gibbs), 1e-4)
            flow = jr.currents(system, one, rho)
            np.testing.assert_allclose(flow.entropy_production, [-gain], rtol=1e-9)

    def test_it_is_more_than_that_of_the_collisions(self, letter):
        # by Γ D(Sρ‖ρ): what one learns from the moments of the collisions
        system, reservoir, _, S, _ = letter
        for rho in states(4, 2, 3):
            one = jr.collision_thermodynamics(system, S, rho, BETA)
            learned = jr.relative_entropy(S(rho), rho)
            flow = jr.currents(system, reservoir, rho)
            np.testing.assert_allclose(
                flow.entropy_production, [5.0 * (one.entropy_production + learned)], rtol=1e-11
            )

    def test_the_second_law_holds_with_what_is_missing(self, letter):
        system, reservoir, diagonal, _, _ = letter
        for rho in states(5, 2, 3):
            flow, without = (jr.currents(system, one, rho) for one in (reservoir, diagonal))
            assert without.entropy_production[0] > 0 and abs(without.coherent[0]) < 1e-13
            np.testing.assert_allclose(
                flow.entropy_production + flow.coherent, without.entropy_production, atol=1e-7
            )
        # a single reservoir in its steady state: no heat, no production, but its coherence pays for the order
        flow = jr.currents(system, reservoir)
        assert abs(flow.energy[0]) < 1e-14 and abs(flow.entropy_production[0]) < 1e-13
        assert flow.coherent[0] > 1e-3

    @pytest.mark.slow
    def test_derivatives(self, letter):
        system, maps = (
            letter[0],
            [jr.scattering_map(letter[0], reservoir) for reservoir in (HOT, COLD)],
        )
        way = jnp.array([0.3, 0.05, 0.7, 0.2])  # of a map, a β, a rate and the splitting
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))

        @jax.jit
        def f(x):
            hot = jr.Superoperator((1 - x[0]) * maps[0].tensor + x[0] * maps[1].tensor)
            betas, rates = jnp.stack([0.1 + x[1], jnp.array(0.6)]), [HOT.rate + x[2], COLD.rate]
            scaled = jr.System((1 + x[3]) * system.levels)
            flow = jr.currents(scaled, jr.Collisions([hot, maps[1]], rates), betas=betas)
            parts = [flow.energy, flow.entropy, flow.entropy_production, flow.coherent]
            return jnp.sum(weights * jnp.stack(parts))

        expected, zero = slope(lambda t: f(t * way), 1e-3), jnp.zeros(4)
        np.testing.assert_allclose(jax.jvp(f, (zero,), (way,))[1], expected, rtol=1e-9)
        np.testing.assert_allclose(jax.grad(f)(zero) @ way, expected, rtol=1e-9)

    @pytest.mark.slow
    def test_arguments(self, letter):
        system, reservoir, diagonal, _, _ = letter
        assert jr.currents(system, diagonal).entropy_production.shape == (1,)
        beam = eqx.tree_at(
            lambda b: b.packet, reservoir, jr.MonochromaticBeam(momentum=1.5, mass=0.1)
        )
        with pytest.raises(ValueError, match="`betas` must be given"):
            jr.currents(system, [reservoir, beam])
        with pytest.raises(ValueError, match="one value for each of 2"):
            jr.currents(system, [reservoir, reservoir], betas=[0.1])
        failed = jax.jit(lambda rate: jr.currents(system, jr.letter.model(rate=rate)[1]))(-1.0)
        assert failed.result == jr.RESULTS.invalid_parameters
        assert jnp.all(jnp.isnan(failed.energy)) and jnp.all(jnp.isnan(failed.coherent))

    @pytest.mark.slow
    def test_a_poor_map_gives_no_number_at_a_given_state_either(self):
        system, reservoir = jr.letter.model(mass=10.0, length=2.0)
        rho, rule = jr.gibbs_state(system, 0.5), jr.DoubleExponential(8, 8)
        flow = jr.currents(system, reservoir, rho, quadrature=rule)
        assert flow.result == jr.RESULTS.map_not_converged and flow.map_error > 1e-3
        assert jnp.isnan(flow.energy[0])
        assert jnp.isnan(jr.collision_heat(system, reservoir, rho, quadrature=rule).total)

    def test_entropies_of_what_is_not_a_state_are_not_numbers(self):
        system, reservoir = jr.letter.model(rate=100.0, position=0.0)
        flow = jr.currents(system, reservoir)
        assert flow.result == jr.RESULTS.not_positive
        assert jnp.isnan(flow.entropy[0]) and jnp.abs(flow.energy[0]) < 1e-12


class TestEnergyDistribution:
    @pytest.mark.slow
    def test_it_is_a_distribution_with_the_gain_for_its_mean(self, qutrit):
        system, S = qutrit
        rho = jnp.diag(jnp.array([0.5, 0.2, 0.3], complex))
        P = jr.energy_distribution(system, S, rho)
        assert np.min(P.probability) > 0
        np.testing.assert_allclose(jnp.sum(P.probability), 1, rtol=1e-13)
        gain = jr.heat_flow(system, S, 1.0, rho)
        np.testing.assert_allclose(P.mean, gain, rtol=1e-12)
        np.testing.assert_allclose(jax.grad(P.generating)(0.0), gain, rtol=1e-12)
        second = jax.grad(jax.grad(P.generating))(0.0)
        np.testing.assert_allclose(P.moment(2), second, rtol=1e-12)
        np.testing.assert_allclose(P.variance, second - gain**2, rtol=1e-12)
        assert abs(P.generating(0.4j)) < 1

    def test_the_first_measurement_disturbs(self, letter):
        # with coherent packets, coherence of the system takes part in the gain, but not if it is measured away
        system, _, _, S, diagonal = letter
        rho = jnp.array([[0.6, 0.3], [0.3, 0.4]])
        P = jr.energy_distribution(system, S, rho)
        off = jr.heat_flow(system, S, 1.0, rho) - P.mean
        alone = jr.heat_flow(system, S, 1.0, rho - jnp.diag(jnp.diagonal(rho)))
        np.testing.assert_allclose(off, alone, atol=1e-15)
        assert abs(off) > 1e-3
        Q = jr.energy_distribution(system, diagonal, rho)
        np.testing.assert_allclose(Q.mean, jr.heat_flow(system, diagonal, 1.0, rho), rtol=1e-12)
        np.testing.assert_allclose(Q.probability, P.probability, atol=1e-8)

    @pytest.mark.parametrize("start", [-0.5, 0.0, BETA, 2.0])
    def test_the_fluctuation_relation_of_heat_exchange(self, letter, qutrit, start):
        # P(w)/P(−w) = e^{(β₀ − β)w} for a system at β₀ in a gas at β, transition by transition
        for system, S in ((letter[0], letter[3]), qutrit):
            P = jr.energy_distribution(system, S, jr.gibbs_state(system, start))
            ratio = np.log(P.probability / P.probability.T)
            np.testing.assert_allclose(ratio, (start - BETA) * P.energy, atol=2e-7)
            np.testing.assert_allclose(P.generating(BETA - start), 1, atol=1e-8)
            # ⟨e^x⟩ = 1 and Jensen: heat flows from hot to cold
            assert (BETA - start) * P.mean <= 1e-9

    def test_the_integral_fluctuation_theorem_of_any_start(self, qutrit):
        # ⟨(q_j'/p_j) e^{βw}⟩ = 1 for any p before and q after
        system, S = qutrit
        rng = np.random.default_rng(0)
        for p, q in rng.dirichlet(np.ones(3), size=(5, 2)):
            P = jr.energy_distribution(system, S, jnp.diag(jnp.asarray(p)))
            weight = q[:, None] / p[None] * np.exp(BETA * P.energy)
            np.testing.assert_allclose(np.sum(P.probability * weight), 1, atol=1e-8)

    @pytest.mark.slow
    def test_it_needs_the_flux_of_effusion(self):
        # Maxwell's particles come from the same gas, but the slow ones too often
        system, reservoir = jr.letter.model(beta=BETA)
        maxwell = jr.MaxwellPacket(beta=BETA, mass=0.1, width=1.0, position=-10.0)
        S = jr.scattering_map(system, eqx.tree_at(lambda b: b.packet, reservoir, maxwell))
        P = jr.energy_distribution(system, S, jr.gibbs_state(system, 2.0))
        assert abs(P.generating(BETA - 2.0) - 1) > 1e-3

    @pytest.mark.slow
    def test_levels_of_one_energy_are_not_told_apart(self):
        system = jr.System([-0.4, 0.5, 0.5])
        packet = jr.EffusionPacket(beta=BETA, mass=0.5, width=1.0, position=-3.0)
        W, rho = hermitian(4, 3), states(6, 3, 1)[0]
        U = jnp.eye(3, dtype=complex).at[1:, 1:].set(unitary(5, 2))

        def outcomes(W, rho):
            reservoir = jr.Reservoir(packet, jr.Slab(W, 1.0), 1.0)
            P = jr.energy_distribution(system, jr.scattering_map(system, reservoir), rho)
            return [float(jnp.sum(P.probability[jnp.isclose(P.energy, w)])) for w in (-0.9, 0, 0.9)]

        turned = outcomes(U @ W @ U.conj().T, U @ rho @ U.conj().T)
        np.testing.assert_allclose(turned, outcomes(W, rho), atol=1e-9)
        np.testing.assert_allclose(sum(turned), 1, rtol=1e-12)
