"""The command line. `jaxres reproduce` computes the Letter's figures; the other commands are in `_cli/`."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(
        "The command line needs typer. Install it: pip install 'jaxres[figures]'"
    ) from error

import jaxres as jr

from ._cli.commands_design import design
from ._cli.commands_store import info, resume
from ._cli.commands_sweep import export, plot, sweep
from ._cli.messages import INTERRUPTED

if TYPE_CHECKING:
    import xarray

#: collision models by their names on the command line
MODELS = {
    "exact": jr.Exact(),
    "wave-vector": jr.WaveVectorOperator(),
    "interaction-time": jr.RandomInteractionTime(),
}
#: collision rates of the printed table, from rare to frequent collisions
TABLE_RATES = (0.01, 0.6, 1.0, 5.0, 10.0, 100.0)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (sweep, resume, info, plot, export, design):
    app.command()(command)


@app.callback()
def about() -> None:
    """Collisional reservoirs: exact scattering maps, steady states and their gradients."""


@app.command()
def reproduce(
    out: Annotated[
        Path, typer.Option(help="Folder of the results; made if it is not there.")
    ] = Path("figures"),
    figures: Annotated[str, typer.Option(help="Which figures, such as 1,3.")] = "1,2,3",
    points: Annotated[
        int, typer.Option(min=2, max=2000, help="Resolution of Fig. 3 along each axis.")
    ] = 200,
    realisation: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the collisions in Fig. 1.")
    ] = 0,
    amplitudes: Annotated[
        str,
        typer.Option(
            help=f"Collision models, of {', '.join(MODELS)}. The first is drawn solid and used in "
            "Fig. 3 and the table, further ones are dashed, in Figs. 1 and 2."
        ),
    ] = "exact",
) -> None:
    """Figs. 1-3 of the Letter as PNG, PDF and NetCDF, and a table of steady states."""
    start = time.perf_counter()
    numbers = _names("--figures", figures, ("1", "2", "3"))
    models = {name: MODELS[name] for name in _names("--amplitudes", amplitudes, tuple(MODELS))}
    _make(out)
    try:
        _reproduce(out, numbers, points, realisation, models)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. What was finished is in {out}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        where = "" if error.filename2 is None else f" {error.filename2}:"
        typer.echo(f"Error: cannot write to {out}:{where} {error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(
        f"Computed in {time.perf_counter() - start:.1f} s. The files are in {out.resolve()}."
    )


def main() -> None:
    """The entry point of the console script."""
    _leave_out_the_present_folder()
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # A thread may still compile, and the compiler would crash if Python ended first.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


def _leave_out_the_present_folder() -> None:
    """Removes the present folder from the path of imports, in this process and in those that it starts.

    `python -m` puts that folder first, so that a file in it could replace any module. If the package itself lies in it,
    the folder moves to the end of the path.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    here = Path.cwd()
    if not sys.flags.safe_path and sys.path[:1] in ([""], [str(here)]):
        first = sys.path.pop(0)
        if Path(__file__).resolve().parents[1] == here:
            sys.path.append(first)


def _names(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The different entries of a comma-separated list, all of which must be known."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is not one of {', '.join(known)}. Separate several with commas.",
                param_hint=option,
            )
    return names


def _make(out: Path) -> None:
    """Makes the folder of the results, and checks that it can be written to before anything is computed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:  # a name with NUL raises `ValueError`
        reason = getattr(error, "strerror", None) or str(error)
        raise typer.BadParameter(
            f"cannot write to {out}: {reason}. Name a folder that you may write to.",
            param_hint="--out",
        ) from None


def _reproduce(out, numbers, points, realisation, models):
    import jax

    # The accuracy that the table prints needs double precision.
    jax.config.update("jax_enable_x64", True)
    import matplotlib

    matplotlib.use("agg")
    from . import plot

    name, first = next(iter(models.items()))
    compute = {
        "1": partial(jr.letter.figure1, amplitudes=models, key=jax.random.key(realisation)),
        "2": partial(jr.letter.figure2, amplitudes=models),
        "3": partial(jr.letter.figure3, amplitudes=first, points=points),
    }
    for number in numbers:
        data = compute[number](progress=_progress(f"Fig. {number}"))
        if number == "1":
            data.attrs["realisation"] = realisation
        _save(out, number, data, getattr(plot, f"figure{number}"))
    _print_table(jr.letter.figure2(amplitudes={name: first}, rates=TABLE_RATES))


def _progress(title: str) -> Callable:
    from tqdm import tqdm

    return partial(tqdm, desc=title, bar_format="{desc} {bar:30} {n_fmt}/{total_fmt} [{elapsed}]")


def _save(out: Path, number: str, data: "xarray.Dataset", draw: Callable) -> None:
    """Writes fig<number>.png, .pdf and .nc. Files appear only when they are complete."""
    from matplotlib import pyplot

    figure = draw(data)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fig") as folder:
        path = Path(folder) / f"fig{number}"
        figure.savefig(path.with_suffix(".png"), dpi=300)
        figure.savefig(path.with_suffix(".pdf"), dpi=300)
        data.to_netcdf(path.with_suffix(".nc"), engine="h5netcdf")
        for file in Path(folder).iterdir():
            os.replace(file, out / file.name)
    pyplot.close(figure)


def _print_table(data: "xarray.Dataset") -> None:
    from rich.console import Console
    from rich.table import Table

    data = data.isel(model=0)
    table = Table(
        title=f"Steady states at the Letter's parameters ({data.model.item()} amplitudes)"
    )
    for heading in ("Γ", "ρ00", "|ρ01|", "distance to Gibbs", "map error"):
        table.add_column(heading, justify="right")
    for rate in data.rate.values:
        rho = data.rho.sel(rate=rate).values
        table.add_row(
            f"{rate:g}",
            f"{rho[0, 0].real:.6f}",
            f"{abs(rho[0, 1]):.8f}",
            f"{data.distance.sel(rate=rate).item():.8f}",
            f"{data.map_error.item():.0e}",
        )
    table.add_row("Gibbs", f"{data.gibbs.values[0]:.6f}", f"{0:.8f}", f"{0:.8f}", "")
    Console(width=max(Console().width, 72)).print(table)


if __name__ == "__main__":
    main()
