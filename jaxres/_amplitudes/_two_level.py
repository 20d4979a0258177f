r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic.

The same formulas as `_exact._one_slab`; this file only makes them fast. Two facts help.

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
    """As `AbstractAmplitudes.outgoing`, for N = 2 and one slab."""
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

    size = (jnp.abs(energy) + jnp.abs(across)) / 2 + (
        jnp.sqrt(own**2 + other**2 + 2 * w2 + 0 * half) + 1 / (8 * mass * h**2)
    )
    k0 = jax.lax.stop_gradient(jnp.sqrt(2 * mass * size))
    functions = [_half_slab(2 * mass * (energy - v), h, k0) for v in (middle + delta, middle - delta)]

    def matrix(upper, lower):
        """f(H) as (own-own, other-other, off-diagonal without the phase)."""
        mean, slope = (upper + lower) / 2, (upper - lower) / (2 * delta)
        return mean + slope * half, mean - slope * half, slope

    (C1, C2, Cx), (A1, A2, Ax), (D1, D2, Dx), (S1, S2, Sx), (T1, T2, Tx) = map(matrix, *functions)

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
    # odd part: Q = C − i K S
    Q11, Q12 = odd(D1, S1, k, zero), odd(Dx, Sx, k, zero)
    Q21, Q22 = odd(Dx, Sx, k_open, k_closed), odd(D2, S2, k_open, k_closed)
    det = _reciprocal(_sub(_mul(Q11, Q22), _scale(w2, _mul(Q12, Q21))))

    z1 = _add(_scale(T1, y1), _scale(w2 * Tx, y2))
    z2 = _add(_scale(Tx, y1), _scale(T2, y2))
    plus1 = _mul(_sub(_mul(z1, Q22), _scale(w2, _mul(z2, Q21))), det)
    plus2 = _mul(_sub(_mul(z2, Q11), _mul(z1, Q12)), det)
    minus1 = _sub(
        _add(_scale(C1, y1), _scale(w2 * Cx, y2)),
        _mul(_sub(_scale(S1, Q22), _scale(w2 * Sx, Q21)), det),
    )
    minus2 = _sub(
        _add(_scale(Cx, y1), _scale(C2, y2)), _mul(_sub(_scale(Sx, Q11), _scale(S1, Q12)), det)
    )

    def outgoing(same, cross, reflected):
        """a = i k g − δ, with the phase of the coupling."""
        stay = jax.lax.complex(-k * same[1] - reflected, k * same[0])
        flip = jax.lax.complex(-k * cross[1], k * cross[0])
        return jnp.stack(
            [jnp.stack([stay[0], w * flip[0]]), jnp.stack([jnp.conj(w) * flip[1], stay[1]])]
        )

    return jnp.stack([outgoing(plus1, plus2, 0.0), outgoing(minus1, minus2, 1.0)])


def _half_slab(A, h, k0):
    """C/n_e, A S/n_e, C/n_o, S/n_o and 1/(n_e n_o) for one eigenvalue of A."""
    c, s, decay = slab_waves(A, h)
    even, odd = A * s, k0 * s
    n_e, n_o = 1 / jnp.sqrt(c**2 + (even / k0) ** 2), 1 / jnp.sqrt(c**2 + odd**2)
    return c * n_e, even * n_e, c * n_o, s * n_o, decay**2 * (n_e * n_o)
