"""The commands of sweeps: `jaxres sweep`, `plot`, `export`."""

import errno
import math
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .messages import (
    duration,
    interruptible,
    print_not_loaded,
    print_points,
    size,
    versions,
    without_traceback,
)
from .options import (
    Config,
    Folder,
    Modules,
    Shard,
    Trusted,
    Workers,
    read_config,
    results_folder,
    trusted,
)

if TYPE_CHECKING:
    from .._sweep.prepare import Prepared
    from .._sweep.store import Store

#: matplotlib writes these formats without another program.
PICTURES = (".png", ".pdf", ".svg")
#: `info` prints at most so many messages and damaged files, since a terminal shows hardly more.
MOST_MESSAGES = 20


def sweep(
    config: Config,
    store: Annotated[
        Path | None, typer.Option(help="Folder of the results, instead of the file's.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=1, help="Points of every axis given by from and to.")
    ] = None,
    shard: Shard = None,
    workers: Workers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell points, memory, chunks and time, and stop.")
    ] = False,
    trust: Trusted = False,
    trust_module: Modules = None,
) -> None:
    """Computes the grid of a configuration file into a store; goes on where it was interrupted."""
    content = read_config(config)
    if points is not None:
        for axis in _axes(content):
            if "points" in axis:
                axis["points"] = points
    path = results_folder(store, content, "sweep", config.with_suffix(".zarr").name)
    allowed = trusted(trust, trust_module)
    run(path, shard, workers, content, dry_run=dry_run, trust=allowed)


def print_info(store):
    """Prints what a sweep computes, how far it is, and what has failed."""
    from .._sweep.store import Store

    opened = Store(store)
    manifest, summary, plan = opened.manifest, opened.summary(), opened.plan
    data = opened.dataset(check=False)
    echo = typer.echo
    echo(data.attrs["title"])
    echo(f"  function  {manifest['function']['name']}")
    for name in manifest["axes"]:
        x = data[name]
        symbol = x.attrs.get("symbol", "")
        ends = f"{x.values[0]:.6g} to {x.values[-1]:.6g}" if x.size > 1 else f"{x.values[0]:.6g}"
        echo(f"  axis      {name} {symbol} ({x.attrs['units']}): {x.size} points, {ends}")
    for name, value in manifest["fixed"].items():
        echo(f"  fixed     {name} = {value}")
    for name, kind in manifest["outputs"].items():
        echo(f"  output    {name} {kind}")
    echo(f"  chunks    {' x '.join(map(str, plan.tile))} points")
    echo(f"  made      {manifest['created']}, {manifest['dtype']}, {versions(manifest)}")
    done = f"{summary['items']} of {plan.items} work items"
    echo(f"  done      {done}, {summary['points']} of {plan.points} points")
    echo(f"  time      {summary['seconds']:.1f} s")
    echo(f"  failed    {summary['failed']} points")
    for message in summary["messages"][:MOST_MESSAGES]:
        echo(f"            {message}")
    for message in summary["damaged"][:MOST_MESSAGES]:
        echo(f"  damaged   {message}")
    if summary["unfinished"]:
        echo(f"            {summary['unfinished']}")
    if summary["items"] < plan.items or summary["damaged"]:
        echo(f"  Unfinished: jaxres resume {store}")


def plot(
    store: Folder,
    out: Annotated[
        Path | None, typer.Option(help="The picture, .png or .pdf; by default beside the store.")
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="What to draw; by default the first output.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="name=value, where to cut an axis; by default in its middle."),
    ] = None,
) -> None:
    """Draws a variable along one or two axes of the grid."""
    with without_traceback():
        # The name may not be a variable of the store, and may hold a slash; that is checked later.
        name = (variable or "plot").replace("/", "_")
        whole = store.resolve()
        out = out or whole.parent / f"{whole.stem}-{name}.png"
        if out.suffix.lower() not in PICTURES:
            raise ValueError(
                f"Argument `--out` must be a file that ends in {', '.join(PICTURES)}, but is {out}."
            )
        cuts = _cuts(at or [])
        import matplotlib

        matplotlib.use("agg")
        from .._sweep.plot import draw
        from .._sweep.store import Store

        with _new_file(out, "--out") as file:
            opened = Store(store)
            figure = draw(opened.dataset(), opened.manifest["dims"], variable, cuts)
            figure.savefig(file, dpi=300, format=out.suffix[1:].lower())
    typer.echo(f"Drawn in {out}.")


def export(
    store: Folder, out: Annotated[Path, typer.Argument(help="The NetCDF file to write.")]
) -> None:
    """Writes a store as one NetCDF file, chunk by chunk."""
    with without_traceback():
        from .._sweep.store import Store

        with _new_file(out, "out") as file:
            to_netcdf(Store(store), file)
    typer.echo(f"Written to {out}.")


def to_netcdf(store: "Store", path: Path) -> None:
    """Writes a store as one NetCDF file, complex numbers as compounds of r and i."""
    data = store.dataset(lazy=True)
    messages = store.messages()
    if messages:
        data.attrs["failures"] = "\n".join(messages)
    data.to_netcdf(path, engine="h5netcdf")


def run(path, shard, workers, content, *, dry_run, trust):
    """Runs the sweep that a configuration file describes, or continues it, with its store in `path`."""
    with without_traceback():
        from . import config as _config

        code = _config.Code(trust, store=path, skip=dry_run)
        config = _config.parse(content, code=code)
        import jax

        jax.config.update("jax_enable_x64", config.precision == "double")
        from .._sweep.arguments import check_axes, check_shard
        from .._sweep.drive import drive
        from .._sweep.manifest import is_store
        from .._sweep.plan import Plan
        from .._sweep.prepare import prepare
        from .._sweep.store import Store

        check_shard(shard)
        assert config.sweep is not None  # `parse` has checked it
        count = config.sweep.workers if workers is None else workers
        arguments = _config.arguments(config, code)
        if code.leaves_out(config.model.function):
            groups, _ = check_axes(arguments["axes"], arguments["memory"])
            print_not_loaded(config.model.function)
            print_points(Plan(groups).shape)
            return
        prepared = prepare(**arguments, config=content, elsewhere=count > 0)
    if dry_run:
        _print_plan(prepared, path, count, is_store(path))
        return
    with interruptible(path), without_traceback(), _pool(count) as executor:
        drive(
            prepared,
            store=path,
            executor=executor,
            shard=shard,
            memory=config.sweep.memory_mib * 2**20,
            progress=True,
        )
    summary = Store(path).summary()
    typer.echo(
        f"{summary['points']} of {prepared.plan.points} points are in {path}, {summary['failed']} failed."
    )


def _print_plan(prepared: "Prepared", path: Path, workers: int, exists: bool) -> None:
    """Prints what a sweep will take, measured with one block."""
    from .._sweep.drive import COPIES

    plan = prepared.plan
    compiled, seconds, needed = prepared.measure()
    each = prepared.layout.bytes_per_point
    tile = math.prod(plan.tile)
    processes = max(workers, 1)
    print_points(plan.shape)
    for name, value in (
        ("store", f"{path}{' (exists)' if exists else ''}, {size(plan.points * each)}"),
        ("chunks", f"{plan.items} of {' x '.join(map(str, plan.tile))} points, {size(tile * each)} each"),
        ("blocks", f"{' x '.join(map(str, plan.block))} points at a time"),
        ("memory", f"{size(needed + COPIES * tile * each)} a process, beside the program itself"),
        ("compile", f"{compiled:.1f} s in each process"),
        ("time", f"{duration(plan.points * seconds / processes)}, {seconds * 1e6:.3g} us a point"
         + (f" in each of {processes} processes" if workers else "")),
    ):  # fmt: skip
        typer.echo(f"{name:8} {value}")


@contextmanager
def _new_file(path: Path, argument: str) -> Iterator[Path]:
    """Yields the path at which to write a file, which gets its own name when it is complete.

    Raises `ValueError` beforehand if a file with that name cannot be written.
    """
    try:
        path = Path(os.path.realpath(path))
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(errno.EINVAL, "It is there, and is no file")
        tempfile.TemporaryFile(dir=path.parent).close()
    except (OSError, ValueError) as error:  # a name with NUL raises `ValueError`
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"Argument `{argument}` must be a file that can be written, but {path} is not: {reason}. Name another."
        ) from None
    unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    """A pool of spawned processes that leave Ctrl-C to this one; None if there are to be no others."""
    if workers == 0:
        yield None
        return
    import multiprocessing
    import signal
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _axes(content):
    """The tables of the axes in a configuration file that was not checked yet."""
    sweep = content.get("sweep")
    axes = sweep.get("axes") if isinstance(sweep, Mapping) else None
    return [a for a in axes.values() if isinstance(a, dict)] if isinstance(axes, Mapping) else []


def _cuts(at: list[str]) -> dict[str, float]:
    """The values of the options `--at name=value`, by name."""
    cuts = {}
    for text in at:
        name, equals, value = text.partition("=")
        try:
            cuts[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not math.isfinite(cuts[name.strip()]):
            raise ValueError(
                f"Argument `--at` must be name=value with a finite number, but is {text!r}."
            )
    return cuts
