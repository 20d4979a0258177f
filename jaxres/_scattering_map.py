r"""The change of the system's state in one collision (Eq. 17).

With the outgoing kinetic energy ε = k²/2m as variable,

    S[j',k',j,k] = Σ_α ∫_0^∞ dk  ρ_U(p, q)  a^α_{j'j} conj(a^α_{k'k}),
    p = √(2m(ε + e_j' − e_j)),   q = √(2m(ε + e_k' − e_k)),   a^α_{j'j} = s^α_{j'j}(ε + e_j') √(k/p),

where both incoming channels are open, and 0 elsewhere. This is Eq. (17) with its 1/√(pq) absorbed in the amplitudes,
which makes the integrand finite everywhere. Every node of the grid is a completely positive map: so is their sum.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ._amplitudes import AbstractAmplitudes, Exact, Outgoing
from ._checks import check_instance, concrete
from ._packet import AbstractPacket
from ._quadrature import AbstractQuadrature, DoubleExponential, Grid, outgoing_grid
from ._reservoir import Reservoir
from ._safe import safe_sqrt
from ._superoperator import Superoperator
from ._system import System

#: largest |S†(1) − 1| that is taken for a quadrature error and repaired
REPAIRABLE = 0.5


def scattering_map(
    system: System,
    bath: Reservoir,
    *,
    amplitudes: AbstractAmplitudes = Exact(),
    quadrature: AbstractQuadrature = DoubleExponential(),
    tol: float | None = None,
    max_refinements: int = 5,
) -> Superoperator:
    r"""The scattering map S of one collision (Eq. 17): ρ after = S(ρ before).

    **Arguments:**

    - `system`, `bath`: what collides with what.
    - `amplitudes`: model of the collision, `Exact()` by default.
    - `quadrature`: rule for the energy integral, `DoubleExponential()` by default.
    - `tol`: refine the grid (doubling it at most `max_refinements` times) until the estimated error of every entry
      is below; outside jit only.

    **Returns:** `Superoperator`; `.error` is the estimated largest error of an entry of `.tensor`. It is completely
    positive by construction. For a model that conserves flux it preserves the trace to rounding on any grid: with
    M = S†(1), which differs from 1 by the quadrature error, the map returned is ρ → S(M^(−1/2) ρ M^(−1/2)).

    **Raises:** `ValueError` for arguments of the wrong kind, and, with `tol`, if the error estimate is still above it
    on the finest grid.

    !!! example
        >>> system, bath = jr.letter.model(splitting=0.6)
        >>> S = jr.scattering_map(system, bath)
        >>> S.tensor.shape
        (2, 2, 2, 2)
        >>> print(jnp.round(S.tensor[0, 0, 0, 0].real, 8), bool(S.error < 1e-8))
        0.91893484 True
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("bath", bath, Reservoir, "a jaxres.Reservoir")
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    check_instance("quadrature", quadrature, AbstractQuadrature, "a rule such as jaxres.DoubleExponential()")
    S = _scattering_map(system, bath, amplitudes, quadrature)
    if tol is None:
        return S
    if not concrete(S):
        raise ValueError("Argument `tol` must be None inside jit, grad or vmap: the number of nodes is static there.")
    for _ in range(max_refinements):
        if S.error <= tol:
            return S
        quadrature = quadrature.refined()
        S = _scattering_map(system, bath, amplitudes, quadrature)
    if S.error <= tol:
        return S
    raise ValueError(
        f"Argument `tol` must be reachable, but the estimated error is still {float(S.error):.2g} > {tol:g} with "
        f"{quadrature}. Raise `tol` or `max_refinements`, or look for a narrow resonance."
    )


@eqx.filter_jit
def _scattering_map(system, bath, amplitudes, quadrature):
    return collision_map(system, bath, amplitudes, quadrature)


def collision_map(
    system: System, bath: Reservoir, amplitudes: AbstractAmplitudes, quadrature: AbstractQuadrature
) -> Superoperator:
    """`scattering_map` without its checks, for use inside other pure functions."""
    packet, mass = bath.packet, bath.packet.mass
    grid = outgoing_grid(system.levels, packet.energy_scale(), quadrature)
    layers = bath.scatterer.layers(system)
    sides = {"left": [layers], "right": [layers.reversed()], "both": [layers, layers.reversed()]}[bath.incidence]
    if layers.thicknesses.shape[0] == 1:  # its own mirror image
        sides = [layers]
    exits = [amplitudes.outgoing(grid.kinetic, side, system.levels, mass) for side in sides]
    tensor, error = integrate(grid, exits, packet, quadrature)
    tensor = tensor / len(sides)
    if not amplitudes.conserves_flux:
        return Superoperator(tensor, error, jnp.zeros_like(error))
    tensor, defect = restore_trace(tensor)
    return Superoperator(tensor, jnp.maximum(error, defect), defect)


def integrate(
    grid: Grid, exits: Sequence[Outgoing], packet: AbstractPacket, quadrature: AbstractQuadrature
) -> tuple[Complex[Array, "N N N N"], Float[Array, ""]]:
    """Σ_α ∫dk ρ_U(p, q) a_{j'j} conj(a_{k'k}) as S[j', k', j, k], and its largest estimated error.

    The matrix in (j'j), (k'k) is Hermitian: only the half on and above its diagonal is computed.
    """
    N, n = grid.kinetic.shape[1:]
    open_ = grid.kinetic > 0
    p = jnp.sqrt(2 * packet.mass * jnp.where(open_, grid.kinetic, 1))
    k = p[0, 0]  # the outgoing momentum
    weights = grid.weights * (packet.mass / k)[None]  # dε = (k/m) dk
    products = _products_two if N == 2 else _products
    diagonal, upper = products(p, open_, exits, packet)

    def rule(weight):
        """The Hermitian matrix in (j'j), (k'k) by one rule, from its N² diagonal and N²(N²−1)/2 upper entries."""
        return _hermitian(_weigh(diagonal, weight), tuple(_weigh(part, weight) for part in upper))

    choi = [rule(weight) for weight in weights]
    error = jnp.max(quadrature.error(*choi))
    return choi[0].reshape(N, N, N, N).transpose(0, 2, 1, 3), error


def _weigh(integrands, weight):
    if isinstance(integrands, list):
        return jnp.stack([integrand @ weight for integrand in integrands])
    return integrands @ weight


def _hermitian(diagonal, upper):
    size = diagonal.shape[0]
    rows, columns = np.triu_indices(size, 1)
    upper = jax.lax.complex(*upper)
    out = jnp.diag(diagonal.astype(upper.dtype))
    return out.at[rows, columns].set(upper).at[columns, rows].set(jnp.conj(upper))


def _products(p, open_, exits, packet):
    """Σ_α ρ_U(p, q) a a* at every node: diagonal entries, and (real, imaginary) entries above the diagonal."""
    N, n = p.shape[1:]
    p, open_ = p.reshape(N * N, n), open_.reshape(N * N, n)
    real, imag = (
        jnp.concatenate([jnp.where(open_[None], part[i].reshape(-1, N * N, n), 0) for part in exits]) for i in (0, 1)
    )
    rows, columns = np.triu_indices(N * N, 1)
    diagonal = jnp.sum(real**2 + imag**2, axis=0) * packet.distribution(p)
    overlap = (
        jnp.sum(real[:, rows] * real[:, columns] + imag[:, rows] * imag[:, columns], axis=0),
        jnp.sum(imag[:, rows] * real[:, columns] - real[:, rows] * imag[:, columns], axis=0),
    )
    density = packet.density(p[rows], p[columns])
    return diagonal, _times(overlap, (jnp.real(density), jnp.imag(density)))


def _products_two(p, open_, exits, packet):
    """The same for N = 2, where 00 and 11 have one momentum in common and only ten of sixteen entries differ."""
    transitions = [(0, 0), (0, 1), (1, 0), (1, 1)]
    momenta = [p[0, 0], p[0, 1], p[1, 0]]
    which = [0, 1, 2, 0]
    is_open = [None, open_[0, 1], open_[1, 0], None]
    density = {}
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        value = packet.density(momenta[i], momenta[j])
        density[i, j] = jnp.real(value), jnp.imag(value)
        density[j, i] = jnp.real(value), -jnp.imag(value)
    for i in range(3):
        density[i, i] = packet.distribution(momenta[i]), None

    def overlap(x, y):
        (i, j), (k, l) = transitions[x], transitions[y]
        pairs = [(re[s][i][j], im[s][i][j], re[s][k][l], im[s][k][l]) for re, im in exits for s in range(2)]
        real = sum(a * c + b * d for a, b, c, d in pairs)
        return real, sum(b * c - a * d for a, b, c, d in pairs)

    def integrand(x, y):
        real, imag = overlap(x, y)
        size, phase = density[which[x], which[y]]
        real, imag = (real * size, imag * size) if phase is None else _times((real, imag), (size, phase))
        for open_channel in (is_open[x], is_open[y]):
            if open_channel is not None:
                real, imag = jnp.where(open_channel, real, 0), jnp.where(open_channel, imag, 0)
        return real, imag

    diagonal = [integrand(x, x)[0] for x in range(4)]
    upper = [integrand(x, y) for x, y in zip(*np.triu_indices(4, 1), strict=True)]
    return diagonal, ([real for real, _ in upper], [imag for _, imag in upper])


def _times(x, y):
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def restore_trace(tensor: Complex[Array, "N N N N"]) -> tuple[Complex[Array, "N N N N"], Float[Array, ""]]:
    """S(X · X) with X = M^(−1/2), M = S†(1), and the largest entry of |M − 1|.

    The square root is a Newton iteration about 1: no eigenvectors, and smooth. A map whose M is far from 1 is
    returned as it is: that is no rounding to be mended.
    """
    N = tensor.shape[0]
    one = jnp.eye(N, dtype=tensor.dtype)
    # Tr S(ρ) = Σ_jk M_kj ρ_jk
    M = jnp.einsum("aajk->kj", tensor)
    defect = jnp.max(jnp.abs(M - one))
    sound = defect < REPAIRABLE / N
    Y, X = jnp.where(sound, M, one), one
    for _ in range(6):  # coupled Newton–Schulz: Y → M^(1/2), X → M^(−1/2)
        T = (3 * one - X @ Y) / 2
        Y, X = Y @ T, T @ X
    return jnp.einsum("abjk,jc,dk->abcd", tensor, X, X), defect
