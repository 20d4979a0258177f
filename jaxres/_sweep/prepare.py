"""A sweep ready to run: checked, planned, laid out and described, with nothing computed yet."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from .._checks import require
from .._fields import Point, Seen, function_name, parameters_of
from .._files import short
from . import arguments as check
from .jaxpr import cost_by_axes, digest, needs_one_thread
from .labels import Labels, provenance
from .layout import Layout, layout
from .manifest import FORMAT
from .model import describe_sweep, is_model
from .parameters import split_parameters
from .plan import Plan, cut
from .run import Job, Runner, cores

#: Results under way may take so many bytes by default, a small part of a computer's memory.
MEMORY = 2**30


@dataclass(frozen=True)
class Prepared:
    """The plan, the job that a worker needs, the form of the results, and the manifest that identifies them."""

    plan: Plan
    job: Job
    layout: Layout
    manifest: dict[str, Any]

    def recut(self, tile: Sequence[int], block: Sequence[int]) -> "Prepared":
        """The same sweep with other tiles and blocks, those of a store."""
        plan = replace(self.plan, tile=tuple(tile), block=tuple(block))
        job = replace(self.job, tile=plan.tile, block=plan.block)
        return replace(self, plan=plan, job=job)

    def measure(self) -> tuple[float, float, int]:
        """The seconds of compiling, the seconds per point, and the bytes of the blocks under way.

        One block for each lane is computed three times; the fastest time counts.
        """
        job = replace(self.job, tile=self.job.block)
        runner, lanes = Runner(job), job.threads * jax.local_device_count()
        values = [
            {name: x[:b] for name, x in group.items()}
            for b, group in zip(job.block, self.plan.axes, strict=True)
        ]
        start = time.perf_counter()
        needed = runner.compile(values)
        compiled = time.perf_counter() - start
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            runner(values)
            seconds.append(time.perf_counter() - start)
        return compiled, min(seconds) / (int(np.prod(job.block)) * lanes), needed


def prepare(
    function: Any,
    axes: Any,
    *,
    of: Callable | None = None,
    fixed: Mapping[str, Any] | None = None,
    gradient: Sequence[str] = (),
    labels: Labels | None = None,
    chunk: Any = None,
    memory: int = MEMORY,
    title: str | None = None,
    config: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
) -> Prepared:
    """Checks the arguments of `jaxres.sweep`, traces the function once, and plans the sweep.

    `config` is the content of the configuration file, if there is one. `elsewhere` is true if other processes compute,
    each in one thread.
    """
    memory = check.check_memory(memory)
    groups, axis_labels = check.check_axes(axes, memory)
    require(
        of is None or callable(of),
        f"Argument `of` must be a function of the model, but is {short(of)}.",
    )
    require(
        title is None or (isinstance(title, str) and check.encodable(title)),
        f"Argument `title` must be a text, but is {short(title)}.",
    )
    gradient = check.check_names("gradient", gradient)
    chunk = check.check_chunk(chunk, groups)
    labels = check.check_labels(labels)
    labels |= {name: x | labels.get(name, {}) for name, x in axis_labels.items()}
    function, defaults, names = parameters_of(function)
    numbers, static = split_parameters(function, defaults, names, groups, fixed, gradient)

    point, seen = Point(function, of, static, gradient), Seen()
    first = {name: x[0] for group in groups for name, x in group.items()}
    parameters = {**numbers, **first}
    trace = jax.make_jaxpr(lambda p: point(p, seen), return_shape=True)
    jaxpr, outputs = trace(parameters)
    check.check_labelled(labels, groups, outputs)

    threads = 1 if needs_one_thread(jaxpr) or elsewhere else cores()
    plan = cut(
        groups,
        cost_by_axes(jaxpr, parameters, [tuple(group) for group in groups]),
        chunk=chunk,
        bytes_per_point=_bytes_per_point(outputs),
        memory=memory,
        lanes=jax.local_device_count() * threads,
        platform=jax.default_backend(),
    )
    job = Job(
        point,
        numbers,
        tuple(map(tuple, groups)),
        plan.tile,
        plan.block,
        digest(jaxpr),
        threads,
        {k: v.index("successful") for k, v in seen.meanings.items() if "successful" in v},
    )
    name = function_name(function) + ("" if of is None else " → " + function_name(of))
    model = describe_sweep(function, of, numbers, static, first, is_model(seen.model))
    attrs = provenance(title or f"Sweep of {name}", numbers, model)
    results = layout(plan, outputs, _derivatives(outputs, gradient), seen.meanings, attrs, labels)
    what = _what(name, plan, job, outputs)
    how = {
        "model": model,
        "hash": _hash(what),
        "chunk": chunk,
        "tile": list(plan.tile),
        "block": list(plan.block),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    given = {} if config is None else {"config": dict(config)}
    return Prepared(plan, job, results, what | how | given)


def _bytes_per_point(outputs):
    """The bytes of all outputs at one point, and one more for `failed`."""
    return 1 + sum(kind.dtype.itemsize * int(np.prod(kind.shape)) for kind in outputs.values())


def _derivatives(outputs, gradient):
    """The output and the parameter of each derivative among the outputs, by the derivative's name."""
    pairs = {f"d{name}_d{p}": (name, p) for name in outputs for p in gradient}
    return {name: pair for name, pair in pairs.items() if name in outputs}


def _what(name, plan, job, outputs):
    """The part of the manifest that decides what is computed."""
    axes = {k: _describe(v) for group in plan.axes for k, v in group.items()}
    numbers = {k: _describe(v) for k, v in job.fixed.items()}
    return {
        "format": FORMAT,
        "function": {"name": name, "digest": job.digest, "jax": jax.__version__},
        "dims": list(plan.dims),
        "shape": list(plan.shape),
        "axes": axes,
        "fixed": numbers | {k: _text(v) for k, v in job.point.static.items()},
        "gradient": list(job.point.gradient),
        "outputs": {k: f"{v.dtype}{list(v.shape)}" for k, v in outputs.items()},
        "dtype": str(np.dtype(jax.numpy.result_type(float))),
        "versions": {k: version(k) for k in ("jaxres", "jax", "numpy")},
    }


def _hash(what):
    """A SHA-256 of what is computed, the same for every version of JAX."""
    kept = {k: v for k, v in what.items() if k not in ("versions", "function", "shape")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _describe(x: np.ndarray) -> Any:
    """The numbers in full if they are few, otherwise their ends and a checksum."""
    if x.ndim == 0:
        return str(x.item()) if np.iscomplexobj(x) else x.item()
    if x.size <= 8:
        return str(x.tolist())
    ends = [str(x.flat[0].item()), str(x.flat[-1].item())]
    sha256 = hashlib.sha256(np.ascontiguousarray(x).data).hexdigest()[:16]
    return {"shape": list(x.shape), "first": ends[0], "last": ends[1], "sha256": sha256}


def _text(x: Any) -> str:
    """The `repr` of a value, without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(x))
