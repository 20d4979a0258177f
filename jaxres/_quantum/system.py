"""The system: its energy levels, and the basis in which operators on it are given."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from .._checks import (
    Numbers,
    Restorable,
    as_hermitian,
    as_inexact,
    as_unitary,
    as_vector,
    concrete,
    door,
    or_nan,
    require,
    unitary,
)
from .._numerics import safe as _safe
from .._numerics.safe import eigh
from .levels import ascending


def _as_levels(x) -> Float[Array, " N"]:
    levels = as_vector("levels", x)
    if levels.size == 0:
        raise ValueError("Argument `levels` must have at least one level, but is empty.")
    if not concrete(levels):
        return or_nan(ascending(levels), levels)
    require(
        np.diff(levels) >= 0,
        f"Argument `levels` must be in ascending order, but is {np.asarray(levels)}. Sort it, or pass the Hamiltonian "
        "to System.from_hamiltonian, which also turns the couplings.",
    )
    return levels


class System(Restorable):
    r"""A quantum system with Hamiltonian $H_S = \sum_j e_j |j\rangle\langle j|$ (ħ = 1).

    **Arguments:**

    - `levels`: energies $e_j$, shape (N,), in ascending order; equal ones are allowed.
    - `basis`: unitary matrix, shape (N, N), whose column j is the eigenvector $|j\rangle$ in the basis in which
      operators (couplings) are given. By default operators are given in the energy eigenbasis.

    All functions return states and maps in the energy eigenbasis; index 0 is the ground state.

    **Raises:** `ValueError` if the levels are not finite, not ascending or not one-dimensional, or if the basis is not
    unitary or has another shape. Where these are traced, they become NaN instead.

    !!! example
        >>> jr.System([-0.3, 0.3]).size
        2
    """

    levels: Float[Array, " N"] = eqx.field(converter=_as_levels)
    basis: Inexact[Array, "N N"] | None = eqx.field(
        converter=lambda U: None if U is None else as_unitary("basis", U), default=None
    )

    def __check_init__(self):
        if self.basis is not None and self.basis.shape != (self.size, self.size):
            raise ValueError(
                f"Argument `basis` must have shape {(self.size, self.size)}, but has shape {self.basis.shape}."
            )

    def restored(self) -> "System":
        return System(self.levels, self.basis)

    def valid(self) -> Bool[Array, ""]:
        """Returns whether the levels are finite and ascend and the basis is unitary, also for traced ones."""
        valid = ascending(self.levels) & jnp.all(jnp.isfinite(self.levels))
        return valid if self.basis is None else valid & unitary(self.basis)

    @classmethod
    @door
    def from_hamiltonian(cls, H: Numbers, *, resolve: Numbers | None = None) -> "System":
        r"""The system with the Hermitian Hamiltonian `H`; couplings are then given in the basis of `H`.

        **Arguments:**

        - `H`: Hermitian, shape (N, N).
        - `resolve`: Hermitian, shape (N, N): within a degenerate level the eigenvectors are those of this matrix.

        **Returns:** `System`, differentiable in `H`. Within a degenerate level the choice of eigenvectors is a
        convention, and only quantities that do not depend on it have a meaning. Their derivatives are right for changes
        of `H` that are diagonal there, in the eigenvectors chosen. To differentiate H + x T with respect to x at a
        degenerate level, pass T as `resolve`: otherwise the derivative misses the splitting of the level by T.

        **Raises:** `ValueError` for a matrix that is not Hermitian or not of shape (N, N).

        !!! example
            >>> system = jr.System.from_hamiltonian(jnp.array([[0.3, 0.0], [0.0, -0.3]]))  # (Δ/2) σ_z
            >>> print(system.levels)
            [-0.3  0.3]
            >>> flip = jnp.array([[0.0, 1.0], [1.0, 0.0]])
            >>> def levels(x, resolve):
            ...     return jr.System.from_hamiltonian(x * flip, resolve=resolve).levels
            >>> print(jax.jacfwd(levels)(0.0, flip))
            [-1.  1.]
        """
        H = as_hermitian("H", H)
        if resolve is None:
            T, (levels, basis) = H, eigh(H)
        else:
            T = as_hermitian("resolve", resolve, size=H.shape[0])
            levels, basis = _safe.resolve(H, T)
        if not concrete(H, T):  # eigenvectors of NaN need not be NaN
            levels, basis = or_nan(jnp.all(jnp.isfinite(H) & jnp.isfinite(T)), (levels, basis))
        return cls(levels, basis)

    @property
    def size(self) -> int:
        """Number of levels N."""
        return self.levels.shape[0]

    @door
    def to_eigenbasis(self, operator: Numbers) -> Inexact[Array, "*b N N"]:
        """The operator's matrix in the energy eigenbasis, U† X U, shape (…, N, N)."""
        operator = self._operator(operator)
        if self.basis is None:
            return operator
        return jnp.conj(self.basis.T) @ operator @ self.basis

    @door
    def from_eigenbasis(self, operator: Numbers) -> Inexact[Array, "*b N N"]:
        """A state or another operator in the basis of the Hamiltonian, U X U†, shape (…, N, N)."""
        operator = self._operator(operator)
        if self.basis is None:
            return operator
        return self.basis @ operator @ jnp.conj(self.basis.T)

    def _operator(self, X):
        X = as_inexact("operator", X)
        if X.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"Argument `operator` must have shape (…, {self.size}, {self.size}), but has shape {X.shape}."
            )
        return X
