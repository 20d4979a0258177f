"""The arguments of a sweep, checked: everything that can be wrong is told before any work."""

import operator
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._checks import require
from .._fields import Fields
from .._files import short
from .labels import FIELDS
from .plan import Axes

#: bytes that one value of an axis takes while a sweep is planned and its axes are written
AXIS_BYTES = 32
LEAST_VALUES = 2**16  # of an axis, that are let in whatever `memory` is


def check_count(lengths: Mapping[str, int], memory: int) -> None:
    """Refuses axes that are too long to be made, from their lengths alone."""
    most = max(memory // AXIS_BYTES, LEAST_VALUES)
    for name, n in lengths.items():
        require(
            n <= most,
            f"Argument `axes` must have axes that fit `memory`, which holds {most} values of one, but "
            f"{name!r} has {n}. Take fewer, raise `memory`, or sweep one part of it after the other.",
        )


def check_axes(axes: Any, memory: int) -> tuple[Axes, dict[str, dict[str, Any]]]:
    """The axes as groups of zipped names, each name with its values; and what labelled arrays say about them."""
    require(
        isinstance(axes, Mapping) and len(axes) > 0,
        "Argument `axes` must be a dictionary of names and their values, with at least one, but is "
        f"{short(axes)}. Write {{'rate': [1.0, 5.0]}}, and zipped axes as {{('rate', 'width'): (rates, widths)}}.",
    )
    groups, seen, labels = [], set(), {}
    for key, values in axes.items():
        names = key if isinstance(key, tuple) else (key,)
        require(
            len(names) > 0 and all(isinstance(name, str) and name for name in names),
            f"Argument `axes` must have names, or tuples of names for zipped axes, as keys, but has {short(key)}.",
        )
        if isinstance(key, tuple):
            try:
                values = tuple(values) if isinstance(values, Collection) else ()
            except TypeError:  # one number, as an array
                values = ()
            require(
                len(values) == len(names),
                f"Argument `axes` must have one array for each of the zipped names {names}, but has "
                f"{len(values) or 'no'}.",
            )
        else:
            values = (values,)
        for name in names:
            require(
                name not in seen,
                f"Argument `axes` must have each name once, but has {name!r} twice.",
            )
            seen.add(name)
        named: dict[Any, Any] = {}
        named.update(zip(names, values, strict=True))
        check_count({k: len(x) for k, x in named.items() if _has_length(x)}, memory)
        labels |= {name: _labels_of(x) for name, x in named.items()}
        group = {name: _axis(name, x) for name, x in named.items()}
        lengths = {name: len(x) for name, x in group.items()}
        require(
            len(set(lengths.values())) == 1,
            f"Argument `axes` must have zipped axes of one length, but they have {lengths}.",
        )
        if len(group) == 1:  # zipped ones may repeat
            ordered = next(iter(group.values()))
            if np.isrealobj(ordered) and not np.all(ordered[1:] > ordered[:-1]):
                ordered = np.sort(ordered)
            twice = np.flatnonzero(ordered[1:] == ordered[:-1])[:1]
            require(
                twice.size == 0,
                f"Argument `axes` must have different values along {key!r}, but {ordered[twice]} stands there more "
                "than once.",
            )
        groups.append(group)
    dims = ["_".join(group) for group in groups]
    require(
        len(set(dims)) == len(dims),
        f"Argument `axes` must have axes of different names, but they are {dims} (zipped names are joined).",
    )
    return tuple(groups), labels


def _has_length(x):
    """Of one dimension, and made or to be made with so many values."""
    return isinstance(x, Sized) and getattr(x, "ndim", 1) == 1


def _labels_of(x):
    """The unit, the symbol and the long name that an array of xarray carries."""
    attrs = getattr(x, "attrs", None)
    attrs = attrs if isinstance(attrs, Mapping) else {}
    return {key: attrs[key] for key in FIELDS if isinstance(attrs.get(key), str)}


def _axis(name, values):
    require(
        not isinstance(values, np.ma.MaskedArray),
        f"Argument `axes` must have values everywhere along {name!r}, but has a masked array. Leave the masked values "
        "out: `.compressed()`.",
    )
    try:
        array = np.asarray(values)
    except Exception:  # whatever an object does when it is to become an array, and tracers
        array = np.asarray(None)
    require(
        array.dtype.kind in "iufc",
        f"Argument `axes` must have numbers along {name!r}, but has {short(values)}.",
    )
    require(
        array.ndim == 1 and array.size > 0,
        f"Argument `axes` must have a one-dimensional array of at least one value along {name!r}, but it has shape "
        f"{array.shape}.",
    )
    require(~np.isnan(array), f"Argument `axes` must have no NaN, but has one along {name!r}.")
    return to_numpy(array)


def check_names(argument: str, names: Any) -> tuple[str, ...]:
    """A sequence of names, as a tuple."""
    listed: tuple[Any, ...] = (None,)
    if isinstance(names, Iterable) and not isinstance(names, str):
        listed = tuple(names)
    require(
        all(isinstance(name, str) for name in listed),
        f"Argument `{argument}` must be a sequence of names, but is {short(names)}.",
    )
    return listed


def check_labels(labels: Any) -> dict[str, dict[str, Any]]:
    """What is said about axes and outputs, by name."""
    labels = {} if labels is None else labels
    require(
        isinstance(labels, Mapping)
        and all(isinstance(k, str) and isinstance(v, Mapping) for k, v in labels.items()),
        "Argument `labels` must be a dictionary of names, each with a dictionary such as {'units': 'm'}, but is "
        f"{short(labels)}.",
    )
    for name, about in labels.items():
        for key, value in about.items():
            if key == "dims":
                dims = check_names(f"labels[{name!r}]['dims']", value)
                require(
                    len({*dims}) == len(dims) and all(dims),
                    f"Argument `labels` must have different names for the axes of {name!r}, but has {dims}.",
                )
            else:
                require(
                    isinstance(key, str) and isinstance(value, str) and encodable(key + value),
                    f"Argument `labels` must have texts for {name!r} (symbol, long_name, units), but has "
                    f"{short(key)}: {short(value)}.",
                )
    return {name: dict(about) for name, about in labels.items()}


def encodable(text: str) -> bool:
    """Whether a text can be written to a file."""
    try:
        return bool(text.encode()) or True
    except UnicodeEncodeError:
        return False


def to_numpy(x: Any) -> np.ndarray:
    """A real or complex array of JAX's present precision, held outside of JAX."""
    array = np.asarray(x)
    kind = array.dtype if array.dtype.kind in "fc" else np.dtype(float)
    return array.astype(jax.dtypes.canonicalize_dtype(kind), copy=False)


def split_parameters(
    function: Any,
    defaults: Mapping[str, Any],
    names: set[str] | None,
    axes: Axes,
    fixed: Mapping[str, Any] | None,
    gradient: Sequence[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is held fixed: numbers (traced, so that they may be differentiated), and all the rest."""
    fixed = {} if fixed is None else fixed
    require(
        isinstance(fixed, Mapping) and all(isinstance(name, str) for name in fixed),
        f"Argument `fixed` must be a dictionary of names and values, but is {short(fixed)}.",
    )
    swept = [name for group in axes for name in group]
    _check_names(function, names, {"axes": swept, "fixed": fixed, "gradient": gradient})
    values = {**defaults, **fixed}
    absent = sorted({*(names or ()), *gradient} - {*swept, *values})
    if isinstance(function, Fields):  # entries of fields, with values of their own
        values |= {name: function.default(name) for name in absent}
        absent = []
    require(
        not absent,
        f"Argument `fixed` must give every parameter that is not on an axis, but lacks {_list(absent)}.",
    )
    numbers, static = {}, {}
    for name, value in values.items():
        if name in swept:
            _check_number("axes", name, value)
        elif _is_inexact(value) or name in gradient or _stands_for_float(function, defaults, name):
            _check_number("gradient" if name in gradient else "fixed", name, value)
            try:
                numbers[name] = to_numpy(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"Argument `fixed` must have numbers of a size that can be computed with, but {name!r} is "
                    f"{short(value)}."
                ) from error
            require(
                ~np.isnan(numbers[name]),
                f"Argument `fixed` must have no NaN, but `{name}` has one.",
            )
        else:
            require(
                not isinstance(value, int) or abs(value) < 2**63,
                f"Argument `fixed` must have integers of at most 63 bits, but {name!r} is larger.",
            )
            static[name] = value
    every = {**numbers, **{name: x for group in axes for name, x in group.items()}}
    complex_ = [name for name in gradient if np.iscomplexobj(every[name])]
    require(
        not complex_,
        f"Argument `gradient` must name real parameters, but {_list(complex_)} is complex. "
        "Write a function of its real and imaginary parts.",
    )
    return numbers, static


def _check_names(function, names, given):
    """Each name is one of the function's, and stands in one place only."""
    for where, each in given.items():
        for name in each:
            if isinstance(function, Fields):
                value = function.default(name)
                require(
                    value is not None and (where != "axes" or np.ndim(value) == 0),
                    f"Argument `{where}` must name numeric fields of the model, but {name!r} is none. "
                    f"There are {_list(function.fields)}; an entry of an array is named by its index, as levels.0.",
                )
            else:
                require(
                    names is None or name in names,
                    f"Argument `{where}` must name parameters of the function, but it takes no {name!r}. "
                    f"It takes {_list(names)}.",
                )
    swept, fixed, gradient = given.values()
    both = sorted({*swept} & {*fixed})
    require(
        not both, f"Argument `fixed` must not name what is on an axis, but names {_list(both)}."
    )
    if isinstance(function, Fields):
        split = [n for n in swept if n not in function.fields and function.entry(n)[0] in swept]
        require(
            not split, f"Argument `axes` must not sweep a field and its entry, but has {split}."
        )
    require(
        len({*gradient}) == len(gradient),
        f"Argument `gradient` must have each name once, but is {tuple(gradient)}.",
    )


def _is_inexact(value):
    import xarray

    if isinstance(value, float | complex):
        return True
    arrays = (np.ndarray, np.generic, jax.Array, xarray.DataArray)
    return isinstance(value, arrays) and jnp.issubdtype(value.dtype, jnp.inexact)


def _stands_for_float(function, defaults, name):
    """An integer is a number like others where the default is no integer."""
    return isinstance(function, Fields) or isinstance(defaults.get(name), float)


def _check_number(where, name, value):
    is_number = isinstance(value, int | float | complex) and not isinstance(value, bool)
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array) and value.dtype != object
    require(
        not isinstance(value, np.ma.MaskedArray) and not isinstance(value, jax.core.Tracer),
        f"Argument `{where}` must have known values, but {name!r} is {type(value).__name__}.",
    )
    remedy = {
        "axes": "no number can stand there. Call jaxres.sweep once for each of its values",
        "gradient": "there is no derivative in it",
        "fixed": "write a number, real or complex, or an array of such",
    }
    require(
        is_number or is_array or (value is None and where == "axes"),
        f"Argument `{where}` must name numbers, but {name!r} is {short(value)}: {remedy[where]}.",
    )


def check_shard(shard: Any) -> tuple[int, int] | None:
    """The number of a shard, from 1, and how many there are: (2, 8) or "2/8"."""
    if shard is None:
        return None
    try:
        parts = (int(part) for part in shard.split("/")) if isinstance(shard, str) else shard
        i, n = (operator.index(part) for part in parts)
        valid = 1 <= i <= n
    except (TypeError, ValueError):
        valid = False
        i = n = 0
    require(
        valid,
        f"Argument `shard` must be i/n with i from 1 to n, such as '2/8', but is {short(shard)}.",
    )
    return i, n


def check_chunk(chunk: Any, axes: Axes) -> Any:
    """Points of a work item, or its extents by axis."""
    if chunk is None:
        return None
    dims = ["_".join(group) for group in axes]
    sizes = list(chunk.values()) if isinstance(chunk, Mapping) else [chunk]
    require(
        all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in sizes),
        "Argument `chunk` must be a positive number of points, or the extents of a work item by axis, but is "
        f"{short(chunk)}.",
    )
    if isinstance(chunk, Mapping):
        unknown = sorted(map(str, chunk.keys() - set(dims)))
        require(
            not unknown,
            f"Argument `chunk` must name axes, but {_list(unknown)} is none. There are {_list(dims)}.",
        )
        return {name: min(int(n), sys.maxsize) for name, n in chunk.items()}
    return min(int(chunk), sys.maxsize)


def check_memory(memory: Any) -> int:
    """A number of bytes."""
    require(
        isinstance(memory, int | np.integer) and not isinstance(memory, bool) and memory > 0,
        f"Argument `memory` must be a positive number of bytes, but is {short(memory)}.",
    )
    return min(int(memory), sys.maxsize)


def _list(names):
    if names is None:
        return "any"
    return ", ".join(map(repr, sorted(names) if isinstance(names, set) else names)) or "none"
