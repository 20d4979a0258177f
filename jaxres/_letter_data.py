"""The form of the figures' datasets: their variables and units.

The units are λ (energy), L (length) and ħ, all 1 in the Letter.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

DOI = "10.1103/PhysRevLett.130.200402"
MODEL, STATE = ("model",), ("j", "k")

#: long name and unit of each variable and coordinate of the datasets
LABELS = {
    "model": ("model of the collision", ""),
    "curve": ("curve", ""),
    "collision": ("number of collisions so far", "1"),
    "j": ("level of the row of the density matrix, 0 the ground state", ""),
    "k": ("level of the column of the density matrix, 0 the ground state", ""),
    "rate": ("collision rate Γ", "λ/ħ"),
    "splitting": ("level splitting Δ", "λ"),
    "width": ("packet width Δx", "L"),
    "time": ("time t of the collision", "ħ/λ"),
    "dephased": ("full dephasing after each collision", ""),
    "rho": ("density matrix in the energy eigenbasis", "1"),
    "gibbs": ("populations of the Gibbs state", "1"),
    "distance": ("trace distance to the Gibbs state", "1"),
    "map_error": ("estimated largest error of an entry of the scattering map", "1"),
    "rho01_rate_splitting": ("steady coherence ρ01 at width 1", "1"),
    "rho01_width_splitting": ("steady coherence ρ01 at rate 5", "1"),
    "rho01_width_rate": ("steady coherence ρ01 at splitting 1.2", "1"),
    "prefactor": (
        "prefactor of Eq. (24) that matches the smallest rate and width at splitting 1.2",
        "1",
    ),
    "law_rate_splitting": ("qualitative law of Eq. (24) for |ρ01| at width 1", "1"),
    "law_width_splitting": ("qualitative law of Eq. (24) for |ρ01| at rate 5", "1"),
    "law_width_rate": ("qualitative law of Eq. (24) for |ρ01| at splitting 1.2", "1"),
}


def dataset(
    title: str, variables: Mapping[str, tuple], coordinates: Mapping[str, Any], **parameters: Any
) -> "xarray.Dataset":
    """A dataset of variables with long names and units; its attributes are `parameters` and its source."""
    import xarray

    arrays = {name: (dims, np.asarray(values)) for name, (dims, values) in variables.items()}
    data = xarray.Dataset(arrays, dict(coordinates))
    data = data.assign_coords({level: [0, 1] for level in STATE if level in data.dims})
    for name in data.variables:
        long_name, units = LABELS[str(name)]
        data[name].attrs.update(long_name=long_name, units=units)
    return data.assign_attrs(
        title=title,
        units="λ = L = ħ = 1",
        **parameters,
        source=f"jaxres {version('jaxres')}",
        references=f"https://doi.org/{DOI}",
    )
