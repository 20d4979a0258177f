"""Guarded mathematics: functions whose textbook form has a removable singularity.

Every function here is smooth; every one has a formula that is not, somewhere. Each is written so that its value
*and its derivatives* are right at and beside that point, in forward and in reverse mode.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Shaped


def safe_sqrt(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """√x for x ≥ 0, and 0 (with derivative 0) for x ≤ 0: a closed channel has no momentum. NaN stays NaN."""
    closed = x <= 0
    return jnp.where(closed, 0, jnp.sqrt(jnp.where(closed, 1, x)))


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
    phase = jnp.sqrt(jnp.where(small, 1, jnp.abs(z)))
    sine, cosine = sin_cos(phase)
    decay = jnp.exp(jnp.where(closed, -jnp.sqrt(jnp.abs(z)), 0))
    square = decay**2
    c = jnp.where(closed, (1 + square) / 2, cosine)
    s = jnp.where(closed, (1 - square) / 2, sine) * (h / phase)
    c = jnp.where(small, _series(_COSINE, z) * decay, c)
    s = jnp.where(small, _series(_SINE, z) * (h * decay), s)
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
_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(9)]
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(9)]
_SLOPE = [(-1) ** k * k / math.factorial(2 * k + 1) for k in range(1, 10)]


def _series(coefficients, z):
    """Σ_k a_k z^k for |z| < 1/4, where nine terms leave nothing; the argument is clipped elsewhere."""
    z = jnp.clip(z, -_SMALL, _SMALL)
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


# sin and cos of a whole array cost more than everything else in a slab if they are called one number at a time, as
# compilers for CPUs do in double precision. Written as polynomials (the classical argument reduction by π/2 in three
# pieces, and Taylor coefficients to the last bit on |r| ≤ π/4) they are vectorised. Right to 1e-16 up to x of about
# 1e6; beyond, the absolute error grows as x·1e-22.

_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


@jax.custom_jvp
def sin_cos(x: Float[Array, "*s"]) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """(sin x, cos x)."""
    if x.dtype != jnp.float64:
        return jnp.sin(x), jnp.cos(x)
    turns = jnp.round(x * (2 / math.pi))
    r = ((x - turns * _HALF_PI[0]) - turns * _HALF_PI[1]) - turns * _HALF_PI[2]
    z = r * r
    sine, cosine = jnp.full_like(z, _SINE[8]), jnp.full_like(z, _COSINE[8])
    for k in range(7, -1, -1):
        sine = sine * z + _SINE[k]
        cosine = cosine * z + _COSINE[k]
    sine = sine * r
    quadrant = turns - 4 * jnp.floor(turns / 4)
    swap = (quadrant == 1) | (quadrant == 3)
    sine, cosine = jnp.where(swap, cosine, sine), jnp.where(swap, sine, cosine)
    return (
        jnp.where(quadrant >= 2, -sine, sine),
        jnp.where((quadrant == 1) | (quadrant == 2), -cosine, cosine),
    )


@sin_cos.defjvp
def _sin_cos_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    sine, cosine = sin_cos(x)
    return (sine, cosine), (cosine * dx, -sine * dx)


# --------------------------------------------------------------------------------------------------------------
# Eigenvectors, where a derivative of them is asked for
# --------------------------------------------------------------------------------------------------------------


@jax.custom_jvp
def eigh(H: Shaped[Array, "n n"]) -> tuple[Float[Array, " n"], Inexact[Array, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors (columns), their largest component real and positive.

    Inside a degenerate level no eigenvector has a derivative; the rotation within the level is left out of it
    (derivative 0). For everything that does not depend on the choice of basis there this is exact if dH is diagonal
    within the level. A dH that is not would split it along other vectors: see `resolve`.
    """
    values, vectors = jnp.linalg.eigh(H)
    pivot = jnp.take_along_axis(vectors, jnp.argmax(jnp.abs(vectors), axis=0)[None], axis=0)
    return values, vectors * (jnp.conj(pivot) / jnp.abs(pivot))


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (H,), (dH,) = primals, tangents
    values, U = eigh(H)
    X = jnp.conj(U.T) @ dH @ U
    gap = values[None, :] - values[:, None]
    apart = jnp.abs(gap) > _apart(values)
    generator = jnp.where(apart, X / jnp.where(apart, gap, 1), 0)
    dU = U @ generator
    # keep the phase convention: remove the component that turns the largest entry's phase
    rows = jnp.argmax(jnp.abs(U), axis=0)[None]
    pivot, dpivot = jnp.take_along_axis(U, rows, axis=0), jnp.take_along_axis(dU, rows, axis=0)
    dU = dU - 1j * U * jnp.imag(dpivot / pivot) if jnp.iscomplexobj(U) else dU
    return (values, U), (jnp.real(jnp.diagonal(X)), dU)


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
    U = U @ jax.lax.stop_gradient(jnp.linalg.eigh(X)[1])
    # values whose derivatives are those of the new vectors, v† dH v
    fixed = jax.lax.stop_gradient(U)
    energy = jnp.real(jnp.sum(jnp.conj(fixed) * (H @ fixed), axis=0))
    return jax.lax.stop_gradient(values - energy) + energy, U


def _apart(values):
    """The gap up to which eigenvalues are taken for equal."""
    return jnp.finfo(values.dtype).eps * 16 * (1 + jnp.max(jnp.abs(values)))


@jax.custom_jvp
def inverse(A: Inexact[Array, "n n *s"]) -> Inexact[Array, "n n *s"]:
    """A⁻¹ of many small matrices; the matrices are the two leading axes, the batch is behind.

    d(A⁻¹) = −A⁻¹ dA A⁻¹, so a derivative costs two products and no new elimination.
    """
    n = A.shape[0]
    if n <= 1:
        return 1 / A
    if n == 2:
        (a, b), (c, d) = A
        det = a * d - b * c
        return jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / det[None, None]
    if n == 3:
        return _by_cofactors(A)
    if n <= UNROLLED:
        return _gauss_jordan(A)
    return jnp.moveaxis(jnp.linalg.inv(jnp.moveaxis(A, (0, 1), (-2, -1))), (-2, -1), (0, 1))


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    B = inverse(A)
    return B, -matmul(matmul(B, dA), B)


#: largest size for which elimination and products are written out over the batch; LAPACK above
UNROLLED = 6


def _by_cofactors(A):
    """Columns of the adjugate are cross products of the rows."""
    x, y, z = A
    columns = jnp.stack([_cross(y, z), _cross(z, x), _cross(x, y)], axis=1)
    det = x[0] * columns[0, 0] + x[1] * columns[1, 0] + x[2] * columns[2, 0]
    return columns / det[None, None]


def _cross(u, v):
    return jnp.stack(
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
    )


def _gauss_jordan(A):
    """Gauss–Jordan elimination with row pivoting, the same operations for every matrix of the batch."""
    n = A.shape[0]
    identity = jnp.broadcast_to(
        jnp.eye(n, dtype=A.dtype).reshape((n, n) + (1,) * (A.ndim - 2)), A.shape
    )
    rows = [jnp.concatenate([A[i], identity[i]]) for i in range(n)]
    for k in range(n):
        for i in range(k + 1, n):  # bring the largest of column k to row k
            swap = (_size(rows[i][k]) > _size(rows[k][k]))[None]
            rows[k], rows[i] = jnp.where(swap, rows[i], rows[k]), jnp.where(swap, rows[k], rows[i])
        rows[k] = rows[k] / rows[k][k][None]
        for i in range(n):
            if i != k:
                rows[i] = rows[i] - rows[i][k][None] * rows[k]
    return jnp.stack([row[n:] for row in rows])


def _size(z):
    return jnp.abs(jnp.real(z)) + jnp.abs(jnp.imag(z)) if jnp.iscomplexobj(z) else jnp.abs(z)


def rows_over(
    rows: Inexact[Array, "m n *#s"], A: Inexact[Array, "n n *s"]
) -> Inexact[Array, "m n *s"]:
    """The rows times A⁻¹ for many small matrices A; the matrices are the two leading axes, the batch is behind."""
    if A.shape[0] <= UNROLLED:
        return matmul(rows, inverse(A))
    rows = jnp.broadcast_to(rows, rows.shape[:2] + A.shape[2:])
    first, last = (0, 1), (-1, -2)  # of the transposes
    solution = jnp.linalg.solve(jnp.moveaxis(A, first, last), jnp.moveaxis(rows, first, last))
    return jnp.moveaxis(solution, last, first)


def matmul(A: Inexact[Array, "m k *#s"], B: Inexact[Array, "k n *#s"]) -> Inexact[Array, "m n *s"]:
    """A B for many small matrices; the matrices are the two leading axes, the batch is behind."""
    if A.shape[1] <= UNROLLED:
        return jnp.sum(A[:, :, None] * B[None], axis=1)
    if math.prod(B.shape[2:]) == 1:  # one matrix B for all A: a single large product
        B = B.reshape(B.shape[:2])
        return jnp.moveaxis(jnp.tensordot(A, B, axes=([1], [0])), -1, 1)
    return jnp.einsum("mk...,kn...->mn...", A, B)


def linear(values: Float[Array, "*b k"], table: np.ndarray) -> Float[Array, "*b m"]:
    """A fixed linear map, out_i = Σ_k table_ik values_k.

    Rearranging a few numbers by an index would be a gather, whose derivative is a scatter, and compilers for CPUs
    turn that into a loop over single numbers; a product with a constant matrix is not.
    """
    return values @ jnp.asarray(table.T, values.dtype)
