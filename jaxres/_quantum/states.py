"""States of the system, in its energy eigenbasis, and quantities computed from them.

Every public function that takes a state checks that it is a square matrix, Hermitian and of trace 1, and raises a
`ValueError` if it is not. For a traced matrix, whose entries are unknown, the function returns NaN instead, in the
value and in its derivatives. A state of NaN, such as a steady state that was not found, gives NaN. `populations`,
`coherence` and `dephase` take any square matrix.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, Inexact

from .._checks import (
    Checked,
    Scalar,
    as_index,
    as_inexact,
    as_scalar,
    check_instance,
    concrete,
    door,
    require,
)
from .._numerics.safe import eigh, modulus
from .levels import equal_levels
from .system import System

#: a state, or several with leading axes: arrays, nested lists, an object of QuTiP
States = Checked[Inexact[ArrayLike, "*b N N"]]
#: one state
State = Checked[Inexact[ArrayLike, "N N"]]


@door
def gibbs_state(system: Checked[System], beta: Checked[Scalar]) -> Complex[Array, "N N"]:
    r"""The thermal state $e^{-βH_S}/Z$ at inverse temperature β.

    **Arguments:** `beta`: β (1/energy), finite; it may be 0 or negative. **Returns:** shape (N, N).

    **Raises:** `ValueError` for a β that is not finite.

    !!! example
        >>> rho = jr.gibbs_state(jr.System([-0.3, 0.3]), beta=0.1)
        >>> print(jnp.round(jr.populations(rho), 6))
        [0.514996 0.485004]
    """
    check_instance("system", system, System, "a jaxres.System")
    populations = jax.nn.softmax(-as_scalar("beta", beta) * system.levels)
    return jnp.diag(populations).astype(jnp.result_type(populations.dtype, jnp.complex64))


@door
def dephase(system: System, rho: Inexact[Array, "*b N N"]) -> Inexact[Array, "*b N N"]:
    """Full dephasing D (Eq. 3): removes the coherences between levels of different energy.

    It is the average of e^{−iH_S t/ħ} ρ e^{iH_S t/ħ} over all times t, so coherence within a degenerate level stays.
    Levels count as equal if they differ by no more than rounding (64 ε of the largest |e_j|).

    **Arguments:** `rho`: an array of shape (N, N), or several with leading axes. **Returns:** the same shape.

    !!! example
        >>> rho = jnp.array([[0.5, 0.3], [0.3, 0.5]])
        >>> print(jr.dephase(jr.System([-0.3, 0.3]), rho))
        [[0.5 0. ]
         [0.  0.5]]
        >>> print(jr.dephase(jr.System([0.0, 0.0]), rho))
        [[0.5 0.3]
         [0.3 0.5]]
    """
    check_instance("system", system, System, "a jaxres.System")
    return jnp.where(jnp.broadcast_to(equal_levels(system.levels), rho.shape), rho, 0)


@door
def populations(rho: States) -> Float[Array, "*b N"]:
    """The probabilities ρ_jj of the energy levels.

    **Arguments:** `rho`: a matrix, shape (N, N), or several with leading axes. **Returns:** shape (…, N).

    **Raises:** `ValueError` for a matrix that is not square.

    !!! example
        >>> print(jr.populations([[0.25, 0], [0, 0.75]]))
        [0.25 0.75]
    """
    rho = as_operators("rho", rho)
    return jnp.real(jnp.diagonal(rho, axis1=-2, axis2=-1)) * finite(rho)[..., None]


@door
def coherence(rho: States, j: Checked[int] = 0, k: Checked[int] = 1) -> Float[Array, "*b"]:
    """The coherence |ρ_jk|, by default |ρ_01|. Where it vanishes, its derivative is 0, the mean over directions.

    **Arguments:** `rho`: a matrix, shape (N, N), or several with leading axes. **Returns:** shape of the leading axes.

    **Raises:** `ValueError` for a matrix that is not square, or a `j` or a `k` that is not the index of a level, from 0
    to N − 1.

    !!! example
        >>> print(jr.coherence(jnp.array([[0.5, 0.3j], [-0.3j, 0.5]])))
        0.3
    """
    rho = as_operators("rho", rho)
    N = rho.shape[-1]
    return modulus(rho[..., as_index("j", j, N), as_index("k", k, N)]) * finite(rho)


@door
def trace_distance(rho: States, sigma: States) -> Float[Array, "*b"]:
    r"""The trace distance $\tfrac12 \|ρ - σ\|_1$, half the sum of the moduli of the eigenvalues of ρ − σ.

    It is between 0 (equal) and 1 (orthogonal). An eigenvalue that vanishes does not contribute to its derivative.

    **Arguments:** `rho`, `sigma`: states, shape (N, N), or several with leading axes, which broadcast. **Returns:**
    shape of the leading axes.

    **Raises:** `ValueError` for a matrix that is not a state; if it is traced, the distance is NaN.

    !!! example
        >>> up, down = jnp.diag(jnp.array([1.0, 0.0])), jnp.diag(jnp.array([0.0, 1.0]))
        >>> print(jr.trace_distance(up, down))
        1.0
    """
    return of_each(_trace_distance, rho=rho, sigma=sigma)


def _trace_distance(rho, sigma):
    return trace_norm(rho - sigma) / 2


def trace_norm(X: Inexact[Array, "N N"]) -> Float[Array, ""]:
    """The trace norm ‖X‖₁ of a Hermitian matrix; NaN if X is not finite."""
    return _trace_norm(X) * finite(X)


@jax.custom_jvp
def _trace_norm(X):
    return jnp.sum(jnp.abs(eigh(X)[0]), axis=-1)


@_trace_norm.defjvp
def _trace_norm_jvp(primals, tangents):
    # d‖X‖₁ = Tr[sign(X) dX] is a function of X and does not need the derivative of an eigenvector
    (X,), (dX,) = primals, tangents
    values, U = eigh(X)
    sign = jnp.einsum("...ab,...b,...cb->...ac", U, jnp.sign(values), jnp.conj(U))
    out = jnp.sum(jnp.abs(values), axis=-1)
    return out, jnp.real(jnp.einsum("...ab,...ba->...", sign, dX))


# --------------------------------------------------------------------------------------------------
# Checks of states
# --------------------------------------------------------------------------------------------------


def of_each(
    function: Callable[..., Float[Array, ""]],
    *others: Array,
    size: int | None = None,
    **states: Any,
) -> Float[Array, "*b"]:
    """Returns f(*states, *others), one number per state, over the leading axes of the arrays.

    The keywords are the names of the states in error messages. The states must have `size` levels, or as many as the
    first of them. The tolerance for trace and Hermiticity is √ε of the precision in which a state comes, which the
    error of computed states does not exceed. The compiled program is cached for each `function`, so pass one defined
    in a module and not one created for the call.
    """
    arrays, tolerances = [], []
    for name, X in states.items():
        tolerance = rounding(X) ** 0.5
        X = as_operators(name, X, size).astype(jnp.result_type(complex))
        _refuse_other_than_states(name, X, tolerance)
        size = X.shape[-1]
        arrays.append(X)
        tolerances.append(tolerance)
    batch = arrays[0].shape[:-2]
    for name, X in zip(states, arrays, strict=True):
        try:
            batch = np.broadcast_shapes(batch, X.shape[:-2])
        except ValueError as error:
            raise ValueError(
                f"Argument `{name}` must have leading axes that go with {batch}, but has shape {X.shape}."
            ) from error
    return _of_each(function, tuple(arrays), tuple(tolerances), others, batch)


@eqx.filter_jit
def _of_each(function, states, tolerances, others, batch):
    def sound(*each):
        good = [_is_state(X, tolerance) for X, tolerance in zip(each, tolerances, strict=True)]
        factor = nan_unless(jnp.all(jnp.stack(good)))
        # NaN in the arguments too: where the function has a constant branch, its derivative would be 0
        return function(*(X * factor for X in each), *others) * factor

    states = [jnp.broadcast_to(X, batch + X.shape[-2:]) for X in states]
    signature = ",".join(["(n,n)"] * len(states)) + "->()"
    return jnp.vectorize(sound, signature=signature)(*states)


def as_operators(name: str, X: Any, size: int | None = None) -> Inexact[Array, "*b N N"]:
    """Converts to a square matrix, or several with leading axes, of `size` rows if given, with any entries."""
    X = as_inexact(name, X)
    N = size or max(X.shape[-1:], default=0)
    if X.ndim < 2 or X.shape[-2:] != (N, N) or N == 0:
        N = size or "N"
        raise ValueError(
            f"Argument `{name}` must have shape (…, {N}, {N}), but has shape {X.shape}."
        )
    return X


def check_operator(name: str, X: Any, system: Any) -> Complex[Array, "N N"]:
    """Converts to a matrix on the levels of the system, with any entries."""
    check_instance("system", system, System, "a jaxres.System")
    return _one_operator(name, X, system.size)


def check_state(name: str, rho: Any, system: Any) -> Complex[Array, "N N"]:
    """Converts to a finite density matrix of the system, exact to rounding; if traced and not one, it becomes NaN."""
    tolerance = 1e3 * rounding(rho)
    rho = check_operator(name, rho, system)
    if concrete(rho):
        value = np.asarray(rho)
        require(np.isfinite(value), f"Argument `{name}` must be finite, but is\n{value}")
    _refuse_other_than_states(name, rho, tolerance)
    return rho * nan_unless(_is_state(rho, tolerance))


def as_rough_state(name: str, rho: Any, size: int | None = None) -> Complex[Array, "N N"]:
    """Converts to a density matrix, checked to √ε as in `of_each`; if traced, every entry is NaN unless it is one."""
    tolerance = rounding(rho) ** 0.5
    rho = _one_operator(name, rho, size)
    _refuse_other_than_states(name, rho, tolerance)
    return rho * nan_unless(_is_state(rho, tolerance))


def nan_unless(condition: Bool[Array, "*b"]) -> Float[Array, "*b"]:
    """A factor of 1 or NaN. A product with it has NaN derivatives too, while those of `jnp.where` would be 0."""
    return jnp.where(condition, 1.0, jnp.nan)


def finite(X: Inexact[Array, "*b N N"]) -> Float[Array, "*b"]:
    """A factor of 1 if every entry of X is finite, else NaN."""
    return nan_unless(jnp.all(jnp.isfinite(X), axis=(-2, -1)))


def not_negative(values: Float[Array, " N"]) -> Bool[Array, ""]:
    """Whether every probability is at least −√ε, the tolerance of `of_each` for computed states."""
    return jnp.all(values >= -jnp.sqrt(jnp.finfo(values.dtype).eps))


def _one_operator(name, X, size):
    """Converts to a complex square matrix, without leading axes."""
    X = as_inexact(name, X)
    N = size or max(X.shape[-1:], default=0)
    if X.shape != (N, N) or N == 0:
        raise ValueError(
            f"Argument `{name}` must have shape {(N, N) if size else '(N, N)'}, but has shape {X.shape}."
            + (" Use jax.vmap to batch over values." if X.ndim > 2 else "")
        )
    return X.astype(jnp.result_type(complex))


def _is_state(rho, tolerance):
    """Whether ρ is Hermitian and of trace 1; false if it has NaN."""
    skew = jnp.max(jnp.abs(rho - jnp.conj(rho.T)))
    return (skew <= tolerance) & (jnp.abs(jnp.trace(rho) - 1) <= tolerance)


def _refuse_other_than_states(name, rho, tolerance):
    """Raises a `ValueError` if ρ is concrete and finite, but not Hermitian or not of trace 1."""
    if not concrete(rho):
        return
    value = np.asarray(rho)
    value = value[np.all(np.isfinite(value), axis=(-2, -1))]
    skew = np.max(np.abs(value - value.conj().swapaxes(-2, -1)), initial=0.0)
    require(
        skew <= tolerance,
        f"Argument `{name}` must be Hermitian, but differs from its adjoint by {skew:.2g}.",
    )
    traces = np.trace(value, axis1=-2, axis2=-1).real
    for trace in traces[abs(traces - 1) > tolerance]:
        raise ValueError(
            f"Argument `{name}` must have trace 1, but has trace {trace:g}. Divide it by that."
        )


def rounding(x: Any) -> float:
    """The ε of the precision in which x comes, but not less than that of the process."""
    here = jnp.finfo(jnp.result_type(float)).eps
    known = isinstance(x, jax.Array | np.ndarray | np.generic)
    inexact = known and jnp.issubdtype(x.dtype, jnp.inexact)
    return float(max(here, jnp.finfo(x.dtype).eps) if inexact else here)
