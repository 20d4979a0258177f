"""jaxres: collisional reservoirs that thermalise, or refuse to.

    System ─┐
            ├─ amplitudes ── scattering map ── master equation ── state ── observables
    Reservoir ┘   (Eq. 16)        (Eq. 17)        (Eqs. 5–9)
    = packet + scatterer + rate

Equation numbers are those of Tabanera-Bravo, Parrondo, Esposito and Barra, Phys. Rev. Lett. 130, 200402 (2023).
"""

from importlib.metadata import version as _version

from . import letter as letter
from ._amplitudes import AbstractAmplitudes as AbstractAmplitudes
from ._amplitudes import Amplitudes as Amplitudes
from ._amplitudes import Exact as Exact
from ._amplitudes import TransferProduct as TransferProduct
from ._amplitudes import amplitudes as amplitudes
from ._master import RESULTS as RESULTS
from ._master import SteadyState as SteadyState
from ._master import evolve as evolve
from ._master import generator as generator
from ._master import steady_state as steady_state
from ._master import steady_state_of as steady_state_of
from ._packet import AbstractPacket as AbstractPacket
from ._packet import EffusionPacket as EffusionPacket
from ._quadrature import AbstractQuadrature as AbstractQuadrature
from ._quadrature import DoubleExponential as DoubleExponential
from ._quadrature import GaussLegendre as GaussLegendre
from ._reservoir import Reservoir as Reservoir
from ._scatterer import AbstractScatterer as AbstractScatterer
from ._scatterer import Profile as Profile
from ._scatterer import Slab as Slab
from ._scatterer import Stack as Stack
from ._scattering_map import scattering_map as scattering_map
from ._states import coherence as coherence
from ._states import gibbs_state as gibbs_state
from ._states import populations as populations
from ._states import trace_distance as trace_distance
from ._superoperator import Superoperator as Superoperator
from ._system import System as System

__version__ = _version("jaxres")
