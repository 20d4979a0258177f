"""A store of a sweep's results: a zarr group with one chunk for each work item.

    store/                    what `xarray.open_zarr` reads: outputs, `failed`, coordinates; every chunk ends in its CRC
    store/sweep/manifest.json what was computed: the model, axes, fixed parameters, function, versions, dtypes
    store/sweep/items/17      the marker of work item 17: its failures and the checksums of its chunks
    store/sweep/lock          held by every process that writes

A marker is written after the chunks of its work item have reached the disk. A work item counts only if it has a marker
and its chunks have the checksums in that marker. So whatever ends a sweep, from Ctrl-C to a power cut, and whatever
happens to the files afterwards, at worst some items are computed again. Chunks and markers appear under their names
only when they are complete.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import StoreError, checksum, folder, read_json, sync, telling, write_json, writing
from .layout import Layout
from .manifest import REMEDY, is_store, read_manifest
from .plan import Plan
from .run import Item

if TYPE_CHECKING:
    import xarray

#: the types of a marker's entries
_MARKER = {
    **dict.fromkeys(("points", "failed"), int),
    **{"messages": list, "seconds": float, "chunks": dict, "shard": list | None},
}
#: what to do about work items that are damaged
_AGAIN = (
    "Repeat the call that made the store, or `jaxres resume` it: what is damaged is computed again."
)


class Store:
    """An open store. Several processes may write to it at the same time, because each work item has its own files."""

    def __init__(self, path: Path):
        self.path = folder("store", path)
        self.manifest = read_manifest(self.path)
        self._items = self.path / "sweep" / "items"
        self._arrays: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, plan: Plan, layout: Layout, manifest: Mapping[str, Any]) -> "Store":
        """Makes the store in one step, so that another process may make the same store at the same time."""
        problem = (
            f"Argument `store` must be a folder that can be made and written to, but {path} is not"
        )
        with telling(problem, "Name another folder, or make room."):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
            try:
                _fill(place / "new", plan, layout, manifest)
                os.rename(place / "new", path)
                sync(path.parent)
            except Exception:
                # Another process may have been faster, and may have removed the folder of this one.
                if not is_store(path):
                    raise
            finally:
                shutil.rmtree(place, ignore_errors=True)
        return cls(path)

    @property
    def plan(self) -> Plan:
        """The plan of the grid, without the values of the axes."""
        axes = [
            {name: np.broadcast_to(0.0, n)}
            for name, n in zip(self.manifest["dims"], self.manifest["shape"], strict=True)
        ]
        return Plan(tuple(axes), tuple(self.manifest["block"]), tuple(self.manifest["tile"]))

    # ----------------------------------------------------------------------------------------------
    # Which work items are complete
    # ----------------------------------------------------------------------------------------------

    def markers(self) -> set[int]:
        """The work items that have a marker, whatever has become of their chunks since."""
        if not self._items.is_dir():
            return set()
        with telling(f"{self._items} cannot be read", REMEDY):
            names = [entry.name for entry in os.scandir(self._items)]
        return {int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,17}", name)}

    def check(
        self, items: Iterable[int] | None = None
    ) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
        """Returns the markers of the complete work items, and what is wrong with the damaged ones.

        Reads every file of the given `items`, or of all.
        """
        plan, found = self.plan, self.markers()
        chosen = found if items is None else found & {*items}
        good, damaged = {}, {}
        for number in sorted(chosen):
            try:
                good[number] = self._check(plan, number)
            except (OSError, StoreError) as error:
                damaged[number] = str(error)
        return good, damaged

    def _check(self, plan, number):
        """The marker of a work item; raises `StoreError` if the marker or a chunk is damaged."""
        path = self._items / str(number)
        if number >= plan.items:
            raise StoreError(f"{path} is damaged: there are {plan.items} work items.")
        marker = read_json(path, "", _MARKER)
        files = self._files(plan, number)
        if marker["chunks"].keys() != files.keys():
            raise StoreError(f"{path} is damaged: it is of other outputs.")
        for name, file in files.items():
            if not file.is_file():
                raise StoreError(f"{file} is missing.")
            if checksum(file) != marker["chunks"][name]:
                raise StoreError(f"{file} is damaged: its checksum is wrong.")
        return marker

    def _files(self, plan, number):
        """The chunks of a work item by the names of their arrays. An array without entries has no chunk."""
        region = plan.region(number)
        chunk = [str(s.start // t) for s, t in zip(region, plan.tile, strict=True)]
        own = {k: json.loads(v[v.index("[") :]) for k, v in self.manifest["outputs"].items()}
        shapes = {**own, "failed": []}
        return {
            name: Path(self.path, name, "c", *chunk, *["0"] * len(shape))
            for name, shape in shapes.items()
            if 0 not in shape
        }

    def done(self, items: Iterable[int] | None = None) -> set[int]:
        """The work items that are complete and undamaged."""
        return set(self.check(items)[0])

    def broken(self) -> list[str]:
        """The files of metadata and coordinates, written when the store was made, that are damaged or missing."""
        files = self.manifest["files"].items()
        return [
            name
            for name, crc in files
            if not (self.path / name).is_file() or checksum(self.path / name) != crc
        ]

    def summary(self) -> dict[str, Any]:
        """The work items, points, failures, messages and seconds so far; what is damaged, and what is unfinished."""
        good, damaged = self.check()
        markers = good.values()
        broken = [f"{self.path / name} is damaged." for name in self.broken()]
        return {
            "items": len(good),
            "points": sum(marker["points"] for marker in markers),
            "failed": sum(marker["failed"] for marker in markers),
            "seconds": sum((marker["seconds"] for marker in markers), 0.0),
            "messages": [message for marker in markers for message in marker["messages"]],
            "damaged": [*damaged.values(), *broken],
            "unfinished": self._unfinished(good, damaged),
        }

    def messages(self) -> list[str]:
        """The messages of the points that failed."""
        return [message for marker in self._marked().values() for message in marker["messages"]]

    def unfinished(self) -> str:
        """The work items that have no marker, in words; an empty text if all have one."""
        whole = len(self.markers()) >= self.plan.items
        return "" if whole else self._unfinished(self._marked(), {})

    def _marked(self):
        """The markers that can be read, without a look at their chunks."""
        found = {}
        for number in sorted(self.markers()):
            with contextlib.suppress(StoreError):  # `check` reports damaged markers
                found[number] = read_json(self._items / str(number), "", _MARKER)
        return found

    def _unfinished(self, good, damaged):
        """The work items that are not complete, and the shards to which they belong, in words."""
        items = self.plan.items
        if items - len(good) <= 0:
            return ""
        text = f"{items - len(good)} of {items} work items are not computed"
        if damaged:
            text += f", {len(damaged)} of them because their files are damaged"
        n = next((marker["shard"][1] for marker in good.values() if marker["shard"]), 1)
        if n > 1:
            # A shard without work items is listed too.
            mine = [{*range(i, items, n)} for i in range(n)]
            missing = [i + 1 for i in range(n) if not mine[i] or mine[i] - {*good}]
            shards = ", ".join(f"{i}/{n}" for i in missing[:8])
            text += f": shards {shards}{' and more' if len(missing) > 8 else ''} are missing or unfinished"
        return text

    # ----------------------------------------------------------------------------------------------
    # Writing and reading
    # ----------------------------------------------------------------------------------------------

    def writing(self) -> AbstractContextManager[None]:
        """The context in which this process writes. First it removes what killed processes have left."""
        return writing(self.path / "sweep" / "lock", self._clean)

    def _clean(self):
        """Removes unfinished markers and chunks, and folders in which this store was being made."""
        for left in self._items.glob(".*"):
            left.unlink(missing_ok=True)
        for name in (*self.manifest["outputs"], "failed"):
            for left in Path(self.path, name).rglob("*.partial"):
                left.unlink(missing_ok=True)
        unfinished = re.compile(re.escape(_prefix(self.path)) + "[a-z0-9_]{8}")
        for left in self.path.parent.iterdir():
            if unfinished.fullmatch(left.name) and {x.name for x in left.iterdir()} <= {"new"}:
                shutil.rmtree(left, ignore_errors=True)

    def repair(self, plan: Plan, layout: Layout) -> list[str]:
        """Writes damaged metadata and coordinates again, and returns the names of their files."""
        broken = self.broken()
        if not broken and self._items.is_dir():
            return broken
        self._items.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=_prefix(self.path)))
        try:
            _fill(place / "new", plan, layout, self.manifest)
            for name in broken:
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(place / "new" / name, self.path / name)
                sync((self.path / name).parent)
            renewed = read_manifest(place / "new")["files"]
        finally:
            shutil.rmtree(place, ignore_errors=True)
        self.manifest["files"] |= {name: renewed[name] for name in broken}
        write_json(self.path / "sweep" / "manifest.json", self.manifest)
        return broken

    def write(
        self, plan: Plan, number: int, item: Item, seconds: float, shard: tuple[int, int] | None
    ) -> None:
        """Writes one work item: its chunks, then its marker."""
        region, files = plan.region(number), self._files(plan, number)
        outputs = {**item.outputs, "failed": item.failed}
        for name, file in files.items():
            array = self._array(name)
            array[region] = outputs[name]
            # A new file is an entry of its folder, and that reaches the disk only if the folder is synced too.
            for path in (file, *file.parents[: array.ndim]):
                sync(path)
        marker = {
            "points": plan.size(number),
            "failed": int(item.failed.sum()),
            "messages": list(item.messages),
            "seconds": float(seconds),
            "shard": shard,
            "chunks": {name: checksum(file) for name, file in files.items()},
        }
        write_json(self._items / str(number), marker)

    def _array(self, name):
        """The array of an output, opened once. Chunks of fill values are written too, since markers count them."""
        import zarr

        if name not in self._arrays:
            array = zarr.open_array(_local(self.path), path=name, mode="r+", zarr_format=3)
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def dataset(self, *, lazy: bool = False, check: bool = True) -> "xarray.Dataset":
        """The results, read when they are used, or with `lazy` as dask arrays, chunk by chunk.

        With `check`, every file is read first, and damage raises `StoreError`.
        """
        import xarray

        if check:
            damaged = self.summary()["damaged"]
            if damaged:
                more = f" (and {len(damaged) - 1} more like it)" if len(damaged) > 1 else ""
                raise StoreError(f"{damaged[0]}{more} {_AGAIN}")
        chunks: Any = {} if lazy else None
        # The older format 2 is not accepted, because its filters may unpickle.
        store = _local(self.path, read_only=True)
        data = xarray.open_zarr(store, chunks=chunks, consolidated=False, zarr_format=3)
        data = data.set_coords([*self.manifest["axes"]])
        unfinished = self.unfinished()
        if unfinished:
            data = data.assign_attrs(unfinished=unfinished)
        return data.drop_encoding()  # no other format understands zarr's encoding


def _local(path, read_only=False):
    """The folder as a store of zarr. A plain path with certain characters would be taken for a URL."""
    from zarr.storage import LocalStore

    return LocalStore(path, read_only=read_only)


def _prefix(path):
    """The beginning of the names of the folders in which the store is made: its own name, hashed if that is long."""
    name = path.name.encode()
    return f".{path.name}." if len(name) < 200 else f".{sha256(name).hexdigest()[:16]}."


def _fill(path, plan, layout, manifest):
    """Makes a store without work items, and waits until it has reached the disk."""
    _make_arrays(path, plan, layout)
    (path / "sweep" / "items").mkdir(parents=True)
    made = [Path(place, name) for place, _, names in os.walk(path) for name in names]
    files = {file.relative_to(path).as_posix(): checksum(file) for file in made}
    (path / "sweep" / "lock").touch()
    write_json(path / "sweep" / "manifest.json", {**manifest, "files": files})
    for place, _, names in os.walk(path, topdown=False):
        for name in (*names, "."):
            sync(Path(place, name))


def _make_arrays(path, plan, layout):
    """Makes the zarr group with empty outputs and with its coordinates."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    compressors = [ZstdCodec(level=0), Crc32cCodec()]
    # xarray reads the names of the coordinates from here, separated by spaces.
    coordinates = " ".join(name for name in layout.coordinates if not re.search(r"\s", name))
    attrs = {**layout.attrs, "coordinates": coordinates}
    group = zarr.create_group(_local(path), zarr_format=3, attributes=attrs)
    for name, variable in layout.variables.items():
        own = variable.shape[len(plan.shape) :]
        group.create_array(
            name,
            shape=variable.shape,
            chunks=plan.tile + tuple(max(n, 1) for n in own),
            dtype=variable.dtype,
            fill_value=variable.fill,
            dimension_names=variable.dims,
            attributes=dict(variable.attrs),
            compressors=compressors,
        )
    for name, (dim, values, attrs) in layout.coordinates.items():
        group.create_array(
            name,
            data=np.asarray(values),
            chunks=(len(values),),
            dimension_names=(dim,),
            attributes=dict(attrs),
            compressors=compressors,
        )
    # The folder `sweep` is a group too, because readers of zarr do not expect other folders.
    group.create_group("sweep")
