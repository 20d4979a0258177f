r"""Any state of the particle: ρ_U(p, q), φ(p) or a Wigner function, as a function or as a table.

**Tables** on an even grid of spacing h are interpolated by the band-limited rule

    ρ(p, q) = Σ_il s_i(p) ρ_il s_l(q),        s_i(p) = sin[π(p − p_i)/h] / [π(p − p_i)/h].

It is smooth, so that the energy integral converges and everything is differentiable, also in the table. It is a
congruence: the interpolated state is Hermitian and positive if the table is. And since the s_i are orthogonal, its
trace is h Σ_i ρ_ii. It is exact for a state that lies within a distance πħ/h of the origin of x and vanishes beyond
the ends of the table.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from .._checks import (
    Checked,
    Numbers,
    Scalar,
    as_inexact,
    as_real,
    concrete,
    door,
    known,
    numbers,
    or_nan,
    require,
    shown,
)
from .._numerics.elementary import sin_cos
from .packet import LocalisedPacket, admissible, anywhere, positive

#: nodes on which a state is checked, and panels of the energy grid over its momenta
CHECKS, PANELS = 96, 4


def room(dtype: Any) -> float:
    """What is let pass as an error of numbers given by hand; in single precision sums over the nodes need more."""
    return max(1e-6, 100 * float(jnp.finfo(dtype).eps))


def _as_range(x: Any) -> Float[Array, " 2"]:
    momenta = as_real("momenta", x)
    if momenta.shape != (2,):
        raise ValueError(
            f"Argument `momenta` must be the lowest and the highest momentum, but has shape {momenta.shape}."
        )
    low, high = np.asarray(momenta) if concrete(momenta) else momenta
    valid = (low >= 0) & (low < high) & (high < np.inf)
    if not concrete(momenta):
        return or_nan(valid, momenta)
    require(
        valid,
        f"Argument `momenta` must satisfy 0 <= lowest < highest < ∞, but is {np.asarray(momenta)}.",
    )
    return momenta


def _as_function(x: Any, name: str = "function") -> Callable:
    if not callable(x):
        raise ValueError(f"Argument `{name}` must be a function, but is {shown(x)}.")
    return x


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

    function: Callable = eqx.field(converter=_as_function)
    mass: Float[Array, ""] = eqx.field(converter=positive["mass"])
    momenta: Float[Array, " 2"] = eqx.field(converter=_as_range)
    position: Float[Array, ""] = eqx.field(converter=anywhere, default=0.0)

    def __check_init__(self):
        trace, skew, least = self._quality()
        if not concrete(self.momenta, trace):
            return
        low, high = np.asarray(self.momenta)
        allowed, name = room(self.momenta.dtype), self._name()
        require(
            abs(trace - 1) <= allowed,
            f"Argument `{name}` must have trace 1 over the momenta {low:g} to {high:g}, but has {float(trace):.8g}. "
            "Divide it by that, or widen `momenta` if the state reaches further.",
        )
        require(
            skew <= allowed,
            f"Argument `{name}` must be Hermitian, ρ(p, q) = conj ρ(q, p), but differs from its adjoint by "
            f"{float(skew):.2g} of its largest value. Use (ρ(p, q) + conj ρ(q, p))/2 if the difference is noise.",
        )
        require(
            least >= -allowed,
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
        try:
            rho = self.function(*jnp.meshgrid(p, p, indexing="ij"))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Argument `{self._name()}` must be a function of arrays of momenta, made of `jax.numpy`, but fails: "
                f"{error}"
            ) from error
        rho = as_inexact(self._name(), rho)
        if rho.shape != (CHECKS, CHECKS):
            raise ValueError(
                f"Argument `{self._name()}` must be elementwise, but makes {rho.shape} of arrays of shape "
                f"{(CHECKS, CHECKS)}."
            )
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
        numbers = admissible(self, "mass", "position") & (low >= 0) & (high > low)
        allowed = room(self.momenta.dtype)
        return numbers & (jnp.abs(trace - 1) <= allowed) & (skew <= allowed) & (least >= -allowed)

    @classmethod
    @door
    def pure(
        cls,
        amplitude: Checked[Callable],
        mass: Scalar,
        momenta: Numbers,
        position: Scalar = 0.0,
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
            function=Pure(_as_function(amplitude, "amplitude")),
            mass=positive["mass"](mass),
            momenta=_as_range(momenta),
            position=anywhere(position),
        )

    @classmethod
    @door
    def from_table(
        cls,
        momenta: Numbers,
        values: Numbers,
        mass: Scalar,
        position: Scalar = 0.0,
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
        momenta, values = _as_even("momenta", momenta), as_inexact("values", values)
        if values.shape != (momenta.size, momenta.size):
            raise ValueError(
                f"Argument `values` must have shape {(momenta.size, momenta.size)}, but has shape {values.shape}."
            )
        return cls(
            function=Table(momenta, values),
            mass=positive["mass"](mass),
            momenta=momenta[jnp.array([0, -1])],
            position=anywhere(position),
        )

    @classmethod
    @door
    def from_wigner(
        cls,
        function: Checked[Callable],
        mass: Scalar,
        momenta: Numbers,
        positions: Numbers,
        position: Scalar = 0.0,
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
        return cls(
            function=Wigner(_as_function(function), _as_even("positions", positions)),
            mass=positive["mass"](mass),
            momenta=_as_range(momenta),
            position=anywhere(position),
        )

    @classmethod
    @door
    def from_wigner_table(
        cls,
        momenta: Numbers,
        positions: Numbers,
        values: Numbers,
        mass: Scalar,
        position: Scalar = 0.0,
    ) -> "CustomPacket":
        r"""ρ_U from a table of its Wigner function, `values[i, l]` = W(p_i, x_l), evenly spaced in both.

        Interpolated in p by the band-limited rule, summed over x as in `from_wigner`.
        """
        momenta, positions = _as_even("momenta", momenta), _as_even("positions", positions)
        values = as_real("values", values)
        if values.shape != (momenta.size, positions.size):
            raise ValueError(
                f"Argument `values` must have shape {(momenta.size, positions.size)}, one row for each momentum, but "
                f"has shape {values.shape}."
            )
        wigner = Wigner(WignerTable(momenta, positions, values), positions)
        return cls(
            function=wigner,
            mass=positive["mass"](mass),
            momenta=momenta[jnp.array([0, -1])],
            position=anywhere(position),
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
        step = _step(self.positions)
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
    return jnp.sinc((p[..., None] - grid.reshape((1,) * p.ndim + (-1,))) / _step(grid))


def _step(grid):
    """The spacing of an even grid, NaN if it is none."""
    return or_nan(_even(grid), (grid[-1] - grid[0]) / (grid.size - 1))


def _even(grid):
    """Whether a grid ascends in equal steps, to 1e-6 of them or to the rounding of its values."""
    grid = jax.lax.stop_gradient(grid)
    step = (grid[-1] - grid[0]) / (grid.size - 1)
    room = jnp.maximum(1e-6 * step, 4 * jnp.finfo(grid.dtype).eps * jnp.max(jnp.abs(grid)))
    return (step > 0) & jnp.all(jnp.abs(jnp.diff(grid) - step) <= room)


def _as_even(name: str, x: Any) -> Float[Array, " G"]:
    """An even grid, in the precision in which it comes, and therefore even to all digits."""
    came = numbers(name, x)
    grid = as_real(name, came)
    if grid.ndim != 1 or grid.size < 4:
        raise ValueError(
            f"Argument `{name}` must be a vector of at least 4 values, but has shape {grid.shape}."
        )
    if not concrete(grid):
        return or_nan(_even(came), jnp.linspace(grid[0], grid[-1], grid.size))
    values = np.asarray(grid)
    steps = np.diff(values)
    require(
        known(lambda: _even(came)),
        f"Argument `{name}` must be evenly spaced and ascending, but its steps range from {steps.min():g} to "
        f"{steps.max():g}. Use jnp.linspace, or give a function instead of a table.",
    )
    return as_real(name, np.linspace(values[0], values[-1], grid.size))
