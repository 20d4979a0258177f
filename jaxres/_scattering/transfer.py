r"""The plain product of transfer matrices: readable, right where nothing is opaque.

On (ψ, ψ') slab n is M_n = [[C, S], [−A S, C]], with C = cos(√A d), S = sin(√A d)/√A and A = 2m(E − H_S − W_n)/ħ².
The whole scatterer is M = M_M … M_1 = [[P, Q], [R, U]]. With 1 + r, iK(1 − r) to its left and t, iKt to its right,

    (P − Q iK) r − t = −(P + Q iK),      (R − U iK) r − iK t = −(R + U iK),

which is solved for g⁺ = −i K^{−1/2} s⁺ K^{−1/2} and g⁻ alike. M grows like e^{κd} for an evanescent channel while t is
like e^{−κd}: 2κd/ln 10 digits are lost.
"""

import jax
import jax.numpy as jnp

from .._numerics.batched import inverse, matmul
from .._numerics.safe import slab_waves
from .._numerics.spectral import spectral_functions
from .exact import in_units_of_slab, lead_wavenumbers


def transfer_green_functions(kinetic, energy, layers, levels, mass, out):
    """As `jaxres._scattering.exact.green_functions`."""
    N = levels.shape[0]
    # lengths in units of the whole scatterer's, in which all rows below are of one size
    unit = jnp.sum(layers.thicknesses)
    ik = 1j * unit * lead_wavenumbers(kinetic, mass)

    def slab(coupling, d):
        C, S, AS = spectral_functions(_waves, *in_units_of_slab(coupling, energy, levels, mass, d))
        return C, S * (d / unit), AS * (unit / d)

    pieces = jax.vmap(slab)(*layers)

    def multiply(M, piece):
        C, S, AS = piece
        slab = jnp.concatenate([jnp.concatenate([C, S], axis=1), jnp.concatenate([-AS, C], axis=1)])
        return matmul(slab, M), None

    start = jnp.eye(2 * N, dtype=ik.dtype)[..., None] * jnp.ones_like(energy)[None, None]
    M, _ = jax.lax.scan(multiply, start, pieces)
    P, Q, R, U = M[:N, :N], M[:N, N:], M[N:, :N], M[N:, N:]
    # with r = −1 + ρ iK and t = τ iK: (P − Q iK) ρ − τ = −2Q…: divided by iK from the right
    one = jnp.eye(N, dtype=ik.dtype)[..., None] * jnp.ones_like(energy)[None, None]
    left = jnp.concatenate(
        [
            jnp.concatenate([P - Q * ik[None], -one], axis=1),
            jnp.concatenate([R - U * ik[None], -one * ik[None]], axis=1),
        ]
    )
    right = jnp.concatenate([-2 * Q, -2 * U])
    solution = matmul(inverse(left), right)
    g_minus, g_plus = solution[:N], solution[N:]
    out = unit * out[:, :, None]
    return matmul(out, g_plus), matmul(out, g_minus)


def _waves(v, energy):
    """C, S and A S over a slab's full thickness, growth included, lengths in units of the thickness."""
    C, S, AS, decay = slab_waves(energy[None] - v[:, None])
    return jnp.stack([C, S, AS]) / decay[None]
