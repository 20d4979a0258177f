"""Guarded mathematics: functions whose textbook form has a removable singularity.

Every function here has a textbook formula that fails at some point. Each is written so that its value *and its
derivatives* are right at and beside that point, in forward and in reverse mode.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Shaped

from .batched import hermitian_eigh
from .elementary import cosine_series, falling_exp, half_turns, polynomial, sine_series
from .one_loop import one_loop


def safe_sqrt(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """√x for x > 0, and 0 with derivative 0 for x ≤ 0, as for the momentum in a closed channel. NaN gives NaN."""
    closed = x <= 0
    # jax.lax.select, since jax 0.12 fails to transpose jnp.where inside a derivative rule (spectral_functions)
    root = jnp.sqrt(jax.lax.select(closed, jnp.ones_like(x), x))
    return jax.lax.select(closed, jnp.zeros_like(x), root)


def modulus(z: Inexact[Array, "*s"]) -> Float[Array, "*s"]:
    """The modulus |z|, with derivative 0 at z = 0.

    The modulus does not have a derivative there; 0 is the mean over directions, and keeps a gradient finite.
    """
    squared = jnp.real(z) ** 2 + jnp.imag(z) ** 2
    # The square underflows for |z| below 1e-160; scaling z first would cost more than it is worth.
    return safe_sqrt(squared)


# --------------------------------------------------------------------------------------------------------------
# The two functions inside a slab
# --------------------------------------------------------------------------------------------------------------
# With z = 2m(E − V)h²/ħ² the wave in a flat piece of thickness h is, in units of h, spanned by
#     C(z) = cos √z,      S(z) = sin(√z)/√z,       C² + z S² = 1,
# entire functions of z (cosh, sinh for z < 0). They grow like e^κ, κ = √−z, and are returned divided by it:
#     c = e^{−κ} C,   s = e^{−κ} S,   decay = e^{−κ}       (κ = 0 for z > −1/4).
# e^{−κ} itself has a square-root branch at z = 0, which no final result has: it cancels in every ratio. So the
# derivative is taken with that factor held fixed,
#     ∂C/∂z = −S/2,   ∂S/∂z = (C − S)/(2z),   each times the fixed e^{−κ},
# which is exact for every expression homogeneous in (c, s, decay), the only ones that have a meaning.


def slab_waves(z: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], ...]:
    """Returns C, S, z S and 1 for z = 2m(E − V)h²/ħ², divided by the growth e^κ of an evanescent wave (z < 0)."""
    roots = slab_roots(z)
    c, fs, zs, decay, _ = one_loop(unit_waves, z, roots)
    return c, fs * roots[1], zs, decay


def slab_roots(z: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """Returns √|z| and its inverse, set to 1 for small z, held fixed here: `unit_waves` has their derivative."""
    root = jnp.sqrt(jnp.abs(jax.lax.stop_gradient(z)))
    return root, 1 / jnp.where(root < _SMALL, 1, root)


def _is_small(root, inverse):
    """Whether z is small, by the inverse: z itself may be rounded differently where it is recomputed."""
    return (inverse == 1) & (root < 2 * _SMALL)


@jax.custom_jvp
def unit_waves(
    z: Float[Array, "*s"], roots: tuple[Float[Array, "*s"], Float[Array, "*s"]]
) -> tuple[Float[Array, "*s"], ...]:
    """Returns C, f S, z S and 1, divided by the growth e^κ, and f, which is √|z|, or 1 for small z; elementwise.

    The factor f avoids divisions; it is held fixed under differentiation, too.
    """
    root = roots[0]
    small = _is_small(*roots)
    closed = (z < 0) & ~small
    r, sign = half_turns(root)
    u = jnp.where(small, z, r * r)
    decay = jnp.where(closed, falling_exp(-root), 1)
    square = decay * decay
    c = jnp.where(closed, (1 + square) / 2, sign * cosine_series(u))
    s = jnp.where(closed, (1 - square) / 2, jnp.where(small, 1, sign * r) * sine_series(u))
    slope = jnp.where(small, z, jnp.where(closed, -root, root))  # z/f
    return c, s, slope * s, decay, jnp.where(small, 1, root)


@unit_waves.defjvp
def _unit_waves_jvp(primals, tangents):
    (z, roots), dz = primals, tangents[0]
    c, fs, _, _, f = values = unit_waves(*primals)
    s, zero = fs * roots[1], jnp.zeros_like(z)
    return values, (
        -s / 2 * dz,
        f * slab_slope(z, c, s, roots) * dz,
        (s + c) / 2 * dz,
        zero,
        zero,
    )


def slab_slope(z, c, s, roots):
    """Returns ∂S/∂z = (C − S)/(2z), divided by the growth e^κ; as a series where z is small."""
    small, inverse = _is_small(*roots), roots[1]
    series = polynomial(_SLOPE, jnp.where(small, z, 0))
    return jnp.where(
        small, series, (c - s) / 2 * reciprocal(z, jnp.where(z < 0, -1, 1) * inverse**2)
    )


@jax.custom_jvp
def reciprocal(x: Float[Array, "*s"], value: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns `value`, which must be 1/x, with the derivative of 1/x; this avoids a division."""
    return value


@reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    value = reciprocal(*primals)
    return value, -(value**2) * tangents[0]


#: power series in z are used for |√z| below this; above it (C − S)/(2z) loses one digit at most
_SMALL = 0.5
_SLOPE = [(-1) ** k * k / math.factorial(2 * k + 1) for k in range(1, 10)]


# --------------------------------------------------------------------------------------------------------------
# Eigenvectors with derivatives
# --------------------------------------------------------------------------------------------------------------


def rounding(levels: Float[Array, "*b N"]) -> Float[Array, "*b"]:
    """The largest difference of levels, or eigenvalues, that count as equal: 64 roundings of the largest |e_j|."""
    return 64 * jnp.finfo(levels.dtype).eps * jnp.max(jnp.abs(levels), axis=-1)


@jax.custom_jvp
def eigh(H: Shaped[Array, "*b n n"]) -> tuple[Float[Array, "*b n"], Inexact[Array, "*b n n"]]:
    """Eigenvalues, ascending, and eigenvectors (columns), their largest component real and positive.

    Within a degenerate level eigenvectors do not have a derivative; the one returned omits the rotation within the
    level. For quantities that do not depend on the choice of basis there, it is exact if dH is diagonal within the
    level. Otherwise dH would split the level along other vectors: see `resolve`.
    """
    values, vectors = hermitian_eigh(H)
    rows = jnp.argmax(jnp.abs(vectors), axis=-2, keepdims=True)
    pivot = jnp.take_along_axis(vectors, rows, axis=-2)
    return values, vectors * (jnp.conj(pivot) / jnp.abs(pivot))


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (H,), (dH,) = primals, tangents
    values, U = eigh(H)
    X = jnp.conj(jnp.swapaxes(U, -1, -2)) @ dH @ U
    gap = values[..., None, :] - values[..., :, None]
    apart = jnp.abs(gap) > rounding(values)[..., None, None]
    generator = jnp.where(apart, X / jnp.where(apart, gap, 1), 0)
    dU = U @ generator
    # the phase convention: remove the component that changes the phase of the largest entry
    rows = jnp.argmax(jnp.abs(U), axis=-2, keepdims=True)
    pivot, dpivot = jnp.take_along_axis(U, rows, axis=-2), jnp.take_along_axis(dU, rows, axis=-2)
    dU = dU - 1j * U * jnp.imag(dpivot / pivot) if jnp.iscomplexobj(U) else dU
    return (values, U), (jnp.real(jnp.diagonal(X, axis1=-2, axis2=-1)), dU)


def resolve(
    H: Inexact[Array, "n n"],
    T: Inexact[Array, "n n"],
) -> tuple[Float[Array, " n"], Inexact[Array, "n n"]]:
    """Eigenvalues of H, and eigenvectors that within degenerate levels are eigenvectors of T, too.

    So the derivative is right for every dH that commutes with T within the levels, such as T itself.
    """
    dtype = jnp.result_type(H, T)
    values, U = eigh(H.astype(dtype))
    level = jnp.cumsum(jnp.diff(values, prepend=values[:1]) > rounding(values))
    X = jax.lax.stop_gradient(jnp.conj(U.T) @ T.astype(dtype) @ U)
    X = jnp.where(level[:, None] == level[None], X, 0)
    size = jnp.linalg.norm(X)
    X = X / jnp.where(size > 0, size, 1)
    # the eigenvalues of X are in [−1, 1], so a distance of 4 keeps the levels in order
    X = X + jnp.diag(4.0 * level).astype(dtype)
    U = U @ jax.lax.stop_gradient(hermitian_eigh(X)[1])
    # the derivatives of the values are those of the new vectors, v† dH v
    fixed = jax.lax.stop_gradient(U)
    energy = jnp.real(jnp.sum(jnp.conj(fixed) * (H @ fixed), axis=0))
    return with_derivative(values, energy), U


@jax.custom_jvp
def with_derivative(value, function):
    """Returns the value, with the derivative of a function that is equal to it up to rounding."""
    return value


@with_derivative.defjvp
def _with_derivative_jvp(primals, tangents):
    return with_derivative(*primals), tangents[1]
