"""Guarded mathematics: functions whose textbook form has a removable singularity.

Every function here is smooth; every one has a formula that is not, somewhere. Each is written so that its value
*and its derivatives* are right at and beside that point, in forward and in reverse mode.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Shaped

from ._batched import hermitian_eigh


def safe_sqrt(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """√x for x ≥ 0, and 0 (with derivative 0) for x ≤ 0: a closed channel has no momentum. NaN stays NaN."""
    closed = x <= 0
    # not jnp.where: jax 0.12 fails to transpose that inside a derivative rule (spectral_functions)
    root = jnp.sqrt(jax.lax.select(closed, jnp.ones_like(x), x))
    return jax.lax.select(closed, jnp.zeros_like(x), root)


def modulus(z: Inexact[Array, "*s"]) -> Float[Array, "*s"]:
    """|z| with derivative 0 at z = 0.

    The modulus has no derivative there; 0 is the mean over directions, and keeps a gradient finite.
    """
    squared = jnp.real(z) ** 2 + jnp.imag(z) ** 2
    # z may be as small as 1e-200: scale before squaring would cost more than it is worth, so guard at underflow.
    return safe_sqrt(squared)


# --------------------------------------------------------------------------------------------------------------
# The two functions inside a slab
# --------------------------------------------------------------------------------------------------------------
# With A = 2m(E − V)/ħ² the wave in a flat piece of thickness h is spanned by
#     C(A, h) = cos(√A h),      S(A, h) = sin(√A h)/√A,       C² + A S² = 1,
# entire functions of A (cosh, sinh for A < 0). They grow like e^{κh}, κ = √−A, and are returned divided by it:
#     c = e^{−κh} C,   s = e^{−κh} S,   decay = e^{−κh}       (κ = 0 for A ≥ 0).
# e^{−κh} itself has a square-root branch at A = 0, which no final result has: it cancels in every ratio. So the
# derivative is taken with that factor held fixed,
#     ∂C/∂A = −h S/2,   ∂S/∂A = (h C − S)/(2A),   ∂C/∂h = −A S,   ∂S/∂h = C,   each times the fixed e^{−κh},
# which is exact for every expression homogeneous in (c, s, decay), the only ones that have a meaning.


@jax.custom_jvp
def slab_waves(
    A: Float[Array, "*s"], h: Float[Array, ""]
) -> tuple[Float[Array, "*s"], Float[Array, "*s"], Float[Array, "*s"]]:
    """cos(√A h), sin(√A h)/√A and 1, all divided by the growth e^{κh} of an evanescent wave (A = −κ² < 0)."""
    z = A * h**2
    closed, small = z < 0, jnp.abs(z) < _SMALL
    root = jnp.sqrt(jnp.abs(z))
    sine, cosine = sin_cos(root)
    decay = jnp.where(closed, jnp.exp(-root), 1)
    square = decay**2
    c = jnp.where(closed, (1 + square) / 2, cosine)
    s = jnp.where(closed, (1 - square) / 2, sine) * (h / jnp.where(small, 1, root))
    s = jnp.where(small, _series(_SINE[:9], z) * (h * decay), s)
    return c, s, decay


@slab_waves.defjvp
def _slab_waves_jvp(primals, tangents):
    (A, h), (dA, dh) = primals, tangents
    c, s, decay = slab_waves(A, h)
    dc = -h * s / 2 * dA - A * s * dh
    ds = slab_slope(A, h, c, s, decay) * dA + c * dh
    return (c, s, decay), (dc, ds, jnp.zeros_like(decay))


def slab_slope(A, h, c, s, decay):
    """(h C − S)/(2A), scaled; as a series where A h² is small."""
    z = A * h**2
    small = jnp.abs(z) < _SMALL
    direct = (h * c - s) / jnp.where(small, 1, 2 * A)
    return jnp.where(small, _series(_SLOPE, z) * (h**3 * decay), direct)


_SMALL = 0.25
_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(11)]
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(11)]
_SLOPE = [(-1) ** k * k / math.factorial(2 * k + 1) for k in range(1, 10)]


def _series(coefficients, z):
    """Σ_k a_k z^k for |z| < 1/4, where nine terms leave nothing; the argument is clipped elsewhere."""
    z = jnp.clip(z, -_SMALL, _SMALL)
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


# sin and cos of a whole array cost more than everything else in a slab if they are called one number at a time, as
# compilers for CPUs do in double precision. Written as polynomials (argument reduction by π in three pieces, and Taylor
# coefficients to the last bit on |r| ≤ π/2) they are vectorised, and where only one of them is used the other costs
# nothing. Right to 3e-16 up to x of about 1e6; beyond, the absolute error grows as x·1e-22.

_PI = (3.1415926534682512, 1.2154201012607932e-10, 4.044532497591901e-21)


@jax.custom_jvp
def sin_cos(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """(sin x, cos x)."""
    if x.dtype != jnp.float64:
        return jnp.sin(x), jnp.cos(x)
    turns = jnp.round(x / math.pi)
    r = ((x - turns * _PI[0]) - turns * _PI[1]) - turns * _PI[2]
    z = r * r
    sine, cosine = jnp.full_like(z, _SINE[10]), jnp.full_like(z, _COSINE[10])
    for k in range(9, -1, -1):
        sine = sine * z + _SINE[k]
        cosine = cosine * z + _COSINE[k]
    sign = 1 - 2 * (turns - 2 * jnp.floor(turns / 2))
    return sign * r * sine, sign * cosine


@sin_cos.defjvp
def _sin_cos_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    sine, cosine = sin_cos(x)
    return (sine, cosine), (cosine * dx, -sine * dx)


# --------------------------------------------------------------------------------------------------------------
# Eigenvectors, where a derivative of them is asked for
# --------------------------------------------------------------------------------------------------------------


@jax.custom_jvp
def eigh(H: Shaped[Array, "*b n n"]) -> tuple[Float[Array, "*b n"], Inexact[Array, "*b n n"]]:
    """Eigenvalues, ascending, and eigenvectors (columns), their largest component real and positive.

    Inside a degenerate level no eigenvector has a derivative; the rotation within the level is left out of it
    (derivative 0). For everything that does not depend on the choice of basis there this is exact if dH is diagonal
    within the level. A dH that is not would split it along other vectors: see `resolve`.
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
    apart = jnp.abs(gap) > _apart(values)[..., None, None]
    generator = jnp.where(apart, X / jnp.where(apart, gap, 1), 0)
    dU = U @ generator
    # keep the phase convention: remove the component that turns the largest entry's phase
    rows = jnp.argmax(jnp.abs(U), axis=-2, keepdims=True)
    pivot, dpivot = jnp.take_along_axis(U, rows, axis=-2), jnp.take_along_axis(dU, rows, axis=-2)
    dU = dU - 1j * U * jnp.imag(dpivot / pivot) if jnp.iscomplexobj(U) else dU
    return (values, U), (jnp.real(jnp.diagonal(X, axis1=-2, axis2=-1)), dU)


def resolve(
    H: Inexact[Array, "n n"],
    T: Inexact[Array, "n n"],
) -> tuple[Float[Array, " n"], Inexact[Array, "n n"]]:
    """Eigenvalues and eigenvectors of H, which inside degenerate levels are eigenvectors of T.

    So the derivative is right for every dH that commutes with T inside the levels, such as T itself.
    """
    dtype = jnp.result_type(H, T)
    values, U = eigh(H.astype(dtype))
    level = jnp.cumsum(jnp.diff(values, prepend=values[:1]) > _apart(values))
    X = jax.lax.stop_gradient(jnp.conj(U.T) @ T.astype(dtype) @ U)
    X = jnp.where(level[:, None] == level[None], X, 0)
    size = jnp.linalg.norm(X)
    X = X / jnp.where(
        size > 0, size, 1
    )  # its eigenvalues are less than 1 apart from 0: levels keep their order
    X = X + jnp.diag(4.0 * level).astype(dtype)
    U = U @ jax.lax.stop_gradient(hermitian_eigh(X)[1])
    # values whose derivatives are those of the new vectors, v† dH v
    fixed = jax.lax.stop_gradient(U)
    energy = jnp.real(jnp.sum(jnp.conj(fixed) * (H @ fixed), axis=0))
    return jax.lax.stop_gradient(values - energy) + energy, U


def _apart(values):
    """The gap up to which eigenvalues are taken for equal."""
    return jnp.finfo(values.dtype).eps * 16 * (1 + jnp.max(jnp.abs(values), axis=-1))
