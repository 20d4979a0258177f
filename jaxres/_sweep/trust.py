"""Loads a function that a file names, only if the caller trusts it. No other place of the package does so.

A configuration file, a store's manifest and a design's checkpoint may come from somebody else. Everything in them is
data, except the name of a function, `module:name`: looking it up runs its module. So a name is looked up only if it is
one of the package's own models, or if the caller trusts its module.
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

#: modules whose public functions compute models from numbers and do nothing else
OWN = ("jaxres.letter", "jaxres.systems")
#: the name of a function, `package.module:name`
_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")

#: `True` for every module, or the names of those that are trusted, with their submodules
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
    """Whether `load_function` would look `module:name` up. This runs and imports nothing."""
    if is_own(name) or isinstance(trust, bool):
        return is_own(name) or trust is True
    module = name.partition(":")[0]
    return any(module == each or module.startswith(f"{each}.") for each in trust if each)


def load_function(
    name: Any, *, trust: Trust = False, place: str = "function", store: Path | None = None
) -> Callable:
    """The function `module:name` that a file names.

    **Arguments:**

    - `name`: the name, as read from the file.
    - `trust`: the modules that may be imported, which runs them: `True` for all, or their names. The models of this
      package (`jaxres.letter:model`, ...) need no trust.
    - `place`: the place of the name in the file, for errors.
    - `store`: the folder of the store that has the name, if a store has it. No module inside it is ever imported.

    Python looks for the module on its path, and last in the working directory.

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
    except (Exception, SystemExit) as error:  # a module may raise anything when it runs
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
    """Puts the working directory last on the path, and removes folders inside the store from it."""
    here = os.getcwd()
    if here not in sys.path and not _inside(here, store):
        sys.path.append(here)
    sys.path[:] = [entry for entry in sys.path if not _inside(entry, store)]
    importlib.invalidate_caches()  # a file may have appeared in a folder on the path


def _check_origin(package, store):
    """Refuses a top-level module that lies inside the store. To find one runs nothing."""
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
