"""Files that are written as a whole or not at all, and checked when they are read.

The stores of sweeps and the checkpoints of designs share them.
"""

import contextlib
import json
import os
import re
import reprlib
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: The name of a file may have so many bytes in all usual file systems.
LONGEST = 255


def short(x: Any) -> str:
    """The text of a value in a message, of less than 80 characters."""
    try:
        text = reprlib.repr(x)
    except Exception:  # the `repr` of an object may raise anything
        text = f"an object of {type(x).__name__}"
    return text if len(text) < 80 else text[:77] + "..."


class StoreError(ValueError):
    """A store or a checkpoint cannot be read, written or trusted. The message names the file and a remedy."""


def folder(argument: str, path: Any) -> Path:
    """Returns the path of a folder, which need not exist. Raises `StoreError` if it cannot exist on this machine."""
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise StoreError(
            f"Argument `{argument}` must be the path of a folder, but is {short(path)}."
        )
    wrong = None
    if not text:
        wrong = "is empty"
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        wrong = "is a URL, and only local folders are supported"
    else:
        for name in Path(text).parts:
            wrong = wrong or unusable(name.strip(os.sep) or "root", paths=True)
    if wrong:
        raise StoreError(
            f"Argument `{argument}` must be the path of a folder, but {text!r} {wrong}. Name another folder."
        )
    return Path(text)


def unusable(name: str, *, paths: bool = False) -> str | None:
    """Returns why an array of a store cannot have this name, or with `paths`, why a file cannot; None if it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has characters that cannot be encoded in UTF-8"
    if "\0" in name:
        return "has a NUL character"
    if size > LONGEST:
        return f"has {size} bytes, more than the {LONGEST} that a file's name may have"
    if paths:
        return None
    if name in ("", ".", "..", "zarr.json", "sweep"):
        return "is a name that a store needs for itself"
    return "has a slash" if "/" in name or "\\" in name else None


@contextlib.contextmanager
def telling(what: str, remedy: str) -> Iterator[None]:
    """Raises `StoreError` where the operating system raises: for a full disk, a read-only folder, and so on."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {_reason(error)}. {remedy}") from error


def _reason(error):
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def checksum(path: Path) -> int:
    """The CRC-32 of a file."""
    total = 0
    with open(path, "rb") as file:
        while block := file.read(2**22):
            total = zlib.crc32(block, total)
    return total


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file with its own checksum, which appears under its name when it is complete on the disk."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(partial, "w", encoding="utf-8", errors="surrogatepass") as file:
            whole = {**content, "checksum": _checksum_of(content)}
            json.dump(whole, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def read_json(
    path: Path, remedy: str, kinds: Mapping[str, Any] | None = None, form: int | None = None
) -> dict[str, Any]:
    """Reads what `write_json` wrote. Raises `StoreError` with the `remedy` if the file holds anything else.

    The file must have the entries `kinds`, each of its type, and an entry `format` equal to `form`.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is not JSON ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged: it holds {type(content).__name__}. {remedy}")
    if form is not None and isinstance(content.get("format"), int) and content["format"] != form:
        raise StoreError(
            f"{path} is in format {content['format']}, and this version of jaxres reads format {form}. Read it with "
            "the version that wrote it, or compute into another folder."
        )
    if content.pop("checksum", None) != _checksum_of(content):
        raise StoreError(f"{path} is damaged: its checksum is missing or wrong. {remedy}")
    wrong = [k for k, kind in (kinds or {}).items() if not isinstance(content.get(k), kind)]
    if wrong:
        raise StoreError(f"{path} is damaged: it has no valid {', '.join(wrong)}. {remedy}")
    return content


def _checksum_of(content):
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def sync(path: Path) -> None:
    """Waits until a file or a folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(lock: Path, clean: Callable[[], None]) -> Iterator[None]:
    """Holds the file `lock` while this process writes beside it.

    If no other process holds it, `clean` first removes what killed processes have left. The system releases the lock
    when a process ends, whatever ends it.
    """
    with open(lock, "ab") as file:
        try:
            import fcntl
        except ModuleNotFoundError:  # on Windows, which has no `fcntl`, leftovers stay
            yield
            return
        # An error means that another process writes, or that the file system has no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clean()
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
