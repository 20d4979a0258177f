"""Which parameters of a sweep's function are numbers, which may be swept and differentiated, and which are not."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._checks import require
from .._fields import Fields
from .._files import short
from .arguments import listed, to_numpy
from .plan import Axes


def split_parameters(
    function: Any,
    defaults: Mapping[str, Any],
    names: set[str] | None,
    axes: Axes,
    fixed: Mapping[str, Any] | None,
    gradient: Sequence[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the parameters held fixed: the numbers, which are traced, and all others, which are not."""
    fixed = {} if fixed is None else fixed
    require(
        isinstance(fixed, Mapping) and all(isinstance(name, str) for name in fixed),
        f"Argument `fixed` must be a dictionary of names and values, but is {short(fixed)}.",
    )
    swept = {name: x for group in axes for name, x in group.items()}
    _check_names(function, names, [*swept], fixed, gradient)
    values = _values(function, {**defaults, **fixed}, names, swept, gradient)
    numbers, static = {}, {}
    for name, value in values.items():
        if name in swept:
            _check_is_number("axes", name, value)
        elif _is_inexact(value) or name in gradient or _replaces_float(function, defaults, name):
            _check_is_number("gradient" if name in gradient else "fixed", name, value)
            numbers[name] = _number(name, value)
        else:
            require(
                not isinstance(value, int) or abs(value) < 2**63,
                f"Argument `fixed` must have integers of at most 63 bits, but {name!r} is larger.",
            )
            static[name] = value
    complex_ = [name for name in gradient if np.iscomplexobj((numbers | swept)[name])]
    require(
        not complex_,
        f"Argument `gradient` must name real parameters, but {listed(complex_)} is complex. "
        "Write a function of its real and imaginary parts.",
    )
    return numbers, static


def _values(function, given, names, swept, gradient):
    """The values of all parameters; those of a model's entries (`levels.1`) are read from the model."""
    absent = sorted({*(names or ()), *gradient} - {*swept, *given})
    if isinstance(function, Fields):
        return given | {name: function.default(name) for name in absent}
    require(
        not absent,
        f"Argument `fixed` must give every parameter that is not on an axis, but lacks {listed(absent)}.",
    )
    return given


def _number(name, value):
    """The value as an array, which must not overflow and must not have NaN."""
    try:
        number = to_numpy(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Argument `fixed` must have numbers of a size that can be computed with, but {name!r} is "
            f"{short(value)}."
        ) from error
    require(~np.isnan(number), f"Argument `fixed` must have no NaN, but `{name}` has one.")
    return number


def _check_names(function, names, swept, fixed, gradient):
    """Refuses names that the function does not have, and names that are given in two places."""
    for where, given in {"axes": swept, "fixed": fixed, "gradient": gradient}.items():
        for name in given:
            if isinstance(function, Fields):
                value = function.default(name)
                require(
                    value is not None and (where != "axes" or np.ndim(value) == 0),
                    f"Argument `{where}` must name numeric fields of the model, but {name!r} is none. "
                    f"There are {listed(function.fields)}; an entry of an array is named by its index, as levels.0.",
                )
            else:
                require(
                    names is None or name in names,
                    f"Argument `{where}` must name parameters of the function, but it takes no {name!r}. "
                    f"It takes {listed(names)}.",
                )
    both = sorted({*swept} & {*fixed})
    require(
        not both, f"Argument `fixed` must not name what is on an axis, but names {listed(both)}."
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


def _replaces_float(function, defaults, name):
    """Whether the parameter is a float by default, so that an integer counts as a number too."""
    return isinstance(function, Fields) or isinstance(defaults.get(name), float)


def _check_is_number(where, name, value):
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
