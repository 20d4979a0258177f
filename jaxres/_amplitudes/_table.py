r"""Amplitudes on the map's grid by way of a table between the levels.

As functions of the total energy E the exact amplitudes are analytic between two neighbouring levels, in the square
roots of the distances to both: in θ, with E = e_i + (e_{i+1} − e_i) sin²θ. So a few numbers tell all about them, the
coefficients of a Chebyshev series

    a(E) = Σ_{k<K} c_k T_k(y),   y = 4θ/π − 1,       above the last level E = e_N + (e_N − e_1) u²,  y = 2u − 1.

It converges exponentially, and what is cut off is as large as the last coefficients, t. In the map that oscillates
against everything but itself and the square roots of other channels, so its error is about t² + t/K^{3/2}: on 24
random systems with K = 24, 48 and 96 three times that was never too small, but for rounding.

The map needs a at E = ε + e_j' for every outgoing level j' at every node ε, which for many levels are far more
energies than the N K of the table. Above the last threshold, where nodes are few, the amplitudes themselves are
computed.

Derivatives by the levels are not taken from the table. Beside nearly degenerate levels k = √(2m(E − e_i)) changes
with their distance on the scale of that distance alone, which no table between other levels resolves.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._batched import pieces
from .._quadrature import Grid
from .._safe import safe_sqrt
from .._scatterer import Layers

#: orders of the series, at least
ORDERS = 64

#: numbers that one array over energies may have, N² for each
AT_ONCE = 2**17


class Table(eqx.Module):
    """Coefficients [panel, outgoing level, order, part]; the parts are (real or imaginary, exit, incoming level).

    `above` are the amplitudes at the nodes above the last threshold, `error` is an estimate of the map's error.
    """

    coefficients: Float[Array, "N N K c"]
    above: Complex[Array, "X N N l"]
    span: Float[Array, ""]
    error: Float[Array, ""]

    def between(self, kinetic: Float[Array, "N N n"], nodes: int) -> Complex[Array, "X N N n"]:
        """a[σ, j', j] on whole panels of the grid, of so many `nodes` each."""
        N = kinetic.shape[0]
        panels = kinetic.reshape(N, N, -1, nodes)
        place = jnp.sum(panels[..., 0] > 0, axis=1) - 1  # E is above level `place`, in each panel

        def distance(level):
            here = np.arange(N)[None, :, None] == level[:, None]
            return jnp.sum(jnp.where(here[..., None], panels, 0), axis=1)

        lower, upper = distance(place), -distance(jnp.minimum(place + 1, N - 1))
        top = (place == N - 1)[..., None]
        theta = jnp.arctan2(safe_sqrt(lower), jnp.where(top, 1, safe_sqrt(upper)))
        y = jnp.where(top, 2 * safe_sqrt(lower / self.span), 4 / np.pi * theta) - 1
        T = _chebyshev(y, self.coefficients.shape[2])  # [j', panel, order, node]
        c = self.coefficients[place, np.arange(N)[:, None]]
        a = jnp.einsum("jpkn,jpkc->jcpn", T, c, precision="highest")
        a = a.reshape(N, 2, -1, N, kinetic.shape[-1])
        return jax.lax.complex(a[:, 0], a[:, 1]).swapaxes(0, 1)


def tabulate(
    rows: Callable[..., tuple[Complex[Array, "K N n"], ...]],
    grid: Grid,
    layers: Layers,
    levels: Float[Array, " N"],
    mass: Float[Array, ""],
) -> Table:
    """The table for a grid whose panels end at differences of levels alone, of what `rows` computes."""
    N, dtype = levels.shape[0], levels.dtype
    K = max(ORDERS, N * grid.finite // 4)
    levels = levels - levels[0]
    span = levels[-1] + grid.tiny
    angle = np.pi * (np.arange(K) + 0.5) / K
    between = _between_levels(levels, grid.tiny, span, np.cos(angle))
    above = grid.kinetic[:, :, grid.kinetic.shape[-1] - grid.last :].swapaxes(0, 1)
    # kinetic energies of every incoming level, at all energies
    kinetic = jnp.concatenate([x.reshape(N, -1) for x in (between, above)], axis=1)
    one = jnp.eye(N, dtype=dtype)

    @jax.checkpoint
    def amplitudes(kinetic):
        return jnp.stack(rows(kinetic, kinetic[0], layers, levels, mass, one))

    total = kinetic.shape[1]
    size = min(total, max(AT_ONCE // N**2, 64))
    count = -(-total // size)
    if count == 1:
        a = amplitudes(kinetic)
    else:
        a = jax.lax.map(amplitudes, pieces(kinetic, count, size))
        a = jnp.moveaxis(a, 0, -2).reshape(-1, N, N, count * size)
    own = np.arange(N)
    above = a[..., N * K : total].reshape(-1, N, N, N, grid.last)[:, own, :, own].swapaxes(0, 1)
    # Gauss's rule for the coefficients, [order, energy]
    orders = np.arange(K)[:, None]
    series = np.cos(orders * angle) * np.where(orders == 0, 1, 2) / K
    samples = jnp.stack([jnp.real(a), jnp.imag(a)])[..., : N * K].reshape(2, -1, N, N, N, K)
    c = jnp.einsum("ky,rxijpy->pikrxj", series.astype(dtype), samples, precision="highest")
    # Only open channels count: closed ones are large where a resonance is narrow.
    open_ = np.tril(np.ones((N, N), bool))  # [panel, level]
    open_ = (open_[:, :, None] & open_[:, None])[:, :, None, None, None, :]
    tail = jnp.max(jnp.where(open_, jnp.abs(jax.lax.stop_gradient(c[:, :, -2:])), 0))
    error = 3 * tail**2 + 3 * tail / K**1.5
    return Table(c.reshape(N, N, K, -1), above, span, error)


def _between_levels(levels, tiny, span, y) -> Float[Array, "N N K"]:
    """E − e_j at the points y of every panel, [j, panel], each from its distance to the next level."""
    theta, u = np.pi / 4 * (1 + y), (1 + y) / 2
    below, square = (jnp.asarray(x, levels.dtype)[None] for x in (np.sin(theta) ** 2, u**2))
    beyond = jnp.asarray(np.cos(theta) ** 2, levels.dtype)[None]
    length = (jnp.diff(levels) + tiny)[:, None]
    from_lower = jnp.concatenate([length * below, span * square])[None]
    from_upper = jnp.pad(length * beyond, [(0, 1), (0, 0)])[None]
    gap = levels[:, None] - levels[None]  # e_j − e_panel
    to_upper = jnp.roll(gap, -1, axis=1)
    closed = np.triu(np.ones(gap.shape, bool), 1).T[:, :, None]
    return jnp.where(closed, -(to_upper[:, :, None] + from_upper), from_lower - gap[:, :, None])


def _chebyshev(y: Float[Array, "*s n"], count: int) -> Float[Array, "*s {count} n"]:
    """T_0 … of y, from T_{k+i} = 2 T_k T_i − T_{k−i}."""
    y = y[..., None, :]
    T = jnp.concatenate([jnp.ones_like(y), y], axis=-2)
    while T.shape[-2] < count:
        T = jnp.concatenate([T, 2 * T[..., -1:, :] * T[..., 1:, :] - T[..., -2::-1, :]], axis=-2)
    return T[..., :count, :]
