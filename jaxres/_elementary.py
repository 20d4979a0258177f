"""sin, cos and exp of whole arrays, written as polynomials.

Compilers for CPUs call those of the C library one number at a time, or evaluate them in a loop of their own, which costs
more than everything else in a slab. Written out they are vectorised, and are a part of the loop that they stand in.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_PI = Fraction("3.141592653589793238462643383279502884197169399375105820975")
_LOG_2 = Fraction("0.693147180559945309417232121458176568075500134360255254121")

_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(11)]
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(11)]
_EXPONENTIAL = [1 / math.factorial(k) for k in range(14)]


def polynomial(coefficients: list[float], z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Σ_k a_k z^k."""
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


def sine_series(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """sin(√z)/√z for |z| ≤ π²/4, negative z too."""
    return polynomial(_SINE[: 11 if z.dtype == jnp.float64 else 7], z)


def cosine_series(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """cos √z for |z| ≤ π²/4, negative z too."""
    return polynomial(_COSINE[: 11 if z.dtype == jnp.float64 else 7], z)


def half_turns(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """r with |r| ≤ π/2 and x = nπ + r, and (−1)^n."""
    n = jnp.round(x / math.pi)
    return _minus(x, n, _PI), 1 - 2 * (n - 2 * jnp.floor(n / 2))


def _minus(x, n, constant):
    """x − n·constant for integers n, by pieces of the constant of which the products with n are exact."""
    bits = 33 if x.dtype == jnp.float64 else 12
    for _ in range(3):
        unit = Fraction(2) ** (math.frexp(float(constant))[1] - bits)
        piece = round(constant / unit) * unit
        x, constant = x - n * float(piece), constant - piece
    return x


@jax.custom_jvp
def sin_cos(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """(sin x, cos x).

    In double precision right to 3e-16 up to |x| of about 1e6; beyond, the absolute error grows as x·1e-22.
    """
    r, sign = half_turns(x)
    return sign * r * sine_series(r * r), sign * cosine_series(r * r)


@sin_cos.defjvp
def _sin_cos_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    sine, cosine = sin_cos(x)
    return (sine, cosine), (cosine * dx, -sine * dx)


@jax.custom_jvp
def exp(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """e^x, in double precision right to 3e-16; 0 where it is less than the smallest normal number."""
    double = x.dtype == jnp.float64
    kind = jnp.finfo(x.dtype)
    least, most = math.log(kind.tiny), math.log(kind.max)
    n = jnp.round(jnp.clip(x, least, most) / math.log(2))
    r = _minus(x, n, _LOG_2)
    value = polynomial(_EXPONENTIAL[: 14 if double else 8], r)
    # times 2^n, in two steps lest 2^n itself overflow where e^x does not
    half = jnp.floor(n / 2)
    value = value * _power_of_two(half) * _power_of_two(n - half)
    return jnp.where(x < least, 0, jnp.where(x > most, jnp.inf, value))


def _power_of_two(n):
    """2^n by its bits, for integers n stored as floating-point numbers."""
    kind = jnp.finfo(n.dtype)
    integer = jnp.int64 if kind.bits == 64 else jnp.int32
    # the lowest bits of n + 3·2^(mantissa − 1) are n
    bits = jax.lax.bitcast_convert_type(n + 3 * 2.0 ** (kind.nmant - 1), integer)
    bits = jnp.left_shift(bits + (kind.maxexp - 1), kind.nmant)
    return jax.lax.bitcast_convert_type(bits, n.dtype)


@exp.defjvp
def _exp_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    value = exp(x)
    return value, value * dx
