r"""How a sweep is cut: into work items (tiles of the grid, one chunk of the store each), and these into blocks.

A block is computed by nested `jax.vmap`, one for each axis, so whatever does not depend on an axis is computed once for
all of its values in the block. With w_A the work of the operations that depend on exactly the set A of axes (see
`cost_by_axes`), a block of b_i values along axis i costs

    Σ_A w_A Π_{i∈A} b_i      for      Π_i b_i  points.

The block grows along the axis that lowers the work per point the most, until its arrays fill the cache.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .jaxpr import Cost

#: The largest array of a block takes at most so many bytes. On a CPU these are 128 to 256 steady states, which fit the
#: cache of one core.
CACHE = {"cpu": 3 * 2**18}
#: On an accelerator the bound is larger, because it needs many points at a time to be busy.
CACHE_ELSEWHERE = 2**28
#: A sweep is cut into so many work items, unless they become too large or too small: shards, executors and resumed
#: sweeps need many.
ITEMS = 64
#: A work item has so many points for each lane, at least and at most. A smaller one takes longer to write (0.03 s) than
#: to compute; a larger one loses more when the sweep is interrupted.
LEAST_POINTS, MOST_POINTS = 256, 2**16
#: A work item's results take at most one part in this of `memory`: at least two are under way, each held four times
#: while it is sent and written.
COPIES = 8
#: The largest array of a block takes at most one part in this of a lane's share of `memory`, because a block has many.
ARRAYS = 16

Axes = tuple[dict[str, np.ndarray], ...]  # one group of zipped names for each axis


@dataclass(frozen=True)
class Plan:
    """The grid, its tiles and their blocks. All extents are by axis, the outermost axis first."""

    axes: Axes
    block: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes; zipped names are joined by an underscore."""
        return tuple("_".join(group) for group in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points along each axis."""
        return tuple(len(next(iter(group.values()))) for group in self.axes)

    @property
    def points(self) -> int:
        """The number of points of the whole grid."""
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of work items along each axis."""
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def items(self) -> int:
        """The number of work items."""
        return math.prod(self.grid)

    def region(self, item: int) -> tuple[slice, ...]:
        """The part of the grid that a work item covers."""
        index = np.unravel_index(item, self.grid)
        return tuple(
            slice(int(i) * t, min((int(i) + 1) * t, n))
            for i, t, n in zip(index, self.tile, self.shape, strict=True)
        )

    def size(self, item: int) -> int:
        """The number of points of a work item."""
        return math.prod(part.stop - part.start for part in self.region(item))

    def values(self, item: int) -> list[dict[str, np.ndarray]]:
        """The values of every axis in a work item."""
        parts = self.region(item)
        return [
            {k: v[part] for k, v in group.items()}
            for group, part in zip(self.axes, parts, strict=True)
        ]


def blocks_of(
    values: Sequence[Mapping[str, np.ndarray]], block: tuple[int, ...]
) -> Iterator[tuple[tuple[slice, ...], dict[str, np.ndarray]]]:
    """Yields the place of each block in a tile, and its values.

    A block at the edge of the tile repeats the last value, so that all blocks have the same shape.
    """
    shape = [len(next(iter(group.values()))) for group in values]
    grid = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    for index in np.ndindex(*grid):
        where, each = [], {}
        for i, b, n, group in zip(index, block, shape, values, strict=True):
            take = np.minimum(np.arange(i * b, (i + 1) * b), n - 1)
            where.append(slice(i * b, min((i + 1) * b, n)))
            each |= {name: x[take] for name, x in group.items()}
        yield tuple(where), each


# --------------------------------------------------------------------------------------------------------------
# Cutting
# --------------------------------------------------------------------------------------------------------------


def cut(
    axes: Axes,
    cost: Cost,
    *,
    chunk: int | Mapping[str, int] | None,
    bytes_per_point: int,
    memory: int,
    lanes: int,
    platform: str,
) -> Plan:
    """The plan of a sweep in which `lanes` blocks are computed at the same time.

    `chunk` is the largest number of points of a work item, or its extents by axis.
    """
    grid = Plan(axes)
    cache = min(CACHE.get(platform, CACHE_ELSEWHERE), max(memory // (ARRAYS * lanes), 1))
    if isinstance(chunk, Mapping):
        named = zip(grid.dims, grid.shape, strict=True)
        tile = tuple(min(int(chunk.get(dim, n)), n) for dim, n in named)
        return Plan(axes, _grow_block(tile, cost, cache, math.prod(tile)), tile)
    if chunk is None:
        chunk = min(max(-(-grid.points // ITEMS), LEAST_POINTS * lanes), MOST_POINTS * lanes)
    most = min(chunk, max(memory // (COPIES * bytes_per_point), 1))
    block = _grow_block(grid.shape, cost, cache, max(most // lanes, 1))
    tile = _fill_tile(grid.shape, block, most, lanes)
    return Plan(axes, tuple(_even(t, b) for t, b in zip(tile, block, strict=True)), tile)


def _grow_block(shape, cost, cache, most):
    """The block of at most `most` points whose largest array fits the cache, grown by doublings."""
    block = [1] * len(shape)
    while True:
        larger = []
        for i, n in enumerate(shape):
            wider = [*block[:i], min(2 * block[i], n), *block[i + 1 :]]
            if wider != block and cost.largest_array(wider) <= cache and math.prod(wider) <= most:
                larger.append((cost.per_point(wider), -i, wider))
        if not larger:
            # Powers of two are avoided: arrays of a multiple of a page displace each other in the cache.
            return tuple(b - b // 8 if b < n else b for b, n in zip(block, shape, strict=True))
        block = min(larger)[2]


def _fill_tile(shape, block, most, lanes):
    """The tile of at most `most` points made of such blocks, the same number for every lane where that is possible."""
    tile = list(block)
    for i in reversed(range(len(shape))):  # the last axes first, which are contiguous in memory
        blocks = max(most // math.prod(tile), 1)
        blocks -= blocks % lanes if blocks > lanes else 0
        tile[i] = min(tile[i] * blocks, shape[i])
    return tuple(_even(n, t) for n, t in zip(shape, tile, strict=True))


def _even(n: int, most: int) -> int:
    """The extent of parts of n that are as equal as possible, none larger than `most`."""
    return -(-n // -(-n // min(most, n)))
