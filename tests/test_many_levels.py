"""Dense, degenerate and large spectra, and the way in which many levels are computed piece by piece.

The sharpest test of many levels has few: a system beside an idle one, which the particle does not see. The levels of
both together are dense or degenerate as one likes, the thresholds are many, and the map is that of the small system on
its own: S ⊗ 1, exactly.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import build, hermitian, largest, parameters

import jaxres as jr
from jaxres._scattering import energy_integral as _moments
from jaxres._scattering.amplitudes import Exact
from jaxres._scattering.scattering_map import collision_map

LEVELS = [-0.3, 0.3]
V = np.array([[0.2, 0.8 + 0.6j], [0.8 - 0.6j, -0.1]])


def packet_and(coupling):
    packet = jr.EffusionPacket(beta=0.4, mass=0.5, width=0.8, position=-2.0)
    return jr.Reservoir(packet=packet, scatterer=jr.Slab(coupling=coupling, length=1.0), rate=2.0)


def beside_idle(levels, idle):
    """The system and its reservoir beside idle levels; S ⊗ 1 for them, given the small system's S."""
    levels, idle = jnp.asarray(levels), np.asarray(idle)
    N, D = levels.shape[0], len(idle)
    both = (levels[:, None] + idle[None]).reshape(-1)
    order = np.argsort(np.add.outer(LEVELS, idle).reshape(-1), kind="stable")
    basis = np.eye(N * D)[:, order]
    system = jr.System(both[order], basis)
    reservoir = packet_and(np.kron(V, np.eye(D)))
    one = np.eye(D)

    def joint(S):
        full = jnp.einsum("abjk,xy,uv->axbujykv", S.tensor, one, one).reshape((N * D,) * 4)
        return full[np.ix_(order, order, order, order)]

    return system, reservoir, joint


SPECTRA = {
    "resonant": [0.0, 0.6],  # the upper level of one is the lower one of the next
    "dense": [0.0, 0.11, 0.37],
    "nearly degenerate": [0.0, 1e-9, 0.37, 0.37 + 1e-12],
    "degenerate": [0.2, 0.2, 0.2],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "nearly degenerate" else pytest.mark.slow)
        for name in SPECTRA
    ],
)
def test_an_idle_system_beside_changes_nothing(name):
    system, reservoir, joint = beside_idle(LEVELS, SPECTRA[name])
    fine = jr.DoubleExponential(64, 64)
    small = jr.scattering_map(jr.System(LEVELS), packet_and(V), quadrature=fine)
    S = jr.scattering_map(system, reservoir, quadrature=jr.DoubleExponential(nodes_above=48))
    true = largest(S.tensor - joint(small))
    assert true < 1e-8
    assert true / 10 <= float(S.error) or true < 1e-13


@pytest.mark.slow
def test_sixteen_levels():
    """A qubit beside eight idle levels: 120 panels, the default grid."""
    idle = [0.0, 0.05, 0.11, 0.2, 0.6, 0.6 + 1e-10, 0.83, 1.2]
    system, reservoir, joint = beside_idle(LEVELS, idle)
    small = jr.scattering_map(
        jr.System(LEVELS), packet_and(V), quadrature=jr.DoubleExponential(64, 64)
    )
    S = jr.scattering_map(system, reservoir)
    assert largest(S.tensor - joint(small)) < 1e-8
    assert float(S.error) < 1e-6


@pytest.mark.slow
def test_the_derivative_in_the_levels_goes_through_a_resonance():
    """At Δ = 0.6 two of four levels are degenerate, and the derivative is still that of the small system.

    There two panel edges coincide of which only one moves, so that the integrand's derivative grows like 1/√distance
    beside the other. The nodes come as close as e^{−36} of a panel, where half an exponent, 1.5e-8, is left out.
    """
    quadrature = jr.DoubleExponential(96, 64)

    def alone(gap):
        system = jr.System(jnp.stack([-gap / 2, gap / 2]))
        return collision_map(system, packet_and(V), Exact(), quadrature).tensor[0, 0, 1, 1].real

    def together(gap):
        system, reservoir, _ = beside_idle(jnp.stack([-gap / 2, gap / 2]), [0.0, 0.6])
        T = collision_map(system, reservoir, Exact(), quadrature).tensor
        # levels ascend: (0, 0.0), then (0, 0.6) and (1, 0.0), which are equal, then (1, 0.6)
        return T[0, 0, 2, 2].real

    gap = jnp.asarray(0.6)
    np.testing.assert_allclose(jax.jit(together)(gap), jax.jit(alone)(gap), atol=1e-9)
    np.testing.assert_allclose(
        jax.jit(jax.grad(together))(gap), jax.jit(jax.grad(alone))(gap), rtol=0, atol=1.5e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [3**4 * 70, 3**3])
def test_pieces_and_blocks_change_nothing(monkeypatch, at_once):
    """The same map and derivatives, whether nodes and blocks are taken together or one after the other."""
    numbers = parameters(
        levels=[-0.5, 0.1, 0.6], couplings=[hermitian(3, 3, scale=0.6)], lengths=[1.0]
    )
    quadrature = jr.DoubleExponential(24, 16)

    def observable(numbers):
        S = collision_map(*build(numbers), Exact(), quadrature)
        weight = np.cos(np.arange(81.0)).reshape(3, 3, 3, 3)
        return jnp.sum(weight * jnp.real(S.tensor)) + S.error, S.tensor

    def both():
        return jax.jit(jax.value_and_grad(observable, has_aux=True))(numbers)

    (_, whole), whole_gradient = both()
    jax.clear_caches()
    monkeypatch.setattr(_moments, "AT_ONCE", at_once)
    (_, pieces), gradient = both()
    assert largest(whole - pieces) < 1e-15
    for name, derivative in whole_gradient.items():
        np.testing.assert_allclose(gradient[name], derivative, rtol=1e-11, atol=1e-13, err_msg=name)


TABULATED = {
    "slab": parameters(
        levels=[-0.5, 0.1, 0.6], couplings=[hermitian(3, 3, scale=0.6)], lengths=[1.0]
    ),
    "degenerate": parameters(levels=[0.0, 0.4, 0.4], couplings=[hermitian(6, 3)], lengths=[0.8]),
    "nearly degenerate": parameters(
        levels=[0.0, 0.4, 0.4 + 1e-6, 0.401], couplings=[hermitian(6, 4)], lengths=[0.8]
    ),
    "resonances": parameters(
        levels=[-4.0, 1.0, 1.3, 5.0], couplings=[hermitian(5, 4, scale=2.0)], lengths=[0.7]
    ),
    "stack": parameters(
        levels=[-0.5, 0.1, 0.6],
        couplings=[hermitian(3, 3, scale=0.6), hermitian(4, 3, scale=1.5)],
        lengths=[1.0, 0.4],
    ),
}


TABLE, DIRECT = Exact(tabulated=True), Exact(tabulated=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "degenerate" else pytest.mark.slow) for n in TABULATED],
)
def test_amplitudes_from_a_table_are_the_amplitudes(name):
    """The map is the same to rounding or, with narrow resonances, within what the table adds to the estimated error."""
    numbers = dict(TABULATED[name])
    levels = numbers.pop("levels")
    weights = np.random.default_rng(0).normal(size=(2, *(len(levels),) * 4))
    # derivatives are off by the map's error over the width of resonances
    rule = jr.DoubleExponential(finer=3 if name == "stack" else 1)

    def observable(numbers, levels, model):
        S = collision_map(*build(numbers | {"levels": levels}), model, rule)
        return jnp.sum(weights * jnp.stack([S.tensor.real, S.tensor.imag])), (S.tensor, S.error)

    def derivatives(model, by):
        function = jax.value_and_grad(partial(observable, model=model), argnums=by, has_aux=True)
        (_, aux), gradient = jax.jit(function)(numbers, levels)
        return *aux, gradient

    tensor, error, gradient = derivatives(TABLE, 0)
    direct, direct_error, direct_gradient = derivatives(DIRECT, 0)
    extra = float(error - direct_error)
    assert largest(tensor - direct) < max(1e-12, extra)
    if name == "resonances":
        assert extra > 1e-8
        return
    for key, one in direct_gradient.items():
        np.testing.assert_allclose(gradient[key], one, rtol=0, atol=1e-9, err_msg=key)
    # by the levels, where close ones would be too much for a table
    by_levels, direct_by_levels = (derivatives(m, 1)[2] for m in (TABLE, DIRECT))
    np.testing.assert_allclose(by_levels, direct_by_levels, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_table_resolves_levels_however_close():
    """The next level makes a branch point beside the panel, which another substitution would not see."""
    numbers = TABULATED["degenerate"]
    distances = jnp.concatenate([jnp.zeros(1), 10.0 ** jnp.arange(-16, 0)])

    def tensors(model):
        def tensor(distance):
            levels = jnp.array([0.0, 0.4, 0.4]) + jnp.array([0, 0, 1.0]) * distance
            system, reservoir = build(numbers | {"levels": levels})
            return collision_map(system, reservoir, model, jr.DoubleExponential()).tensor

        return jax.jit(lambda x: jax.lax.map(tensor, x))(distances)

    assert largest(tensors(TABLE) - tensors(DIRECT)) < 1e-14


@pytest.mark.slow
def test_a_table_resolves_the_beginning_of_long_panels():
    """Levels 36 and 84 kT apart: shallow bound states are close to a threshold, and the packet is nowhere else."""
    levels = 300 * np.array([0.0, 0.3, 1.0])
    numbers = parameters(levels=levels, couplings=[hermitian(3, 3, scale=0.6)], lengths=[0.7])
    system, reservoir = build(numbers)
    S, direct = (jr.scattering_map(system, reservoir, amplitudes=m) for m in (TABLE, DIRECT))
    assert largest(S.tensor - direct.tensor) < 1e-13
    assert float(S.error) < 1e-10


@pytest.mark.slow
def test_a_table_that_is_too_short_says_so():
    """Behind a thick slab resonances are dense, and the series of the amplitudes does not converge in time."""
    numbers = TABULATED["resonances"] | {"lengths": jnp.array([30.0])}
    system, reservoir = build(numbers)
    coarse = jr.DoubleExponential(nodes_between=32, nodes_above=48)
    fine = jr.DoubleExponential(nodes_between=400, nodes_above=200)
    S = jr.scattering_map(system, reservoir, amplitudes=TABLE, quadrature=coarse)
    true = jr.scattering_map(system, reservoir, amplitudes=DIRECT, quadrature=fine)
    off = largest(S.tensor - true.tensor)
    assert off > 1e-6
    assert float(S.error) > off
