r"""Full counting statistics: the distribution of the energy that the system gains, in one collision or a long time.

**One collision.** H_S is measured before and after. The results are e_j and e_j' with probability S_{jj}^{j'j'} p_j
(`energy_distribution`). The first measurement destroys coherences of ρ.

**A long time.** Nothing is measured between collisions, since a measurement would destroy the coherences on which the
dynamics depend. The energy n_r that the system gains in collisions with reservoir r during a time t has, for real or
imaginary s, the generating function

    ⟨exp Σ_r s_r n_r⟩ = Tr e^{L(s)t} ρ,      L(s) = −(i/ħ)[H_S, ·] + Σ_r Γ_r (S_r^{(s_r)} − 1),

    S^{(s)}(ρ) = e^{sH/2} S( e^{−sH/2} ρ e^{−sH/2} ) e^{sH/2},

so the entry S[j',k',j,k] is multiplied by e^{s w}, w = (e_j' + e_k')/2 − (e_j + e_k)/2. A collision conserves H_S plus
the particle's kinetic energy K, so counting −K in place of H_S gives the same S^{(s)}: it counts the energy that the
particle loses as well as the energy that the system gains. For populations alone it describes the measurement above,
repeated. For coherences, w is the difference of their mean energies (symmetric ordering of H_S with ρ). Then the first
moment is the energy current Γ Tr[H_S(S − 1)ρ] of any state, measured or not, but the second and higher moments belong
to a quasi-distribution, which need not be positive. (For real s, S^{(s)} is completely positive if S is.)

**Cumulants.** The largest eigenvalue λ(s) of L(s) generates the cumulants per unit time, λ = Σ_k ⟨⟨n^k⟩⟩ s^k/k!. Its
series needs no derivative of an eigenvalue (Flindt et al., Phys. Rev. B 82, 155407 (2010)). With L(s) = Σ_n sⁿ ℓ_n, the
eigenvector ρ(s) = Σ_n sⁿ ρ_n of trace 1 and λ = Σ_n sⁿ c_n obey, order by order,

    c_n = Tr Σ_{k=1}^n ℓ_k ρ_{n−k},      L ρ_n = Σ_{k=1}^n (c_k − ℓ_k) ρ_{n−k},      Tr ρ_n = 0,

These are linear systems with the same matrix, which is inverted once.

**Conservation.** With the same s for all reservoirs, L(s) = e^{s𝓗} L e^{−s𝓗}, 𝓗ρ = ½{H_S, ρ}. Then λ does not depend
on s: energy does not accumulate in the system. So the cumulants of the total energy vanish, and the cumulants of two
reservoirs are equal up to sign.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact

from .._checks import Checked, as_count, as_inexact, check_finite, check_shape, door
from .._dynamics.collisions import RESULTS, Reservoirs, or_throw, requested
from .._dynamics.evolution import make_generator
from .._dynamics.real_coordinates import eliminate_ground_population, to_coordinates, to_real_matrix
from .._dynamics.steady_state import solve_steady_state
from .._numerics.batched import inverse, matmul
from .._quantum.levels import equal_levels, gaps
from .._quantum.states import State, as_rough_state
from .._quantum.superoperator import Superoperator, check_map
from .._quantum.system import System
from .._scattering.amplitudes import AbstractAmplitudes, Exact
from .._scattering.energy_grid import AbstractQuadrature, DoubleExponential

# --------------------------------------------------------------------------------------------------------------
# One collision
# --------------------------------------------------------------------------------------------------------------


class EnergyDistribution(eqx.Module):
    """The distribution of the energy w that the system gains in one collision, from a measurement before and after.

    - `energy`: w = e_j' − e_j, shape (N, N), [out, in]. Equal values belong to one outcome.
    - `probability`: the probability of each entry of `energy`, shape (N, N). Under `jax.vmap` both have leading axes.
    """

    energy: Float[Array, "*b N N"]
    probability: Float[Array, "*b N N"]

    @door
    def moment(self, n: Checked[int]) -> Float[Array, "*b"]:
        """The moment ⟨wⁿ⟩, n ≥ 0; raises `ValueError` for another n."""
        n = as_count("n", n, 0)
        return jnp.sum(self.probability * self.energy**n, axis=(-2, -1))

    @property
    @door
    def mean(self) -> Float[Array, "*b"]:
        """The mean ⟨w⟩."""
        return self.moment(1)

    @property
    @door
    def variance(self) -> Float[Array, "*b"]:
        """The variance ⟨(w − ⟨w⟩)²⟩."""
        off = self.energy - self.mean[..., None, None]
        return jnp.sum(self.probability * off**2, axis=(-2, -1))

    @door
    def generating(self, s: Checked[Inexact[ArrayLike, ""]]) -> Inexact[Array, "*b"]:
        """The generating function ⟨e^{sw}⟩ of a finite number s; with s = iχ the characteristic function."""
        s = as_inexact("s", s)
        check_shape("s", s, 0, "()")
        check_finite("s", s)
        return jnp.sum(self.probability * jnp.exp(s * self.energy), axis=(-2, -1))


@door
def energy_distribution(
    system: Checked[System], S: Checked[Superoperator], rho: State
) -> EnergyDistribution:
    r"""The distribution of the energy gained in one collision, with H_S measured before and after.

    $$P(j → j') = S[j',j',j,j]\, ρ_{jj}, \qquad w = e_{j'} - e_j$$

    The measurement does not distinguish degenerate levels, and leaves coherence between them. For these
    $P(j → j') = \mathrm{Re} \sum_k S[j',j',j,k]\, ρ_{jk}$, summed over all k of the same energy as j, and only the sum
    over such j is a probability.

    Coherences of ρ between different energies do not contribute. They may contribute to the mean gain without
    measurement, $\mathrm{Tr}[H_S (S - 1)ρ]$, if the packets have coherence themselves.

    **Arguments:** `S` as `scattering_map` returns it; `rho`, a state in the energy eigenbasis, shape (N, N).

    **Returns:** `EnergyDistribution`.

    **Raises:** `ValueError` for a map or a matrix of another size than the system's, or a matrix that is not a state.

    **Fluctuation relation.** With detailed balance at β (an effusing gas) and a system that starts thermal at β₀,
    $P(w)/P(-w) = e^{(β_0 - β)w}$, so $⟨e^{(β - β_0)w}⟩ = 1$ (Jarzynski and Wójcik, Phys. Rev. Lett. 92, 230602 (2004)).

    !!! example
        >>> system, reservoir = jr.letter.model(beta=0.1)
        >>> S = jr.scattering_map(system, reservoir)
        >>> gain = jr.energy_distribution(system, S, jr.gibbs_state(system, 0.5))
        >>> print(jnp.round(gain.generating(0.1 - 0.5), 8))
        1.0
    """
    check_map("S", S, system)
    rho = as_rough_state("rho", rho, system.size)
    same = equal_levels(system.levels)
    dephased = jnp.where(same, rho, 0)
    probability = jnp.real(jnp.einsum("aajk,jk->aj", S.tensor, dephased))
    return EnergyDistribution(gaps(system.levels), probability)


# --------------------------------------------------------------------------------------------------------------
# A long time
# --------------------------------------------------------------------------------------------------------------


@door
def tilted_generator(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    fields: Checked[Inexact[ArrayLike, " B"]],
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
) -> Superoperator:
    r"""The generator L(s) that counts the energy that the system gains from each reservoir.

    $$L(s) = -\frac{i}{ħ}[H_S, ·] + \sum_r Γ_r (S_r^{(s_r)} - 1), \qquad
      S^{(s)}[j',k',j,k] = S[j',k',j,k]\, e^{s(e_{j'} + e_{k'} - e_j - e_k)/2}$$

    $\mathrm{Tr}\, e^{L(s)t}ρ$ is the generating function of the energies gained in a time t, and the largest
    eigenvalue of L(s) that of their cumulants per unit time. The head of this file explains what is counted for
    coherences.

    **Arguments:** as for `generator`, and

    - `fields`: the counting field s_r of each reservoir (1/energy), shape (B,), real, or imaginary for a
      characteristic function.

    **Returns:** `Superoperator`, not trace-preserving.

    **Raises:** `ValueError` for an infinite rate, or `fields` that are not finite or not one for each reservoir.

    !!! example
        >>> system, reservoir = jr.letter.model(rate=5.0)
        >>> tilted = jr.tilted_generator(system, reservoir, jnp.array([0.7]))
        >>> top = jnp.max(jnp.linalg.eigvals(tilted.matrix).real)
        >>> bool(jnp.abs(top) < 1e-13)  # a single reservoir: no energy piles up
        True
    """
    request = requested(system, reservoirs, amplitudes, quadrature, finite=True)
    fields = as_inexact("fields", fields)
    check_shape("fields", fields, 1, "(B,)")
    check_finite("fields", fields)
    if fields.shape[0] != request.count:
        raise ValueError(
            f"Argument `fields` must have one value for each of {request.count} reservoirs, "
            f"but has {fields.shape[0]}."
        )
    return _tilted_generator(system, request.compute(), fields)


@eqx.filter_jit
def _tilted_generator(system, c, fields):
    energy = (system.levels[:, None] + system.levels[None, :]) / 2
    gain = energy[:, :, None, None] - energy[None, None]
    factors = [jnp.exp(s * gain) for s in fields]
    tilted = [
        Superoperator(S.tensor * factor, S.error * jnp.max(jnp.abs(factor)))
        for S, factor in zip(c.maps, factors, strict=True)
    ]
    return make_generator(system, eqx.tree_at(lambda c: c.maps, c, tuple(tilted)))


class CountingStatistics(eqx.Module):
    """Cumulants, per unit time, of the energy that the system gains from each of B reservoirs.

    - `cumulants`: shape (order, B): mean, noise, third cumulant and so on.
    - `noise`: shape (B, B), the covariances of all pairs of reservoirs; its diagonal is `cumulants[1]`.
    - `rho`: the steady state, shape (N, N).
    - `result`: one of `jaxres.RESULTS`, that of the steady state. The cumulants and the state are NaN unless it is
      successful or not_positive.
    - `map_error`: estimated largest error of an entry of the scattering maps.
    """

    cumulants: Float[Array, "*b n B"]
    noise: Float[Array, "*b B B"]
    rho: Complex[Array, "*b N N"]
    result: RESULTS
    map_error: Float[Array, "*b"]

    @property
    @door
    def mean(self) -> Float[Array, "*b B"]:
        """The mean energy currents, equal to `currents(…).energy`."""
        return self.cumulants[..., 0, :]


@door
def counting_statistics(
    system: Checked[System],
    reservoirs: Checked[Reservoirs],
    order: Checked[int] = 4,
    *,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
    quadrature: Checked[AbstractQuadrature] = DoubleExponential(),
    throw: Checked[bool] = False,
) -> CountingStatistics:
    r"""Mean, noise and higher cumulants of the energy current from each reservoir, in the steady state.

    $$⟨⟨n_r^k⟩⟩ = \lim_{t → ∞} \frac{1}{t} \frac{∂^k}{∂s_r^k} \ln \mathrm{Tr}\, e^{L(s)t}ρ\, \Big|_{s=0}, \qquad
      D_{rq} = \lim_{t → ∞} \frac{1}{t} \mathrm{Cov}(n_r, n_q)$$

    with the generator L(s) of `tilted_generator`, from linear systems with one matrix (see the head of this file).
    The mean equals the energy current of `currents`. Since energy is conserved, every row of D adds up to 0, and for
    two reservoirs $⟨⟨n_1^k⟩⟩ = (-1)^k ⟨⟨n_2^k⟩⟩$.

    **Arguments:**

    - `system`, `reservoirs`, `amplitudes`, `quadrature`: as for `steady_state`; rates finite.
    - `order`: the highest cumulant, at least 2.
    - `throw`: raise a `RuntimeError`, inside jit too, if the result is not successful.

    **Returns:** `CountingStatistics`, differentiable in everything, in forward and reverse mode.

    **Raises:** `ValueError` for an infinite rate, or an order below 2.

    !!! example
        >>> system, hot = jr.letter.model(beta=0.05, rate=2.0)
        >>> _, cold = jr.letter.model(beta=0.3, rate=1.0)
        >>> counts = jr.counting_statistics(system, [hot, cold])
        >>> bool(jnp.max(jnp.abs(jnp.sum(counts.noise, axis=1))) < 1e-14)
        True
        >>> print(jnp.sign(counts.cumulants[:, 0] * counts.cumulants[:, 1]))
        [-1.  1. -1.  1.]
    """
    order = as_count("order", order, 2)
    c = requested(system, reservoirs, amplitudes, quadrature, finite=True).compute()
    counts = _counting_statistics(system, c, order)
    return or_throw(counts, counts.result, throw)


@eqx.filter_jit
def _counting_statistics(system, c, order):
    N, sol = system.size, solve_steady_state(system, c)
    # Without collisions L is singular and the cumulants are 0. Their derivatives with respect to the rates are those
    # of very rare collisions.
    still = jnp.sum(c.rates) == 0
    rates = c.rates + jnp.where(still, jnp.finfo(c.rates.dtype).tiny ** (1 / 3), 0)
    rare = eqx.tree_at(lambda c: c.rates, c, rates)
    respond = _response(to_real_matrix(make_generator(system, rare).tensor))

    # each real coordinate has a mean energy, so the tilt acts on the real matrix entry by entry
    rows, columns = np.triu_indices(N, 1)
    pairs = (system.levels[rows] + system.levels[columns]) / 2
    energy = jnp.concatenate([system.levels, pairs, pairs])
    gain = energy[:, None] - energy[None, :]
    each = jnp.stack(
        [rate * to_real_matrix(S.tensor) for S, rate in zip(c.maps, rates, strict=True)]
    )
    start = to_coordinates(sol.rho)

    def series(R):
        """The coefficients c_n, the vector ρ_1 and the matrix ℓ_1 of one reservoir."""
        tilts = [R * (gain**k / float(math.factorial(k))) for k in range(1, order + 1)]
        states, coefficients = [start], []
        for n in range(1, order + 1):
            source = jnp.zeros_like(start)  # Σ_k ℓ_k ρ_{n−k}
            for k in range(1, n + 1):
                source = source + tilts[k - 1] @ states[n - k]
            coefficients.append(jnp.sum(source[:N]))
            for k in range(1, n + 1):
                source = source - coefficients[k - 1] * states[n - k]
            states.append(respond(-source))
        return jnp.stack(coefficients), states[1], tilts[0]

    coefficients, first, tilt = jax.vmap(series)(each)
    factorials = jnp.array([float(math.factorial(n)) for n in range(1, order + 1)], gain.dtype)
    cumulants = coefficients.T * factorials[:, None]
    cumulants = cumulants - jnp.where(still, jax.lax.stop_gradient(cumulants), 0)
    # ∂²λ/∂s_r∂s_q: each collision is with one reservoir, so L(s) itself has no mixed term
    mixed = jnp.sum(jnp.einsum("rab,qb->rqa", tilt, first)[..., :N], axis=-1)
    noise = mixed + mixed.T
    noise = noise - jnp.where(still, jax.lax.stop_gradient(noise), 0)
    apart = ~jnp.eye(len(c.maps), dtype=bool)
    noise = jnp.where(apart, noise, jnp.diag(cumulants[1]))
    return CountingStatistics(cumulants, noise, sol.rho, sol.result, sol.map_error)


def _response(L: Float[Array, "M M"]):
    """Returns a function that solves L x = source for x of trace 0, for any source of trace 0."""
    N = math.isqrt(L.shape[0])
    A, _ = eliminate_ground_population(L)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(A), axis=1, initial=0))
    scale = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 1)
    B = inverse(scale[:, None] * A)

    def respond(source):
        x = matmul(B, (scale * source[1:])[:, None])[:, 0]
        return jnp.concatenate([-jnp.sum(x[: N - 1], keepdims=True), x])

    return respond
