"""Conversion and validation of arguments: wrong concrete values raise a ValueError, wrong traced ones become NaN."""

import abc
import operator
import reprlib
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import lru_cache, wraps
from numbers import Number
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, Inexact, PRNGKeyArray, Real

_T = TypeVar("_T")
Function = TypeVar("Function", bound=Callable)

#: `Checked[T]` marks an argument that the function itself checks to be a T. A checker of annotations accepts anything
#: there, so the error message is the same with and without it, and every value that the converter accepts reaches it.
Checked = _T | Any

#: annotations of arguments: one real number, an array of numbers, a whole number
Scalar = Checked[Real[ArrayLike, ""]]
Numbers = Checked[Inexact[ArrayLike, "..."]]
Count = Checked[int]


def concrete(*values: Any) -> bool:
    """Whether every leaf is a concrete number and not a tracer of jit, grad or vmap."""
    leaves = jax.tree_util.tree_leaves(values)
    return all(
        isinstance(leaf, (np.ndarray, np.generic, float, int, complex))
        or (isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer))
        for leaf in leaves
    )


def known(condition: Callable[[], Any]) -> bool:
    """Evaluates a condition on concrete numbers at once, also while JAX traces the calling function."""
    with jax.ensure_compile_time_eval():
        return bool(condition())


def _strong(x: Any) -> Array:
    """Converts to an array that is not weakly typed, also from a Python number, and is concrete if `x` is."""
    with jax.ensure_compile_time_eval() if concrete(x) else nullcontext():
        array = jnp.asarray(x)
        return array.astype(array.dtype) if array.weak_type else array


def require(condition: Any, message: str) -> None:
    """Raises `ValueError(message)` unless the (concrete) condition holds everywhere."""
    if not bool(np.all(condition)):
        raise ValueError(message)


def check_scalar(
    name: str, x: Any, *, positive: bool = False, nonnegative: bool = False, finite: bool = False
) -> None:
    """Checks a real scalar for its sign and for being finite; a `nonnegative` one may be infinite unless `finite`."""
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
    if finite or not (positive or nonnegative):
        require(np.isfinite(value), f"Argument `{name}` must be finite, but is {value:g}.")


def check_shape(name: str, x: Any, ndim: int, shape: str) -> None:
    """Checks the number of axes, which is known also while tracing."""
    if np.ndim(x) != ndim:
        raise ValueError(
            f"Argument `{name}` must have shape {shape}, but has shape {np.shape(x)}."
            + (" Use jax.vmap to batch over values." if np.ndim(x) > ndim else "")
        )


#: tolerance for the difference from the adjoint, in units of ε times the largest entry
ROUNDINGS = 64


def check_hermitian(name: str, x: Any) -> None:
    """Checks that x is a square, finite and Hermitian matrix."""
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
        gap <= ROUNDINGS * np.finfo(value.dtype).eps * size,
        f"Argument `{name}` must be Hermitian, but differs from its adjoint by {gap:.2g}:\n{value}\n"
        f"Use (A + A.conj().T)/2 if the difference is noise.",
    )


def check_instance(name: str, x: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """Checks that x is an instance of one of the classes, which `remedy` names in the error message."""
    if not isinstance(x, kind):
        raise ValueError(f"Argument `{name}` must be {remedy}, but is {shown(x)}.")


def shown(x: Any) -> str:
    """The `repr` of an argument for an error message, shortened."""
    try:
        return _REPR.repr(x)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, a list in itself
        return f"a {type(x).__name__} that cannot be printed"


_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 80


@lru_cache(maxsize=4)
def warn_of_single_precision(dtype: Any) -> None:
    """Warns of the accuracy of single precision, once per process."""
    if dtype == jnp.float32:
        warnings.warn(
            "jaxres is computing in single precision: expect an accuracy of about 1e-6 in maps and 1e-5 in states. "
            'For double precision, call jax.config.update("jax_enable_x64", True) before anything else.',
            stacklevel=4,
        )


# --------------------------------------------------------------------------------------------------
# One converter for each kind of argument
# --------------------------------------------------------------------------------------------------
# All converters take the argument's name first, accept numbers, nested lists, NumPy and JAX arrays and
# Qobjs, and return an array in the precision of the process: double if jax_enable_x64 is set, else single,
# for input of any precision. So the code behind them does not meet mixed precisions.
#
# A wrong concrete value raises a `ValueError` that names the argument. A wrong traced value cannot raise:
# it becomes NaN, with NaN derivatives, and so do all results that are computed from it.


def as_inexact(name: str, x: Any) -> Array:
    """Converts to a real or complex floating-point array of any shape, with any entries."""
    return _promoted(numbers(name, x))


def as_complex(name: str, x: Any) -> Array:
    """Converts to a complex array of any shape, with any entries."""
    array = as_inexact(name, x)
    with _arithmetic(concrete(array)):
        return array.astype(jnp.result_type(complex))


def as_real(name: str, x: Any) -> Array:
    """Converts to a real floating-point array of any shape, with any entries."""
    array = numbers(name, x)
    if jnp.iscomplexobj(array):
        raise ValueError(
            f"Argument `{name}` must be real, but is complex: {shown(x)}. Take its real part."
        )
    return _promoted(array)


def as_scalar(
    name: str, x: Any, *, positive: bool = False, nonnegative: bool = False, finite: bool = False
) -> Float[Array, ""]:
    """Converts to one real number that satisfies `check_scalar`."""
    value = as_real(name, x)
    check_shape(name, value, 0, "()")
    check_scalar(name, value, positive=positive, nonnegative=nonnegative, finite=finite)
    if concrete(value):
        return value
    inside = value > 0 if positive else value >= 0 if nonnegative else ~jnp.isnan(value)
    unbounded = nonnegative and not (positive or finite)
    return or_nan(inside if unbounded else inside & jnp.isfinite(value), value)


def as_vector(name: str, x: Any, *, shape: str = "(N,)") -> Float[Array, " N"]:
    """Converts to a vector of finite real numbers; `shape` is its shape in the error message."""
    value = as_real(name, x)
    check_shape(name, value, 1, shape)
    return _finite(name, value)


def as_matrix(name: str, x: Any, size: int | None = None) -> Inexact[Array, "N N"]:
    """Converts to a finite square matrix, of `size` rows if given."""
    value = as_inexact(name, x)
    check_shape(name, value, 2, "(N, N)" if size is None else str((size, size)))
    wanted = (value.shape[0] if size is None else size,) * 2
    if value.shape != wanted:
        raise ValueError(
            f"Argument `{name}` must have shape {wanted}, but has shape {value.shape}."
        )
    if not value.size:
        raise ValueError(f"Argument `{name}` must have at least one row, but is empty.")
    return _finite(name, value)


# Hermiticity, unitarity and the trace are checked to the rounding of the precision in which the matrix comes. If that
# is not the precision of the process, the matrix is then corrected, so that they hold in this one too.


def as_hermitian(name: str, x: Any, size: int | None = None) -> Inexact[Array, "N N"]:
    """Converts to a finite Hermitian matrix, of `size` rows if given."""
    came = numbers(name, x)
    value = as_matrix(name, came, size)
    check_hermitian(name, came)
    if came.dtype != value.dtype:
        with _arithmetic(concrete(came)):
            value = (value + jnp.conj(value.T)) / 2
    return value if concrete(came) else or_nan(hermitian(came), value)


def as_unitary(name: str, x: Any, size: int | None = None) -> Inexact[Array, "N N"]:
    """Converts to a unitary matrix, of `size` rows if given."""
    came = numbers(name, x)
    value = as_matrix(name, came, size)
    if concrete(came):
        U = np.asarray(came)
        defect = np.max(np.abs(U.conj().T @ U - np.eye(len(U))))
        require(
            known(lambda: unitary(came)),
            f"Argument `{name}` must be unitary, but U†U differs from 1 by {defect:.2g}.",
        )
    if came.dtype != value.dtype:
        with _arithmetic(concrete(came)):
            # Newton–Schulz: each step squares the distance to a unitary, so three lead from 1e-3 below 1e-16
            for _ in range(3):
                value = 1.5 * value - 0.5 * value @ (jnp.conj(value.T) @ value)
    return value if concrete(came) else or_nan(unitary(came), value)


def as_state(name: str, x: Any, size: int | None = None) -> Complex[Array, "N N"]:
    """Converts to a Hermitian matrix of trace 1, of `size` rows if given; positivity is not checked."""
    came = numbers(name, x)
    value = as_complex(name, as_matrix(name, came, size))
    if concrete(came):
        rho = np.asarray(came)
        skew, trace = np.max(np.abs(rho - rho.conj().T)), np.trace(rho).real
        tolerance = 1e3 * np.finfo(rho.dtype).eps
        require(
            skew <= tolerance,
            f"Argument `{name}` must be Hermitian, but differs from its adjoint by {skew:.2g}.",
        )
        require(
            abs(trace - 1) <= tolerance,
            f"Argument `{name}` must have trace 1, but has trace {trace:g}. Divide it by that.",
        )
    if jnp.finfo(came.dtype).eps > jnp.finfo(value.dtype).eps:
        with _arithmetic(concrete(came)):
            value = (value + jnp.conj(value.T)) / 2
            value = value / jnp.trace(value)
    return value if concrete(came) else or_nan(normalised(came), value)


#: largest accepted count; a larger one can only be a mistake, and would exhaust the memory
MOST = 2**31 - 1


def as_count(name: str, x: Any, least: int, most: int = MOST) -> int:
    """Converts to an int from `least` to `most`, known while tracing, from an int or an integer of NumPy or JAX."""
    wanted = f"a whole number of at least {least}"
    wanted += "" if most == MOST else f" and at most {most}"
    try:
        value = operator.index(x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Argument `{name}` must be {wanted}, known outside jit, but is {shown(x)}."
        ) from error
    if value > MOST:
        wanted = f"a whole number of at most {most}"
    if isinstance(x, bool) or not least <= value <= most:
        raise ValueError(f"Argument `{name}` must be {wanted}, but is {shown(x)}.")
    return value


def as_float(name: str, x: Any) -> float:
    """Converts to a finite Python float, known while tracing and of double precision in every process."""
    try:
        if not isinstance(x, Number):
            x = np.asarray(x)[()]  # the entry of an array without axes
        if not isinstance(x, Number) or isinstance(x, complex | np.complexfloating):
            raise TypeError("not a real number")
        value = float(cast(Any, x))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"Argument `{name}` must be a real number, known outside jit, but is {shown(x)}."
        ) from error
    if not np.isfinite(value):
        raise ValueError(f"Argument `{name}` must be finite, but is {value}.")
    return value


def as_index(name: str, x: Any, size: int) -> int:
    """Converts to the index of one of `size` levels, from 0."""
    value = as_count(name, x, 0)
    if value >= size:
        raise ValueError(
            f"Argument `{name}` must be the index of a level, from 0 to {size - 1}, but is {shown(x)}."
        )
    return value


def as_instance(name: str, x: Any, kind: type | tuple[type, ...], remedy: str) -> Any:
    """Returns x if it is an instance of one of the classes, which `remedy` names in the error message."""
    check_instance(name, x, kind, remedy)
    return x


def as_flag(name: str, x: Any) -> bool:
    """Converts to True or False, known while tracing."""
    if not isinstance(x, bool | np.bool_):
        raise ValueError(f"Argument `{name}` must be True or False, but is {shown(x)}.")
    return bool(x)


def as_key(name: str, x: Any) -> PRNGKeyArray:
    """Returns x if it is one random key of JAX, typed or of the old kind (an array of numbers)."""
    if not isinstance(x, jax.Array):
        fits = False
    elif jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        fits = x.ndim == 0
    else:
        fits = x.dtype == jnp.uint32 and x.ndim == 1
    if not fits:
        raise ValueError(
            f"Argument `{name}` must be one random key, such as jax.random.key(0), but is {shown(x)}. "
            "Use jax.vmap for many keys."
        )
    return cast(PRNGKeyArray, x)


def as_function(name: str, x: Any, *, static: bool = False) -> Callable:
    """Returns x if it can be called and, if `static`, contains no arrays."""
    if not callable(x) or (static and any(map(eqx.is_array, jax.tree.leaves(x)))):
        raise ValueError(f"Argument `{name}` must be a function, but is {shown(x)}.")
    return x


def as_choice(name: str, x: Any, choices: Sequence[str]) -> Any:
    """Returns x if it is one of the names `choices`."""
    if not isinstance(x, str) or x not in choices:
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(map(repr, choices))}, but is {shown(x)}."
        )
    return x


def check_finite(name: str, x: Array) -> None:
    """Checks that x is finite, if it is concrete."""
    if concrete(x):
        require(
            np.isfinite(x),
            f"Argument `{name}` must be finite, but has NaN or infinite entries: {np.asarray(x)}.",
        )


def _finite(name: str, x: Array) -> Array:
    check_finite(name, x)
    return x if concrete(x) else or_nan(jnp.all(jnp.isfinite(x)), x)


def _arithmetic(known: bool) -> ExitStack:
    """A context for conversions: types promote as NumPy's do, and `known` numbers are converted at once."""
    stack = ExitStack()
    stack.enter_context(jax.numpy_dtype_promotion("standard"))
    if known:
        stack.enter_context(jax.ensure_compile_time_eval())
    return stack


def numbers(name: str, x: Any) -> Array:
    """Converts to a floating-point array in the precision in which it comes, concrete if `x` is."""
    try:
        if _deeper(x, 16):
            raise ValueError("lists in lists in lists, as in one that contains itself")
        with _arithmetic(known := not _traced(x)):
            array = jnp.asarray(_numpy_array(x) if known else x)
            if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
                raise TypeError("no numbers")
            if jnp.issubdtype(array.dtype, jnp.inexact):
                return array.astype(array.dtype)  # not weakly typed, also if it was a Python number
            return array.astype(jnp.result_type(float))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Argument `{name}` must be a number or an array of numbers, but is {shown(x)}."
        ) from error


def _numpy_array(x: Any) -> Any:
    """Converts a concrete value to one that JAX understands."""
    if isinstance(x, jax.Array | float | complex):
        return x
    qutip = sys.modules.get("qutip")
    if qutip is not None and isinstance(x, qutip.Qobj):
        return x.full()
    if np.ma.is_masked(x):
        raise ValueError("masked entries")
    array = np.asarray(x)
    if array.dtype == object:  # integers beyond 64 bits, or fractions
        if not all(isinstance(item, Number) for item in array.flat):
            raise TypeError("objects that are not numbers")
        array = array.astype(
            complex if any(isinstance(item, complex) for item in array.flat) else float
        )
    if array.dtype.kind in "USMmO":  # text, dates
        raise TypeError("no numbers")
    return array


def _deeper(x, levels):
    """Whether lists in `x` are nested more than `levels` deep."""
    return isinstance(x, list | tuple) and (
        levels == 0 or any(_deeper(item, levels - 1) for item in x)
    )


def _traced(x):
    return isinstance(x, jax.core.Tracer) or (isinstance(x, list | tuple) and any(map(_traced, x)))


def _promoted(array: Array) -> Array:
    """Converts a floating-point array to the precision of the process."""
    kind = complex if jnp.iscomplexobj(array) else float
    with _arithmetic(concrete(array)):
        return array.astype(jnp.result_type(kind))


# --------------------------------------------------------------------------------------------------
# Conditions, also for traced numbers
# --------------------------------------------------------------------------------------------------


def or_nan(valid: Bool[Array, "*#s"], tree: Any, inputs: Any = ()) -> Any:
    """Returns the arrays of `tree` where `valid`, and NaN elsewhere, in the values and in all their derivatives.

    A selection by `jnp.where` would have derivatives 0 there, which an optimiser would mistake for a minimum.
    Derivatives with respect to `inputs` are NaN even if a value does not depend on them.
    """
    numbers = jax.tree.leaves(eqx.filter(inputs, eqx.is_inexact_array))
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda x: _or_nan(jnp.broadcast_to(valid, x.shape), x, numbers), tree)


@jax.custom_jvp
def _or_nan(valid, x, numbers):
    del numbers
    return jnp.where(valid, x, jnp.nan)


@_or_nan.defjvp
def _or_nan_jvp(primals, tangents):
    (valid, x, numbers), (_, dx, changes) = primals, tangents
    real = jnp.finfo(x.dtype).dtype
    dx = jnp.where(valid, 1, jnp.nan).astype(real) * dx
    if numbers:
        # The term 0 × number × its change, with NaN for 0, also serves second derivatives and numbers on which x does
        # not depend.
        none = jnp.where(valid, 0, jnp.nan).astype(real)
        value = sum(_total(jnp.where(jnp.isfinite(n), n, 0), real) for n in numbers)
        dx = dx + none * value * sum(_total(d, real) for d in changes)
    return _or_nan(valid, x, numbers), dx


def _total(x, dtype):
    return jnp.sum(jnp.real(x) + jnp.imag(x)).astype(dtype)


def hermitian(X: Inexact[Array, "*b N N"], roundings: float = ROUNDINGS) -> Bool[Array, "*b"]:
    """Whether matrices are finite and Hermitian, to `roundings` times ε of their largest entry."""
    X = jax.lax.stop_gradient(X)
    skew = jnp.max(jnp.abs(X - jnp.conj(jnp.swapaxes(X, -1, -2))), axis=(-2, -1))
    return skew <= roundings * jnp.finfo(X.dtype).eps * jnp.max(jnp.abs(X), axis=(-2, -1))


def unitary(U: Inexact[Array, "N N"]) -> Bool[Array, ""]:
    """Whether U†U is 1 to rounding."""
    U = jax.lax.stop_gradient(U)
    N = U.shape[-1]
    gram = jnp.matmul(jnp.conj(U.T), U, precision="highest")
    return jnp.max(jnp.abs(gram - jnp.eye(N, dtype=U.dtype))) < 1e3 * N * jnp.finfo(U.dtype).eps


def normalised(rho: Inexact[Array, "N N"]) -> Bool[Array, ""]:
    """Whether a matrix is Hermitian and of trace 1, to the tolerance of `as_state`."""
    rho = jax.lax.stop_gradient(rho)
    tolerance = 1e3 * jnp.finfo(rho.dtype).eps
    skew = jnp.max(jnp.abs(rho - jnp.conj(rho.T)))
    return (skew <= tolerance) & (jnp.abs(jnp.trace(rho) - 1) <= tolerance)


# --------------------------------------------------------------------------------------------------
# Public functions
# --------------------------------------------------------------------------------------------------


class Restorable(eqx.Module):
    """An object whose conditions hold to rounding, so that it must be constructed anew for another precision."""

    @abc.abstractmethod
    def restored(self) -> "Restorable":
        """Constructs the object anew from its fields."""


def door(function: Function) -> Function:
    """Makes a public function independent of the precision of its arguments and of the promotion rules of the process.

    Objects convert their numbers at construction, but later operations, such as `jax.tree.map`, may change their
    precision. `door` converts all objects among the arguments to the precision of the process. Within the function,
    types promote as NumPy's do, also under `jax_numpy_dtype_promotion="strict"`.
    """

    @wraps(function)
    def entered(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(
                *map(in_own_precision, args),
                **{name: in_own_precision(x) for name, x in kwargs.items()},
            )

    return cast(Function, entered)


def in_own_precision(x: Any) -> Any:
    """Converts an object, or those in a list, to the precision of the process; returns anything else unchanged."""
    if isinstance(x, list | tuple) and any(isinstance(item, eqx.Module) for item in x):
        return type(x)(map(in_own_precision, x)) if type(x) in (list, tuple) else x
    if not isinstance(x, eqx.Module) or not any(map(_foreign, jax.tree.leaves(x))):
        return x
    if isinstance(x, Restorable):
        return x.restored()
    return jax.tree.map(
        lambda y: _promoted(y) if _foreign(y) else in_own_precision(y),
        x,
        is_leaf=lambda y: isinstance(y, Restorable),
    )


def _foreign(x):
    """Whether a leaf is a floating-point array of another precision than that of the process."""
    return (
        isinstance(x, jax.Array)
        and jnp.issubdtype(x.dtype, jnp.inexact)
        and x.dtype != jnp.result_type(complex if jnp.iscomplexobj(x) else float)
    )
