"""The plain reference: every fast path against the Letter's equations as `jaxres.plain` has them.

Both agree to rounding where the density vanishes at p = 0 (effusion). Where it does not (a mixture), the default rule
of the fast path leaves out momenta below √(e^{−36}) = 1.5e-8, which its error includes; the plain rule reaches
√(e^{−70}).
Gauss–Legendre nodes leave nothing out, and so they are the fast path's rule where the comparison is to be sharp.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import hermitian, largest

import jaxres as jr

EXPONENTIAL = jr.DoubleExponential(nodes_between=128, nodes_above=96)
LEGENDRE = jr.GaussLegendre(nodes_between=100, nodes_above=100)
EFFUSION = jr.EffusionPacket(beta=0.4, mass=0.5, width=0.8, position=-2.0)
MIXTURE = jr.ThermalMixture(beta=0.4, mass=0.5, width=1.5, position=-2.0)


def slabs(N):
    """Two unequal slabs with generic complex couplings: neither reciprocal nor mirror symmetric."""
    return jr.Stack([jr.Slab(hermitian(3, N), 0.7), jr.Slab(hermitian(4, N), 0.4)])


def hit(levels, packet, scatterer, incidence="left"):
    return jr.System(levels), jr.Reservoir(packet, scatterer, 2.0, incidence)


QUBIT, QUTRIT = [-0.3, 0.4], [-0.5, 0.1, 0.4]

#: model, rule of the fast path, nodes of the plain one, and how near they come
CASES = {
    "letter": (jr.letter.model(), EXPONENTIAL, 64, 2e-14),
    "letter, Gauss-Legendre": (jr.letter.model(), LEGENDRE, 64, 2e-14),
    "mixture": (hit(QUBIT, MIXTURE, jr.Slab(hermitian(2, 2), 0.7)), LEGENDRE, 192, 2e-13),
    "two slabs, right": (hit(QUBIT, EFFUSION, slabs(2), "right"), EXPONENTIAL, 128, 2e-14),
    "two slabs, both": (hit(QUBIT, EFFUSION, slabs(2), "both"), EXPONENTIAL, 128, 2e-14),
    "qutrit": (hit(QUTRIT, EFFUSION, jr.Slab(hermitian(1, 3), 0.7)), EXPONENTIAL, 96, 2e-14),
    "qutrit, two slabs": (hit(QUTRIT, MIXTURE, slabs(3), "both"), LEGENDRE, 192, 1e-12),
    "ladder, diagonal": (
        hit([-0.4, 0.0, 0.4], jr.DiagonalPacket(EFFUSION), jr.Slab(hermitian(1, 3), 0.7)),
        EXPONENTIAL,
        96,
        2e-14,
    ),
}


@eqx.filter_jit
def plain(system, reservoir, nodes):
    return jr.plain.scattering_map(system, reservoir, nodes=nodes)


#: the others compile for ten seconds or more
QUICK = ("letter", "letter, Gauss-Legendre", "mixture", "two slabs, both", "qutrit")


@pytest.mark.parametrize(
    "name", [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in CASES]
)
def test_the_fast_map_and_its_state_are_those_of_the_equations(name):
    (system, reservoir), rule, nodes, tolerance = CASES[name]
    S = jr.scattering_map(system, reservoir, quadrature=rule)
    ours = plain(system, reservoir, nodes)
    assert largest(ours - S.tensor) < tolerance
    state = jr.steady_state(system, jr.Collisions(S, reservoir.rate)).rho
    by_equations = jr.plain.stationary_state(system, [ours], [reservoir.rate])
    assert largest(by_equations - state) < 100 * tolerance


def test_a_wrong_map_is_noticed():
    """Its entries transposed, or with a phase turned round, differ by 1e-2: the comparison is not blind to either."""
    system, reservoir = CASES["qutrit"][0]
    right = np.asarray(plain(system, reservoir, 96))
    wrong = {
        "in and out": right.transpose(2, 3, 0, 1),
        "rows and columns": right.transpose(1, 0, 3, 2),
        "rows and columns of the input": right.transpose(0, 1, 3, 2),
        "conjugate": right.conj(),
    }
    other_side = eqx.tree_at(lambda r: r.packet.position, reservoir, -reservoir.packet.position)
    wrong["position"] = plain(system, other_side, 96)
    for name, tensor in wrong.items():
        assert largest(tensor - right) > 1e-2, name
    stack = CASES["two slabs, right"][0]
    assert largest(plain(*stack, 128) - plain(*CASES["two slabs, both"][0], 128)) > 1e-2


@pytest.mark.parametrize("name", ["letter", "qutrit"])
def test_the_amplitudes_are_the_exact_ones(name):
    (system, reservoir), *_ = CASES[name]
    scatterer, mass = reservoir.scatterer, reservoir.packet.mass
    for energy in (system.levels[-1] - 0.1, jnp.asarray(2.0)):  # with a closed channel, and without
        exact = jr.amplitudes(system, scatterer, mass=mass, energy=energy)
        s = jr.plain.amplitudes(energy - system.levels, scatterer.layers(system), mass)
        assert largest(s - jnp.stack([exact.transmission, exact.reflection])) < 1e-13


@pytest.mark.parametrize(("name", "nodes"), [("letter", 64), ("mixture", 192)])
def test_gradients(name, nodes):
    """d|ρ01| in width, rate, β and coupling: reverse = forward = the fast path's, which has rules of its own."""
    (system, reservoir), rule, *_ = CASES[name]

    def model(x):
        packet = eqx.tree_at(lambda p: (p.width, p.beta), reservoir.packet, (x[0], x[1]))
        slab = jr.Slab(x[3] * reservoir.scatterer.coupling, reservoir.scatterer.length)
        return jr.Reservoir(packet, slab, x[2])

    def by_equations(x):
        return jr.coherence(jr.plain.steady_state(system, model(x), nodes=nodes))

    def fast(x):
        return jr.coherence(jr.steady_state(system, model(x), quadrature=rule).rho)

    x = jnp.stack([reservoir.packet.width, reservoir.packet.beta, reservoir.rate, jnp.ones(())])
    reverse, forward = (jax.jit(d(by_equations))(x) for d in (jax.jacrev, jax.jacfwd))
    assert largest(forward / reverse - 1) < 1e-10
    assert largest(jax.jit(jax.grad(fast))(x) / reverse - 1) < 1e-9


def test_several_reservoirs_and_batches():
    system, reservoir = CASES["letter"][0]
    second = jr.Reservoir(EFFUSION, reservoir.scatterer, 1.0)

    def state(rate):
        both = [eqx.tree_at(lambda r: r.rate, reservoir, rate), second]
        return jr.plain.steady_state(system, both, nodes=64)

    rates = jnp.array([0.5, 5.0])
    states = jax.jit(jax.vmap(state))(rates)
    for rate, rho in zip(rates, states, strict=True):
        both = [eqx.tree_at(lambda r: r.rate, reservoir, rate), second]
        assert largest(rho - jr.steady_state(system, both, quadrature=EXPONENTIAL).rho) < 1e-12
