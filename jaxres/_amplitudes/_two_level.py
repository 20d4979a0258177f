r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic, and their derivative.

The same formulas as `_exact.parity_rows`; this file only makes them fast. Two facts help.

A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

with no eigenvector in it. And with H_01 = w every such matrix, every product of them with K, and every inverse has the
form [[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K.

In each row of amplitudes the outgoing level is called "own" and the other one "other"; arrays run over the nodes.

The even wave is g = (i C K + A S)⁻¹ C and the odd one the transpose of (i S K − C)⁻¹ S: of the same form with
(F, G) = (C, A S) or (S, −C),

    g = (i F K + G)⁻¹ F,

and in a row of this form a transpose only changes places of w and w*.

The two eigenvalues and the two outgoing levels are gone through in loops (`jax.lax.map`). A compiler for CPUs would
otherwise merge everything into one expression for each output and evaluate common parts a dozen times. For the same
reason the loops give back as little as possible, and nothing is kept for reverse mode: it computes a row once more.

**The derivative** is written by hand as well. With the logarithmic derivative Z = G/F, a function of A = 2m(E − H),
the wave is g = (iK + Z)⁻¹. So

    δg = −g (i δK + δZ) g,      δZ = F⁻¹ M F⁻¹,      M_ab = δA_ab (G_a F_b − G_b F_a)/(A_a − A_b)

in the eigenbasis of A; g F⁻¹ = P⁻¹ is the inverse that was computed for g, and M, unlike Z, has no pole. (M is 2m times
the overlap of the perturbation with two waves, integrated over half the slab.) A change δh of thickness adds A δh to M
for the even wave, and δh for the odd one. M too is a straight line in H, but for the part of δH that does not commute
with H.
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

    @jax.checkpoint
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
    """Row "own" of g, even and odd: own-own and own-other, each a pair (real, imaginary).

    `own`, `other` and the complex `w` are the inner Hamiltonian, `k` and `lead` (complex) the leads' wavenumbers.
    """
    A, line, (c, s, _) = _inside(own, other, w, two_mass, h, energy)
    w2 = w[0] ** 2 + w[1] ** 2

    def wave(F, G):
        _, stay, flip, _ = _wave(line(F), line(G), w2, k, lead)
        return stay, _mul(w, flip)

    return [wave(c, A * s), wave(s, -c)]


def _inside(own, other, w, two_mass, h, energy):
    """A at both eigenvalues, how to make (own-own, other-other, off-diagonal/w) of two values, and `slab_waves`."""
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(middle, half, w)
    A = two_mass * (energy[None] - jnp.stack([middle + delta, middle - delta])[:, None])

    def line(f):
        mean, slope = (f[0] + f[1]) / 2, (f[0] - f[1]) / (2 * delta)
        return mean + slope * half, mean - slope * half, slope

    return A, line, jax.lax.map(lambda A: slab_waves(A, h), A)


def _half_distance(middle, half, w):
    """δ; at an exact degeneracy the line is drawn through two points very close to it."""
    radius2 = half**2 + (w[0] ** 2 + w[1] ** 2)
    least = (1e-7 * (1 + jnp.abs(middle))) ** 2
    return jnp.sqrt(jnp.where(radius2 > least, radius2, least))


def _wave(F, G, w2, k, lead):
    """P⁻¹ with P = i F K + G, in the form of this module's docstring, and of g = P⁻¹ F what is not known by symmetry.

    These are own-own, own-other/w and other-other.
    """
    (F1, F2, Fx), (G1, G2, Gx), (q, kappa) = F, G, lead
    P11, P22 = (G1, F1 * k), (G2 - F2 * kappa, F2 * q)
    P12, P21 = (Gx - Fx * kappa, Fx * q), (Gx, Fx * k)
    det = _reciprocal(_add(_mul(P11, P22), _scale(-w2, _mul(P12, P21))))
    minus = -det[0], -det[1]
    p11, p22, p12, p21 = _mul(P22, det), _mul(P11, det), _mul(P12, minus), _mul(P21, minus)
    stay = _add(_scale(F1, p11), _scale(w2 * Fx, p12))
    flip = _add(_scale(Fx, p11), _scale(F2, p12))
    return (p11, p22, p12, p21), stay, flip, _add(_scale(F2, p22), _scale(w2 * Fx, p21))


@_parity_row.defjvp
def _parity_row_jvp(primals, tangents):
    own, other, w, two_mass, h, energy, k, lead = primals
    d_own, d_other, dw, d_two_mass, dh, d_energy, dk, d_lead = tangents
    A, line, (c, s, decay) = _inside(own, other, w, two_mass, h, energy)
    w2 = w[0] ** 2 + w[1] ** 2
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(middle, half, w)

    # δA = x (1) − (δ2m + 2m y) (H − μ) − 2m z,  z the part of δH that does not commute with H
    x = d_two_mass * (energy - middle) + two_mass * (d_energy - (d_own + d_other) / 2)
    d_half = (d_own - d_other) / 2
    y = (half * d_half + w[0] * dw[0] + w[1] * dw[1]) / delta**2
    along = -d_two_mass - two_mass * y
    z_half = -two_mass * (d_half - y * half)
    z_flip = [-two_mass * (dw[i] - y * w[i]) for i in (0, 1)]

    tiny = jnp.finfo(delta.dtype).tiny
    ratio = (decay[1] + tiny) / (decay[0] + tiny)
    nearly = delta < 1e-5 * (1 + jnp.abs(middle))
    thin = decay**2
    slope = jax.lax.map(lambda at: slab_slope(at[0], h, at[1], at[2], at[3]), (A, c, s, decay))

    def wave(F, G, change, by_h):
        """The wave and its derivative; `change` and `by_h` are M for a change of A and of h, at both eigenvalues."""
        mean, slope = (change[0] + change[1]) / 2, (change[0] - change[1]) / (2 * delta)
        mean_h, slope_h = (by_h[0] + by_h[1]) / 2, (by_h[0] - by_h[1]) / (2 * delta)
        crossed = (G[0] * F[1] - G[1] * F[0]) / (-2 * two_mass * delta)
        # where the eigenvalues nearly meet, that is noise, and up to δ² equal to the mean (without growth)
        crossed = jnp.where(nearly, (change[0] * ratio + change[1] / ratio) / 2, crossed)
        one = mean * x + slope * delta**2 * along + mean_h * dh
        linear = slope * x + mean * along + slope_h * dh
        apart = linear * half + crossed * z_half
        M11, M22 = one + apart, one - apart
        M12 = [linear * w[i] + crossed * z_flip[i] for i in (0, 1)]

        # − P⁻¹ M P⁻ᵀ − i g δK g
        (p11, p22, p12, p21), stay, flip, opposite = _wave(line(F), line(G), w2, k, lead)
        turned = w[0] * M12[0] + w[1] * M12[1]  # Re w* M12
        full_turn = _mul(w, w, (M12[0], -M12[1]))
        own_turn, other_turn = (0 * dk, -dk), (d_lead[1], -d_lead[0])
        d_stay = _add(
            _scale(-M11, _mul(p11, p11)),
            _scale(-2 * turned, _mul(p11, p12)),
            _scale(-w2 * M22, _mul(p12, p12)),
            _mul(own_turn, stay, stay),
            _scale(w2, _mul(other_turn, flip, flip)),
        )
        d_flip = _add(
            _mul(w, _add(_scale(-M11, _mul(p11, p21)), _scale(-M22, _mul(p12, p22)))),
            _mul((-M12[0], -M12[1]), p11, p22),
            _mul((-full_turn[0], -full_turn[1]), p12, p21),
            _mul(w, flip, _add(_mul(own_turn, stay), _mul(other_turn, opposite))),
        )
        return (stay, _mul(w, flip)), (d_stay, d_flip)

    even = wave(c, A * s, (s * c + h * thin) / 2, A * thin)
    odd = wave(s, -c, h * s**2 / 2 + c * slope, thin)
    return [even[0], odd[0]], [even[1], odd[1]]
