"""The arguments of a sweep, checked: everything that can be wrong is told before any work."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import require
from ._function import Fields
from ._plan import Axes


def check_axes(axes: Any) -> Axes:
    """The axes as groups of zipped names, each name with its values."""
    require(
        isinstance(axes, Mapping) and len(axes) > 0,
        "Argument `axes` must be a dictionary of names and their values, with at least one, but is "
        f"{axes!r}. Write {{'rate': [1.0, 5.0]}}, and zipped axes as {{('rate', 'width'): (rates, widths)}}.",
    )
    groups, seen = [], set()
    for key, values in axes.items():
        names = key if isinstance(key, tuple) else (key,)
        require(
            len(names) > 0
            and all(isinstance(name, str) and name for name in names)
            and "/" not in "".join(names),
            f"Argument `axes` must have names, or tuples of names for zipped axes, as keys, but has {key!r}.",
        )
        if isinstance(key, tuple):
            count = len(values) if hasattr(values, "__len__") else "no"
            require(
                count == len(names),
                f"Argument `axes` must have one array for each of the zipped names {names}, but has {count}.",
            )
        else:
            values = (values,)
        for name in names:
            require(
                name not in seen,
                f"Argument `axes` must have each name once, but has {name!r} twice.",
            )
            seen.add(name)
        group = {name: _axis(name, x) for name, x in zip(names, values, strict=True)}
        lengths = {name: len(x) for name, x in group.items()}
        require(
            len(set(lengths.values())) == 1,
            f"Argument `axes` must have zipped axes of one length, but they have {lengths}.",
        )
        if len(group) == 1:  # zipped ones may repeat
            unique, counts = np.unique(next(iter(group.values())), return_counts=True)
            twice = unique[counts > 1][:1]
            require(
                twice.size == 0,
                f"Argument `axes` must have different values along {key!r}, but {twice} stands there more than "
                "once.",
            )
        groups.append(group)
    dims = ["_".join(group) for group in groups]
    require(
        len(set(dims)) == len(dims),
        f"Argument `axes` must have axes of different names, but they are {dims} (zipped names are joined).",
    )
    return tuple(groups)


def _axis(name, values):
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)
    require(
        array.dtype.kind in "iufc",
        f"Argument `axes` must have numbers along {name!r}, but has {_short(values)}.",
    )
    require(
        array.ndim == 1 and array.size > 0,
        f"Argument `axes` must have a one-dimensional array of at least one value along {name!r}, but it has shape "
        f"{array.shape}.",
    )
    require(~np.isnan(array), f"Argument `axes` must have no NaN, but has one along {name!r}.")
    return to_numpy(array)


def to_numpy(x: Any) -> np.ndarray:
    """A real or complex array of JAX's present precision, held outside of JAX."""
    array = np.asarray(x)
    kind = array.dtype if array.dtype.kind in "fc" else np.dtype(float)
    return array.astype(jax.dtypes.canonicalize_dtype(kind))


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
        f"Argument `fixed` must be a dictionary of names and values, but is {fixed!r}.",
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
            numbers[name] = to_numpy(value)
            require(
                ~np.isnan(numbers[name]),
                f"Argument `fixed` must have no NaN, but `{name}` has one.",
            )
        else:
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
    return isinstance(value, float | complex) or (
        hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)
    )


def _stands_for_float(function, defaults, name):
    """An integer is a number like others where the default is no integer."""
    return isinstance(function, Fields) or isinstance(defaults.get(name), float)


def _check_number(where, name, value):
    is_number = isinstance(value, int | float | complex) and not isinstance(value, bool)
    require(
        is_number or (value is None and where == "axes") or hasattr(value, "dtype"),
        f"Argument `{where}` must name numbers, but {name!r} is {value!r}: no number can stand there. "
        "Call jaxres.sweep once for each of its values.",
    )


def check_shard(shard: Any) -> tuple[int, int] | None:
    """The number of a shard, from 1, and how many there are: (2, 8) or "2/8"."""
    if shard is None:
        return None
    parts = tuple(shard.split("/")) if isinstance(shard, str) else shard
    try:
        i, n = (int(part) for part in parts)
        valid = 1 <= i <= n
    except (TypeError, ValueError):
        valid = False
        i = n = 0
    require(
        valid, f"Argument `shard` must be i/n with i from 1 to n, such as '2/8', but is {shard!r}."
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
        f"{chunk!r}.",
    )
    if isinstance(chunk, Mapping):
        unknown = sorted(map(str, chunk.keys() - set(dims)))
        require(
            not unknown,
            f"Argument `chunk` must name axes, but {_list(unknown)} is none. There are {_list(dims)}.",
        )
        return {name: int(n) for name, n in chunk.items()}
    return int(chunk)


def _list(names):
    if names is None:
        return "any"
    return ", ".join(map(repr, sorted(names) if isinstance(names, set) else names)) or "none"


def _short(values):
    text = repr(values)
    return text if len(text) < 80 else text[:77] + "..."
