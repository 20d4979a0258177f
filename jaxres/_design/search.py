r"""The search: many starts at once, each with a gradient at every step.

A step evaluates the loss and its gradient once for every start, at a trial point u + t d. With a first-order method of
optax the trial point is always taken. With `LBFGS` it is taken where the weak Wolfe conditions hold,

    f(u + t d) ≤ f(u) + c₁ t f'(u)·d,        f'(u + t d)·d ≥ c₂ f'(u)·d,

else the next step tries another t, by interpolation, bisection, or fourfold (Lewis and Overton, Math. Program. 141, 135
(2013)). So each start goes its own way, none waits for the line search of another, and the loss is compiled once. A
trial point where the loss is not finite counts as too far.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .free import Box, put

ARMIJO, WOLFE = 1e-4, 0.9
#: the largest change of a coordinate in a first trial, where nothing is known about how the loss bends
FIRST = 0.2
#: factor of a trial that was too short
GROW = 4.0
#: trial points along one direction, and those of them for which the second condition holds
TRIES, PATIENCE = 30, 8


class LBFGS(eqx.Module):
    """The quasi-Newton method of limited memory, with optax's memory of the last steps and a line search.

    **Arguments:** `memory`: steps remembered.
    """

    memory: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        if self.memory < 1:
            raise ValueError(f"Argument `memory` must be at least 1, but is {self.memory}.")


class SEARCH_RESULTS(eqx.Enumeration):
    """What became of a search from one start."""

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
        """Whether there is a loss and a gradient."""
        return jnp.isfinite(self.loss) & jnp.all(jnp.isfinite(self.gradient))


class Search(eqx.Module):
    """One start on its way."""

    at: Point
    best: Point
    direction: Float[Array, " n"]
    length: Float[Array, ""]
    least: Float[Array, ""]
    most: Float[Array, ""]
    tries: Int[Array, ""]
    taken: Int[Array, ""]
    evaluations: Int[Array, ""]
    result: Int[Array, ""]
    memory: Any


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
    tx = transformation(optimiser)

    def one(u):
        zero, count = jnp.zeros((), u.dtype), jnp.zeros((), jnp.int32)
        nowhere = Point(u, jnp.full_like(zero, jnp.inf), jnp.zeros_like(u), jnp.zeros_like(u))
        return Search(
            at=nowhere,
            best=nowhere,
            direction=jnp.zeros_like(u),
            length=zero,
            least=zero,
            most=jnp.full_like(zero, jnp.inf),
            tries=count,
            taken=count,
            evaluations=count,
            result=count,
            memory=tx.init(u),
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
) -> tuple[
    Search, tuple[Float[Array, "c k"], Float[Array, "c k"], Bool[Array, "c k"]], Int[Array, ""]
]:
    """At most `length` more steps, and not beyond `allowed`: the searches, their history, and the steps done.

    The history is the loss, the norm of the gradient, and whether the search was still going.
    """

    def point(u):
        def value(s):
            out = scalar_loss(loss, model, shapes, box.physical(s))
            return jnp.asarray(out, s.dtype)

        s, ds = box.fold(u)
        f, slope = jax.value_and_grad(value)(s)
        return Point(u, f, slope, slope * ds)

    def value_of(u):
        return point(u).loss

    step = jax.vmap(lambda each: _step(each, point, value_of, optimiser, tol, target))
    count = search.evaluations.shape[0]
    empty = jnp.zeros((length, count), search.best.loss.dtype)

    def going(carry):
        search, _, _, _, k = carry
        running = jnp.any(search.result == 0)
        return running & (k < length) & (k < allowed)

    def body(carry):
        search, losses, norms, going, k = carry
        new = step(search)
        kept = search.result == 0
        search = jax.tree_util.tree_map(
            lambda a, b: jnp.where(kept.reshape(kept.shape + (1,) * (a.ndim - 1)), a, b),
            new,
            search,
        )
        norm = jnp.max(jnp.abs(search.best.gradient), axis=1)
        losses, norms = losses.at[k].set(search.best.loss), norms.at[k].set(norm)
        return search, losses, norms, going.at[k].set(kept), k + 1

    begun = search, empty, empty, jnp.zeros(empty.shape, bool), jnp.zeros((), jnp.int32)
    search, *history, k = jax.lax.while_loop(going, body, begun)
    losses, norms, kept = (x.T for x in history)
    return search, (losses, norms, kept), k


def _step(search: Search, point, value_of, optimiser, tol, target) -> Search:
    tx, with_search = transformation(optimiser), isinstance(optimiser, LBFGS)
    at = search.at
    trial = point(at.u + search.length * search.direction)
    finite = trial.finite()
    fresh = search.evaluations == 0

    if with_search:
        slope = jnp.vdot(at.gradient, search.direction)
        noise = 4 * jnp.finfo(at.loss.dtype).eps * jnp.abs(at.loss)
        low = trial.loss <= at.loss + ARMIJO * search.length * slope + noise
        near = finite & low
        flat = jnp.vdot(trial.gradient, search.direction) >= WOLFE * slope
        # beside a wall or a singularity no point need be flat: then a lower one will do
        patient = search.tries < PATIENCE
        accept = jnp.where(fresh, finite, near & (flat | ~patient))
        # between two accepted points the loss must fall by more than rounding
        idle = ~fresh & (at.loss - trial.loss <= noise / 4)
        least = jnp.where(near, search.length, search.least)
        most = jnp.where(near, search.most, search.length)
        # the parabola through the two values and the first slope, for the first trial that went too far
        dip = trial.loss - at.loss - slope * search.length
        bowl = -slope * search.length**2 / (2 * jnp.where(dip > 0, dip, 1))
        bowl = jnp.clip(bowl, 0.1 * search.length, 0.5 * search.length)
        halved = jnp.where((least == 0) & finite & (dip > 0), bowl, (least + most) / 2)
        # a slope that has hardly changed over the trial promises that the minimum is ten times as far
        length = jnp.where(jnp.isinf(most), GROW * search.length, halved)
        lost = search.tries + 1 >= TRIES
    else:
        accept, idle, lost = finite, jnp.zeros((), bool), jnp.zeros((), bool)
        least, most, length = search.least, search.most, search.length

    # an update from a gradient that is not finite would spoil the memory: it is not used then
    gradient = jnp.where(accept, trial.gradient, 0)
    value = jnp.where(accept, trial.loss, 0)
    extra = {} if with_search else {"value": value, "grad": gradient, "value_fn": value_of}
    direction: Any
    direction, memory = tx.update(gradient, search.memory, trial.u, **extra)
    start = jnp.ones((), at.loss.dtype)
    if with_search:
        blind = fresh | ~(jnp.vdot(direction, trial.gradient) < 0)
        direction = jnp.where(blind, -trial.gradient, direction)
        steepest = jnp.max(jnp.abs(trial.gradient))
        start = jnp.where(blind, FIRST / jnp.where(steepest > 0, steepest, 1), start)

    def pick(a, b):
        return jax.tree_util.tree_map(lambda x, y: jnp.where(accept, x, y), a, b)

    at = pick(trial, at)
    better = accept & (trial.loss <= search.best.loss)
    best = jax.tree_util.tree_map(lambda x, y: jnp.where(better, x, y), trial, search.best)
    norm = jnp.max(jnp.abs(best.gradient))
    failed = ~finite & fresh if with_search else ~finite
    result = jnp.zeros((), jnp.int32)
    for condition, name in (
        ((accept & idle) | (lost & ~accept), SEARCH_RESULTS.stalled),
        (accept & (norm <= tol), SEARCH_RESULTS.converged),
        (accept & (best.loss <= target), SEARCH_RESULTS.reached),
        (failed, SEARCH_RESULTS.failed),
    ):
        result = jnp.where(condition, name._value, result)
    return Search(
        at=at,
        best=best,
        direction=jnp.where(accept, direction, search.direction),
        length=jnp.where(accept, start, length).astype(at.loss.dtype),
        least=jnp.where(accept, 0.0, least).astype(at.loss.dtype),
        most=jnp.where(accept, jnp.inf, most).astype(at.loss.dtype),
        tries=jnp.where(accept, 0, search.tries + 1),
        taken=search.taken + accept,
        evaluations=search.evaluations + 1 + (0 if with_search else _inner(memory)),
        result=result,
        memory=pick(memory, search.memory),
    )


def _inner(memory):
    """Solves in the line search of an optax method that has one."""
    import optax

    steps = optax.tree.get(memory, "num_linesearch_steps", None)
    return jnp.zeros((), jnp.int32) if steps is None else jnp.asarray(steps, jnp.int32)
