"""Configuration files: TOML, checked as a whole before anything runs.

A file has a `[model]`, which says what is computed, and tasks: `[sweep]`, or `[design]`, or both. Another is a class
beside `Sweep`, a field of `Config`, and what there is to check `_across` its entries. Every mistake is told at once,
each with its path; unknown keys are mistakes.
"""

import importlib
import inspect
import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from . import _config_design, letter
from ._config_design import STRICT, Design
from ._master import steady_state
from ._states import coherence, gibbs_state, populations, trace_distance

Value = bool | int | float | str

#: what can be asked of a model's steady state
OUTPUTS: Mapping[str, Callable] = {
    "coherence": lambda system, bath, sol: coherence(sol.rho),
    "populations": lambda system, bath, sol: populations(sol.rho),
    "rho": lambda system, bath, sol: sol.rho,
    "trace_distance": lambda system, bath, sol: trace_distance(
        sol.rho, gibbs_state(system, bath.packet.beta)
    ),
    "map_error": lambda system, bath, sol: sol.map_error,
    "condition": lambda system, bath, sol: sol.condition,
}
_POSITIVE = ("length", "beta", "mass", "width")
_NONNEGATIVE = ("splitting", "rate")


@dataclass(frozen=True)
class Observables:
    """The named outputs of a model's steady state, and what became of the solve."""

    names: tuple[str, ...]

    def __call__(self, system: Any, bath: Any) -> dict[str, Any]:
        sol = steady_state(system, bath)
        return {name: OUTPUTS[name](system, bath, sol) for name in self.names} | {
            "result": sol.result
        }


class _Strict(BaseModel):
    model_config = STRICT


class Model(_Strict):
    """`name = "letter"`, or `function = "module:name"`; and the parameters held fixed."""

    name: Literal["letter"] | None = None
    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    parameters: dict[str, Value] = {}

    @model_validator(mode="after")
    def _one(self):
        if (self.name is None) == (self.function is None):
            raise ValueError('give either name = "letter" or function = "module:name"')
        return self


class Axis(_Strict):
    """`values = [...]`, or `from`, `to`, `points` and `spacing`."""

    values: Annotated[list[float], Field(min_length=1)] | None = None
    start: float | None = Field(None, alias="from")
    stop: float | None = Field(None, alias="to")
    points: Annotated[int, Field(ge=1)] | None = None
    spacing: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _one(self):
        given = [x for x in (self.start, self.stop, self.points) if x is not None]
        if len(given) != (3 if self.values is None else 0):
            raise ValueError("give either values = [...], or all of from, to and points")
        if self.spacing == "log" and (self.values is not None or min(given[:2]) <= 0):
            raise ValueError('spacing = "log" needs from and to, both positive')
        return self

    def array(self) -> np.ndarray:
        """The values."""
        if self.start is None or self.stop is None or self.points is None:
            return np.asarray(self.values)
        space = np.geomspace if self.spacing == "log" else np.linspace
        return space(self.start, self.stop, self.points)


class Sweep(_Strict):
    """A grid: `axes` by name, those in one list of `zipped` vary together."""

    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    zipped: list[Annotated[list[str], Field(min_length=2)]] = []
    outputs: Annotated[list[str], Field(min_length=1)] | None = None
    gradient: list[str] = []
    store: str | None = None
    chunk: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]] | None = None
    memory_mib: Annotated[int, Field(ge=1)] = 1024
    workers: Annotated[int, Field(ge=0)] = 0


class Config(_Strict):
    """A whole file."""

    title: str | None = None
    precision: Literal["double", "single"] = "double"
    model: Model
    sweep: Sweep | None = None
    design: Design | None = None


class ConfigError(ValueError):
    """Everything that is wrong with a file, as (path, message)."""

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("\n".join(f"{path}: {message}" for path, message in problems))


def read(path: Path) -> dict[str, Any]:
    """The content of a TOML file, not yet checked."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([(str(path), error.strerror or str(error))]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([(str(path), f"no valid TOML: {error}")]) from None


def parse(content: Mapping[str, Any], task: str = "sweep") -> Config:
    """The checked configuration, which must have the task; `ConfigError` tells all mistakes."""
    config, problems = None, []
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        for each in error.errors():
            # pydantic names the branch of a union in its paths: keep what stands in the file
            place = [str(part) for part in each["loc"]]
            problems.append((_within(content, place), each["msg"].removeprefix("Value error, ")))
    if task not in content:
        problems.append((task, "Field required"))
    problems += _across(content)
    if problems or config is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def _within(content, place):
    """The path as far as it goes in the file, and one step more."""
    path, inside = [], content
    for part in place:
        if isinstance(inside, Mapping):
            known = {"start": "from", "stop": "to"}.get(part, part)
            path.append(known)
            inside = inside.get(known)
        elif isinstance(inside, list) and part.isdigit():
            path.append(part)
            inside = inside[int(part)]
    return ".".join(path) or "file"


def _across(content):
    """What no single entry shows: names against the model, zipped lengths, signs. Looks at what can be looked at."""

    def table(x, key):
        value = x.get(key, {}) if isinstance(x, Mapping) else {}
        return value if isinstance(value, Mapping) else {}

    def names(x, key):
        value = x.get(key)
        return [n for n in value if isinstance(n, str)] if isinstance(value, list) else []

    problems: list[tuple[str, str]] = []
    model, sweep = table(content, "model"), table(content, "sweep")
    axes, fixed = table(sweep, "axes"), table(model, "parameters")
    try:
        known, required = _parameters(model)
    except ConfigError as error:
        problems += error.problems
        known, required = None, set()
    if "design" in content:
        problems += _config_design.across(
            table(content, "design"), fixed, known, {} if known is None else _defaults(model)
        )
        required = required - table(table(content, "design"), "bounds").keys()
    if known is not None:
        listing = "it takes " + ", ".join(sorted(known))
        for place, each in (
            ("model.parameters", fixed),
            ("sweep.axes", axes),
            ("sweep.gradient", names(sweep, "gradient")),
        ):
            for name in each:
                if name not in known:
                    where = place if place.endswith("gradient") else f"{place}.{name}"
                    problems.append((where, f"the model has no parameter {name!r}: {listing}"))
        for name in sorted(required - {*axes, *fixed}):
            problems.append(
                ("model.parameters", f"lacks {name!r}, which has no default and is no axis")
            )
    for name in axes.keys() & fixed.keys():
        problems.append((f"sweep.axes.{name}", "is also held fixed, in model.parameters"))
    problems += _zipped(sweep, axes)
    if model.get("name") == "letter":
        free = table(table(content, "design"), "bounds")
        free = {k: {"values": v} for k, v in free.items()}
        for place, each in (
            ("model.parameters", fixed),
            ("sweep.axes", axes),
            ("design.bounds", free),
        ):
            for name, entry in each.items():
                problems += _sign(f"{place}.{name}", name, entry)
        for name in names(sweep, "outputs"):
            if name not in OUTPUTS:
                problems.append(
                    ("sweep.outputs", f"{name!r} is none of {', '.join(OUTPUTS)}"),
                )
    elif "outputs" in sweep:
        problems.append(("sweep.outputs", "a function has its own outputs: leave this out"))
    return problems


def _zipped(sweep, axes):
    groups, seen = sweep.get("zipped", []), set()
    for i, group in enumerate(groups if isinstance(groups, list) else []):
        lengths = {}
        for name in group if isinstance(group, list) else []:
            if name not in axes:
                yield f"sweep.zipped.{i}", f"{name!r} is no axis"
                continue
            if name in seen:
                yield f"sweep.zipped.{i}", f"{name!r} is zipped twice"
            seen.add(name)
            entry = axes[name] if isinstance(axes[name], Mapping) else {}
            values = entry.get("values")
            length = len(values) if isinstance(values, list) else entry.get("points")
            if isinstance(length, int):
                lengths[name] = length
        if len(set(lengths.values())) > 1:
            yield f"sweep.zipped.{i}", f"zipped axes must have one length, but have {lengths}"


def _sign(place, name, entry):
    """Signs of the Letter's parameters, wherever a number of theirs stands."""
    if isinstance(entry, Mapping):
        values = entry.get("values")
        values = values if isinstance(values, list) else [entry.get("from"), entry.get("to")]
    elif name == "incidence":
        if entry not in ("left", "right", "both"):
            yield place, f"must be 'left', 'right' or 'both', but is {entry!r}"
        return
    else:
        values = [entry]
        if isinstance(entry, str | bool):
            yield place, f"must be a number, but is {entry!r}"
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    if not numbers:
        return
    least = min(numbers)
    if any(math.isnan(x) for x in numbers):
        yield place, "must not be NaN"
    elif name in _POSITIVE and least <= 0:
        yield place, f"must be positive, but is {least:g}"
    elif name in _NONNEGATIVE and least < 0:
        yield place, f"must not be negative, but is {least:g}"


def _parameters(model):
    """The names that a model takes (None: any), and those of them that it needs."""
    function = model.get("function")
    if model.get("name") == "letter" and function is None:
        function = letter.model
    elif isinstance(function, str) and function.count(":") == 1:
        function = load(function)
    else:
        return None, set()
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None, set()
    return {p.name for p in parameters}, {p.name for p in parameters if p.default is p.empty}


def _defaults(model):
    """The defaults of a model's parameters."""
    function = letter.model if model.get("name") == "letter" else load(model["function"])
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def load(name: str, place: str = "model.function") -> Callable:
    """The function `module:name`, looked for in the working directory too."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            [(place, f"cannot load {name!r}: {type(error).__name__}: {error}")]
        ) from error
    if not callable(found):
        raise ConfigError([(place, f"{name!r} is no function")])
    return found


def arguments(config: Config) -> dict[str, Any]:
    """The arguments of `jaxres.sweep` that a configuration stands for."""
    assert config.sweep is not None  # `parse` has seen to it
    sweep, arrays = config.sweep, {k: axis.array() for k, axis in config.sweep.axes.items()}
    groups = {name: tuple(group) for group in sweep.zipped for name in group}
    axes: dict[Any, Any] = {}
    for name, array in arrays.items():
        group = groups.get(name)
        axes[group or name] = tuple(arrays[n] for n in group) if group else array
    if config.model.function is None:
        function, of = letter.model, Observables(tuple(sweep.outputs or ("coherence",)))
    else:
        function, of = load(config.model.function), None
    return {
        "function": function,
        "axes": axes,
        "of": of,
        "fixed": config.model.parameters,
        "gradient": sweep.gradient,
        "chunk": sweep.chunk,
        "memory": sweep.memory_mib * 2**20,
        "title": config.title,
    }
