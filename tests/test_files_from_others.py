"""What is in files that somebody else made is data: nothing of it runs, unless the caller says that it may."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxres as jr
from jaxres import cli
from jaxres._cli import config as _config
from jaxres._design.checkpoint import Checkpoint
from jaxres._files import write_json
from jaxres._sweep.store import Store, read_manifest

#: modules that the commands import when they need them; a folder may hold files of these names
LATE = ("tomllib", "pydantic", "xarray", "zarr", "matplotlib", "h5netcdf", "dask", "tqdm")
#: what a command that only reads may not do
FORBIDDEN = {"pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
             "socket.bind", "socket.connect", "socket.getaddrinfo", "shutil.rmtree"}  # fmt: skip
#: what dask pickles and unpickles in memory, to tell its graphs apart; and how platform asks for the processor
OWN = ("dask", "_operator", "zarr.storage", "pathlib", "uname")

SHELL = """
[model]
function = "subprocess:run"
parameters = { args = "touch ran", shell = true }
[sweep.axes]
timeout = { values = [1.0, 2.0] }
"""
SEARCH = """
[model]
name = "letter"
[design]
bounds = { rate = [0.1, 10.0] }
[design.loss]
function = "payload:f"
"""
PAYLOAD = "open('ran', 'w').close()\nimport jax.numpy as jnp\ndef f(*model): return jnp.ones(())\n"


def call(*arguments, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, with a path and modules of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("payload", None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of one chunk."""
    store = tmp_path_factory.mktemp("made") / "store"
    axes = {"x": [1.0, 2.0], "y": [1.0, 2.0, 3.0]}
    jr.sweep(lambda x, y: {"value": x * y}, axes, store=store, progress=False)
    return store


@pytest.fixture
def received(made, tmp_path):
    """A copy of it, in which there are modules that leave a mark when they are run."""
    store = tmp_path / "received"
    shutil.copytree(made, store)
    for name in ("payload", *LATE):
        (store / f"{name}.py").write_text(PAYLOAD)
    return store


def told_to_run(store, function, **entries):
    """Makes a store name a function, as if it had been made from a file."""
    manifest = read_manifest(store)
    axes = {"x": {"values": [1.0, 2.0]}, "y": {"values": [1.0, 2.0, 3.0]}}
    manifest["config"] = {"model": {"function": function, **entries}, "sweep": {"axes": axes}}
    write_json(store / "sweep" / "manifest.json", manifest)


class TestFunctions:
    @pytest.mark.parametrize("command, text", [("sweep", SHELL), ("design", SEARCH)])
    def test_a_dry_run_names_them_and_loads_nothing(self, here, command, text):
        (here / "payload.py").write_text(PAYLOAD)
        (here / "a.toml").write_text(text)
        name = "subprocess:run" if command == "sweep" else "payload:f"
        assert f"function {name}, which is not loaded" in call(command, "a.toml", "--dry-run")
        for options in ([], ["--trust-module", "other"], ["--trust-module", "payload.sub"]):
            assert "must be trusted before it is loaded" in call(
                command, "a.toml", *options, code=2
            )
        assert {p.name for p in here.iterdir()} == {"a.toml", "payload.py"}
        assert "payload" not in sys.modules

    def test_the_callers_word_loads_them(self, here):
        (here / "payload.py").write_text(PAYLOAD)
        (here / "a.toml").write_text(SEARCH)
        assert "rate from 5" in call("design", "a.toml", "--dry-run", "--trust-module", "payload")
        assert (here / "ran").exists()

    def test_a_store_names_them_and_a_resumed_sweep_refuses(self, received, monkeypatch):
        monkeypatch.chdir(received)
        monkeypatch.setattr(sys, "path", [*sys.path])
        for name in ("payload:f", "subprocess:run", "os:system"):
            told_to_run(received, name)
            assert "must be trusted before it is loaded" in call("resume", received, code=2)
        told_to_run(received, "payload:f")
        for path in (".", received):
            assert "'payload:f' cannot: ModuleNotFoundError" in call(
                "resume", path, "--trust", code=2
            )
        sys.path.insert(0, str(received))
        assert "'payload:f' cannot: ModuleNotFoundError" in call("resume", ".", "--trust", code=2)
        assert not (received / "ran").exists()

    def test_models_of_the_package_are_no_code(self, here):
        (here / "a.toml").write_text(
            '[model]\nfunction = "jaxres.letter:model"\n[sweep.axes]\nrate = { values = [1.0] }\n'
        )
        config = _config.parse(_config.read(here / "a.toml"))
        assert _config.arguments(config)["function"] is jr.letter.model

    @pytest.mark.slow
    def test_workers_do_not_look_in_the_present_folder(self, tmp_path):
        (tmp_path / "a.toml").write_text(
            '[model]\nfunction = "jaxres.systems:qubit"\n[sweep.axes]\nsplitting = { values = [1.0, 2.0] }\n'
        )
        store = tmp_path / "a.zarr"
        call("sweep", tmp_path / "a.toml", "--store", store)
        (store / "sweep" / "items" / "0").unlink()
        for name in ("multiprocessing", "socket", "struct", "pickle", "jax", "numpy", *LATE):
            (store / f"{name}.py").write_text("open('ran', 'w').close()\n")
        (tmp_path / "bin").mkdir()
        script = (
            tmp_path / "bin" / "jaxres"
        )  # as it is installed: Python looks in its folder, not in the present one
        script.write_text("from jaxres.cli import main\nif __name__ == '__main__':\n    main()\n")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
        line = [sys.executable, script, "resume", ".", "--workers", "1"]
        done = subprocess.run(line, cwd=store, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "2 of 2 points" in done.stdout, done.stderr
        assert not (store / "ran").exists()


class TestReading:
    """`info`, `plot` and `export` run nothing, start nothing, unpickle nothing, and listen nowhere."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "command", [["info", "."], ["plot", ".", "--out", "a.png"], ["export", ".", "a.nc"]]
    )
    def test_nothing_runs(self, received, command):
        code = f"""
import sys
import jaxres.cli
def watch(event, arguments):
    if event in {FORBIDDEN!r} and not str(arguments[0]).startswith({OWN!r}):
        sys.stderr.write(f"forbidden: {{event}} {{arguments}}\\n")
sys.addaudithook(watch)
sys.argv = ["jaxres", *{command!r}]
jaxres.cli.main()
"""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=received,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "forbidden" not in done.stderr, done.stderr
        assert not (received / "ran").exists()

    @pytest.mark.parametrize("command", ["info", "plot", "export"])
    def test_a_store_of_another_format_cannot_unpickle(self, made, here, monkeypatch, command):
        numcodecs = pytest.importorskip("numcodecs")
        monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
        store = here / "store"
        (store / "sweep").mkdir(parents=True)
        shutil.copy(made / "sweep" / "manifest.json", store / "sweep")
        (store / "sweep" / "items").mkdir()
        for group in (store, store / "sweep"):
            (group / ".zgroup").write_text('{"zarr_format": 2}')
        array = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "compressor": None,
                 "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}], "fill_value": "",
                 "order": "C"}  # fmt: skip
        for name in ("x", "y", "value", "failed"):
            (store / name).mkdir()
            (store / name / ".zarray").write_text(json.dumps(array))
            (store / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": [name[0]]}))
            (store / name / "0").write_bytes(pickle.dumps(Mark()))
        CliRunner().invoke(cli.app, [command, "store", *(["a.nc"] if command == "export" else [])])
        with pytest.raises((ValueError, OSError, KeyError)):
            Store(store).dataset(check=False).load()
        assert not (here / "ran").exists()

    def test_a_checkpoint_cannot_unpickle(self, here):
        folder = here / "store" / "design"
        folder.mkdir(parents=True)
        np.savez(folder / "state.npz", history=np.array([Mark()], dtype=object))
        with pytest.raises(ValueError):
            Checkpoint(here / "store", {}).load()
        assert not (here / "ran").exists()


class Mark:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))
