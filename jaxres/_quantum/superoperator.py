r"""Linear maps on density matrices, and the forms in which they are written.

These forms are one tensor, S[j', k', j, k], with its indices in different orders:

    rows (j'k'), columns (jk)      the matrix M that acts on vec ρ, row-major
    rows (j'j),  columns (k'k)     the Choi matrix C = Σ_jk S(|j⟩⟨k|) ⊗ |j⟩⟨k|

With a basis of operators P_m and the unitary matrix B of columns vec P_m/√N, B†MB is the Pauli transfer matrix and
B†CB/N the process matrix χ. The eigenvectors of C are the Kraus operators, up to normalisation.
"""

import math
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
    as_count,
    as_inexact,
    as_real,
    as_scalar,
    check_instance,
    check_shape,
    concrete,
    door,
    require,
)
from .._numerics.safe import eigh, safe_sqrt
from .levels import same_gap
from .operators import operator_basis
from .states import States, as_operators, finite, nan_unless, rounding
from .system import System

#: an operator as an N × N matrix: an array, a nested list or an object of QuTiP
Operator = Checked[Inexact[ArrayLike, "N N"]]


class Evidence(eqx.Module):
    """Data for an error estimate of each entry of a map, sharper than one number for all entries.

    - `others`: three more maps, shape (3, N, N, N, N): by the quadrature rule with a half and with a quarter of the
      nodes, and with the contribution that all rules leave out at the ends of their panels; each with its trace
      restored.
    - `inexact`: the error of an amplitude.
    - `analytic`: whether the rules converge exponentially.
    """

    others: Complex[Array, "3 N N N N"]
    inexact: Float[Array, ""]
    analytic: bool = eqx.field(static=True)


class Superoperator(eqx.Module):
    r"""A linear map on density matrices, in the energy eigenbasis.

    $$ρ'_{j'k'} = \sum_{jk} S[j', k', j, k]\, ρ_{jk}$$

    **Arguments:**

    - `tensor`: S[j', k', j, k], shape (N, N, N, N): out, out, in, in.
    - `error`: estimated largest error of an entry.
    - `trace_defect`: largest entry of |S†(1) − 1| before the trace was restored; an independent measure of the
      grid's error.
    - `evidence`: data for a sharper error estimate, set by `scattering_map`; None for other maps.

    `S(rho)` applies the map. `S @ T` is the map that applies T first. `S & T` is S ⊗ T on the product of two systems,
    the left one's index first: `S & Superoperator.identity(D)` leaves a spectator of D levels unchanged. The errors of
    combined maps add, as they do for maps that do not increase distances.

    The methods `is_…` return whether a property holds to a tolerance `tol`. By default it is the deviation that the
    map's own `error`, in all N² entries of a row, and rounding can cause in a map that has the property.

    **Raises:** `ValueError` for a tensor that does not have shape (N, N, N, N), or a negative error.

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, reservoir)
        >>> print(jnp.round(jnp.trace(S(jr.gibbs_state(system, 0.1))).real, 12))
        1.0
        >>> print(S.is_trace_preserving(), S.is_unital())
        True False
    """

    tensor: Complex[Array, "N N N N"] = eqx.field(converter=lambda x: _tensor(x))
    error: Float[Array, ""] = eqx.field(converter=lambda x: _error("error", x), default=0.0)
    trace_defect: Float[Array, ""] = eqx.field(
        converter=lambda x: _error("trace_defect", x), default=0.0
    )
    evidence: Evidence | None = None

    # ----------------------------------------------------------------------------------------------
    # From other forms
    # ----------------------------------------------------------------------------------------------

    @classmethod
    @door
    def identity(cls, size: Checked[int]) -> "Superoperator":
        """The identity map on `size` levels."""
        return cls.from_unitary(jnp.eye(as_count("size", size, 1)))

    @classmethod
    @door
    def from_unitary(cls, U: Operator) -> "Superoperator":
        r"""The map ρ → U ρ U†, for any square matrix U.

        **Raises:** `ValueError` for a matrix that is not square.

        !!! example
            >>> flip = jr.Superoperator.from_unitary(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
            >>> print(jr.populations(flip(jnp.diag(jnp.array([0.25, 0.75])))))
            [0.75 0.25]
        """
        U = as_inexact("U", U)
        check_shape("U", U, 2, "(N, N)")
        return cls.from_kraus(as_operators("U", U)[None])

    @classmethod
    @door
    def from_kraus(cls, operators: Checked[Inexact[ArrayLike, "K N N"]]) -> "Superoperator":
        r"""The map $ρ → \sum_n K_n ρ K_n^\dagger$, for Kraus operators of shape (K, N, N).

        **Raises:** `ValueError` for another shape.
        """
        K = as_inexact("operators", operators)
        check_shape("operators", K, 3, "(K, N, N)")
        K = as_operators("operators", K)
        return cls(jnp.einsum("naj,nbk->abjk", K, jnp.conj(K)))

    @classmethod
    @door
    def from_choi(cls, C: Operator) -> "Superoperator":
        """The map with the Choi matrix C, in the order of `.choi`: rows (j'j), the outgoing index first.

        **Raises:** `ValueError` for a matrix that is not N² × N².
        """
        C = as_inexact("C", C)
        N = math.isqrt(max(C.shape[:1], default=0))
        if N == 0 or C.shape != (N * N, N * N):
            raise ValueError(
                f"Argument `C` must be a matrix of N² rows and columns, but has shape {C.shape}."
            )
        return cls(C.reshape((N,) * 4).transpose(0, 2, 1, 3))

    # ----------------------------------------------------------------------------------------------
    # Forms
    # ----------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of levels N."""
        return self.tensor.shape[-1]

    @property
    @door
    def matrix(self) -> Complex[Array, " M M"]:
        """The matrix that acts on `rho.reshape(-1)` (row-major), shape (N², N²)."""
        return self.tensor.reshape(self.size**2, self.size**2)

    @property
    @door
    def choi(self) -> Complex[Array, " M M"]:
        r"""The Choi matrix $C_{(j'j),(k'k)} = S[j', k', j, k]$: positive semidefinite for a completely positive map.

        $C = \sum_{jk} S(|j⟩⟨k|) ⊗ |j⟩⟨k|$, shape (N², N²), has trace N if S preserves the trace; C/N is the result of
        S on one half of a maximally entangled pair.
        """
        return self.tensor.transpose(0, 2, 1, 3).reshape(self.size**2, self.size**2)

    @property
    @door
    def adjoint(self) -> "Superoperator":
        r"""The map on observables A (Heisenberg picture), $\mathrm{Tr}[A\, S(ρ)] = \mathrm{Tr}[S^†(A)\, ρ]$.

        A must be Hermitian. The adjoint is unital if S preserves the trace.
        """
        tensor = jnp.conj(self.tensor.transpose(2, 3, 0, 1))
        return Superoperator(tensor, self.error, self.trace_defect)

    @door
    def canonical(
        self, tol: Checked[Scalar | None] = None
    ) -> tuple[Float[Array, " M"], Complex[Array, "M N N"]]:
        r"""The canonical form of a map that preserves Hermiticity, whether it is completely positive or not.

        $$S(ρ) = \sum_n λ_n A_n ρ A_n^†, \qquad \mathrm{Tr}\, A_m^† A_n = δ_{mn}, \qquad λ_0 ≥ λ_1 ≥ …$$

        **Returns:** the N² eigenvalues λ_n and eigenvectors A_n of the Choi matrix, shapes (N²,) and (N², N, N).
        Where eigenvalues meet, the choice of the A_n is a convention, and only quantities that do not depend on it have
        a derivative.

        **Raises:** `ValueError` for a map that does not preserve Hermiticity to the tolerance `tol` (under jit: a
        run-time error).

        !!! example
            >>> model = jr.letter.model(splitting=6.0, coupling=5.0, width=0.2, position=0.0)
            >>> weights, _ = jr.scattering_map(*model).canonical()
            >>> print(jnp.round(weights, 4))  # Eqs. (22), (23) are not quite a state: one is negative
            [ 1.5589  0.3316  0.1324 -0.0229]
        """
        C = self.preserving_hermiticity("canonical", tol).choi
        weights, vectors = eigh((C + jnp.conj(C.T)) / 2)
        operators = vectors.T[::-1].reshape(-1, self.size, self.size)
        return weights[::-1] * finite(C), operators * finite(C)

    @door
    def kraus(self, tol: Checked[Scalar | None] = None) -> Complex[Array, "M N N"]:
        r"""Kraus operators of a completely positive map, $S(ρ) = \sum_n K_n ρ K_n^†$, the largest first.

        **Returns:** the orthogonal operators $\sqrt{λ_n} A_n$ of the `canonical` form, shape (N², N, N). Those beyond
        the rank of the map are 0.

        **Raises:** `ValueError` for a map that is not completely positive: if an eigenvalue of its Choi matrix is below
        −`tol` (under jit: a run-time error).

        !!! example
            >>> decay = jnp.array([[[1.0, 0.0], [0.0, 0.6]], [[0.0, 0.8], [0.0, 0.0]]])
            >>> S = jr.Superoperator.from_kraus(decay)
            >>> bool(jnp.allclose(jr.Superoperator.from_kraus(S.kraus()).tensor, S.tensor))
            True
        """
        weights, operators = self.positive("kraus", tol).canonical(tol)
        return safe_sqrt(weights)[:, None, None] * operators

    @door
    def chi(
        self, basis: Checked[Inexact[ArrayLike, "M N N"] | None] = None
    ) -> Complex[Array, "M M"]:
        r"""The process matrix χ in a basis of operators, $S(ρ) = \sum_{mn} χ_{mn} P_m ρ P_n^†$.

        **Arguments:**

        - `basis`: N² matrices with Tr P_m†P_n = N δ_mn, shape (N², N, N), in the energy eigenbasis. By default
          products of 1, σ_x, σ_y, σ_z where N is a power of 2 (Nielsen and Chuang, §8.4.2), with σ_z = +1 in the ground
          state, and generalised Gell-Mann matrices otherwise.

        **Returns:** shape (N², N²), of trace 1 if S preserves the trace.

        **Raises:** `ValueError` for a basis of another shape or without that property. If it is traced, χ is NaN.

        !!! example
            >>> S = jr.Superoperator.from_unitary(jnp.array([[0.0, 1.0], [1.0, 0.0]]))  # σ_x
            >>> print(jnp.diagonal(S.chi()).real)
            [0. 1. 0. 0.]
        """
        B = self._columns(basis)
        return jnp.conj(B.T) @ self.choi @ B / self.size

    @door
    def pauli_transfer_matrix(self) -> Float[Array, "M M"]:
        r"""The Pauli transfer matrix $R_{mn} = \mathrm{Tr}[P_m S(P_n)]/N$ with the default matrices P_n of `chi`.

        It acts on the vector of Tr[P_n ρ] (for a qubit 1 and the Bloch vector), and is real because S preserves
        Hermiticity. Its first row is (1, 0, 0, …) if S preserves the trace, and so is its first column if S is unital.

        **Returns:** shape (N², N²).

        **Raises:** `ValueError` for a map that does not preserve Hermiticity (under jit: a run-time error).

        !!! example
            >>> decay = jnp.array([[[1.0, 0.0], [0.0, 0.6]], [[0.0, 0.8], [0.0, 0.0]]])
            >>> print(jnp.abs(jr.Superoperator.from_kraus(decay).pauli_transfer_matrix().round(9)))
            [[1.   0.   0.   0.  ]
             [0.   0.6  0.   0.  ]
             [0.   0.   0.6  0.  ]
             [0.64 0.   0.   0.36]]
        """
        B = self._columns(None)
        self = self.preserving_hermiticity("pauli_transfer_matrix", None)
        return jnp.real(jnp.conj(B.T) @ self.matrix @ B)

    def _columns(self, basis) -> Complex[Array, "M M"]:
        """The unitary matrix whose columns are vec P_m/√N."""
        N = self.size
        if basis is None:
            return jnp.asarray(operator_basis(N), self.tensor.dtype).reshape(N * N, -1).T / N**0.5
        P, tolerance = as_inexact("basis", basis), 1e3 * N * rounding(basis)
        if P.shape != (N * N, N, N):
            raise ValueError(
                f"Argument `basis` must have shape {(N * N, N, N)}, but has shape {P.shape}."
            )
        B = P.astype(self.tensor.dtype).reshape(N * N, N * N).T / N**0.5
        defect = jnp.max(jnp.abs(jnp.conj(B.T) @ B - jnp.eye(N * N)))
        if concrete(defect):
            require(
                defect < tolerance,
                f"Argument `basis` must have Tr P_m†P_n = N δ_mn, but that is off by {defect * N:.2g}.",
            )
        return B * nan_unless(defect < tolerance)

    # ----------------------------------------------------------------------------------------------
    # Properties
    # ----------------------------------------------------------------------------------------------

    @door
    def is_trace_preserving(self, tol: Checked[Scalar | None] = None) -> Bool[Array, ""]:
        """Whether Tr S(ρ) = Tr ρ for every ρ: no entry of S†(1) − 1 exceeds `tol`."""
        return self.adjoint.is_unital(tol)

    @door
    def is_unital(self, tol: Checked[Scalar | None] = None) -> Bool[Array, ""]:
        """Whether S(1) = 1: no entry of S(1) − 1 exceeds `tol`. Unital maps leave the fully mixed state unchanged."""
        one = jnp.eye(self.size, dtype=self.tensor.dtype)
        return jnp.max(jnp.abs(self(one) - one)) <= self._tolerance(tol)

    @door
    def is_hermiticity_preserving(self, tol: Checked[Scalar | None] = None) -> Bool[Array, ""]:
        """Whether S(ρ†) = S(ρ)†: the Choi matrix is Hermitian to `tol`."""
        C = self.choi
        return jnp.max(jnp.abs(C - jnp.conj(C.T))) <= self._tolerance(tol)

    @door
    def is_completely_positive(self, tol: Checked[Scalar | None] = None) -> Bool[Array, ""]:
        """Whether S has Kraus operators: the Choi matrix is Hermitian to `tol`, with no eigenvalue below −`tol`."""
        return self.is_hermiticity_preserving(tol) & (self._least() >= -self._tolerance(tol))

    @door
    def is_cptp(self, tol: Checked[Scalar | None] = None) -> Bool[Array, ""]:
        """Whether S is a quantum channel: completely positive and trace-preserving.

        The scattering map of an `EffusionPacket` may not be one, since its ρ_U, Eqs. (22), (23), is not quite positive;
        that of a `ThermalMixture` always is.
        """
        return self.is_completely_positive(tol) & self.is_trace_preserving(tol)

    def _least(self) -> Float[Array, ""]:
        """The lowest eigenvalue of the Choi matrix."""
        C = jax.lax.stop_gradient(self.choi)
        return eigh((C + jnp.conj(C.T)) / 2)[0][0] * finite(C)

    def _tolerance(self, tol):
        if tol is not None:
            return as_scalar("tol", tol, nonnegative=True)
        # the error of a sum of M entries is up to M times that of one; so is that of an eigenvalue and of S(1)
        M = self.size**2
        error = jax.lax.stop_gradient(self.error)
        largest = jnp.max(jnp.abs(jax.lax.stop_gradient(self.tensor)))
        return M * (error + 16 * jnp.finfo(error.dtype).eps * largest)

    def preserving_hermiticity(
        self, form: str, tol: Checked[Scalar | None] = None
    ) -> "Superoperator":
        """Returns the map itself if it preserves Hermiticity; `form` names the caller in the error message.

        **Raises:** `ValueError` (under jit: a run-time error) if it does not.
        """
        C, tolerance = self.choi, self._tolerance(tol)
        return _refuse(
            self,
            jnp.max(jnp.abs(C - jnp.conj(C.T))) > tolerance,  # false for NaN, which is passed on
            f"Argument `self` of {form} must preserve Hermiticity, but S(ρ†) is not S(ρ)†.",
        )

    @door
    def positive(self, form: str, tol: Checked[Scalar | None] = None) -> "Superoperator":
        """Returns the map itself if it is completely positive; `form` names the caller in the error message.

        **Raises:** `ValueError` (under jit: a run-time error) if it is not.
        """
        least = self._least()
        value = f"{float(least):.3g}" if concrete(least) else "negative"
        return _refuse(
            self.preserving_hermiticity(form, tol),
            least < -self._tolerance(tol),
            f"Argument `self` of {form} must be completely positive, but the lowest eigenvalue of its Choi matrix is "
            f"{value}. `canonical` has no such limits; a packet whose ρ_U is positive (jaxres.ThermalMixture) makes a "
            "positive map; `tol` is the size that is taken for an error.",
        )

    # ----------------------------------------------------------------------------------------------
    # Operations
    # ----------------------------------------------------------------------------------------------

    @door
    def __call__(self, rho: States) -> Complex[Array, "*b N N"]:
        """Returns S(ρ) for any matrix, shape (N, N), or several with leading axes."""
        rho = as_operators("rho", rho, self.size)
        return jnp.einsum("abjk,...jk->...ab", self.tensor, rho)

    @door
    def __matmul__(self, other: Checked["Superoperator"]) -> "Superoperator":
        """Returns the map that applies `other` first; raises `ValueError` if the two differ in size."""
        check_instance("other", other, Superoperator, "a map; S(rho) applies S to a state")
        if self.size != other.size:
            raise ValueError(
                f"Argument `other` must be a map on {self.size} levels, but is one on {other.size}."
            )

        def join(first, second):
            return jnp.einsum("...abjk,...jkcd->...abcd", first, second)

        evidence = None
        if self.evidence is not None and other.evidence is not None:
            evidence = Evidence(
                join(self.evidence.others, other.evidence.others),
                self.evidence.inexact + other.evidence.inexact,
                self.evidence.analytic and other.evidence.analytic,
            )
        return Superoperator(
            join(self.tensor, other.tensor),
            error=self.error + other.error,
            trace_defect=self.trace_defect + other.trace_defect,
            evidence=evidence,
        )

    def linearly(
        self, function: Callable[[Array], Array], weight: Float[Array, ""] | float = 1.0
    ) -> "Superoperator":
        """Applies a linear function to the tensor, and multiplies the errors by `weight`."""
        evidence = self.evidence
        if evidence is not None:
            others, inexact = jax.lax.stop_gradient(
                (jax.vmap(function)(evidence.others), evidence.inexact * weight)
            )
            evidence = Evidence(others, inexact, evidence.analytic)
        error, defect = self.error * weight, self.trace_defect * weight
        return Superoperator(function(self.tensor), error, defect, evidence)

    @door
    def __and__(self, other: Checked["Superoperator"]) -> "Superoperator":
        """The map S ⊗ T on the product of two systems. Level (j, a) has index j·D + a, as in `jnp.kron`.

        So the levels of the product are not in the order of their energies.

        !!! example
            >>> S = jr.scattering_map(*jr.letter.model())
            >>> hit_or_not = S & jr.Superoperator.identity(3)
            >>> hit_or_not.size
            6
        """
        check_instance("other", other, Superoperator, "a map")
        size = self.size * other.size
        tensor = jnp.einsum("abjk,xymn->axbyjmkn", self.tensor, other.tensor)
        return Superoperator(
            tensor.reshape((size,) * 4),
            error=self.error + other.error,
            trace_defect=self.trace_defect + other.trace_defect,
        )


def _refuse(S: Superoperator, bad: Bool[Array, ""], message: str) -> Superoperator:
    """Returns S unless `bad`; then raises a ValueError, or an error at run time where `bad` is traced."""
    if concrete(bad):
        require(not bad, message)
        return S
    return eqx.error_if(S, bad, message)


def check_map(name: str, S: Any, system: Any) -> None:
    """Raises a ValueError unless S is a map on the levels of the system."""
    check_instance("system", system, System, "a jaxres.System")
    check_instance(name, S, Superoperator, "a map, as jaxres.scattering_map returns it")
    check_size(name, S.size, system)


def check_size(name: str, size: int, system: System) -> None:
    """Raises a ValueError unless `size` is the number of levels of the system."""
    if size != system.size:
        raise ValueError(
            f"Argument `{name}` must be of {system.size} levels, as the system is, but is of {size}."
        )


def _tensor(x):
    x = as_inexact("tensor", x)
    check_shape("tensor", x, 4, "(N, N, N, N)")
    if len(set(x.shape)) > 1 or x.size == 0:
        raise ValueError(
            f"Argument `tensor` must have shape (N, N, N, N), but has shape {x.shape}."
        )
    return x.astype(jnp.result_type(complex))


def _error(name, x):
    x = as_real(name, x)
    check_shape(name, x, 0, "()")
    if concrete(x):  # NaN passes: it is the error of a map that could not be computed
        require(~(np.asarray(x) < 0), f"Argument `{name}` must not be negative, but is {x:g}.")
    return x


def covariant(system: System, S: Superoperator) -> Superoperator:
    """Averages S over the time of the collision; the result commutes with the free evolution."""
    N = system.size
    same = same_gap(system.levels).reshape(N, N, N, N).transpose(0, 2, 1, 3)
    return Superoperator(jnp.where(same, S.tensor, 0), S.error, S.trace_defect)
