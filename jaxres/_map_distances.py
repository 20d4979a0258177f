r"""How far two maps are from each other.

A map's Choi matrix over N is a state: what the map makes of one half of a maximally entangled pair. Distances of these
states are distances of maps (Gilchrist, Langford and Nielsen, Phys. Rev. A 71, 062310 (2005)).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ._checks import check_instance
from ._states import trace_distance
from ._superoperator import Superoperator


def choi_distance(S: Superoperator, T: Superoperator) -> Float[Array, ""]:
    r"""The trace distance of the Choi states, $D = \tfrac{1}{2N} \|C_S - C_T\|_1$, between 0 and 1 for channels.

    For maps that preserve Hermiticity, completely positive or not. It bounds the diamond distance,
    $D ≤ \tfrac12 \|S - T\|_⋄ ≤ N D$: how well one use of the map can tell S from T, at best.

    !!! example
        >>> one = jr.Superoperator.identity(2)
        >>> flip = jr.Superoperator.from_unitary(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> print(jr.choi_distance(one, flip))
        1.0
    """
    _check_pair(S, T)
    return trace_distance(S.choi / S.size, T.choi / T.size)


def process_fidelity(S: Superoperator, T: Superoperator) -> Float[Array, ""]:
    r"""The fidelity of the Choi states, $F = \frac{1}{N^2}\left(\mathrm{Tr}\sqrt{\sqrt{C_S} C_T \sqrt{C_S}}\right)^2$.

    1 for equal channels; if one of them is unitary, $F = \mathrm{Tr}[C_S C_T]/N^2$, and the fidelity of the outgoing
    states, averaged over pure incoming ones, is (N F + 1)/(N + 1). Its derivative is that at fixed ranks: in a
    direction that makes the rank of C_S or C_T grow, F has none, and 0 is put for it.

    **Raises:** `ValueError` for a map that is not completely positive (under jit: a run-time error).

    !!! example
        >>> half = jnp.sqrt(jnp.array([0.75, 0.25]))[:, None, None]
        >>> often = jr.Superoperator.from_kraus(half * jnp.stack([jnp.eye(2), jnp.eye(2)[::-1]]))
        >>> print(jnp.round(jr.process_fidelity(often, jr.Superoperator.identity(2)), 12))
        0.75
    """
    _check_pair(S, T)
    S, T = (X.positive("process_fidelity") for X in (S, T))
    return (_root_fidelity(S.choi, T.choi) / S.size) ** 2


def _check_pair(S, T):
    for name, X in (("S", S), ("T", T)):
        check_instance(name, X, Superoperator, "a jaxres.Superoperator")
    if S.size != T.size:
        raise ValueError(
            f"Argument `T` must act on {S.size} levels, as `S` does, but acts on {T.size}."
        )


# With √ρ √σ = P Σ Q† it is Tr Σ, and its differential is ½ Tr[√σ Q Σ⁻¹ Q† √σ dρ] + ½ Tr[√ρ P Σ⁻¹ P† √ρ dσ], where Σ⁻¹
# is that of the singular values that are not 0.


@jax.custom_jvp
def _root_fidelity(rho: Complex[Array, "M M"], sigma: Complex[Array, "M M"]) -> Float[Array, ""]:
    return jnp.sum(jnp.linalg.svd(_root(rho) @ _root(sigma), compute_uv=False))


@_root_fidelity.defjvp
def _root_fidelity_jvp(primals, tangents):
    roots = [_root(X) for X in primals]
    P, values, Q = jnp.linalg.svd(roots[0] @ roots[1])
    room = 16 * values.size * jnp.finfo(values.dtype).eps * values[0]
    present = values > room
    inverse = jnp.where(present, 1 / jnp.where(present, values, 1), 0)
    left, right = roots[1] @ jnp.conj(Q.T), roots[0] @ P
    slopes = [(X * inverse[None]) @ jnp.conj(X.T) / 2 for X in (left, right)]
    changes = [jnp.real(jnp.sum(W.T * dX)) for W, dX in zip(slopes, tangents, strict=True)]
    return jnp.sum(values), changes[0] + changes[1]


def _root(X):
    """√X of a positive matrix; what rounding makes of an eigenvalue 0 is taken for 0: its root would be √eps."""
    values, U = jnp.linalg.eigh((X + jnp.conj(X.T)) / 2)
    room = 16 * values.size * jnp.finfo(values.dtype).eps * values[-1]
    return (U * jnp.sqrt(jnp.where(values > room, values, 0))[None]) @ jnp.conj(U.T)
