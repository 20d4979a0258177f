"""Runs a prepared sweep: into memory or into a store, here or in other processes."""

import time
import warnings
from concurrent.futures import BrokenExecutor, Executor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import require
from ._arguments import check_shard
from ._layout import Layout
from ._plan import Plan
from ._prepare import Prepared
from ._run import MESSAGES, Item, missing, run
from ._store import Store, differences, is_store

if TYPE_CHECKING:
    import xarray

#: least and most work items under way in an executor
IN_FLIGHT = (2, 1024)


class Memory:
    """Results in memory; has the methods of a `Store` that a run needs."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.arrays = {
            name: np.full(v.shape, missing(v.dtype), v.dtype)
            for name, v in layout.variables.items()
        }
        self.messages: list[str] = []

    def done(self) -> set[int]:
        """Nothing is done before it has begun."""
        return set()

    def write(self, plan: Plan, number: int, item: Item, seconds: float) -> None:
        """One work item into its place."""
        region = plan.region(number)
        for name, values in {**item.outputs, "failed": item.failed}.items():
            self.arrays[name][region] = values
        self.messages += item.messages

    def summary(self) -> dict[str, Any]:
        """What did not go well."""
        return {"messages": self.messages}

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
    store: str | PathLike | None = None,
    executor: Executor | None = None,
    shard: Any = None,
    memory: int,
    progress: bool | None = None,
) -> "xarray.Dataset":
    """Computes what is missing and returns the results."""
    require(
        executor is None or isinstance(executor, Executor),
        "Argument `executor` must be a concurrent.futures.Executor, such as a ProcessPoolExecutor with the spawn "
        f"context, or client.get_executor() of a dask client, but is {executor!r}.",
    )
    require(
        store is None or isinstance(store, str | PathLike),
        f"Argument `store` must be the path of a folder, but is {store!r}.",
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
            f"Argument `store` must be given, since the results take {total / 2**20:.0f} MiB, and `memory` is "
            f"{memory / 2**20:.0f} MiB. Name a folder for them, or raise `memory`.",
        )
        place: Store | Memory = Memory(sweep.layout)
    else:
        place, sweep = open_store(Path(store), sweep)
    _compute(sweep, place, executor, part, memory, progress)
    data = place.dataset()
    messages = place.summary()["messages"]
    return data.assign_attrs(failures="\n".join(messages)) if messages else data


def open_store(path: Path, sweep: Prepared) -> tuple[Store, Prepared]:
    """The store for this sweep, made or found; and the sweep, cut as the store is."""
    if path.exists() and not is_store(path):
        require(
            path.is_dir() and not any(path.iterdir()),
            f"Argument `store` must be a new folder or a store made by jaxres.sweep, but {path} is something else. "
            "Name another folder.",
        )
    store = (
        Store(path)
        if is_store(path)
        else Store.create(path, sweep.plan, sweep.layout, sweep.manifest)
    )
    different = differences(store.manifest, sweep.manifest)
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


def _compute(sweep, place, executor, part, memory, progress):
    from tqdm import tqdm

    plan, done = sweep.plan, place.done()
    i, n = part or (1, 1)
    mine = range(i - 1, plan.items, n)
    ready = sum(plan.size(k) for k in mine if k in done)
    each = int(np.prod(plan.tile)) * sweep.layout.bytes_per_point
    in_flight = int(np.clip(memory // (4 * each), *IN_FLIGHT))
    items = ((k, plan.values(k)) for k in mine if k not in done)
    lost: list[tuple[int, Exception]] = []
    bar = tqdm(
        total=sum(plan.size(k) for k in mine),
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
                    place.write(plan, number, item, now - begun)
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
    for number, _ in lost:
        place.arrays["failed"][plan.region(number)] = True
    warnings.warn(f"{what}. Their points are marked as failed.", stacklevel=4)
