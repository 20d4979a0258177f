"""Linear maps on density matrices."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from ._checks import check_shape, complex_array, real_array


class Superoperator(eqx.Module):
    r"""A linear map on density matrices, in the energy eigenbasis.

    $$ρ'_{j'k'} = \sum_{jk} S[j', k', j, k]\, ρ_{jk}$$

    - `tensor`: S[j', k', j, k], shape (N, N, N, N): out, out, in, in.
    - `error`: estimated largest error of an entry.
    - `trace_defect`: largest entry of |S†(1) − 1| before the trace was restored; an independent measure of the
      grid's error.

    Call it on a state, compose with `@` (the right one acts first).

    !!! example
        >>> system, bath = jr.letter.model()
        >>> S = jr.scattering_map(system, bath)
        >>> print(jnp.round(jnp.trace(S(jr.gibbs_state(system, 0.1))).real, 12))
        1.0
    """

    tensor: Complex[Array, "N N N N"] = eqx.field(converter=complex_array)
    error: Float[Array, ""] = eqx.field(converter=real_array, default=0.0)
    trace_defect: Float[Array, ""] = eqx.field(converter=real_array, default=0.0)

    def __check_init__(self):
        check_shape("tensor", self.tensor, 4, "(N, N, N, N)")

    @property
    def size(self) -> int:
        """Number of levels N."""
        return self.tensor.shape[-1]

    @property
    def matrix(self) -> Complex[Array, " M M"]:
        """The (N², N²) matrix that acts on `rho.reshape(-1)` (row-major)."""
        return self.tensor.reshape(self.size**2, self.size**2)

    @property
    def choi(self) -> Complex[Array, " M M"]:
        r"""The Choi matrix $C_{(j'j),(k'k)} = S[j', k', j, k]$: positive semidefinite for a completely positive map."""
        return self.tensor.transpose(0, 2, 1, 3).reshape(self.size**2, self.size**2)

    def __call__(self, rho: Inexact[Array, "*b N N"]) -> Complex[Array, "*b N N"]:
        """S(ρ), for one state or a batch of them."""
        return jnp.einsum("abjk,...jk->...ab", self.tensor, rho)

    def __matmul__(self, other: "Superoperator") -> "Superoperator":
        """The map that applies `other` first."""
        return Superoperator(
            jnp.einsum("abjk,jkcd->abcd", self.tensor, other.tensor),
            error=self.error + other.error,
            trace_defect=self.trace_defect + other.trace_defect,
        )
