"""The command of inverse designs: `jaxres design`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .messages import interruptible, print_not_loaded, versions, without_traceback
from .options import Config, Modules, Trusted, read_config, results_folder, trusted

#: `info` prints so many characters of a loss, two lines of a terminal.
LOSS = 160


def design(
    config: Config,
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
    content = read_config(config)
    task = content.get("design")
    if isinstance(task, dict) and max_steps is not None:
        task["max_steps"] = max_steps
    path = results_folder(store, content, "design", config.with_suffix(".design").name)
    run(path, content, dry_run=dry_run, trust=trusted(trust, trust_module))


def run(path, content, *, dry_run, trust):
    """Runs the design that a configuration file describes, or continues it, with its checkpoint in `path`."""
    with without_traceback():
        from . import config as _config, config_design as _config_design

        code = _config.Code(trust, store=path, skip=dry_run)
        config = _config.parse(content, "design", code)
        import jax

        jax.config.update("jax_enable_x64", config.precision == "double")
        from .._design.drive import drive, prepare

        model, task = config.model, config.design
        assert task is not None  # `parse` has checked it
        left_out = [f for f in (model.function, task.loss.function) if code.leaves_out(f)]
        if left_out:
            for function in left_out:
                print_not_loaded(function)
            for name, pair in task.bounds.items():
                typer.echo(f"{name:12} within {pair}")
            return
        function = None if model.function is None else code.load(model.function, "model.function")
        arguments = _config_design.arguments(task, model.parameters, function, code)
        ready = prepare(**arguments, config=content)
    if dry_run:
        _print_plan(ready, task, path)
        return
    with interruptible(path), without_traceback():
        result = drive(ready, store=path, progress=True)
    typer.echo(str(result))
    typer.echo(f"The result is in {path / 'design' / 'result.json'}.")


def _print_plan(ready, task, path):
    """Prints which parameters are searched, from where and how often."""
    for name, pair in task.bounds.items():
        begin = np.ravel(ready.free.fields.default(name))
        many = f" and {begin.size - 1} more" if begin.size > 1 else ""
        typer.echo(f"{name:12} from {begin[0]:g}{many} within {pair}")
    typer.echo(
        f"{task.starts} starts, at most {task.max_steps} steps each, {task.optimiser}; store {path}"
    )


def print_info(path):
    """Prints what a design searches, and what it has found so far."""
    from .._design.checkpoint import read_manifest, read_progress

    manifest, (progress, result) = read_manifest(path), read_progress(path)
    echo, config = typer.echo, manifest.get("config") or {}
    echo(config.get("title", "A design"))
    loss = manifest["loss"]
    echo(f"  loss       {loss if len(loss) <= LOSS else loss[: LOSS - 1] + '…'}")
    echo(f"  optimiser  {manifest['optimiser']}")
    for name, (low, high) in manifest["bounds"].items():
        entries = zip(manifest["start"], manifest["entries"], strict=True)
        begin = [x for x, entry in entries if f"{entry}.".startswith(f"{name}.")]
        bounded = low is not None or high is not None
        bounds = f"within [{low}, {high}]" if bounded else "without bounds"
        many = f" ({len(begin)} numbers)" if len(begin) > 1 else ""
        echo(f"  free       {name}{many} from {begin[0]:g} {bounds}")
    echo(f"  starts     {manifest['starts']}, at most {manifest['max_steps']} steps each")
    echo(f"  made with  {manifest['dtype']}, {versions(manifest)}")
    results, losses = progress.get("results", []), progress.get("losses", [])
    if results:
        counts = [f"{results.count(name)} {name}" for name in dict.fromkeys(results)]
        echo(f"  so far     {', '.join(counts)}, {progress['steps']} steps")
    met = [x for x, o in zip(losses, results, strict=True) if x is not None and o != "infeasible"]
    if met:
        echo(f"  best loss  {min(met):.10g}")
    if result:
        echo(result["report"])
    if not result or result["result"] == "unfinished":
        more = f"jaxres resume {path}" if config else "repeat its call of jaxres.design"
        echo(f"  Unfinished: {more}")
