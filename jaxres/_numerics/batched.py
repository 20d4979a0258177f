"""Linear algebra of many small matrices, without a call to LAPACK for each of them.

Such calls cost more than the arithmetic. And in jaxlib 0.10 they can deadlock: each call blocks a thread of the pool
until other threads have done its share, so as many simultaneous calls as there are threads wait for each other; on two
cores, two calls suffice. jaxlib 0.11 does not block in this way.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Shaped

from .elementary import times


@jax.custom_jvp
def inverse(A: Inexact[Array, "n n *s"]) -> Inexact[Array, "n n *s"]:
    """The inverses A⁻¹ of many small matrices. The two leading axes are those of a matrix, the others the batch.

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
    if n <= OWN:
        return _exchange(A)
    return jnp.moveaxis(jnp.linalg.inv(jnp.moveaxis(A, (0, 1), (-2, -1))), (-2, -1), (0, 1))


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    B = inverse(A)
    return B, -matmul(matmul(B, dA), B)


#: largest size for which elimination and products are written out over the batch
UNROLLED = 6
#: largest size for which elimination and Jacobi's method replace LAPACK
OWN = 64


def _by_cofactors(A):
    """The inverse of 3 × 3 matrices; the columns of the adjugate are cross products of the rows."""
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


def _exchange(A):
    """Elimination in place, one column after the other in a loop (Jordan's exchange steps), with row pivoting.

    Step k takes, of the rows of y = A x that are left, the row p with the largest entry in column k, solves it for x_k
    and exchanges x_k with y_p. After all steps the x and y have changed sides. Real and imaginary parts are separate
    arrays, so that the compiler vectorises the loops over the batch.
    """
    n, batch = A.shape[0], A.shape[2:]
    A = A.reshape(n, n, -1)
    parts = (jnp.real(A), jnp.imag(A)) if jnp.iscomplexobj(A) else (A,)
    index = jnp.arange(n)

    def step(k, state):
        parts, free, order = state
        column = [jax.lax.dynamic_index_in_dim(x, k, axis=1, keepdims=False) for x in parts]
        size = sum(jnp.abs(x) for x in column)
        p = jnp.argmax(jnp.where(free, size, -1), axis=0)
        here = index[:, None] == p[None]  # row p
        row = [jnp.take_along_axis(x, p[None, None], axis=0)[0] for x in parts]
        pivot = [jnp.take_along_axis(x, p[None], axis=0)[0] for x in column]
        norm = sum(x**2 for x in pivot)
        over = [pivot[0] / norm] + [-x / norm for x in pivot[1:]]  # 1/pivot
        row = times(row, [x[None] for x in over])
        change = times([x[:, None] for x in column], [x[None] for x in row])
        own = times([-x for x in column], [x[None] for x in over])
        at_k = (index == k)[None, :, None]
        parts = tuple(
            jnp.where(
                at_k,
                jnp.where(here, o[None], c)[:, None],
                jnp.where(here[:, None], r[None], x - d),
            )
            for x, d, r, c, o in zip(parts, change, row, own, over, strict=True)
        )
        return parts, free & ~here, order.at[k].set(p)

    state = (parts, jnp.ones(A.shape[::2], bool), jnp.zeros(A.shape[::2], int))
    parts, _, order = jax.lax.fori_loop(0, n, step, state)
    # x_k is in row order[k], y_p in the column k in which it was exchanged
    back = jnp.argsort(order, axis=0)
    parts = [jnp.take_along_axis(x, order[:, None], axis=0) for x in parts]
    parts = [jnp.take_along_axis(x, back[None], axis=1) for x in parts]
    return (jax.lax.complex(*parts) if len(parts) == 2 else parts[0]).reshape((n, n, *batch))


# --------------------------------------------------------------------------------------------------------------
# Hermitian matrices
# --------------------------------------------------------------------------------------------------------------


def hermitian_eigh(
    H: Shaped[Array, "*b n n"],
) -> tuple[Float[Array, "*b n"], Inexact[Array, "*b n n"]]:
    """Eigenvalues, ascending, and eigenvectors (columns) of Hermitian matrices, without a derivative.

    The method is Jacobi's: each step rotates n/2 disjoint pairs of levels, in the order of a round-robin tournament,
    such that the off-diagonal element of each pair vanishes, until all off-diagonal elements are at rounding.
    """
    n = H.shape[-1]
    if n > OWN:
        return jnp.linalg.eigh(H)
    if n == 1:
        return jnp.real(H[..., 0]), jnp.ones_like(H)
    even = n + n % 2  # an added level, which is never rotated, makes the number even
    A = jnp.pad((H + jnp.conj(jnp.swapaxes(H, -1, -2))) / 2, _behind(H, even - n))
    V = jnp.broadcast_to(jnp.eye(even, dtype=A.dtype), A.shape)
    # the pairs are the neighbours (0, 1), (2, 3), …; the first level stays, the others move on by one place
    ring = [*range(1, even, 2), *range(even - 2, 0, -2)]
    order = np.arange(even)
    order[ring] = np.roll(ring, 1)
    tiny = jnp.finfo(A.dtype).tiny

    def rotate(A, V):
        blocks = A.reshape(*A.shape[:-2], even // 2, 2, even // 2, 2)
        blocks = jnp.moveaxis(jnp.diagonal(blocks, axis1=-4, axis2=-2), -1, -3)
        a, d, b = jnp.real(blocks[..., 0, 0]), jnp.real(blocks[..., 1, 1]), blocks[..., 0, 1]
        size = jnp.abs(b)
        none = size <= tiny
        safe = jnp.where(none, 1, size)
        phase = jnp.where(none, 1, b / safe)
        # a Newton step makes the modulus 1 to the last digit
        phase = phase * (3 - jnp.real(phase * jnp.conj(phase))) / 2
        tau = (d - a) / (2 * safe)
        # t = tan θ, the smaller root of t² + 2τt = 1
        t = jnp.where(tau < 0, -1, 1) / (jnp.abs(tau) + jnp.hypot(tau, 1))
        t = jnp.where(none, 0, t)
        c = 1 / jnp.sqrt(1 + t**2)
        s = t * c
        J = jnp.stack(
            [jnp.stack([c * phase, s * phase], -1), jnp.stack([-s + 0 * phase, c + 0 * phase], -1)],
            -2,
        )

        def turn(X):  # X J, then the levels move on
            X = X.reshape(*X.shape[:-1], even // 2, 2)
            X = X[..., 0, None] * J[..., None, :, 0, :] + X[..., 1, None] * J[..., None, :, 1, :]
            return X.reshape(*X.shape[:-2], even)[..., order]

        A = turn(jnp.conj(jnp.swapaxes(turn(A), -1, -2)))
        return A, turn(V)

    def off(A):
        """Whether an off-diagonal element is above rounding."""
        beside = jnp.where(jnp.eye(even, dtype=bool), 0, jnp.abs(A))
        tolerance = even * jnp.finfo(A.dtype).eps * jnp.max(jnp.abs(A), axis=(-2, -1))
        return jnp.any(jnp.max(beside, axis=(-2, -1)) > tolerance)

    def sweep(state):
        A, V, count = state
        A, V = jax.lax.fori_loop(0, even - 1, lambda _, AV: rotate(*AV), (A, V))
        return A, V, count + 1

    A, V, _ = jax.lax.while_loop(lambda x: off(x[0]) & (x[2] < SWEEPS), sweep, (A, V, 0))
    # after a whole sweep the levels are in their original order
    values, V = jnp.real(jnp.diagonal(A, axis1=-2, axis2=-1))[..., :n], V[..., :n, :n]
    order = jnp.argsort(values, axis=-1)
    return (
        jnp.take_along_axis(values, order, axis=-1),
        jnp.take_along_axis(V, order[..., None, :], axis=-1),
    )


#: upper limit of sweeps; Jacobi's method needs fewer
SWEEPS = 30


def _behind(H, more):
    """The padding of `more` entries at the end of the last two axes."""
    return [(0, 0)] * (H.ndim - 2) + [(0, more)] * 2


def _size(z):
    return jnp.abs(jnp.real(z)) + jnp.abs(jnp.imag(z)) if jnp.iscomplexobj(z) else jnp.abs(z)


def matmul(A: Inexact[Array, "m k *#s"], B: Inexact[Array, "k n *#s"]) -> Inexact[Array, "m n *s"]:
    """The products A B of many small matrices. The two leading axes are those of a matrix, the others the batch."""
    if A.shape[1] <= UNROLLED or A.shape[0] == 1:
        return jnp.sum(A[:, :, None] * B[None], axis=1)
    if math.prod(B.shape[2:]) == 1:  # one matrix B for all A: a single large product
        B = B.reshape(B.shape[:2])
        return jnp.moveaxis(jnp.tensordot(A, B, axes=([1], [0])), -1, 1)
    return jnp.einsum("mk...,kn...->mn...", A, B)


def linear(values: Float[Array, "*b k"], table: np.ndarray) -> Float[Array, "*b m"]:
    """A constant linear map, out_i = Σ_k table_ik values_k.

    It also serves to rearrange a few numbers. Indexing would be a gather, whose derivative is a scatter, which XLA
    compiles for CPUs to a loop over single numbers; a product with a constant matrix is vectorised.
    """
    return values @ jnp.asarray(table.T, values.dtype)


def pieces(
    x: Shaped[Array, "*s n"], count: int, size: int, fill: str = "edge"
) -> Shaped[Array, "{count} *s {size}"]:
    """Cuts the last axis into `count` pieces of `size`, and pads the last piece as `jnp.pad` does in mode `fill`."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count * size - x.shape[-1])], fill)
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, size), -2, 0)
