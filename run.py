#!/usr/bin/env python3
"""Sets jaxres up in a virtual environment beside this file and runs it there.

    python3 run.py figures    computes the figures of the Letter into figures/
    python3 run.py tests      runs the test suite, all but what compiles for long: that and the
                              examples of the documentation are `run.py tests -m slow`
    python3 run.py lint       the linter, the formatter, the order of imports and the type checker
    python3 run.py check      all of these checks: lint, then tests

What follows the command is handed on: `run.py figures --out elsewhere`, `run.py tests -k gradient`.
The environment, .venv, is made on the first call and renewed when pyproject.toml, the Python that
runs this file, or the place of the folder has changed. Needs Python 3.11 or newer, nothing else.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file is what tells users of an older Python
    sys.exit(
        "jaxres needs Python 3.11 or newer, but %s is Python %d.%d. "  # noqa: UP031
        "Call this file with a newer one, such as: python3.11 run.py tests"
        % ((sys.executable,) + tuple(sys.version_info[:2]))  # noqa: RUF005
    )

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "jaxres.json"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
SUFFIX = ".exe" if os.name == "nt" else ""
PYTHON = str(BIN / f"python{SUFFIX}")
EXTRAS = ["figures", "test", "lint"]  # in pyproject.toml, each contains the one before


def main() -> None:
    """Reads the command, prepares what it needs and runs it."""
    command, *rest = sys.argv[1:] or [""]
    if command == "figures":
        prepare("figures")
        out = [] if any(word.split("=")[0] == "--out" for word in rest) else ["--out", "figures"]
        if out:  # beside this file, wherever the caller stands
            os.chdir(ROOT)
        run(str(BIN / f"jaxres{SUFFIX}"), "reproduce", *out, *rest, last=True)
    elif command == "tests":
        prepare("test")
        os.chdir(ROOT)
        run(PYTHON, "-m", "pytest", *rest, last=True)
    elif command in ("check", "lint"):
        prepare("lint")
        os.chdir(ROOT)
        run(PYTHON, "-m", "ruff", "check")
        run(PYTHON, "-m", "ruff", "format", "--check")
        run(str(BIN / f"lint-imports{SUFFIX}"))
        run(PYTHON, "-m", "pyright", "--pythonpath", PYTHON, last=command == "lint")
        run(PYTHON, "-m", "pytest", *rest, last=True)
    else:
        print(__doc__)
        sys.exit(0 if command in ("-h", "--help") else 2)


def prepare(extra: str) -> None:
    """Makes sure that .venv holds this package with the dependencies of `extra` (or more)."""
    wanted = {
        "python": sys.version,
        "root": str(ROOT),
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
    }
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = None
    if VENV.exists() and stamp is None:
        sys.exit(f"{VENV} was not made by run.py, so it is left alone: move it away, call again.")
    if stamp is None or any(stamp.get(key) != wanted[key] for key in ("python", "root")):
        stamp = create(wanted)
    have = stamp["extra"]
    if have is not None and EXTRAS.index(have) >= EXTRAS.index(extra):
        if stamp["pyproject"] == wanted["pyproject"]:
            return
        extra = have
    print("Installing jaxres and what it needs (a few minutes the first time)", flush=True)
    install = ["-m", "pip", "install", "--disable-pip-version-check"]
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run(PYTHON, *install, *quiet, "--editable", f".[{extra}]", cwd=ROOT)
    write_stamp(wanted, extra)


def create(wanted: dict) -> dict:
    """Makes .venv anew and returns its stamp."""
    here = f"Python {sys.version.split()[0]}"
    print(f"Making a virtual environment with {here} in {VENV}", flush=True)
    if VENV.exists():
        if Path(sys.prefix).resolve() == VENV.resolve():
            sys.exit(f"{VENV} is out of date, but this Python lives in it: deactivate, call again.")
        shutil.rmtree(VENV)
    VENV.mkdir()
    # The stamp goes first: what an interrupted call leaves behind is then known as ours.
    write_stamp({**wanted, "python": ""}, None)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)])
    if made.returncode:
        shutil.rmtree(VENV)
        sys.exit(
            f"{here} cannot make virtual environments: the message above says why. "
            "On Debian and Ubuntu the package python3-venv is missing."
        )
    return write_stamp(wanted, None)


def write_stamp(wanted: dict, extra: "str | None") -> dict:
    """Records what .venv holds."""
    stamp = {**wanted, "extra": extra}
    STAMP.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    return stamp


def run(*command: str, last: bool = False, cwd: "Path | None" = None) -> None:
    """Runs a command, and ends with its exit status where it is the last or where it fails."""
    print("$", shlex.join(command), flush=True)
    if last and os.name != "nt":
        os.execv(command[0], command)
    status = subprocess.run(command, cwd=cwd).returncode
    if last or status:
        sys.exit(status)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
