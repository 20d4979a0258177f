"""The integrals of the map over the grid of outgoing energies.

The map is Hermitian, S[k', j', k, j] = conj S[j', k', j, k]: N⁴ real numbers. `moments_of` gives them by the three
rules of the grid, and the size of what these leave out, along the last axis; `tensor_of` puts the map together from one
rule. Here dk = (m/k) dε.
"""

import operator
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._numerics.batched import pieces
from .._numerics.elementary import sin_cos, times
from .._quantum.levels import same_gap
from .energy_grid import entries
from .two_level_integral import two_level_moments, two_level_tensor

#: numbers that one array over the nodes may have, N⁴ for each node
AT_ONCE = 2**20


def _moments_with_table(grid, amplitudes, layers, levels, packet):
    """∫dε Σ_α (m/k) ρ_U(p, q) a_{j'j} conj(a_{k'k}), its real and imaginary parts for j' ≤ k', shape (2, …, N, N, 4).

    The amplitudes come from a table where the model has one; also given is by how much that may be wrong.
    """
    table = amplitudes.table(grid, layers, levels, packet)
    if table is None:
        return _moments_without_table(grid, amplitudes, layers, levels, packet)
    n = grid.stretch.size

    def part(where, outgoing, unit):
        return _sum_over_nodes(grid, where, outgoing, unit, levels, packet)

    between = part(
        slice(n - grid.nodes_above),
        lambda kinetic, _: table.between(kinetic, grid.nodes_between),
        grid.nodes_between,
    )
    above = part(slice(n - grid.nodes_above, n), lambda *_: table.above, grid.nodes_above)
    return between + above, table.error


moments_of = eqx.filter_custom_jvp(_moments_with_table)


@moments_of.def_jvp
def _moments_jvp(primals, tangents):
    # Beside nearly degenerate levels the derivative by their distance is peaked too sharply for a table.
    levels = tangents[3]
    function = _moments_with_table if levels is None else _moments_without_table
    return eqx.filter_jvp(function, primals, tangents)


def _moments_without_table(grid, amplitudes, layers, levels, packet):
    def outgoing(kinetic, beyond):
        return amplitudes.outgoing(kinetic, beyond, layers, levels, packet.mass)

    everywhere = slice(grid.stretch.size)
    values = _sum_over_nodes(grid, everywhere, outgoing, 1, levels, packet)
    return values, jnp.zeros((), levels.dtype)


def _sum_over_nodes(grid, where, outgoing, unit, levels, packet):
    """The part of the sum over some nodes of the grid; `outgoing` gives their amplitudes, in whole units of nodes."""
    N = levels.shape[0]
    nodes, plan = _nodes_of(grid, where), _plan(grid, where, unit, N)
    rows, columns = np.triu_indices(N)
    same = same_gap(levels).reshape((N,) * 4).transpose(0, 2, 1, 3)[rows, columns]
    pairs = jnp.asarray(rows), jnp.asarray(columns), same

    # A derivative computes each piece, and each block of it, once more: only the nodes themselves are kept for it.
    @jax.checkpoint
    def add(total, part):
        a, p = _waves(part.kinetic, outgoing(part.kinetic, part.beyond), packet)

        @jax.checkpoint
        def block(pair):
            return _block(a, p, pair, part, plan.outermost, packet)

        if plan.blocks >= len(rows):
            return total + jax.vmap(block, out_axes=1)(pairs), None
        sums = jax.lax.map(block, pairs, batch_size=plan.blocks)
        return total + jnp.moveaxis(sums, 0, 1), None

    total = jnp.zeros((2, len(rows), N, N, 4), levels.dtype)
    if plan.number == 1:
        return add(total, nodes._replace(ends=entries(nodes.ends, plan.outermost)))[0]
    # nodes that fill the last piece have no weight
    fills = "edge", "edge", "constant", "constant"
    cut = (pieces(x, plan.number, plan.size, fill) for x, fill in zip(nodes, fills, strict=True))
    kinetic, beyond, weights, ends = cut
    ends = entries(ends, plan.outermost)
    return jax.lax.scan(add, total, _Nodes(kinetic, beyond, weights, ends))[0]


class _Nodes(NamedTuple):
    """Some nodes of the grid: energies, weights by the three rules, and the lengths left out beside each node."""

    kinetic: Float[Array, "N N n"]
    beyond: Float[Array, "N R n"]
    weights: Float[Array, "3 n"]
    ends: Float[Array, " n"]


def _nodes_of(grid, where) -> _Nodes:
    ends = jnp.zeros(grid.stretch.shape, grid.stretch.dtype)
    ends = ends.at[np.array(grid.outermost)].add(grid.ends())
    return _Nodes(*(x[..., where] for x in (grid.kinetic, grid.beyond, grid.weights(), ends)))


class _Plan(NamedTuple):
    """How the sum is cut, where all nodes at once would need too much memory.

    There are `number` pieces of `size` nodes, whole units of them, and of a piece so many `blocks` (j', k') at a time.
    `outermost` are the places in a piece at which any piece has a node that is the outermost one of its panel.
    """

    number: int
    size: int
    blocks: int
    outermost: tuple[int, ...]


def _plan(grid, where, unit, N) -> _Plan:
    outermost = np.isin(np.arange(grid.stretch.size), grid.outermost)[where]
    n = outermost.size
    size = min(n, max(AT_ONCE // N**4 // unit, -(-64 // unit)) * unit)
    count = -(-n // size)
    pairs, most = N * (N + 1) // 2, max(AT_ONCE // (4 * N**2 * size), 1)
    blocks = max(k for k in range(1, most + 1) if pairs % k == 0)
    places = np.pad(outermost, (0, count * size - n)).reshape(count, size)
    return _Plan(count, size, blocks, tuple(np.flatnonzero(places.any(0)).tolist()))


def _waves(kinetic, a, packet):
    """Amplitudes √(m/k) a, 0 where the incoming channel is closed, with the phase of the position; the momenta."""
    open_ = kinetic > 0
    k = jnp.sqrt(2 * packet.mass * kinetic[0, 0])
    a = jnp.where(open_[None], a, 0) * jnp.sqrt(packet.mass / k)[None, None, None]
    p = jnp.sqrt(2 * packet.mass * jnp.where(open_, kinetic, 1))
    _, position = packet.centred()
    if position is not None:
        sine, cosine = sin_cos(p * position)
        a = a * jax.lax.complex(cosine, -sine)[None]
    return a, p


def _block(a, p, pair, nodes, outermost, packet):
    """The integrals of one block (j', k'): ρ_U(p, q) Σ_α a_{j'j} conj(a_{k'k}) for all j and k, real and imaginary."""
    j, k, same = pair
    density, _ = packet.centred()
    rho = density(*jnp.broadcast_arrays(p[j, :, None], p[k, None]), same[..., None])
    real, imag = jnp.real(a), jnp.imag(a)
    overlap = 0, 0
    for x in range(a.shape[0]):  # the exits of the particle
        first, second = (
            (real[x, j, :, None], imag[x, j, :, None]),
            (real[x, k, None], -imag[x, k, None]),
        )
        overlap = tuple(map(operator.add, overlap, times(first, second)))
    rho = (jnp.real(rho), jnp.imag(rho)) if jnp.iscomplexobj(rho) else (rho,)
    return jnp.stack([weigh(x, nodes.weights, nodes.ends, outermost) for x in times(overlap, rho)])


def integrals_of(size: int) -> tuple[Callable, Callable]:
    """For so many levels: the function that gives the integrals, and that which makes the map of them.

    This is the door to the two-level path, whose results differ from the general ones by rounding and by their layout.
    """
    return (two_level_moments, two_level_tensor) if size == 2 else (moments_of, tensor_of)


def tensor_of(values: Float[Array, "2 B N N"]) -> Complex[Array, "N N N N"]:
    """S[j', k', j, k] from its blocks with j' ≤ k'."""
    N = values.shape[-1]
    place = np.zeros((N, N), int)
    rows, columns = np.triu_indices(N)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    block = jax.lax.complex(*values)[place]
    adjoint = jnp.conj(jnp.swapaxes(block, 2, 3))
    order = (np.arange(N)[None] - np.arange(N)[:, None])[:, :, None, None]  # k' − j'
    return jnp.where(order == 0, (block + adjoint) / 2, jnp.where(order > 0, block, adjoint))


def weigh(
    rows: Float[Array, "*m n"],
    weights: Float[Array, "3 n"],
    ends: Float[Array, " K"],
    at: tuple[int, ...],
) -> Float[Array, "*m 4"]:
    """The integrals by the three rules, and the size of what these leave out: lengths `ends` beside the K nodes `at`.

    Only the first is differentiated: the others serve the error estimate.
    """
    fixed, coarse, ends = jax.lax.stop_gradient((rows, weights[1:], ends))
    left_out = entries(fixed, at) @ ends
    fine = rows @ weights[0]
    return jnp.concatenate([fine[..., None], fixed @ coarse.T, left_out[..., None]], axis=-1)
