r"""Any state of the particle: ρ_U(p, q), φ(p) or a Wigner function, as a function or as a table.

**Tables** on an even grid of spacing h are interpolated by the band-limited rule

    ρ(p, q) = Σ_il s_i(p) ρ_il s_l(q),        s_i(p) = sin[π(p − p_i)/h] / [π(p − p_i)/h].

It is smooth, so that the energy integral converges and everything is differentiable, also in the table. It is a
congruence: the interpolated state is Hermitian and positive if the table is. And since the s_i are orthogonal, its
trace is h Σ_i ρ_ii. It is exact for a state that lies within a distance πħ/h of the origin of x and vanishes beyond
the ends of the table.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from ._checks import check_scalar, check_shape, concrete, inexact_array, real_array, require
from ._elementary import sin_cos
from ._packet import LocalisedPacket

#: nodes on which a state is checked, and panels of the energy grid over its momenta
CHECKS, PANELS = 96, 4
#: what is let pass as an error of numbers given by hand
ROOM = 1e-6


class CustomPacket(LocalisedPacket):
    r"""A particle in any state ρ_U(p, q), given as a function.

    $$\int_0^∞ dp\, ρ_U(p, p) = 1, \qquad ρ_U(p, q) = ρ_U(q, p)^*, \qquad ρ_U ≥ 0$$

    **Arguments:** (ħ = 1)

    - `function`: ρ_U(p, q), elementwise in two arrays of one shape, of `jax.numpy`. An `equinox.Module` or
      `jax.tree_util.Partial` carries parameters that can be differentiated.
    - `mass`: particle mass m > 0.
    - `momenta`: (lowest, highest) momentum; the state must vanish outside, and the energy grid is laid over this range.
    - `position`: the state is moved by this much, ρ_U → ρ_U exp[−i(p−q)x₀].

    See also `from_table`, `pure`, `from_wigner` and `from_wigner_table`.

    **Raises:** `ValueError` if the range is empty, or if on 96 Gauss–Legendre nodes in it the state is not normalised,
    not Hermitian, or has an eigenvalue below zero, each by more than 1e-6.

    !!! example
        >>> def rho(p, q):  # a Gaussian packet of spread 1/2 in momentum
        ...     return jnp.exp(-((p - 9) ** 2) - (q - 9) ** 2) * jnp.sqrt(2 / jnp.pi)
        >>> packet = jr.CustomPacket(rho, mass=0.5, momenta=(5.0, 13.0), position=-3.0)
        >>> print(jnp.round(packet.distribution(jnp.array(9.0)), 6))
        0.797885
    """

    function: Callable
    mass: Float[Array, ""] = eqx.field(converter=real_array)
    momenta: Float[Array, " 2"] = eqx.field(converter=real_array)
    position: Float[Array, ""] = eqx.field(converter=real_array, default=0.0)

    def __check_init__(self):
        for name in ("mass", "position"):
            check_shape(name, getattr(self, name), 0, "()")
            check_scalar(name, getattr(self, name), positive=name == "mass")
        if self.momenta.shape != (2,):
            raise ValueError(
                f"Argument `momenta` must be the lowest and the highest momentum, but has shape {self.momenta.shape}."
            )
        if not concrete(self.momenta):
            return
        low, high = np.asarray(self.momenta)
        require(
            (0 <= low) & (low < high) & np.isfinite(high),
            f"Argument `momenta` must satisfy 0 <= lowest < highest < ∞, but is {np.asarray(self.momenta)}.",
        )
        trace, skew, least = self._quality()
        if not concrete(trace):
            return
        name = self._name()
        require(
            abs(trace - 1) <= ROOM,
            f"Argument `{name}` must have trace 1 over the momenta {low:g} to {high:g}, but has {float(trace):.8g}. "
            "Divide it by that, or widen `momenta` if the state reaches further.",
        )
        require(
            skew <= ROOM,
            f"Argument `{name}` must be Hermitian, ρ(p, q) = conj ρ(q, p), but differs from its adjoint by "
            f"{float(skew):.2g} of its largest value. Use (ρ(p, q) + conj ρ(q, p))/2 if the difference is noise.",
        )
        require(
            least >= -ROOM,
            f"Argument `{name}` must be positive semidefinite, but has the eigenvalue {float(least):.3g}: it would "
            "give negative probabilities. Mix it with a broader state, or project the eigenvalue out.",
        )

    def _name(self):
        return getattr(self.function, "argument", "function")

    def _quality(self):
        """The trace, the largest |ρ − ρ†| relative to the largest |ρ|, and the least eigenvalue."""
        u, w = np.polynomial.legendre.leggauss(CHECKS)
        low, high = self.momenta
        p = low + (high - low) * jnp.asarray((1 + u) / 2, self.mass.dtype)
        root = jnp.sqrt((high - low) * jnp.asarray(w / 2, self.mass.dtype))
        rho = self.function(*jnp.meshgrid(p, p, indexing="ij"))
        rho = rho * (root[:, None] * root[None])
        adjoint = jnp.conj(rho.T)
        skew = jnp.max(jnp.abs(rho - adjoint)) / jnp.max(jnp.abs(rho))
        least = jnp.linalg.eigvalsh((rho + adjoint) / 2)[0]
        return jnp.real(jnp.trace(rho)), skew, least

    def envelope(self, p, q):
        return self.function(p, q)

    def distribution(self, p):
        return jnp.real(self.function(p, p))

    def window(self):
        low, high = self.momenta
        share = jnp.linspace(0, 1, PANELS + 1, dtype=self.mass.dtype)
        return (low + (high - low) * share) ** 2 / (2 * self.mass)

    def energy_scale(self):
        low, high = self.momenta
        return (high - low) * high / (10 * self.mass)

    def valid(self) -> Bool[Array, ""]:
        trace, skew, least = jax.lax.stop_gradient(self._quality())
        low, high = self.momenta
        numbers = (self.mass > 0) & (low >= 0) & (high > low) & jnp.isfinite(self.position)
        return numbers & (jnp.abs(trace - 1) <= ROOM) & (skew <= ROOM) & (least >= -ROOM)

    @classmethod
    def pure(
        cls,
        amplitude: Callable,
        mass: Float[Array, ""] | float,
        momenta: tuple[float, float] | Float[Array, " 2"],
        position: Float[Array, ""] | float = 0.0,
    ) -> "CustomPacket":
        r"""A pure state, ρ_U(p, q) = φ(p) φ*(q), from its amplitude φ(p), elementwise, ∫|φ|² = 1.

        !!! example
            >>> def phi(p):  # two packets, one behind the other by 16
            ...     both = jnp.sqrt(2) * jnp.cos(8 * (p - 9))
            ...     return (2 / jnp.pi) ** 0.25 * jnp.exp(-((p - 9) ** 2)) * both
            >>> packet = jr.CustomPacket.pure(phi, mass=0.5, momenta=(5.0, 13.0))
            >>> bool(packet.valid())
            True
        """
        return cls(
            function=Pure(amplitude),
            mass=real_array(mass),
            momenta=real_array(momenta),
            position=real_array(position),
        )

    @classmethod
    def from_table(
        cls,
        momenta: Float[Array, " G"],
        values: Inexact[Array, "K L"],
        mass: Float[Array, ""] | float,
        position: Float[Array, ""] | float = 0.0,
    ) -> "CustomPacket":
        r"""ρ_U from a table, `values[i, l]` = ρ_U(p_i, p_l) at evenly spaced `momenta`.

        The table is interpolated by the band-limited rule of this module: spacing h serves states within |x| < π/h
        (ħ = 1) of the origin. Use `position` for the mean position instead of a phase in the table.

        **Raises:** `ValueError` if the momenta are not evenly spaced and ascending, and as for `CustomPacket`.

        !!! example
            >>> p = jnp.linspace(5.0, 13.0, 33)
            >>> phi = (2 / jnp.pi) ** 0.25 * jnp.exp(-((p - 9) ** 2))
            >>> packet = jr.CustomPacket.from_table(p, phi[:, None] * phi[None], mass=0.5)
            >>> print(jnp.round(packet.distribution(jnp.array(9.1)), 4))
            0.7821
        """
        momenta, values = real_array(momenta), inexact_array(values)
        _check_table(momenta, values, "momenta")
        return cls(
            function=Table(momenta, values),
            mass=real_array(mass),
            momenta=momenta[jnp.array([0, -1])],
            position=real_array(position),
        )

    @classmethod
    def from_wigner(
        cls,
        function: Callable,
        mass: Float[Array, ""] | float,
        momenta: tuple[float, float] | Float[Array, " 2"],
        positions: Float[Array, " X"],
        position: Float[Array, ""] | float = 0.0,
    ) -> "CustomPacket":
        r"""ρ_U from its Wigner function W(p, x), elementwise in p and x.

        $$ρ_U(p, q) = \int dx\, W\!\left(\tfrac{p+q}{2}, x\right) e^{-i(p-q)x/ħ}, \qquad \int dp\, dx\, W = 1$$

        The integral is the trapezoid on `positions`, evenly spaced, at the ends of which W must have vanished; with
        spacing d it serves momentum differences |p − q| < π/d (ħ = 1).

        !!! example
            >>> def W(p, x):  # a Gaussian of spread 1 in x and 1/2 in p
            ...     return jnp.exp(-(x**2) / 2 - 2 * (p - 9) ** 2) / jnp.pi
            >>> packet = jr.CustomPacket.from_wigner(W, 0.5, (5.0, 13.0), jnp.linspace(-9, 9, 73))
            >>> print(jnp.round(packet.distribution(jnp.array(9.0)), 6))
            0.797885
        """
        positions = real_array(positions)
        _check_even(positions, "positions")
        return cls(
            function=Wigner(function, positions),
            mass=real_array(mass),
            momenta=real_array(momenta),
            position=real_array(position),
        )

    @classmethod
    def from_wigner_table(
        cls,
        momenta: Float[Array, " G"],
        positions: Float[Array, " X"],
        values: Float[Array, "K L"],
        mass: Float[Array, ""] | float,
        position: Float[Array, ""] | float = 0.0,
    ) -> "CustomPacket":
        r"""ρ_U from a table of its Wigner function, `values[i, l]` = W(p_i, x_l), evenly spaced in both.

        Interpolated in p by the band-limited rule, summed over x as in `from_wigner`.
        """
        momenta, positions, values = (real_array(x) for x in (momenta, positions, values))
        _check_even(momenta, "momenta")
        _check_even(positions, "positions")
        if values.shape != (momenta.size, positions.size):
            raise ValueError(
                f"Argument `values` must have shape {(momenta.size, positions.size)}, one row for each momentum, but "
                f"has shape {values.shape}."
            )
        wigner = Wigner(WignerTable(momenta, positions, values), positions)
        return cls(
            function=wigner,
            mass=real_array(mass),
            momenta=momenta[jnp.array([0, -1])],
            position=real_array(position),
        )


class Pure(eqx.Module):
    """φ(p) φ*(q)."""

    amplitude: Callable
    argument = "amplitude"

    def __call__(self, p, q):
        return self.amplitude(p) * jnp.conj(self.amplitude(q))


class Table(eqx.Module):
    """The band-limited interpolation of a table of ρ_U."""

    momenta: Float[Array, " G"]
    values: Inexact[Array, "G G"]
    argument = "values"

    def __call__(self, p, q):
        return jnp.sum((_cardinal(p, self.momenta) @ self.values) * _cardinal(q, self.momenta), -1)


class Wigner(eqx.Module):
    """∫dx W(P, x) e^{−i(p−q)x} by the trapezoid."""

    function: Callable
    positions: Float[Array, " X"]
    argument = "function"

    def __call__(self, p, q):
        x = self.positions.reshape((1,) * p.ndim + (-1,))
        sine, cosine = sin_cos((p - q)[..., None] * x)
        mean = jnp.broadcast_to(((p + q) / 2)[..., None], sine.shape)
        W = self.function(mean, jnp.broadcast_to(x, sine.shape))
        step = self.positions[1] - self.positions[0]
        # W vanishes at the ends, where the trapezoid would take half
        return step * jax.lax.complex(jnp.sum(W * cosine, -1), -jnp.sum(W * sine, -1))


class WignerTable(eqx.Module):
    """W at the tabulated positions, interpolated in p: called with positions along the last axis."""

    momenta: Float[Array, " G"]
    positions: Float[Array, " X"]
    values: Float[Array, "G X"]

    def __call__(self, p, x):
        del x
        return _cardinal(p[..., 0], self.momenta) @ self.values


def _cardinal(p, grid):
    """s_i(p), a new last axis i."""
    step = grid[1] - grid[0]
    return jnp.sinc((p[..., None] - grid.reshape((1,) * p.ndim + (-1,))) / step)


def _check_even(grid, name):
    if grid.ndim != 1 or grid.size < 4:
        raise ValueError(
            f"Argument `{name}` must be a vector of at least 4 values, but has shape {grid.shape}."
        )
    if concrete(grid):
        steps = np.diff(np.asarray(grid, float))
        require(
            (steps > 0) & (np.abs(steps - steps.mean()) < 1e-6 * np.abs(steps.mean())),
            f"Argument `{name}` must be evenly spaced and ascending, but its steps range from {steps.min():g} to "
            f"{steps.max():g}. Use jnp.linspace, or give a function instead of a table.",
        )


def _check_table(momenta, values, name):
    _check_even(momenta, name)
    if values.shape != (momenta.size, momenta.size):
        raise ValueError(
            f"Argument `values` must have shape {(momenta.size, momenta.size)}, but has shape {values.shape}."
        )
