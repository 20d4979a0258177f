"""Standard matrices: Pauli matrices, spin and oscillator operators, and bases of operators.

They are constant tables, computed once in double precision; the caller casts them to its own precision.
"""

from functools import lru_cache, reduce

import numpy as np

PAULI = np.array(
    [[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]
)  # σ_x, σ_y, σ_z; index 0 is spin up


@lru_cache(maxsize=32)
def spin_matrices(dimension: int) -> np.ndarray:
    """The matrices J_x, J_y, J_z of a spin j = (dimension − 1)/2, shape (3, 2j+1, 2j+1), m = j first."""
    j = (dimension - 1) / 2
    m = j - np.arange(dimension)
    # J₊ |m⟩ = √(j(j+1) − m(m+1)) |m+1⟩, and m + 1 stands one row above m
    raising = np.diag(np.sqrt(j * (j + 1) - m[1:] * (m[1:] + 1)), 1)
    return _frozen(
        np.stack([(raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)]).astype(
            complex
        )
    )


@lru_cache(maxsize=32)
def annihilation_matrix(dimension: int) -> np.ndarray:
    """The operator a on the first levels of an oscillator, a |n⟩ = √n |n−1⟩."""
    return _frozen(np.diag(np.sqrt(np.arange(1.0, dimension)), 1))


@lru_cache(maxsize=16)
def operator_basis(N: int) -> np.ndarray:
    """N² Hermitian matrices P_m with P_0 = 1 and Tr P_m P_n = N δ_mn, shape (N², N, N).

    Where N is a power of 2, they are the products of 1, σ_x, σ_y, σ_z, the last factor changing fastest. Otherwise they
    are the generalised Gell-Mann matrices, in the order 1, those like σ_x for j < k, those like σ_y, the diagonal ones.
    """
    if N & (N - 1) == 0:
        one = np.concatenate([np.eye(2)[None], PAULI])
        each = [one] * (N.bit_length() - 1)
        return _frozen(reduce(_products, each, np.ones((1, 1, 1), complex)))
    rows, columns = np.triu_indices(N, 1)
    pairs = np.arange(len(rows))
    flip = np.zeros((len(rows), N, N), complex)
    flip[pairs, rows, columns] = 1
    adjoint = flip.transpose(0, 2, 1)
    diagonal = np.stack(
        [
            np.diag([1.0] * k + [-k] + [0.0] * (N - k - 1)) / np.sqrt(k * (k + 1))
            for k in range(1, N)
        ]
    )
    scale = np.sqrt(N)
    return _frozen(
        np.concatenate(
            [
                np.eye(N)[None],
                np.sqrt(0.5) * scale * (flip + adjoint),
                np.sqrt(0.5) * scale * -1j * (flip - adjoint),
                scale * diagonal,
            ]
        )
    )


def _products(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """All Kronecker products of a matrix in A and one in B, the index of B changing fastest."""
    n = A.shape[1] * B.shape[1]
    return np.einsum("xab,ycd->xyacbd", A, B).reshape(-1, n, n)


def _frozen(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False
    return table
