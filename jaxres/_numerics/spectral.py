r"""Functions of a Hermitian matrix, with derivatives that are right where eigenvalues meet.

For H = U diag(v) U† and a scalar function f, F(H) = U diag(f(v)) U† is smooth in H wherever f is smooth, but U is not:
its derivative diverges where eigenvalues meet. The derivative of F stays finite (Daleckii and Krein, 1951):

    dF  = U ( f[v_a, v_b] ∘ X ) U†,                         X = U† dH U,
    d²F = U ( Σ_b f[v_a, v_b, v_c] (X_ab Y_bc + Y_ab X_bc) ) U†,

with the divided differences f[a, b] = (f(a) − f(b))/(a − b), f[a, a] = f'(a), and so on. Three functions implement
this, each the derivative rule of the one before, so that first and second derivatives do not differentiate U.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from .batched import matmul
from .safe import eigh


def spectral_functions(
    f: Callable[..., Inexact[Array, "F N *s"]], H: Inexact[Array, "N N"], parameters: Any
) -> Inexact[Array, "F N N *s"]:
    """F(H) for several scalar functions at once: `f(v, parameters)` maps eigenvalues (N,) to values (F, N, *s).

    Element a of f's second axis must depend on v_a alone. All traced quantities on which f depends must be in
    `parameters`, a pytree of real floating-point arrays. H must be dimensionless, in units in which f changes over
    distances of one, since eigenvalues much closer than that count as meeting.
    """
    return _value(f, H, parameters)


def _sandwich(U, middle):
    """The products U M U†, where M has its rows and columns in the second and third axis."""
    extra = (1,) * (middle.ndim - 3)
    U = U.reshape(U.shape + extra)
    adjoint = jnp.conj(jnp.swapaxes(U, 0, 1))
    return jax.vmap(lambda M: matmul(matmul(U, M), adjoint))(middle)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(f, H, parameters):
    values, U = eigh(H)
    scalars = f(values, parameters)  # (F, N, *s)
    N, batch = U.shape[0], scalars.shape[2:]
    # Σ_a f(v_a) |a⟩⟨a| as a single product of real matrices: the real and imaginary parts of |a⟩⟨a| times those of f
    projectors = (U[:, None] * jnp.conj(U)[None]).reshape(N * N, N)
    parts = [jnp.real(projectors), jnp.imag(projectors)]
    weights = scalars.reshape(scalars.shape[0], N, -1)
    if jnp.iscomplexobj(weights):
        table = jnp.block([[parts[0], -parts[1]], [parts[1], parts[0]]])
        weights = jnp.concatenate([jnp.real(weights), jnp.imag(weights)], axis=1)
    else:
        table = jnp.concatenate(parts)
    real, imag = jnp.split(
        jnp.stack([jnp.matmul(table, w, precision="highest") for w in weights]), 2, axis=1
    )
    return jax.lax.complex(real, imag).reshape(-1, N, N, *batch)


@_value.defjvp
def _value_jvp(f, primals, tangents):
    (H, parameters), (dH, dparameters) = primals, tangents
    out = _value(f, H, parameters)
    return out, _first(f, H, dH, parameters) + _value(_along(f), H, (parameters, dparameters))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _first(f, H, X, parameters):
    values, U = eigh(H)
    X = jnp.conj(U.T) @ X @ U
    table = _divided(f, values, parameters)
    return _sandwich(U, table * X.reshape((1,) + X.shape + (1,) * (table.ndim - 3)))


@_first.defjvp
def _first_jvp(f, primals, tangents):
    (H, X, parameters), (dH, dX, dparameters) = primals, tangents
    out = _first(f, H, X, parameters)
    tangent = (
        _first(f, H, dX, parameters)
        + _second(f, H, X, dH, parameters)
        + _first(_along(f), H, X, (parameters, dparameters))
    )
    return out, tangent


def _second(f, H, X, Y, parameters):
    values, U = eigh(H)
    X, Y = (jnp.conj(U.T) @ Z @ U for Z in (X, Y))
    table = _divided_twice(f, values, parameters)  # (F, a, b, c, *s)
    pairs = X[:, :, None] * Y[None] + Y[:, :, None] * X[None]
    return _sandwich(
        U, jnp.sum(table * pairs.reshape((1,) + pairs.shape + (1,) * (table.ndim - 4)), axis=2)
    )


def _along(f):
    """The derivative of f along a change of its parameters, again as a function of the eigenvalues."""

    def derivative(values, pair):
        parameters, tangent = pair
        return jax.jvp(lambda p: f(values, p), (parameters,), (tangent,))[1]

    return derivative


def _slope(f, values, parameters):
    """The derivative f'(v), elementwise in the eigenvalues."""
    return jax.jvp(lambda v: f(v, parameters), (values,), (jnp.ones_like(values),))[1]


# Times ε^(1/3), this is the distance below which a divided difference is the derivative at the midpoint, for a matrix
# of size one. The error is of second order in the distance, and at the switch equal to the quotient's rounding error.
_NEAR = 0.2


def _near(values):
    return _NEAR * jnp.finfo(values.dtype).eps ** (1 / 3) * (1 + jnp.max(jnp.abs(values)))


def _divided(f, values, parameters):
    """The divided differences f[v_a, v_b], shape (F, N, N, *s)."""
    f0 = f(values, parameters)
    gap = values[:, None] - values[None, :]
    near = jnp.abs(gap) < _near(values)
    shape = (1,) + gap.shape + (1,) * (f0.ndim - 2)
    quotient = (f0[:, :, None] - f0[:, None, :]) / jnp.where(near, 1, gap).reshape(shape)
    middle = ((values[:, None] + values[None, :]) / 2).reshape(-1)
    slope = _slope(f, middle, parameters).reshape(quotient.shape)
    return jnp.where(near.reshape(shape), slope, quotient)


def _divided_twice(f, values, parameters):
    """The differences f[v_a, v_b, v_c], shape (F, N, N, N, *s), by the quotient over the pair furthest apart."""
    a, b, c = values[:, None, None], values[None, :, None], values[None, None, :]
    low, high = jnp.minimum(jnp.minimum(a, b), c), jnp.maximum(jnp.maximum(a, b), c)
    middle = a + b + c - low - high
    n = values.shape[0]
    low, middle, high = (jnp.broadcast_to(x, (n, n, n)).reshape(-1) for x in (low, middle, high))
    near = (high - low) < 20 * _near(values)

    def pair(x, y):
        gap = x - y
        close = jnp.abs(gap) < _near(values)
        fx, fy = f(x, parameters), f(y, parameters)
        shape = (1,) + gap.shape + (1,) * (fx.ndim - 2)
        quotient = (fx - fy) / jnp.where(close, 1, gap).reshape(shape)
        return jnp.where(close.reshape(shape), _slope(f, (x + y) / 2, parameters), quotient)

    upper, lower = pair(high, middle), pair(middle, low)
    shape = (1,) + near.shape + (1,) * (upper.ndim - 2)
    quotient = (upper - lower) / jnp.where(near, 1, high - low).reshape(shape)
    centre = (low + middle + high) / 3
    curvature = (
        jax.jvp(lambda v: _slope(f, v, parameters), (centre,), (jnp.ones_like(centre),))[1] / 2
    )
    table = jnp.where(near.reshape(shape), curvature, quotient)
    return table.reshape((table.shape[0], n, n, n, *table.shape[2:]))
