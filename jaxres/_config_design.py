"""The task `[design]` of a configuration file: what is searched, and how."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import letter, losses

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


#: unknown keys and values of another type are mistakes
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Strict(BaseModel):
    model_config = STRICT


class Complex(_Strict):
    """A complex matrix by its parts."""

    real: list[list[float]]
    imag: list[list[float]]


class Loss(_Strict):
    """`name`, one of those here, or `function = "module:name"`, a function of what the model returns."""

    name: str | None = None
    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    parameters: dict[str, bool | int | float | list[list[float]] | Complex] = {}
    penalty: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self):
        if (self.name is None) == (self.function is None):
            raise ValueError('give either name = "coherence_at" or function = "module:name"')
        return self


class Design(_Strict):
    """A search: the free parameters by their `bounds`, from `start`."""

    loss: Loss
    bounds: Annotated[
        dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1)
    ]
    start: dict[str, float | list[float]] = {}
    optimiser: Literal["lbfgs", "adam", "SLSQP", "L-BFGS-B"] = "lbfgs"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] = 200
    starts: Annotated[int, Field(ge=1)] = 1
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
    defaults: Mapping[str, Any],
) -> Problems:
    """What no single entry shows: names against the model, starts against bounds, the loss and its parameters."""
    bounds, start = (_table(design, key) for key in ("bounds", "start"))
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
        if not (isinstance(pair, list) and len(pair) == 2 and all(map(_number, pair))):
            continue
        at = start.get(name, defaults.get(name))
        if pair[0] >= pair[1]:
            yield f"design.bounds.{name}", f"must be [lowest, highest], but is {pair}"
        elif at is None:
            yield f"design.start.{name}", "is missing, and the model has no default"
        else:
            for each in [at] if _number(at) else at if isinstance(at, list) else []:
                if _number(each) and not pair[0] <= each <= pair[1]:
                    yield f"design.start.{name}", f"must lie within {pair}, but is {each:g}"
    yield from _loss(_table(design, "loss"), design.get("optimiser", "lbfgs"))


def _loss(loss: Mapping[str, Any], optimiser: Any) -> Problems:
    from ._config import ConfigError, load

    name, given = loss.get("name"), _table(loss, "parameters")
    if isinstance(loss.get("function"), str) and loss["function"].count(":") == 1:
        try:
            load(loss["function"], "design.loss.function")
        except ConfigError as error:
            yield from error.problems
        if given:
            yield "design.loss.parameters", "a function has none: leave this out"
        return
    if not isinstance(name, str):
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
    if not wrong and not missing:
        try:
            LOSSES[name](**{key: value_of(x) for key, x in given.items()})
        except (ValueError, TypeError, KeyError) as error:
            yield "design.loss.parameters", str(error)
    constrained = name == "fast_thermostat" or given.get("slowest") or given.get("least_rate")
    if constrained and optimiser != "SLSQP" and "penalty" not in loss:
        yield (
            "design.optimiser",
            f'must be "SLSQP", since {name} has constraints; or give loss.penalty',
        )
    if "penalty" in loss and not constrained:
        yield "design.loss.penalty", f"{name} has no constraints here: leave this out"


def value_of(x: Any) -> Any:
    """A parameter of a loss: matrices as arrays, complex ones of `real` and `imag`."""
    x = x.model_dump() if isinstance(x, Complex) else x
    if isinstance(x, Mapping):
        return np.asarray(x["real"]) + 1j * np.asarray(x["imag"])
    return np.asarray(x) if isinstance(x, list) else x


def arguments(design: Design, fixed: Mapping[str, Any], function: Any) -> dict[str, Any]:
    """The arguments of `jaxres.design` that a configuration stands for."""
    import jax

    from ._config import load
    from ._design import LBFGS, SciPy

    spec = design.loss
    parameters = {key: value_of(x) for key, x in spec.parameters.items()}
    loss: Any = load(spec.function) if spec.function else LOSSES[spec.name or ""](**parameters)
    loss = losses.Letter(loss, dict(fixed), function)
    loss = loss if spec.penalty is None else losses.Penalised(loss, spec.penalty)
    if design.learning_rate is not None:
        import optax

        optimiser: Any = optax.adam(design.learning_rate)
    else:
        optimiser = LBFGS() if design.optimiser == "lbfgs" else SciPy(design.optimiser)
    defaults = {
        name: p.default
        for name, p in inspect.signature(function or letter.model).parameters.items()
    }
    start = {name: _floats(design.start.get(name, defaults.get(name))) for name in design.bounds}
    return {
        "loss": loss,
        "start": start,
        "bounds": {name: tuple(pair) for name, pair in design.bounds.items()},
        "optimiser": optimiser,
        "key": jax.random.key(design.seed),
        **{k: getattr(design, k) for k in ("steps", "starts", "tol", "target", "errors")},
    }


def _table(x: Any, key: str) -> Mapping[str, Any]:
    value = x.get(key, {}) if isinstance(x, Mapping) else {}
    return value if isinstance(value, Mapping) else {}


def _floats(x: Any) -> Any:
    return np.asarray(x, float) if np.ndim(x) else float(x)


def _number(x: Any) -> bool:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool)
