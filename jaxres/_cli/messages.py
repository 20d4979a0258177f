"""What the commands print: errors without a traceback, interruptions, and numbers in readable units."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

#: The exit status of a process that Ctrl-C ended is 128 + the number of SIGINT.
INTERRUPTED = 130
#: At most so many mistakes of a configuration file are printed, since a terminal shows hardly more.
MOST_MISTAKES = 50


@contextmanager
def without_traceback() -> Iterator[None]:
    """Ends the command with a message instead of a traceback where the user or the system is at fault."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"This needs {error.name}. Install it: pip install 'jaxres[design,sweep,figures]'"
        ) from error
    except ValueError as error:
        _print_mistakes(error)
        raise typer.Exit(2) from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"Error: {where}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _print_mistakes(error):
    """Prints the mistakes of a configuration file, each with its path, or the message of another error."""
    problems = getattr(error, "problems", None)
    if problems is None:
        typer.echo(f"Error: {error}", err=True)
        return
    many = f"{len(problems)} mistake{'s' * (len(problems) > 1)}"
    typer.echo(f"{many} in the configuration, nothing was run:", err=True)
    for path, message in problems[:MOST_MISTAKES]:
        typer.echo(f"  {path}: {message}", err=True)
    if len(problems) > MOST_MISTAKES:
        typer.echo(f"  and {len(problems) - MOST_MISTAKES} more", err=True)


@contextmanager
def interruptible(store: Path) -> Iterator[None]:
    """Ends the command on Ctrl-C with the command that continues it."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. To go on: jaxres resume {store}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def print_not_loaded(function) -> None:
    """Prints that a function is not loaded, because nobody trusts its module."""
    typer.echo(
        f"{'function':8} {function}, which is not loaded: --trust does so, which runs its module"
    )


def print_points(shape: Sequence[int]) -> None:
    """Prints the points along each axis, and of the whole grid."""
    typer.echo(f"{'points':8} {' x '.join(map(str, shape))} = {math.prod(shape)}")


def versions(manifest: Mapping[str, Any]) -> str:
    """The versions of the packages that made a store."""
    return ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())


def size(n: int | float) -> str:
    """A number of bytes in a unit that leaves it below 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def duration(seconds: int | float) -> str:
    """A time in the largest unit of which it has at least two."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s"
