"""The arguments of a design, checked before anything is compiled, and their description in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._checks import as_count, as_scalar, concrete, require
from .._fields import function_name
from ..losses import Penalised
from .free import Box, Free
from .scipy import SciPy
from .search import LBFGS, scalar_loss


@dataclass(frozen=True)
class Prepared:
    """A checked design.

    - `starts`: s of every start, shape (starts, n).
    - `constraints`: their names.
    - `weight`: that of the constraints, where SLSQP sees the parts of a penalised loss; else None.
    - `manifest`: the arguments in words and numbers, as a checkpoint keeps them.
    """

    loss: Any
    free: Free
    optimiser: Any
    max_steps: int
    tol: float
    target: float
    errors: float | None
    starts: Any
    constraints: tuple[str, ...]
    weight: float | None
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def pieces(self) -> tuple[Any, Any, tuple, Box]:
        """The arguments that the compiled functions share: the loss, the model, the free numbers, and the bounds."""
        loss = self.loss if self.weight is None else self.loss.loss
        return loss, self.free.model, self.free.static(), self.free.box


def prepare(
    loss: Any,
    start: Any,
    *,
    bounds: Any,
    optimiser: Any = LBFGS(),
    max_steps: Any = 200,
    starts: Any = 1,
    key: Any = None,
    tol: Any = 1e-7,
    target: Any = None,
    errors: Any = None,
    config: Any = None,
) -> Prepared:
    """Checks every argument of `jaxres.design`; nothing is compiled."""
    require(callable(loss), f"Argument `loss` must be a function of the model, but is {loss!r}.")
    max_steps, starts = as_count("max_steps", max_steps, 1), as_count("starts", starts, 1)
    tol = _number("tol", tol, positive=True)
    target = None if target is None else _number("target", target)
    errors = _check_errors(errors)
    key = _check_key(key)
    _check_optimiser(optimiser)
    free = Free(start, bounds)
    constraints, weight = _check_constraints(loss, optimiser, free)
    at_start = free.box.scaled(jnp.asarray(free.x, free.dtype))
    return Prepared(
        loss=loss,
        free=free,
        optimiser=optimiser,
        max_steps=max_steps,
        tol=tol,
        target=-np.inf if target is None else target,
        errors=errors,
        starts=free.box.draw(key, at_start, starts),
        constraints=constraints,
        weight=weight,
        manifest={
            "loss": _describe(loss),
            "bounds": {name: _plain(pair) for name, pair in bounds.items()},
            "start": [float(x) for x in free.x],
            "entries": free.entries,
            "optimiser": _describe(optimiser),
            "starts": starts,
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "dtype": str(np.dtype(free.dtype)),
            "max_steps": max_steps,
            "tol": tol,
            "target": target,
            "versions": {name: version(name) for name in ("jaxres", "jax")},
            "config": config,
        },
    )


# --- The checks ---


def _number(name, x, **sign):
    value = as_scalar(name, x, **sign)
    require(
        concrete(value),
        f"Argument `{name}` must be a number, but is traced. Call jaxres.design outside jit, grad and vmap.",
    )
    return float(value)


def _check_errors(errors):
    errors = None if errors is None else _number("errors", errors)
    require(
        errors is None or errors > 0,
        f"Argument `errors` must be None or a positive rise of the loss, but is {errors!r}. Use 0.5 for a negative "
        "log-likelihood.",
    )
    return errors


def _check_key(key):
    if key is None:
        return jax.random.key(0)
    dtype = key.dtype if isinstance(key, jax.Array | np.ndarray) else None
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    require(
        concrete(key)
        and ((typed and key.shape == ()) or (dtype == np.uint32 and key.shape == (2,))),
        f"Argument `key` must be None or one key, as jax.random.key(0) is, but is {key!r}.",
    )
    return key


def _check_optimiser(optimiser):
    require(
        isinstance(optimiser, LBFGS | SciPy | optax.GradientTransformation),
        "Argument `optimiser` must be jaxres.LBFGS(), jaxres.SciPy(...) or an optax transformation such as "
        f"optax.adam(0.05), but is {optimiser!r}.",
    )


def _check_constraints(loss, optimiser, free):
    """The names of the constraints, and their weight where SLSQP sees the parts of a penalised loss."""
    takes_constraints = optimiser == SciPy("SLSQP")
    constraints, weight = _check_loss(loss, free), None
    if isinstance(loss, Penalised) and takes_constraints:
        constraints, weight = _check_loss(loss.loss, free), float(loss.weight)
    require(
        not constraints or takes_constraints,
        f"Argument `optimiser` must be jaxres.SciPy('SLSQP'), since the loss has constraints "
        f"({', '.join(constraints)}), but is {optimiser!r}. Or make them part of the loss, with "
        "jaxres.losses.Penalised(loss).",
    )
    return constraints, weight


def _check_loss(loss, free):
    """The names of the constraints of a loss, in alphabetical order, in which jit returns a dict."""
    x = jnp.asarray(free.x, free.dtype)
    out: Any = eqx.filter_eval_shape(scalar_loss, loss, free.model, free.static(), x)
    value, margins = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
    require(
        isinstance(margins, Mapping) and all(map(_is_real_number, (value, *margins.values()))),
        "Argument `loss` must return one real number, or that and a dict of real numbers that must not be negative, "
        f"but returns {out}.",
    )
    return tuple(sorted(margins))


def _is_real_number(x):
    return getattr(x, "shape", None) == () and jnp.issubdtype(jnp.result_type(x), jnp.floating)


# --- The description of an argument in a checkpoint, which is the same in every process ---


def _describe(x):
    """A Module by its name and fields; a function, or each of the pair that an optax transformation is."""
    if isinstance(x, eqx.Module):
        fields = ", ".join(f"{name}={_plain(value)}" for name, value in vars(x).items())
        return f"{type(x).__name__}({fields})"
    return ", ".join(map(_describe_function, x)) if isinstance(x, tuple) else _describe_function(x)


def _describe_function(x, outer=()):
    """A function by its name and what it closes over; any other object by its value or its type.

    Functions that close over each other end where one of the `outer` ones comes again.
    """
    if not callable(x) or isinstance(x, type):
        return (
            str(_plain(x)) if isinstance(x, bool | int | float | str | None) else type(x).__name__
        )
    if any(x is y for y in outer):
        return function_name(x)
    inside = [_content(cell) for cell in getattr(x, "__closure__", None) or ()]
    parts = [part for y in inside for part in (y if isinstance(y, tuple | list) else [y])]
    described = ", ".join(_describe_function(part, (*outer, x)) for part in parts)
    return f"{function_name(x)}({described})"


def _content(cell):
    """What a function closes over; nothing, for a name that is not set."""
    try:
        return cell.cell_contents
    except ValueError:
        return ()


def _plain(x):
    """A value as JSON holds it, or in words."""
    if isinstance(x, tuple | list):
        return [_plain(v) for v in x]
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, eqx.Module) or callable(x):
        return _describe(x)
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        return np.asarray(x).tolist() if not np.iscomplexobj(x) else str(np.asarray(x).tolist())
    return x if isinstance(x, bool | int | float | str | None) else repr(x)
