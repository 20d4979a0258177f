"""Runs a design: checks, starts, steps with checkpoints, and the report of the best start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._checks import as_count, as_scalar, concrete, require
from .._fields import function_name
from ..losses import Penalised
from .checkpoint import Checkpoint
from .free import Free, put
from .result import AT_BOUND, FEASIBLE, Design, error_bars, multipliers, projected_norm, table
from .scipy import SciPy, _evaluate, minimise
from .search import LBFGS, SEARCH_RESULTS, advance, begin, scalar_loss

#: steps between two checkpoints
CHUNK = 10
_NAMES = sorted(
    SEARCH_RESULTS._name_to_item, key=lambda name: int(getattr(SEARCH_RESULTS, name)._value)
)


@dataclass(frozen=True)
class Prepared:
    """A checked design."""

    loss: Any
    free: Free
    optimiser: Any
    max_steps: int
    tol: float
    target: float
    errors: float | None
    starts: Any  # s of every start, shape (starts, n)
    constraints: tuple[str, ...]
    weight: float | None  # of the constraints, where SLSQP sees the parts of a penalised loss
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def pieces(self) -> tuple:
        """What the compiled functions take."""
        loss = self.loss if self.weight is None else self.loss.loss
        return loss, self.free.model, self.free.static(), self.free.box


def prepare(
    loss: Any,
    start: Any,
    *,
    bounds: Any,
    optimiser: Any = LBFGS(),
    max_steps: Any = 200,
    starts: Any = 1,
    key: Any = None,
    tol: Any = 1e-7,
    target: Any = None,
    errors: Any = None,
    config: Any = None,
) -> Prepared:
    """Checks everything; nothing is compiled."""
    import optax

    require(callable(loss), f"Argument `loss` must be a function of the model, but is {loss!r}.")
    max_steps, starts = as_count("max_steps", max_steps, 1), as_count("starts", starts, 1)
    tol = _number("tol", tol, positive=True)
    target = None if target is None else _number("target", target)
    errors = None if errors is None else _number("errors", errors)
    require(
        errors is None or errors > 0,
        f"Argument `errors` must be None or a positive rise of the loss, but is {errors!r}. Use 0.5 for a negative "
        "log-likelihood.",
    )
    key = _key(key)
    require(
        isinstance(optimiser, LBFGS | SciPy | optax.GradientTransformation),
        "Argument `optimiser` must be jaxres.LBFGS(), jaxres.SciPy(...) or an optax transformation such as "
        f"optax.adam(0.05), but is {optimiser!r}.",
    )
    free = Free(start, bounds)
    constraints, weight = _check_loss(loss, free), None
    if isinstance(loss, Penalised) and optimiser == SciPy("SLSQP"):
        constraints, weight = _check_loss(loss.loss, free), float(loss.weight)
    require(
        not constraints or optimiser == SciPy("SLSQP"),
        f"Argument `optimiser` must be jaxres.SciPy('SLSQP'), since the loss has constraints "
        f"({', '.join(constraints)}), but is {optimiser!r}. Or make them part of the loss, with "
        "jaxres.losses.Penalised(loss).",
    )
    s = free.box.scaled(jnp.asarray(free.x, free.dtype))
    manifest = {
        "loss": _describe(loss),
        "bounds": {name: _plain(pair) for name, pair in bounds.items()},
        "start": [float(x) for x in free.x],
        "entries": free.entries,
        "optimiser": _describe(optimiser),
        "starts": starts,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "dtype": str(np.dtype(free.dtype)),
        "max_steps": max_steps,
        "tol": tol,
        "target": target,
        "versions": {name: version(name) for name in ("jaxres", "jax")},
        "config": config,
    }
    return Prepared(
        loss=loss,
        free=free,
        optimiser=optimiser,
        max_steps=max_steps,
        tol=tol,
        target=-np.inf if target is None else target,
        errors=errors,
        starts=free.box.draw(key, s, starts),
        constraints=constraints,
        weight=weight,
        manifest=manifest,
    )


def _number(name, x, **sign):
    value = as_scalar(name, x, **sign)
    require(
        concrete(value),
        f"Argument `{name}` must be a number, but is traced. Call jaxres.design outside jit, grad and vmap.",
    )
    return float(value)


def _key(key):
    if key is None:
        return jax.random.key(0)
    kind = key.dtype if isinstance(key, jax.Array | np.ndarray) else None
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    require(
        concrete(key)
        and ((typed and key.shape == ()) or (kind == np.uint32 and key.shape == (2,))),
        f"Argument `key` must be None or one key, as jax.random.key(0) is, but is {key!r}.",
    )
    return key


def _check_loss(loss, free):
    """The names of the constraints; refuses what is no loss."""
    x = jnp.asarray(free.x, free.dtype)
    out: Any = eqx.filter_eval_shape(scalar_loss, loss, free.model, free.static(), x)
    value, margins = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
    ok = isinstance(margins, Mapping) and all(
        getattr(v, "shape", None) == () and jnp.issubdtype(jnp.result_type(v), jnp.floating)
        for v in (value, *margins.values())
    )
    require(
        ok,
        "Argument `loss` must return one real number, or that and a dict of real numbers that must not be negative, "
        f"but returns {out}.",
    )
    return tuple(sorted(margins))  # jit hands dicts over in this order


def _describe(x):
    """An object in words that are the same in every process."""
    if isinstance(x, eqx.Module):
        fields = {k: _plain(v) for k, v in vars(x).items()}
        inside = ", ".join(f"{k}={v}" for k, v in fields.items())
        return f"{type(x).__name__}({inside})"
    # optax's transformations are pairs of functions: told by their names and what they close over
    return ", ".join(map(_function, x)) if isinstance(x, tuple) else _function(x)


def _function(x):
    """A function by its name, its defaults and what it closes over, as far as that can be told in words."""
    if not callable(x) or isinstance(x, type):
        return (
            str(_plain(x)) if isinstance(x, bool | int | float | str | None) else type(x).__name__
        )
    inside = [cell.cell_contents for cell in getattr(x, "__closure__", None) or ()]
    parts = [f for y in inside for f in (y if isinstance(y, tuple | list) else [y])]
    return f"{function_name(x)}({', '.join(map(_function, parts))})"


def _plain(x):
    if isinstance(x, tuple | list):
        return [_plain(v) for v in x]
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, eqx.Module) or callable(x):
        return _describe(x)
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        return np.asarray(x).tolist() if not np.iscomplexobj(x) else str(np.asarray(x).tolist())
    return x if isinstance(x, bool | int | float | str | None) else repr(x)


# --------------------------------------------------------------------------------------------------------------


def drive(ready: Prepared, *, store: Any = None, progress: Any = None) -> Design:
    """Searches, and reports."""
    require(
        store is None or isinstance(store, str | PathLike),
        f"Argument `store` must be None or the path of a folder, but is {store!r}.",
    )
    require(
        progress is None or isinstance(progress, bool | np.bool_),
        f"Argument `progress` must be None, True or False, but is {progress!r}.",
    )
    kept = None if store is None else Checkpoint(Path(store), ready.manifest)
    with _bar(ready, progress) as bar:
        found = (_scipy if isinstance(ready.optimiser, SciPy) else _together)(ready, kept, bar)
    result = _report(ready, **found)
    if kept is not None:
        kept.finish(
            {
                "loss": result.loss,
                "result": result.result,
                "table": [_finite(row) for row in result.table],
                "report": str(result),
            }
        )
    return result


def _finite(row):
    """What JSON can hold of a row."""
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


def _together(ready, kept, bar):
    search = begin(jax.vmap(ready.free.box.unfold)(ready.starts), ready.optimiser)
    count = len(ready.starts)
    history = np.zeros((2, count, 0))
    saved = {} if kept is None else kept.load()
    if saved:
        history, form = saved.pop("history"), jax.tree_util.tree_structure(search)
        leaves = [jnp.asarray(saved[str(i)]) for i in range(len(saved))]
        search = jax.tree_util.tree_unflatten(form, leaves)
        bar.update(history.shape[2])
    while history.shape[2] < ready.max_steps and bool(jnp.any(search.result == 0)):
        loss, model, shapes, box = ready.pieces
        search, new, k = advance(
            search,
            loss,
            model,
            shapes,
            box,
            ready.optimiser,
            jnp.asarray(ready.tol),
            jnp.asarray(ready.target),
            jnp.asarray(ready.max_steps - history.shape[2]),
            CHUNK,
        )
        *values, running = (np.asarray(x)[:, : int(k)] for x in new)
        values = np.where(running, np.stack(values), np.nan)  # nothing after a search has ended
        history = np.concatenate([history, values], axis=2)
        bar.update(int(k))
        bar.set_postfix(loss=f"{float(jnp.min(search.best.loss)):.6g}")
        if kept is not None:
            leaves = {str(i): x for i, x in enumerate(jax.tree_util.tree_leaves(search))}
            losses, said = np.asarray(search.best.loss), _said(search.result)
            kept.save({"history": history, **leaves}, losses, said, history.shape[2])
    s = np.asarray(jax.vmap(lambda u: ready.free.box.fold(u)[0])(search.best.u))
    return {
        "s": s,
        "slopes": np.asarray(search.best.slope),
        "losses": np.asarray(search.best.loss),
        "results": np.asarray(search.result),
        "evaluations": int(np.sum(search.evaluations)),
        "history": history,
        "margins": np.zeros((count, 0)),
        "normals": np.zeros((count, 0, s.shape[1])),
    }


def _scipy(ready, kept, bar):
    done: dict[int, dict[str, Any]] = {}
    for key, x in ({} if kept is None else kept.load()).items():
        name, i = key.rsplit(".", 1)
        done.setdefault(int(i), {})[name] = x
    again = int(SEARCH_RESULTS.unfinished._value)

    def evaluate(s):
        bar.update(1)
        return _evaluate(jnp.asarray(s, ready.free.dtype), *ready.pieces)

    for i, start in enumerate(np.asarray(ready.starts, float)):
        # one that had too few steps begins anew: SciPy's methods cannot go on
        if i in done and (done[i]["result"] != again or len(done[i]["losses"]) >= ready.max_steps):
            continue
        done[i] = minimise(
            start,
            evaluate,
            len(ready.constraints),
            ready.free.box,
            ready.optimiser.method,
            ready.max_steps,
            ready.tol,
            ready.target,
            ready.weight,
        )
        if kept is not None:
            packed = {f"{k}.{i}": v for i, run in done.items() for k, v in run.items()}
            said = _said([run["result"] for run in done.values()])
            longest = max(len(run["losses"]) for run in done.values())
            kept.save(packed, [run["loss"] for run in done.values()], said, longest)
    runs = [done[i] for i in range(len(ready.starts))]
    longest = max(len(run["losses"]) for run in runs)
    history = np.full((2, len(runs), longest), np.nan)
    for i, run in enumerate(runs):
        history[:, i, : len(run["losses"])] = run["losses"], run["norms"]
    return {
        "s": np.stack([run["s"] for run in runs]),
        "slopes": np.stack([run["slope"] for run in runs]),
        "losses": np.asarray([run["loss"] for run in runs]),
        "results": np.asarray([run["result"] for run in runs]),
        "evaluations": sum(len(run["losses"]) for run in runs),
        "history": history,
        "margins": np.stack([run["margins"] for run in runs]),
        "normals": np.stack([run["normals"] for run in runs]),
        "penalised": np.stack([run["penalised"] for run in runs]),
        "norms": [run["norm"] for run in runs],
        "messages": [str(run["message"]) for run in runs],
    }


def _said(results):
    """Outcomes by name."""
    return [_NAMES[int(result)] for result in results]


def _report(
    ready,
    *,
    s,
    slopes,
    losses,
    results,
    evaluations,
    history,
    margins,
    normals,
    penalised=None,
    norms=None,
    messages=None,
) -> Design:
    free, box = ready.free, ready.free.box
    room = np.min(margins, axis=1, initial=0.0)
    key = np.where(np.isfinite(losses), losses, np.inf)
    candidates = np.flatnonzero(room >= -FEASIBLE)
    best = int(candidates[np.argmin(key[candidates])]) if candidates.size else int(np.argmax(room))
    # of starts that tell the same, one that converged
    same = (key <= key[best] + 1e-6 * max(1.0, abs(key[best]))) & (room >= -FEASIBLE)
    same &= np.isin(
        results, [int(o._value) for o in (SEARCH_RESULTS.converged, SEARCH_RESULTS.reached)]
    )
    if np.any(same):
        best = int(np.flatnonzero(same)[np.argmin(key[same])])
    # on a bound it may be a rounding outside, and would be refused as a start
    x = np.clip(np.asarray(box.physical(jnp.asarray(s[best], free.dtype))), box.low, box.high)
    size = np.asarray(box.slope(jnp.asarray(x, free.dtype)))
    gradient = slopes[best] / size
    names = ready.constraints if ready.weight is None else ()
    rooms: dict[str, np.ndarray] = dict(zip(names, normals[best] / size, strict=True))
    prices = multipliers(box, s[best], slopes[best], margins[best], normals[best])
    result = _NAMES[int(results[best])]
    notes, error = [], np.full(x.size, np.nan)
    inside = box.touching(s[best], AT_BOUND) == 0
    if not np.all(inside):
        held = [n for n, i in zip(free.entries, inside, strict=True) if not i]
        more = f" and {len(held) - 8} more" if len(held) > 8 else ""
        notes.append(
            f"on a bound: {', '.join(held[:8])}{more}. Where the gradient points outwards, a wider bound would lower "
            "the loss."
        )
    if ready.weight is not None and penalised is not None:
        left = zip(ready.constraints, penalised[best], strict=True)
        notes.append("penalised: " + ", ".join(f"{name}, room {room:.3g}" for name, room in left))
    if ready.errors is not None:
        error, note = _errors(ready, x, inside)
        notes += [note] if note else []
    if np.any(results == int(SEARCH_RESULTS.failed._value)) and result != "failed":
        notes.append(
            f"{int(np.sum(results == int(SEARCH_RESULTS.failed._value)))} starts failed: no finite loss."
        )
    model = put(free.model, free.static(), jnp.asarray(x, free.dtype))
    values, begin_at = {}, 0
    for name, shape in free.static():
        size = int(np.prod(shape))
        values[name] = x[begin_at : begin_at + size].reshape(shape)
        begin_at += size
    said = str(SEARCH_RESULTS[getattr(SEARCH_RESULTS, result)])
    return Design(
        model=model,
        loss=float(losses[best]),
        result=result,
        message=said if messages is None else f"{said} SciPy: {messages[best]}",
        gradient_norm=projected_norm(box, s[best], slopes[best])
        if norms is None
        else float(norms[best]),
        parameters=values,
        table=table(free, x, gradient, error, rooms),
        constraints=dict(zip(names, margins[best].tolist(), strict=True)),
        prices=dict(zip(names, prices.tolist(), strict=True)),
        evaluations=evaluations,
        losses=losses,
        results=_said(results),
        ends=np.asarray(jax.vmap(box.physical)(jnp.asarray(s, free.dtype))),
        history={"loss": history[0], "gradient_norm": history[1]},
        notes=notes,
    )


@eqx.filter_jit
def _hessian(x, loss, model, shapes):
    def value(x):
        out = scalar_loss(loss, model, shapes, x)
        return out[0] if isinstance(out, tuple) else out

    return jax.hessian(value)(x)


def _errors(ready, x, inside):
    free = ready.free
    try:
        H = np.asarray(_hessian(jnp.asarray(x, free.dtype), ready.loss, free.model, free.static()))
    except NotImplementedError as error:
        return np.full(x.size, np.nan), (
            f"no error bars: the loss has no second derivative ({str(error).split('.')[0]})."
        )
    size = np.asarray(free.box.slope(jnp.asarray(x, free.dtype)))
    return error_bars(H, ready.errors, inside, size)
