"""The form of a sweep's results: variables with their axes and attributes, for memory and for the store alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _labels
from ._plan import Plan


@dataclass(frozen=True)
class Variable:
    """One array of the results, the sweep's axes first."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attrs: Mapping[str, Any]


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
    variables, own = {}, {}
    swept = {*plan.dims, *(name for group in plan.axes for name in group)}
    for name, kind in outputs.items():
        if name in derivatives:
            of, parameter = derivatives[name]
            base = _labels.dims(of, outputs[of].shape, labels)
            extra = _labels.dims(parameter, kind.shape[len(base) :], labels)
            axes = base + tuple(f"d_{axis}" for axis in extra)
            about = _labels.derivative_attributes(of, parameter, labels)
        else:
            axes, about = _labels.dims(name, kind.shape, labels), _labels.attributes(name, labels)
        sizes = dict(zip(axes, kind.shape, strict=False))
        taken = any(own.get(axis, n) != n or axis in swept for axis, n in sizes.items())
        if taken or len(sizes) != len(kind.shape):
            axes = tuple(f"{name}_{i}" for i in range(len(kind.shape)))
        own |= dict(zip(axes, kind.shape, strict=True))
        if name in meanings:
            # as the CF conventions have it
            about |= {
                "flag_values": list(range(len(meanings[name]))),
                "flag_meanings": " ".join(meanings[name]),
            }
        variables[name] = Variable(
            plan.dims + axes, plan.shape + tuple(kind.shape), np.dtype(kind.dtype), about
        )
    variables["failed"] = Variable(
        plan.dims, plan.shape, np.dtype(bool), _labels.attributes("failed", labels)
    )
    coordinates = {
        name: (dim, values, _labels.attributes(name, labels))
        for dim, group in zip(plan.dims, plan.axes, strict=True)
        for name, values in group.items()
    }
    for axis in own.keys() & {"j", "k"}:
        coordinates[axis] = (axis, np.arange(own[axis]), _labels.attributes(axis, labels))
    return Layout(variables, coordinates, attrs)
