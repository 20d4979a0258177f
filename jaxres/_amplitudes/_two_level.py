r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic.

The same formulas as `_exact.parity_rows`; this file only makes them fast. Two facts help.

A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

with no eigenvector in it. And with H_01 = w every such matrix, every product of them with K, and every inverse has the
form [[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K, and the phase of
the coupling is put back at the end, without a division.

In each row of amplitudes the outgoing level is called "own" and the other one "other"; all arrays have the shape (2, n):
outgoing level, node.
"""

import jax
import jax.numpy as jnp

from .._safe import safe_sqrt, slab_waves

# Complex numbers are pairs (real, imaginary) here: most factors are real, and the compiler cannot know.


def _mul(x, y):
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _scale(a, x):
    return a * x[0], a * x[1]


def _add(x, y):
    return x[0] + y[0], x[1] + y[1]


def _sub(x, y):
    return x[0] - y[0], x[1] - y[1]


def _reciprocal(x):
    size = 1 / (x[0] ** 2 + x[1] ** 2)
    return x[0] * size, -x[1] * size


def two_level_outgoing(kinetic, layers, levels, mass):
    """As `AbstractAmplitudes.outgoing`, for N = 2 and one slab: the exits are its even and odd part."""
    W, h = layers.couplings[0], layers.thicknesses[0] / 2
    w = W[0, 1]
    w2 = jnp.real(w) ** 2 + jnp.imag(w) ** 2

    energy = kinetic[0, 0][None]  # the outgoing kinetic energy, (1, n)
    across = jnp.stack([kinetic[0, 1], kinetic[1, 0]])  # kinetic energy in the other channel, (2, n)
    own = jnp.real(jnp.stack([W[0, 0], W[1, 1]]))[:, None]
    other = own[::-1] + jnp.stack([levels[1] - levels[0], levels[0] - levels[1]])[:, None]
    middle, half = (own + other) / 2, (own - other) / 2  # (2, 1)
    radius2 = half**2 + w2
    # At an exact degeneracy the line is drawn through two points very close to it.
    least = (1e-7 * (1 + jnp.abs(middle))) ** 2
    delta = jnp.sqrt(jnp.where(radius2 > least, radius2, least))

    upper, lower = (2 * mass * (energy - v) for v in (middle + delta, middle - delta))
    c_upper, s_upper, _ = slab_waves(upper, h)
    c_lower, s_lower, _ = slab_waves(lower, h)

    def matrix(at_upper, at_lower):
        """f(H) as (own-own, other-other, off-diagonal without the phase)."""
        mean, slope = (at_upper + at_lower) / 2, (at_upper - at_lower) / (2 * delta)
        return mean + slope * half, mean - slope * half, slope

    C1, C2, Cx = matrix(c_upper, c_lower)
    S1, S2, Sx = matrix(s_upper, s_lower)
    A1, A2, Ax = matrix(upper * s_upper, lower * s_lower)

    k = safe_sqrt(2 * mass * energy)
    k_open, k_closed = safe_sqrt(2 * mass * across), safe_sqrt(-2 * mass * across)

    def even(c, a, open_, closed):
        """c iκ + a with κ = open + i closed."""
        return a - c * closed, c * open_

    def odd(c, s, open_, closed):
        return c + s * closed, -s * open_

    zero = jnp.zeros_like(k)
    # even part: P = i C K + A S, its row "own" of the inverse
    P11, P21 = even(C1, A1, k, zero), even(Cx, Ax, k, zero)
    P12, P22 = even(Cx, Ax, k_open, k_closed), even(C2, A2, k_open, k_closed)
    det = _reciprocal(_sub(_mul(P11, P22), _scale(w2, _mul(P12, P21))))
    y1, y2 = _mul(P22, det), _mul((-P12[0], -P12[1]), det)
    even_own = _add(_scale(C1, y1), _scale(w2 * Cx, y2))
    even_other = _add(_scale(Cx, y1), _scale(C2, y2))
    # odd part: Q = C − i K S, the row "own" of S Q⁻¹
    Q11, Q12 = odd(C1, S1, k, zero), odd(Cx, Sx, k, zero)
    Q21, Q22 = odd(Cx, Sx, k_open, k_closed), odd(C2, S2, k_open, k_closed)
    det = _reciprocal(_sub(_mul(Q11, Q22), _scale(w2, _mul(Q12, Q21))))
    odd_own = _mul(_sub(_scale(w2 * Sx, Q21), _scale(S1, Q22)), det)
    odd_other = _mul(_sub(_scale(S1, Q12), _scale(Sx, Q11)), det)

    w_real, w_imag = jnp.real(w), jnp.imag(w)
    turn = (w_real, jnp.stack([w_imag, -w_imag])[:, None])  # w for 0 ← 1, w* for 1 ← 0
    amplitudes = []
    for own, other in ((even_own, even_other), (odd_own, odd_other)):
        stay = _ROOT2 * k * own[0], _ROOT2 * k * own[1]
        stay = -stay[1] - 1 / _ROOT2, stay[0]
        flip = _mul(turn, (-_ROOT2 * k * other[1], _ROOT2 * k * other[0]))
        amplitudes.append((stay, flip))

    def component(part):
        return [
            [[stay[part][0], flip[part][0]], [flip[part][1], stay[part][1]]]
            for stay, flip in amplitudes
        ]

    return component(0), component(1)


_ROOT2 = 2**0.5
