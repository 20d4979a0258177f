"""Scattering amplitudes (Eq. 16): one room, one file per method."""

from ._model import (
    AbstractAmplitudes as AbstractAmplitudes,
    Amplitudes as Amplitudes,
    Exact as Exact,
    TransferProduct as TransferProduct,
    amplitudes as amplitudes,
)
