"""The manifest of a store: what was computed, and whether a sweep may go on with it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import StoreError, folder, read_json, telling, unusable

#: The format of the files. A store in another format is refused.
FORMAT = 2
#: what to do about a manifest that is damaged
REMEDY = "Restore the file from a copy, or compute into another folder."
#: Entries that may differ when a sweep goes on: they describe how it is computed, or repeat other entries.
_HOW = (
    *("chunk", "tile", "block", "created", "config", "hash", "versions.jax", "versions.numpy"),
    *("model", "shape", "files"),
)
#: the types of the entries
_KINDS = {
    **dict.fromkeys(("dims", "shape", "tile", "block", "gradient"), list),
    **dict.fromkeys(("function", "axes", "fixed", "outputs", "versions", "files"), dict),
    **dict.fromkeys(("dtype", "created"), str),
}
#: the dtype and shape of an output, and the path of a file inside the store
_OUTPUT = re.compile(r"[a-z]+[0-9]*\[[0-9, ]*\]")
_INSIDE = re.compile(r"[^/\0]+(/[^/\0]+)*")


def is_store(path: Path) -> bool:
    """Whether the folder is a store of a sweep."""
    return (path / "sweep" / "manifest.json").is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads and checks the manifest of a store."""
    file = folder("store", path) / "sweep" / "manifest.json"
    with telling(f"{file} cannot be read", REMEDY):
        if not file.is_file():
            raise StoreError(
                f"Argument `store` must be a store made by jaxres.sweep, but {path} has no sweep/manifest.json. "
                "Name another folder."
            )
    content = read_json(file, REMEDY, _KINDS, FORMAT)
    if not _fits(content):
        raise StoreError(f"{file} is damaged: its entries do not fit each other. {REMEDY}")
    return content


def _fits(manifest):
    """Whether the entries describe a grid, and files that all lie inside the store."""
    sizes = [manifest[key] for key in ("shape", "tile", "block")]
    outputs, files, function = (manifest[key] for key in ("outputs", "files", "function"))
    return (
        all(isinstance(name, str) for name in (*manifest["dims"], *manifest["gradient"]))
        and all(len(each) == len(manifest["dims"]) for each in sizes)
        and all(type(n) is int and n > 0 for each in sizes for n in each)
        and all(unusable(name) is None for name in (*outputs, *manifest["axes"]))
        and all(isinstance(x, str) and _OUTPUT.fullmatch(x) for x in outputs.values())
        and all(type(crc) is int and _INSIDE.fullmatch(name) for name, crc in files.items())
        and not any({".", ".."} & {*name.split("/")} for name in files)
        and all(isinstance(function.get(key), str) for key in ("name", "digest", "jax"))
        and all(isinstance(x, str) for x in manifest["versions"].values())
        and isinstance(manifest.get("config"), dict | None)
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """The entries in which two manifests differ, in words. Only entries that decide the results are compared."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        name = f"{path}{key}"
        a, b = old.get(key, "absent"), new.get(key, "absent")
        if a == b or name in _HOW:
            continue
        if name == "function":
            # The digest depends on the version of JAX; with another version the names are compared.
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
