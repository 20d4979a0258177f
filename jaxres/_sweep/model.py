"""The description of a model as data in stores and datasets, and the model rebuilt from it.

Objects of this package are described by the names of their classes and by their fields, with all numbers. To rebuild a
model, these names are looked up among the package's own classes; nothing that a file names is imported, unpickled or
run.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._checks import require
from .._dynamics.steady_state import steady_state
from .._fields import Fields, function_name
from .._files import StoreError
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .trust import is_own, load_function

#: Entries of the largest array that is described in full among the values that a function uses. Larger ones, tables for
#: instance, would fill the manifest; arrays of the model itself are always described in full.
MOST = 4096
#: So many characters of a function's text are kept, some hundred lines.
TEXT = 10_000


def describe(x: Any, most: int | None = None) -> Any:
    """Describes a value as JSON: arrays of more than `most` entries by their checksums, others in full."""
    again = functools.partial(describe, most=most)
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, complex):
        return {"real": x.real, "imag": x.imag}
    if isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, jax.core.Tracer):
        return _array(x, most)
    if isinstance(x, list | tuple) and most is not None and len(x) > most:
        return {"other": f"{type(x).__name__} of {len(x)}"}
    if isinstance(x, list):
        return [again(v) for v in x]
    if isinstance(x, tuple):
        return {"tuple": [again(v) for v in x]}
    if isinstance(x, Mapping) and all(isinstance(key, str) for key in x):
        return {"dict": {key: again(v) for key, v in x.items()}}
    if isinstance(x, functools.partial):
        given = {str(i): v for i, v in enumerate(x.args)} | x.keywords
        return {"partial": again(x.func), "given": {key: again(v) for key, v in given.items()}}
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        fields = {f.name: again(getattr(x, f.name)) for f in dataclasses.fields(x)}
        return {"class": _name(type(x)), "fields": fields}
    if isinstance(x, FunctionType | MethodType | type) or callable(x):
        return {"function": function_name(x)}
    return {"other": f"{type(x).__module__}:{type(x).__qualname__}"}


def rebuild(tree: Any, known: Mapping[str, Any] | None = None) -> Any:
    """Rebuilds the value that `describe` described.

    Classes are the package's own, or those in `known`, by their names in the description.
    """
    again = functools.partial(rebuild, known=known)
    known = {} if known is None else known
    if isinstance(tree, list):
        return [again(v) for v in tree]
    if not isinstance(tree, Mapping):
        return tree
    match dict(tree):
        case {"dtype": dtype, "shape": shape, "real": real, "imag": imag}:
            entries = np.asarray(real) + 1j * np.asarray(imag)
            return jnp.asarray(entries.reshape(shape).astype(dtype))
        case {"dtype": dtype, "shape": shape, "values": values}:
            return jnp.asarray(np.asarray(values, dtype).reshape(shape))
        case {"real": real, "imag": imag}:
            return complex(real, imag)
        case {"tuple": items}:
            return tuple(again(v) for v in items)
        case {"dict": items}:
            return {key: again(v) for key, v in items.items()}
        case {"class": name, "fields": fields}:
            return _look_up(name, known, _classes())(**{k: again(v) for k, v in fields.items()})
        case {"function": name}:
            return load_function(name) if is_own(name) else _look_up(name, known, {})
        case {"partial": function, "given": given}:
            args = [again(given[str(i)]) for i in range(len(given)) if str(i) in given]
            rest = {key: again(v) for key, v in given.items() if not key.isdigit()}
            return functools.partial(again(function), *args, **rest)
    raise StoreError(
        f"The description of a model must hold its values, but has {tree!r} in their place: that was not written down. "
        "Hand over the function that made the model."
    )


def _look_up(name, known, own):
    """The class or function of this name in `known` or in `own`."""
    if name in known:
        return known[name]
    if name in own:
        return own[name]
    raise StoreError(
        f"Argument `known` must have {name!r}, which is not part of jaxres, but has {[*known] or 'nothing'}. Nothing "
        f"that a file names is imported: pass known={{{name!r}: ...}}."
    )


@functools.cache
def _classes() -> dict[str, Any]:
    """The package's own classes by their names in descriptions."""

    def under(kind):
        for sub in kind.__subclasses__():
            yield sub
            yield from under(sub)

    return {_name(kind): kind for kind in under(eqx.Module) if _is_ours(kind)}


def _is_ours(kind):
    return f"{kind.__module__}.".startswith("jaxres.")


def _name(kind):
    return kind.__qualname__ if _is_ours(kind) else f"{kind.__module__}:{kind.__qualname__}"


def _array(array, most):
    x: Any = np.asarray(array)
    if x.ndim == 0:
        return describe(x.item())
    about = {"dtype": str(x.dtype), "shape": list(x.shape)}
    if most is not None and x.size > most:
        return about | {"sha256": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()}
    if np.iscomplexobj(x):
        return about | {"real": x.real.tolist(), "imag": x.imag.tolist()}
    return about | {"values": x.tolist()}


# --------------------------------------------------------------------------------------------------------------
# A sweep
# --------------------------------------------------------------------------------------------------------------


def describe_sweep(
    function: Any,
    of: Callable | None,
    numbers: Mapping[str, np.ndarray],
    static: Mapping[str, Any],
    first: Mapping[str, np.generic],
    is_model: bool,
) -> dict[str, Any]:
    """Describes the model of a sweep.

    The entries of the description are:

    - `function`, `of`: their names, their values, the data that they use, and their texts.
    - `parameters`: all parameters held fixed, in full.
    - `at`: the first point of the grid.
    - `model`: the objects at that point, if a model was swept or the function returns one.
    - `defaults`: the algorithms that this version uses by default.
    """
    parameters = {name: describe(x) for name, x in {**numbers, **static}.items()}
    known = inspect.signature(steady_state).parameters
    about: dict[str, Any] = (
        {"name": None} if isinstance(function, Fields) else _describe_function(function)
    )
    model = None
    if is_model or isinstance(function, Fields):
        given = {k: jnp.asarray(x) for k, x in {**numbers, **first}.items()}
        try:
            # Traced as in the sweep, invalid numbers give a named result later and do not raise here.
            model = eqx.filter_jit(function)(**static, **given)
        except Exception as error:
            about["refused"] = f"{type(error).__name__}: {error}"
    return {
        "function": about,
        "of": None if of is None else _describe_function(of),
        "parameters": parameters,
        "at": {name: describe(x) for name, x in first.items()},
        "model": describe(model),
        "defaults": {k: describe(known[k].default) for k in ("amplitudes", "quadrature")},
    }


def _describe_function(function):
    """The name, the value, the data and the text of a function."""
    about = {"name": function_name(function), "value": describe(function, MOST)}
    inner = inspect.unwrap(function)
    inner = inner.func if isinstance(inner, functools.partial) else inner
    if isinstance(inner, FunctionType) and not _is_ours(inner):
        near = inspect.getclosurevars(inner)
        outside = {**near.globals, **near.nonlocals}
        about["uses"] = {k: describe(x, MOST) for k, x in outside.items() if _is_data(x)}
        try:
            about["text"] = inspect.getsource(inner)[:TEXT].encode(errors="replace").decode()
        except (OSError, TypeError):  # the function has no source file
            about["text"] = None
    return about


def _is_data(x):
    """Whether it is a number, a text, an array, a Module of equinox, or a list of such."""
    plain = bool | int | float | complex | str | np.ndarray | np.generic | jax.Array | eqx.Module
    return isinstance(x, plain) or (isinstance(x, list | tuple) and all(map(_is_data, x)))


def is_model(x: Any) -> bool:
    """Whether a system or a reservoir is a part of it."""
    kinds = (System, Reservoir)
    leaves = jax.tree_util.tree_leaves(x, is_leaf=lambda leaf: isinstance(leaf, kinds))
    return any(isinstance(leaf, kinds) for leaf in leaves)


def model_of(
    data: Any,
    point: Mapping[str, Any] | None = None,
    *,
    function: Callable | None = None,
    known: Mapping[str, Any] | None = None,
) -> Any:
    r"""Rebuilds the model of a sweep from its results: system and reservoir, or whatever its function returned.

    **Arguments:**

    - `data`: the dataset that `jaxres.sweep` returned, in memory or read again from a store or a NetCDF file.
    - `point`: values of parameters by name, if they differ from the first point of the grid.
    - `function`: the function that was swept. It is not needed if a model was swept, for the models of this package
      (`jaxres.letter.model`, ...), or for the first point.
    - `known`: classes and functions of other packages that are parts of the model, by their names in the description.

    The description, `data.attrs["model"]`, is data in JSON: classes by name, and all numbers. Nothing that it names is
    imported.

    **Raises:** `ValueError` if the results do not describe a model, or where `function` or `known` are needed.

    !!! example
        >>> data = jr.sweep(jr.letter.model, {"rate": [1.0, 5.0]}, fixed={"splitting": 1.2})
        >>> system, reservoir = jr.model_of(data, {"rate": 5.0})
        >>> print(system.levels, reservoir.incidence, float(reservoir.rate), float(reservoir.packet.beta))
        [-0.6  0.6] left 5.0 0.1
    """
    name, tree, parameters, first = _read_description(data, known)
    given = {} if point is None else dict(point)
    if function is None and isinstance(name, str) and is_own(name):
        function = load_function(name)
    if function is not None:
        fixed = {k: rebuild(v, known) for k, v in parameters.items() if k not in given}
        return function(**{**fixed, **first, **given})
    require(
        tree is not None,
        f"Argument `function` must be given, since {name} returned numbers, and no model, but is None.",
    )
    model = rebuild(tree, known)
    if name is None:
        fields = Fields(model, "data")
        wrong = [k for k in given if fields.default(k) is None]
        require(not wrong, f"Argument `point` must name fields of the model, but {wrong} are none.")
        return fields(**{k: jnp.asarray(v, fields.default(k).dtype) for k, v in given.items()})
    require(
        all(k in first and np.all(first[k] == v) for k, v in given.items()),
        f"Argument `function` must be given for another point than the first one of the grid, {first}, since only "
        f"{name} knows how the model depends on {[*given]}, but is None.",
    )
    return model


def _read_description(data, known):
    """The function's name, the model's description, the fixed parameters' descriptions, and the first point."""
    text: Any = getattr(data, "attrs", {}).get("model")
    require(
        isinstance(text, str),
        f"Argument `data` must be the dataset of a sweep, with its model in `data.attrs['model']`, but is "
        f"{type(data).__name__} without. Read a store by xarray.open_zarr(folder, consolidated=False).",
    )
    try:
        about = json.loads(text)
        name, tree = about["function"]["name"], about["model"]
        first = {k: rebuild(v, known) for k, v in about["at"].items()}
        return name, tree, dict(about["parameters"]), first
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            "Argument `data` must have the description of its model in `data.attrs['model']`, but that is damaged: "
            f"{type(error).__name__}: {error}. Take it from the store."
        ) from error
