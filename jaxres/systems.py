r"""Common systems, and the operators that couple to them.

    system = jr.systems.qubit(0.6, direction=[1.0, 0.0, 0.0])      a jaxres.System
    V = jr.systems.pauli([1.0, 1.0, 0.0])                          σ_x + σ_y, in the same basis

All real parameters may be traced, and are differentiable also where levels meet (`chain` states the condition).
Operators are in the usual bases: spin up first for a qubit, m = j first for a spin, the ground state first for an
oscillator, and products with the first qubit's index first for a chain.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from ._checks import (
    Count,
    Numbers,
    Scalar,
    as_count,
    as_float,
    as_matrix,
    as_real,
    as_scalar,
    concrete,
    door,
    or_nan,
    require,
)
from ._numerics.safe import eigh
from ._quantum.operators import PAULI, annihilation_matrix, spin_matrices
from ._quantum.system import System

Z = (0.0, 0.0, 1.0)
#: largest number of levels, since a map on more levels would have over 10¹² entries
MOST = 1024


@door
def qubit(splitting: Scalar, direction: Numbers = Z) -> System:
    r"""A qubit in a field of any direction, $H_S = \frac{Δ}{2}\, n·σ$.

    **Arguments:**

    - `splitting`: Δ ≥ 0 (energy).
    - `direction`: the vector n, shape (3,), of any length but 0; only its direction counts.

    Couplings are given in the basis of σ_z, spin up first, as by `pauli`. The Letter's qubit has n along z and
    V = λ(σ_x + σ_y).

    **Returns:** `System`, differentiable in both arguments, at Δ = 0 from above.

    **Raises:** `ValueError` for a negative splitting or a direction of length 0.

    !!! example
        >>> system = jr.systems.qubit(0.6, direction=[1.0, 0.0, 0.0])
        >>> print(system.levels)
        [-0.3  0.3]
        >>> in_eigenbasis = system.to_eigenbasis(jr.systems.pauli([1.0, 0.0, 0.0]))
        >>> print(jnp.allclose(in_eigenbasis, jnp.diag(jnp.array([-1.0, 1.0]))))
        True
    """
    return spin(0.5, splitting, direction)


@door
def spin(j: Scalar, splitting: Scalar, direction: Numbers = Z) -> System:
    r"""A spin j in a field of any direction, $H_S = Δ\, n·J$: 2j + 1 levels Δ apart.

    **Arguments:**

    - `j`: 1/2, 1, 3/2, …
    - `splitting`, `direction`: as for `qubit`, which is the case j = 1/2.

    Couplings are given in the basis of J_z, m = j first, as by `spin_operator`.

    **Returns:** `System`, differentiable as `qubit`.

    **Raises:** `ValueError` if 2j is not a positive integer below 1024, and as `qubit`.

    !!! example
        >>> print(jr.systems.spin(1.5, 0.5).levels)
        [-0.75 -0.25  0.25  0.75]
    """
    N = _dimension(j)
    splitting = as_scalar("splitting", splitting, nonnegative=True, finite=True)
    n = _vectors("direction", direction, ())
    if concrete(n):
        require(np.any(np.asarray(n)), f"Argument `direction` must have a direction, but is {n}.")
    else:
        n = or_nan(jnp.any(n != 0), n)
    # scaled first, since the squares of n may overflow or underflow
    n = n / jax.lax.stop_gradient(jnp.max(jnp.abs(n)))
    # eigenvectors of n·J, not of Δ n·J: they do not depend on Δ, and no levels meet at Δ = 0
    _, basis = eigh(spin_operator(j, n / jnp.sqrt(jnp.sum(n**2))))
    # eigenvectors of NaN need not be NaN
    basis = basis if concrete(n) else or_nan(jnp.all(jnp.isfinite(n)), basis)
    return System(splitting * np.arange(-(N - 1) / 2, N / 2).astype(splitting.dtype), basis)


@door
def oscillator(size: Count, frequency: Scalar) -> System:
    r"""The lowest levels of a harmonic oscillator, $H_S = ω(a^†a + \tfrac12)$.

    **Arguments:**

    - `size`: number N of levels kept, at least 1.
    - `frequency`: ω ≥ 0 (ħ = 1).

    Couplings are given in its eigenbasis, as by `annihilation`. The truncation is accurate if the highest level is
    empty: βωN ≫ 1.

    **Returns:** `System`, differentiable in ω.

    **Raises:** `ValueError` for a negative frequency, or a size below 1 or above 1024.

    !!! example
        >>> print(jr.systems.oscillator(3, 2.0).levels)
        [1. 3. 5.]
    """
    size = as_count("size", size, 1, MOST)
    frequency = as_scalar("frequency", frequency, nonnegative=True, finite=True)
    return System(frequency * (np.arange(size) + 0.5).astype(frequency.dtype))


@door
def chain(sites: Count, *, field: Numbers, exchange: Numbers) -> System:
    r"""A chain of qubits, N = 2ⁿ levels, in fields and with exchange between neighbours.

    $$H_S = \frac12 \sum_i h_i·σ^{(i)} + \sum_i \sum_{a=x,y,z} J^a_i σ_a^{(i)} σ_a^{(i+1)}$$

    **Arguments:**

    - `sites`: number n of qubits, at least 1.
    - `field`: h, shape (3,), or (n, 3) for a different field at each qubit.
    - `exchange`: J, shape (3,), or (n − 1, 3) for a different exchange at each bond; (J, J, 0) is the XX chain,
      (J, J, J) the Heisenberg chain, (0, 0, J) the Ising chain.

    Particles that collide with one end couple to it alone: V ⊗ 1 = `on_site(V, 0, sites)`.

    **Returns:** `System`, differentiable in h and J. Where levels meet, the derivative is right if the terms that are
    not 0 commute within the level. It misses a term that is 0 and would split the level along other vectors (see
    `System.from_hamiltonian`).

    **Raises:** `ValueError` for other shapes, values that are not finite, or more than 10 qubits.

    !!! example
        >>> system = jr.systems.chain(2, field=[0.0, 0.0, 1.0], exchange=[0.1, 0.1, 0.0])
        >>> print(jnp.round(system.levels, 12))
        [-1.  -0.2  0.2  1. ]
        >>> jr.systems.on_site(jr.systems.pauli([1.0, 0.0, 0.0]), 0, sites=2).shape
        (4, 4)
    """
    sites = as_count("sites", sites, 1, MOST.bit_length() - 1)
    h, J = _vectors("field", field, (sites,)), _vectors("exchange", exchange, (sites - 1,))
    H = _chain(sites, h, J)
    # The same terms in other proportions split levels that meet by accident.
    return System.from_hamiltonian(H, resolve=_chain(sites, _uneven(h), _uneven(J)))


def _chain(sites, h, J):
    one_site, bond = _terms(sites)
    h, J = jnp.broadcast_to(h, (sites, 3)), jnp.broadcast_to(J, (sites - 1, 3))
    dtype = jnp.result_type(h.dtype, J.dtype, jnp.complex64)
    one_site, bond = jnp.asarray(one_site, dtype), jnp.asarray(bond, dtype)
    return jnp.einsum("ia,iabc->bc", h / 2, one_site) + jnp.einsum("ia,iabc->bc", J, bond)


@lru_cache(maxsize=8)
def _terms(sites):
    """All operators σ_a^(i), and all products σ_a^(i) σ_a^(i+1)."""
    sigma = np.array([[_embed(s, i, sites) for s in PAULI] for i in range(sites)])
    return sigma, np.matmul(sigma[:-1], sigma[1:])


def _uneven(x):
    """Changes the proportions of the entries by irrational factors, which no symmetry produces."""
    golden = (np.sqrt(5) - 1) / 2
    return x * (1 + (1 + np.arange(x.size)) * golden % 1).reshape(x.shape).astype(x.dtype)


# --------------------------------------------------------------------------------------------------
# Operators
# --------------------------------------------------------------------------------------------------


@door
def pauli(vector: Numbers) -> Complex[Array, "2 2"]:
    r"""The operator $v·σ = v_x σ_x + v_y σ_y + v_z σ_z$ for any finite vector v, shape (3,); spin up first.

    **Raises:** `ValueError` for another shape, or values that are not finite.

    !!! example
        >>> print(jr.systems.pauli([1.0, 1.0, 0.0])[0, 1])  # the Letter's coupling
        (1-1j)
    """
    return 2 * spin_operator(0.5, vector)


@door
def spin_operator(j: Scalar, vector: Numbers) -> Complex[Array, "N N"]:
    r"""The operator $v·J = v_x J_x + v_y J_y + v_z J_z$ of a spin j for any finite vector v, shape (3,); m = j first.

    **Raises:** `ValueError` as `spin` for j, and as `pauli` for v.

    !!! example
        >>> print(jnp.abs(jr.systems.spin_operator(1, [0.0, 0.0, 1.0])))
        [[1. 0. 0.]
         [0. 0. 0.]
         [0. 0. 1.]]
    """
    v = _vectors("vector", vector, ())
    J = jnp.asarray(spin_matrices(_dimension(j)), jnp.result_type(v.dtype, jnp.complex64))
    return jnp.einsum("a,abc->bc", v, J)


@door
def annihilation(size: Count) -> Float[Array, "N N"]:
    r"""The operator $a\,|n⟩ = \sqrt n\,|n-1⟩$ on the lowest levels of an oscillator; a + a† couples to its position.

    **Arguments:** `size`: number N of levels, from 1 to 1024. **Raises:** `ValueError` for another size.

    !!! example
        >>> a = jr.systems.annihilation(3)
        >>> print(jnp.round(jnp.diagonal(a.T @ a), 12))
        [0. 1. 2.]
    """
    return as_real("size", annihilation_matrix(as_count("size", size, 1, MOST)))


@door
def on_site(operator: Numbers, site: Count, sites: Count) -> Inexact[Array, "N N"]:
    r"""An operator X on one qubit of a chain, $1 ⊗ … ⊗ X ⊗ … ⊗ 1$.

    **Arguments:** `operator`: X, shape (2, 2); `site`: index of the qubit, from 0 to `sites` − 1; `sites`: number of
    qubits, from 1 to 10.

    **Returns:** shape (2ⁿ, 2ⁿ) for n sites. **Raises:** `ValueError` for other values.

    !!! example
        >>> print(jnp.diagonal(jr.systems.on_site(jr.systems.pauli([0.0, 0.0, 1.0]), 1, sites=2)).real)
        [ 1. -1.  1. -1.]
    """
    sites = as_count("sites", sites, 1, MOST.bit_length() - 1)
    site = as_count("site", site, 0, sites - 1)
    operator = as_matrix("operator", operator, 2)
    left, right = (jnp.eye(2**n, dtype=operator.dtype) for n in (site, sites - 1 - site))
    return jnp.kron(jnp.kron(left, operator), right)


def _embed(operator, site, sites):
    return np.kron(np.kron(np.eye(2**site), operator), np.eye(2 ** (sites - 1 - site)))


def _dimension(j: Scalar) -> int:
    twice = 2 * as_float("j", j)
    require(
        1 <= twice < MOST and abs(twice - round(twice)) < 1e-9,
        f"Argument `j` must be one of 1/2, 1, 3/2, … {(MOST - 1) / 2:g}, but is {twice / 2:g}.",
    )
    return round(twice) + 1


def _vectors(name: str, x, many: tuple[int, ...]) -> Float[Array, "*n 3"]:
    """Converts to one finite vector, or to an array of them with the leading axes `many`."""
    v = as_real(name, x)
    allowed = [(3,), (*many, 3)]
    if v.shape not in allowed:
        shapes = " or ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"Argument `{name}` must have shape {shapes}, but has shape {v.shape}.")
    if not concrete(v):
        return or_nan(jnp.all(jnp.isfinite(v)), v)
    require(np.isfinite(v), f"Argument `{name}` must be finite, but is {v}.")
    return v
