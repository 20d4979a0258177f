r"""How the system relaxes: the spectrum of the generator, and its gap.

The generator L of the master equation (Eq. 8) preserves the trace, so 0 is an eigenvalue: that of
the steady state (Eq. 9). The others belong to traceless operators, which one keeps by writing
ρ_00 = −Σ_{j>0} ρ_jj: on the remaining N² − 1 real coordinates L is a real matrix that has all of
them and nothing else.
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

    **Arguments:** as for `steady_state`; rates finite. NaN where the collisions are refused, which `throw=True` raises
    as a `RuntimeError`: see `evolve`.

    **Returns:** shape (N²,), sorted by descending real part, then by imaginary part; exactly 0
    first. The error of an eigenvalue is about ε times the modulus of the largest, times its
    condition number. Differentiable once where all are simple; where some coincide, their
    derivatives need not exist, and what is returned for them has no meaning.

    **Raises:** `ValueError` for an infinite rate, and as `generator`.

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

    with the eigenvalues $λ_i$ of `spectrum`. After many τ every state is the steady state (Eq. 9).

    **Arguments:** as for `steady_state`; rates finite. NaN where the collisions are refused, which `throw=True` raises
    as a `RuntimeError`: see `evolve`.

    **Returns:** τ (1/energy); infinite where no gap can be told from rounding, as at Γ = 0 or where
    the steady state is not unique. Its relative error is about ε |λ|_max τ.

    Its derivative is first-order perturbation theory of the slowest mode, dλ = ⟨left|dL|right⟩, in
    forward and reverse mode; second derivatives are refused (`NotImplementedError`). It is right
    where the slowest eigenvalue is simple, as each of a complex-conjugate pair is. Where two
    different slowest modes change places, τ has a kink and the derivative is that of one of them.
    Where two modes merge, τ has a square-root singularity, and the derivative diverges.

    **Raises:** `ValueError` for an infinite rate, and as `generator`.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> print(round(float(jr.relaxation_time(system, reservoir)), 4))
        3.7034
    """
    c = requested(system, reservoirs, amplitudes, quadrature, finite=True).compute()
    return or_throw(slowest_time(system, c), c.result, throw)


@eqx.filter_jit
def slowest_time(system: System, c: Collisions) -> Float[Array, ""]:
    """`relaxation_time` of collisions, for use inside other pure functions."""
    values = _eigenvalues(system, c)
    gap = jnp.min(-jnp.real(values[1:]), initial=jnp.inf)
    rounding = values.size * jnp.finfo(gap.dtype).eps * jnp.max(jnp.abs(values))
    relaxes = ~(gap <= rounding)  # true for NaN, which stays one
    return jnp.where(relaxes, 1 / jnp.where(relaxes, gap, 1), jnp.inf)


@eqx.filter_jit
def _eigenvalues(system, c):
    L = make_generator(system, c).tensor
    L = or_nan(c.result == RESULTS.successful, L, (system, c.inputs))
    traceless, _ = eliminate_ground_population(to_real_matrix(L))
    values = jnp.linalg.eigvals(traceless)
    order = jnp.lexsort((jnp.imag(values), -jnp.real(values)))
    return jnp.concatenate([jnp.zeros(1, values.dtype), values[order]])
