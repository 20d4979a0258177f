"""Computes work items in this process, or in the processes of an executor."""

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

#: A work item keeps so many messages: enough to see what is wrong, few enough for a store of many items.
MESSAGES = 20


@dataclass(frozen=True)
class Job:
    """What all work items of a sweep share. It is small, and picklable if the user's function is."""

    point: Point
    fixed: Mapping[str, np.ndarray]
    groups: tuple[tuple[str, ...], ...]
    tile: tuple[int, ...]
    block: tuple[int, ...]
    digest: str  # a hash of what the function computes
    threads: int  # the number of threads that compute blocks side by side, in each process
    successful: Mapping[str, int]  # the number that means success, by enumeration


@dataclass(frozen=True)
class Item:
    """A finished work item: its outputs, which of its points failed, and why they failed."""

    outputs: Mapping[str, np.ndarray]
    failed: np.ndarray
    messages: Sequence[str]


def cores() -> int:
    """The number of threads that compute blocks: the cores of a CPU, or 1 on other or several devices.

    A compiled program consists of many small steps and hardly keeps more than one core busy, so each core computes
    blocks of its own.
    """
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # this is known on Linux only
        return os.cpu_count() or 1


class Runner:
    """Computes the work items of a job in this process, on all of its devices or in several threads."""

    def __init__(self, job: Job):
        self.job = job
        self._pool = ThreadPoolExecutor(job.threads)
        self._compiled = None
        self.fixed = {name: jnp.asarray(x) for name, x in job.fixed.items()}
        point = job.point
        # The type belongs to the key, since True and 1 are equal.
        static = tuple((name, type(x), x) for name, x in point.static.items())
        key = (point.function, point.of, static, point.gradient, job.groups, job.digest)
        try:
            self._blocks, self._one = _programs(*key)
        except TypeError:  # a part of the key has no hash, so the programs cannot be kept
            self._blocks, self._one = _programs.__wrapped__(*key)

    def __call__(self, values: Sequence[Mapping[str, np.ndarray]]) -> Item:
        """Computes one work item from its values along every axis."""
        try:
            outputs, raised, messages = self._compute(values), np.zeros(_shape(values), bool), []
        except Exception as error:
            _pass_on_interruption(error)
            outputs, raised, messages = self._one_by_one(values, error)
        return Item(outputs, raised | self._failed(outputs, raised.shape), messages)

    def compile(self, values: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Compiles the program for such work items, and returns the bytes that one of them needs."""
        program, shares = self._program(self._stack(values)[1])
        needed = program.memory_analysis()
        if needed is None:  # some platforms do not report it
            return 0
        return len(shares) * (
            needed.temp_size_in_bytes + needed.output_size_in_bytes + needed.argument_size_in_bytes
        )

    def _program(self, stacked):
        """The compiled program, and the blocks for each thread."""
        parts = {name: np.split(x, self.job.threads) for name, x in stacked.items()}
        shares = [{k: x[i] for k, x in parts.items()} for i in range(self.job.threads)]
        # The precision of JAX may differ between threads, so the arrays are made in this one.
        shares = jax.device_put(shares)
        if self._compiled is None:
            self._compiled = self._blocks.lower(self.fixed, shares[0]).compile()
        return self._compiled, shares

    def _stack(self, values):
        """The places of the blocks in a tile, and their values, stacked along a new first axis.

        Every tile gets the same number of blocks, also at the edges of the grid, and so does every lane: the program is
        compiled once. The spare blocks repeat the last one.
        """
        where, blocks = zip(*blocks_of(values, self.job.block), strict=True)
        lanes = self.job.threads * jax.local_device_count()
        full = math.prod(-(-t // b) for t, b in zip(self.job.tile, self.job.block, strict=True))
        spare = [blocks[-1]] * (-(-full // lanes) * lanes - len(blocks))
        names = blocks[0]
        return where, {name: np.stack([b[name] for b in (*blocks, *spare)]) for name in names}

    def _compute(self, values):
        """The outputs of a work item, put together from those of its blocks."""
        where, stacked = self._stack(values)
        program, shares = self._program(stacked)
        results = list(self._pool.map(lambda x: jax.device_get(program(self.fixed, x)), shares))
        outputs, shape = {}, _shape(values)
        for name in results[0]:
            blocks = np.concatenate([part[name] for part in results])
            outputs[name] = np.empty(shape + blocks.shape[1 + len(shape) :], blocks.dtype)
            for place, block in zip(where, blocks, strict=False):  # spare blocks have no place
                outputs[name][place] = block[tuple(slice(0, s.stop - s.start) for s in place)]
        return outputs

    def _one_by_one(self, values, error):
        """Computes a work item that raised `error` point by point. The points that raise again have failed."""
        shape = _shape(values)
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
                messages.append(f"{_in_words(at)}: {_brief(again)}")
        if not raised.any():
            messages.append(f"computed point by point after: {_brief(error)}")
        more = len(messages) - MESSAGES
        return outputs, raised, messages[:MESSAGES] + ([f"and {more} more"] if more > 0 else [])

    def _failed(self, outputs, shape):
        """Where an output is not finite, or an enumeration is not `successful`."""
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


def _shape(values):
    """The number of points of a work item along each axis."""
    return tuple(len(next(iter(group.values()))) for group in values)


@lru_cache(maxsize=16)
def _programs(function, of, static, gradient, groups, digest) -> tuple[Any, Any]:
    """The jitted functions of many blocks and of one point, kept for all sweeps of the same function.

    The `digest` is part of the key, because a function computes something else when a value in its closure changes.
    """
    point = Point(function, of, {name: x for name, _, x in static}, gradient)

    def nested(fixed, values):
        """One block by a `vmap` for each axis, so that an operation is batched only over axes on which it depends."""

        def evaluate(values):
            return point({**fixed, **values})

        for group in reversed(groups):
            axes = {name: 0 if name in group else None for name in values}
            evaluate = jax.vmap(evaluate, in_axes=(axes,))
        return evaluate(values)

    def share(fixed, blocks):
        """The share of one device: its blocks, one after the other."""
        return jax.lax.map(lambda values: nested(fixed, values), blocks)

    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("blocks",), (AxisType.Auto,), devices=devices)
    own, everything = PartitionSpec("blocks"), PartitionSpec()
    sharded = jax.shard_map(
        share, mesh=mesh, in_specs=(everything, own), out_specs=own, check_vma=False
    )
    return jax.jit(sharded), jax.jit(lambda fixed, values: point({**fixed, **values}))


def _pass_on_interruption(error: Exception) -> None:
    """Raises `KeyboardInterrupt` if Ctrl-C came during a callback: a compiled program reports that as its own error."""
    if "KeyboardInterrupt" in str(error):
        raise KeyboardInterrupt from error


def _brief(error: Exception) -> str:
    """The first and the last line of a message. The last line of a traceback in a callback is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    short = lines if len(lines) < 4 else [lines[0], "...", lines[-1]]
    return f"{type(error).__name__}: {' '.join(line[:300] for line in short)}"


def _in_words(point):
    """The parameters of a point with all their digits."""
    return ", ".join(f"{k}={v:.17g}" if np.isrealobj(v) else f"{k}={v}" for k, v in point.items())


def missing(dtype: Any) -> Any:
    """The value that marks an entry that was not computed."""
    kind = np.dtype(dtype).kind
    return {"f": np.nan, "c": complex(np.nan, np.nan), "b": False, "u": 0}.get(kind, -1)


# --------------------------------------------------------------------------------------------------------------
# In other processes
# --------------------------------------------------------------------------------------------------------------


def pack(job: Job) -> bytes:
    """The job as bytes. A worker unpickles it only after it has switched its precision (see `work`)."""
    try:
        import cloudpickle  # it pickles functions of __main__, which no other process can import, by value

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
    """Whether JAX computes in double precision in this process."""
    return jnp.result_type(float) == jnp.float64


def work(packed: bytes, x64: bool, values: Sequence[Mapping[str, np.ndarray]]) -> Item:
    """Computes one work item in a process of an executor."""
    if double_precision() != x64:
        jax.config.update("jax_enable_x64", x64)
    return _runner(packed)(values)


def run(
    job: Job,
    items: Iterator[tuple[int, Sequence[Mapping[str, np.ndarray]]]],
    executor: Executor | None,
    in_flight: int,
) -> Iterator[tuple[int, Item | Exception]]:
    """Yields the numbers and results of the work items as they are finished, at most `in_flight` of them under way.

    The result of an item that was lost with its worker is the exception.
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
