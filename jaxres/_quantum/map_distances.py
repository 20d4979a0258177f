r"""How far two maps are from each other.

A map's Choi matrix over N is a state: what the map makes of one half of a maximally entangled pair. Distances of these
states are distances of maps (Gilchrist, Langford and Nielsen, Phys. Rev. A 71, 062310 (2005)).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._checks import Checked, Scalar, as_count, as_scalar, check_instance, door
from .._numerics.safe import eigh
from .states import finite, trace_norm
from .superoperator import Superoperator


@door
def choi_distance(S: Checked[Superoperator], T: Checked[Superoperator]) -> Float[Array, ""]:
    r"""The trace distance of the Choi states, $D = \tfrac{1}{2N} \|C_S - C_T\|_1$, between 0 and 1 for channels.

    For maps that preserve Hermiticity, completely positive or not. It bounds the `diamond_distance`, which lies between
    D and N D.

    **Raises:** `ValueError` for a map that does not preserve Hermiticity (under jit: a run-time error).

    !!! example
        >>> one = jr.Superoperator.identity(2)
        >>> flip = jr.Superoperator.from_unitary(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
        >>> print(jnp.round(jr.choi_distance(one, flip), 12))
        1.0
    """
    S, T = _pair("choi_distance", S, T)
    return trace_norm(S.choi - T.choi) / (2 * S.size)


@door
def process_fidelity(S: Checked[Superoperator], T: Checked[Superoperator]) -> Float[Array, ""]:
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
    S, T = (X.positive("process_fidelity") for X in _pair("process_fidelity", S, T))
    return (_root_fidelity(S.choi, T.choi) / S.size) ** 2 * finite(S.choi) * finite(T.choi)


class DiamondDistance(eqx.Module):
    """What the diamond distance is at least and at most.

    - `lower`: what the best incoming state found attains. Its derivative is that of the diamond distance, as far as
      the two bounds agree.
    - `upper`: what no incoming state exceeds, to the root of the machine precision (1e-8).
    """

    lower: Float[Array, ""]
    upper: Float[Array, ""]


@door
def diamond_distance(
    S: Checked[Superoperator],
    T: Checked[Superoperator],
    *,
    tol: Checked[Scalar] = 1e-6,
    max_steps: Checked[int] = 1000,
) -> DiamondDistance:
    r"""The most that one use of a map can tell S from T, $\tfrac12 \|S - T\|_⋄$, with any entangled spectator.

    $$\tfrac12 \|Φ\|_⋄ = \max_ρ \tfrac12 \|(1 ⊗ \sqrt ρ)\, C\, (1 ⊗ \sqrt ρ)\|_1$$

    with the Choi matrix C of Φ = S − T, over the states ρ of the incoming system. Equal a priori, S and T are told
    apart with probability (1 + D)/2. For maps that preserve Hermiticity; between 0 and 1 for channels.

    **Arguments:**

    - `tol`: the search ends when the bounds agree to this, relatively.
    - `max_steps`: or after so many steps. With the defaults they have mostly agreed; see for yourself.

    **Returns:** `DiamondDistance`, two bounds that hold wherever the search has ended.

    **Raises:** `ValueError` for a map that does not preserve Hermiticity (under jit: a run-time error).

    What is maximised is concave. Any ρ > 0 gives both bounds: with X = √ρ C √ρ its own value, and the largest
    eigenvalue of H = Tr_out ρ^(−1/2)|X|ρ^(−1/2), which is feasible in the dual problem (Watrous, Theory of Computing 5,
    217 (2009)). H is the gradient too, and ρ climbs by log ρ → log ρ + s log H, with a step s that adapts.

    !!! example
        >>> stay = jnp.array([[[1.0, 0.0], [0.0, 0.8]], [[0.0, 0.6], [0.0, 0.0]]])
        >>> decay, one = jr.Superoperator.from_kraus(stay), jr.Superoperator.identity(2)
        >>> distance = jr.diamond_distance(decay, one)
        >>> print(jnp.round(distance.lower, 6), jnp.round(distance.upper, 6), jr.choi_distance(decay, one).round(3))
        0.36 0.36 0.225
    """
    S, T = _pair("diamond_distance", S, T)
    tol, max_steps = as_scalar("tol", tol, positive=True), as_count("max_steps", max_steps, 0)
    choi = S.choi - T.choi
    C = choi.reshape((S.size,) * 4)
    root, upper = _best_input(jax.lax.stop_gradient(C), tol, max_steps)
    # the best ρ makes no first-order change of its own
    return DiamondDistance(
        trace_norm(_between(root, C)) / 2 * finite(choi), upper / 2 * finite(choi)
    )


@eqx.filter_jit
def _best_input(C, tol, max_steps):
    """√ρ of the best state found, and the least upper bound on the norm met on the way."""
    N = C.shape[0]
    dtype = jnp.finfo(C.dtype).dtype
    mixed = jnp.sqrt(jnp.finfo(dtype).eps)

    def look(log_rho):
        exponents, V = eigh(log_rho)
        weights = (1 - mixed) * jax.nn.softmax(exponents) + mixed / N
        root, inverse = (
            (V * x[None]) @ jnp.conj(V.T) for x in (jnp.sqrt(weights), 1 / jnp.sqrt(weights))
        )
        values, U = eigh(_between(root, C))
        size = (U * jnp.abs(values)[None]) @ jnp.conj(U.T)
        H = inverse @ jnp.trace(size.reshape((N,) * 4), axis1=0, axis2=2) @ inverse
        h, W = eigh((H + jnp.conj(H.T)) / 2)
        slope = jnp.log(jnp.maximum(h / jnp.where(h[-1] > 0, h[-1], 1), 1e-6))
        return jnp.sum(jnp.abs(values)), h[-1], (W * slope[None]) @ jnp.conj(W.T), root

    def going(carry):
        (lower, *_), upper, steps = carry[1], carry[3], carry[4]
        return (upper - lower > tol * lower) & (steps < max_steps)

    def step(carry):
        log_rho, here, s, upper, steps = carry
        tried = log_rho + s * here[2]
        there = look(tried)
        up = there[0] >= here[0]
        log_rho, here = jax.tree.map(
            lambda a, b: jnp.where(up, a, b), (tried, there), (log_rho, here)
        )
        return log_rho, here, s * jnp.where(up, 1.3, 0.5), jnp.minimum(upper, there[1]), steps + 1

    start = jnp.zeros((N, N), C.dtype)
    first = look(start)
    carry = (start, first, jnp.ones((), dtype), first[1], jnp.zeros((), int))
    _, here, _, upper, _ = jax.lax.while_loop(going, step, carry)
    return here[3], upper


def _between(root, C):
    """(1 ⊗ √ρ) C (1 ⊗ √ρ), the incoming index second."""
    X = jnp.einsum("ab,xbyc,cd->xayd", root, C, root)
    return X.reshape(root.size, root.size)


def _pair(form, S, T):
    """The maps, if they are maps on the same levels that preserve Hermiticity."""
    for name, X in (("S", S), ("T", T)):
        check_instance(name, X, Superoperator, "a jaxres.Superoperator")
    if S.size != T.size:
        raise ValueError(
            f"Argument `T` must act on {S.size} levels, as `S` does, but acts on {T.size}."
        )
    return S.preserving_hermiticity(form, None), T.preserving_hermiticity(form, None)


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
    values, U = eigh((X + jnp.conj(X.T)) / 2)
    room = 16 * values.size * jnp.finfo(values.dtype).eps * values[-1]
    return (U * jnp.sqrt(jnp.where(values > room, values, 0))[None]) @ jnp.conj(U.T)
