"""The amplitudes of one collision (Eq. 16), as objects: which model, at which energy, in which form."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import Scalar, check_instance, check_scalar, check_shape, concrete, real_array
from .._safe import safe_sqrt
from .._scatterer import AbstractScatterer, Layers
from .._system import System
from ._exact import green_functions, lead_wavenumbers, parity_rows
from ._transfer import transfer_green_functions
from ._two_level import two_level_exits


class Amplitudes(eqx.Module):
    r"""Scattering amplitudes at one total energy, flux-normalised; zero for closed channels.

    ```
       e^{ikx} ──▶ ┃░░░░░░░░░░┃ ──▶ s⁺ e^{ikx}
       s⁻ e^{−ikx} ◀── ┃░░░░░░░░░░┃
                  x = 0        x = L
    ```

    - `transmission[out, in]`: $s^{(+)}_{j'j}$, referenced to x = 0.
    - `reflection[out, in]`: $s^{(-)}_{j'j}$, referenced to x = 0.

    $\sum_{j'} |s^{(+)}_{j'j}|^2 + |s^{(-)}_{j'j}|^2 = 1$ for every open channel j.
    """

    transmission: Complex[Array, "N N"]
    reflection: Complex[Array, "N N"]


class AbstractAmplitudes(eqx.Module):
    """A model of one collision."""

    @property
    def conserves_flux(self) -> bool:
        """Whether the amplitudes are unitary over the open channels, so that the map keeps the trace."""
        return True

    @abc.abstractmethod
    def matrices(
        self,
        kinetic: Float[Array, "N n"],
        energy: Float[Array, " n"],
        layers: Layers,
        levels: Float[Array, " N"],
        mass: Float[Array, ""],
    ) -> tuple[Complex[Array, "N N n"], Complex[Array, "N N n"]]:
        """s⁺ and s⁻ [out, in] at n energies, s⁺ referenced to the right edge.

        `kinetic[j]` is E − e_j, free of cancellation; `energy` is E from the same zero as `levels`.
        """

    @abc.abstractmethod
    def outgoing(
        self,
        kinetic: Float[Array, "N N n"],
        layers: Layers,
        levels: Float[Array, " N"],
        mass: Float[Array, ""],
    ) -> Complex[Array, "2 N N n"]:
        """a[σ, j', j] = s^(σ)_{j'j}(ε + e_j') √(k/p), k the outgoing and p the incoming momentum, at n values of ε.

        σ runs over two orthogonal exits of the particle, right and left or any rotation of them. In this
        normalisation nothing is singular at a threshold. `kinetic[j', j]` is ε + e_j' − e_j.
        """

    def two_level_exits(self, kinetic, layers, levels, mass):
        """The same for N = 2, in the form of `_two_level.two_level_exits`."""
        a = self.outgoing(kinetic, layers, levels, mass)
        own = np.arange(2)
        pairs = [(exit_[own, own], exit_[own, 1 - own]) for exit_ in a]
        return [tuple((jnp.real(x), jnp.imag(x)) for x in pair) for pair in pairs]


class _Green(AbstractAmplitudes):
    """A model that computes the wave g at the scatterer's edges (see `_exact`)."""

    @abc.abstractmethod
    def green_functions(
        self, kinetic, energy, layers, levels, mass, out
    ) -> tuple[Complex[Array, "K N n"], Complex[Array, "K N n"]]:
        """The matrices g⁺ and g⁻, rows `out` of them."""

    def matrices(self, kinetic, energy, layers, levels, mass):
        one = jnp.eye(levels.shape[0], dtype=levels.dtype)
        g_plus, g_minus = self.green_functions(kinetic, energy, layers, levels, mass, one)
        root = safe_sqrt(safe_sqrt(2 * mass * kinetic))
        flux = 1j * root[:, None] * root[None]
        open_ = jnp.where(kinetic > 0, 1, 0)[:, None]
        return flux * g_plus, flux * g_minus - one[:, :, None] * open_

    def rows(self, kinetic, energy, layers, levels, mass, out):
        """Two (K, N, n) arrays a of exits: here transmission and reflection, a = i k g − δ."""
        g_plus, g_minus = self.green_functions(kinetic, energy, layers, levels, mass, out)
        ik = 1j * safe_sqrt(2 * mass * energy)[None, None]
        return ik * g_plus, ik * g_minus - out[:, :, None]

    def outgoing(self, kinetic, layers, levels, mass):
        one = jnp.eye(levels.shape[0], dtype=levels.dtype)

        def rows(kinetic, level, out):
            # energies from the outgoing level up: E = ε is then the outgoing kinetic energy
            energy = out @ kinetic
            return jnp.concatenate(
                self.rows(kinetic, energy, layers, levels - level, mass, out[None])
            )

        return jax.vmap(rows, out_axes=1)(kinetic, levels, one)


class Exact(_Green):
    """The exact solution of the scattering problem (the default).

    Right to rounding for stacks of slabs of any thickness and opacity, with closed channels; see the module
    `jaxres._amplitudes._exact` for the method.

    !!! example
        >>> system, bath = jr.letter.model()
        >>> amps = jr.amplitudes(system, bath.scatterer, mass=0.1, energy=1.0, amplitudes=jr.Exact())
        >>> flux = jnp.sum(jnp.abs(amps.transmission) ** 2 + jnp.abs(amps.reflection) ** 2, axis=0)
        >>> bool(jnp.allclose(flux, 1, atol=1e-12))
        True
    """

    def green_functions(self, kinetic, energy, layers, levels, mass, out):
        return green_functions(kinetic, energy, layers, levels, mass, out)

    def rows(self, kinetic, energy, layers, levels, mass, out):
        if layers.thicknesses.shape[0] > 1:
            return super().rows(kinetic, energy, layers, levels, mass, out)
        # even and odd exits instead of right and left: (−1 + 2i k g)/√2
        ik = 2j * safe_sqrt(2 * mass * energy)[None, None]
        even, odd = parity_rows(kinetic, energy, layers, levels, mass, out)
        return tuple((ik * g - out[:, :, None]) / 2**0.5 for g in (even, odd))

    def two_level_exits(self, kinetic, layers, levels, mass):
        if layers.thicknesses.shape[0] == 1:
            return two_level_exits(kinetic, layers, levels, mass)
        return super().two_level_exits(kinetic, layers, levels, mass)


class TransferProduct(_Green):
    """The plain product of transfer matrices of (ψ, ψ'): the textbook method, for reference.

    It loses e^{2κd} in precision where a scatterer is opaque (κd the evanescent exponent): 12 digits are left for
    κd below 2, none above 18. Use `Exact` for results.
    """

    def green_functions(self, kinetic, energy, layers, levels, mass, out):
        return transfer_green_functions(kinetic, energy, layers, levels, mass, out)


def amplitudes(
    system: System,
    scatterer: AbstractScatterer,
    *,
    mass: Scalar,
    energy: Scalar,
    amplitudes: AbstractAmplitudes = Exact(),
) -> Amplitudes:
    r"""Transmission and reflection amplitudes at total energy E (Eq. 16).

    A particle comes from the left with the system in level j; it leaves to the right (+) or left (−) with the
    system in level j', with kinetic energy $E - e_{j'}$.

    **Arguments:**

    - `system`, `scatterer`: what collides.
    - `mass`: particle mass m (ħ = 1).
    - `energy`: total energy E = kinetic energy + level, a scalar; `jax.vmap` over it for more.
    - `amplitudes`: the model: `Exact()`, `TransferProduct()`, …

    **Returns:** `Amplitudes`, with `.transmission[out, in]` and `.reflection[out, in]`.

    **Raises:** `ValueError` if the energy is below every level, or an argument is of the wrong kind or sign.

    !!! example
        >>> system, bath = jr.letter.model(splitting=0.6)
        >>> amps = jr.amplitudes(system, bath.scatterer, mass=0.1, energy=-0.12)  # the upper channel is closed
        >>> print(jnp.round(amps.transmission[0, 0], 6), amps.transmission[1, 0])
        (0.905369+0.292761j) 0j
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("scatterer", scatterer, AbstractScatterer, "a jaxres.Slab, Stack or Profile")
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    mass, energy = real_array(mass), real_array(energy)
    check_shape("mass", mass, 0, "()")
    check_shape("energy", energy, 0, "()")
    check_scalar("mass", mass, positive=True)
    check_scalar("energy", energy)
    if concrete(energy, system.levels) and energy <= np.asarray(system.levels)[0]:
        raise ValueError(
            f"Argument `energy` must be above the lowest level {np.asarray(system.levels)[0]:g}, but is {energy:g}: "
            "no channel is open. The total energy is the particle's kinetic energy plus the system's level."
        )
    return _amplitudes(system, scatterer, mass, energy, amplitudes)


@eqx.filter_jit
def _amplitudes(system, scatterer, mass, energy, model):
    layers = scatterer.layers(system)
    kinetic = (energy - system.levels)[:, None]
    s_plus, s_minus = model.matrices(kinetic, energy[None], layers, system.levels, mass)
    # from the right edge to x = 0
    k = lead_wavenumbers(kinetic, mass)[:, 0]
    to_origin = jnp.exp(-1j * jnp.real(k) * jnp.sum(layers.thicknesses))
    return Amplitudes(to_origin[:, None] * s_plus[:, :, 0], s_minus[:, :, 0])
