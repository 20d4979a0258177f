"""Sweeps from configuration files: `jaxres sweep`, `resume`, `info`, `plot`, `export`."""

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray
from sweep_functions import AXES
from typer.testing import CliRunner

import jaxres as jr
from jaxres import cli
from jaxres._cli import config as _config
from jaxres._sweep.prepare import prepare
from jaxres._sweep.store import Store, is_store

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SWEEPS = [p for p in sorted(EXAMPLES.glob("*.toml")) if "[sweep]" in p.read_text(encoding="utf-8")]


def call(*arguments, code=0):
    """The command in this process."""
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


SLOW = """
[model]
function = "sweep_functions:slow"
[sweep]
chunk = { x = 2, y = 4 }
[sweep.axes]
x = { from = 0.1, to = 2, points = 6 }
y = { from = 1, to = 3, points = 12 }
"""


@pytest.fixture(scope="module")
def figure3(tmp_path_factory):
    """The example of Fig. 3, reduced, in two shards."""
    store = tmp_path_factory.mktemp("figure3") / "new" / "store"
    for shard in ("2/2", "1/2"):
        said = call("sweep", EXAMPLES / "figure3.toml", "--points", 5, "--store", store,
                    "--shard", shard)  # fmt: skip
    assert f"25 of 25 points are in {store}, 0 failed" in said
    return store


class TestExamples:
    @pytest.mark.slow
    def test_figure_3_with_gradients(self, figure3):
        data = Store(figure3).dataset().load()
        assert data.coherence.dims == ("rate", "width") and data.coherence.shape == (5, 5)
        assert float(data.rate[0]) == pytest.approx(0.01) and data.attrs["splitting"] == 1.2

        def coherence(rate, width):
            model = jr.letter.model(splitting=1.2, rate=rate, width=width)
            return jr.coherence(jr.steady_state(*model).rho)

        both = jax.jit(jax.value_and_grad(coherence, (0, 1)))
        for i, k in [(0, 0), (2, 3), (4, 1)]:
            at = data.isel(rate=i, width=k)
            value, (d_rate, d_width) = both(float(at.rate), float(at.width))
            np.testing.assert_allclose(at.coherence, value, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(at.dcoherence_drate, d_rate, rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(at.dcoherence_dwidth, d_width, rtol=1e-10, atol=1e-14)

    @pytest.mark.slow
    def test_another_process_plans_the_same_sweep(self, figure3, tmp_path):
        # the manifest of a fresh interpreter, without the type checker of these tests
        code = f"""
import sys; from jaxres import cli
sys.argv = ["jaxres", "resume", {str(figure3)!r}]
cli.main()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "25 of 25 points" in done.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
    def test_every_example_is_valid_and_can_be_traced(self, path):
        config = _config.parse(_config.read(path))
        ready = prepare(**_config.arguments(config))
        assert ready.plan.points >= 100 and "failed" in ready.layout.variables

    def test_figure_3_is_of_a_million_points_in_bounded_items(self):
        config = _config.parse(_config.read(EXAMPLES / "figure3.toml"))
        ready = prepare(**_config.arguments(config))
        assert ready.plan.shape == (1000, 1000) and 30 < ready.plan.items < 1000


class TestCommands:
    @pytest.mark.slow
    def test_info(self, figure3):
        said = call("info", figure3)
        assert "rate Γ (energy/ħ): 5 points, 0.01 to 100" in said
        assert "fixed splitting = 1.2" in said and "25 of 25 points" in said
        assert "failed 0 points" in said and "Unfinished" not in said

    def test_resume_computes_what_is_missing(self, figure3, tmp_path):
        store = tmp_path / "copy"
        subprocess.run(["cp", "-r", figure3, store], check=True)
        whole = Store(store).dataset().load()
        (store / "sweep" / "items" / "0").unlink()
        (store / "coherence" / "c" / "0" / "0").unlink()
        said = call("info", store)
        assert f"Unfinished: jaxres resume {store}" in said
        assert "25 of 25 points" in call("resume", store)
        xarray.testing.assert_identical(Store(store).dataset().load(), whole)

    @pytest.mark.slow
    def test_plot_and_export(self, figure3, tmp_path):
        call("plot", figure3, "--out", tmp_path / "a.png")
        call("plot", figure3, "--at", "rate=1", "--variable", "dcoherence_drate", "--out",
             tmp_path / "b.pdf")  # fmt: skip
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
        call("export", figure3, tmp_path / "a.nc")
        read = xarray.load_dataset(tmp_path / "a.nc", engine="h5netcdf")
        xarray.testing.assert_identical(read, Store(figure3).dataset().load())
        assert "must be one of" in call("plot", figure3, "--variable", "colour", code=2)
        assert "must name one of" in call("plot", figure3, "--at", "colour=1", code=2)
        both = ("--at", "rate=1", "--at", "width=1")
        assert "must leave an axis" in call("plot", figure3, *both, code=2)
        call("plot", figure3, "--variable", "result", "--out", tmp_path / "c.png")
        assert "must be name=value" in call("plot", figure3, "--at", "rate", code=2)

    def test_a_dry_run_tells_and_makes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "slow.toml", SLOW)
        monkeypatch.syspath_prepend(str(HERE))
        said = call("sweep", "slow.toml", "--dry-run", "--trust-module", "sweep_functions")
        assert "6 x 12 = 72" in said and "9 of 2 x 4 points" in said
        assert float(re.search(r"([\d.e+]+) us a point", said)[1]) >= 1e4  # it sleeps for 10 ms
        assert re.search(r"memory [\d.]+ (K|M|)i?B", said) and "compile" in said
        assert [p.name for p in tmp_path.iterdir()] == ["slow.toml"]

    def test_a_folder_that_is_no_store(self, tmp_path):
        for command in ("info", "resume", "plot"):
            assert "has no sweep/manifest.json" in call(command, tmp_path, code=2)

    def test_a_store_made_in_python_goes_on_there(self, tmp_path):
        jr.sweep(lambda x: x, {"x": [1.0]}, store=tmp_path / "a", progress=False)
        assert "Repeat its call of jaxres.sweep" in call("resume", tmp_path / "a", code=2)
        assert "1 of 1 work items" in call("info", tmp_path / "a")

    @pytest.mark.slow
    def test_ctrl_c_and_resume_with_two_processes(self, tmp_path):
        write(tmp_path / "slow.toml", SLOW)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
        # Ctrl-C must work also where the tests run in the background of a shell
        listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"import signal; {listen}; from jaxres.cli import main; main()"
        command = [sys.executable, "-c", code]
        store = tmp_path / "slow.zarr"
        options = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [*command, "sweep", "slow.toml", "--workers", "1", "--trust"], **options
        )
        end = time.monotonic() + 60
        while not is_store(store) or not Store(store).done():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode == 130, said
        assert "Interrupted. To go on: jaxres resume slow.zarr" in said
        kept = Store(store).done()
        assert 1 <= len(kept) < 9
        resume = [*command, "resume", "slow.zarr", "--workers", "2"]
        refused = subprocess.run(resume, **options)
        assert refused.returncode == 2 and "must be trusted" in refused.stderr
        assert Store(store).done() == kept
        done = subprocess.run([*resume, "--trust"], **options)
        assert done.returncode == 0, done.stderr
        assert "100%" in done.stderr
        x, y = np.meshgrid(AXES["x"], AXES["y"], indexing="ij")
        data = Store(store).dataset()
        np.testing.assert_allclose(data.value, np.sin(x) * y + x * y, atol=1e-13)


WRONG = """
precision = "half"
colour = 1
[model]
name = "letter"
parameters = { spliting = 0.6, beta = -1.0, mass = "heavy", rate = 5.0, incidence = "above" }
[sweep]
outputs = ["coherence", "purity"]
gradient = ["widht"]
zipped = [["rate", "width"], ["rate", "length"]]
chunk = 0
[sweep.axes]
rate = { from = 0.0, to = 1.0, points = 5, spacing = "log" }
width = { values = [1.0, 2.0] }
length = { from = 1.0, points = 5 }
coupling = { values = [] , color = "red" }
mass = { values = [0.1, "a", nan] }
"""


class TestConfiguration:
    def test_every_mistake_is_told_at_once_with_its_path(self, tmp_path):
        said = call("sweep", write(tmp_path / "wrong.toml", WRONG), code=2)
        for message in (
            "precision: Input should be 'double' or 'single'",
            "colour: Extra inputs are not permitted",
            "model.parameters.spliting: the model has no parameter 'spliting': it takes beta,",
            "model.parameters.beta: must be positive and finite, but is -1",
            "model.parameters.mass: must be a number or an array of numbers, but is 'heavy'",
            "model.parameters.incidence: must be 'left', 'right' or 'both', but is 'above'",
            "sweep.axes.rate: is also held fixed",
            "sweep.axes.mass: is also held fixed",
            "sweep.outputs: 'purity' is none of coherence,",
            "sweep.gradient: the model has no parameter 'widht'",
            "sweep.zipped.0: zipped axes must have one length, but have {'rate': 5, 'width': 2}",
            "sweep.zipped.1: 'rate' is zipped twice",
            "sweep.chunk: Input should be greater than or equal to 1",
            'sweep.axes.rate: spacing = "log" needs from and to, both positive',
            "sweep.axes.length: give either values = [...], or all of from, to and points",
            "sweep.axes.coupling.values: List should have at least 1 item",
            "sweep.axes.coupling.color: Extra inputs are not permitted",
            "sweep.axes.mass.values.1: Input should be a valid number",
            "sweep.axes.mass.values.2: Input should be a finite number",
        ):
            assert message in said, said
        assert "nothing was run" in said
        assert [p.name for p in tmp_path.iterdir()] == ["wrong.toml"]

    @pytest.mark.parametrize(
        "text, message",
        [
            ("[model", "no valid TOML"),
            ("", "model: Field required"),
            ("", "sweep: Field required"),
            ("model = 3\n[sweep]\naxes = 4", "sweep.axes: Input should be a valid dictionary"),
            ("[model]\n[sweep.axes.rate]\nvalues = [1]", 'model: give either name = "letter" or'),
            (
                '[model]\nfunction = "no_such_module:f"\n[sweep.axes.x]\nvalues = [1]',
                "model.function: must name a function that can be loaded, but 'no_such_module:f' cannot: Module",
            ),
            (
                '[model]\nfunction = "math:pi"\n[sweep.axes.x]\nvalues = [1]',
                "model.function: must name a function, but 'math:pi' is float",
            ),
            (
                '[model]\nfunction = "jaxres:gibbs_state"\n[sweep.axes.beta]\nvalues = [1]',
                "model.parameters: lacks 'system', which has no default and is no axis",
            ),
            (
                '[model]\nfunction = "jaxres:System"\n[sweep]\noutputs = ["a"]\n[sweep.axes.x]\nvalues = [1]',
                "sweep.outputs: a function has its own outputs",
            ),
            (
                '[model]\nname = "letter"\n[sweep.axes.rate]\nvalues = [1.0, 1.0]',
                "must have different values along 'rate'",
            ),
            (
                '[model]\nname = "letter"\n[sweep]\nzipped = [["rate", "beta"]]\n[sweep.axes.rate]\nvalues = [-1.0]',
                "sweep.zipped.0: 'beta' is no axis",
            ),
            (
                '[model]\nname = "letter"\n[sweep.axes.rate]\nvalues = [-1.0, 1.0]',
                "sweep.axes.rate: must not be negative, but is -1",
            ),
        ],
    )
    def test_mistakes_one_by_one(self, tmp_path, text, message):
        assert message in call("sweep", write(tmp_path / "wrong.toml", text), "--trust", code=2)
        assert [p.name for p in tmp_path.iterdir()] == ["wrong.toml"]

    def test_a_file_that_is_not_there(self, tmp_path):
        assert "No such file" in call("sweep", tmp_path / "no.toml", code=2)

    def test_a_shard_that_is_none(self, tmp_path):
        said = call("sweep", EXAMPLES / "figure3.toml", "--points", 2, "--shard", "3/2", "--store",
                    tmp_path / "a", code=2)  # fmt: skip
        assert "`shard` must be i/n" in said and not (tmp_path / "a").exists()

    def test_a_store_of_another_file_is_refused(self, figure3):
        said = call("sweep", EXAMPLES / "figure3.toml", "--points", 6, "--store", figure3, code=2)
        assert "axes.rate" in said and "differs" in said


LETTER = '[model]\nname = "letter"\n[sweep]\n{}\n[sweep.axes]\nrate = {{ values = [1.0, 2.0] }}\n'
NESTED = "[" * 5000 + "]" * 5000


class TestFiles:
    @pytest.mark.parametrize(
        "entry, message",
        [
            ('zipped = [["rate", ["width"]]]', "sweep.zipped.0.1: Input should be a valid string"),
            ('zipped = [3]', "sweep.zipped.0: Input should be a valid list"),
            ("zipped = { a = 1 }", "sweep.zipped: Input should be a valid list"),
            ("chunk = " + "9" * 400, "sweep.chunk: Input should be less than 9223372036854775808"),
            ("chunk = 0x" + "f" * 6000, "sweep.chunk: Input should be less than"),
            ("chunk = " + "9" * 5000, "no valid TOML: Exceeds the limit (4300 digits)"),
            ("chunk = { rate = -1 }", "sweep.chunk.rate: Input should be greater than or equal to 1"),
            ("chunk = true", "sweep.chunk: must be a number of points, or a table of extents"),
            ("workers = 100000", "sweep.workers: Input should be less than or equal to 1024"),
            ("memory_mib = 1e3", "sweep.memory_mib: Input should be a valid integer"),
            ("gradient = [1979-05-27]", "sweep.gradient.0: Input should be a valid string"),
            ("outputs = [nan]", "sweep.outputs.0: Input should be a valid string"),
            ("outputs = " + NESTED, "no valid TOML: nested too deeply"),
            ("x" + ".x" * 3000 + " = 1", "sweep.x: Extra inputs are not permitted"),
            ("store = ''", "`store` must be the path of a folder, but '' is empty"),
            ('store = "a\\u0000b"', "has a NUL character"),
            ("[[sweep.axes]]", "no valid TOML"),
            ("[sweep.axes.mass]\nvalues = 07:32:00", "sweep.axes.mass.values: Input should be a valid list"),
            ("[sweep.axes.coupling]\nfrom = -1e308\nto = 1e308\npoints = 3", "further apart than a number"),
            ("[model.parameters]\nmass = 2020-01-01", "model.parameters.mass: must be a number, text"),
            ("[model.parameters]\nmass = inf", "model.parameters.mass: Input should be a finite number"),
            ("[model.parameters]\nmass = " + "9" * 400, "model.parameters.mass: Input should be less"),
            ("[model.parameters]\nmass = true", "model.parameters.mass: must be a number, but is True"),
        ],
        ids=lambda text: text[:40],
    )  # fmt: skip
    def test_one_named_error_for_each_mistake(self, tmp_path, entry, message):
        text = LETTER.format("" if entry.startswith("[model") else entry)
        if entry.startswith("[model"):
            text += entry
        said = call("sweep", write(tmp_path / "wrong.toml", text), "--dry-run", code=2)
        assert message in said and ("1 mistake " in said or "`store`" in said), said

    @pytest.mark.parametrize(
        "parameters, message",
        [
            ("rho = [[1.0], [1.0, 2.0]]", "loss.parameters.rho: must have rows of one length"),
            ("rho = []", "loss.parameters.rho: List should have at least 1 item"),
            ("rho = [[]]", "loss.parameters.rho.0: List should have at least 1 item"),
            ("rho = 'a'", "loss.parameters.rho: must be a number, true or false, or a matrix"),
            ("rho = { real = [[1.0]], imag = [[1.0, 2.0]] }", "real and imag of one shape"),
            ("rho = { real = [[1.0]] }", "design.loss.parameters.rho.imag: Field required"),
        ],
    )
    def test_of_a_design_too(self, tmp_path, parameters, message):
        text = f"""
[model]
name = "letter"
[design]
bounds = {{ rate = [0.1, 10.0] }}
[design.loss]
name = "target_state"
parameters = {{ {parameters} }}
"""
        said = call("design", write(tmp_path / "wrong.toml", text), "--dry-run", code=2)
        assert message in said and "1 mistake " in said, said

    @pytest.mark.parametrize("change", [
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b"\n", b"\r\n"),
    ])  # fmt: skip
    def test_a_byte_order_mark_and_other_line_ends_are_no_mistakes(self, tmp_path, change):
        (tmp_path / "a.toml").write_bytes(change(LETTER.format("").encode()))
        assert _config.parse(_config.read(tmp_path / "a.toml")).sweep is not None

    def test_what_is_no_text_or_no_file(self, tmp_path):
        (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
        assert "no valid TOML: 'utf-8' codec" in call("sweep", tmp_path / "a.toml", code=2)
        assert "Is a directory" in call("design", tmp_path, code=2)
        if Path("/dev/zero").exists():
            assert "at most 64 MiB" in call("sweep", "/dev/zero", code=2)

    @pytest.mark.parametrize("points", [10**9, 2**63 - 1])
    def test_points_are_counted_before_arrays_are_made(self, tmp_path, points):
        text = LETTER.format("").replace(
            "values = [1.0, 2.0]", f"from = 1, to = 2, points = {points}"
        )
        config = write(tmp_path / "a.toml", text)
        tracemalloc.start()
        said = call("sweep", config, "--dry-run", code=2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert f"has {points}" in said and peak < 2**27
        assert f"has {points}" in call("sweep", config, "--points", points, code=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Of a function whose names Matplotlib could take for formulas, over an axis that is not in order."""
    axes = {"rate": [1.0, 3.0, 2.0], "$x$ $frac$": [1.0, 2.0]}
    store = tmp_path_factory.mktemp("outputs") / "store"
    jr.sweep(sums, axes, store=store, labels={"a$b": {"symbol": "$\\frac$"}}, progress=False)
    return store


def sums(**parameters):
    return {"a$b": sum(parameters.values())}


class TestOutputs:
    @pytest.mark.parametrize("command, out", [
        ("plot", "x.foo"), ("plot", "folder"), ("plot", "there.png"), ("plot", "file/x.png"), ("plot", "no/x.png"),
        ("plot", "x" * 300 + ".png"), ("export", "there.png"), ("export", "no/x.nc"),
        ("export", "file/x.nc"), ("export", "."), ("export", "pipe"),
    ])  # fmt: skip
    def test_what_cannot_be_written_is_told_before_the_store_is_read(
        self, store, tmp_path, monkeypatch, command, out
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Store, "dataset", None)
        (tmp_path / "there.png").mkdir()
        (tmp_path / "file").write_text("kept")
        os.mkfifo(tmp_path / "pipe")
        before = sorted(tmp_path.iterdir())
        said = call(command, store, *(["--out"] if command == "plot" else []), out, code=2)
        assert re.search(r"`(--)?out` must be a file that (ends in|can be written)", said)
        assert sorted(tmp_path.iterdir()) == before and (tmp_path / "pipe").is_fifo()

    def test_pictures_are_where_the_message_says(self, store, tmp_path, monkeypatch):
        monkeypatch.chdir(store)
        where = re.search(r"Drawn in (.+)\.$", call("plot", "."))[1]
        assert (
            Path(where).read_bytes().startswith(b"\x89PNG") and Path(where).parent == store.parent
        )
        call("plot", store, "--out", tmp_path / "A.SVG", "--at", "rate=2.1")  # not in order
        assert "rate = 2" in (tmp_path / "A.SVG").read_text("utf-8") or "<svg" in (
            tmp_path / "A.SVG"
        ).read_text("utf-8")

    def test_a_variable_that_is_no_name_of_a_file(self, store):
        assert "`--variable` must be one of" in call("plot", store, "--variable", "0/0", code=2)

    @pytest.mark.parametrize("cut", ["rate=nan", "rate=inf", "rate=", "rate=a", "=", "rate=1e400"])
    def test_cuts_are_finite_numbers(self, store, cut):
        said = call("plot", store, "--at", cut, code=2)
        assert f"`--at` must be name=value with a finite number, but is '{cut}'" in said
