"""Linear maps on density matrices."""

from typing import overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact


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

    tensor: Complex[Array, "N N N N"]
    error: Float[Array, ""]
    trace_defect: Float[Array, ""]

    def __init__(self, tensor, error=0.0, trace_defect=0.0):
        self.tensor = tensor
        self.error = jnp.asarray(error, jnp.real(tensor).dtype) if not isinstance(error, jax.Array) else error
        self.trace_defect = (
            jnp.asarray(trace_defect, jnp.real(tensor).dtype)
            if not isinstance(trace_defect, jax.Array)
            else trace_defect
        )

    @property
    def size(self) -> int:
        """Number of levels N."""
        return self.tensor.shape[-1]

    @property
    def matrix(self) -> Complex[Array, "N*N N*N"]:
        """The (N², N²) matrix that acts on `rho.reshape(-1)` (row-major)."""
        return self.tensor.reshape(self.size**2, self.size**2)

    @property
    def choi(self) -> Complex[Array, "N*N N*N"]:
        r"""The Choi matrix $C_{(j'j),(k'k)} = S[j', k', j, k]$: positive semidefinite for a completely positive map."""
        return self.tensor.transpose(0, 2, 1, 3).reshape(self.size**2, self.size**2)

    @overload
    def __call__(self, rho: Inexact[Array, "N N"]) -> Complex[Array, "N N"]: ...
    @overload
    def __call__(self, rho: Inexact[Array, "*b N N"]) -> Complex[Array, "*b N N"]: ...
    def __call__(self, rho):
        return jnp.einsum("abjk,...jk->...ab", self.tensor, rho)

    def __matmul__(self, other: "Superoperator") -> "Superoperator":
        return Superoperator(
            jnp.einsum("abjk,jkcd->abcd", self.tensor, other.tensor),
            error=self.error + other.error,
            trace_defect=self.trace_defect + other.trace_defect,
        )
