"""Functions evaluated in one loop, and the polynomials that make it worth while."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import largest

import jaxres as jr
from jaxres._numerics.elementary import cosine_series, falling_exp, sin_cos, sine_series
from jaxres._numerics.one_loop import one_loop
from jaxres._numerics.safe import slab_roots, slab_waves, unit_waves

ROUNDING = {np.float64: 4e-16, np.float32: 2e-7}


def function(x, pair, scale):
    """Several results that share most of what they compute; not all depend on all arguments."""
    y, z = pair
    u = x * y + jnp.sin(z)
    return {"a": u * x, "b": (u + y, scale * z * u * u), "c": x - y}


def summed(f):
    """One number that weighs every result by another function."""

    def total(*arguments):
        results = jax.tree.leaves(f(*arguments))
        return sum(jnp.sum(jnp.sin((i + 1) * x)) for i, x in enumerate(results))

    return total


ARGUMENTS = (
    jnp.linspace(0.1, 1, 7),
    (jnp.linspace(1, 2, 7), jnp.asarray(0.3)),
    jnp.asarray(1.7),
)


def in_one_loop(*arguments):
    return one_loop(function, *arguments)


def same(first, second, tolerance=1e-13):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(largest(a - b) <= tolerance * (1 + largest(b)) for a, b in pairs)


def test_a_loop_gives_what_the_function_gives():
    results = in_one_loop(*ARGUMENTS)
    assert jax.tree.structure(results) == jax.tree.structure(function(*ARGUMENTS))
    assert same(results, function(*ARGUMENTS), 1e-15)


def test_one_kernel_computes_all_results():
    """What it is for: on a CPU all results come from one reduction, and no other loop computes a sine."""

    def f(*arguments):
        return one_loop(function, *arguments)

    full = [jnp.linspace(0.1, 1, 7)] * 2
    text = jax.jit(f).lower(full[0], (full[1], full[0]), full[1]).compile().as_text()
    assert text.count(" reduce(") == 1
    assert text.count(" sine(") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: jax.grad(f, (0, 1, 2)),
        lambda f: jax.jacfwd(f, (0, 1, 2)),
        lambda f: jax.grad(f, 2),
        lambda f: jax.jacfwd(jax.jacrev(f, (0, 1)), (1, 2)),
        lambda f: jax.jacrev(jax.jacfwd(f, (0, 2)), (0, 1)),
        lambda f: jax.jacrev(jax.jacrev(f, (0, 1)), (0, 2)),
        lambda f: jax.jacfwd(jax.jacfwd(jax.jacrev(f, 2), 2), 1),
        lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2)),
    ],
)
def test_derivatives_of_every_order_and_mode(derivative):
    ours = jax.jit(derivative(summed(in_one_loop)))(*ARGUMENTS)
    assert same(ours, jax.jit(derivative(summed(function)))(*ARGUMENTS))


@pytest.mark.slow
def test_batches():
    """Axes of any place and of some arguments only, in nested maps and behind derivatives."""
    x, pair, scale = ARGUMENTS
    x, scale = jnp.stack([x, x + 1], axis=1), jnp.array([0.5, 1.5, 2.5])

    def mapped(f):
        gradient = jax.grad(summed(f), (0, 1, 2))
        over_x = jax.vmap(gradient, (1, None, None))
        return jax.vmap(over_x, (None, None, 0))(x, pair, scale)

    assert same(mapped(in_one_loop), mapped(function))
    assert same(jax.hessian(lambda s: jnp.sum(mapped(in_one_loop)[0] * s))(1.0), 0.0)


def test_results_that_no_derivative_passes_through():
    def part(f):
        return lambda x: jnp.sum(f(x, *ARGUMENTS[1:])["c"] ** 2)

    ours, theirs = (jax.grad(part(f))(ARGUMENTS[0]) for f in (in_one_loop, function))
    assert same(ours, theirs)
    nothing = jax.grad(
        lambda x: jnp.sum(jax.lax.stop_gradient(in_one_loop(x, *ARGUMENTS[1:])["a"]))
    )
    assert largest(nothing(ARGUMENTS[0])) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
class TestElementary:
    def test_exponential(self, dtype):
        least = np.log(np.finfo(dtype).tiny)
        x = np.concatenate([np.linspace(least + 1, 0, 1500), np.linspace(-3, 0, 500)]).astype(dtype)
        exact = np.array([float(mpmath.exp(float(v))) for v in x])
        assert largest(np.asarray(jax.jit(falling_exp)(x), float) / exact - 1) < ROUNDING[dtype]
        far = falling_exp(jnp.asarray([-1e9, -np.inf, 0.0], dtype))
        assert far[0] < 2 * np.finfo(dtype).tiny and far[1] == far[0] and far[2] == 1
        assert bool(jnp.isnan(falling_exp(jnp.asarray(np.nan, dtype))))

    def test_sine_and_cosine(self, dtype):
        rng = np.random.default_rng(0)
        x = np.concatenate([rng.uniform(-s, s, 700) for s in (4, 1e3, 1e5)]).astype(dtype)
        sine, cosine = jax.jit(sin_cos)(x)
        exact = np.array([[float(f(float(v))) for v in x] for f in (mpmath.sin, mpmath.cos)])
        assert largest(np.asarray(sine, float) - exact[0]) < ROUNDING[dtype]
        assert largest(np.asarray(cosine, float) - exact[1]) < ROUNDING[dtype]

    def test_series(self, dtype):
        z = np.linspace(-0.25, (np.pi / 2) ** 2, 500).astype(dtype)
        roots = [mpmath.sqrt(mpmath.mpc(float(v))) for v in z]
        for series, f in ((cosine_series, mpmath.cos), (sine_series, mpmath.sinc)):
            exact = np.array([float(mpmath.re(f(root))) for root in roots])
            assert largest(np.asarray(jax.jit(series)(z), float) - exact) < ROUNDING[dtype]

    def test_derivatives(self, dtype):
        x = jnp.linspace(-2, 0, 9, dtype=dtype)
        assert largest(jax.vmap(jax.grad(falling_exp))(x) - jnp.exp(x)) < 3 * ROUNDING[dtype]
        by_sine = jax.vmap(jax.grad(lambda x: sin_cos(x)[0]))(x)
        assert largest(by_sine - jnp.cos(x)) < 3 * ROUNDING[dtype]


def exact_waves(z):
    """C and S of `slab_waves` for h = 1 with the growth still in it, and their first two derivatives."""
    results = []
    with mpmath.workdps(50):
        for f in (mpmath.cos, mpmath.sinc):

            def real(z, f=f):
                return mpmath.re(f(mpmath.sqrt(mpmath.mpc(z))))

            results.append([float(mpmath.diff(real, mpmath.mpf(z), n)) for n in (0, 1, 2)])
    return results


def beside(boundary):
    """A number and its two neighbours."""
    return [np.nextafter(boundary, -np.inf), boundary, np.nextafter(boundary, np.inf)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "z", [-9.3, -0.26, *beside(-0.25), -1e-9, *beside(0.0), 1e-9, *beside(0.25), 0.26, 2.0, 90.1]
)
def test_waves_in_a_slab_and_two_derivatives(z):
    """Open, closed, and on both sides of where the formula changes, and there."""

    def waves(x):
        c, s, _, decay = slab_waves(x)
        growth = jax.lax.stop_gradient(decay)  # it is held fixed
        return c / growth, s / growth

    for i, exact in enumerate(exact_waves(z)):

        def f(x, i=i):
            return waves(x)[i]

        x = jnp.asarray(z)
        ours = [f(x), jax.grad(f)(x), jax.jacfwd(jax.grad(f))(x)]
        np.testing.assert_allclose(ours, exact, rtol=3e-13, atol=1e-15)


@pytest.mark.parametrize("z", [-0.25, 0.25])
def test_waves_computed_from_roots_of_another_rounding(z):
    """A compiler may compute z again where it is used: the two branches may not be mixed."""
    for other in beside(z):
        for root in beside(z):
            roots = slab_roots(jnp.asarray(root))
            c, fs, zs, decay, _ = unit_waves(jnp.asarray(other), roots)
            (C, *_), (S, *_) = exact_waves(z)
            np.testing.assert_allclose(
                [c / decay, fs * roots[1] / decay, zs / decay], [C, S, z * S], rtol=1e-14
            )


@pytest.mark.slow
def test_flux_where_the_wave_in_a_slab_changes_its_formula():
    """For m(V − E)d² = 1/2, and 1/8, in a slab and in a part of a stack."""
    slab = jr.Slab([[2.0]], 1.0)
    for scatterer in (slab, jr.Slab([[2.0]], 0.5), jr.Stack([slab, jr.Slab([[1.5]], 1.0)])):
        for energy in beside(1.0):
            for model in (jr.Exact(), jr.TransferMatrix()):
                amps = jr.amplitudes(
                    jr.System([0.0]), scatterer, mass=0.5, energy=energy, amplitudes=model
                )
                flux = abs(amps.transmission[0, 0]) ** 2 + abs(amps.reflection[0, 0]) ** 2
                assert abs(flux - 1) < 1e-13
    # |t|² = 1/(1 + V² sinh²(κd)/4E(V − E)) = 1/cosh² 1 for V = 2E, κd = 1
    amps = jr.amplitudes(jr.System([0.0]), slab, mass=0.5, energy=1.0)
    assert abs(abs(amps.transmission[0, 0]) - 1 / np.cosh(1)) < 1e-14


def test_the_factor_of_the_waves_is_what_it_says():
    z = jnp.asarray([-30.0, -0.3, -0.1, 0.0, 0.2, 0.3, 7.0])
    c, s, zs, decay = slab_waves(z)
    C, fS, zS, decays, f = unit_waves(z, slab_roots(z))
    assert largest(C - c) == 0 and largest(decays - decay) == 0 and largest(zS - zs) == 0
    assert largest(fS - f * s) < 1e-15
    assert largest(zS - z * s) < 1e-15
