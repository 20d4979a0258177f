"""Derivatives: forward mode = reverse mode = differences, also where the textbook formula is singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import build, hermitian, largest, parameters
from jax.flatten_util import ravel_pytree

import jaxres as jr

FINE = jr.DoubleExponential().refined()
TWO = dict(levels=[-0.3, 0.4], couplings=[hermitian(11, 2)], lengths=[1.0])
STACK = dict(levels=[-0.3, 0.4], couplings=[hermitian(1, 2), hermitian(2, 2)], lengths=[1.0, 0.7])
THREE = dict(levels=[-0.5, 0.1, 0.9], couplings=[hermitian(12, 3)], lengths=[1.0])
TWO_OF_THREE = dict(
    levels=[-0.5, 0.1, 0.9], couplings=[hermitian(13, 3), hermitian(14, 3)], lengths=[0.6, 0.5]
)
STRUCTURES = dict(two=TWO, stack=STACK, three=THREE, stack_of_three=TWO_OF_THREE)


def some_numbers_of_the_map(numbers):
    """Two random linear functionals of the scattering map: every entry takes part."""
    S = jr.scattering_map(*build(numbers), quadrature=FINE)
    rng = np.random.default_rng(0)
    C = rng.normal(size=(2, *S.tensor.shape)) + 1j * rng.normal(size=(2, *S.tensor.shape))
    return jnp.real(jnp.sum(jnp.asarray(C) * S.tensor[None], axis=(1, 2, 3, 4)))


def flat(f, numbers):
    """`f` as a function of one vector, and that vector."""
    x, unravel = ravel_pytree(numbers)
    return lambda x: f(unravel(x)), x


def differences(f, x, step=2.5e-4):
    """The Jacobian by central differences of fourth order; `f` acts on a batch of points."""
    h = step * np.eye(x.size)
    shifts = np.concatenate([h, -h, 2 * h, -2 * h])
    a, b, c, d = np.split(np.asarray(f(x[None] + shifts)), 4)
    return (8 * (a - b) - (c - d)).T / (12 * step)


class Derivatives:
    """Value, forward and reverse Jacobian of a function of a vector, each compiled once."""

    def __init__(self, f):
        self.many = jax.jit(jax.vmap(f))
        self.forward = jax.jit(jax.jacfwd(f))
        self.reverse = jax.jit(jax.jacrev(f))

    def check(self, x, *, skip=(), rtol=1e-6, step=2.5e-4, modes=1e-11):
        """All three agree; the arguments in `skip` have no difference on both sides."""
        reverse, forward = np.asarray(self.reverse(x)), np.asarray(self.forward(x))
        assert np.all(np.isfinite(reverse))
        size = np.max(np.abs(reverse), axis=1, keepdims=True)
        assert np.all(np.abs(forward - reverse) <= modes * size)
        keep = np.setdiff1d(np.arange(x.size), skip)
        errors = np.abs(reverse - differences(self.many, x, step))[:, keep]
        assert np.all(errors <= rtol * size)
        return reverse


#: one is enough for every day
SLOW = pytest.mark.slow
SOME = ["two", *(pytest.param(name, marks=SLOW) for name in ("three", "stack", "stack_of_three"))]


@pytest.fixture(scope="module", params=SOME)
def structure(request):
    numbers = parameters(**STRUCTURES[request.param])
    f, _ = flat(some_numbers_of_the_map, numbers)
    return request.param, Derivatives(f)


def spoiled(name, **changes):
    """The parameters of a structure with some of them replaced."""
    numbers = dict(STRUCTURES[name])
    for key, change in changes.items():
        numbers[key] = change(numbers[key]) if callable(change) else change
    return parameters(**numbers)


def position_of(numbers, name):
    """Where the parameters called `name` are in the vector of all of them."""
    marks = {key: jnp.full_like(value, float(key == name)) for key, value in numbers.items()}
    return np.flatnonzero(ravel_pytree(marks)[0])


@pytest.mark.slow
def test_derivatives_of_the_map(structure):
    name, derivatives = structure
    numbers = spoiled(name)
    x, _ = ravel_pytree(numbers)
    reverse = derivatives.check(x)
    # every parameter of the map has an effect, the rate has none
    assert np.all(
        np.any(np.abs(np.delete(reverse, position_of(numbers, "rate"), 1)) > 1e-6, axis=0)
    )
    assert largest(reverse[:, position_of(numbers, "rate")]) == 0


def test_derivatives_without_coupling(structure):
    name, derivatives = structure
    numbers = spoiled(name, couplings=lambda Ws: [0 * W for W in Ws])
    x, _ = ravel_pytree(numbers)
    # slow particles are reflected by any step: beyond first order S has W² log W, so small steps
    derivatives.check(x, step=1e-7)


def test_derivatives_where_levels_meet_inside_the_slabs(structure):
    name, derivatives = structure

    def to_one_level(Ws):
        levels = np.array(STRUCTURES[name]["levels"])
        return [jnp.diag(0.7 - levels) + 0j for _ in Ws]

    x, _ = ravel_pytree(spoiled(name, couplings=to_one_level))
    derivatives.check(x)


@pytest.mark.slow
def test_derivatives_at_a_degenerate_level(structure):
    name, derivatives = structure
    levels = [0.1, 0.1] if len(STRUCTURES[name]["levels"]) == 2 else [-0.4, 0.1, 0.1]
    numbers = spoiled(name, levels=levels)
    x, _ = ravel_pytree(numbers)
    at = position_of(numbers, "levels")
    reverse = derivatives.check(x, skip=at)
    # levels are ascending, so their derivatives are one-sided: up in the last, down in the one below.
    # S has a term in (splitting)^(3/2), hence differences whose error falls as √h, and its removal.
    for column, sign in ((at[-1], 1), (at[-2], -1)):
        steps = 1e-8 * 4.0 ** np.arange(5)
        shifted = x[None] + sign * np.outer(np.append(0, steps), np.eye(x.size)[column])
        values = np.asarray(derivatives.many(jnp.asarray(shifted)))
        table = sign * (values[1:] - values[0]) / steps[:, None]
        for power in (1, 2, 3, 4):  # remove √h, h, h^(3/2), h²
            ratio = 2.0**power
            table = (ratio * table[:-1] - table[1:]) / (ratio - 1)
        size = np.max(np.abs(reverse), axis=1)
        assert np.all(np.abs(table[0] - reverse[:, column]) <= 1e-6 * size)


@SLOW
def test_the_two_level_derivatives_are_the_general_ones():
    """A slab is two halves of it, which go through the star product, and matrix functions for any N."""
    numbers = parameters(**TWO)

    def in_halves(numbers):
        W, d = numbers["couplings"], numbers["lengths"]
        halves = dict(couplings=jnp.concatenate([W, W]), lengths=jnp.concatenate([d, d]) / 2)
        return some_numbers_of_the_map(numbers | halves)

    (f, x), (g, _) = flat(some_numbers_of_the_map, numbers), flat(in_halves, numbers)
    written, general = jax.jit(jax.jacrev(f)), jax.jit(jax.jacrev(g))
    assert largest(written(x) - general(x)) < 1e-11 * largest(general(x))
    # where the levels inside the slab meet, nearly or exactly
    for apart in (0, 1e-9, 1e-7, 1e-5):
        W = jnp.diag(0.7 - np.array(TWO["levels"])) + apart * hermitian(3, 2)
        x, _ = ravel_pytree(parameters(**(TWO | dict(couplings=[W]))))
        assert largest(written(x) - general(x)) < 1e-11 * largest(general(x))


# --------------------------------------------------------------------------------------------------
# The whole way, and its last part alone
# --------------------------------------------------------------------------------------------------


def entries(rho):
    return jnp.stack([jr.coherence(rho), rho[0, 0].real, rho[0, 1].real, rho[0, 1].imag])


@SLOW
@pytest.mark.parametrize("name", ["two", "stack_of_three"])
def test_derivatives_of_the_steady_state(name):
    numbers = parameters(**STRUCTURES[name])
    f, x = flat(lambda n: entries(jr.steady_state(*build(n), quadrature=FINE).rho), numbers)
    reverse = Derivatives(f).check(x)
    assert np.all(np.any(np.abs(reverse) > 1e-6, axis=0))


@pytest.fixture(
    scope="module", params=["two", pytest.param("stack_of_three", marks=pytest.mark.slow)]
)
def from_the_maps(request):
    """Two reservoirs' maps, and the steady state's entries as a function of levels and rates."""
    system, reservoir = build(parameters(**STRUCTURES[request.param]))
    _, other = build(parameters(**STRUCTURES[request.param], beta=1.3, width=1.1))
    maps = [jr.scattering_map(system, b) for b in (reservoir, other)]
    N = system.size

    def f(x):
        sol = jr.steady_state(jr.System(x[:N]), jr.Collisions(maps, list(x[N:])))
        return entries(sol.rho)

    return system.levels, Derivatives(f)


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(2.0, 0.5), (1e-3, 3e-3), (1e4, 2e4)])
def test_derivatives_for_any_rates(from_the_maps, rates):
    levels, derivatives = from_the_maps
    x = jnp.concatenate([levels, jnp.array(rates)])
    reverse = derivatives.check(x, step=1e-3 * min(1.0, *rates))
    N = levels.size
    assert abs(np.sum(reverse[:, :N], axis=1)).max() < 1e-13 * np.abs(reverse).max() + 1e-12


def test_derivatives_where_the_rates_vanish(from_the_maps):
    """Γ = 0: what is linear in Γ has the slope of first-order theory, and |ρ01|, a kink, 0."""
    levels, derivatives = from_the_maps
    N = levels.size
    at_zero = jnp.concatenate([levels, jnp.array([0.0, 0.0])])
    forward, reverse = derivatives.forward(at_zero), derivatives.reverse(at_zero)
    assert largest(forward - reverse) < 1e-12
    assert np.all(np.isfinite(reverse))
    assert largest(reverse[0]) == 0
    # where all rates vanish in proportion the limit is that of equal ones: along (1, 1)
    slope = np.asarray(reverse)[:, N:].sum(axis=1)
    h = 1e-4 * np.arange(5)
    values = np.asarray(derivatives.many(at_zero[None] + np.outer(h, np.r_[np.zeros(N), 1, 1])))
    along = np.array([-25, 48, -36, 16, -3]) @ values / 12e-4
    assert np.all(np.abs(along - slope)[1:] <= 1e-8)
    assert abs(along[0] - np.hypot(slope[2], slope[3])) <= 1e-8


def test_derivatives_at_degenerate_levels_for_any_rate(from_the_maps):
    """Within a degenerate level the rows are those of S − 1 whatever the rate."""
    levels, derivatives = from_the_maps
    N = levels.size
    levels = levels.at[N - 2].set(levels[N - 1])
    for rates in ([2.0, 0.5], [1e-3, 3e-3]):
        x = jnp.concatenate([levels, jnp.array(rates)])
        forward, reverse = np.asarray(derivatives.forward(x)), np.asarray(derivatives.reverse(x))
        assert np.all(np.abs(forward - reverse) <= 1e-11 * np.abs(reverse).max())
        # one-sided in the upper level, whose splitting from the one below is not analytic in |·|
        h = 1e-3 * min(rates) * np.arange(5)
        values = np.asarray(derivatives.many(x[None] + np.outer(h, np.eye(N + 2)[N - 1])))
        up = np.array([-25, 48, -36, 16, -3]) @ values / (12 * h[1])
        assert np.all(np.abs(up - reverse[:, N - 1]) <= 1e-6 * np.abs(reverse).max())


def test_no_direction_no_derivative():
    """|ρ01| = 0 exactly: the mean over directions."""
    rho = jnp.diag(jnp.array([0.5, 0.5])).astype(complex)
    assert (
        largest(jax.grad(lambda z: jr.coherence(rho.at[0, 1].set(z[0] + 1j * z[1])))(jnp.zeros(2)))
        == 0
    )


# --------------------------------------------------------------------------------------------------
# Amplitudes beside thresholds
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("stack", marks=SLOW), "three"])
@pytest.mark.parametrize(
    "side", [pytest.param(1, id="above"), pytest.param(-1, id="below", marks=SLOW)]
)
def test_amplitudes_beside_a_threshold(name, side):
    """Derivatives there are large, and large in E and the levels alone: they diverge as 1/√|E − e_1|."""
    numbers = parameters(**STRUCTURES[name])
    distance = 1e-6

    def f(x):
        # the total energy by its distance to the threshold, so that differences can be small
        *_, shift = x
        system, reservoir = build(unravel(x[:-1]))
        energy = system.levels[1] + side * distance * (1 + shift)
        s = jr.amplitudes(system, reservoir.scatterer, mass=reservoir.packet.mass, energy=energy)
        both = jnp.stack([s.transmission[0], s.reflection[0]])[:, : 2 if side > 0 else 1]
        return jnp.concatenate([both.real.reshape(-1), both.imag.reshape(-1)])

    x, unravel = ravel_pytree(numbers)
    levels = position_of(numbers, "levels")
    # Derivatives in E and in the levels are 1/√distance times larger, and cancel: three digits less.
    # The differences in level 1 lose them too; its derivative is that of the others, below.
    reverse = Derivatives(f).check(jnp.append(x, 0.0), skip=levels[1:2], modes=1e-9)
    assert np.max(np.abs(reverse[:, -1])) > 1e-6
    assert largest(reverse[:, levels].sum(axis=1)) < 1e-8 * largest(reverse)


# --------------------------------------------------------------------------------------------------
# Second derivatives
# --------------------------------------------------------------------------------------------------


@SLOW
def test_second_derivatives():
    """The Hessian of |ρ01| in everything that the Letter varies, against differences of gradients."""

    def f(x):
        splitting, coupling, length, beta, mass, width, position, rate = x
        system, reservoir = jr.letter.model(
            splitting=splitting, coupling=coupling, length=length, beta=beta, mass=mass,
            width=width, position=position, rate=rate,
        )  # fmt: skip
        return jr.coherence(jr.steady_state(system, reservoir, quadrature=FINE).rho)

    x = jnp.array([0.6, 1.0, 1.0, 0.1, 0.1, 1.0, -2.0, 5.0])
    H = np.asarray(jax.jit(jax.hessian(f))(x))
    gradients = jax.jit(jax.vmap(jax.grad(f)))
    scale = np.array(x)
    by_differences = differences(lambda u: gradients(u * scale), np.ones(8), step=1e-3) / scale
    unit = np.outer(scale, scale)
    assert largest((H - H.T) * unit) < 1e-12
    assert largest((H - by_differences) * unit) < 1e-7 * largest(H * unit)


class OfUnknownLogarithm(jr.EffusionPacket):
    """An effusion packet of which it is not known that it has a logarithm."""


@pytest.mark.slow
def test_derivatives_by_the_packet_alone():
    """They are taken from ln ρ_U; a packet without one goes the way of all numbers. And with others they mix."""

    def f(kind):
        def function(x, coupling):
            system, reservoir = jr.letter.model(
                beta=x[0], width=x[1], position=x[2], coupling=coupling
            )
            own = reservoir.packet
            packet = kind(own.beta, own.mass, own.width, own.position)
            S = jr.scattering_map(
                system, jr.Reservoir(packet, reservoir.scatterer, reservoir.rate)
            ).tensor
            weights = jnp.arange(16.0).reshape(S.shape)
            return jnp.sum(jnp.sin(weights) * S.real + jnp.cos(weights) * S.imag)

        def second(x):
            mixed = jax.grad(lambda x, coupling: jax.grad(function, 1)(x, coupling))
            return jax.grad(function)(x, 1.0), jax.hessian(function)(x, 1.0), mixed(x, 1.0)

        return jax.jit(second)(jnp.array([0.1, 1.0, -2.0]))

    assert OfUnknownLogarithm(0.1, 0.1, 1.0, -2.0).log_envelope() is None
    for ours, theirs in zip(f(jr.EffusionPacket), f(OfUnknownLogarithm), strict=True):
        assert largest(theirs) > 0.01
        assert largest(ours - theirs) < 1e-12 * largest(theirs)
