"""Checks of the arguments of a sweep. Everything that can be wrong raises a `ValueError` before any work.

The parameters of the function have checks of their own, in `parameters`.
"""

import operator
import sys
from collections.abc import Collection, Iterable, Mapping, Sized
from typing import Any

import jax
import numpy as np

from .._checks import require
from .._files import short
from .labels import FIELDS
from .plan import Axes, Plan

#: One value of an axis takes so many bytes while the sweep is planned and its axes are written.
AXIS_BYTES = 32
#: An axis may always have so many values, so that a small `memory` still allows usual grids.
LEAST_VALUES = 2**16


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
    """Returns the axes as groups of zipped names with their values, and the labels that arrays of xarray carry."""
    require(
        isinstance(axes, Mapping) and len(axes) > 0,
        "Argument `axes` must be a dictionary of names and their values, with at least one, but is "
        f"{short(axes)}. Write {{'rate': [1.0, 5.0]}}, and zipped axes as {{('rate', 'width'): (rates, widths)}}.",
    )
    groups, labels = [], {}
    for key, values in axes.items():
        named = _by_name(key, values, {*labels})
        check_count({k: len(x) for k, x in named.items() if _has_length(x)}, memory)
        labels |= {name: _labels_of(x) for name, x in named.items()}
        group = {name: _axis(name, x) for name, x in named.items()}
        _check_group(key, group)
        groups.append(group)
    dims = [*Plan(tuple(groups)).dims]
    require(
        len(set(dims)) == len(dims),
        f"Argument `axes` must have axes of different names, but they are {dims} (zipped names are joined).",
    )
    return tuple(groups), labels


def _by_name(key, values, taken):
    """One entry of `axes` as values by name, where none of the names is `taken`."""
    names = key if isinstance(key, tuple) else (key,)
    require(
        len(names) > 0 and all(isinstance(name, str) and name for name in names),
        f"Argument `axes` must have names, or tuples of names for zipped axes, as keys, but has {short(key)}.",
    )
    if isinstance(key, tuple):
        try:
            values = tuple(values) if isinstance(values, Collection) else ()
        except TypeError:  # an array without dimensions is a `Collection` that cannot be iterated
            values = ()
        require(
            len(values) == len(names),
            f"Argument `axes` must have one array for each of the zipped names {names}, but has {len(values) or 'no'}.",
        )
    else:
        values = (values,)
    for i, name in enumerate(names):
        require(
            name not in taken and name not in names[:i],
            f"Argument `axes` must have each name once, but has {name!r} twice.",
        )
    return dict(zip(names, values, strict=True))


def _check_group(key, group):
    """Refuses zipped axes of different lengths, and a value that an axis has twice."""
    lengths = {name: len(x) for name, x in group.items()}
    require(
        len(set(lengths.values())) == 1,
        f"Argument `axes` must have zipped axes of one length, but they have {lengths}.",
    )
    if len(group) > 1:  # zipped values may repeat
        return
    values = next(iter(group.values()))
    if np.isrealobj(values) and not np.all(values[1:] > values[:-1]):
        values = np.sort(values)
    twice = np.flatnonzero(values[1:] == values[:-1])[:1]
    require(
        twice.size == 0,
        f"Argument `axes` must have different values along {key!r}, but {values[twice]} stands there more than once.",
    )


def _has_length(x):
    """Whether it is one-dimensional with a known length, made already or not."""
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
    except Exception:  # tracers, and objects whose conversion to an array raises anything
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
    """Returns a sequence of names as a tuple."""
    listed: tuple[Any, ...] = (None,)
    if isinstance(names, Iterable) and not isinstance(names, str):
        listed = tuple(names)
    require(
        all(isinstance(name, str) for name in listed),
        f"Argument `{argument}` must be a sequence of names, but is {short(names)}.",
    )
    return listed


def check_labels(labels: Any) -> dict[str, dict[str, Any]]:
    """Returns the labels of axes and outputs, by name."""
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


def check_labelled(labels: Mapping[str, Any], axes: Axes, outputs: Mapping[str, Any]) -> None:
    """Refuses labels of something that is neither an axis nor an output."""
    known = [*(name for group in axes for name in group), *outputs]
    unknown = sorted({*labels} - {*known})
    require(
        not unknown,
        f"Argument `labels` must name axes or outputs, but {unknown} are none. There are {known}.",
    )


def encodable(text: str) -> bool:
    """Whether a text can be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_numpy(x: Any) -> np.ndarray:
    """Returns a real or complex array of NumPy in JAX's present precision."""
    array = np.asarray(x)
    kind = array.dtype if array.dtype.kind in "fc" else np.dtype(float)
    return array.astype(jax.dtypes.canonicalize_dtype(kind), copy=False)


def check_shard(shard: Any) -> tuple[int, int] | None:
    """Returns the number of a shard, from 1, and the number of shards, given as (2, 8) or "2/8"."""
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
    """Returns the number of points of a work item, or its extents by axis."""
    if chunk is None:
        return None
    dims = Plan(axes).dims
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
            f"Argument `chunk` must name axes, but {listed(unknown)} is none. There are {listed(dims)}.",
        )
        return {name: min(int(n), sys.maxsize) for name, n in chunk.items()}
    return min(int(chunk), sys.maxsize)


def check_memory(memory: Any) -> int:
    """Returns a number of bytes."""
    require(
        isinstance(memory, int | np.integer) and not isinstance(memory, bool) and memory > 0,
        f"Argument `memory` must be a positive number of bytes, but is {short(memory)}.",
    )
    return min(int(memory), sys.maxsize)


def listed(names: Iterable[str] | None) -> str:
    """Names as a text for messages, those of a set in alphabetical order."""
    if names is None:
        return "any"
    return ", ".join(map(repr, sorted(names) if isinstance(names, set) else names)) or "none"
