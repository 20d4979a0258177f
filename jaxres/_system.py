"""The small system: its energy levels, and the basis in which operators on it are given."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from . import _safe
from ._checks import check_hermitian, check_shape, concrete, inexact_array, real_array, require
from ._safe import eigh


class System(eqx.Module):
    r"""A quantum system with Hamiltonian $H_S = \sum_j e_j |j\rangle\langle j|$ (ħ = 1).

    **Arguments:**

    - `levels`: energies $e_j$, shape (N,), in ascending order; equal ones are allowed.
    - `basis`: unitary matrix, shape (N, N), whose column j is the eigenvector $|j\rangle$ in the basis in which
      operators (couplings) are given. None: operators are already given in the eigenbasis.

    States and maps always come back in the energy eigenbasis; index 0 is the ground state.

    **Raises:** `ValueError` if the levels are not finite, not ascending or not one-dimensional.

    !!! example
        >>> jr.System([-0.3, 0.3]).size
        2
    """

    levels: Float[Array, " N"] = eqx.field(converter=real_array)
    basis: Inexact[Array, "N N"] | None = eqx.field(
        converter=lambda U: None if U is None else inexact_array(U), default=None
    )

    def __check_init__(self):
        check_shape("levels", self.levels, 1, "(N,)")
        if self.levels.size == 0:
            raise ValueError("Argument `levels` must have at least one level, but is empty.")
        if self.basis is not None and self.basis.shape != (self.size, self.size):
            raise ValueError(
                f"Argument `basis` must have shape {(self.size, self.size)}, but has shape {self.basis.shape}."
            )
        if concrete(self.levels):
            levels = np.asarray(self.levels)
            require(
                np.isfinite(levels),
                f"Argument `levels` must be finite, but has NaN or infinite entries: {levels}.",
            )
            require(
                np.diff(levels) >= 0,
                f"Argument `levels` must be in ascending order, but is {levels}. Sort it, or pass the Hamiltonian "
                "to System.from_hamiltonian, which also turns the couplings.",
            )
        if self.basis is not None and concrete(self.basis):
            U = np.asarray(self.basis)
            defect = np.max(np.abs(U.conj().T @ U - np.eye(self.size)))
            require(
                defect < 1e3 * self.size * np.finfo(U.dtype).eps,
                f"Argument `basis` must be unitary, but U†U differs from 1 by {defect:.2g}.",
            )

    @classmethod
    def from_hamiltonian(
        cls, H: Inexact[Array, "N N"], *, resolve: Inexact[Array, "M M"] | None = None
    ) -> "System":
        r"""The system with Hamiltonian `H`, any Hermitian matrix; couplings are then given in the basis of `H`.

        **Arguments:**

        - `H`: Hermitian, shape (N, N).
        - `resolve`: Hermitian, shape (N, N): inside a degenerate level the eigenvectors are those of this matrix.

        Differentiable in `H`. Inside a degenerate level the choice of eigenvectors is a convention, and only what does
        not depend on it has a meaning. Its derivative is right for changes of `H` that are diagonal there, in the
        eigenvectors chosen. To vary x in H + x T at a degenerate level, pass T as `resolve`: without, the splitting
        of the level by T would be missed.

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
        check_hermitian("H", H)
        if resolve is None:
            levels, basis = eigh(inexact_array(H))
        else:
            check_hermitian("resolve", resolve)
            if resolve.shape != H.shape:
                raise ValueError(
                    f"Argument `resolve` must have the shape of `H`, {H.shape}, but has shape {resolve.shape}."
                )
            levels, basis = _safe.resolve(inexact_array(H), inexact_array(resolve))
        return cls(levels=levels, basis=basis)

    @property
    def size(self) -> int:
        """Number of levels N."""
        return self.levels.shape[0]

    def to_eigenbasis(self, operator: Inexact[Array, "*b N N"]) -> Inexact[Array, "*b N N"]:
        """The operator's matrix in the energy eigenbasis, U† X U."""
        if self.basis is None:
            return operator
        return jnp.conj(self.basis.T) @ operator @ self.basis

    def from_eigenbasis(self, operator: Inexact[Array, "*b N N"]) -> Inexact[Array, "*b N N"]:
        """Back to the basis of the Hamiltonian, U X U†: that of states, which come in the energy eigenbasis."""
        if self.basis is None:
            return operator
        return self.basis @ operator @ jnp.conj(self.basis.T)
