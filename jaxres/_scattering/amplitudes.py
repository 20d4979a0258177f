"""The amplitudes of one collision (Eq. 16), as objects: which model, at which energy, in which form."""

import abc
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import (
    Checked,
    Scalar,
    as_flag,
    as_scalar,
    check_instance,
    concrete,
    door,
    or_nan,
    require,
)
from .._numerics.batched import matmul
from .._numerics.safe import eigh, safe_sqrt
from .._quantum.system import System
from .._reservoir.packet import AbstractPacket
from .._reservoir.scatterer import AbstractScatterer, Layers
from .energy_grid import Grid
from .exact import green_functions, lead_wavenumbers, parity_rows
from .reflectionless import (
    fast_turning,
    interaction_time_transmission,
    polar_factor,
    wave_vector_transmission,
)
from .table import Table, tabulate
from .transfer import transfer_green_functions
from .two_level_amplitudes import two_level_exits


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


#: levels from which on amplitudes come from a table
TABULATED = 5


class AbstractAmplitudes(eqx.Module):
    r"""A model of one collision: its amplitudes (Eq. 16) at many energies.

    A model is a subclass, an `equinox.Module`, with two methods: `matrices` gives the amplitudes as `jaxres.amplitudes`
    returns them, `outgoing` in the form that the map integrates. Three more have defaults: `conserves_flux`, `analytic`
    and `kinks`. All arguments are arrays (ħ = 1), N levels, n energies, R kinks:

    | argument | meaning | shape | units |
    |---|---|---|---|
    | `kinetic` | E − e_j without cancellation (not `energy − levels`), negative if closed | (N, n) | energy |
    | `energy` | E, from the same zero as `levels` | (n,) | energy |
    | `beyond` | E − v_r, the distance from kink r, without cancellation | (R, n) | energy |
    | `layers` | couplings (M, N, N) in the eigenbasis and thicknesses (M,), the `Layers` of the scatterer | | |
    | `levels` | e_j, ascending; only their differences matter | (N,) | energy |
    | `mass` | m | () | mass |

    In `outgoing` the energies are counted from every outgoing level j' in turn, E = ε + e_j', so that `kinetic` and
    `beyond` have one more leading axis j'. No energy coincides with a threshold.

    !!! example
        A scatterer that lets every particle pass and does nothing: the map is the identity.

        >>> class Transparent(jr.AbstractAmplitudes):
        ...     def matrices(self, kinetic, energy, beyond, layers, levels, mass):
        ...         k = jnp.sqrt(2 * mass * jnp.where(kinetic > 0, kinetic, 0))
        ...         to_right_edge = jnp.exp(1j * k * jnp.sum(layers.thicknesses))
        ...         open_ = jnp.where(kinetic > 0, to_right_edge, 0)
        ...         s = jnp.eye(len(levels))[:, :, None] * open_[:, None]
        ...         return s, jnp.zeros_like(s)
        ...
        ...     def outgoing(self, kinetic, beyond, layers, levels, mass):
        ...         passes = jnp.eye(len(levels), dtype=complex)  # √(k/p) is 1 where j' = j
        ...         return jnp.broadcast_to(passes[None, :, :, None], (1, *kinetic.shape))
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, reservoir, amplitudes=Transparent())
        >>> rho = jnp.array([[0.6, 0.2j], [-0.2j, 0.4]])
        >>> bool(jnp.allclose(S(rho), rho, atol=1e-12))
        True
    """

    @property
    def conserves_flux(self) -> bool:
        """Whether the amplitudes are unitary over the open channels, so that the map keeps the trace."""
        return True

    @property
    def analytic(self) -> bool:
        """Whether a quadrature may count on exponential convergence.

        It may if the amplitudes are analytic in the square roots of the distances to levels and `kinks`.
        """
        return True

    def kinks(
        self, layers: Layers, levels: Float[Array, " N"], mass: Float[Array, ""]
    ) -> Float[Array, " R"]:
        """Total energies v_r, besides the levels, at which the amplitudes are not smooth, shape (R,); none by default.

        The grid is split there.
        """
        del layers, mass
        return jnp.zeros(0, levels.dtype)

    @abc.abstractmethod
    def matrices(
        self,
        kinetic: Float[Array, "N n"],
        energy: Float[Array, " n"],
        beyond: Float[Array, "R n"],
        layers: Layers,
        levels: Float[Array, " N"],
        mass: Float[Array, ""],
    ) -> tuple[Complex[Array, "N N n"], Complex[Array, "N N n"]]:
        """The amplitudes s⁺ and s⁻ [out, in] at n energies, flux-normalised, 0 for closed channels.

        s⁺ is referenced to the right edge of the scatterer, x = L, and s⁻ to the left edge, x = 0.
        """

    @abc.abstractmethod
    def outgoing(
        self,
        kinetic: Float[Array, "N N n"],
        beyond: Float[Array, "N R n"],
        layers: Layers,
        levels: Float[Array, " N"],
        mass: Float[Array, ""],
    ) -> Complex[Array, "X N N n"]:
        """a[σ, j', j] = s^(σ)_{j'j}(ε + e_j') √(k/p), k the outgoing and p the incoming momentum, at n values of ε.

        σ runs over the exits of the particle: right and left, or any rotation of the two, or only one if the particle
        never takes the other. Phases that depend on ε and σ alone drop out of the map. In this normalisation the exact
        amplitudes are not singular at a threshold. Closed incoming channels may have any finite value.
        `kinetic[j', j]` is ε + e_j' − e_j, and `beyond[j', r]` the distance of ε + e_j' from kink r.
        """

    def table(
        self, grid: Grid, layers: Layers, levels: Float[Array, " N"], packet: AbstractPacket
    ) -> Table | None:
        """The values of `outgoing` in a form that is cheaper for all nodes of the grid, or None (the default)."""
        del grid, layers, levels, packet
        return None

    def two_level_exits(self, kinetic, beyond, layers, levels, mass) -> tuple[list, list] | None:
        """The values of `outgoing` for N = 2 in real arithmetic, or None (the default); see `two_level_amplitudes`."""
        del kinetic, beyond, layers, levels, mass


def _outgoing_wavenumber(kinetic, mass, out):
    return safe_sqrt(2 * mass * jnp.matmul(out, kinetic, precision="highest"))[:, None]


class _Green(AbstractAmplitudes):
    """A model that computes the wave g at the scatterer's edges (see `exact.py`)."""

    @abc.abstractmethod
    def green_functions(
        self, kinetic, energy, layers, levels, mass, out
    ) -> tuple[Complex[Array, "K N n"], Complex[Array, "K N n"]]:
        """The matrices g⁺ and g⁻, rows `out` of them."""

    def matrices(self, kinetic, energy, beyond, layers, levels, mass):
        del beyond
        one = jnp.eye(levels.shape[0], dtype=levels.dtype)
        g_plus, g_minus = self.green_functions(kinetic, energy, layers, levels, mass, one)
        root = safe_sqrt(safe_sqrt(2 * mass * kinetic))
        flux = 1j * root[:, None] * root[None]
        open_ = jnp.where(kinetic > 0, 1, 0)[:, None]
        return flux * g_plus, flux * g_minus - one[:, :, None] * open_

    def rows(self, kinetic, energy, layers, levels, mass, out):
        """Two (K, N, n) arrays a of exits: here transmission and reflection, a = i k g − δ."""
        g_plus, g_minus = self.green_functions(kinetic, energy, layers, levels, mass, out)
        ik = 1j * _outgoing_wavenumber(kinetic, mass, out)
        return ik * g_plus, ik * g_minus - out[:, :, None]

    def outgoing(self, kinetic, beyond, layers, levels, mass):
        del beyond
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
    `jaxres._scattering.exact` for the method.

    **Arguments:**

    - `tabulated`: whether N ≥ 3 levels get their amplitudes from a table (`jaxres._scattering.table`): computed at 192
      energies or so between two levels, and interpolated. By default from 5 levels on, where that is about 3 times
      faster; for 3 and 4 it may be worth asking for with many slabs. The map is the same to rounding, or to what narrow
      resonances in wide gaps leave of it, which its `.error` includes: then more nodes help, or False. Derivatives by
      the levels are always those of the amplitudes themselves. No effect with packets that split the grid (`window`).

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> amps = jr.amplitudes(system, reservoir.scatterer, mass=0.1, energy=1.0, amplitudes=jr.Exact())
        >>> flux = jnp.sum(jnp.abs(amps.transmission) ** 2 + jnp.abs(amps.reflection) ** 2, axis=0)
        >>> bool(jnp.allclose(flux, 1, atol=1e-12))
        True
    """

    tabulated: bool | None = eqx.field(
        static=True,
        default=None,
        converter=lambda x: None if x is None else as_flag("tabulated", x),
    )

    def green_functions(self, kinetic, energy, layers, levels, mass, out):
        return green_functions(kinetic, energy, layers, levels, mass, out)

    def rows(self, kinetic, energy, layers, levels, mass, out):
        if layers.thicknesses.shape[0] > 1:
            return super().rows(kinetic, energy, layers, levels, mass, out)
        # even and odd exits instead of right and left: (−1 + 2i k g)/√2
        ik = 2j * _outgoing_wavenumber(kinetic, mass, out)
        even, odd = parity_rows(kinetic, energy, layers, levels, mass, out)
        return tuple((ik * g - out[:, :, None]) / 2**0.5 for g in (even, odd))

    def table(self, grid, layers, levels, packet):
        N = levels.shape[0]
        wanted = N >= TABULATED if self.tabulated is None else self.tabulated
        if N < 3 or not (wanted and grid.plain):
            return None
        return tabulate(self.rows, grid, layers, levels, packet)

    def two_level_exits(self, kinetic, beyond, layers, levels, mass):
        if layers.thicknesses.shape[0] == 1:
            return two_level_exits(kinetic, layers, levels, mass)
        return super().two_level_exits(kinetic, beyond, layers, levels, mass)


class TransferMatrix(_Green):
    """The plain product of transfer matrices of (ψ, ψ'): the textbook method, for reference.

    It loses e^{2κd} in precision where a scatterer is opaque (κd the evanescent exponent): 12 digits are left for
    κd below 2, none above 18. Use `Exact` for results.
    """

    def green_functions(self, kinetic, energy, layers, levels, mass, out):
        return transfer_green_functions(kinetic, energy, layers, levels, mass, out)


class _Reflectionless(AbstractAmplitudes):
    """s⁻ = 0, and s⁺ or, with `unitary`, the polar factor of its block of open channels (see `reflectionless.py`)."""

    unitary: eqx.AbstractVar[bool]

    @property
    def conserves_flux(self):
        return self.unitary

    @abc.abstractmethod
    def transmission(
        self, kinetic, energy, beyond, layers, levels, mass
    ) -> Complex[Array, "N N n"]:
        """s⁺[out, in] as written down, referenced to the right edge."""

    def matrices(self, kinetic, energy, beyond, layers, levels, mass):
        s = self.transmission(kinetic, energy, beyond, layers, levels, mass)
        open_ = kinetic > 0
        both = open_[:, None] & open_[None]
        if self.unitary:
            # a closed channel is kept to itself, which leaves the polar factor of the others alone
            closed = jnp.eye(levels.shape[0], dtype=levels.dtype)[:, :, None]
            s = polar_factor(jnp.where(both, s, closed))
        s = jnp.where(both, s, 0)
        return s, jnp.zeros_like(s)

    def outgoing(self, kinetic, beyond, layers, levels, mass):
        one = jnp.eye(levels.shape[0], dtype=levels.dtype)

        def row(kinetic, beyond, level, out):
            # energies from the outgoing level up, as for the exact amplitudes
            energy = out @ kinetic
            s, _ = self.matrices(kinetic, energy, beyond, layers, levels - level, mass)
            # √(k/p); closed channels have s = 0
            ratio = energy[None] / jnp.where(kinetic > 0, kinetic, energy[None])
            return matmul(out[None, :, None], s)[0] * jnp.sqrt(jnp.sqrt(ratio))

        return jax.vmap(row)(kinetic, beyond, levels, one)[None]


class WaveVectorOperator(_Reflectionless):
    r"""No reflection, and the phase that a wave takes up inside, operator-valued (Ref. 12).

    $$s^{(+)} = e^{-iKL} e^{iQL}, \qquad K = \sqrt{2m(E - H_S)}/ħ, \quad Q = \sqrt{2m(E - H_S - W)}/ħ$$

    For a stack, $e^{iQL}$ is the ordered product of the slabs' $e^{iQ_n d_n}$. Right to O(1/E²) for one slab.

    **Arguments:**

    - `unitary`: replace the block of open channels by its nearest unitary, its polar factor (the default): the map
      then preserves the trace and thermalises as the exact one does. False: as written above, cut to the open
      channels; flux is lost wherever a channel or an eigenvalue of Q is closed, and the map loses trace.

    Where an opaque scatterer damps one open channel by more than rounding against another, the polar factor of what
    is left in double precision is unitary still, but of no meaning; the model is of none there either.

    Source: Tabanera et al., New J. Phys. 24, 023018 (2022).

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> S = jr.scattering_map(system, reservoir, amplitudes=jr.WaveVectorOperator())
        >>> print(jnp.round(S.tensor[0, 0, 0, 0].real, 6), bool(S.trace_defect < 1e-8))
        0.973382 True
    """

    unitary: bool = eqx.field(static=True, default=True, converter=partial(as_flag, "unitary"))

    def kinks(self, layers, levels, mass):
        inner = layers.couplings + jnp.diag(levels)[None]
        return jax.vmap(lambda H: eigh(H)[0])(inner).reshape(-1)

    def transmission(self, kinetic, energy, beyond, layers, levels, mass):
        return wave_vector_transmission(kinetic, energy, beyond, layers, levels, mass, self.unitary)


class RandomInteractionTime(_Reflectionless):
    r"""No reflection, and an interaction that lasts as long as the particle takes to pass (Ref. 12).

    $$s^{(+)} = e^{iH_Sτ/ħ} e^{-i(H_S + W)τ/ħ}, \qquad τ(E) = L\sqrt{m/2(E - ē)}$$

    with the mean level $ē = \sum_j e_j/N$. For a stack, the ordered product of the slabs' $e^{-i(H_S + W_n)τ_n}$.
    Right to $O(E^{-3/2})$.

    **Arguments:**

    - `unitary`: as for `WaveVectorOperator`. Raw, flux is lost where a channel is closed.

    Below the mean level there is no such time; the particle then passes and does nothing. Just above it the time grows
    without bound, and the amplitudes turn ever faster: the integral over energies converges only like a power of the
    number of nodes (an error of 1e-5 at the Letter's parameters, eight times less for twice the nodes), and the map's
    error estimate, for this model the plain difference to half the nodes, says so. The trace is kept all the same.
    Between the mean level and the next, where one block of channels is open, its polar factor may turn abruptly: ask
    for more nodes if a map is refused.

    Source: Tabanera et al., New J. Phys. 24, 023018 (2022).

    !!! example
        >>> system, reservoir = jr.letter.model()
        >>> amps = jr.amplitudes(
        ...     system, reservoir.scatterer, mass=0.1, energy=50.0, amplitudes=jr.RandomInteractionTime()
        ... )
        >>> exact = jr.amplitudes(system, reservoir.scatterer, mass=0.1, energy=50.0)
        >>> bool(jnp.max(jnp.abs(amps.transmission - exact.transmission)) < 1e-3)
        True
    """

    unitary: bool = eqx.field(static=True, default=True, converter=partial(as_flag, "unitary"))

    @property
    def analytic(self):
        return False

    def kinks(self, layers, levels, mass):
        above = fast_turning(*jax.lax.stop_gradient((layers, levels, mass)))
        return jnp.mean(levels) + jnp.concatenate([jnp.zeros(1, levels.dtype), above])

    def transmission(self, kinetic, energy, beyond, layers, levels, mass):
        return interaction_time_transmission(
            kinetic, energy, beyond, layers, levels, mass, self.unitary
        )


@door
def amplitudes(
    system: Checked[System],
    scatterer: Checked[AbstractScatterer],
    *,
    mass: Scalar,
    energy: Scalar,
    amplitudes: Checked[AbstractAmplitudes] = Exact(),
) -> Amplitudes:
    r"""Transmission and reflection amplitudes at total energy E (Eq. 16).

    A particle comes from the left with the system in level j; it leaves to the right (+) or left (−) with the
    system in level j', with kinetic energy $E - e_{j'}$.

    **Arguments:**

    - `system`, `scatterer`: what collides.
    - `mass`: particle mass m (ħ = 1).
    - `energy`: total energy E = kinetic energy + level, a scalar; `jax.vmap` over it for more.
    - `amplitudes`: the model: `Exact()`, `WaveVectorOperator()`, …

    **Returns:** `Amplitudes`, with `.transmission[out, in]` and `.reflection[out, in]`; NaN where the arguments, being
    traced, are not admissible.

    **Raises:** `ValueError` if the energy is below every level, or an argument is of the wrong kind or sign.

    !!! example
        >>> system, reservoir = jr.letter.model(splitting=0.6)
        >>> amps = jr.amplitudes(system, reservoir.scatterer, mass=0.1, energy=-0.12)  # the upper channel is closed
        >>> print(jnp.round(amps.transmission[0, 0], 6), amps.transmission[1, 0])
        (0.905369+0.292761j) 0j
    """
    check_instance("system", system, System, "a jaxres.System")
    check_instance("scatterer", scatterer, AbstractScatterer, "a jaxres.Slab, Stack or Profile")
    check_instance("amplitudes", amplitudes, AbstractAmplitudes, "a model such as jaxres.Exact()")
    mass, energy = as_scalar("mass", mass, positive=True), as_scalar("energy", energy)
    if concrete(energy, system.levels):
        # with NumPy: JAX would trace a comparison of known numbers too, where the mass is traced
        lowest, total = np.asarray(system.levels)[0], np.asarray(energy)
        require(
            total > lowest,
            f"Argument `energy` must be above the lowest level {lowest:g}, but is {total:g}: no channel is open. "
            "The total energy is the particle's kinetic energy plus the system's level.",
        )
    return _amplitudes(system, scatterer, mass, energy, amplitudes)


@eqx.filter_jit
def _amplitudes(system, scatterer, mass, energy, model):
    layers = scatterer.layers(system)
    kinetic = (energy - system.levels)[:, None]
    beyond = (energy - model.kinks(layers, system.levels, mass))[:, None]
    s_plus, s_minus = model.matrices(kinetic, energy[None], beyond, layers, system.levels, mass)
    # from the right edge to x = 0
    k = lead_wavenumbers(kinetic, mass)[:, 0]
    to_origin = jnp.exp(-1j * jnp.real(k) * jnp.sum(layers.thicknesses))
    valid = system.valid() & layers.valid() & (mass > 0) & (energy >= system.levels[0])
    return or_nan(valid, Amplitudes(to_origin[:, None] * s_plus[:, :, 0], s_minus[:, :, 0]))
