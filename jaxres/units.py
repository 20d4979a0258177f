r"""Conversion of SI units, such as kelvin, gigahertz, proton masses and nanometres, to numbers of the model and back.

jaxres computes with ħ = k = 1. Then every quantity is a power of an energy times a power of a length,

    energy, temperature, frequency, rate   E        time       1/E        momentum   1/L
    length                                 L        mass       1/(E L²)   velocity   E L

and two quantities that are 1 fix a system of units. The constants are those of CODATA, from `scipy.constants`.
"""

import math
from types import MappingProxyType

import equinox as eqx
from jaxtyping import Array, Float
from scipy import constants

from ._checks import Checked, Numbers, as_choice, as_float, as_real, door, require, shown

_HBAR, _K = constants.hbar, constants.k

#: each unit in joules and metres, with ħ = k = 1: its size, its power of energy, its power of length
UNITS = MappingProxyType(
    {
        "J": (1.0, 1, 0),
        "eV": (constants.e, 1, 0),
        "meV": (1e-3 * constants.e, 1, 0),
        "K": (_K, 1, 0),
        "rad/s": (_HBAR, 1, 0),
        "Hz": (constants.h, 1, 0),
        "MHz": (1e6 * constants.h, 1, 0),
        "GHz": (1e9 * constants.h, 1, 0),
        "THz": (1e12 * constants.h, 1, 0),
        "1/s": (_HBAR, 1, 0),
        "s": (1 / _HBAR, -1, 0),
        "us": (1e-6 / _HBAR, -1, 0),
        "ns": (1e-9 / _HBAR, -1, 0),
        "ps": (1e-12 / _HBAR, -1, 0),
        "m": (1.0, 0, 1),
        "um": (1e-6, 0, 1),
        "nm": (1e-9, 0, 1),
        "pm": (1e-12, 0, 1),
        "kg": (1 / _HBAR**2, -1, -2),
        "m_p": (constants.m_p / _HBAR**2, -1, -2),
        "u": (constants.atomic_mass / _HBAR**2, -1, -2),
        "kg m/s": (1 / _HBAR, 0, -1),
        "m/s": (_HBAR, 1, 1),
    }
)


class Units(eqx.Module):
    r"""The units of a model, fixed by two quantities that are 1 in it, as in `Units((300, "K"), (1000, "m_p"))`.

    **Arguments:** `first`, `second`: two independent pairs (number, unit). The units are

    | of | units |
    |---|---|
    | energy | `J`, `eV`, `meV` |
    | temperature (k T) | `K` |
    | angular frequency ω (ħω) | `rad/s` |
    | frequency ν (hν = 2πħν) | `Hz`, `MHz`, `GHz`, `THz` |
    | rate Γ of events | `1/s` |
    | time | `s`, `us`, `ns`, `ps` |
    | length | `m`, `um`, `nm`, `pm` |
    | mass | `kg`, `m_p` (proton masses), `u` |
    | momentum, velocity | `kg m/s`, `m/s` |

    A splitting of 1 `GHz` is 2π·10⁹ rad/s, which differs from the Letter's ω = 10⁹ s⁻¹, 1e9 `rad/s`. β is the inverse
    of the temperature.

    **Attributes:** `energy` (J) and `length` (m), the units of energy and length of the model.

    **Raises:** `ValueError` for unknown units, numbers that are not positive, two quantities of which one fixes the
    other, such as a time and an energy, or units beyond the range of floating-point numbers.

    !!! example
        >>> units = jr.units.Units((300, "K"), (1000, "m_p"))
        >>> beta = 1 / units.to_model(300, "K")
        >>> splitting = units.to_model(1e9, "rad/s")
        >>> width = units.to_model(50, "nm")
        >>> print(jnp.round(beta * 1.0 * (width * splitting) ** 2 / 2, 4))  # β m Δx² ω²/2 of Eq. (24)
        0.5048
        >>> print(jnp.round(units.from_model(width, "nm"), 9))
        50.0
    """

    energy: float = eqx.field(static=True)
    length: float = eqx.field(static=True)

    def __init__(self, first: Checked[tuple[float, str]], second: Checked[tuple[float, str]]):
        # E^a L^b = x, E^c L^d = y
        x, a, b = _quantity("first", first)
        y, c, d = _quantity("second", second)
        det = a * d - b * c
        if det == 0:
            raise ValueError(
                f"Argument `second` must be independent of {shown(first)}, but {shown(second)} is fixed by it (ħ = k = "
                "1). Give an energy, temperature, frequency or time, and a length or mass."
            )
        try:
            self.energy = (x**d / y**b) ** (1 / det)
            self.length = (y**a / x**c) ** (1 / det)
            sizes = [self.energy**a * self.length**b for _, a, b in UNITS.values()]
        except (OverflowError, ZeroDivisionError):
            sizes = [math.inf]
        require(
            all(0 < size < math.inf for size in sizes),
            f"Argument `first` must make units that floating-point numbers can tell, but {shown(first)} and "
            f"{shown(second)} do not.",
        )

    @door
    def to_model(self, value: Numbers, unit: Checked[str]) -> Float[Array, "*s"]:
        """Converts a value in the given unit to a number of the model.

        **Arguments:** `value`: an array of any shape; `unit`: one of the table. **Returns:** the same shape.

        **Raises:** `ValueError` for an unknown unit.

        !!! example
            >>> units = jr.units.Units((1e9, "rad/s"), (1, "nm"))
            >>> print(units.to_model(2.0, "ns"), jnp.round(units.to_model(1.0, "GHz"), 6))
            2.0 6.283185
        """
        return as_real("value", value) * self._factor(unit)

    @door
    def from_model(self, value: Numbers, unit: Checked[str]) -> Float[Array, "*s"]:
        """Converts a number of the model to a value in the given unit.

        **Arguments:** `value`: an array of any shape; `unit`: one of the table. **Returns:** the same shape.

        **Raises:** `ValueError` for an unknown unit.

        !!! example
            >>> units = jr.units.Units((1e9, "rad/s"), (1, "nm"))
            >>> print(jnp.round(units.from_model(0.5, "1/s")))
            500000000.0
        """
        return as_real("value", value) / self._factor(unit)

    def _factor(self, unit):
        size, a, b = UNITS[as_choice("unit", unit, tuple(UNITS))]
        return size / (self.energy**a * self.length**b)


def _quantity(name, x):
    """Converts a pair (number, unit) to joules and metres; also returns the powers of energy and of length."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise ValueError(f"Argument `{name}` must be a pair (number, unit), but is {shown(x)}.")
    value, (size, a, b) = as_float(name, x[0]), UNITS[as_choice(name, x[1], tuple(UNITS))]
    require(value > 0, f"Argument `{name}` must be positive, but is {value:g} {x[1]}.")
    return value * size, a, b
