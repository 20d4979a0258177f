"""Evolution in time, the spectrum of the generator, trajectories, and waiting times of any law."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.special
from helpers import largest

import jaxres as jr
from jaxres.waiting_times import Exponential, GammaDistributed, Regular

GROUND = jnp.diag(jnp.array([1.0, 0.0j]))
#: a state with coherences of both signs and nothing symmetric about it
PURE = jnp.array([[0.7, -0.3 + 0.2j], [-0.3 - 0.2j, 0.3]])
LAWS = [
    Exponential(),
    Regular(),
    GammaDistributed(0.5),
    GammaDistributed(4.0),
]


def model(rate, splitting=0.6):
    """The Letter's qubit; numbers as arrays, so that one compilation serves all."""
    return jr.letter.model(rate=jnp.asarray(rate), splitting=jnp.asarray(splitting))


@pytest.fixture(scope="module")
def letter():
    system, reservoir = model(5.0)
    return system, reservoir, jr.scattering_map(system, reservoir)


# --------------------------------------------------------------------------------------------------
# The master equation in time
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evolution_is_the_exponential_of_the_generator(letter):
    system, reservoir, S = letter
    times = [3.0, 0.0, 0.4, 20.0]  # in any order
    gap = np.subtract.outer(np.asarray(system.levels), np.asarray(system.levels))
    L = -1j * np.diag(gap.reshape(-1)) + float(reservoir.rate) * (np.asarray(S.matrix) - np.eye(4))
    expected = [(scipy.linalg.expm(L * t) @ PURE.reshape(-1)).reshape(2, 2) for t in times]
    assert largest(jr.evolve(system, reservoir, PURE, times) - np.stack(expected)) < 1e-13


def test_evolution_composes_keeps_states_and_ends_in_the_steady_state(letter):
    system, reservoir, _ = letter
    times = np.array([0.1, 0.3, 1.0, 200.0])
    rhos = jr.evolve(system, reservoir, GROUND, times.tolist())
    then = jr.evolve(system, reservoir, rhos[1], [0.7, 0.0, 199.7, 1.0])
    assert largest(then[0] - rhos[2]) < 1e-14
    assert largest(rhos[3] - jr.steady_state(system, reservoir).rho) < 1e-12
    # an exponential by squaring is good to ε times its exponent, ‖L‖t ≤ (2Γ + Δ) t
    rounding = np.finfo(float).eps * (10 + 10.6 * times)
    assert np.all(np.abs(jnp.trace(rhos, axis1=1, axis2=2) - 1) < rounding)
    assert float(jnp.min(jnp.linalg.eigvalsh(rhos))) > -1e-14
    assert float(jnp.max(jr.coherence(rhos))) > 0.05  # it does something


def test_at_equal_levels_only_collisions_act():
    """There the Letter's V is conserved: what commutes with it stays, the rest decays."""
    system, reservoir = model(rate=1e-3, splitting=0.0)
    early, late, _, _ = jr.evolve(system, reservoir, PURE, [10.0, 1e6, 0.0, 0.0])
    assert 1e-3 < largest(early - PURE) < 0.02  # one collision in a hundred so far
    _, vectors = np.linalg.eigh(np.array([[0, 1 + 1j], [1 - 1j, 0]]))
    projectors = [np.outer(v, v.conj()) for v in vectors.T]
    assert largest(late - sum(P @ np.asarray(PURE) @ P for P in projectors)) < 1e-12
    assert jr.steady_state(system, reservoir).result == jr.RESULTS.not_unique
    assert jr.relaxation_time(system, reservoir) == jnp.inf


LATE = jnp.array([1e3, 1e12, 1e16, 1e30, 1e300, jnp.inf])


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_the_long_time_limit_is_the_steady_state_and_its_derivative(letter, mode):
    system, reservoir, _ = letter

    def at(rate):
        return eqx.tree_at(lambda b: b.rate, reservoir, rate)

    def late(rate, times):
        return jr.coherence(jr.evolve(system, at(rate), PURE, times))

    def steady(rate):
        return jr.coherence(jr.steady_state(system, at(rate)).rho)

    slopes, by_time = jax.jit(mode(late, argnums=(0, 1)))(reservoir.rate, LATE)
    assert largest(late(reservoir.rate, LATE) - steady(reservoir.rate)) < 1e-14
    assert largest(slopes - jax.grad(steady)(reservoir.rate)) < 1e-12
    assert largest(by_time) < 1e-14


def test_an_optical_qubit_relaxes_after_1e16_periods(letter):
    system, reservoir, S = letter
    scale = 1e15 / 0.6  # ω = 1e15/s, all energies with it
    optical = jr.System(scale * system.levels)
    packet = jr.EffusionPacket(beta=0.1 / scale, mass=0.1 / scale, width=1.0, position=-10.0)
    slab = jr.Slab(scale * reservoir.scatterer.coupling, 1.0)
    moved = float(jnp.real(S.tensor[1, 1, 0, 0] + S.tensor[0, 0, 1, 1]))
    for rate in (1e6, 1e9):
        gas = jr.Reservoir(packet, slab, jnp.asarray(rate))
        tau = jr.relaxation_time(optical, gas)
        assert 1 < tau * rate < 1e3
        early, decaying, late, last = jr.evolve(
            optical, gas, PURE, jnp.stack([0 * tau, tau, 60 * tau, 0 * tau + 1e3])
        )
        rho = jr.steady_state(optical, gas).rho
        assert largest(early - PURE) < 1e-14
        assert largest(late - rho) < 1e-13 and largest(last - rho) < 1e-14
        gone = (decaying - rho)[0, 0] / (early - rho)[0, 0]
        # so rare collisions move populations alone
        assert abs(gone - np.exp(-rate * tau * moved)) < 1e-4


@pytest.mark.slow
def test_what_does_not_relax_is_right_until_its_phase_is_lost(letter):
    system, reservoir, _ = letter
    still = eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(0.0))
    early, late, lost, _ = jr.evolve(system, still, PURE, [1e3, 1e10, 1e18, jnp.inf])
    for time, rho in ((1e3, early), (1e10, late)):
        turned = PURE.at[0, 1].multiply(np.exp(0.6j * time))
        assert abs(rho[0, 1] - turned[0, 1]) < 1e-15 * time
        assert rho[0, 0] == PURE[0, 0]
    assert jnp.all(jnp.isnan(lost))  # e^{iωt} of 1e18 turns is not known to a tenth


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_an_evolution_that_fails_has_no_derivatives(letter, mode):
    system, reservoir, _ = letter

    @jax.jit
    @jax.vmap
    def slopes(rate):
        def coherence(rate, width, time):
            at = eqx.tree_at(lambda b: (b.rate, b.packet.width), reservoir, (rate, width))
            return jr.coherence(jr.evolve(system, at, PURE, time[None])[0])

        return jnp.stack(mode(coherence, argnums=(0, 1, 2))(rate, jnp.ones(()), jnp.ones(())))

    assert jnp.isnan(slopes(jnp.array([5.0, -1.0]))).tolist() == [[False] * 3, [True] * 3]


@pytest.mark.slow
def test_gradients_of_the_dynamics_equal_differences(letter):
    system, reservoir, _ = letter

    def both(rate):
        at = eqx.tree_at(lambda b: b.rate, reservoir, rate)
        coherence = jr.coherence(jr.evolve(system, at, PURE, [1.3])[0])
        return jnp.stack([coherence, jr.relaxation_time(system, at)])

    gradients, h = jax.jit(lambda rate: (both(rate), jax.jacrev(both)(rate))), 1e-4
    for rate in (1.0, 5.0):  # the slowest mode turns, or it does not
        ahead, behind = (gradients(jnp.asarray(rate + step))[0] for step in (h, -h))
        difference = (ahead - behind) / (2 * h)
        assert largest(gradients(jnp.asarray(rate))[1] / difference - 1) < 1e-6


# --------------------------------------------------------------------------------------------------
# The spectrum
# --------------------------------------------------------------------------------------------------


def test_spectrum_is_that_of_the_generator(letter):
    system, reservoir, _ = letter
    values = jr.spectrum(system, reservoir)
    expected = np.linalg.eigvals(np.asarray(jr.generator(system, reservoir).matrix))
    assert values[0] == 0
    assert np.all(np.diff(np.real(values)) <= 0)
    assert all(np.min(np.abs(values - e)) < 1e-13 for e in expected)
    assert largest(np.sort(np.imag(values)) + np.sort(np.imag(values))[::-1]) < 1e-14


def test_late_deviations_decay_in_the_relaxation_time(letter):
    system, reservoir, _ = letter
    tau = jr.relaxation_time(system, reservoir)
    rho = jr.steady_state(system, reservoir).rho
    near, far, _, _ = jr.evolve(system, reservoir, GROUND, tau * jnp.array([20.0, 21.0, 0.0, 0.0]))
    ratio = jr.trace_distance(far, rho) / jr.trace_distance(near, rho)
    # the next modes, faster by Re λ₂/Re λ₁ = 1.47, are down to e^{−20 × 0.47}
    assert abs(ratio * np.e - 1) < 1e-3


def test_second_derivatives_of_the_spectrum_are_refused(letter):
    system, reservoir, _ = letter

    def tau(levels):
        return jr.relaxation_time(jr.System(levels), reservoir)

    with pytest.raises(NotImplementedError):
        jax.eval_shape(jax.hessian(tau), system.levels)


def test_nothing_relaxes_without_collisions_or_without_coupling(letter):
    system, reservoir, _ = letter
    still = eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(0.0))
    assert jr.relaxation_time(system, still) == jnp.inf
    idle = eqx.tree_at(lambda b: b.scatterer.coupling, reservoir, 0 * reservoir.scatterer.coupling)
    assert jr.relaxation_time(system, idle) == jnp.inf
    with pytest.raises(ValueError, match="rate"):
        jr.relaxation_time(system, eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(jnp.inf)))


# --------------------------------------------------------------------------------------------------
# Trajectories
# --------------------------------------------------------------------------------------------------


def test_a_trajectory_is_flights_and_collisions_in_turn(letter):
    system, reservoir, S = letter
    path = jr.trajectory(system, reservoir, PURE, collisions=7, key=jax.random.key(1))
    e = np.asarray(system.levels)
    rho = np.asarray(PURE)
    for n, wait in enumerate(np.diff(path.times)):
        U = np.diag(np.exp(-1j * e * wait))
        rho = np.einsum("abjk,jk->ab", S.tensor, U @ rho @ U.conj().T)
        assert largest(path.states[n + 1] - rho) < 1e-14
    assert path.times[0] == 0 and largest(path.states[0] - PURE) == 0
    longer = jr.trajectory(system, reservoir, PURE, collisions=9, key=jax.random.key(1))
    assert largest(longer.states[:8] - path.states) == 0


def test_the_state_between_collisions_is_a_flight_from_the_last_one(letter):
    system, reservoir, _ = letter
    path = jr.trajectory(system, reservoir, PURE, collisions=5, key=jax.random.key(2))
    start, end = path.times[2], path.times[3]
    middle, at, last = jr.state_at(
        system, path, jnp.stack([(start + end) / 2, start, path.times[-1]])
    )
    U = np.diag(np.exp(-1j * np.asarray(system.levels) * float(end - start) / 2))
    assert largest(middle - U @ np.asarray(path.states[2]) @ U.conj().T) < 1e-14
    assert largest(at - path.states[2]) == 0
    assert largest(last - path.states[-1]) == 0
    late = path.times[-1:] + 0.1
    with pytest.raises(ValueError, match="Draw more collisions"):
        jr.state_at(system, path, late)
    assert np.all(np.isnan(jax.jit(jr.state_at)(system, path, late)))


@pytest.mark.slow
def test_the_average_of_many_trajectories_solves_the_master_equation(letter):
    system, reservoir, _ = letter
    times = [0.05, 0.3, 1.0, 3.0]
    exact = jr.evolve(system, reservoir, PURE, times)

    def deviations(law):
        many = jr.trajectories(
            system,
            reservoir,
            PURE,
            times,
            realisations=4000,
            key=jax.random.key(3),
            waiting_times=law,
        )
        off, error = many.mean - exact, many.standard_error
        assert largest(error) < 5e-3  # it can tell
        real = np.abs(np.real(off)) / np.real(error)
        imag = np.abs(np.imag(off[:, 0, 1])) / np.imag(error[:, 0, 1])
        return max(np.max(real), np.max(imag))

    assert deviations(Exponential()) < 4.5
    assert deviations(GammaDistributed(4.0)) > 20  # and so it does: the same rate, another law


@pytest.mark.slow
def test_an_ensemble_is_the_average_of_its_realisations(letter):
    system, reservoir, _ = letter
    times, n, key = (
        jnp.array([2.0, 0.0, 0.7, 0.1]),
        300,
        jax.random.key(4),
    )  # two chunks, one not full
    many = jr.trajectories(system, reservoir, PURE, times, realisations=n, key=key)

    def states(i):
        own = jax.random.fold_in(key, i)
        path = jr.trajectory(system, reservoir, PURE, collisions=60, key=own)
        return np.asarray(jr.state_at(system, path, times))

    each = np.stack([states(i) for i in range(n)])
    assert largest(many.mean - np.mean(each, 0)) < 1e-13
    error = np.std(np.real(each), axis=0, ddof=1) + 1j * np.std(np.imag(each), axis=0, ddof=1)
    assert largest(many.standard_error - error / np.sqrt(n)) < 1e-13


@pytest.mark.slow
def test_a_dephased_trajectory_thermalises(letter):
    system, reservoir, _ = letter
    fine = jr.DoubleExponential().refined()
    options = {"collisions": 400, "key": jax.random.key(5), "quadrature": fine}
    dephased = jr.trajectory(system, reservoir, PURE, dephase=True, **options).states
    assert largest(dephased[-1] - jr.gibbs_state(system, 0.1)) < 1e-10
    assert largest(dephased[1:, 0, 1]) == 0
    # without D, coherences drive the populations about, for ever
    free = jr.trajectory(system, reservoir, PURE, **options).states
    assert float(jnp.std(jr.populations(free[200:])[:, 0])) > 0.01


def test_full_dephasing_is_the_average_over_all_times():
    system = jr.System([0.0, 1.0, 1.0, 3.0])
    rng = np.random.default_rng(0)
    psi = rng.normal(size=4) + 1j * rng.normal(size=4)
    rho = jnp.asarray(np.outer(psi, psi.conj()))
    turns = [np.diag(np.exp(-2j * np.pi * k / 8 * np.asarray(system.levels))) for k in range(8)]
    average = sum(U @ rho @ U.conj().T for U in turns) / 8
    assert largest(jr.dephase(system, rho) - average) < 1e-14
    assert jr.dephase(system, rho)[1, 2] == rho[1, 2] != 0


def test_a_long_run_shows_its_progress(letter, capsys):
    system, reservoir, _ = letter
    options = {"realisations": 20, "key": jax.random.key(0), "chunk": 10}
    jr.trajectories(system, reservoir, PURE, [0.1], progress=True, **options)
    assert "20 realisations: 100%" in capsys.readouterr().err


def test_trajectories_refuse_what_makes_no_sense(letter):
    system, reservoir, _ = letter
    key = jax.random.key(0)
    still = eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(0.0))
    with pytest.raises(ValueError, match="rate"):
        jr.trajectory(system, still, PURE, collisions=3, key=key)
    with pytest.raises(ValueError, match="collisions"):
        jr.trajectory(system, reservoir, PURE, collisions=0, key=key)
    with pytest.raises(ValueError, match="trace 1"):
        jr.trajectory(system, reservoir, 2 * PURE, collisions=3, key=key)
    with pytest.raises(ValueError, match="realisations"):
        jr.trajectories(system, reservoir, PURE, [1.0], realisations=1, key=key)
    with pytest.raises(ValueError, match="times"):
        jr.trajectories(system, reservoir, PURE, [-1.0], realisations=5, key=key)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(
            lambda rho: jr.trajectories(system, reservoir, rho, [1.0], realisations=5, key=key)
        )(PURE)
    with pytest.raises(ValueError, match="shape"):
        GammaDistributed(-1.0)


# --------------------------------------------------------------------------------------------------
# Waiting times of any law
# --------------------------------------------------------------------------------------------------


def integrals(law, u):
    """The integrands P(θ > x) cos ux and P(θ > x) sin ux, with their limits."""
    k = float(law.shape) if isinstance(law, GammaDistributed) else 1.0
    end = 1.0 if isinstance(law, Regular) else 60.0

    def survival(x):
        return 1.0 if isinstance(law, Regular) else scipy.special.gammaincc(k, k * x)

    return [(lambda x, f=f: survival(x) * f(u * x), 0, end) for f in (np.cos, np.sin)]


@pytest.mark.parametrize("law", LAWS)
def test_a_law_of_waiting_times_agrees_with_itself(law):
    n, u = 10_000, jnp.array([0.0, 1e-5, 0.3, 2.0, 9.0])
    theta = np.asarray(jax.vmap(law.sample)(jax.random.split(jax.random.key(6), n)))
    phases = np.exp(-1j * np.multiply.outer(np.asarray(u), theta))
    assert abs(np.mean(theta) - 1) <= 4.5 * np.std(theta) / np.sqrt(n)
    assert np.all(np.abs(np.mean(phases, 1) - law.characteristic_function(u)) <= 4.5 / np.sqrt(n))
    # (1 − χ)/iu = ∫ P(θ > x) e^{−iux} dx
    for v, value in zip(np.asarray(u), law.residual_characteristic_function(u), strict=True):
        real, imag = (scipy.integrate.quad(*args, limit=500)[0] for args in integrals(law, v))
        assert abs(value - (real - 1j * imag)) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_the_law_is_smooth_where_levels_meet(law):
    zero = jnp.zeros(())
    second = {Exponential: 2.0, Regular: 1.0}.get(type(law)) or 1 + 1 / float(law.shape)  # ⟨θ²⟩
    assert abs(jax.jvp(law.characteristic_function, (zero,), (zero + 1,))[1] + 1j) < 1e-15
    assert (
        abs(jax.jvp(law.residual_characteristic_function, (zero,), (zero + 1,))[1] + 0.5j * second)
        < 1e-15
    )
    edge = jnp.array([0.01999, 0.02001]) * (law.shape if isinstance(law, GammaDistributed) else 1)
    slopes = jax.jvp(law.residual_characteristic_function, (edge,), (jnp.ones(2),))[1]
    assert (
        abs(
            jnp.diff(law.residual_characteristic_function(edge)) / jnp.diff(edge) - jnp.mean(slopes)
        )[0]
        < 1e-8
    )


def test_gamma_lies_between_poissonian_and_fixed():
    u = jnp.linspace(-5, 5, 11)
    assert (
        largest(
            GammaDistributed(1.0).characteristic_function(u)
            - Exponential().characteristic_function(u)
        )
        < 1e-15
    )
    assert (
        largest(
            GammaDistributed(1.0).residual_characteristic_function(u)
            - Exponential().residual_characteristic_function(u)
        )
        < 1e-15
    )
    assert (
        largest(
            GammaDistributed(1e8).characteristic_function(u) - Regular().characteristic_function(u)
        )
        < 1e-6
    )
    assert (
        largest(
            GammaDistributed(1e8).residual_characteristic_function(u)
            - Regular().residual_characteristic_function(u)
        )
        < 1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-4, 0.6, 5.0, 1e4])
def test_poissonian_collisions_see_time_averages(letter, rate):
    system, reservoir, S = letter
    reservoir = eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(rate))
    cycle, rho = jr.cycle_state(system, reservoir), jr.steady_state(system, reservoir).rho
    assert cycle.result == jr.RESULTS.successful
    assert largest(cycle.before - rho) < 1e-13
    assert largest(cycle.average - rho) < 1e-13
    assert largest(cycle.after - S(rho)) < 1e-13
    assert abs(jr.coherence(cycle.before) / jr.coherence(rho) - 1) < 1e-11


@pytest.mark.slow
def test_states_after_collisions_follow_the_cycle_map():
    (system, reservoir), law, n = model(1.0), GammaDistributed(0.5), 600

    def states(key):
        path = jr.trajectory(system, reservoir, PURE, collisions=4, key=key, waiting_times=law)
        return np.asarray(path.states)

    each = np.stack([states(key) for key in jax.random.split(jax.random.key(7), n)])
    mean, error = np.mean(each, 0), np.std(each, 0) / np.sqrt(n)

    def sigmas(law):
        C, rho, worst = jr.cycle_map(system, reservoir, law), PURE, 0.0
        for k in range(1, 5):
            rho = C(rho)
            worst = max(worst, largest((mean[k] - rho) / error[k]))
        return worst

    assert sigmas(law) < 4.5
    assert sigmas(Exponential()) > 6


def test_regular_kicks_have_a_fixed_point(letter):
    system, reservoir, _ = letter
    cycle = jr.cycle_state(system, reservoir, Regular())
    C = jr.cycle_map(system, reservoir, Regular())
    assert largest(C(cycle.after) - cycle.after) < 1e-14
    path = jr.trajectory(
        system,
        reservoir,
        PURE,
        collisions=800,
        key=jax.random.key(0),
        waiting_times=Regular(),
    )
    # each collision keeps the trace to rounding, of which 800 add up
    trace = jnp.trace(path.states[-1])
    assert abs(trace - 1) < 800 * 2 * np.finfo(float).eps
    assert largest(path.states[-1] / trace - cycle.after) < 1e-14
    # one period of the limit cycle, seen at many instants
    instants = path.times[-2] + (jnp.arange(2000) + 0.5) / 2000 / reservoir.rate
    seen = jr.state_at(system, path, instants)
    assert largest(jnp.mean(seen, 0) - cycle.average) < 1e-8
    assert largest(cycle.before - cycle.average) > 1e-3  # neither is the other, nor Eq. (9)
    assert largest(cycle.average - jr.steady_state(system, reservoir).rho) > 1e-3


@pytest.mark.slow
def test_late_averages_at_a_fixed_time_are_the_average_state(letter):
    system, reservoir, _ = letter
    law, late = GammaDistributed(0.25), [40.0, 0.0, 0.0, 0.0]
    cycle = jr.cycle_state(system, reservoir, law)
    many = jr.trajectories(
        system, reservoir, PURE, late, realisations=4000, key=jax.random.key(8), waiting_times=law
    )
    error = many.standard_error[0, 0, 1]

    def sigmas(rho):
        off = many.mean[0, 0, 1] - rho[0, 1]
        return max(abs(off.real) / error.real, abs(off.imag) / error.imag)

    assert sigmas(cycle.average) < 4.5
    assert sigmas(cycle.before) > 10
    assert sigmas(jr.steady_state(system, reservoir).rho) > 4.5


def test_the_cycle_state_says_what_is_wrong(letter):
    system, reservoir, _ = letter
    still = eqx.tree_at(lambda b: b.rate, reservoir, jnp.asarray(0.0))
    with pytest.raises(ValueError, match="rate"):
        jr.cycle_state(system, still)
    idle = eqx.tree_at(lambda b: b.scatterer.coupling, reservoir, 0 * reservoir.scatterer.coupling)
    assert jr.cycle_state(system, idle, Regular()).result == jr.RESULTS.not_unique
