"""Scattering amplitudes (Eq. 16): one room, one file per method."""

from ._model import AbstractAmplitudes as AbstractAmplitudes
from ._model import Amplitudes as Amplitudes
from ._model import Exact as Exact
from ._model import TransferProduct as TransferProduct
from ._model import amplitudes as amplitudes
