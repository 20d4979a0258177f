r"""Conversion to QuTiP and back.

Two conventions differ. QuTiP stacks columns: its vector of ρ has ρ_jk at k·N + j, that of jaxres at j·N + k. And
QuTiP's operators are in the basis in which the Hamiltonian was given, while states and maps of jaxres are in the energy
eigenbasis, levels ascending. The functions always convert the order; they change the basis if `system=` is given.

QuTiP's forms of a map have other conventions, too: its Choi matrix has the incoming index first; its χ has trace N²,
not 1; and in χ and in the Pauli basis its σ_y is −σ_y (QuTiP 5.3, its issue 1873).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Inexact

from .._checks import (
    Checked,
    as_complex,
    as_count,
    as_matrix,
    check_instance,
    concrete,
    door,
    shown,
)
from .superoperator import Superoperator
from .system import System

if TYPE_CHECKING:
    import qutip


@door
def to_qutip(
    x: Checked[System | Superoperator | ArrayLike],
    *,
    system: Checked[System | None] = None,
    dims: Checked[Sequence[int] | None] = None,
) -> "qutip.Qobj":
    r"""Returns the `qutip.Qobj` of a system's Hamiltonian, of a map, or of a state or another operator.

    **Arguments:**

    - `x`: a `System` gives its Hamiltonian, in the basis in which its couplings are given; a `Superoperator` gives a
      Qobj of type "super" (`qutip.to_choi`, `to_kraus`, `to_chi` and `to_superpauli` take it from there); a matrix
      gives an operator.
    - `system`: converts a state or map from the energy eigenbasis of this system to the basis of its Hamiltonian,
      ρ → U ρ U†, S → U S(U† · U) U† with U = `system.basis`. By default the entries stay as they are.
    - `dims`: levels of the factors of a composite system, `[2, 2]` for two qubits; by default one factor of N levels.

    **Returns:** `qutip.Qobj`.

    **Raises:** `ValueError` where sizes do not match, or for traced values: the function works outside jit only. It
    needs QuTiP 5 (`pip install 'jaxres[qutip]'`).

    !!! example
        >>> H = jnp.array([[0.3, 0.1], [0.1, -0.3]])
        >>> system = jr.System.from_hamiltonian(H)
        >>> rho = jr.to_qutip(jr.gibbs_state(system, 0.1), system=system)
        >>> bool((rho - (-0.1 * jr.to_qutip(H)).expm().unit()).norm() < 1e-14)
        True
    """
    import qutip

    if system is not None:
        check_instance("system", system, System, "a jaxres.System")
    if isinstance(x, System):
        return to_qutip(x.from_eigenbasis(jnp.diag(x.levels)), dims=dims)
    if not isinstance(x, Superoperator):
        x = as_matrix("x", x)
    if not concrete(x, system):
        raise ValueError("Argument `x` must be known numbers, but is traced: QuTiP is outside jit.")
    N = x.size if isinstance(x, Superoperator) else x.shape[-1]
    dims = _as_dims(dims, N)
    _check_size(system, N)
    if isinstance(x, Superoperator):
        x = x if system is None else _turned(x, system.basis)
        columns = np.asarray(x.tensor).transpose(1, 0, 3, 2).reshape(N * N, N * N)
        return qutip.Qobj(columns, dims=[[dims, dims], [dims, dims]], superrep="super")
    x = x if system is None else system.from_eigenbasis(x)
    return qutip.Qobj(np.asarray(x), dims=[dims, dims])


@door
def from_qutip(
    Q: "qutip.Qobj | Sequence[qutip.Qobj] | Any", *, system: Checked[System | None] = None
) -> Superoperator | Complex[Array, "N N"]:
    r"""Converts a `qutip.Qobj` to a matrix, or to a `Superoperator` if it is a map.

    **Arguments:**

    - `Q`: an operator (a Hamiltonian, a coupling, a density matrix), a ket, or a map in any of QuTiP's forms ("super",
      "choi", "chi", "pauli", or a list of Kraus operators).
    - `system`: converts `Q` from the basis of this system's Hamiltonian to its energy eigenbasis, as needed for states
      and maps. By default, as needed for Hamiltonians and couplings, the entries stay as they are.

    **Returns:** the matrix of an operator, shape (N, N); |ψ⟩⟨ψ| for a ket |ψ⟩; a `Superoperator` for a map.

    **Raises:** `ValueError` for any other kind of object, or where sizes do not match.

    !!! example
        >>> import qutip
        >>> system = jr.System.from_hamiltonian(jr.from_qutip(0.3 * qutip.sigmaz()))
        >>> up = jr.from_qutip(qutip.basis(2, 0), system=system)
        >>> print(jr.populations(up))  # spin up is the excited state
        [0. 1.]
    """
    import qutip

    remedy = "a qutip.Qobj, or a list of Kraus operators"
    if isinstance(Q, list | tuple):
        for K in Q:
            check_instance("Q", K, qutip.Qobj, remedy)
            _check_square(K, "oper")
        if len({str(K.dims) for K in Q}) != 1:
            raise ValueError(
                "Argument `Q` must be Kraus operators of one system, at least one, but has dimensions "
                f"{[K.dims for K in Q]}."
            )
        Q = qutip.kraus_to_super(list(Q))
    if not isinstance(Q, qutip.Qobj):
        raise ValueError(f"Argument `Q` must be {remedy}, but is {shown(Q)}.")
    if Q.isket:
        Q = Q.proj()
    _check_square(Q, "oper", "super")
    if Q.type == "oper":
        matrix = as_complex("Q", Q)
        _check_size(system, matrix.shape[0])
        return matrix if system is None else system.to_eigenbasis(matrix)
    # each side of a map's dimensions is that of an operator, [rows, columns]; qutip.tensor lists those of the factors
    rows, *columns = cast(list, Q.dims[0])
    if columns != [rows] or not all(isinstance(d, int) for d in rows):
        raise ValueError(
            f"Argument `Q` must be a map of the operators of one system, but has dimensions {Q.dims}, those of a "
            "product as qutip.tensor makes it, with the indices in another order. Use qutip.super_tensor."
        )
    Q = qutip.superpauli_to_super(Q) if Q.superrep == "pauli" else qutip.to_super(Q)
    N = round(Q.shape[0] ** 0.5)
    _check_size(system, N)
    S = Superoperator(as_complex("Q", Q.full().reshape((N,) * 4).transpose(1, 0, 3, 2)))
    if system is None or system.basis is None:
        return S
    return _turned(S, jnp.conj(system.basis.T))


def _turned(S: Superoperator, U: Inexact[Array, "N N"] | None) -> Superoperator:
    """The map ρ → U S(U† ρ U) U†."""
    if U is None:
        return S
    turn = Superoperator.from_unitary(U)
    return turn @ S @ turn.adjoint


def _check_square(Q: "qutip.Qobj", *kinds: str) -> None:
    if Q.shape[0] != Q.shape[1] or Q.dims[0] != Q.dims[1] or Q.type not in kinds:
        raise ValueError(
            f"Argument `Q` must be a ket, a square operator or a map of a system onto itself, but is a {Q.type} of "
            f"dimensions {Q.dims}."
        )


def _as_dims(dims: Any, N: int) -> list[int]:
    """The levels of the factors, checked to multiply to N."""
    if dims is None:
        return [N]
    one_axis = isinstance(dims, list | tuple) or (isinstance(dims, np.ndarray) and dims.ndim == 1)
    if not one_axis:
        raise ValueError(f"Argument `dims` must be a list of whole numbers, but is {shown(dims)}.")
    dims = [as_count("dims", d, 1) for d in dims]
    if math.prod(dims) != N:
        raise ValueError(f"Argument `dims` must multiply to {N} levels, but is {shown(dims)}.")
    return dims


def _check_size(system: Checked[System | None], N: int) -> None:
    if system is not None:
        check_instance("system", system, System, "a jaxres.System")
    if system is not None and system.size != N:
        raise ValueError(
            f"Argument `system` must have {N} levels, as what is converted has, but has {system.size}."
        )
