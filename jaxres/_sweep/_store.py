"""A store of a sweep's results: a zarr group with one chunk for each work item.

    store/                    what `xarray.open_zarr` reads: outputs, `failed`, coordinates
    store/sweep/manifest.json what was computed: axes, fixed parameters, function, versions, dtypes
    store/sweep/items/17      written after the chunks of work item 17 have reached the disk, with its failures

A work item counts only with its marker. So whatever ends a sweep, from Ctrl-C to a power cut, at worst the items under
way are computed again. Chunks and markers appear under their names only when they are complete.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layout import Layout
from ._plan import Plan
from ._run import Item, missing

if TYPE_CHECKING:
    import xarray

#: entries of the manifest that say how, not what: they may differ when a sweep goes on
_HOW = ("chunk", "tile", "block", "created", "config", "hash", "versions.jax", "versions.numpy")


class Store:
    """An open store. Several processes may write to one at a time: each item has its own files."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = read_manifest(path)
        self._items = path / "sweep" / "items"
        self._arrays: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, plan: Plan, layout: Layout, manifest: Mapping[str, Any]) -> "Store":
        """Makes the store, all at once: another process that makes the same one meanwhile does no harm."""
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            _fill(folder / "new", plan, layout, manifest)
            try:
                os.rename(folder / "new", path)
                _sync(path.parent)
            except OSError:
                if not is_store(path):
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return cls(path)

    def done(self) -> set[int]:
        """The work items that are complete."""
        return {int(entry.name) for entry in os.scandir(self._items) if entry.name.isdigit()}

    def write(self, plan: Plan, number: int, item: Item, seconds: float) -> None:
        """One work item: its chunks, then its marker."""
        import zarr

        region = plan.region(number)
        chunk = "/".join(str(s.start // t) for s, t in zip(region, plan.tile, strict=True))
        for name, values in {**item.outputs, "failed": item.failed}.items():
            if name not in self._arrays:
                array = zarr.open_array(self.path / name, mode="r+")
                self._arrays[name] = array.with_config({"write_empty_chunks": True})
            array = self._arrays[name]
            array[region] = values
            own = "/0" * (array.ndim - len(region))
            written = self.path / name / f"c/{chunk}{own}"
            for path in (
                written,
                *written.parents[: array.ndim],
            ):  # a new file is an entry of its folder
                _sync(path)
        about = {
            "points": plan.size(number),
            "failed": int(item.failed.sum()),
            "messages": list(item.messages),
            "seconds": seconds,
        }
        _write(self._items / str(number), about)

    def summary(self) -> dict[str, Any]:
        """Work items, points, failures, messages and seconds so far."""
        total: dict[str, Any] = {
            "items": 0,
            "points": 0,
            "failed": 0,
            "seconds": 0.0,
            "messages": [],
        }
        for number in sorted(self.done()):
            about = json.loads((self._items / str(number)).read_text(encoding="utf-8"))
            total["items"] += 1
            for key in ("points", "failed", "seconds", "messages"):
                total[key] += about[key]
        return total

    def dataset(self, *, lazy: bool = False) -> "xarray.Dataset":
        """The results, read when they are used. With `lazy` as dask arrays, chunk by chunk."""
        import xarray

        data = xarray.open_zarr(self.path, chunks={} if lazy else None, consolidated=False)
        return data.drop_encoding()  # zarr's, which no other format understands


def is_store(path: Path) -> bool:
    """Whether a sweep's store stands there."""
    return (path / "sweep" / "manifest.json").is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """What a store was made for."""
    if not is_store(path):
        raise ValueError(
            f"Argument `store` must be a store made by jaxres.sweep, but {path} has no sweep/manifest.json. "
            "Name another folder."
        )
    return json.loads((path / "sweep" / "manifest.json").read_text(encoding="utf-8"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What two manifests disagree in, by name. Only what decides the results is compared."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        name = f"{path}{key}"
        a, b = old.get(key, "absent"), new.get(key, "absent")
        if a == b or name in _HOW:
            continue
        if name == "function":
            # what is traced depends on the version of JAX, so there the name has to do
            same_jax = a["jax"] == b["jax"]
            if a["digest"] != b["digest"] if same_jax else a["name"] != b["name"]:
                found.append(
                    f"function is {a['name']} in the store, {b['name']} now, and computes something else"
                )
        elif isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{name}.")
        else:
            found.append(f"{name} is {a} in the store, {b} now")
    return found


def _fill(path, plan, layout, manifest):
    import zarr

    attrs = {**layout.attrs, "coordinates": " ".join(layout.coordinates)}  # so xarray knows them
    group = zarr.create_group(path, zarr_format=3, attributes=attrs)
    for name, variable in layout.variables.items():
        own = variable.shape[len(plan.shape) :]
        group.create_array(
            name,
            shape=variable.shape,
            chunks=plan.tile + tuple(max(n, 1) for n in own),
            dtype=variable.dtype,
            fill_value=missing(variable.dtype),
            dimension_names=variable.dims,
            attributes=dict(variable.attrs),
        )
    for name, (dim, values, attrs) in layout.coordinates.items():
        group.create_array(
            name,
            data=np.asarray(values),
            chunks=(len(values),),
            dimension_names=(dim,),
            attributes=dict(attrs),
        )
    (path / "sweep" / "items").mkdir(parents=True)
    # a group of its own, so that no reader of the store stumbles over a folder it does not know
    group.create_group("sweep")
    _write(path / "sweep" / "manifest.json", manifest)
    for folder, _, files in os.walk(path, topdown=False):
        for name in (*files, "."):
            _sync(Path(folder, name))


def _write(path: Path, content: Any) -> None:
    """A complete file, on the disk, or none."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file or a folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
