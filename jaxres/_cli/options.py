"""Arguments and options that several commands share, and what is read from them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .messages import without_traceback

Folder = Annotated[Path, typer.Argument(help="A store made by a sweep.")]
Config = Annotated[Path, typer.Argument(help="A TOML file; see examples/.")]
Shard = Annotated[
    str | None, typer.Option(help="i/n, i from 1 to n: compute every n-th work item, for queues.")
]
Workers = Annotated[
    int | None, typer.Option(min=0, max=1024, help="Processes to compute in; 0 for this one alone.")
]
Trusted = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load the functions that the file names, which runs their modules."
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option("--trust-module", help="Load functions of this module only; may be repeated."),
]


def trusted(everything: bool, modules: Collection[str] | None) -> bool | Collection[str]:
    """The modules that may be imported: all of them (`True`), or those with the given names."""
    return everything or modules or ()


def read_config(path: Path) -> dict[str, Any]:
    """The content of a configuration file."""
    with without_traceback():
        from .config import read

        return read(path)


def results_folder(
    option: Path | None, content: Mapping[str, Any], task: str, default: str
) -> Path:
    """The folder of the results: that of the option, else that of the file, else the default."""
    from .._files import folder

    entries = content.get(task)
    named = entries.get("store") if isinstance(entries, Mapping) else None
    with without_traceback():
        return folder("store", option or (named if isinstance(named, str) else default))
