r"""Distributions of the waiting times between collisions, and the average over a flight and a collision.

The waiting times τ between collisions are drawn independently from one distribution of mean 1/Γ. A
flight multiplies the coherence (j, k) by e^{−iΔ_jk τ/ħ}, and on average by the characteristic
function of the distribution, ⟨e^{−iΔ_jk τ/ħ}⟩. So on average the same map leads from each collision
to the next. A master equation for the time between collisions exists only for the exponential
distribution.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, PRNGKeyArray

from .._checks import Checked, as_key, as_real, as_scalar, check_instance, door
from .._quantum.levels import gaps
from .._quantum.superoperator import Superoperator
from .._quantum.system import System
from .._reservoir.reservoir import Reservoir
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import Collisions, requested

# --------------------------------------------------------------------------------------------------
# Waiting times
# --------------------------------------------------------------------------------------------------


class AbstractWaitingTimes(eqx.Module):
    """The distribution of θ = Γτ, the time between two collisions in units of its mean, so that ⟨θ⟩ = 1."""

    @abc.abstractmethod
    def sample(self, key: Checked[PRNGKeyArray]) -> Float[Array, ""]:
        """Draws one θ ≥ 0 with a JAX random key."""

    @abc.abstractmethod
    def characteristic_function(self, u: Checked[Float[ArrayLike, "*s"]]) -> Complex[Array, "*s"]:
        """Returns ⟨e^{−iuθ}⟩, elementwise: the factor by which a flight multiplies a coherence, on average."""

    @abc.abstractmethod
    def residual_characteristic_function(
        self, u: Checked[Float[ArrayLike, "*s"]]
    ) -> Complex[Array, "*s"]:
        """Returns (1 − ⟨e^{−iuθ}⟩)/iu, and 1 at u = 0: the same factor at a random instant of time."""


class Exponential(AbstractWaitingTimes):
    r"""Independent (Poissonian) collisions: waiting times of density $Γ e^{-Γτ}$.

    !!! example
        >>> print(jr.waiting_times.Exponential().characteristic_function(jnp.array(1.0)))
        (0.5-0.5j)
    """

    @door
    def sample(self, key):
        return jax.random.exponential(as_key("key", key))

    @door
    def characteristic_function(self, u):
        u = as_real("u", u)
        return 1 / jax.lax.complex(jnp.ones_like(u), u)

    @door
    def residual_characteristic_function(self, u):
        return self.characteristic_function(u)


class Regular(AbstractWaitingTimes):
    """Collisions at regular intervals 1/Γ.

    !!! example
        >>> print(jnp.abs(jr.waiting_times.Regular().characteristic_function(jnp.array(1.0))))
        1.0
    """

    @door
    def sample(self, key):
        as_key("key", key)
        return jnp.ones(())

    @door
    def characteristic_function(self, u):
        return jnp.exp(-1j * as_real("u", u))

    @door
    def residual_characteristic_function(self, u):
        u = as_real("u", u)
        return jnp.exp(-0.5j * u) * jnp.sinc(u / (2 * jnp.pi))


class GammaDistributed(AbstractWaitingTimes):
    r"""Waiting times of density ∝ $τ^{k-1} e^{-kΓτ}$, of mean 1/Γ and relative spread $1/\sqrt{k}$.

    **Arguments:**

    - `shape`: k > 0. Below 1 the collisions bunch; k = 1 is `Exponential`; k → ∞ is `Regular`.

    **Raises:** `ValueError` unless k is positive and finite.

    !!! example
        >>> print(jnp.round(jr.waiting_times.GammaDistributed(shape=4.0).characteristic_function(jnp.array(1.0)), 4))
        (0.4935...-0.7356j)
    """

    shape: Float[Array, ""] = eqx.field(converter=lambda x: as_scalar("shape", x, positive=True))

    @door
    def sample(self, key):
        return jax.random.gamma(as_key("key", key), self.shape) / self.shape

    @door
    def characteristic_function(self, u):
        return jnp.exp(-self.shape * jnp.log1p(1j * as_real("u", u) / self.shape))

    @door
    def residual_characteristic_function(self, u):
        w = 1j * as_real("u", u) / self.shape
        z = -self.shape * jnp.log1p(w)
        return _over(jnp.expm1, _EXPM1, z) * _over(jnp.log1p, _LOG1P, w)


#: Taylor coefficients of (e^z − 1)/z and ln(1 + z)/z
_EXPM1 = 1 / np.cumprod(np.arange(1.0, 11.0))
_LOG1P = (-1.0) ** np.arange(10) / np.arange(1.0, 11.0)


def _over(f, coefficients, z):
    """Returns f(z)/z for f(0) = 0. Near 0 it sums the series, so that value and derivatives are right there."""
    small = jnp.abs(z) < 0.02  # the first term that the series leave out is at most z¹⁰/11 = 1e-18
    near, far = jnp.where(small, z, 0), jnp.where(small, 1, z)
    series = jnp.polyval(jnp.asarray(coefficients[::-1], near.dtype), near)
    return jnp.where(small, series, f(far) / far)


# --------------------------------------------------------------------------------------------------
# The average over a flight and a collision
# --------------------------------------------------------------------------------------------------


@door
def cycle_map(
    system: Checked[System],
    reservoir: Checked[Reservoir | Collisions],
    waiting_times: Checked[AbstractWaitingTimes] = Exponential(),
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> Superoperator:
    r"""The average map of one cycle, a flight and a collision.

    $$C = S \circ χ, \qquad (χρ)_{jk} = χ_{jk}\, ρ_{jk}, \qquad χ_{jk} = ⟨e^{-iΔ_{jk}τ/ħ}⟩$$

    The waiting times are independent, so the average state after n collisions is exactly $C^n ρ_0$ for
    any distribution. For `Exponential()`, $χ_{jk} = Γ/(Γ + iΔ_{jk}/ħ)$.

    **Arguments:**

    - `system`, `reservoir`, `amplitudes`, `quadrature`: as for `scattering_map`. The rate must be
      positive.
    - `waiting_times`: `Exponential()`, `Regular()` or `GammaDistributed(shape)`.

    **Returns:** `Superoperator`, completely positive and trace-preserving where S is; NaN for a traced
    rate of 0.

    **Raises:** `ValueError` for a rate that is not positive and finite, or arguments of the wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> C = jr.cycle_map(system, reservoir, jr.waiting_times.Regular())
        >>> print(jnp.round(jnp.trace(C(jr.gibbs_state(system, 0.1))).real, 12))
        1.0
    """
    check_law(waiting_times)
    c = requested(system, reservoir, amplitudes, quadrature, positive=True, single=True).compute()
    return make_cycle_map(system, c.maps[0], c.rates[0], waiting_times)


def check_law(waiting_times: Any) -> None:
    """Raises a ValueError unless `waiting_times` is an `AbstractWaitingTimes`."""
    check_instance(
        "waiting_times",
        waiting_times,
        AbstractWaitingTimes,
        "a law such as jaxres.waiting_times.Exponential()",
    )


@eqx.filter_jit
def make_cycle_map(
    system: System, S: Superoperator, rate: Float[Array, ""], law: AbstractWaitingTimes
) -> Superoperator:
    """Computes `cycle_map` of one map and rate without checks, for use inside other pure functions."""
    flight = law.characteristic_function(gaps(system.levels) / rate)
    return S.linearly(lambda tensor: tensor * flight[None, None])
