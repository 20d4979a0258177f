r"""Losses for `jaxres.design`: quantities that a design of reservoirs minimises.

A loss is an object that is called with a system and its reservoirs, and computes one set of scattering maps per call.
It returns a number, or a number and a dict of constraints, which are satisfied where they are ≥ 0. `Penalised` combines
these to one number, for methods without constraints. Losses are logarithms where possible, so that they do not depend
on units, and a tolerance has the same meaning for all of them.
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
    """A loss of a system's steady state.

    - `amplitudes`, `quadrature`: as for `steady_state`, in every loss by keyword.
    """

    amplitudes: Checked[AbstractAmplitudes] = eqx.field(default=Exact(), kw_only=True)
    quadrature: Checked[AbstractQuadrature] = eqx.field(default=DoubleExponential(), kw_only=True)

    def __check_init__(self):
        check_numerics(self.amplitudes, self.quadrature)

    @door
    def solve(
        self, system: Checked[System], reservoirs: Checked[Reservoirs]
    ) -> tuple[Collisions, SteadyState]:
        """Returns the collisions and their steady state."""
        c = requested(system, reservoirs, self.amplitudes, self.quadrature).compute()
        return c, solve_steady_state(system, c)


class Thermostat(AbstractLoss):
    r"""The distance to the Gibbs state, $\log D$ with $D = \tfrac12‖ρ - e^{-βH_S}/Z‖_1$.

    **Arguments:**

    - `beta`: β of the desired Gibbs state.
    - `slowest`: the largest relaxation time τ_max allowed; it adds the constraint $\log(τ_{max}/τ) ≥ 0$.

    **Raises:** `ValueError` for a β that is not finite, or a `slowest` that is not positive and finite.

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
        """Returns log D; with `slowest`, also the constraint log(τ_max/τ), named relaxation_time."""
        c, sol = self.solve(system, reservoirs)
        loss = jnp.log(trace_distance(sol.rho, gibbs_state(system, self.beta)))
        if self.slowest is None:
            return loss
        time = slowest_time(system, c)
        return loss, {"relaxation_time": jnp.log(self.slowest / time)}


class FastThermostat(AbstractLoss):
    r"""The relaxation time, $\log τ$, with the constraint $\log(D_{max}/D) ≥ 0$ on the distance D to the Gibbs state.

    **Arguments:** `beta`: β of the desired Gibbs state; `distance`: the largest trace distance D_max allowed.

    **Raises:** `ValueError` for a β that is not finite, or a `distance` that is not positive and finite.
    """

    beta: Float[Array, ""] = eqx.field(converter=lambda x: as_scalar("beta", x))
    distance: Float[Array, ""] = eqx.field(
        converter=lambda x: as_scalar("distance", x, positive=True), default=1e-4
    )

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """Returns log τ and the constraint log(D_max/D), named distance."""
        c, sol = self.solve(system, reservoirs)
        far = trace_distance(sol.rho, gibbs_state(system, self.beta))
        time = slowest_time(system, c)
        return jnp.log(time), {"distance": jnp.log(self.distance / far)}


class CoherenceAt(AbstractLoss):
    r"""A coherence of a given size: $\log^2(|ρ_{jk}|/c)$.

    **Arguments:**

    - `value`: c > 0.
    - `j`, `k`: the levels, by default 0 and 1.
    - `least_rate`: search for the lowest rate that reaches the coherence. The loss is then $\log Γ$, with the sum Γ of
      all rates, and $\log(|ρ_{jk}|/c) ≥ 0$ is a constraint.

    **Raises:** `ValueError` for a `value` that is not positive and finite, or a `j` or `k` that is not the index of a
    level.

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
        """Returns log²(|ρ_jk|/c); with `least_rate`, log Γ and the constraint log(|ρ_jk|/c), named coherence."""
        check_instance("system", system, System, "a jaxres.System")
        for name, level in (("j", self.j), ("k", self.k)):
            as_index(name, level, system.size)
        c, sol = self.solve(system, reservoirs)
        excess = jnp.log(coherence(sol.rho, self.j, self.k) / self.value)
        return (jnp.log(jnp.sum(c.rates)), {"coherence": excess}) if self.least_rate else excess**2


class TargetState(AbstractLoss):
    r"""The squared distance to a given steady state ρ*: $\mathrm{Tr}(ρ - ρ^*)^2$.

    It is of second order in the distance, so its slope is small well before the minimum: call `jaxres.design` with the
    `target` that suffices, and with `tol=1e-9`.

    **Arguments:** `rho`: ρ*, shape (N, N), in the energy eigenbasis.

    **Raises:** `ValueError` for a matrix that is not a state.
    """

    rho: Complex[Array, "N N"] = eqx.field(converter=lambda x: as_rough_state("rho", x))

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """Returns Tr(ρ − ρ*)²; raises `ValueError` if ρ* has another size than the system."""
        check_instance("system", system, System, "a jaxres.System")
        check_size("rho", self.rho.shape[0], system)
        _, sol = self.solve(system, reservoirs)
        gap = sol.rho - self.rho
        return jnp.sum(jnp.real(gap) ** 2 + jnp.imag(gap) ** 2)


class HeatCurrent(AbstractLoss):
    r"""The heat current from one of several reservoirs in the steady state: $-J_r$, $J_r$ as in `jaxres.heat_flow`.

    **Arguments:** `index`: r, the index of the reservoir in the sequence. For a single reservoir J_r vanishes.

    **Raises:** `ValueError` for an `index` that is not a whole number ≥ 0.
    """

    index: int = eqx.field(static=True, converter=lambda x: as_count("index", x, 0), default=0)

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """Returns −J_r; raises `ValueError` if there is no reservoir r."""
        count = requested(system, reservoirs, self.amplitudes, self.quadrature).count
        if self.index >= count:
            raise ValueError(
                f"Argument `index` must be the place of one of {count} reservoirs, from 0, but is {self.index}."
            )
        c, sol = self.solve(system, reservoirs)
        return -heat_flow(system, c.maps[self.index], c.rates[self.index], sol.rho)


class Ergotropy(AbstractLoss):
    """The extractable work of the steady state: −W, with W as in `jaxres.ergotropy`."""

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """Returns −W."""
        return -ergotropy(system, self.solve(system, reservoirs)[1].rho)


class ErgotropyRate(AbstractLoss):
    r"""The ergotropy per relaxation time, $-W/τ$: the power of a battery that is charged and emptied in each time τ."""

    @door
    def __call__(self, system: Checked[System], reservoirs: Checked[Reservoirs]) -> Loss:
        """Returns −W/τ."""
        c, sol = self.solve(system, reservoirs)
        return -ergotropy(system, sol.rho) / slowest_time(system, c)


class Penalised(eqx.Module):
    r"""A loss f with constraints c as one number: $f + w \sum \min(c, 0)^2$.

    Its minimum violates an active constraint by about μ/2w, with the constraint's multiplier μ: increase `weight` to
    reduce this. A search that uses only the sum takes many short steps along the bend of the penalty.
    `jaxres.SciPy("SLSQP")` uses the parts, if this is the outermost loss, as in `Penalised(Letter(…))`.

    **Arguments:** `loss`: a loss with constraints; `weight`: w ≥ 0.

    **Raises:** `ValueError` for a `loss` that is not a function, or a negative weight.

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
        """Returns the sum of loss and penalty; raises `ValueError` if the loss has no constraints."""
        parts = self.loss(*model)
        if not isinstance(parts, tuple):
            raise ValueError(
                f"Argument `loss` must be a loss with constraints, but {self.loss!r} has none. Use it as it is."
            )
        value, constraints = parts
        return value + self.weight * sum(jnp.minimum(c, 0) ** 2 for c in constraints.values())


class Letter(eqx.Module):
    """A loss as a function of the parameters of the Letter's model, a dict such as `{"rate": 5.0, "coupling": 1.0}`.

    So a design can vary the coupling λ and the splitting Δ, which are not fields of a `Reservoir` or a `System`.

    **Arguments:**

    - `loss`: a loss of a system and its reservoirs.
    - `fixed`: the parameters that are not varied, by name.
    - `function`: a function of keyword parameters that returns a system and its reservoirs; by default
      `jaxres.letter.model`.

    **Raises:** `ValueError` for a `loss` or a `function` that cannot be called, or a `fixed` that is not a dict; in a
    call, for a parameter that is fixed.

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
        """Returns the loss, and its constraints if it has any, of the model with these parameters."""
        from . import letter

        _check_parameters("parameters", parameters)
        both = sorted(self.fixed.keys() & parameters.keys())
        if both:
            raise ValueError(
                f"Argument `parameters` must be others than those fixed, but has {', '.join(both)} too."
            )
        return self.loss(*(self.function or letter.model)(**self.fixed, **parameters))


def _check_parameters(name, x):
    """Raises a ValueError unless x is a dict with names as keys."""
    if not (isinstance(x, dict) and all(isinstance(key, str) for key in x)):
        raise ValueError(
            f"Argument `{name}` must be a dict of values by their names, but is {x!r}."
        )
