"""Files and command lines with mistakes in them: each is one named error, before any work.

python tests/test_fuzz_files.py 12000 2000      # a longer campaign: mutated files, command lines
"""

import copy
import itertools
import json
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import jaxres as jr
from jaxres import cli
from jaxres._design import drive as design_drive
from jaxres._scattering import scattering_map as _scattering_map
from jaxres._sweep import drive as sweep_drive
from jaxres._sweep.prepare import Prepared

HERE = Path(__file__).parent
FUNCTION = """
title = "A function"
[model]
function = "sweep_functions:wave"
parameters = { scale = 2.0 }
[sweep]
gradient = ["scale"]
zipped = [["x", "y"]]
chunk = { x_y = 2 }
memory_mib = 64
workers = 0
store = "wave.zarr"
[sweep.axes]
x = { from = 0.1, to = 2, points = 6 }
y = { values = [1, 2, 3.5, 4, 5, 6] }
"""
DESIGN = """
precision = "single"
[model]
name = "letter"
parameters = { incidence = "both", mass = 0.1 }
[design]
optimiser = "adam"
learning_rate = 0.05
starts = 2
max_steps = 5
seed = 3
tol = 1e-6
target = 1.0
errors = 0.5
[design.loss]
name = "target_state"
parameters = { rho = { real = [[0.6, 0.1], [0.1, 0.4]], imag = [[0.0, 0.2], [-0.2, 0.0]] } }
[design.start]
rate = 2
[design.bounds]
rate = [0.1, 10.0]
"""
SEEDS = [p.read_text(encoding="utf-8") for p in sorted((HERE.parent / "examples").glob("*.toml"))]
SEEDS += [FUNCTION, DESIGN]


class Raw(str):
    """Text that stands in a file as it is."""


JUNK = [
    *(0, 1, -1, 3, 2**31, 2**63 - 1, Raw(2**63), Raw("9" * 400), Raw("9" * 5000), Raw("0x" + "f" * 6000)),
    *(0.0, -0.5, 1e308, -1e308, 1e-320, 1e15, Raw("nan"), Raw("inf"), Raw("-inf"), Raw("1e400")),
    *("", "a", "rate", "left", "letter", "é\u202e", "\0", "\n", "a/b", "..", "x" * 5000, "$\\frac$"),
    *("nowhere:f", "os:system", "a:b:c", "jaxres.letter:model", "jaxres.systems:qubit", "log"),
    *(True, False, Raw("1979-05-27"), Raw("1979-05-27T07:32:00Z"), Raw("07:32:00")),
    *([], [[]], [1, "a"], [[1.0, 2.0], [3.0]], ["rate", ["width"]], [["rate"], ["rate", "rate"]]),
    *({}, {"a": 1}, {"values": []}, {"from": 1, "to": 2, "points": Raw("1000000000")}, [{}], [None]),
    *({"values": [1, 1]}, {"real": [[1.0]], "imag": [[1.0, 2.0]]}, [1e-9, 1e9], [2.0, 1.0], ["a", "b"]),
    *(Raw("[" * 60 + "]" * 60), Raw("[" * 3000 + "]" * 3000), Raw("{a=" * 300 + "1" + "}" * 300)),
]  # fmt: skip
NAMES = ["", "rate", "width", "splitting", "incidence", "values", "from", "a.b", "é", "x" * 300, "\0", "function",
         "name", "parameters", "axes", "store", "penalty", "zipped", "outputs", "gradient", "start"]  # fmt: skip


def toml(x) -> str:
    """A value as TOML; tables are written inline."""
    if isinstance(x, Raw):
        return str(x)
    if isinstance(x, bool):
        return str(x).lower()
    if isinstance(x, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in x.items()) + "}"
    if isinstance(x, list):
        return "[" + ", ".join(map(toml, x)) + "]"
    if isinstance(x, str | None):
        return json.dumps(x or "", ensure_ascii=False).replace("\x7f", "")
    return repr(x)


def places(content, path=()):
    """Every path of a content."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


def change(rng, content):
    """One entry replaced, removed, renamed, added, wrapped or exchanged for another."""
    paths = list(places(content))
    if not paths:
        return
    *above, key = paths[rng.integers(len(paths))]
    table = content
    for part in above:
        table = table[part]
    junk = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    other = content
    for part in paths[rng.integers(len(paths))]:
        other = other[part]
    kind = rng.integers(7)
    if kind == 0:
        del table[key]
    elif kind == 1 and isinstance(table, dict):
        table[NAMES[rng.integers(len(NAMES))]] = table.pop(key)
    elif kind == 2 and isinstance(table, dict):
        table[NAMES[rng.integers(len(NAMES))]] = junk
    elif kind == 3:
        table[key] = [table[key]]
    elif kind == 4:
        table[key] = json.loads(json.dumps(other))
    else:
        table[key] = junk


def mutated(rng) -> bytes:
    """A file with one to three mistakes, of its values or of its text."""
    import tomllib

    text = SEEDS[rng.integers(len(SEEDS))]
    if rng.random() < 0.75:
        content = tomllib.loads(text)
        for _ in range(rng.integers(1, 4)):
            change(rng, content)
        text = "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in content.items())
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.25:
        raw = SCRAMBLE[rng.integers(len(SCRAMBLE))](rng, raw)
    return raw


def _byte(rng, raw):
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        raw[rng.integers(len(raw))] = rng.integers(256)
    return bytes(raw)


def _lines(rng, raw):
    lines = raw.split(b"\n")
    i, j = rng.integers(len(lines), size=2)
    lines.insert(i, lines[j])
    return b"\n".join(lines)


def _span(rng, raw):
    i, j = sorted(rng.integers(len(raw) + 1, size=2))
    return raw[:i] + raw[j:]


SCRAMBLE = [
    _byte,
    _lines,
    _span,
    lambda rng, raw: raw[: rng.integers(len(raw) + 1)],
    lambda rng, raw: b"\xef\xbb\xbf" + raw,
    lambda rng, raw: raw.replace(b"\n", b"\r\n"),
    lambda rng, raw: raw.replace(b"\n", b"\r"),
    lambda rng, raw: raw.decode("utf-8", "replace").encode("utf-16"),
    lambda rng, raw: b"",
    lambda rng, raw: raw + b"\n" + b"[a." + b"a." * 500 + b"a]",
    lambda rng, raw: raw + b"\nx = " + b"[" * 10**5,
    lambda rng, raw: raw + b"\nx = " + b"9" * 5000,
    lambda rng, raw: raw + b"\n\xff\xfe = 1",
]

# --------------------------------------------------------------------------------------------------
# Command lines
# --------------------------------------------------------------------------------------------------

WORDS = ["", "nan", "inf", "-1", "0", "1", "2", "1e400", "9" * 30, "rate=nan", "rate=inf", "rate=1", "=", "rate=",
         "width=2=3", "nothing=1", "a\0b", "é", "x.foo", "coherence", "failed", "result", "1/2", "0/0", "3/2", "1/2/3",
         "--", "-x", "--help", "1,2", "4", "exact", "os", "jaxres"]  # fmt: skip
#: commands, their paths, and their options with values that are right
COMMANDS = {
    "sweep": (["good.toml"], {"--store": ["new"], "--points": ["3"], "--shard": ["1/2"], "--workers": ["0"],
                              "--trust": [], "--trust-module": ["m"], "--dry-run": []}),
    "design": (["design.toml"], {"--store": ["new"], "--max-steps": ["3"], "--trust": [], "--dry-run": []}),
    "resume": (["store"], {"--shard": ["1/2"], "--workers": ["0"], "--trust": []}),
    "info": (["store"], {}),
    "plot": (["store"], {"--out": ["a.png", "a.pdf"], "--variable": ["coherence", "failed"],
                         "--at": ["rate=1", "width=-1e300"]}),
    "export": (["store", "a.nc"], {}),
    "reproduce": ([], {"--out": ["figures"], "--figures": ["1,2"], "--points": ["3"], "--realisation": ["1"],
                       "--amplitudes": ["exact"]}),
}  # fmt: skip
PATHS = ["good.toml", "store", "design", "empty", "file", "nowhere", "nowhere/below", "file/below", "a.png", "a.foo",
         "a.nc", "x" * 300, "a\0b", ".", "..", "/", "/proc/x"]  # fmt: skip


def command_line(rng) -> list[str]:
    """A command whose paths and options are right or may be anything."""

    def pick(right):
        wrong = PATHS if rng.random() < 0.5 else WORDS
        options = right if right and rng.random() < 0.75 else wrong
        return options[rng.integers(len(options))]

    command = list(COMMANDS)[rng.integers(len(COMMANDS))]
    paths, options = COMMANDS[command]
    line = [command, *(pick([path]) for path in paths)]
    if command in ("info", "resume", "plot") and rng.random() < 0.3:
        line[1] = "design"
    for _ in range(rng.integers(0, 4)):
        names = [*options, "--nothing"] if rng.random() < 0.1 else list(options) or ["--nothing"]
        name = names[rng.integers(len(names))]
        line.append(name)
        if name not in ("--trust", "--dry-run"):
            line.append(pick(options.get(name)))
    return line


# --------------------------------------------------------------------------------------------------


@contextmanager
def idle():
    """Nothing heavy is computed: a dry run does not measure, and where work would begin a command ends.

    Collisions are left out of the models, since to trace them takes most of the time.
    """

    def computes(*_, **__):
        raise SystemExit(0)

    double = jax.config.read("jax_enable_x64")
    # files may ask for single precision, which warns, and for numbers that it does not hold
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(Prepared, "measure", lambda self: (0.0, 0.0, 0))
        patch.setattr(sweep_drive, "drive", computes)
        patch.setattr(design_drive, "drive", computes)
        patch.setattr(cli, "_reproduce", computes)
        patch.setattr(_scattering_map, "_integrated_map", cheap)
        jax.clear_caches()
        try:
            yield
        finally:
            jax.config.update("jax_enable_x64", double)
            jax.clear_caches()  # what was traced with the cheap map is of no use elsewhere


def cheap(amplitudes, quadrature, sides, system, packet):
    """A map that is traced at once: collisions change nothing."""
    one = jnp.eye(system.size) + 0j
    tensor = jnp.einsum("aj,bk->abjk", one, one)
    return tensor, jnp.zeros(()), jnp.stack([tensor] * 3), jnp.zeros(())


NAMED = re.compile(
    r"^(Error: Argument `|\d+ mistakes? in the configuration|Error: [^:]+: [A-Z]|Usage: )", re.M
)


def result(line) -> str:
    """What became of a command: "ok", "named", or what went wrong."""
    result = CliRunner().invoke(cli.app, [str(part) for part in line])
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        where = traceback.extract_tb(error.__traceback__)
        last = next((f for f in reversed(where) if "jaxres" in f.filename), where[-1])
        return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {str(error)[:100]}"
    if result.exit_code == 0:
        return "ok"
    if result.exit_code not in (1, 2):
        return f"exit code {result.exit_code}"
    return "named" if NAMED.search(result.output) else f"unnamed: {result.output[-200:]}"


def fuzz_files(seed, count, folder, show=lambda *_: None) -> Counter:
    """What became of mutated files, as sweeps and as designs."""
    rng, counts, path = np.random.default_rng(seed), Counter(), folder / "mutated.toml"
    with idle():
        for i in range(count):
            raw = mutated(rng)
            path.write_bytes(raw)
            task = "design" if b"design" in raw and rng.random() < 0.8 else "sweep"
            ours = re.search(rb'function"? = "sweep_functions:wave"', raw)
            trust = ["--trust-module", "sweep_functions"] if ours else []
            said = result([task, path, "--dry-run", "--store", folder / "new", *trust])
            counts[said if said in ("ok", "named") else f"file {i} of seed {seed}: {said}"] += 1
            show(i, said, raw)
    return counts


def fuzz_commands(seed, count, folder, show=lambda *_: None) -> Counter:
    """What became of command lines."""
    rng, counts = np.random.default_rng(seed), Counter()
    prepare_folder(folder)
    with idle():
        for i in range(count):
            line = command_line(rng)
            said = result(line)
            counts[said if said in ("ok", "named") else f"{line}, {i} of seed {seed}: {said}"] += 1
            show(i, said, line)
    return counts


def prepare_folder(folder):
    """Files and stores that command lines may name."""
    (folder / "good.toml").write_text(
        SEEDS[[("width = 1.0" in s) for s in SEEDS].index(True)], "utf-8"
    )
    (folder / "design.toml").write_text(DESIGN, "utf-8")
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    jr.sweep(
        wave, {"rate": [1.0, 2.0], "width": [1.0, 2.0, 3.0]}, store=folder / "store", progress=False
    )
    jr.design(
        bowl,
        {"x": 0.5},
        bounds={"x": (0.0, 2.0)},
        max_steps=2,
        store=folder / "design",
        progress=False,
    )


def bowl(parameters):
    """A loss."""
    return (parameters["x"] - 1.0) ** 2


def wave(rate, width):
    """Cheap."""
    return {"coherence": rate * width}


def unnamed(counts) -> list[str]:
    """What went wrong."""
    return [said for said in counts if said not in ("ok", "named")]


@pytest.mark.slow
def test_mutated_files_have_named_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = fuzz_files(1, 2000, tmp_path)
    assert not unnamed(counts)
    assert (
        counts["named"] > 1000 and counts["ok"] > 100
    )  # the mutations neither miss nor destroy everything


@pytest.mark.slow
def test_command_lines_have_named_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = fuzz_commands(2, 500, tmp_path)
    assert not unnamed(counts)
    assert counts["named"] > 200 and counts["ok"] > 20


if __name__ == "__main__":
    import os

    jax.config.update("jax_enable_x64", True)
    for fuzz, count in zip((fuzz_files, fuzz_commands), map(int, sys.argv[1:3]), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            counts = fuzz(int((*sys.argv, 0, 0)[3]), count, Path(folder))
        print(
            fuzz.__name__,
            counts["ok"],
            "ok",
            counts["named"],
            "named",
            len(unnamed(counts)),
            "unnamed",
        )
        print(*itertools.islice(unnamed(counts), 60), sep="\n")
