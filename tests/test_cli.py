"""The command line, run as a process where that matters."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import jaxres as jr
from jaxres import cli

FILES = [f"fig{n}.{kind}" for n in (1, 2, 3) for kind in ("nc", "pdf", "png")]


def jaxres(*arguments, **options):
    """The command in a process of its own, as from a shell."""
    return subprocess.run(
        [sys.executable, "-m", "jaxres.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"},
        **options,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduce") / "made" / "figures"
    done = jaxres("reproduce", "--out", str(out), "--points", "5", "--realisation", "3")
    assert done.returncode == 0, done.stderr
    return out, done


class TestReproduce:
    @pytest.mark.slow
    def test_writes_three_figures_and_nothing_else(self, results):
        out, _ = results
        assert sorted(path.name for path in out.iterdir()) == FILES
        for path in out.iterdir():
            start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".nc": b"\x89HDF"}[path.suffix]
            assert path.read_bytes().startswith(start)

    def test_data_of_figure_1(self, results):
        data = xarray.load_dataset(results[0] / "fig1.nc", engine="h5netcdf")
        assert data.rho.dtype == np.complex128
        assert data.rho.dims == ("model", "curve", "collision", "j", "k")
        assert data.attrs["realisation"] == 3
        assert data.rate.values.tolist() == [10, 5, 1, 10]
        assert data.dephased.values.tolist() == [False, False, False, True]
        last = data.rho.isel(model=0, curve=3, collision=-1).values
        np.testing.assert_allclose(last, np.diag(data.gibbs), atol=1e-4)

    @pytest.mark.slow
    def test_data_of_figure_2(self, results):
        data = xarray.load_dataset(results[0] / "fig2.nc", engine="h5netcdf")
        assert data.rho.dtype == np.complex128
        assert data.rate.attrs == {"long_name": "collision rate Γ", "units": "λ/ħ"}
        assert np.isclose(data.rate[0], 0.01) and np.isclose(data.rate[-1], 100)
        rate = float(data.rate.sel(rate=5.0, method="nearest"))
        rho = jr.steady_state(*jr.letter.model(rate=rate)).rho
        np.testing.assert_allclose(data.rho.sel(model="exact", rate=rate), rho, atol=1e-10)

    def test_data_of_figure_3(self, results):
        data = xarray.load_dataset(results[0] / "fig3.nc", engine="h5netcdf")
        assert data.sizes == {"rate": 5, "splitting": 5, "width": 5}
        for name in ("rate_splitting", "width_splitting", "width_rate"):
            assert data[f"rho01_{name}"].dtype == np.complex128
            assert np.isfinite(data[f"rho01_{name}"]).all()
        at = data.rho01_width_splitting[2, 3]  # Γ = 5
        model = jr.letter.model(rate=5.0, splitting=float(at.splitting), width=float(at.width))
        np.testing.assert_allclose(at, jr.steady_state(*model).rho[0, 1], atol=1e-10)

    def test_table(self, results):
        rows = re.findall(
            r"│ +([\d.]+) │ ([\d.]+) │ ([\d.]+) │ +([\d.]+) │ +(\S+) │", results[1].stdout
        )
        table = {float(rate): values for rate, *values in rows}
        assert list(table) == [0.01, 0.6, 1, 5, 10, 100]
        for rate, (ground, coherence, distance, error) in table.items():
            system, reservoir = jr.letter.model(rate=rate)
            sol = jr.steady_state(system, reservoir)
            assert abs(float(ground) - jr.populations(sol.rho)[0]) <= 0.51e-6
            assert abs(float(coherence) - jr.coherence(sol.rho)) <= 0.51e-8
            gibbs = jr.gibbs_state(system, reservoir.packet.beta)
            assert abs(float(distance) - jr.trace_distance(sol.rho, gibbs)) <= 0.51e-8
            assert float(error) == pytest.approx(float(sol.map_error), rel=0.5)

    def test_says_how_long_it_took_and_where_the_files_are(self, results):
        out, done = results
        assert re.search(r"Computed in \d+\.\d s\. The files are in (.+)\.$", done.stdout.strip())
        assert str(out) in done.stdout

    def test_progress_reaches_the_end(self, results):
        for total in ("Fig. 1 .* 4/4", "Fig. 2 .* 1/1", "Fig. 3 .* 5/5"):
            assert re.search(total, results[1].stderr)


def test_an_unknown_figure_ends_the_process_with_2(tmp_path):
    done = jaxres("reproduce", "--out", str(tmp_path / "new"), "--figures", "1,4")
    assert done.returncode == 2
    assert "'4' is not one of 1, 2, 3" in unboxed(done.stderr)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def idle(monkeypatch):
    """The command with nothing to compute: it fails when it gets that far."""

    def computes(*_):
        raise AssertionError("It computes, although an option is wrong.")

    monkeypatch.setattr(cli, "_reproduce", computes)
    return CliRunner()


def unboxed(output):
    """The words of a message, without its box and line breaks."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", output).split())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--figures", ""], "'' is not one of 1, 2, 3"),
        (["--figures", "1;2"], "'1;2' is not one of 1, 2, 3. Separate several with commas."),
        (["--amplitudes", "exakt"], "'exakt' is not one of exact"),
        (["--points", "1"], "Invalid value for '--points'"),
        (["--points", "many"], "Invalid value for '--points'"),
        (["--realisation", "-1"], "Invalid value for '--realisation'"),
        (["--colour", "red"], "No such option: --colour"),
    ],
)
def test_bad_options_are_told_before_any_work(idle, tmp_path, arguments, message):
    result = idle.invoke(cli.app, ["reproduce", "--out", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 2
    assert message in unboxed(result.output)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(idle, tmp_path):
    (tmp_path / "file").touch()
    result = idle.invoke(cli.app, ["reproduce", "--out", str(tmp_path / "file" / "figures")])
    assert result.exit_code == 2
    message = unboxed(result.output)
    assert "cannot write to" in message and "Name a folder that you may write to" in message


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished(tmp_path):
    (tmp_path / "fig1.png").write_text("of an earlier run")
    (tmp_path / "fig2.png").write_text("of an earlier run")
    arguments = ["reproduce", "--out", str(tmp_path), "--figures", "2,3"]
    # a shell's background jobs, this one perhaps among them, hand down that they ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxres.cli", *arguments], stderr=subprocess.PIPE, text=True
    )
    # the second figure is written before the third is begun, where the signal may meet the compiler
    shown = ""
    while "Fig. 3" not in shown:
        assert process.poll() is None, shown
        shown += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    rest = process.communicate()[1]
    assert process.returncode == 130, rest
    assert f"Interrupted. What was finished is in {tmp_path}" in rest
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["fig1.png", "fig2.nc", "fig2.pdf", "fig2.png"]
    # only the figures that were produced are overwritten
    assert (tmp_path / "fig1.png").read_text() == "of an earlier run"
    assert (tmp_path / "fig2.png").read_bytes().startswith(b"\x89PNG")
