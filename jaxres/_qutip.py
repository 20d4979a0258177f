r"""To QuTiP and back.

Two things differ there. QuTiP stacks columns: the vector of ρ has ρ_jk at k·N + j, here at j·N + k. And its operators
are in the basis of the Hamiltonian that was typed in, while states and maps of jaxres are in the energy eigenbasis,
levels ascending. The first is taken care of; of the second, say with `system=` that the basis is to be changed.

What QuTiP makes of a map differs by convention too: its Choi matrix has the incoming index first; its χ has trace N²,
not 1; and in χ and in the Pauli basis its σ_y is −σ_y (QuTiP 5.3, its issue 1873).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Inexact

from ._checks import check_instance, check_shape
from ._superoperator import Superoperator
from ._system import System

if TYPE_CHECKING:
    import qutip


def to_qutip(
    x: System | Superoperator | Inexact[Array, "N N"],
    *,
    system: System | None = None,
    dims: Sequence[int] | None = None,
) -> "qutip.Qobj":
    r"""The `qutip.Qobj` of a system's Hamiltonian, of a map, or of a state or another operator.

    **Arguments:**

    - `x`: a `System` gives its Hamiltonian, in the basis in which its couplings are given; a `Superoperator` gives a
      Qobj of type "super" (`qutip.to_choi`, `to_kraus`, `to_chi` and `to_superpauli` take it from there); a matrix
      gives an operator.
    - `system`: states and maps are in the energy eigenbasis of this system, and are wanted in the basis of its
      Hamiltonian: ρ → U ρ U†, S → U S(U† · U) U† with U = `system.basis`. None: entries stay as they are.
    - `dims`: levels of the factors of a composite system, `[2, 2]` for two qubits; None: one factor of N levels.

    **Raises:** `ValueError` where sizes do not fit. Needs QuTiP 5 (`pip install 'jaxres[qutip]'`); outside jit only.

    !!! example
        >>> H = jnp.array([[0.3, 0.1], [0.1, -0.3]])
        >>> system = jr.System.from_hamiltonian(H)
        >>> rho = jr.to_qutip(jr.gibbs_state(system, 0.1), system=system)
        >>> bool((rho - (-0.1 * jr.to_qutip(H)).expm().unit()).norm() < 1e-14)
        True
    """
    import qutip

    if isinstance(x, System):
        return to_qutip(x.from_eigenbasis(jnp.diag(x.levels)), dims=dims)
    N = x.size if isinstance(x, Superoperator) else x.shape[-1]
    dims = [N] if dims is None else list(dims)
    if np.prod(dims) != N:
        raise ValueError(f"Argument `dims` must multiply to {N} levels, but is {dims}.")
    _check_size(system, N)
    if isinstance(x, Superoperator):
        x = x if system is None else _turned(x, system.basis)
        columns = np.asarray(x.tensor).transpose(1, 0, 3, 2).reshape(N * N, N * N)
        return qutip.Qobj(columns, dims=[[dims, dims], [dims, dims]], superrep="super")
    check_shape("x", x, 2, "(N, N)")
    x = x if system is None else system.from_eigenbasis(x)
    return qutip.Qobj(np.asarray(x), dims=[dims, dims])


def from_qutip(
    Q: "qutip.Qobj | Sequence[qutip.Qobj]", *, system: System | None = None
) -> Superoperator | Complex[Array, "N N"]:
    r"""What a `qutip.Qobj` is here: a matrix, or for a map a `Superoperator`.

    **Arguments:**

    - `Q`: an operator (a Hamiltonian, a coupling, a density matrix) gives its matrix; a ket |ψ⟩ the state |ψ⟩⟨ψ|; a
      map, in whatever form QuTiP has it ("super", "choi", "chi", "pauli", or a list of Kraus operators), a
      `Superoperator`.
    - `system`: `Q` is in the basis of this system's Hamiltonian, and is wanted in its energy eigenbasis, as states and
      maps are here. None, as for Hamiltonians and couplings: entries stay as they are.

    **Raises:** `ValueError` for any other kind, or where sizes do not fit.

    !!! example
        >>> import qutip
        >>> system = jr.System.from_hamiltonian(jr.from_qutip(0.3 * qutip.sigmaz()))
        >>> up = jr.from_qutip(qutip.basis(2, 0), system=system)
        >>> print(jr.populations(up))  # spin up is the excited state
        [0. 1.]
    """
    import qutip

    if isinstance(Q, Sequence):
        Q = qutip.kraus_to_super(list(Q))
    check_instance("Q", Q, qutip.Qobj, "a qutip.Qobj, or a list of Kraus operators")
    if Q.isket:
        Q = Q.proj()
    if Q.shape[0] != Q.shape[1] or Q.dims[0] != Q.dims[1] or Q.type not in ("oper", "super"):
        raise ValueError(
            f"Argument `Q` must be a ket, a square operator or a map of a system onto itself, but is a {Q.type} of "
            f"dimensions {Q.dims}."
        )
    if Q.type == "oper":
        matrix = jnp.asarray(Q.full())
        _check_size(system, matrix.shape[0])
        return matrix if system is None else system.to_eigenbasis(matrix)
    Q = qutip.superpauli_to_super(Q) if Q.superrep == "pauli" else qutip.to_super(Q)
    N = round(Q.shape[0] ** 0.5)
    _check_size(system, N)
    S = Superoperator(jnp.asarray(Q.full().reshape((N,) * 4).transpose(1, 0, 3, 2)))
    if system is None or system.basis is None:
        return S
    return _turned(S, jnp.conj(system.basis.T))


def _turned(S: Superoperator, U: Inexact[Array, "N N"] | None) -> Superoperator:
    """ρ → U S(U† ρ U) U†."""
    if U is None:
        return S
    turn = Superoperator.from_unitary(U)
    return turn @ S @ turn.adjoint


def _check_size(system: System | None, N: int) -> None:
    if system is not None and system.size != N:
        raise ValueError(
            f"Argument `system` must have {N} levels, as what is converted has, but has {system.size}."
        )
