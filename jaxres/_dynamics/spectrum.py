r"""Relaxation: the spectrum of the generator, and its gap.

The generator L of the master equation (Eq. 8) preserves the trace, so 0 is an eigenvalue: that of
the steady state (Eq. 9). The others belong to traceless operators. The constraint
ρ_00 = −Σ_{j>0} ρ_jj eliminates one coordinate, and on the remaining N² − 1 real coordinates L is a
real matrix with exactly these eigenvalues.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import Checked, door, or_nan
from .._quantum.system import System
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential
from .collisions import RESULTS, Collisions, Reservoirs, or_throw, requested
from .evolution import make_generator
from .real_coordinates import eliminate_ground_population, to_real_matrix


@door
def spectrum(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> Complex[Array, " M"]:
    r"""The N² eigenvalues of the generator L (Eq. 8), the slowest first.

    $$L R_i = λ_i R_i, \qquad ρ(t) = \sum_i c_i e^{λ_i t} R_i,
      \qquad 0 = λ_0 ≥ \mathrm{Re} λ_1 ≥ \mathrm{Re} λ_2 ≥ …$$

    **Arguments:** as for `steady_state`; the rates must be finite. `throw` raises a `RuntimeError`, inside jit too, if
    the collisions cannot be used.

    **Returns:** shape (N²,), sorted by descending real part, then by imaginary part; the first eigenvalue is exactly 0.
    They are NaN where the collisions cannot be used: see `evolve`. The error of an eigenvalue is about ε times the
    modulus of the largest, times its condition number. Eigenvalues are differentiable once where all are simple; where
    some coincide, their derivatives need not exist, and the values returned for them have no meaning.

    **Raises:** `ValueError` for an infinite rate, or arguments of the wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> print(jnp.round(jr.spectrum(system, reservoir)[2:], 3))  # how coherences decay and precess
        [-0.396-1.297j -0.396+1.297j]
    """
    c = requested(system, reservoirs, amplitudes, quadrature, finite=True).compute()
    return or_throw(_eigenvalues(system, c), c.result, throw)


@door
def relaxation_time(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> Float[Array, ""]:
    r"""The time in which the slowest deviation from the steady state falls by a factor e.

    $$τ = \frac{1}{g}, \qquad g = \min_{i > 0} (-\mathrm{Re} λ_i)$$

    with the eigenvalues $λ_i$ of `spectrum`. After many τ every state has become the steady state (Eq. 9).

    **Arguments:** as for `steady_state`; the rates must be finite. `throw` raises a `RuntimeError`, inside jit too, if
    the collisions cannot be used.

    **Returns:** τ (1/energy), with a relative error of about ε |λ|_max τ. It is infinite where the gap is below
    rounding, as at Γ = 0 or where the steady state is not unique, and NaN where the collisions cannot be used: see
    `evolve`.

    The derivative is first-order perturbation theory of the slowest mode, dλ = ⟨left|dL|right⟩, in forward and reverse
    mode; a second derivative raises `NotImplementedError`. The derivative is right where the slowest eigenvalue is
    simple, as each of a complex-conjugate pair is. Where two slowest modes exchange their order, τ has a kink, and the
    derivative is that of one of them. Where two modes merge, τ has a square-root singularity, and the derivative
    diverges.

    **Raises:** `ValueError` for an infinite rate, or arguments of the wrong kind.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> print(round(float(jr.relaxation_time(system, reservoir)), 4))
        3.7034
    """
    c = requested(system, reservoirs, amplitudes, quadrature, finite=True).compute()
    return or_throw(slowest_time(system, c), c.result, throw)


@eqx.filter_jit
def slowest_time(system: System, c: Collisions) -> Float[Array, ""]:
    """Computes `relaxation_time` without checks, for use inside other pure functions."""
    values = _eigenvalues(system, c)
    gap = jnp.min(-jnp.real(values[1:]), initial=jnp.inf)
    rounding = values.size * jnp.finfo(gap.dtype).eps * jnp.max(jnp.abs(values))
    relaxes = ~(gap <= rounding)  # true for NaN, which is passed on
    return jnp.where(relaxes, 1 / jnp.where(relaxes, gap, 1), jnp.inf)


@eqx.filter_jit
def _eigenvalues(system, c):
    L = make_generator(system, c).tensor
    L = or_nan(c.result == RESULTS.successful, L, (system, c.inputs))
    traceless, _ = eliminate_ground_population(to_real_matrix(L))
    values = jnp.linalg.eigvals(traceless)
    order = jnp.lexsort((jnp.imag(values), -jnp.real(values)))
    return jnp.concatenate([jnp.zeros(1, values.dtype), values[order]])
