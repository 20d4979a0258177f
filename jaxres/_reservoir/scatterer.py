"""What stands in the particle's way: flat pieces on a line, each with its own coupling to the system."""

import abc
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from .._checks import Checked, as_hermitian, as_scalar, as_vector, hermitian, shown
from .._quantum.system import System


class Layers(NamedTuple):
    """A scatterer as the amplitudes see it: M flat slabs in the energy eigenbasis, left to right."""

    couplings: Inexact[Array, "M N N"]
    thicknesses: Float[Array, " M"]

    def reversed(self) -> "Layers":
        """The mirror image."""
        return Layers(self.couplings[::-1], self.thicknesses[::-1])

    def valid(self) -> Bool[Array, ""]:
        """Whether all couplings are Hermitian and all thicknesses positive, also where they are traced."""
        d = self.thicknesses
        # a larger tolerance than in the constructors: the couplings were turned into the eigenbasis
        return jnp.all(hermitian(self.couplings, 1e3)) & jnp.all((d > 0) & jnp.isfinite(d))


class AbstractScatterer(eqx.Module):
    r"""What the particle meets: a stack of M flat slabs on 0 < x < L, nothing outside.

    Inside slab n the system's Hamiltonian is H_S + W_n. A kind of scatterer is a subclass, an `equinox.Module`, with
    one method, `layers(system)`. It returns two arrays (a `Layers`):

    | | shape | units (ħ = 1) |
    |---|---|---|
    | `couplings` W_n, Hermitian, in the *energy eigenbasis* (`system.to_eigenbasis`) | (M, N, N) | energy |
    | `thicknesses` d_n > 0, Σ d_n = L | (M,) | length |

    Both run from left to right.

    The number of slabs M is static; the entries may be traced, and derivatives pass through them.

    !!! example
        A Gaussian barrier that is cut into 16 slabs, by way of a `Profile`:

        >>> class Barrier(jr.AbstractScatterer):
        ...     coupling: jax.Array
        ...     width: jax.Array
        ...
        ...     def layers(self, system):
        ...         x = (jnp.arange(16) + 0.5) / 16 * 6 - 3
        ...         heights = jnp.exp(-(x**2) / 2)
        ...         return jr.Profile(self.coupling, heights, 6 * self.width).layers(system)
        >>> system, reservoir = jr.letter.model()
        >>> barrier = Barrier(reservoir.scatterer.coupling, jnp.asarray(0.2))
        >>> barrier.layers(system).couplings.shape
        (16, 2, 2)
        >>> amps = jr.amplitudes(system, barrier, mass=0.1, energy=2.0)
        >>> flux = jnp.abs(amps.transmission) ** 2 + jnp.abs(amps.reflection) ** 2
        >>> bool(jnp.allclose(jnp.sum(flux, axis=0), 1))
        True
    """

    @abc.abstractmethod
    def layers(self, system: System) -> Layers:
        """Couplings W_n in the energy eigenbasis, shape (M, N, N), and thicknesses d_n, shape (M,), left to right."""


_as_length = partial(as_scalar, "length", positive=True)


def _as_coupling(x) -> Inexact[Array, "N N"]:
    return as_hermitian("coupling", x)


def _check_size(coupling, system: System) -> None:
    if coupling.shape[-1] != system.size:
        raise ValueError(
            f"Argument `coupling` must be a {system.size}×{system.size} matrix, one row for each level of the "
            f"system, but has shape {coupling.shape}."
        )


class Slab(AbstractScatterer):
    r"""A flat scatterer: coupling $W$ for $0 < x < L$, nothing outside.

    **Arguments:**

    - `coupling`: Hermitian matrix, shape (N, N), in the basis of the system's Hamiltonian (energy).
    - `length`: L > 0.

    **Raises:** `ValueError` if the coupling is not Hermitian or the length is not positive.

    !!! example
        >>> jr.Slab(coupling=jnp.array([[0.0, 1.0], [1.0, 0.0]]), length=1.0).length
        Array(1., dtype=float64)
    """

    coupling: Inexact[Array, "N N"] = eqx.field(converter=_as_coupling)
    length: Float[Array, ""] = eqx.field(converter=_as_length)

    def layers(self, system: System) -> Layers:
        _check_size(self.coupling, system)
        return Layers(system.to_eigenbasis(self.coupling)[None], self.length[None])


def _as_slabs(x: Any) -> tuple[Slab, ...]:
    # an array iterates too, but over nothing that is a slab, and endlessly in vain if it is traced
    if not isinstance(x, Iterable) or isinstance(x, jax.Array | np.ndarray):
        raise ValueError(f"Argument `slabs` must be a sequence of jaxres.Slab, but is {shown(x)}.")
    slabs = tuple(x)
    if not slabs:
        raise ValueError("Argument `slabs` must have at least one slab, but is empty.")
    for slab in slabs:
        if not isinstance(slab, Slab):
            raise ValueError(
                f"Argument `slabs` must be a sequence of jaxres.Slab, but has {shown(slab)} in it."
            )
    return slabs


class Stack(AbstractScatterer):
    """Slabs one behind the other, the first at x = 0 and hit first by particles that come from the left.

    **Arguments:**

    - `slabs`: a sequence of `Slab`, at least one, all of the same number of levels.

    !!! example
        >>> V = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> len(jr.Stack([jr.Slab(V, 0.5), jr.Slab(2 * V, 1.0)]).slabs)
        2
    """

    slabs: tuple[Slab, ...]

    def __init__(self, slabs: Checked[Iterable[Slab]]):
        self.slabs = _as_slabs(slabs)
        sizes = {slab.coupling.shape for slab in self.slabs}
        if len(sizes) > 1:
            raise ValueError(
                f"Argument `slabs` must have couplings of one shape, but they have shapes {sizes}."
            )

    def layers(self, system: System) -> Layers:
        each = [slab.layers(system) for slab in self.slabs]
        dtype = jnp.result_type(*(layer.couplings for layer in each))
        return Layers(
            jnp.concatenate([layer.couplings.astype(dtype) for layer in each]),
            jnp.concatenate([layer.thicknesses for layer in each]),
        )


class Profile(AbstractScatterer):
    r"""A scatterer of one coupling and varying height, $V f(x)$, as M slabs of equal thickness $L/M$.

    **Arguments:**

    - `coupling`: Hermitian matrix V, shape (N, N), in the basis of the system's Hamiltonian.
    - `heights`: values f_n of the profile in the middle of each slab, shape (M,).
    - `length`: total length L > 0.

    The error of replacing a smooth f(x) by M midpoint values falls as 1/M².

    !!! example
        >>> x = (jnp.arange(32) + 0.5) / 32
        >>> profile = jr.Profile(coupling=jnp.eye(2), heights=jnp.sin(jnp.pi * x) ** 2, length=1.0)
        >>> profile.heights.shape
        (32,)
    """

    coupling: Inexact[Array, "N N"] = eqx.field(converter=_as_coupling)
    heights: Float[Array, " M"] = eqx.field(converter=partial(as_vector, "heights", shape="(M,)"))
    length: Float[Array, ""] = eqx.field(converter=_as_length)

    def __check_init__(self):
        if self.heights.size == 0:
            raise ValueError("Argument `heights` must have at least one value, but is empty.")

    def layers(self, system: System) -> Layers:
        _check_size(self.coupling, system)
        V = system.to_eigenbasis(self.coupling)
        count = self.heights.shape[0]
        return Layers(
            self.heights[:, None, None] * V[None], jnp.broadcast_to(self.length / count, (count,))
        )
