r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic.

The same formulas as `_exact.parity_rows`; this file only makes them fast. Two facts help.

A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

with no eigenvector in it. And with H_01 = w every such matrix, every product of them with K, and every inverse has the
form [[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K, and the phase of
the coupling is put back at the end, without a division.

In each row of amplitudes the outgoing level is called "own" and the other one "other"; arrays run over the nodes.

The two eigenvalues and the two outgoing levels are gone through in loops (`jax.lax.map`). A compiler for CPUs would
otherwise merge everything into one expression for each output and evaluate common parts a dozen times.
"""

import jax
import jax.numpy as jnp

from .._safe import safe_sqrt, slab_waves

# Complex numbers are pairs (real, imaginary) here: most factors are real, and the compiler cannot know.


def _mul(x, y):
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _scale(a, x):
    return a * x[0], a * x[1]


def _sub(x, y):
    return x[0] - y[0], x[1] - y[1]


def _reciprocal(x):
    size = 1 / (x[0] ** 2 + x[1] ** 2)
    return x[0] * size, -x[1] * size


def two_level_exits(kinetic, layers, levels, mass):
    """The amplitudes of the even and the odd exit: for each, those that keep the level and those that change it.

    A list of (stay, flip); each is a pair (real, imaginary) of arrays (2, n), indexed by the outgoing level.
    """
    W, h = layers.couplings[0], layers.thicknesses[0] / 2
    w = W[0, 1]
    w2 = jnp.real(w) ** 2 + jnp.imag(w) ** 2
    energy = kinetic[0, 0]  # the outgoing kinetic energy
    k = safe_sqrt(2 * mass * energy)
    inner = jnp.real(jnp.stack([W[0, 0], W[1, 1]]))

    def row(level):
        own, shift, across = level
        other = own[1] + shift
        own = own[0]
        middle, half = (own + other) / 2, (own - other) / 2
        radius2 = half**2 + w2
        # At an exact degeneracy the line is drawn through two points very close to it.
        least = (1e-7 * (1 + jnp.abs(middle))) ** 2
        delta = jnp.sqrt(jnp.where(radius2 > least, radius2, least))

        def waves(v):
            A = 2 * mass * (energy - v)
            c, s, _ = slab_waves(A, h)
            return c, s, A * s

        waves_at_both = jax.lax.map(waves, jnp.stack([middle + delta, middle - delta]))

        def matrix(f):
            """f(H) as (own-own, other-other, off-diagonal without the phase)."""
            mean, slope = (f[0] + f[1]) / 2, (f[0] - f[1]) / (2 * delta)
            return mean + slope * half, mean - slope * half, slope

        (C1, C2, Cx), (S1, S2, Sx), (A1, A2, Ax) = map(matrix, waves_at_both)
        k_open, k_closed = safe_sqrt(2 * mass * across), safe_sqrt(-2 * mass * across)

        # even part: P = i C K + A S; the row "own" of P⁻¹ C
        P11, P21 = (A1, C1 * k), (Ax, Cx * k)
        P12, P22 = (Ax - Cx * k_closed, Cx * k_open), (A2 - C2 * k_closed, C2 * k_open)
        det = _reciprocal(_sub(_mul(P11, P22), _scale(w2, _mul(P12, P21))))
        even_own = _mul(_sub(_scale(C1, P22), _scale(w2 * Cx, P12)), det)
        even_other = _mul(_sub(_scale(Cx, P22), _scale(C2, P12)), det)
        # odd part: Q = C − i K S; the row "own" of −S Q⁻¹
        Q11, Q12 = (C1, -S1 * k), (Cx, -Sx * k)
        Q21, Q22 = (Cx + Sx * k_closed, -Sx * k_open), (C2 + S2 * k_closed, -S2 * k_open)
        det = _reciprocal(_sub(_mul(Q11, Q22), _scale(w2, _mul(Q12, Q21))))
        odd_own = _mul(_sub(_scale(w2 * Sx, Q21), _scale(S1, Q22)), det)
        odd_other = _mul(_sub(_scale(S1, Q12), _scale(Sx, Q11)), det)

        # a = (−1 + 2i k g)/√2
        scale = 2**0.5 * k
        return [
            ((-scale * own[1] - 0.5**0.5, scale * own[0]), (-scale * other[1], scale * other[0]))
            for own, other in ((even_own, even_other), (odd_own, odd_other))
        ]

    shift = levels[1] - levels[0]
    exits = jax.lax.map(
        row,
        (
            jnp.stack([inner, inner[::-1]]),
            jnp.stack([shift, -shift]),
            jnp.stack([kinetic[0, 1], kinetic[1, 0]]),
        ),
    )
    # the phase of the coupling: w for 0 ← 1, w* for 1 ← 0
    turn = jnp.real(w), jnp.stack([jnp.imag(w), -jnp.imag(w)])[:, None]
    return [(stay, _mul(turn, flip)) for stay, flip in exits]
