r"""The numbers of a model that a search changes, between bounds.

The free numbers are one vector x. Each is written as

    y = a ± b s,        x = y, or x = e^y where it is positive by its bounds,

so that s runs from 0 to 1 between two bounds, from 0 upwards from one bound, and over all numbers without any. A search
without bounds moves u, with

    s = (1 + sin u)/2     between two bounds,
    s = √(1 + u²) − 1     from one bound,
    s = u                 without any.

These are smooth, and an optimum on a bound lies at a finite u, with a vanishing derivative, so that it is found as fast
as any other. SciPy's methods, which know bounds, move s.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import require
from .._fields import Fields

#: Starts nearer to a bound than this, in s, are moved away from it, since the derivative in u vanishes on a bound.
NUDGE = 1e-3


class Box(eqx.Module):
    """The bounds of a vector x, and the coordinates in which it is searched. All fields have the shape of x."""

    low: Float[Array, " n"]
    high: Float[Array, " n"]
    log: Float[Array, " n"]
    origin: Float[Array, " n"]
    scale: Float[Array, " n"]

    @classmethod
    def around(cls, low: Any, high: Any, x: Any, dtype: Any) -> "Box":
        """The box between bounds (infinite where there is none), with the point x in it."""
        low, high, x = (np.asarray(v, float) for v in (low, high, x))
        log = (low > 0) | ((low == 0) & np.isinf(high))
        with np.errstate(divide="ignore"):
            y_low, y_high, y = (
                np.where(log, np.log(np.where(log, v, 1)), v) for v in (low, high, x)
            )
        below, above = np.isfinite(y_low), np.isfinite(y_high)
        origin = np.where(below, y_low, np.where(above, y_high, y))
        size = np.where(below & above, y_high - y_low, np.abs(y - origin))
        # one e-fold, or the distance from the bound, or the number's own size
        natural = np.where(log, 1.0, np.where(size > 0, size, np.maximum(np.abs(y), 1.0)))
        scale = np.where(below & above, size, np.where(~below & above, -natural, natural))
        fields = (low, high, log, origin, scale)
        return cls(*(jnp.asarray(field, dtype) for field in fields))

    def _kinds(self):
        """Where there are two bounds, and where there is one."""
        below = jnp.isfinite(self.low) & ~((self.log > 0) & (self.low == 0))
        above = jnp.isfinite(self.high)
        return below & above, below ^ above

    def physical(self, s: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x at s."""
        y = self.origin + self.scale * s
        return jnp.where(self.log > 0, jnp.exp(jnp.where(self.log > 0, y, 0)), y)

    def slope(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns dx/ds, which is never 0."""
        return self.scale * jnp.where(self.log > 0, x, 1)

    def scaled(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns s at x."""
        y = jnp.where(self.log > 0, jnp.log(jnp.where(self.log > 0, x, 1)), x)
        return (y - self.origin) / self.scale

    def fold(self, u: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Returns s at u, and ds/du."""
        two, one = self._kinds()
        root = jnp.sqrt(1 + u**2)
        s = jnp.where(two, (1 + jnp.sin(u)) / 2, jnp.where(one, root - 1, u))
        return s, jnp.where(two, jnp.cos(u) / 2, jnp.where(one, u / root, 1))

    def unfold(self, s: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns a u at s, after s is moved off the bounds by `NUDGE`."""
        two, one = self._kinds()
        inside = jnp.clip(s, NUDGE, 1 - NUDGE)
        away = jnp.maximum(s, NUDGE)
        return jnp.where(
            two, jnp.arcsin(2 * inside - 1), jnp.where(one, jnp.sqrt((1 + away) ** 2 - 1), s)
        )

    def draw(self, key: Any, s: Float[Array, " n"], count: int) -> Float[Array, "c n"]:
        """Draws starts: s itself, then others, uniform between two bounds, and normal where a bound is missing."""
        two, one = self._kinds()
        shape = (count - 1, *s.shape)
        uniform = jax.random.uniform(key, shape, s.dtype)
        normal = s[None] + jax.random.normal(jax.random.fold_in(key, 1), shape, s.dtype)
        other = jnp.where(two[None], uniform, jnp.where(one[None], jnp.abs(normal), normal))
        return jnp.concatenate([s[None], other])

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bounds of s."""
        two, one = (np.asarray(kind) for kind in self._kinds())
        return np.where(two | one, 0.0, -np.inf), np.where(two, 1.0, np.inf)

    def touching(self, s: Any, near: float) -> np.ndarray:
        """Returns −1 where s is nearer than `near` to the lower bound of x, 1 at the upper one, 0 elsewhere."""
        two, one = (np.asarray(kind) for kind in self._kinds())
        s = np.asarray(s)
        start, end = (two | one) & (s < near), two & (s > 1 - near)
        return np.where(start, np.where(np.asarray(self.scale) > 0, -1, 1), np.where(end, 1, 0))


class Free:
    """The free numbers of a model, by name: `rate`, `packet.width`, `scatterer.heights`, `levels.1`."""

    def __init__(self, start: Any, bounds: Any):
        require(
            isinstance(bounds, Mapping) and len(bounds) > 0,
            "Argument `bounds` must be a mapping from the names of the free parameters to (lowest, highest), but is "
            f"{bounds!r}. None stands for no bound, as in {{'rate': (0.1, 100.0), 'packet.position': (None, None)}}.",
        )
        self.model = jax.tree_util.tree_map(_array, start)
        self.fields = Fields(self.model, "start")
        known = self.fields.fields
        require(
            len(known) > 0,
            "Argument `start` must be a model with floating-point numbers, such as (system, reservoir) or a dictionary,"
            f" but is {start!r}.",
        )
        low, high, x, self.entries = [], [], [], []
        taken: set[str] = set()
        for name, pair in bounds.items():
            value = self._value(name)
            cells = self._cells(name)
            require(
                not cells & taken,
                f"Argument `bounds` must name each number once, but {name!r} is named twice.",
            )
            taken |= cells
            least, most = _pair(name, pair, value)
            require(
                (least <= value) & (value <= most),
                f"Argument `start` must lie within the bounds, but {name!r} is {value} and its bounds are {pair}.",
            )
            low.append(least.ravel())
            high.append(most.ravel())
            x.append(value.ravel())
            self.entries += _entry_names(name, value.shape)
        self.dtype = jnp.result_type(*(known[self.fields.entry(name)[0]] for name in bounds))
        self.shapes = {name: np.shape(self.fields.default(name)) for name in bounds}
        least, most, self.x = (np.concatenate(part) for part in (low, high, x))
        self.box = Box.around(least, most, self.x, self.dtype)

    def _value(self, name: Any) -> np.ndarray:
        """The real numbers of a name of `bounds` at the start."""
        require(
            isinstance(name, str),
            f"Argument `bounds` must name parameters by strings, but has {name!r}.",
        )
        value = self.fields.default(name)
        require(
            value is not None,
            f"Argument `bounds` must name parameters of `start`, but has {name!r}. They are "
            f"{', '.join(self.fields.fields) or 'none: it has no floating-point numbers'}; one of an array's entries "
            "is, for example, levels.1.",
        )
        require(
            not np.iscomplexobj(value),
            f"Argument `bounds` must name real parameters, but {name!r} is complex. Let `start` be a dict of real "
            "numbers, and make the model of it in `loss`.",
        )
        return np.asarray(value)

    def _cells(self, name: str) -> set[str]:
        """The single numbers of a name, each as its field and its place there: a name may be a part of another."""
        field, index = self.fields.entry(name)
        shape = np.shape(self.fields.fields[field])
        places = np.arange(np.prod(shape, dtype=int)).reshape(shape)[index].ravel()
        return {f"{field}.{place}" for place in places}

    def static(self) -> tuple:
        """The names and shapes: all that a compiled program depends on."""
        return tuple(self.shapes.items())


def split(shapes: tuple, x: Any) -> dict[str, Any]:
    """The numbers of the vector x by name, each in its shape."""
    values, begin = {}, 0
    for name, shape in shapes:
        size = int(np.prod(shape))
        values[name] = x[begin : begin + size].reshape(shape)
        begin += size
    return values


def put(model: Any, shapes: tuple, x: Float[Array, " n"]) -> Any:
    """The model with the free numbers replaced by x."""
    return Fields(model, "start")(**split(shapes, x))


def _array(leaf):
    """A float becomes an array; an int does not, since it may be a count."""
    return jnp.asarray(leaf) if isinstance(leaf, float | np.floating | np.ndarray) else leaf


def _entry_names(name, shape):
    return [".".join([name, *map(str, index)]) for index in np.ndindex(*shape)]


def _pair(name, pair, value):
    what = f"Argument `bounds` must give (lowest, highest) for {name!r}, lowest < highest"
    require(isinstance(pair, tuple | list) and len(pair) == 2, f"{what}, but is {pair!r}.")
    try:
        least, most = (
            np.broadcast_to(np.asarray(infinite if bound is None else bound, float), value.shape)
            for bound, infinite in zip(pair, (-np.inf, np.inf), strict=True)
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{what}, numbers or arrays of its shape {value.shape}, but is {pair!r}."
        ) from error
    require(least < most, f"{what}, but is {pair!r}. Leave a parameter out to hold it fixed.")
    return least, most
