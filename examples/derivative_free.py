"""Evaluations to the same loss: by gradients, and by differential evolution, Nelder-Mead and a genetic algorithm.

Used by the examples and by `python -m benchmarks.design`. A solve is one evaluation of the loss; in a search by
gradients, one evaluation with its gradient. The searches without derivatives see the loss in the scaled coordinates s
of its free numbers, 0 to 1 between the bounds, begin at the same start, and end at a target loss or after a number of
evaluations.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import differential_evolution, minimize

import jaxres as jr
from jaxres._design.prepare import Prepared, prepare
from jaxres._design.search import scalar_loss

BATCH = 16  # of points with few numbers; others are large enough to fill a cache alone
#: the searches by gradients
OPTIMISERS = {
    "SLSQP": jr.SciPy("SLSQP"),
    "L-BFGS-B": jr.SciPy("L-BFGS-B"),
    "LBFGS": jr.LBFGS(),
}


class _Enough(Exception):
    pass


class Counted:
    """The loss of a prepared design for batches of s, which counts its evaluations and ends at a target or a limit."""

    def __init__(self, ready: Prepared, target: float, limit: int):
        loss, model, shapes, box = ready.pieces

        @eqx.filter_jit
        def batch(loss, model, box, s):
            return jax.vmap(lambda s: scalar_loss(loss, model, shapes, box.physical(s)))(s)

        self._batch = lambda s: batch(loss, model, box, s)
        self.target, self.limit = target, limit
        self.again()

    def again(self) -> None:
        """Forgets what was counted."""
        self.evaluations, self.best = 0, np.inf

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Losses of points, shape (k, n), in batches of one size (or single), so that they are compiled once."""
        values, size = [], BATCH if len(s) > 1 and s.shape[1] <= BATCH else 1
        for i in range(0, len(s), size):
            part = np.clip(s[i : i + size], 0, 1)
            full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            found = np.asarray(self._batch(jnp.asarray(full)))[: len(part)]
            for value in np.where(np.isfinite(found), found, 1e6):
                self.evaluations += 1
                self.best = min(self.best, value)
                values.append(value)
                if self.best <= self.target or self.evaluations >= self.limit:
                    raise _Enough
        return np.asarray(values)

    def one(self, s: np.ndarray) -> float:
        """The loss at one point."""
        return float(self(s[None])[0])


def nelder_mead(loss: Counted, start: np.ndarray, seed: int) -> None:
    """SciPy's, adaptive; begun again from where it ended."""
    at = start
    while True:
        at = minimize(
            loss.one,
            at,
            method="Nelder-Mead",
            bounds=[(0, 1)] * len(at),
            options={"adaptive": True, "xatol": 1e-10, "fatol": 1e-14, "maxfev": loss.limit},
        ).x


def evolution(loss: Counted, start: np.ndarray, seed: int) -> None:
    """SciPy's differential evolution, a population of at most 15 n, without polishing."""
    while True:
        differential_evolution(
            lambda s: loss(s.T) if s.ndim == 2 else loss.one(s),
            [(0, 1)] * len(start),
            x0=start,
            popsize=15 if len(start) < 16 else 2,
            vectorized=True,
            updating="deferred",
            polish=False,
            tol=0,
            maxiter=10**6,
            rng=seed,
        )


def genetic(loss: Counted, start: np.ndarray, seed: int) -> None:
    """A genetic algorithm: tournaments of two, blended parents, Gaussian mutations that shrink, an elite of two."""
    rng = np.random.default_rng(seed)
    count, n = 48, len(start)
    population = np.concatenate([start[None], rng.uniform(size=(count - 1, n))])
    fitness = loss(population)
    generation = 0
    while True:
        pairs = rng.integers(count, size=(2, 2, count - 2))
        winners = np.where(fitness[pairs[:, 0]] < fitness[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        mix = rng.uniform(-0.25, 1.25, size=(count - 2, n))
        children = mix * population[winners[0]] + (1 - mix) * population[winners[1]]
        mutated = rng.uniform(size=children.shape) < max(0.15, 1 / n)
        width = 0.2 * 0.99**generation
        children = np.clip(children + mutated * rng.normal(scale=width, size=children.shape), 0, 1)
        elite = np.argsort(fitness)[:2]
        fitness = np.concatenate([fitness[elite], loss(children)])
        population = np.concatenate([population[elite], children])
        generation += 1


METHODS: dict[str, Callable] = {
    "genetic algorithm": genetic,
    "differential evolution": evolution,
    "Nelder-Mead": nelder_mead,
}


def without_gradients(
    ready: Prepared, target: float, limit: int, seeds: int = 1
) -> dict[str, tuple[int, float]]:
    """The median over seeds, for each method, of the evaluations to the target, and the loss it came to."""
    loss = Counted(ready, target, limit)
    found = {}
    for name, method in METHODS.items():
        runs = []
        for seed in range(1 if method is nelder_mead else seeds):
            loss.again()
            try:
                method(loss, np.asarray(ready.starts[0]), seed)
            except _Enough:
                runs.append((loss.evaluations, loss.best))
        found[name] = sorted(runs)[len(runs) // 2]
    return found


def compare(
    problem: Mapping[str, Any],
    optimisers: Mapping[str, Any],
    margin: float,
    *,
    max_steps: int = 300,
    starts: int = 1,
    times: int = 100,
    seeds: int = 1,
) -> dict[str, int]:
    """Prints how many evaluations each search needs from the start to the least loss found by gradients, plus `margin`.

    **Arguments:**

    - `problem`: the arguments `loss`, `start` and `bounds` of `jaxres.design`.
    - `optimisers`: those that use gradients, by name.
    - `margin`: how far above the least loss a search may end.
    - `max_steps`: evaluations allowed to those, from each start.
    - `starts`: theirs. The evaluations of all count. The others begin at the first.
    - `times`: evaluations allowed to the others, as a multiple of the fewest by gradients.
    - `seeds`: runs of the random ones, of which the median is told.

    **Returns:** the evaluations, of those that came so far.
    """
    found = {
        name: jr.design(
            **problem,
            optimiser=optimiser,
            max_steps=max_steps,
            starts=starts,
            tol=1e-9,
            progress=False,
        )
        for name, optimiser in optimisers.items()
    }
    target = min(each.loss for each in found.values()) + margin
    ready = prepare(**problem)
    begin = float(Counted(ready, -np.inf, 10).one(np.asarray(ready.starts[0])))
    print(f"loss from {begin:.9g} to {target:.9g}, {margin:.0e} above the least")
    counts = {}
    for name, each in found.items():
        if each.loss <= target:
            counts[name] = _until(each, target, isinstance(optimisers[name], jr.SciPy))
            print(f"  {name:30} {counts[name]:7} evaluations with gradient")
        else:
            print(f"  {name:30} not reached: {each.result} at {each.loss - target + margin:.1e}")
    fewest = min(counts.values())
    for name, (count, best) in without_gradients(ready, target, times * fewest, seeds).items():
        if best <= target:
            counts[name] = count
            print(
                f"  {name:30} {count:7} evaluations, {count / fewest:.3g} times as many", flush=True
            )
        else:
            above = best - target + margin
            print(
                f"  {name:30} {count:7} evaluations do not do: {above:.1e} above the least",
                flush=True,
            )
    return counts


def _until(found: jr.Design, target: float, in_turn: bool) -> int:
    """Evaluations until the target was reached: from one start after the other, or from all at once."""
    history = found.history["loss"]
    lengths = np.sum(np.isfinite(history), axis=1)
    below = np.nan_to_num(history, nan=np.inf) <= target
    first = np.where(np.any(below, axis=1), 1 + np.argmax(below, axis=1), history.shape[1] + 1)
    if in_turn:
        start = int(np.argmax(np.any(below, axis=1)))
        return int(np.sum(lengths[:start]) + first[start])
    return int(np.sum(np.minimum(lengths, np.min(first))))


def cost_of_gradient(problem: Mapping[str, Any], repeats: int = 25) -> float:
    """How many losses a loss with its gradient takes, in time, one point at a time."""
    ready = prepare(**problem)
    loss, model, shapes, box = ready.pieces

    def value(s, loss, model, box):
        return scalar_loss(loss, model, shapes, box.physical(s))

    seconds = []
    for function in (eqx.filter_jit(value), eqx.filter_jit(eqx.filter_value_and_grad(value))):
        each = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            jax.block_until_ready(function(ready.starts[0], loss, model, box))
            each.append(time.perf_counter() - begin)
        seconds.append(min(each[1:]))
    return float(seconds[1] / seconds[0])
