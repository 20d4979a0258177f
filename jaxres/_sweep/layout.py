"""The form of a sweep's results, in memory and in a store alike: variables with their axes and attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import require
from .._files import unusable
from . import labels as _labels
from .plan import Plan
from .run import missing


@dataclass(frozen=True)
class Variable:
    """One array of the results, the sweep's axes first."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attrs: Mapping[str, Any]
    fill: Any  # the value of an entry that was not computed


@dataclass(frozen=True)
class Layout:
    """All arrays of the results and their coordinates."""

    variables: Mapping[str, Variable]
    coordinates: Mapping[str, tuple[str, np.ndarray, Mapping[str, Any]]]
    attrs: Mapping[str, Any]

    @property
    def bytes_per_point(self) -> int:
        """The bytes of all outputs at one point."""
        swept = len(self.variables["failed"].shape)
        variables = self.variables.values()
        return sum(v.dtype.itemsize * int(np.prod(v.shape[swept:])) for v in variables)


def layout(
    plan: Plan,
    outputs: Mapping[str, Any],
    derivatives: Mapping[str, tuple[str, str]],
    meanings: Mapping[str, list[str]],
    attrs: Mapping[str, Any],
    labels: _labels.Labels,
) -> Layout:
    """The form of the results.

    **Arguments:**

    - `outputs`: shapes and dtypes at one point, by name.
    - `derivatives`: the output and the parameter of each of them that is a derivative.
    - `meanings`: the names behind the numbers of each of them that is an enumeration.
    """
    axes_of: dict[str, tuple[str, ...]] = {}
    about_of: dict[str, dict[str, Any]] = {}
    own: dict[str, int] = {}
    swept = {*plan.dims, *(name for group in plan.axes for name in group)}
    # Outputs come first, since a derivative has the axes of its output.
    for name in sorted(outputs, key=lambda name: name in derivatives):
        shape = tuple(outputs[name].shape)
        if name in derivatives:
            of, parameter = derivatives[name]
            extra = _labels.dims(parameter, shape[len(axes_of[of]) :], labels)
            axes = axes_of[of] + tuple(f"d_{axis}" for axis in extra)
            about = _labels.derivative_attributes(of, parameter, labels)
        else:
            axes, about = _labels.dims(name, shape, labels), _labels.attributes(name, labels)
        axes_of[name] = _own_axes(name, axes, shape, own, swept, "dims" in labels.get(name, {}))
        about_of[name] = about | _flags(meanings.get(name))
        own |= dict(zip(axes_of[name], shape, strict=True))
    variables = {
        name: _variable(plan, axes_of[name], kind.shape, kind.dtype, about_of[name])
        for name, kind in outputs.items()
    }
    failed = _labels.attributes("failed", labels)
    variables["failed"] = Variable(plan.dims, plan.shape, np.dtype(bool), failed, True)
    _check_names([*swept, *own, *outputs])
    clash = sorted({*outputs} & {*swept, *own, "failed"})
    require(
        not clash,
        "Argument `function` must return outputs named otherwise than axes, those of the sweep and those of its "
        f"outputs, but {clash} are. Rename them.",
    )
    coordinates: dict[str, Any] = {
        name: (dim, values, _labels.attributes(name, labels))
        for dim, group in zip(plan.dims, plan.axes, strict=True)
        for name, values in group.items()
    }
    for axis in ("j", "k"):
        if axis in own:
            coordinates[axis] = (axis, np.arange(own[axis]), _labels.attributes(axis, labels))
    return Layout(variables, coordinates, attrs)


def _own_axes(name, axes, shape, own, swept, given):
    """The names of an output's own axes: the proposed ones, or numbered ones where those are taken and not `given`."""
    sizes = dict(zip(axes, shape, strict=False))
    taken = any(own.get(axis, n) != n or axis in swept for axis, n in sizes.items())
    if (taken and not given) or len(sizes) != len(shape):
        axes = tuple(f"{name}_{i}" for i in range(len(shape)))
        taken = any(axis in swept for axis in axes)
    require(
        not taken,
        f"Argument `labels` must name axes of `{name}` that are none of the sweep's, and of one length in all "
        f"outputs, but they are {axes}. Name them otherwise: labels={{{name!r}: {{'dims': ...}}}}.",
    )
    return axes


def _flags(names):
    """The attributes of an enumeration as the CF conventions define them."""
    if names is None:
        return {}
    return {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}


def _variable(plan, axes, shape, dtype, about):
    dims, shape, dtype = plan.dims + axes, plan.shape + tuple(shape), np.dtype(dtype)
    return Variable(dims, shape, dtype, about, missing(dtype))


def _check_names(names):
    """Refuses names of axes and outputs that cannot be names of arrays in a store or a file."""
    for name in names:
        reason = unusable(name)
        require(
            reason is None,
            f"Arguments `axes` and `function` must have axes and outputs with names that a file can hold, but "
            f"{name[:80]!r} {reason}. Rename it.",
        )
