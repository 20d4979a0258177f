"""Runs a prepared sweep: into memory or into a store, in this process or in others."""

import json
import math
import os
import shutil
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import require
from .._files import folder, short, telling
from .arguments import check_shard
from .layout import Layout
from .manifest import differences, is_store
from .plan import Plan
from .prepare import Prepared
from .run import MESSAGES, Item, run
from .store import Store

if TYPE_CHECKING:
    import xarray

#: A path on Linux may have so many bytes, including the NUL at its end.
PATH = 4096
#: While zarr writes a chunk, it appends a dot, 32 hexadecimal digits and an extension to its name.
PARTIAL = len(".partial") + 33
#: An executor has at least two work items under way, so that a single worker is busy while results are written, and at
#: most about a thousand, since more would not be worked on any earlier.
IN_FLIGHT = (2, 1024)
#: The results of a work item are held so many times in memory while they are sent and written.
COPIES = 4
#: Compression hardly shrinks floating-point numbers, and is assumed never to exceed this factor.
COMPRESSION = 4


class Memory:
    """Results in memory. It has the methods of a `Store` that a run needs."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.arrays = {
            name: np.full(v.shape, v.fill, v.dtype) for name, v in layout.variables.items()
        }
        self.messages: list[str] = []

    def write(self, plan: Plan, number: int, item: Item, seconds: float, shard: Any) -> None:
        """Writes one work item."""
        region = plan.region(number)
        for name, values in {**item.outputs, "failed": item.failed}.items():
            self.arrays[name][region] = values
        self.messages += item.messages

    def dataset(self) -> "xarray.Dataset":
        """The results."""
        import xarray

        variables = self.layout.variables.items()
        return xarray.Dataset(
            {name: (v.dims, self.arrays[name], dict(v.attrs)) for name, v in variables},
            {k: (dim, x, dict(attrs)) for k, (dim, x, attrs) in self.layout.coordinates.items()},
            dict(self.layout.attrs),
        )


def drive(
    sweep: Prepared,
    *,
    store: Any = None,
    executor: Executor | None = None,
    shard: Any = None,
    memory: int,
    progress: bool | None = None,
) -> "xarray.Dataset":
    """Computes the work items that are missing and returns the results."""
    require(
        executor is None or isinstance(executor, Executor),
        "Argument `executor` must be a concurrent.futures.Executor, such as a ProcessPoolExecutor with the spawn "
        f"context, or client.get_executor() of a dask client, but is {short(executor)}.",
    )
    require(
        progress is None or isinstance(progress, bool),
        f"Argument `progress` must be True, False or None, but is {short(progress)}.",
    )
    part = check_shard(shard)
    require(
        part is None or store is not None,
        "Argument `store` must be given with `shard`: it is where the shards meet.",
    )
    if store is None:
        _check_memory(sweep, memory)
        place = Memory(sweep.layout)
        _compute(sweep, place, executor, part, memory, progress, set())
        data, messages = place.dataset(), place.messages
    else:
        place, sweep = open_store(folder("store", store), sweep)
        problem = (
            f"Argument `store` must be a folder that can be written to, but {place.path} is not"
        )
        remedy = "Make room or mend the folder, and repeat the call: what is done is kept."
        with telling(problem, remedy):
            done, whole = _take_stock(place, sweep, part)
            # A store that is complete is only read, so its folder may be one that cannot be written to.
            with suppress(OSError) if whole else nullcontext(), place.writing():
                place.repair(sweep.plan, sweep.layout)
                _compute(sweep, place, executor, part, memory, progress, done)
            messages = place.messages()
        data = place.dataset(check=False)
    return data.assign_attrs(failures="\n".join(messages)) if messages else data


def _check_memory(sweep, memory):
    """Refuses results without a store that do not fit `memory`."""
    total = sweep.plan.points * sweep.layout.bytes_per_point
    require(
        total <= memory,
        f"Argument `store` must be given, since the results take {total // 2**20} MiB, and `memory` is "
        f"{memory // 2**20} MiB. Name a folder for them, or raise `memory`.",
    )


def open_store(path: Path, sweep: Prepared) -> tuple[Store, Prepared]:
    """Makes or opens the store of this sweep, and returns it with the sweep cut as the store is."""
    with telling(f"Argument `store` must be a folder, but {path} is not", "Name another folder."):
        found = is_store(path)
        require(
            found or not path.exists() or (path.is_dir() and not any(path.iterdir())),
            f"Argument `store` must be a new folder or a store made by jaxres.sweep, but {path} is something else. "
            "Name another folder.",
        )
        if not found:
            _check_path_length(path, sweep)
            _check_disk(path, sweep)
    store = Store(path) if found else Store.create(path, sweep.plan, sweep.layout, sweep.manifest)
    different = differences(store.manifest, json.loads(json.dumps(sweep.manifest)))
    tile, chunk = tuple(store.manifest["tile"]), sweep.manifest["chunk"]
    # Another machine may cut the grid otherwise for the same `chunk`; that is not a difference.
    if chunk not in (None, store.manifest["chunk"]) and tile != sweep.plan.tile:
        different.append(f"chunk gives work items of {tile} in the store, of {sweep.plan.tile} now")
    require(
        not different,
        f"Argument `store` must be new or made with the same parameters, but {path} differs: "
        + "; ".join(different)
        + ". Name another folder, or repeat the call that made this one.",
    )
    return store, sweep.recut(tile, store.manifest["block"])


def _check_path_length(path, sweep):
    """Refuses a folder in which the longest path of a chunk would be too long for the system."""
    name = max(sweep.layout.variables, key=lambda name: len(os.fsencode(name)))
    axes = sweep.layout.variables[name].dims
    chunk = path.absolute() / name / "c" / "/".join("9" * 9 for _ in axes)
    size = len(os.fsencode(chunk)) + PARTIAL
    require(
        size < PATH,
        f"Argument `store` must be a folder whose files have paths of less than {PATH} bytes, but some would have "
        f"{size}. Name a folder nearer to the root.",
    )


def _check_disk(path, sweep):
    """Refuses a folder on a disk that is too small for the results even if they compress well."""
    place = next(parent for parent in path.absolute().parents if parent.exists())
    least = sweep.plan.points * sweep.layout.bytes_per_point // COMPRESSION
    free = shutil.disk_usage(place).free
    require(
        least <= free,
        f"Argument `store` must be on a disk with room for the results, which take {least / 2**30:.3g} GiB at the very "
        f"least, but {place} has {free / 2**30:.3g} GiB left. Name another folder, or take fewer points.",
    )


def _items_of(plan, part):
    """The work items of a shard, or of the whole sweep."""
    i, n = part or (1, 1)
    return range(i - 1, plan.items, n)


def _take_stock(store, sweep, part):
    """Returns the complete work items of this shard, and whether nothing is left to write. Warns of damage."""
    mine = _items_of(sweep.plan, part)
    good, damaged = store.check(mine)
    broken = store.broken()
    problems = [*(f"{store.path / name} is damaged." for name in broken), *damaged.values()]
    if problems:
        more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
        warnings.warn(
            f"{' '.join(problems[:3])}{more} Made anew: {len(damaged)} work items are computed again.",
            stacklevel=4,
        )
    return {*good}, len(good) == len(mine) and not broken


def _compute(sweep, place, executor, part, memory, progress, done):
    """Computes and writes the work items of this shard that are not `done`."""
    plan, mine = sweep.plan, _items_of(sweep.plan, part)
    items = ((k, plan.values(k)) for k in mine if k not in done)
    lost: list[tuple[int, Exception]] = []
    begun = time.perf_counter()
    written = 0
    try:
        with _progress_bar(plan, mine, done, progress) as bar:
            for number, item in run(sweep.job, items, executor, _in_flight(sweep, memory)):
                if isinstance(item, Exception):
                    lost.append((number, item))
                else:
                    now = time.perf_counter()
                    place.write(plan, number, item, now - begun, part)
                    begun, written = now, written + 1
                bar.update(plan.size(number))
    except BrokenExecutor as error:
        raise RuntimeError(
            f"The executor broke after {written} work items: {error} "
            + (
                f"They are in {place.path}: call again with the same store and a new executor to go on."
                if isinstance(place, Store)
                else "Give a `store`, so that the next call can go on where this one ended."
            )
        ) from error
    if lost:
        _report(place, lost, written)


def _in_flight(sweep, memory):
    """The number of work items that may be under way at the same time."""
    least, most = IN_FLIGHT
    each = math.prod(sweep.plan.tile) * sweep.layout.bytes_per_point
    return min(max(memory // (COPIES * each), least), most)


def _progress_bar(plan, mine, done, progress):
    from tqdm import tqdm

    return tqdm(
        total=plan.points if len(mine) == plan.items else sum(map(plan.size, mine)),
        initial=sum(map(plan.size, done)),
        unit="point",
        unit_scale=True,
        dynamic_ncols=True,
        disable=None if progress is None else not progress,
    )


def _report(place, lost, written):
    """Reports work items that were lost with their workers or never started. Their computation has not failed."""
    _, error = lost[0]
    problem = (
        f"{len(lost)} of {len(lost) + written} work items came back from no worker, the first with "
        f"{type(error).__name__}: {error}"
    )
    if not written:
        raise RuntimeError(f"No work item could be computed: {problem}") from error
    if isinstance(place, Store):
        warnings.warn(f"{problem}. Call again with the same store to compute them.", stacklevel=4)
        return
    for number, error in lost[:MESSAGES]:
        place.messages.append(f"work item {number}: {type(error).__name__}: {error}")
    warnings.warn(f"{problem}. Their points are marked as failed.", stacklevel=4)
