"""The task `[design]` of a configuration file: its entries, their checks, and the arguments of `jaxres.design`."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np
from pydantic import Field, model_validator

from .. import letter, losses
from .._fields import parameters_of
from .config_code import Code, ConfigError
from .config_types import Complex, Function, Parameter, Start, Strict

#: The losses by their names in a file.
LOSSES = {
    "thermostat": losses.Thermostat,
    "fast_thermostat": losses.FastThermostat,
    "coherence_at": losses.CoherenceAt,
    "target_state": losses.TargetState,
    "heat_current": losses.HeatCurrent,
    "ergotropy": losses.Ergotropy,
    "ergotropy_rate": losses.ErgotropyRate,
}
#: The fields of a loss that are algorithms, which a file cannot choose.
ALGORITHMS = ("amplitudes", "quadrature")
Problems = Iterator[tuple[str, str]]
Positive = Annotated[float, Field(gt=0)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class Loss(Strict):
    """A loss by its `name`, one of `LOSSES`, or by `function = "module:name"`, called with the model."""

    name: str | None = None
    function: Function | None = None
    parameters: dict[str, Parameter] = Field({})
    penalty: Positive | None = None

    @model_validator(mode="after")
    def _one(self):
        if (self.name is None) == (self.function is None):
            raise ValueError('give either name = "coherence_at" or function = "module:name"')
        return self


class Design(Strict):
    """A search from `start` for the parameters that have `bounds`."""

    loss: Loss
    bounds: Annotated[dict[str, Pair], Field(min_length=1)]
    start: dict[str, Start] = Field({})
    optimiser: Literal["lbfgs", "adam", "SLSQP", "L-BFGS-B"] = "lbfgs"
    learning_rate: Positive | None = None
    # steps are counted in 32 bits, and the states of all starts are held in memory at once
    max_steps: Annotated[int, Field(ge=1, lt=2**31)] = 200
    starts: Annotated[int, Field(ge=1, le=2**16)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    tol: Positive = 1e-7
    target: float | None = None
    errors: Positive | None = None
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
    """The mistakes that no single entry shows: names against the model, starts against bounds, the loss.

    Every entry of `design` has its type or is None. `known` are the names of the model's parameters (None: any).
    """
    bounds, start = design.get("bounds") or {}, design.get("start") or {}
    for place, each in (("design.bounds", bounds), ("design.start", start)):
        for name in each:
            if known is not None and name not in known:
                listing = ", ".join(sorted(known))
                yield f"{place}.{name}", f"the model has no parameter {name!r}: it takes {listing}"
    for name in [name for name in bounds if name in fixed]:
        yield f"design.bounds.{name}", "is also held fixed, in model.parameters"
    for name in [name for name in start if name not in bounds]:
        yield f"design.start.{name}", "has no bounds: hold it fixed, in model.parameters"
    for name, pair in bounds.items():
        if pair is None or None in pair:
            continue
        place, at = f"design.start.{name}", start.get(name, (defaults or {}).get(name))
        if pair[0] >= pair[1]:
            yield f"design.bounds.{name}", f"must be [lowest, highest], but is {pair}"
        elif at is not None:
            yield from _inside(place, at, pair)
        elif name not in start and defaults is not None:
            yield place, "is missing, and the model has no default"
    yield from _loss(design.get("loss") or {}, design.get("optimiser"), code)


def _inside(place, at, pair):
    """Whether a start, which may be a default of the model's, lies between the bounds."""
    given = [x for x in at if x is not None] if isinstance(at, list) else at
    try:
        numbers = np.ravel(_floats(given))
    except (TypeError, ValueError):
        yield place, f"must be a number or numbers in a row, but the model's default is {at!r}"
        return
    outside = numbers[~((pair[0] <= numbers) & (numbers <= pair[1]))]
    if outside.size:
        yield place, f"must lie within {pair}, but is {outside[0]:g}"


def _loss(loss: Mapping[str, Any], optimiser: Any, code: Code) -> Problems:
    name, given = loss.get("name"), loss.get("parameters") or {}
    if loss.get("function") is not None:
        try:
            code.load(loss["function"], "design.loss.function")
        except ConfigError as error:
            yield from error.problems
        if given:
            yield "design.loss.parameters", "a function has none: leave this out"
    elif name is not None and name not in LOSSES:
        yield "design.loss.name", f"{name!r} is none of {', '.join(LOSSES)}"
    elif name is not None:
        yield from _parameters(name, given)
        constrained = name == "fast_thermostat" or given.get("slowest") or given.get("least_rate")
        if constrained and optimiser != "SLSQP" and "penalty" not in loss:
            yield (
                "design.optimiser",
                f'must be "SLSQP", since {name} has constraints; or give loss.penalty',
            )
        if "penalty" in loss and not constrained:
            yield "design.loss.penalty", f"{name} has no constraints here: leave this out"


def _parameters(name, given):
    """The parameters against those that the loss takes; if they fit, the error of its constructor."""
    signature = inspect.signature(LOSSES[name]).parameters
    takes = {k: p for k, p in signature.items() if k not in ALGORITHMS}
    unknown = [key for key in given if key not in takes]
    missing = [k for k, p in takes.items() if p.default is p.empty and k not in given]
    for key in unknown:
        listing = ", ".join(takes) or "none"
        yield (
            f"design.loss.parameters.{key}",
            f"{name} has no parameter {key!r}: it takes {listing}",
        )
    for key in missing:
        yield "design.loss.parameters", f"lacks {key!r}"
    if not unknown and not missing and _is_complete(given):
        try:
            LOSSES[name](**{key: value_of(x) for key, x in given.items()})
        except ValueError as error:
            yield "design.loss.parameters", str(error)


def _is_complete(x):
    """Whether nothing in x is None, which stands for an entry of the wrong type."""
    inside = x.values() if isinstance(x, Mapping) else x if isinstance(x, list) else ()
    return x is not None and all(map(_is_complete, inside))


def value_of(x: Any) -> Any:
    """A parameter of a loss: a matrix as an array, also a complex one, which has `real` and `imag`."""
    x = x.model_dump() if isinstance(x, Complex) else x
    if isinstance(x, Mapping):
        return np.asarray(x["real"]) + 1j * np.asarray(x["imag"])
    return np.asarray(x) if isinstance(x, list) else x


def arguments(
    design: Design, fixed: Mapping[str, Any], function: Any, code: Code = Code()
) -> dict[str, Any]:
    """The arguments of `jaxres.design` that a configuration stands for."""
    _, defaults, _ = parameters_of(function or letter.model)
    start = {name: _floats(design.start.get(name, defaults.get(name))) for name in design.bounds}
    return {
        "loss": _made_loss(design.loss, fixed, function, code),
        "start": start,
        "bounds": {name: tuple(pair) for name, pair in design.bounds.items()},
        "optimiser": _made_optimiser(design),
        "key": jax.random.key(design.seed),
        **{k: getattr(design, k) for k in ("max_steps", "starts", "tol", "target", "errors")},
    }


def _made_loss(spec: Loss, fixed, function, code) -> Any:
    """The loss as a function of the free parameters, with its penalties if it has any."""
    if spec.function is not None:
        loss: Any = code.load(spec.function, "design.loss.function")
    else:
        loss = LOSSES[spec.name or ""](**{key: value_of(x) for key, x in spec.parameters.items()})
    loss = losses.Letter(loss, dict(fixed), function)
    return loss if spec.penalty is None else losses.Penalised(loss, spec.penalty)


def _made_optimiser(design: Design) -> Any:
    from .._design import LBFGS, SciPy

    if design.learning_rate is not None:
        import optax

        return optax.adam(design.learning_rate)
    return LBFGS() if design.optimiser == "lbfgs" else SciPy(design.optimiser)


def _floats(x: Any) -> Any:
    return np.asarray(x, float) if np.ndim(x) else float(x)
