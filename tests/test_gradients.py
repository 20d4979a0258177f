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


def numbers_of_the_state(numbers):
    rho = jr.steady_state(*build(numbers), quadrature=FINE).rho
    return jnp.stack([jr.coherence(rho), rho[0, 0].real, rho[0, 1].real, rho[0, 1].imag])


def flat(f, numbers):
    """`f` as a function of one vector, and that vector."""
    x, unravel = ravel_pytree(numbers)
    return lambda x: f(unravel(x)), x


def differences(f, x, step=1e-3):
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

    def check(self, x, *, skip=(), rtol=1e-6, step=1e-3):
        """All three agree; the arguments in `skip` have no difference on both sides."""
        reverse, forward = np.asarray(self.reverse(x)), np.asarray(self.forward(x))
        assert np.all(np.isfinite(reverse))
        size = np.max(np.abs(reverse), axis=1, keepdims=True)
        assert np.all(np.abs(forward - reverse) <= 1e-11 * size)
        keep = np.setdiff1d(np.arange(x.size), skip)
        errors = np.abs(reverse - differences(self.many, x, step))[:, keep]
        assert np.all(errors <= rtol * size)
        return reverse


@pytest.fixture(scope="module", params=STRUCTURES)
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


def test_derivatives_of_the_map(structure):
    name, derivatives = structure
    numbers = spoiled(name)
    x, _ = ravel_pytree(numbers)
    reverse = derivatives.check(x)
    # every parameter of the map has an effect, the rate has none
    assert np.all(np.any(np.abs(np.delete(reverse, position_of(numbers, "rate"), 1)) > 1e-6, axis=0))
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


def test_derivatives_at_a_degenerate_level(structure):
    name, derivatives = structure
    levels = [0.1, 0.1] if len(STRUCTURES[name]["levels"]) == 2 else [-0.4, 0.1, 0.1]
    numbers = spoiled(name, levels=levels)
    x, unravel = ravel_pytree(numbers)
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
