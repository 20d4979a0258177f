"""A design's checkpoint: a folder from which a search goes on exactly where it was.

store/design/manifest.json   what is searched: parameters, bounds, start, loss, optimiser, versions
store/design/state.npz       the searches and their history, replaced as a whole after every few steps, or (SciPy) after
                             every start
store/design/progress.json   how far they are, for people
store/design/result.json     the result, once there is one
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import require
from .._sweep._store import _sync, _write

MANIFEST, STATE, PROGRESS, RESULT = "manifest.json", "state.npz", "progress.json", "result.json"
#: entries of a manifest that may differ when a search goes on
_HOW = ("config", "versions", "steps")


def is_checkpoint(path: Path) -> bool:
    """Whether a design's checkpoint stands there."""
    return (path / "design" / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint was made for."""
    require(
        is_checkpoint(path),
        f"Argument `store` must be a folder made by jaxres.design, but {path} has no design/{MANIFEST}. Name another.",
    )
    return json.loads((path / "design" / MANIFEST).read_text(encoding="utf-8"))


def read_progress(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How far a checkpoint is, and its result; each empty if there is none yet."""
    files = (path / "design" / name for name in (PROGRESS, RESULT))
    progress, result = (json.loads(f.read_text("utf-8")) if f.is_file() else {} for f in files)
    return progress, result


class Checkpoint:
    """The folder of one search, made or found."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]):
        self.folder = path / "design"
        manifest = json.loads(json.dumps(manifest))
        if is_checkpoint(path):
            old = read_manifest(path)
            different = [
                f"{key} is {old.get(key)} in the store, {manifest.get(key)} now"
                for key in dict.fromkeys([*old, *manifest])
                if key not in _HOW and old.get(key) != manifest.get(key)
            ]
            require(
                not different,
                f"Argument `store` must be new or made by the same search, but {path} differs: "
                + "; ".join(different)
                + ". Name another folder, or repeat the call that made this one.",
            )
        else:
            require(
                not path.exists() or (path.is_dir() and not any(path.iterdir())),
                f"Argument `store` must be a new folder or one made by jaxres.design, but {path} is something else. "
                "Name another folder.",
            )
            self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / MANIFEST, manifest)

    def load(self) -> dict[str, np.ndarray]:
        """The arrays that were saved last; none if there are none."""
        path = self.folder / STATE
        if not path.is_file():
            return {}
        with np.load(path) as file:
            return dict(file)

    def save(self, arrays: Mapping[str, Any], losses: Any, outcomes: list[str], steps: int) -> None:
        """Replaces the state; an interruption leaves the one before. The rest is for people."""
        packed: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items()}
        partial = self.folder / f".{uuid.uuid4().hex}.npz"
        try:
            with open(partial, "wb") as file:
                np.savez(file, **packed)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / STATE)
        finally:
            partial.unlink(missing_ok=True)
        _sync(self.folder)
        finite = [x if np.isfinite(x) else None for x in map(float, losses)]
        _write(self.folder / PROGRESS, {"losses": finite, "outcomes": outcomes, "steps": steps})
        (self.folder / RESULT).unlink(missing_ok=True)  # that of fewer steps

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result."""
        _write(self.folder / RESULT, result)
