r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic, and their derivative.

The same formulas as `_exact.parity_rows`; this file only makes them fast. Two facts help.

A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

with no eigenvector in it. And with H_01 = w every such matrix, every product of them with K, and every inverse has the
form [[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K.

In each row of amplitudes the outgoing level is called "own" and the other one "other"; arrays run over the nodes.

The two eigenvalues and the two outgoing levels are gone through in loops (`jax.lax.map`). A compiler for CPUs would
otherwise merge everything into one expression for each output and evaluate common parts a dozen times.

**The derivative** is written by hand as well. The even wave is g = (iK + Z)⁻¹ with the logarithmic derivative
Z = A S/C, a function of A = 2m(E − H), and the odd one −(C/S − iK)⁻¹. So

    δg = −g (i δK + δZ) g,      δZ = C⁻¹ M C⁻¹,      M_ab = δA_ab (A_a S_a C_b − A_b S_b C_a)/(A_a − A_b)

in the eigenbasis of A; g C⁻¹ = P⁻¹ is the inverse that was computed for g, and M, unlike Z, has no pole. (M is 2m times
the overlap of the perturbation with two waves, integrated over half the slab.) For the odd wave S takes the place of
C, and (C_a S_b − C_b S_a)/(A_a − A_b) that of the quotient. A change of thickness adds A δh to M for the even wave,
−δh for the odd one. M too is a straight line in H, but for the part of δH that does not commute with H.
"""

import jax
import jax.numpy as jnp

from .._safe import safe_sqrt, slab_slope, slab_waves

# Complex numbers are pairs (real, imaginary) here: most factors are real, and the compiler cannot know.


def _mul(x, *others):
    for y in others:
        x = x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]
    return x


def _scale(a, x):
    return a * x[0], a * x[1]


def _add(x, *others):
    for y in others:
        x = x[0] + y[0], x[1] + y[1]
    return x


def _reciprocal(x):
    size = 1 / (x[0] ** 2 + x[1] ** 2)
    return x[0] * size, -x[1] * size


def two_level_exits(kinetic, layers, levels, mass):
    """The amplitudes of the even and the odd exit: for each, those that keep the level and those that change it.

    A list of (stay, flip); each is a pair (real, imaginary) of arrays (2, n), indexed by the outgoing level.
    """
    W, h = layers.couplings[0], layers.thicknesses[0] / 2
    energy = kinetic[0, 0]  # the outgoing kinetic energy, of either level
    k = safe_sqrt(2 * mass * energy)

    def row(level):
        own, other, w, across = level
        lead = safe_sqrt(2 * mass * across), safe_sqrt(-2 * mass * across)
        waves = _parity_row(own, other, (w[0], w[1]), 2 * mass, h, energy, k, lead)
        # a = (−1 + 2i k g)/√2
        scale = 2**0.5 * k
        return [
            ((-scale * stay[1] - 0.5**0.5, scale * stay[0]), (-scale * flip[1], scale * flip[0]))
            for stay, flip in waves
        ]

    inner = jnp.real(jnp.stack([W[0, 0], W[1, 1]]))
    shift = levels[1] - levels[0]
    w = jnp.real(W[0, 1]), jnp.imag(W[0, 1])
    return jax.lax.map(
        row,
        (
            inner,
            inner[::-1] + jnp.stack([shift, -shift]),
            jnp.stack([jnp.stack(w), jnp.stack([w[0], -w[1]])]),
            jnp.stack([kinetic[0, 1], kinetic[1, 0]]),
        ),
    )


@jax.custom_jvp
def _parity_row(own, other, w, two_mass, h, energy, k, lead):
    """Row "own" of g_e and g_o: [(own-own, own-other), …], each a pair (real, imaginary).

    `own`, `other` and the complex `w` are the inner Hamiltonian, `k` and `lead` (complex) the leads' wavenumbers.
    """
    line, (c, s, As) = _inside(own, other, w, two_mass, h, energy, _waves)
    w2 = w[0] ** 2 + w[1] ** 2
    _, *even = _even(line(c), line(As), w2, k, lead)
    _, *odd = _odd(line(c), line(s), w2, k, lead)
    return [(stay, _mul(w, flip)) for stay, flip, _ in (even, odd)]


def _waves(A, h):
    c, s, _ = slab_waves(A, h)
    return c, s, A * s


def _waves_and_overlaps(A, h):
    """The same, and M of this module's docstring for one eigenvalue: for a change of A and of h, even and odd."""
    c, s, decay = slab_waves(A, h)
    thin = decay**2
    even, odd = (s * c + h * thin) / 2, -(h * s**2 / 2 + c * slab_slope(A, h, c, s, decay))
    return c, s, A * s, even, odd, A * thin, thin, decay


def _inside(own, other, w, two_mass, h, energy, functions):
    """Some functions of A at both eigenvalues, and how to make (own-own, other-other, off-diagonal/w) of one."""
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(middle, half, w)
    values = jax.lax.map(
        lambda v: functions(two_mass * (energy - v), h),
        jnp.stack([middle + delta, middle - delta]),
    )

    def line(f):
        mean, slope = (f[0] + f[1]) / 2, (f[0] - f[1]) / (2 * delta)
        return mean + slope * half, mean - slope * half, slope

    return line, values


def _half_distance(middle, half, w):
    """δ; at an exact degeneracy the line is drawn through two points very close to it."""
    radius2 = half**2 + (w[0] ** 2 + w[1] ** 2)
    least = (1e-7 * (1 + jnp.abs(middle))) ** 2
    return jnp.sqrt(jnp.where(radius2 > least, radius2, least))


def _inverse(M11, M22, M12, M21, w2):
    """The inverse of [[M11, w M12], [w* M21, M22]] in the same form."""
    det = _reciprocal(_add(_mul(M11, M22), _scale(-w2, _mul(M12, M21))))
    minus = -det[0], -det[1]
    return _mul(M22, det), _mul(M11, det), _mul(M12, minus), _mul(M21, minus)


def _even(C, AS, w2, k, lead):
    """P⁻¹ with P = i C K + A S, and g_e = P⁻¹ C: own-own, own-other, other-other."""
    (C1, C2, Cx), (A1, A2, Ax), (q, kappa) = C, AS, lead
    P = (A1, C1 * k), (A2 - C2 * kappa, C2 * q), (Ax - Cx * kappa, Cx * q), (Ax, Cx * k)
    p11, p22, p12, p21 = inverse = _inverse(*P, w2)
    stay = _add(_scale(C1, p11), _scale(w2 * Cx, p12))
    flip = _add(_scale(Cx, p11), _scale(C2, p12))
    return inverse, stay, flip, _add(_scale(C2, p22), _scale(w2 * Cx, p21))


def _odd(C, S, w2, k, lead):
    """The transpose of Q⁻¹ with Q = C − i K S, and g_o = −S Q⁻¹: own-own, own-other, other-other."""
    (C1, C2, Cx), (S1, S2, Sx), (q, kappa) = C, S, lead
    Q = (C1, -S1 * k), (C2 + S2 * kappa, -S2 * q), (Cx, -Sx * k), (Cx + Sx * kappa, -Sx * q)
    q11, q22, q12, q21 = _inverse(*Q, w2)
    stay = _add(_scale(-S1, q11), _scale(-w2 * Sx, q21))
    flip = _add(_scale(-S1, q12), _scale(-Sx, q22))
    other = _add(_scale(-S2, q22), _scale(-w2 * Sx, q12))
    return (q11, q22, q21, q12), stay, flip, other


@_parity_row.defjvp
def _parity_row_jvp(primals, tangents):
    own, other, w, two_mass, h, energy, k, lead = primals
    d_own, d_other, dw, d_two_mass, dh, d_energy, dk, d_lead = tangents
    line, values = _inside(own, other, w, two_mass, h, energy, _waves_and_overlaps)
    c, s, As, even, odd, even_h, odd_h, decay = values
    C, S, AS = map(line, (c, s, As))
    w2 = w[0] ** 2 + w[1] ** 2
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(middle, half, w)

    # δA = x (1) − (δ2m + 2m y) (H − μ) − 2m z,  z the part of δH that does not commute with H
    x = d_two_mass * (energy - middle) + two_mass * (d_energy - (d_own + d_other) / 2)
    d_half = (d_own - d_other) / 2
    y = (half * d_half + w[0] * dw[0] + w[1] * dw[1]) / delta**2
    along = -d_two_mass - two_mass * y
    z_half = -two_mass * (d_half - y * half)
    z_flip = -two_mass * (dw[0] - y * w[0]), -two_mass * (dw[1] - y * w[1])

    def overlap(diagonal, crossed, thickness):
        """M: own-own, other-other, and own-other (complex) for one parity."""
        mean, slope = (diagonal[0] + diagonal[1]) / 2, (diagonal[0] - diagonal[1]) / (2 * delta)
        # where the eigenvalues nearly meet, the quotient is noise, and up to δ² equal to the mean (without growth)
        meeting = (diagonal[0] * ratio + diagonal[1] / ratio) / 2
        crossed = jnp.where(delta < 1e-5 * (1 + jnp.abs(middle)), meeting, crossed)
        by_h = (thickness[0] + thickness[1]) / 2, (thickness[0] - thickness[1]) / (2 * delta)
        one = mean * x + slope * delta**2 * along + by_h[0] * dh
        linear = slope * x + mean * along + by_h[1] * dh
        apart = linear * half + crossed * z_half
        flip = tuple(linear * w[i] + crossed * z_flip[i] for i in (0, 1))
        return one + apart, one - apart, flip

    tiny = jnp.finfo(delta.dtype).tiny
    ratio = (decay[1] + tiny) / (decay[0] + tiny)
    distance = -2 * two_mass * delta
    M_even = overlap(even, (As[0] * c[1] - As[1] * c[0]) / distance, even_h)
    M_odd = overlap(odd, (c[0] * s[1] - c[1] * s[0]) / distance, (-odd_h[0], -odd_h[1]))

    out, tangent = [], []
    for sign, M, wave in (
        (-1, M_even, _even(C, AS, w2, k, lead)),
        (1, M_odd, _odd(C, S, w2, k, lead)),
    ):
        (p11, p22, p12, p21), stay, flip, opposite = wave
        M11, M22, M12 = M
        turned = w[0] * M12[0] + w[1] * M12[1]  # Re w* M12
        full_turn = _mul(w, w, (M12[0], -M12[1]))
        # ± P⁻¹ M P⁻ᵀ
        d_stay = _add(
            _scale(M11, _mul(p11, p11)),
            _scale(2 * turned, _mul(p11, p12)),
            _scale(w2 * M22, _mul(p12, p12)),
        )
        d_flip = _add(
            _mul(w, _add(_scale(M11, _mul(p11, p21)), _scale(M22, _mul(p12, p22)))),
            _mul(M12, p11, p22),
            _mul(full_turn, p12, p21),
        )
        # − i g δK g
        own_turn, other_turn = (0 * dk, -dk), (d_lead[1], -d_lead[0])
        d_stay = _add(
            _scale(sign, d_stay),
            _mul(own_turn, stay, stay),
            _scale(w2, _mul(other_turn, flip, flip)),
        )
        d_flip = _add(
            _scale(sign, d_flip),
            _mul(w, flip, _add(_mul(own_turn, stay), _mul(other_turn, opposite))),
        )
        out.append((stay, _mul(w, flip)))
        tangent.append((d_stay, d_flip))
    return out, tangent
