"""The one place where a function that a file names becomes code: only if the caller trusts it.

A configuration file, a store's manifest and a design's checkpoint may come from somebody else. Everything in them is
data, except the name of a function, `module:name`: to look it up is to run its module. So a name is looked up only
where it is one of the package's own models, or where the caller says that its module is trusted.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FunctionType
from typing import Any

#: whose public functions compute models of numbers and do nothing else
OWN = ("jaxres.letter", "jaxres.systems")
_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")

#: `True`: every module; or the names of those that are trusted, with what is inside of them
Trust = bool | Collection[str]


def is_own(name: str) -> bool:
    """Whether `module:name` is a public function of a model in this package, found without running anything."""
    module, _, function = name.partition(":")
    found = vars(sys.modules[module]).get(function) if module in OWN else None
    return (
        isinstance(found, FunctionType)
        and found.__module__ == module
        and not function.startswith("_")
    )


def is_trusted(name: str, trust: Trust = False) -> bool:
    """Whether `load_function` would look `module:name` up. Runs nothing, imports nothing."""
    if is_own(name) or isinstance(trust, bool):
        return is_own(name) or trust is True
    module = name.partition(":")[0]
    return any(module == each or module.startswith(f"{each}.") for each in trust if each)


def load_function(
    name: Any, *, trust: Trust = False, place: str = "function", store: Path | None = None
) -> Callable:
    """The function `module:name` that a file names.

    **Arguments:**

    - `name`: what stands in the file.
    - `trust`: whether its module may be imported, which runs it: `True`, or the names of the modules that may. The
      models of this package (`jaxres.letter:model`, ...) need no trust.
    - `place`: where the name stands, for errors.
    - `store`: the folder that names it, if a store does: no module inside of it is ever imported.

    The module is looked for where Python looks, and last in the working directory.

    **Raises:** `ValueError` that names `place`, if the name is malformed, not trusted, or cannot be loaded.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(
            f'Argument `{place}` must be the name of a function, "package.module:name", but is {name!r}.'
        )
    if not is_trusted(name, trust):
        raise ValueError(
            f"Argument `{place}` must be trusted before it is loaded, but names {name!r}: loading a function runs the "
            "code of its module. If you know that code, allow it with --trust (in Python, `trust=True`)."
        )
    module, function = match["module"], match["function"]
    _let_in_the_working_directory(store)
    try:
        _check_origin(module.partition(".")[0], store)
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a module does when it is run
        raise ValueError(
            f"Argument `{place}` must name a function that can be loaded, but {name!r} cannot: "
            f"{type(error).__name__}: {error}. Check its name, and the folder that this was started in."
        ) from error
    if not callable(found):
        raise ValueError(
            f"Argument `{place}` must name a function, but {name!r} is {type(found).__name__}."
        )
    return found


def _let_in_the_working_directory(store):
    """The working directory last on the path, and nothing on it that lies in the store."""
    here = os.getcwd()
    if here not in sys.path and not _inside(here, store):
        sys.path.append(here)
    sys.path[:] = [entry for entry in sys.path if not _inside(entry, store)]
    importlib.invalidate_caches()  # of folders in which a file has appeared


def _check_origin(package, store):
    """Finding a top-level module runs nothing, so what lies in a store is refused before it could."""
    if package in sys.modules:
        spec = sys.modules[package].__spec__
    else:
        spec = importlib.util.find_spec(package)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    inside = [place for place in places if place and _inside(place, store)]
    if inside:
        raise ImportError(f"{inside[0]} lies inside the store, from which nothing is imported")


def _inside(place, store):
    return store is not None and Path(place).resolve().is_relative_to(Path(store).resolve())
