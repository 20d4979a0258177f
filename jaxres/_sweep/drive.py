"""Runs a prepared sweep: into memory or into a store, here or in other processes."""

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
from .plan import Plan
from .prepare import Prepared
from .run import MESSAGES, Item, run
from .store import Store, differences, is_store

if TYPE_CHECKING:
    import xarray

#: bytes that a path may have, its end included (Linux)
PATH = 4096
#: least and most work items under way in an executor
IN_FLIGHT = (2, 1024)


class Memory:
    """Results in memory; has the methods of a `Store` that a run needs."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.arrays = {
            name: np.full(v.shape, v.fill, v.dtype) for name, v in layout.variables.items()
        }
        self.messages: list[str] = []

    def write(self, plan: Plan, number: int, item: Item, seconds: float, shard: Any) -> None:
        """One work item into its place."""
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
    """Computes what is missing and returns the results."""
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
        total = sweep.plan.points * sweep.layout.bytes_per_point
        require(
            total <= memory,
            f"Argument `store` must be given, since the results take {total // 2**20} MiB, and `memory` is "
            f"{memory // 2**20} MiB. Name a folder for them, or raise `memory`.",
        )
        place = Memory(sweep.layout)
        _compute(sweep, place, executor, part, memory, progress, set())
        messages = place.messages
        data = place.dataset()
    else:
        place, sweep = open_store(folder("store", store), sweep)
        told = f"Argument `store` must be a folder that can be written to, but {place.path} is not"
        with telling(
            told, "Make room or mend the folder, and repeat the call: what is done is kept."
        ):
            done, whole = _take_stock(place, sweep, part)
            # what is whole is only read: its folder need not be one that can be written to
            with suppress(OSError) if whole else nullcontext(), place.writing():
                place.repair(sweep.plan, sweep.layout)
                _compute(sweep, place, executor, part, memory, progress, done)
            messages = place.messages()
        data = place.dataset(check=False)
    return data.assign_attrs(failures="\n".join(messages)) if messages else data


def open_store(path: Path, sweep: Prepared) -> tuple[Store, Prepared]:
    """The store for this sweep, made or found; and the sweep, cut as the store is."""
    with telling(f"Argument `store` must be a folder, but {path} is not", "Name another folder."):
        found = is_store(path)
        require(
            found or not path.exists() or (path.is_dir() and not any(path.iterdir())),
            f"Argument `store` must be a new folder or a store made by jaxres.sweep, but {path} is something else. "
            "Name another folder.",
        )
        if not found:
            _check_length(path, sweep)
            _check_room(path, sweep)
    store = Store(path) if found else Store.create(path, sweep.plan, sweep.layout, sweep.manifest)
    different = differences(store.manifest, json.loads(json.dumps(sweep.manifest)))
    tile, chunk = tuple(store.manifest["tile"]), sweep.manifest["chunk"]
    # the same wish may be met otherwise on another machine
    if chunk not in (None, store.manifest["chunk"]) and tile != sweep.plan.tile:
        different.append(f"chunk gives work items of {tile} in the store, of {sweep.plan.tile} now")
    require(
        not different,
        f"Argument `store` must be new or made with the same parameters, but {path} differs: "
        + "; ".join(different)
        + ". Name another folder, or repeat the call that made this one.",
    )
    return store, sweep.recut(tile, store.manifest["block"])


def _check_length(path, sweep):
    """The longest path of a chunk, with what zarr puts behind it while it writes."""
    name = max(sweep.layout.variables, key=lambda name: len(os.fsencode(name)))
    axes = sweep.layout.variables[name].dims
    chunk = path.absolute() / name / "c" / "/".join("9" * 9 for _ in axes)
    size = len(os.fsencode(chunk)) + len(".partial") + 33
    require(
        size < PATH,
        f"Argument `store` must be a folder whose files have paths of less than {PATH} bytes, but some would have "
        f"{size}. Name a folder nearer to the root.",
    )


def _check_room(path, sweep):
    """Floating-point numbers hardly get smaller by being compressed, let alone to a quarter."""
    place = next(parent for parent in path.absolute().parents if parent.exists())
    least = sweep.plan.points * sweep.layout.bytes_per_point // 4
    free = shutil.disk_usage(place).free
    require(
        least <= free,
        f"Argument `store` must be on a disk with room for the results, which take {least / 2**30:.3g} GiB at the very "
        f"least, but {place} has {free / 2**30:.3g} GiB left. Name another folder, or take fewer points.",
    )


def _take_stock(store, sweep, part):
    """The work items of this shard that are done, and whether nothing is left to write. Damage is told."""
    i, n = part or (1, 1)
    mine = range(i - 1, sweep.plan.items, n)
    good, damaged = store.check(mine)
    broken = store.broken()
    told = [*(f"{store.path / name} is damaged." for name in broken), *damaged.values()]
    if told:
        more = f" And {len(told) - 3} more." if len(told) > 3 else ""
        warnings.warn(
            f"{' '.join(told[:3])}{more} Made anew: {len(damaged)} work items are computed again.",
            stacklevel=4,
        )
    return {*good}, len(good) == len(mine) and not broken


def _compute(sweep, place, executor, part, memory, progress, done):
    from tqdm import tqdm

    plan = sweep.plan
    i, n = part or (1, 1)
    mine = range(i - 1, plan.items, n)
    ready = sum(map(plan.size, done))
    each = math.prod(plan.tile) * sweep.layout.bytes_per_point
    least, most = IN_FLIGHT
    in_flight = min(max(memory // (4 * each), least), most)
    items = ((k, plan.values(k)) for k in mine if k not in done)
    lost: list[tuple[int, Exception]] = []
    bar = tqdm(
        total=plan.points if n == 1 else sum(map(plan.size, mine)),
        initial=ready,
        unit="point",
        unit_scale=True,
        dynamic_ncols=True,
        disable=None if progress is None else not progress,
    )
    begun = time.perf_counter()
    written = 0
    try:
        with bar:
            for number, item in run(sweep.job, items, executor, in_flight):
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
        _report(place, plan, lost, written)


def _report(place, plan, lost, written):
    """Work items that went down with their workers, or never started: no computation of theirs has failed."""
    number, error = lost[0]
    what = (
        f"{len(lost)} of {len(lost) + written} work items came back from no worker, the first with "
        f"{type(error).__name__}: {error}"
    )
    if not written:
        raise RuntimeError(f"No work item could be computed: {what}") from error
    if isinstance(place, Store):
        warnings.warn(f"{what}. Call again with the same store to compute them.", stacklevel=4)
        return
    for number, error in lost[:MESSAGES]:
        place.messages.append(f"work item {number}: {type(error).__name__}: {error}")
    warnings.warn(f"{what}. Their points are marked as failed.", stacklevel=4)
