"""Runs a design: the searches with their checkpoints, and the report of the best start."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._checks import require
from .checkpoint import Checkpoint
from .free import put, split
from .prepare import Prepared as Prepared, prepare as prepare
from .result import (
    AT_BOUND,
    FEASIBLE,
    NEAR,
    Design,
    error_bars,
    multipliers,
    projected_norm,
    table,
)
from .scipy import Run, SciPy, _evaluate
from .search import SEARCH_RESULTS, advance, begin, scalar_loss

#: Steps between two checkpoints: few enough to lose little, and as many as one compiled call makes.
CHUNK = 10
#: A note names so many of the parameters that are on a bound: they fit on a line or two.
NAMED = 8


@dataclass(frozen=True)
class Ends:
    """Where the searches ended: each array has one row for each start.

    - `s`, `slopes`: the best points, and the derivatives of the loss there.
    - `results`: the numbers of members of `SEARCH_RESULTS`.
    - `evaluations`: the sum over all starts.
    - `history`: the least loss so far and the norm of its gradient, shape (2, starts, steps).
    - `margins`, `normals`: the constraints and their derivatives; `penalised`: those that are penalties.
    - `norms`, `messages`: the norms of the gradients and the last messages of SciPy's methods.
    """

    s: np.ndarray
    slopes: np.ndarray
    losses: np.ndarray
    results: np.ndarray
    evaluations: int
    history: np.ndarray
    margins: np.ndarray
    normals: np.ndarray
    penalised: np.ndarray | None = None
    norms: np.ndarray | None = None
    messages: list[str] | None = None

    def best(self) -> int:
        """The feasible start of least loss, preferably one that converged; else the one of least violation."""
        slack = np.min(self.margins, axis=1, initial=0.0)
        feasible = slack >= -FEASIBLE
        if not np.any(feasible):
            return int(np.argmax(slack))
        losses = np.where(feasible & np.isfinite(self.losses), self.losses, np.inf)
        least = np.min(losses)
        ended = [_number(SEARCH_RESULTS.converged), _number(SEARCH_RESULTS.reached)]
        same = feasible & (losses <= least + NEAR * max(1.0, abs(least)))
        same &= np.isin(self.results, ended)
        candidates = np.flatnonzero(same if np.any(same) else feasible)
        return int(candidates[np.argmin(losses[candidates])])


def _number(member):
    return int(member._value)


_NAMES = {_number(member): name for name, member in SEARCH_RESULTS._name_to_item.items()}


def _names(results):
    """The members' names of the numbers of `SEARCH_RESULTS`."""
    return [_NAMES[int(result)] for result in results]


def drive(ready: Prepared, *, store: Any = None, progress: Any = None) -> Design:
    """Searches from every start, and returns the best end."""
    require(
        store is None or isinstance(store, str | PathLike),
        f"Argument `store` must be None or the path of a folder, but is {store!r}.",
    )
    require(
        progress is None or isinstance(progress, bool | np.bool_),
        f"Argument `progress` must be None, True or False, but is {progress!r}.",
    )
    checkpoint = None if store is None else Checkpoint(Path(store), ready.manifest)
    search = _one_by_one if isinstance(ready.optimiser, SciPy) else _together
    with _bar(ready, progress) as bar:
        ends = search(ready, checkpoint, bar)
    result = _report(ready, ends)
    if checkpoint is not None:
        checkpoint.finish(
            {
                "loss": result.loss,
                "result": result.result,
                "table": [_finite(row) for row in result.table],
                "report": str(result),
            }
        )
    return result


def _finite(row):
    """A row with None for the numbers that JSON does not hold."""
    if isinstance(row, dict):
        return {name: _finite(value) for name, value in row.items()}
    return None if isinstance(row, float) and not np.isfinite(row) else row


def _bar(ready, progress):
    from tqdm import tqdm

    return tqdm(
        total=ready.max_steps * (len(ready.starts) if isinstance(ready.optimiser, SciPy) else 1),
        unit="step",
        dynamic_ncols=True,
        disable=None if progress is None else not progress,
    )


# --- The searches ---


def _together(ready: Prepared, checkpoint, bar) -> Ends:
    """The search of all starts at once, in compiled calls of `CHUNK` steps."""
    box = ready.free.box
    search = begin(jax.vmap(box.unfold)(ready.starts), ready.optimiser)
    history = np.zeros((2, len(ready.starts), 0))
    saved = {} if checkpoint is None else checkpoint.load()
    if saved:
        history, structure = saved.pop("history"), jax.tree_util.tree_structure(search)
        leaves = [jnp.asarray(saved[str(i)]) for i in range(len(saved))]
        search = jax.tree_util.tree_unflatten(structure, leaves)
        bar.update(history.shape[2])
    while history.shape[2] < ready.max_steps and bool(jnp.any(search.result == 0)):
        search, new, steps = advance(
            search,
            *ready.pieces,
            ready.optimiser,
            jnp.asarray(ready.tol),
            jnp.asarray(ready.target),
            jnp.asarray(ready.max_steps - history.shape[2]),
            CHUNK,
        )
        values = np.where(new.running, np.stack([new.loss, new.norm]), np.nan)
        history = np.concatenate([history, values[:, :, : int(steps)]], axis=2)
        bar.update(int(steps))
        bar.set_postfix(loss=f"{float(jnp.min(search.best.loss)):.6g}")
        if checkpoint is not None:
            leaves = {str(i): x for i, x in enumerate(jax.tree_util.tree_leaves(search))}
            losses, results = np.asarray(search.best.loss), _names(search.result)
            checkpoint.save({"history": history, **leaves}, losses, results, history.shape[2])
    s = np.asarray(jax.vmap(lambda u: box.fold(u)[0])(search.best.u))
    return Ends(
        s=s,
        slopes=np.asarray(search.best.slope),
        losses=np.asarray(search.best.loss),
        results=np.asarray(search.result),
        evaluations=int(np.sum(search.evaluations)),
        history=history,
        margins=np.zeros((len(s), 0)),
        normals=np.zeros((len(s), 0, s.shape[1])),
    )


def _one_by_one(ready: Prepared, checkpoint, bar) -> Ends:
    """The searches by a method of SciPy's, one start after the other."""
    done = {} if checkpoint is None else _unpack(checkpoint.load())

    def evaluate(s):
        bar.update(1)
        return _evaluate(jnp.asarray(s, ready.free.dtype), *ready.pieces)

    for i, start in enumerate(np.asarray(ready.starts, float)):
        if i in done and not _begins_anew(done[i], ready.max_steps):
            continue
        done[i] = Run(
            start=start,
            evaluate=evaluate,
            constraints=len(ready.constraints),
            box=ready.free.box,
            steps=ready.max_steps,
            tol=ready.tol,
            target=ready.target,
            weight=ready.weight,
        ).minimise(ready.optimiser.method)
        if checkpoint is not None:
            packed = {f"{name}.{i}": x for i, run in done.items() for name, x in run.items()}
            results = _names(run["result"] for run in done.values())
            longest = max(len(run["losses"]) for run in done.values())
            checkpoint.save(packed, [run["loss"] for run in done.values()], results, longest)
    runs = [done[i] for i in range(len(ready.starts))]
    lengths = [len(run["losses"]) for run in runs]
    history = np.full((2, len(runs), max(lengths)), np.nan)
    for i, run in enumerate(runs):
        history[:, i, : lengths[i]] = run["losses"], run["norms"]

    def stacked(name):
        return np.stack([run[name] for run in runs])

    return Ends(
        s=stacked("s"),
        slopes=stacked("slope"),
        losses=stacked("loss"),
        results=stacked("result"),
        evaluations=sum(lengths),
        history=history,
        margins=stacked("margins"),
        normals=stacked("normals"),
        penalised=stacked("penalised"),
        norms=stacked("norm"),
        messages=[str(run["message"]) for run in runs],
    )


def _unpack(arrays):
    """The starts that a checkpoint has, by their numbers."""
    done: dict[int, dict[str, Any]] = {}
    for key, x in arrays.items():
        name, i = key.rsplit(".", 1)
        done.setdefault(int(i), {})[name] = x
    return done


def _begins_anew(run, max_steps):
    """Whether a start had too few steps: it begins anew, since SciPy's methods cannot go on from where they ended."""
    unfinished = run["result"] == _number(SEARCH_RESULTS.unfinished)
    return unfinished and len(run["losses"]) < max_steps


# --- The report ---


def _report(ready: Prepared, ends: Ends) -> Design:
    """The best end, with its gradients, sensitivities and notes."""
    free, box, best = ready.free, ready.free.box, ends.best()
    s, slope, margins, normals = (
        ends.s[best],
        ends.slopes[best],
        ends.margins[best],
        ends.normals[best],
    )
    # on a bound it may lie a rounding outside, and would be refused as a start
    x = np.clip(np.asarray(box.physical(jnp.asarray(s, free.dtype))), box.low, box.high)
    vector = jnp.asarray(x, free.dtype)
    size = np.asarray(box.slope(vector))
    inside = box.touching(s, AT_BOUND) == 0
    errors, no_errors = np.full(x.size, np.nan), None
    if ready.errors is not None:
        errors, no_errors = _errors(ready, vector, inside, size)
    names = ready.constraints if ready.weight is None else ()
    prices = multipliers(box, s, slope, margins, normals)
    norm = projected_norm(box, s, slope) if ends.norms is None else float(ends.norms[best])
    results = _names(ends.results)
    message = str(SEARCH_RESULTS[getattr(SEARCH_RESULTS, results[best])])
    if ends.messages is not None:
        message = f"{message} SciPy: {ends.messages[best]}"
    return Design(
        model=put(free.model, free.static(), vector),
        loss=float(ends.losses[best]),
        result=results[best],
        message=message,
        gradient_norm=norm,
        parameters=split(free.static(), x),
        table=table(free, x, slope / size, errors, dict(zip(names, normals / size, strict=True))),
        constraints=dict(zip(names, margins.tolist(), strict=True)),
        prices=dict(zip(names, prices.tolist(), strict=True)),
        evaluations=ends.evaluations,
        losses=ends.losses,
        results=results,
        ends=np.asarray(jax.vmap(box.physical)(jnp.asarray(ends.s, free.dtype))),
        history={"loss": ends.history[0], "gradient_norm": ends.history[1]},
        notes=_notes(ready, ends, best, inside, no_errors),
    )


def _notes(ready, ends, best, inside, no_errors):
    notes = []
    if not np.all(inside):
        held = [name for name, free in zip(ready.free.entries, inside, strict=True) if not free]
        more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
        notes.append(
            f"on a bound: {', '.join(held[:NAMED])}{more}. Where the gradient points outwards, a wider bound would "
            "lower the loss."
        )
    if ready.weight is not None and ends.penalised is not None:
        slacks = zip(ready.constraints, ends.penalised[best], strict=True)
        each = ", ".join(f"{name}, room {slack:.3g}" for name, slack in slacks)
        notes.append(f"penalised: {each}")
    if no_errors:
        notes.append(no_errors)
    failed = ends.results == _number(SEARCH_RESULTS.failed)
    if np.any(failed) and not failed[best]:
        notes.append(f"{np.sum(failed)} starts failed: no finite loss.")
    return notes


@eqx.filter_jit
def _hessian(x, loss, model, shapes):
    def value(x):
        out = scalar_loss(loss, model, shapes, x)
        return out[0] if isinstance(out, tuple) else out

    return jax.hessian(value)(x)


def _errors(ready, x, inside, size):
    """The error bars, or NaN and the reason why there are none."""
    try:
        hessian = _hessian(x, ready.loss, ready.free.model, ready.free.static())
    except NotImplementedError as error:
        return np.full(x.size, np.nan), (
            f"no error bars: the loss has no second derivative ({str(error).split('.')[0]})."
        )
    return error_bars(np.asarray(hessian), ready.errors, inside, size)
