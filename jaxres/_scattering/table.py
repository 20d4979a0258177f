r"""Amplitudes on the map's grid by way of a table between the levels.

    E     e_i ──────────────────── panel i, length ℓ ──────────────────── e_{i+1}
    θ      0 ─────────────────────────────────────────────────────────────── π/2        E = e_i + ℓ sin²θ
    y     −1 ─────────────────────────────────────────────────────────────── +1         K Chebyshev points
    next levels: e_i − L, at θ = ± i a                      e_{i+1} + L', at θ = π/2 ± i b

Between two neighbouring levels, e_i and e_i + ℓ, the exact amplitudes are analytic in the square roots of the distances
to both: in θ, with E = e_i + ℓ sin²θ. The next levels, L below and L' above, make branch points at θ = i a and at
π/2 + i b, sinh²a = L/ℓ and sinh²b = L'/ℓ. Those may be close. With

    P = θ + √(θ² + a²),    Q = ϑ + √(ϑ² + b²),    ϑ = π/2 − θ,    y linear in log(P/Q), from −1 to 1,

they are about π/2 away from the real axis of log(P/Q), however close: near the lower level θ = a sinh(log P/a), and
√(θ² + a²) is a cosh. So a few numbers represent the amplitudes, the coefficients of a Chebyshev series
Σ_{k<K} c_k T_k(y) for each panel. Given P/Q the definition is a quadratic equation for Q.

Poles come close to a threshold too, shallow bound states of the scatterer. As the next level they are resolved at any
distance from it if only a and b are small, so L and L' count as no more than a part of the packet's energy scale. And
what a distant part of a long panel does should not spoil the beginning, where the packet has its weight: what has the
series is a e^{−γ(E − e_i)}, γ the decay of ρ_U, on no more than a length over which that falls to rounding.

The series converges exponentially, and what is cut off is as large as the last coefficients. That is the map's error
where a narrow resonance lies between two of the K energies. Elsewhere it is far less, as what is cut off oscillates.

The map needs the amplitudes at E = ε + e_j' for every outgoing level j' at every node ε, which for many levels are far
more energies than the N K of the table. The last panel ends as far above the last level as that is above the first.
Beyond, above the last threshold, nodes are few, and the amplitudes themselves are computed.

Derivatives by the levels are not taken from the table: by the distance of nearly degenerate ones they are so peaked
that its rounding errors would be as large.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._numerics.batched import pieces
from .._numerics.safe import safe_sqrt
from .._quantum.levels import gaps
from .._reservoir.packet import AbstractPacket
from .._reservoir.scatterer import Layers
from .energy_grid import Grid

#: orders of the series, at least
ORDERS = 64

#: from so many levels on the panels are so short that their resonances do not need more orders
MANY = 24

#: A next level nearer than LEAST lengths of the panel coincides with its end; one farther than NEAR energy scales of
#: the packet counts as that far.
LEAST, NEAR = 1e-14, 0.2

#: energy times the decay of ρ_U beyond which the packet has no weight
END = 36.0

#: numbers that one array over energies may have, N² for each
AT_ONCE = 2**17


class Table(eqx.Module):
    """Coefficients [panel, outgoing level, order, part]; the parts are (real or imaginary, exit, incoming level).

    `above` are the amplitudes at the nodes above the last threshold, `error` is an estimate of the map's error.
    """

    coefficients: Float[Array, "N N K c"]
    above: Complex[Array, "X N N l"]
    panels: "Panels"
    error: Float[Array, ""]

    def between(self, kinetic: Float[Array, "N N n"], nodes: int) -> Complex[Array, "X N N n"]:
        """a[σ, j', j] on whole panels of the grid, of so many `nodes` each."""
        N = kinetic.shape[0]
        distances = kinetic.reshape(N, N, -1, nodes)
        # E is above level `place`, in each panel
        place = jnp.sum(distances[..., 0] > 0, axis=1) - 1

        def distance(level):
            here = np.arange(N)[None, :, None] == level[:, None]
            return jnp.sum(jnp.where(here[..., None], distances, 0), axis=1)

        panels, lower = self.panels.at(place), distance(place)
        upper = -distance(jnp.minimum(place + 1, N - 1))
        upper = jnp.where(panels.cut, panels.length - lower, upper)
        y = panels.y(jnp.arctan2(safe_sqrt(lower), safe_sqrt(upper)))
        # [j', panel, order, node]
        T = _chebyshev(y, self.coefficients.shape[2]) / panels.weight(lower)[..., None, :]
        c = self.coefficients[place, np.arange(N)[:, None]]
        a = jnp.einsum("jpkn,jpkc->jcpn", T, c, precision="highest")
        a = a.reshape(N, 2, -1, N, kinetic.shape[-1])
        return jax.lax.complex(a[:, 0], a[:, 1]).swapaxes(0, 1)


def tabulate(
    rows: Callable[..., tuple[Complex[Array, "K N n"], ...]],
    grid: Grid,
    layers: Layers,
    levels: Float[Array, " N"],
    packet: AbstractPacket,
) -> Table:
    """The table for a grid whose panels end at differences of levels alone, of what `rows` computes."""
    N, dtype = levels.shape[0], levels.dtype
    levels = levels - levels[0]
    K = max(ORDERS, min(N, MANY) * grid.nodes_between // 2)
    angle = np.pi * (np.arange(K) + 0.5) / K
    panels = Panels.between(levels, packet, grid.tiny)
    between, weight = panels.points(levels, np.cos(angle))
    above = grid.kinetic[:, :, grid.kinetic.shape[-1] - grid.nodes_above :].swapaxes(0, 1)
    # kinetic energies of every incoming level, at all energies
    kinetic = jnp.concatenate([x.reshape(N, -1) for x in (between, above)], axis=1)
    one = jnp.eye(N, dtype=dtype)

    @jax.checkpoint
    def amplitudes(kinetic):
        return jnp.stack(rows(kinetic, kinetic[0], layers, levels, packet.mass, one))

    total = kinetic.shape[1]
    size = min(total, max(AT_ONCE // N**2, 64))
    count = -(-total // size)
    if count == 1:
        a = amplitudes(kinetic)
    else:
        a = jax.lax.map(amplitudes, pieces(kinetic, count, size))
        a = jnp.moveaxis(a, 0, -2).reshape(-1, N, N, count * size)
    own = np.arange(N)
    above = (
        a[..., N * K : total].reshape(-1, N, N, N, grid.nodes_above)[:, own, :, own].swapaxes(0, 1)
    )
    # Gauss's rule for the coefficients, [order, energy]
    orders = np.arange(K)[:, None]
    series = np.cos(orders * angle) * np.where(orders == 0, 1, 2) / K
    samples = jnp.stack([jnp.real(a), jnp.imag(a)])[..., : N * K].reshape(2, -1, N, N, N, K)
    samples = samples * weight[None, None, None, None]
    c = jnp.einsum("ky,rxijpy->pikrxj", series.astype(dtype), samples, precision="highest")
    # Only open channels count: closed ones are large where a resonance is narrow.
    open_ = np.tril(np.ones((N, N), bool))  # [panel, level]
    open_ = (open_[:, :, None] & open_[:, None])[:, :, None, None, None, :]
    last = jnp.where(open_, jnp.abs(jax.lax.stop_gradient(c[:, :, -2:])), 0)
    # the root of ∫ ρ_U |δa|²: an entry of the map, ∫ ρ_U a b*, is off by no more than |a| + |b| times that
    last = jnp.max(last, axis=(1, 2, 3, 4, 5))
    error = jnp.sqrt(last**2 @ _weight_of_panels(grid, panels, packet))
    return Table(c.reshape(N, N, K, -1), above, panels, error)


def _weight_of_panels(grid, panels, packet):
    """∫ μ_U(p) dp e^{γ(E − e_i)} over each panel, the largest for any incoming level: what an error there weighs."""
    grid, panels, packet = jax.lax.stop_gradient((grid, panels, packet))
    kinetic = grid.kinetic[..., : -grid.nodes_above]
    open_ = kinetic > 0
    p = jnp.sqrt(2 * packet.mass * jnp.where(open_, kinetic, 1))
    density = jnp.where(open_, packet.distribution(p) * packet.mass / p, 0)
    place = jnp.sum(open_, axis=1) - 1  # [j', n]: E is above that level
    lower = jnp.take_along_axis(kinetic, place[:, None], axis=1)[:, 0]
    growth = 1 / panels.at(place).weight(lower[..., None])[..., 0]
    each = density * (grid.weights()[:1, : -grid.nodes_above] * growth)[:, None]
    own = jax.nn.one_hot(place, kinetic.shape[0], dtype=p.dtype)
    weights = jnp.einsum("ajn,ani->aji", each, own, precision="highest")
    return jnp.max(weights, axis=(0, 1))


class Panels(eqx.Module):
    """Length, a and b of the panel above each level, the last axis for points, and whether it ends below the next."""

    length: Float[Array, "*p 1"]
    a: Float[Array, "*p 1"]
    b: Float[Array, "*p 1"]
    cut: Bool[Array, "*p 1"]
    decay: Float[Array, "*p 1"]

    @classmethod
    def between(
        cls, levels: Float[Array, " N"], packet: AbstractPacket, tiny: Float[Array, ""]
    ) -> "Panels":
        decay, near = jax.lax.stop_gradient((packet.decay(), NEAR * packet.energy_scale()))
        below = gaps(levels)  # e_j − e_k
        whole = jnp.append(jnp.diagonal(below, -1), below[-1, 0]) + tiny
        length = jnp.minimum(whole, END / decay)  # which may be infinite
        cut = (length < whole).at[-1].set(True)

        def branch(distances):
            """From the distances of all levels to one end of each panel; those that coincide with it do not count."""
            apart = jnp.where(distances > LEAST * length[:, None], distances, near)
            beside = jnp.minimum(jnp.min(apart, axis=1), near)
            return jnp.arcsinh(jnp.sqrt(jnp.minimum(beside / length, 1)))

        a, b = branch(below), branch(jnp.where(cut[:, None], 0, -jnp.roll(below, -1, axis=0)))
        columns = length, a, b, cut, jnp.broadcast_to(decay, length.shape)
        return cls(*(x[:, None] for x in columns))

    def at(self, place: Int[Array, "*q"]) -> "Panels":
        return jax.tree.map(lambda x: x[place], self)

    def y(self, theta: Float[Array, "*p n"]) -> Float[Array, "*p n"]:
        start, end = self._logarithm(0.0), self._logarithm(np.pi / 2)
        return 2 * (self._logarithm(theta) - start) / (end - start) - 1

    def _logarithm(self, theta):
        """log(P/Q) at these θ."""
        beside = np.pi / 2 - theta
        P = theta + jnp.sqrt(theta**2 + self.a**2)
        Q = beside + jnp.sqrt(beside**2 + self.b**2)
        return jnp.log(P / Q)

    def angles(self, y: Float[Array, "1 n"]) -> tuple[Float[Array, "p n"], Float[Array, "p n"]]:
        """θ and ϑ at these y."""
        start, end = self._logarithm(0.0), self._logarithm(np.pi / 2)
        r = jnp.exp(start + (end - start) * (1 + y) / 2)
        Q = np.pi / 2 + jnp.sqrt((np.pi / 2) ** 2 + (1 + r) * (self.a**2 / r + self.b**2))
        Q = Q / (1 + r)
        return (r * Q - self.a**2 / (r * Q)) / 2, (Q - self.b**2 / Q) / 2

    def weight(self, lower: Float[Array, "*p n"]) -> Float[Array, "*p n"]:
        """e^{−γ(E − e_i)}, beyond the end as there."""
        return jnp.exp(-self.decay * jnp.minimum(lower, self.length))

    def points(
        self, levels: Float[Array, " p"], y: np.ndarray
    ) -> tuple[Float[Array, "p p n"], Float[Array, "p n"]]:
        """E − e_j at these y on every panel, [j, panel], each from its distance to the next level; the weight."""
        angles = self.angles(jnp.asarray(y, levels.dtype)[None])
        from_lower, from_upper = (self.length * jnp.sin(x) ** 2 for x in angles)
        gap = gaps(levels)  # e_j − e_panel
        to_upper = jnp.roll(gap, -1, axis=1)
        closed = np.triu(np.ones(gap.shape, bool), 1).T[:, :, None] & ~self.cut[None]
        below = to_upper[:, :, None] + from_upper[None]
        distances = jnp.where(closed, -below, from_lower[None] - gap[:, :, None])
        return distances, self.weight(from_lower)


def _chebyshev(y: Float[Array, "*s n"], count: int) -> Float[Array, "*s {count} n"]:
    """T_0 … of y, from T_{k+i} = 2 T_k T_i − T_{k−i}."""
    y = y[..., None, :]
    T = jnp.concatenate([jnp.ones_like(y), y], axis=-2)
    while T.shape[-2] < count:
        T = jnp.concatenate([T, 2 * T[..., -1:, :] * T[..., 1:, :] - T[..., -2::-1, :]], axis=-2)
    return T[..., :count, :]
