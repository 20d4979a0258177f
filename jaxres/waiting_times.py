"""Laws of the time between two collisions: `Exponential` (the Letter's), `Regular`, `GammaDistributed`."""

from ._dynamics.waiting_times import (
    AbstractWaitingTimes as AbstractWaitingTimes,
    Exponential as Exponential,
    GammaDistributed as GammaDistributed,
    Regular as Regular,
)
