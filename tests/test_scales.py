"""Nothing depends on the units: all energies times s, with lengths, times and rates to match, is the same physics.

ħ and the mass stay, so a length is divided by √s. Every result is compared in units of its own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest

import jaxres as jr

SCALES = [1e-30, 1e-8, 3.7e-3, 1e8, 1e30]
LEVELS = {
    2: [-0.3, 0.3],
    3: [-0.4, 0.1, 0.35],
    4: [-0.4, -0.4, 0.1, 0.35],
    5: [-0.5, -0.2, 0, 0.3, 0.4],
}


def model(x, s, N=2, slabs=1, unit=False):
    """A system and a reservoir whose numbers are multiples x of those of a case near the Letter's."""
    beta, mass, width, position, height, length, splitting, rate = x
    r = s**-0.5
    packet = jr.EffusionPacket(
        beta=0.1 * beta / s, mass=0.1 * mass, width=width * r, position=-3 * position * r
    )
    size = 2 * N if unit else N
    W = [hermitian(20 + n, size, scale=0.5) for n in range(slabs)]
    stack = [jr.Slab(height * s * W[n], length * r * (0.7 + 0.2 * n)) for n in range(slabs)]
    particle = (
        jr.InternalState.thermal(jr.System(s * np.array([0.0, 0.25])), 0.1 / s) if unit else None
    )
    scatterer = stack[0] if slabs == 1 else jr.Stack(stack)
    reservoir = jr.Reservoir(packet, scatterer, 3 * rate * s, internal=particle)
    return jr.System(splitting * s * np.array(LEVELS[N])), reservoir


#: for five levels and more: the default grid does not resolve their resonances
FINER = jr.DoubleExponential(finer=4, nodes_above=64)


def results(s, quadrature=jr.DoubleExponential(), **kind):
    """What public functions give, in units of the energy s, of √s/ħ for momenta, of 1/s for times."""
    system, reservoir = model(np.ones(8), s, **kind)
    grid = dict(quadrature=quadrature)
    S = jr.scattering_map(system, reservoir, **grid)
    sol = jr.steady_state(system, reservoir, **grid)
    rho = sol.rho
    beta = reservoir.packet.beta
    ground = jnp.zeros_like(rho).at[0, 0].set(1)
    colder = eqx.tree_at(
        lambda b: (b.packet.beta, b.rate), reservoir, (2 * beta, reservoir.rate / 3)
    )
    flows = jr.currents(system, [reservoir, colder], **grid)
    # packets of this kind may bring the ground state out of the set of states, but not a mixed one
    one = jr.collision_thermodynamics(system, S, jr.gibbs_state(system, 0.5 / s), beta)
    cycle = jr.limit_cycle(system, [reservoir, colder], **grid)
    counted = jr.counting_statistics(system, [reservoir, colder], 2, **grid)
    exchange = jr.energy_distribution(system, S, rho)
    return {
        "map": S.tensor,
        "errors": jnp.stack([S.error, S.trace_defect]),
        "state": rho,
        "generator": jr.generator(system, reservoir, **grid).tensor / s,
        "evolved": jr.evolve(system, reservoir, ground, jnp.array([0.1, 1.0, 10.0]) / s, **grid),
        "spectrum": jnp.abs(jr.spectrum(system, reservoir, **grid)) / s,
        "relaxation": jr.relaxation_time(system, reservoir, **grid) * s,
        "currents": jnp.stack([flows.energy / s**2, flows.entropy / s, flows.coherent / s]),
        "collision": jnp.stack([one.energy / s, one.entropy, one.entropy_production]),
        "cycle": jnp.append(cycle.heat / s, cycle.period * s),
        "cycle states": jnp.stack(
            [*cycle.before, cycle.average, jr.cycle_state(system, reservoir, **grid).after]
        ),
        "cumulants": counted.cumulants[:, 0] / s ** jnp.array([2.0, 3.0]),
        "probabilities": exchange.probability,
        "exchange": jnp.stack([exchange.mean / s, exchange.variance / s**2]),
        "heat": jr.heat_flow(system, S, reservoir.rate, ground) / s**2,
        "ergotropy": jr.ergotropy(system, ground[::-1, ::-1]) / s,
        "temperature": jr.effective_beta(system, jr.gibbs_state(system, 0.7 / s)) * s,
        "estimate": jr.coherence_estimate(system, reservoir, 0, system.size - 1),
        "dephased": jr.dephase(system, rho),
        "to Gibbs": jr.relative_entropy_to_gibbs(system, rho, beta),
    }


def agree(value, expected, tolerance=1e-8):
    assert np.all(np.isfinite(expected)) and largest(expected) > 0
    assert largest(np.asarray(value) - expected) <= tolerance * largest(expected)


KINDS = [
    pytest.param(dict(N=2), id="qubit"),
    pytest.param(dict(N=3, slabs=2), id="stack", marks=pytest.mark.campaign),
    pytest.param(dict(N=4), id="degenerate", marks=pytest.mark.slow),
    pytest.param(dict(N=5, quadrature=FINER), id="table", marks=pytest.mark.slow),
    pytest.param(dict(N=2, unit=True), id="unit", marks=pytest.mark.campaign),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_the_units(kind):
    expected = results(1.0, **kind)
    for s in SCALES:
        for name, value in results(s, **kind).items():
            if name == "errors":  # estimates, of differences that may be rounding
                agree(value + 1e-12, expected[name] + 1e-12, 1e-2)
            else:
                agree(value, expected[name])


MODELS = [
    (dict(N=2), jr.Exact()),
    pytest.param(dict(N=2, slabs=2), jr.Exact(), marks=pytest.mark.slow),
    pytest.param(dict(N=3), jr.Exact(), marks=pytest.mark.slow),
    pytest.param(dict(N=3), jr.WaveVectorOperator(), marks=pytest.mark.slow),
    pytest.param(dict(N=2), jr.RandomInteractionTime(), marks=pytest.mark.slow),
    pytest.param(dict(N=2), jr.WaveVectorOperator(), marks=pytest.mark.campaign),
    pytest.param(dict(N=3, slabs=2), jr.WaveVectorOperator(), marks=pytest.mark.slow),
    pytest.param(dict(N=3), jr.RandomInteractionTime(), marks=pytest.mark.slow),
    pytest.param(dict(N=4, slabs=2), jr.Exact(), marks=pytest.mark.campaign),
    pytest.param(dict(N=5, quadrature=FINER), jr.Exact(), marks=pytest.mark.campaign),
    pytest.param(dict(N=2, unit=True), jr.Exact(), marks=pytest.mark.campaign),
    pytest.param(dict(N=2, slabs=2), jr.TransferMatrix(), marks=pytest.mark.slow),
    pytest.param(dict(N=3), jr.TransferMatrix(), marks=pytest.mark.campaign),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "amplitudes"), MODELS)
def test_gradients_do_not_depend_on_the_units(kind, amplitudes):
    """Logarithmic ones, by all parameters."""
    kind = dict(kind)
    quadrature = kind.pop("quadrature", jr.DoubleExponential())

    @jax.jit
    def slopes(s):
        def coherence(x):
            system, reservoir = model(x, s, **kind)
            rho = jr.steady_state(
                system, reservoir, amplitudes=amplitudes, quadrature=quadrature
            ).rho
            return jr.l1_coherence(rho)

        return jax.grad(coherence)(jnp.ones(8))

    expected = slopes(1.0)
    for s in SCALES:
        agree(slopes(s), expected)


OTHERS = [dict(N=2, slabs=2), dict(N=3)]


@pytest.mark.slow
@pytest.mark.parametrize("amplitudes", [jr.Exact(), jr.TransferMatrix(), jr.WaveVectorOperator()])
@pytest.mark.parametrize(
    "kind", [dict(N=2), *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS)]
)
def test_amplitudes_and_their_gradients_do_not_depend_on_the_units(kind, amplitudes):
    """Also beside an energy where two eigenvalues inside meet: there is a divided difference."""

    def transmission(x, s):
        system, reservoir = model(x, s, **kind)
        found = jr.amplitudes(
            system,
            reservoir.scatterer,
            mass=reservoir.packet.mass,
            energy=2.0 * s,
            amplitudes=amplitudes,
        )
        return jnp.abs(found.transmission[1, 0]) ** 2

    value = jax.jit(jax.value_and_grad(transmission))
    expected = value(jnp.ones(8), 1.0)
    for s in SCALES:
        for ours, theirs in zip(value(jnp.ones(8), s), expected, strict=True):
            agree(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("s", SCALES)
def test_eigenvectors_do_not_depend_on_the_units(s):
    H = hermitian(3, 4)
    agree(jr.System.from_hamiltonian(s * H).levels / s, jr.System.from_hamiltonian(H).levels, 1e-13)
    for field, exchange in (([0.0, 0.0, 0.6], [0.2, 0.2, 0.0]), ([0.0, 0.0, 0.0], [0.2, 0.2, 0.2])):
        chain = jr.systems.chain(3, field=s * np.array(field), exchange=s * np.array(exchange))
        one = jr.systems.chain(3, field=field, exchange=exchange)
        H = one.from_eigenbasis(jnp.diag(one.levels))
        inside = chain.to_eigenbasis(H)
        agree(chain.levels / s, one.levels, 1e-13)
        assert largest(inside - jnp.diag(jnp.diagonal(inside))) < 1e-13
