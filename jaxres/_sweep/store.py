"""A store of a sweep's results: a zarr group with one chunk for each work item.

    store/                    what `xarray.open_zarr` reads: outputs, `failed`, coordinates; every chunk ends in its CRC
    store/sweep/manifest.json what was computed: the model, axes, fixed parameters, function, versions, dtypes
    store/sweep/items/17      written after the chunks of work item 17 have reached the disk: their checksums, failures
    store/sweep/lock          held by every process that writes

A work item counts only with its marker, and only while its chunks are what the marker says. So whatever ends a sweep,
from Ctrl-C to a power cut, and whatever happens to the files afterwards, at worst some items are computed again. Chunks
and markers appear under their names only when they are complete.
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

from .._files import (
    StoreError,
    checksum,
    folder,
    read_json,
    sync,
    telling,
    unusable,
    write_json,
    writing,
)
from .layout import Layout
from .plan import Plan
from .run import Item

if TYPE_CHECKING:
    import xarray

#: of the files; stores in another one are refused
FORMAT = 2
#: entries of the manifest that say how, not what, or say it in other words: they may differ when a sweep goes on
_HOW = (
    *("chunk", "tile", "block", "created", "config", "hash", "versions.jax", "versions.numpy"),
    *("model", "shape", "files"),
)
_KINDS = {
    **dict.fromkeys(("dims", "shape", "tile", "block", "gradient"), list),
    **dict.fromkeys(("function", "axes", "fixed", "outputs", "versions", "files"), dict),
    **dict.fromkeys(("dtype", "created"), str),
}
_MARKER = {
    **dict.fromkeys(("points", "failed"), int),
    **{"messages": list, "seconds": float, "chunks": dict, "shard": list | None},
}
#: an output's dtype and shape; a file of the store
_KIND, _INSIDE = re.compile(r"[a-z]+[0-9]*\[[0-9, ]*\]"), re.compile(r"[^/\0]+(/[^/\0]+)*")
_AGAIN = (
    "Repeat the call that made the store, or `jaxres resume` it: what is damaged is computed again."
)
_ANEW = "Restore the file from a copy, or compute into another folder."


class Store:
    """An open store. Several processes may write to one at a time: each item has its own files."""

    def __init__(self, path: Path):
        self.path = folder("store", path)
        self.manifest = read_manifest(self.path)
        self._items = self.path / "sweep" / "items"
        self._arrays: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path, plan: Plan, layout: Layout, manifest: Mapping[str, Any]) -> "Store":
        """Makes the store, all at once: another process that makes the same one meanwhile does no harm."""
        told = (
            f"Argument `store` must be a folder that can be made and written to, but {path} is not"
        )
        with telling(told, "Name another folder, or make room."):
            path.parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
            try:
                _fill(place / "new", plan, layout, manifest)
                os.rename(place / "new", path)
                sync(path.parent)
            except Exception:  # another process was faster, and may have removed this one's folder
                if not is_store(path):
                    raise
            finally:
                shutil.rmtree(place, ignore_errors=True)
        return cls(path)

    @property
    def plan(self) -> Plan:
        """How the grid is cut, without the axes' values."""
        axes = [
            {name: np.broadcast_to(0.0, n)}
            for name, n in zip(self.manifest["dims"], self.manifest["shape"], strict=True)
        ]
        return Plan(tuple(axes), tuple(self.manifest["block"]), tuple(self.manifest["tile"]))

    # ----------------------------------------------------------------------------------------------
    # What is there
    # ----------------------------------------------------------------------------------------------

    def markers(self) -> set[int]:
        """The work items that were computed, whatever has become of their files since."""
        if not self._items.is_dir():
            return set()
        with telling(f"{self._items} cannot be read", _ANEW):
            names = [entry.name for entry in os.scandir(self._items)]
        return {int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,17}", name)}

    def check(
        self, items: Iterable[int] | None = None
    ) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
        """The markers of the work items that are complete, and what is wrong with the damaged ones.

        Every file is read. Only of the given `items`, if they are given.
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
        """The chunks of a work item by the names of their arrays; arrays without entries have none."""
        region = plan.region(number)
        chunk = [str(s.start // t) for s, t in zip(region, plan.tile, strict=True)]
        own = {k: json.loads(v[v.index("[") :]) for k, v in self.manifest["outputs"].items()}
        return {
            name: Path(self.path, name, "c", *chunk, *["0"] * len(shape))
            for name, shape in {**own, "failed": []}.items()
            if 0 not in shape
        }

    def done(self, items: Iterable[int] | None = None) -> set[int]:
        """The work items that are complete and undamaged."""
        return set(self.check(items)[0])

    def broken(self) -> list[str]:
        """Files that were written when the store was made, metadata and coordinates, and are damaged or missing."""
        files = self.manifest["files"].items()
        return [
            name
            for name, crc in files
            if not (self.path / name).is_file() or checksum(self.path / name) != crc
        ]

    def summary(self) -> dict[str, Any]:
        """Work items, points, failures, messages and seconds so far; what is damaged, and what is not there yet."""
        good, damaged = self.check()
        total: dict[str, Any] = {
            "items": len(good),
            "points": 0,
            "failed": 0,
            "seconds": 0.0,
            "messages": [],
            "damaged": [
                *damaged.values(),
                *(f"{self.path / n} is damaged." for n in self.broken()),
            ],
            "unfinished": self._unfinished(good, damaged),
        }
        for about in good.values():
            for key in ("points", "failed", "seconds", "messages"):
                total[key] += about[key]
        return total

    def messages(self) -> list[str]:
        """What went wrong at single points."""
        return [message for marker in self._marked().values() for message in marker["messages"]]

    def unfinished(self) -> str:
        """Which work items have no marker, in words; empty if all have."""
        whole = len(self.markers()) >= self.plan.items
        return "" if whole else self._unfinished(self._marked(), {})

    def _marked(self):
        """The markers that can be read; the chunks are not looked at."""
        found = {}
        for number in sorted(self.markers()):
            with contextlib.suppress(StoreError):  # told by `check`
                found[number] = read_json(self._items / str(number), "", _MARKER)
        return found

    def _unfinished(self, good, damaged):
        items = self.plan.items
        if items - len(good) <= 0:
            return ""
        text = f"{items - len(good)} of {items} work items are not computed"
        if damaged:
            text += f", {len(damaged)} of them because their files are damaged"
        n = next((about["shard"][1] for about in good.values() if about["shard"]), 1)
        if n > 1:
            missing = [
                i for i in range(n) if not range(i, items, n) or {*range(i, items, n)} - {*good}
            ]
            shards = ", ".join(f"{i + 1}/{n}" for i in missing[:8])
            text += f": shards {shards}{' and more' if len(missing) > 8 else ''} are missing or unfinished"
        return text

    # ----------------------------------------------------------------------------------------------
    # Writing and reading
    # ----------------------------------------------------------------------------------------------

    def writing(self) -> AbstractContextManager[None]:
        """While this process writes; what killed ones have left goes first."""
        return writing(self.path / "sweep" / "lock", self._clean)

    def _clean(self):
        for left in self._items.glob(".*"):
            left.unlink(missing_ok=True)
        for name in (*self.manifest["outputs"], "failed"):
            for left in Path(self.path, name).rglob("*.partial"):
                left.unlink(missing_ok=True)
        unfinished = re.compile(re.escape(_prefix(self.path)) + "[a-z0-9_]{8}")
        for left in self.path.parent.iterdir():  # of no use to any process: the store is there
            if unfinished.fullmatch(left.name) and {x.name for x in left.iterdir()} <= {"new"}:
                shutil.rmtree(left, ignore_errors=True)

    def repair(self, plan: Plan, layout: Layout) -> list[str]:
        """Writes damaged metadata and coordinates anew; which those were."""
        broken = self.broken()
        if broken or not self._items.is_dir():
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
        """One work item: its chunks, then its marker."""
        import zarr

        region, files = plan.region(number), self._files(plan, number)
        outputs = {**item.outputs, "failed": item.failed}
        for name, file in files.items():
            if name not in self._arrays:
                array = zarr.open_array(_local(self.path), path=name, mode="r+", zarr_format=3)
                self._arrays[name] = array.with_config({"write_empty_chunks": True})
            array = self._arrays[name]
            array[region] = outputs[name]
            # a new file is an entry of its folder
            for path in (file, *file.parents[: array.ndim]):
                sync(path)
        about = {
            "points": plan.size(number),
            "failed": int(item.failed.sum()),
            "messages": list(item.messages),
            "seconds": float(seconds),
            "shard": shard,
            "chunks": {name: checksum(file) for name, file in files.items()},
        }
        write_json(self._items / str(number), about)

    def dataset(self, *, lazy: bool = False, check: bool = True) -> "xarray.Dataset":
        """The results, read when they are used. With `lazy` as dask arrays, chunk by chunk.

        What is damaged raises `StoreError`, unless it is not to be looked for (`check`).
        """
        import xarray

        if check:
            damaged = self.summary()["damaged"]
            if damaged:
                more = f" (and {len(damaged) - 1} more like it)" if len(damaged) > 1 else ""
                raise StoreError(f"{damaged[0]}{more} {_AGAIN}")
        chunks: Any = {} if lazy else None
        # no older format: its filters may unpickle
        store = _local(self.path, True)
        data = xarray.open_zarr(store, chunks=chunks, consolidated=False, zarr_format=3)
        data = data.set_coords([*self.manifest["axes"]])
        unfinished = self.unfinished()
        if unfinished:
            data = data.assign_attrs(unfinished=unfinished)
        return data.drop_encoding()  # zarr's, which no other format understands


def is_store(path: Path) -> bool:
    """Whether a sweep's store stands there."""
    return (path / "sweep" / "manifest.json").is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """What a store was made for."""
    file = folder("store", path) / "sweep" / "manifest.json"
    with telling(f"{file} cannot be read", _ANEW):
        if not file.is_file():
            raise StoreError(
                f"Argument `store` must be a store made by jaxres.sweep, but {path} has no sweep/manifest.json. "
                "Name another folder."
            )
    content = read_json(file, _ANEW, _KINDS, FORMAT)
    if not _fits(content):
        raise StoreError(f"{file} is damaged: its entries do not fit each other. {_ANEW}")
    return content


def _fits(manifest):
    """Whether a grid and files of a store are described, none of them outside of it."""
    sizes = [manifest[key] for key in ("shape", "tile", "block")]
    outputs, files, function = (manifest[key] for key in ("outputs", "files", "function"))
    return (
        all(isinstance(name, str) for name in (*manifest["dims"], *manifest["gradient"]))
        and all(len(each) == len(manifest["dims"]) for each in sizes)
        and all(type(n) is int and n > 0 for each in sizes for n in each)
        and all(unusable(name) is None for name in (*outputs, *manifest["axes"]))
        and all(isinstance(x, str) and _KIND.fullmatch(x) for x in outputs.values())
        and all(type(crc) is int and _INSIDE.fullmatch(name) for name, crc in files.items())
        and not any({".", ".."} & {*name.split("/")} for name in files)
        and all(isinstance(function.get(key), str) for key in ("name", "digest", "jax"))
        and all(isinstance(x, str) for x in manifest["versions"].values())
        and isinstance(manifest.get("config"), dict | None)
    )


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


def _local(path, read_only=False):
    """The store as zarr knows it: a folder, whatever characters its path has, and no URL."""
    from zarr.storage import LocalStore

    return LocalStore(path, read_only=read_only)


def _prefix(path):
    """How the names of folders begin in which the store is made."""
    # a name as long as can be has no room for anything in front of it
    return (
        f".{path.name}."
        if len(path.name.encode()) < 200
        else f".{sha256(path.name.encode()).hexdigest()[:16]}."
    )


def _fill(path, plan, layout, manifest):
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    compressors = [ZstdCodec(level=0), Crc32cCodec()]
    # so xarray knows them; a name with a space cannot stand there
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
    (path / "sweep" / "items").mkdir(parents=True)
    # a group of its own, so that no reader of the store stumbles over a folder it does not know
    group.create_group("sweep")
    made = [Path(place, name) for place, _, names in os.walk(path) for name in names]
    files = {file.relative_to(path).as_posix(): checksum(file) for file in made}
    (path / "sweep" / "lock").touch()
    write_json(path / "sweep" / "manifest.json", {**manifest, "files": files})
    for place, _, names in os.walk(path, topdown=False):
        for name in (*names, "."):
            sync(Path(place, name))
