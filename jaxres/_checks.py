"""Conversion and validation at the door: what is concrete is checked once, what is traced is checked in the result."""

import operator
import reprlib
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact, Real

#: what a user may pass for one real number
Scalar = Real[ArrayLike, ""]


def concrete(*values: Any) -> bool:
    """Whether every leaf is a known number (not a tracer of jit, grad or vmap)."""
    leaves = jax.tree_util.tree_leaves(values)
    return all(
        isinstance(leaf, (np.ndarray, np.generic, float, int, complex))
        or (isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer))
        for leaf in leaves
    )


def known(condition: Callable[[], Any]) -> bool:
    """A condition on concrete numbers, evaluated at once also where a function around it is being traced."""
    with jax.ensure_compile_time_eval():
        return bool(condition())


def _strong(x: Any) -> Array:
    """An array whose precision is its own, also if it was made from a Python number, and known if `x` is."""
    with jax.ensure_compile_time_eval() if concrete(x) else nullcontext():
        array = jnp.asarray(x)
        return array.astype(array.dtype) if array.weak_type else array


def real_array(x: Any) -> Array:
    """A floating-point array; Python numbers and integers take the default precision."""
    array = _strong(x)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"Argument must be real, but is complex: {x}. Take its real part.")
    return (
        array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))
    )


def inexact_array(x: Any) -> Array:
    """A real or complex floating-point array."""
    array = _strong(x)
    return (
        array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.result_type(float))
    )


def complex_array(x: Any) -> Array:
    """A complex array of the precision of `x`."""
    array = inexact_array(x)
    return array.astype(jnp.result_type(array.dtype, jnp.complex64))


def require(condition: Any, message: str) -> None:
    """Raise `ValueError(message)` unless the (concrete) condition holds everywhere."""
    if not bool(np.all(condition)):
        raise ValueError(message)


def check_scalar(name: str, x: Any, *, positive: bool = False, nonnegative: bool = False) -> None:
    """A real scalar, finite, of the given sign. Infinite rates are allowed where `nonnegative`."""
    if not concrete(x):
        return
    value = np.asarray(x)
    require(not np.isnan(value), f"Argument `{name}` must be a number, but is NaN.")
    if positive:
        require(
            (value > 0) & np.isfinite(value),
            f"Argument `{name}` must be positive and finite, but is {value:g}.",
        )
    elif nonnegative:
        require(value >= 0, f"Argument `{name}` must not be negative, but is {value:g}.")
    else:
        require(np.isfinite(value), f"Argument `{name}` must be finite, but is {value:g}.")


def check_shape(name: str, x: Any, ndim: int, shape: str) -> None:
    """The number of axes, known also while tracing."""
    if np.ndim(x) != ndim:
        raise ValueError(
            f"Argument `{name}` must have shape {shape}, but has shape {np.shape(x)}."
            + (" Use jax.vmap to batch over values." if np.ndim(x) > ndim else "")
        )


def check_hermitian(name: str, x: Any) -> None:
    """A square Hermitian matrix without NaN."""
    check_shape(name, x, 2, "(N, N)")
    n, m = np.shape(x)
    if n != m:
        raise ValueError(f"Argument `{name}` must be a square matrix, but has shape {(n, m)}.")
    if not concrete(x):
        return
    value = np.asarray(x)
    require(
        np.isfinite(value),
        f"Argument `{name}` must be finite, but has NaN or infinite entries:\n{value}",
    )
    gap = np.max(np.abs(value - value.conj().T), initial=0.0)
    size = np.max(np.abs(value), initial=0.0)
    require(
        gap <= 64 * np.finfo(value.dtype).eps * size,
        f"Argument `{name}` must be Hermitian, but differs from its adjoint by {gap:.2g}:\n{value}\n"
        f"Use (A + A.conj().T)/2 if the difference is noise.",
    )


def check_instance(name: str, x: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """An object of one of the given classes; `remedy` says which ones there are."""
    if not isinstance(x, kind):
        raise ValueError(f"Argument `{name}` must be {remedy}, but is {x!r}.")


@lru_cache(maxsize=4)
def warn_of_single_precision(dtype: Any) -> None:
    """Say once in a process what single precision is worth here."""
    if dtype == jnp.float32:
        warnings.warn(
            "jaxres is computing in single precision: expect an accuracy of about 1e-6 in maps and 1e-5 in states. "
            'For double precision, call jax.config.update("jax_enable_x64", True) before anything else.',
            stacklevel=4,
        )


# --------------------------------------------------------------------------------------------------
# One converter for each kind of argument
# --------------------------------------------------------------------------------------------------
# All take the argument's name first, accept what a physicist may have at hand (numbers, nested lists,
# NumPy and JAX arrays, Qobjs), and give an array of the process's own precision: double where
# jax_enable_x64 is set, single elsewhere, whatever came in. Mixed precisions never get past them.


def as_inexact(name: str, x: Any) -> Array:
    """A real or complex floating-point array of any shape; entries may be anything."""
    array = _as_array(name, x)
    kind = complex if jnp.issubdtype(array.dtype, jnp.complexfloating) else float
    return array.astype(jnp.result_type(kind))


def as_real(name: str, x: Any) -> Array:
    """A real floating-point array of any shape; entries may be anything."""
    array = _as_array(name, x)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"Argument `{name}` must be real, but is complex: {x}. Take its real part."
        )
    return array.astype(jnp.result_type(float))


def as_scalar(
    name: str, x: Any, *, positive: bool = False, nonnegative: bool = False
) -> Float[Array, ""]:
    """One real number, as `check_scalar` wants it."""
    value = as_real(name, x)
    check_shape(name, value, 0, "()")
    check_scalar(name, value, positive=positive, nonnegative=nonnegative)
    return value


def as_vector(name: str, x: Any, *, shape: str = "(N,)") -> Float[Array, " N"]:
    """Finite real numbers in one row; `shape` is what an error calls it."""
    value = as_real(name, x)
    check_shape(name, value, 1, shape)
    check_finite(name, value)
    return value


def as_matrix(name: str, x: Any, size: int | None = None) -> Inexact[Array, "N N"]:
    """A finite square matrix, of so many rows if `size` is given."""
    value = as_inexact(name, x)
    check_shape(name, value, 2, "(N, N)" if size is None else str((size, size)))
    wanted = (value.shape[0] if size is None else size,) * 2
    if value.shape != wanted:
        raise ValueError(
            f"Argument `{name}` must have shape {wanted}, but has shape {value.shape}."
        )
    check_finite(name, value)
    return value


def as_hermitian(name: str, x: Any, size: int | None = None) -> Inexact[Array, "N N"]:
    """A finite Hermitian matrix; a traced one is checked in the result."""
    value = as_matrix(name, x, size)
    check_hermitian(name, value)
    return value


def as_count(name: str, x: Any, least: int) -> int:
    """A whole number of at least `least`, known while tracing: an int, or an integer of NumPy or JAX."""
    try:
        value = operator.index(x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Argument `{name}` must be a whole number of at least {least}, known outside jit, but is {x!r}."
        ) from error
    if isinstance(x, bool) or value < least:
        raise ValueError(
            f"Argument `{name}` must be a whole number of at least {least}, but is {x!r}."
        )
    return value


def as_index(name: str, x: Any, size: int) -> int:
    """The index of one of `size` levels, counted from 0."""
    value = as_count(name, x, 0)
    if value >= size:
        raise ValueError(
            f"Argument `{name}` must be the index of a level, from 0 to {size - 1}, but is {value}."
        )
    return value


def check_finite(name: str, x: Array) -> None:
    """No NaN and no infinity, where that is known."""
    if concrete(x):
        require(
            np.isfinite(x),
            f"Argument `{name}` must be finite, but has NaN or infinite entries: {np.asarray(x)}.",
        )


def _as_array(name: str, x: Any) -> Array:
    """An array of numbers, known if `x` is, or a `ValueError` that names the argument."""
    try:
        array = _strong(_plain(x))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Argument `{name}` must be a number or an array of numbers, but is {reprlib.repr(x)}."
        ) from error
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise ValueError(
            f"Argument `{name}` must be a number or an array of numbers, but is {reprlib.repr(x)}."
        )
    return array


def _plain(x: Any) -> Any:
    """What JAX can make an array of, of an object of QuTiP."""
    qutip = sys.modules.get("qutip")
    return x.full() if qutip is not None and isinstance(x, qutip.Qobj) else x
