"""A function of named numbers with named outputs, as sweeps and designs evaluate it."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import require
from ._dynamics.steady_state import RESULTS, steady_state
from ._files import short
from ._quantum.system import System
from ._reservoir.reservoir import Reservoir

#: the types that an output may have
_DATA = (bool, int, float, complex, np.generic, np.ndarray, jax.Array)


@dataclass
class Seen:
    """What the trace of a point reveals besides its outputs.

    - `meanings`: for each output that is an enumeration, the names of its members.
    - `model`: what the function returned, with traced numbers.
    """

    meanings: dict[str, list[str]] = field(default_factory=dict)
    model: Any = None


@dataclass(frozen=True)
class Point:
    """The function `of(function(**parameters))` of keyword parameters, with its derivatives.

    - `static`: parameters that are not numbers.
    - `gradient`: names of the parameters with respect to which the outputs are differentiated.
    """

    function: Callable
    of: Callable | None
    static: Mapping[str, Any] = field(default_factory=dict)
    gradient: tuple[str, ...] = ()

    def __call__(
        self, parameters: Mapping[str, Any], seen: Seen | None = None
    ) -> dict[str, jax.Array]:
        """Returns all outputs by name. Derivatives are named `d<output>_d<parameter>`."""
        seen = Seen() if seen is None else seen
        if not self.gradient:
            return self.outputs(parameters, seen)
        chosen = {name: parameters[name] for name in self.gradient}

        def smooth(chosen):
            out = self.outputs({**parameters, **chosen}, seen)
            return {k: v for k, v in out.items() if jnp.issubdtype(v.dtype, jnp.inexact)}, out

        kept = jax.eval_shape(smooth, chosen)[0].values()
        # The whole gradient of one real number costs one backward pass.
        reverse = len(kept) == 1 and all(v.shape == () and v.dtype.kind == "f" for v in kept)
        derivative = jax.jacrev if reverse else jax.jacfwd
        grads, out = derivative(smooth, has_aux=True)(chosen)
        each = {f"d{k}_d{name}": grad[name] for k, grad in grads.items() for name in grad}
        both = sorted(out.keys() & each.keys())
        require(
            not both,
            f"Argument `function` must return outputs named otherwise than derivatives, but {both} are. Rename them.",
        )
        return out | each

    def outputs(self, parameters: Mapping[str, Any], seen: Seen) -> dict[str, jax.Array]:
        """Returns the outputs by name, an enumeration as its number and an array alone as `value`."""
        result = seen.model = self.function(**self.static, **parameters)
        of: Any = self.of or (_steady_state if _is_model(result) else None)
        if of is not None:
            result = of(*result) if isinstance(result, tuple) else of(result)
        leaves, _ = jax.tree_util.tree_flatten_with_path(result, is_leaf=_is_member)
        out = {}
        for path, leaf in leaves:
            name = path_name(path) or "value"
            if _is_member(leaf):
                seen.meanings[name] = _members(leaf._enumeration)
                leaf = leaf._value
            if not isinstance(leaf, _DATA):
                raise ValueError(
                    f"Argument `function` must return numbers or arrays, but its output `{name}` is {leaf!r}. "
                    "Name what is wanted, as in `of=lambda ...: {...}`."
                )
            require(
                name not in out,
                f"Argument `function` must return outputs of different names, but has {name!r} twice. Return a dict "
                "with other keys.",
            )
            out[name] = _numeric(name, leaf)
        require(len(out) > 0, "Argument `function` must return something, but returns nothing.")
        return out


def _numeric(name, leaf):
    """Converts an output to an array of numbers that files can hold."""
    try:
        array = jnp.asarray(leaf)
        usable = np.dtype(array.dtype).kind in "biufc"
    except (TypeError, ValueError, OverflowError):
        # These are objects, texts, keys of random numbers, and integers such as 10**400.
        array, usable = jnp.zeros(()), False
    require(
        usable,
        f"Argument `function` must return numbers or arrays of numbers, but its output `{name}` is "
        f"{getattr(leaf, 'dtype', type(leaf).__name__)}. Convert it, or leave it out with `of=lambda ...: {{...}}`.",
    )
    return array


def _is_model(x: Any) -> bool:
    """Whether it is a system with its reservoir or reservoirs, whose steady state is the output by default."""
    return (
        isinstance(x, tuple)
        and len(x) == 2
        and isinstance(x[0], System)
        and isinstance(x[1], Reservoir | tuple | list)
    )


def _steady_state(system, reservoirs):
    return steady_state(system, reservoirs)


def _is_member(x: Any) -> bool:
    return isinstance(x, type(RESULTS.successful))


def _members(enumeration: Any) -> list[str]:
    """The names of an enumeration's members, in the order of their numbers."""
    items = enumeration._name_to_item  # equinox has no public access to the names
    return sorted(items, key=lambda name: int(items[name]._value))


def path_name(path: Iterable[Any]) -> str:
    """The path of a leaf in a tree as a dotted name such as `packet.width`."""
    parts = [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", "")))) for k in path]
    return ".".join(parts)


class Fields:
    """A model as a function of its numeric fields, by dotted names: `packet.width`, `levels.1`.

    The model is a pytree, or a tuple of pytrees, whose fields are named without the index in the tuple.
    """

    def __init__(self, model: Any, argument: str = "function"):
        self.model = model
        self.argument = argument  # the user's name for the model, in messages

    @property
    def fields(self) -> dict[str, Any]:
        """The numeric fields by name."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.model)
        named: dict[str, Any] = {}
        for path, leaf in leaves:
            name = path_name(path[1:] if isinstance(self.model, tuple) else path)
            require(
                name not in named,
                f"Argument `{self.argument}` must be a model whose fields have different names, but {name!r} stands "
                "in two of its parts. Write a function of keyword parameters that returns it.",
            )
            named[name] = leaf
        return {name: leaf for name, leaf in named.items() if eqx.is_inexact_array(leaf)}

    def default(self, name: str) -> Any:
        """The value of a field or of one of its entries, or None if there is no such field or entry."""
        field, index = self.entry(name)
        if field not in self.fields:
            return None
        try:
            return np.asarray(self.fields[field])[index]
        except (IndexError, TypeError):
            return None

    def entry(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Splits a name into that of the field and the index: "levels.1" becomes ("levels", (1,))."""
        parts, index = name.split("."), []
        while name not in self.fields and len(parts) > 1 and parts[-1].isdigit():
            index.insert(0, int(parts.pop()))
            name = ".".join(parts)
        return name, tuple(index)

    def __call__(self, **parameters: Any) -> Any:
        """Returns the model with the given fields and entries."""
        values = self.fields | {k: v for k, v in parameters.items() if k in self.fields}
        for name, value in parameters.items():
            field, index = self.entry(name)
            if index:
                values[field] = values[field].at[index].set(value)
        leaves, treedef = jax.tree_util.tree_flatten(self.model)
        new = iter(values.values())
        leaves = [next(new) if eqx.is_inexact_array(leaf) else leaf for leaf in leaves]
        return jax.tree_util.tree_unflatten(treedef, leaves)


def parameters_of(function: Any) -> tuple[Callable, dict[str, Any], set[str] | None]:
    """Returns a function of keyword parameters, its defaults, and its names, or None if it takes any name."""
    if isinstance(function, Fields):
        return function, dict(function.fields), set(function.fields)
    if not callable(function) or isinstance(function, eqx.Module | tuple):
        model = Fields(function)
        require(
            len(model.fields) > 0,
            "Argument `function` must be a function of keyword parameters, or a model with numeric fields, but is "
            f"{short(function)}.",
        )
        return parameters_of(model)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return function, {}, None
    defaults, names, open_ended = {}, set(), False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            require(
                parameter.default is not parameter.empty,
                f"Argument `function` must take keyword parameters, but {name!r} is positional only. Wrap it: "
                "`lambda x: f(x)`.",
            )
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            names.add(name)
            if parameter.default is not parameter.empty:
                defaults[name] = parameter.default
    return function, defaults, None if open_ended else names


def function_name(function: Any) -> str:
    """The name of a function, `module:name`, or the names of the classes of a model."""
    if isinstance(function, Fields):
        parts = function.model if isinstance(function.model, tuple) else (function.model,)
        return "(" + ", ".join(type(part).__name__ for part in parts) + ")"
    inner = inspect.unwrap(function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', type(inner).__module__)}:{name}"
