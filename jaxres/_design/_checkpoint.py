"""A design's checkpoint: a folder from which a search goes on exactly where it was.

store/design/manifest.json   what is searched: parameters, bounds, start, loss, optimiser, versions
store/design/state.npz       the searches and their history, replaced as a whole after every few steps
store/design/result.json     the result, once there is one
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._checks import require
from .._sweep._store import _sync, _write

MANIFEST, STATE, RESULT = "manifest.json", "state.npz", "result.json"
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

    def load(self, like: Any) -> Any | None:
        """The state that was saved last, in the form of `like`; or None. Arrays of any length may have grown."""
        path = self.folder / STATE
        if not path.is_file():
            return None
        with np.load(path) as file:
            leaves = [file[f"arr_{i}"] for i in range(len(file.files))]
        return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), leaves)

    def save(self, state: Any) -> None:
        """Replaces the state; an interruption leaves the one before."""
        leaves = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(state)]
        partial = self.folder / f".{uuid.uuid4().hex}.npz"
        try:
            with open(partial, "wb") as file:
                np.savez(file, *leaves)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / STATE)
        finally:
            partial.unlink(missing_ok=True)
        _sync(self.folder)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result."""
        _write(self.folder / RESULT, result)
