"""Computes work items: here, or in the processes of an executor."""

import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from .._fields import Point
from .plan import blocks_of

#: messages kept of one work item
MESSAGES = 20


@dataclass(frozen=True)
class Job:
    """What all work items of a sweep share; small, and picklable if the user's function is."""

    point: Point
    fixed: Mapping[str, np.ndarray]
    groups: tuple[tuple[str, ...], ...]
    tile: tuple[int, ...]
    block: tuple[int, ...]
    digest: str  # of what the function does
    threads: int  # that compute blocks side by side, in each process
    successful: Mapping[str, int]  # the code of success, of every output that is an enumeration


@dataclass(frozen=True)
class Item:
    """A finished work item: outputs on its part of the grid, which of its points failed, and why."""

    outputs: Mapping[str, np.ndarray]
    failed: np.ndarray
    messages: Sequence[str]


def cores() -> int:
    """The cores of the processor that this process may use, if that is all that computes here; otherwise 1.

    A program for a CPU uses one core, two at the most, however many there are: it is made of many small steps. So
    blocks are computed in as many threads as there are cores.
    """
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner:
    """Computes the work items of a job in this process: on all of its devices, or in several threads."""

    def __init__(self, job: Job):
        self.job = job
        self._pool = ThreadPoolExecutor(job.threads)
        self._compiled = None
        self.fixed = {name: jnp.asarray(x) for name, x in job.fixed.items()}
        point = job.point
        static = tuple((name, type(x), x) for name, x in point.static.items())  # True is not 1 here
        key = (point.function, point.of, static, point.gradient, job.groups, job.digest)
        try:  # compiled once for all sweeps of a function
            self._blocks, self._one = _programs(*key)
        except TypeError:  # something in it has no hash
            self._blocks, self._one = _programs.__wrapped__(*key)

    def __call__(self, values: Sequence[Mapping[str, np.ndarray]]) -> Item:
        """One work item, from its values along every axis."""
        try:
            outputs, messages = self._compute(values), []
            raised = np.zeros(self._shape(values), bool)
        except Exception as error:
            _pass_on_interruption(error)
            outputs, raised, messages = self._one_by_one(values, error)
        return Item(outputs, raised | self._failed(outputs, raised.shape), messages)

    def compile(self, values: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Compiles for such work items; the bytes that one needs."""
        program, shares = self._program(self._stack(values)[1])
        needed = program.memory_analysis()
        if needed is None:  # not told by every platform
            return 0
        return len(shares) * (
            needed.temp_size_in_bytes + needed.output_size_in_bytes + needed.argument_size_in_bytes
        )

    def _program(self, stacked):
        """The compiled program, and what each thread gives it."""
        shares = [
            dict(zip(stacked, parts, strict=True))
            for parts in zip(
                *(np.split(x, self.job.threads) for x in stacked.values()), strict=True
            )
        ]
        # made of arrays here: another thread need not have the precision that this one has
        shares = jax.device_put(shares)
        if self._compiled is None:
            self._compiled = self._blocks.lower(self.fixed, shares[0]).compile()
        return self._compiled, shares

    def _shape(self, values):
        return tuple(len(next(iter(group.values()))) for group in values)

    def _stack(self, values):
        """Where the blocks stand in a tile, and their values, one behind the other."""
        where, blocks = zip(*blocks_of(values, self.job.block), strict=True)
        # every tile the same number of blocks, at the grid's edges too, and so every lane: it is compiled once
        lanes = self.job.threads * jax.local_device_count()
        full = math.prod(-(-t // b) for t, b in zip(self.job.tile, self.job.block, strict=True))
        spare = -(-full // lanes) * lanes - len(blocks)
        stacked = {
            name: np.stack([block[name] for block in (*blocks, *[blocks[-1]] * spare)])
            for name in blocks[0]
        }
        return where, stacked

    def _compute(self, values):
        where, stacked = self._stack(values)
        program, shares = self._program(stacked)
        results = list(self._pool.map(lambda x: jax.device_get(program(self.fixed, x)), shares))
        outputs = {}
        for name in results[0]:
            result = np.concatenate([part[name] for part in results])
            outputs[name] = np.empty(
                self._shape(values) + result.shape[1 + len(values) :], result.dtype
            )
            for place, part in zip(where, result, strict=False):
                outputs[name][place] = part[tuple(slice(0, s.stop - s.start) for s in place)]
        return outputs

    def _one_by_one(self, values, error):
        """A work item that raised, point by point: those that raise again are the ones that failed."""
        shape = self._shape(values)
        points = {name: x for group in values for name, x in group.items()}
        kinds = jax.eval_shape(
            self._one, self.fixed, {k: jnp.asarray(x[0]) for k, x in points.items()}
        )
        outputs = {k: np.full(shape + v.shape, missing(v.dtype), v.dtype) for k, v in kinds.items()}
        raised, messages = np.zeros(shape, bool), []
        for index in np.ndindex(*shape):
            at = {k: x[i] for i, group in zip(index, values, strict=True) for k, x in group.items()}
            try:
                for name, value in jax.device_get(self._one(self.fixed, at)).items():
                    outputs[name][index] = value
            except Exception as again:
                _pass_on_interruption(again)
                raised[index] = True
                named = ", ".join(
                    f"{k}={v:.17g}" if np.isrealobj(v) else f"{k}={v}" for k, v in at.items()
                )
                messages.append(f"{named}: {_brief(again)}")
        if not raised.any():
            messages.append(f"computed point by point after: {_brief(error)}")
        more = len(messages) - MESSAGES
        return outputs, raised, messages[:MESSAGES] + ([f"and {more} more"] if more > 0 else [])

    def _failed(self, outputs, shape):
        failed = np.zeros(shape, bool)
        for name, value in outputs.items():
            if name in self.job.successful:
                bad = value != self.job.successful[name]
            elif value.dtype.kind in "fc":
                bad = ~np.isfinite(value)
            else:
                continue
            failed |= bad.any(axis=tuple(range(len(shape), bad.ndim)))
        return failed


@lru_cache(maxsize=16)
def _programs(function, of, static, gradient, groups, digest) -> tuple[Any, Any]:
    """The compiled functions of many blocks, and of one point.

    They may be kept for as long as the `digest` is the same: a function can change with what it closes over.
    """
    point = Point(function, of, {name: x for name, _, x in static}, gradient)

    def nested(fixed, values):
        """One block: a `vmap` for each axis, so that an operation is batched only over what it depends on."""

        def evaluate(values):
            return point({**fixed, **values})

        for group in reversed(groups):
            axes = {name: 0 if name in group else None for name in values}
            evaluate = jax.vmap(evaluate, in_axes=(axes,))
        return evaluate(values)

    def share(fixed, blocks):
        """Blocks one after the other: what each device does with its share of them."""
        return jax.lax.map(lambda values: nested(fixed, values), blocks)

    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("blocks",), (AxisType.Auto,), devices=devices)
    own, everything = PartitionSpec("blocks"), PartitionSpec()
    sharded = jax.shard_map(
        share, mesh=mesh, in_specs=(everything, own), out_specs=own, check_vma=False
    )
    return jax.jit(sharded), jax.jit(lambda fixed, values: point({**fixed, **values}))


def _pass_on_interruption(error: Exception) -> None:
    """Ctrl-C while Python is called back by the compiled program comes out of it as an error of that."""
    if "KeyboardInterrupt" in str(error):
        raise KeyboardInterrupt from error


def _brief(error: Exception) -> str:
    """The first line of a message and the last: where it holds the traceback of a callback, the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    short = lines if len(lines) < 4 else [lines[0], "...", lines[-1]]
    return f"{type(error).__name__}: {' '.join(line[:300] for line in short)}"


def missing(dtype: Any) -> Any:
    """What stands for a value that there is none of."""
    kind = np.dtype(dtype).kind
    return {"f": np.nan, "c": complex(np.nan, np.nan), "b": False, "u": 0}.get(kind, -1)


# --------------------------------------------------------------------------------------------------------------
# In other processes
# --------------------------------------------------------------------------------------------------------------


def pack(job: Job) -> bytes:
    """The job as bytes, so that a process switches its precision before it makes an array of it."""
    try:
        # pickles what no other process can import, such as functions of __main__, by value
        import cloudpickle

        dumps = cloudpickle.dumps
    except ModuleNotFoundError:
        dumps = pickle.dumps
    try:
        return dumps(job)
    except Exception as error:
        raise ValueError(
            f"Argument `function` must be picklable to run with an `executor`, but is not: {error}. Define it in a "
            "module that the workers can import, hand over what it needs as `fixed`, or install cloudpickle."
        ) from error


@lru_cache(maxsize=8)
def _runner(packed: bytes) -> Runner:
    return Runner(pickle.loads(packed))


def double_precision() -> bool:
    """Whether JAX computes in double precision here."""
    return jnp.result_type(float) == jnp.float64


def work(packed: bytes, x64: bool, values: Sequence[Mapping[str, np.ndarray]]) -> Item:
    """One work item in a process of an executor."""
    if double_precision() != x64:
        jax.config.update("jax_enable_x64", x64)
    return _runner(packed)(values)


def run(
    job: Job,
    items: Iterator[tuple[int, Sequence[Mapping[str, np.ndarray]]]],
    executor: Executor | None,
    in_flight: int,
) -> Iterator[tuple[int, Item | Exception]]:
    """The work items as they get done, in any order, at most `in_flight` of them under way.

    An exception stands for an item that was lost with its worker.
    """
    if executor is None:
        runner = Runner(job)
        for number, values in items:
            yield number, runner(values)
        return
    packed, x64 = pack(job), double_precision()
    pending = {}
    try:
        while True:
            for number, values in islice(items, in_flight - len(pending)):
                pending[executor.submit(work, packed, x64, values)] = number
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                number = pending.pop(future)
                try:
                    result: Item | Exception = future.result()
                except BrokenExecutor:
                    raise
                except (Exception, CancelledError) as error:
                    result = error
                yield number, result
    finally:
        for future in pending:
            future.cancel()
