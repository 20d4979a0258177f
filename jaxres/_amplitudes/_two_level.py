r"""The exact amplitudes of a two-level system and one slab, written out in real arithmetic, and their derivative.

The same formulas as `_exact.parity_rows`; this file only makes them fast. Lengths are measured in half the slab's
thickness h, energies in ħ²/2mh², so that neither mass nor thickness stands in a formula. Two more facts help.

A function of a 2×2 matrix H with eigenvalues μ ± δ is a straight line through its two values,

    f(H) = f̄ + f' (H − μ),     f̄ = [f(μ+δ) + f(μ−δ)]/2,    f' = [f(μ+δ) − f(μ−δ)]/2δ,

with no eigenvector in it. And with H_01 = w every such matrix, every product of them with K, and every inverse has the
form [[a, w b], [w* c, d]], in which w enters products only as |w|². So all matrices are real up to K.

In each row of amplitudes the outgoing level is called "own" and the other one "other"; arrays run over the nodes.

The even wave is g = (i C K + A S)⁻¹ C and the odd one the transpose of (i S K − C)⁻¹ S: of the same form with
(F, G) = (C, A S) or (S, −C),

    g = (i F K + G)⁻¹ F,

and in a row of this form a transpose only changes places of w and w*. With 1 and 2 for the two eigenvalues and for own
and other let N = F₁F₂ G/F, the straight line through G₁F₂ and G₂F₁. Its determinant is F₁F₂G₁G₂, so F₁F₂ cancels in

    g = (i F₁F₂ K + N)⁻¹ F₁F₂ = adj(i F₁F₂ K + N)/D,      D = G₁G₂ + i K₁N₂₂ + i K₂N₁₁ − K₁K₂ F₁F₂,

and D is also the determinant of i F K + G.

The two eigenvalues and the two outgoing levels are gone through in loops (`jax.lax.map`). A compiler for CPUs would
otherwise merge everything into one expression for each output and evaluate common parts a dozen times. For the same
reason the loops give back as little as possible, and nothing is kept for reverse mode: it computes a row once more.

**The derivative** is written by hand as well. With the logarithmic derivative Z = G/F, a function of A = E − H,
the wave is g = (iK + Z)⁻¹. So

    δg = −g (i δK + δZ) g,      δZ = F⁻¹ M F⁻¹,      M_ab = δA_ab (G_a F_b − G_b F_a)/(A_a − A_b)

in the eigenbasis of A; g F⁻¹ = P⁻¹ is the inverse of P = i F K + G, and M, unlike Z, has no pole. (M is the
overlap of the perturbation with two waves, integrated over half the slab.) M too is a straight line in H, but for the
part of δH that does not commute with H.
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
    unit = 2 * mass * (layers.thicknesses[0] / 2) ** 2
    W, kinetic, levels = unit * layers.couplings[0], unit * kinetic, unit * levels
    energy = kinetic[0, 0]  # the outgoing kinetic energy, of either level
    k = safe_sqrt(energy)

    @jax.checkpoint
    def row(level):
        own, other, w, across = level
        lead = safe_sqrt(across), safe_sqrt(-across)
        waves = _parity_row(unit, own, other, (w[0], w[1]), energy, k, lead)
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
def _parity_row(unit, own, other, w, energy, k, lead):
    """Row "own" of g, even and odd: own-own and own-other, each a pair (real, imaginary).

    `own`, `other` and the complex `w` are the inner Hamiltonian, `k` and `lead` (complex) the leads' wavenumbers.
    `unit` is the user's unit of energy: it only says which eigenvalues count as equal.
    """
    A, line, (c, s, _) = _inside(unit, own, other, w, energy)

    def wave(F, G):
        _, (stay, flip, _) = _wave(F, G, line, k, lead)
        return stay, _mul(w, flip)

    return [wave(c, A * s), wave(s, -c)]


def _inside(unit, own, other, w, energy):
    """A at both eigenvalues, how to make (own-own, other-other, off-diagonal/w) of two values, and `slab_waves`."""
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(unit, middle, half, w)
    A = energy[None] - jnp.stack([middle + delta, middle - delta])[:, None]

    def line(f):
        mean, slope = (f[0] + f[1]) / 2, (f[0] - f[1]) / (2 * delta)
        return mean + slope * half, mean - slope * half, slope

    return A, line, jax.lax.map(lambda A: slab_waves(A, jnp.ones_like(half)), A)


def _half_distance(unit, middle, half, w):
    """δ; at an exact degeneracy the line is drawn through two points very close to it."""
    radius2 = half**2 + (w[0] ** 2 + w[1] ** 2)
    least = (1e-7 * (unit + jnp.abs(middle))) ** 2
    return jnp.sqrt(jnp.where(radius2 > least, radius2, least))


def _wave(F, G, line, k, lead):
    """1/D, and of g own-own, own-other/w and other-other."""
    q, kappa = lead
    FF, GG = F[0] * F[1], G[0] * G[1]
    N1, N2, Nx = line((G[0] * F[1], G[1] * F[0]))
    det = _reciprocal((GG - kappa * N1 - k * q * FF, k * N2 + q * N1 - k * kappa * FF))
    return det, (_mul((N2 - kappa * FF, q * FF), det), _scale(-Nx, det), _mul((N1, k * FF), det))


@_parity_row.defjvp
def _parity_row_jvp(primals, tangents):
    unit, own, other, w, energy, k, lead = primals
    _, d_own, d_other, dw, d_energy, dk, d_lead = tangents
    A, line, (c, s, decay) = _inside(unit, own, other, w, energy)
    w2 = w[0] ** 2 + w[1] ** 2
    middle, half = (own + other) / 2, (own - other) / 2
    delta = _half_distance(unit, middle, half, w)

    # δA = x (1) − y (H − μ) − z,  z the part of δH that does not commute with H
    x = d_energy - (d_own + d_other) / 2
    d_half = (d_own - d_other) / 2
    y = (half * d_half + w[0] * dw[0] + w[1] * dw[1]) / delta**2
    z_half = d_half - y * half
    z_flip = [dw[i] - y * w[i] for i in (0, 1)]

    tiny = jnp.finfo(delta.dtype).tiny
    ratio = (decay[1] + tiny) / (decay[0] + tiny)
    nearly = delta < 1e-5 * (unit + jnp.abs(middle))
    thin = decay**2
    one_half = jnp.ones_like(half)  # of the slab
    slope = jax.lax.map(lambda at: slab_slope(at[0], one_half, *at[1:]), (A, c, s, decay))

    def wave(F, G, change):
        """The wave and its derivative; `change` is M for a change of A, at both eigenvalues."""
        mean, slope = (change[0] + change[1]) / 2, (change[0] - change[1]) / (2 * delta)
        crossed = (G[1] * F[0] - G[0] * F[1]) / (2 * delta)
        # where the eigenvalues nearly meet, that is noise, and up to δ² equal to the mean (without growth)
        crossed = jnp.where(nearly, (change[0] * ratio + change[1] / ratio) / 2, crossed)
        one = mean * x - slope * delta**2 * y
        linear = slope * x - mean * y
        apart = linear * half - crossed * z_half
        M11, M22 = one + apart, one - apart
        M12 = [linear * w[i] - crossed * z_flip[i] for i in (0, 1)]

        # Row own of − (P⁻¹ M) P⁻ᵀ − (i g δK) g. Off the diagonal P⁻¹ and g stand without their factor w or w*.
        det, (stay, flip, opposite) = _wave(F, G, line, k, lead)
        (F1, F2, Fx), (G1, G2, Gx), (q, kappa) = line(F), line(G), lead
        p11, p22 = _mul((G2 - kappa * F2, q * F2), det), _mul((G1, k * F1), det)
        p12, p21 = _mul((kappa * Fx - Gx, -q * Fx), det), _mul((-Gx, -k * Fx), det)
        minus = -M12[0], -M12[1]
        turned = _mul((w[0], -w[1]), minus)  # − w* M12
        own_half = _add(_scale(-M11, p11), _mul((turned[0], -turned[1]), p12))
        other_half = _add(_mul(minus, p11), _mul(w, _scale(-M22, p12)))
        other_half_turned = _add(_mul(turned, p11), _scale(-w2 * M22, p12))
        own_turn, other_turn = _mul((0 * dk, -dk), stay), _mul((d_lead[1], -d_lead[0]), flip)
        d_stay = _add(
            _mul(own_half, p11),
            _mul(other_half_turned, p12),
            _mul(own_turn, stay),
            _scale(w2, _mul(other_turn, flip)),
        )
        around = _add(_mul(own_half, p21), _mul(own_turn, flip), _mul(other_turn, opposite))
        d_flip = _add(_mul(other_half, p22), _mul(w, around))
        return (stay, _mul(w, flip)), (d_stay, d_flip)

    even = wave(c, A * s, (s * c + thin) / 2)
    odd = wave(s, -c, s**2 / 2 + c * slope)
    return [even[0], odd[0]], [even[1], odd[1]]
