"""Scattering amplitudes (Eq. 16): one room, one file per method."""

from ._model import (
    AbstractAmplitudes as AbstractAmplitudes,
    Amplitudes as Amplitudes,
    Exact as Exact,
    RandomInteractionTime as RandomInteractionTime,
    TransferProduct as TransferProduct,
    WaveVectorOperator as WaveVectorOperator,
    amplitudes as amplitudes,
)
