"""Small builders that the tests share: systems and reservoirs from numbers, random matrices."""

import jax.numpy as jnp
import numpy as np

import jaxres as jr


def system_of(case):
    """The system of a golden case."""
    return jr.System(case["levels"])


def scatterer_of(case):
    """The slab, or the stack of slabs, of a golden case."""
    slabs = [jr.Slab(coupling=s["W"], length=s["thickness"]) for s in case["slabs"]]
    return slabs[0] if len(slabs) == 1 else jr.Stack(slabs)


def reservoir_of(case, rate=1.0):
    """The reservoir of a golden case."""
    packet = jr.EffusionPacket(
        beta=case["beta"], mass=case["mass"], width=case["width"], position=case["position"]
    )
    return jr.Reservoir(packet=packet, scatterer=scatterer_of(case), rate=rate)


def hermitian(seed, N, *, real=False, scale=1.0):
    """A random Hermitian matrix, its entries of the size of `scale`."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, N)) + (0 if real else 1j) * rng.normal(size=(N, N))
    return jnp.asarray(scale * (A + A.conj().T) / 2)


def unitary(seed, N):
    """A random unitary matrix."""
    return jnp.asarray(np.linalg.eigh(np.asarray(hermitian(seed, N)))[1])


def largest(x):
    """The largest modulus of an entry, as a float."""
    return float(np.max(np.abs(np.asarray(x))))


def parameters(
    *,
    levels,
    couplings,
    lengths,
    beta=0.4,
    mass=0.5,
    width=0.8,
    position=-2.0,
    rate=2.0,
):
    """Everything numeric as real arrays; a coupling by its diagonal, and Re and Im above it."""
    rows, columns = np.triu_indices(len(levels), 1)
    W = np.asarray(couplings)
    diagonal = np.real(np.diagonal(W, axis1=1, axis2=2))
    upper = W[:, rows, columns]
    numbers = dict(beta=beta, mass=mass, width=width, position=position, rate=rate)
    return {name: jnp.asarray(value, float) for name, value in numbers.items()} | {
        "levels": jnp.asarray(levels, float),
        "couplings": jnp.asarray(np.concatenate([diagonal, upper.real, upper.imag], axis=1)),
        "lengths": jnp.asarray(lengths, float),
    }


def build(numbers):
    """The system and the reservoir with these `parameters`, which may be traced."""
    levels = numbers["levels"]
    N = levels.shape[0]
    rows, columns = np.triu_indices(N, 1)

    def coupling(x):
        upper = x[N : N + len(rows)] + 1j * x[N + len(rows) :]
        W = jnp.diag(x[:N]).astype(upper.dtype)
        return W.at[rows, columns].set(upper).at[columns, rows].set(jnp.conj(upper))

    slabs = [
        jr.Slab(coupling=coupling(x), length=d)
        for x, d in zip(numbers["couplings"], numbers["lengths"], strict=True)
    ]
    packet = jr.EffusionPacket(
        **{name: numbers[name] for name in ("beta", "mass", "width", "position")}
    )
    scatterer = slabs[0] if len(slabs) == 1 else jr.Stack(slabs)
    return jr.System(levels), jr.Reservoir(packet=packet, scatterer=scatterer, rate=numbers["rate"])


def solve(numbers, quadrature=None):
    """The scattering map and the steady state for these `parameters`."""
    system, reservoir = build(numbers)
    S = jr.scattering_map(system, reservoir, quadrature=quadrature or jr.DoubleExponential())
    return S, jr.steady_state(system, jr.Collisions(S, reservoir.rate))


def slope(f, h):
    """The derivative of f(t) at t = 0 by central differences of fourth order; `f` takes one number."""
    far_below, below, above, far_above = (np.asarray(f(k * h)) for k in (-2, -1, 1, 2))
    return (8 * (above - below) - (far_above - far_below)) / (12 * h)


def jacobian(f, x, h):
    """The derivatives of f(x) with respect to the numbers of a vector, the last axis, in the same way."""
    return np.stack([slope(lambda t, e=e: f(x + t * e), h) for e in np.eye(x.size)], axis=-1)
