"""jaxres: collisional reservoirs that thermalise, or refuse to.

    System ─┐
            ├─ amplitudes ── scattering map ── collisions ── state, dynamics ── observables
    Reservoir ┘   (Eq. 16)        (Eq. 17)    (maps, rates)    (Eqs. 5–9)
    = packet + scatterer + rate

Equation numbers are those of Tabanera-Bravo, Parrondo, Esposito and Barra, Phys. Rev. Lett. 130, 200402 (2023).
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import (
    letter as letter,
    losses as losses,
    plain as plain,
    systems as systems,
    waiting_times as waiting_times,
)
from ._design import (
    LBFGS as LBFGS,
    Design as Design,
    SciPy as SciPy,
    design as design,
)
from ._dynamics.collisions import (
    RESULTS as RESULTS,
    Collisions as Collisions,
    collisions as collisions,
)
from ._dynamics.cycles import (
    CycleState as CycleState,
    LimitCycle as LimitCycle,
    cycle_state as cycle_state,
    limit_cycle as limit_cycle,
)
from ._dynamics.evolution import evolve as evolve, generator as generator
from ._dynamics.perturbation import (
    coherence_estimate as coherence_estimate,
    perturbation_series as perturbation_series,
    perturbative_state as perturbative_state,
)
from ._dynamics.spectrum import relaxation_time as relaxation_time, spectrum as spectrum
from ._dynamics.steady_state import (
    SteadyState as SteadyState,
    steady_state as steady_state,
)
from ._dynamics.trajectories import (
    Ensemble as Ensemble,
    Trajectory as Trajectory,
    state_at as state_at,
    trajectories as trajectories,
    trajectory as trajectory,
)
from ._dynamics.waiting_times import cycle_map as cycle_map
from ._quantum.fisher import classical_fisher as classical_fisher, quantum_fisher as quantum_fisher
from ._quantum.information import (
    fidelity as fidelity,
    l1_coherence as l1_coherence,
    purity as purity,
    relative_entropy as relative_entropy,
    relative_entropy_of_coherence as relative_entropy_of_coherence,
    relative_entropy_to_gibbs as relative_entropy_to_gibbs,
    von_neumann_entropy as von_neumann_entropy,
)
from ._quantum.map_distances import (
    DiamondDistance as DiamondDistance,
    choi_distance as choi_distance,
    diamond_distance as diamond_distance,
    process_fidelity as process_fidelity,
)
from ._quantum.qutip import from_qutip as from_qutip, to_qutip as to_qutip
from ._quantum.states import (
    coherence as coherence,
    dephase as dephase,
    gibbs_state as gibbs_state,
    populations as populations,
    trace_distance as trace_distance,
)
from ._quantum.superoperator import Superoperator as Superoperator
from ._quantum.system import System as System
from ._reservoir.custom_packet import CustomPacket as CustomPacket
from ._reservoir.internal_state import InternalState as InternalState
from ._reservoir.packet import AbstractPacket as AbstractPacket, EffusionPacket as EffusionPacket
from ._reservoir.particle_states import (
    DiagonalPacket as DiagonalPacket,
    GaussianPacket as GaussianPacket,
    MaxwellPacket as MaxwellPacket,
    MonochromaticBeam as MonochromaticBeam,
    ThermalMixture as ThermalMixture,
)
from ._reservoir.reservoir import Reservoir as Reservoir
from ._reservoir.scatterer import (
    AbstractScatterer as AbstractScatterer,
    Profile as Profile,
    Slab as Slab,
    Stack as Stack,
)
from ._scattering.amplitudes import (
    AbstractAmplitudes as AbstractAmplitudes,
    Amplitudes as Amplitudes,
    Exact as Exact,
    RandomInteractionTime as RandomInteractionTime,
    TransferMatrix as TransferMatrix,
    WaveVectorOperator as WaveVectorOperator,
    amplitudes as amplitudes,
)
from ._scattering.energy_grid import (
    AbstractQuadrature as AbstractQuadrature,
    DoubleExponential as DoubleExponential,
    GaussLegendre as GaussLegendre,
)
from ._scattering.scattering_map import scattering_map as scattering_map
from ._sweep import model_of as model_of, sweep as sweep
from ._thermodynamics.collision_heat import (
    CollisionHeat as CollisionHeat,
    collision_heat as collision_heat,
)
from ._thermodynamics.counting import (
    CountingStatistics as CountingStatistics,
    EnergyDistribution as EnergyDistribution,
    counting_statistics as counting_statistics,
    energy_distribution as energy_distribution,
    tilted_generator as tilted_generator,
)
from ._thermodynamics.second_law import (
    CollisionThermodynamics as CollisionThermodynamics,
    Currents as Currents,
    collision_thermodynamics as collision_thermodynamics,
    currents as currents,
)
from ._thermodynamics.work_and_heat import (
    effective_beta as effective_beta,
    ergotropy as ergotropy,
    heat_flow as heat_flow,
)

__version__ = _version("jaxres")

if _TYPE_CHECKING:
    from . import units as units


def __getattr__(name: str):
    """`jaxres.units`, which needs SciPy, is imported when it is asked for."""
    if name == "units":
        return _import_module(".units", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
