r"""Purity, entropies and coherence of a state, and how distinguishable two states are.

The functions raise a `ValueError` for a matrix that is not a state (Hermitian, of trace 1), and return NaN for one that
is traced or contains NaN. `l1_coherence` alone takes any square matrix.

All logarithms are natural, and all matrices are in the energy eigenbasis. No function differentiates eigenvectors, so
derivatives are right where eigenvalues meet.

**Pure states.** The slope of −p ln p at p = 0 is infinite, so at a state with a kernel, such as a pure one, an entropy
has no derivative towards states of higher rank. It has a derivative along every smooth curve of states through this
state: there the probability of the kernel is at a minimum, and grows only with the second power of the parameter. These
functions return that derivative: they replace ln p by ln ε where p is below ε, which is a few roundings. Towards states
of higher rank they return a finite slope, ln 1/ε ≈ 33 in double precision.
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
    r"""The purity $\mathrm{Tr}\,ρ^2$: 1 for a pure state, 1/N for the fully mixed one.

    **Arguments:** `rho`: a state, shape (N, N), or several with leading axes. **Returns:** shape of the leading axes.

    **Raises:** `ValueError` for a matrix that is not a state.

    !!! example
        >>> print(jr.purity(jnp.eye(4) / 4))
        0.25
    """
    return of_each(_purity, rho=rho)


def _purity(rho):
    return jnp.sum(jnp.real(rho) ** 2 + jnp.imag(rho) ** 2)


@door
def l1_coherence(rho: States) -> Float[Array, "*b"]:
    r"""The l₁ norm of coherence between the levels, $C_1 = \sum_{j≠k} |ρ_{jk}|$.

    **Arguments:** `rho`: a square matrix, shape (N, N), or several with leading axes. **Returns:** shape of the leading
    axes. Where an entry vanishes, its modulus has a kink, and the derivative returned is 0, as in `coherence`.

    **Raises:** `ValueError` for a matrix that is not square.

    Source: Baumgratz, Cramer and Plenio, Phys. Rev. Lett. 113, 140401 (2014).

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

    **Arguments:** `rho`: a state, shape (N, N), or several with leading axes.

    **Returns:** shape of the leading axes; NaN where an eigenvalue is below −√ε. The derivative is
    $dS = -\mathrm{Tr}[dρ\,(\ln ρ + 1)]$, with ln ε in the kernel: at pure states it is right along every smooth curve
    of states through ρ (see the head of this file).

    **Raises:** `ValueError` for a matrix that is not a state.

    !!! example
        >>> print(jnp.round(jr.von_neumann_entropy(jnp.eye(2) / 2), 6))
        0.693147
    """
    return of_each(entropy_of, rho=rho)


@door
def relative_entropy(rho: States, sigma: States) -> Float[Array, "*b"]:
    r"""The relative entropy of ρ to σ, in nats, $D(ρ‖σ) = \mathrm{Tr}[ρ(\ln ρ - \ln σ)] ≥ 0$.

    It never grows under a completely positive, trace-preserving map (Lindblad, Commun. Math. Phys. 40, 147 (1975)). In
    a matrix an eigenvalue of σ below 1e-15 is indistinguishable from 0: for cold Gibbs states use
    `relative_entropy_to_gibbs`.

    **Arguments:** `rho`, `sigma`: states, shape (N, N), or several with leading axes, which broadcast.

    **Returns:** shape of the leading axes; infinite where ρ has weight (above rounding) in the kernel of σ, NaN where
    an eigenvalue is below −√ε. Derivatives at pure states are those of `von_neumann_entropy`.

    **Raises:** `ValueError` for a matrix that is not a state, or for two states of different size.

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
    tolerance = _tolerance(values)
    outside = jnp.sum(jnp.where(values > tolerance, 0, weights)) > 8 * tolerance
    return -entropy_of(rho) - cross + jnp.where(outside, jnp.inf, 0)


@door
def relative_entropy_to_gibbs(
    system: Checked[System], rho: States, beta: Checked[Scalar]
) -> Float[Array, "*b"]:
    r"""The relative entropy to the Gibbs state: the free energy above that of equilibrium, in units of temperature.

    $$D(ρ‖τ) = β\,[F(ρ) - F(τ)] = β\,\mathrm{Tr}[H_Sρ] - S(ρ) + \ln Z, \qquad τ = e^{-βH_S}/Z$$

    It takes no logarithm of τ, so it is right at any β, also where the smallest populations of τ are 1e-100.

    **Arguments:**

    - `rho`: a state, shape (N, N), or several with leading axes.
    - `beta`: finite, of either sign, or 0.

    **Returns:** shape of the leading axes; NaN where an eigenvalue of ρ is below −√ε.

    **Raises:** `ValueError` for a matrix that is not a state of the system, or a β that is not finite.

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
    """`relative_entropy_to_gibbs` of one state, without checks."""
    action = -beta * levels
    top = jnp.max(action)
    log_Z = jax.nn.logsumexp(action - top)
    energy = jnp.real(jnp.diagonal(rho)) @ (top - action)
    return energy - entropy_of(rho) + log_Z


@door
def relative_entropy_of_coherence(rho: States) -> Float[Array, "*b"]:
    r"""$C(ρ) = S(\mathrm{diag}\,ρ) - S(ρ)$, the relative entropy to the nearest state without coherence, in nats.

    Multiplied by the temperature, it is the free energy that coherence adds to that of the populations. Coherence
    between any two levels counts; where some are degenerate, `relative_entropy(rho, dephase(system, rho))` counts only
    coherence between different energies.

    **Arguments:** `rho`: a state, shape (N, N), or several with leading axes. **Returns:** shape of the leading axes;
    NaN where an eigenvalue is below −√ε.

    **Raises:** `ValueError` for a matrix that is not a state.

    Source: Baumgratz, Cramer and Plenio, Phys. Rev. Lett. 113, 140401 (2014).

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

    For a pure state ψ it is ⟨ψ|σ|ψ⟩. Its derivative is

    $$dF = \sqrt F\, \mathrm{Tr}[dρ\, G + dσ\, G'], \qquad
      G = \sqrt σ\, (\sqrt σ ρ \sqrt σ)^{-1/2}\sqrt σ, \qquad G' = \sqrt ρ\, (\sqrt ρ σ \sqrt ρ)^{-1/2} \sqrt ρ,$$

    with the inverse on the support. At states with a kernel this is right along every smooth curve of states on which
    the rank of the product does not change. Where the rank changes, F has a kink, and this is the mean of the two
    slopes. Second derivatives are right where the eigenvalues of both states, and of the product, are simple; where
    some coincide they may be NaN.

    **Arguments:** `rho`, `sigma`: states, shape (N, N), or several with leading axes, which broadcast.

    **Returns:** shape of the leading axes; NaN where an eigenvalue is below −√ε.

    **Raises:** `ValueError` for a matrix that is not a state, or for two states of different size.

    Source: Jozsa, J. Mod. Opt. 41, 2315 (1994).

    !!! example
        >>> up, plus = jnp.diag(jnp.array([1.0, 0.0])), jnp.full((2, 2), 0.5)
        >>> print(jnp.round(jr.fidelity(up, plus), 12))
        0.5
    """
    return of_each(_fidelity, rho=rho, sigma=sigma)


# --------------------------------------------------------------------------------------------------------------
# The logarithm of a state, and the traces above
# --------------------------------------------------------------------------------------------------------------


def _tolerance(values):
    """The rounding error of the eigenvalues: those below it are indistinguishable from 0."""
    return 8 * values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))


@jax.custom_jvp
def logarithm(rho: Complex[Array, "N N"]) -> Complex[Array, "N N"]:
    """The logarithm of a state, with ln ε for eigenvalues indistinguishable from 0; NaN if one is below −√ε.

    Its derivatives, of any order, come from the equation e^L = ρ, not from derivatives of the eigenvectors.
    """
    values, U = eigh(rho)
    logs = jnp.where(
        not_negative(values), jnp.log(jnp.maximum(values, _tolerance(values))), jnp.nan
    )
    return (U * logs[None]) @ jnp.conj(U.T)


@logarithm.defjvp
def _logarithm_jvp(primals, tangents):
    # L' solves (d/dt) e^{L + tL'} = dρ at t = 0; between eigenvectors of ρ, L'_ab = ln[r_a, r_b] dρ_ab with the
    # divided difference ln[a, b] = (ln a − ln b)/(a − b) = 2 artanh(z)/(z (a + b)), z = (a − b)/(a + b)
    (rho,), (drho,) = primals, tangents
    L = logarithm(rho)
    values, U = eigh(jax.lax.stop_gradient(rho))
    tolerance = _tolerance(values)
    kernel = values <= tolerance
    r = jnp.maximum(values, tolerance)
    both = r[:, None] + r[None, :]
    z = (r[:, None] - r[None, :]) / both
    # the first term that the series leaves out, z⁶/7, is below rounding there
    small = jnp.abs(z) < 1e-3
    slope = jnp.where(small, 1 + z**2 / 3 + z**4 / 5, jnp.arctanh(z) / jnp.where(small, 1, z))
    # along a curve of states dρ vanishes within the kernel of ρ
    weight = jnp.where(kernel[:, None] & kernel[None, :], 0, 2 * slope / both)

    def exponential(X):
        return jax.jvp(jax.scipy.linalg.expm, (L,), (X,))[1]

    def solve(_, b):
        return U @ (weight * (jnp.conj(U.T) @ b @ U)) @ jnp.conj(U.T)

    def solve_transposed(_, b):  # the transposed equation is the same one with ρᵀ
        return solve(_, b.T).T

    return L, jax.lax.custom_linear_solve(
        exponential, drho, solve, transpose_solve=solve_transposed
    )


@jax.custom_jvp
def entropy_of(rho: Complex[Array, "N N"]) -> Float[Array, ""]:
    values = eigh(rho)[0]
    tolerance = _tolerance(values)
    entropy = -jnp.sum(values * jnp.log(jnp.maximum(values, tolerance)))
    return jnp.where(not_negative(values), entropy, jnp.nan)


@entropy_of.defjvp
def _entropy_jvp(primals, tangents):
    (rho,), (drho,) = primals, tangents
    slope = -jnp.real(jnp.sum(drho.T * logarithm(rho)) + jnp.trace(drho))
    return entropy_of(rho), slope


def _root(rho):
    """√ρ, exactly 0 in the kernel; NaN if an eigenvalue of ρ is below −√ε."""
    values, U = eigh(rho)
    there = values > _tolerance(values)
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
