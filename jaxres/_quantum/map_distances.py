r"""Distances and fidelity of two maps.

The Choi matrix of a channel, divided by N, is a state: the map's result on one half of a maximally entangled pair. So
distances of states give distances of maps (Gilchrist, Langford and Nielsen, Phys. Rev. A 71, 062310 (2005)).
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

    The `diamond_distance` lies between D and N D.

    **Arguments:** `S`, `T`: maps on N levels that preserve Hermiticity, completely positive or not.

    **Raises:** `ValueError` for maps on different numbers of levels, or for a map that does not preserve Hermiticity
    (under jit: a run-time error).

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

    F is 1 for equal channels. If one of them is unitary, $F = \mathrm{Tr}[C_S C_T]/N^2$, and the fidelity of the
    outgoing states, averaged over pure incoming ones, is (N F + 1)/(N + 1). The derivative returned is that at fixed
    ranks: in a direction in which the rank of C_S or C_T grows, F has no derivative, and the contribution returned is
    0.

    **Arguments:** `S`, `T`: completely positive maps on N levels.

    **Raises:** `ValueError` for maps on different numbers of levels, or for a map that is not completely positive
    (under jit: a run-time error).

    !!! example
        >>> half = jnp.sqrt(jnp.array([0.75, 0.25]))[:, None, None]
        >>> often = jr.Superoperator.from_kraus(half * jnp.stack([jnp.eye(2), jnp.eye(2)[::-1]]))
        >>> print(jnp.round(jr.process_fidelity(often, jr.Superoperator.identity(2)), 12))
        0.75
    """
    S, T = (X.positive("process_fidelity") for X in _pair("process_fidelity", S, T))
    return (_root_fidelity(S.choi, T.choi) / S.size) ** 2 * finite(S.choi) * finite(T.choi)


class DiamondDistance(eqx.Module):
    """A lower and an upper bound on the diamond distance.

    - `lower`: the value for the best incoming state found. Its derivative is that of the diamond distance, as far as
      the two bounds agree.
    - `upper`: a bound for all incoming states, right to the root of the machine precision (1e-8).
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
    r"""The diamond distance $\tfrac12 \|S - T\|_⋄$: how well one use of a map, with any spectator, distinguishes S, T.

    $$\tfrac12 \|Φ\|_⋄ = \max_ρ \tfrac12 \|(1 ⊗ \sqrt ρ)\, C\, (1 ⊗ \sqrt ρ)\|_1$$

    with the Choi matrix C of Φ = S − T, over the states ρ of the incoming system. If S and T are equally likely, the
    best measurement identifies the map with probability (1 + D)/2. D is between 0 and 1 for channels.

    **Arguments:**

    - `S`, `T`: maps on N levels that preserve Hermiticity.
    - `tol`: the search ends when the bounds agree to this relative tolerance.
    - `max_steps`: the search ends after this number of steps at the latest. With the defaults the bounds mostly agree
      before; compare them.

    **Returns:** `DiamondDistance`, two bounds that hold wherever the search has ended.

    **Raises:** `ValueError` for maps on different numbers of levels, a `tol` that is not positive, or a map that does
    not preserve Hermiticity (under jit: a run-time error).

    The maximised function is concave. Any ρ > 0 gives both bounds: with X = √ρ C √ρ, its own value ‖X‖₁, and the
    largest eigenvalue of H = Tr_out ρ^(−1/2)|X|ρ^(−1/2), which is feasible in the dual problem (Watrous, Theory of
    Computing 5, 217 (2009)). H is also the gradient, and the search ascends by log ρ → log ρ + s log H, with an
    adaptive step s.

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
    # the value is stationary in ρ at the maximum, so the derivative of ρ does not contribute
    return DiamondDistance(
        trace_norm(_between(root, C)) / 2 * finite(choi), upper / 2 * finite(choi)
    )


@eqx.filter_jit
def _best_input(C, tol, max_steps):
    """√ρ of the best state found, and the smallest upper bound on the norm found during the search."""
    N = C.shape[0]
    dtype = jnp.finfo(C.dtype).dtype
    mixed = jnp.sqrt(jnp.finfo(dtype).eps)  # weight of the mixed state that keeps ρ invertible

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
    """The matrix (1 ⊗ √ρ) C (1 ⊗ √ρ), the incoming index second."""
    X = jnp.einsum("ab,xbyc,cd->xayd", root, C, root)
    return X.reshape(root.size, root.size)


def _pair(form, S, T):
    """The maps; raises unless both act on the same number of levels and preserve Hermiticity."""
    for name, X in (("S", S), ("T", T)):
        check_instance(name, X, Superoperator, "a jaxres.Superoperator")
    if S.size != T.size:
        raise ValueError(
            f"Argument `T` must act on {S.size} levels, as `S` does, but acts on {T.size}."
        )
    return S.preserving_hermiticity(form, None), T.preserving_hermiticity(form, None)


# With √ρ √σ = P Σ Q†, the square root of the fidelity is Tr Σ, and its differential is
# ½ Tr[√σ Q Σ⁻¹ Q† √σ dρ] + ½ Tr[√ρ P Σ⁻¹ P† √ρ dσ], where Σ⁻¹ inverts the singular values that are not 0.


@jax.custom_jvp
def _root_fidelity(rho: Complex[Array, "M M"], sigma: Complex[Array, "M M"]) -> Float[Array, ""]:
    return jnp.sum(jnp.linalg.svd(_root(rho) @ _root(sigma), compute_uv=False))


@_root_fidelity.defjvp
def _root_fidelity_jvp(primals, tangents):
    roots = [_root(X) for X in primals]
    P, values, Q = jnp.linalg.svd(roots[0] @ roots[1])
    tolerance = 16 * values.size * jnp.finfo(values.dtype).eps * values[0]
    present = values > tolerance
    inverse = jnp.where(present, 1 / jnp.where(present, values, 1), 0)
    left, right = roots[1] @ jnp.conj(Q.T), roots[0] @ P
    slopes = [(X * inverse[None]) @ jnp.conj(X.T) / 2 for X in (left, right)]
    changes = [jnp.real(jnp.sum(W.T * dX)) for W, dX in zip(slopes, tangents, strict=True)]
    return jnp.sum(values), changes[0] + changes[1]


def _root(X):
    """√X of a positive matrix. Eigenvalues at rounding are set to 0, since their root would be as large as √ε."""
    values, U = eigh((X + jnp.conj(X.T)) / 2)
    tolerance = 16 * values.size * jnp.finfo(values.dtype).eps * values[-1]
    return (U * jnp.sqrt(jnp.where(values > tolerance, values, 0))[None]) @ jnp.conj(U.T)
