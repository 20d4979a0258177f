r"""The search: many starts at once, each with a gradient at every step.

A step evaluates the loss and its gradient once for every start, at a trial point u + t d. With a first-order method of
optax the trial point is always accepted. With `LBFGS` it is accepted where the weak Wolfe conditions hold,

    f(u + t d) ≤ f(u) + c₁ t f'(u)·d      (the loss is low enough),
    f'(u + t d)·d ≥ c₂ f'(u)·d            (the slope is flat enough),

else the next step tries another t, by interpolation, bisection, or fourfold (Lewis and Overton, Math. Program. 141, 135
(2013)). So no start waits for the line search of another, and the loss is compiled once. A trial point where the loss
is not finite counts as too far.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .free import Box, put

#: c₁ and c₂, the usual ones of quasi-Newton methods: nearly every full step is accepted
ARMIJO, WOLFE = 1e-4, 0.9
#: A first trial changes no coordinate by more, since nothing is known yet about how the loss bends.
FIRST = 0.2
#: A trial that was too short is followed by one longer by this factor: 30 trials reach any length.
GROW = 4.0
#: A search stalls after so many trial points along one direction: bisection has then used up single precision.
TRIES = 30
#: The second condition is asked of so many trial points along a direction. Beside a wall or a singularity of the loss
#: no point need meet it: then a lower loss is enough.
PATIENCE = 8


class LBFGS(eqx.Module):
    """The quasi-Newton method of limited memory, with optax's memory of the last steps and a line search.

    **Arguments:** `memory`: the number of steps that it remembers.
    """

    memory: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        if self.memory < 1:
            raise ValueError(f"Argument `memory` must be at least 1, but is {self.memory}.")


class SEARCH_RESULTS(eqx.Enumeration):
    """The outcome of a search from one start."""

    unfinished = "The steps were used up before the search converged. Allow more `max_steps`."
    converged = "Converged: the gradient is below `tol`."
    reached = "The loss reached `target`."
    stalled = (
        "The loss falls no further, though its gradient is above `tol`: at the limit of rounding, at a kink of the "
        "loss, or beside points where it is not finite."
    )
    failed = "The loss or its gradient is not finite. Start elsewhere, or narrow the bounds."
    infeasible = "No point was found where all constraints hold."


class Point(eqx.Module):
    """A point of the search with the loss there: `slope` is its gradient in s, `gradient` in u."""

    u: Float[Array, " n"]
    loss: Float[Array, ""]
    slope: Float[Array, " n"]
    gradient: Float[Array, " n"]

    def finite(self) -> Bool[Array, ""]:
        """Whether the loss and its gradient are finite."""
        return jnp.isfinite(self.loss) & jnp.all(jnp.isfinite(self.gradient))


class Search(eqx.Module):
    """One start on its way.

    - `at`: the last accepted point u; `best`: the one with the least loss.
    - `direction`, `length`: d and t of the next trial point, u + t d.
    - `lower`, `upper`: the bracket of t, between the longest trial that met the first condition and the shortest that
      did not.
    - `tries`: the trial points along d so far; `taken`: the accepted points; `evaluations`: of the loss.
    - `result`: the number of a member of `SEARCH_RESULTS`, 0 while the search goes on.
    - `memory`: the state of the optax transformation.
    """

    at: Point
    best: Point
    direction: Float[Array, " n"]
    length: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    tries: Int[Array, ""]
    taken: Int[Array, ""]
    evaluations: Int[Array, ""]
    result: Int[Array, ""]
    memory: Any


class History(eqx.Module):
    """Of one or many steps: the least loss so far, the largest derivative there, and whether the search was running."""

    loss: Float[Array, "*shape"]
    norm: Float[Array, "*shape"]
    running: Bool[Array, "*shape"]


class Verdict(eqx.Module):
    """The judgement of a trial point: whether it is accepted, whether the search ends, and else the next trial."""

    accept: Bool[Array, ""]
    stalled: Bool[Array, ""]
    failed: Bool[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    length: Float[Array, ""]


@lru_cache(maxsize=8)
def _limited_memory(memory: int):
    import optax

    return optax.lbfgs(memory_size=memory, linesearch=None)


def transformation(optimiser: Any):
    """The optax transformation of an optimiser."""
    import optax

    if isinstance(optimiser, LBFGS):
        return _limited_memory(optimiser.memory)
    return optax.with_extra_args_support(optimiser)


def begin(u: Float[Array, "c n"], optimiser: Any) -> Search:
    """The searches from these starts, before their first step."""
    memory_of = transformation(optimiser).init

    def one(u):
        zero, count = jnp.zeros((), u.dtype), jnp.zeros((), jnp.int32)
        infinite = jnp.full_like(zero, jnp.inf)
        nowhere = Point(u, infinite, jnp.zeros_like(u), jnp.zeros_like(u))
        return Search(
            at=nowhere,
            best=nowhere,
            direction=jnp.zeros_like(u),
            length=zero,
            lower=zero,
            upper=infinite,
            tries=count,
            taken=count,
            evaluations=count,
            result=count,
            memory=memory_of(u),
        )

    return jax.vmap(one)(u)


def scalar_loss(loss: Callable, model: Any, shapes: tuple, x: Float[Array, " n"]) -> Any:
    """The loss at x, as `loss` returns it."""
    built = put(model, shapes, x)
    return loss(*built) if isinstance(built, tuple) else loss(built)


@eqx.filter_jit
def advance(
    search: Search,
    loss: Any,
    model: Any,
    shapes: tuple,
    box: Box,
    optimiser: Any,
    tol: Float[Array, ""],
    target: Float[Array, ""],
    allowed: Int[Array, ""],
    length: int,
) -> tuple[Search, History, Int[Array, ""]]:
    """At most `length` more steps, and not beyond `allowed`: the searches, their history, and the steps done."""
    point = partial(_point, loss, model, shapes, box)
    step = jax.vmap(partial(_step, point=point, optimiser=optimiser, tol=tol, target=target))

    def going(carry):
        search, _, k = carry
        return jnp.any(search.result == 0) & (k < length) & (k < allowed)

    def one_step(carry):
        search, history, k = carry
        running = search.result == 0
        search = _where(running, step(search), search)
        norm = jnp.max(jnp.abs(search.best.gradient), axis=1)
        new = History(search.best.loss, norm, running)
        history = jax.tree_util.tree_map(lambda rows, row: rows.at[k].set(row), history, new)
        return search, history, k + 1

    empty = jnp.zeros((length, *search.best.loss.shape), search.best.loss.dtype)
    history = History(empty, empty, jnp.zeros(empty.shape, bool))
    search, history, k = jax.lax.while_loop(
        going, one_step, (search, history, jnp.zeros((), jnp.int32))
    )
    return search, jax.tree_util.tree_map(jnp.transpose, history), k


def _point(loss, model, shapes, box, u) -> Point:
    """Returns the point u with the loss and its gradient."""

    def value(s):
        return jnp.asarray(scalar_loss(loss, model, shapes, box.physical(s)), s.dtype)

    s, ds = box.fold(u)
    f, slope = jax.value_and_grad(value)(s)
    return Point(u, f, slope, slope * ds)


def _where(condition, new, old):
    """The new leaves where the condition holds, the old ones elsewhere; it has the first axes of every leaf."""

    def choose(new, old):
        return jnp.where(jnp.expand_dims(condition, range(condition.ndim, new.ndim)), new, old)

    return jax.tree_util.tree_map(choose, new, old)


def _step(search: Search, *, point, optimiser, tol, target) -> Search:
    """Evaluates the loss once, at the trial point u + t d, and returns the search after it."""
    trial = point(search.at.u + search.length * search.direction)
    line_search = isinstance(optimiser, LBFGS)
    judge = _line_search if line_search else _always
    verdict = judge(search, trial)
    accept = verdict.accept
    direction, memory = _direction(search, trial, accept, optimiser, point)
    inner = 0 if line_search else _inner(memory)
    first = jnp.ones((), trial.loss.dtype)
    if line_search:
        direction, first = _downhill(direction, trial, search.evaluations == 0)
    at = _where(accept, trial, search.at)
    best = _where(accept & (trial.loss <= search.best.loss), trial, search.best)
    return Search(
        at=at,
        best=best,
        direction=jnp.where(accept, direction, search.direction),
        length=jnp.where(accept, first, verdict.length).astype(at.loss.dtype),
        lower=jnp.where(accept, 0.0, verdict.lower).astype(at.loss.dtype),
        upper=jnp.where(accept, jnp.inf, verdict.upper).astype(at.loss.dtype),
        tries=jnp.where(accept, 0, search.tries + 1),
        taken=search.taken + accept,
        evaluations=search.evaluations + 1 + inner,
        result=_result(verdict, best, tol, target),
        memory=_where(accept, memory, search.memory),
    )


def _always(search: Search, trial: Point) -> Verdict:
    """A first-order method accepts every trial point where the loss is finite, and fails at any other."""
    finite, never = trial.finite(), jnp.zeros((), bool)
    return Verdict(finite, never, ~finite, search.lower, search.upper, search.length)


def _line_search(search: Search, trial: Point) -> Verdict:
    r"""Accepts a trial point that meets the weak Wolfe conditions, up to the rounding error ε of the loss.

        f(u + t d) ≤ f(u) + c₁ t f'(u)·d + ε,        f'(u + t d)·d ≥ c₂ f'(u)·d.

    The first evaluation of a search is at its start, t = 0, and needs no condition.
    """
    at, length, first = search.at, search.length, search.evaluations == 0
    slope = jnp.vdot(at.gradient, search.direction)
    rounding = jnp.finfo(at.loss.dtype).eps * jnp.abs(at.loss)
    # four units in the last place, since the loss is a sum of rounded terms
    low = trial.finite() & (trial.loss <= at.loss + ARMIJO * length * slope + 4 * rounding)
    flat = jnp.vdot(trial.gradient, search.direction) >= WOLFE * slope
    accept = jnp.where(first, trial.finite(), low & (flat | (search.tries >= PATIENCE)))
    idle = ~first & (at.loss - trial.loss <= rounding)
    given_up = search.tries + 1 >= TRIES
    lower = jnp.where(low, length, search.lower)
    upper = jnp.where(low, search.upper, length)
    return Verdict(
        accept=accept,
        stalled=jnp.where(accept, idle, given_up),
        failed=~trial.finite() & first,
        lower=lower,
        upper=upper,
        length=_next_length(search, trial, slope, lower, upper),
    )


def _next_length(search: Search, trial: Point, slope, lower, upper) -> Float[Array, ""]:
    """The next t in the bracket: fourfold while it has no upper end, then by interpolation or bisection.

    The parabola through f(u), f'(u)·d and f(u + t d) has its minimum at −t² f'(u)·d / 2(f(u + t d) − f(u) − t f'(u)·d).
    It is used while no trial was short enough, between 1/10 and 1/2 of t.
    """
    length = search.length
    rise = trial.loss - search.at.loss - slope * length
    parabola = -slope * length**2 / (2 * jnp.where(rise > 0, rise, 1))
    parabola = jnp.clip(parabola, 0.1 * length, 0.5 * length)
    interpolate = (lower == 0) & trial.finite() & (rise > 0)
    inside = jnp.where(interpolate, parabola, (lower + upper) / 2)
    return jnp.where(jnp.isinf(upper), GROW * length, inside)


def _direction(search: Search, trial: Point, accept, optimiser, point) -> tuple[Any, Any]:
    """The direction from an accepted trial point, and the memory after it."""
    # a gradient that is not finite would spoil the memory: an update that is not accepted is made from 0
    gradient, loss = jnp.where(accept, trial.gradient, 0), jnp.where(accept, trial.loss, 0)

    def loss_at(u):
        return point(u).loss

    for_line_searches_of_optax: Any = {"value": loss, "grad": gradient, "value_fn": loss_at}
    extra = {} if isinstance(optimiser, LBFGS) else for_line_searches_of_optax
    return transformation(optimiser).update(gradient, search.memory, trial.u, **extra)


def _downhill(direction, trial: Point, first):
    """The direction and a first length along it: down the gradient at the start, or where the direction goes uphill."""
    steepest = jnp.max(jnp.abs(trial.gradient))
    restart = first | ~(jnp.vdot(direction, trial.gradient) < 0)
    short = FIRST / jnp.where(steepest > 0, steepest, 1)
    return jnp.where(restart, -trial.gradient, direction), jnp.where(restart, short, 1.0)


def _result(verdict: Verdict, best: Point, tol, target) -> Int[Array, ""]:
    """The number of a search's result, 0 while it goes on; of several that hold, the last one here counts."""
    norm = jnp.max(jnp.abs(best.gradient))
    result = jnp.zeros((), jnp.int32)
    for condition, name in (
        (verdict.stalled, SEARCH_RESULTS.stalled),
        (verdict.accept & (norm <= tol), SEARCH_RESULTS.converged),
        (verdict.accept & (best.loss <= target), SEARCH_RESULTS.reached),
        (verdict.failed, SEARCH_RESULTS.failed),
    ):
        result = jnp.where(condition, name._value, result)
    return result


def _inner(memory):
    """The evaluations in the line search of an optax method that has one."""
    import optax

    steps = optax.tree.get(memory, "num_linesearch_steps", None)
    return jnp.zeros((), jnp.int32) if steps is None else jnp.asarray(steps, jnp.int32)
