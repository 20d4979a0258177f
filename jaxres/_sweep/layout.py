"""The form of a sweep's results: variables with their axes and attributes, for memory and for the store alike."""

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
    fill: Any  # where there is no value


@dataclass(frozen=True)
class Layout:
    """All arrays of the results and their coordinates."""

    variables: Mapping[str, Variable]
    coordinates: Mapping[str, tuple[str, np.ndarray, Mapping[str, Any]]]
    attrs: Mapping[str, Any]

    @property
    def bytes_per_point(self) -> int:
        """Bytes of all outputs at one point."""
        return _bytes(self.variables)


def _bytes(variables):
    sweep = variables["failed"].shape
    return sum(v.dtype.itemsize * int(np.prod(v.shape[len(sweep) :])) for v in variables.values())


def layout(
    plan: Plan,
    outputs: Mapping[str, Any],
    derivatives: Mapping[str, tuple[str, str]],
    meanings: Mapping[str, list[str]],
    attrs: Mapping[str, Any],
    labels: _labels.Labels,
) -> Layout:
    """The results' form.

    **Arguments:** `outputs`: what has a shape and a dtype at one point, by name. `derivatives`: which of them are
    derivatives, of which output with respect to what. `meanings`: names of the numbers of enumerations.
    """
    variables: dict[str, Variable] = {}
    own: dict[str, int] = {}
    swept = {*plan.dims, *(name for group in plan.axes for name in group)}
    # a derivative has the axes of its output
    for name in sorted(outputs, key=lambda name: name in derivatives):
        kind = outputs[name]
        shape, dtype = tuple(kind.shape), np.dtype(kind.dtype)
        if name in derivatives:
            of, parameter = derivatives[name]
            base = variables[of].dims[len(plan.shape) :]
            extra = _labels.dims(parameter, shape[len(base) :], labels)
            axes = base + tuple(f"d_{axis}" for axis in extra)
            about = _labels.derivative_attributes(of, parameter, labels)
        else:
            axes, about = _labels.dims(name, shape, labels), _labels.attributes(name, labels)
        sizes = dict(zip(axes, shape, strict=False))
        taken = any(own.get(axis, n) != n or axis in swept for axis, n in sizes.items())
        if (taken and "dims" not in labels.get(name, {})) or len(sizes) != len(shape):
            axes = tuple(f"{name}_{i}" for i in range(len(shape)))
            taken = any(axis in swept for axis in axes)
        require(
            not taken,
            f"Argument `labels` must name axes of `{name}` that are none of the sweep's, and of one length in all "
            f"outputs, but they are {axes}. Name them otherwise: labels={{{name!r}: {{'dims': ...}}}}.",
        )
        own |= dict(zip(axes, shape, strict=True))
        if name in meanings:
            # as the CF conventions have it
            about |= {
                "flag_values": list(range(len(meanings[name]))),
                "flag_meanings": " ".join(meanings[name]),
            }
        variables[name] = Variable(
            plan.dims + axes, plan.shape + shape, dtype, about, missing(dtype)
        )
    variables = {name: variables[name] for name in outputs}
    variables["failed"] = Variable(
        plan.dims, plan.shape, np.dtype(bool), _labels.attributes("failed", labels), True
    )
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
    for axis in own.keys() & {"j", "k"}:
        coordinates[axis] = (axis, np.arange(own[axis]), _labels.attributes(axis, labels))
    return Layout(variables, coordinates, attrs)


def _check_names(names):
    """Axes and outputs are arrays of a store and of files: what cannot be one is refused before the work."""
    for name in names:
        reason = unusable(name)
        require(
            reason is None,
            f"Arguments `axes` and `function` must have axes and outputs with names that a file can hold, but "
            f"{name[:80]!r} {reason}. Rename it.",
        )
