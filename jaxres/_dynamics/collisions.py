r"""Collisions with reservoirs: their scattering maps, their rates, and whether the maps are accurate enough.

The dynamics (Eqs. 5 to 9) depends on the reservoirs only through the scattering maps S_r and the rates Γ_r. A
`Collisions` holds both, computed once, and every function of the dynamics accepts it in place of the reservoirs. Its
`result` decides for all these functions whether the maps can be used, so that they fail for the same named reasons.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from .._checks import (
    Checked,
    Scalar,
    as_flag,
    as_scalar,
    check_instance,
    check_scalar,
    concrete,
    door,
    require,
    shown,
    warn_of_single_precision,
)
from .._quantum.superoperator import Superoperator, check_map
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .._scattering.scattering_map import check_numerics, collision_map, scattering_map


class RESULTS(eqx.Enumeration):
    """The outcome of a computation. `result == jaxres.RESULTS.successful` can be used under jit and vmap."""

    successful = "The computation succeeded."
    not_positive = (
        "The equation was solved, but the solution is not a state: it has a negative eigenvalue, since the scattering "
        "map is not completely positive. Eqs. (22), (23) are not quite a state of the particle; "
        "jaxres.ThermalMixture is."
    )
    not_unique = (
        "The steady state is not unique: the collisions leave more than one state unchanged (no coupling between some "
        "levels? equal levels and one coupling?). Couple all levels, or evolve a given initial state with "
        "jaxres.evolve."
    )
    not_determined = (
        "The scattering maps are not accurate enough to determine the steady state: what they change in a state is "
        "hardly more than their error, so that the state's own error is above jaxres' limit of 0.01. Use more "
        "quadrature nodes, or `tol=`."
    )
    map_not_converged = (
        "The scattering map is too inaccurate: its estimated error is above jaxres' limit of 1e-3. Use more quadrature "
        "nodes, or `tol=`."
    )
    invalid_parameters = (
        "A parameter is not admissible: levels must ascend, couplings be Hermitian, lengths, masses, β and Δx be "
        "positive, rates not be negative, and the packet satisfy 4πΔx√(m/β) ≥ ħ."
    )
    not_resolved = (
        "The time is too long for what does not relax: its phase is unknown, since the relative error 10⁻¹⁶ |L| t is "
        "above 0.1. Ask for shorter times."
    )


#: largest accepted error of an entry of a map: above it no steady state is accurate to 1 %
POOR_MAP = 1e-3


class Collisions(eqx.Module):
    r"""The maps of one collision with each of R reservoirs, and the rates Γ_r at which collisions happen.

    `jaxres.collisions` computes it from reservoirs. Constructed from maps and rates, it describes collisions that were
    computed elsewhere.

    **Arguments:**

    - `maps`: a `Superoperator`, or a sequence of R of them.
    - `rates`: the rates Γ_r ≥ 0, shape (R,), or one number for a single map.
    - `valid`: whether all parameters are admissible; for traced parameters this is known only at run time.
    - `reservoirs`: the reservoirs of the maps, or None.

    **Raises:** `ValueError` if there is not one rate for each map, or one is negative.

    !!! example
        >>> S = jr.Superoperator.from_kraus(jnp.array([[[1.0, 0.0], [0.0, 0.6]], [[0.0, 0.8], [0.0, 0.0]]]))
        >>> sol = jr.steady_state(jr.System([0.0, 1.0]), jr.Collisions(S, 2.0))
        >>> print(jnp.round(jr.populations(sol.rho), 12))
        [1. 0.]
    """

    maps: tuple[Superoperator, ...] = eqx.field(converter=lambda x: _as_maps(x))
    rates: Float[Array, " R"] = eqx.field(converter=lambda x: _as_rates(x))
    valid: Bool[Array, ""] = eqx.field(
        converter=lambda x: _as_truth("valid", x), default=True, kw_only=True
    )
    reservoirs: tuple[Reservoir, ...] | None = eqx.field(
        converter=lambda x: None if x is None else as_reservoirs("reservoirs", x),
        default=None,
        kw_only=True,
    )

    def __check_init__(self):
        if self.rates.shape != (len(self.maps),):
            raise ValueError(
                f"Argument `rates` must have one rate for each of {len(self.maps)} maps, but is {self.rates}."
            )

    @property
    def map_error(self) -> Float[Array, ""]:
        """The estimated largest error of an entry of any of the maps."""
        return jnp.max(jnp.stack([jnp.asarray(S.error, self.rates.dtype) for S in self.maps]))

    @property
    def inputs(self) -> tuple:
        """The numbers on which all results of these collisions depend."""
        return self.rates, self.maps if self.reservoirs is None else self.reservoirs

    @property
    def result(self) -> RESULTS:
        """The outcome for the maps: successful, map_not_converged or invalid_parameters."""
        converged = RESULTS.where(
            self.map_error < POOR_MAP, RESULTS.successful, RESULTS.map_not_converged
        )
        return RESULTS.where(self.valid, converged, RESULTS.invalid_parameters)

    @door
    def with_rates(self, rates: Checked[Real[Any, "*R"]]) -> "Collisions":
        """The same collisions at other rates, shape (R,), or one number for a single reservoir.

        One set of maps serves every rate: `jax.vmap(lambda rate: jr.steady_state(system, c.with_rates(rate)))(rates)`.
        """
        # converted here: equinox would look into what it is given before the converter does
        given = _as_rates(rates)
        return Collisions(self.maps, given, valid=self.valid, reservoirs=self.reservoirs)


Reservoirs = Reservoir | Sequence[Reservoir] | Collisions


def _as_maps(maps):
    sequence = (maps,) if isinstance(maps, Superoperator) else maps
    if not isinstance(sequence, list | tuple) or not sequence:
        raise ValueError(
            "Argument `maps` must be a jaxres.Superoperator or a sequence of them, but is "
            f"{shown(maps)}."
        )
    for S in sequence:
        check_instance("maps", S, Superoperator, "a jaxres.Superoperator or a sequence of them")
    return tuple(sequence)


def _as_truth(name, x):
    """Converts a truth value, also a traced one."""
    if isinstance(x, bool | np.bool_) or (
        isinstance(x, jax.Array) and x.shape == () and x.dtype == bool
    ):
        return jnp.asarray(x)
    raise ValueError(f"Argument `{name}` must be True or False, but is {shown(x)}.")


def _as_rates(rates):
    sequence = rates if isinstance(rates, list | tuple) else None
    if sequence is None and getattr(rates, "ndim", 0) > 0:
        sequence = list(rates)
    each = [rates] if sequence is None else sequence
    if not each:
        raise ValueError(f"Argument `rates` must have a rate for each map, but is {shown(rates)}.")
    return jnp.stack([as_scalar("rates", rate, nonnegative=True) for rate in each])


@door
def collisions(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    tol: Scalar | None = None,
) -> Collisions:
    r"""Computes the scattering maps of all reservoirs (Eq. 17), and returns them with the rates.

    **Arguments:**

    - `system`: N levels.
    - `reservoirs`: a `Reservoir`, or a sequence of R of them.
    - `amplitudes`, `quadrature`, `tol`: as for `scattering_map`.

    **Returns:** `Collisions`. `.maps` are the scattering maps, `.rates` has shape (R,), `.map_error` is the largest
    estimated error of an entry of the maps, and `.result` is `successful` if the maps can be used.

    **Raises:** `ValueError` for arguments of the wrong kind, or if `tol` is not reached.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> c = jr.collisions(system, reservoir)
        >>> rates = jnp.array([1.0, 5.0, 10.0])
        >>> sols = jax.vmap(lambda rate: jr.steady_state(system, c.with_rates(rate)))(rates)
        >>> print(jnp.round(jr.coherence(sols.rho), 6))
        [0.020749 0.099299 0.126131]
    """
    return requested(system, reservoirs, amplitudes, quadrature, tol).compute()


@dataclass(frozen=True)
class Request:
    """Collisions that are checked but not computed yet, so that a caller can check its other arguments first."""

    system: System
    reservoirs: tuple[Reservoir, ...] | Collisions
    amplitudes: AbstractAmplitudes
    quadrature: AbstractQuadrature
    tol: Any

    @property
    def count(self) -> int:
        """The number of reservoirs."""
        given = self.reservoirs
        return len(given.maps if isinstance(given, Collisions) else given)

    def compute(self) -> Collisions:
        """Computes the collisions, which takes most of the time of a calculation."""
        system, reservoirs = self.system, self.reservoirs
        if isinstance(reservoirs, Collisions):
            return reservoirs
        if self.tol is None:
            return _collisions(system, reservoirs, self.amplitudes, self.quadrature)
        how = {"amplitudes": self.amplitudes, "quadrature": self.quadrature, "tol": self.tol}
        maps = [scattering_map(system, reservoir, **how) for reservoir in reservoirs]
        rates = [reservoir.rate for reservoir in reservoirs]
        return Collisions(maps, rates, valid=_admissible(system, reservoirs), reservoirs=reservoirs)


def requested(
    system: Any,
    reservoirs: Any,
    amplitudes: Any,
    quadrature: Any,
    tol: Any = None,
    *,
    finite: bool = False,
    positive: bool = False,
    single: bool = False,
) -> Request:
    """Checks an argument `reservoirs` and returns the collisions that it describes.

    `finite` and `positive` require this of all rates; `single` requires a single reservoir.
    """
    check_instance("system", system, System, "a jaxres.System")
    check_numerics(amplitudes, quadrature)
    warn_of_single_precision(system.levels.dtype)
    name = "reservoir" if single else "reservoirs"
    if isinstance(reservoirs, Collisions):
        _check_computed(name, reservoirs, system, amplitudes, quadrature, tol)
        rates, rate_name = reservoirs.rates, f"{name}.rates"
    else:
        reservoirs = as_reservoirs(name, reservoirs)
        rates, rate_name = [reservoir.rate for reservoir in reservoirs], "reservoir.rate"
    request = Request(system, reservoirs, amplitudes, quadrature, tol)
    if single and request.count != 1:
        raise ValueError(f"Argument `{name}` must be a single one, but is {request.count} of them.")
    for rate in rates:
        check_scalar(rate_name, rate, positive=positive, nonnegative=True)
        if finite and concrete(rate):
            require(
                np.isfinite(rate),
                f"Argument `{rate_name}` must be finite here, but is infinite. Only the steady state has that limit.",
            )
    return request


def as_reservoirs(name: str, reservoirs: Any) -> tuple[Reservoir, ...]:
    """Converts a reservoir, or a sequence of them, to a tuple."""
    sequence = (reservoirs,) if isinstance(reservoirs, Reservoir) else reservoirs
    kinds = "a jaxres.Reservoir, a sequence of them, or a jaxres.Collisions"
    if not isinstance(sequence, list | tuple) or not sequence:
        raise ValueError(f"Argument `{name}` must be {kinds}, but is {shown(reservoirs)}.")
    for reservoir in sequence:
        check_instance(name, reservoir, Reservoir, kinds)
    return tuple(sequence)


def _check_computed(name, computed, system, amplitudes, quadrature, tol):
    """Checks that computed maps act on the system, and that no argument concerns their computation."""
    for S in computed.maps:
        check_map(f"{name}.maps", S, system)
    asked = (
        ("amplitudes", amplitudes, Exact()),
        ("quadrature", quadrature, DoubleExponential()),
        ("tol", tol, None),
    )
    for argument, value, default in asked:
        if not eqx.tree_equal(value, default):
            raise ValueError(
                f"Argument `{argument}` must be left out with a jaxres.Collisions, whose maps are computed already, "
                f"but is {value!r}. Give it to jaxres.collisions."
            )


def or_throw(value: Any, result: RESULTS, throw: Any) -> Any:
    """Returns the value; with `throw`, raises an error at run time unless the result is successful."""
    if as_flag("throw", throw):
        return result.error_if(value, result != RESULTS.successful)
    return value


@eqx.filter_jit
def _collisions(system, reservoirs, amplitudes, quadrature):
    maps = [collision_map(system, reservoir, amplitudes, quadrature) for reservoir in reservoirs]
    rates = [reservoir.rate for reservoir in reservoirs]
    return Collisions(maps, rates, valid=_admissible(system, reservoirs), reservoirs=reservoirs)


def _admissible(system, reservoirs):
    """The conditions on the parameters. For concrete ones, constructors check them; this covers traced ones."""
    return jnp.all(jnp.stack([system.valid(), *(r.valid(system) for r in reservoirs)]))
