"""Heat from a reservoir, the extractable work of a state, and its effective temperature."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import Checked, Scalar, as_scalar, check_instance, door
from .._numerics.safe import eigh
from .._quantum.levels import gaps
from .._quantum.states import States, as_operators, nan_unless, not_negative, of_each, populations
from .._quantum.superoperator import Superoperator, check_map
from .._quantum.system import System


@door
def heat_flow(
    system: Checked[System], S: Checked[Superoperator], rate: Checked[Scalar], rho: States
) -> Float[Array, "*b"]:
    r"""The energy per unit time that the system in state ρ gains in collisions with map S at rate Γ.

    $$J = Γ\, \mathrm{Tr}[H_S (S - 1) ρ]$$

    In a steady state the J of all reservoirs add up to 0 (the trace of H_S with Eq. 8), so for a single reservoir J
    vanishes. `collision_heat` divides the energy by its two sources; `currents` returns J for several reservoirs.

    **Arguments:** `S` as `scattering_map` returns it; `rate`, Γ ≥ 0; `rho`, any matrix, shape (N, N), or several with
    leading axes.

    **Returns:** J, shape of the leading axes; it is linear in ρ.

    **Raises:** `ValueError` for a negative rate, or a matrix or a map of another size than the system's.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> S = jr.scattering_map(system, reservoir)
        >>> hot, cold = jr.gibbs_state(system, 0.01), jr.gibbs_state(system, 1.0)
        >>> bool(jr.heat_flow(system, S, 5.0, hot) < 0 < jr.heat_flow(system, S, 5.0, cold))
        True
    """
    check_map("S", S, system)
    rate, rho = as_scalar("rate", rate, nonnegative=True), as_operators("rho", rho, system.size)
    return rate * (populations(S(rho) - rho) @ system.levels)


@door
def ergotropy(system: Checked[System], rho: States) -> Float[Array, "*b"]:
    r"""The most work that a unitary operation can extract from ρ.

    $$W = \mathrm{Tr}[ρ H_S] - \sum_k r_k e_k, \qquad r_0 ≥ r_1 ≥ …$$

    with the eigenvalues r_k of ρ in descending order and the levels e_k in ascending order. The operation leaves the
    passive state, with populations r_k.

    **Arguments:** `rho`: a state, shape (N, N), or several with leading axes.

    **Returns:** W, shape of the leading axes; NaN where an eigenvalue is below −√ε. W is differentiable where the
    eigenvalues are simple; where some meet and their levels differ, W has a kink, and the derivative returned is one of
    those beside it.

    **Raises:** `ValueError` for a matrix that is not Hermitian or not of trace 1; if it is traced, W is NaN.

    Source: Allahverdyan, Balian and Nieuwenhuizen, Europhys. Lett. 67, 565 (2004).

    !!! example
        >>> system = jr.System([-0.3, 0.3])
        >>> print(jnp.round(jr.ergotropy(system, jnp.diag(jnp.array([0.25, 0.75]))), 12))
        0.3
    """
    check_instance("system", system, System, "a jaxres.System")
    # W does not depend on the zero of energy; energies above the ground state avoid cancellation
    return of_each(_ergotropy, gaps(system.levels)[:, 0], size=system.size, rho=rho)


def _ergotropy(rho, levels):
    return jnp.real(jnp.diagonal(rho)) @ levels - _passive_energy(rho, levels)


@jax.custom_jvp
def _passive_energy(rho: Complex[Array, "N N"], levels: Float[Array, " N"]) -> Float[Array, ""]:
    values = eigh(rho)[0]
    return jnp.sum(values[::-1] * levels) * nan_unless(not_negative(values))


@_passive_energy.defjvp
def _passive_energy_jvp(primals, tangents):
    # dE = Tr[dρ A] + Σ_k r_k de_k with A = Σ_k e_k |r_k⟩⟨r_k|: the derivatives of the eigenvectors drop out
    (rho, levels), (drho, dlevels) = primals, tangents
    values, U = eigh(rho)
    values, U = values[::-1], U[:, ::-1]
    A = (U * levels[None]) @ jnp.conj(U.T)
    slope = jnp.real(jnp.sum(A.T * drho)) + jnp.sum(values * dlevels)
    return _passive_energy(rho, levels), slope * nan_unless(not_negative(values))


@door
def effective_beta(system: Checked[System], rho: States) -> Float[Array, "*b"]:
    r"""The inverse temperature of the Gibbs state that has the energy of ρ, $β_\mathrm{eff} = 1/T_\mathrm{eff}$.

    $$\mathrm{Tr}[H_S\, e^{-βH_S}]/Z(β) = \mathrm{Tr}[H_S ρ]$$

    This equation has exactly one solution. For two levels it is $β_\mathrm{eff} = \ln(p_0/p_1)/(e_1 - e_0)$; for more,
    the populations need not be thermal. The function returns β and not T, since β changes smoothly from hot through
    infinite temperature, β = 0, to inversion, β < 0.

    **Arguments:** `rho`: a state, shape (N, N), or several with leading axes.

    **Returns:** β, shape of the leading axes, differentiable by the equation itself. It is ±∞ for states with the
    lowest or the highest energy, and NaN where all levels are equal or a population is below −√ε.

    **Raises:** `ValueError` for a matrix that is not Hermitian or not of trace 1; if it is traced, β is NaN.

    The equation solved is that for the logarithm of the ratio of the energy's distances from the lowest and the highest
    level, which for two levels is linear in β. The method is Newton's, safeguarded by a bracket.

    !!! example
        >>> system = jr.System([-0.5, 0.1, 0.8])
        >>> print(jnp.round(jr.effective_beta(system, jr.gibbs_state(system, 0.7)), 12))
        0.7
        >>> print(jr.effective_beta(system, jnp.diag(jnp.array([1.0, 0.0, 0.0]))))
        inf
    """
    check_instance("system", system, System, "a jaxres.System")
    gap = gaps(system.levels)
    return of_each(_effective_beta, gap[:, 0], gap[-1], size=system.size, rho=rho)


def _effective_beta(rho, above, below):
    # multiply the whole state, so that derivatives in its coherences are NaN too
    positive = nan_unless(not_negative(jnp.real(jnp.diagonal(rho))))
    p = jnp.real(jnp.diagonal(rho * positive))
    # energies in units of the span of the levels, so that accuracy does not depend on the unit of energy
    span = jnp.where(above[-1] > 0, above[-1], 1)
    above, below = above / span, below / span
    low, high = jnp.sum(p * above), jnp.sum(p * below)
    inside = (low > 0) & (high > 0)
    target = jnp.log(jnp.where(inside, low, 1)) - jnp.log(jnp.where(inside, high, 1))
    ladder = jnp.arange(p.size, dtype=p.dtype)
    above, below = jnp.where(inside, above, ladder), jnp.where(inside, below, ladder[::-1])
    beta = _beta_of(above, below, target) / span
    end = jnp.where(high > 0, jnp.inf, jnp.where(low > 0, -jnp.inf, jnp.nan))
    return jnp.where(inside, beta, end) * positive


def _beta_of(above, below, target):
    """The β at which ln[Σ_j (e_j − e_0) p_j / Σ_j (e_max − e_j) p_j], p the Gibbs populations, is `target`."""

    def excess(beta):
        ratio = jax.nn.logsumexp(-beta * above, b=above) - jax.nn.logsumexp(-beta * above, b=below)
        return ratio - target

    def solve(f, start):
        eps = jnp.finfo(start.dtype).eps

        def step(state):
            beta, low, high, _, n = state
            value, slope = jax.value_and_grad(f)(beta)
            # f decreases with β
            low, high = jnp.where(value > 0, beta, low), jnp.where(value > 0, high, beta)
            new = beta - value / slope
            halved = (low + high) / 2  # not finite until both bounds are
            new = jnp.where(((new > low) & (new < high)) | ~jnp.isfinite(halved), new, halved)
            return new, low, high, jnp.abs(new - beta) > 4 * eps * jnp.abs(new), n + 1

        bounds = jnp.full_like(start, -jnp.inf), jnp.full_like(start, jnp.inf)
        state = start, *bounds, jnp.array(True), jnp.array(0)
        return jax.lax.while_loop(lambda s: s[3] & (s[4] < 100), step, state)[0]

    return jax.lax.custom_root(
        excess, jnp.zeros_like(target), solve, lambda slope, y: y / slope(jnp.ones_like(y))
    )
