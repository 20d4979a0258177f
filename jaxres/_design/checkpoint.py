"""A design's checkpoint: a folder from which a search continues exactly where it was.

store/design/manifest.json   the arguments: parameters, bounds, start, loss, optimiser, versions
store/design/state.npz       the searches and their history, replaced as a whole after every few steps, or (SciPy) after
                             every start
store/design/progress.json   the losses and results so far, for people
store/design/result.json     the result, once there is one
"""

import os
import uuid
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import require
from .._files import StoreError, folder, read_json, sync, telling, write_json, writing

MANIFEST, STATE, PROGRESS, RESULT = "manifest.json", "state.npz", "progress.json", "result.json"
#: The entries of a manifest that may differ when a search continues.
_MAY_DIFFER = ("config", "versions", "max_steps")
#: The types of a manifest's entries.
_KINDS = {
    **dict.fromkeys(("bounds", "versions"), dict),
    **dict.fromkeys(("start", "entries"), list),
    **dict.fromkeys(("loss", "optimiser", "dtype"), str),
    **dict.fromkeys(("starts", "max_steps"), int),
    "config": dict | None,
}
_ANEW = "Restore the file from a copy, or search anew with another folder as the store."
#: The name of the checksum, beside the arrays of the search.
_CHECKSUM = "checksum"


def is_checkpoint(path: Path) -> bool:
    """Whether the folder has a design's checkpoint."""
    return (path / "design" / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """The arguments that a checkpoint was made with."""
    require(
        is_checkpoint(path),
        f"Argument `store` must be a folder made by jaxres.design, but {path} has no design/{MANIFEST}. Name another.",
    )
    return read_json(path / "design" / MANIFEST, _ANEW, _KINDS)


def read_progress(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The progress of a checkpoint and its result; each is empty if there is none yet."""
    progress, result = (path / "design" / name for name in (PROGRESS, RESULT))
    remedy = "Delete it, and resume the search: it is written anew."
    kinds = {"losses": list, "results": list, "steps": int}
    ends = {"result": str, "table": list, "report": str}
    return (
        read_json(progress, remedy, kinds) if progress.is_file() else {},
        read_json(result, remedy, ends) if result.is_file() else {},
    )


class Checkpoint:
    """The folder of one search, which is made if it does not exist."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]):
        self.folder = folder("store", path) / "design"
        manifest = loads(dumps(manifest))
        with telling(
            f"Argument `store` must be a folder that can be written to, but {path} is not",
            "Make room or mend the folder, or name another one.",
        ):
            if is_checkpoint(path):
                old = read_manifest(path)
                different = [
                    f"{key} is {old.get(key)} in the store, {manifest.get(key)} now"
                    for key in dict.fromkeys([*old, *manifest])
                    if key not in _MAY_DIFFER and old.get(key) != manifest.get(key)
                ]
                require(
                    not different,
                    f"Argument `store` must be new or made by the same search, but {path} differs: "
                    + "; ".join(different)
                    + ". Name another folder, or repeat the call that made this one.",
                )
            else:
                # a search that was killed before it wrote a manifest leaves an empty folder
                require(
                    not path.exists() or (path.is_dir() and self._is_empty(path)),
                    f"Argument `store` must be a new folder or one made by jaxres.design, but {path} is something "
                    "else. Name another folder.",
                )
                self.folder.mkdir(parents=True, exist_ok=True)
            self._held = ExitStack()  # for as long as this object lives
            self._held.enter_context(writing(self.folder / "lock", self._clean))
            write_json(self.folder / MANIFEST, manifest)
        self._identity = dumps(
            {k: v for k, v in manifest.items() if k not in _MAY_DIFFER}, sort_keys=True
        )

    def _is_empty(self, path):
        inside = {x for x in path.rglob("*") if not x.name.startswith(".")}
        return inside <= {self.folder, self.folder / "lock"}

    def _clean(self):
        for left in self.folder.glob(".*"):
            left.unlink(missing_ok=True)

    def load(self) -> dict[str, np.ndarray]:
        """The arrays that were saved last; an empty dict if nothing was saved."""
        path = self.folder / STATE
        if not path.is_file():
            return {}
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = dict(file)
            checksum = int(arrays.pop(_CHECKSUM, np.asarray(-1)))
        except Exception as error:  # bytes that are not an archive raise errors of many kinds
            raise StoreError(
                f"{path} is damaged: {type(error).__name__}: {error}. {_ANEW}"
            ) from error
        if checksum != self._checksum(arrays):
            raise StoreError(f"{path} is damaged: its checksum is missing or wrong. {_ANEW}")
        return arrays

    def _checksum(self, arrays):
        """The checksum of the arrays and of the search that they belong to."""
        total = zlib.crc32(self._identity.encode())
        for name in sorted(arrays):
            x = np.ascontiguousarray(arrays[name])
            total = zlib.crc32(f"{name} {x.dtype.str} {x.shape}".encode(), total)
            total = zlib.crc32(x.tobytes(), total)
        return total

    def save(self, arrays: Mapping[str, Any], losses: Any, results: list[str], steps: int) -> None:
        """Replaces the state; an interruption leaves the one before. `progress.json` is for people."""
        packed: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items()}
        packed[_CHECKSUM] = np.asarray(self._checksum(packed))
        partial = self.folder / f".{uuid.uuid4().hex}.npz"
        failure = f"{self.folder / STATE} cannot be written"
        with telling(failure, "Make room, and repeat the call: it goes on from the state before."):
            try:
                with open(partial, "wb") as file:
                    np.savez(file, **packed)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, self.folder / STATE)
            finally:
                partial.unlink(missing_ok=True)
            sync(self.folder)
            finite = [x if np.isfinite(x) else None for x in map(float, losses)]
            write_json(
                self.folder / PROGRESS, {"losses": finite, "results": results, "steps": steps}
            )
            (self.folder / RESULT).unlink(missing_ok=True)  # it is the result of fewer steps

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result."""
        write_json(self.folder / RESULT, result)
