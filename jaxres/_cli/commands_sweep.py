"""The sweeps on the command line: `jaxres sweep`, `resume`, `info`, `plot`, `export`; and designs: `jaxres design`."""

import errno
import math
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

if TYPE_CHECKING:
    from .._sweep.prepare import Prepared
    from .._sweep.store import Store

INTERRUPTED = 130
#: of a plot
PICTURES = (".png", ".pdf", ".svg")

Folder = Annotated[Path, typer.Argument(help="A store made by a sweep.")]
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


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (sweep, resume, info, plot, export, design):
        app.command()(command)


def sweep(
    config: Annotated[Path, typer.Argument(help="A TOML file; see examples/.")],
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
    content = _read(config)
    if points is not None:
        for axis in _axes(content):
            if "points" in axis:
                axis["points"] = points
    path = _store(store, content, "sweep", config.with_suffix(".zarr").name)
    _run(path, shard, workers, content, dry_run=dry_run, trust=trust or trust_module or ())


def resume(
    store: Folder,
    shard: Shard = None,
    workers: Workers = None,
    trust: Trusted = False,
    trust_module: Modules = None,
) -> None:
    """Computes what a store still lacks, be it of a sweep or of a design."""
    from .._design.checkpoint import is_checkpoint

    allowed = trust or trust_module or ()
    with _told():
        if is_checkpoint(store):
            from .._design.checkpoint import read_manifest

            made, run = "jaxres.design", partial(_run_design, store, dry_run=False, trust=allowed)
        else:
            from .._sweep.store import read_manifest

            made = "jaxres.sweep"
            run = partial(_run, store, shard, workers, dry_run=False, trust=allowed)
        content = read_manifest(store).get("config")
        if content is None:
            raise ValueError(
                f"Argument `store` must have been made from a file, but {store} was made in Python. Repeat its call "
                f"of {made} with this `store`: it goes on."
            )
    run(content)


def info(store: Folder) -> None:
    """What a store holds, be it of a sweep or of a design, and how far it is."""
    from .._design.checkpoint import is_checkpoint

    with _told():
        _info_design(store) if is_checkpoint(store) else _info_sweep(store)


def _info_sweep(store):
    from .._sweep.store import Store

    opened = Store(store)
    manifest, summary = opened.manifest, opened.summary()
    data = opened.dataset(check=False)
    items = math.prod(-(-data.sizes[d] // t) for d, t in _tiles(manifest).items())
    points = math.prod(data.sizes[d] for d in manifest["dims"])
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
    echo(f"  chunks    {' x '.join(map(str, manifest['tile']))} points")
    echo(f"  made      {manifest['created']}, {manifest['dtype']}, {_versions(manifest)}")
    echo(
        f"  done      {summary['items']} of {items} work items, {summary['points']} of {points} points"
    )
    echo(f"  time      {summary['seconds']:.1f} s")
    echo(f"  failed    {summary['failed']} points")
    for message in summary["messages"][:20]:
        echo(f"            {message}")
    for message in summary["damaged"][:20]:
        echo(f"  damaged   {message}")
    if summary["unfinished"]:
        echo(f"            {summary['unfinished']}")
    if summary["items"] < items or summary["damaged"]:
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
    with _told():
        name = (variable or "plot").replace(
            "/", "_"
        )  # whether there is such a variable is found out later
        whole = store.resolve()  # the root has no name, and is no store
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

        with _written(out, "--out") as file:
            opened = Store(store)
            figure = draw(opened.dataset(), opened.manifest["dims"], variable, cuts)
            figure.savefig(file, dpi=300, format=out.suffix[1:].lower())
    typer.echo(f"Drawn in {out}.")


def export(
    store: Folder, out: Annotated[Path, typer.Argument(help="The NetCDF file to write.")]
) -> None:
    """Writes a store as one NetCDF file, chunk by chunk."""
    with _told():
        from .._sweep.store import Store

        with _written(out, "out") as file:
            to_netcdf(Store(store), file)
    typer.echo(f"Written to {out}.")


def design(
    config: Annotated[Path, typer.Argument(help="A TOML file; see examples/.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint, instead of the file's.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each start, instead of the file's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file, tell what is searched, and stop.")
    ] = False,
    trust: Trusted = False,
    trust_module: Modules = None,
) -> None:
    """Searches the parameters that make a configuration file's loss least; goes on where it was interrupted."""
    content = _read(config)
    task = content.get("design")
    if isinstance(task, dict) and max_steps is not None:
        task["max_steps"] = max_steps
    path = _store(store, content, "design", config.with_suffix(".design").name)
    _run_design(path, content, dry_run=dry_run, trust=trust or trust_module or ())


def to_netcdf(store: "Store", path: Path) -> None:
    """A store as one NetCDF file (complex numbers as a compound of r and i)."""
    data = store.dataset(lazy=True)
    messages = store.messages()
    if messages:
        data.attrs["failures"] = "\n".join(messages)
    data.to_netcdf(path, engine="h5netcdf")


# --------------------------------------------------------------------------------------------------------------


def _run(path, shard, workers, content, *, dry_run, trust):
    with _told():
        from . import config as _config

        code = _config.Code(trust, store=path, skip=dry_run)
        config = _config.parse(content, code=code)
        import jax

        jax.config.update("jax_enable_x64", config.precision == "double")
        from .._sweep.arguments import check_axes, check_shard
        from .._sweep.drive import drive
        from .._sweep.prepare import prepare
        from .._sweep.store import is_store

        check_shard(shard)
        assert config.sweep is not None  # `parse` has seen to it
        count = config.sweep.workers if workers is None else workers
        arguments = _config.arguments(config, code)
        if code.leaves_out(config.model.function):
            groups, _ = check_axes(arguments["axes"], arguments["memory"])
            typer.echo(_unloaded("function", config.model.function))
            typer.echo(_points([len(next(iter(group.values()))) for group in groups]))
            return
        prepared = prepare(**arguments, config=content, elsewhere=count > 0)
    if dry_run:
        _tell(prepared, path, count, is_store(path))
        return
    try:
        with _told(), _pool(count) as executor:
            drive(
                prepared,
                store=path,
                executor=executor,
                shard=shard,
                memory=config.sweep.memory_mib * 2**20,
                progress=True,
            )
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. To go on: jaxres resume {path}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    from .._sweep.store import Store

    summary = Store(path).summary()
    typer.echo(
        f"{summary['points']} of {prepared.plan.points} points are in {path}, {summary['failed']} failed."
    )


def _run_design(path, content, *, dry_run, trust):
    with _told():
        from . import config as _config, config_design as _config_design

        code = _config.Code(trust, store=path, skip=dry_run)
        config = _config.parse(content, "design", code)
        import jax

        jax.config.update("jax_enable_x64", config.precision == "double")
        from .._design.drive import drive, prepare

        model, task = config.model, config.design
        assert task is not None  # `parse` has seen to it
        left_out = [f for f in (model.function, task.loss.function) if code.leaves_out(f)]
        if left_out:
            for function in left_out:
                typer.echo(_unloaded("function", function))
            for name, pair in task.bounds.items():
                typer.echo(f"{name:12} within {pair}")
            return
        function = None if model.function is None else code.load(model.function, "model.function")
        arguments = _config_design.arguments(task, model.parameters, function, code)
        ready = prepare(**arguments, config=content)
    if dry_run:
        for name, pair in task.bounds.items():
            begin = np.ravel(ready.free.fields.default(name))
            many = f" and {begin.size - 1} more" if begin.size > 1 else ""
            typer.echo(f"{name:12} from {begin[0]:g}{many} within {pair}")
        typer.echo(
            f"{task.starts} starts, at most {task.max_steps} steps each, {task.optimiser}; store {path}"
        )
        return
    try:
        with _told():
            result = drive(ready, store=path, progress=True)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. To go on: jaxres resume {path}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(str(result))
    typer.echo(f"The result is in {path / 'design' / 'result.json'}.")


def _info_design(path):
    from .._design.checkpoint import read_manifest, read_progress

    manifest, (progress, result) = read_manifest(path), read_progress(path)
    echo, config = typer.echo, manifest.get("config") or {}
    echo(config.get("title", "A design"))
    what = manifest["loss"]
    echo(f"  loss       {what if len(what) <= 160 else what[:159] + '…'}")
    echo(f"  optimiser  {manifest['optimiser']}")
    for name, (low, high) in manifest["bounds"].items():
        begin = [
            x
            for x, entry in zip(manifest["start"], manifest["entries"], strict=True)
            if f"{entry}.".startswith(f"{name}.")
        ]
        ends = "within" if low is not None or high is not None else "without bounds"
        pair = f" [{low}, {high}]" if ends == "within" else ""
        many = f" ({len(begin)} numbers)" if len(begin) > 1 else ""
        echo(f"  free       {name}{many} from {begin[0]:g} {ends}{pair}")
    results, losses = progress.get("results", []), progress.get("losses", [])
    counts = {name: results.count(name) for name in dict.fromkeys(results)}
    echo(f"  starts     {manifest['starts']}, at most {manifest['max_steps']} steps each")
    echo(f"  made with  {manifest['dtype']}, {_versions(manifest)}")
    if results:
        echo("  so far     " + ", ".join(f"{n} {name}" for name, n in counts.items())
             + f", {progress['steps']} steps")  # fmt: skip
    met = [x for x, o in zip(losses, results, strict=True) if x is not None and o != "infeasible"]
    if met:
        echo(f"  best loss  {min(met):.10g}")
    if result:
        echo(result["report"])
    if not result or result["result"] == "unfinished":
        more = f"jaxres resume {path}" if config else "repeat its call of jaxres.design"
        echo(f"  Unfinished: {more}")


@contextmanager
def _told() -> Iterator[None]:
    """Mistakes of the user as messages without a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"This needs {error.name}. Install it: pip install 'jaxres[design,sweep,figures]'"
        ) from error
    except ValueError as error:
        problems = getattr(error, "problems", None)
        if problems is None:
            typer.echo(f"Error: {error}", err=True)
        else:
            many = f"{len(problems)} mistake{'s' * (len(problems) > 1)}"
            typer.echo(f"{many} in the configuration, nothing was run:", err=True)
            for path, message in problems[:50]:
                typer.echo(f"  {path}: {message}", err=True)
            if len(problems) > 50:
                typer.echo(f"  and {len(problems) - 50} more", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"Error: {where}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _written(path: Path, argument: str) -> Iterator[Path]:
    """Where to write a file that gets its name when it is complete. That it can be written is found out beforehand."""
    try:
        path = Path(os.path.realpath(path))
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(errno.EINVAL, "It is there, and is no file")
        tempfile.TemporaryFile(dir=path.parent).close()
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
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
    """So many processes, spawned, which leave Ctrl-C to this one."""
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


def _read(path: Path) -> dict[str, Any]:
    with _told():
        from .config import read

        return read(path)


def _axes(content):
    sweep = content.get("sweep")
    axes = sweep.get("axes") if isinstance(sweep, Mapping) else None
    return [a for a in axes.values() if isinstance(a, dict)] if isinstance(axes, Mapping) else []


def _store(option, content, task, default):
    """The folder of the results: the one asked for, that of the file, or the default."""
    from .._files import folder

    entries = content.get(task)
    named = entries.get("store") if isinstance(entries, Mapping) else None
    with _told():
        return folder("store", option or (named if isinstance(named, str) else default))


def _unloaded(kind, name):
    return f"{kind:8} {name}, which is not loaded: --trust does so, which runs its module"


def _points(shape):
    return f"{'points':8} {' x '.join(map(str, shape))} = {math.prod(shape)}"


def _tell(prepared: "Prepared", path: Path, workers: int, exists: bool) -> None:
    """What a sweep will take, measured with one block."""
    plan = prepared.plan
    compiled, seconds, needed = prepared.measure()
    each = prepared.layout.bytes_per_point
    tile = math.prod(plan.tile)
    processes = max(workers, 1)
    typer.echo(_points(plan.shape))
    for name, value in (
        ("store", f"{path}{' (exists)' if exists else ''}, {_size(plan.points * each)}"),
        ("chunks", f"{plan.items} of {' x '.join(map(str, plan.tile))} points, {_size(tile * each)} each"),
        ("blocks", f"{' x '.join(map(str, plan.block))} points at a time"),
        ("memory", f"{_size(needed + 4 * tile * each)} a process, beside the program itself"),
        ("compile", f"{compiled:.1f} s in each process"),
        ("time", f"{_duration(plan.points * seconds / processes)}, {seconds * 1e6:.3g} us a point"
         + (f" in each of {processes} processes" if workers else "")),
    ):  # fmt: skip
        typer.echo(f"{name:8} {value}")


def _size(n: int | float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.4g} {unit}"
        n /= 1024
    return f"{n:.4g} TiB"


def _duration(seconds: int | float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s"


def _tiles(manifest):
    return dict(zip(manifest["dims"], manifest["tile"], strict=True))


def _versions(manifest):
    return ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())


def _cuts(at: list[str]) -> dict[str, float]:
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
