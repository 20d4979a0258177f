r"""How a sweep is cut: into work items (tiles of the grid, one chunk of the store each), and these into blocks.

A block is computed by nested `jax.vmap`, one for each axis, so whatever an axis does not touch is computed once for all
of its values in the block. Which part of the work touches which axes is read off the function's jaxpr: with w_A the
work of the operations that depend on exactly the set A of axes, a block of b_i values along axis i costs

    Σ_A w_A Π_{i∈A} b_i      for      Π_i b_i  points.

The block grows along the axis that lowers the work per point the most, until its arrays fill the cache.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

#: most bytes of a block's largest array: some 128 to 256 steady states, which fit the cache of a processor's core
CACHE = {"cpu": 3 * 2**18}
CACHE_ELSEWHERE = 2**28
MOST_POINTS = 2**16  # in a work item, for each lane
ITEMS = 64  # as many work items as a sweep is cut into, if it is not too large or too small
LEAST_POINTS = 256  # in a work item that is not limited by anything else, for each lane
#: primitives that run in one thread at a time: calls of LAPACK, which in jaxlib 0.10 may wait for each other for ever
#: (see `_numerics/batched.py`), and calls back to Python, whose functions need not be made for threads
ALONE = {
    *("cholesky", "eig", "eigh", "geqrf", "hessenberg", "householder_product", "lu", "qr", "schur"),
    *("svd", "triangular_solve", "tridiagonal", "tridiagonal_solve"),
    *("debug_callback", "io_callback", "pure_callback"),
}

Axes = tuple[dict[str, np.ndarray], ...]  # one group of zipped names for each axis


@dataclass(frozen=True)
class Plan:
    """The grid, its tiles and their blocks; all extents are by axis, the first one outermost."""

    axes: Axes
    block: tuple[int, ...]
    tile: tuple[int, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes' names: zipped ones are joined by an underscore."""
        return tuple("_".join(group) for group in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(next(iter(group.values()))) for group in self.axes)

    @property
    def points(self) -> int:
        """Points of the whole grid."""
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, ...]:
        """Work items along each axis."""
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def items(self) -> int:
        """Number of work items."""
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
    """The blocks of a tile: where each stands in it, and its values, the last ones repeated at the edges."""
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


@dataclass(frozen=True)
class Profile:
    """What one point costs, by the set of axes that it depends on: operations, bytes of the largest array.

    And whether something in it must not run in several threads at once.
    """

    work: Mapping[frozenset[int], int]
    bytes: Mapping[frozenset[int], int]
    digest: str
    alone: bool = False

    def cost(self, block: Sequence[int]) -> float:
        """Operations for each point of a block."""
        total = sum(w * math.prod(block[i] for i in A) for A, w in self.work.items())
        return total / math.prod(block)

    def memory(self, block: Sequence[int]) -> int:
        """Bytes of the largest array of a block."""
        return max((m * math.prod(block[i] for i in A) for A, m in self.bytes.items()), default=0)


def cut(
    axes: Axes,
    profile: Profile,
    *,
    chunk: int | Mapping[str, int] | None,
    bytes_per_point: int,
    memory: int,
    lanes: int,
    platform: str,
) -> Plan:
    """The plan of a sweep, of which so many `lanes` compute blocks at the same time.

    `chunk` is the largest number of points of a work item, or its extents by axis.
    """
    shape = Plan(axes, (), ()).shape
    points = math.prod(shape)
    # results and what they are made of are held a few times over while they are written
    affordable = max(memory // (8 * bytes_per_point), 1)
    cache = min(CACHE.get(platform, CACHE_ELSEWHERE), max(memory // (16 * lanes), 1))
    if isinstance(chunk, Mapping):
        dims = Plan(axes, (), ()).dims
        tile = tuple(min(int(chunk.get(d, n)), n) for d, n in zip(dims, shape, strict=True))
        return Plan(axes, _grow(tile, profile, cache, math.prod(tile)), tile)
    usual = min(max(-(-points // ITEMS), LEAST_POINTS * lanes), MOST_POINTS * lanes)
    most = min(usual if chunk is None else chunk, affordable)
    block = _grow(shape, profile, cache, max(most // lanes, 1))
    tile = list(block)
    for i in reversed(range(len(shape))):  # along the last axes first: contiguous in memory
        room = max(most // math.prod(tile), 1)
        room -= room % lanes if room > lanes else 0  # the same number of blocks for every lane
        tile[i] = min(tile[i] * room, shape[i])
    even = [_even(n, t) for n, t in zip(shape, tile, strict=True)]
    return Plan(axes, tuple(_even(t, b) for t, b in zip(even, block, strict=True)), tuple(even))


def _even(n: int, most: int) -> int:
    """The extent of parts of n that are as equal as possible, none larger than `most`."""
    return -(-n // -(-n // min(most, n)))


def _grow(shape, profile, cache, most):
    block = [1] * len(shape)
    while True:
        larger = []
        for i, n in enumerate(shape):
            wider = [*block[:i], min(2 * block[i], n), *block[i + 1 :]]
            if wider != block and profile.memory(wider) <= cache and math.prod(wider) <= most:
                larger.append((profile.cost(wider), -i, wider))
        if not larger:
            # not powers of two: arrays that are multiples of a page lie in each other's way in the cache
            return tuple(b - b // 8 if b < n else b for b, n in zip(block, shape, strict=True))
        block = min(larger)[2]


# --------------------------------------------------------------------------------------------------------------
# The function's jaxpr
# --------------------------------------------------------------------------------------------------------------


def profile(
    point: Any, parameters: Mapping[str, Any], groups: Sequence[Sequence[str]]
) -> tuple[Profile, dict[str, Any]]:
    """What `point(parameters)` costs by axis with a digest of everything that it does, and what it returns."""
    closed, outputs_of_point = jax.make_jaxpr(point, return_shape=True)(parameters)
    owner = {name: i for i, group in enumerate(groups) for name in group}
    flat, _ = jax.tree_util.tree_flatten_with_path(parameters)
    inputs = [_axis(owner, path) for path, _ in flat]
    walk = _Walk()
    for const in closed.consts:
        array = np.asarray(const)
        walk.note(repr(const) if array.dtype == object else array.tobytes())
    none = [frozenset()] * len(closed.jaxpr.constvars)
    outputs = walk.run(closed.jaxpr, none + inputs, 1)
    for avar, axes in zip(closed.out_avals, outputs, strict=True):
        walk.tally(axes, avar, 1)
    return Profile(walk.work, walk.bytes, walk.hash.hexdigest(), walk.alone), outputs_of_point


def _axis(owner, path):
    axis = owner.get(path[0].key)
    return frozenset() if axis is None else frozenset({axis})


class _Walk:
    """Follows the axes through a jaxpr, and hashes what it comes across."""

    def __init__(self):
        self.work, self.bytes = Counter(), Counter()
        self.hash = hashlib.sha256()
        self.alone = False

    def note(self, text):
        self.hash.update(text if isinstance(text, bytes) else text.encode())
        self.hash.update(b"\n")

    def tally(self, axes, aval, times):
        size = math.prod(getattr(aval, "shape", ()))
        self.work[axes] += size * times
        width = getattr(getattr(aval, "dtype", None), "itemsize", 8)
        self.bytes[axes] = max(self.bytes[axes], size * width)

    def run(self, jaxpr, inputs, times):
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))
        number = {v: i for i, v in enumerate(known)}
        for eqn in jaxpr.eqns:
            axes = []
            for v in eqn.invars:
                literal = isinstance(v, core.Literal)
                axes.append(frozenset() if literal else known[v])
                self.note(np.asarray(v.val).tobytes() if literal else str(number[v]))
            inner, plain = _split(eqn.params)
            self.alone |= eqn.primitive.name in ALONE
            self.note(f"{eqn.primitive.name} {plain} {[v.aval.str_short() for v in eqn.outvars]}")
            union = frozenset().union(*axes)
            outputs = [union] * len(eqn.outvars)
            for sub in inner:
                consts = [frozenset()] * len(sub.constvars)
                # loops mix what they carry: everything in them depends on all that goes in
                one_to_one = len(sub.invars) == len(axes) and "length" not in eqn.params
                entry = axes if one_to_one else [union] * len(sub.invars)
                ends = self.run(sub, consts + list(entry), times * eqn.params.get("length", 1))
                if one_to_one and len(ends) == len(outputs) and len(inner) == 1:
                    outputs = ends
            for v, a in zip(eqn.outvars, outputs, strict=True):
                known[v] = a
                number[v] = len(number)
                if not inner:
                    self.tally(a, v.aval, times)
        return [frozenset() if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]


def _split(params):
    """The jaxprs among an equation's parameters, and the others as text without addresses."""
    inner, plain = [], []
    for name in sorted(params):
        value = params[name]
        found = [
            getattr(x, "jaxpr", x)
            for x in (value if isinstance(value, tuple | list) else (value,))
            if isinstance(x, core.ClosedJaxpr | core.Jaxpr)
        ]
        inner += found
        if not found and not callable(value):
            plain.append(f"{name}={value}")
    return inner, re.sub(r" at 0x[0-9a-f]+|id=\d+", "", ", ".join(plain))
