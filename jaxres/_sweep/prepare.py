"""A sweep ready to run: planned, laid out and described, and nothing computed yet."""

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
from .labels import Labels, provenance
from .layout import Layout, layout
from .model import describe_sweep, is_model
from .plan import Plan, cut, profile
from .run import Job, Runner, cores
from .store import FORMAT

MEMORY = 2**30


@dataclass(frozen=True)
class Prepared:
    """The plan, what a worker needs, the form of the results, and what identifies them."""

    plan: Plan
    job: Job
    layout: Layout
    manifest: dict[str, Any]

    def recut(self, tile: Sequence[int], block: Sequence[int]) -> "Prepared":
        """The same sweep, cut as a store was."""
        plan = replace(self.plan, tile=tuple(tile), block=tuple(block))
        job = replace(self.job, tile=plan.tile, block=plan.block)
        return replace(self, plan=plan, job=job)

    def measure(self) -> tuple[float, float, int]:
        """Seconds of compiling, seconds a point, and bytes of blocks under way, from one block for each lane."""
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
    """Checks the arguments of `jaxres.sweep` and plans it; `elsewhere`: for other processes, of one thread each."""
    memory = check.check_memory(memory)
    groups, about = check.check_axes(axes, memory)
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
    labels |= {name: x | labels.get(name, {}) for name, x in about.items()}
    function, defaults, names = parameters_of(function)
    numbers, static = check.split_parameters(function, defaults, names, groups, fixed, gradient)
    point = Point(function, of, static, gradient)

    first = {name: x[0] for group in groups for name, x in group.items()}
    parameters = {**numbers, **first}
    seen = Seen()
    costs, outputs = profile(
        lambda p: point(p, seen), parameters, [tuple(group) for group in groups]
    )
    meanings = seen.meanings
    derivatives = {
        f"d{name}_d{p}": (name, p)
        for name in outputs
        for p in gradient
        if f"d{name}_d{p}" in outputs
    }
    swept = [name for group in groups for name in group]
    unknown = sorted({*labels} - {*outputs, *swept})
    require(
        not unknown,
        f"Argument `labels` must name axes or outputs, but {unknown} are none. There are {[*swept, *outputs]}.",
    )
    sizes = [kind.dtype.itemsize * int(np.prod(kind.shape)) for kind in outputs.values()]
    threads = 1 if costs.alone or elsewhere else cores()
    plan = cut(
        groups,
        costs,
        chunk=chunk,
        bytes_per_point=sum(sizes) + 1,
        memory=memory,
        lanes=jax.local_device_count() * threads,
        platform=jax.default_backend(),
    )
    name = function_name(function) + ("" if of is None else " → " + function_name(of))
    model = describe_sweep(function, of, numbers, static, first, is_model(seen.model))
    attrs = provenance(title or f"Sweep of {name}", numbers, model)
    results = layout(plan, outputs, derivatives, meanings, attrs, labels)
    successful = {k: v.index("successful") for k, v in meanings.items() if "successful" in v}
    job = Job(
        point,
        numbers,
        tuple(map(tuple, groups)),
        plan.tile,
        plan.block,
        costs.digest,
        threads,
        successful,
    )
    what = {
        "format": FORMAT,
        "function": {"name": name, "digest": costs.digest, "jax": jax.__version__},
        "dims": list(plan.dims),
        "shape": list(plan.shape),
        "axes": {k: _describe(v) for g in groups for k, v in g.items()},
        "fixed": {k: _describe(v) for k, v in numbers.items()}
        | {k: _text(v) for k, v in static.items()},
        "gradient": list(gradient),
        "outputs": {k: f"{v.dtype}{list(v.shape)}" for k, v in outputs.items()},
        "dtype": str(np.dtype(jax.numpy.result_type(float))),
        "versions": {k: version(k) for k in ("jaxres", "jax", "numpy")},
    }
    identity = {k: v for k, v in what.items() if k not in ("versions", "function", "shape")}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    how = {
        "model": model,
        "hash": digest,
        "chunk": chunk,
        "tile": list(plan.tile),
        "block": list(plan.block),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if config is not None:
        how["config"] = dict(config)
    return Prepared(plan, job, results, what | how)


def _describe(x: np.ndarray) -> Any:
    """Numbers in full where there are few, otherwise what tells them apart."""
    if x.ndim == 0:
        return str(x.item()) if np.iscomplexobj(x) else x.item()
    if x.size <= 8:
        return str(x.tolist())
    ends = [str(x.flat[0].item()), str(x.flat[-1].item())]
    digest = hashlib.sha256(np.ascontiguousarray(x).data).hexdigest()[:16]
    return {"shape": list(x.shape), "first": ends[0], "last": ends[1], "sha256": digest}


def _text(x: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(x))
