"""What the doors of the package share, beside the converters of numbers in `_checks.py`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ._amplitudes import AbstractAmplitudes
from ._checks import Checked as Checked, as_count, check_instance
from ._quadrature import AbstractQuadrature

#: no count comes near this: what does is a slip, and would fill the memory
MOST = 2**31 - 1


def as_number(name: str, x: Any, least: int) -> int:
    """A whole number of at least `least` that a loop or an array may have."""
    value = as_count(name, x, least)
    if value > MOST:
        raise ValueError(
            f"Argument `{name}` must be at most {MOST}, but has {value.bit_length()} binary digits."
        )
    return value


def as_flag(name: str, x: Any) -> bool:
    """True or False, known while tracing."""
    if not isinstance(x, bool | np.bool_):
        raise ValueError(
            f"Argument `{name}` must be True or False, known outside jit, but is {x!r}."
        )
    return bool(x)


def as_key(name: str, x: Any) -> PRNGKeyArray:
    """One random key of JAX, of the new kind or the old one (two numbers)."""
    if not isinstance(x, jax.Array):
        known = False
    elif jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        known = x.ndim == 0
    else:
        known = x.dtype == jnp.uint32 and x.ndim == 1
    if not known:
        raise ValueError(
            f"Argument `{name}` must be one random key, such as jax.random.key(0), but is {x!r}. "
            "Use jax.vmap for many keys."
        )
    return x


def as_function(name: str, x: Any, *, static: bool = False) -> Callable:
    """Something that can be called, and is no object with arrays, such as a map."""
    if not callable(x) or (static and any(map(eqx.is_array, jax.tree.leaves(x)))):
        raise ValueError(f"Argument `{name}` must be a function, but is {x!r}.")
    return x


def check_numerics(amplitudes: Any, quadrature: Any) -> None:
    """How something is computed: by which model and with which rule."""
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    check_instance(
        "quadrature", quadrature, AbstractQuadrature, "a rule such as jaxres.DoubleExponential()"
    )
