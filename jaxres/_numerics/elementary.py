"""sin, cos and exp of whole arrays as polynomials, and products of complex numbers as pairs.

On CPUs XLA calls these functions of the C library for one number at a time, or evaluates them in a separate loop,
which costs more than all the rest of a slab. As polynomials they are vectorised and fused with the surrounding loop.
There, complex numbers are pairs (real, imaginary), since most factors are real, which the compiler cannot infer.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_PI = Fraction("3.141592653589793238462643383279502884197169399375105820975")
_LOG_2 = Fraction("0.693147180559945309417232121458176568075500134360255254121")


def _coefficients(series, lower, upper, single, double):
    """Coefficients of the polynomials that interpolate a power series at Chebyshev points, for each precision.

    `single` and `double` are the numbers of terms.
    """
    tables = {}
    for dtype, n in (("float32", single), ("float64", double)):
        t = np.cos(np.pi * (2 * np.arange(n) + 1) / (2 * n))
        x = (lower + upper) / 2 + (upper - lower) / 2 * t
        # points of 12 bits serve as well, and keep the fractions short
        x = [Fraction(round(a * 2**12), 2**12) for a in x.tolist()]
        divided = [sum(a * y**k for k, a in enumerate(series)) for y in x]
        for k in range(1, n):  # Newton's divided differences
            higher = [(divided[i] - divided[i - 1]) / (x[i] - x[i - k]) for i in range(k, n)]
            divided = divided[:k] + higher
        table = [Fraction(0)]
        for point, a in zip(x[::-1], divided[::-1], strict=True):  # the Newton form, multiplied out
            table = [y - point * z for y, z in zip([a, *table], [*table, 0], strict=True)]
        tables[np.dtype(dtype)] = [float(a) for a in table[:n]]
    return tables


_Z = (-0.25, (math.pi / 2) ** 2)
_COSINE = _coefficients([Fraction((-1) ** k, math.factorial(2 * k)) for k in range(16)], *_Z, 7, 10)
_SINE = _coefficients(
    [Fraction((-1) ** k, math.factorial(2 * k + 1)) for k in range(16)], *_Z, 6, 9
)
_EXPONENTIAL = _coefficients(
    [Fraction(1, math.factorial(k)) for k in range(24)], -math.log(2) / 2, math.log(2) / 2, 7, 12
)


def polynomial(coefficients: list[float], z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The polynomial Σ_k a_k z^k, by Horner's rule."""
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


def sine_series(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The function sin(√z)/√z for −1/4 ≤ z ≤ π²/4."""
    return polynomial(_SINE[z.dtype], z)


def cosine_series(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The cosine of √z for −1/4 ≤ z ≤ π²/4."""
    return polynomial(_COSINE[z.dtype], z)


def half_turns(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """Returns r and (−1)^n with x = nπ + r and |r| ≤ π/2."""
    n = jnp.round(x / math.pi)
    return _minus(x, n, _PI), 1 - 2 * (n - 2 * jnp.floor(n / 2))


def _minus(x, n, constant):
    """The difference x − n·constant for integers n, by pieces of the constant whose products with n are exact.

    A piece of 33 bits and an n of 20 fit into the 53 bits of a double, 12 and 12 into the 24 of a single.
    """
    bits = 33 if x.dtype == jnp.float64 else 12
    for _ in range(3):
        unit = Fraction(2) ** (math.frexp(float(constant))[1] - bits)
        piece = round(constant / unit) * unit
        x, constant = x - n * float(piece), constant - piece
    return x


@jax.custom_jvp
def sin_cos(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """The pair (sin x, cos x).

    In double precision it is right to 3e-16 for |x| up to about 1e6; beyond, the absolute error grows as x·1e-22.
    """
    r, sign = half_turns(x)
    return sign * r * sine_series(r * r), sign * cosine_series(r * r)


@sin_cos.defjvp
def _sin_cos_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    sine, cosine = sin_cos(x)
    return (sine, cosine), (cosine * dx, -sine * dx)


@jax.custom_jvp
def falling_exp(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The exponential e^x for x ≤ 0, right to 3e-16 in double precision and never below the smallest normal number."""
    x = jnp.maximum(x, math.log(jnp.finfo(x.dtype).tiny))
    n = jnp.round(x / math.log(2))
    return polynomial(_EXPONENTIAL[x.dtype], _minus(x, n, _LOG_2)) * _power_of_two(n)


@falling_exp.defjvp
def _falling_exp_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    value = falling_exp(x)
    return value, value * dx


def _power_of_two(n):
    """The power 2^n for integers n stored as floating-point numbers, assembled from its bits."""
    kind = jnp.finfo(n.dtype)
    integer = jnp.int64 if kind.bits == 64 else jnp.int32
    # the lowest bits of n + 3·2^(mantissa − 1) are n
    bits = jax.lax.bitcast_convert_type(n + 3 * 2.0 ** (kind.nmant - 1), integer)
    bits = jnp.left_shift(bits + (kind.maxexp - 1), kind.nmant)
    return jax.lax.bitcast_convert_type(bits, n.dtype)


def times(x, y):
    """The product of two numbers, each of them a pair (real, imaginary), or (real,) if it is real."""
    if len(x) == 1 or len(y) == 1:
        return tuple(a * b for a in x for b in y)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def conjugate(x):
    """The complex conjugate of a pair (real, imaginary), or of a real number as (real,)."""
    return x[0], *(-y for y in x[1:])
