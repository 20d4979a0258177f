r"""What a state knows: purity, entropies, coherence, and how well two states can be told apart.

A matrix that is not a state (Hermitian, of trace 1) is refused by a `ValueError`; one that is traced, or NaN, gives
NaN.

All logarithms are natural. Every function is of the matrix ρ, in the energy eigenbasis, and none needs a derivative of
eigenvectors: derivatives are right where eigenvalues meet.

**Pure states.** The slope of −p ln p at p = 0 is infinite, so at a state with a kernel (a pure one, say) an entropy has
no derivative towards states of higher rank. It has one along every smooth curve of states that passes through: there
the probability of the kernel has a minimum, and grows with the second power of the parameter only. That derivative is
right here: ln p is taken at ε where p is below (ε: a few roundings). Towards states of higher rank, the slope returned
is finite, ln 1/ε ≈ 33 in double precision.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import Checked, Scalar, as_scalar, check_instance, door
from .._numerics.safe import eigh, modulus
from .states import States, as_operators, finite, nan_unless, not_negative, of_each
from .system import System


@door
def purity(rho: States) -> Float[Array, "*b"]:
    r"""$\mathrm{Tr}\,ρ^2$: 1 for a pure state, 1/N for the fully mixed one.

    !!! example
        >>> print(jr.purity(jnp.eye(4) / 4))
        0.25
    """
    return of_each(_purity, rho=rho)


def _purity(rho):
    return jnp.sum(jnp.real(rho) ** 2 + jnp.imag(rho) ** 2)


@door
def l1_coherence(rho: States) -> Float[Array, "*b"]:
    r"""$C_1 = \sum_{j≠k} |ρ_{jk}|$, coherence between the levels.

    Source: Baumgratz, Cramer and Plenio, Phys. Rev. Lett. 113, 140401 (2014). Where an entry vanishes, its modulus has
    a kink, and the derivative 0, as in `coherence`.

    !!! example
        >>> print(jnp.round(jr.l1_coherence(jnp.full((3, 3), 1 / 3)), 12))
        2.0
    """
    rho = as_operators("rho", rho)
    off = jnp.broadcast_to(~jnp.eye(rho.shape[-1], dtype=bool), rho.shape)
    return jnp.sum(modulus(jnp.where(off, rho, 0)), axis=(-2, -1)) * finite(rho)


@door
def von_neumann_entropy(rho: States) -> Float[Array, "*b"]:
    r"""The entropy of a state, in nats, $S = -\mathrm{Tr}[ρ \ln ρ]$.

    $dS = -\mathrm{Tr}[dρ\,(\ln ρ + 1)]$, with ln ε in the kernel: at pure states this is right along every smooth curve
    of states through ρ (see the head of this file). NaN for a matrix that is no state: an eigenvalue below −√ε.

    !!! example
        >>> print(jnp.round(jr.von_neumann_entropy(jnp.eye(2) / 2), 6))
        0.693147
    """
    return of_each(entropy_of, rho=rho)


@door
def relative_entropy(rho: States, sigma: States) -> Float[Array, "*b"]:
    r"""How far ρ is from σ, in nats, $D(ρ‖σ) = \mathrm{Tr}[ρ(\ln ρ - \ln σ)] ≥ 0$.

    It never grows under a completely positive, trace-preserving map (Lindblad, Commun. Math. Phys. 40, 147 (1975)).
    Infinite where ρ has weight (above rounding) in the kernel of σ. An eigenvalue of σ below 1e-15 cannot be told from
    0 in a matrix: for cold Gibbs states use `relative_entropy_to_gibbs`. Derivatives at pure states as for
    `von_neumann_entropy`.

    !!! example
        >>> rho, sigma = jnp.diag(jnp.array([1.0, 0.0])), jnp.eye(2) / 2
        >>> print(jnp.round(jr.relative_entropy(rho, sigma), 6), jr.relative_entropy(sigma, rho))
        0.693147 inf
    """
    return of_each(_relative_entropy, rho=rho, sigma=sigma)


def _relative_entropy(rho, sigma):
    values, U = eigh(jax.lax.stop_gradient(sigma))
    cross = jnp.real(jnp.sum(rho.T * logarithm(sigma * nan_unless(not_negative(values)))))
    weights = jnp.real(jnp.sum(jnp.conj(U) * (jax.lax.stop_gradient(rho) @ U), axis=0))
    room = _room(values)
    outside = jnp.sum(jnp.where(values > room, 0, weights)) > 8 * room
    return -entropy_of(rho) - cross + jnp.where(outside, jnp.inf, 0)


@door
def relative_entropy_to_gibbs(
    system: Checked[System], rho: States, beta: Checked[Scalar]
) -> Float[Array, "*b"]:
    r"""The free energy above that of equilibrium, in units of temperature, without a logarithm of the Gibbs state.

    $$D(ρ‖τ) = β\,[F(ρ) - F(τ)] = β\,\mathrm{Tr}[H_Sρ] - S(ρ) + \ln Z, \qquad τ = e^{-βH_S}/Z$$

    Right at any β, where the smallest populations of τ may be 1e-100. Any β of either sign, or 0.

    !!! example
        >>> system = jr.System([-0.3, 0.3])
        >>> D = jr.relative_entropy_to_gibbs(system, jr.gibbs_state(system, 0.1), 0.1)
        >>> bool(jnp.abs(D) < 1e-15)
        True
    """
    check_instance("system", system, System, "a jaxres.System")
    beta = as_scalar("beta", beta)
    return of_each(free_energy_of, system.levels, beta, size=system.size, rho=rho)


def free_energy_of(rho, levels, beta):
    """D(ρ‖τ) of one state, without checks."""
    action = -beta * levels
    top = jnp.max(action)
    log_Z = jax.nn.logsumexp(action - top)
    energy = jnp.real(jnp.diagonal(rho)) @ (top - action)
    return energy - entropy_of(rho) + log_Z


@door
def relative_entropy_of_coherence(rho: States) -> Float[Array, "*b"]:
    r"""$C(ρ) = S(\mathrm{diag}\,ρ) - S(ρ)$, the relative entropy to the nearest state without coherence, in nats.

    Times the temperature it is the free energy that coherence adds to that of the populations. Source: Baumgratz,
    Cramer and Plenio, Phys. Rev. Lett. 113, 140401 (2014). Coherence between any two levels counts; where some are
    degenerate, `relative_entropy(rho, dephase(system, rho))` counts that between different energies alone.

    !!! example
        >>> print(jnp.round(jr.relative_entropy_of_coherence(jnp.full((2, 2), 0.5)), 6))
        0.693147
    """
    return of_each(_excess_of_coherence, rho=rho)


def _excess_of_coherence(rho):
    return entropy_of(jnp.diag(jnp.diagonal(rho))) - entropy_of(rho)


@door
def fidelity(rho: States, sigma: States) -> Float[Array, "*b"]:
    r"""$F = (\mathrm{Tr}\sqrt{\sqrt{ρ}\,σ\sqrt{ρ}})^2 = ‖\sqrt ρ\sqrt σ‖_1^2$, between 0 (orthogonal) and 1 (equal).

    For a pure state ψ it is ⟨ψ|σ|ψ⟩. Source: Jozsa, J. Mod. Opt. 41, 2315 (1994).

    $$dF = \sqrt F\, \mathrm{Tr}[dρ\, G + dσ\, G'], \qquad
      G = \sqrt σ\, (\sqrt σ ρ \sqrt σ)^{-1/2}\sqrt σ, \qquad G' = \sqrt ρ\, (\sqrt ρ σ \sqrt ρ)^{-1/2} \sqrt ρ,$$

    with the inverse on the support. At states with a kernel this is right along every smooth curve of states on which
    the product's rank does not change; where it does, F has a kink, and this is the mean of its two slopes. Second
    derivatives are right where the eigenvalues of both states, and of the product, are simple; where some coincide they
    may be NaN.

    !!! example
        >>> up, plus = jnp.diag(jnp.array([1.0, 0.0])), jnp.full((2, 2), 0.5)
        >>> print(jnp.round(jr.fidelity(up, plus), 12))
        0.5
    """
    return of_each(_fidelity, rho=rho, sigma=sigma)


# --------------------------------------------------------------------------------------------------------------
# The logarithm of a state, and the traces above
# --------------------------------------------------------------------------------------------------------------


def _room(values):
    """Eigenvalues below this cannot be told from 0."""
    return 8 * values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))


@jax.custom_jvp
def logarithm(rho: Complex[Array, "N N"]) -> Complex[Array, "N N"]:
    """The logarithm of a state, with ln ε for the eigenvalues that cannot be told from 0; NaN if one is below −√ε.

    Its derivatives, of any order, come from e^L = ρ and not from those of the eigenvectors that solve it.
    """
    values, U = eigh(rho)
    logs = jnp.where(not_negative(values), jnp.log(jnp.maximum(values, _room(values))), jnp.nan)
    return (U * logs[None]) @ jnp.conj(U.T)


@logarithm.defjvp
def _logarithm_jvp(primals, tangents):
    # the L' that solves (d/dt) e^{L + tL'} = dρ; between eigenvectors of ρ that is L'_ab = ln[r_a, r_b] dρ_ab with the
    # divided difference ln[a, b] = (ln a − ln b)/(a − b) = 2 artanh(z)/(z (a + b)), z = (a − b)/(a + b)
    (rho,), (drho,) = primals, tangents
    L = logarithm(rho)
    values, U = eigh(jax.lax.stop_gradient(rho))
    room = _room(values)
    kernel = values <= room
    r = jnp.maximum(values, room)
    both = r[:, None] + r[None, :]
    z = (r[:, None] - r[None, :]) / both
    small = jnp.abs(z) < 1e-3
    slope = jnp.where(small, 1 + z**2 / 3 + z**4 / 5, jnp.arctanh(z) / jnp.where(small, 1, z))
    # within the kernel of ρ, a curve of states has dρ = 0
    weight = jnp.where(kernel[:, None] & kernel[None, :], 0, 2 * slope / both)

    def exponential(X):
        return jax.jvp(jax.scipy.linalg.expm, (L,), (X,))[1]

    def solve(_, b):
        return U @ (weight * (jnp.conj(U.T) @ b @ U)) @ jnp.conj(U.T)

    def solve_transposed(_, b):  # the same with ρᵀ
        return solve(_, b.T).T

    return L, jax.lax.custom_linear_solve(
        exponential, drho, solve, transpose_solve=solve_transposed
    )


@jax.custom_jvp
def entropy_of(rho: Complex[Array, "N N"]) -> Float[Array, ""]:
    values = eigh(rho)[0]
    room = _room(values)
    entropy = -jnp.sum(values * jnp.log(jnp.maximum(values, room)))
    return jnp.where(not_negative(values), entropy, jnp.nan)


@entropy_of.defjvp
def _entropy_jvp(primals, tangents):
    (rho,), (drho,) = primals, tangents
    slope = -jnp.real(jnp.sum(drho.T * logarithm(rho)) + jnp.trace(drho))
    return entropy_of(rho), slope


def _root(rho):
    """√ρ, exactly 0 in the kernel; NaN if ρ is no state."""
    values, U = eigh(rho)
    there = values > _room(values)
    roots = jnp.where(there, jnp.sqrt(jnp.where(there, values, 1)), 0)
    return (U * jnp.where(not_negative(values), roots, jnp.nan)[None]) @ jnp.conj(U.T)


@jax.custom_jvp
def _fidelity(rho: Complex[Array, "N N"], sigma: Complex[Array, "N N"]) -> Float[Array, ""]:
    return jnp.sum(jnp.linalg.svd(_root(rho) @ _root(sigma), compute_uv=False)) ** 2


@_fidelity.defjvp
def _fidelity_jvp(primals, tangents):
    # with √ρ √σ = U s V†, (√σ ρ √σ)^{-1/2} = V s⁻¹ V† and (√ρ σ √ρ)^{-1/2} = U s⁻¹ U†
    (rho, sigma), (drho, dsigma) = primals, tangents
    a, b = _root(rho), _root(sigma)
    U, s, Vh = jnp.linalg.svd(a @ b)
    there = s > s.size * jnp.finfo(s.dtype).eps * jnp.max(s)
    weight = jnp.where(there, 1 / jnp.where(there, s, 1), 0)
    left, right = a @ U, b @ jnp.conj(Vh.T)
    G = (right * weight[None]) @ jnp.conj(right.T)
    G_sigma = (left * weight[None]) @ jnp.conj(left.T)
    root = jnp.sum(s)
    slope = root * jnp.real(jnp.sum(drho.T * G) + jnp.sum(dsigma.T * G_sigma))
    return root**2, slope
