"""Searches without derivatives, counted in solves: differential evolution, Nelder-Mead, a genetic algorithm.

All see the loss of a design in the scaled coordinates s of its free numbers, 0 to 1 between the bounds, begin at the
same start, and end at a target loss or after a number of solves. A solve is one evaluation of the loss; in the search
by gradients, one evaluation with its gradient.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import differential_evolution, minimize

from jaxres._design._drive import Prepared
from jaxres._design._search import scalar_loss

BATCH = 16


class _Enough(Exception):
    pass


class Counted:
    """The loss of a prepared design for batches of s, which counts its solves and ends at a target or a limit."""

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
        self.solves, self.best = 0, np.inf

    def __call__(self, s: np.ndarray) -> np.ndarray:
        """Losses of points, shape (k, n), in batches of one size (or single), so that they are compiled once."""
        values, size = [], BATCH if len(s) > 1 else 1
        for i in range(0, len(s), size):
            part = np.clip(s[i : i + size], 0, 1)
            full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            found = np.asarray(self._batch(jnp.asarray(full)))[: len(part)]
            for value in np.where(np.isfinite(found), found, 1e6):
                self.solves += 1
                self.best = min(self.best, value)
                values.append(value)
                if self.best <= self.target or self.solves >= self.limit:
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


def compare(
    ready: Prepared, target: float, limit: int, seed: int = 0
) -> dict[str, tuple[int, float]]:
    """Solves that each method needs to the target, and the loss it came to."""
    loss = Counted(ready, target, limit)
    found = {}
    for name, method in METHODS.items():
        loss.again()
        try:
            method(loss, np.asarray(ready.starts[0]), seed)
        except _Enough:
            pass
        found[name] = (loss.solves, loss.best)
    return found
