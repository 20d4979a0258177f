r"""Particles with internal levels (Ref. 12): the collision is one of system ⊗ unit, and the unit leaves with its state.

$$S(ρ) = \mathrm{Tr}_U\, S_{SU}(ρ ⊗ σ),$$

where S_SU is the scattering map (Eq. 17) of the joint Hamiltonian H_S ⊗ 1 + 1 ⊗ H_U with couplings on system ⊗ unit,
and σ the state in which every unit arrives. If σ is thermal at the temperature of the gas, both together are a
reservoir in equilibrium: with e^{−βH_S} ⊗ e^{−βH_U} stationary under S_SU, the Gibbs state of the system is so under S.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

from .._checks import (
    Checked,
    Restorable,
    Scalar,
    as_instance,
    as_scalar,
    as_state,
    check_instance,
    concrete,
    door,
    normalised,
    require,
)
from .._numerics.safe import eigh
from .._quantum.levels import pinned
from .._quantum.states import gibbs_state
from .._quantum.superoperator import Superoperator
from .._quantum.system import System


class InternalState(Restorable):
    r"""The internal levels of a particle, and the state in which it arrives.

    **Arguments:**

    - `levels`: a `System` of D levels.
    - `state`: density matrix σ, shape (D, D), in the eigenbasis of the levels, at the time when the packet is at its
      position x₀; Hermitian, of trace 1, positive semidefinite.

    **Raises:** `ValueError` if the state is not one.

    !!! example
        >>> unit = jr.InternalState.thermal(jr.System([0.0, 1.0]), beta=0.1)
        >>> print(jnp.round(jr.populations(unit.state), 6))
        [0.524979 0.475021]
    """

    levels: System = eqx.field(
        converter=lambda x: as_instance("levels", x, System, "a jaxres.System")
    )
    state: Complex[Array, "D D"] = eqx.field(converter=partial(as_state, "state"))

    def __check_init__(self):
        N = self.levels.size
        if self.state.shape != (N, N):
            raise ValueError(
                f"Argument `state` must have shape {(N, N)}, but has shape {self.state.shape}."
            )
        if not concrete(self.state):
            return
        value = np.asarray(self.state)
        room = 1e3 * np.finfo(value.dtype).eps
        least = np.linalg.eigvalsh(value)[0]
        require(
            least >= -room,
            f"Argument `state` must be positive semidefinite, but has the eigenvalue {least:.3g}.",
        )

    def restored(self) -> "InternalState":
        return InternalState(self.levels.restored(), self.state)

    def valid(self) -> Bool[Array, ""]:
        """Whether the levels ascend and the state is one, also where they are traced."""
        sigma = jax.lax.stop_gradient(self.state)
        room = 1e3 * jnp.finfo(sigma.dtype).eps
        least = eigh((sigma + jnp.conj(sigma.T)) / 2)[0][0]
        return self.levels.valid() & normalised(sigma) & (least >= -room)

    @classmethod
    @door
    def thermal(cls, levels: Checked[System], beta: Scalar) -> "InternalState":
        """A unit in the Gibbs state of its levels at inverse temperature β, that of the gas or its own."""
        check_instance("levels", levels, System, "a jaxres.System")
        return cls(levels, gibbs_state(levels, as_scalar("beta", beta)))


def joint_system(system: System, unit: InternalState) -> tuple[System, Float[Array, "M M"]]:
    """System ⊗ unit with its levels in ascending order, and where these stand in the product.

    The second array is a permutation: entry [(j, a), n] is 1 where e_j + u_a is the joint level n. Levels that cross
    change places; nothing that is computed from the joint system depends on the order of equal ones.
    """
    levels = pinned((system.levels[:, None] + unit.levels.levels[None]).reshape(-1))
    order = jnp.argsort(levels)
    place = jnp.eye(levels.size, dtype=levels.dtype)[:, order]
    basis = jnp.kron(_basis(system), _basis(unit.levels)) @ place
    return System(levels[order], basis), place


def _basis(system: System) -> Inexact[Array, "N N"]:
    return jnp.eye(system.size, dtype=system.levels.dtype) if system.basis is None else system.basis


def trace_out(system: System, unit: InternalState, S: Superoperator) -> Superoperator:
    """ρ → Tr_U S(ρ ⊗ σ) for a map S on system ⊗ unit, in the product of the eigenbases."""
    N, D = system.size, unit.levels.size

    def traced(tensor):
        tensor = tensor.reshape((N, D) * 4)
        return jnp.einsum("jxkxlamb,ab->jklm", tensor, unit.state.astype(tensor.dtype))

    # every entry is a sum of D σ_ab over entries of S
    weight = D * jnp.sum(jnp.abs(jnp.real(unit.state)) + jnp.abs(jnp.imag(unit.state)))
    return S.linearly(traced, weight)
