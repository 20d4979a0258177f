r"""What reservoirs are designed for: losses for `jaxres.design`.

Each is a value, called with a system and its reservoirs, and uses one set of scattering maps for all it needs. Some
return constraints beside the loss: `Penalised` makes one number of both, for methods that know no constraints.
Logarithms make a loss free of units, so that tolerances mean the same everywhere.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ._checks import (
    Checked,
    as_count,
    as_flag,
    as_function,
    as_index,
    as_scalar,
    check_instance,
    door,
)
from ._dynamics.collisions import Collisions, Reservoirs, requested
from ._dynamics.spectrum import slowest_time
from ._dynamics.steady_state import SteadyState, solve_steady_state
from ._quantum.states import as_rough_state, coherence, gibbs_state, trace_distance
from ._quantum.superoperator import check_size
from ._quantum.system import System
from ._scattering.amplitudes import AbstractAmplitudes, Exact
from ._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from ._scattering.scattering_map import check_numerics
from ._thermodynamics.work_and_heat import ergotropy, heat_flow

Loss = Float[Array, ""] | tuple[Float[Array, ""], dict[str, Float[Array, ""]]]


class AbstractLoss(eqx.Module):
    """A loss of a system's steady state; how that is computed is by keyword in every loss."""

    amplitudes: Checked[AbstractAmplitudes] = eqx.field(default=Exact(), kw_only=True)
    quadrature: Checked[AbstractQuadrature] = eqx.field(default=DoubleExponential(), kw_only=True)

    def __check_init__(self):
        check_numerics(self.amplitudes, self.quadrature)

    @door
    def solve(
        self, system: Checked[System], reservoirs: Checked[Reservoirs]
    ) -> tuple[Collisions, SteadyState]:
        """The collisions and their steady state."""
        computed = isinstance(reservoirs, Collisions)
        numerics = (
            (Exact(), DoubleExponential()) if computed else (self.amplitudes, self.quadrature)
        )
        c = requested(system, reservoirs, *numerics).compute()
        return c, solve_steady_state(system, c)


class Thermostat(AbstractLoss):
    r"""The distance to the Gibbs state, $\log D$ with $D = \tfrac12‖ρ - e^{-βH_S}/Z‖_1$.

    **Arguments:**

    - `beta`: β of the state that is wanted.
    - `slowest`: the longest relaxation time τ allowed; then a constraint $\log(τ_{max}/τ) ≥ 0$ comes with the loss.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> print(jnp.round(jnp.exp(jr.losses.Thermostat(beta=0.1)(system, reservoir)), 4))
        0.1005
    """

    beta: Float[Array, ""] = eqx.field(converter=lambda x: as_scalar("beta", x))
    slowest: Float[Array, ""] | None = eqx.field(
        converter=lambda x: None if x is None else as_scalar("slowest", x, positive=True),
        default=None,
    )

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        c, sol = self.solve(system, reservoirs)
        loss = jnp.log(trace_distance(sol.rho, gibbs_state(system, self.beta)))
        if self.slowest is None:
            return loss
        time = slowest_time(system, c)
        return loss, {"relaxation_time": jnp.log(self.slowest / time)}


class FastThermostat(AbstractLoss):
    r"""The relaxation time, $\log τ$, with the Gibbs state to be reached: $\log(D_{max}/D) ≥ 0$.

    **Arguments:** `beta`: β of the state that is wanted; `distance`: the largest trace distance D allowed.
    """

    beta: Float[Array, ""] = eqx.field(converter=lambda x: as_scalar("beta", x))
    distance: Float[Array, ""] = eqx.field(
        converter=lambda x: as_scalar("distance", x, positive=True), default=1e-4
    )

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        c, sol = self.solve(system, reservoirs)
        far = trace_distance(sol.rho, gibbs_state(system, self.beta))
        time = slowest_time(system, c)
        return jnp.log(time), {"distance": jnp.log(self.distance / far)}


class CoherenceAt(AbstractLoss):
    r"""A coherence of a given size: $\log^2(|ρ_{jk}|/c)$.

    **Arguments:**

    - `value`: c > 0.
    - `j`, `k`: the levels, by default 0 and 1.
    - `least_rate`: find the slowest reservoir that does it. The loss is then $\log Γ$, Γ the sum of all rates, and
      $\log(|ρ_{jk}|/c) ≥ 0$ a constraint.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> print(jnp.round(jr.losses.CoherenceAt(0.0992995)(system, reservoir), 10))
        0.0
    """

    value: Float[Array, ""] = eqx.field(converter=lambda x: as_scalar("value", x, positive=True))
    j: int = eqx.field(static=True, converter=lambda x: as_count("j", x, 0), default=0)
    k: int = eqx.field(static=True, converter=lambda x: as_count("k", x, 0), default=1)
    least_rate: bool = eqx.field(
        static=True, converter=lambda x: as_flag("least_rate", x), default=False
    )

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        check_instance("system", system, System, "a jaxres.System")
        for name, level in (("j", self.j), ("k", self.k)):
            as_index(name, level, system.size)
        c, sol = self.solve(system, reservoirs)
        room = jnp.log(coherence(sol.rho, self.j, self.k) / self.value)
        return (jnp.log(jnp.sum(c.rates)), {"coherence": room}) if self.least_rate else room**2


class TargetState(AbstractLoss):
    r"""A given steady state: $\mathrm{Tr}(ρ - ρ^*)^2$.

    Of second order in the distance, so that its slope is small well before: give `jaxres.design` the `target` that will
    do, and a `tol` of 1e-9.

    **Arguments:** `rho`: ρ*, shape (N, N), in the energy eigenbasis.
    """

    rho: Complex[Array, "N N"] = eqx.field(converter=lambda x: as_rough_state("rho", x))

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        check_instance("system", system, System, "a jaxres.System")
        check_size("rho", self.rho.shape[0], system)
        _, sol = self.solve(system, reservoirs)
        gap = sol.rho - self.rho
        return jnp.sum(jnp.real(gap) ** 2 + jnp.imag(gap) ** 2)


class HeatCurrent(AbstractLoss):
    r"""The most heat that one of several reservoirs brings in the steady state: $-J_r$, $J_r$ as in `jaxres.heat_flow`.

    **Arguments:** `index`: r, the place of the reservoir in the sequence. Alone, a reservoir brings none.
    """

    index: int = eqx.field(static=True, converter=lambda x: as_count("index", x, 0), default=0)

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        count = requested(system, reservoirs, Exact(), DoubleExponential()).count
        if self.index >= count:
            raise ValueError(
                f"Argument `index` must be the place of one of {count} reservoirs, from 0, but is {self.index}."
            )
        c, sol = self.solve(system, reservoirs)
        return -heat_flow(system, c.maps[self.index], c.rates[self.index], sol.rho)


class Ergotropy(AbstractLoss):
    """The most work that could be drawn from the steady state: −W, W as in `jaxres.ergotropy`."""

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        return -ergotropy(system, self.solve(system, reservoirs)[1].rho)


class ErgotropyRate(AbstractLoss):
    r"""Ergotropy per unit time, $-W/τ$: a battery that is emptied and charged again, each relaxation time τ."""

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        c, sol = self.solve(system, reservoirs)
        return -ergotropy(system, sol.rho) / slowest_time(system, c)


class Penalised(eqx.Module):
    r"""A loss with constraints c as one number: $f + w \sum \min(c, 0)^2$.

    Its minimum violates an active constraint by about μ/2w, with μ the constraint's multiplier: raise `weight` for
    less. A search that knows the sum alone takes many short steps along the penalty's bend; `jaxres.SciPy("SLSQP")`
    sees the parts, if this is the outermost loss, as in `Penalised(Letter(…))`.

    !!! example
        >>> loss = jr.losses.Penalised(lambda x: (x, {"positive": x}), weight=10.0)
        >>> print(loss(jnp.array(-0.5)))
        2.0
    """

    loss: Checked[Callable]
    weight: Float[Array, ""] = eqx.field(
        converter=lambda x: as_scalar("weight", x, nonnegative=True), default=100.0
    )

    def __check_init__(self):
        as_function("loss", self.loss)

    @door
    def __call__(self, *model: Any) -> Float[Array, ""]:
        """The loss; constraints beside it, if there are any."""
        parts = self.loss(*model)
        if not isinstance(parts, tuple):
            raise ValueError(
                f"Argument `loss` must be a loss with constraints, but {self.loss!r} has none. Use it as it is."
            )
        value, constraints = parts
        return value + self.weight * sum(jnp.minimum(c, 0) ** 2 for c in constraints.values())


class Letter(eqx.Module):
    """A loss of the Letter's model as one of its parameters, a dict such as `{"rate": 5.0, "coupling": 1.0}`.

    The coupling λ and the splitting Δ are no fields of a `Reservoir` or a `System`, but they are parameters of
    `jaxres.letter.model`; `function` may be another function of keyword parameters that returns a system and its
    reservoirs.

    !!! example
        >>> loss = jr.losses.Letter(jr.losses.CoherenceAt(0.05), {"beta": 0.1})
        >>> print(jnp.round(loss({"rate": 5.0, "width": 1.0}), 6))
        0.470757
    """

    loss: Checked[Callable]
    fixed: Checked[dict[str, Any]] = eqx.field(default_factory=dict)
    function: Callable | None = eqx.field(
        static=True,
        converter=lambda x: None if x is None else as_function("function", x, static=True),
        default=None,
    )

    def __check_init__(self):
        as_function("loss", self.loss)
        _check_parameters("fixed", self.fixed)

    @door
    def __call__(self, parameters: Checked[dict[str, Any]]) -> Loss:
        """The loss; constraints beside it, if there are any."""
        from . import letter

        _check_parameters("parameters", parameters)
        both = sorted(self.fixed.keys() & parameters.keys())
        if both:
            raise ValueError(
                f"Argument `parameters` must be others than those fixed, but has {', '.join(both)} too."
            )
        return self.loss(*(self.function or letter.model)(**self.fixed, **parameters))


def _check_parameters(name, x):
    """Values by their names."""
    if not (isinstance(x, dict) and all(isinstance(key, str) for key in x)):
        raise ValueError(
            f"Argument `{name}` must be a dict of values by their names, but is {x!r}."
        )
