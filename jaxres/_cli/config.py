"""Configuration files: TOML, checked as a whole before anything runs.

A file has a `[model]`, which names the function that is computed, and tasks: `[sweep]`, or `[design]`, or both. A
further task would be a class beside `Sweep`, a field of `Config`, and its checks in `_across`. All mistakes are
reported at once, each with its path; unknown keys are mistakes.

All of a file is data, except the names of functions, `module:name`: they are looked up only as far as `Code` allows.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import numpy as np
from pydantic import Field, ValidationError, model_validator

from .. import letter
from .._checks import require
from .._dynamics.steady_state import steady_state
from .._fields import parameters_of
from .._quantum.states import coherence, gibbs_state, populations, trace_distance
from .._reservoir.reservoir import Incidence
from .._sweep.arguments import check_count
from . import config_design as _config_design
from .config_code import Code, ConfigError, said
from .config_design import Design
from .config_types import Chunk, Function, Positive, Strict, Value, Workers

#: The outputs of a model's steady state, by their names in a file.
OUTPUTS: Mapping[str, Callable] = {
    "coherence": lambda system, reservoir, sol: coherence(sol.rho),
    "populations": lambda system, reservoir, sol: populations(sol.rho),
    "rho": lambda system, reservoir, sol: sol.rho,
    "trace_distance": lambda system, reservoir, sol: trace_distance(
        sol.rho, gibbs_state(system, reservoir.packet.beta)
    ),
    "map_error": lambda system, reservoir, sol: sol.map_error,
    "condition": lambda system, reservoir, sol: sol.condition,
}
#: The largest file that is read, in bytes: far more than axes written out need, and little enough to be parsed.
LARGEST = 2**26


@dataclass(frozen=True)
class Observables:
    """The named outputs of a model's steady state, and the result of the solve."""

    names: tuple[str, ...]

    def __call__(self, system: Any, reservoir: Any) -> dict[str, Any]:
        sol = steady_state(system, reservoir)
        return {name: OUTPUTS[name](system, reservoir, sol) for name in self.names} | {
            "result": sol.result
        }


class Model(Strict):
    """The model, `name = "letter"` or `function = "module:name"`, and the parameters that are held fixed."""

    name: Literal["letter"] | None = None
    function: Function | None = None
    parameters: dict[str, Value] = Field({})

    @model_validator(mode="after")
    def _one(self):
        if (self.name is None) == (self.function is None):
            raise ValueError('give either name = "letter" or function = "module:name"')
        return self


class Axis(Strict):
    """The values of one parameter: `values = [...]`, or `from`, `to`, `points` and `spacing`."""

    values: Annotated[list[float], Field(min_length=1)] | None = None
    start: float | None = Field(None, alias="from")
    stop: float | None = Field(None, alias="to")
    points: Positive | None = None
    spacing: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _one(self):
        given = [x for x in (self.start, self.stop, self.points) if x is not None]
        if len(given) != (3 if self.values is None else 0):
            raise ValueError("give either values = [...], or all of from, to and points")
        if self.spacing == "log" and (self.values is not None or min(given[:2]) <= 0):
            raise ValueError('spacing = "log" needs from and to, both positive')
        if self.values is None and math.isinf(given[1] - given[0]):
            raise ValueError("from and to are further apart than a number can be")
        return self

    def array(self) -> np.ndarray:
        """The values as an array."""
        if self.start is None or self.stop is None or self.points is None:
            return np.asarray(self.values, float)
        space = np.geomspace if self.spacing == "log" else np.linspace
        return space(self.start, self.stop, self.points)


class Sweep(Strict):
    """A grid with `axes` by name; those in one list of `zipped` vary together."""

    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    zipped: list[Annotated[list[str], Field(min_length=2)]] = Field([])
    outputs: Annotated[list[str], Field(min_length=1)] | None = None
    gradient: list[str] = Field([])
    store: str | None = None
    chunk: Chunk | None = None
    memory_mib: Annotated[int, Field(ge=1, lt=2**32)] = 1024
    workers: Workers = 0


class Config(Strict):
    """A whole file."""

    title: str | None = None
    precision: Literal["double", "single"] = "double"
    model: Model
    sweep: Sweep | None = None
    design: Design | None = None


def read(path: Path) -> dict[str, Any]:
    """The content of a TOML file, not yet checked. A byte order mark is allowed."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # a path that contains NUL is a ValueError
        raise ConfigError([(str(path), getattr(error, "strerror", None) or str(error))]) from None
    if len(content) > LARGEST:
        raise ConfigError([(str(path), f"must be a TOML file of at most {LARGEST >> 20} MiB")])
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ConfigError([(str(path), "no valid TOML: nested too deeply")]) from None
    except ValueError as error:  # wrong syntax or encoding, or an integer of thousands of digits
        raise ConfigError([(str(path), f"no valid TOML: {error}")]) from None


def parse(content: Any, task: str = "sweep", code: Code = Code()) -> Config:
    """The checked configuration, which must have the task; `ConfigError` has all mistakes.

    Entries are checked one by one by their types, then against each other, where an entry of a wrong type is None.
    """
    config, problems, rejected = None, [], {}
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            place = _within(content, each["loc"])
            path, message = ".".join(map(str, place)) or "file", each["msg"]
            problems.append((path, message.removeprefix("Value error, ")))
            if each["type"] != "value_error":  # a value error is raised after all types were right
                rejected[place] = None
    typed = _typed(content, rejected)
    if isinstance(content, Mapping) and content.get(task) is None:
        problems.append((task, "Field required"))
    # in the precision of the computation, where small numbers may be 0 and large ones infinite
    with jax.enable_x64(_entry(typed, "precision") != "single"):
        problems += _across(typed, code)
    if problems or config is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def _within(content, place):
    """The path as far as it goes in the file, and one step more; without the tags of a union's members."""
    path, inside = [], content
    for part in place:
        is_key = isinstance(inside, Mapping) and part in inside
        is_index = isinstance(inside, list) and isinstance(part, int)
        if is_key or is_index:
            path.append(part)
            inside = inside[part]
        elif not str(part).startswith("<"):
            return (*path, part)
    return tuple(path)


def _typed(content, rejected, place=()):
    """A copy in which an entry that is missing or has a wrong type is None, so that types need not be checked again."""
    if place in rejected:
        return None
    if isinstance(content, Mapping):
        missing = {at[-1]: None for at in rejected if at[:-1] == place}
        return missing | {k: _typed(v, rejected, (*place, k)) for k, v in content.items()}
    if isinstance(content, list):
        return [_typed(v, rejected, (*place, i)) for i, v in enumerate(content)]
    return content


def _entry(table, *path):
    """The entry at a path of a typed content, or None."""
    for part in path:
        table = None if table is None else table.get(part)
    return table


def _across(content, code):
    """The mistakes that no single entry shows: names against the model, zipped lengths, sizes, refused values.

    Every entry has its type or is None.
    """
    model, sweep, design = (_entry(content, key) or {} for key in ("model", "sweep", "design"))
    axes, fixed = sweep.get("axes") or {}, model.get("parameters") or {}
    bounds = design.get("bounds") or {}
    try:
        function, defaults, known = _signature(model, code)
    except ConfigError as error:
        yield from error.problems
        function, defaults, known = None, None, None
    yield from _config_design.across(design, fixed, known, defaults, code)
    if known is not None:
        places = [(f"model.parameters.{name}", name) for name in fixed]
        places += [(f"sweep.axes.{name}", name) for name in axes]
        places += [("sweep.gradient", name) for name in sweep.get("gradient") or ()]
        listing = ", ".join(sorted(known))
        for place, name in places:
            if name is not None and name not in known:
                yield place, f"the model has no parameter {name!r}: it takes {listing}"
        for name in sorted(known - {*(defaults or ()), *axes, *fixed, *bounds}):
            yield "model.parameters", f"lacks {name!r}, which has no default and is no axis"
    for name in [name for name in axes if name in fixed]:
        yield f"sweep.axes.{name}", "is also held fixed, in model.parameters"
    yield from _lengths(sweep, axes)
    if function is letter.model:
        yield from _values("model.parameters", {k: [v] for k, v in fixed.items()}, known)
        yield from _values("sweep.axes", {k: _ends(axis) for k, axis in axes.items()}, known)
        yield from _values("design.bounds", bounds, known)
    if model.get("name") is not None:
        for name in sweep.get("outputs") or ():
            if name is not None and name not in OUTPUTS:
                yield "sweep.outputs", f"{name!r} is none of {', '.join(OUTPUTS)}"
    elif "outputs" in sweep:
        yield "sweep.outputs", "a function has its own outputs: leave this out"


def _signature(model, code):
    """The model's function, the defaults of its parameters (None if unknown) and their names (None if any will do)."""
    name = model.get("function")
    if model.get("name") is not None:
        return parameters_of(letter.model)
    function = None if name is None else code.load(name, "model.function")
    if function is None:
        return None, None, None
    try:
        return parameters_of(function)
    except ValueError as error:
        raise ConfigError([("model.function", said(error))]) from error


def _lengths(sweep: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The mistakes in the lengths of axes, which are found before an array is made of them."""
    lengths = {}
    for name, axis in axes.items():
        values, points = _entry(axis, "values"), _entry(axis, "points")
        if values is not None or points is not None:
            lengths[name] = points if values is None else len(values)
    memory = (sweep.get("memory_mib") or Sweep.model_fields["memory_mib"].default) * 2**20
    try:
        check_count(lengths, memory)
    except ValueError as error:
        yield "sweep.axes", said(error)
    groups: list[Any] = sweep.get("zipped") or []
    seen = set()
    for i, group in enumerate(groups):
        names = [name for name in group or () if name is not None]
        for name in names:
            if name not in axes:
                yield f"sweep.zipped.{i}", f"{name!r} is no axis"
            elif name in seen:
                yield f"sweep.zipped.{i}", f"{name!r} is zipped twice"
            seen.add(name)
        zipped = {name: lengths[name] for name in names if name in lengths}
        if len(set(zipped.values())) > 1:
            yield f"sweep.zipped.{i}", f"zipped axes must have one length, but have {zipped}"


def _ends(axis):
    axis = axis or {}
    return axis.get("values") or (axis.get("from"), axis.get("to"))


def _values(place, entries, known):
    """The values that the Letter's model refuses; of many values the least and the largest are tried."""
    for name, values in entries.items():
        given = [x for x in values or () if x is not None]
        if name not in known or not given:
            continue
        for x in (min(given), max(given)) if len(given) > 1 else given:
            if name == "incidence":
                if x not in get_args(Incidence):
                    yield f"{place}.{name}", f"must be 'left', 'right' or 'both', but is {x!r}"
                continue
            try:
                require(not isinstance(x, bool), f"must be a number, but is {x}")
                letter._parameter(name, x)
            except ValueError as error:
                yield f"{place}.{name}", said(error)


def arguments(config: Config, code: Code = Code()) -> dict[str, Any]:
    """The arguments of `jaxres.sweep` that a configuration stands for."""
    assert config.sweep is not None  # `parse` requires the task
    sweep, arrays = config.sweep, {k: axis.array() for k, axis in config.sweep.axes.items()}
    groups = {name: tuple(group) for group in sweep.zipped for name in group}
    axes: dict[Any, Any] = {}
    for name, array in arrays.items():
        group = groups.get(name)
        axes[group or name] = tuple(arrays[n] for n in group) if group else array
    if config.model.function is None:
        function, observables = letter.model, Observables(tuple(sweep.outputs or ("coherence",)))
    else:
        function, observables = code.load(config.model.function, "model.function"), None
    return {
        "function": function,
        "axes": axes,
        "of": observables,
        "fixed": config.model.parameters,
        "gradient": sweep.gradient,
        "chunk": sweep.chunk,
        "memory": sweep.memory_mib * 2**20,
        "title": config.title,
    }
