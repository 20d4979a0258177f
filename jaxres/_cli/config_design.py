"""The task `[design]` of a configuration file: what is searched, and how."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from .. import letter, losses
from .._fields import parameters_of
from .config_code import Code, ConfigError
from .config_types import Complex, Function, Parameter, Start, Strict

#: losses by the names they have in a file
LOSSES = {
    "thermostat": losses.Thermostat,
    "fast_thermostat": losses.FastThermostat,
    "coherence_at": losses.CoherenceAt,
    "target_state": losses.TargetState,
    "heat_current": losses.HeatCurrent,
    "ergotropy": losses.Ergotropy,
    "ergotropy_rate": losses.ErgotropyRate,
}
#: parameters of a loss that are algorithms
_ALGORITHMS = ("amplitudes", "quadrature")
Problems = Iterator[tuple[str, str]]
#: starts and steps of a search: all starts are held at once
Starts = Annotated[int, Field(ge=1, le=2**16)]
Steps = Annotated[int, Field(ge=1, lt=2**31)]


class Loss(Strict):
    """`name`, one of those here, or `function = "module:name"`, a function of what the model returns."""

    name: str | None = None
    function: Function | None = None
    parameters: dict[str, Parameter] = Field({})
    penalty: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self):
        if (self.name is None) == (self.function is None):
            raise ValueError('give either name = "coherence_at" or function = "module:name"')
        return self


class Design(Strict):
    """A search: the free parameters by their `bounds`, from `start`."""

    loss: Loss
    bounds: Annotated[
        dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1)
    ]
    start: dict[str, Start] = Field({})
    optimiser: Literal["lbfgs", "adam", "SLSQP", "L-BFGS-B"] = "lbfgs"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    max_steps: Steps = 200
    starts: Starts = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    tol: Annotated[float, Field(gt=0)] = 1e-7
    target: float | None = None
    errors: Annotated[float, Field(gt=0)] | None = None
    store: str | None = None

    @model_validator(mode="after")
    def _rate(self):
        if (self.optimiser == "adam") != (self.learning_rate is not None):
            raise ValueError('give learning_rate with optimiser = "adam", and with no other')
        return self


def across(
    design: Mapping[str, Any],
    fixed: Mapping[str, Any],
    known: set[str] | None,
    defaults: Mapping[str, Any] | None,
    code: Code,
) -> Problems:
    """What no single entry shows: names against the model, starts against bounds, the loss and its parameters.

    Every entry has its type or is None; `code` says which functions may be loaded.
    """
    bounds, start = design.get("bounds") or {}, design.get("start") or {}
    for place, each in (("design.bounds", bounds), ("design.start", start)):
        for name in each:
            if known is not None and name not in known:
                listing = ", ".join(sorted(known))
                yield f"{place}.{name}", f"the model has no parameter {name!r}: it takes {listing}"
    for name in bounds.keys() & fixed.keys():
        yield f"design.bounds.{name}", "is also held fixed, in model.parameters"
    for name in start.keys() - bounds.keys():
        yield f"design.start.{name}", "has no bounds: hold it fixed, in model.parameters"
    for name, pair in bounds.items():
        if pair is None or None in pair:
            continue
        at = start.get(name, (defaults or {}).get(name))
        if pair[0] >= pair[1]:
            yield f"design.bounds.{name}", f"must be [lowest, highest], but is {pair}"
        elif at is None:
            if name not in start and defaults is not None:
                yield f"design.start.{name}", "is missing, and the model has no default"
        else:
            yield from _inside(f"design.start.{name}", at, pair)
    yield from _loss(design.get("loss") or {}, design.get("optimiser"), code)


def _inside(place, at, pair):
    """A start, which may be a default of the model's: numbers between the bounds."""
    try:
        numbers = np.ravel(
            _floats([x for x in at if x is not None] if isinstance(at, list) else at)
        )
    except (TypeError, ValueError):
        yield place, f"must be a number or numbers in a row, but the model's default is {at!r}"
        return
    for x in numbers[~((pair[0] <= numbers) & (numbers <= pair[1]))][:1]:
        yield place, f"must lie within {pair}, but is {x:g}"


def _loss(loss: Mapping[str, Any], optimiser: Any, code: Code) -> Problems:
    name, given = loss.get("name"), loss.get("parameters") or {}
    if loss.get("function") is not None:
        try:
            code.load(loss["function"], "design.loss.function")
        except ConfigError as error:
            yield from error.problems
        if given:
            yield "design.loss.parameters", "a function has none: leave this out"
        return
    if name is None:
        return
    if name not in LOSSES:
        yield "design.loss.name", f"{name!r} is none of {', '.join(LOSSES)}"
        return
    wanted = {
        k: p.default is p.empty
        for k, p in inspect.signature(LOSSES[name]).parameters.items()
        if k not in _ALGORITHMS
    }
    wrong = [k for k in given if k not in wanted]
    for key in wrong:
        takes = ", ".join(wanted) or "none"
        yield f"design.loss.parameters.{key}", f"{name} has no parameter {key!r}: it takes {takes}"
    missing = [k for k, needed in wanted.items() if needed and k not in given]
    for key in missing:
        yield "design.loss.parameters", f"lacks {key!r}"
    if not wrong and not missing and _whole(given):
        try:
            LOSSES[name](**{key: value_of(x) for key, x in given.items()})
        except ValueError as error:
            yield "design.loss.parameters", str(error)
    constrained = name == "fast_thermostat" or given.get("slowest") or given.get("least_rate")
    if constrained and optimiser != "SLSQP" and "penalty" not in loss:
        yield (
            "design.optimiser",
            f'must be "SLSQP", since {name} has constraints; or give loss.penalty',
        )
    if "penalty" in loss and not constrained:
        yield "design.loss.penalty", f"{name} has no constraints here: leave this out"


def _whole(x):
    """Whether nothing in it had the wrong type."""
    inside = x.values() if isinstance(x, Mapping) else x if isinstance(x, list) else ()
    return x is not None and all(map(_whole, inside))


def value_of(x: Any) -> Any:
    """A parameter of a loss: matrices as arrays, complex ones of `real` and `imag`."""
    x = x.model_dump() if isinstance(x, Complex) else x
    if isinstance(x, Mapping):
        return np.asarray(x["real"]) + 1j * np.asarray(x["imag"])
    return np.asarray(x) if isinstance(x, list) else x


def arguments(
    design: Design, fixed: Mapping[str, Any], function: Any, code: Code = Code()
) -> dict[str, Any]:
    """The arguments of `jaxres.design` that a configuration stands for."""
    import jax

    from .._design import LBFGS, SciPy

    spec = design.loss
    parameters = {key: value_of(x) for key, x in spec.parameters.items()}
    if spec.function is not None:
        loss: Any = code.load(spec.function, "design.loss.function")
    else:
        loss = LOSSES[spec.name or ""](**parameters)
    loss = losses.Letter(loss, dict(fixed), function)
    loss = loss if spec.penalty is None else losses.Penalised(loss, spec.penalty)
    if design.learning_rate is not None:
        import optax

        optimiser: Any = optax.adam(design.learning_rate)
    else:
        optimiser = LBFGS() if design.optimiser == "lbfgs" else SciPy(design.optimiser)
    _, defaults, _ = parameters_of(function or letter.model)
    start = {name: _floats(design.start.get(name, defaults.get(name))) for name in design.bounds}
    return {
        "loss": loss,
        "start": start,
        "bounds": {name: tuple(pair) for name, pair in design.bounds.items()},
        "optimiser": optimiser,
        "key": jax.random.key(design.seed),
        **{k: getattr(design, k) for k in ("max_steps", "starts", "tol", "target", "errors")},
    }


def _floats(x: Any) -> Any:
    return np.asarray(x, float) if np.ndim(x) else float(x)
