"""Names, units and symbols of the axes and outputs of a sweep (ħ = 1)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._letter_data import DOI

Labels = Mapping[str, Mapping[str, Any]]

#: symbol, long name and unit of an axis or an output by the last part of its name
_KNOWN = {
    "rate": ("Γ", "collision rate", "energy/ħ"),
    "splitting": ("Δ", "level splitting", "energy"),
    "coupling": ("λ", "coupling", "energy"),
    "length": ("L", "length of the scatterer", "length"),
    "beta": ("β", "inverse temperature", "1/energy"),
    "mass": ("m", "mass of a particle", "ħ²/(energy length²)"),
    "width": ("Δx", "packet width", "length"),
    "position": ("x₀", "mean position of the packet", "length"),
    "levels": ("e", "energy levels", "energy"),
    "rho": ("ρ", "density matrix in the energy eigenbasis", "1"),
    "coherence": ("|ρ01|", "coherence", "1"),
    "populations": ("p", "populations of the energy levels", "1"),
    "trace_distance": ("D", "trace distance to the Gibbs state", "1"),
    "result": ("", "what became of the solve", ""),
    "map_error": ("", "estimated largest error of an entry of the scattering map", "1"),
    "condition": ("", "condition number of the steady state's linear system", "1"),
    "error": ("", "estimated largest error of an entry of the density matrix", "1"),
    "failed": ("", "no valid result at this point", ""),
    "j": ("j", "level of the row of the density matrix, 0 the ground state", ""),
    "k": ("k", "level of the column of the density matrix, 0 the ground state", ""),
}
#: attributes of a dataset that have another meaning, so no parameter may take their names
_RESERVED = ("coordinates", "failures", "unfinished")
#: names of an output's own axes
_DIMS = {"rho": ("j", "k"), "populations": ("j",)}
#: the entries of a label
FIELDS = ("symbol", "long_name", "units")


def attributes(name: str, labels: Labels) -> dict[str, Any]:
    """The attributes of an axis or an output. Those given in `labels` take precedence."""
    last = next((part for part in reversed(name.split(".")) if not part.isdigit()), name)
    known = dict(zip(FIELDS, _KNOWN.get(last, ("", name, "")), strict=True))
    known |= {key: value for key, value in labels.get(name, {}).items() if key != "dims"}
    return {key: value for key, value in known.items() if value != "" or key == "units"}


def derivative_attributes(output: str, parameter: str, labels: Labels) -> dict[str, Any]:
    """The attributes of the derivative of an output."""
    above, below = attributes(output, labels), attributes(parameter, labels)
    top, bottom = above["units"] or "1", below["units"]
    if bottom in ("", "1"):
        units = above["units"]
    elif top == "1" and bottom.startswith("1/"):
        units = bottom.removeprefix("1/")
    else:
        units = f"{top}/({bottom})" if {"/", " "} & {*bottom} else f"{top}/{bottom}"
    return {
        "symbol": f"∂{above.get('symbol', output)}/∂{below.get('symbol', parameter)}",
        "long_name": f"derivative of {above['long_name']} with respect to {below['long_name']}",
        "units": units,
    }


def dims(name: str, shape: Sequence[int], labels: Labels) -> tuple[str, ...]:
    """The names of an output's own axes, which follow those of the sweep."""
    given = labels.get(name, {}).get("dims") or _DIMS.get(name.split(".")[-1], ())
    rest = len(shape) - len(given)
    return (*given[: len(shape)], *(f"{name}_{i}" for i in range(rest)))


def provenance(title: str, fixed: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the dataset: the fixed numbers, the model in full, and its source."""
    from importlib.metadata import version

    scalars = {
        name: value.item()
        for name, value in fixed.items()
        if np.ndim(value) == 0 and np.isrealobj(value) and name not in _RESERVED
    }
    return scalars | {
        "title": title,
        "units": "ħ = 1",
        "model": json.dumps(model),
        "source": f"jaxres {version('jaxres')}",
        "references": f"https://doi.org/{DOI}",
    }
