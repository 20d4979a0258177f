"""sin, cos and exp for the numba kernel: polynomials that vectorise, or the C library's."""

import math

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _chebyshev(function, degree, lower, upper):
    """Coefficients, lowest first, of the polynomial through the Chebyshev points."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, domain=[lower, upper])
    return tuple(float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)


_Z = (math.pi / 2) ** 2
S0, S1, S2, S3, S4, S5, S6, S7 = _chebyshev(lambda z: np.sinc(np.sqrt(z) / np.pi), 7, 0.0, _Z)
C0, C1, C2, C3, C4, C5, C6, C7 = _chebyshev(lambda z: np.cos(np.sqrt(z)), 7, 0.0, _Z)
E0, E1, E2, E3, E4, E5, E6, E7, E8, E9 = _chebyshev(lambda x: np.exp2(x), 9, -0.5, 0.5)


@intrinsic
def _bits(_context, _x):
    """The bits of a double as an integer."""

    def lower(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), lower


@intrinsic
def _double(_context, _n):
    """The double with the given bits."""

    def lower(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), lower


jit = nb.njit(fastmath=True, error_model="numpy", inline="always")


@jit
def _poly_sin_cos(x):
    """(sin r, cos r, n) with x = n pi + r, |r| <= pi/2: no branch, so that it vectorises."""
    n = np.floor(x * (1.0 / math.pi) + 0.5)
    r = x - n * math.pi
    z = r * r
    s = S0 + z * (S1 + z * (S2 + z * (S3 + z * (S4 + z * (S5 + z * (S6 + z * S7))))))
    c = C0 + z * (C1 + z * (C2 + z * (C3 + z * (C4 + z * (C5 + z * (C6 + z * C7))))))
    return r * s, c, n


@jit
def poly_exp(x):
    """e^x for x <= 0, zero below e^{-700}."""
    y = max(x, -700.0) * (1.0 / math.log(2.0))
    n = np.floor(y + 0.5)
    r = y - n
    p = E5 + r * (E6 + r * (E7 + r * (E8 + r * E9)))
    p = E0 + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * p))))
    power = (_bits(n + 6755399441055744.0) + 1023) << 52
    return p * _double(power)


@jit
def poly_cis(x):
    """(cos x, sin x)."""
    s, c, n = _poly_sin_cos(x)
    sign = 1.0 - 2.0 * (n - 2.0 * np.floor(0.5 * n))
    return sign * c, sign * s


@jit
def poly_half(A, h):
    """(cos(Q h), sin(Q h) / Q) up to a common factor (a sign; e^{-|Q| h} where Q^2 = A < 0)."""
    Q = max(math.sqrt(abs(A)), 1e-8)
    s, c, _ = _poly_sin_cos(Q * h)
    decay = poly_exp(-2.0 * Q * h)
    closed = A < 0.0
    C = 0.5 + 0.5 * decay if closed else c
    S = 0.5 - 0.5 * decay if closed else s
    return C, S / Q


@jit
def libm_exp(x):
    return math.exp(x)


@jit
def libm_cis(x):
    return math.cos(x), math.sin(x)


@jit
def libm_half(A, h):
    Q = max(math.sqrt(abs(A)), 1e-8)
    if A < 0.0:
        decay = math.exp(-2.0 * Q * h)
        return 0.5 + 0.5 * decay, (0.5 - 0.5 * decay) / Q
    return math.cos(Q * h), math.sin(Q * h) / Q
